"""Images, their names, and what they consist of."""

import time
from collections.abc import Iterable

from layerfs.digest import Digest
from layerfs.metadata.connection import Connection
from layerfs.metadata.rows import ImageRow, image_row
from layerfs.oci import Descriptor

__all__ = ["ImageTables"]


class ImageTables(Connection):
    """The tables of images."""

    def add_image(
        self,
        target: Descriptor,
        image_id: Digest | None,
        diff_ids: Iterable[Digest],
        blobs: Iterable[Digest],
        name: str | None = None,
    ) -> None:
        """Record an image with the layers and blobs that it needs, and let ``name`` point at it."""
        with self.transaction(durable=True):
            self._run(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?) ON CONFLICT (target)"
                " DO UPDATE SET media_type = ?2, size = ?3, image_id = ?4",
                target.digest, target.media_type, target.size, image_id, time.time(),
            )  # fmt: skip
            self._run("DELETE FROM image_layers WHERE target = ?", target.digest)
            self._run("DELETE FROM image_blobs WHERE target = ?", target.digest)
            for diff_id in diff_ids:
                self._run("INSERT OR IGNORE INTO image_layers VALUES (?, ?)", target.digest, diff_id)
            for digest in blobs:
                self._run("INSERT OR IGNORE INTO image_blobs VALUES (?, ?)", target.digest, digest)
            if name is not None:
                self.set_name(name, target.digest)

    def remove_image(self, target: Digest) -> None:
        """Forget an image and its names."""
        with self.transaction(durable=True):
            self._run("DELETE FROM names WHERE target = ?", target)
            self._run("DELETE FROM images WHERE target = ?", target)

    def image(self, target: Digest) -> ImageRow | None:
        """The image that a manifest's or index's digest names."""
        row = self._row("SELECT * FROM images WHERE target = ?", target)
        return image_row(row) if row else None

    def images(self) -> list[ImageRow]:
        """All images, the newest first."""
        return [image_row(row) for row in self._rows("SELECT * FROM images ORDER BY added DESC, target")]

    def find_images(self, prefix: str) -> list[ImageRow]:
        """Images whose ID or digest begins with ``sha256:`` and hexadecimal digits."""
        low, high = prefix, prefix + "g"
        rows = self._rows(
            "SELECT * FROM images WHERE (image_id >= ?1 AND image_id < ?2) OR (target >= ?1 AND target < ?2)"
            " ORDER BY added DESC",
            low,
            high,
        )
        return [image_row(row) for row in rows]

    def set_name(self, name: str, target: Digest) -> None:
        """Let a name point at an image that is here, away from any other."""
        with self.transaction(durable=True):
            self._run("INSERT OR REPLACE INTO names VALUES (?, ?)", name, target)

    def remove_name(self, name: str) -> bool:
        """Forget a name; whether it was there."""
        with self.transaction(durable=True):
            return self._run("DELETE FROM names WHERE name = ?", name).rowcount > 0

    def resolve(self, name: str) -> Digest | None:
        """What a name points at."""
        row = self._row("SELECT target FROM names WHERE name = ?", name)
        return Digest(row["target"]) if row else None

    def names(self, target: Digest | None = None) -> list[tuple[str, Digest]]:
        """(name, target) of all names, or of those of one image."""
        if target is None:
            rows = self._rows("SELECT * FROM names ORDER BY name")
        else:
            rows = self._rows("SELECT * FROM names WHERE target = ? ORDER BY name", target)
        return [(row["name"], Digest(row["target"])) for row in rows]

    def add_repo_digest(self, repository: str, digest: Digest, target: Digest) -> None:
        """Record that a registry has the image under this digest."""
        with self.transaction(durable=True):
            self._run("INSERT OR REPLACE INTO repo_digests VALUES (?, ?, ?)", repository, digest, target)

    def repo_digests(self, target: Digest) -> list[tuple[str, Digest]]:
        """(repository, digest) under which registries have the image."""
        rows = self._rows("SELECT * FROM repo_digests WHERE target = ? ORDER BY repository, digest", target)
        return [(row["repository"], Digest(row["digest"])) for row in rows]

    def all_repo_digests(self) -> list[tuple[str, str, Digest]]:
        """(repository, digest, target) of all images."""
        rows = self._rows("SELECT repository, digest, target FROM repo_digests ORDER BY repository, digest")
        return [(repository, digest, Digest(target)) for repository, digest, target in rows]

    def resolve_repo_digest(self, repository: str, digest: Digest) -> Digest | None:
        """The image that ``repository@digest`` names."""
        row = self._row("SELECT target FROM repo_digests WHERE repository = ? AND digest = ?", repository, digest)
        return Digest(row["target"]) if row else None

    def images_with(self, digest: Digest) -> list[str]:
        """The images that consist of a layer or blob, by a name where they have one, else by their digest."""
        found = []
        for target in self.targets_with(digest):
            names = self.names(target)
            found.append(names[0][0] if names else str(target))
        return sorted(found)

    def targets_with(self, digest: Digest) -> list[Digest]:
        """The images that consist of a layer or blob, among others."""
        rows = self._rows(
            "SELECT target FROM image_layers WHERE diff_id = ?1 UNION SELECT target FROM image_blobs WHERE digest = ?1",
            digest,
        )
        return [Digest(row["target"]) for row in rows]

    def image_parts(self, target: Digest) -> tuple[set[Digest], set[Digest]]:
        """The layers and the blobs that an image consists of, as recorded."""
        layers = self._rows("SELECT diff_id FROM image_layers WHERE target = ?", target)
        blobs = self._rows("SELECT digest FROM image_blobs WHERE target = ?", target)
        return {Digest(row["diff_id"]) for row in layers}, {Digest(row["digest"]) for row in blobs}

    def image_blobs(self) -> set[str]:
        """All blobs that images consist of."""
        return {digest for (digest,) in self._rows("SELECT digest FROM image_blobs")}

    def is_image_blob(self, digest: Digest) -> bool:
        """Whether an image consists of a blob, among others."""
        return self._row("SELECT 1 FROM image_blobs WHERE digest = ?", digest) is not None
