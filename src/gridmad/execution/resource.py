"""A resource that runs jobs: what a back end of the engine implements.

A back end is one small file: a class that knows how to speak with one kind of resource,
and `DRIVER = driver_of(TheClass)`.  It keeps no jobs, waits for nothing and retries nothing;
all that is the engine's (see gridmad.execution.engine).

Its methods get many jobs of one endpoint at a time.  An endpoint is where a resource is
reached: a cluster, a gatekeeper, a host.  Each endpoint is followed by itself, so that one
that is down does not hold up the others.
"""

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

from gridmad.credential_watch import CredentialWatch
from gridmad.errors import DriverError
from gridmad.execution.contact import group_name, number_in_group
from gridmad.execution.model import JobState, Submission

JobId: TypeAlias = str
"""A resource's own id of a job."""


@dataclass(frozen=True, slots=True)
class Task:
    """A job to submit, under a tag by which it can be found on the resource."""

    tag: str
    submission: Submission

    @property
    def group(self) -> str:
        """The name under which the resource is to know it, with the others of its group."""
        return group_name(self.tag)

    @property
    def number(self) -> int:
        """Which of its group it is; from 0."""
        return number_in_group(self.tag)


class Resource:
    """A kind of resource.

    Every method may raise a TransientError for an endpoint that is out of reach or slow: what
    was last known then still holds, and the engine tries again, with growing pauses.  Raised by
    `submit`, it says that nobody knows which of the jobs were taken, and the engine looks for
    them by their tags; NotSubmittedError says that none was.
    """

    scheme: ClassVar[str]
    """Of its contacts, and the name of its folder for state; lower-case letters and digits."""
    summary: ClassVar[str]
    """One line for --help."""
    chunk: ClassVar[int] = 200
    """Jobs of one `submit` at most ..."""
    submitters: ClassVar[int] = 1
    """... and how many of these may be under way at once for an endpoint."""
    miss_time: ClassVar[float] = 10.0
    """Seconds for which a job must be missing from all answers before it counts as gone:
    accounting may lag behind."""
    looks: ClassVar[bool] = False
    """It has a `look`."""
    stages_inputs: ClassVar[bool] = False
    """It brings the `inputs` of a description to the job's directory."""
    hides_environment: ClassVar[bool] = True
    """What a description's `environment` says is seen by the job's user alone: not where it is
    part of what others can list, as a command's arguments."""
    stages_urls: ClassVar[bool] = False
    """It brings and takes away files whose other place is a URL."""

    report: Callable[[str, JobId, JobState], None]
    """Tells a state that the resource told by itself: `report(endpoint, job, state)`; set by the
    engine before `start`, and called from the event loop.  Jobs it does not know are ignored."""

    folder: Path
    """For files that jobs leave at their ends, named by their tags (see gridmad.execution.payload),
    where this machine and the resource share it; set by the engine before `start`.  What is old
    there is removed by the engine."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the resource's own options."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Resource":
        """The resource that the options mean, where there are several ways to reach it."""
        return cls(options)

    async def start(self) -> None:
        """Get ready; the place to import a library.  As Driver.start."""

    async def stop(self) -> None:
        """Leave nothing behind but jobs.  As Driver.stop."""

    def credentials(self) -> Sequence[CredentialWatch]:
        """What it needs to be let in, made in `__init__`; the engine runs these watches from
        start to stop, and the resource asks for `require_valid()` before it sends anything.
        """
        return ()

    def endpoint(self, submission: Submission) -> str:
        """Where a job is to be submitted; by default the host that gwd named.

        Raises DriverError for one that cannot be.
        """
        return submission.host

    async def submit(self, endpoint: str, tasks: Sequence[Task]) -> Sequence[JobId | DriverError]:
        """Submit jobs: the id of each, or why it was refused.

        Each must be findable by its tag from the moment on that the resource took it, but for
        a resource with two phases, which drops jobs that nobody commits.
        """
        raise NotImplementedError

    async def commit(self, endpoint: str, jobs: Mapping[JobId, str]) -> None:
        """The second phase of a submission, where a resource has one: the ids of `jobs` (with
        their tags) were written down, so now they may run.
        """

    async def release(self, endpoint: str, jobs: Collection[JobId]) -> None:
        """The ends of jobs were written down: a resource that keeps them until it is told so
        may forget them.
        """

    async def query(self, endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """The states of jobs (given with their tags), by as few questions as can be.

        Those that the resource does not know, or knows under another tag, are left out.  A job
        that ended must not be left out before its exit code was sought wherever it may be had.
        """
        raise NotImplementedError

    async def look(self, endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """What can be known of jobs without asking the resource (as a file that they leave at
        their end).  Called every second or so while there are jobs, where `looks` says so.
        """
        return {}

    async def cancel(
        self, endpoint: str, jobs: Mapping[JobId, str]
    ) -> Mapping[JobId, DriverError | None]:
        """Begin to end jobs.  One that has ended or is unknown is no error; left out is None."""
        raise NotImplementedError

    async def find(self, endpoint: str, tags: Collection[str]) -> Mapping[str, JobId]:
        """The ids of jobs by their tags, ended ones too as long as the resource knows them."""
        raise NotImplementedError
