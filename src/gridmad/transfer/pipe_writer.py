"""Writes to a pipe from the event loop, with as few copies as can be.

asyncio's own transport joins and moves what does not fit at once, several times for large blocks;
here the pieces stay what they are until the kernel has taken them.
"""

import asyncio
import fcntl
import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

CAPACITY: Final = 1 << 20
"""Bytes that the pipe may hold, and that wait for it before `ready` blocks."""
_PIECES: Final = 64


class PipeWriter:
    """The write end of a pipe; `reader` is the other one, until it is given away."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        with suppress(OSError):  # no privilege
            fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, CAPACITY)
        self.is_broken = False
        """Nobody reads any more; what is written is dropped."""
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[memoryview] = deque()
        self._size = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def ready(self) -> None:
        """Wait until little waits to be written."""
        if not self._has_room.is_set():
            await self._has_room.wait()

    def write(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Write at once what the pipe takes, and the rest as it does."""
        if self.is_broken:
            return
        is_waiting = bool(self._pieces)
        for piece in pieces:
            self._pieces.append(memoryview(piece))
            self._size += len(piece)
        if is_waiting:
            return
        self._flush()
        if self._pieces:
            self._loop.add_writer(self._writer, self._flush)
            if self._size > CAPACITY:
                self._has_room.clear()

    def _flush(self) -> None:
        try:
            while self._pieces:
                some = [self._pieces[i] for i in range(min(_PIECES, len(self._pieces)))]
                self._drop(os.writev(self._writer, some))
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._size <= CAPACITY:
            self._has_room.set()
        if not self._pieces:
            self._loop.remove_writer(self._writer)

    def _drop(self, count: int) -> None:
        self._size -= count
        while count:
            piece = self._pieces.popleft()
            if len(piece) > count:
                self._pieces.appendleft(piece[count:])
                return
            count -= len(piece)

    def close_reader(self) -> None:
        """The program has it."""
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1

    def close(self) -> None:
        """Leave; what waits is dropped."""
        self.close_reader()
        self.is_broken = True
        self._pieces.clear()
        self._size = 0
        self._has_room.set()
        if self._writer >= 0:
            self._loop.remove_writer(self._writer)
            os.close(self._writer)
            self._writer = -1
