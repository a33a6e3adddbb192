"""The execution family: what a driver of it implements."""

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias

from gridmad.driver import Batch, Driver, MaybeAwaitable
from gridmad.errors import DriverError
from gridmad.execution.model import JobState, Submission

Contact: TypeAlias = str
"""Names one job for good: no blank, less than 1,000 bytes, and enough by itself to find
the job again after both gwd and the driver were started anew."""


class ExecutionDriver(Driver):
    """Runs jobs.

    A driver knows jobs by their contacts.  It calls `report(contact, state)` (from the
    event loop) at every change of state it sees; the daemon turns that into CALLBACK
    lines, each change once and never before the SUBMIT was answered.

    An outcome may be a TransientError: the daemon then answers what it last knew.
    """

    gathered: ClassVar[frozenset[str]] = frozenset({"SUBMIT", "POLL", "CANCEL", "RECOVER"})
    """Operations of which it gets one batch at a time, while the next one gathers."""
    stages_inputs: ClassVar[bool] = False
    """It brings a description's `inputs` to the job's directory itself."""
    hides_environment: ClassVar[bool] = True
    """What a description's `environment` says is seen by the job's user alone."""
    stages_urls: ClassVar[bool] = False
    """It brings and takes away files whose other place is a URL."""
    report: Callable[[Contact, JobState], None]
    """Set by the daemon before `start`."""
    announce: Callable[[str], None]
    """Tells people something that belongs to no job (a TIMER line); set as `report` is."""

    def submit(
        self, submissions: Batch[Submission, Contact]
    ) -> MaybeAwaitable[Sequence[Contact | DriverError] | None]:
        """Start the jobs."""
        raise NotImplementedError

    def poll(
        self, contacts: Batch[Contact, JobState]
    ) -> MaybeAwaitable[Sequence[JobState | DriverError] | None]:
        """The states of the jobs."""
        raise NotImplementedError

    def cancel(
        self, contacts: Batch[Contact, None]
    ) -> MaybeAwaitable[Sequence[DriverError | None] | None]:
        """Begin to end the jobs; their states tell when they did."""
        raise NotImplementedError

    def recover(
        self, contacts: Batch[Contact, JobState]
    ) -> MaybeAwaitable[Sequence[JobState | DriverError] | None]:
        """Find jobs of an earlier life again, follow them from here on, tell their states."""
        raise NotImplementedError

    def remembered(self, job_id: str) -> Contact | None:
        """The contact of a job of an earlier life, by gwd's id of it, from memory.

        gwd recovers no job that was being cancelled when the driver died, but asks for it.
        """
        return None
