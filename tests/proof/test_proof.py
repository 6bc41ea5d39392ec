"""The command that runs it all: what fails or hangs keeps nobody else from running, nor the counts from being told."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FAULTS = """
import time
from counting import COUNTS, points

def test_points():
    for _ in points(range(10)):
        COUNTS["short writes"] += 1

def test_last():
    {last}
"""


@pytest.fixture
def proof(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("proof_main", Path(__file__).with_name("__main__.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "proof_main", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "_PATIENCE", 1)
    return module


def suites(proof: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch, **last: str) -> None:
    """A suite for each, whose last test is that; the first two side by side."""
    made = []
    for name, text in last.items():
        (place / f"test_{name}.py").write_text(FAULTS.format(last=text))
        made.append(proof.Suite(name, 8, (str(place / f"test_{name}.py"),)))
    fuzzing = "import sys; print('stat::number_of_executed_units: 7', sys.argv[1])"
    made.append(proof.Suite("fuzz-c", 6, (sys.executable, "-c", fuzzing, "SHARE"), parts=3))
    monkeypatch.setattr(proof, "_SIDE_BY_SIDE", ((made[0],), (made[1],)))
    monkeypatch.setattr(proof, "_ALONE", tuple(made[2:]))


def test_all_is_well(
    proof: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    suites(proof, tmp_path, monkeypatch, one="pass", two="pass")
    assert proof.main([]) == 0
    said = capfd.readouterr().out
    assert "Faults survived" in said
    assert "         20  short writes\n" in said
    assert "          7  executions of fuzzed code (C)\n" in said
    assert "stat::number_of_executed_units: 7 2\n" in said, "its share of the time"


def test_failures_hide_nothing(
    proof: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    suites(proof, tmp_path, monkeypatch, one="assert 0", two="time.sleep(100)", three="pass")
    assert proof.main([]) == 1
    said = capfd.readouterr().out
    assert "NOT all faults were survived (one, two)" in said.replace("(two, one)", "(one, two)")
    assert "         30  short writes\n" in said
    assert "          7  executions of fuzzed code (C)\n" in said
    assert "two  took too long, and was killed after" in said
    assert "three  ok" in said


def test_some_suites(
    proof: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    suites(proof, tmp_path, monkeypatch, one="assert 0", two="pass")
    assert proof.main(["two"]) == 0
    assert "         10  short writes\n" in capfd.readouterr().out
    with pytest.raises(SystemExit):
        proof.main(["three"])


def test_hostile_inputs_are_counted_once(proof: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = ["test_hostile.py::test_outcome[a-erofs]", "test_hostile.py::test_outcome[a-dir]"]
    names += [
        "test_hostile_documents.py::test_load[b]",
        "test_hostile_documents.py::test_run[b-runc]",
        "test_hostile_documents.py::test_load[c]",
    ]
    (tmp_path / "hostile.json.passed").write_text("".join(f"tests/hostile/{name}\n" for name in names))
    proof.Proof(tmp_path, 1.0).report()
    said = capfd.readouterr().out
    assert "           1  hostile archives\n" in said
    assert "           2  hostile documents (" in said


def test_points_lie_spread_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    import counting

    assert sorted(counting.points(range(13))) == list(range(13))
    monkeypatch.setenv("PROOF_SEED", "9999")
    assert sorted(counting.points(range(13))) == list(range(13))
    assert next(counting.points(range(13))) != next(iter(sorted(range(13), key=lambda at: -((at + 1) & -(at + 1)))))
    first = [number for number, _ in zip(counting.points(range(64)), range(8), strict=False)]
    assert max(b - a for a, b in zip(sorted(first), sorted(first)[1:], strict=False)) <= 16
    left = counting.COUNTS[counting.LEFT_OUT]
    monkeypatch.setattr(counting.TIME, "_deadline", 0.0)
    assert list(counting.points(range(5))) == []
    assert counting.COUNTS.pop(counting.LEFT_OUT) == left + 5
