"""``layerfs inspect``: all that is known about images, as JSON or by a template."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.format import formatted
from layerfs.cli.options import Args, Command, Option, one
from layerfs.errors import LayerfsError, NotFoundError

if TYPE_CHECKING:
    from layerfs.cli.gotemplate import Fields

__all__ = ["COMMANDS", "run"]

_FORMAT = one("-f", "--format", help="'json' or a Go template")


def _command(what: str, *options: Option) -> Command:
    return Command(f"[OPTIONS] {what} [{what}...]", [_FORMAT, *options], least=1)


def _image(context: Context, text: str) -> Fields:
    from layerfs.cli.documents import image_document

    return image_document(context.store.images.get(text))


_FINDERS: dict[str, Callable[[Context, str], Fields]] = {"image": _image}

COMMANDS = {
    "": _command("NAME", one("--type", help="Look for these alone", choices=tuple(_FINDERS))),
    "image": _command("IMAGE"),
}


def run(args: Args, context: Context) -> int:
    """Print what is found, then what is not."""
    wanted = context.kind or args.type
    found: list[Fields] = []
    code = context.each(args.rest, lambda text: found.append(_find(context, text, wanted)))
    if args.format:
        for document in found:
            context.out(formatted(document, args.format))
    else:
        context.out(formatted(found, None))
    return code


def _find(context: Context, text: str, wanted: str | None) -> Fields:
    reason: LayerfsError = NotFoundError(f"{text}: no such object")
    for kind, finder in _FINDERS.items():
        if wanted in (None, kind):
            try:
                return finder(context, text)
            except NotFoundError as error:
                reason = error if wanted else reason
    raise reason
