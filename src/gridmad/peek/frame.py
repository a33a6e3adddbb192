"""Frames: the bytes of one STOMP body, and the codec of one stream (PROTOCOL.md, 3).

The header, its checksum and the walk over a body are compiled (gridmad._chunk); what is
compressed and how frames are authenticated is decided here.  No I/O.
"""

import hmac
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Final

from gridmad import _chunk
from gridmad._chunk import Frame
from gridmad.errors import MissingDependencyError, UsageError
from gridmad.peek.stream import MAX_KEY, MIN_KEY, valid_stream

__all__ = [
    "HEADER_LENGTH",
    "MAC_LENGTH",
    "MAX_BODY",
    "MAX_RAW",
    "Codec",
    "Frame",
    "FrameType",
    "Source",
]

HEADER_LENGTH: Final = _chunk.HEADER_LENGTH
MAC_LENGTH: Final = _chunk.MAC_LENGTH
MAX_RAW: Final = _chunk.MAX_RAW
"""Bytes of a payload before compression."""
MAX_BODY: Final = _chunk.MAX_BODY
"""Bytes of the frames of one STOMP message."""

COMPRESS_FROM: Final = 512
"""Bytes from which on a chunk is compressed: below, LZ4 finds too little to be worth its call."""
ACCELERATION: Final = 3
"""LZ4's, of which each step is faster and leaves more.  Logs in chunks of 64 KiB shrink, at so
many ns a byte: 1 2.55x/1.35, 2 2.47x/1.27, 3 2.37x/1.14, 4 2.38x/1.14, 6 2.27x/1.10, 8
2.10x/0.95.  3 is the knee: half of the time that 8 saves, and above 2.3x."""


class FrameType(IntEnum):
    """What a frame is; below 16 from the job side, from 16 on from clients."""

    CHUNK = 1
    GAP = 2
    HELLO = 3
    ALIVE = 4
    EOS = 5
    DENIED = 6
    REVOKED = 7
    TOKEN = 8
    PRESENT = 9
    BEGIN = 16
    ACK = 17
    BYE = 18
    ROLL = 19
    PROBE = 20


class Source(IntEnum):
    """Where bytes come from (section 1)."""

    META = 0
    STDOUT = 1
    STDERR = 2


class Codec:
    """Makes and reads the frames of one stream, with its key if there is one.

    Frames may be made in several threads at once; bodies are decoded in one at a time.
    UsageError where the stream's name or the key's length is wrong, and
    MissingDependencyError when a chunk is to be compressed and lz4 is not installed.
    """

    damaged: int
    """Frames that were dropped."""

    def __init__(self, stream: str, key: bytes | None = None) -> None:
        valid_stream(stream)
        self.damaged = 0
        self._mac: hmac.HMAC | None = None
        if key is not None:
            if not MIN_KEY <= len(key) <= MAX_KEY:
                raise UsageError(f"a key has {MIN_KEY} to {MAX_KEY} bytes")
            self._mac = hmac.new(key, stream.encode(), "sha256")
        self._compress: Callable[[bytes | bytearray | memoryview], bytes] | None = None

    def chunk(
        self,
        source: int,
        epoch: int,
        sequence: int,
        offset: int,
        time: int,
        data: bytes | bytearray | memoryview,
    ) -> bytes:
        """A CHUNK of 1 to 65,536 bytes that was read at `time` (ms), compressed where that pays.

        ValueError or OverflowError where a number is out of its range.
        """
        if len(data) >= COMPRESS_FROM:
            compress = self._compress or self._load()
            block = compress(data)
            if len(block) < len(data):
                return _chunk.encode(
                    1, source, epoch, sequence, offset, time, block, len(data), self._mac
                )
        return _chunk.encode(1, source, epoch, sequence, offset, time, data, -1, self._mac)

    def frame(
        self,
        type: int,  # noqa: A002 - the field's name in the protocol
        payload: bytes,
        *,
        epoch: int,
        sequence: int,
        time: int,
        source: int = 0,
        offset: int = 0,
    ) -> bytes:
        """Any frame, its payload as it is; ValueError or OverflowError as in `chunk`."""
        return _chunk.encode(type, source, epoch, sequence, offset, time, payload, -1, self._mac)

    def decode(self, body: bytes) -> list[Frame]:
        """The frames of one STOMP body.  Never raises: damaged ones are dropped and counted."""
        frames, damaged = _chunk.decode(body, self._mac)
        self.damaged += damaged
        return frames

    def _load(self) -> Callable[[bytes | bytearray | memoryview], bytes]:
        try:
            from lz4.block import compress
        except ImportError:
            raise MissingDependencyError("lz4", "peek") from None

        self._compress = partial(compress, mode="fast", acceleration=ACCELERATION, store_size=False)
        return self._compress
