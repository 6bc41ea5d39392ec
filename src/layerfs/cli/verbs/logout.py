"""``layerfs logout``: forget the credentials of a registry."""

from __future__ import annotations

from layerfs.cli.access import ACCESS, open_access
from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command

__all__ = ["COMMAND", "run"]

COMMAND = Command("[OPTIONS] [REGISTRY]", ACCESS, most=1, notes="Without a registry Docker Hub is meant.")


def run(args: Args, context: Context) -> None:
    """Forget them, and say where they were."""
    from layerfs.exchange import log_out

    registry = args.rest[0] if args.rest else "docker.io"
    with open_access(args) as access:
        done = log_out(registry, access=access)
    if not done.places and not done.remaining:
        context.out(f"Not logged in to {registry}\n")
        return
    for place in done.places:
        context.out(f"Removing login credentials for {registry} from {place}\n")
    if done.remaining:
        context.report("credentials remain in a file or helper of another program")
