"""What is allowed in a Dockerfile and better not done: the warnings of docker's ``build --check``, by its names."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from layerfs.build.ignore import Matcher
from layerfs.build.instructions import Arg, Copy, Dockerfile, Instruction, Meta, StageText
from layerfs.build.parser import json_form
from layerfs.build.plan import PROXIES, platform_arguments
from layerfs.errors import InvalidInputError
from layerfs.imageconfig import edit_section, environment
from layerfs.late import LateModule
from layerfs.oci import Platform
from layerfs.reference import Reference
from layerfs.variables import expand, split_words

if TYPE_CHECKING:
    import difflib
else:  # on the way to a warning
    difflib = LateModule("difflib")

__all__ = ["Finding", "check_dockerfile"]

_SECRET = re.compile(
    r"(?:^|_)(?:api_?key|auth|credentials?|key|passw(?:or)?d|pword|secret|token)(?:_|$)", re.IGNORECASE
)
_PUBLIC = re.compile(r"(?:^|_)public(?:_|$)", re.IGNORECASE)
_PORT = re.compile(r"\d+(?:-\d+)?(?:/[A-Za-z]+)?")
_EXPANDED = ("ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")


class Finding(msgspec.Struct, frozen=True, order=True):
    """A warning; as text ``name: file:line: reason``."""

    line: int
    rule: str
    reason: str
    file: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.file}:{self.line}: {self.reason}"


def check_dockerfile(
    file: Dockerfile, given: Mapping[str, str] | None = None, ignore: Matcher | None = None
) -> tuple[list[Finding], bool]:
    """The warnings, by line, and whether the file's ``check`` directive makes them errors.

    ``given``: build arguments; ``ignore``: what is left out of the context.
    """
    skipped, failing = _directive((given or {}).get("BUILDKIT_DOCKERFILE_CHECK", file.directives.check))
    found = {
        Finding(line, rule, reason, file.file)
        for line, rule, reason in _Checker(file, given or {}, ignore).findings()
        if rule not in skipped and "all" not in skipped
    }
    return sorted(found), failing


def _directive(text: str) -> tuple[set[str], bool]:
    skipped: set[str] = set()
    failing = False
    for part in text.split(";"):
        name, _, value = part.partition("=")
        if name.strip() == "skip":
            skipped.update(each.strip() for each in value.split(","))
        if name.strip() == "error":
            failing = value.strip().lower() == "true"
    return skipped, failing


_Finding = tuple[int, str, str]
_Known = tuple[dict[str, str], bool, bool]
"""What a stage hands on: its variables, whether it has an absolute WORKDIR, and whether it has a SHELL."""


class _Checker:
    def __init__(self, file: Dockerfile, given: Mapping[str, str], ignore: Matcher | None) -> None:
        self.file = file
        self.given = given
        self.ignore = ignore

    def findings(self) -> Iterator[_Finding]:
        yield from self._casing()
        yield from self._continuations()
        yield from self._from()
        sections: dict[str, _Known] = {}
        for stage in self.file.stages:
            yield from self._stage(stage, sections)

    def _lines(self) -> list[Instruction | Arg]:
        return [*self.file.arguments, *(each for stage in self.file.stages for each in stage.instructions)]

    # ---- the file as text ----

    def _casing(self) -> Iterator[_Finding]:
        lines = [each.line for each in self._lines()] + [stage.source.line for stage in self.file.stages]
        upper = sum(line.written.isupper() for line in lines)
        lower = sum(line.written.islower() for line in lines)
        wanted, case = (str.upper, "uppercase") if upper >= lower else (str.lower, "lowercase")
        for line in lines:
            if line.written != wanted(line.written):
                reason = f"command '{line.written}' should match the case of the command majority ({case})"
                yield line.number, "ConsistentInstructionCasing", reason

    def _continuations(self) -> Iterator[_Finding]:
        lines = [each.line for each in self._lines()] + [stage.source.line for stage in self.file.stages]
        for line in lines:
            if line.blanks:
                yield line.blanks[0], "NoEmptyContinuation", "empty continuation line"

    # ---- FROM ----

    def _from(self) -> Iterator[_Finding]:
        names: dict[str, int] = {}
        outer: dict[str, str] = platform_arguments(Platform.host())
        escape = self.file.directives.escape
        for argument in self.file.arguments:
            for name, value in argument.pairs:
                if value is not None:
                    with suppress(InvalidInputError):
                        outer[name] = expand(value, outer, escape=escape)
        for stage in self.file.stages:
            source = stage.source
            number = source.line.number
            words = source.line.rest.split()
            if source.name is not None:
                written, sign = words[-1], words[-2]
                if written != written.lower():
                    yield number, "StageNameCasing", f"stage name '{written}' should be lowercase"
                if sign.isupper() != source.line.written.isupper():
                    reason = f"'{sign}' and '{source.line.written}' keywords' casing do not match"
                    yield number, "FromAsCasing", reason
                if source.name in ("context", "scratch"):
                    yield number, "ReservedStageName", f"stage name should not use reserved name '{source.name}'"
                if source.name in names:
                    yield number, "DuplicateStageName", f"duplicate stage name '{source.name}'"
                names[source.name] = number
            yield from self._from_words(stage, outer, escape)

    def _from_words(self, stage: StageText, outer: Mapping[str, str], escape: str) -> Iterator[_Finding]:
        source = stage.source
        number = source.line.number
        missing: list[str] = []
        for word in (source.image, source.platform or ""):
            with suppress(InvalidInputError):
                expand(word, outer, escape=escape, missing=missing.append)
        declared = {each for argument in self.file.arguments for each, _ in argument.pairs}
        for name in missing:
            if name not in declared:
                reason = f"FROM argument '{name}' is not declared{_close(name, [*declared, *outer])}"
                yield number, "UndefinedArgInFrom", reason
        if "$" in source.image and not self._is_image(source.image, outer):
            reason = f"default value for ARG {source.image} results in empty or invalid base image name"
            yield number, "InvalidDefaultArgInFrom", reason
        if source.platform is not None:
            if source.platform.strip("${}") == "TARGETPLATFORM":
                reason = f"setting platform to predefined {source.platform} in FROM is redundant as this is the default"
                yield number, "RedundantTargetPlatform", reason
            elif "$" not in source.platform and not any(
                part in (source.name or "") for part in source.platform.split("/")
            ):
                reason = f"FROM --platform flag should not use constant value '{source.platform}'"
                yield number, "FromPlatformFlagConstDisallowed", reason

    def _is_image(self, word: str, outer: Mapping[str, str]) -> bool:
        """Whether a word names an image or a stage as long as no argument is given."""
        try:
            name = expand(word, outer, escape=self.file.directives.escape)
            if not any(name.lower() == stage.source.name for stage in self.file.stages):
                Reference.parse(name)
        except InvalidInputError:
            return False
        return True

    # ---- stages ----

    def _stage(self, stage: StageText, sections: dict[str, _Known]) -> Iterator[_Finding]:
        """Goes through a stage as a build does, as far as that can be known without its base."""
        known, has_workdir, has_shell = sections.get(stage.source.image.lower(), ({}, False, False))
        variables = dict(known) or {"PATH": ""}
        # What an unknown base image sets cannot be known: then only what is set nowhere at all is worth a word.
        seen: dict[str, int] = {}
        for instruction in stage.instructions:
            number = instruction.line.number
            if isinstance(instruction, Arg):
                for name, value in instruction.pairs:
                    if _is_secret(name):
                        yield number, "SecretsUsedInArgOrEnv", _secret_reason("ARG", name)
                    variables.setdefault(name, self.given.get(name, value or ""))
            elif isinstance(instruction, Copy):
                yield from self._copied(instruction, variables)
            elif isinstance(instruction, Meta):
                yield from self._meta(instruction, variables, seen, has_workdir=has_workdir, has_shell=has_shell)
                has_shell = has_shell or instruction.word == "SHELL"
                if instruction.word == "WORKDIR" and instruction.rest.startswith("/"):
                    has_workdir = True
                if instruction.word == "ENV":
                    with suppress(InvalidInputError):
                        variables.update(environment(edit_section({}, "ENV", instruction.rest, variables=variables)))
        if stage.source.name:
            sections[stage.source.name] = (variables, has_workdir, has_shell)

    def _meta(
        self, meta: Meta, variables: Mapping[str, str], seen: dict[str, int], *, has_workdir: bool, has_shell: bool
    ) -> Iterator[_Finding]:
        number, word, rest = meta.line.number, meta.word, meta.rest
        if word in ("CMD", "ENTRYPOINT", "HEALTHCHECK"):
            if word in seen:
                reason = f"multiple {word} instructions in one stage, of which only the last one will be used"
                yield seen[word], "MultipleInstructionsDisallowed", reason
            seen[word] = number
        if word in ("CMD", "ENTRYPOINT") and rest and json_form(rest) is None and not has_shell:
            reason = f"JSON arguments recommended for {word} to prevent unintended behavior related to OS signals"
            yield number, "JSONArgsRecommended", reason
        if word == "MAINTAINER":
            yield number, "MaintainerDeprecated", "maintainer instruction is deprecated in favor of using label"
        if word == "WORKDIR" and not has_workdir and not rest.strip("\"'").startswith(("/", "$")):
            reason = f"relative workdir '{rest}' can have unexpected results if the base image changes"
            yield number, "WorkdirRelativePath", reason
        if word in ("ENV", "LABEL"):
            yield from self._pairs(meta)
        if word == "EXPOSE":
            yield from self._ports(meta)
        if word in _EXPANDED:
            yield from self._undefined(number, split_words(rest, self.file.directives.escape), variables)

    def _pairs(self, meta: Meta) -> Iterator[_Finding]:
        words = split_words(meta.rest, self.file.directives.escape)
        number = meta.line.number
        if "=" not in words[0]:
            reason = f'"{meta.word} key=value" should be used instead of legacy "{meta.word} key value" format'
            yield number, "LegacyKeyValueFormat", reason
            words = words[:1]
        if meta.word == "ENV":
            for word in words:
                name = word.partition("=")[0]
                if _is_secret(name):
                    yield number, "SecretsUsedInArgOrEnv", _secret_reason("ENV", name)

    def _ports(self, meta: Meta) -> Iterator[_Finding]:
        for word in meta.rest.split():
            if "$" in word:
                continue
            if _PORT.fullmatch(word) is None:
                reason = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
                yield meta.line.number, "ExposeInvalidFormat", reason
            elif word != word.lower():
                yield meta.line.number, "ExposeProtoCasing", f"defined protocol '{word}' should be lowercase"

    def _undefined(self, number: int, words: Iterable[str], variables: Mapping[str, str]) -> Iterator[_Finding]:
        missing: list[str] = []
        declared = {name for argument in self.file.arguments for name, _ in argument.pairs}
        for word in words:
            with suppress(InvalidInputError):
                expand(word, variables, escape=self.file.directives.escape, missing=missing.append)
        for name in missing:
            if name not in PROXIES and (name in declared or name.isidentifier()):
                close = _close(name, variables, "$")
                yield number, "UndefinedVar", f"usage of undefined variable '${name}'{close}"

    def _copied(self, copy: Copy, variables: Mapping[str, str]) -> Iterator[_Finding]:
        words = [word for word in (*copy.sources, copy.dest, copy.chown, copy.chmod) if word and word[:2] != "<<"]
        yield from self._undefined(copy.line.number, words, variables)
        if copy.from_ is not None or not self.ignore:
            return
        for word in copy.sources:
            with suppress(InvalidInputError):
                path = expand(word, variables, escape=self.file.directives.escape).strip("/").removeprefix("./")
                if path and not word.startswith("<<") and self.ignore.matches(path):
                    reason = f'attempting to {copy.line.word} file "{path}" that is excluded by .dockerignore'
                    yield copy.line.number, "CopyIgnoredFile", reason


def _close(name: str, known: Iterable[str], sign: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {sign}{close[0]}?)" if close else ""


def _is_secret(name: str) -> bool:
    return _SECRET.search(name) is not None and _PUBLIC.search(name) is None


def _secret_reason(word: str, name: str) -> str:
    return f'do not use ARG or ENV instructions for sensitive data ({word} "{name}")'
