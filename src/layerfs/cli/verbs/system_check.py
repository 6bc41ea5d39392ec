"""``layerfs system check``: verify what is stored, and repair it."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag, one
from layerfs.errors import IntegrityError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS]",
    [
        flag("--quick", help="Verify that all is there and fits, without reading the content of files"),
        flag("--repair", help="Make again what can be made from what is here"),
        one("--format", help="'json': an object a line", choices=("json",)),
    ],
    most=0,
    notes="Ends with code 3 when something is wrong and was not repaired.",
)


def run(args: Args, context: Context) -> int:
    """Print what is wrong as it is found."""
    left = found = 0
    try:
        store = context.store
    except IntegrityError as exc:
        if not args.repair:
            raise
        # What is damaged is the database itself, so that there is no store to ask.
        from layerfs.store import Store

        done = Store.rebuild_database(context.root, context.run)
        context.out(f"{exc}; {done}; repaired\n")
        found, store = 1, context.store
    for finding in store.check(quick=args.quick, repair=args.repair, progress=context.progress()):
        found += 1
        left += not finding.repaired
        if args.format:
            import msgspec

            context.out(msgspec.json.encode(finding, enc_hook=str).decode() + "\n")
            continue
        where = f" (images: {', '.join(finding.images)})" if finding.images else ""
        context.out(f"{finding.kind} {finding.name}: {finding.reason}{where}{'; repaired' * finding.repaired}\n")
    if not found and not args.format:
        context.out("The store is whole.\n")
    return IntegrityError.exit_code if left else 0
