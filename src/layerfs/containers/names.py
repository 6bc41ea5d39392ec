"""Names of containers: what may be one, and one for those that got none."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerfs.errors import InvalidInputError
from layerfs.late import LateModule

if TYPE_CHECKING:
    import re
else:  # a name that we choose is not looked at
    re = LateModule("re")

__all__ = ["check_name", "generate_name"]

_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}"


def _words(text: str) -> list[str]:
    return text.split()


_FIRST = _words("""
agile amber brave bright calm clever cosmic crisp daring deft eager early fair fleet fluent gentle glad golden
happy honest humble jolly keen kind lively lucid lucky mellow merry mighty modest neat nimble noble patient
plucky polite proud quick quiet rapid ready rustic serene sharp shiny silent smart snug solid spry steady
sunny swift tidy tranquil upbeat valiant vivid warm wise witty zesty
""")
_SECOND = _words("""
alder anchor aspen badger basalt beacon birch bison brook canyon cedar cliff cobalt comet condor coral crane
delta dune ember falcon fern fjord forest garnet geyser glacier granite grove harbor hazel heron island ivy
jasper juniper kestrel lagoon larch lark lemur lynx maple marble marlin meadow mesa nebula oak opal orchid
osprey otter pebble pine prairie quartz raven reef ridge river rowan sable sequoia slate spruce summit tern
thicket tundra valley walnut willow wren
""")


def check_name(name: str) -> str:
    """The name without a leading slash; InvalidInputError when it is none."""
    name = name.removeprefix("/")
    if re.fullmatch(_NAME, name) is None:
        raise InvalidInputError(
            f"container name {name!r}: not a name", hint="wanted are letters, digits, '_', '.' and '-', two or more"
        )
    return name


def _pick(words: Sequence[str]) -> str:
    return words[int.from_bytes(os.urandom(4)) % len(words)]


def _any(words: Sequence[str]) -> str:
    return words[int.from_bytes(os.urandom(4), "little") % len(words)]


def generate_name(attempt: int = 0) -> str:
    """Two words, as quiet_heron; with a number behind from the tenth attempt on, when those were taken."""
    name = f"{_any(_FIRST)}_{_any(_SECOND)}"
    return name if attempt < 9 else f"{name}_{os.urandom(4).hex()}"
