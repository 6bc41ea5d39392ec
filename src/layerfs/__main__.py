"""``python -m layerfs``: the command."""

import sys

from layerfs.cli import main

if __name__ == "__main__":
    sys.exit(main())
