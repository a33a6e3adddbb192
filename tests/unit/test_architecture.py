"""Imports point one way, what knows a format does no I/O, and drivers start light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gridmad

ROOT = Path(gridmad.__file__).parent
LAYERS = [
    {"_wire", "_attributes", "errors", "options", "process", "logs"},
    {"wire"},
    {"driver"},
    {"sequence", "output", "watchdog"},
    {"information", "execution", "transfer"},
    {"service"},
    {"information.service", "execution.service", "transfer.service"},
    {"daemon"},
    {"cli"},
]
NO_IO = {"wire", "sequence", "information.glue1", "information.attributes", "information.model",
         "execution.model", "execution.description", "transfer.url", "transfer.model"}  # fmt: skip
IO = {"asyncio", "os", "select", "socket", "subprocess", "threading", "pathlib", "sqlite3"}
FAMILIES = ("information", "execution", "transfer")
DRIVERS = [
    f"{family}.{path.stem}"
    for family in FAMILIES
    for path in sorted((ROOT / family).glob("*.py"))
    if "\nDRIVER = " in path.read_text()
]


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix(".__init__"), ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name: str) -> int:
    """The layer of the longest known prefix."""
    while name:
        for number, names in enumerate(LAYERS):
            if name in names:
                return number
        name = name.rpartition(".")[0]
    return 0


def test_imports_point_one_way() -> None:
    for name, tree in modules():
        for imported in imports(tree):
            if imported.startswith("gridmad."):
                other = imported.removeprefix("gridmad.")
                assert layer(other) <= layer(name), f"{name} imports {other}"
                families = {part for part in (name.split(".")[0], other.split(".")[0])
                            if part in FAMILIES}  # fmt: skip
                assert len(families) < 2, f"{name} imports {other}: of another family"


def test_formats_do_no_io() -> None:
    for name, tree in modules():
        if any(name == room or name.startswith(f"{room}.") for room in NO_IO):
            assert not IO & {imported.split(".")[0] for imported in imports(tree)}, name


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_imports_its_library_when_it_starts(driver: str) -> None:
    """Else INIT would wait for it."""
    code = f"import sys, gridmad.{driver}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"ldap3", "psutil", "sqlite3", "lz4", "stomp"} & set(loaded)


def test_drivers_were_found() -> None:
    assert {"information.static", "execution.fork", "transfer.local"} <= set(DRIVERS)
