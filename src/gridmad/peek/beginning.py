"""When a client asks for the stream, and which HELLO answers it (PROTOCOL.md, 5).  No I/O.

One BEGIN is under way at a time; times are in monotonic seconds.
"""

from typing import Final, Literal

BEGIN_FIRST: Final = 1.0
"""Seconds to the first repetition of BEGIN; each later one waits half as long again."""
BEGIN_LAST: Final = 5.0
BEGIN_UNDER_WAY: Final = 2.0
"""Seconds that one BEGIN is waited for."""
BEGIN_SPACING: Final = 0.25
"""Seconds between two BEGINs, whatever goes wrong."""


class Beginning:
    """The BEGINs of one client; `sequence` is the first of its control frames."""

    def __init__(self, sequence: int, mode: Literal["exclusive", "takeover"]) -> None:
        self.mode = mode
        """What the next one says."""
        self.is_wanted = True
        """Whether one is due as soon as none is under way."""
        self.count = 0
        """How many were sent."""
        self.round_trip = 0.0
        """Seconds from the last one that was answered to its HELLO."""
        self._sequence = self._oldest = sequence
        self._sent_at: float | None = None
        self._patience = BEGIN_FIRST
        self._is_answered = True

    @property
    def is_answered(self) -> bool:
        """Whether none is under way."""
        return self._is_answered

    def restart(self) -> None:
        """Ask at once, and repeat it soon: nothing that is under way is waited for."""
        self.is_wanted = True
        self._is_answered = True
        self._patience = BEGIN_FIRST

    def forget(self, sequence: int) -> None:
        """Only what is asked from this sequence on can be answered."""
        self._oldest = sequence

    def is_due(self, now: float, spacing: float, *, is_seeking: bool) -> bool:
        """Whether to send one now."""
        if not self.is_wanted or self._sent_at is None:
            return self.is_wanted
        return now - self._sent_at >= self._wait(spacing, is_seeking)

    def sent(self, sequence: int, now: float, *, is_seeking: bool) -> None:
        """One was sent."""
        if is_seeking and not self._is_answered and self._sent_at is not None:
            self._patience = min(BEGIN_LAST, 1.5 * self._patience)
        self._sent_at = now
        self._sequence = sequence
        self._is_answered = False
        self.count += 1

    def is_answer(self, answers: int) -> bool:
        """Whether a HELLO with that member is for one of these BEGINs."""
        return self.count > 0 and self._oldest <= answers <= self._sequence

    def answered(self, answers: int, now: float) -> None:
        """A HELLO came, for the last BEGIN or one before."""
        # Whoever has the stream only goes on with it: he must not take it back unawares.
        self.mode = "exclusive"
        if answers != self._sequence:
            return
        if self._sent_at is not None:
            self.round_trip = now - self._sent_at
        self.is_wanted = False
        self._is_answered = True

    def _wait(self, spacing: float, is_seeking: bool) -> float:
        if self._is_answered:
            return spacing
        return self._patience if is_seeking else BEGIN_UNDER_WAY
