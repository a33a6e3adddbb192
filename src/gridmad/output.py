"""The only writer of stdout: whole lines, one write for all that is ready."""

import asyncio
import contextlib
import fcntl
import os
import stat
from collections.abc import Callable

PIPE_SIZE = 1 << 20
"""Bytes asked for each pipe: gwd holds its locks while it writes, so it should not wait."""


def widen(descriptor: int) -> None:
    """Give a pipe as much room as an unprivileged process may; not being allowed is fine."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_SIZE)


class Output:
    """Writes lines without ever blocking the loop, and keeps what does not fit yet.

    `backlog` is the number of bytes kept.  When it falls to nothing `drained` is called;
    when the other side is gone or cannot be written to, `lost` is, once, with the reason, and
    later lines are dropped.
    """

    def __init__(
        self, descriptor: int, drained: Callable[[], None], lost: Callable[[OSError], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = _unblock(descriptor)
        self._drained = drained
        self._lost = lost
        self._lines: list[bytes] = []
        self._rest = memoryview(b"")
        self._is_waiting = False
        self.is_lost = False

    @property
    def backlog(self) -> int:
        """Bytes that the reader has not taken yet."""
        return len(self._rest) + sum(map(len, self._lines))

    def write(self, lines: bytes) -> None:
        """Keep whole lines for the next flush."""
        if not self.is_lost:
            self._lines.append(lines)

    def flush(self) -> None:
        """Write all that is kept, as far as the reader takes it."""
        while (self._lines or self._rest) and not self._is_waiting and not self.is_lost:
            if not self._rest:
                lines, self._lines = self._lines, []
                self._rest = memoryview(lines[0] if len(lines) == 1 else b"".join(lines))
            try:
                written = os.write(self._descriptor, self._rest)
            except BlockingIOError:
                self._wait()
            except OSError as error:
                self._lose(error)
            else:
                self._rest = self._rest[written:]

    def flush_blocking(self) -> None:
        """Write what is kept while the loop cannot: the last words of a stuck daemon."""
        os.set_blocking(self._descriptor, True)
        with contextlib.suppress(OSError):
            rest = memoryview(b"".join([self._rest, *self._lines]))
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def _wait(self) -> None:
        self._is_waiting = True
        self._loop.add_writer(self._descriptor, self._writable)

    def _writable(self) -> None:
        self._loop.remove_writer(self._descriptor)
        self._is_waiting = False
        self.flush()
        if not self._is_waiting:
            self._drained()

    def _lose(self, error: OSError) -> None:
        self.is_lost = True
        self._lines.clear()
        self._rest = memoryview(b"")
        self._lost(error)


def _unblock(descriptor: int) -> int:
    """Make writes not block, but never for others who share a terminal or a pipe with us."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or os.isatty(descriptor):
        widen(descriptor)
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            # A description of our own: O_NONBLOCK is then nobody else's.
            own = os.open(f"/proc/self/fd/{descriptor}", flags)
        except OSError:
            if stat.S_ISFIFO(mode):
                os.set_blocking(descriptor, False)
        else:
            os.dup2(own, descriptor, inheritable=False)
            os.close(own)
    elif stat.S_ISSOCK(mode):
        os.set_blocking(descriptor, False)
    return descriptor
