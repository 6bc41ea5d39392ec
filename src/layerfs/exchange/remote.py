"""What needs no store: logging in and out, tags, manifests, and copies between registries and archives."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from layerfs.archives import create_archive, open_archive
from layerfs.blobs import NO_PROGRESS, BlobSink, BlobSource, Progress, read_all
from layerfs.errors import InvalidInputError
from layerfs.exchange.parts import about
from layerfs.oci import MANIFEST_LIMIT, Descriptor, Index, Platform, parse_manifest, select
from layerfs.reference import DEFAULT_REGISTRY, Reference
from layerfs.registry.access import Access
from layerfs.registry.config import Endpoint
from layerfs.registry.credentials import Credentials
from layerfs.registry.sink import RegistrySink
from layerfs.registry.source import RegistrySource
from layerfs.transfer import copy

__all__ = ["Inspected", "LoggedOut", "copy_image", "inspect_manifest", "list_tags", "log_in", "log_out"]

_ARCHIVES = {"docker-archive": "docker-archive", "oci-archive": "oci-archive", "oci": "oci-dir"}


class LoggedOut(msgspec.Struct, frozen=True):
    """Where credentials were removed; ``remaining``: whether a place that is not ours to change still has some."""

    places: tuple[str, ...]
    remaining: bool


class Inspected(msgspec.Struct, frozen=True):
    """A manifest or index as the registry has it, byte for byte."""

    reference: Reference
    descriptor: Descriptor
    data: bytes


def log_in(registry: str, username: str, password: str, *, access: Access | None = None) -> str:
    """Try credentials at a registry and keep them; says where. UnauthorizedError when they are refused.

    What is kept is an identity token instead of the password where the registry gives one.
    """
    host = registry_host(registry)
    with _opened(access) as opened, about(f"log in to {host}"):
        rule = opened.config.push_endpoint(Reference(host, "library"))
        endpoint = Endpoint(rule.registry, "", rule.insecure)
        client = opened.client(endpoint, "", Credentials(username, password))
        client.ping()
        token = client.session.authenticator.refresh_token
        kept = Credentials(username, "", identity_token=token) if token else Credentials(username, password)
        return opened.credentials.put(host, kept)


def log_out(registry: str, *, access: Access | None = None) -> LoggedOut:
    """Forget the credentials of a registry."""
    host = registry_host(registry)
    with _opened(access) as opened:
        places = opened.credentials.erase(host)
        return LoggedOut(tuple(places), opened.credentials.get(host) is not None)


def registry_host(text: str) -> str:
    """A registry as users write it, as the one name it has here; the default is Docker Hub. InvalidInputError."""
    host = re.sub(r"^https?://", "", text or DEFAULT_REGISTRY).partition("/")[0]
    if host in ("index.docker.io", "registry-1.docker.io"):
        return DEFAULT_REGISTRY
    if not ("." in host or ":" in host or host == "localhost"):
        raise InvalidInputError(f"registry {text!r}: not a host", hint="wanted is host[:port]")
    return Reference.parse(f"{host}/any").registry


def list_tags(repository: str, *, access: Access | None = None) -> list[str]:
    """All tags of a repository; NotFoundError (a RegistryError) when there is none."""
    parsed = Reference.parse(repository)
    with _opened(access) as opened, about(f"list tags of {parsed.name}"):
        return list(opened.pull_clients(parsed)[-1].tags())


def inspect_manifest(reference: str, *, platform: Platform | None = None, access: Access | None = None) -> Inspected:
    """The manifest or index of a reference; with ``platform``, of an index the manifest for it."""
    parsed = Reference.parse(reference, default_tag="latest")
    with _opened(access) as opened, about(f"inspect {parsed}"), _source(opened, parsed) as source:
        found = source.resolve(parsed.digest or parsed.tag or "latest")
        data = read_all(source, found, MANIFEST_LIMIT)
        document = parse_manifest(data, found.media_type)
        while platform is not None and isinstance(document, Index):
            found = select(document, platform)
            data = read_all(source, found, MANIFEST_LIMIT)
            document = parse_manifest(data, found.media_type)
        return Inspected(parsed, found, data)


def copy_image(
    source: str,
    destination: str,
    *,
    platforms: Sequence[Platform] | None = None,
    jobs: int = 4,
    progress: Progress = NO_PROGRESS,
    access: Access | None = None,
) -> Descriptor:
    """Copy an image between registries and archives, with no store between; None: all platforms.

    Each side is a reference, or ``docker-archive:FILE[:REF]``, ``oci-archive:FILE[:REF]``, ``oci:DIR[:REF]``. Returns
    what the destination now has under the name.
    """
    with _opened(access, progress) as opened, ExitStack() as stack, about(f"copy {source} to {destination}"):
        origin, found, name = _open_source(stack, opened, source)
        sink, tag = _open_sink(stack, opened, destination, origin_of=source, name=name)
        return copy(origin, sink, found, name=tag, platforms=platforms, jobs=jobs, progress=progress)


@contextmanager
def _opened(access: Access | None, progress: Progress = NO_PROGRESS) -> Iterator[Access]:
    """The access given, or one of the user's files that is closed at the end."""
    if access is not None:
        yield access
        return
    with Access.load(note=progress.note) as opened:
        yield opened


def _source(access: Access, reference: Reference) -> RegistrySource:
    return RegistrySource(access.pull_clients(reference))


def _archive(text: str) -> tuple[str, str, str | None] | None:
    """Archive format, path and name of a side that is an archive."""
    transport, colon, rest = text.partition(":")
    if not colon or transport not in _ARCHIVES:
        return None
    path, colon, name = rest.partition(":")
    if not path:
        raise InvalidInputError(f"copy {text!r}: the path is missing")
    return _ARCHIVES[transport], path, name if colon else None


def _open_source(stack: ExitStack, access: Access, text: str) -> tuple[BlobSource, Descriptor, str | None]:
    archive = _archive(text)
    if archive is None:
        parsed = Reference.parse(text.removeprefix("docker://"), default_tag="latest")
        source = stack.enter_context(_source(access, parsed))
        name = str(parsed) if parsed.tag is not None else None
        return source, source.resolve(parsed.digest or parsed.tag or "latest"), name
    _, path, name = archive
    spool = stack.enter_context(TemporaryDirectory(prefix="layerfs-"))
    opened = stack.enter_context(open_archive(path, Path(spool)))
    if name is not None:
        return opened, opened.resolve(name), name
    images = opened.images()
    if len(images) != 1:
        raise InvalidInputError(f"copy {text}: {len(images)} images in it", hint="name one: FILE:REF")
    return opened, images[0].descriptor, next(iter(images[0].names), None)


def _open_sink(
    stack: ExitStack, access: Access, text: str, *, origin_of: str, name: str | None
) -> tuple[BlobSink, str | None]:
    archive = _archive(text)
    if archive is not None:
        format, path, given = archive
        sink = stack.enter_context(create_archive(path, format))
        given = str(Reference.parse(given, default_tag="latest")) if given is not None else name
        return sink, given
    parsed = Reference.parse(text.removeprefix("docker://"), default_tag="latest")
    if parsed.digest is not None:
        raise InvalidInputError(f"copy to {parsed}: a tag has to be named, not a digest")
    repositories = _mountable(access, origin_of, parsed)
    return RegistrySink(access.push_client(parsed), mount_from=lambda digest: repositories), str(parsed)


def _mountable(access: Access, source: str, destination: Reference) -> list[str]:
    """The repository of the source, where that lies on the same registry."""
    if _archive(source) is not None:
        return []
    parsed = Reference.parse(source.removeprefix("docker://"))
    origin, target = access.config.push_endpoint(parsed), access.config.push_endpoint(destination)
    return [origin.repository] if origin.registry == target.registry else []
