"""A shorter way to what every verb needs."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["import_msgspec"]


def import_msgspec() -> None:
    """Import it without ``typing_extensions``, which it takes where there is one, for what ``typing`` has as well.

    That module costs 10 ms of processor time, a sixth of a short command.
    """
    modules: dict[str, Any] = sys.modules
    if "msgspec" in modules or "typing_extensions" in modules:
        return
    modules["typing_extensions"] = None
    try:
        import msgspec  # noqa: F401
    finally:
        del modules["typing_extensions"]
