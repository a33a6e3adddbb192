"""The answers of gatekeepers and job managers, and what they mean.  No I/O.

Source: Globus Toolkit 6, "GRAM5: Protocol", "GRAM5: Protocol Constants"; what a job manager
answers when was tried on version 15.8.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState, Phase

CANCELLED: Final = 143
"""The exit code of a job that was ended: 128 + SIGTERM."""
NO_REASON: Final = "the job failed, and its job manager does not say why"
"""It was ended by a signal, or its scheduler says no more than that it failed."""


class GramState(IntEnum):
    """The states of a job."""

    PENDING = 1
    ACTIVE = 2
    FAILED = 4
    DONE = 8
    SUSPENDED = 16
    UNSUBMITTED = 32
    STAGE_IN = 64
    STAGE_OUT = 128


class Signal(IntEnum):
    """What a job manager can be told about a job."""

    COMMIT_REQUEST = 5
    COMMIT_END = 10


class GramError(IntEnum):
    """The errors that are treated apart."""

    NONE = 0
    NO_RESOURCES = 3
    USER_CANCELLED = 8
    SYSTEM_CANCELLED = 9
    PROTOCOL_FAILED = 10
    CONNECTION_FAILED = 12
    MALLOC_FAILED = 32
    GATEKEEPER_FAILED = 47
    CONTACTING_JOB_MANAGER = 79
    HTTP_UNPACK_FAILED = 89
    HTTP_INCOMPLETE = 91
    SHUTTING_DOWN = 94
    WAITING_FOR_COMMIT = 110
    NO_STATE_FILE = 121
    STATE_EXPIRED = 125
    JOB_MANAGER_STOPPED = 130
    PROXY_EXPIRED = 131
    UNKNOWN_CONTACT = 156
    DELEGATION_FAILED = 157
    LOCK_FAILED = 158


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request."""

    code: int
    """0, or a GramError or another of the protocol's errors."""
    text: str
    """The error in words; empty where there is none."""
    contact: str = ""
    state: int = 0
    """A GramState, in answers that have one."""
    detail: str = ""
    """What else the server says of an error."""
    failure: int = 0
    """Why the job failed, in answers to `status`; ..."""
    failure_text: str = ""
    """... and in words."""
    exit_code: int | None = None
    """Of a job that ended, in answers to `status` of a job manager that knows it."""


STATES: Final[Mapping[int, JobState]] = {
    GramState.PENDING: PENDING,
    GramState.ACTIVE: ACTIVE,
    GramState.SUSPENDED: SUSPENDED,
    GramState.UNSUBMITTED: PENDING,
    GramState.STAGE_IN: PENDING,
    GramState.STAGE_OUT: ACTIVE,
}
OUT_OF_REACH: Final = frozenset(
    {
        GramError.NO_RESOURCES,
        GramError.PROTOCOL_FAILED,
        GramError.CONNECTION_FAILED,
        GramError.MALLOC_FAILED,
        GramError.GATEKEEPER_FAILED,
        GramError.CONTACTING_JOB_MANAGER,
        GramError.HTTP_UNPACK_FAILED,
        GramError.HTTP_INCOMPLETE,
        GramError.SHUTTING_DOWN,
        GramError.DELEGATION_FAILED,
        GramError.LOCK_FAILED,
    }
)
UNKNOWN: Final = frozenset(
    {GramError.UNKNOWN_CONTACT, GramError.NO_STATE_FILE, GramError.STATE_EXPIRED}
)
OVER: Final = UNKNOWN | {GramError.SHUTTING_DOWN}
"""What job managers say of a job that has ended, or is about to."""
STILL_RUNS: Final = frozenset({GramError.JOB_MANAGER_STOPPED, GramError.PROXY_EXPIRED})
"""A job manager that stops says FAILED for each of its jobs."""


def state_of(answer: Answer) -> JobState:
    """The state that a job manager answers."""
    if answer.state == GramState.DONE:
        return JobState.done(answer.exit_code)
    if answer.state != GramState.FAILED:
        return STATES.get(answer.state, PENDING)
    if answer.failure in STILL_RUNS:
        return ACTIVE
    if answer.failure in (GramError.USER_CANCELLED, GramError.SYSTEM_CANCELLED):
        return JobState.done(CANCELLED)
    return JobState.failed(
        " ".join(filter(None, (answer.failure_text, answer.detail))) or NO_REASON
    )


def fetch_problem(state: JobState) -> str:
    """Why a job did not fetch files; "" where it did, as far as is known."""
    if state.phase is Phase.FAILED:
        return state.reason or NO_REASON
    code = state.exit_code
    return f"the job that fetches them ended with exit code {code}" if code else ""


def explain(answer: Answer) -> str:
    """Why a request failed, in one line."""
    return f"{answer.text}: {answer.detail}" if answer.detail else answer.text


def path_of(contact: str) -> str:
    """What names a job for good: `/17370860850872285611/72057598265975683/`."""
    _, _, rest = contact.partition("://")
    _, slash, path = rest.partition("/")
    return slash + path


def address_of(contact: str) -> str:
    """Where a job's manager listens: `host:port`."""
    return contact.partition("://")[2].partition("/")[0]
