"""What a power cut would leave of a directory, told from what was synced.

``Disk`` looks at a live tree at each call of a traced command. A file's bytes are safe once the file was synced
(``fsync``, ``fdatasync``), the names in a directory once that was. Everything newer may be there or not, each name and
each 512 bytes for itself. ``states`` builds trees that a disk could show afterwards, from the poorest on.
"""

import os
import random
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["Disk"]

_SECTOR = 512
_VOLATILE = ("-shm",)  # shared memory, which lives in the page cache alone


class Disk:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._held: dict[int, int] = {}  # descriptors, so that no inode number is used again
        self._data: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._modes: dict[int, int] = {}
        self._links: dict[int, str] = {}
        self.sync_all()

    def close(self) -> None:
        for fd in self._held.values():
            os.close(fd)

    def _know(self, path: str) -> os.stat_result:
        status = os.lstat(path)
        if status.st_ino not in self._held:
            self._held[status.st_ino] = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._modes[status.st_ino] = status.st_mode
        if stat.S_ISLNK(status.st_mode):
            self._links[status.st_ino] = os.readlink(path)
        return status

    def _entries(self, path: str) -> dict[str, int]:
        return {
            name: self._know(f"{path}/{name}").st_ino
            for name in os.listdir(path)
            if not name.endswith(_VOLATILE) and not os.path.ismount(f"{path}/{name}")
        }

    def sync(self, path: str) -> None:
        """A file or directory was synced."""
        with suppress(FileNotFoundError):
            status = self._know(path)
            if stat.S_ISDIR(status.st_mode):
                self._names[status.st_ino] = self._entries(path)
            elif stat.S_ISREG(status.st_mode):
                self._data[status.st_ino] = Path(path).read_bytes()

    def sync_all(self) -> None:
        """syncfs, or the beginning."""
        for place, _, files in os.walk(self.root):
            self.sync(place)
            for name in files:
                if not name.endswith(_VOLATILE):
                    self.sync(f"{place}/{name}")

    def _live(self) -> tuple[dict[int, dict[str, int]], dict[int, bytes]]:
        names, data = {}, {}
        for place, _, files in os.walk(self.root):
            with suppress(FileNotFoundError):
                names[self._know(place).st_ino] = self._entries(place)
                for name in files:
                    status = self._know(f"{place}/{name}")
                    if stat.S_ISREG(status.st_mode) and not name.endswith(_VOLATILE):
                        data[status.st_ino] = Path(place, name).read_bytes()
        return names, data

    def states(self, target: Path, seeds: int) -> Iterator[str]:
        """Make one state after another at ``target``, which the caller empties; what each is."""
        names, data = self._live()
        root = os.lstat(self.root).st_ino
        kinds = ["what was synced", "all names, and only synced data", *(f"torn, seed {n}" for n in range(seeds))]
        for number, kind in enumerate(kinds):
            chance = random.Random(number) if number > 1 else None
            self._build(root, target, names, data, number > 0, chance)
            yield kind

    def _build(
        self,
        inode: int,
        target: Path,
        names: dict[int, dict[str, int]],
        data: dict[int, bytes],
        newer: bool,
        chance: random.Random | None,
    ) -> None:
        target.mkdir(mode=0o700)
        safe, live = self._names.get(inode, {}), names.get(inode, {})
        for name in safe.keys() | live.keys():
            take_live = newer and (chance is None or chance.random() < 0.5)
            child = (live if take_live else safe).get(name)
            if child is None:
                continue
            place, mode = target / name, self._modes[child]
            if stat.S_ISDIR(mode):
                self._build(child, place, names, data, newer, chance)
            elif stat.S_ISLNK(mode):
                place.symlink_to(self._links[child])
            elif stat.S_ISREG(mode):
                place.write_bytes(self._content(child, data, newer, chance))
                place.chmod(stat.S_IMODE(mode))

    def _content(self, inode: int, data: dict[int, bytes], newer: bool, chance: random.Random | None) -> bytes:
        safe = self._data.get(inode, b"")
        if not newer:
            return safe
        live = data.get(inode, safe)
        if chance is None:  # the new size, and zeros where nothing was synced
            return (safe + bytes(max(0, len(live) - len(safe))))[: len(live)]
        if live == safe:
            return live
        out = bytearray(safe + bytes(max(0, len(live) - len(safe))))
        for at in range(0, len(live), _SECTOR):
            if chance.random() < 0.5:
                out[at : at + _SECTOR] = live[at : at + _SECTOR]
        return bytes(out if chance.random() < 0.5 else out[: max(len(safe), len(live) * chance.randrange(9) // 8)])
