"""``layerfs image tree``: the layers of an image, and the images that they are the top layers of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag
from layerfs.cli.units import size

if TYPE_CHECKING:
    from layerfs.digest import Digest

__all__ = ["COMMAND", "run"]

_Stack: TypeAlias = "tuple[Digest, ...]"

COMMAND = Command(
    "[OPTIONS] IMAGE",
    [flag("--whatrequires", help="From its top layer on, the layers and images that stand on the image")],
    least=1,
    most=1,
)


def run(args: Args, context: Context) -> None:
    """Print what the image is, then a line for each layer, base first."""
    store = context.store
    image = store.images.get(args.rest[0])
    names = " ".join(image.familiar_names)
    context.out(f"Image ID: {image.id.short}\nTags:     [{names}]\nSize:     {size(image.size, 4)}\n")
    if not image.diff_ids:
        context.out("No Image Layers\n")
        return
    context.out("Image Layers\n")
    tops: dict[_Stack, list[str]] = {}
    for each in store.images.list():
        tops.setdefault(each.diff_ids, []).extend(each.familiar_names)
    sizes = store.database.layer_data_bytes()

    def line(stack: _Stack) -> str:
        top = f" Top Layer of: [{' '.join(sorted(tops[stack]))}]" if tops.get(stack) else ""
        return f"ID: {stack[-1].short} Size: {size(sizes.get(stack[-1], 0), 4)}{top}\n"

    stacks = [image.diff_ids[: count + 1] for count in range(len(image.diff_ids))]
    upon = sorted({each for each in tops if each[: len(stacks[-1])] == stacks[-1] and each != stacks[-1]})
    if not (args.whatrequires and upon):
        for stack in stacks:
            context.out(("└── " if stack is stacks[-1] else "├── ") + line(stack))
        return
    for indent, stack in _branches(stacks[-1], upon):
        context.out(indent + line(stack))


def _branches(root: _Stack, upon: list[_Stack]) -> Iterator[tuple[str, _Stack]]:
    """(what stands before it, stack) of a root and of all that stands on it; without recursion: stacks may be deep."""
    children: dict[_Stack, dict[_Stack, None]] = {}
    for stack in upon:
        for count in range(len(root), len(stack)):
            children.setdefault(stack[:count], {})[stack[: count + 1]] = None
    pending: list[tuple[str, bool, _Stack]] = [("", True, root)]
    while pending:
        indent, last, stack = pending.pop()
        yield indent + ("└── " if last else "├── "), stack
        below = indent + ("    " if last else "│   ")
        found = list(children.get(stack, ()))[::-1]
        pending += [(below, number == 0, child) for number, child in enumerate(found)]
