"""A stage while it is built: its layers, its configuration, its history, and what variables mean in it."""

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

from layerfs.build.plan import PROXIES
from layerfs.digest import Digest
from layerfs.errors import InvalidInputError
from layerfs.imageconfig import edit_section, environment
from layerfs.images import Image
from layerfs.oci import Platform
from layerfs.variables import expand

__all__ = ["StageState"]

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELL = ("/bin/sh", "-c")
_WORDS = {"CMD": "Cmd", "ENTRYPOINT": "Entrypoint"}
_SINGLE = {"WORKDIR": "WorkingDir", "USER": "User", "STOPSIGNAL": "StopSignal"}


class StageState:
    """What instructions change. ``image`` is the one that the layers begin with; None: from scratch."""

    def __init__(self, platform: Platform, escape: str) -> None:
        self.platform = platform
        self.escape = escape
        self.image: Image | None = None
        self.stack: list[Digest] = []
        self.document: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
        if platform.variant:
            self.document["variant"] = platform.variant
        self.section: dict[str, Any] = {"Env": [_PATH], "WorkingDir": "/"}
        self.history: list[dict[str, Any]] = []
        self.arguments: dict[str, str] = {}
        """Values of ARGs, in the order of the lines that name them first."""
        self.cmd_set = False
        self.created: str | None = None
        """When the last layer was made; entries of history without a layer take it too."""

    @classmethod
    def of_image(cls, image: Image, escape: str) -> "StageState":
        """What ``FROM image`` begins with."""
        state = cls(image.platform, escape)
        document = json.loads(image.config_bytes)
        state.image = image
        state.stack = list(image.diff_ids)
        state.section = {key: value for key, value in (document.pop("config", None) or {}).items() if value is not None}
        state.history = list(document.pop("history", None) or [])
        described = sum(1 for entry in state.history if not entry.get("empty_layer"))
        state.history += [{"comment": "no history recorded"} for _ in range(len(state.stack) - described)]
        document.pop("rootfs", None)
        state.document = document
        state.document.pop("created", None)
        if not any(entry.startswith("PATH=") for entry in state.section.get("Env") or []):
            state.section["Env"] = [*(state.section.get("Env") or []), _PATH]
        return state

    def based_on(self) -> "StageState":
        """What ``FROM`` this stage begins with."""
        state = copy.copy(self)
        state.stack = list(self.stack)
        state.section = copy.deepcopy(self.section)
        state.document = dict(self.document)
        state.history = list(self.history)
        state.arguments = dict(self.arguments)
        state.cmd_set = False
        return state

    # ---- variables ----

    def variables(self) -> dict[str, str]:
        """What ``$NAME`` means: the environment goes before arguments."""
        return self.arguments | environment(self.section)

    def expand(self, word: str, missing: Callable[[str], None] | None = None) -> str:
        """A word with its variables replaced."""
        return expand(word, self.variables(), escape=self.escape, missing=missing)

    def declare(self, name: str, default: str | None, given: Mapping[str, str], outer: Mapping[str, str]) -> str | None:
        """``ARG name[=default]``; the value that it has now."""
        if name in given:
            value: str | None = given[name]
        elif default is not None:
            value = self.expand(default)
        else:
            value = outer.get(name)
        if value is not None:
            self.arguments[name] = value
        return value

    def visible_arguments(self) -> dict[str, str]:
        """Arguments that a command sees and its cache key has: not what ENV hides, and no proxies."""
        hidden = environment(self.section)
        return {name: value for name, value in self.arguments.items() if name not in hidden and name not in PROXIES}

    # ---- configuration ----

    def edit(self, word: str, rest: str, missing: Callable[[str], None] | None = None) -> str:
        """Apply an instruction of the configuration, and return it as history has it: with what variables mean, as
        docker shows it. InvalidInputError with the reason."""
        if word == "MAINTAINER":
            self.document["author"] = rest  # as it is written: quotes are kept, variables mean nothing
            return f"MAINTAINER {rest}"
        variables = self.variables()
        self.section = edit_section(
            self.section, word, rest, variables=variables, escape=self.escape, cmd_set=self.cmd_set, missing=missing
        )
        if word == "CMD":
            self.cmd_set = True
        if word in ("ENV", "LABEL"):
            alone = edit_section({}, word, rest, variables=variables, escape=self.escape)
            pairs = alone.get("Env") or [f"{name}={value}" for name, value in alone.get("Labels", {}).items()]
            return f"{word} {' '.join(pairs)}"
        if word in _WORDS:
            return (
                f"{word} {json.dumps(self.section.get(_WORDS[word]) or [], separators=(' ', ':'), ensure_ascii=False)}"
            )
        return f"{word} {self.section[_SINGLE[word]] if word in _SINGLE else rest}"

    @property
    def shell(self) -> tuple[str, ...]:
        """What the shell form is given to."""
        return tuple(self.section.get("Shell") or _SHELL)

    @property
    def directory(self) -> str:
        """The working directory."""
        return "/" + str(self.section.get("WorkingDir") or "").strip("/")

    # ---- history ----

    def add_layer(self, layer: Digest, created: str, created_by: str) -> None:
        """A layer with its entry of history."""
        self.stack.append(layer)
        self.created = created
        self.history.append(self._entry(created_by, created))

    def add_note(self, created_by: str) -> None:
        """An entry of history without a layer; it gets its time in the end."""
        self.history.append(self._entry(created_by, self.created) | {"empty_layer": True})

    def _entry(self, created_by: str, created: str | None) -> dict[str, Any]:
        entry: dict[str, Any] = {"created": created} if created is not None else {}
        entry["created_by"] = created_by
        if "author" in self.document:
            entry["author"] = self.document["author"]
        entry["comment"] = "layerfs.build"
        return entry

    def finished(self, created: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
        """The whole configuration document. ``created`` tells the time for a document that has none yet."""
        document = {
            **self.document,
            "config": self.section,
            "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in self.stack]},
            "history": self.history,
        }
        own = [entry for entry in self.history if entry.get("comment") == "layerfs.build"]
        if self.created is not None and all("created" in entry for entry in own):
            when = self.created
        else:
            when = self.created or created(document)
            for entry in own:
                entry.setdefault("created", when)
        if len(document["rootfs"]["diff_ids"]) != sum(1 for entry in self.history if not entry.get("empty_layer")):
            raise InvalidInputError("the base image's history does not fit its layers")
        return {"created": when, **document}
