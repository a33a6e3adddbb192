"""Following the jobs of one endpoint to their ends, and ending them.

The states of all jobs are asked for at once, every interval.  When something happened (a job
was submitted, cancelled, recovered) they are asked for sooner, as long as the token bucket has
some left: over a long time it is never more than one question an interval.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gridmad.errors import DriverError, TransientError
from gridmad.execution.contact import JobName
from gridmad.execution.driver import Contact
from gridmad.execution.ledger import Ledger
from gridmad.execution.link import Link
from gridmad.execution.model import PENDING, JobState, Phase
from gridmad.execution.pacing import TokenBucket
from gridmad.execution.resource import JobId, Resource

log = logging.getLogger(__name__)

BURST: Final = 3
"""Questions that may be asked at once when something happened."""
HASTE: Final = 1.0
"""Seconds after a submission or a cancellation when its effect is asked for."""
LOOK_INTERVAL: Final = 1.0
"""Seconds between looks at what can be known without asking."""
MISSES: Final = 3
"""Answers in a row that lack a job before it counts as gone, at least."""
CANCEL_AGAIN: Final = 60.0
"""Seconds after which a job that did not end is cancelled again."""
CANCELLED: Final = 143
"""The exit code of a job that was ended: 128 + SIGTERM."""
VANISHED: Final = "the resource does not know the job any more"


@dataclass(slots=True, eq=False)
class Job:
    """A job on the resource."""

    name: JobName
    may_have_run: bool = False
    """It was seen to run, or there was a time when nobody looked."""
    state: JobState = PENDING
    misses: int = 0
    missed_at: float = 0.0
    is_cancelled: bool = False
    cancelled_at: float = 0.0
    """When the resource took that; 0 for not yet."""

    @property
    def contact(self) -> Contact:
        """What gwd knows it by."""
        return str(self.name)


class Follower:
    """Calls `report(contact, state)` for every change that it sees."""

    def __init__(
        self,
        link: Link,
        resource: Resource,
        ledger: Ledger,
        report: Callable[[Contact, JobState], None],
    ) -> None:
        self._link = link
        self._resource = resource
        self._ledger = ledger
        self._report = report
        self._jobs: dict[JobId, Job] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._due = 0.0
        self._looked = 0.0
        self._questions = TokenBucket(1 / link.limits.interval, BURST)
        self._writing: set[asyncio.Task[None]] = set()
        self.job_ended: Callable[[], None] = lambda: None
        """Called when there is room for another job."""

    def __len__(self) -> int:
        return len(self._jobs)

    def get(self, job_id: JobId) -> Job | None:
        """A job that is followed."""
        return self._jobs.get(job_id)

    def follow(self, jobs: Sequence[Job]) -> None:
        """Follow jobs from here on."""
        for job in jobs:
            before = self._jobs.get(job.name.job)
            if before is not None and before.name != job.name:
                # The resource gives the id again: it has forgotten the job that had it.
                self._lose([before])
            self._jobs[job.name.job] = job
        self._hasten(HASTE)

    async def refresh(self) -> None:
        """Ask for the states of all jobs now, and wait for the answer.

        Raises TransientError where there is none.
        """
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._hasten(0.0)
        await waiter

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End jobs; tried again until the resource takes it."""
        for job in jobs:
            job.is_cancelled = True
            job.cancelled_at = 0.0
        self._link.work("canceller", self._cancel_all)

    def note(self, states: Mapping[JobId, JobState]) -> None:
        """Take states of jobs, and tell what is new.  Jobs that are not followed are ignored."""
        ended: list[Job] = []
        for job_id, found in states.items():
            job = self._jobs.get(job_id)
            if job is None:
                continue
            job.misses = 0
            state = found
            if state.phase is Phase.FAILED and job.is_cancelled:
                state = JobState.done(CANCELLED)
            if state.phase is not Phase.PENDING:
                job.may_have_run = True
            if state == job.state:
                continue
            job.state = state
            if state.is_final:
                del self._jobs[job_id]
                ended.append(job)
            self._report(job.contact, state)
        if ended:
            self._spawn(self._end(ended))
            self.job_ended()

    async def _end(self, jobs: Sequence[Job]) -> None:
        """Write down the ends of jobs, so that the resource may forget them."""
        await self._ledger.end((job.name.tag, job.state) for job in jobs)
        await self._release([job.name.job for job in jobs])

    def release(self, jobs: Sequence[JobId]) -> None:
        """Let the resource forget jobs whose ends are written down."""
        self._spawn(self._release(jobs))

    async def _release(self, jobs: Sequence[JobId]) -> None:
        try:
            await self._resource.release(self._link.endpoint, jobs)
        except DriverError as error:
            log.info("%s keeps jobs that have ended: %s", self._link.endpoint, error)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    # ------------------------------------------------------------ asking

    def _hasten(self, seconds: float) -> None:
        """Ask no later than in `seconds`."""
        self._due = min(self._due, time.monotonic() + seconds)
        self._link.work("follower", self._follow_all)

    async def _follow_all(self) -> None:
        while self._jobs or self._waiters:
            now = time.monotonic()
            pause = self._link.pause("query")
            if pause > 0:
                # Nobody waits for an endpoint that fails.
                waiters, self._waiters = self._waiters, []
                _answer(waiters, TransientError(self._link.trouble("query")))
            wait = max(self._due - now, self._questions.wait(now), pause)
            if wait <= 0:
                await self._ask(now)
            elif self._resource.looks and self._jobs:
                await self._link.wait(
                    "follower", min(wait, max(0.0, self._looked + LOOK_INTERVAL - now))
                )
                await self._look()
            else:
                await self._link.wait("follower", wait)

    async def _ask(self, now: float) -> None:
        self._questions.take(now)
        self._due = now + self._link.limits.interval
        waiters, self._waiters = self._waiters, []
        asked = self._tags()
        try:
            states: Mapping[JobId, JobState] = {}
            if asked:
                states = await self._link.call(
                    "query", self._resource.query(self._link.endpoint, asked)
                )
        except TransientError as error:
            _answer(waiters, error)
            return
        self.note(states)
        self._note_missing([job_id for job_id in asked if job_id not in states], now)
        self._cancel_late(now)
        _answer(waiters, None)

    async def _look(self) -> None:
        now = time.monotonic()
        if now < self._looked + LOOK_INTERVAL:
            return
        self._looked = now
        if self._link.pause("look") > 0:
            return
        with contextlib.suppress(TransientError):
            self.note(
                await self._link.call(
                    "look", self._resource.look(self._link.endpoint, self._tags())
                )
            )

    def _tags(self) -> dict[JobId, str]:
        return {job_id: job.name.tag for job_id, job in self._jobs.items()}

    def _note_missing(self, job_ids: Sequence[JobId], now: float) -> None:
        """The resource did not know these jobs."""
        gone: list[Job] = []
        miss_time = self._resource.miss_time
        for job_id in job_ids:
            job = self._jobs.get(job_id)
            if job is None:
                continue
            if job.misses == 0:
                job.missed_at = now
            job.misses += 1
            if job.misses < MISSES or now < job.missed_at + miss_time:
                self._due = min(self._due, now + miss_time / (MISSES - 1))
                continue
            gone.append(job)
        self._lose(gone)

    def _lose(self, jobs: Sequence[Job]) -> None:
        states: dict[JobId, JobState] = {}
        for job in jobs:
            log.warning("%s: %s", job.contact, VANISHED)
            # What ran has most likely ended, and the job's own files tell how.
            ended = JobState.done(None) if job.may_have_run else JobState.failed(VANISHED)
            states[job.name.job] = ended
        self.note(states)

    # ------------------------------------------------------------ ending

    async def _cancel_all(self) -> None:
        while jobs := self._uncancelled():
            await asyncio.sleep(self._link.pause("cancel"))
            try:
                outcomes = await self._link.call(
                    "cancel",
                    self._resource.cancel(self._link.endpoint, jobs),
                    outcomes=lambda answers: answers.values(),
                )
            except TransientError:
                continue
            now = time.monotonic()
            for job_id in jobs:
                outcome = outcomes.get(job_id)
                job = self._jobs.get(job_id)
                if isinstance(outcome, TransientError):
                    continue
                if outcome is not None:
                    log.error("%s cannot be cancelled: %s", job_id, outcome)
                if job is not None:
                    job.cancelled_at = now
            self._hasten(HASTE)

    def _uncancelled(self) -> dict[JobId, str]:
        return {
            job_id: job.name.tag
            for job_id, job in self._jobs.items()
            if job.is_cancelled and not job.cancelled_at
        }

    def _cancel_late(self, now: float) -> None:
        late = [
            job
            for job in self._jobs.values()
            if job.cancelled_at and now >= job.cancelled_at + CANCEL_AGAIN
        ]
        if late:
            self.cancel(late)


def _answer(waiters: Sequence[asyncio.Future[None]], error: TransientError | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(TransientError(str(error)))
