"""The client on real brokers, against a job side of a few lines: what it does when the
broker, the job side, the output or the user misbehave.
"""

import contextlib
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from gridmad.peek import notices
from gridmad.peek.broker import Connection, Endpoint, Login, Role
from gridmad.peek.client import Client, ClientOptions, Outcome
from gridmad.peek.errors import PeekError
from gridmad.peek.frame import MAX_RAW, Codec
from gridmad.peek.messages import (
    Ack,
    Alive,
    Begin,
    Bye,
    Ending,
    Eos,
    Extent,
    Hello,
    Message,
    Span,
    Token,
)
from gridmad.peek.notices import Notice
from gridmad.peek.stream import Destinations, new_stream
from tests.services.proxy import Proxy
from tests.services.stomp_server import LOGIN, PASSWORD, StompServer

PATIENCE = 40.0


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


class JobSide:
    """Sends `data` as stdout, as far as the credit goes, and EOS when `has_ended`."""

    def __init__(self, port: int, stream: str, data: bytes, key: bytes | None = None) -> None:
        self.data = data
        self.has_ended = True
        self.lease = 30.0
        self.begins = self.limit = self.sent = self.committed = 0
        self.acks: list[float] = []
        self.is_done = self.has_left = False
        self.client = ""
        self.is_silent = False
        self._answers = -1
        self._sequence = 0
        self._codec = Codec(stream, key)
        self._destinations = Destinations(stream)
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self.connection = Connection(
            [Endpoint("127.0.0.1", port, tls=False)], Login(LOGIN, PASSWORD), self, name="job"
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "JobSide":
        self.connection.start()
        self._thread.start()
        until(lambda: self.connection.is_connected, "the job side does not connect")
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed.set()
        self._thread.join()
        self.connection.close()

    def connected(self, connection: Connection) -> None:
        connection.subscribe("control", self._destinations.control, Role.CONTROL)

    def message(
        self, connection: Connection, subscription: str, body: bytes, acknowledgement: str
    ) -> None:
        for frame in self._codec.decode(body):
            with self._lock:
                if frame.type == Begin.type:
                    begin = Begin.decode(frame.payload)
                    start = begin.starts[1].value or 0
                    self.begins += 1
                    self.client = begin.client
                    self._answers = frame.sequence
                    self.sent = start
                    self.limit = start + begin.limit[1]
                elif frame.type == Ack.type:
                    ack = Ack.decode(frame.payload)
                    self.acks.append(time.monotonic())
                    self.limit = max(self.limit, ack.limit[1])
                    self.committed = max(self.committed, ack.committed[1])
                elif frame.type == Bye.type:
                    self.is_done = Bye.decode(frame.payload).done
                    self.has_left = True
        connection.acknowledge(subscription, acknowledgement)

    def lost(self, connection: Connection, error: PeekError) -> None: ...

    def refused(self, connection: Connection, error: PeekError) -> None: ...

    def frame(self, message: Message) -> bytes:
        self._sequence += 1
        return self._codec.frame(
            message.type, message.encode(), epoch=0, sequence=self._sequence, time=0
        )

    def send(self, body: bytes) -> None:
        with contextlib.suppress(PeekError):
            self.connection.send(
                self._destinations.data(self.client), Role.DATA, body, expires=60.0
            )

    def _run(self) -> None:
        alive = 0.0
        while not self._is_closed.wait(0.001):
            if not self.client or self.is_silent or not self.connection.is_connected:
                continue
            with self._lock:
                answers, self._answers = self._answers, -1
                at = self.sent
                size = min(MAX_RAW, self.limit - at, len(self.data) - at)
                self.sent += max(0, size)
            end = len(self.data)
            if answers >= 0:
                extents = {1: Extent(at, 0, end), 2: Extent(0, 0, 0)}
                self.send(
                    self.frame(Hello(self.client, answers, extents, 0.5, self.lease, "", "", 0))
                )
            if size > 0:
                self.send(self._codec.chunk(1, 0, 0, at, 0, self.data[at : at + size]))
            if time.monotonic() >= alive or (self.sent == end and size > 0):
                alive = time.monotonic() + 0.5
                body = self.frame(Alive({1: self.sent, 2: 0}, {1: end, 2: 0}))
                if self.has_ended and self.sent == end:
                    sha256 = hashlib.sha256(self.data).hexdigest()
                    empty = hashlib.sha256(b"").hexdigest()
                    endings = {1: Ending(end, sha256), 2: Ending(0, empty)}
                    body += self.frame(Eos(0, None, None, endings))
                self.send(body)


class ListSink:
    """Keeps what it gets, and can be held up or made to fail."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.gate = threading.Event()
        self.gate.set()
        self.error: BaseException | None = None
        self.is_finished = False

    def write(self, source: int, offset: int, time: int, data: bytes) -> None:
        self.gate.wait()
        if self.error is not None:
            raise self.error
        assert (source, offset) == (1, len(self.data))
        self.data += data

    def gap(self, source: int, offset: int, length: int, reason: str) -> None:
        raise AssertionError("a gap")

    def flush(self) -> None: ...

    def attempt(self, epoch: int) -> None:
        raise AssertionError("an attempt")

    def finish(self) -> None:
        self.is_finished = True


class Watch:
    """A client in a thread of its own."""

    def __init__(self, options: ClientOptions) -> None:
        self.sink = ListSink()
        self.notices: list[Notice] = []
        self.is_interrupted = False
        self.client = Client(options, self.sink, self._notice)
        self._result: Outcome | BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self.client.run()
        except BaseException as error:  # noqa: BLE001 - told by `outcome`
            self._result = error

    def _notice(self, notice: Notice) -> None:
        if self.is_interrupted:
            raise KeyboardInterrupt
        self.notices.append(notice)

    def interrupt(self) -> None:
        """As a signal does in the main thread: with the next notice, of which there are four
        a second.
        """
        self.is_interrupted = True
        with pytest.raises(KeyboardInterrupt):
            _ = self.outcome

    def has(self, kind: type) -> bool:
        return any(isinstance(notice, kind) for notice in self.notices)

    @property
    def outcome(self) -> Outcome:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the client does not end"
        if isinstance(self._result, BaseException):
            raise self._result
        assert self._result is not None
        return self._result


def options(port: int, stream: str, **more: object) -> ClientOptions:
    plain = ClientOptions(
        stream=stream,
        endpoints=[Endpoint("127.0.0.1", port, tls=False)],
        login=Login(LOGIN, PASSWORD),
        destinations=Destinations(stream),
        wait=True,
        heartbeat=2.0,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


@pytest.fixture
def stream() -> str:
    return new_stream()


def text(size: int) -> bytes:
    return b"".join(b"line %d of the log\n" % number for number in range(size // 12))[:size]


def test_the_sink_gets_all_and_the_job_side_hears_of_it(broker: StompServer, stream: str) -> None:
    data = text(5_000_000)
    with JobSide(broker.stomp_port, stream, data) as job:
        watch = Watch(options(broker.stomp_port, stream))
        assert watch.outcome == Outcome(0, "the job ended with exit code 0")
        until(lambda: job.is_done, "no BYE")
        assert job.committed == len(data)
    assert watch.sink.data == data
    assert watch.sink.is_finished
    [verdicts] = [n for n in watch.notices if isinstance(n, notices.Verdicts)]
    assert set(verdicts.sources.values()) == {notices.Verdict.VERIFIED}


def test_a_sink_that_blocks_gets_no_credit_but_keeps_the_lease(
    broker: StompServer, stream: str
) -> None:
    data = text(30_000_000)
    with JobSide(broker.stomp_port, stream, data) as job:
        job.lease = 3.0
        watch = Watch(options(broker.stomp_port, stream, timeout=5.0))
        until(lambda: len(watch.sink.data) > 2_000_000, "nothing comes")
        watch.sink.gate.clear()
        time.sleep(1.0)
        limit, begins = job.limit, job.begins
        blocked = time.monotonic()
        time.sleep(7.0)  # longer than the time-out and the lease
        assert job.limit == limit
        assert job.begins == begins
        times = [blocked, *(moment for moment in job.acks if moment > blocked)]
        assert max(b - a for a, b in itertools.pairwise(times)) < job.lease / 2
        watch.sink.gate.set()
        assert watch.outcome.exit_code == 0
    assert watch.sink.data == data


def test_what_is_forged_or_garbage_changes_nothing(broker: StompServer, stream: str) -> None:
    data, key = text(3_000_000), b"k" * 32
    with JobSide(broker.stomp_port, stream, data, key) as job:
        job.has_ended = False
        watch = Watch(options(broker.stomp_port, stream, key=key))
        until(lambda: len(watch.sink.data) > 1000, "nothing comes")
        for codec in (Codec(stream), Codec(stream, b"x" * 32), Codec("other", key)):
            for number in range(20):
                job.send(codec.chunk(1, 0, 0, number * 100_000, 0, b"forged" * 1000))
                job.send(codec.chunk(1, 9, 0, 0, 0, b"forged" * 1000))
        job.send(b"garbage" * 5000)
        job.has_ended = True
        assert watch.outcome.exit_code == 0
    assert watch.sink.data == data
    assert max(n.count for n in watch.notices if isinstance(n, notices.Damaged)) >= 121


def test_a_wrong_digest_is_told(broker: StompServer, stream: str) -> None:
    with JobSide(broker.stomp_port, stream, text(100_000)) as job:
        job.has_ended = False
        watch = Watch(options(broker.stomp_port, stream))
        until(lambda: len(watch.sink.data) == 100_000, "nothing comes")
        job.send(job.frame(Eos(0, None, None, {1: Ending(100_000, "0" * 64)})))
        outcome = watch.outcome
    assert outcome.exit_code == 125
    assert "NOT what the job printed" in outcome.text


def test_a_sink_that_fails_ends_it_in_order(broker: StompServer, stream: str) -> None:
    with JobSide(broker.stomp_port, stream, text(3_000_000)) as job:
        watch = Watch(options(broker.stomp_port, stream))
        watch.sink.error = BrokenPipeError("the reader has gone")
        with pytest.raises(BrokenPipeError):
            _ = watch.outcome
        until(lambda: job.has_left, "no BYE")
        assert not job.is_done


def test_a_stop_is_told_to_the_job_side(broker: StompServer, stream: str) -> None:
    data = text(1_000_000)
    with JobSide(broker.stomp_port, stream, data) as job:
        job.has_ended = False
        watch = Watch(options(broker.stomp_port, stream))
        until(lambda: len(watch.sink.data) == len(data), "nothing comes")
        watch.interrupt()
        until(lambda: job.has_left, "no BYE")
        assert job.committed == len(data)
        assert not job.is_done
        assert watch.sink.is_finished


def test_a_stop_does_not_wait_for_a_sink_that_blocks(broker: StompServer, stream: str) -> None:
    with JobSide(broker.stomp_port, stream, text(3_000_000)) as job:
        watch = Watch(options(broker.stomp_port, stream))
        watch.sink.gate.clear()
        until(lambda: job.sent > 100_000, "nothing comes")
        watch.interrupt()
        until(lambda: job.has_left, "no BYE")
        watch.sink.gate.set()


def test_cut_and_half_open_connections_lose_and_double_nothing(
    broker: StompServer, stream: str
) -> None:
    data = text(60_000_000)
    with (
        Proxy(broker.stomp_port) as proxy,
        JobSide(broker.stomp_port, stream, data) as job,
    ):
        watch = Watch(options(proxy.port, stream))
        for number in range(1, 6):
            size = number * 2_000_000
            until(lambda size=size: len(watch.sink.data) > size, "nothing comes")  # type: ignore[misc]
            proxy.cut()
        until(lambda: len(watch.sink.data) > 12_000_000, "nothing comes")
        proxy.freeze()
        time.sleep(6.0)  # only the heart-beat tells
        proxy.thaw()
        assert watch.outcome.exit_code == 0
        assert job.begins >= 4
    assert watch.sink.data == data
    assert watch.has(notices.Reconnecting)


def test_a_broker_that_is_killed_and_restarted_loses_nothing(
    broker: StompServer, stream: str
) -> None:
    data = text(60_000_000)
    with JobSide(broker.stomp_port, stream, data):
        watch = Watch(options(broker.stomp_port, stream))
        until(lambda: len(watch.sink.data) > 2_000_000, "nothing comes")
        broker.restart()
        assert watch.outcome.exit_code == 0
    assert watch.sink.data == data
    assert watch.has(notices.Reconnecting)


def test_the_job_side_is_found_on_any_of_several_brokers(
    rabbitmq: StompServer, activemq: StompServer, stream: str
) -> None:
    ports: Mapping[StompServer, StompServer] = {rabbitmq: activemq, activemq: rabbitmq}
    for server in ports:
        data = text(500_000)
        with JobSide(server.stomp_port, stream, data) as job:
            watch = Watch(
                options(
                    0,
                    stream,
                    endpoints=[
                        Endpoint("127.0.0.1", one.stomp_port, tls=False)
                        for one in (rabbitmq, activemq)
                    ],
                )
            )
            assert watch.outcome.exit_code == 0
            until(lambda job=job: job.is_done, "no BYE")  # type: ignore[misc]
        assert watch.sink.data == data


def test_a_job_side_that_falls_silent_is_asked_again(broker: StompServer, stream: str) -> None:
    data = text(200_000)
    with JobSide(broker.stomp_port, stream, data) as job:
        job.has_ended = False
        watch = Watch(options(broker.stomp_port, stream, timeout=30.0))
        until(lambda: len(watch.sink.data) == len(data), "nothing comes")
        job.is_silent = True
        until(lambda: watch.has(notices.Stalled), "it is not stalled")
        begins = job.begins
        until(lambda: job.begins > begins, "it is not asked")
        job.is_silent = False
        job.has_ended = True
        assert watch.outcome.exit_code == 0
        assert watch.has(notices.Resumed)


# ---------------------------------------------------------------- what was parked


def park(job: JobSide, stream: str, epoch: int, data: bytes, tokens: int = 1) -> None:
    """Leave a whole attempt in the broker; it ended with `epoch` as exit code."""
    codec, destinations = Codec(stream), Destinations(stream)

    def send(destination: str, role: Role, *frames: bytes) -> None:
        job.connection.send(
            destination, role, list(frames), persistent=True, expires=600.0, receipt=True
        )

    def frame(message: Message) -> bytes:
        return codec.frame(message.type, message.encode(), epoch=epoch, sequence=0, time=0)

    for at in range(0, len(data), MAX_RAW):
        chunk = codec.chunk(1, epoch, 0, at, 0, data[at : at + MAX_RAW])
        send(destinations.park, Role.PARK, chunk)
    endings = {
        1: Ending(len(data), hashlib.sha256(data).hexdigest()),
        2: Ending(0, hashlib.sha256(b"").hexdigest()),
    }
    send(destinations.park, Role.PARK, frame(Eos(epoch, None, None, endings)))
    for _ in range(tokens):
        token = frame(Token(epoch, {1: Span(0, len(data)), 2: Span(0, 0)}))
        send(destinations.token, Role.TOKEN, token)
    assert job.connection.flush(PATIENCE)


def test_a_token_that_was_sent_twice_is_one(broker: StompServer, stream: str) -> None:
    data = text(6_000_000)
    with JobSide(broker.stomp_port, stream, b"") as job:
        job.is_silent = True
        park(job, stream, 3, data, tokens=2)
    watches = [Watch(options(broker.stomp_port, stream, wait=False)) for _ in range(2)]
    assert sorted(watch.outcome.exit_code for watch in watches) == [3, 127]
    assert sorted(len(watch.sink.data) for watch in watches) == [0, len(data)]
    watch = Watch(options(broker.stomp_port, stream, wait=False))
    assert watch.outcome.exit_code == 127, "nothing is left"


def test_of_two_attempts_that_were_parked_the_greater_counts(
    broker: StompServer, stream: str
) -> None:
    with JobSide(broker.stomp_port, stream, b"") as job:
        job.is_silent = True
        park(job, stream, 3, text(200_000))
        park(job, stream, 4, text(300_000))
    watch = Watch(options(broker.stomp_port, stream, wait=False))
    assert watch.outcome.exit_code == 4
    assert watch.sink.data == text(300_000)
    watch = Watch(options(broker.stomp_port, stream, wait=False))
    assert watch.outcome.exit_code == 127, "nothing is left"


def test_a_token_that_was_not_needed_is_not_left_behind(broker: StompServer, stream: str) -> None:
    """The job side has parked for a client that was slow, but had been sent all already."""
    data = text(300_000)
    with JobSide(broker.stomp_port, stream, data) as job:
        job.has_ended = False
        watch = Watch(options(broker.stomp_port, stream))
        until(lambda: len(watch.sink.data) == len(data), "nothing comes")
        park(job, stream, 0, data)
        time.sleep(1.0)  # the TOKEN comes
        job.has_ended = True
        assert watch.outcome.exit_code == 0
        assert not watch.has(notices.Draining)
        job.is_silent = True
        watch = Watch(options(broker.stomp_port, stream, wait=False))
        assert watch.outcome.exit_code == 127


# ---------------------------------------------------------------- what ends it at once


def test_a_refused_login(broker: StompServer, stream: str) -> None:
    watch = Watch(options(broker.stomp_port, stream, login=Login(LOGIN, "wrong")))
    assert watch.outcome.exit_code == 126


def test_a_destination_without_permission(broker: StompServer) -> None:
    from tests.services.stomp_server import LIMITED_LOGIN, LIMITED_PASSWORD

    stream = new_stream()
    limited = replace(
        options(broker.stomp_port, stream), login=Login(LIMITED_LOGIN, LIMITED_PASSWORD)
    )
    from gridmad.peek.stream import Templates

    forbidden = Templates(data="/queue/forbidden.<id>.<client>")
    watch = Watch(replace(limited, destinations=Destinations(stream, forbidden)))
    outcome = watch.outcome
    assert outcome.exit_code == 126
    assert "forbidden" in outcome.text


def test_a_broker_that_is_not_there(stream: str, tmp_path: Path) -> None:
    watch = Watch(options(1, stream, wait=False))
    outcome = watch.outcome
    assert outcome.exit_code == 125
    assert "127.0.0.1:1 cannot be reached" in outcome.text


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    """A client leaves no thread behind that still runs, but for one in a sink that blocks."""
    before = set(threading.enumerate())
    yield
    until(
        lambda: not [t for t in threading.enumerate() if t not in before and t.is_alive()],
        "threads are left",
    )
