"""What is done again and what is not; a change counts only for what comes after it."""

import os
import threading
import time

import pytest

from layerfs.build import BuildOptions, Output

pytestmark = pytest.mark.root

TEXT = "FROM box\nRUN echo 1 > /one\nCOPY a /a\nRUN cat /a > /two\nCOPY b /b\n"
FILES = {"a": "1", "b": "2"}


def test_nothing_changed(kit):
    first = kit.build(TEXT, FILES)
    assert kit.steps() == (4, 0)
    second = kit.build(TEXT)
    assert kit.steps() == (0, 4)
    assert first.image.id == second.image.id


def test_only_touched(kit):
    kit.build(TEXT, FILES)
    os.utime(kit.context / "a", (1, 1))
    kit.build(TEXT)
    assert kit.steps() == (0, 4)


@pytest.mark.parametrize(
    ("change", "ran"),
    [({"b": "changed"}, 1), ({"a": "changed"}, 3), ({"c": "new, and not copied"}, 0)],
    ids=["the last", "an early one", "another"],
)
def test_a_change_counts_for_what_follows(kit, change, ran):
    kit.build(TEXT, FILES)
    kit.build(TEXT, change)
    assert kit.steps() == (ran, 4 - ran)


def test_a_mode_is_a_change(kit):
    kit.build(TEXT, FILES)
    os.chmod(kit.context / "b", 0o755)
    kit.build(TEXT)
    assert kit.steps() == (1, 3)


def test_a_name_and_a_link_are_changes(kit):
    kit.build("FROM scratch\nCOPY d /d", {"d/a": "1", "d/l": "->a"})
    os.rename(kit.context / "d/a", kit.context / "d/b")
    kit.build("FROM scratch\nCOPY d /d")
    assert kit.steps() == (1, 0)
    (kit.context / "d/l").unlink()
    (kit.context / "d/l").symlink_to("b")
    kit.build("FROM scratch\nCOPY d /d")
    assert kit.steps() == (1, 0)


def test_the_same_content_comes_back(kit):
    kit.build(TEXT, FILES)
    kit.build(TEXT, {"a": "other"})
    kit.build(TEXT, {"a": "1"})
    assert kit.steps() == (0, 4)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("RUN echo a", "RUN echo b"),
        ("RUN echo a", 'RUN ["echo", "a"]'),
        ("ENV X=1\nRUN echo a", "ENV X=2\nRUN echo a"),
        ("USER bob\nRUN echo a", "USER root\nRUN echo a"),
        ("WORKDIR /etc\nRUN echo a", "WORKDIR /bin\nRUN echo a"),
        ("RUN --network=none echo a", "RUN echo a"),
        ("RUN --mount=type=tmpfs,target=/a echo a", "RUN --mount=type=tmpfs,target=/b echo a"),
        ('SHELL ["/bin/sh", "-ec"]\nRUN echo a', "RUN echo a"),
        ("COPY --chown=1 a /a", "COPY --chown=2 a /a"),
        ("COPY --chmod=600 a /a", "COPY --chmod=644 a /a"),
        ("COPY a /a", "COPY a /b"),
        ("RUN <<E\necho 1\nE", "RUN <<E\necho 2\nE"),
        ("COPY <<E /a\n1\nE", "COPY <<E /a\n2\nE"),
    ],
)
def test_what_is_another_step(kit, before, after):
    kit.build(f"FROM box\n{before}", FILES)
    kit.build(f"FROM box\n{before}")
    assert kit.steps()[0] == 0
    kit.build(f"FROM box\n{after}")
    assert kit.steps()[0] == 1 + after.startswith("WORKDIR")


@pytest.mark.parametrize(
    "line", ["LABEL a={}", "CMD {}", "EXPOSE {}", "HEALTHCHECK CMD {}", "ONBUILD RUN {}", "STOPSIGNAL {}"]
)
def test_configuration_is_made_anew_and_costs_no_step(kit, line):
    """Nor can an entry of the cache bring a configuration of another Dockerfile with it."""
    text = "FROM scratch\n{}\nCOPY a /a"
    one = kit.build(text.format(line.format(1)), FILES)
    two = kit.build(text.format(line.format(2)))
    assert kit.steps() == (0, 1)
    assert one.image.id != two.image.id
    assert one.image.diff_ids == two.image.diff_ids
    assert "1" not in str(kit.section()).replace("/usr/local/sbin", "")


def test_arguments_count_from_their_use(kit):
    text = "FROM box\nRUN echo before\nARG A\nRUN echo after"
    kit.build(text, build_args={"A": "1"})
    kit.build(text, build_args={"A": "2"})
    assert kit.steps() == (1, 1)
    kit.build(text, build_args={"A": "2", "HTTP_PROXY": "http://x"})
    assert kit.steps() == (0, 2)


def test_another_base(kit):
    kit.build("FROM box\nRUN echo 1 > /one", tags=("base",))
    kit.build("FROM base\nRUN echo 2 > /two")
    kit.build("FROM box\nRUN echo changed > /one", tags=("base",))
    kit.build("FROM base\nRUN echo 2 > /two")
    assert kit.steps() == (1, 0)


def test_no_cache(kit):
    kit.build(TEXT, FILES)
    kit.build(TEXT, no_cache=True)
    assert kit.steps() == (4, 0)


def test_no_cache_for_a_stage(kit):
    text = "FROM box AS one\nRUN echo 1 > /f\nFROM box AS two\nRUN echo 2 > /g\nCOPY --from=one /f /f"
    kit.build(text)
    kit.build(text, no_cache_filter=("one",))
    assert kit.progress.ran[:3].count("RUN echo 1 > /f") == 1
    assert "RUN echo 2 > /g" in kit.progress.cached


def test_a_stage_with_other_layers_but_the_same_files(kit):
    text = "FROM box AS one\nRUN echo {} > /noise; echo same > /f\nFROM scratch\nCOPY --from=one /f /f"
    kit.build(text.format(1))
    kit.build(text.format(2))
    assert kit.steps() == (1, 1)


def test_unused_stages_are_not_built(kit):
    kit.build("FROM box AS unused\nRUN exit 1\nFROM no.such.registry.invalid/x AS never\nFROM box\nRUN true")
    assert kit.steps() == (1, 0)
    kit.build("FROM box AS one\nRUN echo one\nFROM one AS two\nRUN exit 1", target="one")
    assert kit.steps() == (1, 0)
    kit.build("FROM box\nRUN true\nFROM box\nRUN exit 1", target="0")


def test_independent_stages_run_at_once(kit):
    text = "".join(f"FROM box AS s{n}\nRUN sleep 0.7; echo {n} > /f{n}\n" for n in range(3))
    text += "FROM scratch\n" + "".join(f"COPY --from=s{n} /f{n} /\n" for n in range(3))
    begin = time.monotonic()
    kit.build(text, jobs=4)
    together = time.monotonic() - begin
    begin = time.monotonic()
    kit.build(text, jobs=1, no_cache=True)
    assert together < time.monotonic() - begin - 0.5


def test_a_failure_ends_the_other_stages(kit):
    text = (
        "FROM box AS slow\nRUN sleep 30\nFROM box AS bad\nRUN sleep 0.2; exit 3\nFROM box\n"
        "COPY --from=slow /etc /a\nCOPY --from=bad /etc /b"
    )
    begin = time.monotonic()
    with pytest.raises(Exception, match="exit code 3"):
        kit.build(text, jobs=4)
    assert time.monotonic() - begin < 15


def test_two_builds_at_once(kit):
    (kit.place / "Dockerfile").write_text("FROM box\nRUN echo 1 > /a; sleep 0.2\nRUN echo 2 > /b")
    results, errors = [], []

    def work():
        try:
            results.append(kit.store.build(BuildOptions(context=str(kit.context), file=str(kit.place / "Dockerfile"))))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(results) == 3


def test_layers_of_the_cache_are_kept_and_pruned(kit):
    image = kit.build("FROM box\nRUN echo 1 > /f").image
    kit.store.remove_image("made")
    assert kit.store.layers.has(image.diff_ids[-1])
    kit.build("FROM box\nRUN echo 1 > /f")
    assert kit.steps() == (0, 1)
    kit.store.remove_image("made")
    done = kit.store.build_cache().prune(dry_run=True)
    assert done.reclaimed > 0
    assert kit.store.layers.has(image.diff_ids[-1])
    kit.store.build_cache().prune()
    assert not kit.store.layers.has(image.diff_ids[-1])


def test_pruning_by_age_and_size(kit):
    kit.build("FROM box\nRUN head -c 100000 /dev/urandom > /one\nRUN head -c 100000 /dev/urandom > /two")
    kit.store.remove_image("made")
    cache = kit.store.build_cache()
    assert not cache.prune(older_than=3600).entries
    total = sum(entry.size for entry in cache.list())
    assert len(cache.prune(keep_bytes=total - 1).entries) == 1
    assert len(cache.prune(wanted=lambda entry: "two" in entry.title or "one" in entry.title).entries) == 1


def test_a_layer_that_went_is_made_again(kit):
    image = kit.build("FROM box\nRUN echo 1 > /f").image
    kit.store.remove_image("made", prune=False)
    kit.store.layers.delete(image.diff_ids[-1])
    kit.build("FROM box\nRUN echo 1 > /f")
    assert kit.steps() == (1, 0)
    assert kit.read("/f") == "1\n"


def test_fingerprints_are_remembered_but_not_of_fresh_files(kit):
    old = time.time() - 100
    kit.write({"d/old": "1", "d/new": "2"})
    kit.build("FROM scratch\nCOPY d /d")
    (kit.context / "d/new").write_text("3")
    os.utime(kit.context / "d/new", (old, old))
    kit.build("FROM scratch\nCOPY d /d")
    assert kit.steps() == (1, 0)
    assert kit.read("/d/new") == "3"


# ---- to elsewhere and back ----


@pytest.mark.parametrize(("mode", "wanted"), [("max", (0, 3)), ("min", (1, 2))])
def test_a_cache_goes_to_another_store(kit, tmp_path, mode, wanted):
    from boxes import add_box
    from conftest import Kit

    from layerfs import Store

    text = "FROM box AS one\nRUN echo 1 > /one\nFROM box\nCOPY --from=one /one /one\nRUN echo 2 > /two"
    place = tmp_path / "cache"
    kit.build(text, cache_to=(f"type=local,dest={place},mode={mode}",))
    other = tmp_path / "other"
    other.mkdir()
    with Store.open(other / "root", other / "run") as store:
        add_box(store, other)
        second = Kit(store, other)
        second.build(text, cache_from=(f"type=local,src={place}",))
        assert second.steps() == wanted
        assert second.read("/two") == "2\n"
        assert [image.names for image in store.images.list() if not image.names] == []
        store.snapshots.release_layers()


def test_a_cache_that_is_not_there_is_no_error(kit, tmp_path):
    kit.build("FROM box\nRUN true", cache_from=(f"type=local,src={tmp_path}/none",))
    assert any("none" in text for text in kit.result.warnings)


@pytest.mark.parametrize("text", ["type=gha", "type=local", "type=registry", "type=local,dest=x,mode=all", "x=y"])
def test_wrong_caches(kit, text):
    from layerfs.errors import InvalidInputError

    with pytest.raises(InvalidInputError, match="cache"):
        kit.build("FROM box", cache_to=(text,))


@pytest.mark.parametrize(
    ("kind", "instead"), [("inline", "type=registry,ref="), ("gha", "type=local,dest="), ("s3", "there are")]
)
def test_what_to_write_instead(kit, kind, instead):
    from layerfs.errors import InvalidInputError

    with pytest.raises(InvalidInputError, match=f"'{kind}' is not known") as caught:
        kit.build("FROM box", cache_to=(f"type={kind}",))
    assert instead in caught.value.hint


# ---- the same again ----


def test_two_clean_caches_one_digest(kit):
    text = (
        "FROM box\nARG A=1\nWORKDIR /made/here\nRUN echo 1 > one; mkdir d; rm /data/seed; "
        "touch -t 200101010000.00 old\n"
        "COPY . .\nRUN ls > list\nLABEL a=b"
    )
    kit.write({"a": "1", "s/b": "2"})
    ids = []
    for _ in range(2):
        ids.append(kit.build(text, build_args={"SOURCE_DATE_EPOCH": "1700000000"}, no_cache=True).image.target.digest)
        time.sleep(1.1)
    assert ids[0] == ids[1]
    assert kit.config()["created"] == "2023-11-14T22:13:20Z"
    assert {entry["created"] for entry in kit.config()["history"][-6:]} == {"2023-11-14T22:13:20Z"}
    assert kit.stat("/made/here/one").mtime_ns == 1_700_000_000 * 10**9
    assert kit.stat("/made/here/old").mtime_ns < 1_000_000_000 * 10**9


@pytest.fixture
def registry(monkeypatch, tmp_path):
    from fake_registry import FakeRegistry

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with FakeRegistry() as registry:
        yield registry


def test_a_cache_in_a_registry(kit, registry, tmp_path):
    from boxes import add_box
    from conftest import Kit

    from layerfs import Store

    text = "FROM box AS one\nRUN echo 1 > /one\nFROM box\nCOPY --from=one /one /one\nRUN echo 2 > /two"
    name = f"{registry.host}/team/cache:latest"
    kit.build(text, cache_to=(f"type=registry,ref={name},mode=max",))
    assert not any(name in image.names for image in kit.store.images.list())
    mine = kit.build("FROM box\nLABEL a=b", tags=(name,)).image
    kit.build(text, cache_to=(f"type=registry,ref={name},mode=max",))
    assert kit.store.images.get(name).id == mine.id
    other = tmp_path / "other"
    other.mkdir()
    with Store.open(other / "root", other / "run") as store:
        add_box(store, other)
        second = Kit(store, other)
        second.build(text, cache_from=(name,))
        assert second.steps() == (0, 3)
        assert sorted(image.familiar_names for image in store.images.list()) == [("box:latest",), ("made:latest",)]
        store.snapshots.release_layers()


def test_bases_of_a_registry(kit, registry):
    """What is not here is pulled; with ``pull`` also what is here and newer there."""
    name = f"{registry.host}/team/base:latest"
    for number in (1, 2):
        kit.build(f"FROM box\nRUN echo {number} > /n", tags=(name,), outputs=(Output("registry"),))
        kit.store.remove_image(name)
        if number == 1:
            kit.build(f"FROM {name}\nRUN cat /n > /o")
            assert kit.read("/o") == "1\n"
            kit.store.images.tag("made", "kept")
            kit.store.images.tag(str(kit.store.images.get(name).id), "old")
    kit.store.images.tag("old", name)
    kit.build(f"FROM {name}\nRUN cat /n > /o")
    assert kit.read("/o") == "1\n"
    kit.build(f"FROM {name}\nRUN cat /n > /o", pull=True)
    assert kit.read("/o") == "2\n"
