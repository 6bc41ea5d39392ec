"""The tree of an image or a layer, for the verbs that read files without a mount."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from layerfs.layers import View

__all__ = ["open_view"]


def open_view(context: Context, text: str) -> View:
    """Return the tree of an image, or of a layer by its whole diff ID; NotFoundError when there is neither."""
    from layerfs.digest import Digest

    store = context.store
    try:
        return store.layers.view(store.images.get(text).diff_ids)
    except NotFoundError:
        try:
            diff_id = Digest(text if ":" in text else f"sha256:{text}")
        except InvalidInputError:
            diff_id = None
        if diff_id is None or not store.layers.has(diff_id):
            raise
        return store.layers.view([diff_id])
