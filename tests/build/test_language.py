"""What docker and buildah take in a Dockerfile beside the plain cases: where others' own suites look."""

import os

import pytest
import tarbuild as tar

from layerfs.build.check import check_dockerfile
from layerfs.build.parser import parse
from layerfs.errors import BuildError, InvalidInputError

pytestmark = pytest.mark.root


def test_history_has_what_variables_mean(kit):
    kit.build(
        "FROM scratch\nMAINTAINER me\nENV a=7\nENV c=$a\nLABEL d=$a\nUSER $a\nWORKDIR /$a/..\n"
        "STOPSIGNAL ${x:-9}\nEXPOSE $x"
    )
    history = kit.config()["history"]
    assert [entry["created_by"] for entry in history][2:] == [
        "ENV c=7",
        "LABEL d=7",
        "USER 7",
        "WORKDIR /",
        "STOPSIGNAL 9",
        "EXPOSE $x",
    ]
    assert {entry["author"] for entry in history} == {"me"}


@pytest.mark.parametrize("dest", [".", "..", "/there", "/there/.", "/link", "$NOTHING"])
def test_several_sources_into_a_directory_without_a_slash(kit, dest):
    files = {"a1": "1", "a2": "2"}
    kit.build(f"FROM box\nRUN mkdir /there && ln -s there /link\nWORKDIR /w/x\nCOPY a1 a2 {dest}\n", files)
    wanted = {"..": "/w", ".": "/w/x", "$NOTHING": "/w/x"}.get(dest, "/there")
    assert [path for path in kit.paths(wanted) if path.startswith("a")] == ["a1", "a2"]
    kit.build(f"FROM box\nRUN mkdir /there && ln -s there /link\nWORKDIR /w/x\nCOPY a* {dest}\n")
    assert [path for path in kit.paths(wanted) if path.startswith("a")] == ["a1", "a2"]


@pytest.mark.parametrize("dest", ["/new/.", "/new/sub/.."])
def test_several_sources_into_a_directory_that_dots_make(kit, dest):
    kit.build(f"FROM box\nCOPY a1 a2 {dest}\n", {"a1": "1", "a2": "2"})
    assert kit.paths("/new")[:2] == ["a1", "a2"]


def test_a_new_directory_is_as_old_as_the_latest_of_its_files(kit):
    kit.write({"a": "1", "b": "2"})
    for name, when in (("a", 2000), ("b", 1000)):
        os.utime(kit.context / name, (when, when))
    kit.build("FROM scratch\nCOPY a b /new/\n")
    assert (kit.paths("/new"), kit.stat("/new").mtime_ns) == (["a", "b"], 2000 * 10**9)


def test_dots_after_a_link_are_of_the_path_as_it_is_written(kit):
    kit.build("FROM scratch\nCOPY link/../a /a\n", {"a": "1", "d/a": "2", "d/sub/b": "3", "link": "->d/sub"})
    assert kit.read("/a") == "1"


def test_several_sources_into_what_is_no_directory(kit):
    files = {"a1": "1", "a2": "2"}
    for flag, dest in (("", "/new"), ("--link ", "/etc")):
        with pytest.raises(InvalidInputError, match="with several sources the destination is a directory"):
            kit.build(f"FROM box\nCOPY {flag}a1 a2 {dest}\n", files)


@pytest.mark.parametrize("flag", ["", "--link "])
def test_an_empty_destination_is_the_working_directory(kit, flag):
    kit.build(f'FROM box\nENV NONE=""\nWORKDIR /w\nCOPY {flag}a $NONE\n', {"a": "x"})
    assert kit.read("/w/a") == "x"


def test_escapes_in_a_heredoc(kit):
    text = "\"$A\" '$A' \\$A \\\\ \\n\nend\\\n\n"
    kit.build(f'FROM box\nARG A=1\nCOPY <<EOF /plain\n{text}EOF\nCOPY <<"EOF" /quoted\n{text}EOF\n')
    assert kit.read("/plain") == "\"1\" '1' $A \\ n\nend\n\n"
    assert kit.read("/quoted") == text
    kit.build("# escape=`\nFROM box\nARG A=1\nCOPY <<EOF /plain\n`$A \\$A\nEOF\n")
    assert kit.read("/plain") == "`1 $A\n"


def test_the_mode_of_a_heredoc(kit):
    kit.build("FROM scratch\nCOPY <<E /h\nhi\nE\nCOPY --chmod=4711 <<E /i\nhi\nE\n")
    assert (kit.stat("/h").mode & 0o7777, kit.stat("/i").mode & 0o7777) == (0o644, 0o4711)


def test_the_maintainer_is_what_is_written(kit):
    kit.build('FROM box\nENV A=1\nMAINTAINER "Some One \\\n<one@example.org>" $A\n')
    assert kit.config()["author"] == '"Some One <one@example.org>" $A'
    assert kit.config()["history"][-1]["created_by"] == 'MAINTAINER "Some One <one@example.org>" $A'


@pytest.mark.parametrize(("last", "target", "wanted"), [("", None, "default"), (" AS c", None, "c"), ("", "b", "b")])
def test_the_name_of_what_is_built(kit, last, target, wanted):
    text = "FROM box AS a\nRUN echo -$TARGETSTAGE > /none\nARG TARGETSTAGE\nRUN echo $TARGETSTAGE > /f\nFROM a AS b\n"
    kit.build(f"{text}FROM a{last}\n", target=target)
    assert (kit.read("/none"), kit.read("/f")) == ("-\n", f"{wanted}\n")


def test_ports_as_others_take_them(kit):
    written = "$P $Q/tcp 80:8080 127.0.0.1:53:5353/udp 81-82:91-92"
    kit.build(f'FROM box\nARG P="1000 2000/udp"\nENV Q=3000\nEXPOSE {written}\n')
    ports = ["91/tcp", "92/tcp", "1000/tcp", "2000/udp", "3000/tcp", "5353/udp", "8080/tcp"]
    assert list(kit.section()["ExposedPorts"]) == ports
    assert any("ExposeInvalidFormat" in note for note in kit.progress.notes)
    with pytest.raises(InvalidInputError, match="is not a port"):
        kit.build("FROM box\nEXPOSE some.host:80\n")


def test_the_file_without_a_name_for_it(kit):
    files = {"Containerfile": "FROM box\nENV IS=third\n"}
    for name, word in (("Containerfile", "third"), ("dockerfile", "second"), ("Dockerfile", "first")):
        files[name] = f"FROM box\nENV IS={word}\n"
        kit.write(files)
        kit.build("", file=None)
        assert f"IS={word}" in kit.section()["Env"]


def test_copy_of_a_url_says_what_takes_it(kit):
    with pytest.raises(InvalidInputError, match="a URL is no source of COPY") as caught:
        kit.build("FROM box\nCOPY https://example.org/f /\n")
    assert "ADD" in caught.value.hint


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("trigger", ["COPY --from=src /in /out", "RUN --mount=from=src,target=/m cp /m/in /out"])
def test_a_trigger_needs_a_stage(kit, jobs, trigger):
    """Of a stage, and of an image, about which nothing is known when the stages are chosen."""
    kit.build(f"FROM box\nONBUILD {trigger}\n", tags=("trigger",))
    stages = (
        "FROM box AS never\nRUN false\nFROM box AS below\nRUN echo 12 > /in\nFROM below AS src\nRUN echo 3 >> /in\n"
    )
    for base in ("trigger", "own"):
        kit.build(
            f"{stages}FROM box AS own\nONBUILD {trigger}\n"
            f"FROM {base} AS one\nRUN cat /out /out > /one\nFROM {base} AS two\nFROM one\nCOPY --from=two /out /two\n",
            jobs=jobs,
        )
        assert (kit.read("/one"), kit.read("/two")) == ("12\n3\n12\n3\n", "12\n3\n")


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_stage_that_only_a_trigger_needs_fails(kit, jobs):
    kit.build("FROM box\nONBUILD COPY --from=src /in /out\n", tags=("trigger",))
    text = "FROM box AS src\nRUN exit 7\nFROM trigger AS one\nFROM trigger\nCOPY --from=one /out /x\n"
    with pytest.raises(BuildError, match=":2: RUN exit 7"):
        kit.build(text, jobs=jobs)


def _archive(*members):
    return tar.archive(*(make(*arguments, mtime=1_600_000_000) for make, *arguments in members))


@pytest.mark.parametrize(
    ("before", "members", "wanted"),
    [
        ("mkdir /d && touch /d/old", [(tar.file, "d", b"new")], {"/d": "file"}),
        ("touch /d", [(tar.directory, "d"), (tar.file, "d/f", b"new")], {"/d": "directory", "/d/f": "file"}),
        (
            "mkdir /r && ln -s r /d",
            [(tar.directory, "d"), (tar.file, "d/f", b"new")],
            {"/d": "directory", "/d/f": "file"},
        ),
        ("mkdir /r && ln -s r /d", [(tar.file, "d/s/f", b"new")], {"/d": "symlink", "/r/s/f": "file"}),
        ("mkdir -p /d/old", [(tar.symlink, "d", "bin")], {"/d": "symlink"}),
        (
            "mkdir /d && ln -s d /l",
            [(tar.file, "l/f", b"1"), (tar.file, "l/g", b"2")],
            {"/d/f": "file", "/d/g": "file"},
        ),
        ("ln -s nowhere /d", [(tar.file, "d/f", b"new")], {"/d": "directory", "/d/f": "file"}),
    ],
)
def test_what_an_archive_takes_the_place_of(kit, before, members, wanted):
    kit.build(f"FROM box\nRUN {before}\nADD a.tar /\n", {"a.tar": _archive(*members)})
    entries = kit.entries()
    assert {path: entries[path].type for path in wanted} == wanted
    assert "/d/old" not in entries


def test_directories_that_an_archive_implies_stay_as_they_are(kit):
    text = "FROM box\nRUN mkdir -m 700 /d && chown 5:6 /d && mkdir /e\nADD a.tar /\nADD a.tar /new/\n"
    files = {"a.tar": _archive((tar.file, "d/f", b"1"), (tar.file, "tmp/g", b"2"), (tar.directory, "e"))}
    kit.build(text, files)
    found = kit.stat("/d")
    assert (found.mode & 0o7777, found.uid, found.gid) == (0o700, 5, 6)
    assert kit.stat("/tmp").mode & 0o7777 == 0o1777
    assert kit.stat("/new/d").mode & 0o7777 == 0o755
    assert kit.read("/d/f") == "1"


def test_proxies_in_both_spellings(kit):
    text = "FROM box\nENV no_proxy=own\nRUN echo $HTTP_PROXY $http_proxy $NO_PROXY $no_proxy $FTP_PROXY > /f\n"
    kit.build(text, build_args={"http_proxy": "one", "NO_PROXY": "two", "ftp_proxy": "low", "FTP_PROXY": "high"})
    assert kit.read("/f") == "one one two own high\n"
    assert "one" not in str(kit.config()["history"])


def test_a_file_that_is_only_in_the_context(kit, monkeypatch):
    monkeypatch.chdir(kit.place)
    kit.build(
        "",
        {"sub/File": "FROM box\nENV IS=inside\nCOPY . /all/\n", "sub/File.dockerignore": "a\n", "a": "1"},
        file="sub/File",
    )
    assert "IS=inside" in kit.section()["Env"]
    assert kit.paths("/all") == ["sub", "sub/File", "sub/File.dockerignore"]
    (kit.place / "File").write_text("FROM box\nENV IS=outside\n")
    kit.build("", {"File": "FROM box\n"}, file="File")
    assert "IS=outside" in kit.section()["Env"]


def test_heredocs_with_a_blank_before_the_name(kit):
    kit.build(
        "FROM box\nRUN << EOF\necho 1 > /a\nEOF\nRUN cat <<- END > /b\n\t2\n\tEND\nCOPY <<  text /c/\n3\ntext\n"
        "RUN echo $((1 << 2)) > /d\nRUN <<'one two'\necho 4 > /e\none two\nRUN <<it\\'s\necho 5 > /f\nit's\n"
    )
    assert [kit.read(path) for path in ("/a", "/b", "/c/text", "/d", "/e", "/f")] == [
        "1\n",
        "2\n",
        "3\n",
        "4\n",
        "4\n",
        "5\n",
    ]


def test_the_type_of_a_mount_in_a_variable(kit):
    text = "FROM box\nARG KIND=cache\nENV WHERE=/one\nRUN --mount=type=$KIND,id=c,target=$WHERE echo 1 > /one/f\n"
    kit.build(f"{text}RUN --mount=type=cache,id=c,target=/two cp /two/f /f\n")
    assert kit.read("/f") == "1\n"
    with pytest.raises(InvalidInputError, match=r":4: .*unknown type 'other'"):
        kit.build(text, build_args={"KIND": "other"})


@pytest.mark.parametrize("line", ["COPY --from=$A /f /", "RUN --mount=from=$A,target=/x true"])
def test_from_takes_no_variables(kit, line):
    with pytest.raises(InvalidInputError, match=r":3: .*from takes no variables") as caught:
        kit.build(f"FROM box\nARG A=box\n{line}\n")
    assert caught.value.hint == "name a stage: FROM $NAME AS name"


def test_a_command_that_is_taken_back(kit):
    kit.build('FROM box\nENTRYPOINT ["/a"]\nCMD ["b"]\nENTRYPOINT\n')
    assert (kit.section().get("Entrypoint"), kit.section().get("Cmd")) == (None, ["b"])
    kit.build('FROM box\nENTRYPOINT ["/a"]\nCMD\n')
    assert (kit.section().get("Entrypoint"), kit.section().get("Cmd")) == (["/a"], None)


def test_an_entrypoint_drops_the_command_of_another_stage(kit):
    kit.build('FROM scratch AS one\nCMD ["c"]\nFROM one\nENTRYPOINT ["e"]')
    assert "Cmd" not in kit.section()


def test_several_archives_need_no_slash(kit):
    files = {f"{name}.tar": _archive((tar.file, name, b"1")) for name in ("one", "two")}
    kit.build("FROM box\nADD *.tar /new\n", files)
    assert kit.paths("/new") == ["one", "two"]


def test_arguments_stand_in_history_where_they_were_first(kit):
    kit.build("FROM box\nARG b=1\nARG a=2\nARG b=3\nRUN true\n")
    assert kit.config()["history"][-1]["created_by"] == "RUN |2 b=3 a=2 /bin/sh -c true"


@pytest.mark.parametrize(
    ("chmod", "wanted"), [("g=u", 0o664), ("o=g,g-u", 0o604), ("a=u", 0o666), ("go+u", 0o666), ("u=g,+x", 0o555)]
)
def test_modes_taken_from_others(kit, chmod, wanted):
    kit.write({"a": "1"})
    (kit.context / "a").chmod(0o644)
    kit.build(f"FROM scratch\nCOPY --chmod={chmod} a /\n")
    assert kit.stat("/a").mode & 0o7777 == wanted


@pytest.mark.parametrize(
    ("text", "given", "wanted"),
    [
        ("FROM a\nCOPY $LOST /x", {}, "2 UndefinedVar"),
        ("FROM a\nARG KEPT=1\nADD --chown=$KEP a /x", {}, "3 UndefinedVar (did you mean $KEPT?)"),
        ("FROM a\nARG KEPT\nCOPY --chmod=$KEPT f$KEPT $KEPT/", {}, ""),
        ('FROM a\nSHELL ["/bin/other"]\nCMD x', {}, ""),
        ('FROM a AS b\nSHELL ["/bin/other"]\nFROM b\nENTRYPOINT x', {}, ""),
        ("FROM a\nENTRYPOINT\nCMD x", {}, "3 JSONArgsRecommended"),
        ("FROM --platform=linux/amd64 a AS on_amd64", {}, ""),
        ("FROM --platform=linux/amd64 a AS other", {}, "1 FromPlatformFlagConstDisallowed"),
        ("ARG V\nFROM a:$V", {"V": "1"}, "2 InvalidDefaultArgInFrom"),
        ("ARG V=b:\nFROM a$V", {"V": "b:1"}, "2 InvalidDefaultArgInFrom"),
        ("ARG V\nFROM a$V", {"V": "b"}, ""),
        ("ARG V=Up\nFROM a AS up\nFROM $V", {}, ""),
        ("FROM --platform=$BULIDPLATFORM a", {}, "1 UndefinedArgInFrom (did you mean BUILDPLATFORM?)"),
        ("FROM a as b", {"BUILDKIT_DOCKERFILE_CHECK": "skip=all"}, ""),
        ("# check=skip=all\nFROM a as b", {"BUILDKIT_DOCKERFILE_CHECK": "skip=StageNameCasing"}, "2 FromAsCasing"),
    ],
)
def test_warnings(text, given, wanted):
    found, _ = check_dockerfile(parse(text.encode()), given)
    told = [f"{each.line} {each.rule} {each.reason[each.reason.find('(did') :]}" for each in found]
    assert "\n".join(each if "(did" in each else " ".join(each.split()[:2]) for each in told) == wanted


def test_owners_of_which_one_half_is_empty(kit):
    kit.build("FROM box\nCOPY --chown=:audio a /x\nCOPY --chown=bob:$NONE a /y\nCOPY --chown=: a /z\n", {"a": "1"})
    assert [(kit.stat(path).uid, kit.stat(path).gid) for path in ("/x", "/y", "/z")] == [(0, 29), (1000, 0), (0, 0)]
    kit.build("FROM scratch\nCOPY --chown=:5 a /x\n")
    assert (kit.stat("/x").uid, kit.stat("/x").gid) == (0, 5)


def test_a_context_for_an_image_of_another_spelling(kit):
    kit.build("FROM box\nENV IS=other\n", tags=("other",))
    for image, name in (("a/b:latest", "a/b"), ("a/b", "docker.io/a/b:latest"), ("Part", "part")):
        text = f"FROM box AS part\nFROM {image}\n" if image == "Part" else f"FROM {image}\n"
        kit.build(text, contexts={name: "docker-image://other"})
        assert "IS=other" in kit.section()["Env"]


def test_scratch_for_an_image(kit):
    kit.build("FROM box\nCOPY a /\n", {"a": "1"}, contexts={"box": "docker-image://scratch"})
    assert kit.paths("/") == ["a"]


@pytest.mark.parametrize(
    ("mount", "hint"),
    [("type=tmp,target=/x", "tmpfs"), ("typ=tmpfs,target=/x", "type"), ("type=cache,target=/x,sharin=x", "sharing")],
)
def test_what_was_meant_by_a_mount(mount, hint):
    with pytest.raises(InvalidInputError) as caught:
        parse(f"FROM a\nRUN --mount={mount} true\n".encode())
    assert caught.value.hint == f"did you mean {hint}?"
