"""Starting jobs of this machine: the intent into the journal, a shepherd, the record.

All of it blocks, and belongs in one thread.
"""

import logging
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from subprocess import Popen

from gridmad.driver import describe
from gridmad.errors import DriverError
from gridmad.execution.fork_job import Job, Name
from gridmad.execution.journal import Intent, Journal, Started
from gridmad.execution.model import Submission
from gridmad.execution.processes import ProcessIdentity
from gridmad.execution.shepherd import Shepherds

log = logging.getLogger(__name__)


class Starts:
    """Starts jobs until the driver `is_stopping`."""

    def __init__(self, shepherds: Shepherds, is_stopping: Callable[[], bool]) -> None:
        self._shepherds = shepherds
        self._is_stopping = is_stopping

    def start(self, journal: Journal, submissions: Sequence[Submission]) -> list[Job | DriverError]:
        """Write down the intent, act, write down what became of it: the jobs, or why there is
        none.  Raises DriverError where the journal does, and then nothing runs.
        """
        tags = [os.urandom(8).hex() for _ in submissions]
        journal.intend(
            Intent(tag, submission.job_id, digest=submission.digest)
            for tag, submission in zip(tags, submissions, strict=True)
        )
        outcomes = [
            self._start_one(tag, submission)
            for tag, submission in zip(tags, submissions, strict=True)
        ]
        started: list[Started] = []
        failed: list[str] = []
        for tag, outcome in zip(tags, outcomes, strict=True):
            if isinstance(outcome, DriverError):
                failed.append(tag)
            else:
                started.append(Started(tag, outcome.contact))
        try:
            journal.record(started, failed)
        except DriverError:
            _kill_jobs(outcomes)
            raise
        return outcomes

    def _start_one(self, tag: str, submission: Submission) -> Job | DriverError:
        if self._is_stopping():
            return DriverError("the driver is stopping")
        try:
            process, warnings = self._shepherds.start(submission.description, tag)
        except DriverError as error:
            return error
        for warning in warnings:
            log.warning("job %s: %s", submission.job_id, warning)
        try:
            # As nobody waits for it yet it keeps its id, even if it has ended already.
            name = Name(ProcessIdentity.of(process.pid), tag)
            pidfd = os.pidfd_open(process.pid)
        except OSError as error:
            _kill_session(process)
            return DriverError(f"the job cannot be followed: {describe(error)}")
        return Job(name, str(name), pidfd, process, is_active=False)


def kill_unanswered(starting: Future[list[Job | DriverError]]) -> None:
    """The driver stops before it could answer: gwd will submit these jobs again."""
    if not starting.cancelled() and starting.exception() is None:
        _kill_jobs(starting.result())


def _kill_jobs(outcomes: Sequence[Job | DriverError]) -> None:
    for outcome in outcomes:
        if not isinstance(outcome, DriverError) and outcome.process is not None:
            _kill_session(outcome.process)
            os.close(outcome.pidfd)


def _kill_session(process: Popen[bytes]) -> None:
    """End a job that was just started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
