"""From one layer format to the other: every layer's exact tar, into a directory beside the old one.

The setting in the database that names the format names the directory too, so one transaction switches; a crash before
it leaves the store as it was, one after it only the old directory, which the next prune removes.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from layerfs.blobs import NO_PROGRESS, PIECE, Progress
from layerfs.errors import InUseError, InvalidInputError, system_errors
from layerfs.fsutil import Lock, sync_dir
from layerfs.late import LateModule
from layerfs.layers import LayerStore
from layerfs.layers.store import BAD
from layerfs.metadata import Database
from layerfs.store._parts import Parts
from layerfs.store._places import Places, exclusive, layers_directory

if TYPE_CHECKING:
    from layerfs import userns
else:  # a prune seldom finds what a migration left
    userns = LateModule("layerfs.userns")

__all__ = ["migrate", "remove_other_layers"]


def migrate(parts: Parts, layer_format: str, *, progress: Progress = NO_PROGRESS) -> int:
    """Keep layers in another format from now on; how many were changed over.

    In the same format they are made anew where that gives them their owners, because this user had no ranges in
    /etc/subuid and /etc/subgid when they were made.

    The layers are converted beside what goes on; only the last step wants the store for itself, and what was converted
    is used by the next try. InUseError while containers run, something is mounted, or another command is under way.
    """
    if layer_format not in ("erofs", "dir"):
        raise InvalidInputError(f"layer format {layer_format!r}: not known", hint="there are erofs and dir")
    if layer_format == parts.layers.format and not _lacks_owners(parts.layers):
        return 0
    _refuse_in_use(parts.database)
    with Lock(parts.places.ingest / "lock-migrate"):
        new = _target(parts, layer_format)
        count = _convert(parts, new, progress)
        parts.use.release()
        with exclusive(parts.places, "migrate the layers"):
            _refuse_in_use(parts.database)
            parts.snapshots.release_layers()
            _convert(parts, new, progress)
            _switch(parts, new)
        parts.use.acquire()
        _remove_others(parts.places, new.root)
    return count


def _refuse_in_use(database: Database) -> None:
    for row in database.containers():
        if row.state.get("status") in ("running", "paused", "restarting"):
            raise InUseError(f"migrate the layers: container {row.name} is running", hint="stop it first")
    for snapshot in database.mounted_snapshots():
        if snapshot.mounted and os.path.ismount(snapshot.mounted):
            raise InUseError(
                f"migrate the layers: {snapshot.mounted} is mounted", hint=f"layerfs unmount {snapshot.mounted}"
            )


def _lacks_owners(layers: LayerStore) -> bool:
    if layers.chown or userns.own_maps().alone:
        return False
    for diff_id in layers.list():
        with layers.open(diff_id) as layer:
            if not layer.header.chown and layer.header.maps is None:
                return True
    return False


def _target(parts: Parts, layer_format: str) -> LayerStore:
    """The store of layers to be; what it has already is from an earlier try."""
    root, old = parts.places.root / f"layers-{layer_format}", parts.layers
    if root == old.root:
        root = parts.places.root / "layers"
    with system_errors(f"create {root}"):
        for place in (root, root / "sha256", root / "sha512"):
            place.mkdir(mode=0o700, exist_ok=True)
        sync_dir(root)
        sync_dir(root.parent)
    return LayerStore(
        root,
        old.run,
        parts.places.ingest,
        layer_format,
        userxattr=old.userxattr,
        chown=old.chown,
        sync=old.sync,
    )


def _convert(parts: Parts, new: LayerStore, progress: Progress) -> int:
    count = 0
    for diff_id in parts.layers.list():
        progress.start(diff_id, f"layer {diff_id.short}", parts.layers.get(diff_id).size)
        with new.writer(diff_id) as writer:
            if not writer.present:
                with parts.layers.open_tar(diff_id) as tar:
                    while piece := tar.read(PIECE):
                        writer.write(piece)
                        progress.advance(diff_id, len(piece))
                writer.commit()
                count += 1
        progress.finish(diff_id)
    return count


def _switch(parts: Parts, new: LayerStore) -> None:
    wanted = set(parts.layers.list())
    for diff_id in set(new.list()) - wanted:
        new.delete(diff_id)
    bad = parts.layers.root / BAD
    with system_errors("migrate the layers"), suppress(FileNotFoundError):
        (new.root / BAD).mkdir(mode=0o700, exist_ok=True)
        for path in bad.iterdir():
            os.rename(path, new.root / BAD / path.name)
    with parts.database.transaction(durable=True):
        for diff_id in wanted:
            if parts.database.layer(diff_id) is not None:
                layer = new.get(diff_id)
                parts.database.add_layer(diff_id, layer.size, layer.disk, layer.entries, layer.data_bytes)
        parts.database.set_setting("layer_format", new.format)
        parts.database.set_setting("layers", new.root.name)


def remove_other_layers(places: Places, database: Database, *, dry_run: bool = False) -> int:
    """Bytes of what a migration left behind, before or after its switch; it is removed."""
    try:
        with Lock(places.ingest / "lock-migrate", blocking=False):
            others = _others(places, layers_directory(places, database))
            total = sum(map(userns.usage_owned, others))
            if others and not dry_run:
                _remove_others(places, layers_directory(places, database))
            return total
    except InUseError:
        return 0


def _others(places: Places, current: Path) -> list[Path]:
    names: Iterable[str] = ("layers", "layers-erofs", "layers-dir")
    return [path for name in names if (path := places.root / name) != current and path.is_dir()]


def _remove_others(places: Places, current: Path) -> None:
    for path in _others(places, current):
        with system_errors(f"remove {path}"):
            userns.remove_owned(path)
