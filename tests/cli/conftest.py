"""The real command, in a process of its own, over a store of the test's own."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest


class Layerfs:
    """Calls the command; ``code`` is the exit code that is expected."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.environment = os.environ | {
            "LAYERFS_ROOT": str(place / "root"),
            "LAYERFS_RUN": str(place / "run"),
            "TZ": "UTC",
        }

    def process(self, *words, code=0, data=None, environment=None, timeout=120, **keywords):
        result = subprocess.run(
            [sys.executable, "-m", "layerfs", *(word if isinstance(word, bytes) else str(word) for word in words)],
            input=b"" if data is None else data,
            capture_output=True,
            env=self.environment | (environment or {}),
            timeout=timeout,
            **keywords,
        )
        assert code is None or result.returncode == code, (
            words,
            result.returncode,
            result.stdout[-2000:],
            result.stderr[-2000:],
        )
        return result

    def __call__(self, *words, **keywords):
        """The standard output."""
        return self.process(*words, **keywords).stdout.decode("utf-8", "surrogateescape")

    def lines(self, *words, **keywords):
        return self(*words, **keywords).splitlines()

    def error(self, *words, code, **keywords):
        """The one line of the error."""
        text = self.process(*words, code=code, **keywords).stderr.decode("utf-8", "surrogateescape")
        assert text.count("\n") == 1, text
        return text.rstrip("\n")

    def json(self, *words):
        return json.loads(self(*words))


@pytest.fixture
def layerfs(tmp_path):
    command = Layerfs(tmp_path)
    yield command
    # What still runs is ended, whatever the test did to the store, and its control groups go with it.
    ids = [path.name for path in (tmp_path / "root/containers").glob("*")]
    if ids:
        words = [sys.executable, "-m", "layerfs", "rm", "-f", "-v", *ids]
        subprocess.run(words, env=command.environment, capture_output=True, timeout=120, check=False)
    # Layers stay mounted for the next command; the test takes them down.
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith(f"{tmp_path}/"):
            # A supervisor's last command may have been faster.
            subprocess.run(["umount", "-l", mount], stderr=subprocess.DEVNULL, check=False)


def tar_of(files, executable=False):
    """A tar archive of files (bytes), links (text) and directories (None), in the order given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mtime, info.mode = 1_700_000_000, 0o755 if content is None or executable else 0o644
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


SMALL = {"etc": None, "etc/motd": b"hello\n", "bin": None, "bin/tool": b"#!x\n" * 2000, "link": "etc/motd"}


@pytest.fixture
def small(layerfs):
    """The ID of a small image that is called small:1."""
    return layerfs(
        "import", "-", "small:1", "-c", 'CMD ["/bin/tool"]', "-c", "LABEL kind=test", data=tar_of(SMALL)
    ).strip()


BUSYBOX = shutil.which("busybox")
APPLETS = (
    "sh",
    "cat",
    "echo",
    "id",
    "ls",
    "mkdir",
    "rm",
    "sleep",
    "true",
    "env",
    "pwd",
    "hostname",
    "kill",
    "ln",
    "head",
)
PASSWD = b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n"


@pytest.fixture
def box(layerfs):
    """An image of busybox that is called box."""
    if BUSYBOX is None:
        pytest.skip("needs the package busybox-static")
    files = {"bin": None, "bin/busybox": Path(BUSYBOX).read_bytes(), "etc": None, "etc/passwd": PASSWD, "old": b"1"}
    files |= {f"bin/{name}": "busybox" for name in APPLETS} | {"tmp": None}
    words = ["-c", 'CMD ["/bin/sh"]', "-c", "ENV PATH=/bin"]
    layerfs("import", *words, "-", "box", data=tar_of(files, executable=True))
    yield "box"
    layerfs("rm", "-f", *layerfs.lines("ps", "-aq"), "none")
