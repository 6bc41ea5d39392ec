"""COPY and ADD: which sources they name, the key of what they make, and the layer."""

import os
import posixpath
import re
import stat
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import msgspec

from layerfs.build.cache import CacheRecord, cache_key
from layerfs.build.copying import CopyFlags, gather, known_content
from layerfs.build.ignore import Matcher
from layerfs.build.instructions import Copy
from layerfs.build.modes import parse_chmod, resolve_chown
from layerfs.build.pieces import Pieces, Source
from layerfs.build.placing import lay_out, make_directory, write_layer
from layerfs.build.session import Session
from layerfs.build.state import StageState
from layerfs.build.tree import Tree, is_pattern
from layerfs.digest import Digest
from layerfs.errors import InvalidInputError
from layerfs.layers import Layer
from layerfs.unpack import record_layer
from layerfs.variables import expand

__all__ = ["copy_step", "keep_layer"]

_HEREDOC = re.compile(r"\d*<<(-?)(.+)", re.DOTALL)


def copy_step(
    session: Session, state: StageState, copy: Copy, stage: int, *, use_cache: bool
) -> tuple[Digest, str, bool]:
    """The layer of a COPY or ADD, when it was made, and whether it was there. LayerfsError with the reason."""
    expand = state.expand
    dest = posixpath.join(state.directory, expand(copy.dest))  # an empty one is the working directory
    if posixpath.basename(dest) in (".", ".."):
        dest += "/"
    chmod = expand(copy.chmod) if copy.chmod is not None else None
    chown = expand(copy.chown) if copy.chown is not None else None
    exclude = [expand(pattern) for pattern in copy.exclude]
    # Names are looked up in the stack, which is in the key too: where the layer is found, they need not be.
    late = bool(chown) and not copy.link
    flags = CopyFlags(
        owner=resolve_chown(chown, state.stack, session.parts.snapshots) if chown and not late else None,
        chmod=parse_chmod(chmod) if chmod else None,
        exclude=Matcher(exclude) if exclude else None,
        clamp=session.clamp,
        now=session.now,
    )
    stack: Sequence[Digest] = () if copy.link else state.stack
    words = [expand(word) if not word.startswith("<<") else word for word in copy.sources]
    checksum = expand(copy.checksum) if copy.checksum is not None else None
    same = [stack, dest, chown, flags.owner, chmod, exclude, copy.parents, session.clamp, copy.link, len(words)]
    quick = _quick_key(session, copy, words, checksum, stage, same)
    found = session.cache.find(quick) if use_cache and quick is not None else None
    if found is not None and found.layer is not None:
        return found.layer, found.created, True
    tree = session.source(copy.from_, stage) if copy.from_ is not None else session.context
    sources = _sources(session, state, copy, words, tree, checksum, dest)
    if len(sources) > 1 and not dest.endswith("/") and not any(each.spread or each.unpack for each in sources):
        _require_directory(session, copy, stack, dest)
    memory = session.keeper.memory
    known = known_content(sources, flags, memory, session.warn) if use_cache else None
    record = session.cache.find(cache_key("copy", known.hex(), *same)) if known is not None else None
    cached = record is not None
    if record is None:
        with Pieces(session.parts.ingest.root) as pieces:
            key = cache_key("copy", gather(sources, flags, memory, session.warn, pieces).hex(), *same)
            record = session.cache.find(key) if use_cache else None
            cached = record is not None
            if record is None:
                if late and chown:
                    owner = resolve_chown(chown, state.stack, session.parts.snapshots)
                    flags = msgspec.structs.replace(flags, owner=owner)
                if any(source.unpack for source in sources):
                    from layerfs.build.adding import unpacked  # COPY needs none of it

                    pieces.clear()
                    gather(unpacked(session, sources), flags, memory, session.warn, pieces)
                layer = _write(session, stack, dest, pieces, flags, many=len(words) > 1 or copy.parents, link=copy.link)
                record = CacheRecord(layer.diff_id, session.moment(), copy.line.text[:200])
                session.cache.keep(key, record)
    if quick is not None:
        session.cache.keep(quick, record)
    assert record.layer is not None
    return record.layer, record.created, cached


def _quick_key(
    session: Session, copy: Copy, words: Sequence[str], checksum: str | None, stage: int, same: Sequence[Any]
) -> str | None:
    """A key for which nothing need be read: the same layers have the same files, and so has the same checksum."""
    if copy.from_ is not None:
        identity = session.identity(copy.from_, stage)
        return cache_key("copy-from", identity, words, *same) if identity is not None else None
    if checksum is not None and len(words) == 1:
        return cache_key("add-checksum", checksum, copy.unpack, copy.keep_git_dir, words, *same)
    return None


def _require_directory(session: Session, copy: Copy, stack: Sequence[Digest], dest: str) -> None:
    """Several files go into a directory: one that is there, or that a slash says is to be made."""
    with session.parts.layers.view(stack) as view:
        if make_directory(view, dest, CopyFlags()):
            reason = "with several sources the destination is a directory: one that is there, or ends with a slash"
            raise InvalidInputError(f"{dest}: {reason}", hint=f"write {copy.dest}/")


def _write(
    session: Session,
    stack: Sequence[Digest],
    dest: str,
    pieces: Pieces,
    flags: CopyFlags,
    *,
    many: bool,
    link: bool,
) -> Layer:
    with nullcontext() if link else session.parts.layers.view(stack) as view:
        placed = lay_out(view, dest, pieces, flags, many=many)
        return keep_layer(session, write_layer(session.parts.layers, placed, session.lease.protect))


def keep_layer(session: Session, layer: Layer) -> Layer:
    """Protect and record a layer that was made."""
    session.lease.protect([layer.diff_id])
    record_layer(session.parts.database, layer)
    return layer


def _sources(
    session: Session,
    state: StageState,
    copy: Copy,
    words: Sequence[str],
    tree: Tree,
    checksum: str | None,
    dest: str,
) -> list[Source]:
    found: list[Source] = []
    heredocs = list(copy.heredocs)
    for word in words:
        match = _HEREDOC.fullmatch(word)
        if match is not None and heredocs:
            heredoc = heredocs.pop(0)
            text = expand_heredoc(state, heredoc.text) if heredoc.expand else heredoc.text
            found.append(Source((os.fsencode(heredoc.name),), text=text.encode("utf-8", "surrogateescape")))
            continue
        if not word:
            raise InvalidInputError("a source is empty")
        if copy.line.word == "ADD":
            from layerfs.build.adding import add_sources  # COPY needs none of it

            needs_name = len(words) > 1 or dest.endswith("/")
            special = add_sources(session, copy, word, checksum, needs_name=needs_name)
            if special is not None:
                found += special
                continue
        found += _named(session, copy, word, tree)
    return found


def expand_heredoc(state: StageState, text: str) -> str:
    """Variables in a text are replaced; its quotes are text. The backslash is its escape whatever the file's is."""
    return expand(text, state.variables(), quotes=False)


def _named(session: Session, copy: Copy, word: str, tree: Tree) -> list[Source]:
    """The files of a tree that a source names."""
    if copy.line.word == "COPY" and word.startswith(("http://", "https://")):
        raise InvalidInputError(f"{word}: a URL is no source of COPY", hint="ADD takes it")
    pivot = _pivot(word) if copy.parents else None
    path = posixpath.normpath("/" + word.lstrip("/")).lstrip("/") if ".." in word else word
    if is_pattern(word):
        paths = list(tree.glob(word))
        if not paths:
            session.warn(f"{session.file.file}:{copy.line.number}: {word}: nothing in {tree.what} matches")
    else:
        paths = [path]
    found = []
    for each in paths:
        names, status = tree.resolve(each)
        if copy.parents:
            written = tuple(os.fsencode(part) for part in each.split("/") if part not in ("", "."))
            title = written[pivot or 0 :]
        else:
            title = (names[-1],) if names else ()
            plain = [part for part in each.split("/") if part not in ("", ".")]
            if plain and plain[-1] != "..":
                title = (os.fsencode(plain[-1]),)  # a link gives its own name to what it leads to
        spread = stat.S_ISDIR(status.st_mode)
        if spread and not copy.parents:
            title = ()
        source = Source(title, tree, names, status, spread=spread)
        if copy.line.word == "ADD" and copy.unpack is not False and not spread:
            from layerfs.build.adding import is_archive

            source = msgspec.structs.replace(source, unpack=is_archive(source))
        found.append(source)
    return found


def _pivot(word: str) -> int:
    """How many components stand before ``/./``."""
    head, sign, _ = word.partition("/./")
    return len([part for part in head.split("/") if part not in ("", ".")]) if sign else 0
