"""What a store and its host are: ``info``."""

import os
from typing import Any

from layerfs import native
from layerfs.errors import LayerfsError
from layerfs.runtime import Runtimes
from layerfs.store._parts import Parts

__all__ = ["info"]


def info(parts: Parts, layer_format: str) -> dict[str, Any]:
    """Facts as a document: places, format and why, what this kernel can do, runtimes, how much there is."""
    features, reasons = _features(parts)
    runtimes = _runtimes(parts)
    states = [row.state.get("status", "created") for row in parts.database.containers()]
    rows, host = parts.database.layers(), os.uname()
    return {
        "Root": str(parts.places.root),
        "RunRoot": str(parts.places.run),
        "LayerFormat": layer_format,
        "LayerFormatReason": _format_reason(layer_format, features, reasons),
        "KernelVersion": host.release,
        "Architecture": host.machine,
        "Rootless": os.geteuid() != 0,
        "Features": features,
        "FeatureReasons": reasons,
        **runtimes,
        "Containers": len(states),
        "ContainersRunning": states.count("running"),
        "ContainersPaused": states.count("paused"),
        "ContainersStopped": sum(state not in ("running", "paused") for state in states),
        "Images": len(parts.database.images()),
        "Layers": len(rows),
        "LayersSize": sum(row.size for row in rows),
        "LayersDisk": sum(row.disk for row in rows),
        "KeepBlobs": parts.keep_blobs,
    }


def _features(parts: Parts) -> tuple[dict[str, bool], dict[str, str]]:
    try:
        fd = os.open(parts.places.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            probe = native.probe(fd)
        finally:
            os.close(fd)
    except (LayerfsError, OSError) as exc:
        return {}, {"probe": str(exc)}
    names = [name for name in probe.__struct_fields__ if name != "reasons"]
    return {name: bool(getattr(probe, name)) for name in names}, dict(probe.reasons)


def _format_reason(layer_format: str, features: dict[str, bool], reasons: dict[str, str]) -> str:
    if layer_format == "erofs":
        return "EROFS files are mounted here" if features.get("erofs") else "through loop devices"
    return reasons.get("erofs") or "chosen when the store was made"


def _runtimes(parts: Parts) -> dict[str, Any]:
    try:
        choice = Runtimes(parts.places.run).choice()
    except LayerfsError as exc:
        return {"Runtime": "builtin", "RuntimeReasons": {"auto": str(exc)}}
    return {"Runtime": choice.name, "RuntimeReasons": choice.reasons}
