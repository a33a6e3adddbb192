"""Runs jobs on this machine (gw_em_mad_fork).

A job runs under a shepherd, a shell that leads the job's session and writes its exit code
into a file: so job and exit code outlive the driver (see gridmad.execution.shepherd).  The
contact

    fork://HOST/BOOT_ID/PID/START_TIME/TAG

names the shepherd's process for good and, by its tag, that file.  It is all that RECOVER
needs; the journal is for what nobody else knows: jobs whose SUBMIT was not answered, and
jobs that were being ended, when the driver died.  Of a job that ended before its shepherd was
written down the contact names the driver instead.

A job whose SUBMIT was not answered is ordered again.  The same job is then answered by the one
that was begun; another one with its id, as after `gwd -c`, has that ended first.

The end of a shepherd is seen by a pidfd, of one's own child and of another's alike: an
idle driver does nothing.  All that blocks (files, fork, the journal) is done by one
thread, many jobs at a time.

CANCEL sends TERM to all processes of the job but its shepherd: those of its session, and
those that left it (setsid) but carry its mark in their environment.  Not found is only one
that did both, left the session and cleared its environment.  What is left after the grace
time gets KILL, again and again until nothing is left; then the end is told.

A job whose shepherd is gone without an exit code failed, and what is left of it is killed
before that is told, for gwd will run it again.

Nothing tells of a job that someone stopped (SIGSTOP), and nobody looks: SUSPENDED is only
answered to POLL, never told by itself.

Where the journal cannot be opened jobs are found and followed all the same, by their
contacts; only SUBMIT fails, and tries to open it again.
"""

import argparse
import asyncio
import functools
import logging
import os
import resource
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Final, TypeVar

from gridmad.driver import Batch, MaybeAwaitable, describe
from gridmad.errors import DriverError, TransientError
from gridmad.execution.begun import BegunJobs, Left, take_over
from gridmad.execution.driver import Contact, ExecutionDriver
from gridmad.execution.ending import Ending, sweep
from gridmad.execution.fork_job import (
    RETRY_TIME,
    End,
    Job,
    Name,
    final_state,
    may_have_left,
)
from gridmad.execution.fork_start import Starts, kill_unanswered
from gridmad.execution.journal import Journal
from gridmad.execution.model import ACTIVE, JobState, Phase, Submission
from gridmad.execution.shepherd import MARK, Shepherds
from gridmad.execution.state import add_state_options, expire_files, make_folder, state_folder
from gridmad.options import seconds

log = logging.getLogger(__name__)

Result = TypeVar("Result")

CHUNK: Final = 16
"""Jobs started in one transaction: 16 take some 10 ms, so that answers come steadily."""
SWEEP_INTERVAL: Final = 0.1
"""Seconds between looks at what is left of jobs that are being ended."""
EXPIRY_INTERVAL: Final = 86400.0
"""Seconds between looks for what is old enough to be forgotten."""
WANTED_TIME: Final = 600.0
"""Seconds that gwd has to order a job again before what was begun of it is ended."""
MAX_RETRY_TIME: Final = 30.0
"""Seconds before an exit code that cannot be read is tried again, at most: they double."""
STOP_TIME: Final = 0.2
"""Seconds that a start under way has to end when the driver stops."""


class ForkDriver(ExecutionDriver):
    """Jobs as processes of this machine."""

    summary: ClassVar[str] = "run jobs on this machine"

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare --state, --grace and --keep-days."""
        add_state_options(parser, "fork")
        parser.add_argument(
            "--grace",
            metavar="SECONDS",
            type=seconds,
            default=5.0,
            help="time that a cancelled job has between TERM and KILL (default: %(default)g)",
        )

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._folder = state_folder(options, "fork")
        self._grace: float = options.grace
        self._keep: float = options.keep_days * 86400
        self._descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._journal: Journal | None = None
        self._no_journal = DriverError("the journal was not opened")
        self._expiry: asyncio.TimerHandle | None = None
        self._jobs: dict[Contact, Job] = {}
        self._inherited: dict[str, Contact] = {}
        self._begun = BegunJobs()
        self._unwanted: asyncio.TimerHandle | None = None
        self._ended: list[Job] = []
        self._ends: dict[str, End] = {}
        self._wake = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        # A job inherits the signal mask of the thread that starts it.
        self._worker = ThreadPoolExecutor(
            1, "fork", functools.partial(signal.pthread_sigmask, signal.SIG_SETMASK, ())
        )

    # ------------------------------------------------------------ start and stop

    async def start(self) -> None:
        """Open the journal, and take up what an earlier driver left.

        Without its journal the driver starts too: jobs that run must not be lost for it.
        """
        self._loop = asyncio.get_running_loop()
        _raise_descriptor_limit()
        _respect_signals()
        self._shepherds = Shepherds(self._folder / "jobs", self._descriptors)
        self._starts = Starts(self._shepherds, lambda: self._is_stopping)
        try:
            await self._open()
        except DriverError as error:
            log.error("no job can be submitted: %s", error)
        self._expire_later()

    async def _open(self) -> None:
        """Open the journal if it is not open, and end what an earlier driver was ending."""
        if self._journal is not None:
            return
        left = await self._in_thread(self._open_and_take_over)
        if left is None:
            return
        self._inherited |= left.contacts
        self._begun.add(left.begun)
        self._unwanted = self._loop.call_later(WANTED_TIME, self._end_unwanted)
        for name, state in left.ends:
            end = self._new_end(name, state=state)
            known = self._ends.setdefault(end.name.tag, end)
            job = self._jobs.get(str(end.name))
            if job is not None:
                # It was found before the journal could tell that it was being ended.
                known.job = job
                job.is_cancelled = known.state is None
        self._sweep_soon()

    def _open_and_take_over(self) -> Left | None:
        """In the thread; None where it is open."""
        if self._journal is not None:
            return None
        try:
            self._journal = Journal(self._folder, os.environ.get("GW_LOCATION", ""))
            make_folder(self._folder / "jobs")
            left = take_over(self._journal, self._shepherds)
        except DriverError as error:
            self._no_journal = error
            self._close()
            raise
        self._expire()
        return left

    def _end_unwanted(self) -> None:
        """These jobs were not ordered again; those that gwd may know run on."""
        self._spawn(self._end_all(self._begun.unwanted()))

    async def _end_all(self, contacts: Sequence[Contact]) -> None:
        if contacts:
            log.warning("jobs that nobody wants any more are ended: %s", ", ".join(contacts))
            await self._cancel(contacts)

    def _expire_later(self) -> None:
        self._expiry = self._loop.call_later(EXPIRY_INTERVAL, self._expire_now)

    def _expire_now(self) -> None:
        self._spawn(self._in_thread(self._expire))
        self._expire_later()

    def _expire(self) -> None:
        """In the thread: forget what is old."""
        if self._journal is None:
            return
        try:
            unended = self._journal.expire(self._keep)
            expire_files(self._folder / "jobs", time.time() - self._keep, unended)
        except OSError as error:
            log.warning("old files are not removed: %s", describe(error))
        except DriverError as error:
            log.warning("what is old is not forgotten: %s", error)

    async def stop(self) -> None:
        """Leave the jobs running."""
        self._is_stopping = True
        for timer in (self._expiry, self._unwanted):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.cancel()
        for job in self._jobs.values():
            self._unfollow(job)
            if job.process is not None:
                # It goes on without us: its object must neither warn of that nor wait.
                job.process.returncode = 0
        closing = self._worker.submit(self._close)
        self._worker.shutdown(wait=False)
        await asyncio.wait([asyncio.wrap_future(closing)], timeout=STOP_TIME)

    def _close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    @property
    def _log(self) -> Journal:
        if self._journal is None:
            raise DriverError("the driver is stopping") if self._is_stopping else self._no_journal
        return self._journal

    # ------------------------------------------------------------ SUBMIT

    async def submit(self, submissions: Batch[Submission, Contact]) -> None:
        """Start the jobs, some at a time; each is answered once it is in the journal."""
        await self._open()
        new = await self._settle_begun(submissions)
        for first in range(0, len(new), CHUNK):
            indexes = new[first : first + CHUNK]
            future = self._worker.submit(self._start_jobs, [submissions[i] for i in indexes])
            try:
                outcomes = await asyncio.wrap_future(future)
            except asyncio.CancelledError:
                future.add_done_callback(kill_unanswered)
                raise
            for index, outcome in zip(indexes, outcomes, strict=True):
                if isinstance(outcome, DriverError):
                    submissions.settle(index, outcome)
                else:
                    self._jobs[outcome.contact] = outcome
                    submissions.settle(index, outcome.contact)
                    self._loop.call_soon(self._tell_active, outcome)

    async def _settle_begun(self, submissions: Batch[Submission, Contact]) -> list[int]:
        """Answer the orders of jobs that were begun already, and end what was begun under the
        ids of others; the numbers of those that are to be started.
        """
        new: list[int] = []
        taken: list[tuple[int, Contact]] = []
        unwanted: list[Contact] = []
        for index, submission in enumerate(submissions):
            same, others = self._begun.ordered(submission.job_id, submission.digest)
            unwanted += others
            if same is None:
                new.append(index)
            else:
                taken.append((index, same))
        await self._end_all(unwanted)
        found = await self._find([contact for _, contact in taken]) if taken else []
        for (index, contact), one in zip(taken, found, strict=True):
            if isinstance(one, DriverError):
                submissions.settle(index, one)
                continue
            log.warning("job %s was started already: %s", submissions[index].job_id, contact)
            submissions.settle(index, contact)
            state = one if isinstance(one, JobState) else ACTIVE
            self._loop.call_soon(self.report, contact, state)
        return new

    def _start_jobs(self, submissions: Sequence[Submission]) -> list[Job | DriverError]:
        """In the thread."""
        return self._starts.start(self._log, submissions)

    # ------------------------------------------------------------ following jobs

    def _tell_active(self, job: Job) -> None:
        if not self._is_stopping:
            job.is_active = True
            self.report(job.contact, ACTIVE)
            self._follow(job)

    def _follow(self, job: Job) -> None:
        self._loop.add_reader(job.pidfd, self._shepherd_ended, job)

    def _unfollow(self, job: Job) -> None:
        if job.pidfd >= 0:
            self._loop.remove_reader(job.pidfd)
            os.close(job.pidfd)
            job.pidfd = -1

    def _shepherd_ended(self, job: Job) -> None:
        if self._is_stopping:
            return
        self._unfollow(job)
        if not self._ended:
            self._spawn(self._collect())
        self._ended.append(job)

    async def _collect(self) -> None:
        """Read the exit codes of all shepherds that ended meanwhile, and tell the ends."""
        ended, self._ended = self._ended, []
        states = await self._in_thread(self._read_ends, ended)
        for job, state in zip(ended, states, strict=True):
            if isinstance(state, OSError):
                self._collect_later(job, state)
                continue
            if self._jobs.get(job.contact) is not job:
                continue
            if may_have_left(state) and job.name.tag not in self._ends:
                log.error("job %s: %s", job.contact, state.reason)
                self._ends[job.name.tag] = self._new_end(job.name, job, state)
            end = self._ends.get(job.name.tag)
            if end is None:
                self._tell_end(job, state)
            else:
                end.state = state
                self._sweep_soon()

    def _collect_later(self, job: Job, error: OSError) -> None:
        """The end of this job is not known for now; it must not hold up others."""
        if job.retry_time == RETRY_TIME:
            log.error("job %s: no exit code for now: %s", job.contact, describe(error))
        self._loop.call_later(job.retry_time, self._shepherd_ended, job)
        job.retry_time = min(2 * job.retry_time, MAX_RETRY_TIME)

    def _read_ends(self, jobs: Sequence[Job]) -> list[JobState | OSError]:
        """In the thread."""
        states: list[JobState | OSError] = []
        known: list[tuple[str, JobState]] = []
        for job in jobs:
            try:
                state = final_state(self._shepherds, job.name, job.process, job.is_cancelled)
            except OSError as error:
                states.append(error)
            else:
                states.append(state)
                known.append((job.name.tag, state))
        self._write_ends(known)
        return states

    def _write_ends(self, ends: Sequence[tuple[str, JobState]]) -> None:
        """In the thread: what is lost here can be found again from the contacts."""
        try:
            self._log.end(ends)
        except DriverError as error:
            log.warning("the end of %d jobs is not written down: %s", len(ends), error)

    def _tell_end(self, job: Job, state: JobState) -> None:
        del self._jobs[job.contact]
        self.report(job.contact, state)

    # ------------------------------------------------------------ POLL and RECOVER

    def poll(
        self, contacts: Batch[Contact, JobState]
    ) -> MaybeAwaitable[Sequence[JobState | DriverError]]:
        """The states of jobs; one that is not followed is looked for as by RECOVER."""
        states: list[JobState | DriverError] = []
        for contact in contacts:
            job = self._jobs.get(contact)
            if job is None:
                return self.recover(contacts)
            states.append(job.present_state)
        return states

    async def recover(self, contacts: Batch[Contact, JobState]) -> list[JobState | DriverError]:
        """Find jobs by their contacts alone, and follow those that run."""
        return [
            found.present_state if isinstance(found, Job) else found
            for found in await self._find(contacts)
        ]

    async def _find(self, contacts: Sequence[Contact]) -> list[Job | JobState | DriverError]:
        """The jobs of contacts, followed from here on; of ended ones their states."""
        for contact in contacts:
            self._begun.heard(contact)
        unknown = [contact for contact in contacts if contact not in self._jobs]
        searched = await self._in_thread(self._search, unknown) if unknown else []
        outcomes: dict[Contact, Job | JobState | DriverError] = {}
        for contact, found in zip(unknown, searched, strict=True):
            if isinstance(found, Job) and contact in self._jobs:
                os.close(found.pidfd)
                continue
            outcomes[contact] = found
            if isinstance(found, Job):
                self._jobs[contact] = found
                self._follow(found)
                if found.is_cancelled:
                    self._end(found)
            elif isinstance(found, JobState) and may_have_left(found):
                name = Name.parse(contact)
                job = self._jobs[contact] = Job(name, contact, -1, None)
                self._ends.setdefault(name.tag, self._new_end(name, state=found)).job = job
                self._sweep_soon()
        return [self._jobs.get(contact) or outcomes[contact] for contact in contacts]

    def _search(self, contacts: Sequence[Contact]) -> list[Job | JobState | DriverError]:
        """In the thread."""
        return [self._search_one(contact) for contact in contacts]

    def _search_one(self, contact: Contact) -> Job | JobState | DriverError:
        try:
            name = Name.parse(contact)
        except DriverError as error:
            return error
        try:
            is_cancelled = self._log.is_cancelled(name.tag)
        except DriverError as error:
            log.warning("%s", error)
            is_cancelled = False
        try:
            pidfd = name.shepherd.open()
            if pidfd is not None:
                return Job(name, contact, pidfd, None, is_cancelled)
            state = final_state(self._shepherds, name, None, is_cancelled)
        except OSError as error:
            return TransientError(f"job {contact}: {describe(error)}")
        self._write_ends([(name.tag, state)])
        return state

    def remembered(self, job_id: str) -> Contact | None:
        """The contact of a job that an earlier driver of the same gwd left."""
        return self._inherited.get(job_id)

    # ------------------------------------------------------------ CANCEL

    async def cancel(self, contacts: Batch[Contact, None]) -> list[DriverError | None]:
        """Begin to end jobs; one that has ended already is no failure."""
        return await self._cancel(contacts)

    async def _cancel(self, contacts: Sequence[Contact]) -> list[DriverError | None]:
        found = await self._find(contacts)
        jobs = [job for job in found if isinstance(job, Job) and not job.is_cancelled]
        for job in jobs:
            job.is_cancelled = True
        if jobs:
            try:
                await self._in_thread(lambda: self._log.cancel([job.name.tag for job in jobs]))
            except DriverError as error:
                log.warning("%s", error)
            for job in jobs:
                self._end(job)
        return [one if isinstance(one, DriverError) else None for one in found]

    def _end(self, job: Job) -> None:
        """Begin to end a job; or, of one that is being ended, begin to wait for its end."""
        if self._jobs.get(job.contact) is job:
            end = self._ends.setdefault(job.name.tag, self._new_end(job.name))
            end.job = job
            if end.state is not None and end.state.phase is Phase.FAILED:
                end.state = JobState.done(128 + signal.SIGKILL)
            self._sweep_soon()

    def _new_end(self, name: Name, job: Job | None = None, state: JobState | None = None) -> End:
        """What is left of a job that ended by itself gets no grace."""
        grace = self._grace if state is None else 0.0
        ending = Ending(name.shepherd, f"{MARK}={name.tag}", time.monotonic() + grace)
        return End(name, ending, job, state)

    def _sweep_soon(self) -> None:
        self._wake.set()
        if self._ends and self._sweeper is None:
            self._sweeper = self._spawn(self._sweep())

    async def _sweep(self) -> None:
        """End jobs until none is left to end."""
        while self._ends:
            self._wake.clear()
            ends = list(self._ends.values())
            try:
                gone = await self._in_thread(lambda: sweep([end.ending for end in ends]))  # noqa: B023
            except OSError as error:
                log.error("jobs cannot be ended for now: %s", describe(error))
                gone = [False] * len(ends)
            await self._finish([end for end, is_gone in zip(ends, gone, strict=True) if is_gone])
            if self._ends:
                try:
                    async with asyncio.timeout(SWEEP_INTERVAL):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        self._sweeper = None

    async def _finish(self, ends: Sequence[End]) -> None:
        """Nothing is left of these jobs: tell it, or if nobody waits write it down."""
        unknown = [end for end in ends if end.job is None and end.state is None]
        if unknown:
            await self._in_thread(lambda: self._write_last(unknown))
        for end in ends:
            if end.job is not None and end.state is None:
                if not end.ending.is_given_up:
                    continue  # its exit code is being read
                # Its shepherd is waited for on; that end is told to nobody.
                end.state = JobState.done(128 + signal.SIGKILL)
            del self._ends[end.name.tag]
            if end.job is not None and end.state is not None:
                self._tell_end(end.job, end.state)

    def _write_last(self, ends: Sequence[End]) -> None:
        """In the thread."""
        self._write_ends(
            [(end.name.tag, final_state(self._shepherds, end.name, None, True)) for end in ends]
        )

    # ------------------------------------------------------------ tasks and the thread

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Run what blocks; DriverError once the driver stops."""
        try:
            future = self._loop.run_in_executor(self._worker, function, *arguments)
        except RuntimeError:
            raise DriverError("the driver is stopping") from None
        return await future

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("following jobs failed: %r", task.exception(), exc_info=task.exception())


def _raise_descriptor_limit() -> None:
    """Each job needs a descriptor; gwd gives 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _respect_signals() -> None:
    """Ignored signals would stay ignored in jobs (a shell's `&` ignores INT and QUIT)."""
    for number in signal.valid_signals():
        # Python itself ignores these two, and restores them in what it starts.
        if number not in (signal.SIGPIPE, signal.SIGXFSZ) and (
            signal.getsignal(number) is signal.SIG_IGN
        ):
            signal.signal(number, signal.SIG_DFL)


DRIVER = ForkDriver
