import hashlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.digest import Digest, Verifier, chain_id, verified
from layerfs.errors import IntegrityError, InvalidInputError


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "md5:" + "a" * 32,
        "sha256:../../x",
        "a" * 64,
        "sha512:" + "a" * 64,
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="not a digest"):
        Digest(text)


def test_a_digest_is_a_string() -> None:
    digest = Digest.of(b"x")
    assert digest == "sha256:" + hashlib.sha256(b"x").hexdigest()
    assert (digest.algorithm, digest.hex, digest.short) == ("sha256", digest[7:], digest[7:19])
    assert pickle.loads(pickle.dumps(digest)) == digest


def test_chain_id_is_the_recursion_of_the_specification() -> None:
    a, b, c = (Digest.of(x) for x in (b"a", b"b", b"c"))
    assert chain_id([a]) == a
    assert chain_id([a, b, c]) == Digest.of(f"{Digest.of(f'{a} {b}'.encode())} {c}".encode())
    with pytest.raises(InvalidInputError):
        chain_id([])


@given(st.binary(max_size=300), st.integers(1, 50))
def test_verified_passes_exactly_the_bytes(data: bytes, step: int) -> None:
    chunks = [data[i : i + step] for i in range(0, len(data), step)]
    assert b"".join(verified(chunks, Digest.of(data), len(data))) == data
    with pytest.raises(IntegrityError):
        list(verified([*chunks, b"x"], Digest.of(data), None))
    with pytest.raises(IntegrityError):
        list(verified(chunks, Digest.of(data), len(data) + 1))


def test_too_many_bytes_are_noticed_before_the_end() -> None:
    verifier = Verifier(Digest.of(b"ab"), 2)
    verifier.update(b"ab")
    with pytest.raises(IntegrityError, match="longer than the 2 bytes"):
        verifier.update(b"c")


def test_a_whole_directory_of_digests_is_checked_as_each_of_them_would_be() -> None:
    good = [f"{number:064x}" for number in range(3)]
    assert Digest.all_of("sha256", good) == [Digest(f"sha256:{name}") for name in good]
    assert all(type(each) is Digest for each in Digest.all_of("sha256", good) or [])
    assert Digest.all_of("sha256", []) == []
    for wrong in ("0" * 63, "0" * 65, "0" * 63 + "g", "g" + "0" * 63, "0" * 30 + "G" + "0" * 33, "A" * 64, ""):
        assert Digest.all_of("sha256", [*good, wrong]) is None
        assert Digest.all_of("sha256", [wrong, *good]) is None
    assert Digest.all_of("sha256", ["0" * 63, "0" * 65]) is None
    assert Digest.all_of("sha512", good) is None
