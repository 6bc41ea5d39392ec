"""Image references: ``[registry/]repository[:tag][@digest]``, read as docker reads them.

The first component is a registry only if it has a ``.`` or ``:`` in it or is ``localhost``; what has none is on
docker.io, and there a repository of one component is in ``library/``. Source: the grammar of the distribution
project's reference package, and distribution-spec ("Pulling manifests").
"""

from typing import TYPE_CHECKING, Self

import msgspec

from layerfs.digest import ALGORITHMS, Digest
from layerfs.errors import InvalidInputError
from layerfs.late import LateModule

if TYPE_CHECKING:
    import re
else:  # few commands use an expression
    re = LateModule("re")

__all__ = ["DEFAULT_REGISTRY", "Reference", "is_id_prefix"]

DEFAULT_REGISTRY = "docker.io"

_OFFICIAL = "library/"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_ID_PREFIX = r"(?:sha256:)?[0-9a-f]{2,64}"
# Compiled at their first use, by re itself, which keeps them.


class Reference(msgspec.Struct, frozen=True):
    """A place in a registry; ``tag`` or ``digest`` or both may be there."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, default_tag: str | None = None) -> Self:
        """Read a reference as users write it; ``default_tag`` stands in where neither tag nor digest is given.

        Raises InvalidInputError saying what is wrong.
        """
        name, at, digest_text = text.partition("@")
        try:
            digest = Digest(digest_text) if at else None
        except InvalidInputError:
            raise _invalid(text, f"{digest_text!r} is not a digest") from None
        tag = None
        if name.rfind(":") > name.rfind("/"):
            name, _, tag = name.rpartition(":")
            if re.fullmatch(_TAG, tag) is None:
                raise _invalid(text, f"{tag!r} is not a tag")
        if _is_id(text):
            raise _invalid(text, "64 hexadecimal digits are an ID")
        registry, repository = _split_name(text, name)
        if tag is None and digest is None:
            tag = default_tag
        return cls(registry, repository, tag, digest)

    @classmethod
    def parse_new(cls, text: str) -> Self:
        """Read the name that an image is to be given, tag ``latest`` by default; a digest cannot be chosen."""
        reference = cls.parse(text, default_tag="latest")
        if reference.digest is not None:
            raise _invalid(text, "a new image cannot be named by a digest")
        if reference.familiar_name in ALGORITHMS:
            raise _invalid(text, f"{reference.familiar_name} is the algorithm of digests")
        return reference

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """The name as docker shows it, without what would be filled in; whole where it would then be another one."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        short = self.repository.removeprefix(_OFFICIAL)
        if "/" not in short and not _is_id(short):
            return short
        return self.name if _is_registry(self.repository.partition("/")[0]) else self.repository

    @property
    def familiar(self) -> str:
        """The whole reference as docker shows it."""
        return self.familiar_name + self._suffix()

    def with_tag(self, tag: str) -> "Reference":
        """The same repository, by this tag alone; InvalidInputError if it is none."""
        if re.fullmatch(_TAG, tag) is None:
            raise _invalid(f"{self.familiar_name}:{tag}", f"{tag!r} is not a tag")
        return Reference(self.registry, self.repository, tag)

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return tag + (f"@{self.digest}" if self.digest is not None else "")

    def __str__(self) -> str:
        return self.name + self._suffix()


def _split_name(text: str, name: str) -> tuple[str, str]:
    if not name:
        raise _invalid(text, "the repository is missing")
    registry, slash, repository = name.partition("/")
    if not slash or not _is_registry(registry):
        registry, repository = DEFAULT_REGISTRY, name
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry != DEFAULT_REGISTRY and re.fullmatch(_REGISTRY, registry) is None:
        raise _invalid(text, f"{registry!r} is not a registry")
    if not _is_plain(repository) and re.fullmatch(_REPOSITORY, repository) is None:
        if re.fullmatch(_REPOSITORY, repository.lower()) is not None:
            raise _invalid(text, "a repository must be lower case")
        raise _invalid(text, f"{repository!r} is not a repository")
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = _OFFICIAL + repository
    if len(repository) > 255:
        raise _invalid(text, "a repository of more than 255 characters")
    return registry, repository


def _is_plain(repository: str) -> bool:
    """Whether its components are of letters and digits alone, as most are; no expression is compiled for that."""
    return all(part and not part.strip(_LETTERS + _DIGITS) for part in repository.split("/"))


def _is_id(text: str) -> bool:
    return len(text) == 64 and not text.strip("abcdef" + _DIGITS)


def _is_registry(first: str) -> bool:
    """Whether the first of several components is a registry, or belongs to the repository."""
    return "." in first or ":" in first or first == "localhost"


def _invalid(text: str, reason: str) -> InvalidInputError:
    shown = text if len(text) <= 120 else text[:117] + "..."
    return InvalidInputError(f"reference {shown!r}: {reason}", hint="wanted is [registry/]repository[:tag][@digest]")


def is_id_prefix(text: str) -> bool:
    """Whether text could be an image or container ID, or the beginning of one."""
    return re.fullmatch(_ID_PREFIX, text) is not None
