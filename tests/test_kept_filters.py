"""Filters of system calls that are kept for other processes: used where they are whole, and only there."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash
from boxes import add_box, needs_busybox, run

from layerfs import Store, native
from layerfs.errors import UnsupportedError
from layerfs.runtime.kept import _MOST, kept_program
from layerfs.runtime.seccomp import default_filter

try:
    LIBRARY = native.seccomp_library()
except UnsupportedError:
    pytest.skip("libseccomp is not installed", allow_module_level=True)

PROGRAM, OTHER = b"\6\0\0\0\0\0\xff\x7f", b"\6\0\0\0\0\0\0\0"


def never() -> bytes:
    raise AssertionError("the kept one is not used")


def kept(run: Path) -> Path:
    (path,) = (run / "filters").iterdir()
    return path


def test_one_is_made_once_for_all_processes(tmp_path: Path) -> None:
    assert kept_program(tmp_path, "rules", lambda: PROGRAM) == PROGRAM
    assert kept_program(tmp_path, "rules", never) == PROGRAM
    assert kept_program(tmp_path, "other rules", lambda: OTHER) == OTHER
    assert kept_program(tmp_path, "rules", never) == PROGRAM
    assert (tmp_path / "filters").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "filters").iterdir()} == {0o600}


def test_the_default_filter_is_that_of_libseccomp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = default_filter(0)
    default_filter.cache_clear()
    assert default_filter(0, tmp_path) == made
    default_filter.cache_clear()
    monkeypatch.setattr(native, "seccomp_filter", lambda *_: never())
    assert default_filter(0, tmp_path) == made
    with pytest.raises(AssertionError):
        default_filter(1 << 21, tmp_path)  # CAP_SYS_ADMIN: another filter
    default_filter.cache_clear()


def weaker(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: -len(PROGRAM)] + OTHER)


def of_other_rules(path: Path) -> None:
    body = path.read_bytes()[16:].replace(b"rules", b"RULES")
    path.write_bytes(xxhash.xxh3_128_digest(body) + body)


def of_another_library(path: Path) -> None:
    body = path.read_bytes()[16:].replace(os.fsencode(LIBRARY), b"/bin/sh")
    path.write_bytes(xxhash.xxh3_128_digest(body) + body)


def without_a_program(path: Path) -> None:
    body = path.read_bytes()[16 : -len(PROGRAM)]
    path.write_bytes(xxhash.xxh3_128_digest(body) + body)


def readable_by_others(path: Path) -> None:
    path.chmod(0o640)


def of_another_user(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(path, 1000, 0)


def a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        weaker, of_other_rules, of_another_library, without_a_program, readable_by_others, of_another_user, a_link,
        a_fifo, gone,
    ],
)  # fmt: skip
def test_what_is_spoiled_is_made_anew(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    kept_program(tmp_path, "rules", lambda: PROGRAM)
    path = kept(tmp_path)
    before = path.read_bytes()
    spoil(path)
    made: list[int] = []
    assert kept_program(tmp_path, "rules", lambda: made.append(1) or PROGRAM) == PROGRAM
    assert made == [1]
    assert path.read_bytes() == before
    assert kept_program(tmp_path, "rules", never) == PROGRAM


def test_no_byte_may_be_another_one_and_none_may_lack(tmp_path: Path) -> None:
    kept_program(tmp_path, "rules", lambda: PROGRAM)
    path = kept(tmp_path)
    whole = path.read_bytes()
    for at in range(len(whole)):
        for spoiled in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            path.write_bytes(spoiled)
            made: list[int] = []
            kept_program(tmp_path, "rules", lambda made=made: made.append(1) or PROGRAM)
            assert made, at


def test_what_cannot_be_kept_is_made_each_time(tmp_path: Path) -> None:
    (tmp_path / "filters").write_text("")  # where the directory would be
    assert kept_program(tmp_path, "rules", lambda: PROGRAM) == PROGRAM
    assert kept_program(tmp_path, "rules", lambda: OTHER) == OTHER


def test_they_do_not_heap_up(tmp_path: Path) -> None:
    for number in range(_MOST * 2):
        kept_program(tmp_path, f"rules {number}", lambda: PROGRAM)
        assert len(os.listdir(tmp_path / "filters")) <= _MOST


@pytest.mark.root
@needs_busybox
def test_a_container_has_its_filter_whatever_was_kept(tmp_path: Path) -> None:
    """A filter that lets all through, with a name that is right and a sum that is not, is not taken; with a right sum,
    which root alone could write, it is: so that is where the filter comes from."""

    def shell() -> str:
        with Store.open(tmp_path / "root", tmp_path / "run") as store:
            if not (tmp_path / "run/filters").exists():
                add_box(store, tmp_path)
            default_filter.cache_clear()
            return run(store, "sh", "-c", "unshare -U echo let through", runtime="builtin", rm=True).out

    assert shell() == ""
    path = kept(tmp_path / "run")
    head, mark, program = path.read_bytes().partition(b"\0" + os.fsencode(LIBRARY) + b"\0")
    stamp = program.partition(b"\0")[0]
    body = head[16:] + mark + stamp + b"\0" + PROGRAM
    path.write_bytes(head[:16] + body)
    assert shell() == ""
    path.write_bytes(xxhash.xxh3_128_digest(body) + body)
    assert shell() == "let through\n"
    path.write_bytes(b"")
    assert shell() == ""
    default_filter.cache_clear()
