"""Other builders over stores of their own: buildah, and docker's two. Each builds a directory and gives an archive."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["BUILDERS", "Builder", "building"]


class Builder:
    """A tool that builds; ``run`` raises what it said."""

    name = ""

    def __init__(self, place: Path) -> None:
        self.place = place

    def words(self, *arguments: str) -> list[str]:
        raise NotImplementedError

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            self.words(*arguments), capture_output=True, text=True, timeout=200, check=False, env=self.environment()
        )
        assert done.returncode == 0, (arguments, done.stdout[-1000:], done.stderr[-1500:])
        return done.stdout

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def load(self, archive: Path, tag: str) -> None:
        """Take a docker-archive of the image ``tag``."""
        self.run("load", "-q", "-i", str(archive))

    def build(self, context: Path, tag: str) -> None:
        raise NotImplementedError

    def save(self, tag: str, archive: Path) -> None:
        self.run("save", "-o", str(archive), tag)


class Docker(Builder):
    """The classic builder."""

    name = "docker"
    buildkit = "0"

    def words(self, *arguments: str) -> list[str]:
        return [_client(), "-H", f"unix://{self.place}/s", *arguments]

    def environment(self) -> dict[str, str]:
        return os.environ | {"DOCKER_BUILDKIT": self.buildkit, "DOCKER_CONFIG": f"{self.place}/config"}

    def build(self, context: Path, tag: str) -> None:
        self.run("build", "-q", "--no-cache", "--network", "none", "-t", tag, str(context))


class BuildKit(Docker):
    """The builder that docker has had since, as its daemon has it inside."""

    name = "buildkit"
    buildkit = "1"


class Buildah(Builder):
    """With a layer for each instruction, as docker makes them."""

    name = "buildah"

    def words(self, *arguments: str) -> list[str]:
        return ["buildah", "--root", f"{self.place}/p", "--runroot", f"{self.place}/r", *arguments]

    def load(self, archive: Path, tag: str) -> None:
        id = self.run("pull", "-q", f"docker-archive:{archive}").strip()
        self.run("tag", id, tag)

    def build(self, context: Path, tag: str) -> None:
        options = ["--layers", "--format", "docker", "--isolation", "chroot"]
        self.run("build", "-q", *options, "-t", tag, str(context))

    def save(self, tag: str, archive: Path) -> None:
        self.run("push", "-q", tag, f"docker-archive:{archive}:{tag}")


BUILDERS = {each.name: each for each in (Docker, BuildKit, Buildah)}


def _client() -> str:
    """A docker that speaks to BuildKit without a plugin, where there is one: that of the daemon's age."""
    daemon = subprocess.run(["dockerd", "--version"], capture_output=True, text=True, check=False).stdout.split()
    for directory in os.get_exec_path():
        found = shutil.which("docker", path=directory)
        if found and daemon:
            told = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout.split()
            if told[2:3] == daemon[2:3]:
                return found
    return "docker"


@contextmanager
def building(name: str, place: Path) -> Iterator[Builder]:
    """A builder that is ready; skips where it is not to be had."""
    place.mkdir(parents=True, exist_ok=True)
    builder = BUILDERS[name](place)
    for tool in ("buildah",) if name == "buildah" else ("docker", "dockerd"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here")
    try:
        if name == "buildah":
            yield builder
        else:
            with _daemon(builder):
                yield builder
    finally:
        for mount in reversed([line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]):
            if mount.startswith(f"{place}/"):
                subprocess.run(["umount", "-l", mount], check=False)


@contextmanager
def _daemon(builder: Builder) -> Iterator[None]:
    place = builder.place
    (place / "config").mkdir(exist_ok=True)
    options = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "pid", "--config-file": "daemon.json"}
    flags = [word for option, at in options.items() for word in (option, f"{place}/{at}")]
    (place / "daemon.json").write_text(json.dumps({"features": {"buildkit": True}}))
    quiet = ["-H", f"unix://{place}/s", "--iptables=false", "--ip-masq=false", "--bridge=none"]
    with open(place / "log", "wb") as log:
        daemon = subprocess.Popen(["dockerd", *flags, *quiet], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while subprocess.run(builder.words("info"), capture_output=True, check=False).returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                pytest.skip("dockerd does not come up here")
            time.sleep(0.2)
        yield
    finally:
        daemon.terminate()
        daemon.wait(30)
