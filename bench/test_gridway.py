"""End to end: N tasks of /bin/ls under a real gwd, from gwsubmit to the last output.

Ours and DRM4G's own drivers have the same gwd with the same intervals, and a host with room
for all tasks at once.  What is below a second belongs to gwd: its scheduler looks once a
second.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import IS_QUICK, Scoreboard
from tests.services import gwd
from tests.services.gwd import GridWay, Mad
from tests.services.required import skip_without

TASKS = (1, 20) if IS_QUICK else (1, 100)
SLOTS = 100
FLOORS = {1: (8.0, 15.0), 20: (8.0, 15.0), 100: (10.0, 15.0)}
"""How many times faster than DRM4G's: floor and ambition."""
DRM4G_HOST = f"""\
[DEFAULT]
enable = true
communicator = local
frontend = localhost
lrms = fork
[here]
max_jobs_running = {SLOTS}
"""


@pytest.fixture(scope="module", autouse=True)
def _gwd() -> None:
    if problem := gwd.problem():
        skip_without("gwd", problem)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridWay]:
    """GridWay with our drivers."""
    gridway = GridWay(
        tmp_path_factory.mktemp("ours"),
        information=[Mad("im", "gw_im_mad_local", f"--slots {SLOTS}")],
        execution=[Mad("em", "gw_em_mad_fork")],
        transfer=[Mad("tm", "gw_tm_mad_local")],
    )
    with gridway:
        gridway.wait_for_host()
        yield gridway


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridWay]:
    """GridWay with DRM4G's drivers."""
    programs = gwd.gwd_home() / "bin"
    gridway = GridWay(
        tmp_path_factory.mktemp("theirs"),
        information=[Mad("im", str(programs / "gw_im_mad_drm4g.py"))],
        execution=[Mad("em", str(programs / "gw_em_mad_drm4g.py"))],
        transfer=[Mad("tm", str(programs / "gw_tm_mad_drm4g.py"))],
        files={"etc/resources.conf": DRM4G_HOST},
    )
    with gridway:
        gridway.wait_for_host()
        yield gridway


def run(gridway: GridWay, folder: Path, tasks: int) -> float:
    """Seconds until `tasks` jobs have ended and brought their outputs back."""
    start = time.perf_counter()
    jobs = gridway.submit(
        folder,
        {"EXECUTABLE": "/bin/ls", "ARGUMENTS": "/", "STDOUT_FILE": "out.${TASK_ID}"},
        tasks,
    )
    ended = gridway.wait(jobs, 300)
    elapsed = time.perf_counter() - start
    assert [job.exit_code for job in ended.values()] == [0] * tasks
    listed = {path.name for path in Path("/").iterdir() if not path.name.startswith(".")}
    for task in range(tasks):
        assert set((folder / f"out.{task}").read_text().split()) == listed
    return elapsed


@pytest.mark.parametrize("tasks", TASKS)
def test_tasks_of_ls(
    benchmark: BenchmarkFixture,
    scoreboard: Scoreboard,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    ours: GridWay,
    tasks: int,
) -> None:
    """The first round also starts the drivers for the user, and does not count."""
    times: list[float] = []

    def once() -> None:
        times.append(run(ours, tmp_path / f"ours{len(times)}", tasks))

    benchmark.pedantic(once, rounds=1 if IS_QUICK else 4, warmup_rounds=1)  # type: ignore[no-untyped-call]
    best = min(times[1:])
    benchmark.extra_info.update(first=times[0])
    if IS_QUICK:
        return
    baseline = run(request.getfixturevalue("theirs"), tmp_path / "theirs", tasks)
    floor, ambition = FLOORS[tasks]
    scoreboard.score(
        f"{tasks} x /bin/ls under gwd",
        baseline / best,
        against="DRM4G's drivers",
        floor=floor,
        ambition=ambition,
        note=f"{best:.1f} s, the first time {times[0]:.1f} s; theirs {baseline:.1f} s",
    )
