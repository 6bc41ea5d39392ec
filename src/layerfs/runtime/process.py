"""Processes told from one another: by number, time of start and boot of the machine together."""

import errno
import os
import select
import signal
from contextlib import suppress

import msgspec

from layerfs.fsutil import boot_id

__all__ = [
    "Identity",
    "exit_code",
    "identify",
    "is_alive",
    "open_process",
    "signal_number",
    "signal_process",
    "wait_gone",
]


class Identity(msgspec.Struct, frozen=True):
    """What names one process for good: numbers are used again, and start anew with the machine."""

    pid: int
    start_time: int
    boot_id: str


def identify(pid: int) -> Identity | None:
    """The identity of a process that runs now; None when there is none, or only its zombie."""
    start = _start_time(pid)
    return Identity(pid, start, boot_id()) if start is not None else None


def is_alive(identity: Identity) -> bool:
    """Whether that very process runs."""
    return _start_time(identity.pid) == identity.start_time and boot_id() == identity.boot_id


def _start_time(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name stands in parentheses and may have any byte in it.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[19]) if fields[0] not in (b"Z", b"X") else None


def open_process(pid: int) -> int:
    """A pidfd.  Raises ProcessLookupError when there is no such process any more."""
    try:
        return os.pidfd_open(pid)
    except OSError as exc:
        # EINVAL is the answer before Linux 6.9 while the process is being reaped: the number stands for nothing now.
        if exc.errno == errno.EINVAL:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
        raise


def signal_process(identity: Identity, number: int) -> bool:
    """Send a signal to that very process; whether it was there."""
    with suppress(ProcessLookupError):
        fd = open_process(identity.pid)
        try:
            # The descriptor holds the number: what is alive and the same now is what gets the signal.
            if is_alive(identity):
                signal.pidfd_send_signal(fd, number)
                return True
        finally:
            os.close(fd)
    return False


def wait_gone(identity: Identity, timeout: float | None) -> bool:
    """Wait until that process, of whatever parent, has ended; whether it has."""
    try:
        fd = open_process(identity.pid)
    except ProcessLookupError:
        return True
    try:
        if not is_alive(identity):
            return True
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else max(0, round(timeout * 1000))))
    finally:
        os.close(fd)


def exit_code(result: os.waitid_result) -> int:
    """The code a shell would report: that of the command, or 128 and the signal that ended it."""
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status


def signal_number(text: str) -> int:
    """The number of a signal by name (KILL, SIGKILL, RTMIN+3) or number; ValueError."""
    if text.isdecimal():
        number = int(text)
    else:
        name = text.upper().removeprefix("SIG")
        base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
        number = int(signal.Signals[f"SIG{base}"]) if f"SIG{base}" in signal.Signals.__members__ else 0
        if sign:
            shift = int(offset) if offset.isdecimal() else 64
            number = number + shift if base == "RTMIN" else number - shift if base == "RTMAX" else 0
            number = number if signal.SIGRTMIN <= number <= signal.SIGRTMAX else 0
    if not 0 < number <= 64:
        raise ValueError(f"{text!r} is not a signal")
    return number
