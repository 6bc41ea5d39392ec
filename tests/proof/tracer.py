"""Runs a function in a process of its own and stops it at each system call that changes something.

``run`` forks; the child asks to be traced, installs a seccomp filter that lets all pass at full speed but the calls of
 ``CALLS``, and calls the function. At each of those a handler in the parent says what happens: ``None`` (go on),
``KILL`` (SIGKILL to all processes of the command, the call not being made), a negative number (the call is not made
and fails with that errno) or ``SHORT`` (a write takes half of what it was given).

All processes and threads that the child starts are traced as well. x86-64 alone. ``plain`` is the same untraced.
"""

import ctypes
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["KILL", "SHORT", "Call", "Result", "available", "plain", "run"]

KILL = "kill"
SHORT = "short"
Action = str | int | None

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_TRACEME, _CONT, _GETREGS, _SETREGS, _SYSCALL, _SETOPTIONS, _GETEVENTMSG = 0, 7, 12, 13, 24, 0x4200, 0x4201
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000  # sysgood fork vfork clone exec seccomp exitkill
_EVENT_SECCOMP = 7
_WALL = 0x40000000
_SUBREAPER = 36
_REGS = 27 * 8
_RAX, _ORIG_RAX = 10, 15
_ARGS = (14, 13, 12, 7, 9, 8)  # rdi rsi rdx r10 r8 r9

# name: (number, how its arguments name files). f: descriptor, p: path, a: directory descriptor and path, -: neither.
CALLS = {
    "write": (1, "f"),
    "pwrite64": (18, "f"),
    "writev": (20, "f"),
    "pwritev": (296, "f"),
    "pwritev2": (328, "f"),
    "sendfile": (40, "f"),
    "copy_file_range": (326, "--f"),
    "ftruncate": (77, "f"),
    "truncate": (76, "p"),
    "fallocate": (285, "f"),
    "fsync": (74, "f"),
    "fdatasync": (75, "f"),
    "syncfs": (306, "f"),
    "sync_file_range": (277, "f"),
    "open": (2, "p"),
    "creat": (85, "p"),
    "openat": (257, "a"),
    "openat2": (437, "a"),
    "rename": (82, "pp"),
    "renameat": (264, "aa"),
    "renameat2": (316, "aa"),
    "link": (86, "pp"),
    "linkat": (265, "aa"),
    "symlink": (88, "-p"),
    "symlinkat": (266, "-a"),
    "unlink": (87, "p"),
    "unlinkat": (263, "a"),
    "rmdir": (84, "p"),
    "mkdir": (83, "p"),
    "mkdirat": (258, "a"),
    "mknod": (133, "p"),
    "mknodat": (259, "a"),
    "chmod": (90, "p"),
    "fchmod": (91, "f"),
    "fchmodat": (268, "a"),
    "chown": (92, "p"),
    "fchown": (93, "f"),
    "lchown": (94, "p"),
    "fchownat": (260, "a"),
    "utimensat": (280, "a"),
    "setxattr": (188, "p"),
    "lsetxattr": (189, "p"),
    "fsetxattr": (190, "f"),
    "removexattr": (197, "p"),
    "fremovexattr": (199, "f"),
    "mount": (165, "!"),
    "umount2": (166, "!"),
    "move_mount": (429, "!"),
    "fsmount": (432, "!"),
    "fsconfig": (431, "!"),
    "open_tree": (428, "!"),
    "mount_setattr": (442, "!"),
    "pivot_root": (155, "!"),
}
_BY_NUMBER = {number: (name, kinds) for name, (number, kinds) in CALLS.items()}
_CREATING = os.O_CREAT | os.O_TRUNC
_WRITES = {"write": 2, "pwrite64": 2}  # the argument that is the length


def available() -> str:
    """Why it cannot be used here; empty where it can."""
    if os.uname().machine != "x86_64":
        return "the tracer knows x86-64 alone"
    if os.geteuid() != 0:
        return "needs root"
    return ""


@dataclass(frozen=True)
class Call:
    """A call that is about to be made: ``number`` counts those that the handler was asked about, from 0."""

    number: int
    name: str
    pid: int
    paths: tuple[str, ...]


@dataclass
class Result:
    """What came of it; ``code`` is None when it was killed, by us or itself. ``calls`` end with the one that the
    handler did something to."""

    code: int | None = None
    killed: bool = False
    out: str = ""
    err: str = ""
    calls: list[Call] = field(default_factory=list)


def _filter() -> bytes:
    """BPF: TRACE for the calls above, of ``open`` and ``openat`` those that create; all else is allowed."""
    load, jeq, jset, ret = 0x20, 0x15, 0x45, 0x06
    allow, trace = 0x7FFF0000, 0x7FF00000
    simple = [number for name, (number, _) in CALLS.items() if name not in ("open", "openat")]
    program = [(load, 0, 0, 0)]
    for number, argument in ((2, 1), (257, 2)):
        program += [(jeq, 0, 4, number), (load, 0, 0, 16 + 8 * argument), (jset, 0, 1, _CREATING)]
        program += [(ret, 0, 0, trace), (ret, 0, 0, allow)]
    for number in simple:
        program += [(jeq, 0, 1, number), (ret, 0, 0, trace)]
    program.append((ret, 0, 0, allow))
    return b"".join(struct.pack("<HBBI", code, yes, no, k) for code, yes, no, k in program)


_PROGRAM = _filter()


def _install() -> None:
    buffer = ctypes.create_string_buffer(_PROGRAM)
    program = struct.pack("<HxxxxxxQ", len(_PROGRAM) // 8, ctypes.addressof(buffer))
    if _libc.prctl(38, 1, 0, 0, 0) and os.geteuid():
        os._exit(99)
    if _libc.prctl(22, 2, ctypes.c_char_p(program), 0, 0):
        os._exit(99)


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Tracee:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._buffer = ctypes.create_string_buffer(_REGS)
        _ptrace(_GETREGS, pid, 0, ctypes.addressof(self._buffer))
        self.regs = list(struct.unpack("<27Q", self._buffer.raw))

    def arg(self, n: int) -> int:
        return self.regs[_ARGS[n]]

    def text(self, n: int) -> str:
        if not self.arg(n):  # as futimens(fd, ...) gives none
            return ""
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            data = b""
            at = self.arg(n)
            while b"\0" not in data and len(data) < 4096:
                memory.seek(at + len(data))
                data += memory.read(min(256, 4096 - (at + len(data)) % 4096))
        return os.fsdecode(data.split(b"\0", 1)[0])

    def open_how_flags(self) -> int:
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(self.arg(2))
            return int.from_bytes(memory.read(8), "little")

    def link(self, fd: int) -> str:
        fd &= 0xFFFFFFFF
        name = "cwd" if fd == 0xFFFFFF9C else f"fd/{fd}"
        try:
            return os.readlink(f"/proc/{self.pid}/{name}")
        except OSError:
            return ""

    def paths(self, kinds: str) -> tuple[str, ...]:
        found, n = [], 0
        for kind in kinds:
            if kind == "f":
                found.append(self.link(self.arg(n)))
            elif kind == "p":
                found.append(os.path.join(self.link(0xFFFFFF9C), self.text(n)))
            elif kind == "a":
                name = self.text(n + 1)
                found.append(os.path.normpath(os.path.join(self.link(self.arg(n)), name)))
                n += 1
            n += 1
        return tuple(found)

    def store(self) -> None:
        self._buffer.raw = struct.pack("<27Q", *self.regs)
        _ptrace(_SETREGS, self.pid, 0, ctypes.addressof(self._buffer))

    def fail(self, number: int) -> None:
        self.regs[_ORIG_RAX] = (1 << 64) - 1
        self.regs[_RAX] = (1 << 64) - number
        self.store()

    def shorten(self, n: int) -> None:
        self.regs[_ARGS[n]] = max(1, self.regs[_ARGS[n]] // 2)
        self.store()


def run(
    function: Callable[[], int],
    handler: Callable[[Call], Action],
    place: Path,
    *,
    scratch: Path,
    only_first: bool = False,
    seconds: float = 60.0,
) -> Result:
    """Call ``function`` in a process of its own; ``handler`` is asked about the calls that touch ``place``.

    The caller must have no other children. ``only_first`` kills no more than the process that made the call.
    """
    result = Result()
    outputs = _outputs(scratch)
    pid = os.fork()
    if pid == 0:
        _child(function, outputs)
    os.waitpid(pid, _WALL)
    _ptrace(_SETOPTIONS, pid, 0, _OPTIONS)
    _ptrace(_CONT, pid)
    _Loop(pid, handler, str(place), result, only_first, time.monotonic() + seconds).go()
    result.out, result.err = (path.read_text(errors="surrogateescape") for path in outputs)
    return result


def plain(function: Callable[[], int], *, scratch: Path, seconds: float = 60.0) -> Result:
    """Call ``function`` in a process of its own and wait for all that it starts, without looking at any call.

    The caller must have no other children. Raises TimeoutError.
    """
    outputs = _outputs(scratch)
    _libc.prctl(_SUBREAPER, 1, 0, 0, 0)  # what becomes an orphan is ours to wait for
    result = Result()
    pid = os.fork()
    if pid == 0:
        _child(function, outputs, traced=False)
    end = time.monotonic() + seconds
    try:
        with suppress(ChildProcessError):
            while True:
                ended, status = os.waitpid(-1, os.WNOHANG)
                if ended == pid:
                    result.code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
                elif not ended:
                    if time.monotonic() > end:
                        os.kill(pid, signal.SIGKILL)
                        raise TimeoutError(f"it, or what it has started, runs for {seconds} seconds")
                    time.sleep(0.001)
    finally:
        _libc.prctl(_SUBREAPER, 0, 0, 0, 0)
    result.out, result.err = (path.read_text(errors="surrogateescape") for path in outputs)
    return result


def _outputs(scratch: Path) -> list[Path]:
    sys.stdout.flush()
    sys.stderr.flush()
    return [scratch / "stdout", scratch / "stderr"]


def _child(function: Callable[[], int], outputs: list[Path], *, traced: bool = True) -> None:
    code = 98
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, path in enumerate(outputs, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout = open(1, "w", closefd=False)
        sys.stderr = open(2, "w", closefd=False)
        if traced:
            _ptrace(_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            _install()
        code = function()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        with suppress(Exception):
            traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(code)


class _Loop:
    def __init__(
        self,
        pid: int,
        handler: Callable[[Call], Action],
        place: str,
        result: Result,
        only_first: bool,
        deadline: float,
    ) -> None:
        self.root, self.handler, self.place, self.result = pid, handler, place, result
        self.only_first, self.deadline = only_first, deadline
        self.known = {pid}
        self.done = False  # the handler has done what it wanted: the rest is let pass unseen

    def go(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, _WALL | os.WNOHANG)
                if not pid:  # almost always something has happened already
                    pid, status = self._wait()
            except ChildProcessError:
                return
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                self.known.discard(pid)
                if pid == self.root:
                    self.result.code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
                continue
            self.known.add(pid)
            with suppress(ProcessLookupError):
                self._stopped(pid, status)

    def _wait(self) -> tuple[int, int]:
        if time.monotonic() > self.deadline:
            self._kill_all()
            self.deadline = float("inf")
            self.result.err += "the tracer's time is over\n"
        signal.setitimer(signal.ITIMER_REAL, 5)
        signal.signal(signal.SIGALRM, lambda *_: self._late())
        try:
            return os.waitpid(-1, _WALL)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _late(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 5)
        if time.monotonic() > self.deadline:
            self.result.err += "the tracer's time is over\n"
            self._kill_all()

    def _stopped(self, pid: int, status: int) -> None:
        number, event = os.WSTOPSIG(status), status >> 16
        if event == _EVENT_SECCOMP and not self.done:
            self._call(pid)
            return
        # Stops of ptrace itself are no signals for the process; the first stop of a new one is SIGSTOP.
        passed = 0 if event or number in (signal.SIGTRAP, signal.SIGTRAP | 0x80, signal.SIGSTOP) else number
        _ptrace(_CONT, pid, 0, passed)

    def _call(self, pid: int) -> None:
        tracee = _Tracee(pid)
        name, kinds = _BY_NUMBER[tracee.regs[_ORIG_RAX]]
        action: Action = None
        if name != "openat2" or tracee.open_how_flags() & _CREATING:
            paths = tracee.paths(kinds)
            if kinds == "!" or any(path.startswith(self.place) for path in paths):
                call = Call(len(self.result.calls), name, pid, paths)
                self.result.calls.append(call)
                action = self.handler(call)
                self.done = action is not None
        if action == KILL:
            self.result.killed = True
            if self.only_first:
                os.kill(pid, signal.SIGKILL)
            else:
                self._kill_all()
            return
        if action == SHORT and name in _WRITES:
            tracee.shorten(_WRITES[name])
        elif isinstance(action, int):
            tracee.fail(action)
        _ptrace(_CONT, pid)

    def _kill_all(self) -> None:
        for pid in self.known:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
