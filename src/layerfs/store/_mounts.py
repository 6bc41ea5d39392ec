"""Images and containers seen as a directory: ``mount`` and ``unmount``, and ``rootfs`` for the time of a ``with``.

A mounted image is a snapshot of kind ``view`` in the database, so that its layer mounts stay as long as it does.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec

from layerfs.containers import ContainerStore
from layerfs.containers.parts import is_rootless
from layerfs.errors import InUseError, InvalidInputError, NotFoundError, UnsupportedError, system_errors
from layerfs.fsutil import boot_id
from layerfs.images import Image
from layerfs.metadata import SnapshotRow
from layerfs.oci import Platform
from layerfs.store._parts import Parts

__all__ = ["MountInfo", "mount", "mounts", "rootfs", "unmount"]

_VIEW = "view-"


class MountInfo(msgspec.Struct, frozen=True):
    """Where an image (by its ID) or a container is mounted."""

    id: str
    kind: Literal["image", "container"]
    names: tuple[str, ...]
    path: Path


def mount(parts: Parts, containers: ContainerStore, text: str, target: Path | None = None) -> Path:
    """Mount a container writable, or an image read-only, at ``target`` or below the run directory; where that is.

    What is mounted already stays where it is. NotFoundError, InUseError while a container runs; UnsupportedError
    without privilege.
    """
    _refuse_rootless(text)
    try:
        key, diff_ids = parts.database.container(text).id, None
    except NotFoundError:
        image = _image(parts, text)
        key, diff_ids = _VIEW + image.id.hex, image.diff_ids
    there = next((info.path for info in mounts(parts) if _key(info) == key), None)
    if there is not None:
        if target is not None and target.absolute() != there:
            raise InUseError(f"mount {text}: it is mounted at {there}", hint=f"layerfs unmount {text}")
        return there
    place = (target or parts.places.run / "mounts" / key.removeprefix(_VIEW)).absolute()
    with system_errors(f"mount {text} at {place}"):
        if target is None:
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
        elif not place.is_dir():
            raise InvalidInputError(f"mount {text}: {place} is not a directory")
    with ExitStack() as held:
        if diff_ids is None:
            held.enter_context(containers.get(key).at_rest("mount"))
            fd = parts.snapshots.mount(key)
        else:
            with parts.database.transaction():
                with suppress(NotFoundError):
                    parts.snapshots.row(key)
                    parts.database.remove_snapshot(key)  # of an earlier boot
                parts.database.add_snapshot(key, diff_ids, "view")
            fd = parts.snapshots.view(diff_ids)
        held.callback(os.close, fd)
        parts.snapshots.attach(fd, place, key)
    return place


@contextmanager
def rootfs(
    parts: Parts, image: str, target: Path | None = None, *, readonly: bool = False, platform: Platform | None = None
) -> Iterator[Path]:
    """An image's tree, mounted at ``target`` (None: a place of its own); what is changed in it goes at the end."""
    _refuse_rootless(image)
    found = parts.images.get(image, platform)
    key = f"rootfs-{os.urandom(8).hex()}"
    with ExitStack() as stack:
        with system_errors(f"mount image {image}"):  # and not round the yield: those are its user's own
            place = target
            if place is None:
                place = parts.places.run / "mounts" / key
                place.mkdir(mode=0o700, parents=True)
                stack.callback(_remove_directory, place)
            parts.snapshots.prepare(key, found.diff_ids)
            stack.callback(parts.snapshots.remove, key)
            fd = parts.snapshots.mount(key, volatile=True, readonly=readonly)
            stack.callback(parts.snapshots.release, key)
            try:
                parts.snapshots.attach(fd, place)
            finally:
                os.close(fd)
            stack.callback(parts.snapshots.detach, place, lazy=True)
        yield place


def _refuse_rootless(text: str) -> None:
    """An ordinary user may mount in a namespace alone, where nobody else would see it."""
    if is_rootless():
        raise UnsupportedError(
            f"mount {text}: only root can mount where other processes see it",
            hint="layerfs export, ls, cat and cp read its files without a mount",
        )


def _remove_directory(path: Path) -> None:
    with suppress(OSError):
        path.rmdir()


def _key(info: MountInfo) -> str:
    return info.id if info.kind == "container" else _VIEW + info.id.removeprefix("sha256:")


def mounts(parts: Parts) -> list[MountInfo]:
    """What ``mount`` mounted and is mounted still."""
    found = []
    for row in parts.database.mounted_snapshots():
        info = _info(parts, row)
        if info is not None:
            found.append(info)
    return found


def _info(parts: Parts, row: SnapshotRow) -> MountInfo | None:
    if not row.mounted or row.boot_id != boot_id() or not os.path.ismount(row.mounted):
        return None
    if row.kind != "view":
        with suppress(NotFoundError):
            return MountInfo(row.key, "container", (parts.database.container(row.key).name,), Path(row.mounted))
        return None
    image_id = f"sha256:{row.key.removeprefix(_VIEW)}"
    names: tuple[str, ...] = ()
    with suppress(NotFoundError):
        names = parts.images.get(image_id).familiar_names
    return MountInfo(image_id, "image", names, Path(row.mounted))


def _image(parts: Parts, text: str) -> Image:
    try:
        return parts.images.get(text)
    except NotFoundError:
        raise NotFoundError(
            f"mount {text}: no such container or image", hint="layerfs ps -a and layerfs images list what there is"
        ) from None


def unmount(parts: Parts, text: str | None = None, *, force: bool = False) -> list[str]:
    """Unmount an image or container by name or by where it is, or (None) all of them; their IDs.

    NotFoundError when it is not mounted.
    NativeError (EBUSY) while something in it is in use, unless ``force``, which detaches it all the same.
    """
    infos = mounts(parts)
    if text is not None:
        infos = [info for info in infos if _means(parts, text, info)]
        if not infos:
            raise NotFoundError(f"unmount {text}: it is not mounted")
    for info in infos:
        parts.snapshots.detach(info.path, lazy=force)
        if info.path.parent == parts.places.run / "mounts":
            with suppress(OSError):
                info.path.rmdir()
        if info.kind == "container":
            parts.snapshots.release(info.id)
        else:
            parts.database.remove_snapshot(_key(info))
    parts.snapshots.release_layers()
    return [info.id for info in infos]


def _means(parts: Parts, text: str, info: MountInfo) -> bool:
    if text.startswith("/"):
        return str(info.path) == os.path.normpath(text)
    with suppress(NotFoundError):
        return parts.database.container(text).id == info.id
    with suppress(NotFoundError):
        return parts.images.get(text).id == info.id
    return False
