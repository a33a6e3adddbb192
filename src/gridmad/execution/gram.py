"""Runs jobs through GRAM5, on whatever a gatekeeper's job managers serve (gw_em_mad_prews).

A job is submitted in two phases: the gatekeeper's answer brings its contact, and the job
manager drops the job unless it is told to go on, once the contact is written down.  The end
is committed too: until then the job manager keeps the job's last state, whoever died.

Job managers tell changes of state by themselves.  An end that is told is asked for once
more, since only an answer brings the exit code (where the job manager has one: where it
reads the events of its scheduler) or the words of a failure.  Of the jobs that nothing was
heard of for long, a few are asked for at each query: a tale may have been lost.

A job manager that died is started again by a request to go on with one of its jobs, and
finds all of them in its files.  It then listens on another port, so a job is known by the
path of its contact.

Inputs that are files of this machine are fetched by a job of their own, once for all jobs of a
gatekeeper (see gridmad.execution.gram_rsl).  That keeps no other job from running.

Source: Globus Toolkit 6, "GRAM5: RSL Specification"; of answers see gridmad.execution.gram_answers.
"""

import argparse
import asyncio
import contextlib
import logging
import math
import os
import re
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from gridmad import credential_watch
from gridmad.credential import Credential, proxy_source
from gridmad.credential_watch import CredentialWatch
from gridmad.errors import (
    CredentialError,
    DriverError,
    NotSubmittedError,
    TransientError,
)
from gridmad.execution.description.rsl_writer import rsl
from gridmad.execution.engine import driver_of
from gridmad.execution.gram_answers import (
    OUT_OF_REACH,
    OVER,
    STATES,
    UNKNOWN,
    Answer,
    GramError,
    GramState,
    Signal,
    explain,
    fetch_problem,
    path_of,
    state_of,
)
from gridmad.execution.gram_client import GramClient
from gridmad.execution.gram_files import Fetches
from gridmad.execution.gram_jobs import PLACES, Gatekeeper, Known
from gridmad.execution.gram_rsl import fetch_rsl, job_rsl
from gridmad.execution.gram_serving import served
from gridmad.execution.inputs import local_inputs, read_files
from gridmad.execution.model import JobState, Submission
from gridmad.execution.resource import JobId, Resource, Task
from gridmad.options import port_number

log = logging.getLogger(__name__)

Result = TypeVar("Result")

PORT: Final = 2119
COMMIT_TIME: Final = 300
"""Seconds after which a job manager drops a job that is not committed."""
CANCEL_WAIT: Final = 15.0
"""Seconds to wait for the answer to a cancellation; then it is taken for accepted."""
QUIET_INTERVALS: Final = 5
"""Intervals without news of a job after which it may be asked for ..."""
LONGEST_QUIET: Final = 900.0
"""... and seconds within which all of them are."""
QUERY_PART: Final = 0.5
"""Part of the time for a query (--timeout) in which jobs are asked for; the rest keep their
states until the next one."""
FETCH_TIME: Final = 3600.0
"""Seconds that a job which fetches files may take: it may have to wait in a queue."""
_SERVICE: Final = re.compile(r"[A-Za-z0-9._@+-]+")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?")


class Gram(Resource):
    """GRAM5: a gatekeeper's service is an endpoint, `host:port/jobmanager-fork`."""

    scheme = "gram"
    summary = "runs jobs through GRAM5"
    chunk = 1
    submitters = PLACES
    stages_inputs = True
    stages_urls = True
    hides_environment = False

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare --port, --callback-host and what credentials have."""
        parser.add_argument(
            "--port",
            metavar="N",
            type=port_number,
            default=PORT,
            help="port of a gatekeeper that is named without one (default: %(default)s)",
        )
        parser.add_argument(
            "--callback-host",
            metavar="NAME",
            help="name or address by which job managers reach this machine "
            "(default: $GLOBUS_HOSTNAME, or what is found out)",
        )
        credential_watch.add_options(parser)

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._client: GramClient | None = None
        self._gatekeepers: dict[str, Gatekeeper] = {}
        self._known: dict[str, Known] = {}
        self._watch = CredentialWatch(
            proxy_source(os.environ, os.getuid()), warnings=options.credential_warnings
        )
        self._credential: Credential | None = None
        self._credentials = 0
        """How many proxies there were so far."""
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._fetches = Fetches(lambda endpoint, files: self._spawn(self._fetch(endpoint, files)))

    async def start(self) -> None:
        """Load the library; without a valid proxy all else waits for one."""
        name: str = self.options.callback_host or os.environ.get("GLOBUS_HOSTNAME", "")
        os.environ["GLOBUS_HOSTNAME"] = name or await asyncio.to_thread(own_name)
        client = GramClient(self._told)
        await client.load()
        self._client = client
        with contextlib.suppress(CredentialError):  # the watch tells it
            await self._ready()

    def credentials(self) -> Sequence[CredentialWatch]:
        """The user's proxy."""
        return [self._watch]

    async def stop(self) -> None:
        """Leave the jobs running."""
        for task in self._tasks:
            task.cancel()
        if self._client is not None:
            self._client.close()

    # ------------------------------------------------------------ submission

    def endpoint(self, submission: Submission) -> str:
        """The gatekeeper's host and port, and its service."""
        host, service = submission.host, submission.job_manager or "jobmanager"
        if not _HOST.fullmatch(host) or not _SERVICE.fullmatch(service):
            raise DriverError(f"{host}/{service} is no contact of a gatekeeper")
        return f"{host if ':' in host else f'{host}:{self.options.port}'}/{service}"

    async def submit(self, endpoint: str, tasks: Sequence[Task]) -> Sequence[JobId | DriverError]:
        """Submit jobs, each by a request of its own.

        Whatever goes wrong, none of them runs before it is committed.
        """
        await self._ready()
        inputs = [local_inputs(task.submission.description) for task in tasks]
        paths = {file.url for files in inputs for file in files}
        contents = await asyncio.to_thread(read_files, paths) if paths else {}
        if contents:
            await self._fetches.have(endpoint, {one.digest: one.data for one in contents.values()})
        fetched = {path: one.digest for path, one in contents.items()}
        return await asyncio.gather(*(self._submit(endpoint, task, fetched) for task in tasks))

    async def _submit(
        self, endpoint: str, task: Task, fetched: Mapping[str, str]
    ) -> JobId | DriverError:
        try:
            text = job_rsl(task.submission.description, COMMIT_TIME, fetched)
            answer = await self._ask(self._opened().request(endpoint, text))
        except TransientError as error:
            return NotSubmittedError(str(error))
        except DriverError as error:
            return error
        try:
            return self._taken(endpoint, answer).job
        except DriverError as error:
            return error

    def _taken(self, endpoint: str, answer: Answer) -> Known:
        """The job that a gatekeeper took.  Raises DriverError where it did not."""
        if answer.contact and answer.code in (GramError.NONE, GramError.WAITING_FOR_COMMIT):
            known = self._know(endpoint, answer.contact)
            known.tells, known.credential = True, self._credentials
            known.heard = time.monotonic()
            return known
        if answer.code in OUT_OF_REACH:
            raise NotSubmittedError(explain(answer))
        raise DriverError(explain(answer))

    async def _fetch(self, endpoint: str, files: Mapping[str, bytes]) -> bool:
        """Have a job fetch files, given by their digests; whether it did."""
        credential = self._credential
        assert credential is not None
        try:
            async with served(files, os.environ["GLOBUS_HOSTNAME"], credential) as urls:
                text = fetch_rsl(urls, COMMIT_TIME)
                answer = await self._ask(self._opened().request(endpoint, text))
                known = self._taken(endpoint, answer)
                known.ended = asyncio.Event()
                await self._commit(known)
                async with asyncio.timeout(FETCH_TIME):
                    await known.ended.wait()
            await self._release(known)
        except (TimeoutError, DriverError) as error:
            problem = str(error) or "the job that fetches them does not end"
        else:
            problem = fetch_problem(known.state)
        if problem:
            log.warning("%s does not get the inputs of jobs: %s", endpoint, problem)
        return not problem

    async def commit(self, endpoint: str, jobs: Mapping[JobId, str]) -> None:
        """Let jobs run."""
        await self._ready()
        await self._each([self._know(endpoint, job) for job in jobs], self._commit)

    async def _commit(self, known: Known) -> None:
        answer = await self._send(known, lambda url: self._signal(url, Signal.COMMIT_REQUEST))
        if answer.code and answer.code not in OVER:
            raise TransientError(explain(answer))

    async def release(self, endpoint: str, jobs: Collection[JobId]) -> None:
        """Let job managers forget jobs that have ended."""
        await self._ready()
        await self._each([self._know(endpoint, job) for job in jobs], self._release)

    async def _release(self, known: Known) -> None:
        answer = await self._send(known, lambda url: self._signal(url, Signal.COMMIT_END))
        if answer.code and answer.code not in UNKNOWN:
            raise TransientError(explain(answer))
        self._known.pop(path_of(known.job), None)

    def _signal(self, url: str, signal: Signal) -> Awaitable[Answer]:
        return self._opened().signal(url, signal)

    # ------------------------------------------------------------ states

    async def query(self, endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """What was heard of jobs; those of which nothing was heard are asked for."""
        await self._ready()
        self._forget_others(endpoint, jobs)
        followed = [self._know(endpoint, job) for job in jobs]
        unknown: set[JobId] = set()
        troubles: list[TransientError] = []
        is_answered = False

        async def ask(known: Known) -> None:
            nonlocal is_answered
            try:
                if not await self._refresh(known):
                    unknown.add(known.job)
                is_answered = True
            except TransientError as error:
                troubles.append(error)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.options.timeout * QUERY_PART):
                await self._each(self._due(followed), ask)
                await self._each(self._with_old_proxy(followed), self._renew)
        if troubles and not is_answered:
            raise troubles[0]
        return {known.job: known.state for known in followed if known.job not in unknown}

    def _due(self, jobs: Sequence[Known]) -> Sequence[Known]:
        """Those to ask for: all that tell nothing by themselves, and the quietest others."""
        interval = self.options.interval
        limit = time.monotonic() - QUIET_INTERVALS * interval
        running = [known for known in jobs if not known.state.is_final]
        quiet = [known for known in running if known.tells and known.heard < limit]
        quiet.sort(key=lambda known: known.heard)
        most = PLACES + int(len(jobs) * interval / LONGEST_QUIET)
        return [known for known in running if not known.tells] + quiet[:most]

    def _with_old_proxy(self, jobs: Sequence[Known]) -> Sequence[Known]:
        """Some of the jobs that need the new one, so that others need not wait long."""
        late = [
            known
            for known in jobs
            if known.credential < self._credentials and known.tells and not known.state.is_final
        ]
        return late[: 2 * PLACES]

    async def _renew(self, known: Known) -> None:
        try:
            answer = await self._send(known, self._opened().renew)
        except TransientError as error:
            log.warning("%s does not take the new proxy: %s", known.job, error)
            return
        if answer.code:
            log.warning("%s does not take the new proxy: %s", known.job, explain(answer))
        known.credential = self._credentials

    async def _refresh(self, known: Known, told: Answer | None = None) -> bool:
        """Ask for a job; whether it is known.  What was `told` may have more words for a failure.

        Raises TransientError.
        """
        client = self._opened()
        if not known.tells:
            answer = await self._send(known, client.listen)
            known.tells = not answer.code
            if known.tells and answer.state in STATES and answer.state != GramState.UNSUBMITTED:
                self._note(known, state_of(answer))
                return True
        answer = await self._send(known, client.status)
        if answer.code in UNKNOWN:
            return known.state.is_final
        if answer.code:
            raise TransientError(explain(answer))
        if answer.state == GramState.UNSUBMITTED:
            # A driver died, or its commit was lost: committing twice does no harm.
            await self._commit(known)
        if told is not None and told.failure == answer.failure:
            answer = replace(answer, failure_text=told.failure_text)
        self._note(known, state_of(answer))
        return True

    def _told(self, contact: str, told: Answer) -> None:
        """A job manager tells a change."""
        known = self._known.get(path_of(contact))
        if known is None:
            return
        known.gatekeeper.moved(known.url, contact)
        known.url = contact
        if known.state.is_final:
            return
        if told.state in STATES:
            self._note(known, state_of(told))
        elif known.asking is None:
            known.asking = self._spawn(self._find_end(known, told))

    async def _find_end(self, known: Known, told: Answer) -> None:
        """A job is told to have ended: ask how."""
        try:
            async with known.gatekeeper.places:
                if not await self._refresh(known, told):
                    # An old job manager, which does not wait for the end to be committed.
                    self._note(known, state_of(told))
        except TransientError as error:
            log.warning("%s: %s", known.job, error)
            known.heard = -math.inf
        finally:
            known.asking = None

    def _note(self, known: Known, state: JobState) -> None:
        known.heard = time.monotonic()
        if known.state.is_final or known.state == state:
            return
        known.state = state
        if state.is_final and known.ended is not None:
            known.ended.set()
        self.report(known.gatekeeper.name, known.job, state)
        if known.is_cancelled and not state.is_final:
            # A cancellation that came while the job was being submitted may lie there until
            # there is another one.
            known.ending = self._spawn(self._cancel(known))

    # ------------------------------------------------------------ ending

    async def cancel(
        self, endpoint: str, jobs: Mapping[JobId, str]
    ) -> Mapping[JobId, DriverError | None]:
        """End jobs.  Job managers answer when it is done; CANCEL_WAIT is enough to know that
        they try.
        """
        await self._ready()
        ending: dict[JobId, asyncio.Task[DriverError | None]] = {}
        for job in jobs:
            known = self._know(endpoint, job)
            known.is_cancelled = True
            if known.ending is None:
                known.ending = self._spawn(self._cancel(known))
            ending[job] = known.ending
        if ending:
            await asyncio.wait(ending.values(), timeout=CANCEL_WAIT)
        return {job: task.result() for job, task in ending.items() if task.done()}

    async def _cancel(self, known: Known) -> DriverError | None:
        try:
            async with known.gatekeeper.cancellers:
                answer = await self._send(known, self._opened().cancel)
        except TransientError as error:
            return error
        finally:
            known.ending = None
        return DriverError(explain(answer)) if answer.code and answer.code not in OVER else None

    async def find(self, endpoint: str, tags: Collection[str]) -> Mapping[str, JobId]:
        """No job has a tag here; one that is not known by its contact was not committed."""
        return {}

    # ------------------------------------------------------------ requests

    def _know(self, endpoint: str, job: JobId) -> Known:
        path = path_of(job)
        known = self._known.get(path)
        if known is None:
            gatekeeper = self._gatekeepers.get(endpoint)
            if gatekeeper is None:
                gatekeeper = self._gatekeepers[endpoint] = Gatekeeper(endpoint)
            known = self._known[path] = Known(gatekeeper, job, job)
        return known

    def _forget_others(self, endpoint: str, jobs: Mapping[JobId, str]) -> None:
        """Nobody asks for these jobs any more."""
        long_ago = time.monotonic() - LONGEST_QUIET
        for path, known in list(self._known.items()):
            if known.job in jobs or known.gatekeeper.name != endpoint:
                continue
            if known.heard < long_ago:
                del self._known[path]

    async def _send(self, known: Known, request: Callable[[str], Awaitable[Answer]]) -> Answer:
        """Ask a job's manager something; one that is not there any more is started again.

        Raises TransientError where nothing is known of the job.
        """
        known.url = known.gatekeeper.where(known.url)
        answer = await self._ask(request(known.url))
        if answer.code == GramError.CONTACTING_JOB_MANAGER:
            if not await self._restart(known):
                return Answer(GramError.UNKNOWN_CONTACT, "the job is gone with its job manager")
            answer = await self._ask(request(known.url))
        if answer.code in OUT_OF_REACH and answer.code != GramError.SHUTTING_DOWN:
            raise TransientError(explain(answer))
        return answer

    async def _restart(self, known: Known) -> bool:
        """Have a job manager go on with a job, and so with all of its jobs; whether it does."""
        gatekeeper = known.gatekeeper
        async with gatekeeper.restarting:
            where = gatekeeper.where(known.url)
            if where != known.url:  # another job brought it back meanwhile
                known.url = where
                return True
            gatekeeper.check(known.url)
            text = rsl([("restart", known.job)]).encode()
            answer = await self._ask(self._opened().request(gatekeeper.name, text))
            if answer.code in UNKNOWN:
                return False
            if not answer.contact:
                raise TransientError(explain(answer))
            log.warning("the job manager of %s is at work again", gatekeeper.name)
            gatekeeper.restarted(known.url, answer.contact)
            known.url = answer.contact
        if answer.code == GramError.WAITING_FOR_COMMIT:
            await self._ask(self._signal(known.url, Signal.COMMIT_REQUEST))
        return True

    async def _ask(self, request: Awaitable[Answer]) -> Answer:
        """An answer, within the time for one.  Raises TransientError."""
        seconds = self.options.timeout * QUERY_PART
        try:
            async with asyncio.timeout(seconds):
                return await request
        except TimeoutError:
            raise TransientError(f"no answer within {seconds:g} seconds") from None

    async def _each(
        self, jobs: Sequence[Known], function: Callable[[Known], Coroutine[Any, Any, None]]
    ) -> None:
        """Do something for each, PLACES at a time; the first error when all are done."""

        async def one(known: Known) -> None:
            async with known.gatekeeper.places:
                await function(known)

        outcomes = await asyncio.gather(*map(one, jobs), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    def _spawn(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ------------------------------------------------------------ credential

    def _opened(self) -> GramClient:
        assert self._client is not None
        return self._client

    async def _ready(self) -> None:
        """Have a client with the proxy that is valid now.  Raises CredentialError."""
        async with self._opening:
            credential = await self._watch.require_valid()
            if credential != self._credential:
                await self._opened().open()
                self._credential = credential
                self._credentials += 1


def own_name() -> str:
    """A name or address by which others may reach this machine; blocks."""
    name = socket.getfqdn()
    if "." in name and not name.startswith("localhost"):
        with contextlib.suppress(OSError):
            socket.getaddrinfo(name, None)
            return name
    # No packet is sent: this asks for the address of the interface that leads out.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address: str = probe.getsockname()[0]
        return address
    return "localhost"


DRIVER = driver_of(Gram)
