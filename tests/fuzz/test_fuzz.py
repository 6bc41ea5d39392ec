"""Fuzzing for a few seconds, and what it has found before."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from targets import SEEDS, TARGETS, regressions

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "csrc"
FOUND = [(name, path) for name in TARGETS for path in regressions(name)]


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    assert len(SEEDS[name]) >= 4
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize(("name", "path"), FOUND, ids=[f"{name}-{path.name}" for name, path in FOUND])
def test_what_was_found_once(name: str, path: Path) -> None:
    TARGETS[name](path.read_bytes())


@pytest.mark.slow
def test_parsers_for_some_seconds(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not there for this Python and machine (pip install 'layerfs[fuzz]')")
    words = [sys.executable, HERE, "--seconds", "3", "--corpus", tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    executed = list(map(int, re.findall(r"number_of_executed_units: (\d+)", done.stdout)))
    assert len(executed) == len(TARGETS)
    assert min(executed) > 100


def test_a_finding_is_told(tmp_path: Path) -> None:
    """What fuzzes must be able to fail: a target that does not hold for one of its seeds."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not there for this Python and machine (pip install 'layerfs[fuzz]')")
    for name in ("__main__.py", "child.py", "targets.py"):
        (tmp_path / name).write_bytes((HERE / name).read_bytes())
    with (tmp_path / "targets.py").open("a") as file:
        file.write('\nTARGETS["reference"] = lambda data: 1 // (data[:6] != b"debian")\n')
    words = [sys.executable, tmp_path, "--seconds", "30", "--corpus", tmp_path / "corpus", "reference"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stdout
    assert list((tmp_path / "corpus" / "findings").iterdir())


@pytest.mark.slow
def test_the_core_for_some_seconds() -> None:
    if shutil.which("clang") is None:
        pytest.skip("needs clang")
    if not list(Path("/usr/lib").glob("llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-x86_64.a")):
        pytest.skip("needs the run-time libraries of clang (libclang-rt-14-dev)")
    words = ["make", "-s", "-C", CORE, "fuzz", "SECONDS=2", f"PYTHON={sys.executable}"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    executed = list(map(int, re.findall(r"number_of_executed_units: (\d+)", done.stdout)))
    assert len(executed) == len(list((CORE / "fuzz").glob("fuzz_*.c")))
    assert min(executed) > 100
