"""Jobs through GRAM5: gw_em_mad_prews against one run of Globus' own tools for each job."""

import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.conftest import IS_QUICK, Contest, Scoreboard
from bench.players import BIN, Player
from tests.services import gram as server
from tests.services.gram import Gram
from tests.services.required import skip_without

RSL = "&(executable=/bin/true)"
COUNT = 4 if IS_QUICK else 24


@pytest.fixture(scope="module")
def gram(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gram]:
    problem = server.missing()
    if problem:
        skip_without("gram", problem)
    with Gram(tmp_path_factory.mktemp("gram"), None, server.shared_authority()) as gram:
        yield gram


@pytest.fixture
def driver(gram: Gram, tmp_path: Path) -> Iterator[Player]:
    command = [
        *(str(BIN / "gw_em_mad_prews"), "--port", str(gram.port)),
        *("--state", str(tmp_path / "state")),
    ]
    with Player(command, gram.environment) as player:
        player.initialise()
        yield player


def globusrun(gram: Gram) -> str:
    """Submit a job as GridWay's guide shows; its contact."""
    command = ["globusrun", "-q", "-b", "-r", gram.contact, RSL]
    return run(gram, command).strip().splitlines()[0]


def run(gram: Gram, command: list[str]) -> str:
    done = subprocess.run(
        command, env={**os.environ, **gram.environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Jobs:
    """Jobs of the driver, which may take their time after they were submitted."""

    def __init__(self, driver: Player, description: Path) -> None:
        self._driver = driver
        self._request = f" localhost/jobmanager-fork {description}\n".encode()
        self._left = 0

    def submit(self) -> None:
        """Submit them, and wait for the answers."""
        self._driver.send(b"".join(b"SUBMIT %d" % job + self._request for job in range(COUNT)))
        got = self._driver.collect(b"SUBMIT", COUNT)
        assert got.count(b"FAILURE") == 0, got
        self._left = COUNT - got.count(b"DONE")

    def end(self) -> None:
        """Wait for the ends of those that were submitted."""
        if self._left > 0:
            self._driver.collect(b"DONE", self._left)
        self._left = 0


def test_submit(contest: Contest, gram: Gram, driver: Player, tmp_path: Path) -> None:
    """The gatekeeper works as hard for both: what is saved is a process, and waiting."""
    description = tmp_path / "job.rsl"
    description.write_text(RSL)
    jobs = Jobs(driver, description)

    def theirs() -> None:
        for _ in range(COUNT):
            globusrun(gram)

    contest.run(
        f"GRAM5: SUBMIT of {COUNT} jobs",
        jobs.submit,
        theirs,
        against="globusrun -b for each",
        floor=1.0,
        ambition=1.5,
        rounds=3,
        note=lambda seconds: f"{COUNT / seconds:.1f} a second",
        prepare=jobs.end,
    )


def test_poll(contest: Contest, gram: Gram, driver: Player, tmp_path: Path) -> None:
    """What job managers told is known; their tools ask for each job each time."""
    description = tmp_path / "job.rsl"
    description.write_text("&(executable=/bin/sleep)(arguments=300)")
    request = f"SUBMIT 1 localhost/jobmanager-fork {description}\n".encode()
    driver.send(request)
    driver.collect(b"ACTIVE", 1)
    contact = globusrun(gram)
    polls = 500

    def ours() -> None:
        driver.stream(b"POLL 1 - -\n" * polls, polls)

    def theirs() -> None:
        for _ in range(4):
            run(gram, ["globusrun", "-status", contact])

    contest.run(
        f"GRAM5: {polls} POLLs to 4 status queries",
        ours,
        theirs,
        against="globusrun -status for each",
        floor=1.0,
        ambition=4.0,
        rounds=4,
        note=lambda seconds: f"{polls / seconds:.0f} POLLs a second",
    )
    driver.send(b"CANCEL 1 - -\n")
    driver.collect(b"DONE:143", 1)


def test_processor_time(gram: Gram, tmp_path: Path, scoreboard: Scoreboard) -> None:
    """Of the submitting side, from a job's submission to its end; of a tool that asks whether
    the job has ended, only one such run is counted.
    """
    description = tmp_path / "job.rsl"
    description.write_text(RSL)
    command = [
        *(str(BIN / "gw_em_mad_prews"), "--port", str(gram.port)),
        *("--state", str(tmp_path / "state")),
    ]
    player = Player(command, gram.environment)
    player.initialise()
    start = processor_time(player.pid)
    jobs = Jobs(player, description)
    jobs.submit()
    jobs.end()
    ours = (processor_time(player.pid) - start) / COUNT
    time.sleep(1.0)  # the ends are committed
    before = processor_time(player.pid)
    time.sleep(1.0 if IS_QUICK else 5.0)
    idle = processor_time(player.pid) - before
    player.close()

    def submit_and_ask() -> None:
        for _ in range(COUNT):
            run(gram, ["globusrun", "-status", globusrun(gram)])

    theirs = children_time(submit_and_ask) / COUNT
    scoreboard.score(
        "GRAM5: CPU time of a job",
        theirs / ours,
        against="globusrun -b and -status for each",
        floor=1.0,
        ambition=2.0,
        note=f"{ours * 1e3:.0f} ms a job; {idle * 1e3:.0f} ms while idle",
    )


def processor_time(pid: int) -> float:
    """Of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_time(work: Callable[[], object]) -> float:
    """Processor time of the processes that end meanwhile, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
