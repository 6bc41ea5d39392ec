"""What a file tree is, entry by entry, so that the results of two tools can be compared before they are timed."""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

__all__ = ["differences", "scan"]

Marks = Mapping[str, tuple[object, ...]]
_SHOWN = 5


def scan(root: Path, *, times: bool = True) -> Marks:
    """Path -> what the entry is: type and mode, owner, size, time (s; not of directories), target or device, extended
    attributes, content."""
    found: dict[str, tuple[object, ...]] = {}
    for above, directories, files in os.walk(os.fsencode(root)):
        for name in directories + files:
            path = os.path.join(above, name)
            found[os.fsdecode(os.path.relpath(path, os.fsencode(root)))] = _mark(path, times)
    return found


def _mark(path: bytes, times: bool) -> tuple[object, ...]:
    info = os.lstat(path)
    kind, size, content, target = stat.S_IFMT(info.st_mode), 0, b"", b""
    if stat.S_ISREG(info.st_mode):
        size = info.st_size
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
    elif stat.S_ISLNK(info.st_mode):
        target = os.readlink(path)
    device = info.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
    names = sorted(os.listxattr(path, follow_symlinks=False)) if kind != stat.S_IFLNK else []
    attributes = tuple(
        (n, os.getxattr(path, n)) for n in names if not n.startswith(("trusted.overlay", "user.overlay"))
    )
    time = int(info.st_mtime) if times and kind != stat.S_IFDIR else None
    return (info.st_mode, info.st_uid, info.st_gid, size, time, target, device, attributes, content)


def differences(a: Marks, b: Marks) -> list[str]:
    """The first paths that differ, each with how; empty when the trees are equal."""
    out = []
    for path in sorted(a.keys() | b.keys()):
        if a.get(path) != b.get(path):
            out.append(f"{path}: {_show(a.get(path))} and {_show(b.get(path))}")
            if len(out) == _SHOWN:
                break
    return out


def _show(mark: tuple[object, ...] | None) -> str:
    return "absent" if mark is None else f"{oct(int(str(mark[0])))} {mark[1]}:{mark[2]} {mark[3]} bytes {mark[4]}"
