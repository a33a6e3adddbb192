"""The engine with a resource that fails in every way there is."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmad.errors import DriverError, NotSubmittedError, TransientError
from gridmad.execution import engine, follower, journal, ledger, link, submitter
from gridmad.execution.contact import JobName, new_tags
from gridmad.execution.engine import driver_of
from gridmad.execution.model import ACTIVE, PENDING, JobState
from gridmad.execution.resource import JobId, Resource, Task
from gridmad.execution.service import ExecutionService
from tests.unit.session import PATIENCE, Session, options

RSL = "<job><executable>/bin/true</executable></job>"
FAST = "--interval 0.05 --settle 0.05 --timeout 0.5"


class Site:
    """What a resource has, whichever driver asks."""

    def __init__(self) -> None:
        self.states: dict[JobId, JobState] = {}
        self.tags: dict[str, JobId] = {}
        self.owners: Counter[str] = Counter()
        """How often each of gwd's jobs was taken."""
        self.cancelled: list[JobId] = []
        self.committed: list[JobId] = []
        self.released: list[JobId] = []
        self.calls: Counter[str] = Counter()
        self.chunks: list[int] = []
        self.trouble: dict[str, list[Exception]] = {}
        """What calls raise before they do anything, one each."""
        self.late_trouble: list[Exception] = []
        """What `submit` raises when it has done all."""
        self.is_down = False
        self.stands_still = False
        """What is submitted is read only after the next answer."""
        self.unread: list[Task] = []
        self.refused: dict[str, DriverError] = {}
        self.hangs: set[str] = set()
        """Endpoints that never answer."""

    def take(self, task: Task) -> JobId:
        job_id = f"{len(self.states)}"
        self.states[job_id] = PENDING
        self.tags[task.tag] = job_id
        self.owners[task.submission.job_id] += 1
        return job_id


class Fickle(Resource):
    """Jobs in a dictionary."""

    scheme = "fickle"
    summary = "fail"
    chunk = 40
    miss_time = 0.1
    site: Site

    async def _call(self, name: str, endpoint: str) -> None:
        self.site.calls[name] += 1
        await asyncio.sleep(0)
        if endpoint in self.site.hangs:
            await asyncio.sleep(3600)
        if self.site.is_down:
            raise TransientError("it is down")
        troubles = self.site.trouble.get(name)
        if troubles:
            raise troubles.pop(0)

    async def submit(self, endpoint: str, tasks: Sequence[Task]) -> Sequence[JobId | DriverError]:
        await self._call("submit", endpoint)
        if self.site.stands_still:
            self.site.unread += tasks
            self.site.is_down, self.site.stands_still = True, False
            raise TransientError("no answer")
        self.site.chunks.append(len(tasks))
        outcomes = [
            self.site.refused.get(task.submission.job_id) or self.site.take(task) for task in tasks
        ]
        if self.site.late_trouble:
            raise self.site.late_trouble.pop(0)
        return outcomes

    async def commit(self, endpoint: str, jobs: Mapping[JobId, str]) -> None:
        self.site.committed += jobs

    async def release(self, endpoint: str, jobs: Collection[JobId]) -> None:
        self.site.released += jobs

    async def query(self, endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        await self._call("query", endpoint)
        return {job: self.site.states[job] for job in jobs if job in self.site.states}

    async def cancel(
        self, endpoint: str, jobs: Mapping[JobId, str]
    ) -> Mapping[JobId, DriverError | None]:
        await self._call("cancel", endpoint)
        self.site.cancelled += jobs
        for job in jobs:
            if job in self.site.states and not self.site.states[job].is_final:
                self.site.states[job] = JobState.failed("cancelled")
        return {}

    async def find(self, endpoint: str, tags: Collection[str]) -> Mapping[str, JobId]:
        await self._call("find", endpoint)
        found = {tag: self.site.tags[tag] for tag in tags if tag in self.site.tags}
        while self.site.unread:
            self.site.take(self.site.unread.pop())
        return found


Scene = Callable[[Session], Coroutine[Any, Any, None]]


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(link, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(follower, "HASTE", 0.01)


def play(site: Site, folder: Path, scene: Scene, arguments: str = "") -> None:
    """One life of a driver."""

    async def run() -> None:
        resource = type("Resource", (Fickle,), {"site": site})
        driver = driver_of(resource)
        words = f"--state {folder} {FAST} {arguments}"
        service = ExecutionService(driver(options(ExecutionService, driver, words)))
        async with Session(service) as session:
            assert await session.ask("INIT 200 - -\n") == ["INIT - SUCCESS -"]
            await scene(session)

    asyncio.run(run())


@pytest.fixture
def rsl(tmp_path: Path) -> Path:
    path = tmp_path / "job.rsl.0"
    path.write_text(RSL)
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def submit(session: Session, rsl: Path, *jobs: int, host: str = "host") -> dict[int, str]:
    """The contacts of jobs, or the words after FAILURE."""
    answers = await session.ask("".join(f"SUBMIT {job} {host} {rsl}\n" for job in jobs))
    contacts = {}
    for line in answers:
        operation, job, _, text = line.split(maxsplit=3)
        assert operation == "SUBMIT"
        contacts[int(job)] = text
    return contacts


async def told(session: Session, count: int = 1) -> list[str]:
    """The next lines, without `CALLBACK`."""
    return [line.removeprefix("CALLBACK ") for line in await session.lines(count)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


def job_of(contact: str) -> JobId:
    return JobName.parse(contact, "fickle").job


def die(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the drivers that were count as dead, though they ran in this process."""
    monkeypatch.setattr(journal, "_is_dead", lambda owner: True)


# ---------------------------------------------------------------- the life of a job


def test_a_job_from_its_submission_to_its_end(site: Site, state: Path, rsl: Path) -> None:
    async def scene(session: Session) -> None:
        contact = (await submit(session, rsl, 7))[7]
        assert contact.startswith("fickle://host/0/")
        assert site.committed == ["0"]
        assert await session.ask("POLL 7 - -\n") == ["POLL 7 SUCCESS PENDING"]
        site.states["0"] = ACTIVE
        assert await told(session) == ["7 SUCCESS ACTIVE"]
        assert await session.ask("POLL 7 - -\n") == ["POLL 7 SUCCESS ACTIVE"]
        site.states["0"] = JobState.done(3)
        assert await told(session) == ["7 SUCCESS DONE:3"]
        assert await session.ask("POLL 7 - -\n") == ["POLL 7 SUCCESS DONE:3"]
        asked = site.calls["query"]
        assert await session.silence(0.2) == ""
        assert site.calls["query"] == asked, "nobody is left to ask for"

    play(site, state, scene)


def test_many_jobs_go_in_chunks_and_are_asked_for_at_once(
    site: Site, state: Path, rsl: Path
) -> None:
    async def scene(session: Session) -> None:
        contacts = await submit(session, rsl, *range(100))
        assert len(set(contacts.values())) == 100
        assert max(site.chunks) == Fickle.chunk
        assert len(site.chunks) < 10
        site.states.update(dict.fromkeys(site.states, JobState.done(0)))
        assert sorted(await told(session, 100)) == sorted(f"{i} SUCCESS DONE:0" for i in range(100))
        assert site.calls["query"] < 20

    play(site, state, scene)


def test_a_refusal_is_the_jobs_alone(site: Site, state: Path, rsl: Path) -> None:
    async def scene(session: Session) -> None:
        site.refused["2"] = DriverError("no such queue")
        contacts = await submit(session, rsl, 1, 2, 3)
        assert contacts[2] == "no such queue"
        assert job_of(contacts[1]) != job_of(contacts[3])

    play(site, state, scene)


def test_no_more_questions_than_promised(site: Site, state: Path, rsl: Path) -> None:
    async def scene(session: Session) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for job in range(30):
            await submit(session, rsl, job)
            await session.ask(f"POLL {job} - -\n")
            await asyncio.sleep(0.02)
        intervals = (loop.time() - start) / 0.2
        assert site.calls["query"] <= intervals + follower.BURST

    play(site, state, scene, "--interval 0.2")


def test_an_endpoint_that_hangs_holds_up_no_other(site: Site, state: Path, rsl: Path) -> None:
    async def scene(session: Session) -> None:
        site.hangs.add("deaf")
        session.send(f"SUBMIT 1 deaf {rsl}\n")
        contacts = await submit(session, rsl, 2, host="other")
        assert contacts[2].startswith("fickle://other/")
        site.states[job_of(contacts[2])] = JobState.done(0)
        assert await told(session) == ["2 SUCCESS DONE:0"]

    play(site, state, scene)


def test_there_is_room_for_a_number_of_jobs(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SUBMIT_TIME", 1.0)

    async def scene(session: Session) -> None:
        await submit(session, rsl, 1, 2)
        session.send(f"SUBMIT 3 host {rsl}\n")
        assert await session.silence(0.1) == ""
        site.states["0"] = JobState.done(0)
        lines = sorted(await session.lines(2))
        assert lines[0] == "CALLBACK 1 SUCCESS DONE:0"
        assert lines[1].startswith("SUBMIT 3 SUCCESS ")
        assert await submit(session, rsl, 4) == {4: "2 jobs are there already (--max-jobs)"}

    play(site, state, scene, "--max-jobs 2")


def test_nothing_turns_while_there_is_no_room(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = Counter[str]()
    take = submitter.Submitter._take

    def count(self: submitter.Submitter, now: float) -> list[submitter.Order]:
        turns["take"] += 1
        return take(self, now)

    monkeypatch.setattr(submitter.Submitter, "_take", count)

    async def scene(session: Session) -> None:
        await submit(session, rsl, 1)
        session.send(f"SUBMIT 2 host {rsl}\nSUBMIT 3 host {rsl}\n")
        assert await session.silence(0.1) == ""
        before = turns["take"]
        assert await session.silence(0.3) == ""
        assert turns["take"] - before <= 2
        site.states["0"] = JobState.done(0)
        assert {line.split()[0] for line in await session.lines(2)} == {"CALLBACK", "SUBMIT"}

    play(site, state, scene, "--max-jobs 1")


def test_a_state_that_the_resource_tells_before_the_job_is_committed_is_not_lost(
    site: Site, state: Path, rsl: Path
) -> None:
    async def scene(session: Session) -> None:
        resource = session.service.driver._resource  # type: ignore[attr-defined]

        async def commit(endpoint: str, jobs: Mapping[JobId, str]) -> None:
            for job_id in jobs:
                resource.report(endpoint, job_id, JobState.done(6))
                del site.states[job_id]
            await asyncio.sleep(0)

        resource.commit = commit
        session.send(f"SUBMIT 1 host {rsl}\n")
        first, second = await session.lines(2)
        assert first.startswith("SUBMIT 1 SUCCESS fickle://")
        assert second == "CALLBACK 1 SUCCESS DONE:6"

    play(site, state, scene)


# ---------------------------------------------------------------- trouble


def test_nothing_is_told_of_an_endpoint_that_fails(site: Site, state: Path, rsl: Path) -> None:
    async def scene(session: Session) -> None:
        contact = (await submit(session, rsl, 1))[1]
        site.states["0"] = ACTIVE
        assert await told(session) == ["1 SUCCESS ACTIVE"]
        site.is_down = True
        site.states["0"] = JobState.done(0)
        assert await session.silence(0.3) == ""
        assert await session.ask("POLL 1 - -\n") == ["POLL 1 SUCCESS ACTIVE"]
        assert await session.ask(f"RECOVER 1 {contact} -\n") == ["RECOVER 1 SUCCESS PENDING"]
        site.is_down = False
        assert await told(session) == ["1 SUCCESS DONE:0"]

    play(site, state, scene)


def test_an_endpoint_that_fails_is_asked_ever_less(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "LONGEST_PAUSE", 60.0)

    async def scene(session: Session) -> None:
        await submit(session, rsl, 1)
        site.is_down = True
        before = site.calls.total()
        await asyncio.sleep(1.0)
        assert site.calls.total() - before <= 7

    play(site, state, scene)


@pytest.mark.parametrize("error", [NotSubmittedError("no connection"), TransientError("cut")])
def test_what_was_not_taken_is_submitted_again(
    site: Site, state: Path, rsl: Path, error: Exception
) -> None:
    async def scene(session: Session) -> None:
        site.trouble["submit"] = [error, error]
        contacts = await submit(session, rsl, 1, 2, 3)
        assert all(contact.startswith("fickle://") for contact in contacts.values())
        assert set(site.owners.values()) == {1}

    play(site, state, scene)


@pytest.mark.parametrize("error", [TransientError("cut"), TimeoutError(), ValueError("a bug")])
def test_what_was_taken_in_silence_is_found(
    site: Site, state: Path, rsl: Path, error: Exception
) -> None:
    async def scene(session: Session) -> None:
        site.late_trouble = [error]
        site.trouble["find"] = [TransientError("still down")]
        contacts = await submit(session, rsl, 1, 2, 3)
        assert sorted(map(job_of, contacts.values())) == ["0", "1", "2"]
        assert set(site.owners.values()) == {1}
        site.states["1"] = JobState.done(4)
        await told(session)

    play(site, state, scene)


def test_what_a_resource_had_still_to_read_is_found(site: Site, state: Path, rsl: Path) -> None:
    site.stands_still = True

    async def scene(session: Session) -> None:
        submission = asyncio.create_task(submit(session, rsl, 1))
        while not site.is_down:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)  # longer than it takes to settle
        site.is_down = False
        await submission

    play(site, state, scene)
    assert site.owners == {"1": 1}


def test_a_submission_that_nobody_could_finish_is_a_failure_and_leaves_no_twin(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SUBMIT_TIME", 0.5)

    async def scene(session: Session) -> None:
        site.late_trouble = [TransientError("cut")]
        site.trouble["find"] = [TransientError("unreachable")] * 100
        assert await submit(session, rsl, 1) == {1: "cut"}
        site.trouble.clear()
        contact = (await submit(session, rsl, 1))[1]
        assert job_of(contact) == "0"
        assert site.owners["1"] == 1

    play(site, state, scene)


def test_a_job_that_the_resource_lost_is_told_after_several_answers(
    site: Site, state: Path, rsl: Path
) -> None:
    async def scene(session: Session) -> None:
        await submit(session, rsl, 1, 2)
        site.states["0"] = ACTIVE
        assert await told(session) == ["1 SUCCESS ACTIVE"]
        site.states.clear()
        lines = sorted(await told(session, 2))
        assert lines == ["1 SUCCESS DONE", f"2 FAILURE {follower.VANISHED}"]

    play(site, state, scene)


def test_a_job_that_is_missing_once_is_not_lost(site: Site, state: Path, rsl: Path) -> None:
    async def scene(session: Session) -> None:
        await submit(session, rsl, 1)
        found = site.states.pop("0")
        asked = site.calls["query"]
        await until(lambda: site.calls["query"] > asked)
        site.states["0"] = found
        assert await session.silence(0.3) == ""

    play(site, state, scene)


def test_a_look_that_hangs_holds_up_no_question(site: Site, state: Path, rsl: Path) -> None:
    async def scene(session: Session) -> None:
        resource = session.service.driver._resource  # type: ignore[attr-defined]
        looks = 0

        async def hang(endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
            nonlocal looks
            looks += 1
            await asyncio.sleep(3600)
            return {}

        resource.looks, resource.look = True, hang
        await submit(session, rsl, 1)
        await until(lambda: looks == 1)
        site.states["0"] = JobState.done(2)
        assert await told(session) == ["1 SUCCESS DONE:2"]

    play(site, state, scene)


def test_a_host_that_is_no_text_is_refused(site: Site, state: Path, rsl: Path) -> None:
    async def scene(session: Session) -> None:
        session.send(b"SUBMIT 1 h\xff %b\n" % bytes(rsl))
        assert (await session.lines(1))[0].startswith("SUBMIT 1 FAILURE ")
        assert site.owners.total() == 0
        await submit(session, rsl, 2)

    play(site, state, scene)


def test_old_files_that_cannot_be_reached_hold_up_no_job(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "EXPIRY_INTERVAL", 0.05)
    mounted = threading.Event()
    waiting: list[Path] = []

    def hang(folder: Path, *_: object) -> None:
        waiting.append(folder)
        mounted.wait()

    monkeypatch.setattr(ledger, "expire_files", hang)

    async def scene(session: Session) -> None:
        try:
            await until(lambda: bool(waiting))
            await submit(session, rsl, 1)
            assert await session.silence(0.2) == ""
            assert len(waiting) == 1
        finally:
            mounted.set()

    play(site, state, scene)


# ---------------------------------------------------------------- CANCEL


def test_a_cancellation_is_accepted_at_once_and_carried_out_when_it_can_be(
    site: Site, state: Path, rsl: Path
) -> None:
    async def scene(session: Session) -> None:
        await submit(session, rsl, 1)
        site.is_down = True
        assert await session.ask("CANCEL 1 - -\n") == ["CANCEL 1 SUCCESS -"]
        assert await session.ask("CANCEL 1 - -\n") == ["CANCEL 1 SUCCESS -"]
        assert await session.silence() == ""
        site.is_down = False
        assert await told(session) == ["1 SUCCESS DONE:143"]
        assert site.cancelled == ["0"]

    play(site, state, scene)


def test_a_cancellation_that_had_no_effect_is_repeated(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "CANCEL_AGAIN", 0.1)

    async def scene(session: Session) -> None:
        await submit(session, rsl, 1)
        await session.ask("CANCEL 1 - -\n")
        await until(lambda: bool(site.cancelled))
        site.states["0"] = ACTIVE
        lines = await told(session)
        while lines[-1] != "1 SUCCESS DONE:143":
            lines += await told(session)
        assert len(site.cancelled) >= 2

    play(site, state, scene)


def test_a_successor_goes_on_with_a_cancellation(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first(session: Session) -> None:
        await submit(session, rsl, 1)
        site.is_down = True
        await session.ask("CANCEL 1 - -\n")

    async def second(session: Session) -> None:
        assert await session.ask("POLL 1 - -\n") == ["POLL 1 SUCCESS PENDING"]
        site.is_down = False
        assert await told(session) == ["1 SUCCESS DONE:143"]

    play(site, state, first)
    assert site.cancelled == []
    die(monkeypatch)
    play(site, state, second)


# ---------------------------------------------------------------- a driver that dies


async def submit_and_die(session: Session, site: Site, rsl: Path, *jobs: int) -> None:
    """The resource took the jobs, and nobody was told."""
    taken = site.owners.total()

    async def submit_and_hang(self: Fickle, endpoint: str, tasks: Sequence[Task]) -> None:
        for task in tasks:
            site.take(task)
        await asyncio.sleep(3600)

    resource = session.service.driver._resource  # type: ignore[attr-defined]
    type(resource).submit = submit_and_hang
    session.send("".join(f"SUBMIT {job} host {rsl}\n" for job in jobs))
    await until(lambda: site.owners.total() == taken + len(jobs))


def test_a_job_that_was_begun_is_taken_over(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first(session: Session) -> None:
        await submit_and_die(session, site, rsl, 1, 2, 3)

    async def second(session: Session) -> None:
        site.states["1"] = JobState.done(5)
        contacts = await submit(session, rsl, 1, 2, 3)
        assert sorted(map(job_of, contacts.values())) == ["0", "1", "2"]
        assert set(site.owners.values()) == {1}
        assert (await told(session))[0].endswith(" SUCCESS DONE:5")

    play(site, state, first, "--timeout 60")
    die(monkeypatch)
    play(site, state, second)


def test_a_job_that_was_begun_and_is_another_now_is_ended_first(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first(session: Session) -> None:
        await submit_and_die(session, site, rsl, 1)

    async def second(session: Session) -> None:
        rsl.write_text(RSL.replace("true", "false"))
        contact = (await submit(session, rsl, 1))[1]
        assert site.cancelled == ["0"]
        assert job_of(contact) == "1"

    play(site, state, first, "--timeout 60")
    die(monkeypatch)
    play(site, state, second)


def test_a_job_that_was_never_taken_is_submitted(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first(session: Session) -> None:
        site.hangs.add("host")
        session.send(f"SUBMIT 1 host {rsl}\n")
        await until(lambda: site.calls["submit"] == 1)

    async def second(session: Session) -> None:
        contact = (await submit(session, rsl, 1))[1]
        assert job_of(contact) == "0"
        assert site.calls["find"] >= 1

    play(site, state, first, "--timeout 60")
    site.hangs.clear()
    die(monkeypatch)
    play(site, state, second)


def test_a_job_whose_answer_was_lost_is_taken_over(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the journal with its contact, but gwd never read that."""

    async def first(session: Session) -> None:
        await submit(session, rsl, 1)

    async def second(session: Session) -> None:
        contact = (await submit(session, rsl, 1))[1]
        assert job_of(contact) == "0"

    play(site, state, first)
    die(monkeypatch)
    play(site, state, second)
    assert site.owners["1"] == 1


def test_a_job_that_gwd_recovered_may_be_submitted_again(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contacts: dict[int, str] = {}

    async def first(session: Session) -> None:
        contacts.update(await submit(session, rsl, 1))

    async def second(session: Session) -> None:
        site.states["0"] = JobState.failed("its node failed")
        session.send(f"RECOVER 1 {contacts[1]} -\n")
        assert await session.lines(2) == [
            "RECOVER 1 SUCCESS PENDING",
            "CALLBACK 1 FAILURE its node failed",
        ]
        assert job_of((await submit(session, rsl, 1))[1]) == "1"

    play(site, state, first)
    die(monkeypatch)
    play(site, state, second)


def test_what_gwd_never_asks_for_again_is_ended(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "WANTED_TIME", 0.2)

    async def first(session: Session) -> None:
        await submit_and_die(session, site, rsl, 1)

    async def second(session: Session) -> None:
        await until(lambda: site.cancelled == ["0"])

    play(site, state, first, "--timeout 60")
    die(monkeypatch)
    play(site, state, second)


def test_an_end_that_a_dead_driver_did_not_tell_is_in_the_journal(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contacts: dict[int, str] = {}

    async def first(session: Session) -> None:
        contacts.update(await submit(session, rsl, 1, 2))
        site.states["0"] = JobState.done(7)
        assert await told(session) == ["1 SUCCESS DONE:7"]
        await until(lambda: site.released == ["0"])
        del site.states["0"]

    async def second(session: Session) -> None:
        session.send("".join(f"RECOVER {job} {contacts[job]} -\n" for job in (2, 1)))
        assert sorted(await session.lines(2)) == [
            "RECOVER 1 SUCCESS DONE:7",
            "RECOVER 2 SUCCESS PENDING",
        ]
        # The one that died may not have come to that.
        await until(lambda: site.released == ["0", "0"])

    play(site, state, first)
    die(monkeypatch)
    play(site, state, second)


def test_a_storm_of_recoveries_is_one_question(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contacts: dict[int, str] = {}

    async def first(session: Session) -> None:
        contacts.update(await submit(session, rsl, *range(200)))

    async def second(session: Session) -> None:
        site.states.update(dict.fromkeys(site.states, ACTIVE))
        site.states[job_of(contacts[5])] = JobState.done(9)
        asked = site.calls["query"]
        answers = await session.ask(
            "".join(f"RECOVER {job} {contact} -\n" for job, contact in contacts.items())
        )
        assert Counter(line.split()[-1] for line in answers) == {"ACTIVE": 199, "DONE:9": 1}
        assert site.calls["query"] - asked <= 2

    play(site, state, first)
    die(monkeypatch)
    play(site, state, second)


def test_no_recovery_waits_for_another_endpoint(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contacts: dict[int, str] = {}

    async def first(session: Session) -> None:
        contacts.update(await submit(session, rsl, 1, host="deaf"))
        contacts.update(await submit(session, rsl, 2, host="other"))

    async def second(session: Session) -> None:
        site.hangs.add("deaf")
        site.states[job_of(contacts[2])] = ACTIVE
        session.send("".join(f"RECOVER {job} {contact} -\n" for job, contact in contacts.items()))
        assert await session.lines(1) == ["RECOVER 2 SUCCESS ACTIVE"]
        assert await session.lines(1) == ["RECOVER 1 SUCCESS PENDING"]

    play(site, state, first)
    die(monkeypatch)
    play(site, state, second)


def test_jobs_are_found_though_there_is_no_journal(
    site: Site, state: Path, rsl: Path, tmp_path: Path
) -> None:
    contact = str(JobName("fickle", "host", "0", new_tags(1)[0]))
    site.states["0"] = ACTIVE
    blocked = tmp_path / "file"
    blocked.write_text("")

    async def scene(session: Session) -> None:
        assert await session.ask(f"RECOVER 1 {contact} -\n") == ["RECOVER 1 SUCCESS ACTIVE"]
        text = (await submit(session, rsl, 2))[2]
        assert "journal" in text
        assert site.owners.total() == 0

    play(site, blocked / "state", scene)


def test_what_is_no_contact_of_ours_is_unknown(site: Site, state: Path) -> None:
    async def scene(session: Session) -> None:
        answers = await session.ask(
            "RECOVER 1 fork://x -\nRECOVER 2 fickle://host/0/short -\nCANCEL 3 - -\nPOLL 4 - -\n"
        )
        assert all(line.split()[2] == "FAILURE" for line in answers)

    play(site, state, scene)


def test_a_job_that_gwd_recovered_is_not_ended_though_its_record_failed(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full between the intent and the record: gwd has a contact, the journal none."""
    monkeypatch.setattr(engine, "WANTED_TIME", 0.2)
    contacts: dict[int, str] = {}

    async def first(session: Session) -> None:
        def fail(*_: object) -> None:
            raise DriverError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "record", fail)
            contacts.update(await submit(session, rsl, 1))

    async def second(session: Session) -> None:
        assert await session.ask(f"RECOVER 1 {contacts[1]} -\n") == ["RECOVER 1 SUCCESS PENDING"]
        assert await session.silence(0.5) == ""
        assert site.cancelled == []

    async def third(session: Session) -> None:
        await session.ask("CANCEL 1 - -\n")
        assert await told(session) == ["1 SUCCESS DONE:143"]

    play(site, state, first)
    die(monkeypatch)
    play(site, state, second)
    play(site, state, third)


def test_a_job_of_which_gwd_says_nothing_is_followed_and_not_taken_for_a_later_one(
    site: Site, state: Path, rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gwd that was started anew without its jobs gives their ids to others after a while."""
    monkeypatch.setattr(engine, "WANTED_TIME", 0.1)

    async def first(session: Session) -> None:
        await submit(session, rsl, 1)

    async def second(session: Session) -> None:
        asked = site.calls["query"]
        await until(lambda: site.calls["query"] > asked)
        assert job_of((await submit(session, rsl, 1))[1]) == "1"
        assert site.cancelled == []
        site.states["0"] = JobState.done(0)
        assert await session.silence(0.3) == "", "what became of the old one is nobody's business"

    play(site, state, first)
    die(monkeypatch)
    play(site, state, second)


def test_an_id_that_the_resource_gives_again_is_another_job(
    site: Site, state: Path, rsl: Path
) -> None:
    """Its own records are lost, and it counts from the beginning."""

    async def scene(session: Session) -> None:
        await submit(session, rsl, 1)
        site.states["0"] = ACTIVE
        assert await told(session) == ["1 SUCCESS ACTIVE"]
        site.states.clear()
        contact = (await submit(session, rsl, 2))[2]
        assert job_of(contact) == "0"
        assert await told(session) == ["1 SUCCESS DONE"]
        assert await session.ask("POLL 2 - -\n") == ["POLL 2 SUCCESS PENDING"]
        site.states["0"] = JobState.done(4)
        assert await told(session) == ["2 SUCCESS DONE:4"]

    play(site, state, scene)


def test_what_gwd_asks_of_a_job_is_never_done_to_another_that_has_its_id(
    site: Site, state: Path, rsl: Path
) -> None:
    old = str(JobName("fickle", "host", "0", new_tags(1)[0]))

    async def scene(session: Session) -> None:
        contact = (await submit(session, rsl, 1))[1]
        assert job_of(contact) == "0"
        assert await session.ask(f"RECOVER 2 {old} -\n") == ["RECOVER 2 SUCCESS PENDING"]
        assert (await session.ask("CANCEL 2 - -\n"))[0].startswith("CANCEL 2 FAILURE ")
        site.states["0"] = JobState.done(0)
        assert await told(session) == ["1 SUCCESS DONE:0"]
        assert site.cancelled == []

    play(site, state, scene)


# ---------------------------------------------------------------- all at once


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_whatever_fails_when_each_job_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int
) -> None:
    random_ = random.Random(seed)
    site = Site()
    folder = tmp_path_factory.mktemp("engine")
    rsl = folder / "job.rsl"
    rsl.write_text(RSL)
    kinds = (NotSubmittedError("no"), TransientError("cut"), ValueError("bug"))
    site.trouble = {
        name: [random_.choice(kinds) for _ in range(random_.randrange(4))]
        for name in ("submit", "find", "query")
    }
    site.late_trouble = [random_.choice(kinds[1:]) for _ in range(random_.randrange(3))]

    async def scene(session: Session) -> None:
        contacts = await submit(session, rsl, *range(count))
        for job in range(count):
            site.states[job_of(contacts[job])] = JobState.done(job % 256)
        lines = await told(session, count)
        assert sorted(lines) == sorted(f"{job} SUCCESS DONE:{job % 256}" for job in range(count))
        assert set(site.owners.values()) == {1}

    play(site, folder / "state", scene)
