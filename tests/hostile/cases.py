"""The hostile archives, made by code, each with what must become of it.

A case is (name, archive bytes, outcome): "refused" (the input is wrong: IntegrityError), "limit" (it passes a
stated limit: InvalidInputError), or the names of the layer that comes of it, in which case it must also come
back bit for bit. Nothing may ever appear outside the layer. Outcomes hold for both layer formats.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import tarbuild as t

__all__ = ["LIMITS", "Case", "cases"]

REFUSED, LIMIT = "refused", "limit"
LIMITS = {"max_bytes": 64 << 20, "max_entries": 5000, "max_metadata": 8 << 20}
"""What the cases are unpacked with."""


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    outcome: str | frozenset[str]


def _case(name: str, members: bytes, outcome: str | set[str]) -> Case:
    return Case(name, t.archive(members), outcome if isinstance(outcome, str) else frozenset(outcome))


def path_escapes() -> Iterator[Case]:
    for i, path in enumerate(
        ["../x", "a/../x", "a/../../x", "..", "../", "./..", "/..", "/../x", "a/..", "a/b/../../../x", "x/./../y"]
    ):
        yield _case(f"dotdot-file-{i}", t.file(path, b"x"), REFUSED)
        yield _case(f"dotdot-dir-{i}", t.directory(path), REFUSED)
        yield _case(f"dotdot-link-{i}", t.symlink(path, "x"), REFUSED)
        yield _case(f"dotdot-hardlink-{i}", t.file("f", b"x") + t.hardlink("h", path), REFUSED)
    yield _case("dotdot-pax", t.member("x", b"x", records={"path": "../x"}), REFUSED)
    yield _case("dotdot-gnu-long", t.gnu_long("../x") + t.file("x", b"x"), REFUSED)
    yield _case("dotdot-prefix", t.file("x", b"x", prefix=".."), REFUSED)
    yield _case("dotdot-sparse-name", t.pax_sparse_1_0("../x", 10, [(0, b"x")]), REFUSED)
    yield _case("dotdot-whiteout", t.file("a/../.wh.x"), REFUSED)
    yield _case("absolute", t.file("/etc/passwd", b"x"), {"etc", "etc/passwd"})
    yield _case("absolute-slashes", t.file("////x", b"x"), {"x"})
    yield _case("three-dots-is-a-name", t.file(".../x", b"x"), {"...", ".../x"})
    yield _case("backslash-is-a-name", t.file("..\\x", b"x"), {"..\\x"})
    yield _case("empty-path", t.file("", b"x"), REFUSED)
    yield _case("root-as-file", t.file("./", b"") + t.file(".", b"x"), REFUSED)
    yield _case("root-as-link", t.symlink(".", "/etc") + t.file("passwd", b"x"), REFUSED)
    yield _case("root-as-link-slash", t.symlink("/", "/etc"), REFUSED)
    yield _case("root-as-device", t.device("./"), REFUSED)
    yield _case("root-as-hardlink", t.file("f", b"x") + t.hardlink(".", "f"), REFUSED)


def link_escapes() -> Iterator[Case]:
    yield _case("through-absolute-link", t.symlink("l", "/etc") + t.file("l/x", b"x"), REFUSED)
    yield _case("through-dotdot-link", t.symlink("l", "../../etc") + t.file("l/x", b"x"), REFUSED)
    yield _case(
        "absolute-link-inside", t.directory("etc") + t.symlink("l", "/etc") + t.file("l/x"), {"etc", "l", "etc/x"}
    )
    yield _case(
        "dotdot-link-stops-at-root",
        t.directory("etc") + t.symlink("a", "../../../etc") + t.file("a/x", b"x"),
        {"etc", "a", "etc/x"},
    )
    yield _case("file-over-link", t.symlink("l", "/etc/passwd") + t.file("l", b"x"), {"l"})
    yield _case("dir-over-link", t.symlink("l", "/etc") + t.directory("l") + t.file("l/x", b"x"), {"l", "l/x"})
    yield _case("link-over-dir", t.directory("d") + t.symlink("d", "/etc") + t.file("d/x", b"x"), REFUSED)
    yield _case("link-loop", t.symlink("a", "b") + t.symlink("b", "a") + t.file("a/x", b"x"), REFUSED)
    yield _case("link-to-itself", t.symlink("a", "a") + t.file("a/x", b"x"), REFUSED)
    yield _case("link-to-itself-below", t.symlink("a", "a/b") + t.file("a/x", b"x"), REFUSED)
    chain = t.directory("d") + b"".join(t.symlink(f"l{i}", f"l{i + 1}" if i < 40 else "d") for i in range(41))
    yield _case("41-links", chain + t.file("l0/x", b"x"), REFUSED)
    yield _case("40-links", chain + t.file("l1/x", b"x"), {"d", "d/x"} | {f"l{i}" for i in range(41)})
    yield _case("link-empty", t.symlink("l", ""), REFUSED)
    yield _case("link-4096", t.symlink("l", "x" * 4096), REFUSED)
    yield _case("link-4095", t.symlink("l", "x" * 4095), {"l"})
    yield _case("link-70000", t.symlink("l", "x" * 70_000), REFUSED)
    yield _case("link-anywhere-is-text", t.symlink("l", "/../../etc/shadow"), {"l"})
    yield _case("go-up", t.symlink("i/up", "..") + t.symlink("i/up/e", "../v") + t.file("e/x", b"x"), REFUSED)
    yield _case("long-link-names", t.symlink("l", ("y" * 255 + "/") * 15) + t.file("l/x", b"x"), REFUSED)
    yield _case("hardlink-nowhere", t.hardlink("h", "nothing"), REFUSED)
    yield _case("hardlink-absolute", t.hardlink("h", "/etc/passwd"), REFUSED)
    yield _case("hardlink-through-link", t.symlink("l", "/etc") + t.hardlink("h", "l/passwd"), REFUSED)
    yield _case("hardlink-to-dir", t.directory("d") + t.hardlink("h", "d"), REFUSED)
    yield _case("hardlink-to-root", t.hardlink("h", "."), REFUSED)
    yield _case("hardlink-to-nothing", t.hardlink("h", ""), REFUSED)
    yield _case("hardlink-to-whiteout", t.whiteout("w") + t.hardlink("h", "w"), REFUSED)
    yield _case("hardlink-to-itself", t.hardlink("h", "h"), REFUSED)
    yield _case("hardlink-below-itself", t.file("d/f", b"x") + t.hardlink("d", "d/f"), REFUSED)
    yield _case("hardlink-to-later", t.hardlink("h", "f") + t.file("f", b"x"), REFUSED)
    yield _case("hardlink-of-link", t.symlink("l", "/etc/passwd") + t.hardlink("h", "l"), {"l", "h"})
    yield _case("parent-is-file", t.file("f", b"x") + t.file("f/x", b"x"), REFUSED)
    yield _case("parent-is-device", t.device("f") + t.file("f/x", b"x"), REFUSED)
    yield _case("parent-is-link-to-file", t.file("f", b"x") + t.symlink("l", "f") + t.file("l/x"), REFUSED)


def whiteouts() -> Iterator[Case]:
    yield _case("wh-bare", t.file(".wh."), REFUSED)
    yield _case("wh-dot", t.file(".wh.."), REFUSED)
    yield _case("wh-dotdot", t.file(".wh..."), REFUSED)
    yield _case("wh-bare-below", t.file("a/.wh."), REFUSED)
    yield _case("wh-three-dots", t.file(".wh...."), {"..."})
    yield _case("wh-below", t.file(".wh.a/b", b"x"), REFUSED)
    yield _case("wh-link-below", t.symlink(".wh.a", "/etc") + t.file(".wh.a/b", b"x"), REFUSED)
    yield _case("wh-through-link", t.symlink("l", "/etc") + t.whiteout("l/passwd"), REFUSED)
    yield _case("opq-through-link", t.symlink("l", "/etc") + t.opaque("l"), REFUSED)
    yield _case("opq-below-file", t.file("f", b"x") + t.opaque("f"), REFUSED)
    yield _case("opq-twice", t.opaque("d") + t.opaque("d"), {"d"})
    yield _case("wh-with-content", t.file(".wh.a", b"content"), {"a"})
    yield _case("wh-of-wh", t.file(".wh..wh.a"), set())
    yield _case("wh-hardlink", t.hardlink(".wh.a", "nothing"), {"a"})
    yield _case("wh-device", t.device(".wh.a", "c", 0, 0), {"a"})
    yield _case("wh-then-below", t.whiteout("a") + t.file("a/x", b"x"), {"a", "a/x"})
    yield _case("wh-long", t.file(".wh." + "n" * 251), {"n" * 251})
    yield _case("wh-255", t.file(".wh." + "n" * 255), {"n" * 255})
    yield _case("wh-256", t.file(".wh." + "n" * 256), REFUSED)
    yield _case("device-0-0", t.device("w", "c", 0, 0), REFUSED)
    yield _case("block-0-0-is-none", t.device("w", "b", 0, 0), {"w"})
    for name in (
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "user.overlay.metacopy",
        "trusted.overlay.whiteout",
    ):
        yield _case(f"xattr-{name}", t.directory("d", xattrs={name: b"y"}), {"d"})
    yield _case("aufs-plnk-link", t.directory(".wh..wh.plnk") + t.hardlink("h", ".wh..wh.plnk/1"), REFUSED)


def numbers() -> Iterator[Case]:
    for field in ("size", "mode", "uid", "gid", "mtime"):
        yield _case(f"letters-in-{field}", t.header("f", **{field: b"0x12"}), REFUSED)
        yield _case(f"nines-in-{field}", t.header("f", **{field: b"999"}), REFUSED)
    yield _case("size-negative", t.header("f", size=-512), REFUSED)
    yield _case("size-huge", t.header("f", size=t.number(2**62, 12)), LIMIT)
    yield _case("size-2^63", t.header("f", size=b"\x80\0\0\0\x80" + b"\0" * 7), REFUSED)
    yield _case("size-2^95", t.header("f", size=b"\xbf" + b"\xff" * 11), REFUSED)
    yield _case("size-dir-negative", t.header("d/", type=b"5", size=-1), REFUSED)
    yield _case("uid-negative", t.file("f", uid=-1), REFUSED)
    yield _case("uid-2^32-1", t.file("f", uid=2**32 - 1), REFUSED)
    yield _case("uid-2^40", t.file("f", uid=t.number(2**40, 8)), REFUSED)
    yield _case("pax-uid-negative", t.member("f", records={"uid": "-1"}), REFUSED)
    yield _case("pax-uid-huge", t.member("f", records={"uid": "4294967296"}), REFUSED)
    yield _case("pax-uid-wraps", t.member("f", records={"uid": "18446744073709551616"}), REFUSED)
    yield _case("pax-size-wraps", t.member("f", records={"size": "18446744073709551616"}), REFUSED)
    yield _case("pax-size-negative", t.member("f", records={"size": "-1"}), REFUSED)
    yield _case("pax-size-hex", t.member("f", records={"size": "0x10"}), REFUSED)
    yield _case("pax-size-over-limit", t.member("f", b"x", records={"size": str(2**40)}), LIMIT)
    yield _case("pax-mtime-text", t.member("f", records={"mtime": "now"}), REFUSED)
    yield _case("pax-mtime-dots", t.member("f", records={"mtime": "1.2.3"}), REFUSED)
    yield _case("pax-mtime-huge", t.member("f", records={"mtime": "9" * 30}), REFUSED)
    yield _case("pax-mtime-only-dot", t.member("f", records={"mtime": "."}), REFUSED)
    yield _case("pax-mtime-only-minus", t.member("f", records={"mtime": "-"}), REFUSED)
    yield _case("pax-mtime-many-digits", t.member("f", records={"mtime": "1." + "9" * 5000}), {"f"})
    yield _case("device-major-huge", t.device("d", "c", 4096, 0), REFUSED)
    yield _case("device-minor-huge", t.device("d", "c", 1, 1048576), REFUSED)
    yield _case("device-negative", t.device("d", "b", -1, 0), REFUSED)
    yield _case("checksum-wrong", t.header("f", checksum=1), REFUSED)
    yield _case("checksum-text", t.header("f", checksum=b"abc"), REFUSED)
    yield _case("multi-volume", t.member("f", b"x", type=b"M"), REFUSED)


def pax_abuse() -> Iterator[Case]:
    yield _case("pax-4gib-record", t.pax(b"4294967296 path=x\n") + t.file("f"), REFUSED)
    yield _case("pax-record-past-end", t.pax(b"30 path=x\n") + t.file("f"), REFUSED)
    yield _case("pax-record-zero", t.pax(b"0 path=x\n") + t.file("f"), REFUSED)
    yield _case("pax-record-short", t.pax(b"3 path=x\n") + t.file("f"), REFUSED)
    yield _case("pax-record-negative", t.pax(b"-9 path=x\n") + t.file("f"), REFUSED)
    yield _case("pax-record-no-number", t.pax(b" path=x\n") + t.file("f"), REFUSED)
    yield _case("pax-record-no-equals", t.pax(b"8 pathx\n") + t.file("f"), REFUSED)
    yield _case("pax-record-no-key", t.pax(b"5 =x\n") + t.file("f"), REFUSED)
    yield _case("pax-record-no-newline", t.pax(b"9 path=xx") + t.file("f"), REFUSED)
    yield _case("pax-record-number-wraps", t.pax(b"18446744073709551626 path=x\n") + t.file("f"), REFUSED)
    yield _case("pax-nuls-behind", t.pax(t.record("path", "x") + b"\0" * 9) + t.file("f"), REFUSED)
    yield _case("pax-header-4gib", t.header("p", type=b"x", size=t.number(2**32, 12)), LIMIT)
    yield _case("pax-header-negative", t.header("p", type=b"x", size=-1), REFUSED)
    yield _case("global-4gib", t.header("p", type=b"g", size=t.number(2**32, 12)), LIMIT)
    yield _case("global-grows", t.pax({"comment": "x" * 40_000}, type="g") * 2 + t.file("f"), LIMIT)
    yield _case("long-name-4gib", t.header("l", type=b"L", size=t.number(2**32, 12)), LIMIT)
    yield _case("long-name-70000", t.gnu_long("n" * 70_000) + t.file("f"), REFUSED)
    yield _case("long-name-empty", t.gnu_long("") + t.file("f", b"x"), REFUSED)
    yield _case("long-name-unterminated", t.gnu_long("abc", terminated=False) + t.file("f", b"x"), {"abc"})
    yield _case("pax-nul-in-path", t.member("f", records={"path": "a\0b"}), REFUSED)
    yield _case("pax-nul-in-link", t.member("f", type=b"2", records={"linkpath": "a\0b"}), REFUSED)
    yield _case("pax-nul-in-xattr-name", t.member("f", records=[(b"SCHILY.xattr.user.a\0b", "1")]), REFUSED)
    yield _case("pax-xattr-65536", t.file("f", xattrs={"user.a": b"x" * 65536}), REFUSED)
    yield _case("pax-xattr-name-256", t.file("f", xattrs={"user." + "n" * 251: b"x"}), {"f"})
    yield _case("pax-xattrs-300k", t.file("f", xattrs={f"user.{i}": b"x" * 60_000 for i in range(5)}), REFUSED)
    yield _case("pax-xattr-no-name", t.file("f", xattrs={"user.": b"x", "": b"y"}), {"f"})
    yield _case("pax-only-global", t.pax({"path": "everything"}, type="g") + t.file("a", b"1"), {"everything"})
    yield _case("pax-twice", t.pax({"path": "one"}) + t.pax({"path": "two"}) + t.file("a", b"1"), {"two"})
    yield _case("pax-then-long", t.pax({"path": "pax"}) + t.gnu_long("gnu") + t.file("a", b"1"), {"pax"})
    yield _case("pax-acl-garbage", t.member("f", records={"SCHILY.acl.access": "user:::::"}), {"f"})
    yield _case("acl-binary-garbage", t.file("f", xattrs={"system.posix_acl_access": b"\xff" * 20}), {"f"})
    yield _case("acl-default-on-file", t.file("f", xattrs={"system.posix_acl_default": b"\2\0\0\0"}), {"f"})


def sparse_abuse() -> Iterator[Case]:
    one = [(0, b"x" * 512)]
    big = 2**62
    for name, make in (
        ("1.0", t.pax_sparse_1_0),
        ("0.1", t.pax_sparse_0_1),
        ("0.0", t.pax_sparse_0_0),
        ("gnu", t.gnu_sparse),
    ):
        yield _case(f"sparse-{name}-over-limit", make("f", big, one), LIMIT)
        yield _case(f"sparse-{name}-beyond", make("f", 100, one), REFUSED)
        yield _case(f"sparse-{name}-back", make("f", 9000, [(4096, b"x" * 512), (0, b"y" * 512)]), REFUSED)
        yield _case(f"sparse-{name}-overlap", make("f", 9000, [(0, b"x" * 1024), (512, b"y" * 512)]), REFUSED)
        yield _case(f"sparse-{name}-offset-huge", make("f", 9000, [(big, b"x" * 512)]), REFUSED)
        yield _case(f"sparse-{name}-hole-bomb", make("f", 60 << 20, [(60 << 20, b"")]), {"f"})
    text = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "999"}
    for i, body in enumerate(
        [b"", b"x", b"9" * 512, b"2\n0\n", b"1\n0\n-5\n", b"\n\n\n", b"1\n0\n9999999999999999999999\n"]
    ):
        yield _case(f"sparse-map-{i}", t.member("f", t.pad(body) if body else b"", records=text), REFUSED)
    yield _case("sparse-map-announced", t.member("f", t.pad(b"99999999\n"), records=text), LIMIT)
    yield _case("sparse-map-endless", t.member("f", b"4000000\n" + b"0\n0\n" * 2000, records=text), LIMIT)
    yield _case("sparse-2.0", t.member("f", b"x", records=text | {"GNU.sparse.major": "2"}), REFUSED)
    yield _case("sparse-no-size", t.member("f", b"x", records={"GNU.sparse.map": "0,1"}), REFUSED)
    for i, numbers in enumerate(["0", "0,1,", "0,x", ",", "0,1,2", "1,2,3,4,5"]):
        records = {"GNU.sparse.size": "9", "GNU.sparse.map": numbers}
        yield _case(f"sparse-0.1-map-{i}", t.member("f", b"x", records=records), REFUSED)
    lost = [("GNU.sparse.size", "9"), ("GNU.sparse.numbytes", "1")]
    yield _case("sparse-0.0-no-offset", t.member("f", b"x", records=lost), REFUSED)
    half = [("GNU.sparse.size", "9"), ("GNU.sparse.offset", "1")]
    yield _case("sparse-0.0-half", t.member("f", b"x", records=half), REFUSED)
    yield _case(
        "sparse-sum-wrong", t.member("f", b"xy", records={"GNU.sparse.size": "9", "GNU.sparse.map": "0,1"}), REFUSED
    )
    many = t.gnu_sparse("f", 1 << 20, [(i * 512, b"x" * 256) for i in range(1000)])
    yield _case("sparse-gnu-many", many, {"f"})
    yield _case("sparse-dir", t.member("d/", type=b"5", records={"GNU.sparse.map": "0,1"}), {"d"})


def bombs() -> Iterator[Case]:
    yield _case("entries", b"".join(t.header(f"{i}") for i in range(5001)), LIMIT)
    yield _case("bytes-in-one", t.header("f", size=(64 << 20) + 1), LIMIT)
    yield _case("bytes-in-all", t.pax_sparse_1_0("a", 60 << 20, []) + t.pax_sparse_1_0("b", 60 << 20, []), LIMIT)
    yield _case("bytes-replaced", b"".join(t.pax_sparse_1_0("a", 60 << 20, []) for _ in range(2)), LIMIT)
    yield _case("links-9mb", b"".join(t.symlink(f"l{i}", "x" * 4000) for i in range(2200)), LIMIT)
    yield _case("links-replaced-9mb", b"".join(t.symlink("l", "x" * 4000) for i in range(2200)), LIMIT)
    yield _case("links-7mb", b"".join(t.symlink(f"l{i}", "x" * 4000) for i in range(1750)),
        {f"l{i}" for i in range(1750)})  # fmt: skip
    attributes = [{f"SCHILY.xattr.user.{i}": "v" * 3000} for i in range(2900)]
    yield _case("attributes-9mb", b"".join(t.file(f"f{i}", records=a) for i, a in enumerate(attributes)), LIMIT)
    yield _case("implied-6000", b"".join(t.file(f"{i}/" + "a/" * 999 + "f") for i in range(6)), LIMIT)
    yield _case("deep-10^6", t.member("f", b"x", records={"path": "a/" * 10**6 + "f"}), REFUSED)
    yield _case("deep-4097", t.member("f", b"x", records={"path": "a/" * 4097 + "f"}), LIMIT)
    yield _case("deep-by-links", t.directory("/".join("a" * 2000)) + t.symlink("l", "/".join("a" * 2000))
        + t.directory("l/" + "/".join("b" * 2000)) + t.symlink("m", "l/" + "/".join("b" * 2000))
        + t.directory("m/" + "/".join("c" * 2000)), LIMIT)  # fmt: skip
    yield _case("name-256", t.file("n" * 256, b"x"), REFUSED)
    yield _case("name-255", t.file("n" * 255, b"x"), {"n" * 255})
    yield _case("dir-256", t.file("n" * 256 + "/x", b"x"), REFUSED)
    yield _case("replace-1000", b"".join(t.file("f", b"%d" % i) for i in range(1000)), {"f"})
    flip = b"".join(t.directory("d") + t.file("d/x", b"%d" % i) + t.file("d", b"f") for i in range(500))
    yield _case("flip-500", flip, {"d"})
    yield _case("links-2000", t.file("f", b"x") + b"".join(t.hardlink(f"h{i}", "f") for i in range(2000)),
        {"f"} | {f"h{i}" for i in range(2000)})  # fmt: skip
    yield _case("link-chain-2000", t.file("h0", b"x") + b"".join(t.hardlink(f"h{i + 1}", f"h{i}") for i in range(2000)),
        {f"h{i}" for i in range(2001)})  # fmt: skip


def odd_names() -> Iterator[Case]:
    for i, name in enumerate(
        [b"\xff\xfe", b"\x01", b"new\nline", b"a\tb", b"\xc0\xaf", b"~", b"-rf", b"con", b"a:b", b"%s%n"]
    ):
        yield _case(f"name-{i}", t.file(name, b"x"), {name.decode("utf-8", "surrogateescape")})
    yield _case("latin-1-pax", t.member("f", records=[("path", b"caf\xe9")]), {"caf\udce9"})
    yield _case("both-forms", t.file("e\u0301", b"1") + t.file("\u00e9", b"2"), {"e\u0301", "\u00e9"})
    yield _case("case", t.file("A", b"1") + t.file("a", b"2"), {"A", "a"})


def duplicates() -> Iterator[Case]:
    kinds = {
        "file": t.file("p", b"x"),
        "dir": t.directory("p") + t.file("p/in", b"x"),
        "link": t.symlink("p", "/etc"),
        "device": t.device("p"),
        "fifo": t.fifo("p"),
        "whiteout": t.whiteout("p"),
        "hardlink": t.hardlink("p", "other"),
    }
    for a, first in kinds.items():
        for b, second in kinds.items():
            names = {"other", "p"} | ({"p/in"} if b == "dir" or (b == "whiteout" and a == "dir") else set())
            yield _case(f"{a}-then-{b}", t.file("other", b"o") + first + second, names)


def truncated() -> Iterator[Case]:
    """Cut at every place that means something, and one byte to each side of it."""
    whole = (
        t.member("dir/", type=b"5")
        + t.member("f", b"x" * 700, records={"comment": "c" * 600})
        + t.gnu_long("l/" * 300 + "f")
        + t.file("g", b"y", form="gnu")
        + t.pax_sparse_1_0("s", 9000, [(0, b"x" * 512), (4096, b"y" * 100)])
        + t.gnu_sparse("o", 1 << 20, [(i * 1024, b"z" * 256) for i in range(30)])
    )
    content = _content_ends(whole)
    for at in range(0, len(whole), 512):
        for cut in (at - 1, at, at + 1):
            if not 0 <= cut < len(whole):
                continue
            complete = _is_an_end(whole, cut, content)
            yield Case(f"cut-{cut}", whole[:cut], "any" if complete else REFUSED)


def _content_ends(data: bytes) -> list[tuple[int, int]]:
    """(end of content, end of padding) of each member of a sound archive without end blocks."""
    import io
    import tarfile

    found, starts = [(0, 0)], []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for m in archive:
            starts.append((m.offset, m.offset_data, m))
    for i, (_, at, m) in enumerate(starts):
        end = starts[i + 1][0] if i + 1 < len(starts) else len(data)
        size = {"f": 700, "l/" * 300 + "f": 1, "s": 512 + 100, "o": 30 * 256}.get(m.name, 0)
        found.append((at + size, end))
    return found


def _is_an_end(data: bytes, cut: int, ends: list[tuple[int, int]]) -> bool:
    """Whether all members that have begun before the cut have all their content. What lies between two members'
    content are headers: a cut inside of them is one in the middle."""
    if any(end <= cut <= padded for end, padded in ends):
        return True
    # Whole extended headers without their member: GNU tar stops there without a word.
    begun = max(padded for _, padded in ends if padded <= cut)
    kind = data[begun + 156 : begun + 157]
    size = int(data[begun + 124 : begun + 135], 8)
    return kind in b"xL" and begun + 512 + size <= cut <= begun + 512 + (size + 511) // 512 * 512


def cases() -> list[Case]:
    """All of them; names are unique."""
    makers = (
        path_escapes,
        link_escapes,
        whiteouts,
        numbers,
        pax_abuse,
        sparse_abuse,
        bombs,
        odd_names,
        duplicates,
        truncated,
    )
    return [case for make in makers for case in make()]
