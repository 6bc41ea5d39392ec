"""The other tools."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from bench.box import cgroup_name
from bench.engines import CHANGE, Engine, Layerfs, LayerfsNoSync, version_of
from bench.layout import Layout
from bench.measure import CommandFailed, Commands, Step, execute

__all__ = ["ENGINES", "Bsdtar", "Buildah", "Containerd", "Docker", "GnuTar", "Podman", "Umoci"]

CHANGED = "localhost/bench/changed:1"
BUILT = "localhost/bench/built:1"
_PATIENCE = 30.0
"""Seconds that a daemon has to come up."""


def _loop(command: list[str], count: int, jobs: int = 2) -> list[str]:
    """Run a command ``count`` times, two at once: what a user of the command can do."""
    run = 'seq $0 | xargs -P $1 -I{} "${@:2}"'
    return ["bash", "-c", run, str(count), str(jobs), *command]


class _Daemon:
    """A process that serves a socket until it is ended."""

    def __init__(self, command: list[str], ready: list[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as sink:
            self._process = subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
        until = time.monotonic() + _PATIENCE
        while subprocess.run(ready, capture_output=True, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise CommandFailed(f"{command[0]} does not start: {log.read_text()[-600:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it, and wait."""
        self._process.terminate()
        try:
            self._process.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Docker(Engine):
    """Docker with a daemon of its own, without networks: driver overlay2, classic builder."""

    name = "docker"
    programs: ClassVar[tuple[str, ...]] = ("docker", "dockerd")
    _daemon: _Daemon | None = None

    def start(self) -> None:
        for name in ("data", "exec"):
            (self.disk / name).mkdir(exist_ok=True)
        places = ["--data-root", f"{self.disk}/data", "--exec-root", f"{self.disk}/exec", "-p", f"{self.disk}/pid"]
        network = ["--bridge", "none", "--iptables=false", "--ip6tables=false"]
        command = ["dockerd", *places, "-H", self._socket, *network, "--cgroup-parent", f"/{cgroup_name()}"]
        self._daemon = _Daemon(command, self._docker("version"), self.disk / "dockerd.log")

    def stop(self) -> None:
        if self._daemon:
            self._daemon.stop()

    @property
    def _socket(self) -> str:
        return f"unix://{self.disk}/docker.sock"

    def _docker(self, *arguments: str) -> list[str]:
        return ["env", "DOCKER_BUILDKIT=0", "docker", "-H", self._socket, *arguments]

    def load(self, layout: Layout) -> Step | None:
        self.image = layout.reference
        return Step([self._docker("load", "-q", "-i", str(layout.archive))])

    def pull(self, layout: Layout) -> Step | None:
        self.image = f"{self.registry}/{layout.repository}:1"
        return self.pull_again()

    def pull_again(self) -> Step | None:
        return Step([self._docker("pull", "-q", self.image)])

    def save(self) -> Step | None:
        return Step([self._docker("save", "-o", str(self._save_file()), CHANGED)])

    def push(self) -> Step | None:
        name = f"{self.registry}/bench/python:docker"
        return Step([self._docker("push", "-q", name)], [self._docker("tag", CHANGED, name)])

    def delete(self) -> Step | None:
        return Step([self._docker("image", "prune", "-af")])

    def run(self) -> Step | None:
        return Step([self._docker("run", "--rm", "--network", "none", self.image, "true")])

    def burst(self, count: int) -> Step | None:
        return Step([_loop(self._docker("run", "--rm", "--network", "none", self.image, "true"), count)], count=count)

    def many(self, count: int) -> Commands:
        return [_loop(self._docker("create", "--network", "none", self.image, "true"), count)]

    def ps(self) -> Step | None:
        return Step([self._docker("ps", "-a")])

    def change(self) -> Commands | None:
        return [self._docker("run", "-i", "--name", "work", "--network", "none", self.image, "sh", "-c", CHANGE)]

    def diff(self) -> Step | None:
        return Step([self._docker("diff", "work")])

    def commit(self) -> Step | None:
        return Step([self._docker("commit", "work", CHANGED)])

    def remove_container(self) -> Commands:
        return [self._docker("rm", "-f", "work")]

    def build(self, context: Path) -> Step | None:
        return Step([self._docker("build", "-q", "--network", "none", "-t", BUILT, str(context))])

    def identity(self) -> tuple[str, tuple[str, ...]] | None:
        told = json.loads(execute([self._docker("image", "inspect", self.image)]))[0]
        return told["Id"], tuple(told["RootFS"]["Layers"])

    @contextmanager
    def tree(self, committed: bool = False) -> Iterator[Path | None]:
        told = json.loads(execute([self._docker("image", "inspect", CHANGED if committed else self.image)]))[0]
        data = told["GraphDriver"]["Data"]
        lowers = ":".join(filter(None, (data["UpperDir"], data.get("LowerDir"))))
        place = self.disk / "tree"
        place.mkdir(exist_ok=True)
        short = lowers.replace(f"{self.disk}/data/overlay2/", "")  # mount(2) takes 4 KiB of options
        work = self.disk / "data" / "overlay2"
        execute([["env", "-C", str(work), "mount", "-t", "overlay", "tree", "-o", f"ro,lowerdir={short}", str(place)]])
        yield place
        execute([["umount", str(place)]])


class Podman(Engine):
    """Podman: containers/storage, driver overlay. With its own choice of runtime, where that starts here, else runc."""

    name = "podman"
    programs: ClassVar[tuple[str, ...]] = ("podman",)
    _runtime: ClassVar[list[str] | None] = None

    @classmethod
    def versions(cls) -> list[str]:
        """It, and the runtimes there are."""
        return [version_of(program, "--version") for program in ("podman", "crun", "runc", "conmon")]

    def _storage(self, program: str, *arguments: str) -> list[str]:
        places = ["--root", f"{self.disk}/storage", "--runroot", f"{self.disk}/run", "--storage-driver", "overlay"]
        return [program, *places, *arguments]

    def _podman(self, *arguments: str) -> list[str]:
        more = ["--tmpdir", f"{self.disk}/tmp", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        return self._storage("podman", *more, *(Podman._runtime or []), *arguments)

    def _container(self, *arguments: str) -> list[str]:
        """A command that makes a container; the first time it is found out with which runtime."""
        common = ["--network", "none", "--cgroup-parent", f"/{cgroup_name()}"]
        if Podman._runtime is None:
            Podman._runtime = []
            try:
                execute([self._podman("run", "--rm", *common, self.image, "true")])
            except CommandFailed:
                Podman._runtime = ["--runtime", "runc"]
                print("podman: its own runtime does not start here; with runc", file=sys.stderr)
        return self._podman(arguments[0], *common, *arguments[1:])

    def load(self, layout: Layout) -> Step | None:
        self.image = layout.reference
        return Step([self._podman("load", "-q", "-i", str(layout.archive))])

    def pull(self, layout: Layout) -> Step | None:
        self.image = f"{self.registry}/{layout.repository}:1"
        return self.pull_again()

    def pull_again(self) -> Step | None:
        return Step([self._podman("pull", "-q", "--tls-verify=false", self.image)])

    def save(self) -> Step | None:
        return Step([self._podman("save", "-q", "-o", str(self._save_file()), CHANGED)])

    def push(self) -> Step | None:
        return Step([self._podman("push", "-q", "--tls-verify=false", CHANGED, f"{self.registry}/bench/python:podman")])

    def delete(self) -> Step | None:
        return Step([self._podman("rmi", "-f", "-a")])

    def mount(self) -> Step | None:
        create = self._container("create", "--name", "mounted", self.image)
        return Step([create, self._podman("mount", "mounted")])

    def run(self) -> Step | None:
        return Step([self._container("run", "--rm", self.image, "true")])

    def burst(self, count: int) -> Step | None:
        return Step([_loop(self._container("run", "--rm", self.image, "true"), count)], count=count)

    def many(self, count: int) -> Commands:
        return [_loop(self._container("create", self.image, "true"), count)]

    def ps(self) -> Step | None:
        return Step([self._podman("ps", "-a")])

    def change(self) -> Commands | None:
        return [self._container("run", "-i", "--name", "work", self.image, "sh", "-c", CHANGE)]

    def diff(self) -> Step | None:
        return Step([self._podman("diff", "work")])

    def commit(self) -> Step | None:
        return Step([self._podman("commit", "-q", "work", CHANGED)])

    def remove_container(self) -> Commands:
        return [self._podman("rm", "-f", "-a")]

    def identity(self) -> tuple[str, tuple[str, ...]] | None:
        told = json.loads(execute([self._podman("image", "inspect", self.image)]))[0]
        return f"sha256:{told['Id']}", tuple(told["RootFS"]["Layers"])

    @contextmanager
    def tree(self, committed: bool = False) -> Iterator[Path | None]:
        name = CHANGED if committed else self.image
        yield Path(execute([self._podman("image", "mount", name)]).strip())
        execute([self._podman("image", "unmount", name)])


class Buildah(Podman):
    """Buildah, for builds alone: with chroot as its isolation, the quickest it has."""

    name = "buildah"
    programs: ClassVar[tuple[str, ...]] = ("buildah",)
    only_builds = True

    @classmethod
    def versions(cls) -> list[str]:
        return [version_of("buildah", "--version")]

    def build(self, context: Path) -> Step | None:
        """Build with its layer cache."""
        options = ["--layers", "--isolation", "chroot", "--tls-verify=false", "--network", "host"]
        return Step([self._storage("buildah", "build", "-q", *options, "-t", BUILT, str(context))])


class Containerd(Engine):
    """containerd with a daemon of its own, through ctr: snapshotter overlayfs."""

    name = "containerd"
    programs: ClassVar[tuple[str, ...]] = ("ctr", "containerd")
    _daemon: _Daemon | None = None

    def start(self) -> None:
        settings = self.disk / "containerd.toml"
        settings.write_text(
            f'version = 2\nroot = "{self.disk}/root"\nstate = "{self.disk}/state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{self._socket}"\n'
        )
        command = ["containerd", "--config", str(settings)]
        self._daemon = _Daemon(command, self._ctr("version"), self.disk / "containerd.log")

    def stop(self) -> None:
        if self._daemon:
            self._daemon.stop()

    @property
    def _socket(self) -> str:
        return f"{self.disk}/containerd.sock"

    def _ctr(self, *arguments: str) -> list[str]:
        return ["ctr", "-a", self._socket, *arguments]

    def load(self, layout: Layout) -> Step | None:
        self.image = layout.reference
        return Step([self._ctr("images", "import", "--snapshotter", "overlayfs", str(layout.archive))])

    def pull(self, layout: Layout) -> Step | None:
        self.image = f"{self.registry}/{layout.repository}:1"
        return self.pull_again()

    def pull_again(self) -> Step | None:
        return Step([self._ctr("images", "pull", "--plain-http", "--snapshotter", "overlayfs", self.image)])

    def delete(self) -> Step | None:
        return Step([self._ctr("images", "rm", "--sync", self.image)])

    def _run(self, id: str) -> list[str]:
        return self._ctr("run", "--rm", "--cgroup", f"/{cgroup_name()}/{id}", self.image, id, "true")

    def run(self) -> Step | None:
        return Step([self._run("once")])

    def burst(self, count: int) -> Step | None:
        return Step([_loop(self._run("burst{}"), count)], count=count)

    @contextmanager
    def tree(self, committed: bool = False) -> Iterator[Path | None]:
        place = self.disk / "tree"
        place.mkdir(exist_ok=True)
        execute([self._ctr("images", "mount", self.image, str(place))])
        yield place
        execute([self._ctr("images", "unmount", "--rm", str(place))])


class Umoci(Engine):
    """skopeo to bring the image, umoci to unpack it into a directory and to repack that."""

    name = "umoci"
    programs: ClassVar[tuple[str, ...]] = ("umoci", "skopeo")

    @property
    def _image(self) -> str:
        return f"{self.disk}/oci:1"

    @property
    def _bundle(self) -> str:
        return f"{self.disk}/bundle"

    def load(self, layout: Layout) -> Step | None:
        self.image = layout.name
        bring = ["skopeo", "copy", "-q", f"oci:{layout.directory}:1", f"oci:{self._image}"]
        return Step([bring, ["umoci", "unpack", "--image", self._image, self._bundle]])

    def pull(self, layout: Layout) -> Step | None:
        self.image = layout.name
        source = f"docker://{self.registry}/{layout.repository}:1"
        bring = ["skopeo", "copy", "-q", "--src-tls-verify=false", source, f"oci:{self._image}"]
        return Step([bring, ["umoci", "unpack", "--image", self._image, self._bundle]])

    def change(self) -> Commands | None:
        return [["chroot", f"{self._bundle}/rootfs", "/bin/sh", "-c", CHANGE]]

    def commit(self) -> Step | None:
        return Step([["umoci", "repack", "--image", f"{self.disk}/oci:changed", self._bundle]])

    def push(self) -> Step | None:
        target = f"docker://{self.registry}/bench/python:umoci"
        return Step([["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{self.disk}/oci:changed", target]])

    @contextmanager
    def tree(self, committed: bool = False) -> Iterator[Path | None]:
        yield Path(self._bundle) / "rootfs"


class _Extractor(Engine):
    """A program that extracts the layers of an image into one directory, one after another.

    Whiteouts it leaves as files of that name, and nothing is verified: less work than is asked of the others.
    """

    options: ClassVar[tuple[str, ...]]

    def load(self, layout: Layout) -> Step | None:
        target = self.disk / "tree"
        command = [self.programs[0], "-C", str(target), *self.options]
        return Step([[*command, "-xf", str(blob)] for blob in layout.blobs], [["mkdir", "-p", str(target)]])


class Bsdtar(_Extractor):
    """libarchive's tar."""

    name = "bsdtar"
    programs: ClassVar[tuple[str, ...]] = ("bsdtar",)
    options = ("-p", "--numeric-owner", "--xattrs")


class GnuTar(_Extractor):
    """GNU tar, with zlib's gzip as its child."""

    name = "tar"
    programs: ClassVar[tuple[str, ...]] = ("tar",)
    options = ("-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-z")


ENGINES: dict[str, type[Engine]] = {
    engine.name: engine
    for engine in (Layerfs, LayerfsNoSync, Docker, Podman, Containerd, Umoci, Buildah, Bsdtar, GnuTar)
}  # fmt: skip
