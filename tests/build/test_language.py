"""What docker and buildah take in a Dockerfile beside the plain cases: where others' own suites look."""

import pytest

from layerfs.errors import BuildError, InvalidInputError

pytestmark = pytest.mark.root


@pytest.mark.parametrize("dest", [".", "..", "/there", "/there/.", "/link", "$NOTHING"])
def test_several_sources_into_a_directory_without_a_slash(kit, dest):
    files = {"a1": "1", "a2": "2"}
    kit.build(f"FROM box\nRUN mkdir /there && ln -s there /link\nWORKDIR /w/x\nCOPY a1 a2 {dest}\n", files)
    wanted = {"..": "/w", ".": "/w/x", "$NOTHING": "/w/x"}.get(dest, "/there")
    assert [path for path in kit.paths(wanted) if path.startswith("a")] == ["a1", "a2"]
    kit.build(f"FROM box\nRUN mkdir /there && ln -s there /link\nWORKDIR /w/x\nCOPY a* {dest}\n")
    assert [path for path in kit.paths(wanted) if path.startswith("a")] == ["a1", "a2"]


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
    stages = "FROM box AS never\nRUN false\nFROM box AS below\nRUN echo 12 > /in\nFROM below AS src\nRUN echo 3 >> /in\n"
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
