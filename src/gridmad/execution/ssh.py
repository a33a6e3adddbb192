"""Runs jobs on other hosts over ssh (gw_em_mad_ssh).

gwd names a host as `[user@]host[:port]`, and behind a slash what runs jobs there:
`jobmanager-fork`, or nothing, for processes of that host; `jobmanager-slurm` for the cluster
whose tools it has (see gridmad.execution.ssh_batch).

A job that is a process runs under a shepherd, a shell that leads the job's session and writes its
exit code into a file in ~/.gridmad/jobs, named by the job's tag: so both outlive the connection
and the driver.  The file of the job itself decides whether a tag is ever started, since it is
made once only: by the start, or by the search for jobs of a start that was broken off.

Jobs are started, asked for and ended many at a time, by one command over the one connection to
the host.  Another one tells the ends of jobs as they come.

CANCEL sends TERM to all processes of the job but its shepherd: those of its session, and those
that left it (setsid) but carry its mark in their environment.  What is left after the grace time
gets KILL; then the end is told.  All of that is done on the host.

A host may be one of several that share the home directory under one name: what a job of another
one does is not seen before it ended, and only that one can end it.

Nothing here enforces limits of time and memory, or knows queues.
"""

import argparse
import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from gridmad.errors import DriverError, MissingDependencyError, NotSubmittedError, TransientError
from gridmad.execution.engine import driver_of
from gridmad.execution.model import JobState, Submission
from gridmad.execution.resource import JobId, Resource, Task
from gridmad.execution.ssh_helper import (
    COMMAND,
    WATCH,
    Answer,
    Helper,
    Said,
    event,
    home_directory,
    refusal,
    script,
    state,
)
from gridmad.options import seconds
from gridmad.ssh import Address, RefusedError, Settings, add_options

if TYPE_CHECKING:
    from gridmad.ssh_connection import Host, Hosts

log = logging.getLogger(__name__)

MANAGER: Final = "jobmanager-"
FORK: Final = "fork"
MAX_TOLD: Final = 10_000
"""States of jobs that a host told and nobody has asked for yet; most are of other drivers' jobs."""


class Processes:
    """The jobs of one host that are processes there."""

    def __init__(
        self,
        host: "Host",
        helper: Helper,
        grace: float,
        keep_days: int,
        report: Callable[[JobId, JobState], None],
    ) -> None:
        self._host = host
        self._helper = helper
        self._grace = str(max(1, round(grace)))
        self._keep_days = str(keep_days)
        self._report = report
        self._home = ""
        self._greeting = asyncio.Lock()
        self._told: dict[str, JobState] = {}
        self._watcher: asyncio.Task[None] | None = None

    async def home(self) -> str:
        """The user's home directory there.  Makes sure that the host has our helper."""
        async with self._greeting:
            if not self._home:
                ended = await self._host.run(COMMAND, self._helper.greeting())
                try:
                    self._home = home_directory(ended.output)
                except DriverError as error:
                    text = f"{self._host.address} cannot run jobs: {error}"
                    raise RefusedError(
                        f"{text} ({ended.errors})" if ended.errors else text
                    ) from None
            return self._home

    async def ask(self, *calls: Sequence[str]) -> Mapping[str, Said]:
        """What the host says of jobs when the helper's functions are called."""
        await self.home()
        ended = await self._host.run(COMMAND, self._helper.request(calls))
        answer = Answer.parse(ended.output)
        if not answer.has_begun:
            self._home = ""  # somebody may have removed the helper
            raise NotSubmittedError(
                f"{self._host.address} did not do what it was asked: {ended.errors}"
            )
        if not answer.is_whole:
            raise TransientError(f"{self._host.address} broke off its answer: {ended.errors}")
        return answer.jobs

    # ------------------------------------------------------------ as a Resource's

    async def submit(self, tasks: Sequence[Task]) -> Sequence[JobId | DriverError]:
        """Start jobs; their tags are their ids."""
        home = await self.home()
        self.watch()
        refused: dict[str, DriverError] = {}
        calls: list[Sequence[str]] = [("keep", self._keep_days)]
        for task in tasks:
            try:
                text = script(task.submission.description, task.tag, home)
            except DriverError as error:
                refused[task.tag] = error
            else:
                calls.append(("start", task.tag, text))
        said = await self.ask(*calls) if len(refused) < len(tasks) else {}
        outcomes: list[JobId | DriverError] = []
        for task in tasks:
            problem = refused.get(task.tag) or refusal(said.get(task.tag))
            outcomes.append(problem or task.tag)
        return outcomes

    async def query(self, tags: Collection[str]) -> Mapping[JobId, JobState]:
        """The states of jobs."""
        self.watch()
        said = await self.ask(("query", *sorted(tags)))
        return {tag: told for tag in tags if tag in said and (told := state(said[tag]))}

    def look(self, tags: Collection[str]) -> Mapping[JobId, JobState]:
        """The states that the host told and that came before their jobs were known here."""
        return {tag: self._told.pop(tag) for tag in tags if tag in self._told}

    async def cancel(self, tags: Collection[str]) -> Mapping[JobId, DriverError | None]:
        """Begin to end jobs."""
        said = await self.ask(("cancel", self._grace, *sorted(tags)))
        return {tag: refusal(said[tag]) for tag in tags if tag in said}

    async def find(self, tags: Collection[str]) -> Mapping[str, JobId]:
        """Which of these jobs were started; the others never will be."""
        said = await self.ask(("find_jobs", *sorted(tags)))
        if any(one.word == "unwritable" for one in said.values()):
            raise TransientError(f"{self._host.address}: ~/.gridmad/jobs cannot be written")
        return {tag: tag for tag in tags if tag in said}

    # ------------------------------------------------------------ what is told

    def watch(self) -> None:
        """Have the host tell the ends of jobs, as long as the connection lasts."""
        if self._host.sessions > 1 and (self._watcher is None or self._watcher.done()):
            self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        try:
            await self.home()
            async with contextlib.aclosing(self._host.lines(WATCH)) as lines:
                async for line in lines:
                    told = event(line)
                    if told is not None:
                        self._note(*told)
        except DriverError as error:
            # Whoever asks the host is told the same.
            log.debug("%s: %s", self._host.address, error)

    def _note(self, tag: str, told: JobState) -> None:
        self._told[tag] = told
        while len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]
        self._report(tag, told)

    def stop(self) -> None:
        """Watch no more."""
        if self._watcher is not None:
            self._watcher.cancel()


class Ssh(Resource):
    """Jobs on other hosts."""

    scheme = "ssh"
    summary = "run jobs on other hosts over ssh"
    chunk = 50
    looks = True

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare --grace and the options of connections."""
        parser.add_argument(
            "--grace",
            metavar="SECONDS",
            type=seconds,
            default=5.0,
            help="time that a cancelled job has between TERM and KILL, in whole seconds "
            "(default: %(default)g)",
        )
        add_options(parser)

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._settings = Settings.of(options)
        self._helper = Helper()
        self._hosts: Hosts | None = None
        self._processes: dict[str, Processes] = {}

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
        for processes in self._processes.values():
            processes.stop()
        if self._hosts is not None:
            self._hosts.close()

    def endpoint(self, submission: Submission) -> str:
        """`[user@]host[:port]`."""
        manager = submission.job_manager.removeprefix(MANAGER) or FORK
        address = Address.parse(submission.host)
        if manager != FORK:
            raise DriverError(f"nothing is known here of jobs by {manager} over ssh: use {FORK}")
        return str(address)

    def _at(self, endpoint: str) -> Processes:
        processes = self._processes.get(endpoint)
        if processes is None:
            assert self._hosts is not None
            processes = self._processes[endpoint] = Processes(
                self._hosts[Address.parse(endpoint)],
                self._helper,
                self.options.grace,
                self.options.keep_days,
                lambda job, state: self.report(endpoint, job, state),
            )
        return processes

    async def submit(self, endpoint: str, tasks: Sequence[Task]) -> Sequence[JobId | DriverError]:
        """One command for all."""
        return await self._at(endpoint).submit(tasks)

    async def query(self, endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """One command for all."""
        return await self._at(endpoint).query(_known(jobs))

    async def look(self, endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """What the host told by itself."""
        return self._at(endpoint).look(_known(jobs))

    async def cancel(
        self, endpoint: str, jobs: Mapping[JobId, str]
    ) -> Mapping[JobId, DriverError | None]:
        """One command for all, after which the host goes on with it alone."""
        return await self._at(endpoint).cancel(_known(jobs))

    async def find(self, endpoint: str, tags: Collection[str]) -> Mapping[str, JobId]:
        """One command for all; what it does not find is never started."""
        return await self._at(endpoint).find(tags)


def _known(jobs: Mapping[JobId, str]) -> Collection[str]:
    """The tags of jobs whose ids are their tags, as ours are."""
    return [tag for job, tag in jobs.items() if job == tag]


DRIVER = driver_of(Ssh)
