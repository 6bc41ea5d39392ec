"""A container as docker's JSON has it."""

from datetime import UTC, datetime
from typing import Any

from layerfs.containers.parts import Parts
from layerfs.containers.record import Config, MountUse, State
from layerfs.metadata import ContainerRow

__all__ = ["inspect_container", "time_text"]


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
        "State": _state(state),
        "Image": config.image_id,
        "ResolvConfPath": str(directory / "resolv.conf"),
        "HostnamePath": str(directory / "hostname"),
        "HostsPath": str(directory / "hosts"),
        "LogPath": str(directory / "log"),
        "Name": f"/{row.name}",
        "RestartCount": 0,
        "Driver": "layerfs",
        "Platform": config.os,
        "HostConfig": _host_config(config),
        "GraphDriver": {
            "Name": "layerfs",
            "Data": {"UpperDir": str(parts.snapshots.upper(row.id)), "Layers": list(config.layers)},
        },
        "Mounts": [_mount(use) for use in config.mounts],
        "Config": _config(config),
        "NetworkSettings": {"Networks": {config.options.network: {}}},
    }


def _state(state: State) -> dict[str, Any]:
    return {
        "Status": state.status,
        "Running": state.status in ("running", "paused"),
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "Dead": state.status == "dead",
        "Pid": state.process.pid if state.process is not None else 0,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time_text(state.started),
        "FinishedAt": time_text(state.finished),
    }


def _config(config: Config) -> dict[str, Any]:
    options, section = config.options, config.section
    return {
        **section,
        "Hostname": config.hostname,
        "Domainname": options.domainname or "",
        "User": section.get("User") or "",
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "Env": list(section.get("Env") or []),
        "Cmd": section.get("Cmd"),
        "Entrypoint": section.get("Entrypoint"),
        "Image": options.image,
        "Volumes": section.get("Volumes"),
        "WorkingDir": section.get("WorkingDir") or "",
        "Labels": dict(section.get("Labels") or {}),
    }


def _host_config(config: Config) -> dict[str, Any]:
    options = config.options
    binds = [use for use in config.mounts if use.option.type == "bind"]
    return {
        "Binds": [f"{use.source}:{use.option.target}{':ro' if use.option.readonly else ''}" for use in binds] or None,
        "NetworkMode": options.network,
        "RestartPolicy": {"Name": options.restart.policy, "MaximumRetryCount": options.restart.maximum},
        "AutoRemove": options.auto_remove,
        "Runtime": config.runtime,
        "ReadonlyRootfs": options.read_only,
        "Privileged": options.privileged,
        "CapAdd": list(options.cap_add) or None,
        "CapDrop": list(options.cap_drop) or None,
        "Dns": list(options.dns),
        "DnsSearch": list(options.dns_search),
        "DnsOptions": list(options.dns_options),
        "ExtraHosts": [f"{name}:{address}" for name, address in options.add_hosts] or None,
        "GroupAdd": list(options.group_add) or None,
        "SecurityOpt": list(options.security_opt) or None,
        "Memory": options.memory or 0,
        "MemorySwap": options.memory_swap or 0,
        "MemoryReservation": options.memory_reservation or 0,
        "NanoCpus": round((options.cpus or 0) * 1e9),
        "CpuShares": options.cpu_shares or 0,
        "CpusetCpus": options.cpuset_cpus or "",
        "CpusetMems": options.cpuset_mems or "",
        "PidsLimit": options.pids_limit,
        "ShmSize": options.shm_size,
        "Ulimits": [{"Name": item.name, "Soft": item.soft, "Hard": item.hard} for item in options.ulimits] or None,
        "OomScoreAdj": options.oom_score_adj or 0,
        "Init": options.init,
        "Tmpfs": {use.option.target: "" for use in config.mounts if use.option.type == "tmpfs"} or None,
    }


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
