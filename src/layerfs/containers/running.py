"""A container in the foreground, from its mount to its exit code, and what is done when its keeper was killed."""

import os
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from layerfs.containers.living import LIVE, event_attributes, live_state, socket_directory
from layerfs.containers.parts import Parts
from layerfs.containers.record import Config, State
from layerfs.containers.roots import claimed_root, spec_for
from layerfs.errors import IntegrityError, InUseError, LayerfsError, NativeError, NotFoundError, system_errors
from layerfs.fsutil import remove_tree
from layerfs.metadata import ContainerRow
from layerfs.runtime import Cgroup, Signals, Stdio, attend, identify, is_alive

__all__ = ["LOST", "clean_up", "reap", "remove_all", "run_in_foreground", "wants_supervisor"]

LOST = 255
"""The exit code of a container whose end nobody saw."""

_KILLED = 137  # by SIGKILL


def wants_supervisor(config: Config, streams: Collection[str]) -> bool:
    """Whether a child of this process alone could not do what is asked for: ``attached`` then runs it."""
    options = config.options
    test = (config.section.get("Healthcheck") or {}).get("Test") or ("NONE",)
    stdin = "stdin" in streams
    return (
        options.restart.policy != "no"
        or options.timeout > 0
        or test[0] != "NONE"
        or (options.tty and options.interactive)  # the detach keys
        or (options.interactive and not stdin)  # its input stays open
        or not {"stdout", "stderr"} <= set(streams)
    )


def run_in_foreground(parts: Parts, config: Config, stdio: tuple[int, int, int], *, sig_proxy: bool) -> int:
    """Run a container whose lock is held, until it ends; its exit code. Its state says what happens, but not the end
    of one that is to be removed: the caller does that now.

    An error that keeps it from running leaves it ``created``, with the reason.
    """
    state = parts.state(parts.database.container(config.id))
    if parts.snapshots.row(config.id).mounted == "":  # by a keeper that was killed
        clean_up(parts, config.id)
    try:
        with ExitStack() as stack:
            claim = claimed_root(parts, config, volatile=state.auto_remove)
            root = claim.__enter__()
            if not state.auto_remove:  # else whoever removes it gives that back too
                # The layers stay mounted until the store is closed: the next container may well be of the same image.
                stack.callback(parts.snapshots.release, config.id, layers=False)
            stack.push(claim)
            spec = spec_for(config, root, parts.directory(config.id))
            runtime = parts.runtimes.get(config.runtime)
            options = config.options
            tap = _tap(parts, config, stack) if not state.auto_remove else None
            moved = config.runtime != "builtin"
            streams = Stdio(stdio, interactive=options.interactive, terminal=options.tty, tap=tap, moved=moved)
            stack.enter_context(streams)
            signals = stack.enter_context(Signals(sig_proxy))
            process = runtime.start(spec, root.fd, streams.given)
            stack.callback(process.close)
            signals.to(process)
            state = msgspec.structs.replace(
                state, status="running", process=identify(process.pid), exit_code=0, error="", started=time.time(),
                finished=0.0, fleeting=state.auto_remove, supervised=False, paused=False, stopped=False,
            )  # fmt: skip
            parts.set_state(config.id, state)
            code = attend(process, streams)
            assert code is not None  # no keys are looked for
            if state.auto_remove and root.fd >= 0:  # our own is then not the last one
                parts.snapshots.let_go(os.dup(root.fd))
            killed = code == _KILLED and Cgroup(config.id, options.cgroup_parent).has_run_out_of_memory()
    except LayerfsError as exc:
        failed = msgspec.structs.replace(state, exit_code=getattr(exc, "exit_code", 125), error=str(exc), process=None)
        parts.set_state(config.id, failed)
        raise
    if killed:
        parts.events.add("container", "oom", config.id, _attributes(parts, config.id))
    if not state.auto_remove:
        parts.set_state(config.id, msgspec.structs.replace(_ended(state, code), oom_killed=killed))
    return code


def _tap(parts: Parts, config: Config, stack: ExitStack) -> Callable[[str, bytes], None] | None:
    """What writes the container's log; none where its user wants none."""
    if config.options.log_options.get("driver") == "none":
        return None
    from layerfs.containers.logs import LogWriter  # one that is to be removed has none

    with system_errors(f"write the log of container {config.id[:12]}"):
        return stack.enter_context(LogWriter(parts.directory(config.id), *config.options.log_limits)).write


def _ended(state: State, code: int, error: str = "") -> State:
    return msgspec.structs.replace(
        state, status="exited", process=None, exit_code=code, error=error, finished=time.time()
    )


def _release_stale(parts: Parts, id: str) -> None:
    """Forget the mount of a keeper that was killed. The caller has the lock, and the container does not run."""
    with suppress(NotFoundError):
        if parts.snapshots.row(id).mounted == "":
            parts.snapshots.release(id, layers=False)  # the next start may well be of the same image


def reap(parts: Parts, row: ContainerRow) -> bool:
    """Set right what a keeper left behind when it was killed, or the container when it ended; whether the container is
    still there.

    While somebody holds the container's lock it is in good hands.
    """
    state = parts.state(row)
    if not _needs_a_look(parts, row.id, state):
        return True
    try:
        lock = parts.lock(row.id).acquire()
    except InUseError:
        return True
    except LayerfsError:  # it was removed meanwhile
        return False
    try:
        with suppress(NotFoundError):
            return _settle(parts, row.id, parts.state(parts.database.container(row.id)))
        return False
    finally:
        lock.release()


def _needs_a_look(parts: Parts, id: str, state: State) -> bool:
    if state.supervised:
        return live_state(parts, id, state)[1]
    return state.status in LIVE or state.fleeting


def _settle(parts: Parts, id: str, state: State) -> bool:
    """Whether a container is still there, whose lock is held and whose keeper has gone."""
    if state.supervised:
        state, ended = live_state(parts, id, state)
        if not ended:
            return True
        remove = state.auto_remove
    else:
        if state.process is not None and is_alive(state.process):
            return True
        remove = state.fleeting
        if state.status in LIVE:
            state = _ended(state, LOST, "the process that ran it was killed: its exit code is not known")
    parts.set_state(id, state)
    attributes = _attributes(parts, id)
    parts.events.add("container", "die", id, {**attributes, "exitCode": str(state.exit_code)})
    clean_up(parts, id)
    if remove:
        remove_all(parts, id)
        parts.events.add("container", "destroy", id, attributes)
    return not remove


def _attributes(parts: Parts, id: str) -> dict[str, str]:
    """What events tell of a container."""
    with suppress(LayerfsError):
        config = parts.config(id)
        return event_attributes(config, parts.database.container(id).name)
    return {}


def clean_up(parts: Parts, id: str) -> None:
    """Give back what a container that does not run any more had while it ran. Its lock is held."""
    _release_stale(parts, id)
    with suppress(LayerfsError):
        config = parts.config(id)
        parts.runtimes.get(config.runtime).release(id, config.options.cgroup_parent)
    with suppress(OSError):
        remove_tree(socket_directory(parts, id))


def remove_all(parts: Parts, id: str, *, volumes: bool = True, config: Config | None = None) -> None:
    """Remove a container whose lock is held, with its anonymous volumes; the row goes first. ``config``: for who has
    it already."""
    anonymous: list[str] = []
    with suppress(IntegrityError, NotFoundError):  # half written, where its maker was killed
        anonymous = [use.volume for use in (config or parts.config(id)).mounts if use.anonymous]
    with suppress(NotFoundError):
        mounted = parts.snapshots.row(id).mounted
        if mounted:  # for a user, who removes it now
            with suppress(NativeError):
                parts.snapshots.detach(Path(mounted), lazy=True)
    with parts.database.transaction():
        parts.database.remove_container(id)
        for kind in ("stacked", "mounted"):
            parts.database.remove_record(kind, id)
        with suppress(NotFoundError):
            parts.snapshots.forget(id)
    parts.snapshots.discard(parts.snapshots.root / id, parts.directory(id))
    if volumes:
        for name in anonymous:
            with suppress(InUseError, NotFoundError):
                parts.volumes.remove(name)
