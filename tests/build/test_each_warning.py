"""Each warning of ``--check``: the lines that have it, and their neighbours that do not."""

import pytest

from layerfs.build.check import check_dockerfile
from layerfs.build.ignore import Matcher
from layerfs.build.parser import parse


def rules(text, given=None, ignore=None):
    found, _ = check_dockerfile(parse(text.encode()), given or {}, ignore)
    return [f"{each.line} {each.rule}" for each in found]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("FROM a\nrun b\nRUN c", ["2 ConsistentInstructionCasing"]),
        ("from a\nRUN b\nrun c", ["2 ConsistentInstructionCasing"]),
        ("from a\nrun b", []),
        ("FROM a\nRun b", ["2 ConsistentInstructionCasing"]),
        ("FROM a AS Up", ["1 StageNameCasing"]),
        ("FROM a AS context", ["1 ReservedStageName"]),
        ("FROM a AS x\nFROM b AS x", ["2 DuplicateStageName"]),
        ("FROM a as b", ["1 FromAsCasing"]),
        ("from a AS b", ["1 FromAsCasing"]),
        ("FROM a\nRUN b \\\n\n c", ["3 NoEmptyContinuation"]),
        ("FROM a\nMAINTAINER b", ["2 MaintainerDeprecated"]),
        ("FROM a\nWORKDIR b", ["2 WorkdirRelativePath"]),
        ("FROM a\nWORKDIR /b\nWORKDIR c", []),
        ("FROM a AS x\nWORKDIR /b\nFROM x\nWORKDIR c", []),
        ("FROM a\nCMD b", ["2 JSONArgsRecommended"]),
        ("FROM a\nENTRYPOINT b", ["2 JSONArgsRecommended"]),
        ('FROM a\nSHELL ["/b"]\nCMD c\nENTRYPOINT d', []),
        ('FROM a AS x\nSHELL ["/b"]\nFROM x\nCMD c', []),
        ('FROM a\nCMD ["b"]\nENTRYPOINT ["c"]\nHEALTHCHECK CMD d', []),
        ('FROM a\nCMD ["b"]\nCMD ["c"]', ["2 MultipleInstructionsDisallowed"]),
        ('FROM a\nENTRYPOINT ["b"]\nENTRYPOINT ["c"]', ["2 MultipleInstructionsDisallowed"]),
        ("FROM a\nHEALTHCHECK CMD b\nHEALTHCHECK NONE", ["2 MultipleInstructionsDisallowed"]),
        ('FROM a\nCMD ["b"]\nFROM a\nCMD ["c"]', []),
        ("FROM a\nENV b c", ["2 LegacyKeyValueFormat"]),
        ("FROM a\nLABEL b c", ["2 LegacyKeyValueFormat"]),
        ("FROM a\nENV b=c\nLABEL b=c", []),
        ("FROM a\nARG DB_PASSWORD", ["2 SecretsUsedInArgOrEnv"]),
        ("FROM a\nENV API_KEY=b", ["2 SecretsUsedInArgOrEnv"]),
        ("FROM a\nENV API_KEY b", ["2 LegacyKeyValueFormat", "2 SecretsUsedInArgOrEnv"]),
        ("FROM a\nENV PUBLIC_KEY=b MONKEY=c", []),
        ("FROM a\nEXPOSE 80/TCP", ["2 ExposeProtoCasing"]),
        ("FROM a\nEXPOSE 1.2.3.4:80:80", ["2 ExposeInvalidFormat"]),
        ("FROM a\nEXPOSE 80 8000-8010/tcp 53/udp", []),
        ("FROM a$X", ["1 UndefinedArgInFrom"]),
        ("ARG X\nFROM $X", ["2 InvalidDefaultArgInFrom"]),
        ("ARG X=b\nFROM $X", []),
        ("FROM --platform=$TARGETPLATFORM a", ["1 RedundantTargetPlatform"]),
        ("FROM --platform=$BUILDPLATFORM a", []),
        ("FROM --platform=linux/amd64 a", ["1 FromPlatformFlagConstDisallowed"]),
    ],
)
def test_what_each_line_has(text, wanted):
    assert rules(text) == wanted


@pytest.mark.parametrize("word", ["ENV A=", "EXPOSE ", "LABEL a=", "STOPSIGNAL ", "USER ", "VOLUME /", "WORKDIR /"])
def test_variables_that_nobody_sets(word):
    assert rules(f"FROM a\n{word}$LOST") == ["2 UndefinedVar"]
    assert rules(f"FROM a\nARG LOST=1\n{word}$LOST") == []
    assert rules(f"FROM a\nENV LOST=1\n{word}$LOST") == []
    assert rules(f"FROM a\n{word}${{LOST:-1}}") == []


@pytest.mark.parametrize("word", ["COPY", "ADD"])
def test_files_that_are_left_out(word):
    ignore = Matcher(["secret"])
    assert rules(f"FROM a\n{word} secret /x", ignore=ignore) == ["2 CopyIgnoredFile"]
    assert rules(f"FROM a\n{word} other /x", ignore=ignore) == []
    assert rules("FROM a\nCOPY --from=b secret /x", ignore=ignore) == []


@pytest.mark.parametrize(
    ("check", "wanted"),
    [
        ("skip=StageNameCasing", ["3 JSONArgsRecommended"]),
        ("skip=StageNameCasing,JSONArgsRecommended", []),
        ("skip=all", []),
        ("error=true", ["2 StageNameCasing", "3 JSONArgsRecommended"]),
    ],
)
def test_warnings_that_are_not_wanted(check, wanted):
    text = "FROM a AS B\nCMD c"
    assert rules(f"# check={check}\n{text}") == wanted
    assert [each.partition(" ")[2] for each in rules(text, {"BUILDKIT_DOCKERFILE_CHECK": check})] == [
        each.partition(" ")[2] for each in wanted
    ]
    assert check_dockerfile(parse(f"# check={check}\n{text}".encode()))[1] is (check == "error=true")
    assert check_dockerfile(parse(text.encode()), {"BUILDKIT_DOCKERFILE_CHECK": check})[1] is (check == "error=true")
