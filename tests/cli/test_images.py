"""``images``, ``tag``, ``rmi``, ``history``, ``inspect`` and ``prune``, as users of docker drive them."""

import json
import re

import pytest

from .conftest import tar_of


def make(layerfs, name, content=b"x", *changes, environment=None):
    words = [word for change in changes for word in ("-c", change)]
    return layerfs("import", "-", name, *words, data=tar_of({"file": content}), environment=environment).strip()


def at(seconds):
    return {"SOURCE_DATE_EPOCH": str(seconds)}


def test_an_empty_store_has_no_images(layerfs):
    assert layerfs("images") == "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n"
    assert layerfs("images", "-q") == ""
    assert layerfs("images", "--format", "json") == ""


def test_the_table_is_that_of_docker(layerfs, small):
    layerfs("tag", "small:1", "host.example:5000/team/other")
    lines = layerfs.lines("images")
    assert re.fullmatch("REPOSITORY {21}TAG {7}IMAGE ID {7}CREATED +SIZE", lines[0])
    assert re.fullmatch(rf"host.example:5000/team/other   latest    {small[7:19]}   .* ago +8.01kB", lines[2])
    assert re.fullmatch(rf"small                          1         {small[7:19]}   .* ago +8.01kB", lines[1])


def test_ids_are_short_unless_asked_for(layerfs, small):
    assert layerfs.lines("images", "-q") == [small[7:19]]
    assert layerfs.lines("images", "-q", "--no-trunc") == [small]
    assert layerfs.lines("image", "ls", "-aq") == [small[7:19]]
    layerfs("tag", "small:1", "again:1")
    assert layerfs.lines("images", "-q") == [small[7:19]]


def test_json_and_templates(layerfs, small):
    row = layerfs.json("images", "--format", "json")
    assert (row["Repository"], row["Tag"], row["ID"], row["Size"]) == ("small", "1", small[7:19], "8.01kB")
    assert row["Digest"] == "<none>"
    assert layerfs("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}") == f"small:1 {small[7:19]}\n"
    assert (
        layerfs("images", "--format", r"table {{.Tag}}\t{{.Repository}}") == "TAG       REPOSITORY\n1         small\n"
    )
    assert "no field 'Nope'; there are " in layerfs.error("images", "--format", "{{.Nope}}", code=2)


def test_positional_and_reference_filters(layerfs):
    for name in ("debian:12", "debian:13", "team/debian:12", "ubuntu:1"):
        make(layerfs, name, name.encode())
    listed = lambda *words: layerfs.lines("images", "--format", "{{.Repository}}:{{.Tag}}", *words)  # noqa: E731
    assert sorted(listed("debian")) == ["debian:12", "debian:13"]
    assert listed("debian:13") == ["debian:13"]
    assert sorted(listed("-f", "reference=*:12")) == ["debian:12"]
    assert sorted(listed("-f", "reference=*/*")) == ["team/debian:12"]
    assert sorted(listed("-f", "reference=ubuntu", "-f", "reference=debian:1[23]")) == [
        "debian:12",
        "debian:13",
        "ubuntu:1",
    ]


def test_filters_by_label_time_and_name(layerfs):
    old = make(layerfs, "old", b"1", "LABEL a=1", environment=at(1_000_000_000))
    new = make(layerfs, "new", b"2", "LABEL a=2 b=", environment=at(1_700_000_000))
    make(layerfs, "new", b"3", environment=at(1_800_000_000))  # takes the name away
    ids = lambda *words: layerfs.lines("images", "-q", "--no-trunc", *words)  # noqa: E731
    assert ids("-f", "label=a") == [new, old]
    assert ids("-f", "label=a=1") == [old]
    assert ids("-f", "label=a", "-f", "label=b") == [new]
    assert ids("-f", "label!=a") == [layerfs.json("inspect", "new")[0]["Id"]]
    assert ids("-f", "dangling=true") == [new]
    assert old in ids("-f", "dangling=false")
    assert ids("-f", "before=" + new) == [old]
    assert ids("-f", "since=old", "-f", "dangling=true") == [new]
    assert ids("-f", "until=2005-01-01") == [old]
    assert "unknown (known are after, before, containers, dangling" in layerfs.error(
        "images", "-f", "colour=red", code=2
    )


def test_tag_and_rmi(layerfs, small):
    layerfs("tag", small[7:19], "a:1", "b")
    layerfs("image", "tag", "b", "c")
    assert layerfs("rmi", "a:1") == "Untagged: a:1\n"
    assert layerfs("images", "a").count("\n") == 1
    message = layerfs.error("rmi", small, code=1)
    assert message == (
        f"layerfs rmi: image {small}: it has several names: b:latest, c:latest, small:1 "
        "(remove the names, or use --force)"
    )
    output = layerfs.lines("rmi", "-f", small)
    assert output[:3] == ["Untagged: b:latest", "Untagged: c:latest", "Untagged: small:1"]
    assert output[3] == f"Deleted: {small}"
    assert output[4].startswith("Deleted: sha256:")
    assert layerfs("images", "-q") == ""


def test_rmi_goes_on_behind_what_is_not_there(layerfs, small):
    result = layerfs.process("rmi", "nothing", "small:1", code=1)
    assert result.stdout.startswith(b"Untagged: small:1\nDeleted: ")
    assert result.stderr == b"layerfs rmi: image nothing: not in the store (layerfs images lists those that are)\n"


def test_rmi_by_force_does_not_mind_what_is_not_there(layerfs, small):
    """The message is there all the same; what is in the way of a removal stays an error."""
    result = layerfs.process("rmi", "-f", "nothing", "small:1", code=0)
    assert result.stdout.startswith(b"Untagged: small:1\nDeleted: ")
    assert result.stderr == b"layerfs rmi: image nothing: not in the store (layerfs images lists those that are)\n"
    layerfs.error("rmi", "-f", "UPPER", code=2)


@pytest.mark.parametrize(("name", "reason"), [("sha256:1", "algorithm"), ("ab" * 32, "an ID")])
def test_no_name_can_be_taken_for_a_digest_or_an_id(layerfs, small, name, reason):
    assert reason in layerfs.error("tag", "small:1", name, code=2)
    layerfs("tag", "small:1", f"{'ab' * 32}:1")
    layerfs("tag", small.removeprefix("sha256:"), "again:1")


@pytest.mark.parametrize("lost", ["manifest", "configuration"])
def test_a_damaged_image_does_not_hide_the_others(layerfs, small, lost):
    (layerfs.place / "other.tar").write_bytes(tar_of({"other": b"o"}))
    other = layerfs("import", layerfs.place / "other.tar", "other:1").strip()
    documents = {path.name for path in (layerfs.place / "root/blobs/sha256").iterdir()}
    manifest = layerfs("inspect", "-f", "{{.Descriptor.digest}}", "small:1").strip()
    gone = (manifest if lost == "manifest" else small).removeprefix("sha256:")
    assert gone in documents
    (layerfs.place / "root/blobs/sha256" / gone).unlink()
    result = layerfs.process("images", "-q", "--no-trunc", code=3)
    assert result.stdout.decode() == f"{other}\n"
    assert result.stderr.startswith(b"layerfs images: image small:1: blob ")
    assert b"system check --repair" in result.stderr
    layerfs("system", "df")
    layerfs("image", "prune", "-af")
    assert layerfs("rmi", "small:1").startswith("Untagged: small:1\n")
    assert layerfs("images", "-q") == ""


def test_rmi_without_prune_leaves_the_layer_to_prune(layerfs, small):
    assert layerfs.lines("rmi", "--no-prune", "small:1")[-1] == f"Deleted: {small}"
    layer = next((layerfs.place / "root" / "layers").rglob("*/*"))
    assert layer.exists()
    layerfs("image", "prune", "-f")
    assert not layer.exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("tag", "small:1", "UPPER"), 2), (("tag", "small:1", "a@sha256:" + "0" * 64), 2), (("tag", "nope", "x"), 1),
        (("tag", "small:1"), 2), (("rmi",), 2), (("history", "nope"), 1), (("inspect", "a b"), 1),
        (("inspect", "nope"), 1), (("history",), 2), (("images", "a", "b"), 2),
    ],
)  # fmt: skip
def test_wrong_references_are_one_line(layerfs, small, words, code):
    result = layerfs.process(*words, code=code)
    assert result.stderr.count(b"\n") == 1
    assert result.stderr.startswith(b"layerfs " + words[0].encode() + b": ")


def test_history(layerfs, small):
    lines = layerfs.lines("history", "small:1")
    assert lines[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert re.fullmatch(rf"{small[7:19]}   .* ago +8.01kB +Imported from -", lines[1])
    assert layerfs.lines("history", "-q", "--no-trunc", "small:1") == [small]
    assert layerfs("history", "--human=false", "--format", "{{.Size}}", "small:1") == "8006\n"
    row = layerfs.json("history", "--format", "json", "small:1")
    assert row["Comment"] == "Imported from -"
    assert row["CreatedAt"].endswith("Z")


def test_inspect(layerfs, small):
    (document,) = layerfs.json("inspect", "small:1")
    assert document["Id"] == small
    assert document["RepoTags"] == ["small:1"]
    assert document["Config"]["Cmd"] == ["/bin/tool"]
    assert document["Config"]["Labels"] == {"kind": "test"}
    assert document["Os"] == "linux"
    assert len(document["RootFS"]["Layers"]) == 1
    assert layerfs.json("image", "inspect", small[7:15], "small:1") == [document, document]
    show = lambda format: layerfs("inspect", "-f", format, "small:1")  # noqa: E731
    assert show("{{.Config.Labels.kind}} {{.Config.Labels.nothing}}") == "test <no value>\n"
    assert show("{{index .Config.Cmd 0}} {{.Config.User}}|{{.Config.StopSignal}}|") == "/bin/tool ||\n"
    assert json.loads(show("{{json .Config.Cmd}}")) == ["/bin/tool"]
    assert show("{{.Id}}") == show("{{.ID}}") == f"{small}\n"
    assert "no field 'Nope'" in layerfs.error("inspect", "-f", "{{.Config.Nope}}", "small:1", code=2)
    assert layerfs.json("inspect", "-f", "json", "small:1") == document


def test_inspect_shows_what_is_there_and_names_what_is_not(layerfs, small):
    result = layerfs.process("inspect", "--format", "{{.Id}}", "nope", "small:1", code=1)
    assert result.stdout.decode() == f"{small}\n"
    assert result.stderr == b"layerfs inspect: nope: no such object\n"
    assert layerfs.process("inspect", "nope", code=1).stdout == b"[]\n"
    assert "not in the store" in layerfs.process("inspect", "--type", "image", "nope", code=1).stderr.decode()


def test_an_id_that_is_not_unique_is_refused(layerfs):
    ids = {make(layerfs, f"n:{number}", bytes([number])) for number in range(17)}
    digit = next(d for d in "0123456789abcdef" if sum(each[7] == d for each in ids) > 1)
    two = [each for each in ids if each[7] == digit]
    prefix = digit
    while len({each[7 : 8 + len(prefix)] for each in two}) == 1:
        prefix = two[0][7 : 8 + len(prefix)]
    if len(prefix) > 1:
        assert "images begin so (give more digits)" in layerfs.error("inspect", "--type", "image", prefix, code=2)


def test_prune_asks_first(layerfs):
    old = make(layerfs, "a", b"1")
    make(layerfs, "a", b"2")
    result = layerfs.process("image", "prune", code=1, data=b"n\n")
    assert b"Continue? [y/N] layerfs image prune: cancelled" in result.stderr
    assert f"unused: {old}" not in result.stdout.decode()
    assert f"deleted: {old}\n" in layerfs("image", "prune", "--dry-run")
    assert len(layerfs.lines("images", "-q")) == 2
    output = layerfs("image", "prune", data=b"y\n")
    assert output.startswith(f"Deleted Images:\ndeleted: {old}\ndeleted: sha256:")
    assert re.search(r"\n\nTotal reclaimed space: \S+B\n$", output)
    assert len(layerfs.lines("images", "-q")) == 1


def test_prune_all_and_its_filters(layerfs):
    old = make(layerfs, "old", b"1", environment=at(1_000_000_000))
    keep = make(layerfs, "keep", b"2", "LABEL keep=1", environment=at(1_000_000_000))
    new = make(layerfs, "new", b"3", environment=at(1_700_000_000))
    layerfs("image", "prune", "-af", "--filter", "until=2010-01-01", "--filter", "label!=keep")
    assert set(layerfs.lines("images", "-q", "--no-trunc")) == {keep, new}
    assert old not in layerfs("images", "--no-trunc")
    layerfs("prune", "-af")
    assert layerfs("images", "-q") == ""
    assert layerfs("image", "prune", "-f") == "Total reclaimed space: 0B\n"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{len .Config.Env}} {{len .Config.Volumes}} {{len .Config.ExposedPorts}}", "0 0 0"),
        ('{{index .Config.Labels "a"}}|{{.Config.Labels.a}}|', "|<no value>|"),
        ("{{range .Config.Env}}x{{else}}none{{end}}{{range $k, $v := .Config.Labels}}x{{end}}", "none"),
        ("{{.Config.Env}} {{.Config.Labels}} {{.Config.Shell}}", "[] map[] []"),
        ("{{json .Config.Env}} {{json .Config.Labels}} {{if .Config.Env}}y{{else}}n{{end}}", "null null n"),
        ('{{join .Config.Env ","}}|{{with .Config.Cmd}}x{{end}}|', "||"),
    ],
)
def test_a_list_or_map_that_is_not_set_is_an_empty_one_to_a_template(layerfs, template, expected):
    make(layerfs, "plain")
    assert layerfs("inspect", "-f", template, "plain") == f"{expected}\n"
    document = layerfs.json("inspect", "plain")[0]["Config"]
    assert (document["Env"], document["Labels"]) == (None, None)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("docker.io/library/app", ["app:1", "app:2"]), ("docker.io/library/app:2", ["app:2"]),
        ("docker.io/library/*", ["app:1", "app:2", "small:1"]), ("docker.io/team/app", ["team/app:1"]),
        ("team/app", ["team/app:1"]), ("*/app", ["host.example/app:1", "team/app:1"]), ("library/app", []),
        ("host.example/*", ["host.example/app:1"]), ("a*p", ["app:1", "app:2"]), ("app:*", ["app:1", "app:2"]),
    ],
)  # fmt: skip
def test_a_list_knows_names_in_full(layerfs, small, pattern, found):
    layerfs("tag", "small:1", "app:1", "app:2", "team/app:1", "host.example/app:1")
    for words in ([pattern], ["-f", f"reference={pattern}"]):
        assert sorted(layerfs.lines("images", "--format", "{{.Repository}}:{{.Tag}}", *words)) == found
