"""Files of the network: downloads, and URLs as contexts."""

from __future__ import annotations

import os
import posixpath
import re
import time
from base64 import b64encode
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import msgspec

from layerfs.blobs import PIECE
from layerfs.build.context import Context, TreeKeeper, context_of, read_context
from layerfs.build.git import GitSource, check_out, parse_git
from layerfs.build.options import BuildOptions
from layerfs.build.session import Session
from layerfs.build.tree import Cursor, Tree
from layerfs.digest import Digest, Verifier
from layerfs.errors import InvalidInputError, NotFoundError, RegistryError, system_errors
from layerfs.images import Image

if TYPE_CHECKING:
    from layerfs.registry.transport import Response, Transport

__all__ = ["Download", "download", "git_tree", "layout_image", "named_tree", "url_context"]

_ATTEMPTS = 3
_LIMIT = 1 << 40
_IN_URLS = "%/:=&?~#+!$,;'@()*[]"


class Download(msgspec.Struct, frozen=True):
    """A file that was brought: where it lies, what it is called, and its time in seconds (None: not said)."""

    path: Path
    name: str
    time: float | None


def download(
    url: str, directory: Path, *, checksum: Digest | None = None, authorization: str | None = None
) -> Download:
    """Bring a file into a directory of our own, by the proxies of the environment, with its times of waiting bounded.

    RegistryError (as of any server), NotFoundError, IntegrityError for the checksum. ``authorization`` is not sent on
    to other hosts.
    """
    # Imported here: urllib3 takes tens of milliseconds, and most builds bring nothing.
    from layerfs.registry.config import find_tls
    from layerfs.registry.connection import Timeouts
    from layerfs.registry.retry import Retry
    from layerfs.registry.transport import ConnectError, Transport

    plain, own = _without_user(url)
    transport = Transport(find_tls, lambda host: False, os.environ, Timeouts())
    retry, attempt = Retry(attempts=_ATTEMPTS), 0
    try:
        while True:
            try:
                return _bring(transport, plain, directory / "download", checksum, authorization or own)
            except RegistryError as exc:
                if isinstance(exc, ConnectError) and exc.temporary:
                    exc.hint = "see whether the URL is right, and the proxies that HTTP_PROXY and HTTPS_PROXY name"
                attempt += 1
                time.sleep(retry.pause(exc, attempt))
    finally:
        transport.close()


def _bring(transport: Transport, url: str, path: Path, checksum: Digest | None, authorization: str | None) -> Download:
    """One attempt at a download."""
    what = f"download {_shown(url)}"
    verifier = Verifier(checksum, None, what) if checksum is not None else None
    response = transport.send("GET", url, {}, authorization=authorization)
    try:
        _check_status(response, what)
        with system_errors(what), open(path, "wb") as file:
            total = 0
            while piece := response.read_some(PIECE):
                total += len(piece)
                if total > _LIMIT:
                    raise InvalidInputError(f"{what}: more than {_LIMIT} bytes")
                if verifier is not None:
                    verifier.update(piece)
                file.write(piece)
    finally:
        response.close()
    if verifier is not None:
        verifier.finish()
    headers = response.headers
    return Download(path, _name(url, headers.get("Content-Disposition", "")), _time(headers.get("Last-Modified")))


def _check_status(response: Response, what: str) -> None:
    from layerfs.registry.retry import TEMPORARY_STATUS  # as above

    status = response.status
    if status in (404, 410):
        raise NotFoundError(f"{what}: the server has no such file ({status})")
    if status in (401, 403):
        host = urlsplit(response.url).hostname
        raise RegistryError(
            f"{what}: the server lets nobody without credentials have it ({status})",
            status=status,
            hint=f"give a secret HTTP_AUTH_TOKEN_{host} or HTTP_AUTH_HEADER_{host}",
        )
    if status != 200:
        temporary = status in TEMPORARY_STATUS
        raise RegistryError(f"{what}: the server says {status}", status=status, temporary=temporary)


def _without_user(url: str) -> tuple[str, str | None]:
    """A URL as it can be sent, and the Authorization that a user and password in it mean."""
    parts = urlsplit(url)
    user, sign, host = parts.netloc.rpartition("@")
    plain = quote(urlunsplit((parts.scheme, host, parts.path, parts.query, "")), safe=_IN_URLS)
    return plain, f"Basic {b64encode(unquote(user).encode()).decode()}" if sign else None


def _shown(url: str) -> str:
    """Without a password and without what may be a token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _name(url: str, disposition: str) -> str:
    match = re.search(r'filename="?([^";/]+)"?', disposition)
    name = match[1] if match else posixpath.basename(unquote(urlsplit(url).path))
    return "" if name in (".", "..") or "\0" in name else name


def _time(modified: str | None) -> float | None:
    try:
        return parsedate_to_datetime(modified).timestamp() if modified else None
    except (ValueError, TypeError, OverflowError):
        return None


def url_context(options: BuildOptions, keeper: TreeKeeper) -> Context:
    """A context by URL: a repository, a tar, or a Dockerfile alone."""
    source = parse_git(options.context)
    if source is not None:
        keep = options.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR") in ("1", "true")
        return context_of(options, git_tree(keeper, source, keep_git_dir=keep), None)
    directory = keeper.stack.enter_context(keeper.parts.ingest.directory("download"))
    found = download(options.context, directory)
    with open(found.path, "rb") as file:
        context = read_context(options, keeper, file, f"the context {_shown(options.context)}")
    context.tree.made = int(found.time) if found.time is not None else None
    return context


def git_tree(keeper: TreeKeeper, source: GitSource, *, keep_git_dir: bool = False, checksum: str = "") -> Tree:
    """The files of a repository."""
    place = keeper.stack.enter_context(keeper.parts.ingest.directory("git"))
    when = check_out(source, place, keep_git_dir=keep_git_dir, checksum=checksum)
    tree = keeper.directory(place, f"the repository {_shown(source.url)}", remember=False)
    if source.directory:
        names = [os.fsencode(part) for part in source.directory.split("/") if part not in ("", ".")]
        if b".." in names:
            raise InvalidInputError(f"git {source.url}: the directory {source.directory!r} leaves the repository")
        try:
            with Cursor(tree.fd) as cursor:
                fd = os.dup(cursor.at(names))
        except OSError as exc:
            raise NotFoundError(f"git {source.url}: {source.directory}: {os.strerror(exc.errno or 0)}") from None
        keeper.stack.callback(os.close, fd)
        tree = Tree(fd, tree.what)
    tree.made = when
    return tree


def named_tree(session: Session, name: str, value: str) -> Tree:
    """A named context by URL, repository, layout or archive."""
    keeper = session.keeper
    source = parse_git(value)
    if source is not None:
        return git_tree(keeper, source)
    kind, _, rest = value.partition("://")
    if kind == "oci-layout":
        return keeper.layers(list(layout_image(session, rest).diff_ids), f"the context {name}")
    directory = keeper.stack.enter_context(keeper.parts.ingest.directory("download"))
    found = download(value, directory)
    with open(found.path, "rb") as file:
        return keeper.archive(file, f"the context {name}")


def layout_image(session: Session, text: str) -> Image:
    """An image of a layout directory (``path[:tag]``), brought into the store."""
    from layerfs.archives import open_archive
    from layerfs.transfer import copy
    from layerfs.unpack import UnpackingSink

    parts = session.parts
    path, sign, tag = text.rpartition(":")
    path, tag = (path, tag) if sign and "/" not in tag else (text, "")
    with open_archive(path.partition("@")[0], parts.ingest.root) as archive:
        entries = [
            entry for entry in archive.images() if not tag or any(name.endswith(f":{tag}") for name in entry.names)
        ]
        if not entries:
            raise NotFoundError(f"oci-layout {text}: no such image in it")
        sink = UnpackingSink(
            parts.content, parts.layers, parts.images, parts.database, session.lease, keep_blobs=parts.keep_blobs
        )
        target = copy(archive, sink, entries[0].descriptor, platforms=[session.platform])
        parts.images.add(target)
        return parts.images.get(target.digest)
