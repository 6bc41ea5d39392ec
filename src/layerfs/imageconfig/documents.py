"""A configuration that follows another one: a layer or none, a line of history, a time."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import UTC, datetime
from os import environ
from typing import Any, TypeAlias

from layerfs.digest import Digest
from layerfs.errors import InvalidInputError
from layerfs.oci import Platform

__all__ = ["new_config", "timestamp"]

_Document: TypeAlias = dict[str, Any]


def timestamp(now: float | None = None) -> str:
    """Return the time (seconds since 1970; default: $SOURCE_DATE_EPOCH, else the clock) as RFC 3339 text in UTC.

    Raises InvalidInputError when $SOURCE_DATE_EPOCH is not a whole number.
    """
    epoch = environ.get("SOURCE_DATE_EPOCH")
    try:
        if now is None and epoch:
            return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        raise InvalidInputError(f"SOURCE_DATE_EPOCH {epoch!r}: not a time in seconds") from None
    when = datetime.now(UTC) if now is None else datetime.fromtimestamp(now, UTC)
    # Go's tools write no zeros at the end of a fraction; with them, a config that skopeo converts gets another digest.
    return when.strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".") + "Z"


def new_config(
    base: Mapping[str, Any] | None,
    *,
    created: str,
    platform: Platform | None = None,
    author: str = "",
    comment: str = "",
    created_by: str = "",
    diff_id: Digest | None = None,
) -> _Document:
    """Return the configuration that follows ``base`` (None: from scratch) by one history entry.

    With ``diff_id`` the entry adds that layer, without it the entry is an ``empty_layer``.  ``platform``
    replaces that of the base, and must be given when there is none.
    """
    document: _Document = copy.deepcopy(dict(base)) if base is not None else {}
    document["created"] = created
    if author:
        document["author"] = author
    if platform is not None:
        _set_platform(document, platform)
    elif not document.get("os") or not document.get("architecture"):
        raise InvalidInputError("new image: a platform is needed when the base states none")
    document.setdefault("config", {})
    diff_ids = _diff_ids(document)
    document["history"] = [*_whole_history(document, len(diff_ids))]
    entry: _Document = {"created": created}
    for key, value in (("created_by", created_by), ("author", author), ("comment", comment)):
        if value:
            entry[key] = value
    if diff_id is None:
        entry["empty_layer"] = True
    else:
        diff_ids.append(str(diff_id))
    document["history"].append(entry)
    return document


def _set_platform(document: _Document, platform: Platform) -> None:
    document["architecture"] = platform.architecture
    document["os"] = platform.os
    if platform.variant:
        document["variant"] = platform.variant
    else:
        document.pop("variant", None)


def _diff_ids(document: _Document) -> list[str]:
    rootfs = document.setdefault("rootfs", {"type": "layers", "diff_ids": []})
    if rootfs.get("diff_ids") is None:
        rootfs["diff_ids"] = []
    diff_ids: list[str] = rootfs["diff_ids"]
    return diff_ids


def _whole_history(document: _Document, layers: int) -> list[_Document]:
    """The history of the base, filled up so that every layer has its entry, as the specification wants."""
    history = list(document.get("history") or [])
    described = sum(1 for entry in history if not entry.get("empty_layer"))
    return history + [{"comment": "no history recorded"} for _ in range(layers - described)]
