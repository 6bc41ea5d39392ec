"""A container in the foreground that a supervisor keeps: it can be left, is started again, or is checked."""

from collections.abc import Collection
from contextlib import ExitStack, suppress

from layerfs.containers import actions, attaching
from layerfs.containers.parts import Parts
from layerfs.containers.record import Config
from layerfs.containers.running import reap
from layerfs.errors import NotFoundError
from layerfs.runtime import SupervisorClient, check_terminal, parse_keys, read_report, wait_gone

__all__ = ["AttachedRun"]

_END_SECONDS = 30.0


class AttachedRun:
    """One run of a container with these descriptors; ``start`` needs its lock, ``wait`` does not."""

    def __init__(
        self,
        parts: Parts,
        config: Config,
        stdio: tuple[int, int, int],
        *,
        streams: Collection[str],
        sig_proxy: bool,
        detach_keys: str,
    ) -> None:
        self._parts = parts
        self._config = config
        self._stdio = stdio
        interactive = config.options.interactive
        self._streams = [name for name in streams if name != "stdin" or interactive]
        self._sig_proxy = sig_proxy
        self._detach_keys = parse_keys(detach_keys)
        self._stack = ExitStack()

    def start(self) -> None:
        """Start it, attached from before its first byte; raises as ``start`` of a container."""
        options = self._config.options
        stdin = "stdin" in self._streams
        if options.tty and stdin:
            check_terminal(self._stdio[0])
        with ExitStack() as undo:
            undo.push(self._stack)
            self._client, theirs = SupervisorClient.connected(self._config.id)
            self._stack.enter_context(self._client)
            attaching.announce(self._client, self._streams)
            self._stack.enter_context(attaching.proxied(self._client, self._sig_proxy and not options.tty))
            with theirs:
                once = stdin and not options.tty
                actions.start(self._parts, self._config, client=theirs.fileno(), stdin_once=once)
            undo.pop_all()

    def wait(self) -> int | None:
        """Until the run ends; its exit code. None when it was left. One that is to be removed at its end then is."""
        with self._stack:
            code = attaching.attach(
                self._client, self._stdio, streams=self._streams, tty=self._config.options.tty, sig_proxy=False,
                detach_keys=self._detach_keys, one_run=True,
            )  # fmt: skip
        if code is not None:
            self._settle()
        return code

    def _settle(self) -> None:
        report = read_report(self._parts.directory(self._config.id))
        if report is not None and report.is_over:
            wait_gone(report.keeper, _END_SECONDS)
            with suppress(NotFoundError):
                reap(self._parts, self._parts.database.container(self._config.id))
