"""The images, made once and kept: ``Images(cache).get("python")``."""

import fcntl
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.layout import Layout, write_layout
from bench.recipes import RECIPES

__all__ = ["Images", "default_cache"]

VERSION = 1
"""Goes up when a recipe changes: what older ones made is then made anew."""


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/layerfs-bench``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "layerfs-bench"


class Images:
    """The images below a directory, each complete or absent. Making all takes some minutes, the network and 8 GB."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def get(self, name: str) -> Layout:
        """The image of the recipe ``name``; made when it is not there yet."""
        self._cache.mkdir(parents=True, exist_ok=True)
        place = self._cache / f"{name}-{VERSION}"
        with (self._cache / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / "image.json").exists():
                self._make(name, place)
        return _layout(json.loads((place / "image.json").read_text()), place)

    def _make(self, name: str, place: Path) -> None:
        print(f"making the image {name!r} (once; kept in {place})", file=sys.stderr)
        shutil.rmtree(place, ignore_errors=True)
        work = place.with_suffix(".partial")
        shutil.rmtree(work, ignore_errors=True)
        (work / "tars").mkdir(parents=True)
        made = RECIPES[name](work / "tars")
        layout = write_layout(name, made, work, ["/bin/sh"], level=1 if name == "large" else 6)
        shutil.rmtree(work / "tars")
        told = asdict(layout) | {"directory": "oci", "blobs": [f"oci/blobs/sha256/{p.name}" for p in layout.blobs]}
        (work / "image.json").write_text(json.dumps(told))
        os.rename(work, place)


def _layout(told: dict[str, Any], place: Path) -> Layout:
    paths = {"directory": place / told["directory"], "blobs": tuple(place / path for path in told["blobs"])}
    return Layout(**(told | paths | {"diff_ids": tuple(told["diff_ids"])}))
