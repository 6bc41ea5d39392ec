"""Exchange with registries: what the verbs pull, push, login, logout, copy, tags and manifest inspect do.

pulling  registry -> store
pushing  store -> registry, where layers are compressed again if their blobs are not here
remote   what needs no store: log in and out, tags, manifests, copies between registries and archives
parts    what these operations need of a store
"""

from typing import TYPE_CHECKING

from layerfs.late import late_names

if TYPE_CHECKING:
    from layerfs.exchange.parts import StoreParts
    from layerfs.exchange.pulling import Pulled, pull, pull_all_tags
    from layerfs.exchange.pushing import Pushed, push
    from layerfs.exchange.remote import (
        Inspected,
        LoggedOut,
        copy_image,
        inspect_manifest,
        list_tags,
        log_in,
        log_out,
    )
else:
    __getattr__ = late_names(
        __name__,
        parts="StoreParts",
        pulling="Pulled pull pull_all_tags",
        pushing="Pushed push",
        remote="Inspected LoggedOut copy_image inspect_manifest list_tags log_in log_out",
    )

__all__ = [
    "Inspected",
    "LoggedOut",
    "Pulled",
    "Pushed",
    "StoreParts",
    "copy_image",
    "inspect_manifest",
    "list_tags",
    "log_in",
    "log_out",
    "pull",
    "pull_all_tags",
    "push",
]
