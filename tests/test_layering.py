"""Imports go down: a module imports only modules of a lower rank. The table in CONTRIBUTING.md is the one read here."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "layerfs"


def ranks() -> dict[str, int]:
    table = {}
    for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines():
        row = re.match(r"\| (\d+) \| ([^|]+) \|", line)
        if row:
            table.update(dict.fromkeys(re.findall(r"`(\w+)/?`", row[2]), int(row[1])))
    return table


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, module below layerfs) of each import in a file, those inside functions included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = [f"{node.module}.{name.name}" for name in node.names] if node.module == "layerfs" else [node.module]
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        else:
            continue
        found += [(node.lineno, name.split(".")[1]) for name in names if name and name.startswith("layerfs.")]
    return found


def test_imports_go_down() -> None:
    table, broken = ranks(), []
    for path in sorted(SOURCE.rglob("*.py")):
        own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        assert own in table, f"{own} has no rank in CONTRIBUTING.md"
        for line, other in imported(path):
            if other != own and other != "_native" and table.get(other, 99) >= table[own]:
                broken.append(f"{path.relative_to(ROOT)}:{line}: {own} (rank {table[own]}) imports {other}")
    assert not broken, "\n".join(broken)


def test_every_rank_has_its_modules() -> None:
    there = {path.name.removesuffix(".py") for path in SOURCE.iterdir()} - {"__init__", "__pycache__", "py.typed"}
    assert {name for name in ranks() if name not in there} == set()


def test_native_has_one_importer() -> None:
    importers = [
        path.relative_to(SOURCE)
        for path in SOURCE.rglob("*.py")
        if re.search(r"layerfs\._native|import _native", path.read_text())
    ]
    assert all(path.parts[0] == "native" for path in importers), importers
