"""Sharing measured: what layers that are stored once save, and what equal files in different layers would.

A layer is stored once, whatever number of images has it; that needs no measuring beyond adding up.  Equal *files* are
another matter: most layers of one distribution have the same files at other places.  They are found by size, then by a
fingerprint of their content (XXH3-128), and count as equal only after their bytes were compared.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import xxhash

from layerfs.blobs import NO_PROGRESS, Progress
from layerfs.digest import Digest
from layerfs.images import ImageSummary
from layerfs.layers import Entry, LayerStore, View

__all__ = ["FileCopies", "FileSharing", "LayerSharing", "LayerUse", "share_files", "share_layers"]

_SAMPLE = 4096
_OPEN = 32
"""Layers that are open at the same time."""


class LayerUse(msgspec.Struct, frozen=True):
    """A layer, its bytes (of regular files, and on disk), and the images that have it, by a name or their ID."""

    diff_id: Digest
    data_bytes: int
    disk: int
    images: tuple[str, ...]


class LayerSharing(msgspec.Struct, frozen=True):
    """What storing each layer once saves, in bytes on disk. ``apart`` is what the images would take without it."""

    layers: tuple[LayerUse, ...]
    together: int
    apart: int


class FileCopies(msgspec.Struct, frozen=True):
    """Files with the same content: bytes of one, and where they are. Names of one file count as one."""

    size: int
    places: tuple[tuple[Digest, bytes], ...]

    @property
    def wasted(self) -> int:
        """Bytes that all but one of them take."""
        return self.size * (len(self.places) - 1)


class FileSharing(msgspec.Struct, frozen=True):
    """Equal files of a set of layers. ``files`` and ``data_bytes`` count each file of each layer once; ``across`` are
    the wasted bytes of copies in different layers, ``within`` those in one. ``copies``: the most wasteful first."""

    files: int
    data_bytes: int
    distinct_files: int
    distinct_bytes: int
    within: int
    across: int
    copies: tuple[FileCopies, ...]


def share_layers(images: Iterable[ImageSummary], layers: LayerStore) -> LayerSharing:
    """How images share whole layers. Layers that are not here are left out."""
    users: dict[Digest, list[str]] = {}
    for image in images:
        label = image.familiar_names[0] if image.names else image.id.short
        for diff_id in dict.fromkeys(image.diff_ids):
            users.setdefault(diff_id, []).append(label)
    rows = []
    for diff_id, labels in users.items():
        if layers.has(diff_id):
            layer = layers.get(diff_id)
            rows.append(LayerUse(diff_id, layer.data_bytes, layer.disk, tuple(labels)))
    rows.sort(key=lambda row: (-len(row.images), -row.disk, row.diff_id))
    return LayerSharing(tuple(rows), sum(row.disk for row in rows), sum(row.disk * len(row.images) for row in rows))


def share_files(
    layers: LayerStore, diff_ids: Iterable[Digest], *, minimum: int = 1, progress: Progress = NO_PROGRESS
) -> FileSharing:
    """Equal regular files of at least ``minimum`` bytes in the layers; each layer is looked at once.

    Memory is bounded by the number of files; contents are read in pieces.
    """
    by_size: dict[int, list[tuple[Digest, int, bytes]]] = {}
    files = total = 0
    chosen = list(dict.fromkeys(diff_ids))
    for diff_id in chosen:
        progress.start(diff_id, f"layer {diff_id.short}", None)
        for entry in _files(layers, diff_id, minimum):
            files, total = files + 1, total + entry.size
            by_size.setdefault(entry.size, []).append((diff_id, entry.inode, entry.path))
        progress.finish(diff_id)
    groups: list[FileCopies] = []
    with _Contents(layers) as contents:
        for size, places in by_size.items():
            if len(places) > 1:
                groups += (FileCopies(size, group) for group in contents.equal([(d, p) for d, _, p in places], size))
    groups.sort(key=lambda group: (-group.wasted, group.places))
    wasted = sum(group.wasted for group in groups)
    within = sum(group.size * _within(group) for group in groups)
    extra = sum(len(group.places) - 1 for group in groups)
    return FileSharing(files, total, files - extra, total - wasted, within, wasted - within, tuple(groups))


def _within(group: FileCopies) -> int:
    """Copies that share a layer with another one."""
    return len(group.places) - len({diff_id for diff_id, _ in group.places})


def _files(layers: LayerStore, diff_id: Digest, minimum: int) -> Iterator[Entry]:
    """The regular files of a layer, by one of their names each."""
    seen: set[int] = set()
    with layers.view([diff_id]) as view:
        for entry in view.walk():
            if entry.type != "file" or entry.size < minimum or (entry.nlink > 1 and entry.inode in seen):
                continue
            if entry.nlink > 1:
                seen.add(entry.inode)
            yield entry


class _Contents:
    """Reads files of layers, with the views that it used last kept open; each has descriptors of its own."""

    def __init__(self, layers: LayerStore) -> None:
        self._layers = layers
        self._views: dict[Digest, View] = {}

    def __enter__(self) -> "_Contents":
        return self

    def __exit__(self, *_: object) -> None:
        for view in self._views.values():
            view.close()

    def pieces(self, place: tuple[Digest, bytes]) -> Iterator[bytes]:
        diff_id, path = place
        view = self._views.pop(diff_id, None)
        if view is None:
            if len(self._views) >= _OPEN:
                self._views.pop(next(iter(self._views))).close()
            view = self._layers.view([diff_id])
        self._views[diff_id] = view  # in the order of use, the last one last
        return view.read(path)

    def _fingerprint(self, place: tuple[Digest, bytes]) -> bytes:
        state = xxhash.xxh3_128()
        for piece in self.pieces(place):
            state.update(piece)
        return state.digest()

    def equal(self, places: Sequence[tuple[Digest, bytes]], size: int) -> Iterator[tuple[tuple[Digest, bytes], ...]]:
        """Groups of two and more of ``places`` (all of ``size`` bytes) with the same content."""
        candidates: Sequence[Sequence[tuple[Digest, bytes]]] = [places]
        if size > _SAMPLE:
            candidates = _grouped(places, lambda place: next(self.pieces(place), b"")[:_SAMPLE])
        for group in candidates:
            for same in _grouped(group, self._fingerprint):
                yield from self._verified(same)

    def _verified(self, places: Sequence[tuple[Digest, bytes]]) -> Iterator[tuple[tuple[Digest, bytes], ...]]:
        """The places split by their very bytes; as a rule that is one group."""
        rest = list(places)
        while len(rest) > 1:
            first, *others = rest
            same, rest = [first], []
            for place in others:
                (same if self._same(first, place) else rest).append(place)
            if len(same) > 1:
                yield tuple(same)

    def _same(self, a: tuple[Digest, bytes], b: tuple[Digest, bytes]) -> bool:
        return all(one == two for one, two in zip(self.pieces(a), self.pieces(b), strict=True))


def _grouped(
    places: Sequence[tuple[Digest, bytes]], key: Callable[[tuple[Digest, bytes]], bytes]
) -> list[list[tuple[Digest, bytes]]]:
    """Places with equal keys, where there are two or more."""
    groups: dict[bytes, list[tuple[Digest, bytes]]] = {}
    for place in places:
        groups.setdefault(key(place), []).append(place)
    return [group for group in groups.values() if len(group) > 1]
