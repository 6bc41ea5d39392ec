"""The small languages of docker's options: sizes, durations, mounts, environment files and the like."""

import os
import posixpath
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from layerfs.containers.options import MountOption, Restart, Ulimit
from layerfs.errors import InvalidInputError, UnsupportedError, native_error
from layerfs.late import LateModule

if TYPE_CHECKING:
    import re
else:  # few options need an expression
    re = LateModule("re")

__all__ = [
    "clean_target", "parse_duration", "parse_env", "parse_host", "parse_labels", "parse_mount", "parse_pairs",
    "parse_restart", "parse_security", "parse_size", "parse_tmpfs", "parse_ulimit", "parse_volume",
    "parse_volumes_from", "read_lines",
]  # fmt: skip

_FILE_LIMIT = 1 << 20
_SIZE = r"(?i)(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?"
_DURATION = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)"
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_VOLUME_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}"
_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_CONSISTENCY = ("consistent", "cached", "delegated", "default")  # of docker on other systems; here all are the first
_ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
_TRUE = {"": True, "true": True, "1": True, "false": False, "0": False}


def parse_size(text: str, what: str) -> int:
    """Bytes, as 512m or 1.5g; units are powers of 1024."""
    match = re.fullmatch(_SIZE, text.strip())
    if match is None:
        raise InvalidInputError(f"{what} {text!r}: not a size, as 512m or 2g")
    return int(float(match[1]) * 1024 ** ("kmgtp".index(match[2].lower()) + 1 if match[2] else 0))


def parse_duration(text: str, what: str) -> int:
    """Nanoseconds, from docker's form, as 1m30s."""
    if text != "0" and not re.fullmatch(f"(?:{_DURATION})+", text):
        raise InvalidInputError(f"{what} {text!r}: not a duration, as 1m30s")
    return sum(round(float(number) * _UNITS[unit]) for number, unit in re.findall(_DURATION, text))


def clean_target(text: str, what: str) -> str:
    """A path inside the container, absolute and without dots; never the root itself, nor in /proc."""
    if not text.startswith("/"):
        raise InvalidInputError(f"{what}: target {text!r} is not an absolute path")
    path = "/" + posixpath.normpath(text).lstrip("/")
    if path == "/":
        raise InvalidInputError(f"{what}: the target must not be /")
    if path == "/proc" or path.startswith("/proc/"):
        raise InvalidInputError(f"{what}: nothing can be mounted in /proc")
    if "\0" in path:
        raise InvalidInputError(f"{what}: a NUL byte in the target")
    return path


def _volume_name(text: str, what: str) -> str:
    if re.fullmatch(_VOLUME_NAME, text) is None:
        raise InvalidInputError(f"{what}: {text!r} is not a volume name", hint="a path of the host begins with / or ./")
    return text


def parse_volume(text: str) -> MountOption:
    """``-v``: TARGET, or SOURCE:TARGET[:OPTIONS]; the source is a path of the host or a volume's name."""
    what = f"volume {text!r}"
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise InvalidInputError(f"{what}: wanted is [source:]target[:options]")
    if len(parts) == 1:
        return MountOption(type="volume", target=clean_target(parts[0], what))
    source, target = parts[0], clean_target(parts[1], what)
    options = _volume_options(parts[2] if len(parts) == 3 else "", what)
    nocopy = bool(options.pop("nocopy", False))
    readonly, propagation = bool(options.get("readonly")), str(options.get("propagation", "rprivate"))
    if source.startswith(("/", "./", "../")) or source in (".", ".."):
        if nocopy:
            raise InvalidInputError(f"{what}: nocopy is for volumes")
        return MountOption(
            type="bind", source=os.path.abspath(source), target=target, readonly=readonly,
            propagation=propagation, create_source=True,
        )  # fmt: skip
    if "propagation" in options:
        raise InvalidInputError(f"{what}: propagation is for paths of the host")
    return MountOption(
        type="volume", source=_volume_name(source, what), target=target, readonly=readonly, nocopy=nocopy
    )


def _volume_options(text: str, what: str) -> dict[str, bool | str]:
    found: dict[str, bool | str] = {}
    for word in filter(None, text.split(",")):
        if word in ("ro", "rw"):
            found["readonly"] = word == "ro"
        elif word == "nocopy":
            found["nocopy"] = True
        elif word in _PROPAGATION:
            found["propagation"] = word
        elif word in _CONSISTENCY:
            continue
        elif word in ("z", "Z"):
            if os.path.exists("/sys/fs/selinux/enforce"):
                raise UnsupportedError(f"{what}: relabelling for SELinux ({word}) is not offered")
        else:
            raise InvalidInputError(f"{what}: unknown option {word!r}")
    return found


def parse_volumes_from(text: str) -> tuple[str, bool]:
    """``--volumes-from``: CONTAINER[:ro|rw]; whether the mounts are read-only whatever they were."""
    name, _, words = text.partition(":")
    what = f"option --volumes-from {text!r}"
    options = _volume_options(words, what)
    if not name or not options.keys() <= {"readonly"}:
        raise InvalidInputError(f"{what}: wanted is container[:ro|rw]")
    return name, bool(options.get("readonly"))


def _csv(text: str) -> list[tuple[str, str | None]]:
    pairs = []
    for field in re.findall(r'"(?:[^"]|"")*"|[^,]+', text):
        plain = field[1:-1].replace('""', '"') if field.startswith('"') else field
        key, sign, value = plain.partition("=")
        pairs.append((key.strip(), value if sign else None))
    return pairs


_MOUNT_KEYS = {
    "src": "source", "source": "source", "dst": "target", "destination": "target", "target": "target",
    "ro": "readonly", "readonly": "readonly", "bind-propagation": "propagation", "volume-nocopy": "nocopy",
    "volume-subpath": "subpath", "image-subpath": "subpath", "subpath": "subpath",
    "tmpfs-size": "size", "tmpfs-mode": "mode", "bind-recursive": "recursive", "bind-nonrecursive": "nonrecursive",
    "bind-create-src": "create",
    "consistency": "consistency", "volume-driver": "driver",
}  # fmt: skip
_ONLY = {
    "propagation": ("bind",), "recursive": ("bind",), "nonrecursive": ("bind",), "nocopy": ("volume",),
    "subpath": ("volume", "image"), "size": ("tmpfs",), "mode": ("tmpfs",), "create": ("bind",), "driver": ("volume",),
}  # fmt: skip


def parse_mount(text: str) -> MountOption:
    """``--mount``: type=bind|volume|tmpfs|image,source=…,target=…[,readonly…]."""
    what = f"mount {text!r}"
    kind, fields = "volume", {}
    for key, value in _csv(text):
        if key == "type":
            kind = value or ""
            continue
        if key not in _MOUNT_KEYS:
            raise InvalidInputError(f"{what}: unknown option {key!r}")
        fields[_MOUNT_KEYS[key]] = value
    if kind not in ("bind", "volume", "tmpfs", "image"):
        raise InvalidInputError(f"{what}: unknown type {kind!r}", hint="known are bind, volume, tmpfs, image")
    for key in fields:
        if kind not in _ONLY.get(key, (kind,)):
            raise InvalidInputError(f"{what}: {key} is not for type {kind}")
    return _mount_of(kind, fields, what)


def _mount_of(kind: str, fields: dict[str, str | None], what: str) -> MountOption:
    target, source = fields.get("target"), fields.get("source")
    if not target:
        raise InvalidInputError(f"{what}: the target is missing")
    if kind in ("bind", "image") and not source:
        raise InvalidInputError(f"{what}: the source is missing")
    if kind == "tmpfs" and source:
        raise InvalidInputError(f"{what}: a tmpfs has no source")
    if kind == "bind" and not (source or "").startswith("/"):
        raise InvalidInputError(f"{what}: the source must be an absolute path")
    if kind == "volume" and source:
        _volume_name(source, what)
    propagation = fields.get("propagation") or "rprivate"
    if propagation not in _PROPAGATION:
        raise InvalidInputError(f"{what}: bind-propagation {propagation!r} is not one of {', '.join(_PROPAGATION)}")
    recursive = fields.get("recursive") or "enabled"
    if recursive not in ("enabled", "disabled"):
        raise InvalidInputError(f"{what}: bind-recursive {recursive!r} is not enabled or disabled")
    for key, known in (("consistency", _CONSISTENCY), ("driver", ("local",))):
        if (fields.get(key) or known[0]) not in known:
            raise InvalidInputError(f"{what}: {key} {fields[key]!r} is not one of {', '.join(known)}")
    size, mode = fields.get("size"), fields.get("mode")
    return MountOption(
        type=kind,  # type: ignore[arg-type]  # checked by the caller
        target=clean_target(target, what),
        source=source,
        readonly=_flag(fields, "readonly", what),
        recursive=recursive == "enabled" and not _flag(fields, "nonrecursive", what),
        propagation=propagation,
        create_source=_flag(fields, "create", what),
        nocopy=_flag(fields, "nocopy", what),
        subpath=_subpath(fields["subpath"] or "", what) if "subpath" in fields else None,
        size=parse_size(size, what) if size else None,
        mode=_octal(mode, what) if mode else None,
    )


def _subpath(text: str, what: str) -> str:
    path = posixpath.normpath(text)
    if not text or text.startswith("/") or path == ".." or path.startswith("../") or "\0" in text:
        raise InvalidInputError(f"{what}: subpath {text!r} is not a path within it")
    return path


def _flag(fields: dict[str, str | None], key: str, what: str) -> bool:
    if key not in fields:
        return False
    value = (fields[key] or "").lower()
    if value not in _TRUE:
        raise InvalidInputError(f"{what}: {key}={value} is neither true nor false")
    return _TRUE[value]


def _octal(text: str, what: str) -> int:
    if re.fullmatch(r"[0-7]{1,5}", text) is None:
        raise InvalidInputError(f"{what}: mode {text!r} is not an octal number")
    return int(text, 8)


def parse_tmpfs(text: str) -> MountOption:
    """``--tmpfs``: TARGET[:size=…,mode=…,ro,exec]."""
    what = f"tmpfs {text!r}"
    target, _, options = text.partition(":")
    size = mode = None
    readonly = run = False
    for key, value in _csv(options):
        if key == "size" and value:
            size = parse_size(value, what)
        elif key == "mode" and value:
            mode = _octal(value, what)
        elif key in ("ro", "rw") and value is None:
            readonly = key == "ro"
        elif key in ("exec", "noexec") and value is None:
            run = key == "exec"
        elif key not in ("nosuid", "nodev") or value is not None:  # those two hold in any case
            raise InvalidInputError(f"{what}: unknown option {key!r}")
    return MountOption(
        type="tmpfs", target=clean_target(target, what), size=size, mode=mode, readonly=readonly, exec=run
    )


def _read_file(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_FILE_LIMIT + 1)
    except OSError as exc:
        raise native_error(exc, what) from exc
    if len(data) > _FILE_LIMIT:
        raise InvalidInputError(f"{what}: more than {_FILE_LIMIT} bytes")
    return data


def read_lines(path: str, what: str) -> list[str]:
    """The lines of a file of the host that mean something: comments and empty ones left out."""
    data = _read_file(path, f"read {what} {path}")
    try:
        lines = data.decode().removeprefix("\ufeff").splitlines()
    except UnicodeDecodeError:
        raise InvalidInputError(f"read {what} {path}: not UTF-8", file=path) from None
    return [line.lstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def parse_env(values: Iterable[str], files: Iterable[str] = ()) -> tuple[str, ...]:
    """``--env-file`` and then ``-e``: NAME=value, or NAME alone to take it from here, and to unset it where it is not
    set here."""
    found: list[str] = []
    lines = [line for path in files for line in read_lines(path, "environment file")]
    for line in lines:
        if re.search(r"\s", line.partition("=")[0]):
            raise InvalidInputError(f"environment variable {line!r}: white space in its name")
    for word in [*lines, *values]:
        name, sign, _ = word.partition("=")
        if not name or "\0" in word or (not sign and re.search(r"\s", name)):
            raise InvalidInputError(f"environment variable {word!r}: wanted is NAME or NAME=value")
        if sign:
            found.append(word)
        else:
            found.append(f"{name}={os.environ[name]}" if name in os.environ else name)
    return tuple(found)


def parse_pairs(values: Iterable[str], what: str) -> dict[str, str]:
    """NAME=value words as a mapping; a value is needed."""
    found = {}
    for word in values:
        name, sign, value = word.partition("=")
        if not name or not sign:
            raise InvalidInputError(f"{what} {word!r}: wanted is name=value")
        found[name] = value
    return found


def parse_labels(values: Iterable[str], files: Iterable[str] = ()) -> dict[str, str]:
    """``--label-file`` and then ``-l``: NAME[=value]."""
    found = {}
    for word in [*(line for path in files for line in read_lines(path, "label file")), *values]:
        name, _, value = word.partition("=")
        if not name:
            raise InvalidInputError(f"label {word!r}: the name is missing")
        found[name] = value
    return found


def parse_ulimit(text: str) -> Ulimit:
    """``--ulimit``: NAME=SOFT[:HARD]."""
    name, _, value = text.partition("=")
    soft, sign, hard = value.partition(":")
    if name not in _ULIMITS:
        raise InvalidInputError(f"ulimit {text!r}: unknown limit", hint=f"known are {', '.join(_ULIMITS)}")
    numbers = [-1 if word == "unlimited" else word for word in (soft, hard if sign else soft)]
    try:
        low, high = (int(number) for number in numbers)
    except ValueError:
        raise InvalidInputError(f"ulimit {text!r}: wanted is {name}=soft[:hard]") from None
    if min(low, high) < -1 or (high != -1 and (low > high or low == -1)):
        raise InvalidInputError(f"ulimit {text!r}: the soft limit is above the hard one")
    return Ulimit(name, low, high)


def parse_restart(text: str) -> Restart:
    """``--restart``: no, on-failure[:N], always, unless-stopped."""
    policy, sign, number = text.partition(":")
    if policy not in ("no", "on-failure", "always", "unless-stopped"):
        raise InvalidInputError(
            f"restart policy {text!r}: unknown", hint="known are no, on-failure[:n], always, unless-stopped"
        )
    if sign and (policy != "on-failure" or not number.isdecimal()):
        raise InvalidInputError(f"restart policy {text!r}: a number of tries is for on-failure")
    return Restart(policy, int(number) if sign else 0)  # type: ignore[arg-type]  # checked above


def parse_security(text: str) -> str:
    """``--security-opt``: as it is, but for a seccomp profile, whose file is read here and now."""
    name, _, value = text.replace(":", "=", 1).partition("=") if "=" not in text else text.partition("=")
    if name != "seccomp" or value in ("unconfined", "builtin", "") or value.startswith("{"):
        return text
    what = f"option --security-opt seccomp={value}"
    data = _read_file(value, f"{what}: read it")
    try:
        return f"seccomp={msgspec.json.encode(msgspec.json.decode(data, type=dict[str, Any])).decode()}"
    except msgspec.DecodeError as exc:
        raise InvalidInputError(f"{what}: not a seccomp profile: {exc}") from None


def parse_host(text: str) -> tuple[str, str]:
    """``--add-host``: NAME:ADDRESS or NAME=ADDRESS."""
    match = re.fullmatch(r"([^\s:=]+)[:=]\[?([0-9a-fA-F:.]+|host-gateway)\]?", text)
    if match is None:
        raise InvalidInputError(f"host {text!r}: wanted is name:address")
    # In the network of the host, which is the only one, its loopback is the way to it.
    return match[1], "127.0.0.1" if match[2] == "host-gateway" else match[2]
