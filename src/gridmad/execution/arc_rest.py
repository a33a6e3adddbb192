"""What is said to ARC's A-REX by its REST interface, version 1.0, and what it answers.

Answers are JSON that was made from XML: one thing is no list, all values are texts, and
nothing is no text at all.

A job is described in ADL.  Its Name is `gridmad-<tag>`.  It begins when the file COMMIT was
put into its session directory, and A-REX drops it when that does not happen within ten
minutes.  A-REX expands variables in arguments and takes no line ends there, so a script goes
in as base64.

Source: "ARC 6: REST interface technical description" 1.0; "EMI Execution Service: Activity
Description Language".  No I/O happens here.
"""

import base64
import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from xml.etree import ElementTree as ET

from gridmad.errors import DriverError, TransientError
from gridmad.execution.contact import TAG
from gridmad.execution.description.model import JobDescription
from gridmad.execution.description.paths import remote_url
from gridmad.execution.inputs import local_inputs
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState
from gridmad.execution.payload import encode, payload
from gridmad.execution.resource import JobId, Task

log = logging.getLogger(__name__)

PREFIX: Final = "gridmad-"
COMMIT: Final = "gridmad.commit"
MAX_SCRIPT: Final = 90_000
"""Bytes: the kernel takes 131,072 for an argument, and base64 makes four of three."""
MAX_IDS: Final = 5000
"""Of one question; A-REX reads at most 1 MiB."""

_NAMESPACE: Final = "http://www.eu-emi.eu/es/2010/12/adl"
_JOB_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,9}")
_LRMS_ERROR: Final = re.compile(r"LRMS error: \((-?[0-9]{1,9})\)")
_UNFIT: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STAGED: Final = {"stdin": ("<", 3), "stdout": (">", 4), "stderr": (">", 5)}
"""How a staged file of the session directory is opened, and as which descriptor."""
_CLOSED: Final = "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-\n"
"""What A-REX's own script has open is none of the job's business."""
_AT_HOME: Final = """\
home=$(getent passwd "$(id -u)" | cut -d : -f 6)
if [ -d "$home" ]; then HOME=$home; export HOME; fi
"""

_PENDING: Final = frozenset(
    {"ACCEPTING", "ACCEPTED", "PREPARING", "PREPARED", "SUBMITTING", "QUEUING"}
)
_ACTIVE: Final = frozenset({"RUNNING", "EXITINGLRMS", "OTHER", "EXECUTED", "FINISHING", "KILLING"})
_UNCOMMITTED: Final = frozenset({"ACCEPTING", "ACCEPTED", "PREPARING"})
_ENDED: Final = frozenset({"FINISHED", "FAILED", "KILLED"})
_UNKNOWN: Final = frozenset({"None", "WIPED", ""})


# ---------------------------------------------------------------- descriptions


def stages_files(job: JobDescription) -> bool:
    """Whether A-REX has to fetch or store files of a job, as its user."""
    return bool(_staged(job))


def _staged(job: JobDescription) -> dict[str, str]:
    """The URLs of its standard streams; of stderr only where that is another one."""
    urls = {name: url for name in _STAGED if (url := remote_url(getattr(job, name)))}
    if urls.get("stderr") == urls.get("stdout"):
        urls.pop("stderr", None)
    return urls


def inputs(job: JobDescription) -> Mapping[str, str]:
    """The paths on this machine of the inputs that the driver puts into a job's session directory,
    by their names there.
    """
    return {f"gridmad.input.{n}": file.url for n, file in enumerate(local_inputs(job))}


def activities(descriptions: Sequence[ET.Element]) -> bytes:
    """Descriptions of jobs as one document."""
    root = ET.Element("ActivityDescriptions", xmlns=_NAMESPACE)
    root.extend(descriptions)
    document: bytes = ET.tostring(root, "utf-8")
    return document


def activity(task: Task, *, queue: str = "", home: str = "", delegation: str = "") -> ET.Element:
    """The description of a job.

    `queue` is for a job that names none; `home` is where relative paths begin (default: the
    home directory of the account that the job gets); `delegation` is the id of a delegated
    proxy, which a job that stages files must have.  Raises DriverError for what ARC has not.
    """
    job = task.submission.description
    if job.project:
        raise DriverError("ARC has no projects")
    if job.count > 1 and job.job_type not in ("", "single"):
        raise DriverError(f"ARC does not start the processes of a job of type {job.job_type[:40]}")
    if stages_files(job) and not delegation:
        raise DriverError("to stage its files a job needs a proxy, which a token is not")
    root = ET.Element("ActivityDescription")
    _add(root, "ActivityIdentification", "Name").text = PREFIX + task.tag
    application = _add(root, "Application")
    executable = _add(application, "Executable")
    _add(executable, "Path").text = "/bin/sh"
    _add(executable, "Argument").text = "-c"
    _add(executable, "Argument").text = _command(job, home)
    _add(application, "Output").text = "gridmad.stdout"
    _add(application, "Error").text = "gridmad.stderr"
    _add_resources(root, job, queue)
    staging = _add(root, "DataStaging")
    _add(staging, "InputFile", "Name").text = COMMIT
    for name, url in _staged(job).items():
        kind, end = ("InputFile", "Source") if name == "stdin" else ("OutputFile", "Target")
        file = _add(staging, kind)
        _add(file, "Name").text = f"gridmad.{name}.staged"
        place = _add(file, end)
        _add(place, "URI").text = url
        _add(place, "DelegationID").text = delegation
        if end == "Target":
            for case in ("UseIfFailure", "UseIfCancel", "UseIfSuccess"):
                _add(place, case).text = "true"
    for element in root.iter():
        if element.text and _UNFIT.search(element.text):
            raise DriverError(f"{element.text[:40]!r} cannot be written in XML")
    return root


def _add(parent: ET.Element, *names: str) -> ET.Element:
    for name in names:
        parent = ET.SubElement(parent, name)
    return parent


def _add_resources(root: ET.Element, job: JobDescription, queue: str) -> None:
    resources = _add(root, "Resources")
    memory = max(job.max_memory or 0, job.min_memory or 0)
    for name, value in (
        ("QueueName", job.queue or queue),
        ("IndividualPhysicalMemory", memory << 20),
        ("IndividualCPUTime", (job.max_cpu_time or 0) * 60),
        ("WallTime", (job.max_wall_time or 0) * 60),
    ):
        if value:
            _add(resources, name).text = str(value)
    if job.count > 1:
        slots = _add(resources, "SlotRequirement")
        _add(slots, "NumberOfSlots").text = str(job.count)
        if job.processes_per_node:
            _add(slots, "SlotsPerHost").text = str(job.processes_per_node)


def _command(job: JobDescription, home: str) -> str:
    """One line for `sh -c` without anything that A-REX would expand."""
    lines = [_CLOSED]
    is_joined = job.stderr == job.stdout
    for name in _staged(job):
        redirection, descriptor = _STAGED[name]
        lines.append(f"exec {descriptor}{redirection}gridmad.{name}.staged\n")
        changed: dict[str, Any] = {name: f"/dev/fd/{descriptor}"}
        job = replace(job, **changed)
    if is_joined:
        job = replace(job, stderr=job.stdout)
    copies = zip(local_inputs(job), inputs(job), strict=True)
    job = replace(job, copies=[replace(file, url=name) for file, name in copies])
    if not home:
        lines.append(_AT_HOME)
    lines.append(payload(job, environment={"HOME": home} if home else None))
    script = encode("".join(lines))
    if len(script) > MAX_SCRIPT:
        raise DriverError(f"the job's script has {len(script)} bytes, more than {MAX_SCRIPT}")
    return f"echo {base64.b64encode(script).decode()} | base64 -d | /bin/sh"


# ---------------------------------------------------------------- questions and answers


def question(jobs: Collection[JobId]) -> bytes:
    """The jobs that something is asked or ordered of."""
    return json.dumps({"job": [{"id": job} for job in jobs]}).encode()


def created(answer: bytes, count: int) -> list[JobId | DriverError]:
    """The ids of new jobs, or why they were refused; in the order of their descriptions.

    Raises TransientError for an answer that does not say what became of each.
    """
    outcomes: list[JobId | DriverError] = []
    for job in _jobs(answer):
        job_id = _text(job, "id")
        if _text(job, "status-code") == "201" and _JOB_ID.fullmatch(job_id):
            outcomes.append(job_id)
        else:
            outcomes.append(DriverError(_reason(job)))
    if len(outcomes) != count:
        raise TransientError(f"A-REX answered {len(outcomes)} of {count} jobs")
    return outcomes


def states(answer: bytes) -> dict[JobId, str]:
    """A-REX's names of the states of jobs that it knows."""
    found = {_text(job, "id"): _text(job, "state") for job in _jobs(answer)}
    return {job: state for job, state in found.items() if state not in _UNKNOWN}


def is_ended(state: str) -> bool:
    """Whether a job in this state has ended: its `ending` tells how."""
    return state in _ENDED


def may_wait(state: str) -> bool:
    """Whether a job in this state may still have to be committed."""
    return state in _UNCOMMITTED


def job_state(state: str) -> JobState:
    """A state that is not an end, in gwd's terms."""
    if state in _PENDING:
        return PENDING
    if state == "HELD":
        return SUSPENDED
    if state not in _ACTIVE:
        log.warning("unknown state %s, taken for ACTIVE", state[:40])
    return ACTIVE


def documents(answer: bytes) -> Iterator[tuple[JobId, Mapping[str, Any]]]:
    """What A-REX tells of each job that it knows: a ComputingActivity of GLUE 2."""
    for job in _jobs(answer):
        document = job.get("info_document")
        found = document.get("ComputingActivity") if isinstance(document, dict) else None
        if isinstance(found, dict):
            yield _text(job, "id"), found


def tag_of(document: Mapping[str, Any]) -> str | None:
    """The tag of a job of ours, "" for another one; None where its name is not told yet."""
    name = _text(document, "Name")
    return tag_in(name) if name else None


def tag_in(name: str) -> str:
    """The tag in a job's name; "" where it is none of ours."""
    tag = name.removeprefix(PREFIX)
    return tag if name.startswith(PREFIX) and TAG.fullmatch(tag) else ""


def name_in(control_file: bytes) -> str:
    """The job's name in its control file `local`, lines of NAME=VALUE."""
    for line in control_file.decode("utf-8", "replace").splitlines():
        if line.startswith("jobname="):
            return line.removeprefix("jobname=").strip()
    return ""


def ending(document: Mapping[str, Any]) -> JobState | None:
    """How a job ended; None where that is not told (yet)."""
    named = [text[8:] for text in _texts(document, "State") if text.startswith("arcrest:")]
    state = named[0] if named else ""
    problem = "; ".join(_texts(document, "Error"))
    code = _exit_code(document, problem)
    if state == "KILLED":
        return JobState.done(143)
    if state == "FINISHED":
        return JobState.done(code or 0)
    # Where the information provider has not seen a job yet A-REX tells its state and no more.
    if state != "FAILED" or (code is None and not problem):
        return None
    if code is None or code <= 0:
        return JobState.failed(problem or "ARC could not run it, and does not say why")
    if code > 255:  # some batch systems add 256 to a signal
        log.warning("a job was ended by the resource: %s", problem)
        return JobState.done(128 + code % 128)
    return JobState.done(code)


def _exit_code(document: Mapping[str, Any], problem: str) -> int | None:
    text = _text(document, "ExitCode")
    if _NUMBER.fullmatch(text):
        return int(text)
    found = _LRMS_ERROR.search(problem)
    return int(found[1]) if found else None


def cancelled(answer: bytes) -> dict[JobId, DriverError | None]:
    """What became of cancellations; of a job that is not there none was needed."""
    outcomes: dict[JobId, DriverError | None] = {}
    for job in _jobs(answer):
        is_accepted = _text(job, "status-code") in ("200", "202", "404")
        outcomes[_text(job, "id")] = None if is_accepted else DriverError(_reason(job))
    return outcomes


def listed(answer: bytes) -> list[JobId]:
    """The ids of all the user's jobs."""
    return [job_id for job in _jobs(answer) if (job_id := _text(job, "id"))]


def _jobs(answer: bytes) -> list[Mapping[str, Any]]:
    """The jobs of an answer.  Raises TransientError for what is none."""
    if not answer.strip():
        return []
    try:
        value = json.loads(answer)
        jobs = value["job"] if value else []
    except (ValueError, KeyError, TypeError, RecursionError):
        raise TransientError(f"A-REX gave an unreadable answer: {answer[:60]!r}") from None
    jobs = jobs if isinstance(jobs, list) else [jobs]
    return [job for job in jobs if isinstance(job, dict)]


def _texts(value: Mapping[str, Any], name: str) -> list[str]:
    found = value.get(name, [])
    found = found if isinstance(found, list) else [found]
    return [text for text in found if isinstance(text, str)]


def _text(value: Mapping[str, Any], name: str) -> str:
    texts = _texts(value, name)
    return texts[0] if len(texts) == 1 else ""


def _reason(job: Mapping[str, Any]) -> str:
    return _text(job, "reason") or f"A-REX answered {_text(job, 'status-code') or 'nothing'}"
