"""What gwd is told of its jobs, with drivers that tell too early, too late or too much."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from gridmad.driver import Batch, MaybeAwaitable
from gridmad.errors import DriverError, TransientError, UnknownJobError
from gridmad.execution.driver import Contact, ExecutionDriver
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState, Submission
from gridmad.execution.service import ExecutionService
from gridmad.wire import EXECUTION, Parser
from tests.unit.session import Session, options

RSL = "<job><executable>/bin/true</executable></job>"


class Jobs(ExecutionDriver):
    """Jobs as the test wants them: a contact is `job-<id>`."""

    def __init__(self, deadline: float | None = None) -> None:
        super().__init__(
            options(ExecutionService, Jobs, f"--deadline {deadline}" if deadline else "")
        )
        self.submitted: list[Submission] = []
        self.cancelled: list[Contact] = []
        self.asked: list[list[Contact]] = []
        self.state: JobState | DriverError = ACTIVE

    def submit(
        self, submissions: Batch[Submission, Contact]
    ) -> MaybeAwaitable[Sequence[Contact | DriverError] | None]:
        self.submitted += submissions
        return [f"job-{submission.job_id}" for submission in submissions]

    def poll(
        self, contacts: Batch[Contact, JobState]
    ) -> MaybeAwaitable[Sequence[JobState | DriverError] | None]:
        self.asked.append(list(contacts))
        return [self.state] * len(contacts)

    def cancel(
        self, contacts: Batch[Contact, None]
    ) -> MaybeAwaitable[Sequence[DriverError | None] | None]:
        self.cancelled += contacts
        return [None] * len(contacts)

    def recover(
        self, contacts: Batch[Contact, JobState]
    ) -> MaybeAwaitable[Sequence[JobState | DriverError] | None]:
        return [self.state] * len(contacts)


Scene = Callable[[Session, Jobs, Path], Coroutine[Any, Any, None]]


@pytest.fixture
def rsl(tmp_path: Path) -> Path:
    path = tmp_path / "job.rsl.0"
    path.write_text(RSL)
    return path


def play(driver: Jobs, rsl: Path, scene: Scene) -> None:
    async def run() -> None:
        async with Session(ExecutionService(driver)) as session:
            assert await session.ask("INIT 200 - -\n") == ["INIT - SUCCESS -"]
            await scene(session, driver, rsl)

    asyncio.run(run())


async def submit(session: Session, rsl: Path, job_id: int = 1) -> None:
    assert await session.ask(f"SUBMIT {job_id} host/jobmanager-fork {rsl}\n") == [
        f"SUBMIT {job_id} SUCCESS job-{job_id}"
    ]


# ---------------------------------------------------------------- SUBMIT


def test_the_same_order_is_known_again_and_that_of_another_gwd_is_not(rsl: Path) -> None:
    template = rsl.with_name("job.template")

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        await submit(session, rsl)
        template.write_text("EXECUTABLE=true\n")
        os.utime(template, ns=(1, 1_000_000_001))
        await submit(session, rsl)
        # A driver that was started anew gets the same order, written again.
        rsl.write_text(RSL)
        await submit(session, rsl)
        # Another gwd's job 1, and the same job's second attempt.
        os.utime(template, ns=(1, 2_000_000_002))
        await submit(session, rsl)
        rsl.write_text(RSL.replace("true", "false"))
        await submit(session, rsl)
        digests = [one.digest for one in driver.submitted]
        assert digests[1] == digests[2]
        assert len(set(digests)) == 4

    play(Jobs(), rsl, scene)


def test_a_submission_says_who_where_and_what(rsl: Path) -> None:
    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        await submit(session, rsl, 12345)
        assert await session.ask(f"submit 2 host {rsl} \n") == ["SUBMIT 2 SUCCESS job-2"]
        first, second = driver.submitted
        assert (first.job_id, first.host, first.job_manager) == (
            "12345", "host", "jobmanager-fork"
        )  # fmt: skip
        assert (second.host, second.job_manager) == ("host", "")
        assert first.description.executable == "/bin/true"

    play(Jobs(), rsl, scene)


def test_what_the_model_does_not_have_is_logged_once(
    rsl: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rsl.write_text("&(executable=/bin/true)(gpus=2)(save_state=yes)")
    caplog.set_level("INFO", "gridmad.execution.service")

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        await submit(session, rsl)
        assert driver.submitted[0].description.extra == {"gpus": "2", "savestate": "yes"}

    play(Jobs(), rsl, scene)
    assert caplog.messages == ["job 1: attributes that the model does not have: gpus, savestate"]


def test_files_that_the_driver_does_not_stage_are_warned_of(
    rsl: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rsl.write_text(
        '&(executable=a)(inputFiles=("in" "gsiftp://se.example.org/in")("here" "(null)"))'
        '(outputFiles=("out" "gsiftp://se.example.org/out"))'
    )

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        await submit(session, rsl)

    play(Jobs(), rsl, scene)
    assert caplog.messages == ["job 1: this driver stages none of its files: in, out"]


def test_a_description_that_cannot_be_read_fails_alone(rsl: Path, tmp_path: Path) -> None:
    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        (tmp_path / "large").write_bytes(b"x" * ((1 << 20) + 1))
        (tmp_path / "empty").write_bytes(b"")
        session.send(
            f"SUBMIT 1 h {rsl}.no\nSUBMIT 2 h {rsl}\nSUBMIT 3 h {tmp_path}\n"
            f"SUBMIT 4 h {tmp_path}/large\nSUBMIT 5 h {tmp_path}/empty\n"
        )
        answers = sorted(await session.lines(5))
        assert [answer.split()[2] for answer in answers] == [
            "FAILURE", "SUCCESS", "FAILURE", "FAILURE", "FAILURE"
        ]  # fmt: skip
        assert "No such file" in answers[0]
        assert len(driver.submitted) == 1

    play(Jobs(), rsl, scene)


def test_a_pipe_for_a_description_fails_alone(rsl: Path, tmp_path: Path) -> None:
    """Nobody writes into it, and nothing waits for that."""

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        session.send(f"SUBMIT 1 h {tmp_path}/pipe\nSUBMIT 2 h {rsl}\n")
        assert sorted(await session.lines(2)) == [
            f"SUBMIT 1 FAILURE {tmp_path}/pipe: it is no file",
            "SUBMIT 2 SUCCESS job-2",
        ]

    play(Jobs(), rsl, scene)


def test_a_description_that_hangs_holds_up_nothing_else(
    rsl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system whose server is gone."""
    is_back = threading.Event()

    def read(path: str) -> bytes:
        is_back.wait(10)
        return Path(path).read_bytes()

    monkeypatch.setattr("gridmad.execution.service._read", read)

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        session.send(f"SUBMIT 1 h {rsl}\nRECOVER 2 job-2 -\n")
        assert await session.lines(1) == ["RECOVER 2 SUCCESS ACTIVE"]
        assert await session.lines(1) == ["SUBMIT 1 FAILURE no answer within 0.1 seconds"]
        is_back.set()
        assert await session.silence() == ""
        assert driver.submitted == []

    play(Jobs(deadline=0.1), rsl, scene)


def test_a_callback_never_comes_before_the_answer(rsl: Path) -> None:
    class Early(Jobs):
        async def submit(
            self, submissions: Batch[Submission, Contact]
        ) -> Sequence[Contact | DriverError]:
            self.report("job-1", PENDING)
            self.report("job-1", ACTIVE)
            await asyncio.sleep(0.05)
            self.report("job-1", JobState.done(7))
            return ["job-1"]

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        session.send(f"SUBMIT 1 h {rsl}\n")
        assert await session.lines(3) == [
            "SUBMIT 1 SUCCESS job-1",
            "CALLBACK 1 SUCCESS ACTIVE",
            "CALLBACK 1 SUCCESS DONE:7",
        ]

    play(Early(), rsl, scene)


def test_an_early_state_of_a_job_that_failed_to_submit_is_not_told(rsl: Path) -> None:
    class Refused(Jobs):
        async def submit(
            self, submissions: Batch[Submission, Contact]
        ) -> Sequence[Contact | DriverError]:
            self.report("job-1", ACTIVE)
            return [DriverError("no such queue")]

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        assert await session.ask(f"SUBMIT 1 h {rsl}\n") == ["SUBMIT 1 FAILURE no such queue"]
        assert await session.silence() == ""

    play(Refused(), rsl, scene)


def test_a_job_that_was_submitted_past_its_deadline_is_ended(rsl: Path) -> None:
    class Late(Jobs):
        async def submit(
            self, submissions: Batch[Submission, Contact]
        ) -> Sequence[Contact | DriverError]:
            await asyncio.sleep(0.15)
            return [f"late-{len(self.cancelled)}"]

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        (answer,) = await session.ask(f"SUBMIT 1 h {rsl}\n")
        assert answer == "SUBMIT 1 FAILURE no answer within 0.1 seconds"
        assert await session.silence(0.5) == ""
        assert driver.cancelled == ["late-0"]

    play(Late(deadline=0.1), rsl, scene)


def test_a_late_contact_does_not_touch_the_job_that_took_its_place(rsl: Path) -> None:
    class LateOnce(Jobs):
        async def submit(
            self, submissions: Batch[Submission, Contact]
        ) -> Sequence[Contact | DriverError]:
            self.submitted += submissions
            if len(self.submitted) == 1:
                await asyncio.sleep(0.15)
                return ["late"]
            return ["second"]

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        (answer,) = await session.ask(f"SUBMIT 1 h {rsl}\n")
        assert "FAILURE" in answer
        assert await session.ask(f"SUBMIT 1 h {rsl}\n") == ["SUBMIT 1 SUCCESS second"]
        await asyncio.sleep(0.3)
        assert driver.cancelled == ["late"]
        driver.report("late", JobState.done(1))
        driver.report("second", JobState.done(0))
        assert await session.silence() == "CALLBACK 1 SUCCESS DONE:0\n"

    play(LateOnce(deadline=0.1), rsl, scene)


@pytest.mark.parametrize("contact", ["", "two words", "x" * 1000, "é", "a\nb", "a\x1cb", "a\x00b"])
def test_a_contact_that_gwd_would_garble_is_refused_and_its_job_ended(
    rsl: Path, contact: str
) -> None:
    class Odd(Jobs):
        def submit(self, submissions: Batch[Submission, Contact]) -> list[Contact | DriverError]:
            return [contact]

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        (answer,) = await session.ask(f"SUBMIT 1 h {rsl}\n")
        assert answer.startswith("SUBMIT 1 FAILURE unusable contact")
        await asyncio.sleep(0.01)
        assert driver.cancelled == [contact]

    play(Odd(), rsl, scene)


def test_a_second_submit_replaces_the_job(rsl: Path) -> None:
    class Numbered(Jobs):
        def submit(self, submissions: Batch[Submission, Contact]) -> list[Contact | DriverError]:
            self.submitted += submissions
            return [f"job-{len(self.submitted)}"]

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        assert await session.ask(f"SUBMIT 1 h/fork {rsl}\n") == ["SUBMIT 1 SUCCESS job-1"]
        driver.report("job-1", JobState.done(0))
        rsl.write_text(RSL.replace("true", "false"))
        session.send(f"SUBMIT 1 h/lrms {rsl}\n")
        assert await session.lines(2) == ["CALLBACK 1 SUCCESS DONE:0", "SUBMIT 1 SUCCESS job-2"]
        assert [job.description.executable for job in driver.submitted] == [
            "/bin/true", "/bin/false"
        ]  # fmt: skip
        driver.report("job-1", JobState.failed("old"))
        driver.report("job-2", ACTIVE)
        await session.ask("POLL 1 - -\n")
        assert driver.asked == [["job-2"]]

    play(Numbered(), rsl, scene)


# ---------------------------------------------------------------- CALLBACK


def test_each_change_is_told_once_and_nothing_after_the_end(rsl: Path) -> None:
    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        await submit(session, rsl)
        for state in (PENDING, ACTIVE, ACTIVE, SUSPENDED, ACTIVE, JobState.done(143)):
            driver.report("job-1", state)
        for state in (ACTIVE, JobState.failed("late"), JobState.done(0)):
            driver.report("job-1", state)
        driver.report("unknown", ACTIVE)
        assert (await session.silence()).splitlines() == [
            "CALLBACK 1 SUCCESS ACTIVE",
            "CALLBACK 1 SUCCESS SUSPENDED",
            "CALLBACK 1 SUCCESS ACTIVE",
            "CALLBACK 1 SUCCESS DONE:143",
        ]

    play(Jobs(), rsl, scene)


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (JobState.done(0), "CALLBACK 1 SUCCESS DONE:0"),
        (JobState.done(None), "CALLBACK 1 SUCCESS DONE"),
        (JobState.failed("node\ndied"), "CALLBACK 1 FAILURE node died"),
        (JobState.failed(""), "CALLBACK 1 FAILURE the job failed"),
    ],
)
def test_how_an_end_is_told(rsl: Path, state: JobState, line: str) -> None:
    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        await submit(session, rsl)
        driver.report("job-1", state)
        assert await session.lines(1) == [line]

    play(Jobs(), rsl, scene)


def test_a_state_that_poll_told_is_not_told_again(rsl: Path) -> None:
    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        await submit(session, rsl)
        assert await session.ask("POLL 1 - -\n") == ["POLL 1 SUCCESS ACTIVE"]
        driver.report("job-1", ACTIVE)
        assert await session.silence() == ""
        driver.state = JobState.failed("lost")
        assert await session.ask("POLL 1 - -\n") == ["POLL 1 SUCCESS FAILED"]
        driver.report("job-1", JobState.failed("lost"))
        assert await session.silence() == ""

    play(Jobs(), rsl, scene)


# ---------------------------------------------------------------- POLL, CANCEL


@pytest.mark.parametrize("error", [TransientError("busy"), DriverError("odd")])
def test_a_poll_that_fails_answers_the_last_known_state(rsl: Path, error: DriverError) -> None:
    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        await submit(session, rsl)
        driver.report("job-1", SUSPENDED)
        await session.lines(1)
        driver.state = error
        assert await session.ask("POLL 1 - -\n" * 4) == ["POLL 1 SUCCESS SUSPENDED"] * 4

    play(Jobs(), rsl, scene)


def test_a_poll_that_raises_or_hangs_answers_the_last_known_state(rsl: Path) -> None:
    class Broken(Jobs):
        async def poll(self, contacts: Batch[Contact, JobState]) -> None:
            if len(self.asked) == 0:
                self.asked.append([])
                raise RuntimeError("oh")
            await asyncio.sleep(3600)

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        await submit(session, rsl)
        assert await session.ask("POLL 1 - -\n") == ["POLL 1 SUCCESS PENDING"]
        driver.report("job-1", ACTIVE)
        await session.lines(1)
        assert await session.ask("POLL 1 - -\n") == ["POLL 1 SUCCESS ACTIVE"]

    play(Broken(deadline=0.2), rsl, scene)


def test_a_job_that_gwd_did_not_recover_is_remembered(rsl: Path) -> None:
    """As one that was being cancelled when the driver died."""

    class Remembers(Jobs):
        def remembered(self, job_id: str) -> Contact | None:
            return {"9": "job-9"}.get(job_id)

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        assert await session.ask("POLL 9 - -\n") == ["POLL 9 SUCCESS ACTIVE"]
        assert await session.ask("CANCEL 9 - -\n") == ["CANCEL 9 SUCCESS -"]
        assert driver.cancelled == ["job-9"]
        driver.report("job-9", JobState.done(143))
        assert await session.lines(1) == ["CALLBACK 9 SUCCESS DONE:143"]
        assert await session.ask("POLL 8 - -\n") == ["POLL 8 FAILURE no job 8 is known here"]

    play(Remembers(), rsl, scene)


def test_a_poll_of_a_job_that_is_lost_fails(rsl: Path) -> None:
    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        await submit(session, rsl)
        driver.state = UnknownJobError("job-1")
        assert await session.ask("POLL 1 - -\n") == ["POLL 1 FAILURE no job job-1 is known here"]

    play(Jobs(), rsl, scene)


def test_jobs_that_nobody_submitted(rsl: Path) -> None:
    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        assert await session.ask("POLL 9 - -\nCANCEL 9 - -\n") == [
            "POLL 9 FAILURE no job 9 is known here",
            "CANCEL 9 FAILURE no job 9 is known here",
        ]
        assert driver.asked == []
        assert driver.cancelled == []

    play(Jobs(), rsl, scene)


def test_a_job_that_ended_is_not_asked_for_again(rsl: Path) -> None:
    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        await submit(session, rsl)
        driver.report("job-1", JobState.done(3))
        await session.lines(1)
        assert await session.ask("POLL 1 - -\nCANCEL 1 - -\n") == [
            "POLL 1 SUCCESS DONE:3",
            "CANCEL 1 SUCCESS -",
        ]
        assert driver.asked == []
        assert driver.cancelled == []

    play(Jobs(), rsl, scene)


def test_a_cancel_is_answered_when_accepted(rsl: Path) -> None:
    class Stubborn(Jobs):
        def cancel(self, contacts: Batch[Contact, None]) -> list[DriverError | None]:
            super().cancel(contacts)
            return [DriverError("denied") if len(self.cancelled) == 1 else None]

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        await submit(session, rsl)
        assert await session.ask("CANCEL 1 - -\n") == ["CANCEL 1 FAILURE denied"]
        assert await session.ask("CANCEL 1 - -\n") == ["CANCEL 1 SUCCESS -"]
        driver.report("job-1", JobState.done(143))
        assert await session.lines(1) == ["CALLBACK 1 SUCCESS DONE:143"]

    play(Stubborn(), rsl, scene)


# ---------------------------------------------------------------- RECOVER


@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        (ACTIVE, "RECOVER 1 SUCCESS ACTIVE"),
        (JobState.done(4), "RECOVER 1 SUCCESS DONE:4"),
        (TransientError("away"), "RECOVER 1 SUCCESS PENDING"),
        (UnknownJobError("c"), "RECOVER 1 FAILURE no job c is known here"),
    ],
)
def test_a_job_is_recovered(rsl: Path, outcome: JobState | DriverError, answer: str) -> None:
    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        driver.state = outcome
        assert await session.ask("RECOVER 1 c -\n") == [answer]
        assert await session.silence() == ""

    play(Jobs(), rsl, scene)


def test_a_recovered_job_is_followed(rsl: Path) -> None:
    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        driver.state = TransientError("away")
        assert await session.ask("RECOVER 1 c -\n") == ["RECOVER 1 SUCCESS PENDING"]
        driver.report("c", ACTIVE)
        driver.report("c", JobState.done(0))
        assert await session.lines(2) == ["CALLBACK 1 SUCCESS ACTIVE", "CALLBACK 1 SUCCESS DONE:0"]

    play(Jobs(), rsl, scene)


def test_a_recovered_job_that_failed_is_told_so_that_gwd_tries_again(rsl: Path) -> None:
    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        driver.state = JobState.failed("the node died")
        session.send("RECOVER 1 c -\n")
        assert await session.lines(2) == [
            "RECOVER 1 SUCCESS PENDING",
            "CALLBACK 1 FAILURE the node died",
        ]

    play(Jobs(), rsl, scene)


def test_a_change_during_recovery_is_told_after_its_answer(rsl: Path) -> None:
    class Busy(Jobs):
        async def recover(
            self, contacts: Batch[Contact, JobState]
        ) -> Sequence[JobState | DriverError]:
            self.report("c", JobState.done(0))
            await asyncio.sleep(0.02)
            return [ACTIVE]

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        session.send("RECOVER 1 c -\n")
        assert await session.lines(2) == ["RECOVER 1 SUCCESS ACTIVE", "CALLBACK 1 SUCCESS DONE:0"]

    play(Busy(), rsl, scene)


def test_a_recovery_past_its_deadline_is_told_as_news(rsl: Path) -> None:
    class Slow(Jobs):
        async def recover(
            self, contacts: Batch[Contact, JobState]
        ) -> Sequence[JobState | DriverError]:
            await asyncio.sleep(0.15)
            return [ACTIVE]

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        session.send("RECOVER 1 c -\n")
        assert await session.lines(2) == ["RECOVER 1 SUCCESS PENDING", "CALLBACK 1 SUCCESS ACTIVE"]

    play(Slow(deadline=0.1), rsl, scene)


def test_a_driver_that_cannot_start_loses_no_job(rsl: Path) -> None:
    """A FAILURE to RECOVER is the last that gwd knows of a job."""

    class Locked(Jobs):
        is_locked = True

        async def start(self) -> None:
            if self.is_locked:
                raise DriverError("the journal is locked")

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        assert isinstance(driver, Locked)
        assert await session.ask("RECOVER 1 job-1 -\n") == ["RECOVER 1 SUCCESS PENDING"]
        assert await session.ask("POLL 1 - -\n") == ["POLL 1 SUCCESS PENDING"]
        assert await session.ask(f"SUBMIT 2 h {rsl}\n") == [
            "SUBMIT 2 FAILURE the journal is locked"
        ]
        driver.is_locked = False
        assert await session.ask("POLL 1 - -\n") == ["POLL 1 SUCCESS ACTIVE"]
        assert driver.asked == [["job-1"]]
        driver.report("job-1", JobState.done(7))
        assert await session.lines(1) == ["CALLBACK 1 SUCCESS DONE:7"]

    play(Locked(), rsl, scene)


def test_a_recovery_that_is_cut_short_loses_no_job(rsl: Path) -> None:
    """As SIGTERM and the end of file do."""

    class Slow(Jobs):
        async def start(self) -> None:
            await asyncio.Event().wait()

    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        session.send("RECOVER 1 job-1 -\n")
        session.close_stdin()
        assert await session.lines(1) == ["RECOVER 1 SUCCESS PENDING"]

    play(Slow(), rsl, scene)


def test_the_watchdog_loses_no_job(rsl: Path) -> None:
    """It answers from its own thread, which has no loop."""
    request = Parser(EXECUTION).feed(b"RECOVER 1 job-1 -\n")[0][1][0]
    service = ExecutionService(Jobs())
    answer = service.fallback("RECOVER", request, TransientError("the driver hangs"))
    assert answer == b"SUCCESS PENDING"


def test_a_job_that_is_not_known_is_not_recovered(rsl: Path) -> None:
    async def scene(session: Session, driver: Jobs, rsl: Path) -> None:
        driver.state = UnknownJobError("job-1")
        [answer] = await session.ask("RECOVER 1 job-1 -\n")
        assert answer.startswith("RECOVER 1 FAILURE")

    play(Jobs(), rsl, scene)
