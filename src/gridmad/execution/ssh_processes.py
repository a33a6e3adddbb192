"""Jobs as processes of another host.

A job runs there under a shepherd, a shell that leads the job's session and writes its exit code
into a file in ~/.gridmad/jobs, named by the job's tag: so both outlive the connection and the
driver.  The file of the job itself decides whether a tag is ever started, since it is made once
only: by the start, or by the search for jobs of a start that was broken off.

Jobs are started, asked for and ended many at a time, by one command over the one connection to
the host.  Another one tells the ends of jobs as they come.

CANCEL sends TERM to all processes of the job but its shepherd: those of its session, and those
that left it (setsid) but carry its mark in their environment.  What is left after the grace time
gets KILL; then the end is told.  All of that is done on the host.

A host may be one of several that share the home directory under one name: what a job of another
one does is not seen before it has ended, and only that one can end it.

Nothing here enforces limits of time and memory, or knows queues.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gridmad.errors import DriverError, NotSubmittedError, TransientError
from gridmad.execution.description.model import StagedFile
from gridmad.execution.inputs import local_inputs, read_files
from gridmad.execution.model import JobState
from gridmad.execution.resource import JobId, Task
from gridmad.execution.ssh_helper import (
    COMMAND,
    FILES,
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
from gridmad.ssh import RefusedError

if TYPE_CHECKING:
    from gridmad.ssh_connection import Host

log = logging.getLogger(__name__)

MAX_TOLD: Final = 10_000
"""States of jobs that a host told and nobody has asked for yet; most are of other drivers' jobs."""

UPLOAD_TIME: Final = 10.0
"""Seconds that jobs wait for their inputs to be uploaded ..."""
UPLOAD_PAUSE: Final = 300.0
"""... and for which none waits again where that failed."""


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
        self.home = ""
        """The user's home directory there; "" before `greet`."""
        self._upload_after = 0.0
        self._greeting = asyncio.Lock()
        self._told: dict[str, JobState] = {}
        self._watcher: asyncio.Task[None] | None = None

    async def greet(self) -> None:
        """See that the host has our helper."""
        async with self._greeting:
            if not self.home:
                ended = await self._host.run(COMMAND, self._helper.greeting())
                try:
                    self.home = home_directory(ended.output)
                except DriverError as error:
                    text = f"{self._host.address} cannot run jobs: {error}"
                    raise RefusedError(
                        f"{text} ({ended.errors})" if ended.errors else text
                    ) from None

    async def ask(self, *calls: Sequence[str]) -> Mapping[str, Said]:
        """What the host says of jobs when the helper's functions are called."""
        await self.greet()
        ended = await self._host.run(COMMAND, self._helper.request(calls))
        answer = Answer.parse(ended.output)
        if not answer.has_begun:
            self.home = ""  # somebody may have removed the helper
            raise NotSubmittedError(
                f"{self._host.address} did not do what it was asked: {ended.errors}"
            )
        if not answer.is_whole:
            raise TransientError(f"{self._host.address} broke off its answer: {ended.errors}")
        return answer.jobs

    async def states(self, tags: Collection[str]) -> Mapping[str, JobState]:
        """What the files of jobs say, by their tags."""
        said = await self.ask(("query", *tags)) if tags else {}
        return {tag: told for tag in tags if tag in said and (told := state(said[tag]))}

    async def keep(self) -> None:
        """Have old files removed."""
        await self.ask(("keep", self._keep_days))

    async def bring(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """Bring the files of this machine that jobs want to the host, each once; the tasks then
        copy them.

        What cannot be brought in time keeps no job from running.
        """
        wanted = {task.tag: local_inputs(task.submission.description) for task in tasks}
        paths = {file.url for files in wanted.values() for file in files}
        contents = await asyncio.to_thread(read_files, paths) if paths else {}
        if not contents:
            return tasks
        there = set(await self.ask(("find_files", *{one.digest for one in contents.values()})))
        there |= await self._upload(
            {one.digest: one.data for one in contents.values() if one.digest not in there}
        )
        places = {
            path: f"{self.home}/{FILES}/{one.digest}"
            for path, one in contents.items()
            if one.digest in there
        }
        return [_copying(task, wanted[task.tag], places) for task in tasks]

    async def _upload(self, files: Mapping[str, bytes]) -> set[str]:
        """Upload files, given by their digests: those that the host took."""
        taken: set[str] = set()
        if not files or time.monotonic() < self._upload_after:
            return taken
        try:
            async with asyncio.timeout(UPLOAD_TIME):
                for digest, data in files.items():
                    command = self._helper.upload(digest, len(data))
                    ended = await self._host.run(command, data)
                    if digest not in Answer.parse(ended.output).jobs:
                        raise DriverError(ended.errors or "it said nothing of them")
                    taken.add(digest)
        except (TimeoutError, DriverError) as error:
            self._upload_after = time.monotonic() + UPLOAD_PAUSE
            log.warning(
                "%s did not take the inputs of jobs: %s",
                self._host.address,
                str(error) or f"it took more than {UPLOAD_TIME:g} seconds",
            )
        return taken

    async def end_tools(self, names: Collection[str]) -> None:
        """End the tools there that submit groups of jobs of these names."""
        await self.ask(("end_tools", *names))

    # ------------------------------------------------------------ as a Resource's

    async def submit(self, tasks: Sequence[Task]) -> Sequence[JobId | DriverError]:
        """Start jobs; their tags are their ids."""
        await self.greet()
        self.watch()
        tasks = await self.bring(tasks)
        refused: dict[str, DriverError] = {}
        calls: list[Sequence[str]] = [("keep", self._keep_days)]
        for task in tasks:
            try:
                text = script(task.submission.description, task.tag, self.home)
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

    async def query(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """The states of jobs."""
        self.watch()
        return await self.states(_known(jobs))

    def look(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """The states that the host told and that came before their jobs were known here."""
        return {tag: self._told.pop(tag) for tag in _known(jobs) if tag in self._told}

    async def cancel(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, DriverError | None]:
        """Begin to end jobs; the host goes on with it alone."""
        tags = _known(jobs)
        said = await self.ask(("cancel", self._grace, *tags)) if tags else {}
        return {tag: refusal(said[tag]) for tag in tags if tag in said}

    async def find(self, tags: Collection[str]) -> Mapping[str, JobId]:
        """Which of these jobs were started; the others never will be."""
        said = await self.ask(("find_jobs", *tags))
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
            await self.greet()
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


def _copying(task: Task, files: Sequence[StagedFile], places: Mapping[str, str]) -> Task:
    """The task with those of `files` as copies that have a place on the host."""
    copies = [replace(file, url=places[file.url]) for file in files if file.url in places]
    description = replace(task.submission.description, copies=copies)
    return replace(task, submission=replace(task.submission, description=description))


def _known(jobs: Mapping[JobId, str]) -> Sequence[str]:
    """The tags of jobs whose ids are their tags, as ours are."""
    return [tag for job, tag in jobs.items() if job == tag]
