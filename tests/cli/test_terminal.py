"""What is different at a terminal: bars, prompts, names that could speak to it, archives that must not."""

import os
import pty
import select
import subprocess
import sys
import time

from fake_registry import FakeRegistry

from .conftest import tar_of


def at_terminal(layerfs, *words, typed=(), seconds=60):
    """Run the command with a terminal for all three streams; (exit code, what the terminal shows).

    ``typed``: pairs of what has to appear, or seconds that have to pass since the start, before what is then typed.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "layerfs", *map(str, words)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=layerfs.environment | {"TERM": "xterm"}, start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
    )  # fmt: skip
    os.close(theirs)
    shown, todo, deadline = b"", list(typed), time.monotonic() + seconds
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the last one at the other end has gone
                break
            if not piece:
                break
            shown += piece
        if todo and _is_time(todo[0][0], shown, seconds - (deadline - time.monotonic())):
            os.write(ours, todo.pop(0)[1].encode())
    os.close(ours)
    code = process.wait(10)
    assert not todo, shown
    return code, shown.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def _is_time(cue, shown, passed):
    return passed > cue if isinstance(cue, float) else cue.encode() in shown


def test_a_pull_shows_bars_and_leaves_lines(layerfs, small):
    with FakeRegistry() as registry:
        name = f"{registry.host}/x:1"
        layerfs("push", "small:1", name)
        layerfs("rmi", "small:1")
        code, shown = at_terminal(layerfs, "pull", name)
        assert code == 0
        assert "\x1b[" in shown
        assert shown.endswith(f"{name}\n")
        layerfs("rmi", name)
        assert at_terminal(layerfs, "pull", "-q", name) == (0, f"{name}\n")


def test_load_and_save_show_progress(layerfs, small, tmp_path):
    layerfs("save", "-o", tmp_path / "a.tar", "small:1")
    layerfs("rmi", "small:1")
    code, shown = at_terminal(layerfs, "load", "-i", tmp_path / "a.tar")
    assert code == 0
    assert "\x1b[" in shown
    assert "Loaded image: small:1\n" in shown
    assert at_terminal(layerfs, "load", "-q", "-i", tmp_path / "a.tar") == (0, "Loaded image: small:1\n")


def test_archives_are_not_written_to_a_terminal(layerfs, small):
    for words in (("save", "small:1"), ("export", "small:1")):
        code, shown = at_terminal(layerfs, *words)
        assert code == 2
        assert "to a terminal (give -o FILE, or redirect)" in shown
    code, shown = at_terminal(layerfs, "load")
    assert (code, "on the standard input (give a file, or redirect)" in shown) == (2, True)


def test_file_names_do_not_speak_to_the_terminal(layerfs):
    layerfs("import", "-", "x", data=tar_of({"a\x1b[31mb": b"", "c\nd": b""}))
    code, shown = at_terminal(layerfs, "ls", "x")
    assert (code, shown) == (0, "a?[31mb\nc?d\n")
    assert layerfs("ls", "x") == "a\x1b[31mb\nc\nd\n"


def test_login_asks_and_does_not_show_the_password(layerfs, tmp_path):
    with FakeRegistry(auth="basic") as registry:
        typed = [("Username: ", "user\n"), ("Password: ", "secret\n")]
        code, shown = at_terminal(layerfs, "login", "--authfile", tmp_path / "a.json", registry.host, typed=typed)
        assert code == 0
        assert "secret" not in shown
        assert shown.endswith("Login Succeeded\n")


def test_prune_asks(layerfs, small):
    layerfs("import", "-", "small:1", data=tar_of({"x": b""}))
    code, shown = at_terminal(layerfs, "image", "prune", typed=[("[y/N] ", "y\n")])
    assert code == 0
    assert f"deleted: {small}" in shown


def test_interrupted_at_the_terminal_it_ends_with_130(layerfs, small):
    code, shown = at_terminal(layerfs, "image", "prune", typed=[("[y/N] ", "\x03")])
    assert code == 130
    assert "Traceback" not in shown
