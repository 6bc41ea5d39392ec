"""A container as docker's JSON has it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from layerfs.containers.options import CreateOptions, MountOption
from layerfs.containers.parts import Parts
from layerfs.containers.record import Config, MountUse, State
from layerfs.metadata import ContainerRow
from layerfs.runtime.supervisor import read_checks, read_report

__all__ = ["inspect_container", "time_text"]


_THROTTLES = {
    "read_bps": "ReadBps",
    "write_bps": "WriteBps",
    "read_iops": "ReadIOps",
    "write_iops": "WriteIOps",
}


def time_text(seconds: float) -> str:
    """A time as docker writes it; 0 is its time before all times."""
    if not seconds:
        return "0001-01-01T00:00:00Z"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def inspect_container(parts: Parts, row: ContainerRow, config: Config, state: State) -> dict[str, Any]:
    """The document that ``inspect`` shows."""
    directory = parts.directory(row.id)
    return {
        "Id": row.id,
        "Created": time_text(row.created),
        "Path": config.args[0],
        "Args": list(config.args[1:]),
        "State": _state(state) | _health(directory, state),
        "Image": config.image_id,
        "ResolvConfPath": str(directory / "resolv.conf"),
        "HostnamePath": str(directory / "hostname"),
        "HostsPath": str(directory / "hosts"),
        "LogPath": str(directory / "log"),
        "Name": f"/{row.name}",
        "RestartCount": state.restarts,
        "Driver": "layerfs",
        "Platform": config.os,
        "HostConfig": _host_config(config),
        "GraphDriver": {
            "Name": "layerfs",
            "Data": {"UpperDir": str(parts.snapshots.upper(row.id)), "Layers": list(config.layers)},
        },
        "Mounts": [_mount(use) for use in config.mounts],
        "Config": _config(config),
        "NetworkSettings": _network_settings(config),
    }


def _state(state: State) -> dict[str, Any]:
    return {
        "Status": state.status,
        "Running": state.status in ("running", "paused"),
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "Dead": state.status == "dead",
        "Pid": state.process.pid if state.process is not None else 0,
        "OOMKilled": state.oom_killed,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time_text(state.started),
        "FinishedAt": time_text(state.finished),
    }


def _health(directory: Path, state: State) -> dict[str, Any]:
    report = read_report(directory)
    if report is None or report.health == "none":
        return {}
    status = report.health if state.status in ("running", "paused") else "unhealthy"  # as docker, at its end
    log = [
        {
            "Start": time_text(check.start / 1e9),
            "End": time_text(check.end / 1e9),
            "ExitCode": check.exit_code,
            "Output": check.output,
        }
        for check in read_checks(directory)
    ]
    return {"Health": {"Status": status, "FailingStreak": report.health_failures, "Log": log}}


def _config(config: Config) -> dict[str, Any]:
    options, section = config.options, config.section
    return {
        **section,
        "Hostname": config.hostname,
        "Domainname": options.domainname or "",
        "User": section.get("User") or "",
        **{f"Attach{name.capitalize()}": name in options.attach for name in ("stdin", "stdout", "stderr")},
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": options.interactive,
        "Env": [word for word in section.get("Env") or [] if "=" in word],
        "Cmd": section.get("Cmd"),
        "Entrypoint": section.get("Entrypoint"),
        "Image": options.image,
        "Volumes": section.get("Volumes"),
        "WorkingDir": section.get("WorkingDir") or "",
        "Labels": dict(section.get("Labels") or {}),
        "Umask": f"{options.umask:04o}",
        "Timeout": options.timeout,
        **({"Timezone": options.timezone} if options.timezone is not None else {}),
    } | ({"StopTimeout": options.stop_timeout} if options.stop_timeout is not None else {})


def _host_config(config: Config) -> dict[str, Any]:
    options = config.options
    binds = [use for use in config.mounts if use.option.type == "bind" or (use.volume and not use.anonymous)]
    limits = {"KernelMemory": 0, "MemorySwappiness": None, "OomKillDisable": False}
    return limits | {
        "Binds": [
            f"{use.volume or use.source}:{use.option.target}{':ro' if use.option.readonly else ''}" for use in binds
        ]
        or None,
        "LogConfig": _log_config(options),
        "NetworkMode": options.network,
        "PortBindings": {},
        "PublishAllPorts": False,
        "RestartPolicy": {"Name": options.restart.policy, "MaximumRetryCount": options.restart.maximum},
        "AutoRemove": options.auto_remove,
        "Runtime": config.runtime,
        "ReadonlyRootfs": options.read_only,
        "Privileged": options.privileged,
        "CapAdd": _capabilities(options.cap_add),
        "CapDrop": _capabilities(options.cap_drop),
        "CgroupnsMode": options.cgroupns,
        "IpcMode": options.ipc,
        "PidMode": _shared(options.pid),
        "UTSMode": _shared(options.uts),
        "UsernsMode": "" if options.userns == "host" else options.userns,
        "CgroupParent": options.cgroup_parent or "",
        "Sysctls": dict(options.sysctls) or None,
        "Devices": [
            {"PathOnHost": item.source, "PathInContainer": item.target, "CgroupPermissions": item.permissions}
            for item in options.devices
        ],
        "VolumesFrom": [name + (":ro" if ro else "") for name, ro in options.volumes_from] or None,
        "Dns": list(options.dns),
        "DnsSearch": list(options.dns_search),
        "DnsOptions": list(options.dns_options),
        "ExtraHosts": [f"{name}:{address}" for name, address in options.add_hosts] or None,
        "GroupAdd": list(options.group_add) or None,
        "Annotations": dict(options.annotations),
        "SecurityOpt": list(options.security_opt) or None,
        "Memory": options.memory or 0,
        "MemorySwap": options.memory_swap if options.memory_swap is not None else 2 * (options.memory or 0),
        "MemoryReservation": options.memory_reservation or 0,
        "NanoCpus": round((options.cpus or 0) * 1e9),
        "CpuPeriod": options.cpu_period or 0,
        "CpuQuota": options.cpu_quota or 0,
        "CpuShares": options.cpu_shares or 0,
        **{
            f"BlkioDevice{name}": [
                {"Path": item.path, "Rate": item.rate} for item in options.throttles if item.kind == kind
            ]
            or None
            for kind, name in _THROTTLES.items()
        },
        "CpusetCpus": options.cpuset_cpus or "",
        "CpusetMems": options.cpuset_mems or "",
        "PidsLimit": options.pids_limit,
        "ShmSize": options.shm_size,
        "Ulimits": [{"Name": item.name, "Soft": item.soft, "Hard": item.hard} for item in options.ulimits] or None,
        "OomScoreAdj": options.oom_score_adj or 0,
        "Init": options.init,
        "Tmpfs": {use.option.target: _tmpfs(use.option) for use in config.mounts if use.option.type == "tmpfs"} or None,
    }


def _shared(kind: str) -> str:
    """A namespace in docker's words: of its own is the empty word."""
    return "" if kind == "private" else kind


def _capabilities(names: Sequence[str]) -> list[str] | None:
    upper = [name.upper() for name in names]
    return [name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}" for name in upper] or None


def _log_config(options: CreateOptions) -> dict[str, Any]:
    settings = dict(options.log_options)
    return {"Type": settings.pop("driver", "json-file"), "Config": settings}


def _tmpfs(option: MountOption) -> str:
    words = ["ro"] if option.readonly else []
    words += ["exec"] if option.exec else []
    words += [f"size={option.size}"] if option.size is not None else []
    words += [f"mode={option.mode:o}"] if option.mode is not None else []
    return ",".join(words)


def _network_settings(config: Config) -> dict[str, Any]:
    """No network here has an address of its own; docker's clients look for the members all the same."""
    none = {
        "Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "IPAddress": "", "IPPrefixLen": 0,
        "IPv6Gateway": "", "MacAddress": "",
    }  # fmt: skip
    networks = {} if ":" in config.options.network else {config.options.network: dict(none)}
    return {"Ports": {}, **none, "Networks": networks}


def _mount(use: MountUse) -> dict[str, Any]:
    shown: dict[str, Any] = {"Type": use.option.type}
    if use.volume:
        shown |= {"Name": use.volume, "Driver": "local"}
    return shown | {
        "Source": use.source,
        "Destination": use.option.target,
        "Mode": "ro" if use.option.readonly else "",
        "RW": not use.option.readonly,
        "Propagation": use.option.propagation if use.option.type == "bind" else "",
    }
