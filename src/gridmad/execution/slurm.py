"""Runs jobs on a Slurm cluster, by its command-line tools (gw_em_mad_slurm).

Jobs that are submitted together and ask for the same are one array, named `gridmad-<group>`,
and a job's number in its group is the number of its task; so a job is found by its tag.  The
script of an array chooses by the number of the task.

States come from one `squeue` of all the user's jobs, ended ones included as long as Slurm
keeps them (MinJobAge), and then from one `sacct`, or `sacct -c` where there is no accounting.
Before all of that a job's own status file tells its end, where this machine and the cluster
share the folder (see gridmad.execution.status_files).

What a job gets: the environment that gridmad.execution.environment makes, without TMPDIR, and
what its description says.  (A site that wants its users' login environments instead says
`--native --get-user-env`.)  The queue is the partition, the project the account,
count the number of tasks; a job of type `multiple` is started `count` times, by srun.

Source: squeue(1), "JOB STATE CODES"; sbatch(1), "JOB ARRAYS"; sacct(1).
"""

import argparse
import asyncio
import logging
import os
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from gridmad.errors import DriverError, NotSubmittedError, TransientError
from gridmad.execution.commands import Commands, Finished
from gridmad.execution.contact import group_name, number_in_group
from gridmad.execution.description.model import JobDescription
from gridmad.execution.engine import driver_of
from gridmad.execution.environment import job_environment
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState, Submission
from gridmad.execution.payload import encode, payload, quote
from gridmad.execution.resource import JobId, Resource, Task
from gridmad.execution.status_files import StatusFiles

log = logging.getLogger(__name__)

MAX_ENDED: Final = 500
"""Jobs of one sacct; the words of a command have a limit."""

_FIELDS: Final = ("JobID", "ArrayJobID", "ArrayTaskID", "Name", "State", "exit_code", "Reason")
_JOB_ID: Final = re.compile(r"[0-9]+_[0-9]+")
_SUBMITTED: Final = re.compile(rb"([0-9]+)(;[^\s;]*)?\s*")
_UNREACHED: Final = re.compile(r"Unable to contact slurm controller|standby mode")
_UNSURE: Final = re.compile(
    r"timed out|Zero Bytes were transmitted|Unexpected message|temporarily|Connection re", re.I
)
_NO_ACCOUNTING: Final = re.compile(r"accounting storage is disabled", re.I)

_PENDING: Final = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD",
     "SPECIAL_EXIT"}
)  # fmt: skip
_ACTIVE: Final = frozenset({"RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT"})
_SUSPENDED: Final = frozenset({"SUSPENDED", "STOPPED"})
_ENDED: Final = {"CANCELLED": 143, "TIMEOUT": 143, "DEADLINE": 143, "OUT_OF_MEMORY": 137}
"""Jobs that were killed, with exit codes for those that Slurm tells none of."""
_LOST: Final = {
    "BOOT_FAIL": "its node did not boot",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "it was preempted",
    "REVOKED": "it was moved to another cluster",
}


class Row(NamedTuple):
    """What Slurm says of a job."""

    job: JobId
    """ARRAY_TASK."""
    raw: str
    """The number that accounting may know it by."""
    name: str
    state: str
    status: int
    """As of wait(2)."""
    reason: str


def parse_squeue(output: bytes) -> Iterator[Row]:
    """The jobs of `squeue -r -O ...` that are tasks of arrays; other lines are passed over."""
    for line in output.decode("utf-8", "replace").splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) < len(_FIELDS):
            continue
        raw, array, task, name, state, status, *reason = fields
        job = f"{array}_{task}"
        if _JOB_ID.fullmatch(job) and status.isdecimal():
            yield Row(job, raw, name, state, int(status), reason[0])


def parse_sacct(output: bytes) -> Iterator[Row]:
    """The jobs of `sacct -X -n -P -o JobID,JobName,State,ExitCode`; their ids may be either."""
    for line in output.decode("utf-8", "replace").splitlines():
        fields = line.split("|")
        if len(fields) < 4:
            continue
        job, state, (code, _, number) = fields[0], fields[-2], fields[-1].partition(":")
        if code.isdecimal() and (number or "0").isdecimal() and state:
            status = int(code) % 256 << 8 | int(number or "0") % 128
            yield Row(job, job, "|".join(fields[1:-2]), state.split()[0], status, "")


def job_state(row: Row) -> JobState:
    """A job's state in gwd's terms."""
    if row.state in _PENDING:
        return PENDING
    if row.state in _SUSPENDED:
        return SUSPENDED
    if row.state in _LOST:
        return JobState.failed(f"{_LOST[row.state]} ({row.state})")
    if row.state in _ENDED:
        code = _exit_code(row.status)
        if row.state != "CANCELLED":
            log.warning("job %s was ended by Slurm: %s", row.job, row.state)
        return JobState.done(_ENDED[row.state] if code == 0 else code)
    if row.state == "COMPLETED":
        return JobState.done(_exit_code(row.status))
    if row.state == "FAILED":
        if row.status == 0:
            return JobState.failed(f"Slurm could not run it: {row.reason or row.state}")
        return JobState.done(_exit_code(row.status))
    if row.state not in _ACTIVE:
        log.warning("job %s: unknown state %s, taken for ACTIVE", row.job, row.state)
    return ACTIVE


def _exit_code(status: int) -> int:
    """An exit code, 128 + n for signal n, from a status as of wait(2)."""
    number = status & 0x7F
    return 128 + number if number else status >> 8 & 0xFF


class Slurm(Resource):
    """Jobs on a Slurm cluster."""

    scheme = "slurm"
    summary = "run jobs on a Slurm cluster"
    looks = True

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare --partition and --native."""
        parser.add_argument(
            "--partition", metavar="NAME", help="for jobs that name no queue (default: Slurm's own)"
        )
        parser.add_argument(
            "--native",
            metavar="WORDS",
            type=shlex.split,
            default=[],
            help="further words for every sbatch, as '--qos=normal --constraint=skylake'",
        )

    def __init__(
        self,
        options: argparse.Namespace,
        commands: Commands | None = None,
        status_files: StatusFiles | None = None,
    ) -> None:
        super().__init__(options)
        self._commands = commands
        self._files = status_files
        self._raw: dict[JobId, str] = {}
        self._has_accounting = True
        own = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
        # Slurm's own variables are for its commands.
        slurms = {name: value for name, value in own.items() if name.startswith("SLURM_")}
        self._environment = {**job_environment(own), **slurms}

    async def start(self) -> None:
        """Find the tools."""
        if self._commands is None:
            self._commands = Commands(seconds=self.options.timeout)
        if self._files is None:
            self._files = StatusFiles(self.folder)
        if not self._commands.has("sbatch"):
            raise DriverError("no sbatch on the PATH: install Slurm's commands (slurm-client)")

    def endpoint(self, submission: Submission) -> str:
        """There is one cluster, whatever gwd calls it."""
        return ""

    @property
    def _status_files(self) -> StatusFiles:
        assert self._files is not None
        return self._files

    async def _run(
        self, *words: str, given: bytes = b"", environment: Mapping[str, str] | None = None
    ) -> Finished:
        assert self._commands is not None
        return await self._commands.run(*words, given=given, environment=environment)

    # ------------------------------------------------------------ submission

    async def submit(self, endpoint: str, tasks: Sequence[Task]) -> Sequence[JobId | DriverError]:
        """One sbatch for all that ask for the same."""
        outcomes: dict[str, JobId | DriverError] = {}
        arrays: dict[tuple[str, ...], list[tuple[Task, str]]] = {}
        for task in tasks:
            job = task.submission.description
            try:
                script = self._script(task)
            except DriverError as error:
                outcomes[task.tag] = error
            else:
                arrays.setdefault(_requirements(job, self.options), []).append((task, script))
        done = await asyncio.gather(
            *(self._submit_array(words, array) for words, array in arrays.items())
        )
        for array in done:
            outcomes.update(array)
        return [outcomes[task.tag] for task in tasks]

    def _script(self, task: Task) -> str:
        job = task.submission.description
        is_multiple = job.job_type == "multiple" and job.count > 1
        return payload(
            job,
            status_file=self._status_files.path(task.tag),
            launcher=("srun", f"--ntasks={job.count}") if is_multiple else (),
        )

    async def _submit_array(
        self, words: Sequence[str], array: Sequence[tuple[Task, str]]
    ) -> Mapping[str, JobId | DriverError]:
        numbers = [task.number for task, _ in array]
        outcome = await self._sbatch(
            f"--job-name={array[0][0].group}",
            f"--array={_ranges(numbers)}",
            *words,
            given=_array_script(array),
        )
        if isinstance(outcome, DriverError):
            return {task.tag: outcome for task, _ in array}
        return {task.tag: f"{outcome}_{task.number}" for task, _ in array}

    async def _sbatch(self, *words: str, given: bytes) -> str | DriverError:
        """The number of a job, or why there is none; never raises a DriverError."""
        try:
            finished = await self._run(
                "sbatch",
                "--parsable",
                "--input=/dev/null",
                "--output=/dev/null",
                "--error=/dev/null",
                "--export=ALL",
                *words,
                *self.options.native,
                given=given,
                environment=self._environment,
            )
        except DriverError as error:
            return error
        number = _SUBMITTED.fullmatch(finished.output)
        if finished.exit_code == 0 and number:
            return number[1].decode()
        problem = _problem("sbatch", finished)
        if _UNREACHED.search(problem):
            return NotSubmittedError(problem)
        if finished.exit_code <= 0 or _UNSURE.search(problem):
            return TransientError(problem)
        return DriverError(problem)

    # ------------------------------------------------------------ states

    async def query(self, endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """One squeue, and for jobs that it lacks their status files and one sacct."""
        rows = {row.job: row for row in await self._squeue()}
        states = {
            job: job_state(rows[job])
            for job, tag in jobs.items()
            if job in rows and rows[job].name == group_name(tag)
        }
        self._raw = {job: rows[job].raw if job in rows else self._raw.get(job, "") for job in jobs}
        missing = {job: tag for job, tag in jobs.items() if job not in states}
        if missing:
            states.update(await self._status_files.read(missing))
            missing = {job: tag for job, tag in missing.items() if job not in states}
        if missing:
            states.update(await self._sacct(missing))
        return states

    async def look(self, endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """The status files."""
        return await self._status_files.look(jobs)

    async def _squeue(self, *words: str) -> list[Row]:
        finished = await self._run(
            "squeue",
            "--noheader",
            "--array",
            "--states=all",
            "--me",
            f"--Format={','.join(f'{field}:|' for field in _FIELDS)}",
            *words,
        )
        if finished.exit_code != 0:
            raise TransientError(_problem("squeue", finished))
        return list(parse_squeue(finished.output))

    async def _sacct(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        known = {self._raw.get(job) or job: job for job in jobs} | {job: job for job in jobs}
        wanted = sorted(known)
        states: dict[JobId, JobState] = {}
        for first in range(0, len(wanted), MAX_ENDED):
            for row in await self._accounts(wanted[first : first + MAX_ENDED]):
                job = known.get(row.job)
                if job is not None and row.name == group_name(jobs[job]):
                    states[job] = job_state(row)
        return states

    async def _accounts(self, numbers: Sequence[str]) -> list[Row]:
        words = ("--noheader", "--parsable2", "--format=JobID,JobName%40,State%30,ExitCode")
        if self._has_accounting:
            finished = await self._run(
                "sacct", "--allocations", *words, f"--jobs={','.join(numbers)}"
            )
            if finished.exit_code == 0:
                return list(parse_sacct(finished.output))
            if not _NO_ACCOUNTING.search(finished.errors):
                raise TransientError(_problem("sacct", finished))
            log.info("Slurm has no accounting: the completion log is read")
            self._has_accounting = False
        # It knows the numbers of tasks only.
        raw = ",".join(number for number in numbers if number.isdecimal())
        finished = await self._run("sacct", "--completion", *words, f"--jobs={raw}")
        return list(parse_sacct(finished.output)) if raw and finished.exit_code == 0 else []

    # ------------------------------------------------------------ the rest

    async def cancel(
        self, endpoint: str, jobs: Mapping[JobId, str]
    ) -> Mapping[JobId, DriverError | None]:
        """One scancel, by the names too: a number may be another job's by now."""
        groups: dict[str, list[JobId]] = {}
        for job, tag in jobs.items():
            groups.setdefault(group_name(tag), []).append(job)
        outcomes: dict[JobId, DriverError | None] = {}
        for name, ones in groups.items():
            finished = await self._run("scancel", f"--name={name}", *ones)
            if finished.exit_code != 0:
                problem = _problem("scancel", finished)
                is_transient = _UNREACHED.search(problem) or _UNSURE.search(problem)
                error = TransientError(problem) if is_transient else DriverError(problem)
                outcomes.update(dict.fromkeys(ones, error))
        return outcomes

    async def find(self, endpoint: str, tags: Collection[str]) -> Mapping[str, JobId]:
        """One squeue of the groups' names; and the status files of jobs that have ended."""
        names = sorted({group_name(tag) for tag in tags})
        rows = {}
        for row in await self._squeue(f"--name={','.join(names)}"):
            rows[row.name, int(row.job.rpartition("_")[2])] = row.job
        found: dict[str, JobId] = {}
        for tag in tags:
            job = rows.get((group_name(tag), number_in_group(tag)))
            if job is not None:
                found[tag] = job
        return found


def _problem(tool: str, finished: Finished) -> str:
    text = re.sub(r"^(\w+: error: |slurm_load_jobs error: )+", "", finished.errors)
    return f"{tool}: {text or f'exit code {finished.exit_code}'}"


def _requirements(job: JobDescription, options: argparse.Namespace) -> tuple[str, ...]:
    """What a job asks for, as words of sbatch."""
    partition = job.queue or options.partition
    words = [f"--partition={partition}"] if partition else []
    if job.project:
        words.append(f"--account={job.project}")
    if job.count > 1:
        words.append(f"--ntasks={job.count}")
    if job.max_wall_time:
        words.append(f"--time={job.max_wall_time}")
    memory = max(job.max_memory or 0, job.min_memory or 0)
    if memory:
        words.append(f"--mem={memory}M")
    return tuple(words)


def _array_script(array: Iterable[tuple[Task, str]]) -> bytes:
    lines = ["#!/bin/sh", "export SLURM_EXPORT_ENV=ALL", 'case "$SLURM_ARRAY_TASK_ID" in']
    for task, script in array:
        lines += [f"{task.number})", f"# job {quote(task.submission.job_id)}", f"{script};;"]
    lines.append("esac")
    return encode("\n".join(lines) + "\n")


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as sbatch takes them: 0-3,7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in parts)


DRIVER = driver_of(Slurm)
