"""layerfs: a layer storage engine for container images on Linux.

from layerfs import Store

with Store.open() as store:
    image = store.import_image("rootfs.tar", "base:1")
    print(image.id, image.diff_ids)
"""

from typing import TYPE_CHECKING, Any

__all__ = ["Store", "__version__"]

__version__ = "0.1.0"

if TYPE_CHECKING:
    from layerfs.store import Store


def __getattr__(name: str) -> Any:
    # Late, so that a module can be used, or the command say its version, without all of the store.
    if name == "Store":
        from layerfs.store import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
