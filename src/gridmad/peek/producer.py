"""The job side of a session: who holds the stream, what to send next (PROTOCOL.md, 5 to 8).

    control frames -> receive -> lease, credit, cursors
    next <- answers, ALIVE, HELLO, bodies of frames from the log, EOS

No I/O: times come in as monotonic seconds, messages go out as values, and the log of frames
is whatever has the spool's methods.  One thread uses a producer.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from gridmad.peek.errors import FrameError
from gridmad.peek.frame import Codec, Frame, FrameType
from gridmad.peek.gathering import Cursor, Gathering
from gridmad.peek.log import Log
from gridmad.peek.messages import (
    Ack,
    Alive,
    Begin,
    Bye,
    Denied,
    Ending,
    Eos,
    Extent,
    Hello,
    Message,
    Present,
    Revoked,
    Roll,
    Span,
    Start,
    Token,
)

LEASE: Final = 30.0
INTERVAL: Final = 1.0
"""Seconds between ALIVEs: how long the loss of the last bytes of a burst can go unnoticed."""
MAX_CLIENTS: Final = 1024
"""Clients whose last sequence is remembered; the one that was silent longest is forgotten."""
UNAWARE: Final = 5.0
"""Seconds in which a client that was revoked may not take over: longer than it is silent."""
MAX_ANSWERS: Final = 64
"""Answers that wait to be sent."""
PARK_WATCHED: Final = 64 << 20
PARK_UNWATCHED: Final = 8 << 20
"""Bytes to leave in the broker: it holds them a day for every job that nobody watched, too."""
NO_LIMIT: Final = 2**63 - 1


class Route(Enum):
    """Where a message goes; DATA and PRESENT are of one client each."""

    DATA = "data"
    PARK = "park"
    TOKEN = "token"  # noqa: S105 - a destination
    PRESENT = "present"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """The frames of one STOMP message."""

    route: Route
    client: str
    body: list[bytes]
    size: int
    is_output: bool = False
    """CHUNKs and GAPs: what a limit of the rate is about."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the job side says of itself; `began` in ms since 1970."""

    stream: str
    epoch: int
    name: str
    host: str
    began: int
    sources: tuple[int, ...]


@dataclass(slots=True)
class _Holder:
    """The client that has the stream; times are monotonic seconds, `since` is in ms."""

    client: str
    who: str
    since: int
    heard: float
    answers: int
    cursors: dict[int, Cursor] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    is_greeted: bool = False
    is_told_end: bool = False


class Producer:
    """The job side's half of the protocol.

    `now` at construction belongs to `identity.began`; `park_size` bounds the bytes of frames
    that are parked: where none is given, to less for a job that nobody has watched.
    """

    def __init__(
        self,
        identity: Identity,
        codec: Codec,
        log: Log,
        now: float,
        *,
        lease: float = LEASE,
        interval: float = INTERVAL,
        park_size: int | None = None,
    ) -> None:
        self.is_done = False
        """A client said that it has the whole stream."""
        self.has_begun = False
        """A client has had the stream."""
        self._identity = identity
        self._codec = codec
        # The roll call is for everybody, with the stream's key or without (section 6).
        self._open_codec = Codec(identity.stream)
        self._log = log
        self._began = now
        self._lease = lease
        self._interval = interval
        self._park_size = park_size
        self._sequence = 0
        self._heard: OrderedDict[str, int] = OrderedDict()
        self._revoked: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._answers: deque[Outgoing] = deque(maxlen=MAX_ANSWERS)
        self._holder: _Holder | None = None
        self._next_alive = now
        self._gathering = Gathering(log, codec, identity.epoch)
        self._eos: bytes | None = None

    # ------------------------------------------------------------ what is asked from outside

    @property
    def is_held(self) -> bool:
        """A client has the stream."""
        return self._holder is not None

    @property
    def backlog(self) -> int:
        """Bytes that no client has committed."""
        log = self._log
        return sum(log.offset(source) - log.committed(source) for source in self._identity.sources)

    def finish(
        self,
        sequence: int,
        digests: Mapping[int, str | None],
        now: float,
        *,
        exit_code: int | None = None,
        signal: int | None = None,
        reason: str | None = None,
    ) -> None:
        """The job has ended and all its output is in the log: EOS can follow it."""
        endings = {
            source: Ending(self._log.offset(source), digests.get(source))
            for source in self._identity.sources
        }
        eos = Eos(exit_code, signal, reason, endings)
        self._eos = self._codec.frame(
            FrameType.EOS,
            eos.encode(),
            epoch=self._identity.epoch,
            sequence=sequence,
            time=self._time(now),
        )

    def reconnect(self, now: float) -> None:
        """The broker was lost and is there again: say how far the holder has been sent."""
        self._next_alive = now

    def wake_at(self) -> float | None:
        """When `next` has something to send even if nothing happens."""
        if self._holder is None:
            return None
        return min(self._next_alive, self._holder.heard + self._lease)

    # ------------------------------------------------------------ what comes in

    def receive(self, body: bytes, now: float) -> None:
        """Take a body from the control destination.  Never raises."""
        self._expire(now)
        for frame in self._codec.decode(body):
            try:
                match frame.type:
                    case FrameType.BEGIN:
                        self._begin(frame, Begin.decode(frame.payload), now)
                    case FrameType.ACK:
                        self._acknowledge(frame, Ack.decode(frame.payload), now)
                    case FrameType.BYE:
                        self._leave(frame, Bye.decode(frame.payload))
            except FrameError:
                self._codec.damaged += 1

    def call(self, body: bytes, now: float) -> None:
        """Take a body from the roll destination.  Never raises."""
        self._expire(now)
        for frame in self._open_codec.decode(body):
            if frame.type == FrameType.ROLL:
                try:
                    roll = Roll.decode(frame.payload)
                except FrameError:
                    continue
                answer = self._frame(self._present(), now, self._open_codec)
                self._answers.append(Outgoing(Route.PRESENT, roll.client, [answer], len(answer)))

    def _is_new(self, frame: Frame, client: str) -> bool:
        """Whether this is neither a replay nor overtaken (section 6)."""
        if frame.sequence <= self._heard.get(client, -1):
            return False
        self._heard[client] = frame.sequence
        self._heard.move_to_end(client)
        if len(self._heard) > MAX_CLIENTS:
            self._heard.popitem(last=False)
        return True

    def _begin(self, frame: Frame, begin: Begin, now: float) -> None:
        if not self._is_new(frame, begin.client):
            return
        holder = self._holder
        if holder is not None and holder.client != begin.client:
            _, revoked_at = self._revoked.get(begin.client, ("", float("-inf")))
            # One that has not heard of it resumes as it began; it must not take back.
            if begin.client in self._revoked and (
                begin.mode == "exclusive" or now - revoked_at < UNAWARE
            ):
                self._revoke(begin.client, now)
                return
            if begin.mode == "exclusive":
                denied = Denied(begin.client, holder.who, holder.since)
                self._answer(begin.client, denied, now)
                return
            self._revoked[holder.client] = (begin.who, now)
            self._revoke(holder.client, now)
            if len(self._revoked) > MAX_ANSWERS:
                self._revoked.popitem(last=False)
        self._revoked.pop(begin.client, None)
        since = self._time(now)
        if holder is not None and holder.client == begin.client:
            since = holder.since
        holder = _Holder(begin.client, begin.who, since, now, frame.sequence)
        for source in self._identity.sources:
            if source in begin.starts:
                offset = self._start(source, begin.starts[source])
                limit = min(offset + begin.limit.get(source, 0), NO_LIMIT)
                number = self._log.locate(source, offset)
                holder.starts[source] = offset
                holder.cursors[source] = Cursor(number, offset, limit)
        self._holder = holder
        self.has_begun = True
        self._next_alive = now + self._interval

    def _start(self, source: int, start: Start) -> int:
        log = self._log
        if start.value is None:
            return log.committed(source)
        if start.kind == "tail":
            return log.tail(source, start.value, self._codec.decode)
        if start.kind == "since":
            return log.since(source, start.value)
        return start.value

    def _acknowledge(self, frame: Frame, ack: Ack, now: float) -> None:
        if not self._is_new(frame, ack.client):
            return
        holder = self._holder
        if holder is None or holder.client != ack.client:
            if ack.client in self._revoked:
                self._revoke(ack.client, now)
            return
        holder.heard = now
        if frame.epoch != self._identity.epoch:
            return  # offsets of another attempt
        self._commit(holder, ack.committed)
        for source, limit in ack.limit.items():
            cursor = holder.cursors.get(source)
            if cursor is not None and limit > cursor.limit:
                cursor.limit = limit

    def _commit(self, holder: _Holder, offsets: Mapping[int, int]) -> None:
        for source, offset in offsets.items():
            # Nobody has what was not sent, or what there is not (of another job side).
            cursor = holder.cursors.get(source)
            if cursor is not None and offset <= self._log.offset(source):
                self._log.commit(source, min(offset, cursor.offset))

    def _leave(self, frame: Frame, bye: Bye) -> None:
        if not self._is_new(frame, bye.client):
            return
        holder = self._holder
        if holder is None or holder.client != bye.client:
            return
        if frame.epoch == self._identity.epoch:
            self._commit(holder, bye.committed)
            self.is_done = self.is_done or (bye.done and self._eos is not None)
        self._holder = None

    def _present(self) -> Present:
        identity, log, holder = self._identity, self._log, self._holder
        return Present(
            stream=identity.stream,
            name=identity.name,
            host=identity.host,
            began=identity.began,
            end={source: log.offset(source) for source in identity.sources},
            committed={source: log.committed(source) for source in identity.sources},
            holder=None if holder is None else holder.who,
            ended=self._eos is not None,
            epoch=identity.epoch,
        )

    def _revoke(self, client: str, now: float) -> None:
        by, _ = self._revoked[client]
        self._answer(client, Revoked(client, by), now)

    def _answer(self, client: str, message: Message, now: float) -> None:
        frame = self._frame(message, now)
        self._answers.append(Outgoing(Route.DATA, client, [frame], len(frame)))

    def _expire(self, now: float) -> None:
        if self._holder is not None and now - self._holder.heard >= self._lease:
            self._holder = None

    # ------------------------------------------------------------ what goes out

    def next(self, now: float, *, has_budget: bool = True) -> Outgoing | None:
        """The next message, or None while there is none.

        Without a budget no output is given, but all else.  OSError when the log cannot be read.
        """
        self._expire(now)
        if self._answers:
            return self._answers.popleft()
        holder = self._holder
        if holder is None:
            return None
        if not holder.is_greeted:
            holder.is_greeted = True
            return self._to(holder, [self._hello(holder, now)])
        if now >= self._next_alive:
            self._next_alive = now + self._interval
            return self._to(holder, [self._alive(holder, now), *self._ending(holder)])
        if has_budget:
            body, size = self._gathering.gather(holder.cursors, self._time(now))
            if body:
                return Outgoing(Route.DATA, holder.client, body, size, is_output=True)
        if not holder.is_told_end:
            ending = self._ending(holder)
            if ending:
                holder.is_told_end = True
                return self._to(holder, ending)
        return None

    def park(self, now: float) -> Iterator[Outgoing]:
        """What to leave in the broker: all that is not committed, or its newest part, and EOS.

        Without a holder or whatever the credit (section 8).
        """
        size = self._park_size
        if size is None:
            size = PARK_WATCHED if self.has_begun else PARK_UNWATCHED
        number = self._log.suffix(size)
        cursors = {
            source: Cursor(number, self._log.committed(source), NO_LIMIT)
            for source in self._identity.sources
        }
        while True:
            body, size = self._gathering.gather(cursors, self._time(now), "park")
            if not body:
                break
            yield Outgoing(Route.PARK, "", body, size, is_output=True)
        assert self._eos is not None
        yield Outgoing(Route.PARK, "", [self._eos], len(self._eos))

    def token(self, now: float) -> Outgoing:
        """What says that something was parked, to be sent when all of it has arrived."""
        spans = {
            source: Span(self._log.committed(source), self._log.offset(source))
            for source in self._identity.sources
        }
        frame = self._frame(Token(self._identity.epoch, spans), now)
        return Outgoing(Route.TOKEN, "", [frame], len(frame))

    def _hello(self, holder: _Holder, now: float) -> bytes:
        identity, log = self._identity, self._log
        extents = {
            source: Extent(start, log.oldest(source), log.offset(source))
            for source, start in holder.starts.items()
        }
        return self._frame(
            Hello(
                client=holder.client,
                answers=holder.answers,
                sources=extents,
                interval=self._interval,
                lease=self._lease,
                name=identity.name,
                host=identity.host,
                began=identity.began,
            ),
            now,
        )

    def _alive(self, holder: _Holder, now: float) -> bytes:
        sent = {source: cursor.offset for source, cursor in holder.cursors.items()}
        end = {source: self._log.offset(source) for source in holder.cursors}
        return self._frame(Alive(sent, end), now)

    def _ending(self, holder: _Holder) -> list[bytes]:
        """EOS, when it has ended and everything was sent."""
        if self._eos is None or any(
            cursor.offset < self._log.offset(source) for source, cursor in holder.cursors.items()
        ):
            return []
        return [self._eos]

    def _to(self, holder: _Holder, body: list[bytes]) -> Outgoing:
        return Outgoing(Route.DATA, holder.client, body, sum(map(len, body)))

    def _frame(self, message: Message, now: float, codec: Codec | None = None) -> bytes:
        sequence = self._sequence
        self._sequence += 1
        return (codec or self._codec).frame(
            message.type,
            message.encode(),
            epoch=self._identity.epoch,
            sequence=sequence,
            time=self._time(now),
        )

    def _time(self, now: float) -> int:
        """Milliseconds since 1970 of a moment in monotonic seconds."""
        return self._identity.began + int((now - self._began) * 1000)
