"""Containers that run by themselves: started under a supervisor, looked at, waited for, and set right at their end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from layerfs.containers.parts import Parts
from layerfs.containers.record import Config, State
from layerfs.errors import LayerfsError, NotFoundError, UnsupportedError, system_errors
from layerfs.fsutil import boot_id, write_atomic
from layerfs.late import LateModule
from layerfs.runtime import identify, signal_number

if TYPE_CHECKING:
    from layerfs.containers import roots
    from layerfs.runtime import Identity, Report, Supervision, SupervisorClient, supervisor
else:  # a list of containers that do not run needs neither
    roots, supervisor = LateModule("layerfs.containers.roots"), LateModule("layerfs.runtime.supervisor")

__all__ = [
    "LIVE", "connect", "event_attributes", "live_state", "socket_directory", "start_supervised", "wait_supervised",
    "write_attributes",
]  # fmt: skip

LIVE = ("running", "paused", "restarting")
"""States of a container that somebody keeps."""

_STOP_SECONDS = 10
_START_INTERVAL = 5000
_HOOK = """
import sys, layerfs
with layerfs.Store.open(sys.argv[1], sys.argv[2], create=False) as store:
    store.containers.settle(sys.argv[3])
"""


def socket_directory(parts: Parts, id: str) -> Path:
    """Where a supervisor listens."""
    return parts.run / "sockets" / id[:32]


def connect(parts: Parts, id: str) -> SupervisorClient:
    """A connection to a container's supervisor; NotFoundError when there is none."""
    return supervisor.SupervisorClient(socket_directory(parts, id), id)


def start_supervised(parts: Parts, config: Config, *, client: int | None = None, stdin_once: bool = False) -> None:
    """Start a container whose lock is held; it goes on when this process ends. See ``Supervision`` for the rest."""
    state = parts.state(parts.database.container(config.id))
    directory, sockets = parts.directory(config.id), socket_directory(parts, config.id)
    with system_errors(f"start container {config.id[:12]}"):
        sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("status.json", "health.json"):
            with suppress(FileNotFoundError):
                (directory / name).unlink()
        write_attributes(parts, config, parts.database.container(config.id).name)
    try:
        with ExitStack() as stack:
            undo = stack.enter_context(ExitStack())
            root = stack.enter_context(roots.claimed_root(parts, config, volatile=state.auto_remove))
            undo.callback(parts.snapshots.release, config.id)
            spec = roots.spec_for(config, root, directory)
            runtime = parts.runtimes.get(config.runtime)
            supervision = _supervision(parts, config, state)
            supervision = msgspec.structs.replace(supervision, client=client, stdin_once=stdin_once)
            runtime.supervise(spec, root.fd, supervision)
            undo.pop_all()
    except LayerfsError as exc:
        failed = msgspec.structs.replace(state, exit_code=getattr(exc, "exit_code", 125), error=str(exc), process=None)
        parts.set_state(config.id, failed)
        raise
    parts.set_state(
        config.id,
        msgspec.structs.replace(
            state, status="running", supervised=True, paused=False, stopped=False, interrupted=False,
            process=None, exit_code=0, error="",
            started=time.time(), finished=0.0, fleeting=False,
        ),
    )  # fmt: skip


def event_attributes(config: Config, name: str) -> dict[str, str]:
    """What events tell of a container."""
    return {**(config.section.get("Labels") or {}), "image": config.options.image, "name": name}


def write_attributes(parts: Parts, config: Config, name: str) -> None:
    """The same in ``attributes.json``, for the container's supervisor."""
    data = msgspec.json.encode(event_attributes(config, name), enc_hook=str)
    write_atomic(parts.directory(config.id) / "attributes.json", data, 0o600, durable=False)


def _supervision(parts: Parts, config: Config, state: State) -> Supervision:
    options, logs = config.options, config.options.log_options
    timeout = options.stop_timeout if options.stop_timeout is not None else _STOP_SECONDS
    hook: tuple[str, ...] = ()
    if state.auto_remove or config.runtime != "builtin":  # whose supervisor leaves nothing on the host itself
        hook = (sys.executable, "-I", "-c", _HOOK, str(parts.root), str(parts.run), config.id)
    from layerfs.runtime import Supervision

    return Supervision(
        directory=parts.directory(config.id),
        socket=socket_directory(parts, config.id),
        events=parts.run,
        open_stdin=options.interactive,
        no_log=logs.get("driver") == "none",
        log_max_size=options.log_limits[0],
        log_max_files=options.log_limits[1],
        restart=options.restart.policy,
        restart_max=options.restart.maximum,
        stop_signal=signal_number(str(config.section.get("StopSignal") or "SIGTERM")),
        stop_timeout=max(0, timeout) * 1000 if timeout >= 0 else 2**31 - 1,
        hook=hook,
        timeout=options.timeout * 1000,
        **_health(config.section.get("Healthcheck") or {}, config.section),
    )


def _health(check: Mapping[str, Any], section: Mapping[str, Any]) -> dict[str, Any]:
    test = list(check.get("Test") or ())
    if not test or test[0] == "NONE":
        return {}
    if test[0] == "CMD-SHELL":
        command = [*(section.get("Shell") or ("/bin/sh", "-c")), *test[1:]]
    elif test[0] == "CMD":
        command = test[1:]
    else:
        raise UnsupportedError(f"health check {test[0]!r}: not known")
    milliseconds = {
        name: max(1, int(check.get(key) or 0) // 10**6)
        for name, key in (
            ("health_interval", "Interval"),
            ("health_timeout", "Timeout"),
            ("health_start_period", "StartPeriod"),
            ("health_start_interval", "StartInterval"),
        )
        if check.get(key)
    }
    # As docker: every five seconds while it starts, unless somebody says otherwise or checks more often anyway.
    milliseconds.setdefault("health_start_interval", min(_START_INTERVAL, milliseconds.get("health_interval", 30_000)))
    retries = {"health_retries": int(check["Retries"])} if check.get("Retries") else {}
    return {"health": tuple(map(str, command)), **milliseconds, **retries}


def live_state(parts: Parts, id: str, state: State) -> tuple[State, bool]:
    """The state with what the supervisor reports, and whether the container has ended since it was written."""
    if not state.supervised or state.status not in LIVE:
        return state, False
    report = supervisor.read_report(parts.directory(id))
    if report is None or report.is_over:
        return _ended(state, report), True
    return (
        msgspec.structs.replace(
            state,
            status=_status(state, report),
            process=_first_process(parts, id, report),
            exit_code=report.exit_code,
            started=report.started / 1e9,
            finished=report.finished / 1e9,
            restarts=report.restarts,
            health=report.health,
            oom_killed=report.oom_killed,
        ),
        False,
    )


def _status(state: State, report: Report) -> Any:
    if report.status == "restarting":
        return "restarting"
    return "paused" if state.paused else "running"


def _first_process(parts: Parts, id: str, report: Report) -> Identity | None:
    process = report.process
    if process is None:
        return None
    with suppress(LayerfsError):
        runtime = parts.runtimes.get(parts.config(id).runtime)
        pid = runtime.first_process(id, process.pid)
        return process if pid == process.pid else identify(pid)
    return process


def _ended(state: State, report: Report | None) -> State:
    if report is not None and report.status == "exited":
        return msgspec.structs.replace(
            state, status="exited", process=None, exit_code=report.exit_code, error=report.error,
            started=report.started / 1e9, finished=report.finished / 1e9, restarts=report.restarts,
            oom_killed=report.oom_killed, paused=False, health="none",
        )  # fmt: skip
    return msgspec.structs.replace(
        state, status="exited", process=None, exit_code=255, paused=False, health="none",
        error="its supervisor was killed, or the machine stopped: its exit code is not known", finished=time.time(),
        interrupted=report is not None and report.boot != boot_id(),
    )  # fmt: skip


def wait_supervised(parts: Parts, id: str, timeout: float | None) -> int | None:
    """Wait for the end of a container with a supervisor; None when that cannot be asked any more."""
    try:
        with connect(parts, id) as client:
            return client.wait(timeout)
    except NotFoundError:
        return None
