import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import InvalidInputError
from layerfs.reference import _REPOSITORY, Reference, _is_id, _is_plain, is_id_prefix

D = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        # As docker shows others of the library, this one would be an ID.
        ("docker.io/" + "a" * 64, f"docker.io/library/{'a' * 64}:latest", f"library/{'a' * 64}:latest"),
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("index.docker.io/library/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("quay.io/a/b/c", "quay.io/a/b/c:latest", "quay.io/a/b/c:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
        ("docker.io/localhost/c", "docker.io/localhost/c:latest", "docker.io/localhost/c:latest"),
        (f"debian@{D}", f"docker.io/library/debian@{D}", f"debian@{D}"),
        (f"debian:12@{D}", f"docker.io/library/debian:12@{D}", f"debian:12@{D}"),
        ("a__b/c-d.e:T.a-g_1", "docker.io/a__b/c-d.e:T.a-g_1", "a__b/c-d.e:T.a-g_1"),
        ("Registry.example/app", "Registry.example/app:latest", "Registry.example/app:latest"),
    ],
)
def test_reading(text: str, canonical: str, familiar: str) -> None:
    reference = Reference.parse(text, "latest")
    assert (str(reference), reference.familiar) == (canonical, familiar)
    assert Reference.parse(reference.familiar) == Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "missing"),
        (":tag", "missing"),
        ("Debian", "lower case"),
        ("a//b", "not a repository"),
        ("a/../b", "not a repository"),
        ("/etc/passwd", "not a re"),
        ("a:", "not a tag"),
        ("a:-x", "not a tag"),
        ("a:" + "t" * 129, "not a tag"),
        ("a@sha256:zz", "not a digest"),
        ("a@", "not a digest"),
        ("x.y:99999999/a", "not a registry"),
        ("-a.b/c", "not a registry"),
        ("a b", "not a repository"),
        ("a" * 300, "255"),
    ],
)
def test_refusals_say_why(text: str, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        Reference.parse(text)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        reference = Reference.parse(text, "latest")
    except InvalidInputError:
        return
    assert Reference.parse(str(reference)) == reference


def test_id_prefixes() -> None:
    assert all(map(is_id_prefix, ["ab", "sha256:ab12", "f" * 64]))
    assert not any(map(is_id_prefix, ["a", "xyz", "f" * 65, "AB"]))


@given(st.text("az09Z/._-é²\n", max_size=8))
def test_what_is_told_without_an_expression(text: str) -> None:
    assert _is_plain(text) == (re.fullmatch("[a-z0-9]+(/[a-z0-9]+)*", text) is not None)
    assert not _is_plain(text) or re.fullmatch(_REPOSITORY, text)
    text = (text * 64)[:64]
    assert _is_id(text) == (re.fullmatch("[0-9a-f]{64}", text) is not None)
