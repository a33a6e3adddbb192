"""Where to begin with a stream whose job side has left: at the last lines, or at a time."""

from collections import deque
from typing import Final

from gridmad.peek.terminal import NAMES, Sink

MAX_TAIL: Final = 16 << 20
"""Bytes of a source that are kept, whatever the number of lines."""

ENTRY: Final = 128
"""Bytes that each chunk or gap counts besides its own, so that empty ones are bounded too."""


class Tail:
    """A sink that passes on only the last lines of each source, at the end of the stream.

    For a stream whose job side has left: nobody else can count its lines (PROTOCOL.md,
    section 8).  Keeps at most MAX_TAIL bytes of a source.  What is missing before the first
    line that is shown is not told.
    """

    def __init__(self, sink: Sink, lines: int) -> None:
        """Pass on `lines` lines, the unfinished one at the end included, to `sink`."""
        self._sink = sink
        self._count = lines
        self._order = 0
        # (order, offset, time, data), or (order, offset, length, reason) of a gap
        self._kept: dict[int, deque[tuple[int, int, int, bytes | str]]] = {
            source: deque() for source in NAMES
        }
        self._newlines = dict.fromkeys(NAMES, 0)
        self._size = dict.fromkeys(NAMES, 0)

    def write(self, source: int, offset: int, time: int, data: bytes) -> None:
        """Keep it, and forget what is before the last lines for certain."""
        self._keep(source, offset, time, data)

    def gap(self, source: int, offset: int, length: int, reason: str) -> None:
        """Keep it in its place: one among the last lines is told."""
        self._keep(source, offset, length, reason)

    def _keep(self, source: int, offset: int, number: int, content: bytes | str) -> None:
        kept = self._kept[source]
        self._order += 1
        kept.append((self._order, offset, number, content))
        self._newlines[source] += _newlines(content)
        self._size[source] += ENTRY + len(content)
        while len(kept) > 1:
            first = kept[0][3]
            newlines = self._newlines[source] - _newlines(first)
            # The newline before the first line has to stay as well.
            if newlines <= self._count and self._size[source] <= MAX_TAIL:
                break
            self._newlines[source] = newlines
            self._size[source] -= ENTRY + len(first)
            kept.popleft()

    def flush(self) -> None:
        """Nothing to do: nothing is shown before the end."""

    def attempt(self, epoch: int) -> None:
        """Only the last attempt counts."""
        for source in NAMES:
            self._kept[source].clear()
            self._newlines[source] = self._size[source] = 0
        self._sink.attempt(epoch)

    def finish(self) -> None:
        """Pass on the last lines, in the order in which they came."""
        entries: list[tuple[int, int, int, int, bytes | str]] = []
        for source, kept in self._kept.items():
            wanted = self._count
            last = next((entry[3] for entry in reversed(kept) if isinstance(entry[3], bytes)), b"")
            if last.endswith(b"\n"):
                wanted += 1  # the last newline ends a line and begins none
            for order, offset, number, content in reversed(kept):
                at = -1
                if isinstance(content, bytes):
                    at = len(content)
                    while wanted and at >= 0:
                        at = content.rfind(b"\n", 0, at)
                        wanted -= at >= 0
                if isinstance(content, str) or content[at + 1 :]:
                    entries.append((order, source, offset + at + 1, number, content[at + 1 :]))
                if not wanted:
                    break
            kept.clear()
        for _, source, offset, number, content in sorted(entries, key=lambda entry: entry[0]):
            if isinstance(content, str):
                self._sink.gap(source, offset, number, content)
            else:
                self._sink.write(source, offset, number, content)
        self._sink.finish()


class Since:
    """A sink that passes on each source from the first chunk on that was read at a time or later.

    As the job side does while it is there (PROTOCOL.md, section 5).
    """

    def __init__(self, sink: Sink, time: int) -> None:
        """Pass on to `sink` what was read at `time` (ms since 1970) or later."""
        self._sink = sink
        self._time = time
        self._begun: set[int] = set()

    def write(self, source: int, offset: int, time: int, data: bytes) -> None:
        """Pass it on, or drop it."""
        if source in self._begun or time >= self._time:
            self._begun.add(source)
            self._sink.write(source, offset, time, data)

    def gap(self, source: int, offset: int, length: int, reason: str) -> None:
        """Tell one that is not before the first chunk."""
        if source in self._begun:
            self._sink.gap(source, offset, length, reason)

    def flush(self) -> None:
        """Pass it on."""
        self._sink.flush()

    def attempt(self, epoch: int) -> None:
        """Pass it on: another attempt begins at its own first chunk."""
        self._begun.clear()
        self._sink.attempt(epoch)

    def finish(self) -> None:
        """Pass it on."""
        self._sink.finish()


def _newlines(content: bytes | str) -> int:
    return content.count(b"\n") if isinstance(content, bytes) else 0
