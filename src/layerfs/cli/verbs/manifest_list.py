"""``layerfs manifest create``, ``add``, ``annotate`` and ``remove``: an index of images for several platforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag, many, one
from layerfs.errors import ExistsError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from layerfs.images import ImageStore
    from layerfs.oci import Descriptor

__all__ = ["COMMANDS", "run"]

_ALL = flag("-a", "--all", help="Of an image that has several platforms, all that are here")
_SAID = [
    many("--annotation", help="Say key=value of the image", metavar="key=value"),
    one("--arch", help="Say that it is for this architecture"),
    one("--os", help="Say that it is for this operating system"),
    one("--os-version", help="Say that it is for this version of the operating system"),
    one("--variant", help="Say that it is for this variant of the architecture"),
]

COMMANDS = {
    "create": Command(
        "[OPTIONS] LIST [IMAGE...]",
        [_ALL, flag("--amend", help="Add to a list that is there")],
        least=1,
        notes="The images are those that are here. The list is pushed as an image is, with all that it names.",
    ),
    "add": Command("[OPTIONS] LIST IMAGE [IMAGE...]", [_ALL, *_SAID], least=2),
    "annotate": Command("[OPTIONS] LIST IMAGE|DIGEST", _SAID, least=2, most=2),
    "remove": Command("LIST IMAGE|DIGEST", least=2, most=2),
}


def run(args: Args, context: Context) -> None:
    """Change the list and print its digest."""
    from layerfs.reference import Reference

    canonical = str(Reference.parse_new(args.rest[0]))
    with context.store.database.transaction(durable=True):  # what is read is what is changed
        target = _change(args, context, canonical)
    context.out(f"{target.digest}\n")


def _change(args: Args, context: Context, canonical: str) -> Descriptor:
    images = context.store.images
    name, *texts = args.rest
    annotations = None
    if context.kind == "create" and context.store.database.resolve(canonical) is None:
        entries: list[Descriptor] = []
    else:
        if context.kind == "create" and not args.amend:
            raise ExistsError(f"manifest list {name}: it is there", hint="--amend adds to it")
        index = images.index(name)
        entries, annotations = list(index.manifests), index.annotations
    if context.kind in ("create", "add"):
        for text in texts:
            for entry in _offered(images, text, args.all):
                entries = [each for each in entries if each.digest != entry.digest]
                entries.append(_said(entry, args) if context.kind == "add" else entry)
    else:
        found = _found(images, name, entries, texts[0])
        changed = [_said(found, args)] if context.kind == "annotate" else []
        entries = [new for each in entries for new in (changed if each is found else [each])]
    return images.set_index(canonical, entries, annotations)


def _offered(images: ImageStore, text: str, everything: bool) -> list[Descriptor]:
    """The manifests that an image has for the list, each with its platform."""
    import msgspec

    if everything:
        try:
            return images.here(images.index(text))
        except InvalidInputError:  # one image
            pass
    image = images.get(text)
    return [msgspec.structs.replace(image.manifest_descriptor, platform=image.platform)]


def _found(images: ImageStore, name: str, entries: list[Descriptor], text: str) -> Descriptor:
    digest = text if any(each.digest == text for each in entries) else images.get(text).manifest_descriptor.digest
    for entry in entries:
        if entry.digest == digest:
            return entry
    raise NotFoundError(f"manifest list {name}: {text} is not in it", hint=f"layerfs manifest inspect {name}")


def _said(entry: Descriptor, args: Args) -> Descriptor:
    """The entry, with what the options say of it."""
    import msgspec

    from layerfs.oci import Platform

    pairs = [text.partition("=") for text in args.annotation]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise InvalidInputError(f"annotation {key!r}: not of the form key=value")
    annotations = (entry.annotations or {}) | {key: value for key, _, value in pairs}
    known = {"architecture": args.arch, "os": args.os, "os_version": args.os_version, "variant": args.variant}
    given = {field: value for field, value in known.items() if value is not None}
    platform = msgspec.structs.replace(entry.platform or Platform.host(), **given) if given else entry.platform
    return msgspec.structs.replace(entry, platform=platform, annotations=annotations or None)
