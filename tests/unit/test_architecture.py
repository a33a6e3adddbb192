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
    {"_wire", "_attributes", "_ber", "_chunk", "_glue", "_stomp", "_screen", "errors", "options",
     "process", "logs", "secret", "crew"},
    {"wire", "ssh", "credential", "peek.errors", "peek.notices", "peek.profiles", "peek.stream"},
    {"driver", "peek.frame", "peek.channel", "peek.values", "peek.redaction",
     "peek.memory"},
    {"sequence", "output", "watchdog", "ssh_connection", "commands", "authorities",
     "credential_watch",
     "peek.messages", "peek.transport",
     "peek.journal", "peek.segments", "peek.digest", "peek.inbox", "peek.follow", "peek.command",
     "peek.progress"},
    {"information", "execution", "transfer", "peek.log", "peek.track", "peek.session",
     "peek.beginning",
     "peek.conversation", "peek.terminal"},
    {"service", "peek.spool", "peek.reception", "peek.gathering", "peek.broker",
     "peek.file_output", "peek.tail",
     "peek.settings", "peek.registry", "live_output"},
    {"information.service", "execution.service", "transfer.service", "peek.producer",
     "peek.consumer", "peek.intake", "peek.deliveries", "peek.sink"},
    {"daemon", "peek.sender", "peek.reader", "peek.settlement", "peek.census", "peek.doctor"},
    {"peek"},
    {"cli"},
]  # fmt: skip
NO_IO = {"wire", "sequence", "information.attributes", "information.model", "information.ldap",
         "information.glue", "information.glue1", "information.glue2", "information.glue1_filter",
         "information.glue2_filter", "information.glue2_directory", "information.glue2_schema",
         "information.glue_trees", "information.slurm_tables",
         "execution.model", "execution.description", "execution.watchable",
         "credential",
         "transfer.url", "transfer.model", "transfer.schedule", "transfer.sftp_protocol",
         "transfer.http_message", "transfer.webdav",
         "peek.stream", "peek.frame", "peek.messages", "peek.profiles", "peek.notices",
         "peek.log", "peek.track", "peek.reception", "peek.consumer", "peek.producer",
         "peek.deliveries", "peek.redaction", "peek.tail", "peek.beginning",
         "peek.gathering"}  # fmt: skip
IO = {"asyncio", "os", "select", "socket", "subprocess", "threading", "pathlib", "sqlite3"}
FAMILIES = ("information", "execution", "transfer")
ROOMS = (*FAMILIES, "peek")
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
            if imported.startswith("gridmad.") and imported != "gridmad.peek":  # its names follow
                other = imported.removeprefix("gridmad.")
                assert layer(other) <= layer(name), f"{name} imports {other}"
                rooms = {part for part in (name.split(".")[0], other.split(".")[0])
                         if part in ROOMS}  # fmt: skip
                assert len(rooms) < 2, f"{name} imports {other}: of another room"


@pytest.mark.parametrize(
    ("library", "module"), [("stomp", "peek.transport"), ("ldap3", "information.directory")]
)
def test_one_module_knows_a_library(library: str, module: str) -> None:
    users = {
        name
        for name, tree in modules()
        if any(imported.split(".")[0] == library for imported in imports(tree))
    }
    assert users == {module}


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
    libraries = {"ldap3", "psutil", "sqlite3", "lz4", "stomp", "cryptography", "httpx", "asyncssh",
                 "XRootD"}  # fmt: skip
    assert not libraries & set(loaded)


def test_msgpeek_imports_what_it_needs_when_it_needs_it() -> None:
    """Else `msgpeek --help` would wait for it."""
    code = "import sys, gridmad.cli.msgpeek; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"stomp", "lz4", "tqdm", "shtab", "asyncio"} & set(loaded)


def test_drivers_were_found() -> None:
    assert {"information.static", "execution.fork", "transfer.local"} <= set(DRIVERS)
