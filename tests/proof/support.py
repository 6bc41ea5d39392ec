"""What the suites of faults need of the process and the machine they run in."""

import ctypes
import importlib
import os
import pkgutil
from pathlib import Path

__all__ = ["import_all", "unmount_below"]

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2


def unmount_below(place: Path) -> int:
    """Unmount all below a directory; how many there were."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mounts = [line.split()[4] for line in lines if line.split()[4].startswith(f"{place}/")]
    for mount in reversed(mounts):
        if _libc.umount2(os.fsencode(mount), _MNT_DETACH):
            raise OSError(ctypes.get_errno(), f"unmount {mount}")
    return len(mounts)


def import_all() -> None:
    """What a command imports, so that not each trial does: they are forked from here."""
    import layerfs

    for module in pkgutil.walk_packages(layerfs.__path__, "layerfs."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
