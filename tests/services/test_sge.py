"""gw_em_mad_sge and its back end on a real Grid Engine."""

import argparse
import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gridmad.commands import Commands
from gridmad.errors import DriverError, NotSubmittedError, TransientError
from gridmad.execution.contact import new_tags
from gridmad.execution.description.model import JobDescription
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState, Submission
from gridmad.execution.resource import JobId, Task
from gridmad.execution.sge import GridEngine
from tests.conformance.drivers import Site, Subject
from tests.services.sge import Cell

WAIT = 60.0
"""Seconds that Grid Engine has for anything, on a busy machine."""


# ---------------------------------------------------------------- the back end


class Bench:
    """The back end as the engine has it, and what it tells by itself."""

    def __init__(self, folder: Path, arguments: Sequence[str] = ()) -> None:
        parser = argparse.ArgumentParser()
        GridEngine.add_options(parser)
        self.commands = Commands()
        self.resource = GridEngine(parser.parse_args(arguments), self.commands)
        self.resource.folder = folder
        self.resource.report = self._report
        self.reports: dict[JobId, JobState] = {}
        folder.mkdir(exist_ok=True)

    def _report(self, endpoint: str, job: JobId, state: JobState) -> None:
        assert endpoint == ""
        self.reports[job] = state

    async def submit(self, *jobs: JobDescription) -> dict[JobId | DriverError, str]:
        """The outcomes, each with its job's tag."""
        tags = new_tags(len(jobs))
        tasks = [
            Task(tag, Submission(str(number), "here", "", job))
            for number, (tag, job) in enumerate(zip(tags, jobs, strict=True))
        ]
        return dict(zip(await self.resource.submit("", tasks), tags, strict=True))

    async def start(self, *jobs: JobDescription) -> dict[JobId, str]:
        """The ids of jobs that are all taken, with their tags."""
        found: dict[JobId, str] = {}
        for outcome, tag in (await self.submit(*jobs)).items():
            assert isinstance(outcome, str), outcome
            found[outcome] = tag
        return found

    async def until(
        self, jobs: Mapping[JobId, str], condition: Callable[[Mapping[JobId, JobState]], bool]
    ) -> Mapping[JobId, JobState]:
        """Ask until the states are as they should be."""
        end = time.monotonic() + WAIT
        while not condition(states := await self.resource.query("", jobs)):
            assert time.monotonic() < end, states
            await asyncio.sleep(0.1)
        return states

    async def ends(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """The final states of all these jobs."""
        return await self.until(
            jobs,
            lambda states: len(states) == len(jobs) and all(s.is_final for s in states.values()),
        )


Scene = Callable[[Bench], Coroutine[Any, Any, None]]


@pytest.fixture
def stage(sge: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`stage(scene, *arguments)` plays a scene with the back end in the shared cell."""
    return _stage(sge, tmp_path, monkeypatch)


def _stage(cell: Cell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    for name, value in cell.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(folder))

    def play(scene: Scene, *arguments: str) -> None:
        async def run() -> None:
            bench = Bench(folder / "jobs", arguments)
            await bench.resource.start()
            try:
                await scene(bench)
            finally:
                await bench.resource.stop()

        asyncio.run(run())

    return play


def shell(text: str, **more: Any) -> JobDescription:
    return JobDescription("/bin/sh", ("-c", text), **more)


async def another(bench: Bench, folder: Path, *arguments: str) -> Bench:
    """The back end as it starts anew, with another folder: no status file is seen there."""
    other = Bench(folder, arguments)
    await other.resource.start()
    return other


def test_every_exit_code_is_true_without_status_files(
    stage: Callable[..., None], tmp_path: Path
) -> None:
    codes = {"exit 0": 0, "exit 7": 7, "exit 99": 99, "exit 100": 100, "exit 163": 163,
             "kill -TERM $$": 143, "kill -KILL $$": 137, "exit 255": 255}  # fmt: skip

    async def scene(bench: Bench) -> None:
        jobs = await bench.start(*map(shell, codes))
        assert bench.commands.count == 1
        other = await another(bench, tmp_path / "elsewhere")
        states = await other.ends(jobs)
        assert [states[job] for job in jobs] == [JobState.done(code) for code in codes.values()]
        await other.resource.stop()

    stage(scene)


def test_status_files_tell_the_end_where_accounting_does_not(stage: Callable[..., None]) -> None:
    async def scene(bench: Bench) -> None:
        jobs = await bench.start(shell("exit 3"), shell("exit 99"))
        found: dict[JobId, JobState] = {}
        end = time.monotonic() + WAIT
        while len(found) < 2:
            assert time.monotonic() < end
            found.update(await bench.resource.look("", jobs))
            await asyncio.sleep(0.1)
        assert list(found.values()) == [JobState.done(3), JobState.done(99)]
        await bench.until(jobs, lambda states: states == found)

    stage(scene, "--accounting", "/nonexistent/accounting")


def test_jobs_that_are_not_alike(sge: Cell, stage: Callable[..., None]) -> None:
    async def scene(bench: Bench) -> None:
        outcomes = await bench.submit(
            shell(""),
            shell(""),
            shell("", queue="nosuch"),
            shell("", count=3, max_wall_time=2, max_cpu_time=1, max_memory=900, min_memory=1),
            shell("", count=2, job_type="multiple"),
            JobDescription("gsiftp://elsewhere/x"),
            shell("", project="nosuch"),
            shell(""),
        )
        one, two, no_queue, wide, multiple, remote, no_project, last = outcomes
        taken = [job for job in (one, two, wide, last) if isinstance(job, str)]
        assert len(taken) == 4
        number = [job.partition(".") for job in taken]
        assert number[0][0] == number[1][0]
        assert [int(task) for _, _, task in number] == [1, 2, 4, 8]
        assert str(no_queue) == ('Grid Engine takes no such job: requests unknown queue "nosuch"')
        assert "one process for a job, not 2" in str(multiple)
        assert "is not on the resource" in str(remote)
        assert 'the requested project "nosuch" does not exist' in str(no_project)
        shown = " ".join(sge.run("qstat", "-j", str(wide).partition(".")[0]).split())
        assert "h_rt=120" in shown
        assert "h_cpu=60" in shown
        assert "h_vmem=900M" in shown
        assert "mem_free=1M" in shown
        assert "parallel environment: threads range: 3" in shown
        jobs = {job: tag for job, tag in outcomes.items() if isinstance(job, str)}
        assert set(await bench.resource.find("", list(outcomes.values()))) == set(jobs.values())
        await bench.resource.cancel("", jobs)
        assert bench.reports == dict.fromkeys(jobs, JobState.done(143))
        assert await bench.resource.query("", jobs) == {}

    stage(scene, "--pe", "threads", "--native=-h -V")


def test_states_from_hold_to_end(sge: Cell, stage: Callable[..., None]) -> None:
    async def scene(bench: Bench) -> None:
        jobs = await bench.start(shell("sleep 300"))
        [job] = jobs

        async def until(state: JobState) -> None:
            await bench.until(jobs, lambda states: states == {job: state})

        await until(PENDING)
        sge.run("qrls", job.partition(".")[0])
        await until(ACTIVE)
        sge.run("qmod", "-sj", job)
        await until(SUSPENDED)
        sge.run("qmod", "-usj", job)
        await until(ACTIVE)
        assert await bench.resource.cancel("", jobs) == {}
        assert bench.reports == {}
        await until(JobState.done(137))
        assert await bench.resource.cancel("", jobs) == {}

    stage(scene, "--native=-h")


def test_a_job_that_cannot_be_started_fails_and_is_not_left(
    sge: Cell, stage: Callable[..., None]
) -> None:
    async def scene(bench: Bench) -> None:
        jobs = await bench.start(shell("exit 0"), shell("exit 1"))
        states = await bench.ends(jobs)
        reason = "Grid Engine could not run it: can't chdir to /nonexistent: No such file"
        for state in states.values():
            assert state.phase is JobState.failed("").phase
            assert state.reason.startswith(reason)
        number = next(iter(jobs)).partition(".")[0]
        assert number not in sge.run("qstat")

    stage(scene, "--native=-wd /nonexistent")


def test_a_job_over_its_limit_has_ended(
    stage: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(bench: Bench) -> None:
        jobs = await bench.start(shell("sleep 300"))
        assert list((await bench.ends(jobs)).values()) == [JobState.done(137)]

    with caplog.at_level(logging.WARNING):
        stage(scene, "--native=-l h_rt=1")
    assert "over its limit" in caplog.text


def test_jobs_are_found_by_their_tags(stage: Callable[..., None], tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        running = await bench.start(shell("sleep 300"))
        ended = await bench.start(shell("exit 0"), shell("exit 4"))
        await bench.until(ended, lambda states: len(states) == 2)
        await bench.ends(ended)
        jobs = {tag: job for job, tag in (running | ended).items()}
        tags = [*jobs, *new_tags(2)]
        assert await bench.resource.find("", tags) == jobs
        # Only the status files are left, which do not tell the number of the array.
        other = await another(bench, bench.resource.folder, "--accounting", "/nonexistent/a")
        found = await other.resource.find("", list(ended.values()))
        assert list(found) == list(ended.values())
        states = await other.resource.query("", {job: tag for tag, job in found.items()})
        assert list(states.values()) == [JobState.done(0), JobState.done(4)]
        # A number alone is no job: it may be another's by now.
        await bench.resource.cancel("", dict.fromkeys(running, new_tags(1)[0]))
        assert await bench.resource.query("", running) != {}
        await bench.resource.cancel("", running)
        await other.resource.stop()

    stage(scene)


def test_a_job_gets_what_its_description_says(stage: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "in").write_text("what it reads\n")
    words = ("#$ -N evil\n#$ -q evil", "') ;; esac", "$(id)", "ä\udcff")

    async def scene(bench: Bench) -> None:
        (tmp_path / "work").mkdir()
        job = JobDescription(
            "/bin/sh",
            ("-c", 'pwd; cat; printf "<%s>" "$GW_JOB_ID" "$@"; echo bad >&2', "sh", *words),
            directory="work", stdin="../in", stdout="out", stderr="err",
            environment={"GW_JOB_ID": "a 'b'"},
        )  # fmt: skip
        assert list((await bench.ends(await bench.start(job))).values()) == [JobState.done(0)]

    stage(scene)
    expected = f"{tmp_path}/work\nwhat it reads\n<a 'b'>" + "".join(f"<{word}>" for word in words)
    out = (tmp_path / "work" / "out").read_bytes()
    assert out == expected.encode("utf-8", "surrogateescape")
    assert (tmp_path / "work" / "err").read_text() == "bad\n"


def test_a_master_that_is_down(
    own_sge: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(bench: Bench) -> None:
        jobs = await bench.start(shell("sleep 300"), shell("sleep 300"))
        await bench.until(jobs, lambda states: set(states.values()) == {ACTIVE})
        own_sge.kill_master()
        [outcome] = await bench.submit(shell(""))
        assert isinstance(outcome, NotSubmittedError), outcome
        for call in (
            bench.resource.query("", jobs),
            bench.resource.cancel("", jobs),
            bench.resource.find("", list(jobs.values())),
        ):
            with pytest.raises(TransientError):
                await call
        own_sge.start_master()
        assert await bench.resource.query("", jobs) == dict.fromkeys(jobs, ACTIVE)

    _stage(own_sge, tmp_path, monkeypatch)(scene)


# ---------------------------------------------------------------- the driver


@contextmanager
def desk(cell: Cell, folder: Path, arguments: str = "") -> Iterator[Site]:
    """A gwd's surroundings for the driver in this cell."""

    def prepare(site: Site) -> None:
        lines = (f"{name}={value}\n" for name, value in cell.environment.items())
        site.write("etc/gwrc", "".join(lines))
        site.arguments = f"--interval 0.5 --settle 0.3 {arguments}"

    with Subject("gw_em_mad_sge", prepare).site(folder) as site:
        yield site


def request(site: Site, job: int, text: str, more: str = "") -> str:
    """SUBMIT of a script; `more` is added to its description."""
    path = site.script(str(job), text)
    path.write_text(path.read_text().replace("</job>", f"{more}</job>"))
    return f"SUBMIT {job} localhost/jobmanager-sge {path}"


@pytest.mark.timeout(300)
def test_the_end_of_a_master_is_not_the_end_of_its_jobs(own_sge: Cell, tmp_path: Path) -> None:
    """An execution host needs half a minute to come back to its master."""
    with desk(own_sge, tmp_path) as site, site.play() as gwd:
        gwd.initialise()
        texts = {1: "sleep 2; exit 3", 2: "sleep 300", 3: "sleep 300", 4: "sleep 6; exit 4"}
        gwd.ask_and_wait(*(request(site, job, text) for job, text in texts.items()))
        for job in texts:
            gwd.wait(lambda job=job: gwd.last_state(job) == "ACTIVE", "it does not run", WAIT)  # type: ignore[misc]
        own_sge.kill_master()
        gwd.ask_and_wait("CANCEL 2 - -", "POLL 3 - -", "POLL 4 - -")
        assert {gwd.last_state(job) for job in (2, 3, 4)} == {"ACTIVE"}
        gwd.ask(request(site, 5, "exit 5"))
        gwd.wait(lambda: gwd.has_ended(1), "its status file is not seen", WAIT)
        own_sge.start_master()
        for job in (2, 4, 5):
            # Twice as long, since the execution host takes its time.
            gwd.wait(lambda job=job: gwd.has_ended(job), f"{job} goes on", 2 * WAIT)  # type: ignore[misc]
        ends = {job: gwd.last_state(job) for job in (1, 2, 3, 4, 5)}
        assert ends == {1: "DONE:3", 2: "DONE:137", 3: "ACTIVE", 4: "DONE:4", 5: "DONE:5"}
        assert not any("FAILURE" in line for line in gwd.answers)


def test_half_of_many_jobs_are_cancelled(sge: Cell, tmp_path: Path) -> None:
    count = 40
    with desk(sge, tmp_path) as site, site.play() as gwd:
        gwd.initialise()
        traces = tmp_path / "traces"
        traces.mkdir()
        gwd.ask_and_wait(
            *(
                request(site, job, f"echo x >> {traces}/{job}; sleep {job % 2 * 300}; exit {job}")
                for job in range(count)
            )
        )
        gwd.ask_and_wait(*(f"CANCEL {job} - -" for job in range(1, count, 2)))
        for job in range(count):
            gwd.wait(lambda job=job: gwd.has_ended(job), f"the end of {job} is not told", WAIT)  # type: ignore[misc]
            if job % 2:
                assert gwd.last_state(job) in ("DONE:137", "DONE:143")
            else:
                assert gwd.last_state(job) == f"DONE:{job}"
                assert (traces / str(job)).read_text() == "x\n"


def test_a_suspended_job_is_told(sge: Cell, tmp_path: Path) -> None:
    with desk(sge, tmp_path) as site, site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(request(site, 1, "sleep 300"))
        gwd.wait(lambda: gwd.last_state(1) == "ACTIVE", "it does not run", WAIT)
        job = gwd.contacts[1].split("/")[3]
        sge.run("qmod", "-sj", job)
        gwd.wait(lambda: gwd.last_state(1) == "SUSPENDED", "SUSPENDED is not told", WAIT)
        gwd.ask_and_wait("CANCEL 1 - -")
        gwd.wait(lambda: gwd.has_ended(1), "the end is not told", WAIT)
        assert gwd.told[1] == ["ACTIVE", "SUSPENDED", "DONE:137"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("<queue>nosuch</queue>", 'Grid Engine takes no such job: requests unknown queue "nosuch"'),
        ("<queue>-sync</queue>", "'-sync' cannot be the name of a queue"),
        ("<count>4</count>", "a job with a count of 4 needs a parallel environment (--pe NAME)"),
    ],
)
def test_what_is_refused_is_told_in_a_line(
    sge: Cell, tmp_path: Path, more: str, reason: str
) -> None:
    with desk(sge, tmp_path) as site, site.play() as gwd:
        gwd.initialise()
        text = request(site, 1, "exit 0")
        path = Path(text.split()[-1])
        path.write_text(path.read_text().replace("<count>1</count>", more))
        assert gwd.ask_and_wait(text) == [f"SUBMIT 1 FAILURE {reason}"]


def test_a_machine_that_may_not_submit(sge: Cell, tmp_path: Path) -> None:
    with desk(sge, tmp_path) as site, site.play() as gwd:
        gwd.initialise()
        sge.run("qconf", "-ds", "localhost")
        try:
            answers = gwd.ask_and_wait(request(site, 1, "exit 0"))
        finally:
            sge.run("qconf", "-as", "localhost")
        reason = 'Grid Engine takes no such job: host "localhost" is not a submit host'
        assert answers == [f"SUBMIT 1 FAILURE {reason}"]


def test_a_machine_without_grid_engine(sge: Cell, tmp_path: Path) -> None:
    with desk(sge, tmp_path) as site:
        environment = site.environment | {"PATH": "/nonexistent"}
        with site.play(environment=environment) as gwd:
            gwd.initialise()
            [line] = gwd.ask_and_wait(request(site, 1, "exit 0"))
            assert line.startswith("SUBMIT 1 FAILURE no qsub on the PATH")
