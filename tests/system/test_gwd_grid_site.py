"""Jobs through a real gwd on the grid: GRAM5 runs them, GridFTP brings and fetches their files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import grid_site
from tests.services.gwd import GridWay

pytestmark = pytest.mark.timeout(300)

TASKS = 8


@pytest.fixture(scope="module")
def gridway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridWay]:
    with grid_site.running(tmp_path_factory.mktemp("site"), TASKS) as site:
        yield site.gridway


def submit(gridway: GridWay, folder: Path, *lines: str) -> list[int]:
    """Tasks that have an input, an output and an exit code of their own."""
    folder.mkdir()
    (folder / "job.sh").write_text("\n".join(["#!/bin/sh", *lines, ""]))
    for task in range(TASKS):
        (folder / f"in.{task}").write_text(f"{task}\n" * 1000)
    jobs = gridway.submit(
        folder,
        {
            "EXECUTABLE": "job.sh",
            "ARGUMENTS": "${TASK_ID}",
            "INPUT_FILES": "in.${TASK_ID} input",
            "OUTPUT_FILES": "result out.${TASK_ID}",
            "STDOUT_FILE": "stdout.${TASK_ID}",
            "STDERR_FILE": "stderr.${TASK_ID}",
        },
        TASKS,
    )
    assert len(jobs) == TASKS
    return jobs


def check(gridway: GridWay, folder: Path, jobs: list[int]) -> None:
    """All ended with their own exit codes and brought their outputs back, and nothing is left."""
    for job in gridway.wait(jobs, 200).values():
        task = job.task_id
        assert (job.state, job.exit_code) == ("done", task), gridway.job_log(job.job_id)
        assert (folder / f"out.{task}").read_bytes() == (folder / f"in.{task}").read_bytes()
        assert (folder / f"stdout.{task}").read_text() == f"task {task}\n"
        assert (folder / f"stderr.{task}").read_text() == "err\n"
    assert not list(gridway.home.glob(".gw_*_*")), "directories of jobs are removed"


def test_an_array(gridway: GridWay, tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    jobs = submit(gridway, folder, "cat input >result; echo task $1; echo err >&2; exit $1")
    check(gridway, folder, jobs)


def test_drivers_that_die_while_jobs_run(gridway: GridWay, tmp_path: Path) -> None:
    folder, gate, runs = tmp_path / "jobs", tmp_path / "gate", tmp_path / "runs"
    runs.mkdir()
    jobs = submit(
        gridway,
        folder,
        f'echo run >>"{runs}/$1"; while ! [ -e "{gate}" ]; do sleep 0.1; done',
        "cat input >result; echo task $1; echo err >&2; exit $1",
    )
    for job in jobs:
        gridway.wait_for_state(job, "wrap/actv", timeout=60)
    for family in ("em", "tm"):
        gridway.kill_driver(family)
    gate.touch()
    check(gridway, folder, jobs)
    assert [(runs / str(task)).read_text() for task in range(TASKS)] == ["run\n"] * TASKS
