"""What all stages of one build share: the stores, the cache, the trees, the numbers of steps, and where errors are."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from layerfs.build.cache import BuildCache
from layerfs.build.context import TreeKeeper, is_remote
from layerfs.build.instructions import Dockerfile
from layerfs.build.lines import Line
from layerfs.build.options import BuildOptions, BuildParts
from layerfs.build.plan import Plan
from layerfs.build.running import Runner
from layerfs.build.state import StageState
from layerfs.build.tree import Tree
from layerfs.errors import BuildError, InvalidInputError, LayerfsError, NotFoundError
from layerfs.imageconfig import timestamp
from layerfs.images import Image
from layerfs.leases import Lease
from layerfs.oci import Platform

__all__ = ["Session", "located"]


class Session:
    """One build. Made by ``building.build``; any thread may use it."""

    def __init__(
        self,
        parts: BuildParts,
        options: BuildOptions,
        lease: Lease,
        keeper: TreeKeeper,
        runner: Runner,
        *,
        context: Tree,
        file: Dockerfile,
        plan: Plan,
        given: Mapping[str, str],
        environment: Mapping[str, str],
        platform: Platform,
        clamp: int | None,
    ) -> None:
        self.parts = parts
        self.options = options
        self.lease = lease
        self.keeper = keeper
        self.runner = runner
        self.context = context
        self.file = file
        self.plan = plan
        self.given = given
        self.environment = environment
        self.platform = platform
        self.clamp = clamp
        self.now = time.time_ns() if clamp is None else clamp * 10**9
        self.cache = BuildCache(parts.database, parts.layers, lease)
        self.progress = options.progress
        self.warnings: list[str] = []
        self.ran = 0
        self.cached = 0
        self.state_of: Callable[[int], StageState] = self._no_states
        """The finished state of a stage; set by who runs the stages."""
        self._steps = 0
        self._lock = threading.RLock()
        self._trees: dict[str, Tree] = {}
        self._images: dict[str, Image] = {}

    @staticmethod
    def _no_states(number: int) -> StageState:
        raise AssertionError(f"stage {number} is asked for before any is built")

    def moment(self) -> str:
        """The time that what is made now is said to be made at, as RFC 3339 text."""
        if self.clamp is None:
            return timestamp()
        return datetime.fromtimestamp(self.clamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    # ---- steps ----

    @contextmanager
    def step(self, title: str) -> "Iterator[Step]":
        """A step that the user sees. An error in it is told before it goes on."""
        with self._lock:
            self._steps += 1
            number = self._steps
        step = Step(number)
        start = time.monotonic()
        self.progress.begin(number, title)
        try:
            yield step
        except LayerfsError as exc:
            tail = "\n".join(getattr(exc, "__notes__", ())).splitlines()
            self.progress.failed(number, str(exc), tail)
            raise
        with self._lock:
            if step.counts:
                self.ran, self.cached = self.ran + (not step.cached), self.cached + step.cached
        self.progress.end(number, time.monotonic() - start, cached=step.cached)

    def warn(self, text: str) -> None:
        """A warning, once."""
        with self._lock:
            if text in self.warnings:
                return
            self.warnings.append(text)
        self.progress.note(text)

    # ---- where things come from ----

    def image(self, name: str, platform: Platform | None = None) -> Image:
        """An image of the store, pulled where it is not there, or when ``--pull`` asks for the newest."""
        key = f"{name} {platform or ''}"
        with self._lock:
            if key not in self._images:
                self._images[key] = self._image(name, platform)
            return self._images[key]

    def _image(self, name: str, platform: Platform | None) -> Image:
        wanted = platform or self.platform
        if not self.options.pull:
            try:
                image = self.parts.images.get(name, wanted)
                if wanted.matches(image.platform) or platform is None:
                    self._protect(image)
                    return image
            except NotFoundError:
                pass
        from layerfs.exchange import pull  # most builds find their base here

        pulled = pull(self.parts, name, platform=wanted)
        if pulled.image is None:
            raise InvalidInputError(f"{name}: not an image")
        self._protect(pulled.image)
        return pulled.image

    def _protect(self, image: Image) -> None:
        self.lease.protect([image.manifest_descriptor.digest, image.id, *image.diff_ids])
        for diff_id in image.diff_ids:
            if not self.parts.layers.has(diff_id):
                raise NotFoundError(f"image {image.id}: layer {diff_id} is not in the store", hint="pull it again")

    def source(self, name: str, stage: int) -> Tree:
        """The tree that ``from=`` means: a named context, an earlier stage, or an image."""
        if name in self.options.contexts:
            return self._tree(f"context {name}", lambda: self.named_context(name))
        number = self.stage_number(name, stage)
        if number is not None:
            stack = self.state_of(number).stack
            return self._tree(f"stage {number}", lambda: self.keeper.layers(stack, f"stage {name}"))
        return self._tree(f"image {name}", lambda: self.keeper.layers(list(self.image(name).diff_ids), f"image {name}"))

    def identity(self, name: str, stage: int) -> str | None:
        """What the content of ``from=`` is known by without looking at it: its layers."""
        if name in self.options.contexts:
            return self.source(name, stage).identity
        number = self.stage_number(name, stage)
        stack = self.state_of(number).stack if number is not None else self.image(name).diff_ids
        return " ".join(stack)

    def stage_number(self, name: str, before: int) -> int | None:
        """The stage before another that a name or number means."""
        for number in range(before - 1, -1, -1):
            if self.file.stages[number].source.name == name.lower():
                return number
        return int(name) if name.isdecimal() and int(name) < before else None

    def named_context(self, name: str) -> Tree:
        """``--build-context name=…`` as a tree."""
        value = self.options.contexts[name]
        kind, _, rest = value.partition("://")
        if kind in ("docker-image", "image", "container-image"):
            return self.keeper.layers(list(self.image(rest).diff_ids), f"image {rest}")
        from layerfs.build.remote import named_tree  # few builds need it

        return (
            named_tree(self, name, value)
            if is_remote(value) or kind in ("oci-layout", "tar")
            else self._local(name, value)
        )

    def _local(self, name: str, value: str) -> Tree:
        from pathlib import Path

        from layerfs.build.context import ignore_of

        path = Path(value)
        if not path.is_dir():
            raise NotFoundError(f"build context {name}={value}: not a directory")
        tree = self.keeper.directory(path, f"the context {name}")
        tree.ignore = ignore_of(None, tree, None)
        return tree

    def _tree(self, key: str, make: Callable[[], Tree]) -> Tree:
        with self._lock:
            if key not in self._trees:
                self._trees[key] = make()
            return self._trees[key]


class Step:
    """What a step finds out about itself."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.cached = False
        self.counts = True


@contextmanager
def located(file: str, line: Line) -> Iterator[None]:
    """Errors begin with file, line and the instruction, as those of a compiler."""
    try:
        yield
    except LayerfsError as exc:
        # An error of another stage that this one waits for says where it is.
        if not str(exc).startswith(f"{file}:"):
            shown = " ".join(line.text.split("\n")[0].split())
            shown = shown if len(shown) <= 100 else shown[:97] + "..."
            exc.args = (f"{file}:{line.number}: {shown}: {exc}",)
        if isinstance(exc, BuildError | InvalidInputError) and exc.line is None:
            exc.file, exc.line = file, line.number
        if isinstance(exc, BuildError) and exc.step is None:
            exc.step = line.text
        raise
