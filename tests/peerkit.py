"""Other engines, each with a daemon and a store of its own, which end with the ``with``."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["Run", "containerd", "docker", "need", "podman", "run"]

Run = Callable[..., str]


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here")


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def unmount(base: str | Path) -> None:
    """Whatever was left mounted below a directory."""
    for mount in [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]:
        if mount.startswith(f"{base}/"):
            subprocess.run(["umount", "-l", mount], check=False)


@contextmanager
def daemon(base: Path, command: list[str], ready: list[str]) -> Iterator[None]:
    """A process that answers ``ready``, until the ``with`` ends; skips the test when it does not come up."""
    with open(base / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while subprocess.run(ready, capture_output=True, check=False).returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"{command[0]} does not start here")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)
        unmount(base)


@contextmanager
def docker(base: Path) -> Iterator[Run]:
    need("dockerd", "docker")
    address = f"unix://{base}/s"
    options = {"--data-root": base / "data", "--exec-root": base / "exec", "-H": address, "--pidfile": base / "pid"}
    flags = [str(part) for pair in options.items() for part in pair]
    quiet = ["--iptables=false", "--ip-masq=false", "--bridge=none", "--storage-driver=vfs"]
    client = ["docker", "-H", address]
    with daemon(base, ["dockerd", *flags, *quiet], [*client, "info"]):
        yield lambda *arguments: run(*client, *arguments)


@contextmanager
def containerd(base: Path) -> Iterator[Run]:
    need("containerd", "ctr")
    settings = base / "containerd.toml"
    settings.write_text(
        f'version = 2\nroot = "{base}/root"\nstate = "{base}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{base}/s"\n'
    )
    client = ["ctr", "-a", f"{base}/s"]
    with daemon(base, ["containerd", "--config", str(settings)], [*client, "version"]):
        yield lambda *arguments: run(*client, *arguments)


@contextmanager
def podman() -> Iterator[Run]:
    need("podman")
    with tempfile.TemporaryDirectory(prefix="lfs-") as place:  # podman wants its path short
        base = ["podman", "--root", f"{place}/p", "--runroot", f"{place}/r", "--storage-driver", "vfs"]
        try:
            yield lambda *arguments: run(*base, *arguments)
        finally:
            subprocess.run([*base, "rmi", "--all", "--force"], capture_output=True, check=False)
            unmount(place)
