"""One stage: its instructions in order. Each finds its layer in the cache, or makes it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from layerfs.build.cache import CacheRecord, cache_key
from layerfs.build.copying import CopyFlags
from layerfs.build.copystep import copy_step, keep_layer
from layerfs.build.instructions import Arg, Copy, Instruction, Meta, Run
from layerfs.build.lines import Line, read_lines
from layerfs.build.modes import resolve_owner
from layerfs.build.parser import parse_instruction
from layerfs.build.placing import make_directory, write_layer
from layerfs.build.plan import Stage
from layerfs.build.runstep import run_step, shown_command
from layerfs.build.session import Session, located
from layerfs.build.state import StageState
from layerfs.errors import InvalidInputError, UnsupportedError
from layerfs.oci import Platform
from layerfs.reference import Reference

__all__ = ["build_stage"]


def build_stage(session: Session, stage: Stage) -> StageState:
    """Build a stage; what it is in the end."""
    return _StageRun(session, stage).run()


def _context(image: str, contexts: Mapping[str, str]) -> str | None:
    """The named context that stands for an image: by the name as it is written, or as a whole reference."""
    for name in (image, image.lower()):
        if name in contexts:
            return contexts[name]
    for name, value in contexts.items():
        with suppress(InvalidInputError):
            if Reference.parse(name, "latest") == Reference.parse(image, "latest"):
                return value
    return None


class _StageRun:
    def __init__(self, session: Session, stage: Stage) -> None:
        self.session = session
        self.stage = stage
        self.file = session.file.file
        self.line = stage.text.source.line
        self.use_cache = not session.options.no_cache and not self._filtered()
        self.count = 1
        self.total = 1 + sum(self._is_step(each) for each in stage.text.instructions)

    def _filtered(self) -> bool:
        names = {self.stage.name, str(self.stage.number)}
        return any(name.lower() in names or name == "" for name in self.session.options.no_cache_filter)

    @staticmethod
    def _is_step(instruction: Instruction) -> bool:
        return isinstance(instruction, Run | Copy) or (isinstance(instruction, Meta) and instruction.word == "WORKDIR")

    def run(self) -> StageState:
        if self.stage.base is not None:
            self.session.state_of(self.stage.base)  # waiting for another stage is not this one's step
        with located(self.file, self.line), self.session.step(self._title(self.line)) as step:
            step.counts = False
            self.state = self._base()
        triggers = self._triggers()
        self.total += sum(self._is_step(each) for each in triggers)
        for instruction in (*triggers, *self.stage.text.instructions):
            with located(self.file, instruction.line):
                self._execute(instruction)
        return self.state

    def _title(self, line: Line) -> str:
        named = f"{self.stage.name} " if len(self.session.file.stages) > 1 else ""
        text = line.text.split("\n")[0] if line.word != "RUN" else " ".join(line.text.split("\n")[0].split())
        return f"[{named}{self.count}/{self.total}] {text}"

    # ---- FROM ----

    def _base(self) -> StageState:
        stage, session = self.stage, self.session
        escape = session.file.directives.escape
        platform = stage.platform or session.platform
        if stage.base is not None:
            return session.state_of(stage.base).based_on()
        context = _context(stage.image, session.options.contexts)
        if context is not None and context != "docker-image://scratch":
            return self._named_base(context, escape)
        if stage.image == "scratch" or context is not None:
            return StageState(platform, escape)
        image = session.image(stage.image, stage.platform)
        if not platform.matches(image.platform):
            session.warn(
                f"{self.file}:{self.line.number}: {stage.image} is for {image.platform}, and {platform} is built"
            )
        return StageState.of_image(image, escape)

    def _named_base(self, value: str, escape: str) -> StageState:
        """A named context in the place of an image: another image."""
        kind, _, rest = value.partition("://")
        if kind in ("docker-image", "image", "container-image"):
            return StageState.of_image(self.session.image(rest, self.stage.platform), escape)
        if kind == "oci-layout":
            from layerfs.build.remote import layout_image  # few builds need it

            return StageState.of_image(layout_image(self.session, rest), escape)
        raise InvalidInputError(
            f"the context {self.stage.image} has files and is no image", hint="use docker-image://NAME"
        )

    def _triggers(self) -> list[Instruction]:
        """What the base image's ONBUILD wants done now; it is not handed on."""
        texts: Sequence[str] = self.state.section.pop("OnBuild", None) or []
        found: list[Instruction] = []
        for text in texts:
            _, lines = read_lines(str(text).encode("utf-8", "surrogateescape"), f"{self.file} (ONBUILD)")
            for line in lines:
                here = Line(line.word, line.rest, self.line.number, self.line.end, line.text, line.heredocs)
                if line.word in ("FROM", "ONBUILD", "MAINTAINER"):
                    raise InvalidInputError(f"{self.file}:{self.line.number}: ONBUILD {line.word} in the base image")
                found.append(parse_instruction(here, self.file))
        return found

    # ---- the rest ----

    def _execute(self, instruction: Instruction) -> None:
        if isinstance(instruction, Arg):
            self._arg(instruction)
        elif isinstance(instruction, Run):
            self._run(instruction)
        elif isinstance(instruction, Copy):
            self._copy(instruction)
        else:
            self._meta(instruction)

    def _arg(self, instruction: Arg) -> None:
        given, outer = self.session.given, self.session.plan.arguments
        shown = []
        for name, default in instruction.pairs:
            value = self.state.declare(name, default, given, outer)
            shown.append(name if value is None else f"{name}={value}")
        self.state.add_note("ARG " + " ".join(shown))

    def _run(self, run: Run) -> None:
        self.count += 1
        if not Platform.host().matches(self.state.platform) and self.state.platform.os == "linux":
            raise UnsupportedError(
                f"RUN for {self.state.platform} cannot be done on this machine ({Platform.host()})",
                hint="build there, or without RUN",
            )
        with self.session.step(self._title(run.line)) as step:
            created_by = shown_command(self.state, run)
            layer, created, step.cached = run_step(
                self.session, self.state, run, self.stage.number, step, use_cache=self.use_cache
            )
        self.state.add_layer(layer, created, created_by)

    def _copy(self, copy: Copy) -> None:
        self.count += 1
        with self.session.step(self._title(copy.line)) as step:
            layer, created, step.cached = copy_step(
                self.session, self.state, copy, self.stage.number, use_cache=self.use_cache
            )
        self.state.add_layer(layer, created, f"{copy.line.word} {copy.line.rest}")

    def _meta(self, meta: Meta) -> None:
        missing: list[str] = []
        rest = meta.rest
        if meta.word == "ONBUILD" and meta.line.heredocs:
            rest += "".join(f"\n{each.text}{each.name}" for each in meta.line.heredocs)
        shown = self.state.edit(meta.word, rest, missing.append)
        for name in missing:
            self.session.warn(f"UndefinedVar: {self.file}:{meta.line.number}: usage of undefined variable '${name}'")
        if meta.word == "WORKDIR":
            self._workdir(meta, shown)
        else:
            self.state.add_note(shown)

    def _workdir(self, meta: Meta, shown: str) -> None:
        """The directory is made where it is missing."""
        self.count += 1
        session, state = self.session, self.state
        with session.step(self._title(meta.line)) as step:
            user = str(state.section.get("User") or "")
            key = cache_key("workdir", state.stack, state.directory, session.clamp, user)
            record = session.cache.find(key) if self.use_cache else None
            step.cached = record is not None
            if record is None:
                owner = resolve_owner(user, state.stack, session.parts.snapshots) if user else None
                flags = CopyFlags(owner=owner, clamp=session.clamp, now=session.now)
                with session.parts.layers.view(state.stack) as view:
                    placed = make_directory(view, state.directory, flags)
                made = write_layer(session.parts.layers, placed, session.lease.protect) if placed else None
                layer = keep_layer(session, made) if made else None
                record = CacheRecord(layer.diff_id if layer else None, session.moment(), meta.line.text[:200])
                session.cache.keep(key, record)
        if record.layer is not None:
            state.add_layer(record.layer, record.created, shown)
        else:
            state.add_note(shown)
