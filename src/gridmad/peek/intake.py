"""The way of one source's bytes into the spool: masked, digested, cut into frames.

What was read as a whole chunk is copied nowhere: masking looks at it, then SHA-256 and LZ4.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from gridmad.peek.frame import MAX_RAW, Codec, FrameType
from gridmad.peek.messages import Gap
from gridmad.peek.redaction import Redactor
from gridmad.peek.spool import Spool

READ: Final = 4 * MAX_RAW
"""Bytes that are read at once, if there are: a command that waits for room in its pipe is then
woken for four chunks, not for each (measured: a quarter of its switches, 0.1 ns a byte)."""
WAKE: Final = 384 << 10
"""Bytes of frames after which the sender is woken, if it was not for another reason."""


class Intake:
    """Takes the bytes of a source; one thread at a time.

    `sequence` numbers the frames of all sources, `wake` tells the sender that there are new
    ones.  Offsets and digests are of what the redactor made of the output.
    """

    def __init__(
        self,
        source: int,
        epoch: int,
        codec: Codec,
        spool: Spool,
        sequence: Iterator[int],
        wake: Callable[[], None],
        redactor: Redactor | None = None,
    ) -> None:
        self.source = source
        self._epoch = epoch
        self._codec = codec
        self._spool = spool
        self._sequence = sequence
        self._wake = wake
        self._redactor = redactor
        self._view = memoryview(bytearray(MAX_RAW))
        self._fill = 0
        self._time = 0
        self._offset = 0
        self._unannounced = 0
        self._digest = hashlib.sha256()
        self._is_complete = True

    @property
    def is_empty(self) -> bool:
        """Nothing waits for `flush`."""
        return not (self._fill or self._unannounced)

    @property
    def digest(self) -> str | None:
        """The SHA-256 of the source in hexadecimal, where no byte was missed."""
        return self._digest.hexdigest() if self._is_complete else None

    @property
    def room(self) -> int:
        """Bytes to read at most: what they and those that wait give whole chunks."""
        return READ - self._fill

    def take(self, data: bytes) -> None:
        """Take what was read.  May wait where the spool does."""
        self._put(data if self._redactor is None else self._redactor.feed(data))

    def flush(self) -> None:
        """Make a frame of what is there, and tell the sender."""
        if self._fill:
            self._emit()
        if self._unannounced:
            self._unannounced = 0
            self._wake()

    def miss(self, length: int) -> None:
        """So many bytes were lost before they were read."""
        self._release()
        self._is_complete = False
        frame = self._codec.frame(
            FrameType.GAP,
            Gap(length, "truncated").encode(),
            epoch=self._epoch,
            sequence=next(self._sequence),
            time=time.time_ns() // 1_000_000,
            source=self.source,
            offset=self._offset,
        )
        self._append(length, frame)
        self.flush()

    def give_up(self) -> None:
        """What follows is not seen here: there is no digest of the whole."""
        self._is_complete = False

    def finish(self) -> None:
        """The end of the source."""
        self._release()
        self.flush()

    def _release(self) -> None:
        if self._redactor is not None:
            self._put(self._redactor.flush())
        if self._fill:
            self._emit()

    def _put(self, data: bytes) -> None:
        """Add what may leave, without a copy where it makes a chunk by itself."""
        self._digest.update(data)
        rest = memoryview(data)
        while rest:
            if not self._fill:
                self._time = time.time_ns() // 1_000_000
                if len(rest) >= MAX_RAW // 2:
                    self._make(rest[:MAX_RAW])
                    rest = rest[MAX_RAW:]
                    continue
            piece = rest[: MAX_RAW - self._fill]
            self._view[self._fill : self._fill + len(piece)] = piece
            self._fill += len(piece)
            rest = rest[len(piece) :]
            if self._fill == MAX_RAW:
                self._emit()

    def _emit(self) -> None:
        self._make(self._view[: self._fill])
        self._fill = 0

    def _make(self, data: memoryview) -> None:
        """A frame."""
        frame = self._codec.chunk(
            self.source, self._epoch, next(self._sequence), self._offset, self._time, data
        )
        self._append(len(data), frame)

    def _append(self, length: int, frame: bytes) -> None:
        self._offset += length
        self._unannounced += len(frame)
        if self._unannounced >= WAKE:
            self._unannounced = 0
            self._wake()
        self._spool.append(self.source, self._offset, self._time, frame)
