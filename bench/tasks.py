"""An array of /bin/ls under a real gwd, from gwsubmit to the last output."""

import shutil
import time
from pathlib import Path

from tests.services.gwd import GridWay

WAIT_TIME = 300.0
"""Seconds that all of them may take."""


def run(gridway: GridWay, folder: Path, tasks: int) -> float:
    """Seconds until `tasks` jobs have ended and brought their outputs back."""
    shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    jobs = gridway.submit(
        folder,
        {"EXECUTABLE": "/bin/ls", "ARGUMENTS": "/", "STDOUT_FILE": "out.${TASK_ID}"},
        tasks,
    )
    ended = gridway.wait(jobs, WAIT_TIME)
    elapsed = time.perf_counter() - start
    assert [job.exit_code for job in ended.values()] == [0] * tasks
    for task in range(tasks):
        assert is_listing(folder / f"out.{task}")
    return elapsed


def is_listing(output: Path) -> bool:
    """Whether a file holds what /bin/ls says of the root."""
    listed = {path.name for path in Path("/").iterdir() if not path.name.startswith(".")}
    return set(output.read_text().split()) == listed
