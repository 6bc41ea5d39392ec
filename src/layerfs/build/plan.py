"""Which stages there are, what each needs, and which are needed for the target."""

from collections.abc import Mapping

import msgspec

from layerfs.build.instructions import Copy, Dockerfile, From, Run, StageText
from layerfs.build.lines import syntax_error
from layerfs.errors import InvalidInputError
from layerfs.oci import Platform
from layerfs.variables import expand

__all__ = ["PROXIES", "Plan", "Stage", "global_arguments", "make_plan", "platform_arguments"]

PROXIES = frozenset(
    f(name) for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY") for f in (str, str.lower)
)
"""Arguments that need no ARG, and are in no cache key and no history."""


class Stage(msgspec.Struct, frozen=True):
    """A stage; ``base`` is an earlier stage's number, or None when ``image`` names what it is based on."""

    number: int
    text: StageText
    image: str
    base: int | None
    platform: Platform | None
    needs: tuple[int, ...]

    @property
    def name(self) -> str:
        """What it is called to the user."""
        return self.text.source.name or f"stage-{self.number}"


class Plan(msgspec.Struct, frozen=True):
    """The stages that are needed, in the order of the file; ``target`` is the last one to build."""

    stages: dict[int, Stage]
    target: int
    arguments: dict[str, str]
    """Global arguments, which an ARG in a stage takes up again."""
    others: dict[int, Stage] = {}
    """Stages that nothing in the file needs for the target; an ONBUILD of a base may."""


def platform_arguments(target: Platform) -> dict[str, str]:
    """TARGET… and BUILD… of platforms."""
    found = {}
    for prefix, platform in (("BUILD", Platform.host()), ("TARGET", target)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant or ""
    return found


def global_arguments(
    file: Dockerfile, given: Mapping[str, str], platform: Platform, target: str | None = None
) -> dict[str, str]:
    """The values of the ARGs before the first FROM, and of those that need none: platforms, and what is built."""
    values = platform_arguments(platform)
    values["TARGETSTAGE"] = target or file.stages[-1].source.name or "default"
    escape = file.directives.escape
    for argument in file.arguments:
        for name, default in argument.pairs:
            if name in given:
                values[name] = given[name]
            elif default is not None:
                try:
                    values[name] = expand(default, values, escape=escape)
                except InvalidInputError as exc:
                    raise syntax_error(file.file, argument.line.number, argument.line.text, str(exc)) from None
    return values


def make_plan(file: Dockerfile, target: str | None, arguments: Mapping[str, str], contexts: Mapping[str, str]) -> Plan:
    """What has to be built for ``target`` (a name or number; None: the last stage). ``contexts`` go before stages."""
    stages: list[Stage] = []
    names: dict[str, int] = {}
    for number, text in enumerate(file.stages):
        stage = _stage(file, number, text, names, arguments, contexts)
        stages.append(stage)
        if text.source.name:
            names[text.source.name] = number
    wanted = len(stages) - 1 if target is None else _number(target, names, len(stages))
    if wanted is None:
        raise InvalidInputError(f"target stage {target!r}: there is none", hint=_known(names))
    needed: dict[int, Stage] = {}
    pending = [wanted]
    while pending:
        number = pending.pop()
        if number not in needed:
            needed[number] = stages[number]
            pending += stages[number].needs
    others = {stage.number: stage for stage in stages if stage.number not in needed}
    return Plan(dict(sorted(needed.items())), wanted, dict(arguments), others)


def _known(names: Mapping[str, int]) -> str | None:
    return "there are " + ", ".join(names) if names else None


def _stage(
    file: Dockerfile,
    number: int,
    text: StageText,
    names: Mapping[str, int],
    arguments: Mapping[str, str],
    contexts: Mapping[str, str],
) -> Stage:
    source = text.source
    image = _expanded(file, source, source.image, arguments, "the image's name")
    platform = None
    if source.platform is not None:
        words = _expanded(file, source, source.platform, arguments, "the platform")
        try:
            platform = Platform.parse(words)
        except InvalidInputError as exc:
            raise syntax_error(file.file, source.line.number, source.line.text, str(exc)) from None
    base = names.get(image.lower()) if image.lower() not in contexts else None
    needs: set[int | None] = {base}
    for instruction in text.instructions:
        if isinstance(instruction, Copy) and instruction.from_ is not None:
            needs.add(_source(file, text, instruction, instruction.from_, names, number, contexts))
        if isinstance(instruction, Run):
            for mount in instruction.mounts:
                if "from" in mount.options:
                    needs.add(_source(file, text, instruction, mount.options["from"], names, number, contexts))
    return Stage(number, text, image, base, platform, tuple(sorted(n for n in needs if n is not None)))


def _expanded(file: Dockerfile, source: From, word: str, arguments: Mapping[str, str], what: str) -> str:
    try:
        value = expand(word, arguments, escape=file.directives.escape)
    except InvalidInputError as exc:
        raise syntax_error(file.file, source.line.number, source.line.text, str(exc)) from None
    if not value:
        hint = "an ARG that FROM uses stands before the first FROM, and has a value there or by --build-arg"
        raise syntax_error(file.file, source.line.number, source.line.text, f"{what} {word!r} is empty", hint)
    return value


def _source(
    file: Dockerfile,
    text: StageText,
    instruction: Copy | Run,
    name: str,
    names: Mapping[str, int],
    number: int,
    contexts: Mapping[str, str],
) -> int | None:
    """The stage that ``from=`` means; None for an image or a named context."""
    if name in contexts:
        return None
    found = _number(name, names, number)
    line = instruction.line
    if found is None and name.lower() == text.source.name:
        raise syntax_error(file.file, line.number, line.text, f"the stage {name} needs itself: a cycle")
    later = [stage.source for stage in file.stages[number + 1 :] if stage.source.name == name.lower()]
    if found is None and later:
        reason = f"the stage {name} comes later, in line {later[0].line.number}"
        raise syntax_error(file.file, line.number, line.text, reason, "stages are used after they are written")
    if found is None and name.isdecimal():
        raise syntax_error(file.file, line.number, line.text, f"there is no stage {name} before this one")
    return found


def _number(name: str, names: Mapping[str, int], count: int) -> int | None:
    if name.lower() in names:
        return names[name.lower()]
    return int(name) if name.isdecimal() and len(name) < 6 and int(name) < count else None
