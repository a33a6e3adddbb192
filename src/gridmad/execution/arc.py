"""Runs jobs on ARC compute elements, by the REST interface of A-REX (gw_em_mad_arc).

Many jobs are submitted by one request, and the states of all come from another; how those that
ended did, from a third.  A submission has two phases: A-REX takes a job and holds it until a
file was put into its session directory, and drops it when that does not happen.  So a job that
nobody wrote down never runs.  Where that file could not be put it is put again when states are
asked for.

Before it the inputs that are files of this machine are put there.  That keeps no job from running:
one whose driver died in between, or whose inputs are not taken in time, runs without them.

The driver is let in by an X.509 proxy, or by a bearer token (see gridmad.credential).
A job whose standard streams are URLs has A-REX fetch and store them in the user's name: the
proxy is delegated once to each endpoint, and again when it was renewed.

States are as old as what the resource's information provider wrote last, which is a minute as
sites have it.

Source: see gridmad.execution.arc_rest.
"""

import argparse
import asyncio
import logging
import math
import os
import re
import ssl
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

from gridmad import credential_watch
from gridmad.authorities import AUTHORITIES, trusting
from gridmad.credential import (
    Credential,
    CredentialSource,
    Kind,
    file_source,
    proxy_source,
    token_source,
)
from gridmad.credential_watch import CredentialWatch
from gridmad.errors import (
    DriverError,
    MissingDependencyError,
    NotSubmittedError,
    TransientError,
    UsageError,
)
from gridmad.execution import arc_rest
from gridmad.execution.delegation import delegate
from gridmad.execution.engine import driver_of
from gridmad.execution.http_body import read_body
from gridmad.execution.inputs import Content, read_files
from gridmad.execution.model import JobState, Submission
from gridmad.execution.resource import JobId, Resource, Task

if TYPE_CHECKING:
    from xml.etree import ElementTree as ET

    import httpx

log = logging.getLogger(__name__)

Item = TypeVar("Item")

URL: Final = "https://{host}/arex"
CONNECTIONS: Final = 8
"""To all endpoints, for what needs a request for each job."""
MAX_ANSWER: Final = 64 << 20
"""Bytes of an answer; more is a fault, and must not fill the memory."""
UPLOADS: Final = 4
"""Of those that may bring inputs: states are asked for meanwhile."""
UPLOAD_TIME: Final = 20.0
"""Seconds that jobs wait for their inputs ..."""
UPLOAD_PAUSE: Final = 300.0
"""... and for which an endpoint that did not take some gets none."""
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_DELEGATION: Final = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_OVERLOADED: Final = (408, 429)


class Answer(NamedTuple):
    """What A-REX answered."""

    content: bytes
    location: str


class Connected(NamedTuple):
    """Connections, and the proxy that opened them; None with a token."""

    proxy: Credential | None
    client: "httpx.AsyncClient"


class Delegation(NamedTuple):
    """A proxy that an endpoint has."""

    id: str
    credential: Credential
    """Of which it was made."""


class Arc(Resource):
    """Jobs on ARC compute elements."""

    scheme = "arc"
    summary = "run jobs on ARC compute elements (A-REX), through REST"
    chunk = 50
    submitters = 2
    # A-REX keeps jobs for days after their ends; but when it takes the driver for somebody else,
    # as when the issuer of its token is out of reach, it says that it does not know them.
    miss_time = 600.0
    stages_inputs = True
    hides_environment = False

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare where A-REX is and what lets the driver in."""
        parser.add_argument(
            "--url",
            metavar="URL",
            default=URL,
            help="of A-REX on a host, with {host} for its name (default: %(default)s)",
        )
        parser.add_argument(
            "--ca",
            metavar="PATH",
            type=Path,
            help="the authorities that hosts are trusted by: a folder or a PEM file (default: "
            f"$X509_CERT_DIR, else {AUTHORITIES}, else those of the system)",
        )
        parser.add_argument(
            "--credential",
            choices=[kind.value for kind in Kind],
            default=Kind.PROXY.value,
            help="what lets the driver in (default: %(default)s)",
        )
        parser.add_argument(
            "--credential-file",
            metavar="FILE",
            help="where that is (default: as X509_USER_PROXY says, or the discovery of tokens)",
        )
        credential_watch.add_options(parser)
        parser.add_argument(
            "--queue", metavar="NAME", default="", help="for jobs that name none (default: ARC's)"
        )
        parser.add_argument(
            "--home",
            metavar="DIR",
            default="",
            help="where relative paths begin on the resource (default: the home directory of the "
            "account that a job gets)",
        )

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        _check_url(options.url)
        self._watch = CredentialWatch(_source(options), warnings=options.credential_warnings)
        self._connecting = asyncio.Lock()
        self._connected: Connected | None = None
        self._retired: Connected | None = None
        self._delegations: dict[str, Delegation] = {}
        self._delegating = asyncio.Lock()
        self._committed: defaultdict[str, set[JobId]] = defaultdict(set)
        self._committing: set[JobId] = set()
        self._inputs: defaultdict[str, dict[JobId, Mapping[str, str]]] = defaultdict(dict)
        """What is to be put before a job is committed: paths of this machine by their names."""
        self._uploading = asyncio.Semaphore(UPLOADS)
        self._upload_after: dict[str, float] = {}

    def credentials(self) -> Sequence[CredentialWatch]:
        """The proxy or token."""
        return [self._watch]

    async def start(self) -> None:
        """Import the library."""
        try:
            import httpx
        except ImportError:
            raise MissingDependencyError("httpx", "arc") from None
        self._httpx = httpx

    async def stop(self) -> None:
        """Close the connections."""
        for connected in (self._connected, self._retired):
            if connected is not None:
                await connected.client.aclose()

    def endpoint(self, submission: Submission) -> str:
        """The host."""
        if not _HOST.fullmatch(submission.host):
            raise DriverError(f"{submission.host[:80]} is no name of a host")
        return submission.host

    # ------------------------------------------------------------ submission

    async def submit(self, endpoint: str, tasks: Sequence[Task]) -> Sequence[JobId | DriverError]:
        """One request for all."""
        delegation = ""
        if any(arc_rest.stages_files(task.submission.description) for task in tasks):
            try:
                delegation = await self._delegate(endpoint)
            except TransientError as error:
                raise NotSubmittedError(str(error)) from None
        outcomes: dict[str, JobId | DriverError] = {}
        described: dict[str, ET.Element] = {}
        for task in tasks:
            try:
                described[task.tag] = arc_rest.activity(
                    task, queue=self.options.queue, home=self.options.home, delegation=delegation
                )
            except DriverError as error:
                outcomes[task.tag] = error
        if described:
            answer = await self._call(
                endpoint,
                "POST",
                "jobs?action=new",
                arc_rest.activities(list(described.values())),
                "application/xml",
                is_refusable=True,
            )
            made = arc_rest.created(answer.content, len(described))
            outcomes.update(zip(described, made, strict=True))
        inputs = self._inputs[endpoint]
        for task in tasks:
            job = outcomes[task.tag]
            if isinstance(job, str) and (files := arc_rest.inputs(task.submission.description)):
                inputs[job] = files
        return [outcomes[task.tag] for task in tasks]

    async def commit(self, endpoint: str, jobs: Mapping[JobId, str]) -> None:
        """Put inputs, and then the file that each job waits for; one that is there already does
        no harm.
        """
        self._committing |= jobs.keys()
        try:
            await self._bring(endpoint, jobs)
            await self._commit(endpoint, jobs)
        finally:
            self._committing -= jobs.keys()

    async def _commit(self, endpoint: str, jobs: Mapping[JobId, str]) -> None:
        async def put(job: JobId, tag: str) -> None:
            path = _session_file(job, arc_rest.COMMIT)
            try:
                await self._call(endpoint, "PUT", path, tag.encode(), is_refusable=True)
            except TransientError:
                raise
            except DriverError as error:
                log.error("job %s cannot be committed: %s", job, error)
            else:
                self._committed[endpoint].add(job)

        failures = await asyncio.gather(
            *(put(job, tag) for job, tag in jobs.items()), return_exceptions=True
        )
        for failure in failures:
            if failure is not None:
                raise failure

    async def _bring(self, endpoint: str, jobs: Collection[JobId]) -> None:
        """Put the inputs of jobs, as many as can be in time."""
        wanted = {job: self._inputs[endpoint].pop(job, {}) for job in jobs}
        paths = {path for files in wanted.values() for path in files.values()}
        if not paths or time.monotonic() < self._upload_after.get(endpoint, -math.inf):
            return
        contents = await asyncio.to_thread(read_files, paths)

        async def put(job: JobId, name: str, content: Content) -> None:
            try:
                async with self._uploading:
                    path = _session_file(job, name)
                    await self._call(endpoint, "PUT", path, content.data, is_refusable=True)
            except TransientError:
                raise
            except DriverError as error:  # it may have been cancelled
                log.warning("job %s does not take its inputs: %s", job, error)

        try:
            async with asyncio.timeout(UPLOAD_TIME), asyncio.TaskGroup() as uploads:
                for job, files in wanted.items():
                    for name, path in files.items():
                        if path in contents:
                            uploads.create_task(put(job, name, contents[path]))
        except* (TimeoutError, TransientError) as errors:
            self._upload_after[endpoint] = time.monotonic() + UPLOAD_PAUSE
            problem = str(errors.exceptions[0]) or f"it took more than {UPLOAD_TIME:g} seconds"
            log.warning("%s did not take the inputs of jobs: %s", endpoint, problem)

    async def _delegate(self, endpoint: str) -> str:
        """The id of a delegated proxy that the endpoint has; "" with a token."""
        async with self._delegating:
            credential = await self._watch.require_valid()
            if credential.kind is not Kind.PROXY:
                return ""
            known = self._delegations.get(endpoint)
            if known is None or known.credential is not credential:
                known = await self._new_delegation(endpoint, credential, known)
                self._delegations[endpoint] = known
            return known.id

    async def _new_delegation(
        self, endpoint: str, credential: Credential, known: Delegation | None
    ) -> Delegation:
        """Delegate a proxy, under the id that jobs know already."""
        path = "delegations?action=new" if known is None else f"delegations/{known.id}?action=renew"
        answer = await self._call(endpoint, "POST", path)
        name = answer.location.rstrip("/").rpartition("/")[2] if known is None else known.id
        if not _DELEGATION.fullmatch(name):
            raise TransientError(f"A-REX named no delegation: {answer.location[:80]!r}")
        chain = await asyncio.to_thread(delegate, answer.content, credential.content)
        await self._call(endpoint, "PUT", f"delegations/{name}", chain, "application/x-pem-file")
        return Delegation(name, credential)

    # ------------------------------------------------------------ states

    async def query(self, endpoint: str, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """One request for all, and one more for those that have ended."""
        names: dict[JobId, str] = {}
        for some in _pieces(jobs, arc_rest.MAX_IDS):
            names.update(arc_rest.states((await self._ask(endpoint, "status", some)).content))
        names = {job: name for job, name in names.items() if job in jobs}
        ended = [job for job, name in names.items() if arc_rest.is_ended(name)]
        states = {
            job: arc_rest.job_state(name)
            for job, name in names.items()
            if not arc_rest.is_ended(name)
        }
        for some in _pieces(ended, arc_rest.MAX_IDS):
            answer = await self._ask(endpoint, "info", some)
            for job, document in arc_rest.documents(answer.content):
                ending = arc_rest.ending(document)
                if ending is not None:
                    states[job] = ending
        await self._catch_up(
            endpoint, {job: jobs[job] for job, name in names.items() if arc_rest.may_wait(name)}
        )
        return states

    async def _catch_up(self, endpoint: str, waiting: Mapping[JobId, str]) -> None:
        """Do what could not be done in time: commit jobs that wait for it, and give the proxy
        that was renewed to jobs that stage files.
        """
        committed = self._committed[endpoint]
        committed &= waiting.keys()
        others = waiting.keys() - committed - self._committing
        try:
            if others:
                await self.commit(endpoint, {job: waiting[job] for job in others})
            if endpoint in self._delegations:
                await self._delegate(endpoint)
        except DriverError as error:
            log.warning("%s: %s", endpoint, error)

    async def cancel(
        self, endpoint: str, jobs: Mapping[JobId, str]
    ) -> Mapping[JobId, DriverError | None]:
        """One request for all."""
        outcomes: dict[JobId, DriverError | None] = {}
        for some in _pieces(jobs, arc_rest.MAX_IDS):
            outcomes.update(arc_rest.cancelled((await self._ask(endpoint, "kill", some)).content))
        return outcomes

    async def find(self, endpoint: str, tags: Collection[str]) -> Mapping[str, JobId]:
        """The list of all the user's jobs, and one request for their names.

        A job whose state is just changing may be missing from the list: where one is wanted
        that was not found the list is read once more.
        """
        found: dict[str, JobId] = {}
        asked: set[JobId] = set()
        for _ in range(2):
            jobs = set(arc_rest.listed((await self._call(endpoint, "GET", "jobs")).content))
            for some in _pieces(jobs - asked, arc_rest.MAX_IDS):
                answer = await self._ask(endpoint, "info", some)
                tags_of = {
                    job: arc_rest.tag_of(document)
                    for job, document in arc_rest.documents(answer.content)
                }
                new = [job for job, tag in tags_of.items() if tag is None]
                told = await asyncio.gather(*(self._tag(endpoint, job) for job in new))
                found.update((tag, job) for job, tag in tags_of.items() if tag)
                found.update(zip(told, new, strict=True))
            asked |= jobs
            if found.keys() >= set(tags):
                break
        return {tag: job for tag, job in found.items() if tag in tags}

    async def _tag(self, endpoint: str, job: JobId) -> str:
        """The tag of a job that the information provider has not seen yet."""
        path = f"jobs/{quote(job, safe='')}/diagnose/local"
        try:
            answer = await self._call(endpoint, "GET", path, is_refusable=True)
        except TransientError:
            raise
        except DriverError:  # it is gone
            return ""
        return arc_rest.tag_in(arc_rest.name_in(answer.content))

    # ------------------------------------------------------------ requests

    async def _ask(self, endpoint: str, action: str, jobs: Collection[JobId]) -> Answer:
        content = arc_rest.question(jobs)
        return await self._call(
            endpoint, "POST", f"jobs?action={action}", content, "application/json"
        )

    async def _call(
        self,
        endpoint: str,
        method: str,
        path: str,
        content: bytes = b"",
        kind: str = "application/octet-stream",
        *,
        is_refusable: bool = False,
    ) -> Answer:
        """One request.  Raises TransientError where it has no good answer; a plain DriverError
        where the request itself was refused and `is_refusable`.
        """
        httpx = self._httpx
        credential = await self._watch.require_valid()
        client = await self._client(credential)
        headers = {"Accept": "application/json", "Content-Type": kind}
        if credential.kind is Kind.TOKEN:
            headers["Authorization"] = f"Bearer {credential.content.decode('ascii')}"
        url = f"{self.options.url.replace('{host}', endpoint)}/rest/1.0/{path}"
        try:
            async with client.stream(method, url, content=content, headers=headers) as response:
                answer = await read_body(response, MAX_ANSWER)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotSubmittedError(f"{endpoint} is out of reach: {_describe(error)}") from None
        except httpx.HTTPError as error:
            raise TransientError(f"{endpoint}: {_describe(error)}") from None
        if response.is_success:
            return Answer(answer, response.headers.get("Location", ""))
        problem = f"{endpoint} answered {response.status_code} {response.reason_phrase}"[:300]
        if is_refusable and response.is_client_error and response.status_code not in _OVERLOADED:
            raise DriverError(problem)
        if response.has_redirect_location:
            # The credential goes to nobody but the host that was named.
            problem = f"{problem}: another URL is to be named by --url"
        raise TransientError(problem)

    async def _client(self, credential: Credential) -> "httpx.AsyncClient":
        """The connections that this credential opens."""
        proxy = credential if credential.kind is Kind.PROXY else None
        async with self._connecting:
            if self._connected is None or self._connected.proxy is not proxy:
                context = await asyncio.to_thread(_context, self.options.ca, proxy)
                client = self._httpx.AsyncClient(
                    verify=context,
                    timeout=self.options.timeout,
                    limits=self._httpx.Limits(max_connections=CONNECTIONS),
                    trust_env=False,
                )
                # What is under way with the old one goes on; it is long over at the next renewal.
                before, self._retired = self._retired, self._connected
                self._connected = Connected(proxy, client)
                if before is not None:
                    await before.client.aclose()
            return self._connected.client


def _session_file(job: JobId, name: str) -> str:
    return f"jobs/{quote(job, safe='')}/session/{name}"


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__


def _context(authorities: Path | None, proxy: Credential | None) -> ssl.SSLContext:
    """TLS that trusts the authorities, and shows the proxy.  Reads files.

    Raises NotSubmittedError where they cannot be read.
    """
    context = trusting(authorities)
    if proxy is not None:
        try:
            context.load_cert_chain(proxy.path)
        except OSError as error:
            raise NotSubmittedError(f"the proxy {proxy.path}: {_describe(error)}") from None
    return context


def _source(options: argparse.Namespace) -> CredentialSource:
    kind = Kind(options.credential)
    if options.credential_file:
        return file_source(kind, options.credential_file)
    find = proxy_source if kind is Kind.PROXY else token_source
    return find(os.environ, os.geteuid())


def _check_url(url: str) -> None:
    """Raises UsageError for what a credential may not be shown to."""
    try:
        parts = urlsplit(url.replace("{host}", "host"))
        is_good = parts.scheme == "https" and bool(parts.hostname) and not parts.query
        is_good = is_good and parts.username is None and (parts.port or 443) > 0
    except ValueError:
        is_good = False
    if not is_good:
        raise UsageError(f"{url!r} is no URL of A-REX: expected {URL}")


def _pieces(items: Iterable[Item], size: int) -> Iterable[list[Item]]:
    """The items in lists of at most `size`."""
    left = iter(items)
    while piece := list(islice(left, size)):
        yield piece


DRIVER = driver_of(Arc)
