"""Documents in columns of the database."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.digest import Digest
from layerfs.metadata.documents import from_text, to_text

documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(documents)
def test_what_is_kept_is_what_is_found_again(value: object) -> None:
    assert from_text(to_text(value)) == value == json.loads(to_text(value)) == from_text(json.dumps(value))


def test_names_that_are_no_unicode_are_kept() -> None:
    name = b"bad-\xff".decode("utf-8", "surrogateescape")
    assert from_text(to_text({"error": name})) == {"error": name}


def test_digests_are_text_and_nothing_else_is_let_in() -> None:
    digest = Digest("sha256:" + "a" * 64)
    assert to_text([digest]) == f'["{digest}"]'
    with pytest.raises(TypeError):
        to_text({"path": object()})
    for text in ("", "{", "nothing"):
        with pytest.raises(ValueError):
            from_text(text)
