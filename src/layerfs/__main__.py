"""``python -m layerfs``, and the program ``layerfs``: the command."""

import gc

# A short command allocates hardly more than its modules, and would spend a tenth of its time looking for garbage
# among them.
gc.set_threshold(200_000)

from layerfs.late import import_typing  # noqa: E402

import_typing()

import os  # noqa: E402
import sys  # noqa: E402
from contextlib import suppress  # noqa: E402
from typing import NoReturn  # noqa: E402

from layerfs import cli  # noqa: E402

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command and end this process with its exit code."""
    code = cli.main()
    # All is closed and written. What the interpreter would do at its end, taking apart every module, takes 10 ms.
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
