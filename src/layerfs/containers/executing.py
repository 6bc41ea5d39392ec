"""One more process in a running container."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import msgspec

from layerfs import native
from layerfs.containers.parts import Parts, is_rootless
from layerfs.containers.record import Config
from layerfs.containers.roots import within
from layerfs.containers.settings import merge_env, process_env, working_directory
from layerfs.containers.starting import filtered, new_privileges, own_profile
from layerfs.errors import InvalidInputError
from layerfs.runtime import ExecSpec, Identity, Signals, Stdio, attend, capability_mask, parse_keys, resolve_user
from layerfs.userns import own_maps

__all__ = ["ExecOptions", "execute"]


class ExecOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What ``exec`` is told; None and empty: as the container has it."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str | None = None
    workdir: str | None = None
    tty: bool = False
    interactive: bool = False
    privileged: bool = False
    detach: bool = False
    detach_keys: str = ""


def execute(
    parts: Parts,
    config: Config,
    process: Identity,
    options: ExecOptions,
    stdio: tuple[int, int, int],
    *,
    sig_proxy: bool = True,
) -> int:
    """Run a command in a container whose first process is ``process``; its exit code, 0 at once when detached, and when
    the detach keys were typed at its terminal."""
    keys = parse_keys(options.detach_keys)
    if not options.args:
        raise InvalidInputError("exec: no command")
    if options.workdir is not None and not options.workdir.startswith("/"):
        raise InvalidInputError(f"working directory {options.workdir!r}: not an absolute path")
    runtime = parts.runtimes.get(config.runtime)
    with ExitStack() as stack:
        spec = _spec(config, process, options)
        interactive = options.interactive and not options.detach
        chosen = stdio if not options.detach else _null(stack)
        moved = config.runtime != "builtin" and not options.detach  # a standard runtime says what went wrong there, too
        streams = stack.enter_context(Stdio(chosen, interactive=interactive, terminal=options.tty, moved=moved))
        signals = stack.enter_context(Signals(sig_proxy and not options.detach))
        started = runtime.execute(spec, streams.given)
        stack.callback(started.close)
        if options.detach:
            return 0
        signals.to(started)
        code = attend(started, streams, keys if interactive else b"")
        if code is None:
            assert started.terminal is not None  # keys are typed at one
            native.keep_terminal(started.terminal)
        return code or 0


def _null(stack: ExitStack) -> tuple[int, int, int]:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    stack.callback(os.close, null)
    return null, null, null


def _spec(config: Config, process: Identity, options: ExecOptions) -> ExecSpec:
    section: Mapping[str, Any] = config.section
    root = os.open(f"/proc/{process.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        text = options.user if options.user is not None else str(section.get("User") or "")
        user = resolve_user(root, text, config.options.group_add if options.user is None else ())
    finally:
        os.close(root)
    if is_rootless():
        user = within(user, own_maps())
    merged = {**section, "Env": merge_env(section.get("Env") or [], options.env)}
    mine = config.options
    return ExecSpec(
        id=config.id,
        pid=process.pid,
        args=options.args,
        env=process_env(merged, user, config.hostname, tty=options.tty, bare=config.options.bare_env),
        cwd=options.workdir or working_directory(section),
        user=user,
        umask=mine.umask,
        capabilities=capability_mask(mine.cap_add, mine.cap_drop, privileged=mine.privileged or options.privileged),
        new_privileges=new_privileges(mine),
        seccomp=filtered(mine) and not options.privileged,
        profile=own_profile(mine) if not options.privileged else "",
        tty=options.tty,
        detach=options.detach,
        cgroup_parent=mine.cgroup_parent,
    )
