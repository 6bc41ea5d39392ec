"""The comparison with other tools: a tiny run works with whatever there is, and leaves nothing behind."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path

import pytest
from bench.box import work_directory
from bench.engines import LayerfsNoSync
from bench.growth import exponent
from bench.measure import CommandFailed, Sample, Step, execute, timed
from bench.recipes import delta
from bench.report import verdicts
from bench.subjects import Findings
from bench.trees import differences, scan

PROJECT = Path(__file__).parent.parent
NEEDED = ("unshare", "setpriv", "mkfs.ext4", "busybox")


def start(place: Path, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bench.compare", "--tiny", "--cache", str(place), "--results", f"{place}/results"]
    # What other tests have set for their stores and registries is not for the tools measured here.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LAYERFS_", "REGISTRY_"))}
    return subprocess.Popen(
        [*command, *more], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def left_behind(place: Path) -> list[str]:
    """Mounts, loop devices and processes that lie in ``place``, and what is left of working directories there."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(place) in line]
    loops = [p.read_text() for p in Path("/sys/block").glob("loop*/loop/backing_file")]
    found = mounts + [text for text in loops if str(place) in text] + [str(p) for p in place.glob("work-*")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{place}/" in command and int(path.parent.name) != os.getpid():
            found.append(command)
    return found


def nothing_left(place: Path) -> bool:
    """The kernel takes a moment to end the last process of a namespace, and to give back its loop device."""
    until = time.monotonic() + 20
    while left_behind(place) and time.monotonic() < until:
        time.sleep(0.2)
    return not left_behind(place)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    if missing := [program for program in NEEDED if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return tmp_path


@pytest.mark.root
@pytest.mark.slow
def test_a_tiny_run_measures_what_there_is(place: Path) -> None:
    run = start(place, "--only", "pull,run,burst,ps,commit,load", "--growth", "pulls")
    text, _ = run.communicate(timeout=500)
    found = json.loads(next((place / "results").glob("*.json")).read_text())
    assert not [name for name, failed in found["failures"].items() if "layerfs" in failed], text
    assert len(found["samples"]["load"]["layerfs"]) == 1
    assert [len(found["samples"][name]["layerfs"]) for name in ("burst", "ps")] == [1, 5]
    assert {what.split()[0] for what in found["inside"]} == {"tar", "mount", "life", "burst", "teardown", "crowd"}
    assert found["trees"]["image after load"]["layerfs"] == "equal"
    assert found["peaks"]["load"]["layerfs"] > 1_000_000
    assert "goal" in text
    assert nothing_left(place), left_behind(place)


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing(place: Path, number: signal.Signals) -> None:
    run = start(place, "--only", "load", "--rounds", "1", "--peers", "layerfs,podman,tar", "--growth", "")
    with run:
        assert run.stdout is not None
        while not run.stdout.readline().startswith("check:"):
            assert run.poll() is None
        run.send_signal(number)
        run.stdout.read()
    if number == signal.SIGKILL:  # nobody was left to remove it; the next run does
        with work_directory(place):
            pass
    assert nothing_left(place), left_behind(place)


def test_the_exponent_of_a_curve() -> None:
    assert math.isclose(exponent([(10, 5.0), (100, 50.0), (1000, 500.0)]), 1)
    assert math.isclose(exponent([(10, 3.0), (100, 3.0), (1000, 3.0)]), 0, abs_tol=1e-9)


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as out:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            out.addfile(info, BytesIO(data))
    return path


def test_a_layer_of_what_differs(tmp_path: Path) -> None:
    lower = tar(tmp_path / "a", {"d/": b"", "d/same": b"1", "d/changed": b"1", "d/gone": b"1"})
    upper = tar(tmp_path / "b", {"d/": b"", "d/same": b"1", "d/changed": b"2", "d/new": b"1"})
    with tarfile.open(delta(lower, upper, tmp_path / "c")) as layer:
        assert layer.getnames() == ["d", "d/changed", "d/new", "d/.wh.gone"]


def test_trees_that_differ(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("same")
        os.utime(tmp_path / name / "file", (1, 1))
    assert not differences(scan(tmp_path / "a"), scan(tmp_path / "b"))
    (tmp_path / "b" / "file").chmod(0o600)
    (tmp_path / "b" / "more").touch()
    assert [line.split(":")[0] for line in differences(scan(tmp_path / "a"), scan(tmp_path / "b"))] == ["file", "more"]


def test_goals_are_of_the_best_peer() -> None:
    findings = Findings(
        samples={"diff": {n: [Sample(s, s)] for n, s in (("layerfs", 1), ("docker", 40), ("podman", 10))}}
    )
    (found,) = verdicts(findings)
    assert (found.ratio, found.met) == (0.1, False)


def test_layerfs_is_measured_without_syncing_too() -> None:
    samples = {name: [Sample(s, s)] for name, s in (("layerfs", 4), ("layerfs-nosync", 2), ("podman", 10))}
    (found,) = verdicts(Findings(samples={"save": samples}))
    assert (found.ratio, found.unsynced) == (0.4, 0.2)
    engine = LayerfsNoSync(Path("/disk"), "")
    assert engine.command("images")[1:2] == ["--no-sync"]
    assert engine.inside("burst")[:2] == ["env", "LAYERFS_NO_SYNC=1"]


def test_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib (pip install 'layerfs[plots]')")
    from bench.plots import draw

    samples = {name: [{"seconds": s, "synced": s + 1}] for name, s in (("layerfs", 1.0), ("podman", 4.0))}
    growth = [
        {"counted": "files", "title": "layerfs import", "points": [[10, 0.1], [100, 0.2], [1000, 0.9]], "exponent": 0.5}
    ]
    machine = {"processor": "2 x", "kernel": "6", "date": "2026-01-01T00", "rounds": "1"}
    document = {"versions": {"layerfs": ["1"]}, "machine": machine, "samples": {"load": samples}, "growth": growth}
    (tmp_path / "found.json").write_text(json.dumps(document))
    drawn = draw(tmp_path / "found.json")
    assert [path.name for path in drawn] == ["found.png", "found-growth.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_a_command_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="exit code 3: no luck"):
        execute([["sh", "-c", "echo no luck >&2; exit 3"]])
    assert timed(Step([["true"]], count=4), tmp_path).seconds < 1
