"""Job output put in order: each byte once, what is missing as a gap (PROTOCOL.md, 5 and 8).

No I/O.  Frames of one attempt of the job come in any order, doubled and with holes; what is
appended to `events` is, per source, without any of that.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from gridmad.peek.errors import FrameError
from gridmad.peek.frame import Frame, FrameType
from gridmad.peek.messages import Gap
from gridmad.peek.track import Track

TAKEN: Final = "taken"
"""The reason of a gap that the client found itself: the park does not have these bytes."""


class Output(NamedTuple):
    """The next bytes of a source."""

    source: int
    offset: int
    time: int
    data: bytes


class Missing(NamedTuple):
    """The next bytes of a source will not come."""

    source: int
    offset: int
    length: int
    reason: str


class Placed(NamedTuple):
    """A source begins at that offset."""

    epoch: int
    source: int
    offset: int


class Attempt(NamedTuple):
    """The job was started again, and each source begins at 0."""

    epoch: int


Event = Output | Missing | Placed | Attempt

_CHUNK: Final = int(FrameType.CHUNK)
_GAP: Final = int(FrameType.GAP)
LAST_OUTPUT: Final = _GAP
"""The types of frames up to this one are for a Reception: CHUNK and GAP."""


class Reception:
    """The sources of a stream that one client wants."""

    def __init__(self, sources: Iterable[int]) -> None:
        self.tracks = {source: Track(source) for source in sorted(sources)}
        self.keeps_all = False
        """What is dropped will not come again, as in the park; elsewhere the credit bounds
        what is kept."""
        self.damaged = 0
        """Chunks that waited and could not be decompressed."""

    def take(self, frame: Frame, now: float, events: list[Event]) -> None:
        """Take a CHUNK or a GAP; FrameError where that is damaged."""
        track = self.tracks.get(frame.source)
        if track is not None and track.is_placed:
            self._take(track, frame, now, events)

    def skip(self, track: Track, end: int, now: float, events: list[Event]) -> None:
        """Give up what comes before `end`."""
        self._miss(track, end, TAKEN, events)
        self._release(track, now, events)

    def _take(self, track: Track, frame: Frame, now: float, events: list[Event]) -> None:
        offset, start = frame.offset, track.next
        if offset > start:
            self._park(track, frame, now, events)
            return
        if frame.type == _CHUNK:
            if offset + frame.raw_length <= start:
                return
            data = frame.data()
            if offset < start:
                data = data[start - offset :]
            events.append(Output(track.source, start, frame.time, data))
            track.next = start + len(data)
        else:
            gap = Gap.decode(frame.payload)
            if offset + gap.length <= start:
                return
            self._miss(track, offset + gap.length, gap.reason, events)
        if track.has_waiting:
            self._release(track, now, events)

    def _park(self, track: Track, frame: Frame, now: float, events: list[Event]) -> None:
        end = _end(frame)
        if not self.keeps_all:
            # No job side sends beyond its credit: what would never have its turn takes no room.
            if frame.type == _GAP or end <= track.limit:
                track.park(frame, end, now)
            return
        while not track.park(frame, end, now):
            # Rather a gap than a loss that nobody sees.
            assert track.first_waiting is not None
            self.skip(track, min(track.first_waiting, frame.offset), now, events)
            if frame.offset <= track.next:
                self._take(track, frame, now, events)
                return

    def _release(self, track: Track, now: float, events: list[Event]) -> None:
        while (frame := track.pop_ready()) is not None:
            try:
                self._take(track, frame, now, events)
            except FrameError:
                self.damaged += 1
        track.waits_since = now if track.has_waiting else None

    def _miss(self, track: Track, end: int, reason: str, events: list[Event]) -> None:
        missing = Missing(track.source, track.next, end - track.next, reason)
        events.append(missing)
        track.missing += missing.length
        track.next = end


def _end(frame: Frame) -> int:
    if frame.type == _CHUNK:
        return frame.offset + frame.raw_length
    return frame.offset + Gap.decode(frame.payload).length
