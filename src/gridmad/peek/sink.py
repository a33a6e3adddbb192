"""Where a client's output goes if not to a file: whatever has a Sink's methods."""

import hashlib

from gridmad.peek.messages import Start
from gridmad.peek.tail import Since, Tail
from gridmad.peek.terminal import Sink


class SinkOutput:
    """A sink, and the digests of what it got.

    Where the job side has left, what it parked is taken from `start` on here, since nobody
    else can count lines or look at times.
    """

    def __init__(self, sink: Sink, start: Start) -> None:
        self._sink = sink
        self._start: Start | None = start
        self._digests: dict[int, hashlib._Hash] = {}

    def drain(self) -> None:
        """What follows comes from the park, unlike anything before."""
        start, self._start = self._start, None
        if start is not None and start.value is not None:
            if start.kind == "tail":
                self._sink = Tail(self._sink, start.value)
            elif start.kind == "since":
                self._sink = Since(self._sink, start.value)

    def place(self, epoch: int, source: int, offset: int) -> None:
        """What follows of a source begins at that offset."""
        if offset == 0:
            self._digests[source] = hashlib.sha256()

    def write(self, source: int, offset: int, time: int, data: bytes) -> None:
        """As Sink.write."""
        self._start = None
        self._sink.write(source, offset, time, data)
        digest = self._digests.get(source)
        if digest is not None:
            digest.update(data)

    def gap(self, source: int, offset: int, length: int, reason: str) -> None:
        """As Sink.gap."""
        self._start = None
        self._sink.gap(source, offset, length, reason)
        self._digests.pop(source, None)

    def attempt(self, epoch: int) -> None:
        """As Sink.attempt; each source begins at 0."""
        self._sink.attempt(epoch)
        self._digests = {source: hashlib.sha256() for source in (1, 2)}

    def flush(self) -> None:
        """As Sink.flush."""
        self._sink.flush()

    def commit(self) -> None:
        """Have what was written shown."""
        self._sink.flush()

    def digest(self, source: int) -> str | None:
        """Of all bytes of a source; None where some did not come."""
        found = self._digests.get(source)
        return None if found is None else found.hexdigest()

    def finished(self, exit_code: int) -> None:
        """Nothing is kept."""

    def finish(self) -> None:
        """As Sink.finish."""
        self._sink.finish()

    def close(self) -> None:
        """Nothing is open."""
