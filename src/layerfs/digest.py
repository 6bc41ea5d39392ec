"""Digests: ``algorithm:hex`` of exact bytes, and the checks that bytes are the ones a digest names.

Source: image-spec, descriptor.md ("Digests") and config.md ("Layer ChainID").
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Self

from layerfs.errors import IntegrityError, InvalidInputError

__all__ = ["ALGORITHMS", "Digest", "Verifier", "chain_id", "hasher", "verified"]

_SHORT = 64 << 10
"""Most bytes of what is hashed without OpenSSL."""
_OWN_SHA256 = "_sha2" if sys.version_info >= (3, 12) else "_sha256"
"""The interpreter's own module; Python without it is built rarely."""

_DIGITS = {"sha256": 64, "sha512": 128}
ALGORITHMS = tuple(_DIGITS)
_HEX = "0123456789abcdef"


class Digest(str):
    """``sha256:`` and 64, or ``sha512:`` and 128 lower-case hexadecimal digits; a str that is known to be one.

    Raises InvalidInputError for anything else, so that a digest can be used in a path.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check ``text``; what is a Digest already comes back as it is."""
        if type(text) is cls:
            return text
        if not isinstance(text, str) or not _is_digest(text):
            raise InvalidInputError(
                f"digest {str(text)[:140]!r}: not a digest",
                hint="wanted is sha256: and 64 hexadecimal digits",
            )
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """The sha256 digest of ``data``."""
        state = hasher(size=memoryview(data).nbytes)
        state.update(data)
        return cls.from_hash(state)

    @classmethod
    def from_hash(cls, state: Any) -> Self:
        """The digest that a hashlib object stands at."""
        return cls(f"{state.name}:{state.hexdigest()}")

    @classmethod
    def all_of(cls, algorithm: str, names: Sequence[str]) -> list[Self] | None:
        """The digests with these digits; None when one of them is none. A directory of them is read at once: to check
        ten thousand one by one takes longer than all else that a removal does."""
        if set(map(len, names)) - {_DIGITS[algorithm]} or "".join(names).strip(_HEX):
            return None
        new, prefix = super().__new__, f"{algorithm}:"
        return [new(cls, prefix + name) for name in names]

    @property
    def algorithm(self) -> str:
        """``sha256`` or ``sha512``."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The digits after the colon."""
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The first twelve digits, as image lists show them."""
        return self.hex[:12]


def _is_digest(text: str) -> bool:
    algorithm, _, digits = text.partition(":")
    return len(digits) == _DIGITS.get(algorithm) and not digits.strip(_HEX)


def hasher(algorithm: str = "sha256", size: int | None = None) -> Any:
    """A hashlib object; its ``update`` runs without the GIL for all but small pieces. ``size``, where it is known, is
    that of what is hashed."""
    if algorithm == "sha256" and size is not None and size <= _SHORT and "hashlib" not in sys.modules:
        # Documents are all that a short command hashes, and OpenSSL takes 2 ms to load: so does ``random``.
        with suppress(ImportError):
            return import_module(_OWN_SHA256).sha256()
    import hashlib  # for the same reason not at the top

    return hashlib.new(algorithm, usedforsecurity=True)


class Verifier:
    """Checks bytes against a digest and a size (None: unknown) while they pass."""

    def __init__(self, digest: Digest, size: int | None, what: str = "blob") -> None:
        self.digest = digest
        self.size = size
        self.count = 0
        self._what = what
        self._hash = hasher(digest.algorithm, size)

    def update(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; IntegrityError as soon as there are more than ``size``."""
        self.count += len(chunk)
        if self.size is not None and self.count > self.size:
            raise IntegrityError(f"{self._what} {self.digest}: longer than the {self.size} bytes announced")
        self._hash.update(chunk)

    def finish(self) -> None:
        """All bytes are there: IntegrityError if they are not the ones."""
        if self.size is not None and self.count != self.size:
            raise IntegrityError(f"{self._what} {self.digest}: {self.count} bytes, not the {self.size} announced")
        found = Digest.from_hash(self._hash)
        if found != self.digest:
            raise IntegrityError(f"{self._what} {self.digest}: the content has digest {found}")


def verified(chunks: Iterable[bytes], digest: Digest, size: int | None, what: str = "blob") -> Iterator[bytes]:
    """Pass ``chunks`` on; at their end, or before, IntegrityError if they are not what ``digest`` names."""
    verifier = Verifier(digest, size, what)
    for chunk in chunks:
        verifier.update(chunk)
        yield chunk
    verifier.finish()


def chain_id(diff_ids: Sequence[Digest]) -> Digest:
    """The identity of a stack of layers, base first; InvalidInputError for an empty one."""
    if not diff_ids:
        raise InvalidInputError("chain ID: no layers")
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = Digest.of(f"{chain} {diff_id}".encode())
    return chain
