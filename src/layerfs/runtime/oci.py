"""The configuration of an OCI bundle (runtime-spec 1.2) for a ``RunSpec``."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from layerfs.errors import UnsupportedError
from layerfs.runtime.capabilities import capability_names
from layerfs.runtime.seccomp import oci_seccomp
from layerfs.runtime.spec import DeviceSpec, ExecSpec, Limits, MountSpec, RunSpec

__all__ = ["oci_config", "oci_process"]

_MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
)  # fmt: skip
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2))  # null zero full random urandom tty ptmx


def oci_config(spec: RunSpec, rootfs: str = "rootfs") -> dict[str, Any]:
    """The document ``config.json``; ``rootfs`` is where the root is, absolute or relative to the bundle."""
    linux: dict[str, Any] = {
        "namespaces": _namespaces(spec),
        "resources": _resources(spec),
        "cgroupsPath": "/" + os.path.join((spec.cgroup_parent or "layerfs").strip("/"), spec.id),
        "devices": [_device(device) for device in (*spec.devices, *(_host_devices(spec) if spec.privileged else ()))],
    }
    if spec.maps is not None:
        linux["uidMappings"], linux["gidMappings"] = map(_mappings, (spec.maps.uids, spec.maps.gids))
    if spec.profile:
        from layerfs.runtime.profiles import oci_profile  # few containers have one of their own

        if found := oci_profile(spec.profile, spec.capabilities):
            linux["seccomp"] = found
    elif spec.seccomp:
        linux["seccomp"] = oci_seccomp(spec.capabilities)
    if not spec.privileged and not spec.unmasked:
        linux |= {"maskedPaths": list(_MASKED), "readonlyPaths": list(_READONLY)}
    # The member "domainname" is young, and older runtimes leave it out in silence.
    domain = {"kernel.domainname": spec.domainname} if spec.domainname and spec.has_own_names else {}
    if spec.sysctls or domain:
        linux["sysctl"] = {**domain, **spec.sysctls}
    process = oci_process(spec)
    process["rlimits"] = [
        {"type": f"RLIMIT_{name.upper()}", "soft": _limit(soft), "hard": _limit(hard)}
        for name, soft, hard in spec.limits.ulimits
    ]
    if spec.limits.oom_score_adj is not None:
        process["oomScoreAdj"] = spec.limits.oom_score_adj
    document: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": rootfs, "readonly": spec.readonly},
        "mounts": [*_system_mounts(spec), *map(_mount, spec.mounts)],
        "annotations": dict(spec.annotations),
        "linux": linux,
    }
    if spec.has_own_names:
        document["hostname"] = spec.hostname
    return document


def oci_process(spec: RunSpec | ExecSpec) -> dict[str, Any]:
    """The ``process`` of a configuration, or of an ``exec``."""
    capabilities = capability_names(spec.capabilities)
    return {
        "terminal": spec.tty,
        "user": {
            "uid": spec.user.uid,
            "gid": spec.user.gid,
            "additionalGids": list(spec.user.groups),
            "umask": spec.umask,
        },
        "args": list(spec.args),
        "env": list(spec.env),
        "cwd": spec.cwd,
        # No inheritable and no ambient set: they would outlive a change of user.
        "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
        "noNewPrivileges": not spec.new_privileges,
    }


def _mappings(ranges: Sequence[tuple[int, int, int]]) -> list[dict[str, int]]:
    return [{"containerID": inside, "hostID": outside, "size": count} for inside, outside, count in ranges]


def _namespaces(spec: RunSpec) -> list[dict[str, str]]:
    entered = [
        {"type": "network" if kind == "net" else kind, "path": f"/proc/{pid}/ns/{kind}"} for kind, pid in spec.enter
    ]
    taken = {*spec.share, *(kind for kind, _ in spec.enter)}
    kinds = ["mount", *(name for name in ("pid", "uts", "ipc", "cgroup") if name not in taken)]
    if spec.maps is not None:
        kinds.append("user")
    if spec.network == "none":
        kinds.append("network")
    return [*({"type": name} for name in kinds), *entered]


def _host_devices(spec: RunSpec) -> Iterator[DeviceSpec]:
    """All devices of the host, for a privileged container, but those that a container has of its own."""
    taken = {device.target for device in spec.devices}
    for directory, directories, names in os.walk("/dev"):
        if directory == "/dev":
            directories[:] = [name for name in directories if name not in ("fd", "mqueue", "pts", "shm")]
            names = [name for name in names if name not in ("console", "ptmx")]
        for name in names:
            path = os.path.join(directory, name)
            with suppress(FileNotFoundError):  # it went meanwhile
                kind = os.lstat(path).st_mode
                if path not in taken and (stat.S_ISCHR(kind) or stat.S_ISBLK(kind)):
                    yield DeviceSpec(path, path)


def _device(device: DeviceSpec) -> dict[str, Any]:
    status = os.stat(device.source)
    return {
        "path": device.target,
        "type": "b" if stat.S_ISBLK(status.st_mode) else "c",
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def _limit(value: int) -> int:
    return value if value >= 0 else 2**64 - 1


def _system_mounts(spec: RunSpec) -> list[dict[str, Any]]:
    quiet = ["nosuid", "noexec", "nodev"]
    mode = "rw" if spec.privileged else "ro"
    own = {mount.target for mount in spec.mounts}
    mounts = [
        ("/proc", "proc", "proc", quiet),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/shm", "tmpfs", "shm", [*quiet, "mode=1777", f"size={spec.shm_size}"]),
        ("/dev/mqueue", "mqueue", "mqueue", quiet),
        ("/sys", "sysfs", "sysfs", [*quiet, mode]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", [*quiet, "relatime", mode]),
    ]
    if "ipc" in spec.share:
        # The host's, as its namespace is: message queues cannot be mounted from another one.
        mounts = [entry for entry in mounts if entry[0] not in ("/dev/shm", "/dev/mqueue")]
        mounts.append(("/dev/shm", "bind", "/dev/shm", ["rbind", "nosuid", "noexec", "nodev"]))
    if spec.maps is not None and spec.network == "host":
        # A sysfs of one's own needs a network of one's own; cgroups are mounted over what comes with the host's.
        sys = ("/sys", "bind", "/sys", ["rbind", "rprivate", *quiet, mode])
        mounts = [sys if entry[0] == "/sys" else entry for entry in mounts]
    if not spec.shm:
        own.add("/dev/shm")
    mounts = [entry for entry in mounts if entry[0] not in own]
    return [
        {"destination": target, "type": kind, "source": source, "options": options}
        for target, kind, source, options in mounts
    ]


def _mount(mount: MountSpec) -> dict[str, Any]:
    if mount.type == "tmpfs":
        options = ["nosuid", "nodev", "exec" if mount.exec else "noexec", "ro" if mount.readonly else "rw"]
        options += [f"size={mount.size}"] if mount.size is not None else []
        options += [f"mode={mount.mode:o}"] if mount.mode is not None else ["mode=1777"]
        return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}
    options = ["rbind" if mount.recursive else "bind", mount.propagation, "nodev"]
    options += ["ro"] if mount.readonly else ["rw"]
    options += ["nosuid", "noexec"] if mount.quiet else []
    if isinstance(mount.source, int):
        raise UnsupportedError(f"mount {mount.target}: a mount without a path is for the built-in launcher alone")
    return {"destination": mount.target, "type": "bind", "source": os.path.abspath(mount.source), "options": options}


def _resources(spec: RunSpec) -> dict[str, Any]:
    limits = spec.limits
    devices: list[dict[str, Any]] = [{"allow": True, "access": "rwm"}] if spec.privileged else _devices(spec)
    memory = {
        "limit": limits.memory,
        "swap": limits.memory_swap,
        "reservation": limits.memory_reservation,
    }
    quota, period = limits.cpu_times or (None, None)
    cpu = {
        "shares": limits.cpu_shares,
        "cpus": limits.cpuset_cpus,
        "mems": limits.cpuset_mems,
        "period": period,
        "quota": quota,
    }
    resources: dict[str, Any] = {"devices": devices}
    for name, values in (("memory", memory), ("cpu", cpu)):
        given = {key: value for key, value in values.items() if value is not None}
        if given:
            resources[name] = given
    if limits.throttles:
        resources["blockIO"] = _throttles(limits)
    if limits.pids is not None:
        resources["pids"] = {"limit": limits.pids}
    return resources


def _throttles(limits: Limits) -> dict[str, list[dict[str, int]]]:
    found: dict[str, list[dict[str, int]]] = {}
    for kind, device, rate in limits.throttles:
        verb, unit = kind.split("_")
        key = f"throttle{verb.capitalize()}{'Bps' if unit == 'bps' else 'IOPS'}Device"
        found.setdefault(key, []).append({"major": os.major(device), "minor": os.minor(device), "rate": rate})
    return found


def _devices(spec: RunSpec) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "b", "access": "m"},
        {"allow": True, "type": "c", "major": 136, "access": "rwm"},
    ]
    numbers = [("c", major, minor, "rwm") for major, minor in _DEVICES]
    for device in spec.devices:
        shown = _device(device)
        numbers.append((shown["type"], shown["major"], shown["minor"], device.permissions))
    rules += [
        {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}
        for kind, major, minor, access in numbers
    ]
    return rules
