"""Every hostile document through the commands that meet it: load, pull, the verbs that read images, save, run."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from boxes import needs_busybox
from cvekit import Host, Said, host
from documents import INDEX, MANIFEST, Case, cases
from fake_registry import FakeRegistry
from registrykit import tar_of

__all__ = ["host"]

pytestmark = pytest.mark.root
ALL = cases()
RUNTIMES = ("builtin", "runc")
CODES = {"refused": 3, "invalid": 2, "missing": 1, "kept": 0}
RUN = [case for case in ALL if case.run is not None]
PULLED = [case for case in ALL if case.pulled is not None]


def _told(host: Host, said: Said, outcome: str) -> None:
    """The code that is written with the case; a refusal is one line, and leaves nothing."""
    assert said.code == CODES[outcome], said
    if outcome == "kept":
        return
    assert said.err.count("\n") == 1, said.err
    assert not [letter for letter in said.err[:-1] if ord(letter) < 32], said.err
    assert len(said.err) < 1000
    assert host("images", "-aq").out == ""


def _read(host: Host) -> None:
    """All that reads images takes it, and it goes out as it came."""
    ids = sorted(set(host("images", "-aq", "--no-trunc").out.split()))
    assert ids
    for words in (("images", "-a"), ("images", "--format", "json"), ("system", "df", "-v"), ("system", "check")):
        assert host(*words).code == 0, words
    for image in ids:
        for words in (("inspect", image), ("history", image), ("history", "--format", "json", image), ("ls", image)):
            said = host(*words)
            assert said.code == 0, (words, said)
        assert json.loads(host("inspect", image).out)[0]["Id"] == image
    assert host("save", "-o", host.place / "saved", *ids).code == 0
    assert host("rmi", "-f", *ids).code == 0
    assert host("load", "-i", host.place / "saved").code == 0
    assert sorted(set(host("images", "-aq", "--no-trunc").out.split())) == ids


def test_the_corpus_is_large_and_has_no_doubles() -> None:
    assert len(ALL) >= 200
    assert len({case.name for case in ALL}) == len(ALL)


@pytest.mark.parametrize("case", ALL, ids=[case.name for case in ALL])
def test_load(case: Case, host: Host) -> None:
    _told(host, host("load", "-i", "@", data=tar_of(case.files)), case.outcome)
    if case.outcome == "kept":
        _read(host)
    with host.store() as store:
        assert list(store.check()) == []


@pytest.fixture(scope="module")
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


@pytest.mark.parametrize("case", PULLED, ids=[case.name for case in PULLED])
def test_pull(case: Case, host: Host, registry: FakeRegistry) -> None:
    """The same from a registry, whose answer it is (5) that something is missing."""
    assert case.pulled is not None
    for name, data in case.files.items():
        if name.startswith("blobs/"):
            registry.put_blob("r", data)
            registry.put_manifest("r", "sha256:" + name.rpartition("/")[2], data, _media_type(data))
    registry.put_manifest("r", "1", case.pulled, _media_type(case.pulled))
    said = host("pull", "-q", f"{registry.host}/r:1")
    if case.outcome == "missing":
        assert said.code == 5
    else:
        _told(host, said, case.pull or case.outcome)
    with host.store() as store:
        assert list(store.check()) == []


def _media_type(data: bytes) -> str:
    return INDEX if b'"manifests": [' in data else MANIFEST


@needs_busybox
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", RUN, ids=[case.name for case in RUN])
def test_run(case: Case, runtime: str, host: Host) -> None:
    if runtime != "builtin" and shutil.which(runtime) is None:
        pytest.skip(f"needs the Debian package {runtime}")
    assert host("load", "-q", "-i", "@", data=tar_of(case.files)).code == 0
    (image,) = set(host("images", "-aq").out.split())
    said = host("run", "--rm", "--runtime", runtime, image)
    assert case.run is not None
    assert said.code == case.run[RUNTIMES.index(runtime)], said
    assert os.listdir(host.root / "containers") == []
