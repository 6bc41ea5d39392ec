"""The verbs: name, module, one line of help.  A static table, so that the list needs no import of any verb."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["GROUPS", "VERBS", "Entry"]


class Entry(NamedTuple):
    """A verb: its module in ``cli/verbs``, its line of help, and the part of the module that is meant."""

    module: str
    summary: str
    kind: str = ""


VERBS: dict[str, Entry] = {
    "cat": Entry("cat", "Print a file of an image"),
    "completion": Entry("completion", "Print the completion script of a shell"),
    "history": Entry("history", "Show how an image was made"),
    "images": Entry("images", "List images"),
    "import": Entry("import_", "Make an image of a root file system"),
    "inspect": Entry("inspect", "Show all that is known about images"),
    "load": Entry("load", "Load images from an archive"),
    "ls": Entry("ls", "List files of an image"),
    "prune": Entry("prune", "Remove all that is not used", "system"),
    "rmi": Entry("rmi", "Remove images"),
    "save": Entry("save", "Write images to an archive"),
    "tag": Entry("tag", "Give an image another name"),
    "version": Entry("version", "Show the version"),
}

_SYSTEM: dict[str, Entry] = {
    "check": Entry("system_check", "Verify what is stored, and repair it"),
    "df": Entry("system_df", "Show how much disk space is used"),
    "prune": VERBS["prune"],
}

_IMAGE: dict[str, Entry] = {
    **{name: VERBS[name] for name in ("history", "import", "load", "save", "tag")},
    "inspect": Entry("inspect", "Show all that is known about images", "image"),
    "ls": VERBS["images"],
    "list": VERBS["images"],
    "prune": Entry("prune", "Remove images that are not used", "image"),
    "rm": VERBS["rmi"],
}

GROUPS: dict[str, tuple[str, dict[str, Entry]]] = {
    "image": ("Work with images", _IMAGE),
    "system": ("Look after the store", _SYSTEM),
}
