"""The configuration of an OCI bundle (runtime-spec 1.2) for a ``RunSpec``."""

import os
from typing import Any

from layerfs.runtime.capabilities import capability_names
from layerfs.runtime.spec import Limits, MountSpec, RunSpec

__all__ = ["oci_config"]

_MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
)  # fmt: skip
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2))  # null zero full random urandom tty ptmx


def oci_config(spec: RunSpec, rootfs: str = "rootfs") -> dict[str, Any]:
    """The document ``config.json``; ``rootfs`` is where the root is, absolute or relative to the bundle."""
    namespaces = ["pid", "mount", "uts", "ipc", "cgroup"] + (["network"] if spec.network == "none" else [])
    capabilities = capability_names(spec.capabilities)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": spec.tty,
            "user": {
                "uid": spec.user.uid,
                "gid": spec.user.gid,
                "additionalGids": list(spec.user.groups),
                "umask": 0o022,
            },
            "args": list(spec.args),
            "env": list(spec.env),
            "cwd": spec.cwd,
            # No inheritable and no ambient set: they would outlive a change of user.
            "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": not spec.new_privileges,
            "rlimits": [
                {"type": f"RLIMIT_{name.upper()}", "soft": _limit(soft), "hard": _limit(hard)}
                for name, soft, hard in spec.limits.ulimits
            ],
            **({"oomScoreAdj": spec.limits.oom_score_adj} if spec.limits.oom_score_adj is not None else {}),
        },
        "root": {"path": rootfs, "readonly": spec.readonly},
        "hostname": spec.hostname,
        **({"domainname": spec.domainname} if spec.domainname else {}),
        "mounts": [*_system_mounts(), *map(_mount, spec.mounts)],
        "annotations": dict(spec.annotations),
        "linux": {
            "namespaces": [{"type": name} for name in namespaces],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READONLY),
            "resources": _resources(spec.limits),
        },
    }


def _limit(value: int) -> int:
    return value if value >= 0 else 2**64 - 1


def _system_mounts() -> list[dict[str, Any]]:
    quiet = ["nosuid", "noexec", "nodev"]
    mounts = [
        ("/proc", "proc", "proc", quiet),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/shm", "tmpfs", "shm", [*quiet, "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", "mqueue", quiet),
        ("/sys", "sysfs", "sysfs", [*quiet, "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", [*quiet, "relatime", "ro"]),
    ]
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
    return {"destination": mount.target, "type": "bind", "source": os.path.abspath(mount.source), "options": options}


def _resources(limits: Limits) -> dict[str, Any]:
    devices: list[dict[str, Any]] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "b", "access": "m"},
        {"allow": True, "type": "c", "major": 136, "access": "rwm"},
    ]
    devices += [
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"} for major, minor in _DEVICES
    ]
    memory = {
        "limit": limits.memory,
        "swap": limits.memory_swap,
        "reservation": limits.memory_reservation,
    }
    cpu = {
        "shares": limits.cpu_shares,
        "cpus": limits.cpuset_cpus,
        "mems": limits.cpuset_mems,
        "period": 100_000 if limits.cpus is not None else None,
        "quota": round(limits.cpus * 100_000) if limits.cpus is not None else None,
    }
    resources: dict[str, Any] = {"devices": devices}
    for name, values in (("memory", memory), ("cpu", cpu)):
        given = {key: value for key, value in values.items() if value is not None}
        if given:
            resources[name] = given
    if limits.pids is not None:
        resources["pids"] = {"limit": limits.pids}
    return resources
