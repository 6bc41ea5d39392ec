"""Limits that this host cannot set, told before anything is made: runtimes speak of files of the kernel then."""

import os
from contextlib import suppress

from layerfs.containers.options import CreateOptions
from layerfs.errors import InvalidInputError

__all__ = ["check_limits"]

_SHARES = (2, 262_144)  # of cgroup v1; both versions take them
_PERIOD = (1000, 1_000_000)  # microseconds; so are the next
_QUOTA = (1000, 2**53)
_OOM = (-1000, 1000)


def check_limits(options: CreateOptions) -> None:
    """InvalidInputError for a limit out of range, one that contradicts another one, or a CPU that is not there."""
    swap, memory, reservation = options.memory_swap, options.memory, options.memory_reservation
    if swap is not None and swap != -1 and memory is None:
        raise InvalidInputError("option --memory-swap: it counts memory and swap, and --memory is not given")
    if swap is not None and swap != -1 and swap < (memory or 0):
        raise InvalidInputError("option --memory-swap: less than --memory")
    if reservation is not None and memory is not None and reservation > memory:
        raise InvalidInputError("option --memory-reservation: more than --memory")
    if options.cpus is not None and (options.cpu_period is not None or options.cpu_quota is not None):
        raise InvalidInputError("option --cpus: it cannot go with --cpu-period and --cpu-quota")
    _check_range("--cpu-period", options.cpu_period, *_PERIOD)
    _check_range("--cpu-quota", options.cpu_quota, *_QUOTA)
    _check_range("--cpu-shares", options.cpu_shares, *_SHARES)
    _check_range("--oom-score-adj", options.oom_score_adj, *_OOM)
    count = os.cpu_count() or 1
    if options.cpus is not None and options.cpus > count:
        raise InvalidInputError(f"option --cpus {options.cpus:g}: this host has {count}")
    _check_set("--cpuset-cpus", options.cpuset_cpus, "/sys/devices/system/cpu/online")
    _check_set("--cpuset-mems", options.cpuset_mems, "/sys/devices/system/node/online")


def _check_range(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise InvalidInputError(f"option {name} {value}: out of range, {least} to {most}")


def _check_set(name: str, text: str | None, path: str) -> None:
    """Whether the host has all that a list names, as far as it says what it has."""
    if text is None:
        return
    with suppress(OSError), open(path) as file:
        online = file.read().strip()
        if not _members(text) <= _members(online):
            raise InvalidInputError(f"option {name} {text}: this host has {online}")


def _members(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        low, _, high = part.partition("-")
        found |= set(range(int(low), int(high or low) + 1))
    return found
