"""What of the log goes into the next body: frames, and GAPs for what is lost (PROTOCOL.md, 5, 8).

No I/O of its own; the log is whatever has the spool's methods.  One thread uses it.
"""

from dataclasses import dataclass
from typing import Final, Literal

from gridmad.peek.frame import Codec, FrameType
from gridmad.peek.log import Log, entry
from gridmad.peek.messages import Gap

BODY: Final = 184 << 10
"""Bytes of frames after which a body is sent: with a frame and some GAPs more it is still
below MAX_BODY."""


_CHUNK: Final = int(FrameType.CHUNK)


@dataclass(slots=True)
class Cursor:
    """How far one source was sent to somebody, and how far it may be."""

    number: int
    offset: int
    limit: int
    stuck: int = -1
    """The limit at which the next frame did not fit."""


class Gathering:
    """Reads the frames of a log for cursors that move on; `epoch` is that of the GAPs."""

    def __init__(self, log: Log, codec: Codec, epoch: int) -> None:
        self._log = log
        self._codec = codec
        self._epoch = epoch
        self._block: tuple[int, list[bytes]] = (0, [])

    def gather(
        self, cursors: dict[int, Cursor], time: int, cut: Literal["spool", "park"] = "spool"
    ) -> tuple[list[bytes], int]:
        """Frames for one body, and their size; the cursors move on.

        A source whose credit has run out does not hold up the other.  What the log has lost
        becomes a GAP, and where frames are `cut` what lies before the cursors' first, too.
        `time` is in ms since 1970.  OSError when the log cannot be read.
        """
        body: list[bytes] = []
        size = 0
        while size < BODY:
            end = self._log.end
            moving = {
                source: cursor
                for source, cursor in cursors.items()
                if cursor.number < end and cursor.stuck != cursor.limit
            }
            if not moving:
                break
            number = min(cursor.number for cursor in moving.values())
            first, frames = self._read(number)
            number = max(number, first)  # what lay between has been dropped
            for frame in frames[number - first :]:
                kind, source, _, offset, frame_end, _ = entry(frame)
                cursor = moving.get(source)
                number += 1
                if cursor is None or cursor.number >= number or cursor.offset >= frame_end:
                    continue
                # A chunk has to fit into the credit; of what is missing the first byte has.
                reach = frame_end if kind == _CHUNK else cursor.offset + 1
                if offset > cursor.offset and cursor.offset < cursor.limit:
                    gaps = self._gaps(source, cursor, offset, time, cut)
                    body += gaps
                    size += sum(map(len, gaps))
                if offset > cursor.offset or reach > cursor.limit:
                    cursor.number = number - 1
                    cursor.stuck = cursor.limit
                    del moving[source]
                    if not moving:
                        break
                    continue
                body.append(frame)
                size += len(frame)
                cursor.offset = frame_end
                if size >= BODY:
                    break
            for cursor in moving.values():
                cursor.number = max(cursor.number, number)
        for source, cursor in cursors.items():
            if cursor.number >= self._log.end and cursor.offset < cursor.limit:
                # Of a source that went silent nothing may be left that shows the loss.
                known = self._log.offset(source) if cut == "park" else self._log.oldest(source)
                if cursor.offset < known:
                    gaps = self._gaps(source, cursor, known, time, cut)
                    body += gaps
                    size += sum(map(len, gaps))
        return body, size

    def _gaps(
        self, source: int, cursor: Cursor, end: int, time: int, cut: Literal["spool", "park"]
    ) -> list[bytes]:
        """Say that everything up to `end` is missing, and why; the cursor moves there."""
        lost = min(self._log.oldest(source), end) if cut == "park" else end
        sequence = self._oldest_sequence()
        gaps = []
        edges: list[tuple[int, Literal["spool", "park"]]] = [(lost, "spool"), (end, cut)]
        for edge, reason in edges:
            if edge > cursor.offset:
                gaps.append(
                    self._codec.frame(
                        FrameType.GAP,
                        Gap(edge - cursor.offset, reason).encode(),
                        epoch=self._epoch,
                        sequence=sequence,
                        time=time,
                        source=source,
                        offset=cursor.offset,
                    )
                )
                cursor.offset = edge
        return gaps

    def _oldest_sequence(self) -> int:
        """Where a gap belongs in the order of all frames: where the log begins."""
        return entry(self._log.frames(self._log.first)[1][0]).sequence

    def _read(self, number: int) -> tuple[int, list[bytes]]:
        first, frames = self._block
        if not first <= number < first + len(frames):
            self._block = first, frames = self._log.frames(number)
        return first, frames
