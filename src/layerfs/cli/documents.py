"""What ``inspect`` shows: the documents of docker's API, made of the store's values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from layerfs.cli.gotemplate import NIL_LIST, NIL_MAP, Fields

if TYPE_CHECKING:
    from layerfs.containers import Container
    from layerfs.images import Image

__all__ = ["as_fields", "container_document", "image_document"]

# Members of docker's documents that are maps with keys of the user's; all other objects have fixed members.
_MAPS = frozenset(
    (
        "Annotations", "Attributes", "ExposedPorts", "Labels", "Networks", "Options", "PortBindings", "Ports",
        "StorageOpt", "Sysctls", "Tmpfs", "Volumes", "annotations",
    )
)  # fmt: skip
_LISTS = (
    "Binds", "CapAdd", "CapDrop", "Cmd", "Entrypoint", "Env", "ExtraHosts", "GroupAdd", "OnBuild", "SecurityOpt",
    "Shell", "Ulimits", "VolumesFrom",
)  # fmt: skip
_NILS = dict.fromkeys(_MAPS, NIL_MAP) | dict.fromkeys(_LISTS, NIL_LIST)
_CONFIG: dict[str, Any] = {
    "User": "",
    "Env": None,
    "Cmd": None,
    "Entrypoint": None,
    "Volumes": None,
    "WorkingDir": "",
    "OnBuild": None,
    "Labels": None,
}
_CONFIG_ABSENT: dict[str, Any] = {
    "ExposedPorts": {},
    "StopSignal": "",
    "Shell": None,
    "Healthcheck": None,
    "ArgsEscaped": False,
}
# Of what is not offered here, and so never set.
_HOST_ABSENT: dict[str, Any] = {
    "Annotations": {},
    "BlkioWeight": 0,
    "Cgroup": "",
    "ContainerIDFile": "",
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "DeviceCgroupRules": [],
    "DeviceRequests": [],
    "Isolation": "",
    "Links": [],
    "StorageOpt": {},
    "VolumeDriver": "",
}
_CONTAINER_ABSENT: dict[str, Any] = {"AppArmorProfile": "", "MountLabel": "", "ProcessLabel": ""}


def as_fields(value: Any, parent: str = "", name: str = "") -> Any:
    """Return a document whose objects tell an unknown member from one that is not set."""
    if isinstance(value, dict):
        inner = {key: as_fields(item, name, key) for key, item in value.items()}
        if name in _MAPS or (parent, name) == ("LogConfig", "Config"):
            return inner
        fields = Fields(inner)
        fields.nils = _NILS
        return fields
    if isinstance(value, (list, tuple)):
        return [as_fields(item, parent, name) for item in value]
    return value


def image_document(image: Image) -> Fields:
    """Return the document of one image."""
    import msgspec

    raw = json.loads(image.config_bytes)
    section = raw.get("config") if isinstance(raw.get("config"), dict) else {}
    history = raw.get("history") or [{}]
    document = {
        "Id": image.id,
        "Digest": image.manifest_descriptor.digest,
        "RepoTags": list(image.familiar_names),
        "RepoDigests": _digests(image),
        "Parent": "",
        "Comment": history[-1].get("comment", "") if isinstance(history[-1], dict) else "",
        "Created": raw.get("created") or "",
        "Author": raw.get("author") or "",
        "Architecture": image.platform.architecture,
        "Variant": image.platform.variant or "",
        "Os": image.platform.os,
        "Size": image.size,
        "Config": _CONFIG | section,
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Descriptor": msgspec.to_builtins(image.target, str_keys=True, enc_hook=str),
    }
    fields: Fields = as_fields(document)
    fields["Config"].absent = _CONFIG_ABSENT
    return fields


def container_document(container: Container, size: bool) -> Fields:
    """Return the document of one container, with ``size`` also how much it takes."""
    document = dict(container.inspect())
    if size:
        document["SizeRw"], document["SizeRootFs"] = container.size()
    fields: Fields = as_fields(document)
    fields.absent = _CONTAINER_ABSENT
    fields["Config"].absent = _CONFIG_ABSENT
    fields["HostConfig"].absent = _HOST_ABSENT
    fields["State"].absent = {"Health": None}
    return fields


def _digests(image: Image) -> list[str]:
    from layerfs.reference import Reference

    return [Reference.parse(text).familiar for text in image.repo_digests]
