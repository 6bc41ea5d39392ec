"""Lists and objects as docker prints them: tables, JSON, and templates of the user's own.

A row is a mapping of field names to text.  A field that costs something to find out (the size of a container)
may be a callable: it is called only when the field is shown.  ``methods`` of a row take arguments in a template
(``{{.Label "key"}}``) and appear in no JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from layerfs.cli.options import one

__all__ = ["FORMAT", "Row", "Table", "align", "clean", "formatted", "rows_text"]

Row: TypeAlias = Mapping[str, str | Callable[..., str]]

_MIN_WIDTH = 10
_PADDING = 3
_CONTROL = {code: " " for code in (*range(0x20), 0x7F)}

FORMAT = one("--format", help="'table', 'table TEMPLATE', 'json', or a Go template", metavar="string")


class Table:
    """What a list shows: every field with its header, those of the default table, and the one of ``-q``."""

    def __init__(
        self, headers: Mapping[str, str], default: tuple[str, ...], *, quiet: str = "ID", methods: tuple[str, ...] = ()
    ) -> None:
        self.headers = headers
        self.default = default
        self.quiet = quiet
        self.methods = methods


def rows_text(
    rows: Iterable[Row],
    table: Table,
    *,
    format: str | None = None,
    quiet: bool = False,
    fields: Sequence[str] = (),
    heading: bool = True,
) -> str:
    """Return the list as text; ``fields`` replace the default ones, and without ``heading`` a table has no headers.

    Raises InvalidInputError for a bad template.
    """
    if quiet and (not format or format.startswith("table")):
        return "".join(f"{_text(row[table.quiet])}\n" for row in rows)
    if not format or format == "table":
        shown = fields or table.default
        lines = [[table.headers[name] for name in shown]] if heading else []
        lines += [[clean(_text(row[name])) for name in shown] for row in rows]
        return align(lines)
    if format == "json":
        return "".join(_json_line(row, table) for row in rows)
    return _templated(rows, table, format, heading)


def _text(value: str | Callable[..., str]) -> str:
    return value if isinstance(value, str) else value()


def clean(text: str) -> str:
    """Replace control characters, which would spoil a table and speak to the terminal, by blanks."""
    return text if text.isprintable() else text.translate(_CONTROL)


def _json_line(row: Row, table: Table) -> str:
    import json  # a plain table does not need it

    values = {name: _text(row[name]) for name in sorted(row) if name not in table.methods}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n"


def _templated(rows: Iterable[Row], table: Table, format: str, heading: bool) -> str:
    from layerfs.cli.gotemplate import Fields, Template  # few lists are shown by a template

    source = format.removeprefix("table").lstrip() if format.startswith("table ") else format
    template = Template(source.replace("\\t", "\t").replace("\\n", "\n"))
    lines = (template.render(_fields(row, table)) for row in rows)
    if not format.startswith("table "):
        return "".join(f"{line}\n" for line in lines)
    if not heading:
        return align([clean_cells(line) for line in lines])
    headers: dict[str, Any] = dict(table.headers)
    for name in table.methods:
        headers[name] = lambda key: key
    header = template.render(Fields(headers))
    return align([clean_cells(line) for line in (header, *lines)])


def _fields(row: Row, table: Table) -> Any:
    from layerfs.cli.gotemplate import Fields

    fields = Fields(sorted(row.items()))
    fields.methods = table.methods
    return fields


def clean_cells(line: str) -> list[str]:
    """Split a line into its cells, without what would speak to the terminal."""
    return [clean(cell) for cell in line.split("\t")]


def align(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as columns: at least ten wide, three blanks apart, the last cell as it is."""
    widths: dict[int, int] = {}
    for cells in lines:
        for number, cell in enumerate(cells[:-1]):
            widths[number] = max(widths.get(number, _MIN_WIDTH), len(cell) + _PADDING)
    out = []
    for cells in lines:
        padded = [cell.ljust(widths[number]) for number, cell in enumerate(cells[:-1])]
        out.append("".join([*padded, *cells[-1:]]) + "\n")
    return "".join(out)


def formatted(value: Any, format: str | None) -> str:
    """Return one object: as a template makes it, or as JSON."""
    if format and format != "json":
        from layerfs.cli.gotemplate import Template

        return Template(format.replace("\\t", "\t").replace("\\n", "\n")).render(value) + "\n"
    import json

    layout: dict[str, Any] = {"separators": (",", ":")} if format == "json" else {"indent": 4}
    return json.dumps(value, ensure_ascii=False, **layout) + "\n"
