"""The command ``layerfs``: one module a verb (``cli/verbs``), imported only when that verb is called.

This package is the only code of layerfs that prints or decides on exit codes.  A failure is one line on the
standard error stream, ``layerfs VERB: what, why (hint)``; the exit code is that of the error, except that
``run``, ``create``, ``start`` and ``exec`` keep 125 for it, because other codes are those of the user's command.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from layerfs.cli.commands import GROUPS, VERBS, Entry
from layerfs.cli.context import Context
from layerfs.cli.lean import import_http, import_values
from layerfs.cli.options import Command, flag, helped, one
from layerfs.errors import InvalidInputError, LayerfsError, native_error

__all__ = ["main"]

_RUN_FAMILY = frozenset({"create", "exec", "run", "start"})
_WITHOUT_VALUES = frozenset({"completion"})
_WITH_REGISTRY = frozenset({"copy", "login", "logout", "manifest", "pull", "push", "tags"})
_BROKEN_PIPE = 141
_INTERRUPTED = 130

_GLOBAL = Command(
    "[OPTIONS] VERB",
    [
        one("--root", help="Where the store is kept ($LAYERFS_ROOT)", metavar="DIR"),
        one("--run", "--run-root", help="Where its mounts and sockets are ($LAYERFS_RUN)", metavar="DIR"),
        one(
            "--layer-format",
            help="How a new store keeps layers",
            default="auto",
            choices=("auto", "erofs", "dir"),
        ),
        flag("--no-sync", help="Leave to the kernel when data reaches the disk ($LAYERFS_NO_SYNC)"),
        flag("-D", "--debug", help="Show a traceback when something fails"),
        flag("-v", "--version", help="Show the version and exit"),
    ],
    interspersed=False,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these words (default: those of the process) and return its exit code."""
    context = Context(alone=argv is None)
    try:
        # File names are bytes; what is no UTF-8 goes out as it came in.
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="surrogateescape")
        try:
            code = _dispatch(list(sys.argv[1:] if argv is None else argv), context)
        finally:
            context.close()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _reader_gone()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except SystemExit as ended:  # by a signal, see Context
        return ended.code if isinstance(ended.code, int) else 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            return _reader_gone()  # met below, and told with the operation
        return _failed(error, context)


def _reader_gone() -> int:
    """End as a program does that writes into a pipe nobody reads: in silence."""
    # What is still buffered must not complain once more at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
    return _BROKEN_PIPE


def _dispatch(words: list[str], context: Context) -> int:
    args = _GLOBAL.parse(words)
    if args is None or (not args.rest and not args.version):
        sys.stdout.write(_overview())
        return 0 if args is None else 1
    context.debug, context.root, context.run = args.debug, args.root, args.run_root
    context.layer_format = args.layer_format
    context.sync = False if args.no_sync else None
    if args.version:
        import layerfs

        sys.stdout.write(f"layerfs {layerfs.__version__}\n")
        return 0
    verb, *rest = args.rest
    if verb == "help":
        return _dispatch([*rest, "--help"], context)
    if verb in VERBS:
        return _call(VERBS[verb], verb, rest, context)
    if verb not in GROUPS:
        raise InvalidInputError(f"unknown verb {verb!r}", hint=_alike(verb, [*VERBS, *GROUPS]))
    return _group(verb, rest, context)


def _group(group: str, words: list[str], context: Context) -> int:
    summary, verbs = GROUPS[group]
    if not words or words[0] in ("--help", "-h"):
        sys.stdout.write(f"Usage:  layerfs {group} VERB\n\n{summary}\n\nVerbs:\n{_listed(verbs)}")
        return 0 if words else 1
    if words[0] not in verbs:
        context.title = group
        raise InvalidInputError(f"unknown verb {words[0]!r}", hint=_alike(words[0], list(verbs)))
    return _call(verbs[words[0]], f"{group} {words[0]}", words[1:], context)


def _call(entry: Entry, title: str, words: list[str], context: Context) -> int:
    context.title, context.kind = title, entry.kind
    module = import_module(f"layerfs.cli.verbs.{entry.module}")
    command: Command = module.COMMANDS[entry.kind] if hasattr(module, "COMMANDS") else module.COMMAND
    args = command.parse(words, f"layerfs {title}")
    if args is None:
        sys.stdout.write(helped(f"layerfs {title}", entry.summary, command))
        return 0
    if entry.module not in _WITHOUT_VALUES:
        import_values(alone=context.alone)
    if entry.module in _WITH_REGISTRY:
        import_http()
    return module.run(args, context) or 0


def _failed(error: Exception, context: Context) -> int:
    if context.debug:
        import traceback

        traceback.print_exc()
    if isinstance(error, OSError) and not isinstance(error, LayerfsError):
        error = native_error(error, os.fsdecode(error.filename) if error.filename else "system call")
    if isinstance(error, UnicodeEncodeError):
        # A byte of an argument that is no UTF-8.  File names in layers may have such; JSON, which holds this, may not.
        error = InvalidInputError(f"argument {error.object!r:.200}: not UTF-8")
    known = isinstance(error, LayerfsError)
    message = str(error) if known else f"internal error: {type(error).__name__}: {error}"
    hint = getattr(error, "hint", None) if known else "with layerfs --debug it shows where"
    try:
        sys.stdout.flush()
    except OSError:
        # What is still buffered cannot be written; it must not complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
    context.report(message, hint)
    code = error.exit_code if isinstance(error, LayerfsError) else 1
    in_family = context.title.removeprefix("container ") in _RUN_FAMILY
    return 125 if in_family and code not in (126, 127) else code


def _overview() -> str:
    groups = "".join(f"  {name:12}{summary}\n" for name, (summary, _) in sorted(GROUPS.items()))
    return (
        helped("layerfs", "A layer storage engine for container images", _GLOBAL)
        + f"\nVerbs:\n{_listed(VERBS)}\nGroups:\n{groups}\n'layerfs VERB --help' says more about a verb.\n"
    )


def _listed(verbs: dict[str, Entry]) -> str:
    return "".join(f"  {name:12}{entry.summary}\n" for name, entry in sorted(verbs.items()))


def _alike(word: str, known: list[str]) -> str:
    import difflib  # only on the way to an error

    found = difflib.get_close_matches(word, known, 1)
    return f"did you mean {found[0]}?" if found else "'layerfs --help' lists them"
