"""Runs jobs on a Grid Engine cluster, by its command-line tools (gw_em_mad_sge).

Jobs that are submitted together, follow each other and ask for the same are one array job,
whose script chooses by the number of the task; its name is in the tags of its jobs, so a job
is found by its tag.

States come from one `qstat` of all the user's jobs.  It shows no ended ones: how these ended
is told by their own status files, where this machine and the cluster share the folder (see
gridmad.execution.status_files), and by Grid Engine's accounting file (see
gridmad.execution.sge_accounting).

A job that could not be started Grid Engine keeps, in error, until somebody looks.  Here it is
deleted and has failed, for gwd will run it again.  For the same reason Grid Engine is asked
never to run a job again by itself.

What a job gets: the environment and the home directory that Grid Engine makes, of the driver's
what gridmad.execution.environment names but TMPDIR, and what its description says.  Its limits
are h_rt, h_cpu and h_vmem, its minimum of memory is mem_free.  A count above 1 is slots of the
parallel environment --pe.

The cell is that of SGE_ROOT and SGE_CELL, as for all of its tools.
"""

import argparse
import asyncio
import itertools
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from gridmad.commands import Commands, Finished
from gridmad.errors import DriverError, NotSubmittedError, TransientError
from gridmad.execution.batch_system import BatchSystem, add_native_option
from gridmad.execution.contact import group_name
from gridmad.execution.engine import driver_of
from gridmad.execution.environment import inherited, on_another_machine
from gridmad.execution.grid_engine import (
    Listing,
    Trouble,
    complaints,
    deleted_tasks,
    deletions,
    error_reasons,
    is_certainly_out_of_reach,
    is_out_of_reach,
    job_id,
    refusal,
    requirements,
    script,
    submitted_job,
    task_number,
    unnumbered_id,
)
from gridmad.execution.model import JobState
from gridmad.execution.payload import encode, payload
from gridmad.execution.resource import JobId, Task
from gridmad.execution.sge_accounting import Accounting, AccountingFile, RemoteAccountingFile
from gridmad.execution.status_files import StatusFiles

log = logging.getLogger(__name__)

MAX_DELETIONS: Final = 500
"""Groups of tasks of one qdel; the words of a command have a limit."""
CANCELLED: Final = JobState.done(143)
"""A job that was deleted before it ran."""


@dataclass(slots=True)
class Array:
    """Tasks that are submitted as one job."""

    words: Sequence[str]
    """What they ask for."""
    payloads: dict[int, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)


class GridEngine(BatchSystem):
    """Jobs on a Grid Engine cluster."""

    scheme = "sge"
    summary = "run jobs on a Grid Engine cluster"
    submit_tool = "qsub"
    package = "Grid Engine's commands (gridengine-client)"
    miss_time = 75.0  # an accounting_flush_time of up to a minute is usual

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare --queue, --pe, --native and --accounting."""
        parser.add_argument(
            "--queue",
            metavar="NAME",
            default="",
            help="for jobs that name no queue (default: Grid Engine's own choice)",
        )
        parser.add_argument(
            "--pe",
            metavar="NAME",
            default="",
            help="the parallel environment of jobs that ask for a count above 1 "
            "(default: such jobs are refused)",
        )
        add_native_option(parser, "qsub", "-l scratch=1 -p -10")
        parser.add_argument(
            "--accounting",
            metavar="FILE",
            type=Path,
            help="Grid Engine's accounting file (default: $SGE_ROOT/$SGE_CELL/common/accounting)",
        )

    def __init__(
        self,
        options: argparse.Namespace,
        commands: Commands | None = None,
        status_files: StatusFiles | None = None,
    ) -> None:
        super().__init__(options, commands, status_files)
        self._accounting: Accounting = (
            RemoteAccountingFile(options.accounting, self._commands)
            if self.is_elsewhere
            else AccountingFile(options.accounting)
        )
        # Where the tools run elsewhere, nothing of this machine means anything.
        own = {} if self.is_elsewhere else os.environ
        self._environment = inherited(on_another_machine(own))

    async def stop(self) -> None:
        """Leave all jobs as they are."""
        self._accounting.close()

    # ------------------------------------------------------------ submission

    async def submit(self, endpoint: str, tasks: Sequence[Task]) -> Sequence[JobId | DriverError]:
        """One qsub for all that follow each other and ask for the same."""
        outcomes: dict[str, JobId | DriverError] = {}
        arrays: list[Array] = []
        for task in tasks:
            try:
                words, text = self._requirements(task), self._payload(task)
            except DriverError as error:
                outcomes[task.tag] = error
                continue
            number = task_number(task.tag)
            if not arrays or arrays[-1].words != words or number - 1 not in arrays[-1].payloads:
                arrays.append(Array(words))
            arrays[-1].payloads[number] = text
            arrays[-1].tags.append(task.tag)
        for done in await asyncio.gather(*(self._submit_array(array) for array in arrays)):
            outcomes.update(done)
        return [outcomes[task.tag] for task in tasks]

    def _requirements(self, task: Task) -> Sequence[str]:
        job = task.submission.description
        return requirements(replace(job, queue=job.queue or self.options.queue), self.options.pe)

    def _payload(self, task: Task) -> str:
        return payload(
            task.submission.description,
            status_file=self._status_files.path(task.tag),
            environment=self._environment,
        )

    async def _submit_array(self, array: Array) -> Mapping[str, JobId | DriverError]:
        outcome = await self._qsub(
            *("-N", group_name(array.tags[0])),
            *("-t", f"{min(array.payloads)}-{max(array.payloads)}"),
            *array.words,
            given=encode(script(array.payloads)),
        )
        if isinstance(outcome, DriverError):
            return dict.fromkeys(array.tags, outcome)
        return {tag: job_id(outcome, tag) for tag in array.tags}

    async def _qsub(self, *words: str, given: bytes) -> str | DriverError:
        """The number of a job, or why there is none; never raises a DriverError."""
        try:
            finished = await self._run(
                "qsub",
                "-terse",
                *("-S", "/bin/sh"),
                *("-C", ""),  # what the script says to a shell is nothing for qsub
                *("-r", "n"),
                *("-wd", "/"),  # a site's -cwd would mean the driver's
                *("-o", "/dev/null"),
                *("-e", "/dev/null"),
                *self.options.native,
                "-hard",
                *words,
                given=given,
            )
        except DriverError as error:
            return error
        number = submitted_job(finished.output)
        if finished.exit_code == 0 and number is not None:
            return number
        problem = finished.errors
        if is_certainly_out_of_reach(problem):
            return NotSubmittedError(_problem("qsub", finished))
        if finished.exit_code <= 0 or is_out_of_reach(problem):
            return TransientError(_problem("qsub", finished))
        return DriverError(f"Grid Engine takes no such job: {refusal(problem)}")

    # ------------------------------------------------------------ states

    async def query(self, endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """One qstat; of jobs that it lacks the status files and the accounting file."""
        listing = await self._qstat()
        states: dict[JobId, JobState] = {}
        broken: dict[JobId, str] = {}
        missing: dict[JobId, str] = {}
        for job, tag in jobs.items():
            listed = listing.get(tag)
            if listed is None or listed.state is Trouble.ENDED:
                missing[job] = tag
            elif listed.state is Trouble.ERROR:
                broken[job] = tag
            elif isinstance(listed.state, JobState):
                states[job] = listed.state
        if missing:
            states.update(await self._ends(missing))
        if broken:
            states.update(await self._give_up(broken, listing))
        return states

    async def look(self, endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """The status files."""
        return await self._status_files.look(jobs)

    async def _qstat(self, *words: str) -> Listing:
        user = await self._commands.user()
        finished = await self._run("qstat", "-xml", "-u", user, *words)
        if finished.exit_code != 0:
            raise TransientError(_problem("qstat", finished))
        try:
            return await asyncio.to_thread(Listing, finished.output)
        except ValueError as error:
            raise TransientError(str(error)) from None

    async def _ends(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """How jobs ended, of those of which that can be known."""
        states = dict(await self._status_files.read(jobs))
        left = {tag: job for job, tag in jobs.items() if job not in states}
        if left:
            for tag, record in (await self._accounting.ends(left)).items():
                if record.is_over_limit:
                    log.warning("job %s was ended by Grid Engine: over its limit", left[tag])
                states[left[tag]] = record.state
        return states

    async def _give_up(
        self, broken: Mapping[JobId, str], listing: Listing
    ) -> Mapping[JobId, JobState]:
        """Delete jobs that could not be started: their final states."""
        numbers = {job.partition(".")[0] for job in broken}
        told = await self._run("qstat", "-j", ",".join(sorted(numbers)))
        reasons = error_reasons(told.output)
        problem = complaints(await self._qdel(broken.values()))
        if problem:
            raise TransientError(f"qdel: {problem}")
        return {
            job: JobState.failed(f"Grid Engine could not run it: {reasons.get(job, 'no reason')}")
            for job in broken
        }

    # ------------------------------------------------------------ the rest

    async def cancel(
        self, endpoint: str, jobs: Mapping[JobId, str]
    ) -> Mapping[JobId, DriverError | None]:
        """As few qdels as can be."""
        told = await self._qdel(jobs.values())
        for job in deleted_tasks(told):
            # It did not run yet, and no record will ever tell of it.
            self.report(endpoint, job, CANCELLED)
        problem = complaints(told)
        return dict.fromkeys(jobs, DriverError(f"qdel: {problem}")) if problem else {}

    async def _qdel(self, tags: Collection[str]) -> str:
        """Delete jobs: what is said about it."""
        words = list(deletions(tags))
        told: list[str] = []
        for first in range(0, len(words), MAX_DELETIONS):
            chunk = itertools.chain.from_iterable(words[first : first + MAX_DELETIONS])
            finished = await self._run("qdel", *chunk)
            told.append(finished.output.decode("utf-8", "replace"))
            if finished.exit_code < 0 or is_out_of_reach(finished.errors + told[-1]):
                raise TransientError(_problem("qdel", finished))
        return "".join(told)

    async def find(self, endpoint: str, tags: Collection[str]) -> Mapping[str, JobId]:
        """One qstat that shows ended jobs too, as long as Grid Engine remembers them; of those
        that it lacks the accounting file, and the status files.
        """
        listing = await self._qstat("-s", "az")
        found = {tag: job_id(listed.job, tag) for tag in tags if (listed := listing.get(tag))}
        missing = [tag for tag in tags if tag not in found]
        if missing:
            for tag, record in (await self._accounting.ends(missing)).items():
                found[tag] = job_id(record.job, tag)
            # A job that left its status file was here, though nobody knows its number.
            unnumbered = {unnumbered_id(tag): tag for tag in missing if tag not in found}
            for job in await self._status_files.read(unnumbered):
                found[unnumbered[job]] = job
        return found


def _problem(tool: str, finished: Finished) -> str:
    text = finished.errors.removesuffix("Exiting.").strip()
    return f"{tool}: {text or f'exit code {finished.exit_code}'}"


DRIVER = driver_of(GridEngine)
