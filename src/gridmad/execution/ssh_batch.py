"""The batch system of another host: its back end, with the tools run there.

The back end is the one for a batch system of this machine.  What differs is where its tools run
and where jobs leave their exit codes: both are what the user has on that host, and so is the
environment of the jobs.
"""

import argparse
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gridmad.commands import Commands, Finished
from gridmad.errors import DriverError, TransientError
from gridmad.execution.batch_system import BatchSystem
from gridmad.execution.contact import group_name
from gridmad.execution.model import JobState
from gridmad.execution.resource import JobId, Task
from gridmad.execution.sge import GridEngine
from gridmad.execution.slurm import Slurm
from gridmad.execution.ssh_helper import FOLDER
from gridmad.execution.ssh_processes import Processes
from gridmad.execution.status_files import StatusFiles

if TYPE_CHECKING:
    from gridmad.ssh_connection import Host

KINDS: Final[Mapping[str, type[BatchSystem]]] = {"slurm": Slurm, "sge": GridEngine}
"""Back ends by the names that they have behind `jobmanager-`."""

_BEGIN: Final = b"gridmad begin\n"
_RUN: Final = 'echo gridmad begin; LC_ALL=C; export LC_ALL; exec "$@"'


class RemoteCommands(Commands):
    """Runs commands on a host, in the environment that the user has there."""

    def __init__(self, host: "Host") -> None:
        super().__init__()
        self._host = host
        self._user = ""

    def has(self, name: str) -> bool:
        """Always True: only `run` can tell."""
        return True

    async def user(self) -> str:
        """The name of the user on the host.  Raises as `run`."""
        if not self._user:
            finished = await self.run("id", "-un")
            self._user = finished.output.decode("utf-8", "replace").strip()
            if finished.exit_code != 0 or not self._user:
                raise TransientError(f"{self._host.address}: id: {finished.errors}")
        return self._user

    async def run(
        self, *words: str, given: bytes = b"", environment: Mapping[str, str] | None = None
    ) -> Finished:
        """Run a command with `given` on its stdin; `environment` is not that of this host.

        Raises as Commands.run and Host.run.
        """
        self.count += 1
        ended = await self._host.run(
            shlex.join(["exec", "/bin/sh", "-c", _RUN, "sh", *words]), given
        )
        if ended.exit_code == 127:
            raise DriverError(f"{self._host.address} has no {words[0]} on the user's PATH")
        # What comes before is the shell's, as a user may have set it up.
        _, _, output = ended.output.partition(_BEGIN)
        return Finished(ended.exit_code, output, ended.errors)


class RemoteStatusFiles(StatusFiles):
    """The exit codes that jobs leave on a host."""

    def __init__(self, processes: Processes) -> None:
        super().__init__(Path(FOLDER))
        self._processes = processes

    def path(self, tag: str) -> str:
        """Where a job is to leave its exit code; the host must have been greeted."""
        return f"{self._processes.home}/{FOLDER}/{tag}.status"

    async def look(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """Nothing: to look would be to ask."""
        return {}

    async def read(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """What those of `jobs` left that have ended."""
        states = await self._processes.states(list(jobs.values()))
        return {job: states[tag] for job, tag in jobs.items() if tag in states}


class Cluster:
    """The jobs of the batch system of one host."""

    def __init__(
        self,
        kind: type[BatchSystem],
        options: argparse.Namespace,
        host: "Host",
        processes: Processes,
    ) -> None:
        self._processes = processes
        self._resource = kind(options, RemoteCommands(host), RemoteStatusFiles(processes))
        self._is_started = False

    async def _start(self) -> None:
        await self._processes.greet()
        if not self._is_started:
            await self._resource.start()
            self._is_started = True

    async def submit(self, tasks: Sequence[Task]) -> Sequence[JobId | DriverError]:
        """Submit jobs."""
        await self._start()
        await self._processes.keep()
        return await self._resource.submit("", await self._processes.bring(tasks))

    async def query(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """The states of jobs."""
        await self._start()
        return await self._resource.query("", jobs)

    def look(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """Nothing: the host tells nothing by itself."""
        return {}

    async def cancel(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, DriverError | None]:
        """Begin to end jobs."""
        await self._start()
        return await self._resource.cancel("", jobs)

    async def find(self, tags: Collection[str]) -> Mapping[str, JobId]:
        """Which of these jobs were submitted; a tool that is still at it is ended first."""
        await self._start()
        await self._processes.end_tools({group_name(tag) for tag in tags})
        return await self._resource.find("", tags)

    def stop(self) -> None:
        """Nothing is left of what it does."""
