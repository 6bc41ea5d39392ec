"""What an image runs on: operating system, architecture, variant; and which image runs where another is wanted."""

import os
from typing import Self

import msgspec

from layerfs.errors import InvalidInputError

__all__ = ["Platform", "plain_variant", "variant_number"]

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "i386": "386",
}
_VARIANTS = {"armv7l": "v7", "armv6l": "v6"}
_ALIASES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
    "i386": "386",
}

_GOARCHES = (
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x", "wasm",
)  # fmt: skip


class Platform(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What an image runs on."""

    os: str
    architecture: str
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    os_features: tuple[str, ...] | None = msgspec.field(default=None, name="os.features")

    @classmethod
    def parse(cls, text: str) -> Self:
        """``os/architecture[/variant]``, or an architecture alone (of Linux); InvalidInputError."""
        parts = text.strip().lower().split("/")
        if len(parts) == 1 and parts[0] == "linux":
            parts = ["linux", cls.host().architecture]
        elif len(parts) == 1 and (parts[0] in _ALIASES or parts[0] in _GOARCHES):
            parts = ["linux", *parts]
        elif len(parts) == 1:
            raise InvalidInputError(f"platform {text!r}: not a platform", hint="wanted is os/architecture[/variant]")
        if len(parts) > 3 or not all(part and part.replace("_", "-").replace("-", "").isalnum() for part in parts):
            raise InvalidInputError(f"platform {text!r}: not a platform", hint="wanted is os/architecture[/variant]")
        architecture = _ALIASES.get(parts[1], parts[1])
        variant = parts[2] if len(parts) == 3 else {"armhf": "v7", "armel": "v6"}.get(parts[1])
        return cls(os=parts[0], architecture=architecture, variant=plain_variant(architecture, variant))

    @classmethod
    def host(cls) -> Self:
        """This machine's."""
        machine = os.uname().machine
        return cls(os="linux", architecture=_ARCHITECTURES.get(machine, machine), variant=_VARIANTS.get(machine))

    def matches(self, other: "Platform") -> bool:
        """Whether an image for ``other`` runs where ``self`` is wanted."""
        if (self.os, self.architecture) != (other.os, other.architecture):
            return False
        wanted = plain_variant(self.architecture, self.variant)
        offered = plain_variant(other.architecture, other.variant)
        if wanted == offered:
            return True
        if self.architecture == "arm":
            return variant_number(offered or "v7") <= variant_number(wanted or "v7")
        return self.architecture == "amd64" and variant_number(offered or "v1") <= variant_number(wanted or "v1")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def plain_variant(architecture: str, variant: str | None) -> str | None:
    """None where the variant is the one that is meant anyway."""
    if (architecture, variant) in (("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")):
        return None
    if architecture == "arm" and variant and variant.isdecimal():
        return f"v{variant}"
    return variant or None


def variant_number(variant: str) -> int:
    """What variants of an architecture are compared by."""
    digits = variant.removeprefix("v")
    return int(digits) if digits.isdecimal() and len(digits) < 3 else 99
