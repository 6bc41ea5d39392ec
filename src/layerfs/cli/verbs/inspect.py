"""``layerfs inspect``: all that is known about containers, images and volumes, as JSON or by a template."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layerfs.cli.context import Context
from layerfs.cli.format import formatted
from layerfs.cli.options import Args, Command, Option, flag, one
from layerfs.errors import InvalidInputError, LayerfsError, NotFoundError

__all__ = ["COMMANDS", "run"]

_FORMAT = one("-f", "--format", help="'json' or a Go template")
_SIZE = flag("-s", "--size", help="Show how much containers take")


def _command(what: str, *options: Option) -> Command:
    return Command(f"[OPTIONS] {what} [{what}...]", [_FORMAT, *options], least=1)


def _container(context: Context, text: str, size: bool) -> dict[str, Any]:
    from layerfs.cli.documents import container_document

    return container_document(context.store.containers.get(text), size)


def _image(context: Context, text: str, size: bool) -> dict[str, Any]:
    from layerfs.cli.documents import image_document

    return image_document(context.store.images.get(text))


def _volume(context: Context, text: str, size: bool) -> dict[str, Any]:
    from layerfs.cli.verbs.volume import volume_document

    return volume_document(context.store.containers.volumes.get(text))


# The order in which a name is looked for, which is docker's.
_FINDERS: dict[str, Callable[[Context, str, bool], dict[str, Any]]] = {
    "container": _container,
    "image": _image,
    "volume": _volume,
}

COMMANDS = {
    "": _command("NAME", _SIZE, one("--type", help="Look for these alone", choices=tuple(_FINDERS))),
    "container": _command("CONTAINER", _SIZE),
    "image": _command("IMAGE"),
}


def run(args: Args, context: Context) -> int:
    """Print what is found, then what is not."""
    wanted = context.kind or args.type
    size = context.kind != "image" and args.size
    found: list[dict[str, Any]] = []
    code = context.each(args.rest, lambda text: found.append(_find(context, text, wanted, size)))
    if args.format:
        for document in found:
            context.out(formatted(document, args.format))
    else:
        context.out(formatted(found, None))
    return code


def _find(context: Context, text: str, wanted: str | None, size: bool) -> dict[str, Any]:
    reason: LayerfsError = NotFoundError(f"{text}: no such object")
    for kind, finder in _FINDERS.items():
        if wanted in (None, kind):
            try:
                return finder(context, text, size)
            except NotFoundError as error:
                reason = error if wanted else reason
            except InvalidInputError as error:
                # A name that cannot be an image's may be a volume's.
                reason = error if wanted else reason
    raise reason
