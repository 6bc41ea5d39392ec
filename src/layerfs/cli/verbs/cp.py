"""``layerfs cp``: copy files into containers and out of them."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag
from layerfs.errors import InvalidInputError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER:PATH PATH|- or PATH|- CONTAINER:PATH or CONTAINER:PATH CONTAINER:PATH",
    [
        flag("-a", "--archive", help="Keep owners"),
        flag("-L", "--follow-link", help="Copy what a link leads to"),
        flag("-q", "--quiet", help="Accepted because docker has it; nothing is printed"),
    ],
    least=2,
    most=2,
    notes="- is a tar archive on the standard input or output.",
)


def run(args: Args, context: Context) -> None:
    """Copy in one of the directions."""
    source, target = map(_split, args.rest)
    if not source[0] and not target[0]:
        raise InvalidInputError("cp: one side has to be CONTAINER:PATH")
    options = {"keep_owner": args.archive, "follow": args.follow_link}
    if source[0] and target[0]:
        other = context.store.containers.get(target[0])
        context.store.containers.get(source[0]).copy_to(source[1], other, target[1], **options)
        return
    if source[0]:
        container = context.store.containers.get(source[0])
        if target[1] == "-":
            sink = context.binary_out("a tar archive")
            for piece in container.get_archive(source[1], follow=args.follow_link):
                sink.write(piece)
            sink.flush()
        else:
            container.copy_out(source[1], target[1], **options)
        return
    container = context.store.containers.get(target[0])
    if source[1] == "-":
        container.put_archive(target[1], context.binary_in("a tar archive"), keep_owner=args.archive)
    else:
        container.copy_in(source[1], target[1], **options)


def _split(text: str) -> tuple[str, str]:
    """The container and the path of one side; no container for what begins with a slash or dot, or has no colon."""
    name, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")) or "/" in name:
        return "", text
    if not name or not path:
        raise InvalidInputError(f"cp: {text!r} is not CONTAINER:PATH")
    return name, path
