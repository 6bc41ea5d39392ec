"""The verbs: name, module, one line of help.  A static table, so that the list needs no import of any verb."""

from __future__ import annotations

__all__ = ["GROUPS", "VERBS", "Entry"]


class Entry:
    """A verb: its module in ``cli/verbs``, its line of help, and the part of the module that is meant."""

    __slots__ = ("kind", "module", "summary")

    def __init__(self, module: str, summary: str, kind: str = "") -> None:
        self.module = module
        self.summary = summary
        self.kind = kind


VERBS: dict[str, Entry] = {
    "attach": Entry("attach", "Join this terminal to a container in the background"),
    "build": Entry("build", "Make an image by a Dockerfile"),
    "bundle": Entry("bundle", "Write an OCI bundle of an image, for a runtime of your own"),
    "cat": Entry("cat", "Print a file of a container or an image"),
    "commit": Entry("commit", "Make an image of a container's changes"),
    "completion": Entry("completion", "Print the completion script of a shell"),
    "copy": Entry("copy", "Copy an image between registries and archives"),
    "cp": Entry("cp", "Copy files into a container or out of it"),
    "create": Entry("create", "Make a container of an image"),
    "diff": Entry("diff", "Show which paths differ, in a container or between any two things"),
    "events": Entry("events", "Show what happens to containers"),
    "exec": Entry("exec", "Run one more command in a container"),
    "export": Entry("export", "Write the files of a container or an image as a tar archive"),
    "history": Entry("history", "Show how an image was made"),
    "images": Entry("images", "List images"),
    "import": Entry("import_", "Make an image of a root file system"),
    "info": Entry("info", "Show what this host and store can do"),
    "inspect": Entry("inspect", "Show all that is known about containers, images or volumes"),
    "kill": Entry("kill", "Send a signal to containers"),
    "load": Entry("load", "Load images from an archive"),
    "login": Entry("login", "Keep the credentials of a registry"),
    "logout": Entry("logout", "Forget the credentials of a registry"),
    "logs": Entry("logs", "Show what a container wrote"),
    "ls": Entry("ls", "List files of a container or an image"),
    "mount": Entry("mount", "Mount an image or a container, or list what is mounted"),
    "pause": Entry("pause", "Stop the processes of containers where they are"),
    "prune": Entry("prune", "Remove all that is not used", "system"),
    "ps": Entry("ps", "List containers"),
    "pull": Entry("pull", "Bring an image from a registry"),
    "push": Entry("push", "Send an image to a registry"),
    "rename": Entry("rename", "Give a container another name"),
    "restart": Entry("restart", "Stop containers and start them"),
    "rm": Entry("rm", "Remove containers"),
    "rmi": Entry("rmi", "Remove images"),
    "run": Entry("run", "Make a container of an image and run it"),
    "save": Entry("save", "Write images to an archive"),
    "sharing": Entry("sharing", "Show which layers and files images have in common"),
    "start": Entry("start", "Start containers that do not run"),
    "stats": Entry("stats", "Show what containers use of this host"),
    "stop": Entry("stop", "Ask containers to end, and end them"),
    "tag": Entry("tag", "Give an image another name"),
    "tags": Entry("tags", "List the tags of a repository in a registry"),
    "top": Entry("top", "Show the processes of a container"),
    "umount": Entry("unmount", "Unmount images or containers"),
    "unmount": Entry("unmount", "Unmount images or containers"),
    "untag": Entry("untag", "Take names from an image"),
    "unpause": Entry("unpause", "Let the processes of paused containers go on"),
    "update": Entry("update", "Change the limits of containers"),
    "version": Entry("version", "Show the version"),
    "wait": Entry("wait", "Wait until containers end, and print their exit codes"),
}


def _as_verbs(*names: str) -> dict[str, Entry]:
    return {name: VERBS[name] for name in names}


_CONTAINER: dict[str, Entry] = {
    **_as_verbs("attach", "bundle", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "mount"),
    **_as_verbs("pause", "ps", "rename", "restart", "rm", "run", "start", "stats", "stop", "top"),
    **_as_verbs("umount", "unmount", "unpause", "update", "wait"),
    "inspect": Entry("inspect", "Show all that is known about containers", "container"),
    "exists": Entry("exists", "Tell by the exit code whether a container is there", "container"),
    "list": VERBS["ps"],
    "ls": VERBS["ps"],
    "prune": Entry("prune", "Remove containers that do not run", "container"),
}

_IMAGE: dict[str, Entry] = {
    **_as_verbs(
        "build",
        "diff",
        "history",
        "import",
        "load",
        "mount",
        "pull",
        "push",
        "save",
        "tag",
        "umount",
        "unmount",
        "untag",
    ),
    "exists": Entry("exists", "Tell by the exit code whether an image is there", "image"),
    "inspect": Entry("inspect", "Show all that is known about images", "image"),
    "list": VERBS["images"],
    "ls": VERBS["images"],
    "prune": Entry("prune", "Remove images that are not used", "image"),
    "rm": VERBS["rmi"],
    "tree": Entry("tree", "Show the layers of an image, and whose top layers they are"),
}

_SYSTEM: dict[str, Entry] = {
    **_as_verbs("events", "info", "prune"),
    "check": Entry("system_check", "Verify what is stored, and repair it"),
    "df": Entry("system_df", "Show how much disk space is used"),
    "migrate": Entry("system_migrate", "Keep layers in the other format"),
}

_VOLUME: dict[str, Entry] = {
    "create": Entry("volume", "Make a volume", "create"),
    "inspect": Entry("volume", "Show all that is known about volumes", "inspect"),
    "exists": Entry("exists", "Tell by the exit code whether a volume is there", "volume"),
    "list": Entry("volume", "List volumes", "ls"),
    "ls": Entry("volume", "List volumes", "ls"),
    "prune": Entry("prune", "Remove volumes that no container has", "volume"),
    "rm": Entry("volume", "Remove volumes", "rm"),
}

_BUILDER: dict[str, Entry] = {
    "build": VERBS["build"],
    "ls": Entry("builder", "List what builds keep for the next ones", "ls"),
    "export": Entry("builder", "Write a cache mount as a tar archive", "export"),
    "import": Entry("builder", "Make a cache mount of a tar archive", "import"),
    "prune": Entry("builder", "Remove what builds keep for the next ones", "prune"),
}

_MANIFEST: dict[str, Entry] = {
    "add": Entry("manifest_list", "Add images to a list", "add"),
    "annotate": Entry("manifest_list", "Say something of an image in a list", "annotate"),
    "create": Entry("manifest_list", "Make a list of images for several platforms", "create"),
    "inspect": Entry("manifest", "Show a list that is here, or the manifest that a registry has under a name"),
    "push": VERBS["push"],
    "remove": Entry("manifest_list", "Take an image out of a list", "remove"),
    "rm": VERBS["rmi"],
}

GROUPS: dict[str, tuple[str, dict[str, Entry]]] = {
    "builder": ("Look after what builds keep", _BUILDER),
    "container": ("Work with containers", _CONTAINER),
    "image": ("Work with images", _IMAGE),
    "manifest": ("Look at manifests, and make lists of them", _MANIFEST),
    "system": ("Look after the store", _SYSTEM),
    "volume": ("Work with volumes", _VOLUME),
}
