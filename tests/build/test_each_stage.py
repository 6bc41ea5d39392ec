"""What a stage hands on to the next, what hides what, and what a cache of others may not bring."""

import json

import pytest

from layerfs.build.cacheio import _LABEL, _VERSION
from layerfs.errors import InvalidInputError

pytestmark = pytest.mark.root


def test_arguments_of_the_stage_below(kit):
    kit.build("FROM scratch AS one\nARG X=1\nFROM one AS two\nARG Y=2\nFROM two\nLABEL l=$X$Y")
    assert kit.section()["Labels"] == {"l": "12"}


def test_arguments_of_the_stage_beside(kit):
    text = (
        "FROM scratch AS one\nARG X=1\nFROM one AS two\nARG Y=2\nCOPY a /\nFROM one\nCOPY --from=two /a /\nLABEL l=$X$Y"
    )
    kit.build(text, {"a": "1"}, jobs=1)
    assert kit.section()["Labels"] == {"l": "1"}


@pytest.mark.parametrize("lines", ["ARG A=arg\nENV A=env", "ENV A=env\nARG A=arg"])
def test_the_environment_goes_before_arguments(kit, lines):
    text = f"FROM box\n{lines}\nLABEL l=$A\nRUN echo $A > /o"
    kit.build(text, build_args={"A": "1"})
    assert (kit.section()["Labels"], kit.read("/o")) == ({"l": "env"}, "env\n")
    kit.build(text, build_args={"A": "2"})  # which nobody sees
    assert kit.steps() == (0, 1)


def test_an_insecure_command_sees_what_others_do_not(kit):
    text = "FROM box\nRUN {}grep -c '/proc/sys .*ro,' /proc/mounts > /o || true"
    kit.build(text.format("--security=insecure "), allow=("security.insecure",))
    assert kit.read("/o") == "0\n"
    kit.build(text.format(""))
    assert kit.read("/o") == "1\n"


def test_hosts_of_its_own(kit):
    kit.build("FROM box\nRUN --mount=target=/etc/hosts,source=h cat /etc/hosts > /o", {"h": "mine"})
    assert kit.read("/o") == "mine"


@pytest.mark.parametrize(("pattern", "left"), [("a", ["b"]), ("s/a", ["b"]), ("s/*", []), ("c", ["a", "b"])])
def test_a_source_that_is_left_out(kit, pattern, left):
    kit.build(
        f"FROM scratch\nCOPY --exclude={pattern} s/a s/b /d/\nCOPY s/c /e/", {f"s/{name}": name for name in "abc"}
    )
    assert (kit.paths("/d") if left else []) == left
    assert kit.paths("/e") == ["c"]


def test_a_file_where_a_directory_is_meant(kit):
    with pytest.raises(InvalidInputError, match="/data/seed: not a directory, files cannot be copied into it"):
        kit.build("FROM box\nCOPY a /data/seed/", {"a": "1"})


@pytest.mark.parametrize("change", ["nothing", "version", "layer", "key"])
def test_a_cache_of_others_brings_only_what_it_has(kit, tmp_path, change):
    """A record whose layer did not come with it would be taken for a step that this store has by chance."""
    key = "0" * (63 if change == "key" else 64)
    layer = kit.store.images.get("box").diff_ids[0] if change == "layer" else None
    record = {"layer": layer, "created": "2026-01-01T00:00:00Z", "title": "from elsewhere"}
    version = _VERSION + 1 if change == "version" else _VERSION
    document = json.dumps({"version": version, "records": {key: record}})
    kit.build(f"FROM scratch\nCOPY a /a\nLABEL {_LABEL}='{document}'", {"a": "1"}, tags=("cache",))
    kit.store.save(["cache"], tmp_path / "layout", format="oci-dir")
    kit.build("FROM scratch\nCOPY b /b", {"b": "2"}, cache_from=(f"type=local,src={tmp_path}/layout",))
    brought = [entry.title for entry in kit.store.build_cache().list() if entry.title == "from elsewhere"]
    assert brought == (["from elsewhere"] if change == "nothing" else [])
    assert any("of another version" in text for text in kit.result.warnings) == (change == "version")
