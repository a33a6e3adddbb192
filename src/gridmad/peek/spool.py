r"""The spool: a bounded log of encoded frames, in the order in which they were made.

    append -> open block -> blocks in memory -> (not committed) -> segments on disk -> dropped
                                            \-> (committed) -> dropped

What goes on the wire is made once: whoever asks again gets the same bytes.  Frames gather in
blocks of some 128 KiB.  A client that keeps up is served from memory, and the disk is not
touched.  One thread a source appends, one reads.

Frames have numbers, from 0, by their place in the log; the oldest ones can be gone.
"""

import logging
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gridmad.peek.frame import Frame, FrameType, Source
from gridmad.peek.log import Entry, entry, split
from gridmad.peek.segments import NamelessFiles, Segment

LOGGER = logging.getLogger(__name__)

SOURCES: Final = (Source.STDOUT, Source.STDERR)
MEMORY: Final = 8 << 20
"""Bytes of frames that are kept in memory, committed or not."""
BLOCK: Final = 192 << 10
"""Bytes of frames after which a new block begins."""
SEGMENT: Final = 8 << 20
"""Bytes of a segment; less where the spool is so small that few would fit."""

# What the memory holds of a frame beside its bytes: an object's head and a place in a list.
_OVERHEAD: Final = 64


@dataclass(slots=True)
class _Block:
    """Frames that follow one another, in memory; key: number, start of each source, time."""

    key: tuple[int, int, int, int]
    frames: list[bytes] = field(default_factory=list)
    cost: int = 0


# Columns of a block's key; those of the sources are their numbers.
_NUMBER: Final = 0
_TIME: Final = 3


class Spool:
    """The frames of a job that a client may still ask for.

    `size` bounds the bytes on disk, in `folder` or where temporary files go; in memory there
    are up to `memory` beside.  Where that is not enough, or the disk is full, the oldest
    frames are dropped whether or not they were committed, or `append` waits for a commit
    while `is_blocking`.
    """

    def __init__(
        self,
        folder: Path | None = None,
        size: int = 0,
        *,
        is_blocking: bool = False,
        memory: int = MEMORY,
    ) -> None:
        self._files = NamelessFiles(folder)
        self._size = size
        self._segment_size = min(SEGMENT, max(size // 8, BLOCK))
        self._memory = memory
        self._is_blocking = is_blocking
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._segments: deque[Segment] = deque()
        self._blocks: deque[_Block] = deque([_Block((0, 0, 0, 0))])
        self._cost = 0
        self._on_disk = 0
        self._is_disk_bad = False
        self._end = 0
        self._ends = [0, 0, 0]
        self._committed = [0, 0, 0]
        self._is_dropping = False

    # ------------------------------------------------------------ writing

    def append(self, source: int, end: int, time: int, frame: bytes) -> None:
        """Add a frame that reaches to the offset `end` of its source."""
        with self._lock:
            block = self._blocks[-1]
            if block.cost >= BLOCK or not block.frames:
                if block.frames:
                    block = _Block((self._end, self._ends[1], self._ends[2], time))
                    self._blocks.append(block)
                else:
                    block.key = (*block.key[:_TIME], time)
            block.frames.append(frame)
            cost = len(frame) + _OVERHEAD
            block.cost += cost
            self._cost += cost
            self._ends[source] = end
            self._end += 1
            if self._cost > self._memory:
                self._shrink()

    def commit(self, source: int, offset: int) -> None:
        """The client has everything before this offset for good."""
        with self._lock:
            if offset <= self._committed[source]:
                return
            self._committed[source] = min(offset, self._ends[source])
            while self._segments and self._is_committed(self._start_behind(0)):
                self._drop_segment()
            self._room.notify_all()

    def release(self) -> None:
        """From now on drop frames where `append` had to wait."""
        with self._lock:
            self._is_blocking = False
            self._room.notify_all()

    def _shrink(self) -> None:
        """Bring what is in memory below its bound."""
        while self._cost > self._memory and len(self._blocks) > 1:
            block = self._blocks[0]
            if not self._is_committed(self._blocks[1].key) and not self._store(block):
                if self._is_blocking:
                    self._room.wait()
                    continue
                self._note_dropping()
                if self._segments:
                    self._drop_segment()
                    continue
            self._blocks.popleft()
            self._cost -= block.cost

    def _store(self, block: _Block) -> bool:
        """Write a block to disk, unless the bound is reached or the disk does not take it."""
        data = b"".join(block.frames)
        if self._on_disk + len(data) > self._size:
            return False
        try:
            if not self._segments or self._segments[-1].size >= self._segment_size:
                self._segments.append(Segment(self._files, len(block.key)))
            self._segments[-1].append(block.key, data)
        except OSError as error:
            if not self._is_disk_bad:
                LOGGER.warning("the spool cannot grow: %s", error)
                self._is_disk_bad = True
            if self._segments and not len(self._segments[-1]):
                self._segments.pop()
            return False
        self._on_disk += len(data)
        return True

    def _drop_segment(self) -> None:
        self._on_disk -= self._segments.popleft().size

    def _note_dropping(self) -> None:
        if not self._is_dropping:
            LOGGER.warning("the spool is full: the oldest output that nobody has got is dropped")
            self._is_dropping = True

    def _is_committed(self, key: tuple[int, ...]) -> bool:
        """Whether all that lies before the block with this key is."""
        return all(key[source] <= self._committed[source] for source in SOURCES)

    def _start_behind(self, index: int) -> tuple[int, ...]:
        """The key of the block behind a segment."""
        if index + 1 < len(self._segments):
            return self._segments[index + 1].key(0)
        return self._blocks[0].key

    # ------------------------------------------------------------ reading

    @property
    def end(self) -> int:
        """The number of the frame that will be appended next."""
        return self._end

    @property
    def first(self) -> int:
        """The number of the oldest frame."""
        with self._lock:
            return self._first_key()[_NUMBER]

    def offset(self, source: int) -> int:
        """The offset behind the newest byte."""
        return self._ends[source]

    def oldest(self, source: int) -> int:
        """The offset of the oldest byte that is there."""
        with self._lock:
            return self._first_key()[source]

    def committed(self, source: int) -> int:
        """The offset up to which a client has committed."""
        return self._committed[source]

    def frames(self, number: int) -> tuple[int, list[bytes]]:
        """The block with this frame, or the oldest: the number of its first frame, its frames.

        The newest block's list grows while frames are appended.  OSError when the disk fails.
        """
        with self._lock:
            if number >= self._blocks[0].key[_NUMBER] or not self._segments:
                block = self._blocks[0]
                for candidate in reversed(self._blocks):
                    if candidate.key[_NUMBER] <= number:
                        block = candidate
                        break
                return block.key[_NUMBER], block.frames
            segment = self._segment(_NUMBER, number)
            index = segment.find(_NUMBER, number)
            first = segment.key(index)[_NUMBER]
        # The segment lives while it is read, even when the spool drops it meanwhile.
        return first, split(segment.read(index))

    def locate(self, source: int, offset: int) -> int:
        """The number of a frame from which on to look for an offset: its block's first."""
        return self._find(source, offset)

    def since(self, source: int, time: int) -> int:
        """The offset of the first byte that was read at this time (ms) or later."""
        number = self._find(_TIME, time - 1)
        for _, item in self._walk(number):
            if item.source == source and item.time >= time:
                return item.offset
        return self._ends[source]

    def tail(self, source: int, lines: int, decode: Callable[[bytes], list[Frame]]) -> int:
        """The offset at which the last lines begin, or that of the oldest byte.

        What follows the last newline is a line, too.
        """
        end = self._ends[source]
        if not lines:
            return end
        is_last = True
        for frame, item in self._walk_back():
            if item.source != source or item.type != FrameType.CHUNK:
                continue
            data = b"".join(chunk.data() for chunk in decode(frame))
            before = len(data)
            if is_last:
                is_last = False
                before -= data.endswith(b"\n")
            count = data.count(b"\n", 0, before)
            if count < lines:
                lines -= count
                continue
            for _ in range(lines):
                before = data.rindex(b"\n", 0, before)
            return item.offset + before + 1
        return min(self.oldest(source), end)

    def suffix(self, size: int) -> int:
        """The number from which on what is not committed has at most `size` bytes."""
        number = self._end
        for frame, item in self._walk_back():
            if item.end > self._committed[item.source]:
                size -= len(frame)
                if size < 0:
                    break
            number -= 1
        return number

    def _walk(self, number: int) -> Iterator[tuple[bytes, Entry]]:
        while number < self._end:
            first, frames = self.frames(number)
            for frame in frames[max(number - first, 0) :]:
                yield frame, entry(frame)
            number = first + len(frames)

    def _walk_back(self) -> Iterator[tuple[bytes, Entry]]:
        number = self._end
        while number > self.first:
            first, frames = self.frames(number - 1)
            for frame in reversed(frames[: number - first]):
                yield frame, entry(frame)
            number = first

    def _first_key(self) -> tuple[int, ...]:
        return self._segments[0].key(0) if self._segments else self._blocks[0].key

    def _find(self, column: int, value: int) -> int:
        with self._lock:
            if not self._segments or value >= self._blocks[0].key[column]:
                keys = [block.key for block in self._blocks]
                index = max(bisect_right(keys, value, key=lambda key: key[column]) - 1, 0)
                return keys[index][_NUMBER]
            segment = self._segment(column, value)
            return segment.key(segment.find(column, value))[_NUMBER]

    def _segment(self, column: int, value: int) -> Segment:
        """The last segment whose first key is not above the value, or else the first."""
        index = bisect_right(self._segments, value, key=lambda segment: segment.key(0)[column])
        return self._segments[max(index - 1, 0)]
