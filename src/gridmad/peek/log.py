"""The log of a job's frames: how its entries are read, and what the producer asks of it.

No I/O; spool.py keeps the log.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from gridmad.peek.frame import HEADER_LENGTH, MAC_LENGTH, Frame, FrameType
from gridmad.peek.messages import Gap

# Type, source, flags, raw length, sequence, offset, time, encoded length (PROTOCOL.md, 3).
_HEADER: Final = struct.Struct("<4xBBH4xIQQQI4x")
_MAC: Final = 2
_GAP: Final = int(FrameType.GAP)

assert _HEADER.size == HEADER_LENGTH


class Log(Protocol):
    """Frames with numbers, from 0, by their place; the oldest ones can be gone.

    Sources have offsets; times are in ms since 1970.
    """

    @property
    def first(self) -> int:
        """The number of the oldest frame."""

    @property
    def end(self) -> int:
        """The number of the frame that will be appended next."""

    def offset(self, source: int) -> int:
        """The offset behind the newest byte."""

    def oldest(self, source: int) -> int:
        """The offset of the oldest byte that is there."""

    def committed(self, source: int) -> int:
        """The offset up to which a client has committed."""

    def commit(self, source: int, offset: int) -> None:
        """The client has everything before this offset for good."""

    def frames(self, number: int) -> tuple[int, list[bytes]]:
        """Frames that follow one another, among them this one or else the oldest, and the
        number of the first.  OSError when they cannot be read.
        """

    def locate(self, source: int, offset: int) -> int:
        """The number of a frame from which on to look for an offset."""

    def since(self, source: int, time: int) -> int:
        """The offset of the first byte that was read at this time or later."""

    def tail(self, source: int, lines: int, decode: Callable[[bytes], list[Frame]]) -> int:
        """The offset at which the last lines begin, or that of the oldest byte."""

    def suffix(self, size: int) -> int:
        """The number from which on what is not committed has at most `size` bytes."""


class Entry(NamedTuple):
    """What the header of a frame in the log says; `end` is the offset behind what it holds, or
    behind what is missing.
    """

    type: int
    source: int
    sequence: int
    offset: int
    end: int
    time: int


def entry(frame: bytes) -> Entry:
    """Read the header of a frame that was made here."""
    kind, source, _, length, sequence, offset, time, _ = _HEADER.unpack_from(frame)
    if kind == _GAP:
        length = Gap.decode(frame[HEADER_LENGTH : HEADER_LENGTH + length]).length
    return Entry(kind, source, sequence, offset, offset + length, time)


def split(data: bytes) -> list[bytes]:
    """The frames that were joined."""
    frames = []
    begin = 0
    while begin < len(data):
        fields = _HEADER.unpack_from(data, begin)
        end = begin + HEADER_LENGTH + fields[7] + (MAC_LENGTH if fields[2] & _MAC else 0)
        frames.append(data[begin:end])
        begin = end
    return frames
