"""What a layer must look like: tar bytes -> tree, in slow, obvious Python over the standard library's tarfile.

``expected(data)`` gives what ``fstree.capture`` of the unpacked layer must give; ``Refused`` is raised for what
the core must refuse. The rules are those of OCI layers as written in image-spec layer.md, and GNU tar's where
that is silent:

- a member replaces what has its name, but a directory keeps its children under new attributes;
- missing parents are 0755 root:root of time 0; links in the path of a member are followed inside the layer;
- ``.wh.NAME`` makes a 0:0 device NAME; where NAME itself is in the layer, too, a directory becomes opaque and
  anything else simply stands; ``.wh..wh..opq`` makes its directory opaque; other ``.wh..wh.*`` is skipped;
- nothing below an opaque directory needs whiteouts, so there are none;
- any other directory with whiteouts is marked as copied up, which makes overlayfs look for them.
"""

import hashlib
import io
import struct
import tarfile
from dataclasses import dataclass, field

from fstree import Node

__all__ = ["Refused", "expected"]


class Refused(Exception):
    """The archive must not be accepted."""


@dataclass(eq=False)
class Inode:
    type: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    data: bytes = b""
    target: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)
    opaque: bool = False
    children: dict[bytes, "Inode"] = field(default_factory=dict)
    hidden: set[bytes] = field(default_factory=set)  # names for which a whiteout was seen

    @property
    def whiteout(self) -> bool:
        return self.type == "c" and self.rdev == (0, 0)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _components(path: bytes) -> list[bytes]:
    parts = [p for p in path.split(b"/") if p not in (b"", b".")]
    if b".." in parts:
        raise Refused("..")
    if any(len(p) > 255 for p in parts):
        raise Refused("name too long")
    return parts


def _time(member: tarfile.TarInfo) -> int:
    text = member.pax_headers.get("mtime")
    if text is None:
        return int(member.mtime) * 10**9
    sign = -1 if text.startswith("-") else 1
    whole, _, fraction = text.lstrip("-").partition(".")
    digits = int(whole or 0) * 10**18 + int(fraction[:18].ljust(18, "0") or 0)
    return sign * digits // 10**9


_PREFIXES = ("user.", "trusted.", "security.")
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_ACL_TAGS = {"user": (1, 2), "group": (4, 8), "mask": (16, 16), "other": (32, 32)}


def acl_value(text: str) -> bytes:
    """The binary form of an ACL from star's text with numeric ids."""
    entries = []
    for entry in text.replace("\n", ",").split(","):
        if not entry.strip():
            continue
        parts = entry.strip().split(":")
        without, named = _ACL_TAGS[parts[0]]
        perm = sum(bit for bit, c in zip((4, 2, 1), "rwx", strict=True) if c in parts[2])
        if parts[1]:
            entries.append((named, perm, int(parts[3] if len(parts) > 3 else parts[1])))
        else:
            entries.append((without, perm, 0xFFFFFFFF))
    body = b"".join(struct.pack("<HHI", *e) for e in sorted(entries, key=lambda e: (e[0], e[2])))
    return struct.pack("<I", 2) + body


def _xattrs(member: tarfile.TarInfo) -> dict[str, bytes]:
    found = {}
    for key, value in member.pax_headers.items():
        if key.startswith("SCHILY.acl."):
            found[f"system.posix_acl_{key[11:]}"] = acl_value(value)
    for key, value in member.pax_headers.items():
        name = key.removeprefix("SCHILY.xattr.")
        if name == key:
            continue
        known = name.startswith(_PREFIXES) or name in ("system.posix_acl_access", "system.posix_acl_default")
        if known and not name.startswith(_OVERLAY) and name not in _PREFIXES:
            found[name] = _raw(value)
    return found


class _Layer:
    def __init__(self) -> None:
        self.root = Inode("d")

    def directory(self, parts: list[bytes], make: bool) -> Inode | None:
        """The directory that a path leads to, links followed inside the layer."""
        todo = [(p, True) for p in parts]  # name, is it of the path itself
        trail = [self.root]
        links = 0
        while todo:
            name, own = todo.pop(0)
            here = trail[-1]
            if name == b"..":
                trail = trail[:-1] or trail
                continue
            child = here.children.get(name)
            if child is not None and child.type == "d":
                trail.append(child)
            elif child is not None and child.type == "l":
                links += 1
                if links > 40:
                    raise Refused("too many links")
                if child.target.startswith(b"/"):
                    trail = [self.root]
                todo = [(p, False) for p in child.target.split(b"/") if p not in (b"", b".")] + todo
            elif child is not None and not child.whiteout:
                raise Refused("parent is not a directory")
            elif not make:
                return None
            elif not own:
                raise Refused("parent is a dangling link")
            else:
                here.children[name] = Inode("d", opaque=child is not None)
                trail.append(here.children[name])
        return trail[-1]

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if member.type in (b"V", b"N"):  # a volume's label, a list of names
            return
        parts = _components(_raw(member.name))
        if not parts:
            if not member.isdir():
                raise Refused("root is not a directory")
            self.attributes(self.root, member)
            return
        name = parts[-1]
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            if part.startswith(b".wh..wh.") and not (last and part == b".wh..wh..opq"):
                return
            if part.startswith(b".wh.") and not last:
                raise Refused("below a whiteout")
        if name.startswith(b".wh.") and name[4:] in (b"", b".", b".."):
            raise Refused("whiteout of no name")
        if member.issym() and not 0 < len(_raw(member.linkname)) < 4096:
            raise Refused("link target")
        if member.ischr() and (member.devmajor, member.devminor) == (0, 0) and not name.startswith(b".wh."):
            raise Refused("device 0:0")
        parent = self.directory(parts[:-1], True)
        assert parent is not None
        if name == b".wh..wh..opq":
            parent.opaque = True
        elif name.startswith(b".wh."):
            self.whiteout(parent, name[4:])
        elif member.islnk():
            self.hardlink(parent, name, _components(_raw(member.linkname)))
        else:
            self.place(archive, parent, name, member)

    def whiteout(self, parent: Inode, name: bytes) -> None:
        parent.hidden.add(name)
        child = parent.children.get(name)
        if child is None:
            parent.children[name] = Inode("c", mode=0)
        elif child.type == "d":
            child.opaque = True

    def hardlink(self, parent: Inode, name: bytes, target: list[bytes]) -> None:
        where = self.directory(target[:-1], False)
        inode = where.children.get(target[-1]) if where and target else None
        if inode is None or inode.type == "d" or inode.whiteout:
            raise Refused("hard link target")
        there = parent.children.get(name)
        if there is not None and there is not inode and self.below(there, inode):
            raise Refused("hard link below itself")
        parent.children[name] = inode

    def below(self, top: Inode, inode: Inode) -> bool:
        return any(c is inode or self.below(c, inode) for c in top.children.values())

    def place(self, archive: tarfile.TarFile, parent: Inode, name: bytes, member: tarfile.TarInfo) -> None:
        there = parent.children.get(name)
        if member.isdir() and there is not None and there.type == "d":
            self.attributes(there, member)
            return
        inode = Inode("f")
        if member.isdir():
            inode = Inode("d", opaque=name in parent.hidden)
        elif member.issym():
            inode = Inode("l", target=_raw(member.linkname))
        elif member.isdev():
            kind = "p" if member.isfifo() else "c" if member.ischr() else "b"
            inode = Inode(kind, rdev=(0, 0) if kind == "p" else (member.devmajor, member.devminor))
        else:
            f = archive.extractfile(member)
            inode.data = f.read() if f else b""
        self.attributes(inode, member)
        parent.children[name] = inode

    def attributes(self, inode: Inode, member: tarfile.TarInfo) -> None:
        inode.mode = 0o777 if inode.type == "l" else member.mode & 0o7777
        inode.uid, inode.gid, inode.mtime_ns = member.uid, member.gid, _time(member)
        inode.xattrs = _xattrs(member)


def _nodes(root: Inode) -> dict[bytes, Node]:
    paths: dict[int, list[bytes]] = {}
    found: dict[bytes, tuple[Inode, dict[str, bytes]]] = {}

    def walk(path: bytes, inode: Inode, fresh: bool) -> None:
        if inode.whiteout and fresh:
            return
        xattrs = dict(inode.xattrs)
        if inode.opaque:
            xattrs["trusted.overlay.opaque"] = b"y"
        elif not fresh and any(child.whiteout for child in inode.children.values()):
            xattrs["trusted.overlay.origin"] = b""
        found[path] = (inode, xattrs)
        if inode.type != "d":
            paths.setdefault(id(inode), []).append(path)
        for name, child in inode.children.items():
            walk(path + b"/" + name if path else name, child, fresh or inode.opaque)

    walk(b"", root, False)
    nodes = {}
    for path, (inode, xattrs) in found.items():
        group = tuple(sorted(paths.get(id(inode), ())))
        nodes[path] = Node(
            type=inode.type,
            mode=inode.mode,
            uid=inode.uid,
            gid=inode.gid,
            mtime_ns=inode.mtime_ns,
            size=len(inode.data),
            content=hashlib.sha256(inode.data).hexdigest() if inode.type == "f" else "",
            target=inode.target,
            rdev=inode.rdev,
            xattrs=tuple(sorted(xattrs.items())),
            links=group if len(group) > 1 else (),
        )
    return nodes


def expected(data: bytes) -> dict[bytes, Node]:
    """The tree of the layer, as ``fstree.capture`` sees it."""
    layer = _Layer()
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", errorlevel=2) as archive:
        for member in archive:
            layer.add(archive, member)
    return _nodes(layer.root)
