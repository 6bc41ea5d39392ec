"""Typed wrappers of the C core: the only importer of the compiled ``layerfs._native``.

A handle (``Unpacker``, ``Repacker``, ``Reader``, ``Differ``) is a context manager and belongs to one thread
at a time; a ``Reader`` may be read by several. Buffers are anything with the buffer protocol. Every call that
works on more than a few bytes runs without the GIL. What the functions do is said
once, in ``csrc/layerfs.h``.

Failures of the core become exceptions in one place (``_core.check``): malformed or oversized input is an
``IntegrityError``, all else a ``NativeError`` that keeps the errno.
"""

from typing import TYPE_CHECKING

from layerfs.late import late_names

if TYPE_CHECKING:
    from layerfs.native._core import Buffer, library_path
    from layerfs.native._diff import Change, Differ, DiffStats
    from layerfs.native._launch import (
        CommandError,
        JoinSpec,
        LaunchSpec,
        Mount,
        Process,
        SupervisorSpec,
        join,
        keep_terminal,
        launch,
        launcher_program,
        supervise,
    )
    from layerfs.native._listing import Listing, Status
    from layerfs.native._mount import (
        Probe,
        attach,
        bind_mount,
        detach,
        enter_namespaces,
        erofs_mount,
        idmap_mount,
        overlay_mount,
        probe,
        readahead,
        userns_open,
        write_back,
    )
    from layerfs.native._reader import Reader, Stat
    from layerfs.native._seccomp import (
        SECCOMP_ALLOW,
        SeccompArg,
        SeccompRule,
        seccomp_errno,
        seccomp_filter,
        seccomp_library,
    )
    from layerfs.native._unpack import Repacker, Unpacker, UnpackResult
else:  # a command needs a part of the core
    __getattr__ = late_names(
        __name__,
        _core="Buffer library_path",
        _diff="Change Differ DiffStats",
        _launch=(
            "CommandError JoinSpec LaunchSpec Mount Process "
            "SupervisorSpec join keep_terminal launch launcher_program supervise"
        ),
        _listing="Listing Status",
        _mount=(
            "Probe attach bind_mount detach enter_namespaces erofs_mount "
            "idmap_mount overlay_mount probe readahead userns_open write_back"
        ),
        _reader="Reader Stat",
        _seccomp="SECCOMP_ALLOW SeccompArg SeccompRule seccomp_errno seccomp_filter seccomp_library",
        _unpack="Repacker Unpacker UnpackResult",
    )

__all__ = [
    "SECCOMP_ALLOW",
    "Buffer",
    "Change",
    "CommandError",
    "DiffStats",
    "Differ",
    "JoinSpec",
    "LaunchSpec",
    "Listing",
    "Mount",
    "Probe",
    "Process",
    "Reader",
    "Repacker",
    "SeccompArg",
    "SeccompRule",
    "Stat",
    "Status",
    "SupervisorSpec",
    "UnpackResult",
    "Unpacker",
    "attach",
    "bind_mount",
    "detach",
    "enter_namespaces",
    "erofs_mount",
    "idmap_mount",
    "join",
    "keep_terminal",
    "launch",
    "launcher_program",
    "library_path",
    "overlay_mount",
    "probe",
    "readahead",
    "seccomp_errno",
    "seccomp_filter",
    "seccomp_library",
    "supervise",
    "userns_open",
    "write_back",
]
