"""Transfers by libglobus_ftp_client.

The blocks of a local file are read and written in the library's threads, so that a byte crosses
no queue; those of a stream go to the event loop and come from there.
"""

import asyncio
import ctypes
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import ClassVar, Final

from gridmad.driver import describe
from gridmad.errors import DriverError, TransientError
from gridmad.transfer.gridftp_library import Library, Operation, on_data
from gridmad.transfer.gridftp_reply import error_of
from gridmad.transfer.storage import Block, Progress

log = logging.getLogger(__name__)

BUFFERS: Final = 2
"""Blocks of one transfer that are under way."""
MEMORY: Final = 12 << 20
"""Bytes for the blocks of all transfers: the fewer there are, the larger are theirs ..."""
SMALLEST_BLOCK: Final = 1 << 17
LARGEST_BLOCK: Final = 1 << 20
"""... within these bounds."""
MOST_EARLY: Final = 16
"""Blocks that may come before their turn."""
END_TIME: Final = 1.0
"""Seconds after which an operation that takes no more blocks counts as failed."""


class Blocks:
    """The memory of a transfer: blocks by their addresses."""

    _transfers: ClassVar[int] = 0
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, size: int | None) -> None:
        with Blocks._lock:
            Blocks._transfers += 1
            share = MEMORY // (BUFFERS * Blocks._transfers)
        length = min(max(share, SMALLEST_BLOCK), LARGEST_BLOCK)
        count = BUFFERS
        if size is not None and size <= length:
            length, count = max(size, 1), 1
        self.length = length
        arrays = [(ctypes.c_char * length)() for _ in range(count)]
        self.views = {ctypes.addressof(array): memoryview(array).cast("B") for array in arrays}

    def release(self) -> None:
        """The transfer has ended, though somebody may still look at its last blocks."""
        with Blocks._lock:
            Blocks._transfers -= 1


class Transfer(Operation):
    """An operation with data.

    Where something fails on this side, `fail` says so to whoever waits for the end, and who then
    gives the operation up: no more is sent or read.
    """

    def __init__(self, library: Library, handle: ctypes.c_void_p, blocks: Blocks) -> None:
        super().__init__(library)
        self.handle = ctypes.byref(handle)
        self.blocks = blocks
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Hand the first blocks over, right after the operation has begun."""
        raise NotImplementedError

    def complete(self, error: int | None) -> None:
        """The end: the memory is counted no more."""
        super().complete(error)
        self.blocks.release()

    def forget(self) -> None:
        """It did not begin: the memory is counted no more."""
        super().forget()
        self.blocks.release()

    def receive(self, address: int) -> None:
        """Ask for a block."""
        result = self.library.register_read(
            self.handle, address, self.blocks.length, on_data, self.number
        )
        if result:
            # The end was reached, or the operation has failed.
            log.debug("no block is read: %s", self.library.refusal(result))

    def fail(self, problem: Exception) -> None:
        """End the wait of who waits, by an error on this side."""
        if not isinstance(problem, DriverError):
            problem = DriverError(
                describe(problem) if isinstance(problem, OSError) else repr(problem)
            )
        self.call(self._end, problem)

    def _refused(self, problem: DriverError) -> None:
        self._loop.call_later(END_TIME, self._end, problem)

    def data(self, error: int | None, address: int, length: int, offset: int, eof: bool) -> None:
        """A block was sent or came, or was not."""
        self.heard = time.monotonic()
        if self.is_given_up:
            return
        if error:
            # As a rule the server's reply says more, but now and then the library waits for it
            # when it has come already.
            self.call(self._refused, error_of(self.library.text(error)))
            return
        try:
            with self._lock:
                self.moved(address, length, offset, eof)
        except Exception as problem:  # noqa: BLE001 - C cannot take it
            self.fail(problem)

    def moved(self, address: int, length: int, offset: int, eof: bool) -> None:
        """A block was sent, or came."""
        raise NotImplementedError


class FileUpload(Transfer):
    """The first `size` bytes of a local file, or all of it; read in the library's threads."""

    def __init__(
        self,
        library: Library,
        handle: ctypes.c_void_p,
        file: int,
        size: int | None,
        progress: Progress,
    ) -> None:
        super().__init__(library, handle, Blocks(size))
        self._file = file
        self._size = size
        self._progress = progress
        self._position = 0
        self._is_at_end = False

    def begin(self) -> None:
        """Read and send the first blocks."""
        with self._lock:
            for address in list(self.blocks.views):
                self._send(address)

    def moved(self, address: int, length: int, _offset: int, _eof: bool) -> None:
        """Send the next block from the same memory."""
        self._progress.moved += length
        self._send(address)

    def _send(self, address: int) -> None:
        if self._is_at_end:
            return
        view = self.blocks.views[address]
        if self._size is not None:
            view = view[: self._size - self._position]
        length = os.preadv(self._file, [view], self._position) if view else 0
        self._is_at_end = (
            length == 0 if self._size is None else (self._position + length == self._size)
        )
        if length == 0 and not self._is_at_end:
            raise DriverError(f"it became shorter than {self._size} bytes while it was copied")
        result = self.library.register_write(
            self.handle, address, length, self._position, self._is_at_end, on_data, self.number
        )
        self._position += length
        if result:
            # Most often the operation has failed meanwhile, and its end tells why.
            self.call(self._refused, self.library.refusal(result))


class FileDownload(Transfer):
    """A whole file, written to a local one in the library's threads."""

    def __init__(
        self, library: Library, handle: ctypes.c_void_p, file: int, progress: Progress
    ) -> None:
        super().__init__(library, handle, Blocks(progress.size))
        self._file = file
        self._progress = progress

    def begin(self) -> None:
        """Ask for the first blocks."""
        for address in list(self.blocks.views):
            self.receive(address)

    def moved(self, address: int, length: int, offset: int, eof: bool) -> None:
        """Write the block, and ask for another one."""
        view = self.blocks.views[address][:length]
        while view:
            written = os.pwritev(self._file, [view], offset)
            view, offset = view[written:], offset + written
        self._progress.moved += length
        if not eof:
            self.receive(address)


class Stream(Transfer):
    """Blocks that come to the event loop, or go from there."""

    def __init__(self, library: Library, handle: ctypes.c_void_p) -> None:
        super().__init__(library, handle, Blocks(None))
        self.events: asyncio.Queue[tuple[int, int, int, bool] | None] = asyncio.Queue()
        """What was moved: address, length, offset and whether it was the last; None at the end."""

    def begin(self) -> None:
        """The event loop hands over what it has."""

    def moved(self, address: int, length: int, offset: int, eof: bool) -> None:
        """Tell the event loop."""
        self.call(self.events.put_nowait, (address, length, offset, eof))

    def _end(self, error: DriverError | None) -> None:
        super()._end(error)
        self.events.put_nowait(None)


class Order:
    """Puts the blocks of a file in their order: two threads that each have one may tell of them in
    the other order, and a sender with several connections may send them so (GFD.20, section 3).
    """

    def __init__(self) -> None:
        self._position = 0
        self._early: dict[int, bytes] = {}

    def add(self, offset: int, block: memoryview) -> Iterator[Block]:
        """Blocks whose turn it is by this one, which is valid as long as the caller keeps it.

        Raises TransientError for one that came twice, or far too early.
        """
        if offset != self._position:
            if offset < self._position or len(self._early) >= MOST_EARLY:
                raise TransientError(f"the block at {offset} came, not that at {self._position}")
            self._early[offset] = bytes(block)
            return
        self._position += len(block)
        yield block
        while (early := self._early.pop(self._position, None)) is not None:
            self._position += len(early)
            yield early

    def finish(self) -> None:
        """Raises TransientError where something is missing."""
        if self._early:
            raise TransientError(f"the block at {self._position} did not come")
