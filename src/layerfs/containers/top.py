"""The processes of a container, as ``ps`` on the host shows them."""

import os
import pwd
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from layerfs.errors import InvalidInputError, LayerfsError, UnsupportedError

__all__ = ["Processes", "processes"]

_TITLES = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")


class Processes(msgspec.Struct, frozen=True):
    """A table: titles, and a row of as many words for each process."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def processes(pids: Sequence[int], ps_args: Sequence[str] = ()) -> Processes:
    """Those of ``pids`` that are there; ``ps_args`` go to the host's ``ps``, whose output must have a PID column."""
    if not ps_args:
        rows = [row for pid in pids if (row := _row(pid)) is not None]
        return Processes(_TITLES, tuple(rows))
    try:
        import subprocess  # nobody else who lists containers needs it

        done = subprocess.run(["ps", *ps_args], capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise UnsupportedError("top: the host has no ps; leave its arguments out") from None
    if done.returncode:
        raise LayerfsError(f"top: ps {' '.join(ps_args)}: {done.stderr.strip() or 'failed'}")
    lines = done.stdout.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidInputError("top: the arguments of ps leave the PID column out")
    at, wanted = titles.index("PID"), {str(pid) for pid in pids}
    rows_ = [tuple(line.split(None, len(titles) - 1)) for line in lines[1:]]
    return Processes(tuple(titles), tuple(row for row in rows_ if len(row) > at and row[at] in wanted))


def _row(pid: int) -> tuple[str, ...] | None:
    with suppress(OSError):
        place = Path(f"/proc/{pid}")
        fields = (place / "stat").read_text(errors="replace").rpartition(")")[2].split()
        uid = place.stat().st_uid
        command = (place / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        if not command:
            command = f"[{(place / 'comm').read_text(errors='replace').strip()}]"
        ticks = os.sysconf("SC_CLK_TCK")
        used = (int(fields[11]) + int(fields[12])) // ticks
        began = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[19]) / ticks
        age = max(1.0, time.time() - began)
        return (
            _user(uid),
            str(pid),
            fields[1],
            str(min(99, int(100 * used / age))),
            time.strftime("%H:%M" if age < 86400 else "%b%d", time.localtime(began)),
            _terminal(int(fields[4])),
            f"{used // 3600:02}:{used // 60 % 60:02}:{used % 60:02}",
            command,
        )
    return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _terminal(number: int) -> str:
    if not number:
        return "?"
    return f"pts/{os.minor(number)}" if os.major(number) in range(136, 144) else f"tty{os.minor(number)}"
