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
import logging
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from gridmad.driver import Batch, MaybeAwaitable
from gridmad.errors import DriverError, TransientError, UnknownJobError
from gridmad.execution.contact import JobName
from gridmad.execution.driver import Contact, ExecutionDriver
from gridmad.execution.follower import Follower, Job
from gridmad.execution.journal import Started
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
        if cls.resource_class.looks:
            parser.add_argument(
                "--exit-codes",
                metavar="DIR",
                type=Path,
                help="a folder that nodes and this machine share, where jobs leave their exit "
                "codes (default: jobs, below --state); not shared, nothing is lost but time",
            )
        else:
            parser.set_defaults(exit_codes=None)
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
        status_folder: Path = (options.exit_codes or folder / "jobs").absolute()
        self._ledger = Ledger(
            folder, status_folder, os.environ.get("GW_LOCATION", ""), options.keep_days * 86400.0
        )
        self._resource = self.resource_class.of(options)
        self._resource.report = self._told
        self._resource.folder = status_folder
        self._endpoints: dict[str, Endpoint] = {}
        self._inherited: dict[str, Contact] = {}
        self._unheard: dict[str, Doubt] = {}
        """Jobs of an earlier driver, by tag, of which gwd has said nothing yet: their contacts
        may never have reached it."""
        self._doubts: dict[str, list[Doubt]] = {}
        self._unwanted: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._expiring: asyncio.Task[None] | None = None
        self._watching: list[asyncio.Task[None]] = []

    # ------------------------------------------------------------ start and stop

    async def start(self) -> None:
        """Take up what an earlier driver left, and start the resource.

        Without its journal the driver starts too: jobs that run must not be lost for it.
        """
        await self._resource.start()
        if not self._watching:
            loop = asyncio.get_running_loop()
            watches = self._resource.credentials()
            self._watching = [loop.create_task(watch.run(self.announce)) for watch in watches]
        try:
            await self._open_ledger()
        except DriverError as error:
            log.error("no job can be submitted: %s", error)
        self._expire()

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
                    one.job_id, one.tag, one.digest, name.endpoint, now, name.job
                )
                self._await_word()
        if cancelled:
            await self._cancel(cancelled)

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        if self._expiring is None or self._expiring.done():
            self._expiring = loop.create_task(self._ledger.expire())
        self._expiry = loop.call_later(EXPIRY_INTERVAL, self._expire)

    async def stop(self) -> None:
        """Leave the jobs running."""
        for timer in (self._expiry, self._unwanted):
            if timer is not None:
                timer.cancel()
        for task in self._watching:
            task.cancel()
        for endpoint in self._endpoints.values():
            endpoint.link.stop()
        await self._resource.stop()
        await self._ledger.close()

    def _endpoint(self, name: str) -> Endpoint:
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            link = Link(name, self._limits)
            follower = Follower(link, self._resource, self._ledger, self.report)
            submitter = Submitter(link, self._resource, self._ledger, follower, self._keep_doubt)
            endpoint = self._endpoints[name] = Endpoint(link, follower, submitter)
        return endpoint

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
            order = Order(submission, submission.digest, expires, partial(answer, index))
            try:
                name = self._resource.endpoint(submission)
                name.encode()
            except DriverError as error:
                order.answer(error)
                continue
            except UnicodeEncodeError:
                order.answer(DriverError(f"the host {submission.host!r} is no text"))
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
        self._await_word()

    def _await_word(self) -> None:
        if self._unwanted is None:
            self._unwanted = asyncio.get_running_loop().call_later(WANTED_TIME, self._end_doubts)

    def _end_doubts(self) -> None:
        """Nobody ordered these jobs again: those that nobody can know of are ended, the others
        followed to their ends, for the journal's sake.  None may be taken for a later job, to
        which gwd gives the same id.
        """
        self._unwanted = None
        limit = time.monotonic() - WANTED_TIME
        unheard, self._unheard = self._unheard, {}
        for tag, doubt in unheard.items():
            if doubt.since > limit:
                self._unheard[tag] = doubt
                self._await_word()
                continue
            name = JobName(self._resource.scheme, doubt.endpoint, doubt.job, tag)
            follower = self._endpoint(doubt.endpoint).follower
            if follower.get(doubt.job) is None:
                follower.follow([Job(name, may_have_run=True)])
        kept, self._doubts = self._doubts, {}
        for doubt in (doubt for doubts in kept.values() for doubt in doubts):
            if doubt.since > limit:
                self._keep_doubt(doubt)
            else:
                self._endpoint(doubt.endpoint).submitter.resolve([doubt])

    # ------------------------------------------------------------ POLL and RECOVER

    def poll(
        self, contacts: Batch[Contact, JobState]
    ) -> MaybeAwaitable[Sequence[JobState | DriverError] | None]:
        """The states that were seen last; jobs that are not followed are looked for."""
        states: list[JobState | DriverError] = []
        for contact in contacts:
            name = self._name(contact)
            job = self._followed(name) if name is not None else None
            if job is None:
                return self.recover(contacts)
            states.append(job.state)
        return states

    async def recover(self, contacts: Batch[Contact, JobState]) -> None:
        """Follow jobs from here on; their states come from one question for each endpoint, and
        none waits for an endpoint that is not its own.

        A job whose end is written down is not asked for: the driver that died may not have told
        it, and the resource may have forgotten the job.
        """
        ends = await self._ends(contacts)
        for index, state in ends.items():
            contacts.settle(index, state)
        others = [index for index in range(len(contacts)) if index not in ends]
        jobs = await self._follow([contacts[index] for index in others])
        waiting: dict[str, list[tuple[int, Job]]] = {}
        for index, job in zip(others, jobs, strict=True):
            if isinstance(job, Job):
                waiting.setdefault(job.name.endpoint, []).append((index, job))
            else:
                contacts.settle(index, job)

        async def recover(name: str, jobs: Sequence[tuple[int, Job]]) -> None:
            trouble: TransientError | None = None
            try:
                await self._endpoint(name).follower.refresh()
            except TransientError as error:
                trouble = error
            for index, job in jobs:
                contacts.settle(index, trouble or job.state)

        await asyncio.gather(*(recover(name, jobs) for name, jobs in waiting.items()))

    async def _ends(self, contacts: Sequence[Contact]) -> Mapping[int, JobState]:
        """The final states that are written down of jobs that are not followed, by their
        numbers in `contacts`.
        """
        names: dict[int, JobName] = {}
        for index, contact in enumerate(contacts):
            name = self._name(contact)
            if name is not None and self._followed(name) is None:
                names[index] = name
        ends = await self._ledger.ends([name.tag for name in names.values()])
        ended = {index: name for index, name in names.items() if name.tag in ends}
        by_endpoint: dict[str, list[JobId]] = {}
        for name in ended.values():
            by_endpoint.setdefault(name.endpoint, []).append(name.job)
        for endpoint, job_ids in by_endpoint.items():
            self._endpoint(endpoint).follower.release(job_ids)
        return {index: ends[name.tag] for index, name in ended.items()}

    def remembered(self, job_id: str) -> Contact | None:
        """The contact of a job that an earlier driver of the same gwd left."""
        return self._inherited.get(job_id)

    def _name(self, contact: Contact) -> JobName | None:
        try:
            return JobName.parse(contact, self._resource.scheme)
        except DriverError:
            return None

    def _followed(self, name: JobName) -> Job | None:
        job = self._endpoint(name.endpoint).follower.get(name.job)
        return job if job is not None and job.name == name else None

    async def _follow(self, contacts: Sequence[Contact]) -> list[Job | DriverError]:
        """The jobs of contacts, all followed from here on."""
        jobs: list[Job | DriverError] = []
        new: dict[str, list[Job]] = {}
        unrecorded: list[Started] = []
        begun = {doubt.tag for doubts in self._doubts.values() for doubt in doubts}
        for contact in contacts:
            name = self._name(contact)
            if name is None:
                jobs.append(UnknownJobError(contact))
                continue
            self._unheard.pop(name.tag, None)
            if name.tag in begun:
                # It was answered, but not written down.
                unrecorded.append(Started(name.tag, contact))
            job = self._endpoint(name.endpoint).follower.get(name.job)
            if job is None:
                job = Job(name, may_have_run=True)
                new.setdefault(name.endpoint, []).append(job)
            elif job.name != name:
                jobs.append(TransientError(f"its id is the job's of {job.contact} for now"))
                continue
            jobs.append(job)
        for endpoint, ones in new.items():
            self._endpoint(endpoint).follower.follow(ones)
        if unrecorded:
            heard = {one.tag for one in unrecorded}
            self._doubts = {
                job_id: left
                for job_id, doubts in self._doubts.items()
                if (left := [doubt for doubt in doubts if doubt.tag not in heard])
            }
            await self._ledger.record(unrecorded)
        return jobs

    # ------------------------------------------------------------ CANCEL

    async def cancel(self, contacts: Batch[Contact, None]) -> list[DriverError | None]:
        """Begin to end jobs; accepted at once, and tried until the resource takes it."""
        return await self._cancel(contacts)

    async def _cancel(self, contacts: Sequence[Contact]) -> list[DriverError | None]:
        jobs = await self._follow(contacts)
        new: dict[str, list[Job]] = {}
        for job in jobs:
            if isinstance(job, Job) and not job.is_cancelled:
                job.is_cancelled = True
                new.setdefault(job.name.endpoint, []).append(job)
        try:
            await self._ledger.cancel(job.name.tag for ones in new.values() for job in ones)
        finally:
            # Marked as they are, no later CANCEL would begin it.
            for endpoint, ones in new.items():
                self._endpoint(endpoint).follower.cancel(ones)
        return [job if isinstance(job, DriverError) else None for job in jobs]


def driver_of(resource: type[Resource]) -> type[Engine]:
    """The driver of a back end."""
    members = {
        "resource_class": resource,
        "summary": resource.summary,
        "stages_inputs": resource.stages_inputs,
        "hides_environment": resource.hides_environment,
        "stages_urls": resource.stages_urls,
        "__doc__": resource.__doc__,
    }
    return type(f"{resource.__name__}Driver", (Engine,), members)
