"""Making a container: the record, the files, the volumes and the snapshot; in the end the row that shows it."""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from layerfs.containers.files import FILES, LOCALTIME, check_addresses, write_files, zone_file
from layerfs.containers.hostlimits import check_limits
from layerfs.containers.names import check_name, generate_name
from layerfs.containers.options import CreateOptions, MountOption
from layerfs.containers.parts import Parts, is_rootless
from layerfs.containers.record import Config, MountUse, State
from layerfs.containers.settings import command_of, image_volumes, merged_section
from layerfs.digest import Digest
from layerfs.errors import ExistsError, InvalidInputError, LayerfsError, NotFoundError, UnsupportedError, system_errors
from layerfs.fsutil import Lock, remove_tree
from layerfs.images import Image
from layerfs.late import LateModule
from layerfs.metadata.documents import from_text
from layerfs.oci import Platform
from layerfs.runtime import capability_mask

if TYPE_CHECKING:
    import re

    from layerfs.containers.volumes import Volume
else:  # few commands use an expression
    re = LateModule("re")

__all__ = ["create_container", "open_lock"]

_NAME_ATTEMPTS = 20
_IDS = 1 << 16
_FIRST_ID, _LAST_ID = 1 << 30, (1 << 31) - (1 << 16)  # above what distributions give to users
_HOSTNAME = r"[a-zA-Z0-9_]([a-zA-Z0-9._-]{0,62}[a-zA-Z0-9_])?"


def create_container(parts: Parts, options: CreateOptions, *, fleeting: bool = False) -> tuple[Config, Lock]:
    """Make a container of ``options``; its record, and its lock, which is held.

    Raises NotFoundError for the image, ExistsError for the name, InvalidInputError and UnsupportedError for options.
    """
    _check(options)
    options, network = _with_donors(parts, options)
    image = _image(parts, options)
    id = os.urandom(32).hex()
    section = merged_section((from_text(image.config_bytes).get("config") or {}), options)
    args = command_of(section)
    hostname = options.hostname or (_host_name() if options.network == "host" else id[:12])
    if network is not None:
        hostname = network.hostname
    with ExitStack() as undo:
        directory = parts.directory(id)
        with system_errors(f"create container {id[:12]}"):
            directory.mkdir(mode=0o700, parents=True)
        undo.callback(_remove_directory, directory)
        lock = parts.lock(id).acquire()
        undo.callback(lock.release)
        if network is not None:
            from layerfs.containers.joining import own_files  # as below

            own_files(parts, id, network)
        else:
            write_files(directory, options, hostname)
        mounts = _mounts(parts, options, section, image, undo)
        modes = {use.option.target: use.mode for use in mounts if use.mode is not None}
        support = parts.support.get(image.diff_ids, _targets(mounts), modes)
        config = Config(
            id=id,
            created=time.time(),
            options=options,
            image_id=str(image.id),
            image_target=str(image.target.digest),
            os=image.platform.os,
            architecture=image.platform.architecture,
            variant=image.platform.variant,
            section=section,
            args=args,
            hostname=hostname,
            runtime=options.runtime if options.runtime != "auto" else parts.runtimes.get("auto").name,
            layers=tuple(map(str, image.diff_ids)),
            id_map=_id_map(parts) if options.userns == "auto" else None,
            support=str(support) if support is not None else None,
            mounts=tuple(mounts),
        )
        parts.write_config(config)
        _publish(parts, config, image, fleeting=fleeting)
        undo.pop_all()
    return config, lock


def open_lock(parts: Parts, id: str) -> Lock:
    """Take a container's lock; InUseError while somebody else runs or changes it."""
    return parts.lock(id).acquire()


def _id_map(parts: Parts) -> tuple[int, int]:
    """Numbers that no other container has."""
    taken = set()
    for row in parts.database.containers():
        with suppress(NotFoundError):
            taken.add(parts.config(row.id).id_map)
    return next((base, _IDS) for base in range(_FIRST_ID, _LAST_ID, _IDS) if (base, _IDS) not in taken)


def _host_name() -> str:
    return os.uname().nodename or "localhost"


def _image(parts: Parts, options: CreateOptions) -> Image:
    """The image, for the platform that is asked for: one for another platform is none."""
    wanted = Platform.parse(options.platform) if options.platform else None
    image = parts.images.get(options.image, wanted)
    if wanted is not None and not wanted.matches(image.platform):
        raise NotFoundError(
            f"image {options.image}: what is in the store is for {image.platform}, not for {wanted}",
            hint=f"layerfs pull --platform {wanted} {options.image}",
        )
    return image


def _with_donors(parts: Parts, options: CreateOptions) -> tuple[CreateOptions, Config | None]:
    if not any(":" in kind for kind in (options.network, options.pid, options.ipc, options.uts)):
        return options, None
    from layerfs.containers.joining import with_donors  # few containers join others

    return with_donors(parts, options)


def _check(options: CreateOptions) -> None:
    """All that can be said to be wrong without the image, before anything is made."""
    if options.name is not None:
        check_name(options.name)
    if options.hostname is not None and re.fullmatch(_HOSTNAME, options.hostname) is None:
        raise InvalidInputError(f"host name {options.hostname!r}: not a host name")
    if options.hostname is not None and options.uts != "private":
        raise InvalidInputError(f"option --hostname: it cannot go with --uts {options.uts}")
    if options.timezone is not None:
        zone_file(options.timezone)
    check_addresses(options)
    check_limits(options)
    capability_mask(options.cap_add, options.cap_drop)
    targets: set[str] = set()
    for mount in options.mounts:
        if mount.target in targets:
            raise InvalidInputError(f"mount point {mount.target}: given twice")
        targets.add(mount.target)


def _mounts(
    parts: Parts, options: CreateOptions, section: dict[str, object], image: Image, undo: ExitStack
) -> list[MountUse]:
    """What is mounted, the outer before the inner; volumes are made and filled."""
    taken = {mount.target for mount in options.mounts}
    uses = [use for use in _inherited(parts, options) if use.option.target not in taken]
    taken |= {use.option.target for use in uses}
    wanted = list(options.mounts)
    if options.timezone is not None and LOCALTIME not in taken:
        wanted.append(MountOption(type="bind", target=LOCALTIME, source=zone_file(options.timezone), readonly=True))
    wanted += [MountOption(type="volume", target=path) for path in image_volumes(section) if path not in taken]
    uses += [_use(parts, option, image, undo) for option in wanted]
    if options.userns == "auto" and any(use.volume and use.option.subpath for use in uses):
        raise UnsupportedError("option --userns auto: it cannot go with a path within a volume")
    return sorted(uses, key=lambda use: use.option.target.count("/"))


def _inherited(parts: Parts, options: CreateOptions) -> list[MountUse]:
    """Volumes and paths of the host that other containers have; of two at one place the later one."""
    found: dict[str, MountUse] = {}
    for name, readonly in options.volumes_from:
        for use in parts.config(parts.database.container(name.removeprefix("/")).id).mounts:
            if use.option.type in ("bind", "volume"):
                option = msgspec.structs.replace(use.option, readonly=use.option.readonly or readonly)
                found[option.target] = msgspec.structs.replace(use, option=option)
    return list(found.values())


def _use(parts: Parts, option: MountOption, image: Image, undo: ExitStack) -> MountUse:
    if option.type == "bind":
        source = _bind_source(option)
        return MountUse(option=option, source=source, is_dir=os.path.isdir(source))
    if option.type == "tmpfs":
        return MountUse(option=option, mode=option.mode if option.mode is not None else _mode(parts, option, image))
    if (option.type == "image" or option.subpath) and is_rootless():
        what = "an image" if option.type == "image" else "a path within a volume"
        raise UnsupportedError(f"mount {option.target}: {what} is not offered without privilege")
    if option.type == "image":
        stack = parts.images.get(option.source or "").diff_ids
        return _image_use(parts, MountUse(option=option, layers=tuple(map(str, stack))))
    volume = _volume(parts, option, undo)
    if option.subpath:
        return _volume_use(MountUse(option=option, source=str(volume.mountpoint), volume=volume.name))
    if not option.nocopy:
        _seed(parts, volume, option.target, image)
    return MountUse(option=option, source=str(volume.mountpoint), volume=volume.name, anonymous=option.source is None)


def _image_use(parts: Parts, use: MountUse) -> MountUse:
    if not use.option.subpath:
        return use
    from layerfs.containers.subpaths import subpath_is_dir  # few mounts have one

    root = parts.snapshots.view([Digest(text) for text in use.layers])
    try:
        return msgspec.structs.replace(use, is_dir=subpath_is_dir(root, use))
    finally:
        os.close(root)


def _volume_use(use: MountUse) -> MountUse:
    from layerfs.containers.subpaths import subpath_is_dir  # as above

    with system_errors(f"open volume {use.volume}"):
        root = os.open(use.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return msgspec.structs.replace(use, is_dir=subpath_is_dir(root, use))
    finally:
        os.close(root)


def _mode(parts: Parts, option: MountOption, image: Image) -> int:
    """Of a tmpfs, where nobody says: that of the directory which it covers."""
    with parts.layers.view(image.diff_ids) as view:
        try:
            return view.resolve(os.fsencode(option.target)).mode & 0o7777
        except (NotFoundError, InvalidInputError):
            return 0o1777


def _volume(parts: Parts, option: MountOption, undo: ExitStack) -> "Volume":
    if option.source is not None:
        return parts.volumes.create(option.source)
    volume = parts.volumes.create(anonymous=True)
    undo.callback(parts.volumes.remove, volume.name, force=True)
    return volume


def _seed(parts: Parts, volume: "Volume", target: str, image: Image) -> None:
    with system_errors(f"fill volume {volume.name}"):
        if not volume.is_empty():
            return
        with parts.layers.view(image.diff_ids) as view:
            try:
                entry = view.resolve(os.fsencode(target))
            except (NotFoundError, InvalidInputError):
                return
            if not entry.is_dir:
                return
        if is_rootless():
            from layerfs.userns import in_userns  # root needs none

            in_userns(lambda: _fill(parts, volume, image, entry.path))
        else:
            _fill(parts, volume, image, entry.path)


def _fill(parts: Parts, volume: "Volume", image: Image, path: bytes) -> None:
    root = parts.snapshots.view(image.diff_ids)
    try:
        parts.volumes.seed(volume, root, os.fsdecode(path))
    finally:
        os.close(root)


def _bind_source(option: MountOption) -> str:
    source = option.source or ""
    if not os.path.exists(source):
        if not option.create_source:
            raise NotFoundError(f"mount {option.target}: the host has no {source}")
        with system_errors(f"create {source}"):
            Path(source).mkdir(parents=True, exist_ok=True)
    return os.path.realpath(source)


def _targets(mounts: Sequence[MountUse]) -> list[tuple[str, bool]]:
    targets = [(use.option.target, use.is_dir) for use in mounts]
    return targets + [(path, False) for path in FILES.values() if path not in {target for target, _ in targets}]


def _publish(parts: Parts, config: Config, image: Image, *, fleeting: bool) -> None:
    """The snapshot and the row appear together."""
    state = State(
        auto_remove=config.options.auto_remove,
        fleeting=fleeting,
        volumes=tuple(use.volume for use in config.mounts if use.volume),
    )
    with parts.database.transaction():
        parts.snapshots.prepare(config.id, config.stack)
        layers = [Digest(text) for use in config.mounts for text in use.layers]
        if layers:  # of images that are mounted: they stay as long as the container does
            parts.database.put_record("mounted", config.id, {}, layers)
        try:
            _add(parts, config, image, msgspec.to_builtins(state))
        except LayerfsError:
            with suppress(OSError):
                remove_tree(parts.snapshots.root / config.id)
            raise


def _add(parts: Parts, config: Config, image: Image, state: dict[str, Any]) -> None:
    """The row, under the name that was asked for, or one that is free."""
    given = config.options.name
    for attempt in range(_NAME_ATTEMPTS):
        name = check_name(given) if given is not None else generate_name(attempt)
        try:
            parts.database.add_container(config.id, name, image.target.digest, image.id, state)
            return
        except ExistsError:
            if given is not None or attempt == _NAME_ATTEMPTS - 1:
                raise


def _remove_directory(directory: Path) -> None:
    with suppress(OSError):
        remove_tree(directory)
