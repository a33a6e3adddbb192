"""One source as a client sees it: what was taken, what waits, and the credit (PROTOCOL.md, 5).

No I/O.  Offsets and sizes in bytes, `now` in monotonic seconds.
"""

import heapq
from typing import Final

from gridmad.peek.frame import Frame
from gridmad.peek.notices import Verdict

MIN_WINDOW: Final = 1 << 20
MAX_WINDOW: Final = 16 << 20
"""Of all sources together, as far as they grow."""
GROWTH_TIME: Final = 0.5
"""A window that is used up in less is too small."""
GROWTH_ROUND_TRIPS: Final = 4
"""So is one that is used up in so many round trips."""
MAX_PARKED: Final = 4 << 20
"""Bytes that one source keeps ahead of their turn."""
PARKED_COST: Final = 256
"""Bytes that each frame takes beside its payload."""


class Track:
    """One source.

    `next` is the first byte not taken, `origin` the first one that was, `end` as far as the
    job side is known to have read, `missing` what gaps left out, `committed` what was
    written for good.
    """

    def __init__(self, source: int) -> None:
        self.source = source
        self.is_placed = False
        self.next = self.origin = self.end = self.missing = self.committed = 0
        self.limit = 0
        self.window = MIN_WINDOW
        self.parked = 0
        self.waits_since: float | None = None
        self._waiting: dict[int, tuple[Frame, int]] = {}
        self._order: list[int] = []
        self._mark: tuple[int, float] | None = None

    def place(self, offset: int) -> None:
        """The first byte to take is known."""
        self.is_placed = True
        self.next = self.origin = self.committed = offset
        self.missing = 0
        self.end = max(self.end, offset)

    def restart(self) -> None:
        """A new attempt of the job: from 0, with new credit."""
        self.end = self.limit = self.parked = 0
        self.waits_since = None
        self._waiting.clear()
        self._order.clear()
        self._mark = None
        self.place(0)

    def commit(self, now: float, round_trip: float, most: int) -> None:
        """All that was taken is written; the window grows, to `most`, if it is used up fast."""
        self.committed = self.next
        if self._mark is None:
            self._mark = (self.committed, now)
        elif self.committed - self._mark[0] >= self.window:
            if now - self._mark[1] < max(GROWTH_TIME, GROWTH_ROUND_TRIPS * round_trip):
                self.window = max(self.window, min(2 * self.window, most))
            self._mark = (self.committed, now)

    def grant(self) -> int:
        """How far the job side may send: never less than it was told before."""
        self.limit = max(self.limit, self.committed + self.window)
        return self.limit

    def verdict(self, end: int, sha256: str | None, digest: str | None) -> Verdict:
        """Whether what was written, of that digest, is what the job side says it read."""
        if self.origin != 0:
            return Verdict.LATE
        if self.missing:
            return Verdict.INCOMPLETE
        if sha256 is None:
            return Verdict.UNKNOWN
        if digest is None:
            return Verdict.UNREADABLE
        return Verdict.VERIFIED if (digest, self.next) == (sha256, end) else Verdict.MISMATCH

    # ------------------------------------------------------------ what is ahead

    @property
    def has_waiting(self) -> bool:
        """Whether something waits for what comes before it."""
        return bool(self._order)

    @property
    def first_waiting(self) -> int | None:
        """The offset of the first that waits."""
        return self._order[0] if self._order else None

    def park(self, frame: Frame, end: int, now: float) -> bool:
        """Keep what is ahead and ends at `end`; False where there is no room for it."""
        offset = frame.offset
        cost = _cost(frame)
        known = self._waiting.get(offset)
        if known is not None:
            if known[1] >= end:
                return True
            cost -= _cost(known[0])
        if self.parked + cost > MAX_PARKED:
            return False
        self.parked += cost
        self._waiting[offset] = (frame, end)
        if known is None:
            heapq.heappush(self._order, offset)
        if self.waits_since is None:
            self.waits_since = now
        return True

    def pop_ready(self) -> Frame | None:
        """One that waits no longer: its first byte is the next, or was taken already."""
        if not self._order or self._order[0] > self.next:
            return None
        frame, _ = self._waiting.pop(heapq.heappop(self._order))
        self.parked -= _cost(frame)
        return frame


def _cost(frame: Frame) -> int:
    return frame.raw_length + PARKED_COST
