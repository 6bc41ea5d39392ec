"""The layer tar of an upper directory or of a tree, in slow and obvious Python: what ``lfs_diff_read`` must give.

Everything is read by path and held in memory. The rules are those of ``csrc/diff_archive.c`` and ``csrc/diff_tar.c``.
"""

import os
import stat
from dataclasses import dataclass, field

__all__ = ["archive"]

BLOCK = 512


@dataclass
class _Writer:
    own: bytes | None
    sparse_min: int
    clamp: int | None
    out: bytearray = field(default_factory=bytearray)
    links: dict[tuple[int, int], bytes] = field(default_factory=dict)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def _octal(value: int, width: int) -> bytes:
    text = b"%0*o" % (width - 1, value)
    return (text if len(text) < width else b"0" * (width - 1)) + b"\0"


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """(prefix, name) as the two fields of a header, or None if they cannot hold it."""
    if len(name) <= 100:
        return b"", name
    slash = name[:-1].rfind(b"/", 0, 156)
    if slash > 0 and len(name) - slash - 1 <= 100:
        return name[:slash], name[slash + 1 :]
    return None


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    size = len(body)
    while len(b"%d" % size) + len(body) != size:
        size += 1
    return b"%d" % size + body


def _time(ns: int) -> bytes:
    sign, ns = (b"-", -ns) if ns < 0 else (b"", ns)
    text = b"%d.%09d" % divmod(ns, 10**9)
    return sign + text.rstrip(b"0").rstrip(b".")


def _header(type: bytes, name: bytes, prefix: bytes, mode: int, uid: int, gid: int, size: int, mtime: int,
            link: bytes = b"", rdev: int | None = None) -> bytes:  # fmt: skip
    device = b"\0" * 16 if rdev is None else _octal(os.major(rdev), 8) + _octal(os.minor(rdev), 8)
    head = name[:100].ljust(100, b"\0") + _octal(mode, 8) + _octal(uid, 8) + _octal(gid, 8)
    head += _octal(size, 12) + _octal(max(mtime, 0), 12)
    tail = type + link[:100].ljust(100, b"\0") + b"ustar\x0000" + bytes(64) + device + prefix.ljust(155, b"\0")
    tail = tail.ljust(BLOCK - len(head) - 8, b"\0")
    checksum = b"%06o\0 " % (sum(head) + sum(tail) + 8 * ord(" "))
    return head + checksum + tail


def _xattrs(path: bytes, own: bytes | None) -> tuple[list[tuple[bytes, bytes]], dict[bytes, bytes]]:
    kept, marks = [], {}
    for name in map(os.fsencode, os.listxattr(path, follow_symlinks=False)):
        value = os.getxattr(path, name, follow_symlinks=False)
        if own is None or not name.startswith(own):
            kept.append((name, value))
        elif (rest := name[len(own) :]).startswith(b"overlay.") and rest != b"overlay.":
            kept.append((own + rest[len(b"overlay.") :], value))
        else:
            marks[rest] = value
    return sorted(kept), marks


def _segments(fd: int, size: int) -> list[tuple[int, int]]:
    found, at = [], 0
    while at < size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            data = size
        if data >= size:
            return [*found, (size, 0)]
        at = min(os.lseek(fd, data, os.SEEK_HOLE), size)
        found.append((data, at - data))
    return found


def _member(w: _Writer, type: bytes, name: bytes, st: os.stat_result | None, xattrs: list[tuple[bytes, bytes]],
            link: bytes = b"", content: bytes = b"", sparse: int | None = None) -> None:  # fmt: skip
    mode, uid, gid, ns = (0o600, 0, 0, 0) if st is None else (st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_mtime_ns)
    if w.clamp is not None and ns > w.clamp * 10**9:
        ns = w.clamp * 10**9
    pax = b""
    fields = _split(name)
    if sparse is not None:
        fields = b"", b"GNUSparseFile.0/" + name.rsplit(b"/", 1)[-1]
    elif fields is None:
        fields = b"", name
        pax += _record(b"path", name)
    if len(link) > 100:
        pax += _record(b"linkpath", link)
    pax += _record(b"size", b"%d" % len(content)) if len(content) >= 1 << 33 else b""
    pax += _record(b"uid", b"%d" % uid) if uid >= 1 << 21 else b""
    pax += _record(b"gid", b"%d" % gid) if gid >= 1 << 21 else b""
    if ns % 10**9 or not 0 <= ns // 10**9 < 1 << 33:
        pax += _record(b"mtime", _time(ns))
    if sparse is not None:
        pax += _record(b"GNU.sparse.major", b"1") + _record(b"GNU.sparse.minor", b"0")
        pax += _record(b"GNU.sparse.name", name) + _record(b"GNU.sparse.realsize", b"%d" % sparse)
    for key, value in xattrs:
        pax += _record(b"SCHILY.xattr." + key, value)
    if pax:
        w.out += _header(b"x", b"././@PaxHeader", b"", 0o644, 0, 0, len(pax), 0) + _pad(pax)
    rdev = st.st_rdev if st is not None and type in b"34" else None
    w.out += _header(type, fields[1], fields[0], mode, uid, gid, len(content), ns // 10**9, link, rdev)
    w.out += _pad(content)


def _content(w: _Writer, path: bytes, st: os.stat_result) -> tuple[bytes, int | None]:
    """What of a file is written, and its size if it is written as a sparse one."""
    with open(path, "rb") as f:
        data = f.read()
        if not w.sparse_min or len(data) < w.sparse_min or st.st_blocks * 512 >= len(data):
            return data, None
        segments = _segments(f.fileno(), len(data))
    if segments == [(0, len(data))]:
        return data, None
    numbers = [len(segments), *(n for segment in segments for n in segment)]
    text = b"".join(b"%d\n" % n for n in numbers)
    return _pad(text) + b"".join(data[at : at + n] for at, n in segments), len(data)


def _is_whiteout(w: _Writer, path: bytes) -> bool:
    st = os.lstat(path)
    return w.own is not None and stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def _file(w: _Writer, path: bytes, name: bytes) -> None:
    st = os.lstat(path)
    xattrs, marks = _xattrs(path, w.own)
    if stat.S_ISSOCK(st.st_mode):
        return
    if stat.S_ISREG(st.st_mode) and st.st_size == 0 and b"whiteout" in marks:
        _whiteout(w, name)
        return
    if st.st_nlink > 1:
        first = w.links.setdefault((st.st_dev, st.st_ino), name)
        if first != name:
            _member(w, b"1", name, st, xattrs, link=first)
            return
    if stat.S_ISLNK(st.st_mode):
        _member(w, b"2", name, st, xattrs, link=os.readlink(path))
    elif stat.S_ISREG(st.st_mode):
        content, sparse = _content(w, path, st)
        _member(w, b"0", name, st, xattrs, content=content, sparse=sparse)
    else:
        types = {stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFIFO: b"6"}
        _member(w, types[stat.S_IFMT(st.st_mode)], name, st, xattrs)


def _whiteout(w: _Writer, name: bytes) -> None:
    parent, slash, base = name.rpartition(b"/")
    _member(w, b"0", parent + slash + b".wh." + base, None, [])


def _directory(w: _Writer, path: bytes, name: bytes) -> None:
    xattrs, marks = _xattrs(path, w.own)
    _member(w, b"5", name + b"/" if name else b"./", os.lstat(path), xattrs)
    below = name + b"/" if name else b""
    if marks.get(b"opaque") == b"y":
        _member(w, b"0", below + b".wh..wh..opq", None, [])
    names = sorted(os.listdir(path))
    gone = [n for n in names if _is_whiteout(w, os.path.join(path, n))]
    for n in gone:
        _whiteout(w, below + n)
    for n in names:
        child = os.path.join(path, n)
        if n in gone:
            continue
        if stat.S_ISDIR(os.lstat(child).st_mode):
            _directory(w, child, below + n)
        else:
            _file(w, child, below + n)


def archive(path: str | bytes | os.PathLike[str], *, tree: bool = False, userxattr: bool = False,
            sparse_min: int = 1 << 20, clamp_mtime: int | None = None) -> bytes:  # fmt: skip
    """The whole archive of the upper directory ``path``; with ``tree`` of a tree that has no marks."""
    own = None if tree else b"user.overlay." if userxattr else b"trusted.overlay."
    w = _Writer(own, sparse_min, clamp_mtime)
    _directory(w, os.fsencode(path), b"")
    return bytes(w.out) + bytes(2 * BLOCK)
