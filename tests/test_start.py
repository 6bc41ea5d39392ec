"""What is imported late is what its module says, and what a short command does not need is not loaded."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from launchkit import busybox_root, needs_busybox

from layerfs.late import LateModule

SOURCE = Path(__file__).parent.parent / "src"
LATE = sorted(path for path in (SOURCE / "layerfs").rglob("*.py") if "layerfs.late" in path.read_text())


def checked(path: Path) -> dict[str, str]:
    """Name to what it is, of the imports that only the type checker makes."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            for each in node.body:
                assert isinstance(each, ast.Import | ast.ImportFrom)
                package = f"{each.module}." if isinstance(each, ast.ImportFrom) else ""
                found.update({name.name: f"{package}{name.name}" for name in each.names})
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", LATE, ids=module_of)
def test_what_is_imported_late_is_what_the_type_checker_sees(path: Path) -> None:
    module, wanted = importlib.import_module(module_of(path)), checked(path)
    late = {name: value for name, value in vars(module).items() if isinstance(value, LateModule)}
    assert {name: value._name for name, value in late.items()} == {name: wanted[name] for name in late}
    for value in late.values():
        importlib.import_module(value._name)
    if path.name == "__init__.py":
        assert set(wanted) <= set(module.__all__)
        for name in module.__all__:
            home, _, own = wanted.get(name, "").rpartition(".")
            assert getattr(module, name) is (
                getattr(importlib.import_module(home), own) if home else vars(module)[name]
            )
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            module.nothing  # noqa: B018


def test_late_modules_are_there() -> None:
    assert len(LATE) > 5


COUNTING = """
import os, sys
end, process, file = os._exit, os.getpid(), open(sys.argv.pop(1), "w")
def counted(code):
    if os.getpid() == process:
        file.write("\\n".join(sys.modules))
        file.close()
    end(code)
os._exit = counted
from layerfs.__main__ import main
main()
"""


def loaded(tmp_path: Path, *words: str, code: int = 0) -> set[str]:
    """The modules that a command loads; the store is there already."""
    places = {"LAYERFS_ROOT": str(tmp_path / "root"), "LAYERFS_RUN": str(tmp_path / "run")}
    for _ in range(2):
        command = [sys.executable, "-c", COUNTING, str(tmp_path / "modules"), *words]
        found = subprocess.run(command, env=os.environ | places, capture_output=True, text=True)
        assert found.returncode == code, found.stderr
    return set((tmp_path / "modules").read_text().split())


# What pathlib, uuid and msgspec bring with them and no short command needs ("inspect" comes with typing_extensions).
STOOD_IN_FOR = {"datetime", "inspect", "ipaddress", "msgspec.inspect", "platform", "textwrap", "urllib.parse"}
STOOD_IN_FOR |= {"decimal", "fnmatch", "msgspec._json_schema", "ntpath", "numbers", "uuid"}
OF_OTHERS = {"json", "layerfs.commit", "layerfs.native", "layerfs.runtime.choice", "lz4", "shutil", "socket"}
LISTS = STOOD_IN_FOR | OF_OTHERS | {"subprocess"}


@pytest.mark.parametrize("verb", ["ps", "images", "info"])
def test_a_list_loads_what_it_shows_and_no_more(verb: str, tmp_path: Path) -> None:
    found = loaded(tmp_path, verb)
    if verb == "info":  # shows that the test sees such modules
        assert "layerfs.native" in found
    else:
        assert found & LISTS == set()
        assert "hashlib" not in found  # there are no images to be verified
        assert "re" not in found


# What a short command would take a tenth of its time for.
HEAVY = {"concurrent.futures", "dataclasses", "hashlib", "lz4", "re", "subprocess", "tempfile", "urllib3", "xml"}
OF_RUNS = {"layerfs.runtime.builtin", "layerfs.runtime.spec", "layerfs.containers.running", "layerfs.native._launch"}
OF_OTHER_RUNS = {
    "layerfs.containers.actions",  # of containers that run by themselves
    "layerfs.containers.logs",  # of those that are kept
    "layerfs.containers.volumes",
    "layerfs.native._diff",
    "layerfs.native._seccomp",  # the filter is kept
    "layerfs.native._unpack",
    "layerfs.runtime.standard",
    "layerfs.runtime.supervisor",
    "layerfs.userns",
    "resource",
    "termios",
    "tty",
}


@pytest.mark.root
@needs_busybox
def test_a_diff_and_a_run_load_what_they_do_and_no_more(tmp_path: Path) -> None:
    places = ["--root", str(tmp_path / "root"), "--run", str(tmp_path / "run")]

    def layerfs(*words: str) -> str:
        command = [sys.executable, "-m", "layerfs", *places, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    layerfs("import", str(busybox_root(tmp_path / "tree")), "box")
    container = layerfs("create", "box", "true")
    diff = loaded(tmp_path, "diff", container)
    run = loaded(tmp_path, "run", "--rm", "--runtime", "builtin", "box", "true")
    assert run >= OF_RUNS
    assert diff & (OF_RUNS | {"layerfs.native._mount"}) == set()
    assert run & OF_OTHER_RUNS == set()
    for found in (diff, run):
        assert found & (HEAVY | STOOD_IN_FOR | {"json"}) == set()
    # Each module costs 0.1 ms at least.
    assert sum(name.startswith("layerfs") for name in diff) <= 64
    assert sum(name.startswith("layerfs") for name in run) <= 90
    assert len(diff) <= 151
    assert len(run) <= 176


def test_verbs_of_registries_load_msgspec_the_short_way(tmp_path: Path) -> None:
    words = ["logout", "--authfile", str(tmp_path / "auth.json"), "localhost:1"]
    found = loaded(tmp_path, *words)
    assert "msgspec" in found
    assert found & {"inspect", "ast", "tomllib"} == set()  # typing_extensions loads the first two


def test_verbs_of_registries_load_urllib3_the_short_way(tmp_path: Path) -> None:
    found = loaded(tmp_path, "pull", "localhost:1/none:1", code=5)  # where nobody listens
    assert "urllib3.connectionpool" in found
    assert found & {"calendar", "importlib.metadata", "json", "logging", "subprocess", "traceback", "zipfile"} == set()


WHOLE = """
import sys
from layerfs.late import import_typing
import_typing()
from layerfs.cli.lean import import_http, import_values
import_values()
loaded = set(sys.modules) & {"datetime", "re", "urllib.parse"}
import_http()
loaded |= set(sys.modules) - {"datetime", "urllib.parse"}  # HTTP has use for these
import calendar, datetime, email.utils, ipaddress, json, pathlib, platform, textwrap, traceback, typing, urllib.parse
import importlib.metadata, msgspec, urllib3
put_off = {"calendar", "datetime", "importlib.metadata", "json", "platform", "textwrap", "traceback", "urllib.parse"}
put_off |= {"logging"}
print(sorted(loaded & put_off))
import logging, re
print(logging.getLogger("urllib3").name, type(re.compile("a")), urllib3.util.parse_url("HTTP://h:5/a b").url)
print(urllib3.HTTPResponse(b"[1]").json(), email.utils.parsedate_tz("Tue, 24 Nov 2026 13:04:21 GMT")[:3])
print(msgspec.json.decode(b'"2026-11-24T13:04:21Z"', type=datetime.datetime) == datetime.datetime(
    2026, 11, 24, 13, 4, 21, tzinfo=datetime.UTC))
print(pathlib.PureWindowsPath("C:/a b").drive, pathlib.Path("/a").match("[a]"))
print(pathlib.Path("/a b").as_uri(), platform.system(), textwrap.dedent(" a"), ipaddress.ip_address("::1"))
print(urllib.parse.quote("/a b"), typing.ForwardRef("int").__forward_arg__)
print(typing.Pattern.__origin__ is re.Pattern, typing.Match.__origin__ is re.Match, re.compile("a").fullmatch("a")[0])
import decimal, uuid
pair = tuple[decimal.Decimal, uuid.UUID]
print(*msgspec.json.decode(b'[1.5, "%032x"]' % 7, type=pair), msgspec.json.encode(decimal.Decimal(7)))
print(msgspec.json.decode(b'"aa"', type=typing.Annotated[str, msgspec.Meta(pattern="^a+$")]))
print(msgspec.inspect.type_info(int) == msgspec.inspect.IntType(), msgspec.json.schema(int), msgspec.msgpack.encode(1))
"""


def test_what_is_imported_the_short_way_is_whole_afterwards() -> None:
    found = subprocess.run([sys.executable, "-c", WHOLE], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == [
        "[]",
        "urllib3 <class 're.Pattern'> http://h:5/a%20b",
        "[1] (2026, 11, 24)",
        "True",
        "C: True",
        "file:///a%20b Linux a ::1",
        "/a%20b int",
        "True True a",
        "1.5 00000000-0000-0000-0000-000000000007 b'\"7\"'",
        "aa",
        "True {'type': 'integer'} b'\\x01'",
    ]


OTHER_VERSIONS = """
import decimal, re, sys, uuid
for name in ("decimal", "uuid"):
    del sys.modules[name]
from layerfs.cli import lean
del lean._Unknown.UUID
del lean._NoLog.NullHandler
lean._NoLog.__getattr__ = lambda self, name: object.__getattribute__(self, name)
lean.import_values(alone=True)
lean.import_http()
print(sorted(set(sys.modules) & {"msgspec", "urllib3", "decimal", "logging"}))
import msgspec, urllib3
print(msgspec.json.encode(decimal.Decimal(7)), urllib3.util.parse_url("HTTP://h:5/a b").url)
"""


def test_a_version_that_needs_what_is_left_out_is_imported_whole() -> None:
    found = subprocess.run([sys.executable, "-c", OTHER_VERSIONS], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == ["[]", "b'\"7\"' http://h:5/a%20b"]
