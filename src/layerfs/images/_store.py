"""The names and images of a store: look-up and changes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from layerfs.content import ContentStore
from layerfs.digest import Digest
from layerfs.errors import IntegrityError, InUseError, InvalidInputError, LayerfsError, NotFoundError
from layerfs.images._values import Image, ImageSummary, Removal
from layerfs.metadata import Database, ImageRow
from layerfs.oci import (
    CONFIG_LIMIT,
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    MANIFEST_LIMIT,
    MEDIA_CONFIG,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    descriptor_of,
    encode,
    is_image,
    is_index,
    is_manifest,
    parse_config,
    parse_manifest,
    select,
)
from layerfs.reference import Reference, is_id_prefix

__all__ = ["ImageStore"]

_MAX_DEPTH = 8
_SHOWN_DIGITS = 12
_LIST = "layerfs images lists those that are"


# Inside the class ``list`` is its method.
Summaries = list[ImageSummary]
Descriptors = list[Descriptor]
Removals = list[Removal]
Errors = list[LayerfsError]
_Rows = list[ImageRow]


class ImageStore:
    """Names and images of a store."""

    def __init__(self, content: ContentStore, database: Database) -> None:
        self._content = content
        self._database = database

    # ---- look-up ----

    def get(self, text: str, platform: Platform | None = None) -> Image:
        """The image that a user means: a name, ``name@digest``, an image ID or the beginning of one.

        Raises NotFoundError, and InvalidInputError for what cannot be a reference or an ID that is not unique.
        """
        return self._load(self._find(text), platform)

    def find(self, text: str) -> ImageRow:
        """The same, without reading the image: to see whether it is here, to send it away or to remove it."""
        return self._find(text, _LIST)

    def _find(self, text: str, hint: str | None = None) -> ImageRow:
        row = self._by_reference(text) or self._by_id(text)
        if row is None:
            # No registry is asked for an ID.
            is_id = is_id_prefix(text) and len(text.removeprefix("sha256:")) >= _SHOWN_DIGITS
            hint = hint or (_LIST if is_id else f"layerfs pull {text}")
            raise NotFoundError(f"image {text}: not in the store", hint=hint)
        return row

    def _by_reference(self, text: str) -> ImageRow | None:
        try:
            reference = Reference.parse(text, default_tag="latest")
        except InvalidInputError:
            if is_id_prefix(text):
                return None
            raise
        target = None
        if reference.digest is not None:
            target = self._database.resolve_repo_digest(reference.name, reference.digest)
            if target is None and any(
                self._names_repository(name, reference) for name in self._named(reference.digest)
            ):
                target = reference.digest
        elif reference.tag is not None:
            target = self._database.resolve(str(reference))
        return self._database.image(target) if target is not None else None

    def _named(self, target: Digest) -> Iterable[str]:
        return (name for name, _ in self._database.names(target))

    @staticmethod
    def _names_repository(name: str, reference: Reference) -> bool:
        return Reference.parse(name).name == reference.name

    def _by_id(self, text: str) -> ImageRow | None:
        if not is_id_prefix(text):
            return None
        prefix = text if text.startswith("sha256:") else f"sha256:{text}"
        rows = self._database.find_images(prefix)
        ids = {row.image_id or row.target.digest for row in rows}
        if len(ids) > 1 and not any(prefix in (row.image_id, row.target.digest) for row in rows):
            raise InvalidInputError(f"image {text}: {len(ids)} images begin so", hint="give more digits")
        # Of several targets with one image ID the one that has names says more.
        return max(rows, key=lambda row: len(self._database.names(row.target.digest)), default=None)

    def list(self, damaged: Errors | None = None) -> Summaries:
        """All images that have a configuration, the newest first.

        One whose documents are lost or damaged hides no other: it is left out, and ``damaged`` is told why.
        """
        from layerfs.images._listing import Facts  # who runs an image lists none

        found, rows = [], self._database.images()  # before their names: what comes between has one
        facts = Facts(self._content, self._database)
        for row in rows:
            try:
                if row.image_id is not None:
                    found.append(facts.summary(row, row.image_id) or self._load(row, None))
            except (NotFoundError, IntegrityError) as exc:
                # Unless another process has removed it meanwhile.
                if damaged is not None and self._database.image(row.target.digest) is not None:
                    damaged.append(self._damaged(row, exc))
        return found

    def _damaged(self, row: ImageRow, reason: LayerfsError) -> IntegrityError:
        names = [Reference.parse(name).familiar for name, _ in self._database.names(row.target.digest)]
        what = ", ".join(names) or row.target.digest
        return IntegrityError(
            f"image {what}: {reason}", hint="mended by layerfs system check --repair, or pull or rmi it"
        )

    def load(self, row: ImageRow, platform: Platform | None = None) -> Image:
        """Read the image of a row."""
        return self._load(row, platform)

    def _load(self, row: ImageRow, platform: Platform | None) -> Image:
        descriptor, manifest = self._manifest(row.target, platform)
        if not is_image(manifest):
            kind = manifest.artifact_type or manifest.config.media_type
            raise InvalidInputError(f"image {row.target.digest}: an artifact ({kind:.100}), not an image")
        config_bytes = self._content.read(manifest.config.digest, CONFIG_LIMIT)
        config = parse_config(config_bytes)
        target = row.target.digest
        names = tuple(name for name, _ in self._database.names(target))
        digests = tuple(f"{repository}@{digest}" for repository, digest in self._database.repo_digests(target))
        return Image(
            id=manifest.config.digest,
            target=row.target,
            manifest_descriptor=descriptor,
            manifest=manifest,
            config=config,
            config_bytes=config_bytes,
            names=names,
            repo_digests=digests,
            added=row.added,
            size=self._size(config.diff_ids, manifest),
        )

    def _size(self, diff_ids: Sequence[Digest], manifest: Manifest) -> int:
        known = [self._database.layer(diff_id) for diff_id in diff_ids]
        if any(layer is None for layer in known):
            return sum(layer.size for layer in manifest.layers)
        return sum(layer.data_bytes for layer in known if layer is not None)

    def _manifest(self, descriptor: Descriptor, platform: Platform | None) -> tuple[Descriptor, Manifest]:
        """Follow indexes to the manifest for a platform; without one, this machine's or else the first here."""
        for _ in range(_MAX_DEPTH):
            document = parse_manifest(self._content.read(descriptor.digest, MANIFEST_LIMIT), descriptor.media_type)
            if isinstance(document, Manifest):
                return descriptor, document
            descriptor = self._choose(document, platform)
        raise IntegrityError(f"index {descriptor.digest}: more than {_MAX_DEPTH} indexes in one another")

    def _choose(self, index: Index, platform: Platform | None) -> Descriptor:
        try:
            return select(index, platform or Platform.host())
        except NotFoundError:
            here = [
                d
                for d in index.manifests
                if self._content.has(d) and (is_manifest(d.media_type) or is_index(d.media_type))
            ]
            if platform is not None or not here:
                raise
            return here[0]

    # ---- changes ----

    def add(self, target: Descriptor, name: str | None = None) -> None:
        """Let a manifest or index whose parts are in the store be an image, called ``name`` (canonical form).

        What an index names and the store does not have, another platform's manifest, is no part of the image.
        """
        with self._database.transaction(durable=True):  # what was looked at is still there when it is recorded
            self._database.add_image(target, *self._gather(target), name)

    def is_recorded(self, row: ImageRow) -> bool:
        """Whether the database says of an image what its documents say."""
        image_id, diff_ids, blobs = self._gather(row.target)
        layers, others = self._database.image_parts(row.target.digest)
        if is_index(row.target.media_type):  # manifests of it may have come since
            return layers <= set(diff_ids) and others <= set(blobs) and row.target.digest in others
        return (layers, others, row.image_id) == (set(diff_ids), set(blobs), image_id)

    def _gather(self, target: Descriptor) -> tuple[Digest | None, Iterable[Digest], Iterable[Digest]]:
        """Image ID, layers and blobs of a target."""
        image_ids: dict[Digest, None] = {}
        diff_ids: dict[Digest, None] = {}
        blobs: dict[Digest, None] = {}
        self._collect(target, image_ids, diff_ids, blobs, set(), _MAX_DEPTH)
        image_id = None
        if image_ids:
            chosen = self._manifest(target, None)[1].config.digest
            image_id = chosen if chosen in image_ids else next(iter(image_ids))
        return image_id, diff_ids, blobs

    def create(
        self,
        document: Mapping[str, Any],
        layers: Sequence[Descriptor],
        name: str | None = None,
        *,
        docker: bool = False,
        annotations: dict[str, str] | None = None,
    ) -> Image:
        """Make an image of a configuration document and the descriptors of its layers, which are in the store.

        ``docker`` chooses Docker's media types for manifest and configuration; those of the layers are the caller's.
        """
        config = descriptor_of(encode(document), DOCKER_CONFIG if docker else MEDIA_CONFIG)
        manifest = Manifest(
            media_type=DOCKER_MANIFEST if docker else MEDIA_MANIFEST,
            config=config,
            layers=tuple(layers),
            annotations=annotations,
        )
        parse_config(encode(document))
        target = descriptor_of(encode(manifest), manifest.media_type or MEDIA_MANIFEST)
        # In one transaction, so that no sweep finds the two blobs before the image is recorded that needs them.
        with self._database.transaction(durable=True):
            self._content.write(encode(document))
            self._content.write(encode(manifest))
            self.add(target, name)
        row = self._database.image(target.digest)
        if row is None:
            raise NotFoundError(f"image {target.digest}: it was removed at once")
        return self._load(row, None)

    def _collect(
        self,
        descriptor: Descriptor,
        image_ids: dict[Digest, None],
        diff_ids: dict[Digest, None],
        blobs: dict[Digest, None],
        seen: set[Digest],
        depth: int,
    ) -> None:
        if descriptor.digest in seen:
            return
        seen.add(descriptor.digest)
        if depth == 0:
            raise IntegrityError(f"index {descriptor.digest}: more than {_MAX_DEPTH} indexes in one another")
        document = parse_manifest(self._content.read(descriptor.digest, MANIFEST_LIMIT), descriptor.media_type)
        blobs[descriptor.digest] = None
        if isinstance(document, Index):
            for child in document.manifests:
                if self._content.has(child):
                    self._collect(child, image_ids, diff_ids, blobs, seen, depth - 1)
            return
        blobs.update(dict.fromkeys([document.config.digest, *(layer.digest for layer in document.layers)]))
        if is_image(document):
            config = parse_config(self._content.read(document.config.digest, CONFIG_LIMIT))
            image_ids[document.config.digest] = None
            diff_ids.update(dict.fromkeys(config.diff_ids))

    def tag(self, text: str, name: str) -> str:
        """Let ``name`` point at an image too; its canonical form. InvalidInputError when it has a digest in it."""
        reference = Reference.parse_new(name)
        with self._database.transaction(durable=True):
            self._database.set_name(str(reference), self._find(text).target.digest)
        return str(reference)

    def index(self, text: str) -> Index:
        """The index that a user means; NotFoundError, and InvalidInputError for one image."""
        row = self.find(text)
        document = parse_manifest(self._content.read(row.target.digest, MANIFEST_LIMIT), row.target.media_type)
        if not isinstance(document, Index):
            raise InvalidInputError(f"image {text}: one image, not a list of several")
        return document

    def here(self, index: Index) -> Descriptors:
        """The images of an index that are in the store."""
        return [each for each in index.manifests if is_manifest(each.media_type) and self._content.has(each)]

    def set_index(
        self, name: str, manifests: Sequence[Descriptor], annotations: dict[str, str] | None = None
    ) -> Descriptor:
        """Let ``name`` (canonical form) be an index of manifests that are in the store.

        The index that had the name goes, unless something else needs it.
        """
        data = encode(Index(media_type=MEDIA_INDEX, manifests=tuple(manifests), annotations=annotations))
        target = descriptor_of(data, MEDIA_INDEX)
        with self._database.transaction(durable=True):
            before = self._database.resolve(name)
            self._content.write(data)
            self.add(target, name)
            if before and (row := self._database.image(before)) and self._is_left_over(row):
                self._database.remove_image(row.target.digest)
        return target

    def _is_left_over(self, row: ImageRow) -> bool:
        """Whether it is an index without a name, and another target is the same image to containers."""
        nameless = is_index(row.target.media_type) and not self._database.names(row.target.digest)
        return nameless and (row.image_id is None or self._siblings(row) != [row])

    def untag(self, text: str, names: Sequence[str] = ()) -> None:
        """Take names from an image (none given: all that it has), which stays; NotFoundError if one is not its own."""
        with self._database.transaction(durable=True):
            has = [name for name, _ in self._database.names(self.find(text).target.digest)]
            references = [Reference.parse(name, default_tag="latest") for name in names or has]
            for reference in references:
                if str(reference) not in has:
                    raise NotFoundError(
                        f"image {text}: {reference.familiar} is no name of it", hint="layerfs images lists the names"
                    )
            for reference in references:
                self._database.remove_name(str(reference))

    def remove(self, text: str, *, force: bool = False) -> Removals:
        """Remove a name, and with its last name the image; an ID removes the image with its names.

        InUseError when a container needs the image, or when an ID has several names and ``force`` is not given.
        What the image alone needed is for the sweep (``gc``) to remove.
        """
        with self._database.transaction(durable=True):
            row = self._by_reference(text)
            if row is not None:
                return self._remove_named(text, row, force)
            return self._remove_by_id(text, self.find(text), force)

    def _remove_named(self, text: str, row: ImageRow, force: bool) -> Removals:
        reference = Reference.parse(text, default_tag="latest")
        if reference.digest is not None:
            return self._remove_by_id(text, row, force)
        names = self._database.names(row.target.digest)
        if len(names) == 1 and self._siblings(row) == [row]:
            self._refuse_used(text, row, force)
        self._database.remove_name(str(reference))
        removed = [Removal("untagged", reference.familiar)]
        if len(names) == 1:
            removed += self._forget(row)
        return removed

    def _remove_by_id(self, text: str, row: ImageRow, force: bool) -> Removals:
        rows = self._siblings(row)
        names = [name for each in rows for name, _ in self._database.names(each.target.digest)]
        if len(names) > 1 and not force:
            shown = ", ".join(Reference.parse(name).familiar for name in names)
            raise InUseError(f"image {text}: it has several names: {shown}", hint="remove the names, or use --force")
        self._refuse_used(text, row, force)
        removed = [Removal("untagged", Reference.parse(name).familiar) for name in names]
        for each in rows:
            removed += self._forget(each)
        return removed

    def _siblings(self, row: ImageRow) -> _Rows:
        """All targets with the same image ID, which are one image to the user."""
        if row.image_id is None:
            return [row]
        return [each for each in self._database.find_images(row.image_id) if each.image_id == row.image_id]

    def _refuse_used(self, text: str, row: ImageRow, force: bool) -> None:
        if row.image_id is None:
            return
        users = self._database.containers_of_image(row.image_id)
        running = [user for user in users if user.state.get("status") in ("running", "paused", "restarting")]
        blocking = running if force else users
        if blocking:
            how = "running " if running else ""
            raise InUseError(
                f"image {text}: used by {how}container {blocking[0].id[:12]} ({blocking[0].name})",
                hint="remove the container first" + ("" if running else ", or use --force"),
            )

    def _forget(self, row: ImageRow) -> Removals:
        digests = [f"{repository}@{digest}" for repository, digest in self._database.repo_digests(row.target.digest)]
        self._database.remove_image(row.target.digest)
        return [
            *(Removal("untagged", Reference.parse(each).familiar) for each in digests),
            Removal("deleted", row.image_id or row.target.digest),
        ]
