"""How often a resource is asked: token buckets, and pauses that grow while it fails.

Nothing here waits or knows a clock: `now` is a time in seconds, by any clock that only rises.
"""

import random
from dataclasses import dataclass, field
from typing import Final

JITTER: Final = 0.2
"""Part of a pause that is left to chance, so that many drivers do not ask all at once."""


@dataclass(slots=True)
class TokenBucket:
    """Gives `rate` tokens a second, and keeps up to `burst` (at least 1) for later."""

    rate: float
    burst: float
    _tokens: float = field(init=False)
    _filled: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._tokens = self.burst

    def take(self, now: float, most: int = 1) -> int:
        """Take up to `most` whole tokens; how many there were."""
        self._fill(now)
        taken = min(most, int(self._tokens))
        self._tokens -= taken
        return taken

    def wait(self, now: float) -> float:
        """Seconds until there is a token."""
        self._fill(now)
        return max(0.0, (1.0 - self._tokens) / self.rate)

    def _fill(self, now: float) -> None:
        if now > self._filled:
            self._tokens = min(self.burst, self._tokens + (now - self._filled) * self.rate)
            self._filled = now


@dataclass(slots=True)
class Breaker:
    """Keeps away from an endpoint that fails: `shortest` seconds at first, twice as long after
    each failure, `longest` at most.
    """

    shortest: float
    longest: float
    failures: int = 0
    """In a row."""
    until: float = 0.0
    """When the pause is over."""

    @property
    def is_open(self) -> bool:
        """The last attempt failed."""
        return self.failures > 0

    def wait(self, now: float) -> float:
        """Seconds until an attempt may be made."""
        return max(0.0, self.until - now)

    def failed(self, now: float) -> None:
        """An attempt failed.  What fails within a pause counts no further: it began before."""
        if now < self.until:
            return
        pause = min(self.longest, self.shortest * 2.0 ** min(self.failures, 30))
        self.failures += 1
        self.until = now + pause * (1 + JITTER * (2 * random.random() - 1))  # noqa: S311

    def succeeded(self) -> bool:
        """An attempt succeeded; whether that is news."""
        was_open = self.is_open
        self.failures = 0
        self.until = 0.0
        return was_open
