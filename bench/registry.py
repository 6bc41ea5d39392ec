"""A registry on loopback, Debian's ``docker-registry``, filled once and served fresh to every tool."""

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.layout import Layout
from bench.measure import CommandFailed, execute

__all__ = ["Registry"]

_PATIENCE = 15.0


class Registry:
    """Each ``serving`` begins with the images it was filled with and nothing else."""

    def __init__(self, work: Path) -> None:
        self._place = work / "registry"
        self._base = work / "registry-base"
        self._base.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.pids: set[int] = set()
        """Of the process, while it serves."""

    @staticmethod
    def missing() -> list[str]:
        """The programs it needs that are not there."""
        return [program for program in ("docker-registry", "skopeo") if shutil.which(program) is None]

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._port}"

    def fill(self, layouts: Sequence[Layout]) -> None:
        """Put images where every ``serving`` will have them."""
        with self.serving(fresh=True):
            for layout in layouts:
                self.push(layout, f"{self.address}/{layout.repository}:1")
            shutil.rmtree(self._base)
            shutil.copytree(self._place, self._base)

    def push(self, layout: Layout, name: str) -> None:
        """Send an image, its blobs as they are."""
        source = f"oci:{layout.directory}:1"
        execute([["skopeo", "copy", "-q", "--dest-tls-verify=false", source, f"docker://{name}"]])

    @contextmanager
    def serving(self, *, fresh: bool = False) -> Iterator[None]:
        """Run it, with what it was filled with, or ``fresh``: with nothing."""
        shutil.rmtree(self._place, ignore_errors=True)
        if fresh:
            self._place.mkdir()
        else:  # hard links: blobs are never written in place
            execute([["cp", "-al", str(self._base), str(self._place)]])
        config = self._place.with_suffix(".yml")
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{self._port}'}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self._place}}}}}\n"
        )
        with config.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
        try:
            self._await(process)
            self.pids = {process.pid}
            yield
        finally:
            process.terminate()
            process.wait()
            self.pids = set()

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"http://{self.address}/v2/", timeout=1).close()
                return
            except (urllib.error.URLError, OSError):
                if process.poll() is not None or time.monotonic() > until:
                    raise CommandFailed("docker-registry does not start") from None
                time.sleep(0.05)
