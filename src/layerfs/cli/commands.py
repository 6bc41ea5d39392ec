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
    "commit": Entry("commit", "Make an image of a container's changes"),
    "completion": Entry("completion", "Print the completion script of a shell"),
    "create": Entry("create", "Create a container from an image"),
    "diff": Entry("diff", "Show which paths differ in a container, or between two images or layers"),
    "export": Entry("export", "Write the files of a container as a tar archive"),
    "history": Entry("history", "Show how an image was made"),
    "images": Entry("images", "List images"),
    "import": Entry("import_", "Make an image of a root file system"),
    "info": Entry("info", "Show what this host and store can do"),
    "inspect": Entry("inspect", "Show all that is known about images, containers or volumes"),
    "load": Entry("load", "Load images from an archive"),
    "ls": Entry("ls", "List files of an image"),
    "mount": Entry("mount", "Mount an image or a container, or list what is mounted"),
    "ps": Entry("ps", "List containers"),
    "rm": Entry("rm", "Remove containers"),
    "rmi": Entry("rmi", "Remove images"),
    "run": Entry("run", "Create a container from an image and run it"),
    "save": Entry("save", "Write images to an archive"),
    "tag": Entry("tag", "Give an image another name"),
    "umount": Entry("unmount", "Unmount images or containers"),
    "unmount": Entry("unmount", "Unmount images or containers"),
    "untag": Entry("untag", "Take a name away from an image"),
    "version": Entry("version", "Show the version"),
}

_SYSTEM: dict[str, Entry] = {
    "check": Entry("system_check", "Verify what is stored, and repair it"),
    "df": Entry("system_df", "Show how much disk space is used"),
    "info": VERBS["info"],
    "prune": Entry("prune", "Remove all that is not used", "system"),
}

_IMAGE: dict[str, Entry] = {
    **{name: VERBS[name] for name in ("history", "import", "load", "mount", "save", "tag", "unmount", "untag")},
    "diff": VERBS["diff"],
    "inspect": Entry("inspect", "Show all that is known about images", "image"),
    "ls": VERBS["images"],
    "list": VERBS["images"],
    "prune": Entry("prune", "Remove images that are not used", "image"),
    "rm": VERBS["rmi"],
    "umount": VERBS["unmount"],
}

_CONTAINER: dict[str, Entry] = {
    **{name: VERBS[name] for name in ("commit", "create", "diff", "export", "mount", "rm", "run", "unmount")},
    "inspect": Entry("inspect", "Show all that is known about containers", "container"),
    "ls": VERBS["ps"],
    "list": VERBS["ps"],
    "ps": VERBS["ps"],
    "prune": Entry("prune", "Remove containers that do not run", "container"),
    "umount": VERBS["unmount"],
}

GROUPS: dict[str, tuple[str, dict[str, Entry]]] = {
    "container": ("Work with containers", _CONTAINER),
    "image": ("Work with images", _IMAGE),
    "system": ("Look after the store", _SYSTEM),
}
