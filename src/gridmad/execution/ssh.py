"""Runs jobs on other hosts over ssh (gw_em_mad_ssh).

gwd names a host as `[user@]host[:port]`, and behind a slash what runs jobs there:

    jobmanager-fork, or nothing    that host itself (gridmad.execution.ssh_processes)
    jobmanager-slurm, -sge         its batch system (gridmad.execution.ssh_batch)

An endpoint is the host and, behind a `+`, its batch system.  There is one connection to each
host, whatever runs jobs there.
"""

import argparse
import asyncio
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from gridmad.errors import DriverError, MissingDependencyError, UsageError
from gridmad.execution.engine import driver_of
from gridmad.execution.model import JobState, Submission
from gridmad.execution.resource import JobId, Resource, Task
from gridmad.execution.ssh_batch import KINDS, Cluster
from gridmad.execution.ssh_helper import Helper
from gridmad.execution.ssh_processes import Processes
from gridmad.options import seconds
from gridmad.ssh import Address, Settings, add_options

if TYPE_CHECKING:
    from gridmad.ssh_connection import Hosts

Place: TypeAlias = Processes | Cluster

PREFIX: Final = "jobmanager-"
FORK: Final = "fork"


class Ssh(Resource):
    """Jobs on other hosts."""

    scheme = "ssh"
    summary = "run jobs on other hosts over ssh"
    chunk = 100
    looks = True
    stages_inputs = True

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare --grace, an option for each kind of batch system, and those of connections."""
        parser.add_argument(
            "--grace",
            metavar="SECONDS",
            type=seconds,
            default=5.0,
            help="time that a cancelled job has between TERM and KILL, in whole seconds "
            "(default: %(default)g)",
        )
        for name in KINDS:
            parser.add_argument(
                f"--{name}",
                metavar="WORDS",
                default="",
                help=f"options of gw_em_mad_{name} for jobs by {PREFIX}{name}",
            )
        add_options(parser)

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._settings = Settings.of(options)
        self._kinds = {name: _options(name, options) for name in KINDS}
        self._helper = Helper()
        self._hosts: Hosts | None = None
        self._places: dict[str, Place] = {}

    async def start(self) -> None:
        """Import the ssh library; nothing is connected before somebody asks for something."""
        self._hosts = await asyncio.to_thread(self._open)

    def _open(self) -> "Hosts":
        try:
            from gridmad.ssh_connection import Hosts
        except ImportError:
            raise MissingDependencyError("asyncssh", "ssh") from None
        return Hosts(self._settings)

    async def stop(self) -> None:
        """Close the connections; the jobs go on."""
        for place in self._places.values():
            place.stop()
        if self._hosts is not None:
            self._hosts.close()

    def endpoint(self, submission: Submission) -> str:
        """The host, and what runs jobs there."""
        address = Address.parse(submission.host)
        name = submission.job_manager.removeprefix(PREFIX) or FORK
        if name == FORK:
            return str(address)
        if name not in KINDS:
            known = ", ".join(PREFIX + kind for kind in (FORK, *KINDS))
            raise DriverError(f"no {submission.job_manager} is known over ssh, but {known}")
        return f"{address}+{name}"

    def _at(self, endpoint: str) -> Place:
        place = self._places.get(endpoint)
        if place is None:
            place = self._places[endpoint] = self._new_place(endpoint)
        return place

    def _new_place(self, endpoint: str) -> Place:
        """Raises DriverError for an endpoint that is none (gwd gives any contact back to us)."""
        assert self._hosts is not None
        address, _, name = endpoint.partition("+")
        host = self._hosts[Address.parse(address)]

        def report(job: JobId, state: JobState) -> None:
            self.report(endpoint, job, state)

        processes = Processes(
            host, self._helper, self.options.grace, self.options.keep_days, report
        )
        if not name:
            return processes
        if name not in KINDS:
            raise DriverError(f"nothing is known of {name} over ssh")
        return Cluster(KINDS[name], self._kinds[name], host, processes)

    async def submit(self, endpoint: str, tasks: Sequence[Task]) -> Sequence[JobId | DriverError]:
        """One command for all."""
        return await self._at(endpoint).submit(tasks)

    async def query(self, endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """One command for all."""
        return await self._at(endpoint).query(jobs)

    async def look(self, endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """What the host told by itself."""
        place = self._places.get(endpoint)
        return {} if place is None else place.look(jobs)

    async def cancel(
        self, endpoint: str, jobs: Mapping[JobId, str]
    ) -> Mapping[JobId, DriverError | None]:
        """One command for all."""
        return await self._at(endpoint).cancel(jobs)

    async def find(self, endpoint: str, tags: Collection[str]) -> Mapping[str, JobId]:
        """One command for all."""
        return await self._at(endpoint).find(tags)


class _Parser(argparse.ArgumentParser):
    """Tells a mistake as an error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}")


def _options(name: str, options: argparse.Namespace) -> argparse.Namespace:
    """The options of a kind of batch system: ours, and those that its own option says."""
    parser = _Parser(prog=f"--{name}", add_help=False, allow_abbrev=False)
    KINDS[name].add_options(parser)
    try:
        words = shlex.split(getattr(options, name))
    except ValueError as error:
        raise UsageError(f"--{name}: {error}") from None
    return parser.parse_args(words, argparse.Namespace(**vars(options)))


DRIVER = driver_of(Ssh)
