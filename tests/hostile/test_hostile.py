"""Every hostile archive, in both formats: the outcome that is written with it, and nothing outside the layer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cases import LIMITS, Case, cases
from corekit import FORMATS, needs_root, read_tree, repack, tree, unpack
from fstree import assert_same

from layerfs.errors import IntegrityError, InvalidInputError

pytestmark = needs_root
ALL = cases()


def test_the_corpus_is_large_and_has_no_doubles() -> None:
    assert len(ALL) >= 300
    assert len({case.name for case in ALL}) == len(ALL)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", ALL, ids=[case.name for case in ALL])
def test_outcome(case: Case, format: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    try:
        if case.outcome == "refused":
            with pytest.raises(IntegrityError):
                unpack(case.data, inside / "layer", format, **LIMITS)
        elif case.outcome == "limit":
            with pytest.raises(InvalidInputError):
                unpack(case.data, inside / "layer", format, **LIMITS)
        else:
            layer = unpack(case.data, inside / "layer", format, [4000], **LIMITS)
            found = tree(layer)
            if case.outcome != "any":
                assert {os.fsdecode(path) for path in found if path} == case.outcome
            assert repack(layer) == case.data
            if format == "erofs":
                assert_same(read_tree(layer.path), found)
        assert os.listdir(tmp_path) == ["inside"]
        assert os.listdir(inside) == ["layer"]
        if format == "dir":
            assert set(os.listdir(inside / "layer")) <= {"fs", "dead"}
    finally:
        subprocess.run(["rm", "-rf", inside], check=True)  # what pytest uses cannot go so deep
