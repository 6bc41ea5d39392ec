"""Inputs of the measurements, made once a run."""

import io
import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def _tar(entries: Iterator[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), 1700000000, 0o644
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture(scope="session")
def many_small() -> bytes:
    """A tar of 50,000 files of 1 KiB in 500 directories."""
    content = random.Random(1).randbytes(1024)
    return _tar((f"usr/share/d{i // 100}/file{i}", content) for i in range(50_000))


@pytest.fixture(scope="session")
def one_large() -> bytes:
    """A tar of one file of 256 MiB."""
    piece = random.Random(2).randbytes(1 << 20)
    return _tar(iter([("large", piece * 256)]))


@pytest.fixture(scope="session")
def mixed() -> bytes:
    """60 MiB of program text and binaries of this machine, as a layer has them."""
    found: list[tuple[str, bytes]] = []
    total = 0
    for path in sorted(Path("/usr/lib/python3").rglob("*")) + sorted(Path("/usr/bin").iterdir()):
        if total > 60 << 20:
            break
        if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
            found.append((str(path).lstrip("/"), path.read_bytes()))
            total += len(found[-1][1])
    return _tar(iter(found))


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """An upper directory of 5,000 files, 20 MiB."""
    content = random.Random(3).randbytes(4096)
    for i in range(5000):
        directory = tmp_path / "upper" / f"d{i // 100}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{i}").write_bytes(content)
    return tmp_path / "upper"
