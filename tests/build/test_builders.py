"""The same Dockerfiles by docker's two builders and by buildah: the same files, configuration and history."""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tarbuild as tar
from boxes import BUSYBOX, add_box
from peers import BUILDERS, Builder, building

from layerfs import Store
from layerfs.build import BuildOptions

pytestmark = [pytest.mark.root, pytest.mark.skipif(not BUSYBOX.exists(), reason="needs the package busybox-static")]


def tarball(compression: str = "gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:
        for name, type, mode in (("d", tarfile.DIRTYPE, 0o750), ("d/f", tarfile.REGTYPE, 0o640)):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid, info.mtime = type, mode, 12, 34, 1_600_000_000
            archive.addfile(info)
    return buffer.getvalue()


FILES: dict[str, str | bytes] = {
    "a": "a\n", "b.txt": "b\n", "c.txt": "c\n", "d/e/f": "f\n", "d/g": "g\n", "d/link": "->g", "sub/.hidden": "h\n",
    "sub/x.md": "x\n", "sub/y.md": "y\n", "t.tar.gz": tarball(), "t.tar.xz": tarball("xz"), "empty/.keep": "",
    "*odd name": "odd\n",
}  # fmt: skip

SETTINGS = """FROM box
MAINTAINER someone@example.org
ARG VERSION=1
ENV A=1 B="two words" C=$VERSION
ENV OLD form of it
LABEL one=1 "two words"="2 3" three=$A
EXPOSE 80 53/udp 8000-8002
VOLUME /v1 /v2
VOLUME ["/v 3"]
USER bob
WORKDIR /srv
STOPSIGNAL SIGQUIT
SHELL ["/bin/sh", "-ec"]
HEALTHCHECK --interval=5s --timeout=1m30s --retries=2 CMD test -f /srv
ONBUILD COPY . /app
ONBUILD RUN echo "a  b"
ENTRYPOINT echo $A
CMD ["x", "y z"]
"""

# name -> the Dockerfile, and who is not asked, as it does not know what is in it.
CASES: dict[str, tuple[str, set[str]]] = {
    "settings": (SETTINGS, set()),
    "entrypoint": ('FROM box\nCMD ["a"]\nENTRYPOINT ["/bin/b"]\n', set()),
    "entrypoint-resets": ('FROM box\nENTRYPOINT ["/bin/b"]\n', set()),
    "health-none": ("FROM box\nHEALTHCHECK NONE\nCMD echo $HOME && exec sh\n", set()),
    "copy": (
        "FROM box\nCOPY a /one\nCOPY a /two/\nCOPY *.txt /three/\nCOPY d /four\nCOPY d/ /five/six/\nCOPY a b.txt tmp/\n"
        "COPY sub/?.md sub/.hidden /seven/\nCOPY empty /eight\nCOPY d/link /nine\nCOPY . /ten/\n",
        set(),
    ),
    "copy-names": (
        'FROM box\nCOPY ["*odd name", "/with blank/"]\nCOPY --chown=bob:audio a /b\nCOPY --chown=bob d /c\n'
        "COPY --chown=12:34 sub /d/e/f/\nCOPY --chown=55 a /g\n",
        set(),
    ),
    "copy-over": (
        "FROM box\nRUN mkdir -m 700 /d && chown bob /d && ln -s d /l && echo old > /d/g && ln -s /etc/group /d/e\n"
        "COPY a /l/new\nCOPY d/g /l\nCOPY a /d/g\nWORKDIR /l\nCOPY b.txt .\nCOPY c.txt ./down/\n",
        set(),
    ),
    "add": (
        "FROM box\nADD t.tar.gz /gz\nADD t.tar.xz /xz/\nADD a d /plain/\nADD --chown=bob:bob t.tar.gz /own/\n",
        set(),
    ),
    "run": (
        "FROM box\nRUN echo 1 > /f && ln /f /g && ln -s f /s && mkfifo /p && chmod 4755 /f && mkdir -m 1777 /t\n"
        "RUN rm -r /data && mkdir /data && touch /data/new\nRUN mv /home /house; rm /g; chown 5:6 /s /p\n"
        'RUN ["/bin/sh", "-c", "echo $0 > /exec", "zero"]\n',
        set(),
    ),
    "run-environment": (
        "FROM box\nARG X=1\nARG Y\nENV Z=3\nUSER bob\nWORKDIR /tmp/w\n"
        "RUN echo $X-$Y-$Z-$HOME-$PWD > /tmp/o; id >> /tmp/o\nUSER 1234:29\nRUN id > /tmp/p; umask >> /tmp/p\nUSER 0\n"
        "RUN env | grep -v -e ^HOSTNAME -e ^SHLVL -e ^container | sort > /tmp/q\n",
        set(),
    ),
    "workdir": (
        "FROM box\nWORKDIR one\nWORKDIR two/../three\nENV D=/four\nWORKDIR $D/five\nUSER bob\nWORKDIR /home/bob/six\n",
        set(),
    ),
    "stages": (
        "ARG BASE=box\nFROM $BASE AS one\nARG BASE\n"
        "RUN mkdir -p /r/s && echo $BASE > /r/f && chmod 600 /r/f && chown -R bob /r\n"
        "FROM one AS two\nRUN echo 2 >> /r/f\nFROM box AS unused\nRUN false\nFROM box\nCOPY --from=one /r /one\n"
        "COPY --from=two /r/f /r/s /two/\nCOPY --from=box /data /three\nCOPY --from=0 --chown=7 /r/f /four\n",
        {"docker", "buildah"},
    ),
    "stages-all-needed": (
        "ARG BASE=box\nFROM $BASE AS one\nARG BASE\nRUN mkdir -p /r/s && echo $BASE > /r/f && chmod 600 /r/f\n"
        "FROM one AS two\nRUN echo 2 >> /r/f\nFROM box\nCOPY --from=one /r /one\nCOPY --from=two /r/f /r/s /two/\n",
        set(),
    ),
    "scratch": ("FROM scratch\nCOPY a d/ /\nENV A=1\nCOPY --chown=1:2 d /e/\n", set()),
    "variables": (
        "FROM box\nENV a=1 b=${x:-dash} c=${a:+plus} d='$a' e=\"$a \\$a\" f=a\\ b\nENV a=2 g=$a\n"
        "LABEL l=$a/${b}x m='${a}'\nEXPOSE ${a}0\nWORKDIR /w$a\nCOPY a ./$g/\nUSER ${nothing:-bob}\nSTOPSIGNAL $a\n",
        set(),
    ),
    "ignored": ("FROM box\nCOPY . /all\nCOPY d /d\n", set()),
    "volume": ("FROM box\nRUN mkdir /v && echo 1 > /v/a\nVOLUME /v\nRUN echo 2 > /v/b\n", {"docker", "buildah"}),
    "comments": (
        "# escape=`\nFROM box\n# one\nRUN echo a `\n# two\n   b > /o `\n\n   && echo c >> /o\n"
        "ENV A=b\\c `\n  D=e\nRUN echo 'a # b' > /h\n",
        set(),
    ),
    "mounts": (
        "FROM box AS one\nRUN echo 1 > /f\nFROM box\nRUN mkdir /cache /m /t /c\n"
        "RUN --mount=type=cache,target=/cache echo 1 > /cache/x\n"
        "RUN --mount=from=one,target=/m cat /m/f > /o\nRUN --mount=type=tmpfs,target=/t touch /t/x\n"
        "RUN --mount=target=/c cat /c/a > /p\nCOPY --chmod=711 a /q\nCOPY --chmod=711 d /r\n",
        {"docker"},
    ),
    "parent-of-copy": ("FROM box\nCOPY ../a /x\nCOPY /d/../a /y\nCOPY ./././a /z\n", {"docker"}),
}

# What differs, and is to: builder -> case, * for each -> paths, settings, and numbers of entries in the history.
DELIBERATE: dict[str, dict[str, set[str]]] = {
    "docker": {
        # The directories that WORKDIR and --chown make are root's there; here as with BuildKit the user's.
        "settings": {"/srv"},
        "copy-names": {"/d", "/d/e"},
        "add": {"/own"},
        "run-environment": {"/tmp/w"},
        "workdir": {"/home/bob", "/home/bob/six"},
        "scratch": {"WorkingDir"},
    },
    "buildkit": {
        "copy-over": {"5"},  # an empty layer where WORKDIR finds its directory
        "run-environment": {"/tmp/o", "/tmp/p"},  # other groups of a user than those that a container has
    },
    "buildah": {
        # Mount points stay in its layers, WORKDIR makes its directory when something is put there.
        "*": {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run"},
        "settings": {"/srv", "Env", "Entrypoint", "ExposedPorts", "10"},
        "run-environment": {"5"},
        "workdir": {"/four", "/four/five", "/home/bob", "/home/bob/six", "/one", "/one/three", "1", "2", "4", "6"},
        "scratch": {"WorkingDir"},
        "variables": {"5"},
        "comments": {"Env"},  # another escape than \\ does not hold in values there
        "mounts": {"/c", "/cache", "/m", "/t"},  # it removes what was there before
    },
}

SETTINGS_OF_CONFIG = (
    "Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Labels", "Volumes", "StopSignal", "Healthcheck",
    "OnBuild", "Shell",
)  # fmt: skip


SAID = ("RUN", "ENV", "LABEL", "USER", "WORKDIR", "STOPSIGNAL", "CMD", "ENTRYPOINT", "MAINTAINER", "ARG")


class Peer:
    """A builder, and a store of ours that reads what it made."""

    def __init__(self, builder: Builder, store: Store, place: Path) -> None:
        self.builder, self.store, self.place = builder, store, place
        self.context = place / "context"

    def write(self, text: str) -> None:
        self.context.mkdir(exist_ok=True)
        for name, content in FILES.items():
            path = self.context / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str) and content.startswith("->"):
                path.unlink(missing_ok=True)
                path.symlink_to(content[2:])
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
            if not path.is_symlink():
                path.chmod(0o644)
        (self.context / "d").chmod(0o711)
        (self.context / "d/e").chmod(0o700)
        (self.context / "d/g").chmod(0o750)
        (self.context / ".dockerignore").write_text("Dockerfile\n.dockerignore\nsub/*.md\n!sub/y.md\n**/g\nempty\n")
        if text != CASES["ignored"][0]:
            (self.context / ".dockerignore").unlink()
        (self.context / "Dockerfile").write_text(text)

    def theirs(self, name: str) -> None:
        self.builder.build(self.context, f"{name}:theirs")
        archive = self.place / "theirs.tar"
        archive.unlink(missing_ok=True)
        self.builder.save(f"{name}:theirs", archive)
        self.store.load(archive)

    def tree(self, image: str) -> dict[str, Any]:
        """What each path is; names of one file carry the first of them."""
        found: dict[str, Any] = {}
        firsts: dict[tuple[int, int], str] = {}
        with self.store.view(image) as view:
            for entry in view.walk():
                path = entry.path.decode("utf-8", "surrogateescape")
                first = firsts.setdefault((entry.layer, entry.inode), path) if entry.type == "file" else path
                digest = ""
                if entry.type == "file":
                    digest = hashlib.sha256(b"".join(view.read(entry.path))).hexdigest()
                found[path] = (
                    oct(entry.mode), entry.uid, entry.gid, entry.target, entry.rdev, entry.xattrs, first, digest,
                )  # fmt: skip
        return found

    def config(self, image: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        document = json.loads(self.store.images.get(image).config_bytes)
        section = document.get("config") or {}
        found = {key: section.get(key) or None for key in SETTINGS_OF_CONFIG}
        labels = {key: value for key, value in (found["Labels"] or {}).items() if key != "io.buildah.version"}
        return found | {"Labels": labels or None, "author": document.get("author")}, document["history"]


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    place = tmp_path_factory.mktemp("b")
    with (
        building(request.param, place / request.param) as builder,
        Store.open(place / "root", place / "run") as store,
    ):
        add_box(
            store, place, *(tar.directory(name, mode=0o755) for name in ("dev", "proc", "sys")), changes=("ENV B=1",)
        )
        store.save(["box"], place / "box.tar", format="docker-archive")
        builder.load(place / "box.tar", "docker.io/library/box:latest")
        yield Peer(builder, store, place)
        store.snapshots.release_layers()


def said(entry: dict[str, Any]) -> str:
    """An entry of history in the words of the Dockerfile, whoever wrote it."""
    text = entry.get("created_by", "")
    if "#(nop)" in text:
        text = text.partition("#(nop)")[2].strip()
    elif text.startswith(("/bin/sh -c ", "|")):
        text = "RUN " + text
    # buildah appends which image the files were of, BuildKit its name
    return re.sub(r"^RUN \|\d+ .*?(?=/bin/sh )", "RUN ", text.removesuffix("# buildkit").strip())


@pytest.mark.parametrize("name", CASES)
def test_the_same_image(peer: Peer, name: str) -> None:
    text, without = CASES[name]
    if peer.builder.name in without:
        pytest.skip(f"{peer.builder.name} does not know this, or knows it differently")
    peer.write(text)
    peer.theirs(name)
    peer.store.build(BuildOptions(context=str(peer.context), tags=(f"{name}:ours",), network="none", format="docker"))
    found = different(peer.tree(f"{name}:ours"), peer.tree(f"{name}:theirs"))
    (config, history), (their_config, their_history) = peer.config(f"{name}:ours"), peer.config(f"{name}:theirs")
    found |= different(config, their_config)
    words = peer.builder.name != "buildah"  # it has the words as they are written, before variables
    mine, other = steps(history, words), steps(their_history, words)
    if peer.builder.name == "buildkit":
        mine = [step for step in mine if not step.startswith("ONBUILD")]  # it has no entry for them
    found |= different(dict(enumerate(mine)), dict(enumerate(other)))
    allowed = DELIBERATE.get(peer.builder.name, {})
    left = {key: text for key, text in found.items() if key not in allowed.get(name, set()) | allowed.get("*", set())}
    assert not left, "\n".join(left.values())


def steps(history: list[dict[str, Any]], words: bool) -> list[str]:
    """The instructions of a history, and whether a layer is said to be theirs; with ``words`` what they say, where
    docker does not write it in the form that Go prints."""
    found = []
    for entry in history:
        word, _, rest = said(entry).partition(" ")
        rest = rest if words and word in SAID else ""
        found.append(f"{word} {' '.join(rest.split())} {'-' if entry.get('empty_layer') else '+'}")
    return found


def different(ours: dict[Any, Any], theirs: dict[Any, Any]) -> dict[str, str]:
    return {
        str(key): f"{key}: {ours.get(key)} here, {theirs.get(key)} there"
        for key in ours | theirs
        if ours.get(key) != theirs.get(key)
    }
