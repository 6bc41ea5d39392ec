"""What can be done to a container while it lives: start, stop, kill, wait, pause, and changes of its limits."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from layerfs.containers.hostlimits import check_limits
from layerfs.containers.living import LIVE, connect, live_state, start_supervised, wait_supervised
from layerfs.containers.parts import Parts
from layerfs.containers.record import Config, State
from layerfs.containers.running import clean_up, reap
from layerfs.containers.starting import limits_of
from layerfs.errors import InUseError, InvalidInputError, LayerfsError, NotFoundError, UnsupportedError
from layerfs.runtime import Cgroup, Identity, is_alive, read_report, signal_number, signal_process, wait_gone

__all__ = [
    "current",
    "frozen",
    "kill",
    "pause",
    "root_directory",
    "start",
    "stop",
    "unpause",
    "update",
    "wait",
]

_STOP_SECONDS = 10.0
_KILL_SECONDS = 30.0
_KILL = 9


def current(parts: Parts, id: str) -> State:
    """The state now; NotFoundError when the container is gone."""
    if not reap(parts, parts.database.container(id)):
        raise NotFoundError(f"container {id[:12]}: no such container")
    return live_state(parts, id, parts.state(parts.database.container(id)))[0]


def _process(parts: Parts, id: str, what: str) -> tuple[State, Identity]:
    state = current(parts, id)
    if state.process is None:
        raise InUseError(f"{what} container {id[:12]}: it is not running")
    return state, state.process


def start(parts: Parts, config: Config, *, client: int | None = None, stdin_once: bool = False) -> None:
    """Start a container under a supervisor. The caller has its lock, and it does not run."""
    report = read_report(parts.directory(config.id))
    if report is not None:
        wait_gone(report.keeper, _KILL_SECONDS)  # it lets go of the upper a moment after it has told of the end
    if report is not None or parts.snapshots.row(config.id).mounted is not None:
        clean_up(parts, config.id)  # what never ran left nothing
    start_supervised(parts, config, client=client, stdin_once=stdin_once)


def kill(parts: Parts, config: Config, number: int) -> None:
    """Send a signal to the first process. InUseError when it does not run. Between two runs, a signal that would end
    it keeps it from the next."""
    state = current(parts, config.id)
    asked, ends = False, number in (_KILL, _stop_signal(config))
    if ends and state.status == "restarting":
        _end_restarts(parts, config.id)
        return
    state, process = _process(parts, config.id, "kill")
    if ends:
        _mark_stopped(parts, config.id)
        if state.supervised:
            # Else the supervisor would take it for an end that its restart policy is for.
            with suppress(NotFoundError), connect(parts, config.id) as client:
                client.stop(number, 2**31 - 1)
                asked = number != _KILL
    if not asked and not signal_process(process, number) and number != _KILL:
        raise InUseError(f"kill container {config.id[:12]}: it is not running")
    if number == _KILL:
        _thaw(parts, config)
        wait_gone(process, _KILL_SECONDS)


def _end_restarts(parts: Parts, id: str) -> None:
    _mark_stopped(parts, id)
    with suppress(NotFoundError), connect(parts, id) as client:
        client.stop(_KILL, 0)
        client.wait(_KILL_SECONDS)


def stop(parts: Parts, config: Config, timeout: float | None = None, number: int | None = None) -> bool:
    """Ask the first process to end, and end it after ``timeout`` seconds (None: the container's own; -1: never).

    False when the container did not run.
    """
    state = current(parts, config.id)
    if state.status not in LIVE:
        return False
    _mark_stopped(parts, config.id)
    _thaw(parts, config)
    if timeout is None:
        timeout = config.options.stop_timeout if config.options.stop_timeout is not None else _STOP_SECONDS
    number = number if number is not None else _stop_signal(config)
    if state.supervised:
        with suppress(NotFoundError), connect(parts, config.id) as client:
            client.stop(number, 2**31 - 1)
    elif state.process is not None:
        signal_process(state.process, number)
    _wait_or_kill(parts, config, None if timeout < 0 else timeout)
    return True


def _wait_or_kill(parts: Parts, config: Config, timeout: float | None) -> None:
    """Until the container has ended; its process is killed when the time is over."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            state = current(parts, config.id)
        except NotFoundError:
            return
        if state.status not in LIVE:
            return
        if state.process is None:  # between two runs, or its keeper is about to record the end
            time.sleep(0.002)
        elif not wait_gone(state.process, None if deadline is None else max(0.0, deadline - time.monotonic())):
            signal_process(state.process, _KILL)
            wait_gone(state.process, _KILL_SECONDS)
        elif state.supervised:
            with suppress(NotFoundError, TimeoutError), connect(parts, config.id) as client:
                client.wait(_KILL_SECONDS)
        else:
            time.sleep(0.001)


def wait(parts: Parts, id: str, timeout: float | None = None, *, run: bool = False) -> int:
    """Wait until a container does not run; its exit code, at once when it does not. TimeoutError.

    ``run``: the end of the run that it is in, or that comes next, is enough, whatever its restart policy does then.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError(f"wait for container {id[:12]}: it still runs")
        report = read_report(parts.directory(id))
        try:
            state = current(parts, id)
        except NotFoundError:
            if report is not None and report.status == "exited":  # it went at its end, as it was to
                return report.exit_code
            raise
        if state.status not in LIVE:
            return state.exit_code
        if state.supervised:
            code = _wait_run(parts, id, left) if run else wait_supervised(parts, id, left)
            if code is not None:
                return code
        elif state.process is not None:
            wait_gone(state.process, left)
        time.sleep(0.001)


def _wait_run(parts: Parts, id: str, timeout: float | None) -> int | None:
    """Wait for the end of one run; its exit code, None when it does not run now, or nobody keeps it any more."""
    report = read_report(parts.directory(id))
    process = report.process if report is not None else None
    if process is None or not wait_gone(process, timeout):
        return None
    while report is not None and report.process == process and is_alive(report.keeper):
        time.sleep(0.001)
        report = read_report(parts.directory(id))
    return report.exit_code if report is not None and report.process != process else None


def _stop_signal(config: Config) -> int:
    return signal_number(str(config.section.get("StopSignal") or "SIGTERM"))


def _mark_stopped(parts: Parts, id: str) -> None:
    with suppress(NotFoundError):
        state = parts.state(parts.database.container(id))
        parts.set_state(id, msgspec.structs.replace(state, stopped=True))


# ---- pausing ----


def _cgroup(config: Config) -> Cgroup:
    return Cgroup(config.id, config.options.cgroup_parent)


def pause(parts: Parts, config: Config) -> None:
    """Stop all processes where they are. InUseError when it does not run, or is paused already."""
    state, _ = _process(parts, config.id, "pause")
    if state.status == "paused":
        raise InUseError(f"pause container {config.id[:12]}: it is paused already")
    _cgroup(config).freeze()
    _set_paused(parts, config.id, True)


def unpause(parts: Parts, config: Config) -> None:
    """Let them go on. InUseError when it is not paused."""
    if current(parts, config.id).status != "paused":
        raise InUseError(f"unpause container {config.id[:12]}: it is not paused")
    _cgroup(config).thaw()
    _set_paused(parts, config.id, False)


def _set_paused(parts: Parts, id: str, paused: bool) -> None:
    state = parts.state(parts.database.container(id))
    status: Any = state.status if state.status not in ("running", "paused") else "paused" if paused else "running"
    parts.set_state(id, msgspec.structs.replace(state, paused=paused, status=status))


def _thaw(parts: Parts, config: Config) -> None:
    with suppress(LayerfsError):
        state = parts.state(parts.database.container(config.id))
        if state.paused or state.status == "paused":
            _cgroup(config).thaw()
            _set_paused(parts, config.id, False)


@contextmanager
def frozen(parts: Parts, config: Config) -> Iterator[bool]:
    """The processes of a running container stand still for the time of the ``with``; whether there were any.

    UnsupportedError where the host cannot do that.
    """
    state = current(parts, config.id)
    if state.process is None or state.status == "paused":
        yield False
        return
    group = _cgroup(config)
    group.freeze()
    try:
        # What was written before is on its way to the upper: the page cache is the same one for both.
        yield True
    finally:
        group.thaw()


# ---- changes ----


def update(parts: Parts, config: Config, changes: dict[str, Any]) -> Config:
    """Change options of a container, at once where it runs.

    UnsupportedError for what cannot be changed.
    """
    known = {
        "memory", "memory_swap", "memory_reservation", "cpus", "cpu_period", "cpu_quota", "cpu_shares", "cpuset_cpus",
        "cpuset_mems", "pids_limit", "restart",
    }  # fmt: skip
    for name in changes:
        if name not in known:
            raise UnsupportedError(f"update: option --{name.replace('_', '-')} cannot be changed")
    state = current(parts, config.id)
    if "restart" in changes and state.status in LIVE and not state.supervised:
        raise UnsupportedError(
            f"update container {config.id[:12]}: --restart while another command has it in the foreground"
        )
    options = msgspec.structs.replace(config.options, **changes)
    check_limits(options)
    if options.auto_remove and options.restart.policy != "no":
        raise InvalidInputError(f"update container {config.id[:12]}: --restart cannot go with its --rm")
    limits = limits_of(options)
    if state.status in LIVE:
        _cgroup(config).set_limits(limits)
    changed = msgspec.structs.replace(config, options=options)
    parts.replace_config(changed)
    if "restart" in changes:
        with suppress(NotFoundError), connect(parts, config.id) as client:
            client.set_restart(options.restart.policy, options.restart.maximum)
    return changed


def root_directory(process: Identity) -> int:
    """A descriptor of the root that a running container sees, with all that is mounted in it."""
    return os.open(f"/proc/{process.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
