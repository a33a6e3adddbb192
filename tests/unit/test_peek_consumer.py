"""The client's session against a job side written after PROTOCOL.md, over a bad network."""

import hashlib
import heapq
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmad.peek import notices
from gridmad.peek.consumer import (
    ACK_DELAY,
    AHEAD_PATIENCE,
    KEEP_ALIVES,
    PARK_PATIENCE,
    SILENT_INTERVALS,
    TOKEN_PATIENCE,
    UNKNOWN_AFTER,
    Consumer,
    Control,
    Phase,
)
from gridmad.peek.errors import HeldError, RevokedError, StalledError, UnknownStreamError
from gridmad.peek.frame import MAX_RAW, Codec, Frame, FrameType
from gridmad.peek.messages import (
    Ack,
    Alive,
    Begin,
    Bye,
    Denied,
    Ending,
    Eos,
    Extent,
    Gap,
    Hello,
    Message,
    Revoked,
    Span,
    Start,
    Token,
)
from gridmad.peek.notices import Verdict
from gridmad.peek.reception import Attempt, Event, Missing, Output, Placed
from gridmad.peek.track import MAX_PARKED, MAX_WINDOW, MIN_WINDOW

STREAM = "stream"
CLIENT = "c" * 32
OTHER = "d" * 32
CODEC = Codec(STREAM)
REST = Start("rest")


def frame(message: Message, epoch: int = 0) -> list[Frame]:
    return CODEC.decode(
        CODEC.frame(message.type, message.encode(), epoch=epoch, sequence=0, time=0)
    )


def chunk(offset: int, data: bytes, source: int = 1, epoch: int = 0) -> list[Frame]:
    return CODEC.decode(CODEC.chunk(source, epoch, 0, offset, 0, data))


def gap(offset: int, length: int, source: int = 1) -> list[Frame]:
    payload = Gap(length, "spool").encode()
    return CODEC.decode(
        CODEC.frame(2, payload, epoch=0, sequence=0, time=0, source=source, offset=offset)
    )


def broken(offset: int, raw_length: int) -> list[Frame]:
    """A sound frame whose LZ4 block is not."""
    from gridmad import _chunk

    return CODEC.decode(_chunk.encode(1, 1, 0, 0, offset, 0, b"\xff" * 20, raw_length))


def hello(answers: int, start: int = 0, epoch: int = 0, interval: float = 1.0) -> list[Frame]:
    extents = {source: Extent(start, 0, start) for source in (1, 2)}
    return frame(Hello(CLIENT, answers, extents, interval, 30.0, "job", "host", 0), epoch)


def begins(consumer: Consumer) -> list[tuple[Begin, int]]:
    return [
        (control.message, control.sequence)
        for control in consumer.take_outgoing()
        if isinstance(control.message, Begin)
    ]


def acks(consumer: Consumer) -> list[Ack]:
    return [c.message for c in consumer.take_outgoing() if isinstance(c.message, Ack)]


def output(events: list[Event], source: int = 1) -> bytes:
    return b"".join(e.data for e in events if isinstance(e, Output) and e.source == source)


def new(**options: object) -> Consumer:
    return Consumer(CLIENT, (1, 2), REST, sequence=1000, **options)  # type: ignore[arg-type]


def live(now: float = 0.0, **options: object) -> Consumer:
    consumer = new(**options)
    consumer.connected(now)
    [(_, sequence)] = begins(consumer)
    consumer.receive(hello(sequence), now)
    assert consumer.phase is Phase.LIVE
    consumer.committed(now)
    consumer.take_outgoing()
    return consumer


# ---------------------------------------------------------------- a job side and a network


@dataclass
class JobSide:
    """What PROTOCOL.md asks of a job side, and no more."""

    data: dict[int, bytes]
    chance: random.Random
    epoch: int = 0
    cursors: dict[int, int] = field(default_factory=dict)
    limits: dict[int, int] = field(default_factory=dict)
    heard: int = -1
    alive_at: float = 0.0
    is_done: bool = False

    def receive(self, message: Message, epoch: int, sequence: int, now: float) -> Iterator[bytes]:
        if sequence <= self.heard or epoch > self.epoch:
            return
        self.heard = sequence
        if isinstance(message, Begin):
            extents = {}
            for source, start in message.starts.items():
                at = start.value if epoch == self.epoch and start.value is not None else 0
                self.cursors[source] = at
                self.limits[source] = at + message.limit[source]
                extents[source] = Extent(at, 0, len(self.data[source]))
            yield self.frame(Hello(CLIENT, sequence, extents, 1.0, 30.0, "job", "host", 0))
            self.alive_at = now + 1.0
        elif isinstance(message, Ack) and epoch == self.epoch:
            for source, limit in message.limit.items():
                if source in self.limits:
                    assert message.committed[source] <= len(self.data[source])
                    self.limits[source] = max(limit, self.limits[source])
        elif isinstance(message, Bye):
            self.is_done = message.done

    def send(self, now: float) -> Iterator[bytes]:
        for _ in range(self.chance.randrange(8)):
            source = self.chance.choice((1, 2))
            at = self.cursors.get(source, -1)
            if at < 0:
                continue
            end = min(at + self.chance.randrange(1, 5000), self.limits[source])
            piece = self.data[source][at:end]
            if piece:
                self.cursors[source] = at + len(piece)
                yield CODEC.chunk(source, self.epoch, 0, at, 0, piece)
        if self.cursors and now >= self.alive_at:
            self.alive_at = now + 1.0
            ends = {source: len(data) for source, data in self.data.items()}
            yield self.frame(Alive(dict(self.cursors), ends))
            if all(self.cursors[source] == ends[source] for source in self.cursors):
                endings = {
                    source: Ending(len(data), hashlib.sha256(data).hexdigest())
                    for source, data in self.data.items()
                }
                yield self.frame(Eos(3, None, None, endings))

    def frame(self, message: Message) -> bytes:
        return CODEC.frame(message.type, message.encode(), epoch=self.epoch, sequence=0, time=0)


class Network:
    """Loses, doubles and delays until `calm`; what is delayed is overtaken."""

    def __init__(self, chance: random.Random, calm: float, badness: float) -> None:
        self._chance = chance
        self._calm = calm
        self._badness = badness
        self._queue: list[tuple[float, int, object]] = []
        self._count = 0

    def put(self, item: object, now: float) -> None:
        copies = 1
        delay = 0.001
        if now < self._calm:
            if self._chance.random() < self._badness:
                copies = self._chance.choice((0, 2))
            if self._chance.random() < self._badness:
                delay = self._chance.random() * 3
        for _ in range(copies):
            self._count += 1
            heapq.heappush(self._queue, (now + delay, self._count, item))

    def get(self, now: float) -> Iterator[object]:
        while self._queue and self._queue[0][0] <= now:
            yield heapq.heappop(self._queue)[2]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.tuples(st.integers(0, 300_000), st.integers(0, 60_000)),
    badness=st.floats(0, 0.6),
    restarts=st.booleans(),
)
def test_each_byte_comes_once_and_in_order(
    seed: int, sizes: tuple[int, int], badness: float, restarts: bool
) -> None:
    chance = random.Random(seed)
    calm = 20.0
    attempts = [{s: chance.randbytes(size) for s, size in enumerate(sizes, 1)} for _ in range(2)]
    job = JobSide(attempts[0], chance)
    to_job, to_client = (Network(chance, calm, badness) for _ in range(2))
    consumer = new(timeout=1e9, wait=True)
    digests = {source: hashlib.sha256() for source in (1, 2)}
    got: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
    now = 100.0
    calm += now
    to_job._calm = to_client._calm = calm
    consumer.connected(now)
    step = 0
    restart_at = chance.randrange(1, 2000) if restarts else -1
    while not consumer.is_complete:
        step += 1
        now += 0.01
        assert now < calm + 60, "it does not come to an end"
        if step == restart_at:
            job = JobSide(attempts[1], chance, 1)
        for item in to_job.get(now):
            assert isinstance(item, Control)
            for body in job.receive(*item, now):
                to_client.put(body, now)
        for body in job.send(now):
            to_client.put(body, now)
        for item in to_client.get(now):
            assert isinstance(item, bytes)
            for event in consumer.receive(CODEC.decode(item), now):
                match event:
                    case Output(source, offset, _, piece):
                        assert offset == len(got[source])
                        got[source] += piece
                        digests[source].update(piece)
                    case Attempt():
                        got = {1: bytearray(), 2: bytearray()}
                        digests = {source: hashlib.sha256() for source in (1, 2)}
                    case Placed(_, _, offset):
                        assert offset == 0
                    case _:
                        raise AssertionError(event)
        assert consumer.parked <= 2 * MAX_PARKED
        if consumer.commit_due(now):
            consumer.committed(now)
        consumer.tick(now)
        assert consumer.failure is None
        for control in consumer.take_outgoing():
            to_job.put(control, now)
    # Of a first attempt that was complete before the second was heard of, nothing is missing.
    assert got == attempts[consumer.epoch or 0]
    hexes = {source: digest.hexdigest() for source, digest in digests.items()}
    assert set(consumer.verdicts(hexes).values()) == {Verdict.VERIFIED}
    assert consumer.eos is not None
    assert consumer.eos.exit == 3


# ---------------------------------------------------------------- beginning


def test_begin_is_repeated_with_a_new_sequence_until_a_hello_answers_it() -> None:
    consumer = new(wait=True)
    consumer.connected(0.0)
    times, sequences = [], []
    for tenth in range(300):
        consumer.tick(tenth / 10)
        for begin, sequence in begins(consumer):
            assert begin.starts == {1: REST, 2: REST}
            assert begin.mode == "exclusive"
            assert begin.limit == {1: MIN_WINDOW, 2: MIN_WINDOW}
            times.append(tenth / 10)
            sequences.append(sequence)
    assert sequences == list(range(1000, 1000 + len(sequences)))
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 1.0 <= pauses[0] < 1.2
    assert pauses == sorted(pauses)
    assert 4.9 < pauses[-1] < 5.2
    events = consumer.receive(hello(sequences[0], start=7), 31.0)
    assert events == [Placed(0, 1, 7), Placed(0, 2, 7)]
    assert consumer.phase is Phase.LIVE


@pytest.mark.parametrize(
    "stranger",
    [
        frame(Hello(OTHER, 1000, {1: Extent(0, 0, 0)}, 1.0, 30.0, "", "", 0)),
        frame(Hello(CLIENT, 999, {1: Extent(0, 0, 0)}, 1.0, 30.0, "", "", 0)),
        frame(Hello(CLIENT, 1001, {1: Extent(0, 0, 0)}, 1.0, 30.0, "", "", 0)),
        frame(Revoked(OTHER, "x")),
        frame(Denied(OTHER, "x", 0)),
        chunk(0, b"data"),
        frame(Eos(0, None, None, {1: Ending(0, None), 2: Ending(0, None)})),
    ],
)
def test_what_answers_nobody_or_another_does_nothing(stranger: list[Frame]) -> None:
    consumer = new()
    consumer.connected(0.0)
    assert consumer.receive(stranger, 0.1) == []
    assert consumer.phase is Phase.SEEKING
    assert consumer.failure is None
    assert not consumer.is_complete


def test_a_job_that_does_not_answer_is_unknown_but_for_who_waits() -> None:
    patient, other = new(wait=True), new()
    for consumer in (patient, other):
        consumer.connected(0.0)
        consumer.tick(UNKNOWN_AFTER - 0.1)
        assert consumer.failure is None
        assert notices.Waiting() in consumer.take_notices()
        consumer.tick(1000 * UNKNOWN_AFTER)
    assert patient.failure is None
    assert isinstance(other.failure, UnknownStreamError)


def test_nothing_is_unknown_before_a_broker_was_reached() -> None:
    consumer = new()
    consumer.tick(1e6)
    assert consumer.failure is None
    assert consumer.take_outgoing() == []


# ---------------------------------------------------------------- accepting and losing


def test_overlaps_doubles_and_what_is_ahead() -> None:
    consumer = live()
    assert output(consumer.receive(chunk(0, b"abc"), 1.0)) == b"abc"
    assert consumer.receive(chunk(0, b"abc"), 1.0) == []
    assert output(consumer.receive(chunk(1, b"bcde"), 1.0)) == b"de"
    assert consumer.receive(chunk(8, b"ij"), 1.0) == []
    assert consumer.receive(chunk(7, b"hijk"), 1.0) == []
    assert output(consumer.receive(chunk(5, b"fg"), 1.0)) == b"fghijk"
    assert consumer.parked == 0
    assert consumer.positions == {1: 11, 2: 0}


def test_a_gap_is_taken_like_bytes() -> None:
    consumer = live()
    assert consumer.receive(gap(10, 5), 1.0) == []
    assert consumer.receive(chunk(15, b"x"), 1.0) == []
    events = consumer.receive(chunk(0, b"0123456789"), 1.0)
    assert events == [
        Output(1, 0, 0, b"0123456789"),
        Missing(1, 10, 5, "spool"),
        Output(1, 15, 0, b"x"),
    ]
    assert consumer.receive(gap(0, 16), 1.0) == []
    assert consumer.receive(gap(12, 8), 1.0) == [Missing(1, 16, 4, "spool")]


def test_what_is_ahead_is_asked_for_after_half_a_second() -> None:
    consumer = live()
    consumer.receive(chunk(3, b"d"), 1.0)
    consumer.tick(1.0 + AHEAD_PATIENCE - 0.01)
    assert begins(consumer) == []
    consumer.tick(1.0 + AHEAD_PATIENCE)
    [(begin, sequence)] = begins(consumer)
    assert begin.starts[1] == Start("offset", 0)
    # One is under way at a time, for at most two seconds.
    consumer.tick(3.4)
    assert begins(consumer) == []
    consumer.tick(3.6)
    [(_, sequence)] = begins(consumer)
    consumer.receive(hello(sequence), 3.7)
    consumer.tick(3.8)
    assert begins(consumer) == []
    assert output(consumer.receive(chunk(0, b"abc"), 3.9)) == b"abcd"


def test_alive_shows_a_loss() -> None:
    consumer = live()
    consumer.receive(chunk(0, b"abc"), 1.0)
    consumer.receive(frame(Alive({1: 3, 2: 0}, {1: 9, 2: 0})), 1.0)
    assert begins(consumer) == []
    assert consumer.lag == 6
    consumer.receive(frame(Alive({1: 4, 2: 0}, {1: 9, 2: 0})), 2.0)
    [(begin, _)] = begins(consumer)
    assert begin.starts == {1: Start("offset", 3), 2: Start("offset", 0)}
    # It is under way: what was sent before says nothing new.
    consumer.receive(frame(Alive({1: 4, 2: 0}, {1: 9, 2: 0})), 2.1)
    assert begins(consumer) == []


def test_a_chunk_that_cannot_be_decompressed_is_dropped_counted_and_asked_for_again() -> None:
    consumer = live()
    assert consumer.receive(broken(0, 100), 1.0) == []
    assert consumer.damaged == 1
    assert len(begins(consumer)) == 1
    assert consumer.receive(broken(10, 100), 1.0) == []
    assert output(consumer.receive(chunk(0, b"0123456789"), 1.1)) == b"0123456789"
    assert consumer.damaged == 2
    assert consumer.positions[1] == 10


def test_only_what_is_accepted_is_decompressed() -> None:
    consumer = live()
    consumer.receive(chunk(0, b"x" * 200), 1.0)
    consumer.receive(broken(0, 200), 1.0)
    assert consumer.damaged == 0


def test_a_message_that_does_not_fit_its_schema_is_counted() -> None:
    consumer = live()
    body = CODEC.frame(FrameType.ALIVE, b'{"sent":[]}', epoch=0, sequence=0, time=0)
    assert consumer.receive(CODEC.decode(body), 1.0) == []
    assert consumer.damaged == 1


def test_what_is_parked_is_bounded() -> None:
    consumer = live()
    data = bytes(MAX_RAW)
    for number in range(1, 200):
        consumer.receive(chunk(number * MAX_RAW, data), 1.0)
    assert 0 < consumer.parked <= MIN_WINDOW + 256 * 200  # beyond the credit nothing is kept
    consumer = live()
    for number in range(1, 40_000):
        consumer.receive(gap(2 * number, 1), 1.0)
    assert MAX_PARKED / 2 < consumer.parked <= MAX_PARKED


# ---------------------------------------------------------------- committing and credit


def test_commits_are_due_by_size_and_by_time() -> None:
    consumer = live()
    assert not consumer.commit_due(1e9)
    consumer.receive(chunk(0, b"abc"), 1.0)
    assert not consumer.commit_due(1.0 + ACK_DELAY - 0.01)
    assert consumer.commit_due(1.0 + ACK_DELAY)
    consumer.committed(1.3)
    [ack] = acks(consumer)
    assert ack == Ack(CLIENT, {1: 3, 2: 0}, {1: 3 + MIN_WINDOW, 2: MIN_WINDOW})
    assert not consumer.commit_due(1e9)
    at = 3
    while at < MIN_WINDOW // 4:
        assert not consumer.commit_due(2.0)
        consumer.receive(chunk(at, bytes(MAX_RAW)), 2.0)
        at += MAX_RAW
    assert consumer.commit_due(2.0)


def test_nothing_is_granted_before_it_is_written() -> None:
    consumer = live()
    consumer.receive(chunk(0, bytes(MAX_RAW)), 1.0)
    for second in range(2, 25):
        consumer.tick(second, is_busy=True)
    limits = [ack.limit for ack in acks(consumer)]
    assert len(limits) >= 3
    assert set(map(str, limits)) == {str({1: MIN_WINDOW, 2: MIN_WINDOW})}


def test_the_holder_is_heard_in_time_though_nothing_comes() -> None:
    consumer = live()
    times = []
    for tenth in range(600):
        consumer.receive(frame(Alive({}, {})), tenth / 10)
        consumer.tick(tenth / 10)
        times += [tenth / 10] * len(acks(consumer))
    pauses = [later - earlier for earlier, later in itertools.pairwise([0.0, *times])]
    assert max(pauses) <= 30 / KEEP_ALIVES + 0.2
    assert len(times) < 20


def test_the_window_grows_with_the_rate_and_never_falls() -> None:
    consumer = live()
    now, at = 1.0, 0
    limits = [MIN_WINDOW]
    for _ in range(3000):
        now += 0.0001
        consumer.receive(chunk(at, bytes(MAX_RAW)), now)
        at += MAX_RAW
        if consumer.commit_due(now):
            consumer.committed(now)
            limits += [ack.limit[1] for ack in acks(consumer)]
    assert limits == sorted(limits)
    # The other source keeps its least window, and up to a quarter is not yet committed.
    assert 0.7 * (MAX_WINDOW - MIN_WINDOW) <= limits[-1] - at <= MAX_WINDOW
    slow = live()
    now, at = 1.0, 0
    for _ in range(100):
        now += 0.1
        slow.receive(chunk(at, bytes(MAX_RAW)), now)
        at += MAX_RAW
        slow.committed(now)
    assert acks(slow)[-1].limit[1] == at + MIN_WINDOW


# ---------------------------------------------------------------- ends


def test_denied_and_revoked_end_it() -> None:
    consumer = new()
    consumer.connected(0.0)
    consumer.receive(frame(Denied(CLIENT, "me\x1b[2J", 0)), 0.1)
    assert isinstance(consumer.failure, HeldError)
    assert "\x1b" not in str(consumer.failure)
    consumer = live()
    consumer.receive(frame(Revoked(CLIENT, "you")), 0.1)
    assert isinstance(consumer.failure, RevokedError)
    assert consumer.receive(chunk(0, b"x"), 0.2) == []


def test_a_client_that_goes_on_is_not_ended_by_what_was_left_over() -> None:
    for message in (Denied(CLIENT, "", 0), Revoked(CLIENT, "")):
        consumer = new(is_resumed=True, epoch=0, positions={1: 5, 2: 0})
        consumer.connected(0.0)
        consumer.receive(frame(message), 0.1)
        assert consumer.failure is None
        consumer.tick(1.5)
        assert len(begins(consumer)) == 2
        consumer.receive(frame(message), 1.6)
        assert consumer.failure is not None


def test_who_has_the_stream_does_not_take_it_over_again() -> None:
    consumer = live(mode="takeover")
    consumer.connected(20.0)  # and another may have taken it over meanwhile
    [(begin, _)] = begins(consumer)
    assert begin.mode == "exclusive"


def test_a_takeover_is_one_until_it_is_answered() -> None:
    consumer = new(mode="takeover")
    consumer.connected(0.0)
    consumer.tick(1.5)
    assert [begin.mode for begin, _ in begins(consumer)] == ["takeover", "takeover"]


def test_a_job_side_that_has_less_than_came_is_waited_for_until_its_end() -> None:
    consumer = live()
    consumer.receive(chunk(0, b"abc"), 1.0)
    consumer.connected(2.0)
    [(_, sequence)] = begins(consumer)
    extents = {1: Extent(3, 0, 2), 2: Extent(0, 0, 0)}
    consumer.receive(frame(Hello(CLIENT, sequence, extents, 1.0, 30.0, "", "", 0)), 2.1)
    assert consumer.failure is None, "it may not have read its file again"
    assert output(consumer.receive(chunk(3, b"d"), 2.2)) == b"d"
    consumer.receive(frame(Eos(0, None, None, {1: Ending(2, None), 2: Ending(0, None)})), 2.3)
    assert "has read 2 bytes of a source of which 4 had come" in str(consumer.failure)


def test_silence_stalls_and_then_ends() -> None:
    consumer = live(timeout=20.0)
    consumer.tick(SILENT_INTERVALS - 0.1)
    assert not consumer.is_stalled
    consumer.tick(SILENT_INTERVALS + 0.1)
    assert consumer.is_stalled
    count = 0
    for tenth in range(31, 131):
        consumer.tick(tenth / 10)
        count += len(begins(consumer))
    assert 4 <= count <= 6  # every two seconds
    consumer.receive(frame(Alive({}, {})), 13.1)
    assert not consumer.is_stalled
    news = [type(notice) for notice in consumer.take_notices()]
    assert news == [notices.Hello, notices.Stalled, notices.Resumed]
    consumer.tick(33.0)
    assert consumer.failure is None
    consumer.tick(33.2)
    assert isinstance(consumer.failure, StalledError)


def test_what_waits_for_the_output_is_no_silence() -> None:
    consumer = live(timeout=20.0)
    for second in range(100):
        consumer.tick(float(second), is_busy=True)
    assert consumer.failure is None
    assert not consumer.is_stalled


def test_bye_is_said_once() -> None:
    consumer = live()
    consumer.receive(chunk(0, b"abc"), 1.0)
    consumer.committed(1.0)
    consumer.take_outgoing()
    consumer.leave(done=True)
    consumer.leave(done=False)
    [control] = consumer.take_outgoing()
    assert control.message == Bye(CLIENT, {1: 3, 2: 0}, True)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_verdicts() -> None:
    ends = {1: Ending(3, digest(b"abc")), 2: Ending(0, digest(b""))}
    consumer = live()
    consumer.receive(chunk(0, b"abc"), 1.0)
    assert not consumer.is_complete
    consumer.receive(frame(Eos(0, None, None, ends)), 1.0)
    assert consumer.is_complete
    good = {1: digest(b"abc"), 2: digest(b"")}
    assert consumer.verdicts(good) == {1: Verdict.VERIFIED, 2: Verdict.VERIFIED}
    assert consumer.verdicts({**good, 1: digest(b"abd")})[1] is Verdict.MISMATCH
    assert consumer.verdicts({2: good[2]})[1] is Verdict.UNREADABLE

    consumer = live()
    consumer.receive(gap(0, 3), 1.0)
    consumer.receive(frame(Eos(0, None, None, {1: ends[1], 2: Ending(0, None)})), 1.0)
    assert consumer.verdicts(good) == {1: Verdict.INCOMPLETE, 2: Verdict.UNKNOWN}

    consumer = new()
    consumer.connected(0.0)
    consumer.receive(hello(1000, start=1), 0.0)
    consumer.receive(chunk(1, b"bc"), 1.0)
    consumer.receive(frame(Eos(0, None, None, {1: ends[1]})), 1.0)
    assert consumer.is_complete
    assert consumer.verdicts(good) == {1: Verdict.LATE}


# ---------------------------------------------------------------- epochs


def test_a_greater_epoch_starts_anew_and_a_smaller_one_is_dropped() -> None:
    consumer = live()
    consumer.receive(chunk(0, b"abc"), 1.0)
    consumer.receive(chunk(9, b"j"), 1.0)
    events = consumer.receive(chunk(0, b"new", epoch=2), 1.1)
    assert events == [Attempt(2), Output(1, 0, 0, b"new")]
    [(begin, sequence)] = begins(consumer)
    assert begin.starts == {1: Start("offset", 0), 2: Start("offset", 0)}
    assert consumer.parked == 0
    assert consumer.receive(chunk(3, b"old", epoch=1), 1.2) == []
    # A HELLO for what was asked of the attempt before does not count.
    consumer.receive(hello(sequence - 1, epoch=2), 1.2)
    consumer.tick(3.5)
    assert len(begins(consumer)) == 1


# ---------------------------------------------------------------- the park


def drained(now: float = 0.0, **options: object) -> tuple[Consumer, list[Event]]:
    consumer = new(**options)
    consumer.connected(now)
    consumer.receive(frame(Token(0, {1: Span(5, 9), 2: Span(0, 0)})), now)
    assert consumer.advance(now + TOKEN_PATIENCE - 0.1) == []
    events = consumer.advance(now + TOKEN_PATIENCE)
    assert consumer.phase is Phase.DRAINING
    return consumer, events


def test_a_token_places_a_new_client_that_no_job_side_answers() -> None:
    consumer, events = drained()
    assert events == [Placed(0, 1, 5), Placed(0, 2, 0)]
    consumer.take_outgoing()
    assert consumer.receive(chunk(7, b"hi"), 2.0) == []
    assert output(consumer.receive(chunk(4, b"efg"), 2.0)) == b"fghi"
    consumer.receive(frame(Eos(1, None, None, {1: Ending(9, None), 2: Ending(0, None)})), 2.0)
    assert consumer.is_complete
    consumer.committed(2.0)
    consumer.leave(done=True)
    assert consumer.take_outgoing() == []  # nobody is there


def test_a_job_side_that_answers_is_better_than_a_token() -> None:
    consumer = new()
    consumer.connected(0.0)
    consumer.receive(frame(Token(0, {1: Span(5, 9)})), 0.0)
    consumer.receive(hello(1000), 0.5)
    assert consumer.advance(2.0) == []
    consumer.tick(0.5 + SILENT_INTERVALS)
    assert consumer.is_stalled
    consumer.take_notices()
    consumer.advance(0.5 + SILENT_INTERVALS)
    assert consumer.take_notices() == [notices.Draining()]


def test_what_went_to_another_client_is_a_gap() -> None:
    _, events = drained(is_resumed=True, epoch=0, positions={1: 2, 2: 0})
    assert events == [Missing(1, 2, 3, "taken")]


def test_holes_in_the_park_become_gaps_after_a_while() -> None:
    consumer, _ = drained()
    consumer.receive(chunk(7, b"h"), 2.0)
    consumer.receive(frame(Eos(1, None, None, {1: Ending(9, None)})), 2.0)
    assert consumer.advance(2.0 + PARK_PATIENCE - 0.1) == []
    assert consumer.advance(2.0 + PARK_PATIENCE) == [
        Missing(1, 5, 2, "taken"),
        Output(1, 7, 0, b"h"),
    ]
    assert consumer.advance(2.0 + PARK_PATIENCE) == [Missing(1, 8, 1, "taken")]
    assert consumer.is_complete


def test_a_hole_that_would_need_too_much_memory_becomes_a_gap() -> None:
    consumer, _ = drained()
    data = bytes(MAX_RAW)
    total, at = 0, 100
    events: list[Event] = []
    for _ in range(200):
        events += consumer.receive(chunk(at, data), 2.0)
        at += MAX_RAW
        assert consumer.parked <= MAX_PARKED
    total = len(output(events))
    assert total == 200 * MAX_RAW
    assert [event for event in events if isinstance(event, Missing)] == [Missing(1, 5, 95, "taken")]


def test_who_loses_the_token_seeks_again() -> None:
    consumer, _ = drained()
    consumer.lost_token(3.0)
    assert consumer.phase is Phase.SEEKING
    consumer.connected(4.0)
    [*_, (begin, _)] = begins(consumer)
    assert begin.starts[1] == Start("offset", 5)
    consumer.tick(9.5)
    assert consumer.failure is None, "the broker may yet find out that we were cut off"
    consumer.receive(frame(Token(0, {1: Span(5, 9), 2: Span(0, 0)})), 20.0)
    assert consumer.advance(20.0) == []
    assert consumer.take_notices()[-1] == notices.Draining()
    consumer.lost_token(21.0)
    consumer.connected(22.0)
    consumer.tick(141.0)
    assert isinstance(consumer.failure, StalledError)
    assert "another client may have it" in str(consumer.failure)
