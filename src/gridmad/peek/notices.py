"""What a client tells whoever runs it while it watches: one dataclass for each kind of news.

Texts come from the job or the broker: show them only with what is not printable removed
(`printable`).  Offsets and lengths are in bytes, times in ms since 1970, spans in seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

MAX_SHOWN: Final = 256


def printable(text: str) -> str:
    """The text on one line and without control characters, cut to 256 characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_SHOWN])


@dataclass(frozen=True, slots=True)
class Connected:
    """A broker has accepted the login; `endpoint` is host:port."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """A broker could not be reached or was lost; it is tried again without end."""

    endpoint: str
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """No job side has answered yet."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The job side answers and its output follows, from these offsets."""

    name: str
    host: str
    start: Mapping[int, int]
    began: int


@dataclass(frozen=True, slots=True)
class Draining:
    """The job side has left; what it left in the broker follows."""


@dataclass(frozen=True, slots=True)
class Stalled:
    """Nothing was heard from the job side for so long; it is asked again and again."""

    silence: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """It is heard again."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The job was started again: its output begins anew."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes that are missing and will not come.

    `reason` is that of the GAP, or "taken": they were parked, and have gone to another client.
    """

    source: int
    offset: int
    length: int
    reason: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """Frames that were dropped so far since they were damaged or forged."""

    count: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is.  `lag` is what the job is known to have printed beyond."""

    received: int
    rate: float
    lag: int


class Verdict(Enum):
    """What the comparison of digests says about one source."""

    VERIFIED = "verified"
    LATE = "not verified: it was not watched from its first byte"
    INCOMPLETE = "not verified: bytes are missing"
    UNKNOWN = "not verified: the job side has no digest"
    UNREADABLE = "not verified: the file could not be read again"
    MISMATCH = "MISMATCH: what was written is not what the job printed"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The comparison at the end, for each source."""

    sources: Mapping[int, Verdict]


Notice = (
    Connected
    | Reconnecting
    | Waiting
    | Hello
    | Draining
    | Stalled
    | Resumed
    | Attempt
    | Gap
    | Damaged
    | Progress
    | Verdicts
)
