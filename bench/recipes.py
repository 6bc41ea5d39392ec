"""What the images are made of: Debian, PyPI and npm packages, and a few made to show one thing.

Each recipe writes plain layer tars, base first, into a directory and returns them. A layer over another holds what the
upper tree has more or otherwise than the lower, and the directories above it, as the layers of registries do.
"""

import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

__all__ = ["RECIPES", "delta", "small_files"]

TIME = 1_700_000_000
PIP = ["numpy", "django", "boto3", "cryptography"]
NPM = [
    "express", "next", "webpack", "eslint", "typescript", "react", "react-dom", "@mui/material", "@mui/icons-material"
]  # fmt: skip


def _run(*argv: str | Path, cwd: Path | None = None) -> None:
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(TIME), "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(argv, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(map(str, argv))} failed:\n{done.stdout[:500]}")


def _debian(into: Path, name: str, *include: str) -> Path:
    out = into / f"{name}.tar"
    packages = [f"--include={','.join(include)}"] if include else []
    _run("mmdebstrap", "--quiet", "--variant=minbase", *packages, "bookworm", out)
    return out


@dataclass(frozen=True)
class _Mark:
    """What makes an entry of a tar what it is, times aside for directories."""

    type: bytes
    mode: int
    owner: tuple[int, int]
    time: float | None
    target: str
    content: bytes


def _marks(archive: tarfile.TarFile) -> dict[str, _Mark]:
    found: dict[str, _Mark] = {}
    for member in archive:
        content = archive.extractfile(member) if member.isreg() else None
        digest = hashlib.sha256(content.read()).digest() if content else b""
        time = None if member.isdir() else float(member.mtime)
        target = member.linkname.removeprefix("./") if member.islnk() else member.linkname
        found[_name(member)] = _Mark(member.type, member.mode, (member.uid, member.gid), time, target, digest)
    return found


def _name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./").strip("/")


def delta(lower: Path, upper: Path, out: Path) -> Path:
    """Write the layer that makes the tree of the tar ``upper`` of that of ``lower``; return ``out``."""
    with tarfile.open(lower) as before, tarfile.open(upper) as after, tarfile.open(out, "w") as layer:
        old, new = _marks(before), _marks(after)
        wanted = {name for name, mark in new.items() if old.get(name) != mark}
        # A hard link needs its target in the same layer.
        wanted |= {new[name].target for name in wanted if new[name].type == tarfile.LNKTYPE}
        gone = [name for name in old if name not in new]
        wanted |= {parent for name in wanted | set(gone) for parent in _parents(name) if parent in new}
        for member in after:
            if _name(member) in wanted:
                layer.addfile(member, after.extractfile(member) if member.isreg() else None)
        for name in gone:
            above, _, last = name.rpartition("/")
            if above in new or not above:
                layer.addfile(_info(f"{above}/.wh.{last}".lstrip("/"), 0))
    return out


def _parents(name: str) -> Iterator[str]:
    while name := name.rpartition("/")[0]:
        yield name


def _info(name: str, size: int, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, TIME, mode
    return info


def _tree(root: Path, at: str, out: Path) -> Path:
    """The tar of a directory, as root's, found below ``at``, with the directories above it."""

    def owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid, info.gid, info.uname, info.gname, info.mtime = 0, 0, "", "", int(info.mtime)
        return info

    with tarfile.open(out, "w") as layer:
        for parent in reversed(list(_parents(at))):
            directory = _info(parent, 0, 0o755)
            directory.type = tarfile.DIRTYPE
            layer.addfile(directory)
        layer.add(root, at, filter=owned)
    shutil.rmtree(root)
    return out


def python(into: Path) -> list[Path]:
    """Debian, nginx, curl and pip, each a layer, and an application's packages: as web services are built."""
    steps: list[tuple[str, ...]] = [(), ("nginx",), ("nginx", "curl"), ("nginx", "curl", "python3-pip")]
    trees = [_debian(into, f"tree{n}", *include) for n, include in enumerate(steps)]
    layers = [trees[0]] + [delta(a, b, into / f"layer{n}.tar") for n, (a, b) in enumerate(pairwise(trees))]
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--target", into / "packages", *PIP)
    return [*layers, _tree(into / "packages", "opt/venv", into / "packages.tar")]


def node(into: Path) -> list[Path]:
    """A Debian system and the packages of a web application: more than 50,000 small files."""
    base = _debian(into, "base")
    (into / "app").mkdir()
    _run("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *NPM, cwd=into / "app")
    return [base, _tree(into / "app", "srv/app", into / "app.tar")]


def small_files(out: Path, count: int, size: int = 1024, per_directory: int = 100) -> Path:
    """A layer of ``count`` files of ``size`` bytes each, a hundred in a directory."""
    noise = random.Random(7)
    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as layer:
        for first in range(0, count, per_directory):
            above = f"data/{first // 10_000:03d}"
            for name in ([f"data/{first // 10_000:03d}"] if first % 10_000 == 0 else []) + [f"{above}/{first:07d}"]:
                directory = _info(name, 0, 0o755)
                directory.type = tarfile.DIRTYPE
                layer.addfile(directory)
            for n in range(first, min(first + per_directory, count)):
                layer.addfile(_info(f"{above}/{first:07d}/{n:07d}", size), io.BytesIO(noise.randbytes(size)))
    return out


def small(into: Path) -> list[Path]:
    """100,000 files of 1 KiB in one layer."""
    return [small_files(into / "layer.tar", 100_000)]


def large(into: Path) -> list[Path]:
    """One layer of 2 GiB: four files, of what a Debian system consists of, no two blocks alike."""
    base = _debian(into, "base")
    content = base.read_bytes()[: 128 << 20]
    with tarfile.open(into / "large.tar", "w", format=tarfile.GNU_FORMAT) as layer:
        for n in range(4):
            parts = [bytes(b ^ (n * 4 + i + 1) for b in range(256)) for i in range(4)]
            layer.addfile(_info(f"large{n}", 512 << 20), _Parts([content.translate(part) for part in parts]))
    base.unlink()
    return [into / "large.tar"]


class _Parts(io.RawIOBase):
    """Several buffers read as one file."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = [memoryview(part) for part in parts]

    def read(self, size: int = -1) -> bytes:
        """The next bytes, of one buffer."""
        while self._parts and not self._parts[0]:
            self._parts.pop(0)
        if not self._parts:
            return b""
        out, self._parts[0] = bytes(self._parts[0][:size]), self._parts[0][size:]
        return out


def _chain(into: Path, base: Path, count: int) -> list[Path]:
    """``count`` layers over a base: each adds twenty files, changes one, and deletes one of the layer before."""
    layers = [base]
    for n in range(1, count):
        with tarfile.open(into / f"step{n:03d}.tar", "w", format=tarfile.GNU_FORMAT) as layer:
            files = {f"srv/step{n}/file{i}": os.urandom(4096) for i in range(20)} | {"srv/changed": str(n).encode()}
            if n > 1:
                files[f"srv/step{n - 1}/.wh.file0"] = b""
            for name in ["srv", f"srv/step{n}"] + ([f"srv/step{n - 1}"] if n > 1 else []):
                directory = _info(name, 0, 0o755)
                directory.type = tarfile.DIRTYPE
                layer.addfile(directory)
            for name, data in sorted(files.items()):
                layer.addfile(_info(name, len(data)), io.BytesIO(data))
        layers.append(into / f"step{n:03d}.tar")
    return layers


def layers(into: Path) -> list[Path]:
    """40 layers: a Debian system and 39 small ones over it."""
    return _chain(into, _debian(into, "base"), 40)


def tiny(into: Path) -> list[Path]:
    """A shell and a few files in three layers: what ``--tiny`` measures with, to show that the measuring works."""
    shell = next(Path(p) for p in ("/bin/busybox", "/usr/bin/busybox") if Path(p).exists())
    with tarfile.open(into / "base.tar", "w", format=tarfile.GNU_FORMAT) as layer:
        for name in ("bin", "tmp", "proc", "sys", "dev", "etc", "opt", "opt/venv", "usr", "usr/share", "usr/share/doc"):
            directory = _info(name, 0, 0o755)
            directory.type = tarfile.DIRTYPE
            layer.addfile(directory)
        layer.addfile(_info("bin/busybox", shell.stat().st_size, 0o755), io.BytesIO(shell.read_bytes()))
        for name in ("sh", "true", "cp", "rm", "cat", "dd"):
            link = _info(f"bin/{name}", 0, 0o777)
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            layer.addfile(link)
        for n in range(50):
            layer.addfile(_info(f"opt/venv/file{n}", 700), io.BytesIO(random.Random(n).randbytes(700)))
        layer.addfile(_info("usr/share/doc/readme", 4), io.BytesIO(b"read"))
    return _chain(into, into / "base.tar", 3)


RECIPES: dict[str, Callable[[Path], list[Path]]] = {
    "python": python, "node": node, "small": small, "large": large, "layers": layers, "tiny": tiny
}  # fmt: skip
