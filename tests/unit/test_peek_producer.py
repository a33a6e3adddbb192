"""The job side's session against the reference client, over a network that misbehaves."""

import hashlib
import heapq
import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmad.peek.frame import MAX_BODY, Codec, FrameType
from gridmad.peek.log import entry
from gridmad.peek.messages import (
    Ack,
    Alive,
    Begin,
    Bye,
    Gap,
    Hello,
    Message,
    Present,
    Roll,
    Start,
    Token,
)
from gridmad.peek.producer import Identity, Outgoing, Producer, Route
from gridmad.peek.spool import Spool
from gridmad.peek.stream import new_client
from tests.peek_reference import ReferenceClient

STREAM = "producer-test"
BEGAN = 1_000_000
EPOCH = 3


class JobSide:
    """A producer with its spool, and what the job has printed."""

    def __init__(
        self,
        *,
        memory: int = 8 << 20,
        size: int = 0,
        key: bytes | None = None,
        park_size: int | None = 1 << 30,
        lease: float = 30.0,
    ) -> None:
        self.codec = Codec(STREAM, key)
        self.spool = Spool(None, size, memory=memory)
        identity = Identity(STREAM, EPOCH, "name", "host", BEGAN, (1, 2))
        self.producer = Producer(
            identity, self.codec, self.spool, 0.0, park_size=park_size, lease=lease
        )
        self.text = {1: bytearray(), 2: bytearray()}
        self.sequence = itertools.count()

    def print(self, source: int, data: bytes, now: float = 0.0) -> None:
        for begin in range(0, len(data), 65_536):
            piece = data[begin : begin + 65_536]
            frame = self.codec.chunk(
                source, EPOCH, next(self.sequence), len(self.text[source]),
                BEGAN + int(now * 1000), piece,
            )  # fmt: skip
            self.text[source] += piece
            self.spool.append(source, len(self.text[source]), BEGAN + int(now * 1000), frame)

    def finish(self, now: float = 0.0, exit_code: int = 0) -> None:
        digests: dict[int, str | None] = {
            source: hashlib.sha256(text).hexdigest() for source, text in self.text.items()
        }
        self.producer.finish(next(self.sequence), digests, now, exit_code=exit_code)

    def sends(self, now: float) -> Iterator[Outgoing]:
        while (message := self.producer.next(now)) is not None:
            assert message.size == sum(map(len, message.body)) <= MAX_BODY
            yield message

    def send_to(self, client: ReferenceClient, now: float) -> None:
        """All there is, over a perfect network."""
        for message in self.sends(now):
            assert message.route is Route.DATA
            if message.client == client.client:
                client.receive(b"".join(message.body), now)


def converse(job: JobSide, client: ReferenceClient, begin: float, seconds: float) -> None:
    for tick in range(int(seconds * 20)):
        now = begin + tick / 20
        for body in client.poll(now):
            job.producer.receive(body, now)
        job.send_to(client, now)


def control(
    client: str, sequence: int, message: Message, codec: Codec | None = None, epoch: int = EPOCH
) -> bytes:
    return (codec or Codec(STREAM)).frame(
        message.type, message.encode(), epoch=epoch, sequence=sequence, time=0
    )


def begin_frame(client: str, sequence: int, **changes: object) -> bytes:
    return control(client, sequence, begin(client=client, **changes))


def begin(**changes: object) -> Begin:
    values: dict[str, object] = {
        "client": new_client(),
        "mode": "exclusive",
        "starts": {1: Start("rest"), 2: Start("rest")},
        "limit": {1: 1 << 20, 2: 1 << 20},
        "who": "me",
    }
    return Begin(**(values | changes))  # type: ignore[arg-type]


def types(messages: Iterator[Outgoing]) -> list[FrameType]:
    codec = Codec(STREAM)
    return [
        FrameType(frame.type)
        for message in messages
        for frame in codec.decode(b"".join(message.body))
    ]


# ---------------------------------------------------------------- the misbehaving network


class Network:
    """Carries bodies one way, and loses, doubles, delays and so reorders some."""

    def __init__(self, chance: random.Random, faults: tuple[float, float, float]) -> None:
        self.chance = chance
        self.loss, self.doubling, self.delay = faults
        self._under_way: list[tuple[float, int, bytes]] = []
        self._number = itertools.count()

    def send(self, body: bytes, now: float) -> None:
        if self.chance.random() < self.loss:
            return
        for _ in range(2 if self.chance.random() < self.doubling else 1):
            late = self.chance.random() * self.delay if self.chance.random() < 0.5 else 0.0
            heapq.heappush(self._under_way, (now + late, next(self._number), body))

    def heal(self) -> None:
        self.loss = self.doubling = self.delay = 0.0

    def arrivals(self, now: float) -> Iterator[bytes]:
        while self._under_way and self._under_way[0][0] <= now:
            yield heapq.heappop(self._under_way)[2]


@given(
    seed=st.integers(0, 2**32),
    faults=st.tuples(
        st.sampled_from([0.0, 0.05, 0.4]),
        st.sampled_from([0.0, 0.3]),
        st.sampled_from([0.0, 0.3, 3.0]),
    ),
    window=st.sampled_from([70_000, 200_000, 1 << 20]),
    has_key=st.booleans(),
    memory=st.sampled_from([300_000, 8 << 20]),
)
@settings(max_examples=60, deadline=None)
def test_everything_arrives_once_over_any_network(
    seed: int, faults: tuple[float, float, float], window: int, has_key: bool, memory: int
) -> None:
    chance = random.Random(seed)
    key = b"k" * 32 if has_key else None
    job = JobSide(key=key, memory=memory)
    client = ReferenceClient(STREAM, key=key, window=window)
    to_job, to_client = Network(chance, faults), Network(chance, faults)
    sent = 0
    healed_at = 10.0
    end = 60.0
    for tick in range(int(end * 20)):
        now = tick / 20
        if now < 8 and chance.random() < 0.3:
            size = chance.choice([1, 50, 3000, 65_536, 200_000])
            job.print(chance.choice([1, 1, 2]), chance.randbytes(size), now)
        if tick == 8 * 20:
            job.finish(now, exit_code=5)
        if now >= healed_at:
            to_job.heal()
            to_client.heal()
        if not client.is_paused and now < healed_at and chance.random() < 0.01:
            client.is_paused = True
        elif client.is_paused and (now >= healed_at or chance.random() < 0.05):
            client.resume_credit(now)
        for body in client.poll(now):
            to_job.send(body, now)
        for body in to_job.arrivals(now):
            job.producer.receive(body, now)
        for message in job.sends(now):
            for frame in message.body:
                item = entry(frame)
                if item.type == FrameType.CHUNK:
                    sent += item.end - item.offset
                    assert item.end <= client.granted_at_most(item.source), "beyond the credit"
            to_client.send(b"".join(message.body), now)
        for body in to_client.arrivals(now):
            client.receive(body, now)
        if job.producer.is_done:
            break
    assert job.producer.is_done, "not done in time"
    assert client.eos is not None
    assert client.eos.exit == 5
    missing = {source: [gap for gap in client.gaps if gap[0] == source] for source in (1, 2)}
    if memory > 1 << 20:
        assert not client.gaps
    for source in (1, 2):
        assert compare(job.text[source], client.text[source], missing[source])
        if not missing[source]:
            assert client.is_whole(source)
    if faults == (0.0, 0.0, 0.0):
        assert sent <= sum(map(len, job.text.values())), "nothing twice without need"


def compare(text: bytearray, got: bytearray, gaps: list[tuple[int, int, int, str]]) -> bool:
    """Whether this is the text without the gaps."""
    left = bytearray()
    position = 0
    for _, offset, length, reason in gaps:
        assert reason == "spool"
        assert offset >= position
        left += text[position:offset]
        position = offset + length
    return left + text[position:] == got


# ---------------------------------------------------------------- one thing at a time


def test_several_small_frames_make_one_body() -> None:
    job = JobSide()
    for number in range(1000):
        job.print(1, b"line %d\n" % number)
        job.print(2, b"error %d\n" % number)
    job.producer.receive(begin_frame(new_client(), 1), 0)
    hello, *rest = job.sends(0)
    assert len(hello.body) == 1
    assert len(rest) == 1
    frames = [frame for message in rest for frame in message.body]
    assert [entry(frame).sequence for frame in frames] == list(range(2000)), "as they were read"


def test_a_source_without_credit_does_not_hold_up_the_other() -> None:
    job = JobSide()
    client = new_client()
    for _ in range(30):
        job.print(1, bytes(65_536))
        job.print(2, b"error\n")
    job.producer.receive(begin_frame(client, 1, limit={1: 100_000, 2: 1 << 20}), 0)
    items = [entry(frame) for message in job.sends(0) for frame in message.body][1:]
    assert [item.source for item in items].count(1) == 1
    assert [item.source for item in items].count(2) == 30
    job.producer.receive(control(client, 2, Ack(client, {}, {1: 131_072})), 0.1)
    items = [entry(frame) for message in job.sends(0.1) for frame in message.body]
    assert [(item.source, item.offset) for item in items] == [(1, 65_536)]
    job.producer.receive(control(client, 3, Ack(client, {}, {1: 1, 2: 0})), 0.2)
    assert list(job.sends(0.2)) == [], "a limit never falls"


def test_another_client_is_denied_until_the_lease_is_over() -> None:
    job = JobSide(lease=10)
    first, second = new_client(), new_client()
    job.producer.receive(begin_frame(first, 1), 0)
    assert types(job.sends(0)) == [FrameType.HELLO]
    job.producer.receive(begin_frame(second, 1), 5)
    (denied,) = [message for message in job.sends(5) if message.client == second]
    assert types(iter([denied])) == [FrameType.DENIED]
    job.producer.receive(control(first, 2, Ack(first, {}, {})), 6)
    job.producer.receive(begin_frame(second, 2), 15)
    assert types(iter([m for m in job.sends(15) if m.client == second])) == [FrameType.DENIED]
    assert job.producer.wake_at() == 16
    assert list(job.sends(16)) == []
    assert not job.producer.is_held, "nobody is served who is not heard"
    job.producer.receive(begin_frame(second, 3), 16)
    assert types(job.sends(16)) == [FrameType.HELLO]


def test_a_client_takes_over() -> None:
    job = JobSide()
    job.print(1, bytes(300_000))
    first = ReferenceClient(STREAM)
    converse(job, first, 0, 1)
    assert job.spool.committed(1) == 300_000
    job.print(1, b"more")
    second = ReferenceClient(STREAM, 1, mode="takeover")
    for body in second.poll(1):
        job.producer.receive(body, 1)
    for message in job.sends(1):
        (first if message.client == first.client else second).receive(b"".join(message.body), 1)
    assert first.revoked is not None
    assert first.revoked.by == "reference"
    assert second.next == {1: 300_004, 2: 0}
    assert bytes(second.text[1]) == b"more", "from what was committed"
    # The REVOKED was lost, and the former holder goes on.
    first.revoked = None
    for body in (
        first.frame(Ack(first.client, {1: 300_004}, {}), 1),
        begin_frame(first.client, 99),
    ):
        job.producer.receive(body, 2)
        answers = [message for message in job.sends(2) if message.client == first.client]
        assert types(iter(answers)) == [FrameType.REVOKED]
    assert job.spool.committed(1) == 300_000, "its word does not count"
    job.producer.receive(begin_frame(first.client, 101, mode="takeover"), 9)
    answers = [message for message in job.sends(9) if message.client == first.client]
    assert types(iter(answers))[0] == FrameType.HELLO, "much later it is meant"


def test_control_frames_are_taken_once_and_in_order() -> None:
    key = b"k" * 16
    job = JobSide(key=key)
    codec = Codec(STREAM, key)
    job.print(1, bytes(200_000))
    client = new_client()
    begin = begin_frame(client, 10)
    job.producer.receive(begin, 0)
    assert list(job.sends(0)) == []
    assert job.codec.damaged == 1, "no MAC"
    starts = {1: Start("rest")}
    signed = control(client, 10, Begin(client, "exclusive", starts, {1: 1 << 20}, ""), codec)
    bye = control(client, 11, Bye(client, {}, False), codec)
    job.producer.receive(signed, 0)
    assert types(job.sends(0)) == []  # signed: the plain codec drops them
    assert job.producer.is_held
    job.producer.receive(bye, 0)
    assert not job.producer.is_held
    job.producer.receive(signed, 0)
    assert not job.producer.is_held, "a replay"


def test_offsets_of_another_attempt_do_not_count() -> None:
    job = JobSide()
    job.print(1, bytes(1000))
    job.finish()
    client = new_client()
    job.producer.receive(begin_frame(client, 1), 0)
    assert types(job.sends(0)) == [FrameType.HELLO, FrameType.CHUNK, FrameType.EOS]
    job.producer.receive(control(client, 2, Ack(client, {1: 1000}, {}), epoch=EPOCH - 1), 0)
    job.producer.receive(control(client, 3, Bye(client, {1: 1000}, True), epoch=EPOCH - 1), 0)
    assert job.spool.committed(1) == 0
    assert not job.producer.is_done


def test_nobody_can_commit_what_was_not_sent() -> None:
    job = JobSide()
    job.print(1, bytes(200_000))
    client = new_client()
    job.producer.receive(begin_frame(client, 1, limit={1: 100_000}), 0)
    list(job.sends(0))
    job.producer.receive(control(client, 2, Ack(client, {1: 2**63 - 1}, {})), 0)
    assert job.spool.committed(1) == 0
    job.producer.receive(control(client, 3, Ack(client, {1: 200_000, 2: 50}, {})), 0)
    assert job.spool.committed(1) == 65_536
    assert job.spool.committed(2) == 0


def test_who_has_more_than_there_is_commits_nothing() -> None:
    """A client of a job side that was started again, with a file that was cut."""
    job = JobSide()
    job.print(1, bytes(1000))
    client = new_client()
    job.producer.receive(begin_frame(client, 1, starts={1: Start("offset", 5000)}), 0)
    list(job.sends(0))
    job.producer.receive(control(client, 2, Bye(client, {1: 5000}, False)), 0)
    assert job.spool.committed(1) == 0


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (Start("rest"), 0),
        (Start("offset", 5), 5),
        (Start("offset", 10**9), 10**9),
        (Start("tail", 2), 18),
        (Start("tail", 100), 0),
        (Start("since", BEGAN + 1000), 9),
        (Start("since", BEGAN + 999_999), 27),
    ],
)
def test_where_a_client_begins(start: Start, expected: int) -> None:
    job = JobSide()
    job.print(1, b"a 1\n b 1\n", 0)
    job.print(1, b"a 2\n b 2\n", 1)
    job.print(1, b"a 3\n b 3\n", 2)
    job.finish(3)
    client = ReferenceClient(STREAM, starts={1: start})
    converse(job, client, 3, 1)
    assert client.hello is not None
    assert client.hello.sources[1].start == expected
    assert bytes(client.text[1]) == job.text[1][expected:]
    assert 2 not in client.text


def test_what_the_spool_lost_becomes_a_gap() -> None:
    job = JobSide(memory=300_000)
    job.print(2, b"early error\n")
    job.print(1, random.Random(0).randbytes(2_000_000))
    client = ReferenceClient(STREAM)
    converse(job, client, 0, 2)
    assert [gap[:2] for gap in sorted(client.gaps)] == [(1, 0), (2, 0)]
    lost = next(gap[2] for gap in client.gaps if gap[0] == 1)
    assert lost > 1_500_000
    assert client.text[1] == job.text[1][lost:]
    assert client.next == {1: 2_000_000, 2: 12}, "of the other source nothing is left"


def test_a_stalled_client_hears_of_one_gap_when_it_goes_on() -> None:
    job = JobSide(memory=600_000)
    client = ReferenceClient(STREAM, window=100_000)
    chance = random.Random(1)
    converse(job, client, 0, 1)
    client.is_paused = True
    for second in range(1, 20):
        job.print(1, chance.randbytes(300_000), second)
        converse(job, client, second, 1)
    taken = client.next[1]
    assert taken <= 200_000
    assert not client.gaps
    client.resume_credit(20)
    converse(job, client, 20, 2)
    assert len(client.gaps) == 1
    assert client.next[1] == len(job.text[1])


def test_an_alive_shows_what_was_lost() -> None:
    job = JobSide()
    client = ReferenceClient(STREAM)
    converse(job, client, 0, 1)
    job.print(1, b"lost\n")
    lost = list(job.sends(1.01))
    assert types(iter(lost))[-1] == FrameType.CHUNK
    converse(job, client, 1.05, 3)
    assert bytes(client.text[1]) == b"lost\n"
    job.print(1, b"also\n")
    list(job.sends(4.2))
    job.producer.reconnect(4.3)
    (alive,) = job.sends(4.3)
    assert Alive.decode(job.codec.decode(b"".join(alive.body))[0].payload).sent[1] == 10


def test_the_end_is_told_until_it_is_understood() -> None:
    job = JobSide()
    job.print(1, b"text")
    client = new_client()
    job.producer.receive(begin_frame(client, 1), 0)
    assert types(job.sends(0)) == [FrameType.HELLO, FrameType.CHUNK]
    job.finish(0.5)
    assert types(job.sends(0.5)) == [FrameType.EOS]
    assert types(job.sends(0.6)) == []
    assert job.producer.wake_at() == 1.0
    assert types(job.sends(1.0)) == [FrameType.ALIVE, FrameType.EOS]
    job.producer.receive(begin_frame(client, 2, starts={1: Start("offset", 4)}), 1.1)
    assert types(job.sends(1.1)) == [FrameType.HELLO, FrameType.EOS]
    job.producer.receive(control(client, 3, Bye(client, {1: 4}, True)), 1.2)
    assert job.producer.is_done
    assert list(job.sends(5)) == []
    assert job.producer.backlog == 0


def test_without_a_budget_no_output() -> None:
    job = JobSide()
    job.print(1, b"text")
    job.finish()
    job.producer.receive(begin_frame(new_client(), 1), 0)
    hello = job.producer.next(0, has_budget=False)
    assert hello is not None
    assert not hello.is_output
    assert job.producer.next(0, has_budget=False) is None
    output = job.producer.next(0)
    assert output is not None
    assert output.is_output


def parked(job: JobSide) -> list[bytes]:
    messages = list(job.producer.park(9.0))
    assert all(message.route is Route.PARK for message in messages)
    assert all(message.size <= MAX_BODY for message in messages)
    return [b"".join(message.body) for message in messages]


def drain(job: JobSide, bodies: list[bytes]) -> ReferenceClient:
    message = job.producer.token(9.0)
    assert message.route is Route.TOKEN
    token = Token.decode(job.codec.decode(b"".join(message.body))[0].payload)
    client = ReferenceClient(STREAM)
    client.epoch = token.epoch
    client.start({source: span.start for source, span in token.sources.items()})
    for body in bodies:
        client.receive(body, 10)
    assert client.is_done
    assert client.next == {source: span.end for source, span in token.sources.items()}
    return client


def test_what_nobody_has_got_is_parked() -> None:
    job = JobSide()
    job.print(1, bytes(300_000))
    job.print(2, b"error\n")
    client = ReferenceClient(STREAM)
    converse(job, client, 0, 1)
    job.print(1, bytes(200_000))
    committed = job.spool.committed(1)
    assert committed == 300_000
    job.finish(1)
    late = drain(job, parked(job))
    assert late.text[1] == job.text[1][committed:]
    assert late.text[2] == job.text[2][job.spool.committed(2) :]
    assert not late.gaps
    assert late.eos is not None
    assert late.eos.sources[1].sha256 == hashlib.sha256(job.text[1]).hexdigest()


def test_the_newest_part_is_parked_where_all_is_too_much() -> None:
    job = JobSide(memory=1 << 20, park_size=300_000)
    job.print(2, b"early error\n")
    job.print(1, random.Random(0).randbytes(3_000_000))
    lost = job.spool.oldest(1)
    assert lost > 0
    job.finish(1)
    bodies = parked(job)
    assert sum(map(len, bodies)) < 302_000
    late = drain(job, bodies)
    assert [(source, reason) for source, _, _, reason in sorted(late.gaps)] == [
        (1, "spool"), (1, "park"), (2, "spool"),
    ]  # fmt: skip
    spool, park = sorted(gap[1:3] for gap in late.gaps if gap[0] == 1)
    assert spool == (0, lost)
    assert park[0] == lost
    assert late.text[1] == job.text[1][sum(park) :]


@pytest.mark.parametrize("is_watched", [False, True])
def test_less_is_parked_of_what_nobody_watched(is_watched: bool) -> None:
    job = JobSide(park_size=None, memory=32 << 20)
    if is_watched:
        job.producer.receive(begin_frame(new_client(), 1), 0)
    block = random.Random(1).randbytes(65_536)  # no two chunks need differ
    for _ in range(160):
        job.print(1, block)
    job.finish()
    parked = sum(message.size for message in job.producer.park(1))
    assert (parked > 10 << 20) if is_watched else (4 << 20 < parked <= 8 << 20)


@pytest.mark.parametrize("key", [None, b"k" * 16])
def test_who_calls_the_roll_gets_an_answer(key: bytes | None) -> None:
    """Also from a stream with a key, which who asks has not (section 6)."""
    job = JobSide(key=key)
    job.print(1, b"text")
    caller = new_client()
    job.producer.receive(control(new_client(), 1, begin(who="somebody"), job.codec), 0)
    list(job.sends(0))
    job.producer.call(control(caller, 1, Roll(caller)), 1)
    answer = next(message for message in job.sends(1) if message.route is Route.PRESENT)
    assert answer.client == caller
    present = Present.decode(Codec(STREAM).decode(b"".join(answer.body))[0].payload)
    assert (present.stream, present.holder, present.end[1]) == (STREAM, "somebody", 4)
    assert not present.ended


def test_a_roll_call_moves_no_client() -> None:
    """Anybody may send one, in the name of whom he likes."""
    job = JobSide(key=b"k" * 16)
    client = new_client()
    job.producer.call(control(client, 2**62, Roll(client)), 0)
    job.producer.receive(control(client, 1, begin(client=client), job.codec), 0)
    assert job.producer.is_held


@given(st.binary(max_size=200))
def test_a_garbled_roll_call_is_ignored(payload: bytes) -> None:
    job = JobSide()
    job.producer.call(payload, 0)
    job.producer.call(Codec(STREAM).frame(19, payload, epoch=0, sequence=1, time=0), 0)
    assert not list(job.sends(0))


def test_many_strangers_cost_little() -> None:
    job = JobSide()
    for number in range(3000):
        stranger = f"{number:032x}"
        job.producer.receive(begin_frame(stranger, 1, mode="takeover"), number / 1000)
        job.producer.call(control(stranger, 2, Roll(stranger)), number / 1000)
    assert len(job.producer._heard) <= 1024
    assert len(list(job.sends(3))) < 100


@given(st.binary(max_size=200), st.sampled_from(list(FrameType)))
def test_garbage_is_counted(payload: bytes, kind: FrameType) -> None:
    job = JobSide()
    job.producer.receive(payload, 0)
    if kind < 16:
        return
    frame = job.codec.frame(kind, payload, epoch=EPOCH, sequence=1, time=0)
    before = job.codec.damaged
    job.producer.receive(frame, 0)
    if kind not in (FrameType.PROBE, FrameType.ROLL):
        assert job.codec.damaged > before
    assert not list(job.sends(0))


def test_a_hello_tells_what_there_is() -> None:
    job = JobSide()
    job.print(1, b"text")
    client = new_client()
    job.producer.receive(begin_frame(client, 77), 2.5)
    (hello, *_) = job.sends(2.5)
    (frame,) = job.codec.decode(b"".join(hello.body))
    message = Hello.decode(frame.payload)
    assert frame.epoch == EPOCH
    assert frame.time == BEGAN + 2500
    assert message.answers == 77
    assert (message.sources[1].oldest, message.sources[1].end) == (0, 4)
    assert Gap(1, "spool").encode()
