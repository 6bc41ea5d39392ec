"""The options of the verbs that talk to registries, and what comes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerfs.cli.options import Args, flag, one

if TYPE_CHECKING:
    from layerfs.blobs import Progress
    from layerfs.registry.access import Access

__all__ = ["ACCESS", "open_access"]

ACCESS = (
    one("--authfile", help="Read credentials from this file, and keep them there", metavar="FILE"),
    flag("--tls-verify", help="Refuse a registry whose certificate is not trusted, or that has none", default=True),
)


def open_access(args: Args, progress: Progress | None = None) -> Access:
    """Return the way to registries that the options ask for; to be closed. Warnings go to the progress."""
    from layerfs.registry.access import Access

    note = progress.note if progress is not None else None
    return Access.load(auth_file=args.authfile, insecure=not args.tls_verify, note=note)
