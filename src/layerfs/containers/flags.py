"""``CreateOptions`` from what users write on the command line: docker's flags by name, as strings.

A flag that is not known, or whose value cannot be offered, is refused by its name and never ignored.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from layerfs.containers import _values
from layerfs.containers.options import CreateOptions, Health, MountOption
from layerfs.errors import InvalidInputError, UnsupportedError
from layerfs.late import LateModule

if TYPE_CHECKING:
    import re
else:  # few options need an expression
    re = LateModule("re")

__all__ = ["FLAGS", "create_options"]

_HEALTH = {
    "health_interval": "interval",
    "health_timeout": "timeout",
    "health_start_period": "start_period",
    "health_start_interval": "start_interval",
}
_PLAIN = (
    "name", "platform", "runtime", "user", "workdir", "hostname", "domainname", "cpuset_cpus", "cpuset_mems",
    "cgroup_parent", "stop_signal",
)  # fmt: skip
_BOOLEAN = ("tty", "interactive", "init", "read_only", "privileged")
_LISTS = ("group_add", "dns", "dns_search", "cap_add", "cap_drop")
_NUMBERS = ("stop_timeout", "cpu_period", "cpu_quota", "cpu_shares", "pids_limit", "oom_score_adj")
_SIZES = ("memory", "memory_reservation", "shm_size")
_NONE_IS_ZERO = ("memory", "memory_reservation", "shm_size", "cpu_period", "cpu_quota", "cpu_shares")
_THROTTLES = ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops")
_OTHERS = (
    "rm", "entrypoint", "env", "env_file", "label", "label_file", "volume", "volumes_from", "mount", "tmpfs", "device",
    "network",
    "net", "add_host", "dns_option", "pid", "ipc", "uts", "cgroupns", "userns", "sysctl", "ulimit", "memory_swap",
    "cpus", "security_opt", "expose", "restart", "log_opt", "log_driver", "health_cmd", "health_retries",
    "no_healthcheck", "attach", *_THROTTLES, "annotation", "umask", "timeout", "unsetenv", "unsetenv_all", "tz",
    *_HEALTH,
)  # fmt: skip
_REFUSED = (
    "publish", "publish_all", "link", "ip", "ip6", "mac_address", "network_alias", "gpus", "isolation",
    "volume_driver", "storage_opt", "device_cgroup_rule", "kernel_memory", "memory_swappiness",
    "blkio_weight",
    "cpu_rt_period", "cpu_rt_runtime", "oom_kill_disable", "link_local_ip",
    "blkio_weight_device", "use_api_socket",
    "gidmap", "pod", "pod_id_file", "requires", "rootfs", "sdnotify", "secret", "subgidname", "subuidname", "systemd",
    "uidmap",
)  # fmt: skip

_LONGEST = 10**9  # seconds

FLAGS = frozenset((*_PLAIN, *_BOOLEAN, *_LISTS, *_NUMBERS, *_SIZES, *_OTHERS, *_REFUSED))
"""All flags that ``create_options`` knows, those it refuses included; with ``_`` for ``-``."""


def create_options(image: str, args: Sequence[str] = (), flags: Mapping[str, Any] | None = None) -> CreateOptions:
    """The options that an image, a command and flags make.

    ``flags``: docker's long names with ``_`` for ``-``, as strings, lists of strings where a flag may be
    repeated, or booleans; None, False and empty lists stand for flags not given. Raises InvalidInputError for
    what is wrong and UnsupportedError for what is not offered.
    """
    given = {name: value for name, value in (flags or {}).items() if _is_given(value)}
    for name in given:
        if name not in FLAGS:
            raise InvalidInputError(f"option --{name.replace('_', '-')}: unknown")
        if name in _REFUSED:
            raise UnsupportedError(f"option --{name.replace('_', '-')}: not offered")
    fields: dict[str, Any] = {name: given[name] for name in (*_PLAIN, *_BOOLEAN) if given.get(name)}
    fields |= {name: tuple(given[name]) for name in _LISTS if name in given}
    fields["attach"] = tuple(dict.fromkeys(map(_stream, given.get("attach", ()))))
    fields |= {name: _whole(given[name], name) for name in _NUMBERS if name in given}
    fields |= {name: _values.parse_size(given[name], _shown(name)) for name in _SIZES if name in given}
    for name in _NONE_IS_ZERO:  # as with docker; a tmpfs of size 0 would have no limit
        if fields.get(name) == 0:
            del fields[name]
    if fields.get("cpu_quota") == -1:
        del fields["cpu_quota"]
    if "host-gateway" in str(given.get("add_host")) and "none" in (given.get("network"), given.get("net")):
        raise UnsupportedError("option --add-host host-gateway: not offered without a network")
    fields |= _process(given) | _view(given) | _limits(given)
    return CreateOptions(image=image, args=tuple(args), **fields)


def _is_given(value: Any) -> bool:
    return not (value is None or value is False or value == [] or value == ())


def _shown(name: str) -> str:
    return f"option --{name.replace('_', '-')}"


def _whole(value: str | int, name: str) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value) is None:
        raise InvalidInputError(f"{_shown(name)} {value!r}: not a whole number")
    return int(value)


def _stream(text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise InvalidInputError(f"option --attach {text!r}: wanted is stdin, stdout or stderr")
    return text.lower()


def _process(given: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {"auto_remove": bool(given.get("rm"))}
    if "entrypoint" in given:
        value = _words(given["entrypoint"])
        # --entrypoint "" drops the image's.
        fields["entrypoint"] = tuple(filter(None, [value] if isinstance(value, str) else value))
    unset = given.get("unsetenv", ())
    for name in unset:
        if not name or "=" in name:
            raise InvalidInputError(f"option --unsetenv {name!r}: not the name of a variable")
    fields["env"] = (*unset, *_values.parse_env(given.get("env", ()), given.get("env_file", ())))
    fields["bare_env"] = bool(given.get("unsetenv_all"))
    fields["annotations"] = _values.parse_pairs(given.get("annotation", ()), "option --annotation")
    fields |= _podmans(given)
    fields["labels"] = _values.parse_labels(given.get("label", ()), given.get("label_file", ()))
    if "restart" in given:
        fields["restart"] = _values.parse_restart(given["restart"])
        if given.get("rm") and fields["restart"].policy != "no":
            raise InvalidInputError("option --rm: it cannot go with --restart")
    fields["health"] = _health(given)
    fields["expose"] = _ports(given.get("expose", ()))
    if given.get("log_driver", "json-file") not in ("json-file", "none"):
        raise UnsupportedError(f"option --log-driver {given['log_driver']!r}: not offered")
    logs = _values.parse_pairs(given.get("log_opt", ()), "option --log-opt")
    for name in logs:
        if name not in ("max-size", "max-file"):
            raise UnsupportedError(f"option --log-opt {name}: not offered")
    if "max-size" in logs:
        unlimited = logs["max-size"] == "-1"
        logs["max-size"] = "0" if unlimited else str(_values.parse_size(logs["max-size"], "option --log-opt max-size"))
    if "max-file" in logs and not re.fullmatch(r"[1-9]\d{0,5}", logs["max-file"]):
        raise InvalidInputError(f"option --log-opt max-file {logs['max-file']!r}: not a number of files, 1 or more")
    if given.get("log_driver") == "none":
        logs["driver"] = "none"
    fields["log_options"] = logs
    return fields


def _podmans(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of podman: its umask, its time zone, and how long it may run."""
    fields: dict[str, Any] = {"timezone": given["tz"]} if "tz" in given else {}
    if "umask" in given:
        if re.fullmatch("[0-7]{1,4}", given["umask"]) is None:
            raise InvalidInputError(f"option --umask {given['umask']!r}: not an octal number, as 0027")
        fields["umask"] = int(given["umask"], 8) & 0o777
    if "timeout" in given:
        fields["timeout"] = _whole(given["timeout"], "timeout")
        if not 0 <= fields["timeout"] <= _LONGEST:
            raise InvalidInputError(f"option --timeout {given['timeout']}: out of range, 0 to {_LONGEST}")
    return fields


def _ports(words: Sequence[str]) -> tuple[str, ...]:
    if not words:
        return ()
    from layerfs.imageconfig.arguments import SyntaxProblem, ports_of  # few containers have any

    try:
        return tuple(port for word in words for port in ports_of(word))
    except SyntaxProblem as exc:
        raise InvalidInputError(f"option --expose: {exc}") from None


def _words(value: str | Sequence[str]) -> str | Sequence[str]:
    """An entry point as podman's users may write it, too: a JSON list of its words."""
    if isinstance(value, str) and value.startswith("["):
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(value, type=list[str])
    return value


def _health(given: Mapping[str, Any]) -> Health | None:
    times = {field: _duration(given[name], name) for name, field in _HEALTH.items() if name in given}
    retries = _whole(given.get("health_retries", 0), "health_retries")
    if retries < 0:
        raise InvalidInputError(f"option --health-retries {retries}: less than 0")
    if given.get("no_healthcheck"):
        if times or retries or "health_cmd" in given:
            raise InvalidInputError("option --no-healthcheck: it cannot go with other --health options")
        return Health(test=("NONE",))
    test = ("CMD-SHELL", given["health_cmd"]) if "health_cmd" in given else ()
    if not times and not retries and not test:
        return None
    return Health(test=test, retries=retries, **times)


def _duration(text: str, name: str) -> int:
    value = _values.parse_duration(text, _shown(name))
    if 0 < value < 10**6:
        raise InvalidInputError(f"{_shown(name)} {text!r}: less than 1ms")
    return value


def _view(given: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "mounts": _mounts(given),
        "volumes_from": tuple(map(_values.parse_volumes_from, given.get("volumes_from", ()))),
        "add_hosts": tuple(map(_values.parse_host, given.get("add_host", ()))),
        "dns_options": tuple(given.get("dns_option", ())),
    }
    fields |= _devices_of(given)
    for flag, choices in _NAMESPACES.items():
        if flag in given:
            fields[flag] = _choice(flag, given[flag], choices)
    network = given.get("network") or given.get("net")
    if network:
        kind = _choice("network", network, ("host", "none", "default", _OF_A_CONTAINER))
        fields["network"] = "host" if kind == "default" else kind
    if "userns" in given:
        value = given["userns"]
        if value not in ("host", "auto", "keep-id") and not re.fullmatch(r"\d+:\d+(?::\d+)?", value):
            raise UnsupportedError(f"option --userns {value!r}: not offered", hint="offered are host, auto, keep-id")
        fields["userns"] = value
    return fields


def _devices_of(given: Mapping[str, Any]) -> dict[str, Any]:
    if not given.keys() & {"device", *_THROTTLES}:
        return {}
    from layerfs.containers._devices import parse_device, parse_throttle  # few containers have any

    throttles = [(flag, word) for flag in _THROTTLES for word in given.get(flag, ())]
    return {
        "devices": tuple(map(parse_device, given.get("device", ()))),
        "throttles": tuple(
            parse_throttle(flag.removeprefix("device_"), word, _shown(flag)) for flag, word in throttles
        ),
    }


_OF_A_CONTAINER = "container:NAME"
_NAMESPACES = {
    "pid": ("private", "host", _OF_A_CONTAINER),
    "ipc": ("private", "host", "none", "shareable", _OF_A_CONTAINER),
    "uts": ("private", "host", _OF_A_CONTAINER),
    "cgroupns": ("private", "host"),
}


def _choice(flag: str, value: Any, choices: Sequence[str]) -> str:
    if isinstance(value, list):
        if len(value) != 1:
            raise UnsupportedError(f"{_shown(flag)}: more than one is not offered")
        value = value[0]
    if value == "":
        value = choices[0]
    joins = _OF_A_CONTAINER in choices and str(value).startswith("container:")
    if value not in choices and not joins:
        raise UnsupportedError(f"{_shown(flag)} {value!r}: not offered", hint=f"offered are {', '.join(choices)}")
    return str(value)


def _mounts(given: Mapping[str, Any]) -> tuple[MountOption, ...]:
    parsers: tuple[tuple[str, Callable[[str], MountOption]], ...] = (
        ("volume", _values.parse_volume),
        ("mount", _values.parse_mount),
        ("tmpfs", _values.parse_tmpfs),
    )
    mounts = [parse(word) for flag, parse in parsers for word in given.get(flag, ())]
    _distinct(mount.target for mount in mounts)
    return tuple(mounts)


def _distinct(targets: Iterable[str]) -> None:
    seen: set[str] = set()
    for target in targets:
        if target in seen:
            raise InvalidInputError(f"mount point {target}: given twice")
        seen.add(target)


def _limits(given: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "ulimits": tuple(map(_values.parse_ulimit, given.get("ulimit", ()))),
        "sysctls": _values.parse_pairs(given.get("sysctl", ()), "option --sysctl"),
        "security_opt": tuple(map(_values.parse_security, given.get("security_opt", ()))),
    }
    if "memory_swap" in given:
        value = str(given["memory_swap"])
        fields["memory_swap"] = -1 if value == "-1" else _values.parse_size(value, "option --memory-swap") or None
    if "cpus" in given:
        try:
            fields["cpus"] = float(given["cpus"]) or None
        except ValueError:
            raise InvalidInputError(f"option --cpus {given['cpus']!r}: not a number") from None
        if fields["cpus"] is not None and not 0 < fields["cpus"] <= 8192:
            raise InvalidInputError(f"option --cpus {given['cpus']!r}: out of range")
    if "memory" in given and 0 < _values.parse_size(given["memory"], "option --memory") < 6 << 20:
        raise InvalidInputError("option --memory: the least is 6m")
    for flag in ("cpuset_cpus", "cpuset_mems"):
        if given.get(flag):
            _check_cpuset(given[flag], flag)
    return fields


def _check_cpuset(text: str, flag: str) -> None:
    """A list of numbers and ranges. Bounded here: what expands a range later must not eat memory."""
    if re.fullmatch(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*", text) is None or len(text) > 4096:
        raise InvalidInputError(f"{_shown(flag)} {text!r}: wanted is a list as 0-2,7")
    for part in text.split(","):
        low, sign, high = part.partition("-")
        if int(high if sign else low) > 8191 or (sign and int(low) > int(high)):
            raise InvalidInputError(f"{_shown(flag)} {text!r}: out of range")
