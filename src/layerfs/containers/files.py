"""The files that a container finds in /etc and that are not its image's: hosts, hostname, resolv.conf."""

import os
from contextlib import suppress
from pathlib import Path

from layerfs.containers.options import CreateOptions
from layerfs.errors import InvalidInputError, system_errors

__all__ = ["FILES", "LOCALTIME", "check_addresses", "write_files", "zone_file"]

FILES = {"hosts": "/etc/hosts", "hostname": "/etc/hostname", "resolv.conf": "/etc/resolv.conf"}
"""Name in the container's directory, and the place where the container sees it."""

LOCALTIME = "/etc/localtime"
"""Where programs look for their time zone, on the host and in containers."""

_ZONES = "/usr/share/zoneinfo"
_LIMIT = 1 << 20
_HOSTS = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def check_addresses(options: CreateOptions) -> None:
    """InvalidInputError for an address in ``--dns`` or ``--add-host`` that is none."""
    if not (options.dns or options.add_hosts or options.dns_search or options.dns_options):
        return
    import ipaddress  # few containers ask for it

    for address in (*options.dns, *(address for _, address in options.add_hosts)):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidInputError(f"address {address!r}: not an IP address") from None
    for text in (*options.dns_search, *options.dns_options):
        if not text or any(char.isspace() for char in text):
            raise InvalidInputError(f"resolver option {text!r}: not a word")


def zone_file(name: str) -> str:
    """The host's file of a time zone, or its own for ``local``; InvalidInputError where there is none."""
    path = os.path.realpath(LOCALTIME if name == "local" else f"{_ZONES}/{name}")
    outside = name.startswith("/") or ".." in name.split("/")
    with suppress(OSError), open(path, "rb") as file:
        if not outside and file.read(4) == b"TZif":
            return path
    raise InvalidInputError(f"option --tz {name!r}: the host has no such time zone in {_ZONES}")


def write_files(directory: Path, options: CreateOptions, hostname: str) -> None:
    """Write all three into a container's directory."""
    contents = {"hosts": _hosts(options, hostname), "hostname": f"{hostname}\n", "resolv.conf": _resolv(options)}
    with system_errors(f"write {directory}"):
        for name, text in contents.items():
            with open(f"{directory}/{name}", "wb", buffering=0) as file:
                file.write(text.encode(errors="surrogateescape"))
                os.fchmod(file.fileno(), 0o644)


def _hosts(options: CreateOptions, hostname: str) -> str:
    text = (_of_host("/etc/hosts") or _HOSTS) if options.network == "host" else _HOSTS
    if text and not text.endswith("\n"):
        text += "\n"
    if options.network == "none" or hostname not in text.split():
        names = f"{hostname}.{options.domainname} {hostname}" if options.domainname else hostname
        text += f"127.0.1.1\t{names}\n"
    return text + "".join(f"{address}\t{name}\n" for name, address in options.add_hosts)


def _resolv(options: CreateOptions) -> str:
    """The host's, with what was asked for in place of what the host has of that kind."""
    lines = (_of_host("/etc/resolv.conf") or "").splitlines()
    for keyword, values in (
        ("nameserver", options.dns),
        ("search", (" ".join(options.dns_search),) if options.dns_search else ()),
        ("options", (" ".join(options.dns_options),) if options.dns_options else ()),
    ):
        if values:
            lines = [line for line in lines if line.split()[:1] != [keyword]]
            lines += [f"{keyword} {value}" for value in values if value != "."]
    return "".join(f"{line}\n" for line in lines)


def _of_host(path: str) -> str | None:
    with suppress(OSError), open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(_LIMIT)
    return None
