"""Devices of the host as options name them: those that a container has, and how fast it may use them."""

import os
import re
import stat
from typing import Any

from layerfs.containers._values import clean_target, parse_size
from layerfs.containers.options import Device, Throttle
from layerfs.errors import InvalidInputError

__all__ = ["parse_device", "parse_throttle"]


def parse_device(text: str) -> Device:
    """``--device``: SOURCE[:TARGET][:PERMISSIONS]."""
    parts = text.split(":")
    permissions = "rwm"
    if len(parts) > 1 and re.fullmatch("[rwm]{1,3}", parts[-1]):
        permissions = parts.pop()
    source, target = parts[0], parts[-1]
    if len(parts) > 2 or not source.startswith("/") or not target.startswith("/"):
        raise InvalidInputError(f"device {text!r}: wanted is /dev/source[:/dev/target][:rwm]")
    try:
        mode = os.stat(source).st_mode
    except OSError:
        raise InvalidInputError(f"device {text!r}: {source} is not there") from None
    if not stat.S_ISCHR(mode) and not stat.S_ISBLK(mode):
        raise InvalidInputError(f"device {text!r}: {source} is not a device")
    return Device(source, clean_target(target, f"device {text!r}"), permissions)


def parse_throttle(kind: Any, text: str, what: str) -> Throttle:
    """``--device-read-bps`` and its like: DEVICE:RATE, in bytes a second with a unit, or operations."""
    path, sign, rate = text.rpartition(":")
    if not sign or not path.startswith("/dev/"):
        raise InvalidInputError(f"{what} {text!r}: wanted is /dev/device:rate")
    try:
        mode = os.stat(path).st_mode
    except OSError:
        raise InvalidInputError(f"{what} {text!r}: {path} is not there") from None
    if not stat.S_ISBLK(mode):
        raise InvalidInputError(f"{what} {text!r}: {path} is not a block device")
    if kind.endswith("bps"):
        number = parse_size(rate, what)
    elif re.fullmatch(r"\d{1,9}", rate):
        number = int(rate)
    else:
        raise InvalidInputError(f"{what} {text!r}: {rate!r} is not a number of operations")
    if number == 0:
        raise InvalidInputError(f"{what} {text!r}: 0 is no rate")
    return Throttle(kind, path, number)
