"""``layerfs save``: write images to an archive."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag, one
from layerfs.errors import InvalidInputError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    [
        one("-o", "--output", help="Write to this file, not to the standard output", metavar="FILE"),
        one(
            "--format",
            help="What to write",
            default="docker-archive",
            choices=("docker-archive", "oci-archive", "oci-dir"),
        ),
        flag(
            "-m",
            "--multi-image-archive",
            help="Accepted because podman has it; several images always go into one archive",
        ),
        one("--platform", help="Write the images for this platform", metavar="os/arch[/variant]"),
        flag("-q", "--quiet", help="Show no progress"),
    ],
    least=1,
    notes="A docker-archive is an OCI layout at once, as docker save writes it today. A repository without a tag\n"
    "stands for all its tags.",
)


def run(args: Args, context: Context) -> None:
    """Write the archive; a file appears when it is whole."""
    from layerfs.oci import Platform

    to_stdout = not args.output or args.output == "-"
    if args.format == "oci-dir" and to_stdout:
        raise InvalidInputError("save: an OCI layout directory needs a place", hint="give -o DIRECTORY")
    context.store.save(
        [name for text in args.rest for name in _names(context, text)],
        context.binary_out("an archive") if to_stdout else args.output,
        format=args.format,
        platform=Platform.parse(args.platform) if args.platform else None,
        progress=context.progress(args.quiet),
    )


def _names(context: Context, text: str) -> list[str]:
    """The name itself, or where it is a repository without a tag, all names there are of it."""
    from layerfs.reference import Reference, is_id_prefix

    try:
        reference = Reference.parse(text)
    except InvalidInputError:
        return [text]
    if reference.tag is not None or reference.digest is not None:
        return [text]
    names = (name for name, _ in context.store.database.names())
    found = [name for name in names if Reference.parse(name).name == reference.name]
    if not found and is_id_prefix(text):
        return [text]
    return sorted(found) or [text]
