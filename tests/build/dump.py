"""What a Dockerfile was understood as, in the short form that ``expected.json`` has."""

from pathlib import Path
from typing import Any

from layerfs.build.instructions import Arg, Copy, Dockerfile, Instruction, Run
from layerfs.build.parser import parse
from layerfs.errors import InvalidInputError

DOCKERFILES = Path(__file__).parent / "dockerfiles"


def outcome(path: Path) -> dict[str, Any]:
    try:
        return understood(parse(path.read_bytes(), path.name))
    except InvalidInputError as error:
        return {"error": str(error).removeprefix(path.name), "line": error.line}


def understood(file: Dockerfile) -> dict[str, Any]:
    found: dict[str, Any] = {"stages": [stage_of(stage) for stage in file.stages]}
    directives = {name: value for name in ("syntax", "check") if (value := getattr(file.directives, name))}
    if file.directives.escape != "\\":
        directives["escape"] = file.directives.escape
    if directives:
        found["directives"] = directives
    if file.arguments:
        found["arguments"] = [list(pair) for argument in file.arguments for pair in argument.pairs]
    return found


def stage_of(stage: Any) -> list[Any]:
    source = stage.source
    return [[source.line.number, "FROM", source.image, source.platform, source.name], *map(entry, stage.instructions)]


def entry(instruction: Instruction) -> list[Any]:
    line = instruction.line
    head: list[Any] = [line.number, line.word]
    if isinstance(instruction, Arg):
        return [*head, *(list(pair) for pair in instruction.pairs)]
    texts = [[each.name, each.text, each.expand] for each in line.heredocs]
    if isinstance(instruction, Run):
        mounts = [[mount.type, mount.options] for mount in instruction.mounts]
        kind = "shell" if instruction.shell else "exec"
        args = [arg if len(arg) < 1000 else len(arg) for arg in instruction.args]
        return [*head, kind, args, mounts, instruction.network, instruction.security, texts]
    if isinstance(instruction, Copy):
        names = ("from_", "chown", "chmod", "link", "parents", "exclude", "checksum", "keep_git_dir", "unpack")
        flags = {name: value for name in names if (value := getattr(instruction, name)) not in (None, False, ())}
        if instruction.unpack is False:
            flags["unpack"] = False
        return [*head, list(instruction.sources), instruction.dest, flags, texts]
    return [*head, instruction.rest]
