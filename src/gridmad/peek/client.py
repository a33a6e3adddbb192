"""A client: connections, output and threads around a Consumer (PROTOCOL.md).

    connections -> Inbox -> worker: Codec.decode -> Consumer -> output -> journal
                                    -> STOMP ACK -> ACK
    pulse: what time asks for, also while the output blocks
    main:  tells what happens, and waits for the end

While the output blocks nothing is committed, so no credit goes out and memory stays bounded.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from gridmad.peek import notices
from gridmad.peek.broker import Connection, Endpoint, Login, Role, expand
from gridmad.peek.consumer import ACK_DELAY, Consumer, Control, Phase
from gridmad.peek.errors import BrokerError, PeekError
from gridmad.peek.file_output import FileSink
from gridmad.peek.frame import Codec
from gridmad.peek.inbox import Inbox
from gridmad.peek.messages import Begin, Bye, Start
from gridmad.peek.notices import Notice, Verdict, printable
from gridmad.peek.reception import Event, Missing, Output, Placed
from gridmad.peek.settlement import DATA, PARK, TOKEN, Settlement
from gridmad.peek.sink import SinkOutput
from gridmad.peek.stream import Destinations, new_client
from gridmad.peek.terminal import NAMES, Sink

__all__ = ["Client", "ClientOptions", "Outcome", "Sink", "watch"]

log = logging.getLogger(__name__)

CAPACITY: Final = 16 << 20
"""Bytes of bodies that wait for the worker; the largest window, so that a client that is
slow does not keep its connections from being read."""
UNACKNOWLEDGED: Final = 64
"""Messages after which a commit is due, whatever their size."""
PREFETCH: Final = 250
"""Messages that the broker delivers before it waits for an acknowledgement."""
PARK_PREFETCH: Final = 64
TOKEN_PREFETCH: Final = 64
"""Whoever has one TOKEN has all of the queue: two clients must not share a park."""
PULSE: Final = 0.2
"""Seconds between two looks at the clock."""
CONNECT_PATIENCE: Final = 10.0
"""Seconds in which one of the brokers has to be reached at first."""
LEAVE_TIME: Final = 3.0
"""Seconds for the output and the brokers at the end."""
PROGRESS_INTERVAL: Final = 0.25
CONTROL_EXPIRY: Final = 60.0
BEGIN_EXPIRY: Final = 10.0
MAX_NEWS: Final = 1000
"""Notices that wait for who is slow to show them; beyond that they are dropped."""
INTERNAL: Final = 125
SIGNALLED: Final = 128


@dataclass(frozen=True)
class ClientOptions:
    """What to watch and how.  With `file` the output goes there instead of to the sink."""

    stream: str
    endpoints: list[Endpoint]
    login: Login
    destinations: Destinations
    key: bytes | None = field(default=None, repr=False)
    takeover: bool = False
    start: Start = field(default_factory=lambda: Start("rest"))
    sources: frozenset[int] | set[int] = frozenset({1, 2})
    file: Path | None = None
    timeout: float = 120.0
    wait: bool = False
    who: str = ""
    heartbeat: float = 10.0


@dataclass(frozen=True)
class Outcome:
    """How it ended: the exit code, and the line that says why."""

    exit_code: int
    text: str


def watch(options: ClientOptions, sink: Sink, notice: Callable[[Notice], None]) -> Outcome:
    """Watch a stream to its end.  As Client.run."""
    return Client(options, sink, notice).run()


@dataclass(frozen=True, slots=True)
class _Body:
    """A message, and what acknowledges it."""

    connection: Connection
    subscription: str
    body: bytes
    acknowledgement: str


@dataclass(frozen=True, slots=True)
class _Link:
    """A connection was made or lost."""

    connection: Connection
    is_up: bool


class _Nudge:
    """Time has passed."""


_Item = _Body | _Link | _Nudge


class Client:
    """One watcher of one stream.

    UsageError where the file is of something else.  All that goes wrong with the broker, the
    job side or a file becomes an Outcome; what the sink or `notice` raise is raised by `run`.
    """

    def __init__(
        self, options: ClientOptions, sink: Sink, notice: Callable[[Notice], None]
    ) -> None:
        self._options = options
        self._sink = sink
        self._notice = notice
        self._codec = Codec(options.stream, options.key)
        self._inbox: Inbox[_Item] = Inbox(CAPACITY)
        self._news: queue.SimpleQueue[Notice | Outcome | BaseException] = queue.SimpleQueue()
        self._lock = threading.Lock()
        """Guards the consumer."""
        self._sending = threading.Lock()
        """Held while control frames go out, so that they do in the order of their sequence."""
        self._connections: list[Connection] = []
        self._home: Connection | None = None
        """Where the last frame came from, and so the job side is."""
        self._refusals: dict[Connection, PeekError] = {}
        self._problem: PeekError | None = None
        self._has_connected = False
        self._is_ending = threading.Event()
        self._is_working = False
        self._received = 0
        self._consumer: Consumer
        self._output: FileSink | SinkOutput
        # The worker's own.
        self._settlement = Settlement()
        self._damaged = 0
        self._is_dirty = False
        self._due: float | None = None

    def run(self) -> Outcome:
        """Watch until the stream, or something else, ends."""
        try:
            outcome = self._open()
        except PeekError as error:
            return Outcome(error.exit_code, str(error))
        if outcome is not None:
            return outcome
        worker = threading.Thread(
            target=self._guard, args=(self._work,), name="worker", daemon=True
        )
        pulse = threading.Thread(target=self._guard, args=(self._pulse,), name="pulse", daemon=True)
        raised: BaseException | None = None
        try:
            for endpoint in expand(self._options.endpoints):
                connection = Connection(
                    [endpoint],
                    self._options.login,
                    self,
                    heartbeat=self._options.heartbeat,
                    name=str(endpoint),
                )
                self._connections.append(connection)
            for connection in self._connections:
                connection.start()
            worker.start()
            pulse.start()
            outcome = self._tell()
        except BaseException as error:  # noqa: BLE001 - raised below, when all is closed
            raised = error
        finally:
            self._close(worker, pulse)
        if isinstance(raised, PeekError):
            return Outcome(raised.exit_code, str(raised))
        if raised is not None:
            raise raised
        assert outcome is not None
        return outcome

    # ------------------------------------------------------------ beginning and end

    def _open(self) -> Outcome | None:
        """Open the output and make the consumer; an Outcome where nothing is left to do."""
        options = self._options
        client = new_client()
        make = partial(
            Consumer,
            sources=options.sources,
            start=options.start,
            sequence=time.time_ns(),
            mode="takeover" if options.takeover else "exclusive",
            who=options.who,
            wait=options.wait,
            timeout=options.timeout,
        )
        if options.file is None:
            self._output = SinkOutput(self._sink, options.start)
            self._consumer = make(client)
            return None
        sink = FileSink(options.file, options.stream, set(options.sources), client)
        self._output = sink
        if sink.exit_code is not None:
            sink.close()
            return Outcome(
                sink.exit_code,
                f"{options.file} has the whole output already; remove it and its journal "
                f"{sink.journal} to get it again",
            )
        self._consumer = make(
            sink.client,
            is_resumed=sink.is_resumed,
            epoch=sink.epoch,
            positions=sink.positions,
            origins=sink.origins,
            missing=sink.missing,
        )
        return None

    def _tell(self) -> Outcome:
        """Show what happens until it ends."""
        while True:
            news = self._news.get()
            if isinstance(news, Outcome):
                return news
            if isinstance(news, BaseException):
                raise news
            self._notice(news)

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - raised by the main thread
            self._news.put(error)

    def _close(self, worker: threading.Thread, pulse: threading.Thread) -> None:
        """Let the worker commit what it has, say BYE if it has not, and close everything."""
        self._is_ending.set()
        self._inbox.close()
        end = time.monotonic() + LEAVE_TIME
        for thread in (worker, pulse):
            if thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))
        # A worker that still waits for its output has committed nothing since.
        with self._lock:
            self._consumer.leave(done=False)
        self._send()
        closers = [
            threading.Thread(target=connection.close, args=(LEAVE_TIME,), daemon=True)
            for connection in self._connections
        ]
        for thread in closers:
            thread.start()
        for thread in closers:
            thread.join(2 * LEAVE_TIME)
        if not worker.is_alive():
            self._output.close()
            while not self._news.empty():
                news = self._news.get()
                if not isinstance(news, Outcome | BaseException):
                    self._notice(news)

    def _say(self, notice: Notice) -> None:
        if self._news.qsize() < MAX_NEWS:
            self._news.put(notice)

    # ------------------------------------------------------------ the connections' threads

    def connected(self, connection: Connection) -> None:
        """Subscribe, and have the worker ask for the stream."""
        destinations = self._options.destinations
        client = self._consumer.client
        try:
            connection.subscribe(DATA, destinations.data(client), Role.DATA, prefetch=PREFETCH)
            connection.subscribe(TOKEN, destinations.token, Role.TOKEN, prefetch=TOKEN_PREFETCH)
        except BrokerError:
            return  # it is lost again, which is told
        self._has_connected = True
        self._say(notices.Connected(str(connection.endpoint)))
        self._inbox.put_now(_Link(connection, True))

    def message(
        self, connection: Connection, subscription: str, body: bytes, acknowledgement: str
    ) -> None:
        """Hand it to the worker; wait when it has too much."""
        self._inbox.put(_Body(connection, subscription, body, acknowledgement), len(body))

    def lost(self, connection: Connection, error: PeekError) -> None:
        """Tell it; the connection tries again by itself."""
        self._problem = error
        self._say(notices.Reconnecting(connection.name, str(error)))
        self._inbox.put_now(_Link(connection, False))

    def refused(self, connection: Connection, error: PeekError) -> None:
        """The end, when no broker is left that does not refuse."""
        self._refusals[connection] = self._problem = error
        if len(self._refusals) == len(self._connections):
            self._news.put(error)
        else:
            self._say(notices.Reconnecting(connection.name, str(error)))
        self._inbox.put_now(_Link(connection, False))

    # ------------------------------------------------------------ the pulse

    def _pulse(self) -> None:
        began = time.monotonic()
        told_at, told_bytes = began, 0
        while not self._is_ending.wait(PULSE):
            now = time.monotonic()
            with self._lock:
                consumer = self._consumer
                consumer.tick(now, is_busy=self._is_working or not self._inbox.is_empty)
                failure = consumer.failure
                needs_worker = consumer.has_token
                lag, count = consumer.lag, consumer.damaged + self._codec.damaged
            self._send()
            if failure is None and not self._has_connected and not self._options.wait:
                failure = self._problem if now - began >= CONNECT_PATIENCE else None
            if failure is not None:
                self._news.put(self._explained(failure))
                return
            if needs_worker and self._inbox.is_empty:
                self._inbox.put_now(_Nudge())
            self._say_damaged(count)
            if now - told_at >= PROGRESS_INTERVAL:
                received = self._received
                rate = (received - told_bytes) / (now - told_at)
                told_at, told_bytes = now, received
                self._say(notices.Progress(received, rate, lag))

    def _say_damaged(self, count: int) -> None:
        if count != self._damaged:
            self._damaged = count
            self._say(notices.Damaged(count))

    def _explained(self, failure: PeekError) -> PeekError:
        """The loss of all brokers explains any silence."""
        problem = self._problem
        if problem is not None and not any(c.is_connected for c in self._connections):
            return problem
        return failure

    def _send(self) -> None:
        """Send what the consumer has to say, and tell its news."""
        with self._sending:
            with self._lock:
                controls = self._consumer.take_outgoing()
                news = self._consumer.take_notices()
                home = self._home
                if self._consumer.phase is Phase.SEEKING or self._consumer.is_stalled:
                    home = None
            for control in controls:
                if home is not None and home.is_connected:
                    self._send_to(home, control)
                else:
                    for connection in self._connections:
                        self._send_to(connection, control)
        for notice in news:
            self._say(notice)

    def _send_to(self, connection: Connection, control: Control) -> None:
        message = control.message
        frame = self._codec.frame(
            message.type,
            message.encode(),
            epoch=control.epoch,
            sequence=control.sequence,
            time=time.time_ns() // 1_000_000,
        )
        expires = BEGIN_EXPIRY if isinstance(message, Begin) else CONTROL_EXPIRY
        try:
            connection.send(
                self._options.destinations.control,
                Role.CONTROL,
                frame,
                expires=expires,
                receipt=isinstance(message, Bye),
            )
        except BrokerError as error:
            log.debug("%s: %s", connection.name, error)

    # ------------------------------------------------------------ the worker

    def _work(self) -> None:
        while not self._is_ending.is_set():
            self._is_working = False
            items = self._inbox.take(self._patience())
            self._is_working = True
            for item in items:
                if isinstance(item, _Body):
                    self._take(item)
                elif isinstance(item, _Link):
                    self._relink(item)
                else:
                    self._advance()
                if self._consumer.is_complete:
                    self._finish()
                    return
                self._commit_if_due()
            if self._inbox.is_empty:
                self._output.flush()
                self._commit_if_due()
        self._commit()
        self._output.finish()

    def _patience(self) -> float | None:
        """Seconds to the next commit, if there is something to commit."""
        if self._due is None:
            return None
        return max(0.0, self._due - time.monotonic())

    def _take(self, item: _Body) -> None:
        now = time.monotonic()
        frames = self._codec.decode(item.body)
        self._settlement.add(item.connection, item.subscription, item.acknowledgement, frames)
        if self._due is None:
            self._due = now + ACK_DELAY
        if frames:
            with self._lock:
                if item.subscription != TOKEN:
                    self._home = item.connection
                events = self._consumer.receive(frames, now)
            self._emit(events)

    def _advance(self) -> None:
        """Drain the park, if it is time for that."""
        now = time.monotonic()
        with self._lock:
            events = self._consumer.advance(now)
            is_draining = self._consumer.phase is Phase.DRAINING
        if is_draining:
            self._output.drain()
        self._emit(events)
        if events and self._due is None:
            self._due = now + ACK_DELAY
        if is_draining:
            connection = self._settlement.drain(self._consumer.epoch or 0)
            if connection is not None:
                with contextlib.suppress(BrokerError):  # it is lost again, which is told
                    connection.subscribe(
                        PARK, self._options.destinations.park, Role.PARK, prefetch=PARK_PREFETCH
                    )

    def _emit(self, events: list[Event]) -> None:
        output = self._output
        for event in events:
            if isinstance(event, Output):
                output.write(*event)
                self._received += len(event.data)
            elif isinstance(event, Missing):
                output.gap(*event)
                self._say(notices.Gap(*event))
            elif isinstance(event, Placed):
                output.place(*event)
            else:
                output.attempt(event.epoch)
                self._say(notices.Attempt(event.epoch))
            self._is_dirty = True

    def _relink(self, link: _Link) -> None:
        """A connection is there, or is not any more."""
        now = time.monotonic()
        connection = link.connection
        with self._lock:
            if link.is_up:
                self._refusals.pop(connection, None)
                if self._home in (None, connection):
                    self._consumer.connected(now)
            else:
                if self._home is connection:
                    self._home = None
                if self._settlement.lost(connection):
                    self._consumer.lost_token(now)
        self._send()

    def _commit_if_due(self) -> None:
        now = time.monotonic()
        if (
            self._settlement.count >= UNACKNOWLEDGED
            or (self._due is not None and now >= self._due)
            or self._consumer.commit_due(now)
        ):
            self._commit()
        elif self._consumer.has_outgoing:
            self._send()

    def _commit(self) -> None:
        """Output, journal, the broker, the job side: in this order."""
        if self._is_dirty:
            self._output.commit()
            self._is_dirty = False
            with self._lock:
                self._consumer.committed(time.monotonic())
        self._acknowledge(is_complete=False)
        self._send()

    def _acknowledge(self, *, is_complete: bool) -> None:
        self._due = None
        consumer = self._consumer
        self._settlement.commit(consumer.epoch or 0, consumer.positions, is_complete=is_complete)

    def _finish(self) -> None:
        """All of the stream has been given out."""
        output, consumer = self._output, self._consumer
        output.commit()
        with self._lock:
            consumer.committed(time.monotonic())
        # This may take a while, where a large file has to be read again.
        digests = {source: output.digest(source) for source in consumer.positions}
        verdicts = consumer.verdicts(digests)
        outcome = _outcome(consumer, verdicts)
        if Verdict.MISMATCH not in verdicts.values():
            output.finished(outcome.exit_code)
        output.finish()
        self._acknowledge(is_complete=True)
        with self._lock:
            consumer.leave(done=True)
        self._send()
        self._say_damaged(consumer.damaged + self._codec.damaged)
        self._say(notices.Verdicts(verdicts))
        self._news.put(outcome)


def _outcome(consumer: Consumer, verdicts: Mapping[int, Verdict]) -> Outcome:
    """What the end of the job means for the exit code."""
    eos = consumer.eos
    assert eos is not None
    wrong = [NAMES[source] for source, v in verdicts.items() if v is Verdict.MISMATCH]
    if wrong:
        return Outcome(
            INTERNAL,
            f"what was received of {' and '.join(wrong)} is NOT what the job printed: the SHA-256 "
            "differs; remove the file, if it is one, and get the output another way",
        )
    if eos.exit is not None:
        return Outcome(eos.exit, f"the job ended with exit code {eos.exit}")
    if eos.signal is not None:
        return Outcome(SIGNALLED + eos.signal, f"signal {eos.signal} ended the job")
    reason = printable(eos.reason or "") or "no reason is given"
    return Outcome(INTERNAL, f"how the job ended is not known: {reason}")
