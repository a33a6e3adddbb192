"""Runs jobs on a Slurm cluster, by slurmrestd (gw_em_mad_slurm --rest URL).

For a machine that has none of Slurm's commands.  Jobs, their names and contacts are those of
gridmad.execution.slurm, so a site may change from one to the other while jobs run.  The driver
is let in by a JSON Web Token: $SLURM_JWT, or a file that is read again when it changes.

States come from one list of all jobs, which costs slurmrestd more than ten times what squeue
costs; where there are many, the commands are the better choice.  A job that slurmctld has
forgotten is known by its status file alone: what slurmrestd (22.05) says of accounting has
exit code 0 for all jobs that no signal ended.

Source: Slurm, "REST API" (OpenAPI of slurmrestd); versions from v0.0.38 on, of which later ones
write numbers as objects and states as lists.
"""

import argparse
import asyncio
import json
import os
import pwd
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from gridmad.credential import Kind, file_source, slurm_source
from gridmad.credential_watch import CredentialWatch
from gridmad.errors import (
    DriverError,
    MissingDependencyError,
    NotSubmittedError,
    TransientError,
    UsageError,
)
from gridmad.execution.description.model import JobDescription
from gridmad.execution.http_body import read_body
from gridmad.execution.model import JobState
from gridmad.execution.resource import JobId, Task
from gridmad.execution.slurm import (
    Row,
    Slurm,
    array_ranges,
    array_script,
    is_transient,
    is_unreached,
)

if TYPE_CHECKING:
    import httpx

CONNECTIONS: Final = 8
MAX_ANSWER: Final = 256 << 20
"""Bytes of an answer; more is a fault, and must not fill the memory."""
MAX_TASKS: Final = 10_000
"""Of an array of ours."""

_SUBMIT: Final = re.compile(r"/slurm/v0\.0\.([0-9]{1,4})/job/submit/?")
_TASKS: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5})(?::([0-9]{1,5}))?)?")
_PASSING: Final = ("COMPLETING", "REQUEUED", "CONFIGURING", "STAGE_OUT", "SIGNALING", "STOPPED")
"""What stands beside a state, and is what the job does now."""
_REFUSALS: Final = range(2000, 4000)
"""Slurm's errors that are about the request."""


def parse_jobs(content: bytes) -> list[Row]:
    """The jobs of `GET jobs` that are tasks of arrays; what cannot be read is passed over.

    Raises TransientError for what is no such list.
    """
    try:
        jobs = json.loads(content)["jobs"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise TransientError("slurmrestd answered no list of jobs") from None
    waiting: list[Row] = []
    begun: list[Row] = []
    for job in jobs if isinstance(jobs, list) else ():
        if not isinstance(job, dict):
            continue
        raw, array, task = (
            _number(job.get(k)) for k in ("job_id", "array_job_id", "array_task_id")
        )
        name, state = str(job.get("name")), _state(job.get("job_state"))
        if not raw or not array or not state:
            continue
        status, reason = _status(job.get("exit_code")), str(job.get("state_reason") or "")
        tasks = str(job.get("array_task_string") or "")
        if task is not None and not tasks:
            begun.append(Row(f"{array}_{task}", str(raw), name, state, status, reason))
            continue
        numbers = [str(number) for number in _expanded(tasks)] or ["N/A"]
        waiting += [Row(f"{array}_{one}", str(raw), name, state, status, reason) for one in numbers]
    return waiting + begun


def _number(value: object) -> int | None:
    """A number; newer versions give {"set": true, "number": 7}."""
    if isinstance(value, dict):
        value = value.get("number") if value.get("set") else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _state(value: object) -> str:
    """A state; newer versions give a list of one with what the job does besides."""
    if isinstance(value, list):
        words = [word for word in value if isinstance(word, str)]
        return next((word for word in words if word in _PASSING), words[0] if words else "")
    return value if isinstance(value, str) else ""


def _status(value: object) -> int:
    """A status as of wait(2); newer versions give its parts."""
    if isinstance(value, dict) and "return_code" in value:
        signal = value.get("signal")
        number = signal.get("id", signal.get("signal_id")) if isinstance(signal, dict) else 0
        return (_number(value["return_code"]) or 0) % 256 << 8 | (_number(number) or 0) % 128
    return _number(value) or 0


def _expanded(tasks: str) -> Iterator[int]:
    """The numbers of `0-2,5,8-12:2%4`; a list that Slurm cut short goes on with all that follow."""
    last = -1
    for part in tasks.strip("[]").partition("%")[0].split(","):
        match = _TASKS.fullmatch(part)
        if match is not None:
            first = int(match[1])
            last = min(int(match[2] or first), MAX_TASKS)
            yield from range(first, last + 1, int(match[3] or 1) or 1)
        elif part.endswith("..."):
            yield from range(last + 1, Slurm.chunk)


def properties(task: Task, numbers: str, options: argparse.Namespace) -> dict[str, object]:
    """What an array asks for."""
    job: JobDescription = task.submission.description
    wanted: dict[str, object] = {
        "name": task.group,
        "array": numbers,
        "current_working_directory": "/",
        "standard_input": "/dev/null",
        "standard_output": "/dev/null",
        "standard_error": "/dev/null",
    }
    memory = max(job.max_memory or 0, job.min_memory or 0)
    others: dict[str, object] = {
        "partition": job.queue or options.partition,
        "account": job.project,
        "tasks": job.count if job.count > 1 else None,
        "time_limit": job.max_wall_time,
        "memory_per_node": memory,
    }
    return wanted | {name: value for name, value in others.items() if value}


class SlurmRest(Slurm):
    """Jobs on a Slurm cluster, by slurmrestd."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        if options.native:
            raise UsageError("--native is for sbatch, and --rest does without it")
        self._environment = {
            name: value
            for name, value in self._environment.items()
            if not name.startswith("SLURM_")
        }
        source = file_source(Kind.TOKEN, options.token) if options.token else None
        if source is None and os.environ.get("SLURM_JWT"):
            source = slurm_source(os.environ)
        self._watch = source and CredentialWatch(source, warnings=options.credential_warnings)
        self._client: httpx.AsyncClient | None = None
        self._version = 0
        self._places = asyncio.Semaphore(CONNECTIONS)

    def credentials(self) -> Sequence[CredentialWatch]:
        """The token."""
        return [self._watch] if self._watch else []

    async def start(self) -> None:
        """Import the library."""
        try:
            import httpx
        except ImportError:
            raise MissingDependencyError("httpx", "slurm-rest") from None
        self._httpx = httpx
        self._user = self.options.user or pwd.getpwuid(os.getuid()).pw_name
        path = self.options.rest.removeprefix("unix:")
        is_local = path != self.options.rest
        context = await asyncio.to_thread(ssl.create_default_context)
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(verify=context, uds=path if is_local else None),
            base_url="http://localhost" if is_local else self.options.rest,
            timeout=self.options.timeout,
        )

    async def stop(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    # ------------------------------------------------------------ what commands do elsewhere

    def _script(self, task: Task) -> str:
        job = task.submission.description
        if job.nodes or job.processes_per_node:
            raise DriverError("nodes cannot be asked for through slurmrestd: use gw_em_mad_slurm")
        return super()._script(task)

    async def _place(
        self, words: Sequence[str], array: Sequence[tuple[Task, str]]
    ) -> str | DriverError:
        try:
            version = await self._find_version()
            environment: object = dict(self._environment)
            if version > 38:
                environment = [f"{name}={value}" for name, value in self._environment.items()]
            numbers = array_ranges([task.number for task, _ in array])
            job = properties(array[0][0], numbers, self.options) | {"environment": environment}
            script = array_script(array).decode()
        except UnicodeDecodeError:
            return DriverError("slurmrestd takes no job with bytes that are not UTF-8")
        except TransientError as error:
            return NotSubmittedError(str(error))
        try:
            answer = await self._call("POST", "job/submit", {"job": job, "script": script})
            number = _number(json.loads(answer).get("job_id"))
        except DriverError as error:
            return error
        except (ValueError, AttributeError):
            number = None
        return str(number) if number else TransientError("slurmrestd answered no number of a job")

    async def _squeue(self) -> list[Row]:
        await self._find_version()
        try:
            content = await self._call("GET", "jobs")
        except TransientError:
            raise
        except DriverError as error:
            raise TransientError(str(error)) from None
        return await asyncio.to_thread(parse_jobs, content)

    async def _scancel(self, jobs: Sequence[JobId]) -> Mapping[JobId, DriverError | None]:
        async def end(job: JobId) -> DriverError | None:
            try:
                async with self._places:
                    await self._call("DELETE", f"job/{job}")
            except TransientError as error:
                return error
            except DriverError:  # it has ended meanwhile
                return None
            return None

        return dict(zip(jobs, await asyncio.gather(*map(end, jobs)), strict=True))

    async def _accounts(self, *words: str) -> list[Row] | None:
        return None

    async def _sacct(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        return {}

    # ------------------------------------------------------------ requests

    async def _find_version(self) -> int:
        """The newest version of the interface that this slurmrestd has."""
        if not self._version:
            try:
                paths = json.loads(await self._request("GET", "/openapi/v3"))["paths"]
                found = [_SUBMIT.fullmatch(path) for path in paths]
                self._version = max(int(match[1]) for match in found if match)
            except TransientError:
                raise
            except (ValueError, TypeError, KeyError, DriverError) as error:
                raise NotSubmittedError(f"slurmrestd names no version: {error}") from None
        return self._version

    async def _call(self, method: str, path: str, content: object = None) -> bytes:
        return await self._request(method, f"/slurm/v0.0.{self._version}/{path}", content)

    async def _request(self, method: str, path: str, content: object = None) -> bytes:
        """An answer that has no errors.

        Raises NotSubmittedError for who was not let in, TransientError where there is no
        answer, a plain DriverError where the request was refused.
        """
        assert self._client is not None
        httpx = self._httpx
        headers = {"X-SLURM-USER-NAME": self._user}
        if self._watch:
            credential = await self._watch.require_valid()
            headers["X-SLURM-USER-TOKEN"] = credential.content.decode("ascii")
        try:
            async with self._client.stream(method, path, json=content, headers=headers) as response:
                answer = await read_body(response, MAX_ANSWER)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotSubmittedError(f"slurmrestd is out of reach: {error}") from None
        except httpx.HTTPError as error:
            raise TransientError(f"slurmrestd: {error or type(error).__name__}") from None
        if response.is_success:
            return answer
        if response.status_code in (401, 403):
            raise NotSubmittedError(f"slurmrestd lets {self._user} not in: {response.status_code}")
        code, text = _error(answer)
        problem = f"slurmrestd: {text or response.status_code}"[:300]
        if is_unreached(problem):
            raise NotSubmittedError(problem)
        if is_transient(problem) or code not in _REFUSALS:
            raise TransientError(problem)
        raise DriverError(problem)


def _error(answer: bytes) -> tuple[int, str]:
    """The first error of an answer: Slurm's number of it, and its text."""
    try:
        error = json.loads(answer)["errors"][0]
        code = _number(error.get("error_number", error.get("error_code"))) or 0
        return code, " ".join(str(error.get("error") or error.get("description")).split())
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return 0, ""
