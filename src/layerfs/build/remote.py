"""Files of the network: downloads, and URLs as contexts."""

import os
import posixpath
import re
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from layerfs.blobs import PIECE
from layerfs.build.context import Context, TreeKeeper, context_of, read_context
from layerfs.build.git import GitSource, check_out, parse_git
from layerfs.build.options import BuildOptions
from layerfs.build.session import Session
from layerfs.build.tree import Cursor, Tree
from layerfs.digest import Digest, Verifier
from layerfs.errors import InvalidInputError, NotFoundError, RegistryError, native_error
from layerfs.images import Image

__all__ = ["Download", "download", "git_tree", "layout_image", "named_tree", "url_context"]

_SECONDS = 60
_LIMIT = 1 << 40
_REDIRECTS = 10


class Download(msgspec.Struct, frozen=True):
    """A file that was brought: where it lies, what it is called, and its time in seconds (None: not said)."""

    path: Path
    name: str
    time: float | None


def download(
    url: str, directory: Path, *, checksum: Digest | None = None, headers: dict[str, str] | None = None
) -> Download:
    """Bring a file into a directory of our own. RegistryError (as of any server), IntegrityError for the checksum."""
    import urllib3  # most builds need none

    path = directory / "download"
    verifier = Verifier(checksum, None, f"download {url}") if checksum is not None else None
    total = 0
    shown = _shown(url)
    try:
        with urllib3.PoolManager(
            timeout=urllib3.Timeout(_SECONDS), retries=urllib3.Retry(3, redirect=_REDIRECTS)
        ) as pool:
            response = pool.request(
                "GET", url, preload_content=False, headers={"Accept-Encoding": "identity", **(headers or {})}
            )
            try:
                if response.status != 200:
                    error = NotFoundError if response.status in (404, 410) else RegistryError
                    raise error(f"download {shown}: the server says {response.status} {response.reason or ''}".rstrip())
                with open(path, "xb") as file:
                    while piece := response.read(PIECE):
                        total += len(piece)
                        if total > _LIMIT:
                            raise InvalidInputError(f"download {shown}: more than {_LIMIT} bytes")
                        if verifier is not None:
                            verifier.update(piece)
                        file.write(piece)
                modified = response.headers.get("Last-Modified")
                disposition = response.headers.get("Content-Disposition", "")
            finally:
                response.release_conn()
    except (urllib3.exceptions.HTTPError, ValueError) as exc:
        raise RegistryError(f"download {shown}: {exc}", temporary=True) from None
    except OSError as exc:
        raise native_error(exc, f"download {shown}") from exc
    if verifier is not None:
        verifier.finish()
    return Download(path, _name(url, disposition), _time(modified))


def _shown(url: str) -> str:
    """Without a password and without what may be a token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


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
