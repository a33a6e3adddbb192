"""Execution requests: jobs by gwd's ids, their contacts and their states.

The rules that gwd depends on live here, for every driver: a CALLBACK never comes before
the answer to its SUBMIT, each change of state is told once, nothing follows a final
state, and what is only transient never becomes the end of a job.
"""

import argparse
import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gridmad import wire
from gridmad.driver import Batch, describe, file_name, open_file
from gridmad.errors import DescriptionError, DriverError, TransientError, UnknownJobError
from gridmad.execution.description import MAX_BYTES, JobDescription, parse_description
from gridmad.execution.driver import Contact, ExecutionDriver
from gridmad.execution.model import PENDING, JobState, Phase, Submission
from gridmad.service import Service, message, settle, then
from gridmad.wire import Request

if TYPE_CHECKING:
    from gridmad.live_output import LiveOutput

log = logging.getLogger(__name__)

MAX_CONTACT = 999
"""Bytes of a contact that gwd keeps."""
TEMPLATE = "job.template"
"""gwd's name for what the user wrote, in the folder of a job."""
MAX_LOGGED = 200
"""Characters of the names of attributes that are logged."""


@dataclass(slots=True)
class Job:
    """A job that gwd knows: its contact and the last state it was told."""

    id: str
    contact: Contact
    state: JobState = PENDING
    is_answered: bool = False
    """Its SUBMIT or RECOVER was answered: changes may be told."""
    held: list[JobState] = field(default_factory=list)
    """Changes that came before that."""


class ExecutionService(Service):
    """Keeps what gwd was told of each job, so that drivers need not."""

    grammar = wire.EXECUTION
    is_sequenced = True
    deadlines = {  # noqa: RUF012 - overrides a ClassVar
        "SUBMIT": 300.0,
        "POLL": 60.0,
        "CANCEL": 120.0,
        "RECOVER": 120.0,
    }

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the options of all execution drivers."""
        super().add_options(parser)
        parser.add_argument(
            "--peek",
            metavar="URL",
            help="let `msgpeek -I JOB` watch what each job prints, through this STOMP broker: "
            "stomp://HOST:PORT, stomp+ssl://HOST:PORT, or alternatives separated by commas",
        )
        parser.add_argument(
            "--peek-config",
            metavar="FILE",
            help="msgpeek's configuration, with the login for that (default: $MSGPEEK_CONFIG or "
            "~/.config/gridmad/msgpeek.toml; $MSGPEEK_USER and $MSGPEEK_PASSWORD win over it)",
        )

    def __init__(self, driver: ExecutionDriver) -> None:
        super().__init__(driver)
        self._live_output = None if driver.options.peek is None else _live_output(driver)
        self.gathered = driver.gathered
        self._execution = driver
        self._execution.report = self.report
        self._execution.announce = lambda text: self.tell(wire.timer(text))
        self._jobs: dict[str, Job] = {}
        self._by_contact: dict[Contact, Job] = {}
        self._early: dict[Contact, list[JobState]] = {}
        self._submitting = 0
        self._undoing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the driver, and what makes its jobs watchable."""
        if self._live_output is not None:
            self._live_output.start()
        await super().start()

    async def stop(self) -> None:
        """Stop all of that."""
        if self._live_output is not None:
            self._live_output.stop()
        await super().stop()

    def serve(self, operation: str, requests: list[Request]) -> Awaitable[None] | None:
        """Serve requests of one operation."""
        if operation == "SUBMIT":
            return self._submit(requests)
        if operation == "RECOVER":
            return self._recover(requests)
        return self._follow(operation, requests)

    def fallback(self, operation: str, request: Request, error: Exception) -> bytes:
        """The last known state where that is what the request asks for, else FAILURE.

        A job that gwd recovers has one even where nobody could look for it: gwd drops it
        for good when it reads FAILURE, though it may run.  Its contact is enough to find
        it at the next POLL.
        """
        if operation == "RECOVER" and not isinstance(error, UnknownJobError):
            job = self._jobs.get(request.id)
            if job is None or job.contact != request[2] or job.state.phase is Phase.FAILED:
                job = self._remember(request.id, request[2])
            # Without a loop this is the watchdog's thread, and the end of all.
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().call_soon(self._release, job, [])
        elif operation == "POLL":
            job = self._jobs.get(request.id)
        else:
            job = None
        if job is None:
            return super().fallback(operation, request, error)
        log.warning("job %s: last known state answered: %s", job.id, message(error))
        return _state_payload(job.state)

    def report(self, contact: Contact, state: JobState) -> None:
        """Take a change of state from the driver and tell it once gwd may know it."""
        job = self._by_contact.get(contact)
        if job is None:
            if self._submitting:
                self._early.setdefault(contact, []).append(state)
            return
        if not job.is_answered:
            job.held.append(state)
        elif self._change(job, state):
            self.tell(wire.callback(job.id, _callback_payload(state)))

    def _change(self, job: Job, state: JobState) -> bool:
        """Note a job's state; whether that is news."""
        if job.state.is_final or job.state == state:
            return False
        job.state = state
        if state.is_final:
            self._by_contact.pop(job.contact, None)
        return True

    # ------------------------------------------------------------ SUBMIT

    async def _submit(self, requests: list[Request]) -> None:
        # In a thread, as a file system may hang; all files at once, as a thread costs time.
        outcomes = await asyncio.to_thread(
            lambda: [_read_submission(request) for request in requests]
        )
        if self._live_output is not None:
            outcomes = await self._live_output.watched(outcomes)
        accepted: list[Request] = []
        submissions: list[Submission] = []
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, DriverError):
                log.error("job %s: %s", request.id, outcome)
                self.answer([request], [wire.failure(str(outcome))])
            elif not request.answered:  # gwd was told of a failure meanwhile
                self._remark(request.id, outcome.description)
                submissions.append(outcome)
                accepted.append(request)
        if not accepted:
            return

        def settled(index: int, outcome: Contact | DriverError) -> None:
            self._submitted(accepted[index], outcome)

        self._submitting += 1
        try:
            batch: Batch[Submission, Contact] = Batch(submissions, settled)
            done = settle(batch, self._execution.submit(batch))
            if done is not None:
                await done
        finally:
            self._submit_ended()

    def _remark(self, job_id: str, job: JobDescription) -> None:
        """Log what of a description no driver, or not this one, does."""
        if job.extra:
            names = ", ".join(job.extra)
            log.info(
                "job %s: attributes that the model does not have: %s", job_id, names[:MAX_LOGGED]
            )
        elsewhere = [file.name for file in (*job.inputs, *job.outputs) if "://" in file.url]
        if elsewhere and not self._execution.stages_urls:
            names = ", ".join(elsewhere)
            log.warning(
                "job %s: this driver stages none of its files: %s", job_id, names[:MAX_LOGGED]
            )

    def _submit_ended(self) -> None:
        self._submitting -= 1
        if not self._submitting:
            self._early.clear()

    def _submitted(self, request: Request, outcome: Contact | DriverError) -> None:
        if isinstance(outcome, DriverError):
            log.error("job %s: not submitted: %s", request.id, outcome)
            self.answer([request], [wire.failure(str(outcome))])
            return
        if request.answered:
            # gwd was told that it failed and will submit it again: not both may run.
            log.error("job %s: submitted past its deadline, ended again: %s", request.id, outcome)
            self._undo(outcome)
            return
        is_word = outcome.isascii() and outcome.isprintable() and " " not in outcome
        if not is_word or not 0 < len(outcome) <= MAX_CONTACT:
            self.answer([request], [wire.failure(f"unusable contact {outcome!r}")])
            self._undo(outcome)
            return
        job = self._remember(request.id, outcome)
        self.answer([request], [wire.success(outcome)])
        self._release(job, self._early.pop(outcome, []))

    def _remember(self, job_id: str, contact: Contact) -> Job:
        """A job under this id; one that had it before is forgotten, not ended."""
        before = self._jobs.get(job_id)
        if before is not None and self._by_contact.get(before.contact) is before:
            del self._by_contact[before.contact]
        job = self._jobs[job_id] = self._by_contact[contact] = Job(job_id, contact)
        return job

    def _recall(self, job_id: str) -> Job | None:
        """A job of an earlier life that gwd did not recover, but asks for."""
        contact = self._execution.remembered(job_id)
        if contact is None:
            return None
        job = self._remember(job_id, contact)
        job.is_answered = True
        return job

    def _release(self, job: Job, early: list[JobState]) -> None:
        """From here on changes are told, first those that came before the answer."""
        job.is_answered = True
        held, job.held = [*early, *job.held], []
        for state in held:
            self.report(job.contact, state)

    def _undo(self, contact: Contact) -> None:
        async def cancel() -> None:
            batch: Batch[Contact, None] = Batch([contact], lambda _index, _outcome: None)
            done = then(self._execution.cancel(batch), lambda _outcomes: None)
            if done is not None:
                await done

        task = asyncio.get_running_loop().create_task(cancel())
        self._undoing.add(task)
        task.add_done_callback(self._undone)

    def _undone(self, task: asyncio.Task[None]) -> None:
        self._undoing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a job that gwd does not know could not be ended: %s", task.exception())

    # ------------------------------------------------------------ RECOVER

    def _recover(self, requests: list[Request]) -> Awaitable[None] | None:
        jobs = [self._remember(request.id, request[2]) for request in requests]

        def settled(index: int, outcome: JobState | DriverError) -> None:
            request, job = requests[index], jobs[index]
            if request.answered:
                # Its last known state was answered at the deadline; this one is news.
                if isinstance(outcome, JobState):
                    self._release(job, [outcome])
                return
            self._recovered(request, job, outcome)

        batch: Batch[Contact, JobState] = Batch([job.contact for job in jobs], settled)
        return settle(batch, self._execution.recover(batch))

    def _recovered(self, request: Request, job: Job, outcome: JobState | DriverError) -> None:
        if isinstance(outcome, JobState) and outcome.phase is not Phase.FAILED:
            self._change(job, outcome)
            self.answer([request], [_state_payload(outcome)])
            self._release(job, [])
        elif isinstance(outcome, JobState):
            # SUCCESS FAILED would end the job; a failure told afterwards makes gwd try again.
            self.answer([request], [_state_payload(PENDING)])
            self._release(job, [outcome])
        elif isinstance(outcome, TransientError):
            self.answer([request], [self.fallback("RECOVER", request, outcome)])
        else:
            log.error("job %s: not recovered: %s", job.id, outcome)
            self.answer([request], [wire.failure(str(outcome))])
            self._by_contact.pop(job.contact, None)

    # ------------------------------------------------------------ POLL and CANCEL

    def _follow(self, operation: str, requests: list[Request]) -> Awaitable[None] | None:
        followed: list[Request] = []
        jobs: list[Job] = []
        for request in requests:
            job = self._jobs.get(request.id) or self._recall(request.id)
            if job is None:
                self.answer([request], [wire.failure(str(UnknownJobError(request.id)))])
            elif job.state.is_final:
                payload = wire.SUCCESS if operation == "CANCEL" else _state_payload(job.state)
                self.answer([request], [payload])
            else:
                followed.append(request)
                jobs.append(job)
        if not followed:
            return None
        contacts = [job.contact for job in jobs]
        if operation == "POLL":

            def polled(index: int, outcome: JobState | DriverError) -> None:
                self._polled(followed[index], jobs[index], outcome)

            polls: Batch[Contact, JobState] = Batch(contacts, polled)
            return settle(polls, self._execution.poll(polls))

        def cancelled(index: int, outcome: DriverError | None) -> None:
            payload = wire.SUCCESS if outcome is None else wire.failure(str(outcome))
            self.answer([followed[index]], [payload])

        cancels: Batch[Contact, None] = Batch(contacts, cancelled)
        return settle(cancels, self._execution.cancel(cancels))

    def _polled(self, request: Request, job: Job, outcome: JobState | DriverError) -> None:
        if isinstance(outcome, JobState):
            if not request.answered and self._jobs.get(job.id) is job:
                self._change(job, outcome)
            self.answer([request], [_state_payload(job.state)])
        elif isinstance(outcome, UnknownJobError):
            self.answer([request], [wire.failure(str(outcome))])
        else:
            self.answer([request], [self.fallback("POLL", request, outcome)])


def _live_output(driver: ExecutionDriver) -> "LiveOutput":
    from gridmad.live_output import LiveOutput  # loaded where it is wanted only

    return LiveOutput(
        driver.options,
        os.environ,
        is_staged=driver.stages_inputs,
        hides_environment=driver.hides_environment,
    )


def _read_submission(request: Request) -> Submission | DriverError:
    """Read the description before anything else: gwd writes the next one into its file."""
    host, _, job_manager = request[2].partition("/")
    path = request[3]
    try:
        description = parse_description(_read(file_name(path)))
        origin = _origin(file_name(path))
    except OSError as error:
        return DescriptionError(f"cannot read the job description {describe(error)}")
    except ValueError as error:
        return DescriptionError(f"cannot read the job description {path}: {error}")
    except DescriptionError as error:
        return DescriptionError(f"{path}: {error}")
    return Submission(request.id, host, job_manager, description, origin)


def _origin(path: str) -> str:
    """When gwd took the job: it writes the job's template beside its description then, and
    neither again while the job lives nor when a driver or gwd itself is started anew.
    """
    try:
        found = os.stat(f"{os.path.dirname(path)}/{TEMPLATE}")  # noqa: PTH116, PTH120
    except OSError:  # what described the job is not gwd
        return ""
    return str(found.st_mtime_ns)


def _read(path: str) -> bytes:
    file = open_file(path)
    if file is None:
        raise DescriptionError("it is no file")
    with file:
        return file.read(MAX_BYTES + 1)


def _state_payload(state: JobState) -> bytes:
    """A state as POLL and RECOVER answer it."""
    if state.phase is Phase.DONE and state.exit_code is not None:
        return b"SUCCESS DONE:%d" % state.exit_code
    return b"SUCCESS " + state.phase.value.encode()


def _callback_payload(state: JobState) -> bytes:
    """A state as CALLBACK tells it; only FAILURE makes gwd try a failed job again."""
    if state.phase is Phase.FAILED:
        return wire.failure(state.reason or "the job failed")
    return _state_payload(state)
