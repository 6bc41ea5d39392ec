"""Which hosts are spoken to for a repository, and how: ``registries.toml`` and ``certs.d``.

    [[registry]]
    prefix = "docker.io"              # a registry, or registry/path; the longest that fits is taken; *.example.com
    location = "registry.lan/hub"     # where it really is (default: the prefix itself)
    insecure = true                   # TLS is not verified, and plain HTTP is tried where there is no TLS
    blocked = true                    # refused, before any connection is made

    [[registry.mirror]]               # asked first, in this order, when something is pulled
    location = "mirror.lan:5000/hub"
    insecure = true
    pull-from = "digest-only"         # or "tag-only"; default "all"

Read from $LAYERFS_REGISTRIES, else ~/.config/layerfs/registries.toml, else /etc/layerfs/registries.toml.
Certificates lie where docker and podman look for them: ``certs.d/HOST[:PORT]/`` with ``*.crt`` (authorities) and
``NAME.cert`` + ``NAME.key`` (client) in ~/.config/containers, /etc/layerfs, /etc/containers and /etc/docker.
"""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from layerfs.errors import InvalidInputError, RegistryError
from layerfs.reference import DEFAULT_REGISTRY, Reference

__all__ = ["Endpoint", "Mirror", "RegistryConfig", "Rule", "Tls", "config_home", "find_tls", "host_name", "is_loopback"]

_HUB_HOST = "registry-1.docker.io"
_CONFIG_SIZE = 1 << 20


class Mirror(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """Another place that has the same content; used for pulling alone."""

    location: str
    insecure: bool = False
    pull_from: Literal["all", "digest-only", "tag-only"] = "all"


class Rule(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """What ``registries.toml`` says of a prefix."""

    prefix: str
    location: str | None = None
    insecure: bool = False
    blocked: bool = False
    mirror: tuple[Mirror, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    registry: tuple[Rule, ...] = ()


class Tls(msgspec.Struct, frozen=True):
    """Certificate files of one host; None where there is nothing special."""

    authorities: tuple[str, ...] = ()
    certificate: str | None = None
    key: str | None = None


class Endpoint(msgspec.Struct, frozen=True):
    """A repository on a host: ``registry`` is the name it goes by (for credentials), ``host`` what is dialled."""

    registry: str
    repository: str
    insecure: bool = False
    mirror: bool = False

    @property
    def host(self) -> str:
        """host[:port] to connect to."""
        return _HUB_HOST if self.registry == DEFAULT_REGISTRY else self.registry

    @property
    def schemes(self) -> tuple[str, ...]:
        """What to try, in this order."""
        return ("https", "http") if self.insecure or is_loopback(self.host) else ("https",)

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}"


class RegistryConfig:
    """The rules in force."""

    def __init__(self, rules: tuple[Rule, ...] = (), *, origin: str = "", insecure: bool = False) -> None:
        self._rules = sorted(rules, key=lambda rule: len(rule.prefix), reverse=True)
        self._origin = origin
        self._insecure = insecure

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ, *, insecure: bool = False) -> Self:
        """Read the file that is in force; ``insecure`` holds for every registry. InvalidInputError when it is wrong."""
        for path in _config_files(environ):
            try:
                with open(path, "rb") as file:
                    text = file.read(_CONFIG_SIZE + 1)
            except FileNotFoundError:
                if path == environ.get("LAYERFS_REGISTRIES"):
                    raise InvalidInputError(f"read {path}: not found", hint="$LAYERFS_REGISTRIES names it") from None
                continue
            except OSError as exc:
                raise InvalidInputError(f"read {path}: {exc.strerror}") from exc
            return cls(_parse(text, path), origin=path, insecure=insecure)
        return cls(insecure=insecure)

    def pull_endpoints(self, reference: Reference) -> list[Endpoint]:
        """Where to pull from, mirrors first. RegistryError when the registry is blocked."""
        rule = self._rule(reference)
        if rule is None:
            return [self._endpoint(reference.registry, reference.repository, False)]
        wanted = "digest-only" if reference.digest is not None else "tag-only"
        mirrors = [
            self._moved(reference, rule.prefix, mirror.location, mirror.insecure, mirror=True)
            for mirror in rule.mirror
            if mirror.pull_from in ("all", wanted)
        ]
        return [*mirrors, self._moved(reference, rule.prefix, rule.location, rule.insecure)]

    def push_endpoint(self, reference: Reference) -> Endpoint:
        """Where to push to: never a mirror. RegistryError when the registry is blocked."""
        rule = self._rule(reference)
        if rule is None:
            return self._endpoint(reference.registry, reference.repository, False)
        return self._moved(reference, rule.prefix, rule.location, rule.insecure)

    def is_insecure(self, host: str) -> bool:
        """Whether TLS of ``host[:port]`` need not be verified: this machine, or a host that the rules say so of."""
        if self._insecure or is_loopback(host):
            return True
        places = [(rule.location or rule.prefix, rule.insecure) for rule in self._rules]
        places += [(mirror.location, mirror.insecure) for rule in self._rules for mirror in rule.mirror]
        return any(insecure and place.partition("/")[0] == host for place, insecure in places)

    def _rule(self, reference: Reference) -> Rule | None:
        for rule in self._rules:
            if _covers(rule.prefix, reference):
                if rule.blocked:
                    raise RegistryError(
                        f"reach {reference.name}: {rule.prefix} is blocked", hint=f"{self._origin} says so"
                    )
                return rule
        return None

    def _moved(
        self, reference: Reference, prefix: str, location: str | None, insecure: bool, *, mirror: bool = False
    ) -> Endpoint:
        if location is None or prefix.startswith("*."):
            registry, path = (location or reference.registry), reference.repository
            registry, _, base = registry.partition("/")
            return self._endpoint(registry, f"{base}/{path}" if base else path, insecure, mirror)
        rest = reference.name.removeprefix(prefix).strip("/")
        registry, _, path = f"{location}/{rest}".rstrip("/").partition("/")
        return self._endpoint(registry, path, insecure, mirror)

    def _endpoint(self, registry: str, repository: str, insecure: bool, mirror: bool = False) -> Endpoint:
        return Endpoint(registry, repository, insecure or self._insecure, mirror)


def _config_files(environ: Mapping[str, str]) -> list[str]:
    if named := environ.get("LAYERFS_REGISTRIES"):
        return [named]
    home = config_home(environ)
    return [os.path.join(home, "layerfs/registries.toml"), "/etc/layerfs/registries.toml"]


def config_home(environ: Mapping[str, str]) -> str:
    """Where the user's own configuration lies, below a directory for each program."""
    home = environ.get("HOME") or os.path.expanduser("~")
    return environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")


def _parse(text: bytes, path: str) -> tuple[Rule, ...]:
    try:
        if len(text) > _CONFIG_SIZE:
            raise ValueError("it is too large")
        import tomllib  # most hosts have no such file

        document: dict[str, Any] = tomllib.loads(text.decode())
        rules = msgspec.convert(document, _File).registry
        for rule in rules:
            for place in (rule.prefix.removeprefix("*."), rule.location, *(m.location for m in rule.mirror)):
                _check_place(place)
    except (ValueError, InvalidInputError, msgspec.ValidationError) as exc:
        raise InvalidInputError(f"read {path}: {exc}", file=path) from None
    return rules


def _check_place(place: str | None) -> None:
    """A registry, or a registry and a path: nothing else gets into a URL."""
    if place is None:
        return
    registry, slash, path = place.partition("/")
    Reference.parse(f"{registry if '.' in registry or ':' in registry else registry + ':1'}/{path if slash else 'x'}")


def _covers(prefix: str, reference: Reference) -> bool:
    if prefix.startswith("*."):
        return reference.registry.endswith(prefix[1:])
    return reference.name == prefix or reference.name.startswith(prefix + "/")


def host_name(host: str) -> str:
    """``host[:port]`` without the port and the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether ``host[:port]`` is this machine, for certain."""
    name = host_name(host)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def find_tls(host: str, environ: Mapping[str, str] = os.environ) -> Tls:
    """The certificates for ``host[:port]``, from the first ``certs.d`` that has a directory for it.

    Those of Docker Hub may lie under the name that it has in references.
    """
    home = config_home(environ)
    bases = (f"{home}/containers", "/etc/layerfs", "/etc/containers", "/etc/docker")
    hosts = (host, DEFAULT_REGISTRY) if host == _HUB_HOST else (host,)
    for directory in (Path(base, "certs.d", each) for base in bases for each in hosts):
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        authorities = tuple(str(directory / name) for name in names if name.endswith(".crt"))
        certificate = next((directory / name for name in names if name.endswith(".cert")), None)
        if certificate is None:
            return Tls(authorities)
        key = certificate.with_suffix(".key")
        if not key.exists():
            raise InvalidInputError(f"read {certificate}: {key.name} is missing beside it")
        return Tls(authorities, str(certificate), str(key))
    return Tls()
