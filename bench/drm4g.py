"""DRM4G's own drivers, from the environment that holds gwd: the peers to measure against."""

import os
from pathlib import Path

from tests.services.gwd import gwd_home

HOST = "localmachine"
"""The host that DRM4G's configuration knows, as it comes."""


def driver(name: str) -> list[str]:
    """The command of one of DRM4G's drivers."""
    return [str(gwd_home() / "bin" / name)]


def environment(home: Path) -> dict[str, str]:
    """A home of its own, where DRM4G makes its configuration."""
    home.mkdir(exist_ok=True)
    return {"HOME": str(home), "PATH": f"{gwd_home() / 'bin'}:{os.environ['PATH']}"}
