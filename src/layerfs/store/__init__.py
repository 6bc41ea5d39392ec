"""The facade that a user of the library holds: ``Store.open(root)``."""

from layerfs.store._parts import Limits, Parts
from layerfs.store._places import Places, default_root, default_run
from layerfs.store._store import Store

__all__ = ["Limits", "Parts", "Places", "Store", "default_root", "default_run"]
