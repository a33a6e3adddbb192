"""The daemon: requests from stdin, answers to stdout, and a driver between them.

    stdin -> one read -> wire.Parser -> Sequence -> batch -> Service.serve -> driver
    driver's outcomes -> Service -> wire.answer -> Output -> one write -> stdout

What holds for every driver is held here:

- every request gets exactly one answer: a batch that ends, fails or passes its deadline
  with requests unanswered has them answered with their fallback, and what the driver says
  of them later is dropped (a Request takes one answer only); a service may let go what gwd
  asked for twice by mistake;
- stdin is always read, whatever stdout or the driver do;
- INIT is answered before the driver starts;
- FINALIZE, end of file and a vanished reader end the daemon within a second.
"""

import asyncio
import contextlib
import logging
import os
import signal
import traceback
from collections import deque
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass

from gridmad import wire
from gridmad.errors import DriverError, TransientError
from gridmad.output import Output, widen
from gridmad.sequence import Sequence
from gridmad.service import Service
from gridmad.watchdog import Watchdog
from gridmad.wire import Parser, Request

log = logging.getLogger(__name__)

READ_SIZE = 1 << 15
"""Bytes of one read.  The answers of 32 KiB of requests stay in a processor's cache: they
stream a quarter faster than those of 256 KiB; what waits in the pipe is read next."""
MAX_BACKLOG = 1 << 20
"""Bytes of answers that may wait for their reader before requests are left unserved.
They are read all the same, and are much smaller than their answers."""
MAX_BATCH = 10_000
"""Requests served together at most: their answers are made at once."""
LAST_WORDS = 0.4
"""Seconds that what is under way has to end by itself after FINALIZE or end of file."""
STOP_TIME = 0.2
"""Seconds that the driver has to stop."""
DRAIN_TIME = 0.1
"""Seconds that the reader has to take the last answers.  With the last log records (0.2 s)
all of it stays within the second that gwd waits."""
EX_IOERR = 74
"""Exit code of a daemon that cannot write to stdout for another reason than a vanished reader
(sysexits.h)."""
EX_SOFTWARE = 70
"""Exit code of a daemon whose driver blocked it for good (sysexits.h)."""


@dataclass(slots=True, eq=False)
class Work:
    """A batch under way."""

    operation: str
    requests: list[Request]
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None


class Daemon:
    """One session with gwd (or a person at a prompt) over two file descriptors.

    Made and run inside an event loop.
    """

    def __init__(self, service: Service, stdin: int = 0, stdout: int = 1) -> None:
        self._loop = asyncio.get_running_loop()
        self._service = service
        self._stdin = stdin
        self._parser = Parser(service.grammar)
        self._sequence = Sequence(service.parallel) if service.is_sequenced else None
        self._output = Output(stdout, self._drained, self._reader_lost)
        self._will_flush = False
        self._unserved: deque[bytes] = deque()
        self._unadmitted: deque[tuple[str, list[Request]]] = deque()
        self._is_at_end = False

        self._is_started = False
        self._starting: asyncio.Task[None] | None = None
        self._inits_waiting = 0
        self._before_start: list[Work] = []

        self._under_way: set[Work] = set()
        self._busy: set[str] = set()
        self._gathering: dict[str, list[Request]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchdog = Watchdog(self._loop, self._is_idle, self._give_up)

        self._stopping: asyncio.Task[None] | None = None
        self._is_closed = False
        self._must_answer_finalize = False
        self._exit_code = 0
        self._finished: asyncio.Future[None] = self._loop.create_future()

        service.answer = self._answer
        service.drop = self._drop
        service.tell = self._tell

    async def run(self) -> int:
        """Serve until FINALIZE, end of file, a signal or a vanished reader; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._loop.add_signal_handler(number, self._stop, 128 + number)
        widen(self._stdin)
        try:
            self._loop.add_reader(self._stdin, self._readable)
        except PermissionError:
            # A regular file or /dev/null: always readable, and unknown to epoll.
            self._loop.call_soon(self._read_file)
        try:
            await self._finished
        finally:
            self._watchdog.end()
        return self._exit_code

    # ------------------------------------------------------------ input

    def _read_file(self) -> None:
        self._readable()
        if not self._is_at_end:
            self._loop.call_soon(self._read_file)

    def _readable(self) -> None:
        try:
            data = os.read(self._stdin, READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            log.warning("stdin: %s", error.strerror)
            data = b""
        if not data:
            self._is_at_end = True
            self._loop.remove_reader(self._stdin)
        if self._unserved or self._output.backlog > MAX_BACKLOG:
            self._unserved.append(data)
            if not data:
                # A reader that has stopped must not hold up the end.
                self._stop(0)
        else:
            self._take(data)

    def _drained(self) -> None:
        """The reader has taken all there was: serve what was read meanwhile."""
        while self._unserved and self._output.backlog <= MAX_BACKLOG:
            self._take(self._unserved.popleft())

    def _take(self, data: bytes) -> None:
        """Serve what was read; nothing is the end of file."""
        self._will_flush = True
        self._admit_all(self._parser.feed(data) if data else self._parser.finish())
        if not data:
            self._stop(0)
        self._flush()

    def _admit_all(self, runs: list[tuple[str, list[Request]]]) -> None:
        # Kept where the watchdog finds them: a driver may block in the first of many.
        self._unadmitted.extend(runs)
        while self._unadmitted:
            self._admit(*self._unadmitted.popleft())

    def _admit(self, operation: str, requests: list[Request]) -> None:
        if not operation:
            for request in requests:
                log.warning("bad request %r: %s", request, request.problem)
                self._answer([request], [wire.failure(str(request.problem))])
        elif operation == "INIT":
            for request in requests:
                self._init(request)
        elif operation == "FINALIZE":
            self._must_answer_finalize = True
            self._stop(0)
        elif not self._is_started and self._stopping is None:
            self._wait_for_start(operation, requests)
        elif self._sequence is None:
            self._serve(operation, requests)
        else:
            admitted = self._sequence.admit(operation, requests)
            if admitted:
                self._serve(operation, admitted)

    # ------------------------------------------------------------ start

    def _init(self, request: Request) -> None:
        if request.id.isdigit() and int(request.id) >= wire.MAX_JOBS:
            log.warning(
                "gwd announces %s jobs, but reads job ids of five digits only: set "
                "NUMBER_OF_JOBS below %d in gwd.conf",
                request.id,
                wire.MAX_JOBS,
            )
        if self._service.init_waits_for_start and not self._is_started:
            self._inits_waiting += 1
            self._start()
        else:
            self._tell(wire.initialised(self._service.grammar, self._service.greeting()))
            # Once the answer is out: what the driver imports may take its time.
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        if not self._is_started and self._starting is None:
            self._starting = self._spawn(self._start_driver())
            self._watchdog.watch()

    def _wait_for_start(self, operation: str, requests: list[Request]) -> None:
        work = Work(operation, requests)
        deadline = self._service.deadline(operation)
        work.timer = self._loop.call_later(deadline, self._start_overdue, work)
        self._before_start.append(work)
        self._start()

    def _start_overdue(self, work: Work) -> None:
        text = f"the driver did not start within {self._service.deadline(work.operation):g} seconds"
        log.error("%s: %s", work.operation, text)
        self._before_start.remove(work)
        self._fall_back(work.operation, work.requests, TransientError(text))

    def _take_before_start(self) -> list[tuple[str, list[Request]]]:
        waiting, self._before_start = self._before_start, []
        for work in waiting:
            if work.timer is not None:
                work.timer.cancel()
        return [(work.operation, work.requests) for work in waiting]

    async def _start_driver(self) -> None:
        error: DriverError | None = None
        try:
            await self._service.start()
        except DriverError as problem:
            error = problem
        except (Exception, SystemExit) as problem:
            log.debug("the driver cannot start", exc_info=True)
            error = DriverError(f"the driver cannot start: {type(problem).__name__}: {problem}")
        self._starting = None
        self._is_started = error is None
        if error is not None:
            log.error("%s", error)
        greeting = self._service.greeting() if error is None else None
        while self._inits_waiting:
            self._inits_waiting -= 1
            self._tell(wire.initialised(self._service.grammar, greeting, str(error)))
        waiting = self._take_before_start()
        if error is None:
            self._admit_all(waiting)
        else:
            # The next request tries to start it again.
            for operation, requests in waiting:
                self._fall_back(operation, requests, error)

    # ------------------------------------------------------------ batches

    def _serve(self, operation: str, requests: list[Request]) -> None:
        """Serve a batch, or keep it where one of its kind is under way."""
        if self._is_closed:
            self._fall_back(operation, requests, TransientError("the driver is stopping"))
            return
        if operation in self._busy:
            self._gathering.setdefault(operation, []).extend(requests)
            return
        work = Work(operation, requests)
        self._under_way.add(work)
        self._watchdog.watch()
        try:
            done = self._service.serve(operation, requests)
        except BaseException as error:  # noqa: BLE001 - whatever a driver raises is answered
            self._fail(work, error)
            return
        if done is None:
            self._end(work, None)
            return
        if operation in self._service.gathered:
            self._busy.add(operation)
        work.timer = self._loop.call_later(self._service.deadline(operation), self._overdue, work)
        work.task = self._spawn(self._await(work, done))

    async def _await(self, work: Work, done: Awaitable[None]) -> None:
        try:
            await done
        except asyncio.CancelledError:
            self._end(work, TransientError("the driver gave it up"))
        except BaseException as error:  # noqa: BLE001 - SystemExit would end the loop
            self._fail(work, error)
        else:
            self._end(work, None)

    def _fail(self, work: Work, error: BaseException) -> None:
        if not isinstance(error, DriverError):
            text = "".join(traceback.format_exception_only(error)).strip()
            log.error("%s: the driver failed: %s", work.operation, text)
            log.debug("%s: the driver failed", work.operation, exc_info=error)
        if not isinstance(error, Exception):
            error = TransientError(f"the driver's thread ended: {type(error).__name__} {error}")
        self._end(work, error)

    def _overdue(self, work: Work) -> None:
        deadline = self._service.deadline(work.operation)
        text = f"no answer within {deadline:g} seconds"
        log.error("%s: %s from the driver", work.operation, text)
        self._end(work, TransientError(text))
        if work.task is not None:
            # What it still settles is dropped, or undone; but it may not go on for ever.
            self._loop.call_later(deadline, work.task.cancel)

    def _end(self, work: Work, error: Exception | None) -> None:
        """The batch is over: what it left unanswered gets its fallback, and the next one
        may begin.
        """
        if work not in self._under_way:
            return
        self._under_way.discard(work)
        if work.timer is not None:
            work.timer.cancel()
        left = [request for request in work.requests if not request.answered]
        if left:
            self._fall_back(
                work.operation, left, error or TransientError("the driver said nothing")
            )
        if work.task is not None and work.operation in self._busy:
            self._busy.discard(work.operation)
            gathered = self._gathering.pop(work.operation, [])
            for first in range(0, len(gathered), MAX_BATCH):
                self._serve(work.operation, gathered[first : first + MAX_BATCH])

    def _fall_back(self, operation: str, requests: list[Request], error: Exception) -> None:
        for request in requests:
            self._answer([request], [self._service.fallback(operation, request, error)])

    def _is_idle(self) -> bool:
        return not self._under_way and self._starting is None

    # ------------------------------------------------------------ output

    def _answer(self, requests: list[Request], payloads: list[bytes]) -> None:
        lines, answered = wire.answer(requests, payloads)
        if not answered:
            return
        self._output.write(lines)
        self._flush_soon()
        self._release(requests)

    def _drop(self, requests: list[Request]) -> None:
        wire.drop(requests)
        self._release(requests)

    def _release(self, requests: list[Request]) -> None:
        if self._sequence is not None:
            released = self._sequence.release(requests)
            if released:
                self._loop.call_soon(self._serve_all, released)

    def _serve_all(self, released: dict[str, list[Request]]) -> None:
        for operation, requests in released.items():
            self._serve(operation, requests)

    def _tell(self, line: bytes) -> None:
        self._output.write(line)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._will_flush:
            self._will_flush = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._will_flush = False
        self._output.flush()
        if self._unserved:
            # All may have gone out without the reader ever having to be waited for.
            self._loop.call_soon(self._drained)

    # ------------------------------------------------------------ end

    def _reader_lost(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError | ConnectionError):
            self._stop(0)
        else:
            log.error("stdout: %s", error.strerror)
            self._stop(EX_IOERR)

    def _stop(self, exit_code: int) -> None:
        if self._stopping is None:
            self._loop.remove_reader(self._stdin)
            self._is_at_end = True
            self._exit_code = exit_code
            self._stopping = self._loop.create_task(self._finish())

    async def _finish(self) -> None:
        """Let what is under way end, answer the rest, stop the driver, say the last word."""
        end = self._loop.time() + LAST_WORDS
        while self._loop.time() < end and not self._output.is_lost:
            if not (self._under_way or self._starting or self._unserved or self._sequence):
                break
            await asyncio.sleep(0.005)
        self._is_closed = True
        stopping = TransientError("the driver is stopping")
        for work in list(self._under_way):
            self._end(work, stopping)
        for operation, requests in self._take_before_start():
            self._fall_back(operation, requests, stopping)
        while self._sequence:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._service.stop(), STOP_TIME)
        if self._must_answer_finalize:
            self._tell(wire.finalised(self._service.grammar))
        self._output.flush()
        end = self._loop.time() + DRAIN_TIME
        while self._output.backlog and self._loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self._finished.set_result(None)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _give_up(self, where: str) -> None:
        """Called from the watchdog's thread while the driver blocks the event loop for good.

        Nothing can be served any more: answer all there is and end, so that gwd starts the
        driver anew (it notices a dead driver, but never a silent one).
        """
        log.critical("the driver blocks the daemon, which gives itself up; it hangs at %s", where)
        try:
            self._answer_all(TransientError("the driver hangs"))
        finally:
            os._exit(EX_SOFTWARE)

    def _answer_all(self, error: DriverError) -> None:
        """Answer every request there is, read or not, without the event loop."""
        left = [(work.operation, work.requests) for work in self._under_way]
        left += [(work.operation, work.requests) for work in self._before_start]
        left += self._gathering.items()
        if self._sequence is not None:
            left += [(operation, [request]) for operation, request in self._sequence.unanswered()]
        left += self._unadmitted
        with contextlib.suppress(OSError):
            os.set_blocking(self._stdin, False)
            while data := os.read(self._stdin, READ_SIZE):
                self._unserved.append(data)
        for data in self._unserved:
            left += self._parser.feed(data)
        for operation, requests in left:
            if operation in ("INIT", "FINALIZE"):
                continue
            for request in requests:
                payload = (
                    self._service.fallback(operation, request, error)
                    if operation
                    else wire.failure(str(request.problem))
                )
                self._output.write(wire.answer([request], [payload])[0])
        self._output.flush_blocking()
