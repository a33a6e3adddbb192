"""A transfer driver as gwd starts it, for what has to have an environment of its own."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.drivers import SLOW_PATIENCE
from tests.conformance.gwd import Player


@contextmanager
def played(
    folder: Path, environment: Mapping[str, str], arguments: str, name: str = "gw_tm_mad_url"
) -> Iterator[Player]:
    """A driver that has answered INIT; `folder` is its home."""
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "GW_LOCATION": str(folder)}
    (folder / "bin").mkdir()
    path = folder / "bin" / name
    path.symlink_to(Path(sys.executable).parent / name)
    with Player(
        str(path),
        "transfer",
        [arguments],
        folder,
        {**variables, **environment},
        patience=SLOW_PATIENCE,
    ) as gwd:
        gwd.initialise()
        yield gwd
