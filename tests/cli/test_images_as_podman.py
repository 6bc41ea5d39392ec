"""What users of podman know of images: ``untag``, ``exists``, ``tree``, sorting, more filters, removal of all."""

import re

import pytest

from .test_images import at, make


@pytest.fixture
def stacked(layerfs, tmp_path):
    """base:1 of one layer, app:1 of three upon it, other:1 of two upon it; (base, app, other) as IDs."""
    base = make(layerfs, "base:1", b"b" * 5000, "LABEL kind=base", environment=at(1_700_000_000))
    (tmp_path / "a").write_bytes(b"a" * 100)
    for name, lines in (("app", "COPY a /one\nENV A=1\nCOPY a /two\n"), ("other", "COPY a /other\n")):
        (tmp_path / "Dockerfile").write_text(f"FROM base:1\n{lines}")
        layerfs("build", "-q", "-t", f"{name}:1", tmp_path)
    ids = (layerfs("inspect", "-f", "{{.Id}}", f"{name}:1").strip() for name in ("app", "other"))
    return base, *ids


def names(layerfs, *words):
    return layerfs.lines("images", "--format", "{{.Repository}}:{{.Tag}}", *words)


def test_untag_takes_names_and_leaves_the_image(layerfs, small):
    layerfs("tag", "small:1", "a:1", "b:1", "c")
    assert layerfs("untag", "small:1", "a:1", "docker.io/library/c:latest") == ""
    assert sorted(names(layerfs)) == ["b:1", "small:1"]
    layerfs("image", "untag", "b:1")
    assert names(layerfs) == ["<none>:<none>"]
    assert layerfs.lines("images", "-q", "--no-trunc") == [small]
    layerfs("untag", small)  # nothing to take
    layerfs("tag", small, "again")
    assert names(layerfs) == ["again:latest"]


def test_untag_takes_all_of_what_it_is_told_or_nothing(layerfs, small):
    layerfs("tag", "small:1", "a:1")
    make(layerfs, "other:1", b"other")
    for wrong in ("other:1", "nope:1", "small"):
        assert "no name of it" in layerfs.error("untag", "small:1", "a:1", wrong, code=1)
    layerfs.error("untag", "nope", code=1)
    layerfs.error("untag", "small:1", "UPPER", code=2)
    assert "usage: layerfs untag IMAGE" in layerfs.error("untag", code=2)
    assert sorted(names(layerfs)) == ["a:1", "other:1", "small:1"]


def test_image_exists(layerfs, small):
    for text in ("small:1", small, small[7:19], "docker.io/library/small:1"):
        assert layerfs("image", "exists", text) == ""
    for text in ("small", "nope:1", "f" * 64):
        result = layerfs.process("image", "exists", text, code=1)
        assert (result.stdout, result.stderr) == (b"", b"")
    layerfs.error("image", "exists", "UP PER", code=2)


def test_image_tree_shows_whose_layers_they_are(layerfs, stacked):
    _, app, _ = stacked
    layerfs("tag", "app:1", "app:2")
    lines = layerfs.lines("image", "tree", "app:1")
    assert lines[:4] == [f"Image ID: {app[7:19]}", "Tags:     [app:1 app:2]", "Size:     5.2kB", "Image Layers"]
    layers = [layer[7:19] for layer in layerfs.json("inspect", "app:1")[0]["RootFS"]["Layers"]]
    assert lines[4:] == [
        f"├── ID: {layers[0]} Size: 5kB Top Layer of: [base:1]",
        f"├── ID: {layers[1]} Size: 100B",
        f"└── ID: {layers[2]} Size: 100B Top Layer of: [app:1 app:2]",
    ]


def test_image_tree_shows_what_stands_on_an_image(layerfs, stacked):
    layers = {
        name: [layer[7:19] for layer in layerfs.json("inspect", f"{name}:1")[0]["RootFS"]["Layers"]]
        for name in ("app", "other")
    }
    lines = layerfs.lines("image", "tree", "--whatrequires", "base:1")
    assert lines[4] == f"└── ID: {layers['app'][0]} Size: 5kB Top Layer of: [base:1]"
    branches = {
        f"ID: {layers['app'][1]} Size: 100B": ["└── ID: " + layers["app"][2] + " Size: 100B Top Layer of: [app:1]"],
        f"ID: {layers['other'][1]} Size: 100B Top Layer of: [other:1]": [],
    }
    first, second = sorted(branches)
    expected = [f"    ├── {first}", *(f"    │   {line}" for line in branches[first])]
    expected += [f"    └── {second}", *(f"        {line}" for line in branches[second])]
    assert lines[5:] == expected
    assert layerfs.lines("image", "tree", "--whatrequires", "other:1")[4:] == [
        f"├── ID: {layers['other'][0]} Size: 5kB Top Layer of: [base:1]",
        f"└── ID: {layers['other'][1]} Size: 100B Top Layer of: [other:1]",
    ]


def test_image_tree_of_an_image_without_layers(layerfs, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=1\n")
    layerfs("build", "-q", "-t", "bare", tmp_path)
    assert layerfs.lines("image", "tree", "bare")[3:] == ["No Image Layers"]
    layerfs.error("image", "tree", "nope", code=1)


def test_images_are_sorted_as_one_likes(layerfs):
    for name, count, when in (("b:1", 30, 1_600_000_000), ("a:9", 1000, 1_500_000_000), ("c:5", 7, 1_700_000_000)):
        make(layerfs, name, b"x" * count, environment=at(when))
    assert names(layerfs) == names(layerfs, "--sort", "created") == ["c:5", "b:1", "a:9"]
    assert names(layerfs, "--sort", "repository") == ["a:9", "b:1", "c:5"]
    assert names(layerfs, "--sort", "tag") == ["b:1", "c:5", "a:9"]
    assert names(layerfs, "--sort=size") == ["c:5", "b:1", "a:9"]
    ids = layerfs.lines("images", "-q", "--sort", "id")
    assert ids == sorted(ids)
    assert len(ids) == 3
    assert "wanted is one of created, id" in layerfs.error("images", "--sort", "colour", code=2)


def test_images_without_the_line_above(layerfs, small):
    assert len(layerfs.lines("images", "-n")) == len(layerfs.lines("images", "--noheading")) == 1
    assert layerfs("images", "--noheading", "--format", "table {{.Tag}}") == "1\n"
    assert layerfs.lines("images", "-qn") == [small[7:19]]


def test_images_by_id_digest_and_use(layerfs, stacked):
    base, app, other = stacked
    assert names(layerfs, "-f", f"id={base[7:15]}") == names(layerfs, "-f", f"id={base}") == ["base:1"]
    assert sorted(names(layerfs, "-f", f"id={app[7:]}", "-f", f"id={other[7:]}")) == ["app:1", "other:1"]
    assert names(layerfs, "-f", "id=" + "f" * 20) == []
    assert names(layerfs, base[7:19]) == names(layerfs, base) == ["base:1"]
    manifest = layerfs("inspect", "-f", "{{.Digest}}", "base:1").strip()
    assert re.fullmatch("sha256:[0-9a-f]{64}", manifest)
    assert manifest != base
    assert names(layerfs, "-f", f"digest={manifest}") == ["base:1"]
    assert sorted(names(layerfs, "-f", "after=base:1")) == sorted(names(layerfs, "-f", "since=base:1"))
    assert sorted(names(layerfs, "-f", "containers=false")) == ["app:1", "base:1", "other:1"]
    layerfs("create", "--name", "one", "app:1", "/x")
    assert names(layerfs, "-f", "containers=true") == ["app:1"]
    assert sorted(names(layerfs, "-f", "containers=false")) == ["base:1", "other:1"]
    layerfs("rm", "one")


def test_rmi_of_all(layerfs, stacked):
    layerfs("tag", "base:1", "again:1")
    make(layerfs, "base:1", b"new")  # so that the other has one name, and this one too
    make(layerfs, "new:1", b"newer")
    make(layerfs, "new:1", b"newest")  # one without a name
    layerfs("create", "--name", "one", "app:1", "/x")
    result = layerfs.process("rmi", "-a", code=1)
    assert result.stderr.count(b"\n") == 1
    assert b"app:1: used by container" in result.stderr
    assert names(layerfs) == ["app:1"]
    assert result.stdout.decode().count("Untagged: ") == 4
    layerfs("rmi", "--all", "--force")
    assert layerfs("images", "-q") == ""
    assert layerfs("rmi", "-a") == layerfs("rmi", "-fa") == ""
    layerfs("rm", "one")
    assert "--all goes without names" in layerfs.error("rmi", "-a", "small:1", code=2)
    layerfs.error("rmi", code=2)


def test_rmi_takes_layers_with_the_last_image_that_has_them(layerfs, stacked):
    output = layerfs.lines("rmi", "app:1", "other:1", "base:1")
    assert [line for line in output if line.startswith("Untagged")] == [
        "Untagged: app:1", "Untagged: other:1", "Untagged: base:1",
    ]  # fmt: skip
    assert sum(line.startswith("Deleted: ") for line in output) >= 4
    layerfs("builder", "prune", "-af")
    layerfs("image", "prune", "-f")
    assert not list((layerfs.place / "root" / "layers").rglob("*/*"))


def test_rmi_ignores_what_is_not_there(layerfs, small):
    result = layerfs.process("rmi", "--ignore", "nope", "small:1")
    assert result.stderr == b""
    assert result.stdout.startswith(b"Untagged: small:1\n")
    assert layerfs("rmi", "-i", "nope") == ""


def test_prune_of_dangling_images_and_of_others(layerfs):
    old = make(layerfs, "a", b"1")
    new = make(layerfs, "a", b"2")
    assert old in layerfs("image", "prune", "--dry-run", "--filter", "dangling=true")
    assert new not in layerfs("image", "prune", "--dry-run", "--filter", "dangling=true")
    assert new in layerfs("image", "prune", "--dry-run", "--filter", "dangling=false")
    assert new in layerfs("image", "prune", "--dry-run", "--filter", "dangling=0")
    layerfs.error("image", "prune", "-f", "--filter", "dangling=maybe", code=2)
    layerfs.error("container", "prune", "-f", "--filter", "dangling=true", code=2)
    layerfs("image", "prune", "-f", "--filter", "dangling=false")
    assert layerfs("images", "-q") == ""


def test_save_of_several_as_podman_writes_it(layerfs, small, tmp_path):
    make(layerfs, "other:1", b"o")
    layerfs("save", "-m", "-o", tmp_path / "m.tar", "small:1", "other:1", "small:1")
    layerfs("rmi", "-a")
    assert sorted(layerfs.lines("load", "-q", "-i", tmp_path / "m.tar")) == [
        "Loaded image: other:1", "Loaded image: small:1",
    ]  # fmt: skip


def test_df_shows_containers_volumes_and_the_cache_one_by_one(layerfs, stacked):
    layerfs("create", "--name", "one", "-v", "data:/data", "app:1", "/x")
    (layerfs.place / "root/volumes/data/_data/f").write_bytes(bytes(10_000))
    sections = layerfs("system", "df", "-v").split("\n\n")
    assert sections[0] == "Images space usage:"
    assert sections[2] == "Containers space usage:"
    assert re.fullmatch(
        r"CONTAINER ID +IMAGE +COMMAND +LOCAL VOLUMES +SIZE +CREATED +STATUS +NAMES\n"
        r'[0-9a-f]{12} +app:1 +"/x" +1 +\S+ +.* ago +Created +one',
        sections[3],
    )
    assert sections[4:6] == [
        "Local Volumes space usage:",
        "VOLUME NAME   LINKS     SIZE\ndata          1         16.38kB",
    ]
    assert re.match(r"Build cache usage: \S+$", sections[6])
    assert re.match(r"ID +TYPE +SIZE +LAST USED +SHARED", sections[7])
    assert "--format and --verbose" in layerfs.error("system", "df", "-v", "--format", "json", code=2)
    layerfs("rm", "-v", "one")


def test_prune_of_volumes_takes_those_with_a_name_when_all_are_meant(layerfs):
    layerfs("volume", "create", "named")
    layerfs("volume", "prune", "-f", "--filter", "all=false")
    assert layerfs.lines("volume", "ls", "-q") == ["named"]
    layerfs.error("volume", "prune", "-f", "--filter", "all=maybe", code=2)
    layerfs("volume", "prune", "-f", "--filter", "all=1")
    assert layerfs.lines("volume", "ls", "-q") == []
