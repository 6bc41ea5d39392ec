"""OCI bundles for other runtimes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from layerfs.containers.merged import merged
from layerfs.containers.parts import Parts
from layerfs.containers.record import Config
from layerfs.containers.starting import run_spec
from layerfs.errors import ExistsError, UnsupportedError, system_errors
from layerfs.runtime import oci_config, with_init

__all__ = ["Bundle", "write_bundle"]


class Bundle(msgspec.Struct, frozen=True):
    """A bundle directory. ``mounts``: the commands that mount its root, where it is not mounted already."""

    path: Path
    mounts: tuple[tuple[str, ...], ...] = ()


def write_bundle(parts: Parts, config: Config, directory: Path, *, mounted: bool) -> Bundle:
    """A bundle for a container that does not run; its lock is held. ExistsError when the directory is not empty.

    With ``mounted`` the root is mounted in it, until ``unmount`` or the removal of the container.
    """
    if config.id_map is not None:
        raise UnsupportedError("option --userns auto: not offered for bundles: their mounts would have other owners")
    if any(
        ":" in kind for kind in (config.options.network, config.options.pid, config.options.ipc, config.options.uts)
    ):
        raise UnsupportedError("namespaces of other containers: not offered for bundles, which are for later")
    if any(use.option.subpath for use in config.mounts):
        raise UnsupportedError("paths within volumes and images: not offered for bundles, which are for later")
    directory = directory.absolute()
    with system_errors(f"write the bundle {directory}"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(os.listdir(directory)):
            raise ExistsError(f"write the bundle {directory}: the directory is not empty")
        with merged(parts, config) as root:
            spec = run_spec(config, root, parts.directory(config.id))
        (directory / "rootfs").mkdir(mode=0o700)
        document = json.dumps(oci_config(with_init(spec) if spec.init else spec), indent=2)
        (directory / "config.json").write_text(document + "\n")
    if not mounted:
        return Bundle(directory, tuple(_commands(parts, config, directory / "rootfs")))
    fd = parts.snapshots.mount(config.id)
    try:
        parts.snapshots.attach(fd, directory / "rootfs", config.id)
    except BaseException:
        parts.snapshots.release(config.id)
        raise
    finally:
        os.close(fd)
    return Bundle(directory)


def _commands(parts: Parts, config: Config, target: Path) -> Iterator[tuple[str, ...]]:
    lowers = []
    for diff_id in reversed(config.stack):
        path = parts.layers.path(diff_id)
        if parts.layers.format == "dir":
            lowers.append(str(path / "fs"))
            continue
        place = str(parts.run / "layers" / diff_id.hex)
        lowers.append(place)
        yield ("mkdir", "-p", place)
        yield ("mount", "-t", "erofs", "-o", "ro", str(path), place)
    upper = parts.snapshots.upper(config.id)
    if not lowers:
        yield ("mount", "--bind", str(upper), str(target))
        return
    options = f"lowerdir={':'.join(map(_escaped, lowers))},upperdir={_escaped(str(upper))}"
    options += f",workdir={_escaped(str(upper.with_name('work')))}"
    yield ("mount", "-t", "overlay", "-o", options, "overlay", str(target))


def _escaped(path: str) -> str:
    """A path within an option of overlayfs."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
