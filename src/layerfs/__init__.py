"""layerfs: a layer storage engine for container images on Linux.

from layerfs import Store

with Store.open() as store:
    image = store.import_image("rootfs.tar", "base:1")
    print(image.id, image.diff_ids)
"""

from __future__ import annotations

# As in ``typing``, which is not imported here: __main__ tells the interpreter first to look for garbage less often.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from layerfs.store import Store

__all__ = ["Store", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Late, so that a module can be used, or the command say its version, without all of the store.
    if name == "Store":
        from layerfs.store import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
