"""Submitting jobs to one endpoint, so that each is there once.

An order is taken with others in one chunk: the intent into the ledger, the submission, the
record.  When that was broken off, by a time-out or by the death of an earlier driver, nobody
knows whether the resource took the job.  Such a doubt is resolved by its tag: a job that is
found and is the same as what gwd orders now is taken over, another one is ended first; only
what is certainly not there is submitted again.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gridmad.errors import DriverError, NotSubmittedError, TransientError
from gridmad.execution.contact import JobName, new_tags
from gridmad.execution.driver import Contact
from gridmad.execution.follower import Follower, Job
from gridmad.execution.journal import Intent, Started
from gridmad.execution.ledger import Ledger
from gridmad.execution.link import Link
from gridmad.execution.model import Submission
from gridmad.execution.pacing import TokenBucket
from gridmad.execution.resource import JobId, Resource, Task

log = logging.getLogger(__name__)

SHORTEST_WAIT: Final = 0.01
"""Seconds; a clock that has not moved must not make a busy loop."""


@dataclass(slots=True, eq=False)
class Order:
    """A job that gwd wants submitted."""

    submission: Submission
    digest: str
    """Of all that is submitted."""
    expires: float
    """By time.monotonic()."""
    answer: Callable[[Contact | DriverError], None]
    trouble: TransientError | None = None
    """Why it was not submitted yet."""


@dataclass(slots=True, eq=False)
class Doubt:
    """A job of which nobody knows whether the resource took it."""

    job_id: str
    """gwd's."""
    tag: str
    digest: str
    endpoint: str
    since: float
    """Nothing that belongs to its submission happens after this time, but what settles."""
    job: JobId = ""
    """The resource's id of it, where a driver that died got one but may not have told it."""
    order: Order | None = None
    """What gwd wants submitted under the same id; None for one that is to be ended."""


class Submitter:
    """Calls `give_back(doubt)` for a doubt whose order had to be answered before the resource
    was.
    """

    def __init__(
        self,
        link: Link,
        resource: Resource,
        ledger: Ledger,
        follower: Follower,
        give_back: Callable[[Doubt], None],
    ) -> None:
        self._link = link
        self._resource = resource
        self._ledger = ledger
        self._follower = follower
        self._give_back = give_back
        self._orders: deque[Order] = deque()
        self._under_way = 0
        self._rate = TokenBucket(link.limits.submit_rate, max(1.0, link.limits.submit_rate))
        self._doubts: list[Doubt] = []
        follower.job_ended = self._work

    def enqueue(self, orders: Sequence[Order]) -> None:
        """Submit jobs."""
        self._orders += orders
        self._work()

    def resolve(self, doubts: Sequence[Doubt]) -> None:
        """Find out about jobs, and submit the orders of those that are not there."""
        self._doubts += doubts
        self._link.work("resolver", self._resolve_all)

    # ------------------------------------------------------------ orders

    def _work(self) -> None:
        """Have one more submitter at work, if there is something to do for it; those that wait
        look again.
        """
        for number in range(self._resource.submitters if self._orders else 0):
            name = f"submitter {number}"
            is_enough = not self._link.is_at_work(name)
            self._link.work(name, lambda name=name: self._submit_all(name))  # type: ignore[misc]
            if is_enough:
                return

    async def _submit_all(self, name: str) -> None:
        while self._orders:
            now = time.monotonic()
            self._drop_expired(now)
            pause = self._link.pause("submit") if self._has_room() else math.inf
            orders = self._take(now) if pause == 0 else []
            if not orders:
                await self._wait(name, max(pause, self._rate.wait(now)), self._orders)
                continue
            self._work()
            self._under_way += len(orders)
            try:
                await self._submit(orders)
            finally:
                self._under_way -= len(orders)
            self._work()

    def _drop_expired(self, now: float) -> None:
        expired = [order for order in self._orders if order.expires <= now]
        if expired:
            self._orders = deque(order for order in self._orders if order.expires > now)
        for order in expired:
            order.answer(order.trouble or TransientError("it could not be submitted in time"))

    @property
    def _room(self) -> int:
        return self._link.limits.max_jobs - len(self._follower) - self._under_way

    def _has_room(self) -> bool:
        """Whether another job may be there.  If not, the orders know why they wait, until one
        that ends wakes a submitter.
        """
        if self._room > 0:
            return True
        text = f"{self._link.limits.max_jobs} jobs are there already (--max-jobs)"
        for order in self._orders:
            order.trouble = TransientError(text)
        return False

    def _take(self, now: float) -> list[Order]:
        """The next chunk, as far as the limits let it through."""
        most = min(self._room, self._resource.chunk, len(self._orders))
        return [self._orders.popleft() for _ in range(self._rate.take(now, most))]

    async def _submit(self, orders: Sequence[Order]) -> None:
        tags = new_tags(len(orders))
        tasks = [Task(tag, order.submission) for tag, order in zip(tags, orders, strict=True)]
        endpoint = self._link.endpoint
        try:
            await self._ledger.intend(
                Intent(tag, order.submission.job_id, endpoint, order.digest)
                for tag, order in zip(tags, orders, strict=True)
            )
        except DriverError as error:
            for order in orders:
                order.answer(error)
            return
        outcomes: Sequence[JobId | DriverError]
        try:
            outcomes = await self._link.call(
                "submit",
                self._outcomes(tasks),
                is_refusable=True,
                outcomes=iter,
            )
        except DriverError as error:
            outcomes = [error] * len(orders)
        await self._sort(tags, orders, outcomes)

    async def _outcomes(self, tasks: Sequence[Task]) -> Sequence[JobId | DriverError]:
        outcomes = await self._resource.submit(self._link.endpoint, tasks)
        if len(outcomes) != len(tasks):
            raise ValueError(f"{len(outcomes)} outcomes for {len(tasks)} jobs")
        return outcomes

    async def _sort(
        self, tags: Sequence[str], orders: Sequence[Order], outcomes: Sequence[JobId | DriverError]
    ) -> None:
        """Take each order to where its outcome leads."""
        submitted: list[tuple[Order, Job]] = []
        refused: list[tuple[Order, DriverError]] = []
        again: list[Order] = []
        forgotten: list[str] = []
        doubts: list[Doubt] = []
        for tag, order, outcome in zip(tags, orders, outcomes, strict=True):
            if isinstance(outcome, str):
                submitted.append((order, self._job(outcome, tag)))
            elif isinstance(outcome, NotSubmittedError):
                order.trouble = outcome
                again.append(order)
                forgotten.append(tag)
            elif isinstance(outcome, TransientError):
                order.trouble = outcome
                doubts.append(self._doubt(tag, order))
            else:
                refused.append((order, outcome))
                forgotten.append(tag)
        await self._record([job for _, job in submitted], forgotten)
        for order, error in refused:
            order.answer(error)
        self._orders.extendleft(reversed(again))
        if doubts:
            self.resolve(doubts)
        await self._begin(submitted)

    def _job(self, job_id: JobId, tag: str) -> Job:
        return Job(JobName(self._resource.scheme, self._link.endpoint, job_id, tag))

    def _doubt(self, tag: str, order: Order) -> Doubt:
        job_id, now = order.submission.job_id, time.monotonic()
        return Doubt(job_id, tag, order.digest, self._link.endpoint, now, order=order)

    async def _record(self, jobs: Sequence[Job], forgotten: Sequence[str]) -> None:
        await self._ledger.record([Started(job.name.tag, job.contact) for job in jobs], forgotten)

    async def _begin(self, submitted: Sequence[tuple[Order, Job]]) -> None:
        """Jobs are there, and written down: answer, follow them, and let them run."""
        jobs = [job for _, job in submitted]
        if not jobs:
            return
        for order, job in submitted:
            order.answer(job.contact)
        # Before they may run: the resource may tell the end of one at once, and only once.
        self._follower.follow(jobs)
        try:
            await self._link.call(
                "commit",
                self._resource.commit(
                    self._link.endpoint, {job.name.job: job.name.tag for job in jobs}
                ),
            )
        except TransientError as error:
            # Those that the resource then drops are told to have failed.
            log.error("jobs are not committed: %s", error)

    async def _wait(self, name: str, seconds: float, orders: Iterable[Order]) -> None:
        """Wait, but not beyond the time when one of the orders is to be answered."""
        first = min((order.expires for order in orders), default=math.inf)
        seconds = min(seconds, first - time.monotonic())
        await self._link.wait(name, max(seconds, SHORTEST_WAIT))

    # ------------------------------------------------------------ doubts

    async def _resolve_all(self) -> None:
        while self._doubts:
            now = time.monotonic()
            self._give_up(now)
            pause = max(self._link.pause("find"), self._link.pause("cancel"))
            if pause > 0:
                orders = [doubt.order for doubt in self._doubts if doubt.order]
                await self._wait("resolver", pause, orders)
                continue
            doubts, self._doubts = self._doubts, []
            try:
                found = await self._find(doubts)
                settled = [
                    doubt
                    for doubt in doubts
                    if doubt.tag in found or now >= doubt.since + self._link.limits.settle_time
                ]
                await self._end_unwanted(settled, found)
            except TransientError:
                self._doubts += doubts
                continue
            await self._settle(settled, found)
            unsettled = [doubt for doubt in doubts if doubt not in settled]
            if unsettled:
                self._doubts += unsettled
                await asyncio.sleep(self._link.limits.settle_time / 4 + SHORTEST_WAIT)

    async def _find(self, doubts: Sequence[Doubt]) -> Mapping[str, JobId]:
        found = {doubt.tag: doubt.job for doubt in doubts if doubt.job}
        tags = [doubt.tag for doubt in doubts if not doubt.job]
        if tags:
            found.update(
                await self._link.call("find", self._resource.find(self._link.endpoint, tags))
            )
        return found

    def _give_up(self, now: float) -> None:
        """Answer the orders whose time is up."""
        late = [doubt for doubt in self._doubts if doubt.order and doubt.order.expires <= now]
        self._doubts = [doubt for doubt in self._doubts if doubt not in late]
        for doubt in late:
            order, doubt.order = doubt.order, None
            assert order is not None
            self._give_back(doubt)
            order.answer(order.trouble or TransientError("the resource did not answer in time"))

    async def _end_unwanted(self, doubts: Sequence[Doubt], found: Mapping[str, JobId]) -> None:
        """End the jobs that are there and are not what is ordered."""
        unwanted = {
            found[doubt.tag]: doubt.tag
            for doubt in doubts
            if doubt.tag in found and not _is_ordered(doubt)
        }
        if unwanted:
            log.warning("jobs that nobody wants any more are ended: %s", ", ".join(unwanted))
            outcomes = await self._link.call(
                "cancel",
                self._resource.cancel(self._link.endpoint, unwanted),
                outcomes=lambda answers: answers.values(),
            )
            for job_id, outcome in outcomes.items():
                if isinstance(outcome, TransientError):
                    raise outcome
                if outcome is not None:
                    log.error("%s cannot be ended: %s", job_id, outcome)

    async def _settle(self, doubts: Sequence[Doubt], found: Mapping[str, JobId]) -> None:
        """Take over what is ordered and there, submit what is not."""
        taken: list[tuple[Order, Job]] = []
        orders: list[Order] = []
        forgotten: list[str] = []
        for doubt in doubts:
            if doubt.order is not None and doubt.tag in found and _is_ordered(doubt):
                job = self._job(found[doubt.tag], doubt.tag)
                job.may_have_run = True
                log.warning("job %s was submitted already: %s", doubt.job_id, job.contact)
                taken.append((doubt.order, job))
                continue
            forgotten.append(doubt.tag)
            if doubt.order is not None:
                orders.append(doubt.order)
        await self._record([job for _, job in taken], forgotten)
        self.enqueue(orders)
        await self._begin(taken)


def _is_ordered(doubt: Doubt) -> bool:
    return doubt.order is not None and doubt.order.digest == doubt.digest
