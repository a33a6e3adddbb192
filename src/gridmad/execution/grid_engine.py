"""What Grid Engine's tools take and say: scripts, names, states, records.  No I/O.

Jobs that are alike are tasks of one array job.  The name of the array job and the number of
the task tell a job's tag:

    tag 5f0c3a91d2e8 0007    name gridmad-5f0c3a91d2e8, task 8

Sources: qsub(1), qdel(1), sge_qstat(5), sge_status(5), sge_accounting(5) of Grid Engine 8.1.9.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple
from xml.parsers import expat

from gridmad.errors import DriverError
from gridmad.execution.contact import GROUP_LENGTH, group_name, number_in_group
from gridmad.execution.description.model import JobDescription
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState
from gridmad.execution.resource import JobId


def task_number(tag: str) -> int:
    """The number of a tag's task."""
    return number_in_group(tag) + 1


def job_id(job: str, tag: str) -> JobId:
    """The id of a tag's task, by its job's number: `17.3`."""
    return f"{job}.{task_number(tag)}"


def unnumbered_id(tag: str) -> JobId:
    """The id of a task whose job's number is not known: `5f0c3a91d2e8.3`."""
    return job_id(tag[:GROUP_LENGTH], tag)


# ---------------------------------------------------------------- submission

_VALUE: Final = re.compile(r"[A-Za-z0-9_.*?@][A-Za-z0-9_.*?@+-]*")

# Grid Engine takes the exit codes 99 and 100 for wishes: to run the job again, and to hold it
# as broken.  A script that has to end with one of them ends by a signal instead that nobody
# else sends, which accounting then tells from all exit codes.
_SIGNALS: Final = {99: 35, 100: 36}
_EXIT_CODES: Final = {128 + number: code for code, number in _SIGNALS.items()}


def requirements(job: JobDescription, parallel_environment: str = "") -> Sequence[str]:
    """The words for qsub that say what a job asks for.  Raises DriverError."""
    words: list[str] = []
    if job.queue:
        words += ["-q", _value("queue", job.queue)]
    if job.project:
        words += ["-P", _value("project", job.project)]
    if job.count > 1:
        if job.job_type == "multiple":
            raise DriverError(
                f"this driver starts one process for a job, not {job.count}: jobtype=multiple"
            )
        if not parallel_environment:
            raise DriverError(
                f"a job with a count of {job.count} needs a parallel environment (--pe NAME)"
            )
        words += ["-pe", parallel_environment, str(job.count)]
    limits = {
        "h_rt": _number(job.max_wall_time, 60, ""),
        "h_cpu": _number(job.max_cpu_time, 60, ""),
        "h_vmem": _number(job.max_memory, 1, "M"),
        "mem_free": _number(job.min_memory, 1, "M"),
    }
    asked = [f"{name}={value}" for name, value in limits.items() if value]
    if asked:
        words += ["-l", ",".join(asked)]
    return words


def _number(value: int | None, factor: int, unit: str) -> str:
    return f"{value * factor}{unit}" if value is not None and value > 0 else ""


def _value(name: str, value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise DriverError(f"{value!r} cannot be the name of a {name}")
    return value


def script(payloads: Mapping[int, str]) -> str:
    """The script of an array job: by the numbers of its tasks, what each runs."""
    exceptions = " ".join(f"{code}) kill -{number} $$;;" for code, number in _SIGNALS.items())
    lines = [
        "#!/bin/sh",
        f"trap 'case $? in {exceptions} esac' EXIT",
        "case $SGE_TASK_ID in",
    ]
    for number, text in payloads.items():
        lines += [f"{number})", text, ";;"]
    return "\n".join([*lines, "esac", ""])


_OUT_OF_REACH: Final = re.compile(
    r"commlib error|gdi request|qmaster using port|qmaster name|from qmaster"
)
_SUBMITTED: Final = re.compile(rb"^([0-9]{1,10})\.[0-9]+-[0-9]+:1$", re.MULTILINE)


def submitted_job(output: bytes) -> str | None:
    """The number that `qsub -terse` printed for an array job."""
    match = _SUBMITTED.search(output)
    return match[1].decode() if match is not None else None


def refusal(errors: str) -> str:
    """What qsub says of a job that it does not take, without its ornaments."""
    _, _, reason = errors.rpartition("Unable to run job: ")
    reason = reason.removesuffix("Exiting.").strip().rstrip(".")
    for ornament in ("Job was rejected because job ", "job rejected: ", "denied: ", "error: "):
        reason = reason.removeprefix(ornament)
    return reason or "qsub does not say why"


def is_out_of_reach(errors: str) -> bool:
    """Whether a tool says that it got no answer from the master."""
    return _OUT_OF_REACH.search(errors) is not None


def is_certainly_out_of_reach(errors: str) -> bool:
    """Whether a tool says that the master got nothing of what it was to be sent."""
    return "(Connection refused)" in errors and not re.search(r"read error|receiv", errors)


# ---------------------------------------------------------------- qstat

_GROUP: Final = re.compile(r"gridmad-[0-9a-f]{12}")


class Trouble(Enum):
    """What is no state for gwd, but to be dealt with."""

    ERROR = "E"
    """It could not be started, and is held until somebody looks."""
    ENDED = "z"


class Listed(NamedTuple):
    """A task that qstat shows."""

    job: str
    """The job's number."""
    state: JobState | Trouble


class Listing:
    """Our tasks, as `qstat -xml` shows them."""

    def __init__(self, xml: bytes) -> None:
        """Raises ValueError for what qstat does not print."""
        self._tasks: dict[tuple[str, int], Listed] = {}
        self._ranges: dict[str, list[tuple[range, Listed]]] = {}
        _parse(xml, self._take)

    def _take(self, group: str, fields: Mapping[str, str]) -> None:
        name, job = fields.get("JB_name", ""), fields.get("JB_job_number", "")
        if not _GROUP.fullmatch(name) or not job.isdecimal():
            return
        listed = Listed(job, _state(fields.get("state", ""), group))
        for numbers in _task_ranges(fields.get("tasks", "")):
            if len(numbers) == 1:
                self._tasks.setdefault((name, numbers.start), listed)
            else:
                self._ranges.setdefault(name, []).append((numbers, listed))

    def get(self, tag: str) -> Listed | None:
        """The task of a tag."""
        name, number = group_name(tag), task_number(tag)
        listed = self._tasks.get((name, number))
        if listed is not None:
            return listed
        return next((one for numbers, one in self._ranges.get(name, ()) if number in numbers), None)


def _state(letters: str, group: str) -> JobState | Trouble:
    """The meaning of qstat's letters; `group` (pending, running, zombie) is that of the list."""
    if "E" in letters:
        return Trouble.ERROR
    if "z" in letters or group == "zombie":
        return Trouble.ENDED
    if "q" in letters or group == "pending":
        return PENDING
    return SUSPENDED if re.search("[sST]", letters) else ACTIVE


def _task_ranges(text: str) -> Iterator[range]:
    """`3-8:1,11` is two ranges.  Raises ValueError."""
    for part in text.split(",") if text else ():
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}):([1-9][0-9]{0,8}))?", part)
        if match is None:
            raise ValueError(f"{part[:40]!r} are no tasks")
        first, last, step = match.groups()
        yield range(int(first), int(last or first) + 1, int(step or 1))


def _parse(xml: bytes, take: Callable[[str, Mapping[str, str]], None]) -> None:
    """Call `take` with each `job_list`: its state attribute, and its fields.  Raises ValueError."""
    group = field = ""
    fields: dict[str, str] = {}

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal group, field
        field = name
        if name == "job_list":
            group = attributes.get("state", "")
            fields.clear()

    def text(data: str) -> None:
        fields[field] = fields.get(field, "") + data

    def end(name: str) -> None:
        nonlocal field
        field = ""
        if name == "job_list":
            take(group, fields)

    def doctype(*_declaration: object) -> None:
        raise ValueError("qstat prints a document type")

    # Names of other jobs may have any bytes; what is ours is ASCII.
    parser = expat.ParserCreate("iso-8859-1")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as error:
        raise ValueError(f"what qstat prints is no XML: {error}") from None


_JOB_NUMBER: Final = re.compile(r"^job_number:\s+([0-9]+)$")
_ERROR_REASON: Final = re.compile(
    r"^error reason\s+([0-9]+):\s+(?:[0-9/]+ [0-9:]+ \[[0-9:]+\]: )?(?:error: )?(.*)$"
)


def error_reasons(output: bytes) -> Mapping[JobId, str]:
    """Why tasks are in error, from what `qstat -j` prints."""
    reasons: dict[JobId, str] = {}
    job = ""
    for line in output.decode("utf-8", "replace").splitlines():
        number, reason = _JOB_NUMBER.match(line), _ERROR_REASON.match(line)
        if number is not None:
            job = number[1]
        elif reason is not None and job:
            reasons[f"{job}.{int(reason[1])}"] = reason[2].strip()
    return reasons


# ---------------------------------------------------------------- qdel

_DELETED: Final = re.compile(r"has deleted job-array task ([0-9]+)\.([0-9]+)")
_DELETED_MANY: Final = re.compile(r"has deleted job-array tasks ([0-9,:-]+) of job ([0-9]+)")
_NO_FAULT: Final = re.compile(
    r"has (registered|deleted)|does not exist|is already in deletion|comprises no tasks"
)


def deletions(tags: Collection[str]) -> Iterator[Sequence[str]]:
    """The words that name tasks for qdel, some tasks at a time.

    They say the job by its name, which nobody else's job has; its number may be that of
    another job, where the cluster was set up anew or its numbers began again.
    """
    runs: list[tuple[str, int, int]] = []
    for tag in sorted(tags):
        name, number = group_name(tag), task_number(tag)
        if runs and runs[-1][0] == name and runs[-1][2] == number - 1:
            runs[-1] = (name, runs[-1][1], number)
        else:
            runs.append((name, number, number))
    for name, first, last in runs:
        yield name, "-t", f"{first}-{last}"


def deleted_tasks(output: str) -> Iterator[JobId]:
    """The tasks that qdel says were deleted at once, since they did not run."""
    for job, number in _DELETED.findall(output):
        yield f"{job}.{number}"
    for numbers, job in _DELETED_MANY.findall(output):
        for part in _task_ranges(numbers):
            for number in part:
                yield f"{job}.{number}"


def complaints(output: str) -> str:
    """What qdel says beyond that tasks are deleted or are not there."""
    return " ".join(line for line in output.splitlines() if not _NO_FAULT.search(line)).strip()


# ---------------------------------------------------------------- accounting

_RECORD: Final = re.compile(rb":gridmad-([0-9a-f]{12}):([^\n]*)\n")
_NOT_PARALLEL: Final = b"NONE"

_RAN: Final = frozenset({0, 12, 13, 14, 15, 16, 17, 30, 37, 100})
"""Codes for a job that ran, and whose exit status therefore is its own."""
_LOST: Final = {
    18: "its shepherd failed",
    19: "its end is not known (the host crashed)",
    20: "its shepherd failed",
    21: "the host does not know it",
    100: "its shepherd died (the host crashed)",
}
_LIMIT: Final = 37


class Record(NamedTuple):
    """The end of a task, by the accounting file."""

    tag: str
    job: str
    """The job's number."""
    failed: int
    """A code of sge_status(5)."""
    exit_status: int

    @property
    def is_over_limit(self) -> bool:
        """It was killed for the time or memory that it took."""
        return self.failed == _LIMIT

    @property
    def state(self) -> JobState:
        """How it ended."""
        if self.failed == 100 and self.exit_status <= 128:
            return JobState.failed(_LOST[100])
        if self.failed in _RAN:
            code = self.exit_status
            if self.failed == 100:
                code = _EXIT_CODES.get(code, code)
            return JobState.done(code)
        return JobState.failed(_LOST[self.failed])


def records(block: bytes) -> Iterator[Record]:
    """The ends of our tasks in whole lines of the accounting file.

    Left out are tries that were not the end: a job that could not be started stays in the
    queue, in error or to be tried again, as does one that runs again elsewhere.
    """
    for group, rest in _RECORD.findall(block):
        # From the job's number on; the file's own fields begin five earlier.
        fields = rest.split(b":")
        try:
            job, failed, exit_status, task = (int(fields[place]) for place in (0, 6, 7, 30))
            parallel_task = fields[36]
        except (ValueError, IndexError):
            continue
        if parallel_task != _NOT_PARALLEL or not (failed in _RAN or failed in _LOST):
            continue
        if 0 < task <= 0x10000 and 0 <= exit_status < 256:
            tag = f"{group.decode()}{task - 1:04x}"
            yield Record(tag, str(job), failed, exit_status)
