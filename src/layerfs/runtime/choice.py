"""Which runtime runs containers: the one that is named, or for ``auto`` the first of crun and runc that really works.

That a program is installed says little: it is tried once with a container of its own, and the answer is kept for
this boot in ``RUN/runtimes.json``.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from layerfs.errors import LayerfsError, NotFoundError
from layerfs.fsutil import boot_id, write_atomic

if TYPE_CHECKING:  # each is imported where it is the one that is wanted
    from layerfs.runtime.spec import Runtime
    from layerfs.runtime.standard import StandardRuntime

__all__ = ["RuntimeChoice", "Runtimes"]

_STANDARD = ("crun", "runc")


class RuntimeChoice(msgspec.Struct, frozen=True):
    """What ``auto`` takes, and for each candidate in order why it was taken or not."""

    name: str
    reasons: dict[str, str]


class _Record(msgspec.Struct, frozen=True):
    """``runtimes.json``."""

    key: list[str]
    name: str
    reasons: dict[str, str]


class Runtimes:
    """Finds runtimes; ``run`` is the store's run directory."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._choice: RuntimeChoice | None = None

    def get(self, name: str = "auto") -> Runtime:
        """The runtime ``auto``, ``builtin``, ``crun``, ``runc`` or of a path; NotFoundError when it is not there."""
        if name == "auto":
            name = self.choice().name
        if name == "builtin":
            from layerfs.runtime.builtin import BuiltinRuntime

            return BuiltinRuntime(self._run)
        program = _which(name)
        if program is None:
            raise NotFoundError(
                f"runtime {name}: not found", hint="known are auto, builtin, crun, runc or a path; or install it"
            )
        from layerfs.runtime.standard import StandardRuntime

        return StandardRuntime(program, self._run)

    def choice(self) -> RuntimeChoice:
        """What ``auto`` means on this host, and why."""
        if self._choice is None:
            self._choice = self._recorded() or self._probe()
        return self._choice

    def _key(self) -> list[str]:
        """What the answer depends on."""
        found = [_which(name) for name in _STANDARD]
        return [boot_id(), *(f"{path} {os.stat(path).st_mtime_ns}" if path else "" for path in found)]

    def _recorded(self) -> RuntimeChoice | None:
        with suppress(OSError, msgspec.DecodeError):
            record = msgspec.json.decode((self._run / "runtimes.json").read_bytes(), type=_Record)
            if record.key == self._key():
                return RuntimeChoice(record.name, record.reasons)
        return None

    def _probe(self) -> RuntimeChoice:
        reasons: dict[str, str] = {}
        chosen = "builtin"
        if os.geteuid() != 0:
            return RuntimeChoice("builtin", {"builtin": "the one that runs containers without privilege"})
        from layerfs.runtime.standard import StandardRuntime

        for name in _STANDARD:
            program = _which(name)
            problem = "not installed" if program is None else _try(StandardRuntime(program, self._run), self._run)
            reasons[name] = problem or "works"
            if problem is None:
                chosen = name
                break
        if chosen == "builtin":
            reasons["builtin"] = "no standard runtime works here"
        with suppress(LayerfsError):  # an answer that cannot be kept is found again
            record = _Record(self._key(), chosen, reasons)
            write_atomic(self._run / "runtimes.json", msgspec.json.encode(record), durable=False)
        return RuntimeChoice(chosen, reasons)


def _which(name: str) -> str | None:
    """Where a program is; a name with a slash is a path."""
    places = [name] if "/" in name else [os.path.join(place, name) for place in os.get_exec_path()]
    return next((path for path in places if os.path.isfile(path) and os.access(path, os.X_OK)), None)


def _try(runtime: StandardRuntime, run: Path) -> str | None:
    """Run a container whose root is the host's, read-only, with the program itself as its command; what is wrong."""
    import subprocess  # a choice that is kept needs none of these

    from layerfs import native
    from layerfs.runtime.spec import RunSpec
    from layerfs.runtime.user import User

    spec = RunSpec(
        id=f"probe-{os.getpid()}-{runtime.name}", args=(runtime.program, "--version"), env=(), cwd="/", user=User(),
        hostname="probe", capabilities=0, readonly=True, network="none",
    )  # fmt: skip
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        root = native.bind_mount(-100, "/", recursive=False, readonly=True)
        try:
            child = runtime.start(spec, root, (null, null, null))
            try:
                code = child.wait()
            finally:
                child.close()
        finally:
            os.close(root)
    except (LayerfsError, subprocess.SubprocessError) as exc:
        return str(exc).partition(f"{runtime.name}: ")[2] or str(exc)
    finally:
        os.close(null)
    return None if code == 0 else f"a first container ended with code {code}"
