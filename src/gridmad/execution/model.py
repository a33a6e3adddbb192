"""The life of a job: how it is described, named and followed."""

import hashlib
from dataclasses import dataclass
from enum import Enum

from gridmad.execution.description.model import JobDescription


class Phase(Enum):
    """Where a job is in its life; the values are gwd's words."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    DONE = "DONE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class JobState:
    """A phase, with the exit code of a job that ran to its end or the reason of one that
    the resource lost or could not run.

    DONE means that the job's program ended, whatever its exit code (128 + n for signal n);
    FAILED that it never ran or that its end is not known: gwd then tries it again.
    """

    phase: Phase
    exit_code: int | None = None
    reason: str = ""

    @property
    def is_final(self) -> bool:
        """Nothing comes after it."""
        return self.phase in (Phase.DONE, Phase.FAILED)

    @classmethod
    def done(cls, exit_code: int | None) -> "JobState":
        """The job's program ended."""
        return cls(Phase.DONE, exit_code)

    @classmethod
    def failed(cls, reason: str) -> "JobState":
        """The resource lost the job or could not run it."""
        return cls(Phase.FAILED, None, reason)


PENDING = JobState(Phase.PENDING)
ACTIVE = JobState(Phase.ACTIVE)
SUSPENDED = JobState(Phase.SUSPENDED)


@dataclass(frozen=True, slots=True)
class Submission:
    """One job to run: gwd's id of it, where, and what."""

    job_id: str
    host: str
    job_manager: str
    """The part behind the slash of the resource (`jobmanager-fork`); "" where none was given."""
    description: JobDescription
    origin: str = ""
    """Tells gwd's job from an earlier one with the same id, as after `gwd -c`; "" where that is
    not known."""

    @property
    def digest(self) -> str:
        """Tells whether two submissions are of one job, and the same."""
        text = repr((self.host, self.job_manager, self.description, self.origin))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
