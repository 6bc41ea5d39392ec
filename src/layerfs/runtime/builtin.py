"""The built-in launcher: the C core makes the namespaces and executes the command; nothing else is needed."""

import errno
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from layerfs import native
from layerfs.errors import LayerfsError, UnsupportedError, system_errors
from layerfs.late import LateModule
from layerfs.runtime.cgroups import Cgroup
from layerfs.runtime.process import exit_code, open_process
from layerfs.runtime.seccomp import seccomp_program
from layerfs.runtime.spec import ExecSpec, MountSpec, RunSpec, Started, Supervision, command_failure

if TYPE_CHECKING:
    import resource
else:  # for --ulimit alone
    resource = LateModule("resource")

__all__ = ["BuiltinRuntime", "opened_userns", "with_owners"]

_AT_FDCWD = -100
_CGROUPS = "/sys/fs/cgroup"
_OVER_CGROUPS = ("/sys", "/sys/fs", _CGROUPS)


class BuiltinRuntime:
    """Runs containers without any program but layerfs."""

    name = "builtin"

    def __init__(self, run: Path | None = None) -> None:
        """``run``: a store's run directory, where filters of system calls are kept for the next start."""
        self._run = run

    def start(self, spec: RunSpec, root: int, stdio: tuple[int, int, int]) -> Started:
        """See ``Runtime.start``."""
        _refuse(spec)
        cgroup = Cgroup(spec.id, spec.cgroup_parent)
        with ExitStack() as stack:
            stack.callback(cgroup.remove)
            with cgroup.create(spec.limits, counted=spec.counted) as groups, _commands(spec.args[0]):
                fields = _seeing(launch_fields(spec, stack, self._run), spec, cgroup)
                started = native.launch(native.LaunchSpec(root=root, stdio=stdio, cgroups=groups, **fields))
            stack.pop_all()
            return _Child(*started, cgroup)

    def supervise(self, spec: RunSpec, root: int, supervision: Supervision) -> None:
        """See ``Runtime.supervise``."""
        _refuse(spec)
        cgroup = Cgroup(spec.id, spec.cgroup_parent)
        with ExitStack() as undo, cgroup.create(spec.limits) as groups, _commands(spec.args[0]):
            undo.callback(cgroup.remove)
            with ExitStack() as stack:
                fields = _seeing(launch_fields(spec, stack, self._run), spec, cgroup)
                supervise(spec.id, supervision, {"root": root, "cgroups": groups, **fields})
            undo.pop_all()

    def first_process(self, id: str, pid: int) -> int:
        """See ``Runtime.first_process``."""
        return pid

    def release(self, id: str, cgroup_parent: str | None) -> None:
        """See ``Runtime.release``."""
        Cgroup(id, cgroup_parent).remove()

    def execute(self, spec: ExecSpec, stdio: tuple[int, int, int]) -> Started:
        """See ``Runtime.execute``."""
        with ExitStack() as stack:
            try:
                pidfd = open_process(spec.pid)
            except ProcessLookupError:
                raise LayerfsError(f"execute in container {spec.id[:12]}: it is not running") from None
            stack.callback(os.close, pidfd)
            groups = []
            for path in Cgroup(spec.id, spec.cgroup_parent).paths:
                groups.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                stack.callback(os.close, groups[-1])
            stack.enter_context(_commands(spec.args[0]))
            process = native.join(
                native.JoinSpec(
                    pidfd=pidfd,
                    args=spec.args,
                    env=spec.env,
                    cwd=spec.cwd,
                    uid=spec.user.uid,
                    gid=spec.user.gid,
                    groups=spec.user.groups,
                    capabilities=spec.capabilities,
                    new_privileges=spec.new_privileges,
                    seccomp=_filter(spec, self._run),
                    cgroups=groups,
                    stdio=stdio,
                    tty=spec.tty,
                    umask=f"{spec.umask:o}",
                    detach=spec.detach,
                )
            )
            return _Child(process.pid, process.pidfd, process.terminal, None)


def supervise(name: str, supervision: Supervision, fields: dict[str, Any]) -> None:
    """Start a supervisor for a launch of these fields."""
    with ExitStack() as stack:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, null)
        places = []
        for path in (supervision.directory, supervision.socket, supervision.events):
            places.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            stack.callback(os.close, places[-1])
        keys = {key: getattr(supervision, key) for key in Supervision.__struct_fields__}
        del keys["directory"]
        directories = dict(zip(("state", "socket", "events"), places, strict=True))
        keys |= {"name": name, "stdio": (null, null, null), **directories}
        native.supervise(native.SupervisorSpec(**keys, **fields))


def launch_fields(spec: RunSpec, stack: ExitStack, run: Path | None) -> dict[str, Any]:
    """The fields of a ``native.LaunchSpec`` but root, streams and control groups. ``stack`` closes what they need."""
    uids, gids = (spec.maps.uids, spec.maps.gids) if spec.maps is not None else ((), ())
    mounts = spec.mounts
    if uids and os.geteuid() == 0:
        with opened_userns(uids, gids) as userns:
            mounts = with_owners(spec, userns, stack).mounts
    overlay: dict[str, Any] = {}
    if spec.overlay is not None:
        overlay = {key: getattr(spec.overlay, key) for key in ("lowers", "upper", "work")}
        overlay["overlay"] = spec.overlay.options
    return {
        **overlay,
        "uid_map": uids,
        "gid_map": gids,
        "args": spec.args,
        "env": spec.env,
        "cwd": spec.cwd,
        "hostname": spec.hostname if spec.has_own_names else "",
        "domainname": spec.domainname if spec.has_own_names else "",
        "uid": spec.user.uid,
        "gid": spec.user.gid,
        "groups": spec.user.groups,
        "capabilities": spec.capabilities,
        "new_privileges": spec.new_privileges,
        "privileged": spec.privileged,
        "unmasked": spec.unmasked,
        "readonly": spec.readonly,
        "tty": spec.tty,
        "umask": f"{spec.umask:o}",
        "init": spec.init,
        "die_with_parent": spec.die_with_parent,
        "no_network": spec.network == "none",
        "share": spec.share,
        "enter": [(kind, _namespace(kind, pid, stack)) for kind, pid in spec.enter],
        "no_shm": not spec.shm,
        "oom_score_adj": spec.limits.oom_score_adj,
        "seccomp": _filter(spec, run),
        "sysctls": spec.sysctls,
        "rlimits": [
            (getattr(resource, f"RLIMIT_{name.upper()}"), soft, hard) for name, soft, hard in spec.limits.ulimits
        ],
        "mounts": [*map(_mount, mounts), *_extra_mounts(spec)],
    }


def _seeing(fields: dict[str, Any], spec: RunSpec, cgroup: Cgroup) -> dict[str, Any]:
    """The fields with the mounts of the container's control groups, where programs look for their limits."""
    if "cgroup" in spec.share or os.geteuid() != 0 or any(mount.target in _OVER_CGROUPS for mount in spec.mounts):
        return fields
    options = ["nosuid", "nodev", "noexec"]
    access = "rw" if spec.privileged else "ro"
    mounts = []
    for name, controllers in cgroup.shown():
        if not name:
            mounts.append(native.Mount(type="cgroup2", target=_CGROUPS, options=[*options, access]))
            continue
        if not mounts:
            mounts.append(native.Mount(type="tmpfs", target=_CGROUPS, options=[*options, "mode=755"]))
        given = [*options, access, *controllers]
        mounts.append(native.Mount(type="cgroup", target=f"{_CGROUPS}/{name}", options=given))
    return {**fields, "mounts": [*mounts, *fields["mounts"]]}


def _namespace(kind: str, pid: int, stack: ExitStack) -> int:
    with system_errors(f"enter the {kind} namespace of process {pid}"):
        fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _filter(spec: RunSpec | ExecSpec, run: Path | None) -> bytes:
    """What keeps it from system calls, as a program."""
    if spec.profile:
        from layerfs.runtime.profiles import profile_program  # few containers have one of their own

        return profile_program(spec.profile, spec.capabilities)
    return seccomp_program(spec.capabilities, run) if spec.seccomp else b""


@contextmanager
def opened_userns(uids: Sequence[tuple[int, int, int]], gids: Sequence[tuple[int, int, int]]) -> Iterator[int]:
    """A descriptor of a user namespace with these maps."""
    fd = native.userns_open(uids, gids)
    try:
        yield fd
    finally:
        os.close(fd)


def with_owners(spec: RunSpec, userns: int, stack: ExitStack) -> RunSpec:
    """The spec with the owners in its mounts seen by the maps of ``userns``, where they are to be."""
    return msgspec.structs.replace(spec, mounts=tuple(_mapped(mount, userns, stack) for mount in spec.mounts))


def _mapped(mount: MountSpec, userns: int, stack: ExitStack) -> MountSpec:
    """The mount by a descriptor through which its owners are seen by the maps of ``userns``."""
    if not mount.mapped or isinstance(mount.source, int):
        return mount
    plain = native.bind_mount(_AT_FDCWD, mount.source, recursive=False)
    try:
        fd = native.idmap_mount(plain, userns)
    finally:
        os.close(plain)
    stack.callback(os.close, fd)
    return msgspec.structs.replace(mount, source=fd)


def _mount(mount: MountSpec) -> native.Mount:
    options = ["ro"] if mount.readonly else []
    if mount.type == "tmpfs":
        options += ["nosuid", "nodev"] + ([] if mount.exec else ["noexec"])
        options += [f"size={mount.size}"] if mount.size is not None else []
        options += [f"mode={mount.mode if mount.mode is not None else 0o1777:o}"]
        return native.Mount(type="tmpfs", target=mount.target, options=options)
    options += ["rec"] if mount.recursive else []
    options += ["nosuid", "noexec"] if mount.quiet else []
    options += [mount.propagation.removeprefix("r")] if mount.propagation not in ("private", "rprivate") else []
    return native.Mount(type="bind", source=mount.source, target=mount.target, options=options)


def _extra_mounts(spec: RunSpec) -> Iterator[native.Mount]:
    if spec.shm and spec.shm_size != 64 << 20:
        options = ["nosuid", "nodev", "noexec", f"size={spec.shm_size}", "mode=1777"]
        yield native.Mount(type="tmpfs", target="/dev/shm", options=options)
    for device in spec.devices:
        yield native.Mount(type="device", source=device.source, target=device.target)


def _refuse(spec: RunSpec) -> None:
    """What this launcher cannot do is refused by name."""
    for device in spec.devices:
        if "r" not in device.permissions or "w" not in device.permissions:
            raise UnsupportedError(
                f"device {device.source}: permissions {device.permissions} are not offered by the built-in launcher",
                hint="use --runtime runc",
            )
    for name, _, _ in spec.limits.ulimits:
        if not hasattr(resource, f"RLIMIT_{name.upper()}"):
            raise UnsupportedError(f"ulimit {name}: the built-in launcher does not set it", hint="use --runtime runc")


@contextmanager
def _commands(command: str) -> Iterator[None]:
    """A command that cannot be executed is told from all that can go wrong before."""
    try:
        yield
    except native.CommandError as exc:
        code = exc.errno or errno.ENOENT
        reason = "no such command in the container" if code == errno.ENOENT else os.strerror(code)
        raise command_failure(command, code, reason) from exc


class _Child:
    """A launched process; its parent is this one."""

    def __init__(self, pid: int, pidfd: int, terminal: int | None, cgroup: Cgroup | None) -> None:
        self.pid = pid
        self.terminal = terminal
        self._pidfd = pidfd
        self._cgroup = cgroup

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
        if self._cgroup is not None:
            self._cgroup.remove()
