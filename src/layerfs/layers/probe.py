"""Which layer format this host can use for a store in a certain directory: found out by doing it."""

import os
from contextlib import ExitStack, suppress
from pathlib import Path

from layerfs import native
from layerfs.errors import LayerfsError
from layerfs.fsutil import remove_tree
from layerfs.layers.mounting import mount_layer_file

__all__ = ["probe_format"]


def probe_format(root: Path) -> str:
    """``erofs`` where an EROFS file in the directory ``root`` can be mounted and stacked under an upper beside it, else
    ``dir``. Nothing is left behind; ``root`` must be writable."""
    work = root / f"probe-{os.urandom(6).hex()}"
    try:
        work.mkdir(mode=0o700)
        return "erofs" if _stacks(work) else "dir"
    except (LayerfsError, OSError):
        return "dir"
    finally:
        with suppress(OSError):
            remove_tree(work)


def _stacks(work: Path) -> bool:
    """Whether a name that is only in a mounted layer is seen through an overlay, and one can be made beside it."""
    with ExitStack() as stack:

        def kept(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        image = kept(os.open(work / "image", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with native.Unpacker(image) as unpacker:
            unpacker.write(_archive())
            unpacker.finish(bytes(15) + b"\1")
        for name in ("layer", "upper", "work"):
            (work / name).mkdir()
        # As in a store: before Linux 6.15 overlayfs takes no layer that is not attached somewhere.
        native.attach(kept(mount_layer_file(image)), work / "layer")
        stack.callback(native.detach, work / "layer", lazy=True)
        layer, upper, workdir = (
            kept(os.open(work / name, os.O_PATH | os.O_CLOEXEC)) for name in ("layer", "upper", "work")
        )
        merged = kept(native.overlay_mount([layer], upper, workdir, volatile=True))
        place = Path(f"/proc/self/fd/{merged}")
        (place / "new").mkdir()
        return (place / "probe").is_dir() and (work / "upper" / "new").is_dir()


def _archive() -> bytes:
    """A tar with one directory, ``probe``."""
    head = bytearray(512)
    fields = ((0, b"probe"), (100, b"0000755\0"), (124, b"00000000000\0"), (136, b"00000000000\0"))
    for offset, value in (*fields, (148, b" " * 8), (156, b"5"), (257, b"ustar\x0000")):
        head[offset : offset + len(value)] = value
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + bytes(1024)
