"""From the record of a container to the ``RunSpec`` that a runtime takes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerfs.containers.files import FILES
from layerfs.containers.options import CreateOptions
from layerfs.containers.record import Config, MountUse
from layerfs.containers.settings import process_env, working_directory
from layerfs.errors import InvalidInputError, UnsupportedError, system_errors
from layerfs.runtime import AccountReader, DeviceSpec, Limits, MountSpec, RunSpec, capability_mask, resolve_user

if TYPE_CHECKING:
    from layerfs.userns import Maps

__all__ = ["filtered", "limits_of", "new_privileges", "own_profile", "refuse_unsupported", "run_spec"]

_PREFIX = "org.opencontainers.image."
_SECURITY_OPTIONS = (
    ("seccomp", "unconfined"), ("seccomp", "builtin"), ("label", "disable"), ("apparmor", "unconfined"),
    ("systempaths", "unconfined"),
)  # fmt: skip


def run_spec(config: Config, root: int | AccountReader, directory: Path) -> RunSpec:
    """What to run; users are looked up in ``root``, the mounted tree. ``directory`` has the container's files.

    NotFoundError for a user or group that the tree does not know.
    """
    options = config.options
    user = resolve_user(root, str(config.section.get("User") or ""), options.group_add)
    return RunSpec(
        id=config.id,
        args=config.args,
        env=process_env(config.section, user, config.hostname, tty=options.tty, bare=options.bare_env),
        umask=options.umask,
        cwd=working_directory(config.section),
        user=user,
        hostname=config.hostname,
        domainname=options.domainname or "",
        capabilities=capability_mask(options.cap_add, options.cap_drop, privileged=options.privileged),
        mounts=tuple(_mounts(config, directory)),
        tty=options.tty,
        readonly=options.read_only,
        network="none" if options.network == "none" else "host",
        new_privileges=new_privileges(options),
        limits=limits_of(options),
        annotations={**_annotations(config.section), **options.annotations},
        init=options.init,
        privileged=options.privileged,
        share=tuple(
            kind
            for kind, value in (
                ("pid", options.pid),
                ("ipc", options.ipc),
                ("uts", options.uts),
                ("cgroup", options.cgroupns),
            )
            if value == "host"
        ),
        devices=tuple(DeviceSpec(item.source, item.target, item.permissions) for item in options.devices),
        shm=options.ipc != "none" and ":" not in options.ipc,
        shm_size=options.shm_size,
        sysctls=options.sysctls,
        cgroup_parent=options.cgroup_parent,
        seccomp=filtered(options),
        profile=own_profile(options),
        unmasked=("systempaths", "unconfined") in _security(options),
        counted=not options.auto_remove,
        maps=_maps(*config.id_map) if config.id_map is not None else None,
    )


def _maps(first: int, count: int) -> "Maps":
    from layerfs.userns import Maps  # few containers have a user namespace

    ranges = ((0, first, count),)
    return Maps(ranges, ranges)


def _mounts(config: Config, directory: Path) -> list[MountSpec]:
    mounts = [_mount(use) for use in config.mounts]
    targets = {mount.target for mount in mounts}
    mounts += [
        MountSpec(type="bind", source=str(directory / name), target=path, is_dir=False, mapped=True)
        for name, path in FILES.items()
        if path not in targets
    ]
    return sorted(mounts, key=lambda mount: mount.target.count("/"))


def _mount(use: MountUse) -> MountSpec:
    option = use.option
    return MountSpec(
        type="tmpfs" if option.type == "tmpfs" else "bind",
        target=option.target,
        source=use.source,
        is_dir=use.is_dir,
        readonly=option.readonly,
        recursive=option.recursive,
        propagation=option.propagation,
        size=option.size,
        mode=use.mode,
        exec=option.exec,
        mapped=bool(use.volume),
    )


def limits_of(options: CreateOptions) -> Limits:
    """The limits among the options."""
    swap = options.memory_swap
    if swap is None and options.memory is not None:
        swap = 2 * options.memory  # as docker: as much swap as memory
    cpus = options.cpus
    if options.cpu_quota is not None:
        cpus = options.cpu_quota / (options.cpu_period or 100_000)
    return Limits(
        memory=options.memory,
        memory_swap=swap,
        memory_reservation=options.memory_reservation,
        cpus=cpus,
        cpu_period=options.cpu_period,
        cpu_shares=options.cpu_shares,
        cpuset_cpus=options.cpuset_cpus,
        cpuset_mems=options.cpuset_mems,
        pids=options.pids_limit,
        ulimits=tuple((limit.name, limit.soft, limit.hard) for limit in options.ulimits),
        oom_score_adj=options.oom_score_adj,
        throttles=tuple((item.kind, _number(item.path), item.rate) for item in options.throttles),
    )


def _number(path: str) -> int:
    with system_errors(f"limit the device {path}"):
        return os.stat(path).st_rdev


def _annotations(section: Mapping[str, Any]) -> dict[str, str]:
    """Only what describes the image: a label is the image's word, and runtimes obey other annotations."""
    labels = section.get("Labels") or {}
    return {name: str(value) for name, value in labels.items() if name.startswith(_PREFIX)}


def _security(options: CreateOptions) -> list[tuple[str, str]]:
    """Names and values; what stands between them may be a colon, as once with docker."""
    found = []
    for word in options.security_opt:
        name, _, value = word.replace(":", "=", 1).partition("=") if "=" not in word else word.partition("=")
        found.append((name, value))
    return found


def new_privileges(options: CreateOptions) -> bool:
    """Whether setuid programs work; not by default."""
    for name, value in _security(options):
        if name == "no-new-privileges":
            return value.lower() in ("false", "0")
    return options.privileged


def filtered(options: CreateOptions) -> bool:
    """Whether system calls are filtered; they are, unless ``--privileged`` or ``seccomp=unconfined`` says not."""
    return not options.privileged and ("seccomp", "unconfined") not in _security(options)


def own_profile(options: CreateOptions) -> str:
    """The seccomp profile that the user brought, as JSON; empty where there is none. Of several the last counts."""
    values = [value for name, value in _security(options) if name == "seccomp"]
    return values[-1] if values and values[-1].startswith("{") else ""


def refuse_unsupported(options: CreateOptions) -> None:
    """UnsupportedError, by name, for an option that no launcher here offers."""
    if options.userns not in ("host", "auto"):
        raise UnsupportedError(f"option --userns {options.userns}: not offered", hint="offered are host and auto")
    if options.userns == "auto" and (options.privileged or options.pid == "host"):
        raise InvalidInputError("option --userns auto: it cannot go with --privileged or --pid host")
    for name, value in _security(options):
        if name == "seccomp" and value.startswith("{"):
            from layerfs.runtime.profiles import check_profile  # few containers have one of their own

            check_profile(value, "option --security-opt seccomp")
            continue
        known = (name, value) in _SECURITY_OPTIONS or (
            name == "no-new-privileges" and value.lower() in ("", "true", "false", "1", "0")
        )
        if not known:
            word = f"{name}={value}" if value else name
            raise UnsupportedError(f"option --security-opt {word!r}: not offered")
