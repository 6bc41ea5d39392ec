"""Tar archives by hand, record by record, right or wrong in any place. All functions return bytes.

    archive(directory("etc"), file("etc/a", b"x"), symlink("l", "etc"), whiteout("gone"), opaque("etc"))

``header`` makes one 512-byte block; every field may be a number (written in octal, or base-256 where it does
not fit or is negative), or bytes that are put there as they are. ``fields`` overwrites bytes at any offset
before the checksum is made, ``checksum`` replaces it. ``pax`` and ``gnu_long`` make the extended headers that
stand before a member. ``member`` is a header, extended headers for what does not fit (unless ``extend=False``),
and content.
"""

from collections.abc import Iterable, Mapping

__all__ = [
    "BLOCK",
    "archive",
    "device",
    "directory",
    "fifo",
    "file",
    "gnu_long",
    "gnu_sparse",
    "hardlink",
    "header",
    "member",
    "number",
    "opaque",
    "pad",
    "pax",
    "pax_sparse_0_0",
    "pax_sparse_0_1",
    "pax_sparse_1_0",
    "record",
    "symlink",
    "whiteout",
]

BLOCK = 512
_MAGIC = {"ustar": b"ustar\x0000", "gnu": b"ustar  \0", "v7": b"\0" * 8}
Text = str | bytes
Records = Mapping[Text, Text] | Iterable[tuple[Text, Text]]


def _bytes(value: Text) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


def pad(data: bytes) -> bytes:
    """The data filled up with NULs to whole blocks."""
    return data + b"\0" * (-len(data) % BLOCK)


def number(value: int | bytes, width: int) -> bytes:
    """A number field: octal with a NUL at its end, or base-256; bytes as they are, filled with NULs."""
    if isinstance(value, bytes):
        return value[:width].ljust(width, b"\0")
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    whole = value.to_bytes(width, "big", signed=True)
    return bytes([whole[0] | 0x80]) + whole[1:]


def header(
    name: Text = b"",
    *,
    type: Text = b"0",
    size: int | bytes = 0,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    link: Text = b"",
    uname: Text = b"",
    gname: Text = b"",
    major: int | bytes = 0,
    minor: int | bytes = 0,
    prefix: Text = b"",
    form: str = "ustar",
    fields: Mapping[int, bytes] | None = None,
    checksum: int | bytes | None = None,
) -> bytes:
    """One header block. ``form`` is ustar, gnu or v7 (no magic, no device numbers, no prefix)."""
    block = bytearray(BLOCK)

    def put(at: int, value: bytes, width: int) -> None:
        block[at : at + min(len(value), width)] = value[:width]

    put(0, _bytes(name), 100)
    put(100, number(mode, 8), 8)
    put(108, number(uid, 8), 8)
    put(116, number(gid, 8), 8)
    put(124, number(size, 12), 12)
    put(136, number(mtime, 12), 12)
    put(156, _bytes(type), 1)
    put(157, _bytes(link), 100)
    if form != "v7":
        put(257, _MAGIC[form], 8)
        put(265, _bytes(uname), 32)
        put(297, _bytes(gname), 32)
        put(329, number(major, 8), 8)
        put(337, number(minor, 8), 8)
        put(345, _bytes(prefix), 155)
    for at, value in (fields or {}).items():
        put(at, value, BLOCK - at)
    put(148, b" " * 8, 8)
    if checksum is None:
        checksum = b"%06o\0 " % sum(block)
    put(148, number(checksum, 8), 8)
    return bytes(block)


def record(key: Text, value: Text) -> bytes:
    """One PAX record, "length key=value\\n"."""
    body = b" " + _bytes(key) + b"=" + _bytes(value) + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def pax(records: Records | bytes, *, type: Text = b"x", name: Text = b"PaxHeaders/x", **kw: object) -> bytes:
    """An extended header (``type`` x, or g for a global one) of records, or of bytes as they are."""
    if isinstance(records, bytes):
        body = records
    else:
        pairs = records.items() if isinstance(records, Mapping) else records
        body = b"".join(record(k, v) for k, v in pairs)
    return header(name, type=type, **({"size": len(body)} | kw)) + pad(body)  # type: ignore[arg-type]


def gnu_long(value: Text, *, type: Text = b"L", terminated: bool = True) -> bytes:
    """GNU's long name (L) or long link (K) for the next member."""
    body = _bytes(value) + (b"\0" if terminated else b"")
    return header("././@LongLink", type=type, size=len(body), form="gnu") + pad(body)


def member(
    name: Text,
    data: bytes = b"",
    *,
    xattrs: Mapping[str, bytes] | None = None,
    records: Records = (),
    mtime_ns: int | None = None,
    extend: bool = True,
    **kw: object,
) -> bytes:
    """A whole member. Long names and links, ``xattrs``, other ``records`` and ``mtime_ns`` become a PAX
    header; ``size`` may lie about the data."""
    pairs = list(records.items() if isinstance(records, Mapping) else records)
    if extend and len(_bytes(name)) > 100:
        pairs.append(("path", name))
    if extend and len(_bytes(kw.get("link", b""))) > 100:  # type: ignore[arg-type]
        pairs.append(("linkpath", kw["link"]))  # type: ignore[arg-type]
    if mtime_ns is not None:
        seconds, rest = divmod(mtime_ns, 1_000_000_000)
        if seconds < 0 and rest:  # -0.5 is one half before the epoch
            text = f"-{-seconds - 1}.{1_000_000_000 - rest:09d}"
        else:
            text = f"{seconds}.{rest:09d}" if rest else str(seconds)
        pairs.append(("mtime", text))
        kw.setdefault("mtime", max(seconds, 0) if seconds < 8**11 else 0)
    pairs += [(b"SCHILY.xattr." + _bytes(k), v) for k, v in (xattrs or {}).items()]
    extended = pax(pairs) if pairs else b""
    return extended + header(name, **({"size": len(data)} | kw)) + pad(data)  # type: ignore[arg-type]


def file(name: Text, data: bytes = b"", **kw: object) -> bytes:
    """A regular file."""
    return member(name, data, **kw)  # type: ignore[arg-type]


def directory(name: Text, **kw: object) -> bytes:
    """A directory, mode 0755."""
    return member(name, **({"type": b"5", "mode": 0o755} | kw))  # type: ignore[arg-type]


def symlink(name: Text, target: Text, **kw: object) -> bytes:
    """A symbolic link."""
    return member(name, **({"type": b"2", "mode": 0o777, "link": target} | kw))  # type: ignore[arg-type]


def hardlink(name: Text, target: Text, data: bytes = b"", **kw: object) -> bytes:
    """A hard link (with a body, where ``data`` is given)."""
    return member(name, data, **({"type": b"1", "link": target} | kw))  # type: ignore[arg-type]


def device(name: Text, kind: str = "c", major: int = 1, minor: int = 3, **kw: object) -> bytes:
    """A device node, ``kind`` c or b."""
    type_ = b"3" if kind == "c" else b"4"
    return member(name, **({"type": type_, "major": major, "minor": minor} | kw))  # type: ignore[arg-type]


def fifo(name: Text, **kw: object) -> bytes:
    """A named pipe."""
    return member(name, **({"type": b"6"} | kw))  # type: ignore[arg-type]


def _beside(path: Text, name: bytes) -> bytes:
    parent, slash, base = _bytes(path).rpartition(b"/")
    return parent + slash + name.replace(b"*", base)


def whiteout(path: Text, **kw: object) -> bytes:
    """The OCI whiteout of ``path``: an empty file .wh.NAME beside it."""
    return member(_beside(path, b".wh.*"), **kw)  # type: ignore[arg-type]


def opaque(path: Text = b"", **kw: object) -> bytes:
    """The OCI opaque marker in the directory ``path``."""
    return member(_bytes(path).rstrip(b"/") + (b"/" if path else b"") + b".wh..wh..opq", **kw)  # type: ignore[arg-type]


Segments = list[tuple[int, bytes]]


def pax_sparse_1_0(name: Text, size: int, segments: Segments, **kw: object) -> bytes:
    """A sparse file of PAX format 1.0: the map as text in front of the content."""
    numbers = [len(segments)] + [n for at, data in segments for n in (at, len(data))]
    body = pad(b"".join(b"%d\n" % n for n in numbers)) + b"".join(data for _, data in segments)
    records = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", name)]
    records.append(("GNU.sparse.realsize", str(size)))
    return member("GNUSparseFile.0/x", body, records=records, **kw)  # type: ignore[arg-type]


def pax_sparse_0_1(name: Text, size: int, segments: Segments, **kw: object) -> bytes:
    """A sparse file of PAX format 0.1: the map as one record."""
    text = ",".join(f"{at},{len(data)}" for at, data in segments)
    records = [("GNU.sparse.size", str(size)), ("GNU.sparse.numblocks", str(len(segments)))]
    records += [("GNU.sparse.name", name), ("GNU.sparse.map", text)]  # type: ignore[list-item]
    return member("GNUSparseFile.0/x", b"".join(d for _, d in segments), records=records, **kw)  # type: ignore[arg-type]


def pax_sparse_0_0(name: Text, size: int, segments: Segments, **kw: object) -> bytes:
    """A sparse file of PAX format 0.0: the map as pairs of records."""
    records = [("GNU.sparse.size", str(size)), ("GNU.sparse.numblocks", str(len(segments)))]
    for at, data in segments:
        records += [("GNU.sparse.offset", str(at)), ("GNU.sparse.numbytes", str(len(data)))]
    return member(name, b"".join(d for _, d in segments), records=records, **kw)  # type: ignore[arg-type]


def gnu_sparse(name: Text, size: int, segments: Segments, **kw: object) -> bytes:
    """A sparse file of the old GNU format (type S, with extension blocks)."""
    pairs = [number(at, 12) + number(len(data), 12) for at, data in segments]
    fields = {386: b"".join(pairs[:4]), 482: b"\1" if len(pairs) > 4 else b"\0", 483: number(size, 12)}
    content = b"".join(data for _, data in segments)
    options: dict[str, object] = {"type": b"S", "form": "gnu", "size": len(content), "fields": fields}
    out, left = header(name, **(options | kw)), pairs[4:]  # type: ignore[arg-type]
    while left:
        out += b"".join(left[:21]).ljust(504, b"\0") + (b"\1" if left[21:] else b"\0") + b"\0" * 7
        left = left[21:]
    return out + pad(content)


def archive(*members: bytes, end: int = 2, record_blocks: int = 20) -> bytes:
    """The members with ``end`` zero blocks, filled up to whole records (``record_blocks`` 1: not)."""
    data = b"".join(members) + b"\0" * BLOCK * end
    return data + b"\0" * (-len(data) % (BLOCK * record_blocks))
