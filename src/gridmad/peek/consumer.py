"""The client's half of a session (PROTOCOL.md, 4, 5, 7 and 8).  No I/O.

    frames -> receive() -> events (bytes to write, gaps, attempts) in order
                        -> outgoing (BEGIN, ACK, BYE), notices
    tick()  what time asks for        committed()  what was written, which gives new credit

One thread at a time may call; `now` is in monotonic seconds.  Memory is bounded: what is
ahead of its turn is kept up to a bound (track.py), and nothing else is.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final, Literal, NamedTuple

from gridmad.peek import notices
from gridmad.peek.beginning import BEGIN_FIRST, BEGIN_SPACING, Beginning
from gridmad.peek.errors import (
    FrameError,
    HeldError,
    PeekError,
    RevokedError,
    StalledError,
    UnknownStreamError,
)
from gridmad.peek.frame import Frame, FrameType
from gridmad.peek.messages import (
    Ack,
    Alive,
    Begin,
    Bye,
    Denied,
    Eos,
    Hello,
    Message,
    Revoked,
    Start,
    Token,
)
from gridmad.peek.notices import Notice, Verdict, printable
from gridmad.peek.reception import (
    LAST_OUTPUT,
    Attempt,
    Event,
    Placed,
    Reception,
)
from gridmad.peek.track import MAX_WINDOW

REPEATED: Final = 2
"""BEGINs after which an answer must be to this session."""
UNKNOWN_AFTER: Final = 5.0
"""Seconds without any HELLO or TOKEN until the job counts as not known."""
SILENT_INTERVALS: Final = 3
AHEAD_PATIENCE: Final = 0.5
"""Seconds that something waits for what comes before it."""
TOKEN_PATIENCE: Final = 1.0
"""Seconds that a client with a TOKEN waits for the HELLO of a job side that lives."""
PARK_PATIENCE: Final = 5.0
"""Seconds of silence after which what is missing from the park is given up."""
ACK_DELAY: Final = 0.25
"""Seconds to the commit after the first byte that was not acknowledged."""
KEEP_ALIVES: Final = 6
"""Times per lease that the holder lets itself be heard."""
DEFAULT_LEASE: Final = 30.0
DEFAULT_INTERVAL: Final = 2.0


_OF_ATTEMPT: Final = frozenset(
    {
        FrameType.CHUNK,
        FrameType.GAP,
        FrameType.HELLO,
        FrameType.ALIVE,
        FrameType.EOS,
        FrameType.TOKEN,
    }
)


class Control(NamedTuple):
    """A message for the job side, and two members of its frame."""

    message: Message
    epoch: int
    sequence: int


class Phase(Enum):
    """Where the session is."""

    SEEKING = "no HELLO yet"
    LIVE = "the job side answers"
    DRAINING = "the job side has left, and what it parked is taken"


class Consumer:
    """One client of one stream.

    `sequence` is the first of its control frames: a clock in nanoseconds.  `timeout` is in
    seconds of silence.  With `is_resumed` the client has been here before; `epoch`,
    `positions`, `origins` and `missing` are what its file has.
    """

    failure: PeekError | None
    """Why the session has ended without the stream; None while it goes on."""
    eos: Eos | None
    """How the job has ended, once that is known."""

    def __init__(
        self,
        client: str,
        sources: Iterable[int],
        start: Start,
        *,
        sequence: int,
        mode: Literal["exclusive", "takeover"] = "exclusive",
        who: str = "",
        wait: bool = False,
        timeout: float = 120.0,
        is_resumed: bool = False,
        epoch: int | None = None,
        positions: Mapping[int, int] | None = None,
        origins: Mapping[int, int] | None = None,
        missing: Mapping[int, int] | None = None,
    ) -> None:
        self.client = client
        self.failure = None
        self.eos = None
        self._damaged = 0
        self.phase = Phase.SEEKING
        self.epoch = epoch
        self._start = start
        self._who = who
        self._waits = wait
        self._timeout = timeout
        self._reception = Reception(sources)
        self._tracks = self._reception.tracks
        for source, offset in (positions or {}).items():
            track = self._tracks[source]
            track.place(offset)
            track.origin = (origins or {}).get(source, offset)
            track.missing = (missing or {}).get(source, 0)
        self._sequence = sequence
        self._outgoing: list[Control] = []
        self._notices: list[Notice] = []
        self._interval = DEFAULT_INTERVAL
        self._lease = DEFAULT_LEASE
        self._heard: float | None = None
        self._sought: float | None = None
        self._is_stalled = False
        self._is_told_to_wait = False
        self._token: Token | None = None
        self._begin = Beginning(sequence, mode)
        self._is_resumed = is_resumed
        self._has_drained = False
        self._has_left = False
        self._last_ack = 0.0
        self._uncommitted_since: float | None = None

    # ------------------------------------------------------------ what it says

    def take_outgoing(self) -> list[Control]:
        """Messages for the job side, in the order of their sequence; each is given once."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    @property
    def has_outgoing(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._outgoing)

    def take_notices(self) -> list[Notice]:
        """News since the last call."""
        news, self._notices = self._notices, []
        return news

    @property
    def positions(self) -> dict[int, int]:
        """The next byte of each source whose place is known."""
        return {source: t.next for source, t in self._tracks.items() if t.is_placed}

    @property
    def damaged(self) -> int:
        """Chunks that could not be decompressed, and messages that did not fit their schema."""
        return self._damaged + self._reception.damaged

    @property
    def has_token(self) -> bool:
        """Whether there is something parked, so that `advance` is to be called."""
        return self._token is not None

    @property
    def is_complete(self) -> bool:
        """Whether the job has ended and all of its output has been given out."""
        eos = self.eos
        if eos is None:
            return False
        for source, track in self._tracks.items():
            ending = eos.sources.get(source)
            if ending is not None and (not track.is_placed or track.next < ending.end):
                return False
        return True

    @property
    def is_stalled(self) -> bool:
        """Whether the job side has been silent for three intervals."""
        return self._is_stalled

    @property
    def lag(self) -> int:
        """Bytes that the job is known to have printed beyond what has come."""
        return sum(max(0, track.end - track.next) for track in self._tracks.values())

    @property
    def parked(self) -> int:
        """Bytes that wait for what comes before them."""
        return sum(track.parked for track in self._tracks.values())

    def verdicts(self, digests: Mapping[int, str | None]) -> dict[int, Verdict]:
        """Compares the digests of what was written with those of the job side."""
        if self.eos is None:
            return {}
        found = {}
        for source, track in self._tracks.items():
            ending = self.eos.sources.get(source)
            if ending is None or not track.is_placed:
                continue
            found[source] = track.verdict(ending.end, ending.sha256, digests.get(source))
        return found

    # ------------------------------------------------------------ time and connections

    def connected(self, now: float) -> None:
        """A connection was made, or made again: the job side may be there, and is asked."""
        if self._heard is None:
            self._heard = now
        if self._sought is None:
            self._sought = now
        self._begin.restart()
        self._send_begin(now, spacing=0.0)

    def lost_token(self, now: float) -> None:
        """The connection that had the TOKEN is gone: the broker gives it to someone again."""
        self._token = None
        if self.phase is Phase.DRAINING:
            self.phase = Phase.SEEKING
            self._reception.keeps_all = False
            self._has_drained = True
            self._begin.is_wanted = True
        if self.phase is Phase.SEEKING:
            self._sought = now

    def tick(self, now: float, *, is_busy: bool = False) -> None:
        """Send what is due, and notice silence; several times a second.

        `is_busy`: frames have come and wait for the output, so that it is not silent.
        """
        if self.failure is not None or self._sought is None:
            return
        if is_busy:
            self._hear(now)
        self._watch_silence(now)
        if self.failure is not None or self.phase is Phase.DRAINING:
            return
        for track in self._tracks.values():
            if track.waits_since is not None and now - track.waits_since >= AHEAD_PATIENCE:
                self._begin.is_wanted = True
        self._send_begin(now)
        if self.phase is Phase.LIVE and now - self._last_ack >= self._lease / KEEP_ALIVES:
            self._send_ack(now)

    def commit_due(self, now: float) -> bool:
        """Whether what was given out is to be written for good now."""
        since = self._uncommitted_since
        if since is None:
            return False
        return now - since >= ACK_DELAY or any(
            4 * (track.next - track.committed) >= track.window for track in self._tracks.values()
        )

    def committed(self, now: float) -> None:
        """All that was given out is written for good: acknowledge it, and give new credit."""
        total = sum(track.window for track in self._tracks.values())
        for track in self._tracks.values():
            track.commit(now, self._begin.round_trip, MAX_WINDOW - total + track.window)
        self._uncommitted_since = None
        if self.phase is Phase.LIVE:
            self._send_ack(now)

    def leave(self, *, done: bool) -> None:
        """Say BYE, once, if there may be a job side that listens.  `done`: it is complete."""
        has_left, self._has_left = self._has_left, True
        if not has_left and self.phase is not Phase.DRAINING and self._begin.count:
            committed = {s: t.committed for s, t in self._tracks.items() if t.is_placed}
            self._send(Bye(self.client, committed, done))

    # ------------------------------------------------------------ frames

    def receive(self, frames: Iterable[Frame], now: float) -> list[Event]:
        """Takes the frames of one body; what is to be written, in order.

        A message that does not fit its schema is counted like a damaged frame.
        """
        events: list[Event] = []
        if self.failure is not None:
            return events
        for frame in frames:
            kind = frame.type
            if frame.epoch != self.epoch and not self._takes_epoch(frame, now, events):
                continue
            try:
                if kind <= LAST_OUTPUT:
                    self._reception.take(frame, now, events)
                else:
                    self._receive_message(frame, now, events)
            except FrameError:
                self._drop(now)
            if self.failure is not None:
                break
        if frames:
            self._hear(now)
        if events and self._uncommitted_since is None:
            self._uncommitted_since = now
        return events

    def advance(self, now: float) -> list[Event]:
        """What time gives: the park is drained when the job side has left, and what it does not
        have becomes a gap when nothing has come for long enough.
        """
        events: list[Event] = []
        token, heard = self._token, self._heard
        if self.failure is not None or token is None or heard is None:
            return events
        if self.phase is not Phase.DRAINING:
            if self._may_drain(now):
                self._drain(token, now, events)
        elif now - heard >= PARK_PATIENCE:
            ends = {} if self.eos is None else {s: e.end for s, e in self.eos.sources.items()}
            for source, track in self._tracks.items():
                if track.first_waiting is not None:
                    self._reception.skip(track, track.first_waiting, now, events)
                elif track.is_placed and track.next < ends.get(source, 0):
                    self._reception.skip(track, ends[source], now, events)
        if events and self._uncommitted_since is None:
            self._uncommitted_since = now
        return events

    def _drop(self, now: float) -> None:
        """What could not be read comes again, if the job side is there."""
        self._damaged += 1
        if self.phase is Phase.LIVE:
            self._begin.is_wanted = True
            self._send_begin(now)

    # ------------------------------------------------------------ messages

    def _takes_epoch(self, frame: Frame, now: float, events: list[Event]) -> bool:
        """Whether a frame of another epoch than ours is to be taken."""
        if frame.type in (FrameType.DENIED, FrameType.REVOKED):
            return True
        if self.epoch is None:
            # Only what places the sources tells a new client which attempt it sees.
            return frame.type in (FrameType.HELLO, FrameType.TOKEN)
        if frame.epoch < self.epoch or frame.type not in _OF_ATTEMPT:
            return False
        self.epoch = frame.epoch
        self.eos = None
        for track in self._tracks.values():
            track.restart()
        self._uncommitted_since = None
        events.append(Attempt(frame.epoch))
        if self.phase is Phase.DRAINING:
            if frame.type != FrameType.HELLO:
                return True  # this attempt was parked, too
            self.phase = Phase.SEEKING
        self._token = None
        self._reception.keeps_all = False
        # A HELLO that is under way answers for offsets of the attempt before.
        self._begin.forget(self._sequence)
        self._begin.restart()
        self._send_begin(now, spacing=0.0)
        return True

    def _receive_message(self, frame: Frame, now: float, events: list[Event]) -> None:
        kind, payload = frame.type, frame.payload
        if kind == FrameType.ALIVE:
            self._on_alive(Alive.decode(payload), now)
        elif kind == FrameType.EOS:
            self._on_eos(Eos.decode(payload))
        elif kind == FrameType.HELLO:
            self._on_hello(Hello.decode(payload), frame.epoch, now, events)
        elif kind == FrameType.TOKEN:
            token = Token.decode(payload)
            known = self._token.epoch if self._token is not None else 0
            if known <= token.epoch == frame.epoch and self.phase is not Phase.DRAINING:
                self._token = token
        elif kind in (FrameType.DENIED, FrameType.REVOKED):
            self._on_end(frame)

    def _on_hello(self, hello: Hello, epoch: int, now: float, events: list[Event]) -> None:
        if hello.client != self.client or not self._begin.is_answer(hello.answers):
            return
        self._begin.answered(hello.answers, now)
        self.epoch = epoch
        if self._token is not None and self._token.epoch != epoch:
            self._token = None
        for source, extent in hello.sources.items():
            track = self._tracks.get(source)
            if track is None:
                continue
            if not track.is_placed:
                track.place(extent.start)
                events.append(Placed(epoch, source, extent.start))
            track.end = max(track.end, extent.end)
            track.limit = max(track.limit, extent.start + track.window)
            track.waits_since = now if track.has_waiting else None
        self._interval = hello.interval
        self._lease = hello.lease
        if self.phase is Phase.SEEKING:
            self.phase = Phase.LIVE
            self._last_ack = now
            self._notices.append(
                notices.Hello(
                    printable(hello.name), printable(hello.host), self.positions, hello.began
                )
            )

    def _on_alive(self, alive: Alive, now: float) -> None:
        is_lost = False
        for source, track in self._tracks.items():
            track.end = max(track.end, alive.end.get(source, 0))
            is_lost |= track.is_placed and alive.sent.get(source, 0) > track.next
        if is_lost and self.phase is Phase.LIVE and self._begin.is_answered:
            self._begin.is_wanted = True
            self._send_begin(now)

    def _on_eos(self, eos: Eos) -> None:
        for source, ending in eos.sources.items():
            track = self._tracks.get(source)
            if track is None:
                continue
            # Before its end a job side that was started again may just not be there yet.
            if track.is_placed and ending.end < track.next:
                self.failure = PeekError(
                    f"the job side has read {ending.end} bytes of a source of which "
                    f"{track.next} had come: it was started again and its file was cut or "
                    "replaced meanwhile, so that its output does not go on from there "
                    "(a greater --epoch begins anew)"
                )
                return
            track.end = ending.end
        self.eos = eos

    def _on_end(self, frame: Frame) -> None:
        """DENIED or REVOKED.

        The first may be left over from the session that this client goes on with; the job
        side says it again with each BEGIN.
        """
        if self._is_resumed and self.phase is Phase.SEEKING and self._begin.count < REPEATED:
            return
        if frame.type == FrameType.DENIED:
            denied = Denied.decode(frame.payload)
            if denied.client == self.client:
                self.failure = HeldError(
                    f"{printable(denied.holder) or 'another client'} is watching this stream; "
                    "--takeover takes it over"
                )
            return
        revoked = Revoked.decode(frame.payload)
        if revoked.client == self.client:
            by = printable(revoked.by) or "another client"
            self.failure = RevokedError(f"{by} has taken this stream over")

    # ------------------------------------------------------------ what was parked

    def _may_drain(self, now: float) -> bool:
        """Whether the job side that has left a TOKEN is no longer there."""
        if self.phase is Phase.SEEKING:
            return self._sought is not None and now - self._sought >= TOKEN_PATIENCE
        return self._is_stalled

    def _drain(self, token: Token, now: float, events: list[Event]) -> None:
        self.phase = Phase.DRAINING
        self._reception.keeps_all = True
        self.epoch = token.epoch
        self._heard = now
        self._is_stalled = False
        self._begin.is_wanted = False
        self._notices.append(notices.Draining())
        for source, span in token.sources.items():
            track = self._tracks.get(source)
            if track is None:
                continue
            track.end = max(track.end, span.end)
            if not track.is_placed:
                track.place(span.start)
                events.append(Placed(token.epoch, source, span.start))
            elif track.next < span.start:
                self._reception.skip(track, span.start, now, events)

    # ------------------------------------------------------------ what is sent

    def _watch_silence(self, now: float) -> None:
        assert self._heard is not None
        assert self._sought is not None
        silence = now - self._heard
        if self.phase is Phase.SEEKING:
            if self._token is not None:
                return
            if self._has_drained:
                self._watch_loss(silence)
                return
            sought = now - self._sought
            if sought >= BEGIN_FIRST and not self._is_told_to_wait:
                self._is_told_to_wait = True
                self._notices.append(notices.Waiting())
            if sought >= UNKNOWN_AFTER and not self._waits:
                self.failure = UnknownStreamError(
                    "no job answers for this stream, and none has left anything behind: "
                    "check the id and the broker, or --wait for the job to start"
                )
            return
        if silence >= self._timeout:
            self.failure = StalledError(
                f"nothing was heard from the job side for {silence:.0f} s (-T): "
                "it may have died without a word"
            )
        elif silence >= SILENT_INTERVALS * self._interval and self.phase is Phase.LIVE:
            if not self._is_stalled:
                self._is_stalled = True
                self._notices.append(notices.Stalled(silence))
            self._begin.is_wanted = True

    def _watch_loss(self, silence: float) -> None:
        """The connection with the TOKEN was lost: the broker may give it to us again."""
        if silence >= self._timeout:
            self.failure = StalledError(
                "the connection was lost while what the job has left was taken, and in "
                f"{silence:.0f} s (-T) it was not there again: another client may have it"
            )

    def _hear(self, now: float) -> None:
        self._heard = now
        if self._is_stalled:
            self._is_stalled = False
            self._notices.append(notices.Resumed())

    def _send_begin(self, now: float, spacing: float = BEGIN_SPACING) -> None:
        """Send BEGIN if it is wanted, and none is under way or was sent just now."""
        is_seeking = self.phase is Phase.SEEKING
        if self._sought is None or self.phase is Phase.DRAINING:
            return
        if not self._begin.is_due(now, spacing, is_seeking=is_seeking):
            return
        self._begin.sent(self._sequence, now, is_seeking=is_seeking)
        starts = {
            source: Start("offset", track.next) if track.is_placed else self._start
            for source, track in self._tracks.items()
        }
        limit = {source: track.window for source, track in self._tracks.items()}
        self._send(Begin(self.client, self._begin.mode, starts, limit, self._who))

    def _send_ack(self, now: float) -> None:
        self._last_ack = now
        placed = {source: track for source, track in self._tracks.items() if track.is_placed}
        committed = {source: track.committed for source, track in placed.items()}
        limit = {source: track.grant() for source, track in placed.items()}
        self._send(Ack(self.client, committed, limit))

    def _send(self, message: Message) -> None:
        self._outgoing.append(Control(message, self.epoch or 0, self._sequence))
        self._sequence += 1
