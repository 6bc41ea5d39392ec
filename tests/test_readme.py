"""What README and docs/library.md show works as it is printed."""

import re
import runpy
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import tarbuild as tar
from boxes import box_tar, needs_busybox

from layerfs.cli.commands import GROUPS, VERBS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

COMMANDS = [shlex.split(line, comments=True) for line in re.findall(r"^    (layerfs .*)$", README, re.MULTILINE)]


def test_the_library_block(tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.setenv("LAYERFS_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("LAYERFS_RUN", str(tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    passwd = b"root:x:0:0::/:/bin/sh\n"
    Path("rootfs.tar").write_bytes(tar.directory("etc") + tar.file("etc/passwd", passwd) + bytes(1024))
    Path("block.py").write_text(block)
    runpy.run_path("block.py")
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"sha256:[0-9a-f]{64} [\[(]'sha256:[0-9a-f]{64}',?[\])] \d+", first)
    assert second == str(len(passwd))
    names = subprocess.run(["tar", "-tf", "base.tar"], capture_output=True, text=True, check=True).stdout
    assert "manifest.json" in names


@pytest.mark.root
@needs_busybox
def test_the_program_of_the_library_document(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/library.md").read_text(), re.DOTALL)
    (tmp_path / "rootfs.tar").write_bytes(box_tar(tar.directory("proc")))
    (tmp_path / "program.py").write_text("\n".join(blocks))
    subprocess.run([sys.executable, "program.py"], cwd=tmp_path, check=True, timeout=60)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    names = subprocess.run(["tar", "-tf", tmp_path / "mine.tar"], capture_output=True, text=True, check=True).stdout
    assert "manifest.json" in names


def test_there_are_commands():
    assert len(COMMANDS) > 8


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_verbs_and_options_of_the_shell_block(words):
    _, verb, *rest = words
    entry = VERBS[verb] if verb in VERBS else GROUPS[verb][1][rest.pop(0)]
    module = import_module(f"layerfs.cli.verbs.{entry.module}")
    command = module.COMMANDS[entry.kind] if hasattr(module, "COMMANDS") else module.COMMAND
    assert command.parse(rest, " ".join(words[:2])) is not None


def test_inline_commands_are_there():
    for words in map(str.split, re.findall(r"`layerfs ([^`]+)`", README)):
        if words[0] not in ("VERB", "--help"):
            assert words[0] in VERBS or words[1] in GROUPS[words[0]][1], words


def test_the_files_it_names_are_there():
    for name in re.findall(r"`((?:docs|examples|csrc)/[\w.]+|CONTRIBUTING\.md)`", README):
        assert (ROOT / name).exists(), name
