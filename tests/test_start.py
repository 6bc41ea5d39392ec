"""What is imported late is what its module says, and what a short command does not need is not loaded."""

import ast
import importlib
from pathlib import Path

import pytest

from layerfs.late import LateModule

SOURCE = Path(__file__).parent.parent / "src"
LATE = sorted(path for path in (SOURCE / "layerfs").rglob("*.py") if "layerfs.late" in path.read_text())


def checked(path: Path) -> dict[str, str]:
    """Name to what it is, of the imports that only the type checker makes."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            for each in node.body:
                assert isinstance(each, ast.ImportFrom)
                found.update({name.name: f"{each.module}.{name.name}" for name in each.names})
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", LATE, ids=module_of)
def test_what_is_imported_late_is_what_the_type_checker_sees(path: Path) -> None:
    module, wanted = importlib.import_module(module_of(path)), checked(path)
    late = {name: value for name, value in vars(module).items() if isinstance(value, LateModule)}
    assert {name: value._name for name, value in late.items()} == {name: wanted[name] for name in late}
    for value in late.values():
        importlib.import_module(value._name)
    if path.name == "__init__.py":
        assert set(wanted) <= set(module.__all__)
        for name in module.__all__:
            home, _, own = wanted.get(name, "").rpartition(".")
            assert getattr(module, name) is (
                getattr(importlib.import_module(home), own) if home else vars(module)[name]
            )
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            module.nothing  # noqa: B018


def test_late_modules_are_there() -> None:
    assert len(LATE) > 5
