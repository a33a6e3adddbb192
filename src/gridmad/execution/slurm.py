"""Runs jobs on a Slurm cluster, by its command-line tools (gw_em_mad_slurm); by slurmrestd see
gridmad.execution.slurm_rest.

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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from gridmad import credential_watch
from gridmad.commands import Commands, Finished
from gridmad.errors import DriverError, NotSubmittedError, TransientError
from gridmad.execution.batch_system import BatchSystem, add_native_option
from gridmad.execution.contact import group_name, number_in_group
from gridmad.execution.description.model import JobDescription
from gridmad.execution.engine import driver_of
from gridmad.execution.environment import job_environment, on_another_machine
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState
from gridmad.execution.payload import encode, payload, quote
from gridmad.execution.resource import JobId, Resource, Task
from gridmad.execution.status_files import StatusFiles

log = logging.getLogger(__name__)

MAX_WORDS: Final = 500
"""Jobs on one command line, whose length has a limit."""
MAX_SCRIPT: Final = 1 << 20
"""Bytes of the script of an array; Slurm takes four times as much."""

_FIELDS: Final = ("JobID", "ArrayJobID", "ArrayTaskID", "Name", "State", "exit_code", "Reason")
_ACCOUNTS: Final = (
    "--noheader", "--parsable2", "--format=JobID,JobName%40,State%30,ExitCode"
)  # fmt: skip
_JOB_ID: Final = re.compile(r"[0-9]+_([0-9]+|N/A)")
_SUBMITTED: Final = re.compile(rb"([0-9]+)(;[^\s;]*)?\s*")
_UNREACHED: Final = re.compile(
    r"\(connect failure\)|standby mode|configuration source|munge|authentication", re.I
)
"""Words of tools that could not reach Slurm, or were not let in: they have done nothing."""
_UNSURE: Final = re.compile(
    r"Unable to contact|timed out|Zero Bytes were transmitted|Unexpected m|temporarily"
    r"|Connection re|Communication",
    re.I,
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
    """ARRAY_TASK; ARRAY_N/A stands for an array that was cancelled before any task began."""
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


class Slurm(BatchSystem):
    """Jobs on a Slurm cluster."""

    scheme = "slurm"
    summary = "run jobs on a Slurm cluster"
    submit_tool = "sbatch"
    package = "Slurm's commands (slurm-client)"

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare what sbatch is told, and where slurmrestd is."""
        parser.add_argument(
            "--partition", metavar="NAME", help="for jobs that name no queue (default: Slurm's own)"
        )
        add_native_option(parser, "sbatch", "--qos=normal --constraint=skylake")
        parser.add_argument(
            "--rest",
            metavar="URL",
            type=_url,
            help="speak with slurmrestd at https://HOST:PORT, http://HOST:PORT or unix:/PATH "
            "instead of using Slurm's commands",
        )
        parser.add_argument(
            "--token",
            metavar="FILE",
            help="that holds a JSON Web Token for slurmrestd (default: $SLURM_JWT)",
        )
        parser.add_argument(
            "--user", metavar="NAME", help="the token's user (default: who runs the driver)"
        )
        credential_watch.add_options(parser)

    @classmethod
    def of(cls, options: argparse.Namespace) -> Resource:
        """By its commands, or by slurmrestd."""
        if options.rest is None:
            return cls(options)
        from gridmad.execution.slurm_rest import SlurmRest

        return SlurmRest(options)

    def __init__(
        self,
        options: argparse.Namespace,
        commands: Commands | None = None,
        status_files: StatusFiles | None = None,
    ) -> None:
        super().__init__(options, commands, status_files)
        self._raw: dict[JobId, str] = {}
        self._waiting: set[JobId] = set()
        """Jobs that were submitted here or seen PENDING, and nothing else since."""
        self._has_accounting = True
        own = on_another_machine(os.environ)
        # Slurm's own variables are for its commands.
        slurms = {name: value for name, value in own.items() if name.startswith("SLURM_")}
        self._environment = {**job_environment(own), **slurms}

    # ------------------------------------------------------------ submission

    async def submit(self, endpoint: str, tasks: Sequence[Task]) -> Sequence[JobId | DriverError]:
        """One sbatch for all that ask for the same."""
        outcomes: dict[str, JobId | DriverError] = {}
        alike: dict[tuple[str, ...], list[tuple[Task, str]]] = {}
        for task in tasks:
            job = task.submission.description
            try:
                script = self._script(task)
            except DriverError as error:
                outcomes[task.tag] = error
            else:
                alike.setdefault(_requirements(job, self.options), []).append((task, script))
        arrays = [(words, array) for words, ones in alike.items() for array in _pieces(ones)]
        for array in await asyncio.gather(*(self._submit_array(*array) for array in arrays)):
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
        outcome = await self._place(words, array)
        if isinstance(outcome, DriverError):
            return {task.tag: outcome for task, _ in array}
        jobs = {task.tag: f"{outcome}_{task.number}" for task, _ in array}
        self._waiting.update(jobs.values())
        return jobs

    async def _place(
        self, words: Sequence[str], array: Sequence[tuple[Task, str]]
    ) -> str | DriverError:
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
                f"--array={array_ranges([task.number for task, _ in array])}",
                f"--job-name={array[0][0].group}",
                given=array_script(array),
                environment=self._environment,
            )
        except DriverError as error:
            return error
        number = _SUBMITTED.fullmatch(finished.output)
        if finished.exit_code == 0 and number:
            return number[1].decode()
        problem = _problem("sbatch", finished)
        if is_unreached(problem):
            return NotSubmittedError(problem)
        if finished.exit_code <= 0 or is_transient(problem):
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
        self._note_numbers(rows, jobs)
        missing = {job: tag for job, tag in jobs.items() if job not in states}
        if missing:
            states.update(await self._status_files.read(missing))
            missing = {job: tag for job, tag in missing.items() if job not in states}
        if missing:
            try:
                states.update(await self._sacct(missing))
                missing = {job: tag for job, tag in missing.items() if job not in states}
            except TransientError as error:
                # Not lost, as long as nobody could be asked; squeue would show what waits.
                log.warning("ended jobs are taken for ACTIVE: %s", error)
                states.update(dict.fromkeys(missing, ACTIVE))
            else:
                states.update(self._cancelled_early(rows, missing))
        self._waiting -= states.keys()
        self._waiting |= {job for job, state in states.items() if state == PENDING}
        return states

    def _cancelled_early(
        self, rows: Mapping[JobId, Row], jobs: Mapping[JobId, str]
    ) -> Mapping[JobId, JobState]:
        """Those of missing jobs that were cancelled before they began: Slurm drops such tasks
        from their array, and keeps that.
        """
        arrays = {(job.partition("_")[0], row.name) for job, row in rows.items()}
        states: dict[JobId, JobState] = {}
        for job, tag in jobs.items():
            array, name = job.partition("_")[0], group_name(tag)
            whole = rows.get(f"{array}_N/A")
            is_whole = whole is not None and (whole.name, whole.state) == (name, "CANCELLED")
            if is_whole or (job in self._waiting and (array, name) in arrays):
                states[job] = JobState.done(_ENDED["CANCELLED"])
        return states

    def _note_numbers(self, rows: Mapping[JobId, Row], jobs: Collection[JobId]) -> None:
        """Keep the numbers that accounting may know jobs by; those that wait share one."""
        numbers = {
            job: row.raw for job, row in rows.items() if job in jobs and row.state not in _PENDING
        }
        self._raw = {job: raw for job, raw in self._raw.items() if job in jobs} | numbers

    async def look(self, endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """The status files."""
        states = await self._status_files.look(jobs)
        self._waiting -= states.keys()
        return states

    async def _squeue(self) -> list[Row]:
        finished = await self._run(
            "squeue",
            "--noheader",
            "--array",
            "--states=all",
            "--me",
            f"--Format={','.join(f'{field}:|' for field in _FIELDS)}",
        )
        if finished.exit_code != 0:
            raise TransientError(_problem("squeue", finished))
        return list(parse_squeue(finished.output))

    async def _sacct(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """What became of jobs that squeue does not show any more."""
        known = {self._raw.get(job) or job: job for job in jobs} | {job: job for job in jobs}
        states: dict[JobId, JobState] = {}
        for numbers in _slices(sorted(known)):
            rows = await self._accounts(f"--jobs={','.join(numbers)}")
            if rows is None:
                rows = await self._completions(numbers)
            for row in rows:
                job = known.get(row.job)
                if job is not None and row.name == group_name(jobs[job]):
                    states[job] = job_state(row)
        return states

    async def _accounts(self, *words: str) -> list[Row] | None:
        """What Slurm's accounting says; None where there is none."""
        if not self._has_accounting:
            return None
        finished = await self._run("sacct", "--allocations", *_ACCOUNTS, *words)
        if finished.exit_code == 0:
            return list(parse_sacct(finished.output))
        if not _NO_ACCOUNTING.search(finished.errors):
            raise TransientError(_problem("sacct", finished))
        log.info("Slurm has no accounting: the completion log is read")
        self._has_accounting = False
        return None

    async def _completions(self, numbers: Iterable[str]) -> list[Row]:
        """What the log of completed jobs says, which knows the numbers of tasks only."""
        raw = ",".join(number for number in numbers if number.isdecimal())
        if not raw:
            return []
        finished = await self._run("sacct", "--completion", *_ACCOUNTS, f"--jobs={raw}")
        return list(parse_sacct(finished.output)) if finished.exit_code == 0 else []

    # ------------------------------------------------------------ the rest

    async def cancel(
        self, endpoint: str, jobs: Mapping[JobId, str]
    ) -> Mapping[JobId, DriverError | None]:
        """One squeue, for a number may be another job's by now, and one scancel."""
        wanted = [
            row.job
            for row in await self._squeue()
            if row.job in jobs and row.name == group_name(jobs[row.job])
        ]
        outcomes: dict[JobId, DriverError | None] = {}
        for ones in _slices(wanted):
            outcomes.update(await self._scancel(ones))
        return outcomes

    async def _scancel(self, jobs: Sequence[JobId]) -> Mapping[JobId, DriverError | None]:
        finished = await self._run("scancel", "--quiet", *jobs)
        if finished.exit_code == 0:
            return {}
        problem = _problem("scancel", finished)
        is_passing = is_unreached(problem) or is_transient(problem)
        return dict.fromkeys(jobs, TransientError(problem) if is_passing else DriverError(problem))

    async def find(self, endpoint: str, tags: Collection[str]) -> Mapping[str, JobId]:
        """One squeue; what ended jobs left, which Slurm may have forgotten; and one sacct."""
        found = _by_tag(tags, await self._squeue())
        left = {_forgotten(tag): tag for tag in tags if tag not in found}
        if left:
            ended = await self._status_files.read(left)
            found.update((left[job], job) for job in ended)
        names = {group_name(tag) for tag in tags if tag not in found}
        if names:
            since = f"--starttime=now-{self.options.keep_days}days"
            rows = await self._accounts(f"--name={','.join(sorted(names))}", since) or ()
            found = _by_tag(tags, rows) | found
        return found


def _by_tag(tags: Iterable[str], rows: Iterable[Row]) -> dict[str, JobId]:
    """The jobs of tags."""
    jobs = {(row.name, row.job.rpartition("_")[2]): row.job for row in rows}
    named = ((tag, jobs.get((group_name(tag), str(number_in_group(tag))))) for tag in tags)
    return {tag: job for tag, job in named if job is not None}


def _forgotten(tag: str) -> JobId:
    """The id of a job that Slurm has forgotten, and of which only the end is known."""
    return f"{group_name(tag)}_{number_in_group(tag)}"


def is_unreached(problem: str) -> bool:
    """Whether Slurm was not reached or let nobody in: nothing was done."""
    return _UNREACHED.search(problem) is not None


def is_transient(problem: str) -> bool:
    """Whether it is Slurm's problem and not the request's."""
    return _UNSURE.search(problem) is not None


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
    if job.nodes:
        words.append(f"--nodes={job.nodes}")
    if job.processes_per_node:
        words.append(f"--ntasks-per-node={job.processes_per_node}")
    if job.max_wall_time:
        words.append(f"--time={job.max_wall_time}")
    memory = max(job.max_memory or 0, job.min_memory or 0)
    if memory:
        words.append(f"--mem={memory}M")
    return tuple(words)


def array_script(array: Iterable[tuple[Task, str]]) -> bytes:
    """The script of an array, which chooses by the number of the task."""
    lines = ["#!/bin/sh", "export SLURM_EXPORT_ENV=ALL", 'case "$SLURM_ARRAY_TASK_ID" in']
    for task, script in array:
        lines += [f"{task.number})", f"# job {quote(task.submission.job_id)}", f"{script};;"]
    lines.append("esac")
    return encode("\n".join(lines) + "\n")


def _pieces(array: Iterable[tuple[Task, str]]) -> Iterator[list[tuple[Task, str]]]:
    """Arrays of which each has a script of about MAX_SCRIPT bytes at most."""
    piece: list[tuple[Task, str]] = []
    size = 0
    for task, script in array:
        if piece and size + len(script) > MAX_SCRIPT:
            yield piece
            piece, size = [], 0
        piece.append((task, script))
        size += len(script)
    if piece:
        yield piece


def _slices(words: Sequence[str]) -> Iterator[Sequence[str]]:
    """What fits on one command line each."""
    for first in range(0, len(words), MAX_WORDS):
        yield words[first : first + MAX_WORDS]


def array_ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as sbatch takes them: 0-3,7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in parts)


def _url(text: str) -> str:
    """An URL on the command line."""
    parts = urlsplit(text)
    is_local = text.startswith("unix:/")
    if not is_local and not (parts.scheme in ("http", "https") and parts.hostname):
        raise argparse.ArgumentTypeError(f"no URL of slurmrestd: {text[:80]}")
    return text.rstrip("/")


DRIVER = driver_of(Slurm)
