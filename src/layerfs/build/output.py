"""What a build gives: an image with names, an archive, or the files themselves."""

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from layerfs.build.options import BuildOptions, Output, manifest_annotations
from layerfs.build.session import Session
from layerfs.build.state import StageState
from layerfs.commit import freeze_difference, layer_descriptors
from layerfs.errors import InvalidInputError
from layerfs.fsutil import write_atomic
from layerfs.images import Image

__all__ = ["check_outputs", "deliver", "output_names"]

_IMAGE = ("image", "oci", "docker")
_TYPES: dict[str, tuple[str, ...]] = {
    "image": ("name", "push"), "registry": ("name",), "oci": ("name", "tar"), "docker": ("name", "tar"),
    "local": (), "tar": (), "cacheonly": (),
}  # fmt: skip
"""Kinds of outputs, and what else each may be told."""


def check_outputs(options: BuildOptions) -> None:
    """InvalidInputError for what cannot be, before any work."""
    for output in options.outputs:
        if output.type not in _TYPES:
            raise InvalidInputError(f"output type {output.type!r}: unknown", hint="known are " + ", ".join(_TYPES))
        for name, value in output.options.items():
            if name not in _TYPES[output.type]:
                known = ", ".join(("dest", *_TYPES[output.type]))
                raise InvalidInputError(
                    f"output type {output.type}: {name} is not understood", hint=f"known are {known}"
                )
            if name != "name" and value not in ("true", "false"):
                raise InvalidInputError(f"output type {output.type}: {name}={value}: neither true nor false")
        if output.type in ("local", "tar", "oci", "docker") and output.dest is None:
            raise InvalidInputError(f"output type {output.type}: a destination is missing", hint="write dest=PATH")
        if output.type == "local" and not isinstance(output.dest, str):
            raise InvalidInputError("output type local: the destination is a directory")
    if options.format not in ("oci", "docker"):
        raise InvalidInputError(f"image format {options.format!r}: not known", hint="there are oci and docker")


def output_names(options: BuildOptions) -> list[str]:
    """The names that outputs give the image, besides its tags."""
    texts = [output.options.get("name", "") for output in options.outputs if output.type in ("image", "registry")]
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def deliver(
    session: Session, state: StageState, tags: list[str], created: Callable[[dict[str, Any]], str]
) -> tuple[Image | None, dict[str, Any]]:
    """Make what the options ask for; without an output an image. Metadata, as ``--metadata-file`` has them."""
    options = session.options
    outputs = options.outputs or (Output("image"),)
    image: Image | None = None
    metadata: dict[str, Any] = {}
    if any(output.type in (*_IMAGE, "registry") for output in outputs):
        keep = any(output.type in ("image", "registry") for output in outputs)
        image = _image(session, state, created, tags if keep else [])
        metadata = _metadata(image, tags)
        try:
            for output in outputs:
                _export(session, image, output, tags)
        finally:
            if not keep and not image.names:
                session.parts.database.remove_image(image.target.digest)
    if any(output.type in ("local", "tar") for output in outputs):
        _files(session, state, outputs)
    if options.iidfile is not None and image is not None:
        write_atomic(Path(options.iidfile), image.id.encode())
    if options.metadata_file is not None:
        write_atomic(Path(options.metadata_file), json.dumps(metadata, indent=2).encode() + b"\n")
    return image, metadata


def _image(session: Session, state: StageState, created: Callable[[dict[str, Any]], str], tags: list[str]) -> Image:
    if session.options.squash:
        _squash(session, state)
    document = state.finished(created)
    docker = session.options.format == "docker"
    layers = layer_descriptors(session.parts.layers, state.image, state.stack, docker=docker)
    annotations = manifest_annotations(session.options) or None
    image = session.parts.images.create(
        document, layers, tags[0] if tags else None, docker=docker, annotations=annotations
    )
    for tag in tags[1:]:
        session.parts.images.tag(str(image.id) if image.names == () else tags[0], tag)
    return session.parts.images.get(tags[0]) if tags else image


def _squash(session: Session, state: StageState) -> None:
    """All layers of this build as one over the base image's; history keeps the base's entries and one more."""
    base = list(state.image.diff_ids) if state.image is not None else []
    if len(state.stack) <= len(base) + 1:
        return
    parts = session.parts
    with ExitStack() as stack:
        roots = []
        for layers in (base, state.stack):
            mounted = parts.snapshots.view(layers) if layers else _empty(session, stack)
            stack.callback(os.close, mounted)
            roots.append(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted))
            stack.callback(os.close, roots[-1])
        frozen = freeze_difference(parts.layers, parts.database, session.lease, roots[0], roots[1], clamp=session.clamp)
    kept = len(json.loads(state.image.config_bytes).get("history") or []) if state.image is not None else 0
    described = sum(1 for entry in state.history[:kept] if not entry.get("empty_layer"))
    kept += len(base) - described
    created = state.created or ""
    state.stack = list(base)
    state.history = [
        *state.history[:kept],
        *({**entry, "empty_layer": True} for entry in state.history[kept:]),
    ]
    state.add_layer(frozen.layer.diff_id, created, "squashed")


def _empty(session: Session, stack: ExitStack) -> int:
    place = stack.enter_context(session.parts.ingest.directory("empty"))
    return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _metadata(image: Image, tags: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "containerimage.config.digest": str(image.id),
        "containerimage.digest": str(image.manifest_descriptor.digest),
        "containerimage.descriptor": {
            "mediaType": image.manifest_descriptor.media_type,
            "digest": str(image.manifest_descriptor.digest),
            "size": image.manifest_descriptor.size,
        },
    }
    if tags:
        found["image.name"] = ",".join(tags)
    return found


def _export(session: Session, image: Image, output: Output, tags: list[str]) -> None:
    if output.type == "registry" or (output.type == "image" and output.options.get("push") == "true"):
        from layerfs.exchange import push  # few builds push

        for tag in tags:
            push(session.parts, tag)
    if output.type not in ("oci", "docker") or output.dest is None:
        return
    from layerfs.archives import create_archive
    from layerfs.transfer import copy
    from layerfs.unpack import StoreSource

    source = StoreSource(session.parts.content, session.parts.layers)
    names = [name.strip() for name in output.options.get("name", "").split(",") if name.strip()] or tags
    kind = "docker-archive" if output.type == "docker" else "oci-archive"
    if output.options.get("tar") == "false":
        kind = "oci-dir"
    with create_archive(output.dest, kind, sync=session.parts.layers.sync) as archive:
        wanted = source.exportable(image.manifest_descriptor, plain=output.type == "docker")
        for name in names or [""]:
            copy(source, archive, wanted, name=name or None)


def _files(session: Session, state: StageState, outputs: tuple[Output, ...]) -> None:
    from layerfs.build.export import write_tar, write_tree

    with ExitStack() as stack:
        mounted = session.parts.snapshots.view(state.stack) if state.stack else _empty(session, stack)
        stack.callback(os.close, mounted)
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
        stack.callback(os.close, root)
        for output in outputs:
            if output.type == "local":
                write_tree(root, Path(str(output.dest)), session.clamp)
            elif output.type == "tar" and output.dest is not None:
                write_tar(root, output.dest, session.clamp)
