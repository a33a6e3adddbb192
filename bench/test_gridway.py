"""End to end: N tasks of /bin/ls under a real gwd, from gwsubmit to the last output.

All contenders have the same gwd with the same intervals, and a host with room for all tasks
at once.  The mark is what stubs reach that take no care of anything: what remains is gwd,
whose scheduler looks once a second, and the jobs' own wrapper.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import IS_QUICK, Scoreboard
from bench.tasks import run
from tests.services import gwd
from tests.services.gwd import GridWay, Mad
from tests.services.required import skip_without

TASKS = (1, 20) if IS_QUICK else (1, 100)
SLOTS = 100
ROUNDS = {1: 20, 20: 4, 100: 4}
"""A single task mostly waits for the scheduler's next look, so the rounds begin at random within
that second, and many are needed for a mean."""
STUBS = Path(__file__).parent / "baselines"
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
    yield from serve(
        tmp_path_factory.mktemp("ours"),
        Mad("im", "gw_im_mad_local", f"--slots {SLOTS}"),
        Mad("em", "gw_em_mad_fork"),
        Mad("tm", "gw_tm_mad_local"),
    )


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridWay]:
    """GridWay with stubs that run and copy; the host is known through our driver."""
    yield from serve(
        tmp_path_factory.mktemp("stubs"),
        Mad("im", "gw_im_mad_local", f"--slots {SLOTS}"),
        Mad("em", str(STUBS / "stub_execution.py")),
        Mad("tm", str(STUBS / "stub_transfer.py")),
    )


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridWay]:
    """GridWay with DRM4G's drivers."""
    programs = gwd.gwd_home() / "bin"
    yield from serve(
        tmp_path_factory.mktemp("theirs"),
        *[
            Mad(family, str(programs / f"gw_{family}_mad_drm4g.py"))
            for family in ("im", "em", "tm")
        ],
        may_outlive=True,
    )


def serve(
    folder: Path, information: Mad, execution: Mad, transfer: Mad, *, may_outlive: bool = False
) -> Iterator[GridWay]:
    """A gwd that knows its host; other people's drivers may outlive it and are ended then."""
    gridway = GridWay(
        folder,
        information=[information],
        execution=[execution],
        transfer=[transfer],
        files={"etc/resources.conf": DRM4G_HOST},
    )
    with gridway:
        gridway.wait_for_host()
        yield gridway
        if may_outlive:
            gridway.stop()


@pytest.mark.skipif(not IS_QUICK, reason="the contests run the same and more")
@pytest.mark.parametrize("tasks", TASKS)
def test_tasks_of_ls(
    benchmark: BenchmarkFixture, ours: GridWay, tmp_path: Path, tasks: int
) -> None:
    """That they run; a single round says nothing of ratios."""
    benchmark.pedantic(lambda: run(ours, tmp_path / "ours", tasks), rounds=1)  # type: ignore[no-untyped-call]


@pytest.mark.skipif(IS_QUICK, reason="takes minutes")
@pytest.mark.parametrize("tasks", TASKS)
def test_tasks_of_ls_beside_others(
    scoreboard: Scoreboard,
    ours: GridWay,
    stubs: GridWay,
    theirs: GridWay,
    tmp_path: Path,
    tasks: int,
) -> None:
    """The first job of each starts its drivers, and does not count."""
    run(ours, tmp_path / "ours", 1)
    run(stubs, tmp_path / "stubs", 1)
    times: dict[str, list[float]] = {"ours": [], "stubs": []}
    rounds = ROUNDS[tasks]
    chance = random.Random(1)
    for _ in range(rounds):
        for name, gridway in (("ours", ours), ("stubs", stubs)):
            time.sleep(chance.random())
            times[name].append(run(gridway, tmp_path / name, tasks))
    seconds, mark = mean(times["ours"]), mean(times["stubs"])
    others = run(theirs, tmp_path / "theirs", tasks)
    scoreboard.score(
        f"{tasks} x /bin/ls under gwd",
        mark / seconds,
        against="stubs that take no care",
        floor=0.6,
        ambition=0.95,
        note=f"{seconds:.2f} s, the stubs {mark:.2f} s",
    )
    scoreboard.score(
        f"{tasks} x /bin/ls under gwd",
        others / seconds,
        against="DRM4G's drivers",
        floor=4,
        ambition=8,
        note=f"theirs {others:.1f} s",
    )
