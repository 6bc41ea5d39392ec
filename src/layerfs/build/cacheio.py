"""The build cache carried from one machine to another: ``--cache-to`` and ``--cache-from``.

What is carried is an image like any other: its layers are those of the cache, and a label has the records. So it goes
to a registry or into a layout directory by the ways that all images go, verified as all are.

    type=registry,ref=NAME[,mode=min|max]   type=local,dest=DIR (to) or src=DIR (from)   a bare NAME: registry
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from layerfs.archives import create_archive, open_archive
from layerfs.build.cache import CacheRecord
from layerfs.build.session import Session
from layerfs.build.state import StageState
from layerfs.commit import layer_descriptors
from layerfs.digest import Digest
from layerfs.errors import InvalidInputError, LayerfsError, NotFoundError
from layerfs.images import Image
from layerfs.oci import Platform
from layerfs.reference import Reference
from layerfs.transfer import copy
from layerfs.unpack import StoreSource, UnpackingSink

__all__ = ["check_caches", "export_caches", "import_caches", "parse_cache"]

_LABEL = "org.layerfs.build-cache"
_VERSION = 1
_LIMIT = 100_000
_TO = {"type", "ref", "dest", "mode", "ignore-error"}
_FROM = {"type", "ref", "src"}
_INSTEAD = {
    "inline": "an image has no cache in it here; type=registry,ref=NAME leaves one beside it",
    "gha": "type=local,dest=DIR (or src=DIR) makes a directory that a workflow can keep",
}


def parse_cache(text: str, known: set[str]) -> dict[str, str]:
    """The fields of ``type=…,…``; InvalidInputError."""
    if "=" not in text:
        return {"type": "registry", "ref": text, "mode": "min"}
    found = {"mode": "min"}
    for part in text.split(","):
        name, sign, value = part.partition("=")
        if not sign or name not in known:
            raise InvalidInputError(f"cache {text!r}: {part!r} is not understood", hint="known are " + ", ".join(known))
        found[name] = value
    wanted = {"registry": "ref", "local": "dest" if "dest" in known else "src"}.get(found.get("type", ""))
    if wanted is None:
        raise InvalidInputError(
            f"cache {text!r}: the type {found.get('type', '')!r} is not known",
            hint=_INSTEAD.get(found.get("type", "")) or "there are registry and local",
        )
    if not found.get(wanted):
        raise InvalidInputError(f"cache {text!r}: {wanted} is missing")
    if found["mode"] not in ("min", "max"):
        raise InvalidInputError(f"cache {text!r}: the mode is min or max")
    if found["type"] == "registry":
        Reference.parse(found["ref"], default_tag="latest")
    return found


def check_caches(cache_from: tuple[str, ...], cache_to: tuple[str, ...]) -> None:
    """InvalidInputError for what cannot be, before any work."""
    for text in cache_from:
        parse_cache(text, _FROM)
    for text in cache_to:
        parse_cache(text, _TO)


# ---- to ----


def export_caches(session: Session, state: StageState) -> None:
    """Write what this build found and made: with ``mode=min`` the layers of the result, with ``max`` all."""
    for text in session.options.cache_to:
        fields = parse_cache(text, _TO)
        try:
            _export(session, state, fields)
        except LayerfsError as exc:
            if fields.get("ignore-error") != "true":
                raise
            session.warn(f"cache {text}: {exc}")


def _export(session: Session, state: StageState, fields: Mapping[str, str]) -> None:
    wanted = set(state.stack)
    records = {
        key: record
        for key, record in sorted(session.cache.made.items())
        if fields["mode"] == "max" or record.layer is None or record.layer in wanted
    }
    layers = sorted({record.layer for record in records.values() if record.layer is not None})
    image = _cache_image(session, records, layers)
    try:
        if fields["type"] == "local":
            source = StoreSource(session.parts.content, session.parts.layers)
            with create_archive(fields["dest"], "oci-dir", sync=session.parts.layers.sync) as sink:
                copy(source, sink, source.exportable(image.manifest_descriptor))
        else:
            from layerfs.exchange import push

            name = str(Reference.parse(fields["ref"], default_tag="latest"))
            before = session.parts.database.resolve(name)
            session.parts.images.tag(str(image.id), name)
            try:
                push(session.parts, name)
            finally:
                if before is None:
                    session.parts.database.remove_name(name)
                else:
                    session.parts.database.set_name(name, before)
    finally:
        session.parts.database.remove_image(image.target.digest)


def _cache_image(session: Session, records: Mapping[str, CacheRecord], layers: list[Digest]) -> Image:
    text = json.dumps(
        {
            "version": _VERSION,
            "records": {
                key: {"layer": record.layer, "created": record.created, "title": record.title}
                for key, record in records.items()
            },
        },
        sort_keys=True,
    )
    platform = Platform.host()
    document = {
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {"Labels": {_LABEL: text}},
        "rootfs": {"type": "layers", "diff_ids": [str(layer) for layer in layers]},
        "history": [{"created_by": "layerfs build cache"} for _ in layers],
    }
    return session.parts.images.create(document, layer_descriptors(session.parts.layers, None, layers, docker=False))


# ---- from ----


def import_caches(session: Session) -> None:
    """Take what others exported. That one is not there is no error."""
    for text in session.options.cache_from:
        fields = parse_cache(text, _FROM)
        try:
            image = _local(session, fields["src"]) if fields["type"] == "local" else _pulled(session, fields["ref"])
        except LayerfsError as exc:
            session.warn(f"cache {text}: {exc}")
            continue
        _take(session, image, text)


def _local(session: Session, path: str) -> Image:
    parts = session.parts
    if not Path(path).is_dir():
        raise NotFoundError("not a directory")
    sink = UnpackingSink(
        parts.content, parts.layers, parts.images, parts.database, session.lease, keep_blobs=parts.keep_blobs
    )
    with open_archive(path, parts.ingest.root) as archive:
        entries = archive.images()
        if not entries:
            raise NotFoundError("there is nothing in it")
        target = copy(archive, sink, entries[0].descriptor)
        parts.images.add(target)
        return parts.images.get(target.digest)


def _pulled(session: Session, reference: str) -> Image:
    from layerfs.exchange import pull

    name = str(Reference.parse(reference, default_tag="latest"))
    before = session.parts.database.resolve(name)
    found = pull(session.parts, reference).image
    if found is None:
        raise InvalidInputError("it is not an image")
    session.lease.protect([found.id, found.manifest_descriptor.digest, *found.diff_ids])
    if before is None:
        session.parts.database.remove_name(name)
    return session.parts.images.get(found.target.digest)


def _take(session: Session, image: Image, text: str) -> None:
    """Keep the records whose layers came with them, and forget the image."""
    labels = (json.loads(image.config_bytes).get("config") or {}).get("Labels") or {}
    if _LABEL not in labels:
        session.warn(f"cache {text}: an image without a cache in it")
        return
    brought = set(image.diff_ids)
    session.lease.protect(brought)
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        document: dict[str, Any] = json.loads(labels[_LABEL])
        if document["version"] != _VERSION or len(document["records"]) > _LIMIT:
            session.warn(f"cache {text}: of another version")
            return
        for key, value in document["records"].items():
            layer = Digest(value["layer"]) if value["layer"] else None
            if len(key) == 64 and (layer is None or layer in brought) and session.cache.find(key) is None:
                record = CacheRecord(layer, str(value["created"]), str(value["title"])[:200])
                session.cache.keep(key, record)
    if not image.names:
        session.parts.database.remove_image(image.target.digest)
