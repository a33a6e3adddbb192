"""A job on this machine: what names it, and how it ended."""

from dataclasses import dataclass
from subprocess import Popen
from typing import Final, NamedTuple

from gridmad.errors import DriverError, UnknownJobError
from gridmad.execution.contact import TAG
from gridmad.execution.driver import Contact
from gridmad.execution.ending import Ending
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState, Phase
from gridmad.execution.processes import (
    ProcessIdentity,
    boot_id,
    first_child,
    host_name,
    status,
)
from gridmad.execution.shepherd import Shepherds

RETRY_TIME: Final = 1.0
"""Seconds before an exit code that cannot be read is tried again for the first time."""

VANISHED: Final = "the job's shepherd vanished without an exit code (it was killed)"
REBOOTED: Final = "the machine was started anew while the job ran"
KILLED: Final = JobState.done(128 + 9)
"""By SIGKILL."""


class Name(NamedTuple):
    """What a contact says."""

    shepherd: ProcessIdentity
    tag: str

    def __str__(self) -> str:
        return f"fork://{self.shepherd}/{self.tag}"

    @classmethod
    def parse(cls, contact: Contact) -> "Name":
        """Read a contact.  Raises DriverError for one of another driver or machine."""
        identity, _, tag = contact.removeprefix("fork://").rpartition("/")
        try:
            shepherd = ProcessIdentity.parse(identity)
        except ValueError:
            raise UnknownJobError(contact) from None
        name = cls(shepherd, tag)
        if not TAG.fullmatch(tag) or str(name) != contact:
            raise UnknownJobError(contact)
        if not shepherd.is_here:
            raise DriverError(f"job {contact} runs on {shepherd.host}, and this is {host_name()}")
        return name


@dataclass(slots=True, eq=False)
class Job:
    """A job that is followed."""

    name: Name
    contact: Contact
    pidfd: int
    """Readable when the shepherd has ended; -1 when that was seen."""
    process: Popen[bytes] | None
    """None for a job that an earlier driver started."""
    is_cancelled: bool = False
    is_active: bool = True
    """False until ACTIVE was told, which comes after the answer to SUBMIT."""
    retry_time: float = RETRY_TIME
    """Seconds to wait should its exit code not be readable."""

    @property
    def present_state(self) -> JobState:
        """Of a running job, which may have been stopped by someone."""
        if not self.is_active:
            return PENDING
        child = first_child(self.name.shepherd.pid)
        found = status(child) if child is not None else None
        return SUSPENDED if found is not None and found.state in ("T", "t") else ACTIVE


@dataclass(slots=True, eq=False)
class End:
    """The end of a job that is told when nothing of the job is left."""

    name: Name
    ending: Ending
    job: Job | None = None
    """None for one that gwd does not wait for."""
    state: JobState | None = None
    """None while the shepherd runs."""


def final_state(
    shepherds: Shepherds, name: Name, process: Popen[bytes] | None, is_cancelled: bool
) -> JobState:
    """The end of a job whose shepherd is gone.  Blocks; raises OSError where it cannot be known
    for now.
    """
    waited = process.wait() if process is not None else -1
    try:
        exit_code = shepherds.exit_code(name.tag)
    except OSError:
        if waited < 0 and not is_cancelled:
            raise
        exit_code = None
    if exit_code is None and waited >= 0:
        # What the shepherd could not write (the disk is full) it ended with.
        exit_code = waited
    if exit_code is not None:
        return JobState.done(exit_code)
    if is_cancelled:
        return KILLED
    return JobState.failed(VANISHED if name.shepherd.boot_id == boot_id() else REBOOTED)


def may_have_left(state: JobState) -> bool:
    """Whether processes of the job may run though its shepherd does not."""
    return state.phase is Phase.FAILED and state.reason == VANISHED
