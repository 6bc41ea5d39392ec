"""``--init`` where another program makes the container: our own init, mounted read-only, starts the command."""

import struct

import msgspec

from layerfs import native
from layerfs.errors import UnsupportedError
from layerfs.runtime.spec import MountSpec, RunSpec

__all__ = ["with_init"]

_PLACE = "/dev/layerfs-init"
_PT_INTERP = 3


def with_init(spec: RunSpec) -> RunSpec:
    """The same container with our init as its first process.

    UnsupportedError where the program was not linked statically: it could not run in a root of another C library.
    Also where the container brings a ``/dev`` of its own: the mount point is made there, and would be on the host.
    """
    program = native.launcher_program()
    if not _is_static(program):
        raise UnsupportedError(
            f"option --init: {program} needs libraries that the container has not",
            hint="build layerfs where there is a static C library, or use --runtime builtin",
        )
    if any(mount.target == "/dev" for mount in spec.mounts):
        raise UnsupportedError("option --init: not with a mount at /dev", hint="use --runtime builtin")
    mount = MountSpec(type="bind", source=program, target=_PLACE, is_dir=False, readonly=True, recursive=False)
    return msgspec.structs.replace(spec, args=(_PLACE, "init", *spec.args), mounts=(*spec.mounts, mount), init=False)


def _is_static(program: str) -> bool:
    """Whether an ELF program of this machine names no loader."""
    with open(program, "rb") as file:
        head = file.read(4096)
    # The 64-bit header: program headers begin at byte 32's value, and byte 54 has their size and number.
    if head[:5] != b"\x7fELF\x02":
        return False
    start, (size, count) = struct.unpack_from("=Q", head, 32)[0], struct.unpack_from("=HH", head, 54)
    kinds = [struct.unpack_from("=I", head, start + size * number)[0] for number in range(count)]
    return _PT_INTERP not in kinds
