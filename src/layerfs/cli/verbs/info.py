"""``layerfs info``: what this host and store can do, and how much there is."""

from __future__ import annotations

from typing import Any

from layerfs.cli.context import Context
from layerfs.cli.format import formatted
from layerfs.cli.options import Args, Command, one

__all__ = ["COMMAND", "run"]

COMMAND = Command("[OPTIONS]", [one("-f", "--format", help="'json' or a Go template")], most=0)


def run(args: Args, context: Context) -> None:
    """Print the facts."""
    facts = context.store.info()
    if args.format:
        from layerfs.cli.gotemplate import Fields

        context.out(formatted(Fields(facts), args.format))
    else:
        context.out("".join(_lines(facts, "")))


def _lines(facts: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:\n", *_lines(value, indent + "  ")]
        else:
            shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
            lines.append(f"{indent}{name}: {shown}\n")
    return lines
