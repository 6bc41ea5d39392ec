"""What is asked of every tool that is measured, and layerfs itself.

An engine answers each question with the commands that do the work, or None when it has no such thing. It keeps all it
stores on the one disk it is given.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from bench.layout import Layout
from bench.measure import Commands, Step, execute

__all__ = ["CHANGE", "Engine", "Layerfs", "LayerfsNoSync", "version_of"]

CHANGE = "cp -a /opt/venv /opt/venv2 && cat > /opt/noise && rm -rf /usr/share/doc /usr/share/locale"
"""What the container changes that is compared, committed, saved and pushed: some 14,000 paths, 100 MB of noise."""


def version_of(*command: str) -> str:
    """The first line that a program says of its version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().splitlines()[0] if done.stdout or done.stderr else "?"


class Engine:
    """A tool on a disk of its own."""

    name: ClassVar[str]
    programs: ClassVar[tuple[str, ...]] = ()
    only_builds: ClassVar[bool] = False
    """Whether it is asked for nothing but builds, as another name has the same store."""

    def __init__(self, disk: Path, registry: str) -> None:
        self.disk = disk
        self.registry = registry
        self.image = ""
        """The name under which the image that was loaded or pulled last is known here."""

    @classmethod
    def missing(cls) -> list[str]:
        """The programs it needs that are not there."""
        return [program for program in cls.programs if shutil.which(program) is None]

    @classmethod
    def versions(cls) -> list[str]:
        """What is measured, exactly."""
        return [version_of(program, "--version") for program in cls.programs]

    def start(self) -> None:
        """Bring up what has to run."""

    def stop(self) -> None:
        """End it."""

    # ---- images ----

    def load(self, layout: Layout) -> Step | None:
        """Unpack an image from its archive."""
        return None

    def pull(self, layout: Layout) -> Step | None:
        """Unpack an image from the registry."""
        return None

    def pull_again(self) -> Step | None:
        """Pull what is there."""
        return None

    def save(self) -> Step | None:
        """Write the image that was committed to an archive."""
        return None

    def push(self) -> Step | None:
        """Send the image that was committed to the registry, which has all layers but one."""
        return None

    def delete(self) -> Step | None:
        """Remove all images; no container is there."""
        return None

    # ---- containers ----

    def mount(self) -> Step | None:
        """Make a container and mount its file system."""
        return None

    def run(self) -> Step | None:
        """``run --rm IMAGE true``."""
        return None

    def burst(self, count: int) -> Step | None:
        """Run ``true`` in ``count`` containers, as fast as it goes."""
        return None

    def many(self, count: int) -> Commands:
        """Make ``count`` containers that do not run."""
        return []

    def ps(self) -> Step | None:
        """List all containers."""
        return None

    def change(self) -> Commands | None:
        """Make the container that has changed; the noise comes by the standard input."""
        return None

    def diff(self) -> Step | None:
        """List what it has changed."""
        return None

    def commit(self) -> Step | None:
        """Make an image of it."""
        return None

    def remove_container(self) -> Commands:
        """Remove it."""
        return []

    # ---- builds ----

    def build(self, context: Path) -> Step | None:
        """Build ``context`` over the image, with nothing in the cache."""
        return None

    # ---- what came out ----

    def identity(self) -> tuple[str, tuple[str, ...]] | None:
        """Image ID and diff IDs of the image."""
        return None

    @contextmanager
    def tree(self, committed: bool = False) -> Iterator[Path | None]:
        """The file tree of the image, or of the one committed; None when the tool has none to show."""
        yield None

    def _save_file(self) -> Path:
        return self.disk / "saved.tar"


class Layerfs(Engine):
    """This project, as the Python that runs this has it: with its own interpreter."""

    name = "layerfs"
    programs: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[str, ...]] = ()
    """Of every command."""
    environment: ClassVar[tuple[str, ...]] = ()
    """The same for the library."""

    def command(self, *arguments: str) -> list[str]:
        """A command line on the store of this disk."""
        program = Path(sys.executable).parent / "layerfs"
        return [str(program), *self.options, "--root", f"{self.disk}/root", "--run", f"{self.disk}/run", *arguments]

    def inside(self, *arguments: str) -> list[str]:
        """The library in one process: ``bench.inside``."""
        program = [*(("env", *self.environment) if self.environment else ()), sys.executable, "-m", "bench.inside"]
        return [*program, f"{self.disk}/root", f"{self.disk}/run", *arguments]

    @classmethod
    def versions(cls) -> list[str]:
        """Its version, the interpreter's and the commit's."""
        commit = version_of("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
        ours = version_of(str(Path(sys.executable).parent / "layerfs"), "--version")
        return [ours, f"Python {sys.version.split()[0]}", f"commit {commit}"]

    def load(self, layout: Layout) -> Step | None:
        self.image = layout.reference
        return Step([self.command("load", "-q", "-i", str(layout.archive))])

    def pull(self, layout: Layout) -> Step | None:
        self.image = f"{self.registry}/{layout.repository}:1"
        return Step([self.command("pull", "-q", self.image)])

    def pull_again(self) -> Step | None:
        return Step([self.command("pull", "-q", self.image)])

    def save(self) -> Step | None:
        return Step([self.command("save", "-q", "-o", str(self._save_file()), "localhost/bench/changed:1")])

    def push(self) -> Step | None:
        return Step([self.command("push", "-q", "localhost/bench/changed:1", f"{self.registry}/bench/python:layerfs")])

    def delete(self) -> Step | None:
        return Step([self.command("rmi", "-f", self.image, "localhost/bench/changed:1")])

    def mount(self) -> Step | None:
        return Step([self.command("create", "--name", "mounted", self.image), self.command("mount", "mounted")])

    def run(self) -> Step | None:
        return Step([self.command("run", "--rm", "--network", "none", "--runtime", "builtin", self.image, "true")])

    def burst(self, count: int) -> Step | None:
        return Step([self.inside("burst", self.image, str(count))], count=count)

    def many(self, count: int) -> Commands:
        return [self.inside("many", self.image, str(count))]

    def ps(self) -> Step | None:
        return Step([self.command("ps", "-a")])

    def change(self) -> Commands | None:
        return [self.command("run", "-i", "--name", "work", "--network", "none", self.image, "sh", "-c", CHANGE)]

    def diff(self) -> Step | None:
        return Step([self.command("diff", "work")])

    def commit(self) -> Step | None:
        return Step([self.command("commit", "work", "localhost/bench/changed:1")])

    def remove_container(self) -> Commands:
        return [self.command("rm", "-f", "work", "mounted")]

    def build(self, context: Path) -> Step | None:
        if subprocess.run(self.command("build", "--help"), capture_output=True, check=False).returncode:
            return None
        return Step([self.command("build", "-q", "-t", "localhost/bench/built:1", str(context))])

    def identity(self) -> tuple[str, tuple[str, ...]] | None:
        told = json.loads(execute([self.command("inspect", self.image)]))[0]
        return told["Id"], tuple(told["RootFS"]["Layers"])

    @contextmanager
    def tree(self, committed: bool = False) -> Iterator[Path | None]:
        name = "localhost/bench/changed:1" if committed else self.image
        yield Path(execute([self.command("mount", name)]).strip())
        execute([self.command("unmount", name)])


class LayerfsNoSync(Layerfs):
    """The same, leaving it to the kernel when what it stores is written out, as the other tools do."""

    name = "layerfs-nosync"
    options: ClassVar[tuple[str, ...]] = ("--no-sync",)
    environment: ClassVar[tuple[str, ...]] = ("LAYERFS_NO_SYNC=1",)
