"""What instructions say: the values that the parser makes of lines. All are frozen; ``line`` says where it stands.

Words are as they were written: variables are replaced when an instruction is executed, for only then is known what
they hold.
"""

import msgspec

from layerfs.build.lines import Directives, Heredoc, Line

__all__ = ["Arg", "Copy", "Dockerfile", "From", "Instruction", "Meta", "Mount", "Run", "StageText"]


class From(msgspec.Struct, frozen=True):
    """``FROM [--platform=…] image [AS name]``; the name in lower case."""

    line: Line
    image: str
    platform: str | None = None
    name: str | None = None


class Arg(msgspec.Struct, frozen=True):
    """``ARG name[=default] …``."""

    line: Line
    pairs: tuple[tuple[str, str | None], ...]


class Mount(msgspec.Struct, frozen=True):
    """``RUN --mount=…``: its options as written."""

    type: str
    options: dict[str, str]


class Run(msgspec.Struct, frozen=True):
    """``RUN``; ``args`` is the JSON form, or one text for the shell."""

    line: Line
    args: tuple[str, ...]
    shell: bool
    mounts: tuple[Mount, ...] = ()
    network: str = "default"
    security: str = "sandbox"


class Copy(msgspec.Struct, frozen=True):
    """``COPY`` and ``ADD`` (by ``line.word``). Sources that are heredocs stand in ``heredocs``, in their places as
    ``<<NAME`` words."""

    line: Line
    sources: tuple[str, ...]
    dest: str
    heredocs: tuple[Heredoc, ...] = ()
    from_: str | None = None
    chown: str | None = None
    chmod: str | None = None
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str | None = None
    keep_git_dir: bool = False
    unpack: bool | None = None


class Meta(msgspec.Struct, frozen=True):
    """An instruction that edits the configuration alone, or begins so: ENV, LABEL, WORKDIR, ONBUILD …"""

    line: Line
    word: str
    rest: str


Instruction = Arg | Run | Copy | Meta


class StageText(msgspec.Struct, frozen=True):
    """A stage as it is written."""

    source: From
    instructions: tuple[Instruction, ...]


class Dockerfile(msgspec.Struct, frozen=True):
    """A whole file: global arguments, then stages."""

    file: str
    directives: Directives
    arguments: tuple[Arg, ...]
    stages: tuple[StageText, ...]
