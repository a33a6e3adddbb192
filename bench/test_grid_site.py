"""Tasks of /bin/ls on the grid: gwd with our drivers for GRAM5 and GridFTP, from gwsubmit to the
last output, against Globus' own tools by hand, one task after the other.

The tools bring one file, run the program alone and fetch its output; gwd's wrapper has more files
brought and runs more programs.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import IS_QUICK, Scoreboard
from bench.tasks import is_listing, run
from tests.services import grid_site
from tests.services.grid_site import GridSite

TASKS = 10 if IS_QUICK else 100
BY_HAND = 2 if IS_QUICK else 20
"""Tasks of the tools: each takes as long as the one before."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridSite]:
    with grid_site.running(tmp_path_factory.mktemp("site"), TASKS) as site:
        yield site


def by_hand(site: GridSite, folder: Path, tasks: int) -> float:
    """Seconds until `tasks` jobs have ended and brought their outputs back."""
    folder.mkdir()
    (folder / "input").write_text("input\n")
    start = time.perf_counter()
    for task in range(tasks):
        there = f"{site.files.url}/~/by-hand.{task}"
        command(site, "globus-url-copy", "-cd", f"file://{folder}/input", f"{there}/input")
        description = f"&(executable=/bin/ls)(arguments=/)(directory=by-hand.{task})(stdout=output)"
        command(site, "globusrun", "-q", "-r", site.gram.contact, description)
        command(site, "globus-url-copy", f"{there}/output", f"file://{folder}/out.{task}")
    elapsed = time.perf_counter() - start
    assert all(is_listing(folder / f"out.{task}") for task in range(tasks))
    return elapsed


def command(site: GridSite, *words: str) -> None:
    done = subprocess.run(
        [*site.gridway.network.prefix, *words],
        env={**os.environ, **site.environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_tasks_of_ls(
    benchmark: BenchmarkFixture, scoreboard: Scoreboard, site: GridSite, tmp_path: Path
) -> None:
    """GridWay's own drivers, of which no gwd here has any, took 201 s for 100 tasks."""
    run(site.gridway, tmp_path / "first", 1)
    theirs = by_hand(site, tmp_path / "by-hand", BY_HAND) / BY_HAND
    seconds: float = benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda: run(site.gridway, tmp_path / "ours", TASKS), rounds=1
    )
    scoreboard.score(
        f"{TASKS} x /bin/ls by GRAM5 and GridFTP",
        theirs * TASKS / seconds,
        against="globusrun and globus-url-copy",
        floor=3.5,
        ambition=6,
        note=f"{seconds:.1f} s; by hand {theirs:.2f} s a task",
    )
