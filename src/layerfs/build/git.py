"""Git repositories as contexts and sources, by the ``git`` program.

Nothing that a user or a Dockerfile writes becomes an option of it, no hook and no configuration of the host counts, and
a directory inside the repository is reached without following a link.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

import msgspec

from layerfs.errors import BuildError, InvalidInputError, LayerfsError, UnsupportedError
from layerfs.fsutil import remove_tree

__all__ = ["GitSource", "check_out", "parse_git"]

_SECONDS = 600
_WORD = re.compile(r"[A-Za-z0-9_./@+^~{}=-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_QUERY = {"ref", "branch", "tag", "commit", "checksum", "subdir", "keep-git-dir", "submodules"}


class GitSource(msgspec.Struct, frozen=True):
    """A repository, what of it, and a directory in it."""

    url: str
    ref: str = ""
    directory: str = ""
    checksum: str = ""
    keep_git_dir: bool = False
    submodules: bool = True


def parse_git(text: str) -> GitSource | None:
    """``URL#ref:directory``, or the same as ``?ref=…&subdir=…``; None for a URL that is no repository."""
    url, _, fragment = text.partition("#")
    try:
        urlsplit(url)
    except ValueError as exc:
        raise InvalidInputError(f"{text}: not a URL ({exc})") from None
    ref, _, directory = fragment.partition(":")
    checksum, keep_git_dir, submodules = "", False, True
    if url.startswith("github.com/"):
        url = f"https://{url}"
    if url.startswith(("http://", "https://")):
        parts = urlsplit(url)
        query = parse_qs(parts.query, keep_blank_values=True)
        on_github = parts.netloc == "github.com" and parts.path.rstrip("/").count("/") == 2
        if not (parts.path.endswith(".git") or on_github) or not set(query) <= _QUERY:
            return None
        if query:
            ref = next((query[key][-1] for key in ("commit", "tag", "branch", "ref") if key in query), ref)
            directory = query.get("subdir", [directory])[-1]
            checksum = query.get("checksum", [""])[-1]
            keep_git_dir = _is_on(text, query, "keep-git-dir", default=False)
            submodules = _is_on(text, query, "submodules", default=True)
            url = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    elif not url.startswith(("git://", "ssh://", "git@")):
        return None
    for word, what in ((url, "URL"), (ref, "reference")):
        if word.startswith("-") or any(char.isspace() or ord(char) < 32 for char in word):
            raise InvalidInputError(f"git {text}: not a {what}")
    if urlsplit(url).netloc.startswith("-") or re.match(r"[^@/]*@-", url):
        raise InvalidInputError(f"git {text}: not a host")
    if ref and not _WORD.fullmatch(ref):
        raise InvalidInputError(f"git {text}: {ref!r} is not a reference")
    return GitSource(url, ref, directory.strip("/"), checksum, keep_git_dir, submodules)


def _is_on(text: str, query: Mapping[str, Sequence[str]], name: str, *, default: bool) -> bool:
    value = query.get(name, [str(default)])[-1].lower()
    if value not in ("", "true", "false", "1", "0"):
        raise InvalidInputError(f"git {text}: {name} is true or false")
    return value in ("", "true", "1")


def check_out(source: GitSource, target: Path, *, keep_git_dir: bool = False, checksum: str = "") -> int:
    """Bring a repository into ``target``; the time of the commit, in seconds. BuildError with what git says, or when it
    is another commit than ``checksum`` (its first digits at least)."""
    program = shutil.which("git")
    if program is None:
        raise UnsupportedError("git: not installed", hint="a repository as context or source needs it")
    git = _Git(program, target)
    git("init", "-q", "--template=", ".")
    ref = source.ref or "HEAD"
    try:
        git("fetch", "-q", "--depth=1", "--no-tags", "--", source.url, ref)
        git("checkout", "-q", "--detach", "FETCH_HEAD", "--")
    except BuildError:
        # Not every server gives a single commit, and none does over plain files.
        git(
            "fetch",
            "-q",
            "--tags",
            "--",
            source.url,
            "+refs/heads/*:refs/remotes/origin/*",
            "+HEAD:refs/remotes/origin/HEAD",
        )
        git("checkout", "-q", "--detach", git.find(ref), "--")
    commit = git("rev-parse", "HEAD").strip()
    wanted = checksum or source.checksum
    if wanted and not (len(wanted) >= 7 and commit.startswith(wanted.lower())):
        raise BuildError(f"git {source.url}: the commit is {commit}, not {wanted}")
    if source.submodules and (target / ".gitmodules").is_file() and not (target / ".gitmodules").is_symlink():
        words = ("submodule", "-q", "update", "--init", "--recursive")
        try:
            git(*words, "--depth=1")
        except BuildError:  # as above
            git(*words)
    when = int(git("show", "-s", "--format=%ct", "HEAD").strip())
    if not (keep_git_dir or source.keep_git_dir):
        remove_tree(target / ".git")
    return when


class _Git:
    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._directory = directory
        kept = (
            "PATH",
            "SSH_AUTH_SOCK",
            "HTTPS_PROXY",
            "https_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "NO_PROXY",
            "no_proxy",
        )
        self._environment = {name: os.environ[name] for name in kept if name in os.environ} | {
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
            "HOME": str(directory),
            "LC_ALL": "C",
        }

    def __call__(self, *words: str) -> str:
        command = [self._program, "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", *words]
        try:
            done = subprocess.run(
                command, cwd=self._directory, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True,
                timeout=_SECONDS, check=False, umask=0o022,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise BuildError(f"git {words[0]}: no end after {_SECONDS} s") from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise BuildError(f"git {words[0]}: {said[-1] if said else f'exit code {done.returncode}'}")
        return done.stdout.decode("utf-8", "replace")

    def find(self, ref: str) -> str:
        """The commit that a name means, among all that were brought."""
        branch, tag = ref.removeprefix("refs/heads/"), ref.removeprefix("refs/tags/")
        for name in (f"refs/remotes/origin/{branch}", f"refs/tags/{tag}", ref if _COMMIT.fullmatch(ref) else ""):
            if name:
                try:
                    return self("rev-parse", "--verify", "-q", f"{name}^{{commit}}").strip()
                except LayerfsError:
                    continue
        raise BuildError(f"git: the repository has no {ref}")
