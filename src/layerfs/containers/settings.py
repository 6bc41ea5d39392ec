"""What an image says and what options say, merged: the run configuration of a container."""

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from layerfs.containers._values import clean_target
from layerfs.containers.options import CreateOptions, Health
from layerfs.errors import InvalidInputError
from layerfs.runtime import User, signal_number

__all__ = ["DEFAULT_PATH", "command_of", "image_volumes", "merged_section", "process_env", "working_directory"]

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_HEALTH = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start_period": "StartPeriod",
    "start_interval": "StartInterval",
    "retries": "Retries",
}


def merged_section(image: Mapping[str, Any], options: CreateOptions) -> dict[str, Any]:
    """The image's ``config`` with the options in their places; members that nobody knows are kept."""
    section = {key: value for key, value in image.items() if value is not None}
    if options.bare_env:
        section.pop("Env", None)
    if options.entrypoint is not None:
        # The image's CMD is the argument of the image's ENTRYPOINT, and of no other.
        section["Entrypoint"] = list(options.entrypoint)
        section.pop("Cmd", None)
    if options.args:
        section["Cmd"] = list(options.args)
    if options.env:
        section["Env"] = merge_env(section.get("Env") or [], options.env)
    if options.labels:
        section["Labels"] = {**(section.get("Labels") or {}), **options.labels}
    for key, value in (
        ("User", options.user),
        ("WorkingDir", _directory(options.workdir)),
        ("StopSignal", options.stop_signal),
    ):
        if value is not None:
            section[key] = value
    brought = [mount.target for mount in options.mounts if mount.type == "volume" and mount.source is None]
    if brought:
        section["Volumes"] = {**(section.get("Volumes") or {}), **{path: {} for path in brought}}
    if options.expose:
        section["ExposedPorts"] = {**(section.get("ExposedPorts") or {}), **{port: {} for port in options.expose}}
    if options.health is not None:
        section["Healthcheck"] = _health(section.get("Healthcheck") or {}, options.health)
    _check(section)
    return section


def _directory(path: str | None) -> str | None:
    if path is None:
        return None
    if not path.startswith("/"):
        raise InvalidInputError(f"working directory {path!r}: not an absolute path")
    return posixpath.normpath(path)


def _health(image: Mapping[str, Any], health: Health) -> dict[str, Any]:
    merged = dict(image)
    if health.test:
        merged["Test"] = list(health.test)
    merged.update({name: getattr(health, field) for field, name in _HEALTH.items() if getattr(health, field)})
    return merged


def _check(section: Mapping[str, Any]) -> None:
    """An image may say anything: what is of the wrong type or not possible is refused here, by name."""
    for key in ("Env", "Entrypoint", "Cmd"):
        words = section.get(key) or []
        if not all(isinstance(word, str) and "\0" not in word for word in words):
            raise InvalidInputError(f"image config: {key} is not a list of strings")
    if "StopSignal" in section:
        try:
            signal_number(str(section["StopSignal"]))
        except ValueError as exc:
            raise InvalidInputError(f"stop signal: {exc}") from None


def merge_env(base: Sequence[str], changes: Sequence[str]) -> list[str]:
    """``NAME=value`` words, later ones in the places of earlier ones of the same name; a NAME alone stays one."""
    merged: dict[str, str] = {}
    for word in (*base, *changes):
        merged[word.partition("=")[0]] = word
    return list(merged.values())


def command_of(section: Mapping[str, Any]) -> tuple[str, ...]:
    """What is executed; InvalidInputError when neither the image nor the options say."""
    words = (*(section.get("Entrypoint") or ()), *(section.get("Cmd") or ()))
    if not words:
        raise InvalidInputError("create container: no command", hint="the image names none: give one after the image")
    return words


def working_directory(section: Mapping[str, Any]) -> str:
    """The absolute directory that the command starts in."""
    return posixpath.normpath("/" + str(section.get("WorkingDir") or "").lstrip("/"))


def process_env(
    section: Mapping[str, Any], user: User, hostname: str, *, tty: bool, bare: bool = False
) -> tuple[str, ...]:
    """The environment, what the image and the options say last. A home that is empty is the user's, as under runc.

    ``bare``: nothing that they do not say.
    """
    base = [] if bare else [DEFAULT_PATH, f"HOSTNAME={hostname}", f"HOME={user.home}"]
    if tty and not bare:
        base.append("TERM=xterm")
    words = merge_env(base, section.get("Env") or [])
    home = f"HOME={user.home}"
    return tuple(home if word in ("HOME", "HOME=") else word for word in words if "=" in word or word == "HOME")


def image_volumes(section: Mapping[str, Any]) -> list[str]:
    """Where the image wants volumes: clean absolute paths. InvalidInputError for a place that cannot be one."""
    found: dict[str, None] = {}
    for path in section.get("Volumes") or {}:
        target = clean_target("/" + os.fspath(path).lstrip("/"), f"volume {path!r} of the image")
        if target.split("/")[1] in ("sys", "dev"):
            raise InvalidInputError(f"volume {path!r} of the image: nothing can be mounted there")
        found[target] = None
    return list(found)
