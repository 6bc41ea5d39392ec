"""What pull and push need of a store; and errors that say which image they were about."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from layerfs.content import ContentStore
from layerfs.errors import IntegrityError, LayerfsError, NotFoundError, RegistryError
from layerfs.fsutil import Ingest
from layerfs.images import ImageStore
from layerfs.layers import LayerStore
from layerfs.metadata import Database

__all__ = ["StoreParts", "about"]


class StoreParts(Protocol):
    """The stores below one root."""

    @property
    def database(self) -> Database:
        """The records."""

    @property
    def content(self) -> ContentStore:
        """Blobs by digest."""

    @property
    def layers(self) -> LayerStore:
        """Layers by diff ID."""

    @property
    def ingest(self) -> Ingest:
        """What is being written."""

    @property
    def images(self) -> ImageStore:
        """Names and images."""

    @property
    def keep_blobs(self) -> bool:
        """Whether layer blobs are stored beside the layers."""


@contextmanager
def about(what: str) -> Iterator[None]:
    """Errors of what a registry sent, or did not, begin with ``what``: the operation and the reference."""
    try:
        yield
    except (IntegrityError, NotFoundError, RegistryError) as exc:
        _prefix(exc, what)
        raise


def _prefix(exc: LayerfsError, what: str) -> None:
    if not str(exc).startswith(what):
        exc.args = (f"{what}: {exc}",)
