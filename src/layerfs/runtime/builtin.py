"""The built-in launcher: the C core makes the namespaces and executes the command; nothing else is needed."""

import errno
import os
import signal
from contextlib import ExitStack, suppress

from layerfs import native
from layerfs.errors import NativeError, UnsupportedError
from layerfs.runtime.process import exit_code
from layerfs.runtime.spec import MountSpec, RunSpec, Started, command_failure

__all__ = ["BuiltinRuntime"]

_AT_FDCWD = -100
_CANNOT_RUN = (
    errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.EISDIR, errno.ENOTDIR, errno.EPERM, errno.ELOOP, errno.E2BIG,
    errno.ETXTBSY, errno.ENAMETOOLONG, errno.EINVAL, errno.ELIBBAD,
)  # fmt: skip


class BuiltinRuntime:
    """Runs containers without any program but layerfs."""

    name = "builtin"

    def start(self, spec: RunSpec, root: int, stdio: tuple[int, int, int]) -> Started:
        """See ``Runtime.start``."""
        _refuse(spec)
        with ExitStack() as stack:
            binds = []
            for mount in spec.mounts:
                fd = _source(mount)
                stack.callback(os.close, fd)
                binds.append(native.Bind(fd, mount.target, mount.is_dir))
            launch = native.LaunchSpec(
                root=root,
                args=spec.args,
                env=spec.env,
                cwd=spec.cwd,
                hostname=spec.hostname,
                uid=spec.user.uid,
                gid=spec.user.gid,
                groups=spec.user.groups,
                capabilities=spec.capabilities,
                binds=binds,
                stdio=stdio,
                readonly=spec.readonly,
                tty=spec.tty,
                no_network=spec.network == "none",
                new_privileges=spec.new_privileges,
            )
            stack.pop_all()  # the launch consumes the sources, also when it fails
            return _Child(*_launch(launch, spec.args[0]))


def _launch(launch: native.LaunchSpec, command: str) -> tuple[int, int, int | None]:
    try:
        return native.launch(launch)
    except NativeError as exc:
        # The core's message for a failed exec; all other failures name another operation.
        if str(exc).startswith(f"run {command[:100]}") and exc.errno in _CANNOT_RUN:
            raise command_failure(command, exc.errno or 0, _reason(exc.errno or 0)) from exc
        raise


def _reason(code: int) -> str:
    if code == errno.ENOENT:
        return "no such command in the container"
    return os.strerror(code)


def _source(mount: MountSpec) -> int:
    if mount.type == "tmpfs":
        raise UnsupportedError(f"mount {mount.target}: the built-in launcher has no tmpfs mounts")
    return native.bind_mount(
        _AT_FDCWD, mount.source, recursive=mount.recursive, readonly=mount.readonly
    )


def _refuse(spec: RunSpec) -> None:
    """What this launcher cannot do is refused by name."""
    limits = spec.limits
    for name in limits.__struct_fields__:
        if getattr(limits, name) not in (None, ()):
            raise UnsupportedError(f"limit {name}: the built-in launcher does not set it", hint="use --runtime runc")
    for mount in spec.mounts:
        if mount.propagation not in ("private", "rprivate"):
            raise UnsupportedError(
                f"mount {mount.target}: propagation {mount.propagation} is not offered by the built-in launcher",
                hint="use --runtime runc",
            )
    if spec.domainname:
        raise UnsupportedError("domain name: the built-in launcher does not set it", hint="use --runtime runc")


class _Child:
    """A launched process; its parent is this one."""

    def __init__(self, pid: int, pidfd: int, terminal: int | None) -> None:
        self.pid = pid
        self.terminal = terminal
        self._pidfd = pidfd

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def fileno(self) -> int:
        return self._pidfd

    def wait(self) -> int:
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        assert result is not None  # only WNOHANG gives None
        return exit_code(result)

    def close(self) -> None:
        os.close(self._pidfd)
        if self.terminal is not None:
            os.close(self.terminal)
