"""Members of a layer tar, made from what is known of a file: ustar headers, PAX records where these do not suffice.

The core's own writer walks a directory of the disk; here nothing lies on the disk in the form that the layer has.
"""

import os
import stat

import msgspec

__all__ = ["END", "Member", "header", "padding"]

BLOCK = 512
END = bytes(2 * BLOCK)
_TYPES = {
    stat.S_IFREG: b"0", stat.S_IFLNK: b"2", stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}  # fmt: skip
_NAME, _NUMBER, _SIZE = 100, 0o7777777, 0o77777777777


class Member(msgspec.Struct, eq=False):
    """A file of a layer. ``path`` has no slash at either end; ``mode`` has the type; ``link`` is the target of a
    symbolic link, or with ``hard`` an earlier path."""

    path: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    hard: bool = False
    rdev: int = 0
    xattrs: dict[bytes, bytes] = {}


def padding(size: int) -> bytes:
    """What follows content of ``size`` bytes up to the next block."""
    return bytes(-size % BLOCK)


def header(member: Member) -> bytes:
    """The header blocks of a member; its content is to follow where it is a regular file."""
    is_dir = stat.S_ISDIR(member.mode)
    name = member.path + b"/" if is_dir else member.path
    size = member.size if stat.S_ISREG(member.mode) and not member.hard else 0
    seconds, fraction = divmod(member.mtime_ns, 10**9)
    records: list[bytes] = []
    if len(name) > _NAME:
        records.append(_record(b"path", name))
    if len(member.link) > _NAME:
        records.append(_record(b"linkpath", member.link))
    for key, value, limit in ((b"uid", member.uid, _NUMBER), (b"gid", member.gid, _NUMBER), (b"size", size, _SIZE)):
        if value > limit:
            records.append(_record(key, b"%d" % value))
    if fraction or not 0 <= seconds <= _SIZE:
        records.append(_record(b"mtime", _time(member.mtime_ns)))
    records += [_record(b"SCHILY.xattr." + key, value) for key, value in sorted(member.xattrs.items())]
    kind = b"1" if member.hard else _TYPES[stat.S_IFMT(member.mode)]
    block = _block(
        name[:_NAME], member.mode & 0o7777, member.uid, member.gid, size, seconds, kind, member.link[:_NAME],
        member.rdev,
    )  # fmt: skip
    if not records:
        return block
    if len(records) > 1:
        records.sort(key=_key)
    data = b"".join(records)
    extended = _block(b"PaxHeaders/" + name.rstrip(b"/")[-80:], 0o644, 0, 0, len(data), 0, b"x", b"", 0)
    return extended + data + padding(len(data)) + block


def _block(
    name: bytes, mode: int, uid: int, gid: int, size: int, seconds: int, kind: bytes, link: bytes, rdev: int
) -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        mode,
        uid if uid <= _NUMBER else 0,
        gid if gid <= _NUMBER else 0,
        size if size <= _SIZE else 0,
        seconds if 0 <= seconds <= _SIZE else 0,
    )
    device = b"%07o\0%07o\0" % (os.major(rdev), os.minor(rdev)) if rdev else _NO_DEVICE
    # The checksum counts its own field as blanks; zeros need not be counted.
    total = sum(name) + sum(numbers) + kind[0] + _SUM
    if link or rdev:
        total += sum(link) + sum(device) - sum(_NO_DEVICE)
    return b"".join(
        (name.ljust(_NAME, b"\0"), numbers, b"%06o\0 " % total, kind, link.ljust(_NAME, b"\0"), _MAGIC, device, _TAIL)
    )


_MAGIC = b"ustar\00000" + bytes(64)
_NO_DEVICE = b"0000000\0" * 2
_SUM = sum(_MAGIC) + sum(_NO_DEVICE) + 8 * 32
_TAIL = bytes(167)


def _time(ns: int) -> bytes:
    sign, ns = (b"-", -ns) if ns < 0 else (b"", ns)
    seconds, fraction = divmod(ns, 10**9)
    return sign + (b"%d.%09d" % (seconds, fraction)).rstrip(b"0").rstrip(b".")


def _key(record: bytes) -> bytes:
    return record.partition(b" ")[2]


def _record(key: bytes, value: bytes) -> bytes:
    """A PAX record begins with its own length."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)
