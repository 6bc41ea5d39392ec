"""Writes the seeds of the fuzzers: small archives of every kind that the tests know. seeds.py DIRECTORY"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
import tarbuild as t

SEGMENTS = [(0, b"a" * 512), (8192, b"b" * 1024), (100_000, b"c" * 700)]
SEEDS = {
    "plain": t.directory("d") + t.file("d/f", b"hello") + t.symlink("l", "d/f") + t.hardlink("h", "d/f"),
    "types": t.device("c", "c", 5, 1) + t.device("b", "b", 8, 65537) + t.fifo("p"),
    "replace": t.file("d/s/x", b"1") + t.file("d/y", b"2") + t.file("d", b"f") + t.directory("d") + t.file("d/x"),
    "links": t.directory("r/s") + t.symlink("o", "r") + t.symlink("t", "/o/s/../..") + t.file("t/g", b"2"),
    "marks": t.whiteout("a") + t.whiteout("d/b") + t.opaque("d") + t.directory("d") + t.file(".wh..wh.aufs"),
    "xattrs": t.file("f", b"x", xattrs={"user.b": b"\0=\n", "trusted.t": b"1" * 99}, mtime_ns=-5)
    + t.file("g", b"y", xattrs={"user.b": b"\0=\n", "trusted.t": b"1" * 99}),
    "acl": t.member("f", b"x", records={"SCHILY.acl.access": "user::rw-,user:5:rw-,group::r--,mask::rw-,other::---"}),
    "pax": t.pax({"uid": "7"}, type="g") + t.pax({"path": "n" * 200, "size": "3"}) + t.header("s") + t.pad(b"abc"),
    "long": t.gnu_long("d/" * 60 + "n") + t.file("s", b"x", form="gnu") + t.gnu_long("t" * 300, type="K")
    + t.symlink("l", "s", form="gnu"),
    "old": t.member("old/", type=b"\0", form="v7") + t.file("old/x", b"1", type=b"\0", form="v7"),
    "numbers": t.file("f", b"x", uid=t.number(3_000_000, 8), mtime=-5, form="gnu"),
    "zeros": t.file("m", bytes(131072) + b"x" * 65536) + t.file("k", b"x" * 5000),
    "body": t.file("a", b"b" * 600) + t.hardlink("b", "a", b"b" * 600) + t.file("c", b"x"),
    "s10": t.pax_sparse_1_0("s", 200_000, SEGMENTS) + t.file("a", b"x"),
    "s01": t.pax_sparse_0_1("s", 200_000, SEGMENTS) + t.file("a", b"x"),
    "s00": t.pax_sparse_0_0("s", 200_000, SEGMENTS) + t.file("a", b"x"),
    "sgnu": t.gnu_sparse("s", 1 << 20, [(i * 16384, b"x" * 20) for i in range(30)]) + t.file("a", b"x"),
    "many": b"".join(t.file(f"f{i:04}", b"") for i in range(100)),
}  # fmt: skip


def main(directory: Path) -> None:
    """Write each seed to a file of its name: two bytes of choices, then the archive."""
    directory.mkdir(parents=True, exist_ok=True)
    for i, (name, members) in enumerate(SEEDS.items()):
        (directory / name).write_bytes(bytes([i, 17 * i % 256]) + t.archive(members, record_blocks=1))


main(Path(sys.argv[1]))
