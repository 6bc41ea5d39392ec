"""``--cidfile``: the file that gets a container's ID."""

from __future__ import annotations

import os
from contextlib import suppress
from types import TracebackType
from typing import Self

from layerfs.errors import ExistsError, native_error

__all__ = ["Cidfile"]


class Cidfile:
    """Made before the container, so that two commands cannot share it; removed when no ID came into it."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self._written = False

    def __enter__(self) -> Self:
        if self.path is not None:
            try:
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
            except FileExistsError:
                raise ExistsError(f"cidfile {self.path}: it exists", hint="remove it first") from None
            except OSError as error:
                raise native_error(error, f"create cidfile {self.path}") from error
        return self

    def write(self, id: str) -> None:
        """Write the ID."""
        if self.path is not None:
            with open(self.path, "w") as file:
                file.write(id)
            self._written = True

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.path is not None and not self._written:
            with suppress(OSError):
                os.unlink(self.path)
