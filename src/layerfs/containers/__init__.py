"""Containers: a record, one writable snapshot and perhaps a process; their life from ``create`` to ``remove``.

``ContainerStore`` makes and finds ``Container`` objects.  A container's lock (``containers/<id>/lock``) is held by
whoever runs or changes it, so that a process that is killed is noticed by the next one that looks.
"""

from typing import TYPE_CHECKING

from layerfs.late import late_names

if TYPE_CHECKING:
    from layerfs.containers.bundle import Bundle
    from layerfs.containers.committing import Committed
    from layerfs.containers.container import Container
    from layerfs.containers.copying import PathStat
    from layerfs.containers.events import Event
    from layerfs.containers.flags import FLAGS, create_options
    from layerfs.containers.logs import LogEntry
    from layerfs.containers.options import CreateOptions, Device, Health, MountOption, Restart, Ulimit
    from layerfs.containers.record import Config, MountUse, State
    from layerfs.containers.store import ContainerStore
    from layerfs.containers.top import Processes
    from layerfs.containers.volumes import Volume, VolumeStore
else:
    __getattr__ = late_names(
        __name__,
        bundle="Bundle",
        committing="Committed",
        container="Container",
        copying="PathStat",
        events="Event",
        flags="FLAGS create_options",
        logs="LogEntry",
        options="CreateOptions Device Health MountOption Restart Ulimit",
        record="Config MountUse State",
        store="ContainerStore",
        top="Processes",
        volumes="Volume VolumeStore",
    )

__all__ = [
    "FLAGS",
    "Bundle",
    "Committed",
    "Config",
    "Container",
    "ContainerStore",
    "CreateOptions",
    "Device",
    "Event",
    "Health",
    "LogEntry",
    "MountOption",
    "MountUse",
    "PathStat",
    "Processes",
    "Restart",
    "State",
    "Ulimit",
    "Volume",
    "VolumeStore",
    "create_options",
]
