"""``Container``: one container as an object."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from layerfs.containers.contents import ContainerContents
from layerfs.containers.living import LIVE, connect, write_attributes
from layerfs.errors import InUseError, LayerfsError, NotFoundError
from layerfs.fsutil import Lock
from layerfs.late import LateModule
from layerfs.runtime import is_alive, signal_process, wait_gone

if TYPE_CHECKING:
    from layerfs import commit
    from layerfs.containers import (
        actions,
        attached,
        attaching,
        committing,
        executing,
        logs,
        names,
        running,
        top,
    )
    from layerfs.containers.committing import Committed
    from layerfs.containers.logs import LogEntry
    from layerfs.containers.top import Processes
    from layerfs.runtime import Cgroup, Usage
else:  # what one verb needs, and the next does not
    commit = LateModule("layerfs.commit")
    actions, attached, attaching, committing, executing, logs, names, running, top = (
        LateModule(f"layerfs.containers.{name}")
        for name in (
            "actions", "attached", "attaching", "committing", "executing", "logs", "names",
            "running", "top",
        )
    )  # fmt: skip

__all__ = ["Container"]

_FORCE_SECONDS = 30.0
_SETTLE_SECONDS = 5.0
_SHOWN = 1000
_STREAMS = ("stdin", "stdout", "stderr")
_Stdio = tuple[int, int, int]


class Container(ContainerContents):
    """A container. What it shows is of the moment it was looked up; ``refresh`` looks again."""

    # ---- starting and ending ----

    def start(self) -> None:
        """Start it under a supervisor; it goes on when this process ends. No error when it runs."""
        self.refresh()
        if self._state.status in LIVE:
            return
        with self.locked("start"):
            self._look()
            if self._state.status not in LIVE:
                actions.start(self._parts, self.config)
        self._event("start")
        self._look()

    def run(
        self,
        stdio: _Stdio = (0, 1, 2),
        *,
        streams: Collection[str] = _STREAMS,
        sig_proxy: bool = True,
        detach_keys: str = "",
    ) -> int | None:
        """Start it and wait for its end, with those of these descriptors that ``streams`` names; its exit code. One
        that is to be removed then is.

        With a restart policy that is the end of its first run, as with docker. None when the detach keys (empty: the
        usual) were typed at its terminal, or when stdin alone is among the streams and has ended. InUseError when it
        runs. The error of a command that cannot be executed has the exit code 126 or 127. ``sig_proxy``: signals of
        this process are handed on, when this is its main thread.
        """
        self.refresh()
        with self.locked("start"):
            self._look()
            if self._state.process is not None and is_alive(self._state.process):
                raise InUseError(f"start container {self.name}: it is running")
            wait = self.run_locked(stdio, streams=streams, sig_proxy=sig_proxy, detach_keys=detach_keys)
        return wait()

    def run_locked(
        self, stdio: _Stdio, *, streams: Collection[str], sig_proxy: bool, detach_keys: str
    ) -> Callable[[], int | None]:
        """The same for whoever has its lock; what waits for its end, when the lock has been given back."""
        if not running.wants_supervisor(self.config, streams):
            code = self._run_child(stdio, sig_proxy)
            return lambda: code
        run = attached.AttachedRun(
            self._parts, self.config, stdio, streams=streams, sig_proxy=sig_proxy, detach_keys=detach_keys
        )
        try:
            run.start()
        except BaseException:
            if self._state.auto_remove:
                running.remove_all(self._parts, self.id)
                self._event("destroy")
            raise
        self._event("start")
        return run.wait

    def _run_child(self, stdio: _Stdio, sig_proxy: bool) -> int:
        self._event("start")
        try:
            code = running.run_in_foreground(self._parts, self.config, stdio, sig_proxy=sig_proxy)
            self._event("die", exitCode=str(code))
            return code
        finally:
            if self._state.auto_remove:
                running.remove_all(self._parts, self.id, config=self.config)
                self._event("destroy")
            else:
                self._look()

    def stop(self, timeout: float | None = None, *, signal: int | None = None) -> None:
        """Ask it to end, and kill it after ``timeout`` seconds (None: its own, -1: never). No error when it has."""
        if actions.stop(self._parts, self.config, timeout, signal):
            self._event("stop")
        with suppress(NotFoundError):
            self.refresh()

    def restart(self, timeout: float | None = None, *, signal: int | None = None) -> None:
        """Stop it, where it runs, and start it."""
        self.stop(timeout, signal=signal)
        self.start()
        self._event("restart")

    def kill(self, number: int = 9) -> None:
        """Send a signal to its first process; InUseError when it does not run."""
        actions.kill(self._parts, self.config, number)
        self._event("kill", signal=str(number))

    def wait(self, timeout: float | None = None, *, run: bool = False) -> int:
        """Wait until it does not run, or with ``run`` for the end of this run alone, which its restart policy may let
        another one follow; its exit code. TimeoutError after ``timeout`` seconds."""
        code = actions.wait(self._parts, self.id, timeout, run=run)
        with suppress(NotFoundError):
            self.refresh()
        return code

    def pause(self) -> None:
        """Stop its processes where they are; InUseError when it does not run."""
        actions.pause(self._parts, self.config)
        self._event("pause")
        self._look()

    def unpause(self) -> None:
        """Let them go on."""
        actions.unpause(self._parts, self.config)
        self._event("unpause")
        self._look()

    # ---- at its side ----

    def attach(
        self,
        stdio: _Stdio = (0, 1, 2),
        *,
        stdin: bool = True,
        sig_proxy: bool = True,
        detach_keys: str = "",
    ) -> int | None:
        """Join these descriptors to it until it ends; its exit code, None when the detach keys were typed.

        InUseError when it does not run, or is in the foreground of another command.
        """
        from layerfs.runtime import parse_keys  # most verbs need no keys

        keys = parse_keys(detach_keys)
        self.refresh()
        if self._state.status not in LIVE or not self._state.supervised:
            reason = "another command has it in the foreground" if self._state.status in LIVE else "it is not running"
            raise InUseError(f"attach to container {self.name}: {reason}")
        if self._state.status != "running":
            raise InUseError(f"attach to container {self.name}: it is {self._state.status}")
        options = self.config.options
        with connect(self._parts, self.id) as client:
            streams = _STREAMS[0 if stdin and options.interactive else 1 :]
            attaching.announce(client, streams)
            return attaching.attach(
                client, stdio, streams=streams, tty=options.tty, sig_proxy=sig_proxy, detach_keys=keys
            )

    def exec(
        self,
        args: Sequence[str],
        *,
        env: Sequence[str] = (),
        user: str | None = None,
        workdir: str | None = None,
        tty: bool = False,
        interactive: bool = False,
        privileged: bool = False,
        detach: bool = False,
        detach_keys: str = "",
        stdio: _Stdio = (0, 1, 2),
        sig_proxy: bool = True,
    ) -> int:
        """Run one more command in it; its exit code, or 0 at once with ``detach``, and when the detach keys (empty: the
        usual) are typed at its terminal. InUseError when it does not run.

        The error of a command that cannot be executed has the exit code 126 or 127.
        """
        self.refresh()
        if self._state.process is None or self._state.status == "paused":
            state = "paused" if self._state.status == "paused" else "not running"
            raise InUseError(f"exec in container {self.name}: it is {state}")
        options = executing.ExecOptions(
            args=tuple(args),
            env=tuple(env),
            user=user,
            workdir=workdir,
            tty=tty,
            interactive=interactive,
            privileged=privileged,
            detach=detach,
            detach_keys=detach_keys,
        )
        shown = " ".join(args)[:_SHOWN]
        self._event("exec_start: " + "".join(letter if letter.isprintable() else " " for letter in shown))
        code = executing.execute(self._parts, self.config, self._state.process, options, stdio, sig_proxy=sig_proxy)
        if not detach:
            self._event("exec_die", exitCode=str(code))
        return code

    def logs(
        self,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Iterator[LogEntry]:
        """What it wrote, the oldest first; with ``follow`` until it ends."""
        return logs.read_log(
            self.directory, tail=tail, since=since, until=until, follow=self._is_live if follow else None
        )

    def _is_live(self) -> bool:
        try:
            return actions.current(self._parts, self.id).status in LIVE
        except NotFoundError:
            return False

    def top(self, ps_args: Sequence[str] = ()) -> Processes:
        """Its processes; InUseError when it does not run."""
        self.refresh()
        if self._state.process is None:
            raise InUseError(f"top of container {self.name}: it is not running")
        return top.processes(self._cgroup().pids() or [self._state.process.pid], ps_args)

    def usage(self) -> Usage:
        """What it uses of the host now; all 0 when it does not run."""
        return self._cgroup().usage()

    def _cgroup(self) -> Cgroup:
        from layerfs.runtime import Cgroup

        return Cgroup(self.id, self.config.options.cgroup_parent)

    def update(self, **changes: Any) -> None:
        """Change limits and the restart policy: fields of ``CreateOptions``. UnsupportedError for others."""
        self.__dict__["config"] = actions.update(self._parts, self.config, changes)
        self._event("update")

    # ---- its record ----

    def commit(
        self,
        reference: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = False,
        squash: bool = False,
        stack: bool = False,
        format: str = "oci",
    ) -> Committed:
        """A new image of its image and its changes. What is mounted is left out.

        ``pause``: its processes stand still meanwhile. ``squash``: one layer of all. ``stack``: on top of what was
        committed with ``stack`` before, a layer with only what came after.
        """
        options = commit.CommitOptions(
            author=author,
            message=message,
            changes=tuple(changes),
            created_by=" ".join(self.config.section.get("Cmd") or ()),
            format=format,
        )
        with ExitStack() as frozen:
            if pause:
                frozen.enter_context(actions.frozen(self._parts, self.config))
            committed = committing.commit_container(
                self._parts, self.config, options, reference, squash=squash, stack=stack
            )
        self._event("commit", imageID=committed.image.id)
        return committed

    def rename(self, name: str) -> None:
        """Give it another name; ExistsError when that is taken."""
        self._parts.database.rename_container(self.id, names.check_name(name))
        self._look()
        if self._state.supervised:  # whose supervisor tells of it, too
            write_attributes(self._parts, self.config, self.name)
        self._event("rename")

    def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it and its changes; with ``volumes`` also those that it brought.

        InUseError when it runs, or with ``force`` it is killed.
        """
        deadline = time.monotonic() + _FORCE_SECONDS
        with suppress(LayerfsError):
            _ = self.config  # for the event, when it has gone
        while True:
            try:
                with self.locked("remove"):
                    self._remove_locked(force, volumes)
                self._event("destroy")
                return
            except NotFoundError:  # its keeper was faster
                return
            except InUseError:
                if not force or time.monotonic() > deadline:
                    raise
            with suppress(InUseError, NotFoundError):
                actions.kill(self._parts, self.config, 9)
            time.sleep(0.005)

    def _remove_locked(self, force: bool, volumes: bool) -> None:
        self._look()
        process = self._state.process
        if self._state.status in LIVE and (self._state.supervised or (process is not None and is_alive(process))):
            if not force or self._state.supervised:
                raise self._in_use("remove")
            assert process is not None
            signal_process(process, 9)
            wait_gone(process, _FORCE_SECONDS)
        running.clean_up(self._parts, self.id)
        running.remove_all(self._parts, self.id, volumes=volumes or self._state.auto_remove)

    def locked(self, verb: str) -> ExitStack:
        """Its lock, held, for a ``with``; InUseError while somebody else runs or changes it."""
        if not self.directory.is_dir():
            raise NotFoundError(f"container {self.id[:12]}: no such container")
        lock: Lock = self._parts.lock(self.id)
        stack = ExitStack()
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            try:
                stack.enter_context(lock)
                return stack
            except InUseError:
                self._look()
                # One that does not run is locked for a moment by whoever sets right what its end left.
                if self._state.status in LIVE or time.monotonic() > deadline:
                    raise self._in_use(verb) from None
            time.sleep(0.002)

    @contextmanager
    def at_rest(self, verb: str) -> Iterator[None]:
        """Its lock, held, for a ``with``, with nothing left of what earlier runs had. InUseError while it runs."""
        from layerfs.runtime import read_report  # a list of containers does not need it

        self.refresh()
        with self.locked(verb):
            self._look()
            if self._state.status in LIVE:
                raise InUseError(f"{verb} container {self.name}: it is running", hint="stop it first")
            report = read_report(self.directory)
            if report is not None:
                wait_gone(report.keeper, _FORCE_SECONDS)  # it lets go of the upper a moment after it told of the end
            running.clean_up(self._parts, self.id)
            yield

    def _in_use(self, verb: str) -> InUseError:
        if self._state.status not in LIVE:
            return InUseError(f"{verb} container {self.name}: another command is at it")
        return InUseError(f"{verb} container {self.name}: it is running", hint="stop it first, or use --force")

    def _event(self, action: str, **more: str) -> None:
        attributes: dict[str, str] = {}
        with suppress(LayerfsError):  # its configuration may have gone with it
            attributes = {**self.labels, "image": self.image, "name": self.name}
        self._parts.events.add("container", action, self.id, {**attributes, **more})
