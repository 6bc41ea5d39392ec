"""Running containers: the built-in launcher and standard OCI runtimes behind one protocol, and what both need.

``Runtimes.get`` gives a ``Runtime``; its ``start`` takes a ``RunSpec`` and a root, which is a detached mount, and
gives a ``Started`` process, which ``attend`` moves the bytes and signals of until it ends.
"""

from typing import TYPE_CHECKING

from layerfs.late import late_names

if TYPE_CHECKING:
    from layerfs.runtime.beneath import Place, open_beneath, read_beneath
    from layerfs.runtime.builtin import BuiltinRuntime
    from layerfs.runtime.capabilities import capability_mask, capability_names
    from layerfs.runtime.cgroups import Cgroup, Usage
    from layerfs.runtime.choice import RuntimeChoice, Runtimes
    from layerfs.runtime.foreground import Signals, Stdio, attend, check_terminal, raw_terminal
    from layerfs.runtime.inits import with_init
    from layerfs.runtime.keys import DETACH_KEYS, KeyFilter, parse_keys
    from layerfs.runtime.oci import oci_config
    from layerfs.runtime.process import Identity, identify, is_alive, signal_number, signal_process, wait_gone
    from layerfs.runtime.spec import (
        DeviceSpec,
        ExecSpec,
        Limits,
        MountSpec,
        OverlaySpec,
        RunSpec,
        Runtime,
        Started,
        Supervision,
    )
    from layerfs.runtime.standard import StandardRuntime, remove_bundle
    from layerfs.runtime.supervisor import Report, SupervisorClient, read_report
    from layerfs.runtime.user import AccountReader, User, resolve_user
else:
    __getattr__ = late_names(
        __name__,
        beneath="Place open_beneath read_beneath",
        builtin="BuiltinRuntime",
        capabilities="capability_mask capability_names",
        cgroups="Cgroup Usage",
        choice="RuntimeChoice Runtimes",
        foreground="Signals Stdio attend check_terminal raw_terminal",
        inits="with_init",
        keys="DETACH_KEYS KeyFilter parse_keys",
        oci="oci_config",
        process="Identity identify is_alive signal_number signal_process wait_gone",
        spec="DeviceSpec ExecSpec Limits MountSpec OverlaySpec RunSpec Runtime Started Supervision",
        standard="StandardRuntime remove_bundle",
        supervisor="Report SupervisorClient read_report",
        user="AccountReader User resolve_user",
    )

__all__ = [
    "DETACH_KEYS",
    "AccountReader",
    "BuiltinRuntime",
    "Cgroup",
    "DeviceSpec",
    "ExecSpec",
    "Identity",
    "KeyFilter",
    "Limits",
    "MountSpec",
    "OverlaySpec",
    "Place",
    "Report",
    "RunSpec",
    "Runtime",
    "RuntimeChoice",
    "Runtimes",
    "Signals",
    "StandardRuntime",
    "Started",
    "Stdio",
    "Supervision",
    "SupervisorClient",
    "Usage",
    "User",
    "attend",
    "capability_mask",
    "capability_names",
    "check_terminal",
    "identify",
    "is_alive",
    "oci_config",
    "open_beneath",
    "parse_keys",
    "raw_terminal",
    "read_beneath",
    "read_report",
    "remove_bundle",
    "resolve_user",
    "signal_number",
    "signal_process",
    "wait_gone",
    "with_init",
]
