"""The driver in front of every resource: gwd's jobs on any number of endpoints.

What a site's batch system gets from it: jobs in chunks, one question for the states of all
jobs an interval, and silence for a growing while when it fails.  What gwd gets: each job
submitted once, whatever dies when; each change of state; the last known state where there is
no news.

    submit -> Submitter of the endpoint -> ledger, resource.submit, ledger -> contact
    poll   -> what the Follower of the endpoint saw last
    cancel -> ledger -> Follower -> resource.cancel, until it is accepted

A back end implements gridmad.execution.resource.Resource; `driver_of` makes its driver.
"""

import argparse
import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Final, NamedTuple

from gridmad.driver import Batch, MaybeAwaitable
from gridmad.errors import DriverError, TransientError, UnknownJobError
from gridmad.execution.contact import JobName
from gridmad.execution.driver import Contact, ExecutionDriver
from gridmad.execution.follower import Follower, Job
from gridmad.execution.ledger import Ledger
from gridmad.execution.link import Limits, Link
from gridmad.execution.model import JobState, Submission
from gridmad.execution.resource import JobId, Resource
from gridmad.execution.state import add_state_options, state_folder
from gridmad.execution.submitter import Doubt, Order, Submitter
from gridmad.options import count, seconds

log = logging.getLogger(__name__)

SUBMIT_TIME: Final = 270.0
"""Seconds after which an order is answered with FAILURE, before its deadline."""
WANTED_TIME: Final = 600.0
"""Seconds that gwd has to order a job again before what was begun of it is ended."""
EXPIRY_INTERVAL: Final = 86400.0


class Endpoint(NamedTuple):
    """All that deals with one endpoint."""

    link: Link
    follower: Follower
    submitter: Submitter


class Engine(ExecutionDriver):
    """Jobs on a kind of resource."""

    gathered = frozenset()  # each endpoint gathers for itself
    resource_class: ClassVar[type[Resource]]

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the engine's options and the resource's."""
        parser.add_argument(
            "--interval",
            metavar="SECONDS",
            type=seconds,
            default=20.0,
            help="ask for the states of all jobs this often (default: %(default)g)",
        )
        parser.add_argument(
            "--max-jobs",
            metavar="N",
            type=count,
            default=100_000,
            help="have at most this many jobs on an endpoint (default: %(default)s)",
        )
        parser.add_argument(
            "--submit-rate",
            metavar="N",
            type=count,
            default=1000,
            help="submit at most this many jobs a second to an endpoint (default: %(default)s)",
        )
        parser.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=seconds,
            default=60.0,
            help="take an endpoint that does not answer for this long to fail "
            "(default: %(default)g)",
        )
        parser.add_argument(
            "--settle",
            metavar="SECONDS",
            type=seconds,
            default=2.0,
            help="time after which a submission that was broken off has had its effect, if any "
            "(default: %(default)g)",
        )
        add_state_options(parser, cls.resource_class.scheme)
        cls.resource_class.add_options(parser)

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        folder = state_folder(options, self.resource_class.scheme)
        self._limits = Limits(
            options.interval,
            options.max_jobs,
            float(options.submit_rate),
            options.settle,
            options.timeout,
        )
        self._submit_time = min(SUBMIT_TIME, (options.deadline or SUBMIT_TIME) * 0.9)
        self._ledger = Ledger(
            folder, os.environ.get("GW_LOCATION", ""), options.keep_days * 86400.0
        )
        self._resource = self.resource_class(options)
        self._resource.report = self._told
        self._resource.folder = self._ledger.jobs
        self._endpoints: dict[str, Endpoint] = {}
        self._inherited: dict[str, Contact] = {}
        self._unheard: dict[str, Doubt] = {}
        """Jobs of an earlier driver, by tag, of which gwd has said nothing yet: their contacts
        may never have reached it."""
        self._doubts: dict[str, list[Doubt]] = {}
        self._unwanted: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._expiring: asyncio.Task[None] | None = None

    # ------------------------------------------------------------ start and stop

    async def start(self) -> None:
        """Take up what an earlier driver left, and start the resource.

        Without its journal the driver starts too: jobs that run must not be lost for it.
        """
        await self._resource.start()
        try:
            await self._open_ledger()
        except DriverError as error:
            log.error("no job can be submitted: %s", error)
        self._expire_later()

    async def _open_ledger(self) -> None:
        left = await self._ledger.open()
        now = time.monotonic()
        cancelled: list[Contact] = []
        for one in left:
            if one.contact is None:
                self._keep_doubt(Doubt(one.job_id, one.tag, one.digest, one.endpoint, now))
                continue
            self._inherited[one.job_id] = one.contact
            if one.is_cancelled:
                cancelled.append(one.contact)
            elif (name := self._name(one.contact)) is not None:
                self._unheard[one.tag] = Doubt(
                    one.job_id, one.tag, one.digest, one.endpoint, now, name.job
                )
        if cancelled:
            await self._cancel(cancelled)

    def _expire_later(self) -> None:
        self._expiry = asyncio.get_running_loop().call_later(EXPIRY_INTERVAL, self._expire)

    def _expire(self) -> None:
        self._expiring = asyncio.get_running_loop().create_task(self._ledger.expire())
        self._expire_later()

    async def stop(self) -> None:
        """Leave the jobs running."""
        for timer in (self._expiry, self._unwanted):
            if timer is not None:
                timer.cancel()
        for endpoint in self._endpoints.values():
            endpoint.link.stop()
        await self._resource.stop()
        await self._ledger.close()

    def _endpoint(self, name: str) -> Endpoint:
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            link = Link(name, self._limits)
            follower = Follower(link, self._resource, self._ledger, self._report)
            submitter = Submitter(link, self._resource, self._ledger, follower, self._keep_doubt)
            endpoint = self._endpoints[name] = Endpoint(link, follower, submitter)
        return endpoint

    def _report(self, contact: Contact, state: JobState) -> None:
        self.report(contact, state)

    def _told(self, endpoint: str, job_id: JobId, state: JobState) -> None:
        known = self._endpoints.get(endpoint)
        if known is not None:
            known.follower.note({job_id: state})

    # ------------------------------------------------------------ SUBMIT

    async def submit(self, submissions: Batch[Submission, Contact]) -> None:
        """Submit jobs, each to its endpoint; each is answered when the resource took it."""
        await self._open_ledger()
        expires = time.monotonic() + self._submit_time
        left = len(submissions)
        done = asyncio.get_running_loop().create_future()

        def answer(index: int, outcome: Contact | DriverError) -> None:
            nonlocal left
            submissions.settle(index, outcome)
            left -= 1
            if not left and not done.done():
                done.set_result(None)

        orders: dict[str, list[Order]] = {}
        for index, submission in enumerate(submissions):
            order = Order(submission, _digest(submission), expires, partial(answer, index))
            try:
                name = self._resource.endpoint(submission)
            except DriverError as error:
                order.answer(error)
                continue
            if not self._has_doubts(name, order):
                orders.setdefault(name, []).append(order)
        for name, ordered in orders.items():
            self._endpoint(name).submitter.enqueue(ordered)
        await done

    def _has_doubts(self, name: str, order: Order) -> bool:
        """Whether it must first be found out what became of an earlier try."""
        doubts = self._doubts.pop(order.submission.job_id, [])
        inherited = self._name(self._inherited.get(order.submission.job_id, ""))
        if inherited is not None and inherited.tag in self._unheard:
            doubts.append(self._unheard.pop(inherited.tag))
        here = [doubt for doubt in doubts if doubt.endpoint == name]
        # Best one that is the same job; all others are ended.
        here.sort(key=lambda doubt: doubt.digest != order.digest)
        if here:
            here[0].order = order
        for doubt in doubts:
            self._endpoint(doubt.endpoint).submitter.resolve([doubt])
        return bool(here)

    def _keep_doubt(self, doubt: Doubt) -> None:
        """What becomes of it is decided when gwd orders the job again, or after a while."""
        self._doubts.setdefault(doubt.job_id, []).append(doubt)
        if self._unwanted is None:
            self._unwanted = asyncio.get_running_loop().call_later(WANTED_TIME, self._end_doubts)

    def _end_doubts(self) -> None:
        """Nobody ordered these jobs again."""
        self._unwanted = None
        limit = time.monotonic() - WANTED_TIME
        kept, self._doubts = self._doubts, {}
        for doubt in (doubt for doubts in kept.values() for doubt in doubts):
            if doubt.since > limit:
                self._keep_doubt(doubt)
            else:
                self._endpoint(doubt.endpoint).submitter.resolve([doubt])

    # ------------------------------------------------------------ POLL and RECOVER

    def poll(
        self, contacts: Batch[Contact, JobState]
    ) -> MaybeAwaitable[Sequence[JobState | DriverError]]:
        """The states that were seen last; jobs that are not followed are looked for."""
        states: list[JobState | DriverError] = []
        for contact in contacts:
            job = self._followed(contact)
            if job is None:
                return self.recover(contacts)
            states.append(job.state)
        return states

    async def recover(self, contacts: Batch[Contact, JobState]) -> list[JobState | DriverError]:
        """Follow jobs from here on; their states come from one question for each endpoint."""
        jobs = self._follow(contacts)
        names = {job.name.endpoint for job in jobs if isinstance(job, Job)}
        answers = await asyncio.gather(
            *(self._endpoint(name).follower.refresh() for name in names), return_exceptions=True
        )
        troubles = dict(zip(names, answers, strict=True))
        outcomes: list[JobState | DriverError] = []
        for job in jobs:
            if not isinstance(job, Job):
                outcomes.append(job)
                continue
            trouble = troubles[job.name.endpoint]
            outcomes.append(TransientError(str(trouble)) if trouble is not None else job.state)
        return outcomes

    def remembered(self, job_id: str) -> Contact | None:
        """The contact of a job that an earlier driver of the same gwd left."""
        return self._inherited.get(job_id)

    def _name(self, contact: Contact) -> JobName | None:
        try:
            return JobName.parse(contact, self._resource.scheme)
        except DriverError:
            return None

    def _followed(self, contact: Contact) -> Job | None:
        name = self._name(contact)
        return None if name is None else self._endpoint(name.endpoint).follower.get(name.job)

    def _follow(self, contacts: Sequence[Contact]) -> list[Job | DriverError]:
        """The jobs of contacts, all followed from here on."""
        jobs: list[Job | DriverError] = []
        new: dict[str, list[Job]] = {}
        for contact in contacts:
            name = self._name(contact)
            if name is None:
                jobs.append(UnknownJobError(contact))
                continue
            self._unheard.pop(name.tag, None)
            job = self._endpoint(name.endpoint).follower.get(name.job)
            if job is None:
                job = Job(name, may_have_run=True)
                new.setdefault(name.endpoint, []).append(job)
            jobs.append(job)
        for endpoint, ones in new.items():
            self._endpoint(endpoint).follower.follow(ones)
        return jobs

    # ------------------------------------------------------------ CANCEL

    async def cancel(self, contacts: Batch[Contact, None]) -> list[DriverError | None]:
        """Begin to end jobs; accepted at once, and tried until the resource takes it."""
        return await self._cancel(contacts)

    async def _cancel(self, contacts: Sequence[Contact]) -> list[DriverError | None]:
        jobs = self._follow(contacts)
        new: dict[str, list[Job]] = {}
        for job in jobs:
            if isinstance(job, Job) and not job.is_cancelled:
                job.is_cancelled = True
                new.setdefault(job.name.endpoint, []).append(job)
        await self._ledger.cancel(job.name.tag for ones in new.values() for job in ones)
        for endpoint, ones in new.items():
            self._endpoint(endpoint).follower.cancel(ones)
        return [job if isinstance(job, DriverError) else None for job in jobs]


def _digest(submission: Submission) -> str:
    """Tells whether two submissions are the same."""
    text = repr((submission.host, submission.job_manager, submission.description))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def driver_of(resource: type[Resource]) -> type[Engine]:
    """The driver of a back end."""
    members = {
        "resource_class": resource,
        "summary": resource.summary,
        "stages_inputs": resource.stages_inputs,
        "__doc__": resource.__doc__,
    }
    return type(f"{resource.__name__}Driver", (Engine,), members)
