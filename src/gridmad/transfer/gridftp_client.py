"""libglobus_ftp_client, the client library of GridFTP, for asyncio.

The library does its work in threads of its own: an operation is handed over, and its end comes
back by a C callback, as does each block of data.  Ends are passed to the event loop; the blocks
of a local file are read and written in the library's threads, so that a byte crosses no queue.

A `Handle` keeps its connections: one for control, and in extended block mode (MODE E) one for
data, which spares small files a handshake each.

Functions: globus_ftp_client.h of the Grid Community Toolkit 6.2; protocol: GFD.20.
"""

import asyncio
import contextlib
import ctypes
import itertools
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, ClassVar, Final

from gridmad import __version__
from gridmad.driver import describe
from gridmad.errors import DriverError, TransientError
from gridmad.transfer.gridftp_reply import error_of
from gridmad.transfer.storage import Block, Progress, in_thread

log = logging.getLogger(__name__)

PACKAGE: Final = "libglobus-ftp-client2"
BUFFERS: Final = 2
"""Blocks of one transfer that are under way."""
MEMORY: Final = 12 << 20
"""Bytes for the blocks of all transfers: the fewer there are, the larger are theirs ..."""
SMALLEST_BLOCK: Final = 1 << 17
LARGEST_BLOCK: Final = 1 << 20
"""... within these bounds."""
QUIET_TIME: Final = 0.5
"""Seconds without a sign of an operation after which it may be aborted: a reply that the library
is handling just then would have it use memory that the abort has freed."""
ABORT_TIME: Final = 2.0
"""Seconds that an operation has to end when it was aborted."""
LOOK_INTERVAL: Final = 0.005
"""Seconds between two looks at an operation that is given up."""
END_TIME: Final = 1.0
"""Seconds after which an operation that takes no more blocks counts as failed."""
CHECKSUM_LENGTH: Final = 128

_CompleteCallback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_DataCallback = ctypes.CFUNCTYPE(
    None,
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p),
    *(ctypes.c_size_t, ctypes.c_int64, ctypes.c_int),
)


class _Library:
    """The functions, with their types.  There is one for a process, since the threads that it
    starts never end.
    """

    def __init__(self) -> None:
        try:
            common = ctypes.CDLL("libglobus_common.so.0")
            self.client = client = ctypes.CDLL("libglobus_ftp_client.so.2")
        except OSError as error:
            raise DriverError(
                f"the client library of GridFTP is not installed ({PACKAGE}): {error}"
            ) from None
        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64
        self.error_get = _declare(common.globus_error_get, ctypes.c_uint32)
        self.error_get.restype = pointer
        self.error_text = _declare(common.globus_error_print_friendly, pointer)
        self.error_text.restype = pointer
        self.object_free = _declare(common.globus_object_free, pointer)
        self.object_free.restype = None
        self.free = _declare(ctypes.CDLL(None).free, pointer)
        self.free.restype = None
        done = (_CompleteCallback, pointer)
        self.handleattr_init = self._of("handleattr_init", pointer)
        self.handleattr_destroy = self._of("handleattr_destroy", pointer)
        self.handleattr_cache_all = self._of("handleattr_set_cache_all", pointer, ctypes.c_int)
        self.handleattr_clientinfo = self._of(
            "handleattr_set_clientinfo", pointer, text, text, text
        )
        self.attr_init = self._of("operationattr_init", pointer)
        self.attr_destroy = self._of("operationattr_destroy", pointer)
        self.attr_mode = self._of("operationattr_set_mode", pointer, ctypes.c_int)
        self.attr_list_mode = self._of(
            "operationattr_set_list_uses_data_mode", pointer, ctypes.c_int
        )
        self.handle_init = self._of("handle_init", pointer, pointer)
        self.handle_destroy = self._of("handle_destroy", pointer)
        self.abort = self._of("abort", pointer)
        plain = (pointer, text, pointer, *done)
        self.mkdir = self._of("mkdir", *plain)
        self.rmdir = self._of("rmdir", *plain)
        self.delete = self._of("delete", *plain)
        self.machine_list = self._of("machine_list", *plain)
        self.recursive_list = self._of("recursive_list", *plain)
        self.move = self._of("move", pointer, text, text, pointer, *done)
        self.chmod = self._of("chmod", pointer, text, ctypes.c_int, pointer, *done)
        self.mlst = self._of("mlst", pointer, text, pointer, pointer, pointer, *done)
        self.size = self._of("size", pointer, text, pointer, pointer, *done)
        self.cksm = self._of("cksm", pointer, text, pointer, pointer, number, number, text, *done)
        self.get = self._of("get", pointer, text, pointer, pointer, *done)
        self.put = self._of("put", pointer, text, pointer, pointer, *done)
        self.third_party = self._of(
            "third_party_transfer", *(pointer, text, pointer, text, pointer, pointer), *done
        )
        self.register_read = self._of(
            "register_read", pointer, pointer, ctypes.c_size_t, _DataCallback, pointer
        )
        self.register_write = self._of(
            "register_write",
            *(pointer, pointer, ctypes.c_size_t, number, ctypes.c_int, _DataCallback, pointer),
        )
        if common.globus_thread_set_model(b"pthread"):
            raise DriverError("Globus has no threads here")
        module = ctypes.byref(ctypes.c_char.in_dll(client, "globus_i_ftp_client_module"))
        code = _declare(common.globus_module_activate, pointer)(module)
        if code:
            raise DriverError(f"the client library of GridFTP cannot be started: error {code}")

    def _of(self, name: str, *arguments: Any) -> Any:
        return _declare(getattr(self.client, f"globus_ftp_client_{name}"), *arguments)

    def text(self, error: int) -> str:
        """An error object in words."""
        raw = self.error_text(error)
        if not raw:
            return "no reason was given"
        try:
            return ctypes.string_at(raw).decode("utf-8", "replace")
        finally:
            self.free(raw)

    def refusal(self, result: int) -> DriverError:
        """Why a function did not take its task."""
        error = self.error_get(result)
        try:
            return error_of(self.text(error))
        finally:
            if error:
                self.object_free(error)


def _declare(function: Any, *arguments: Any) -> Any:
    function.argtypes = arguments
    function.restype = ctypes.c_uint32
    return function


_numbers = itertools.count(1)
_operations: dict[int, "_Operation"] = {}
"""Those that C knows of, by the number that it gives back; whatever they use lives as long."""


class _Operation:
    """Something under way at a handle."""

    def __init__(self, library: _Library) -> None:
        self.library = library
        self.number = next(_numbers)
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[DriverError | None] = self._loop.create_future()
        """Settled with its end, or when nobody believes any more that it will come."""
        self.kept: object = None
        """What C writes to."""
        self.heard = time.monotonic()
        """When there was a sign of it."""
        self.is_given_up = False
        """No more data is to be moved."""
        self.afterwards: Callable[[], object] = lambda: None
        """Called in the event loop when it has ended."""
        _operations[self.number] = self

    def forget(self) -> None:
        """It did not begin."""
        del _operations[self.number]

    # ------------------------------------------------------------ in the library's threads

    def complete(self, error: int | None) -> None:
        """It has ended: no more callbacks will come."""
        _operations.pop(self.number, None)
        self.call(self._completed, error_of(self.library.text(error)) if error else None)

    def data(self, error: int | None, address: int, length: int, offset: int, eof: bool) -> None:
        """A block was sent or came."""

    def call(self, function: Callable[..., None], *arguments: object) -> None:
        """Have a function called in the event loop."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)

    # ------------------------------------------------------------ in the event loop

    def _completed(self, error: DriverError | None) -> None:
        self._end(error)
        self.afterwards()

    def _end(self, error: DriverError | None) -> None:
        if not self.ended.done():
            self.ended.set_result(error)


def _ended(number: int, _handle: int | None, error: int | None) -> None:
    operation = _operations.get(number)
    if operation is not None:
        operation.complete(error)


def _moved(
    number: int,
    _handle: int | None,
    error: int | None,
    address: int | None,
    length: int,
    offset: int,
    eof: int,
) -> None:
    operation = _operations.get(number)
    if operation is not None:
        operation.data(error, address or 0, length, offset, bool(eof))


# C keeps these for as long as the process lives.
_on_complete = _CompleteCallback(_ended)
_on_data = _DataCallback(_moved)


class _Blocks:
    """The memory of a transfer: blocks by their addresses."""

    _transfers: ClassVar[int] = 0
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, size: int | None) -> None:
        with _Blocks._lock:
            _Blocks._transfers += 1
            share = MEMORY // (BUFFERS * _Blocks._transfers)
        length = min(max(share, SMALLEST_BLOCK), LARGEST_BLOCK)
        count = BUFFERS
        if size is not None and size <= length:
            length, count = max(size, 1), 1
        self.length = length
        arrays = [(ctypes.c_char * length)() for _ in range(count)]
        self.views = {ctypes.addressof(array): memoryview(array).cast("B") for array in arrays}

    def release(self) -> None:
        """The transfer has ended, though somebody may still look at its last blocks."""
        with _Blocks._lock:
            _Blocks._transfers -= 1


class _Transfer(_Operation):
    """An operation with data.

    Where something fails on this side, `problem` says what; no more is sent or read then, and
    whoever waits for the end gives the operation up.
    """

    def __init__(self, library: _Library, handle: ctypes.c_void_p, blocks: _Blocks) -> None:
        super().__init__(library)
        self.handle = ctypes.byref(handle)
        self.blocks = blocks
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Hand the first blocks over, right after the operation has begun."""
        raise NotImplementedError

    def complete(self, error: int | None) -> None:
        super().complete(error)
        self.blocks.release()

    def forget(self) -> None:
        super().forget()
        self.blocks.release()

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


class _FileUpload(_Transfer):
    """The first `size` bytes of a local file, or all of it; read in the library's threads."""

    def __init__(
        self,
        library: _Library,
        handle: ctypes.c_void_p,
        file: int,
        size: int | None,
        progress: Progress,
    ) -> None:
        super().__init__(library, handle, _Blocks(size))
        self._file = file
        self._size = size
        self._progress = progress
        self._position = 0
        self._is_at_end = False

    def begin(self) -> None:
        with self._lock:
            for address in list(self.blocks.views):
                self._send(address)

    def moved(self, address: int, length: int, _offset: int, _eof: bool) -> None:
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
            self.handle, address, length, self._position, self._is_at_end, _on_data, self.number
        )
        self._position += length
        if result:
            # Most often the operation has failed meanwhile, and its end tells why.
            self.call(self._refused, self.library.refusal(result))


class _FileDownload(_Transfer):
    """A whole file, written to a local one in the library's threads."""

    def __init__(
        self, library: _Library, handle: ctypes.c_void_p, file: int, progress: Progress
    ) -> None:
        super().__init__(library, handle, _Blocks(progress.size))
        self._file = file
        self._progress = progress

    def begin(self) -> None:
        for address in list(self.blocks.views):
            self._receive(address)

    def moved(self, address: int, length: int, offset: int, eof: bool) -> None:
        view = self.blocks.views[address][:length]
        while view:
            written = os.pwritev(self._file, [view], offset)
            view, offset = view[written:], offset + written
        self._progress.moved += length
        if not eof:
            self._receive(address)

    def _receive(self, address: int) -> None:
        result = self.library.register_read(
            self.handle, address, self.blocks.length, _on_data, self.number
        )
        if result:
            # The end was reached, or the operation has failed.
            log.debug("no block is read: %s", self.library.refusal(result))


class _Stream(_Transfer):
    """Blocks that come to the event loop, or go from there."""

    def __init__(self, library: _Library, handle: ctypes.c_void_p) -> None:
        super().__init__(library, handle, _Blocks(None))
        self.events: asyncio.Queue[tuple[int, int, int, bool] | None] = asyncio.Queue()
        """What was moved: address, length, offset and whether it was the last; None at the end."""

    def begin(self) -> None:
        """The event loop hands over what it has."""

    def moved(self, address: int, length: int, offset: int, eof: bool) -> None:
        self.call(self.events.put_nowait, (address, length, offset, eof))

    def _end(self, error: DriverError | None) -> None:
        super()._end(error)
        self.events.put_nowait(None)


class Handle:
    """Connections to servers; for one operation at a time.

    URLs are percent-encoded.  Raises what `error_of` makes of the library's words.
    """

    def __init__(self, library: _Library, *, is_extended: bool) -> None:
        self._library = library
        self._handle, self._attribute = ctypes.c_void_p(), ctypes.c_void_p()
        self._operation: _Operation | None = None
        self._is_connected = False
        attribute = ctypes.c_void_p()
        library.handleattr_init(ctypes.byref(attribute))
        library.handleattr_cache_all(ctypes.byref(attribute), 1)
        library.handleattr_clientinfo(
            ctypes.byref(attribute), b"gridmad", __version__.encode(), None
        )
        result = library.handle_init(ctypes.byref(self._handle), ctypes.byref(attribute))
        library.handleattr_destroy(ctypes.byref(attribute))
        if result:
            raise library.refusal(result)
        library.attr_init(ctypes.byref(self._attribute))
        if is_extended:
            library.attr_mode(ctypes.byref(self._attribute), ord("E"))
            library.attr_list_mode(ctypes.byref(self._attribute), 1)

    @property
    def is_busy(self) -> bool:
        """An operation is under way, though nobody may wait for it any more."""
        return self._operation is not None and self._operation.number in _operations

    async def close(self) -> None:
        """Leave all servers, whatever is under way."""
        operation = self._operation
        if operation is not None:
            operation.is_given_up = True
            give_up = float("inf")
            while self.is_busy:
                now = time.monotonic()
                if now > give_up:
                    # The server will end it, when it tires of a connection where nothing happens.
                    operation.afterwards = self._destroy_later
                    return
                if give_up == float("inf") and now - operation.heard >= QUIET_TIME:
                    self._library.abort(ctypes.byref(self._handle))
                    give_up = now + ABORT_TIME
                await asyncio.sleep(LOOK_INTERVAL)
        await in_thread(self._destroy)

    async def abandon(self) -> None:
        """Leave all servers but one with which something is under way: the process ends."""
        if not self.is_busy:
            await in_thread(self._destroy)

    def _destroy_later(self) -> None:
        asyncio.get_running_loop().run_in_executor(None, self._destroy)

    def _destroy(self) -> None:
        self._library.handle_destroy(ctypes.byref(self._handle))
        self._library.attr_destroy(ctypes.byref(self._attribute))

    # ------------------------------------------------------------ commands

    async def mkdir(self, url: bytes) -> None:
        """Make one directory."""
        await self._plain(self._library.mkdir, url)

    async def rmdir(self, url: bytes) -> None:
        """Remove an empty directory."""
        await self._plain(self._library.rmdir, url)

    async def delete(self, url: bytes) -> None:
        """Remove what is no directory."""
        await self._plain(self._library.delete, url)

    async def move(self, url: bytes, new: bytes) -> None:
        """Rename."""
        await self._do(
            lambda number: self._library.move(
                *(ctypes.byref(self._handle), url, new, ctypes.byref(self._attribute)),
                *(_on_complete, number),
            )
        )

    async def chmod(self, url: bytes, mode: int) -> None:
        """Change the permissions."""
        await self._do(
            lambda number: self._library.chmod(
                *(ctypes.byref(self._handle), url, mode, ctypes.byref(self._attribute)),
                *(_on_complete, number),
            )
        )

    async def mlst(self, url: bytes) -> bytes:
        """The facts of one name."""
        text, length = ctypes.c_void_p(), ctypes.c_size_t()
        await self._do(
            lambda number: self._library.mlst(
                *(ctypes.byref(self._handle), url, ctypes.byref(self._attribute)),
                *(ctypes.byref(text), ctypes.byref(length), _on_complete, number),
            ),
            (text, length),
        )
        try:
            return ctypes.string_at(text, length.value) if text else b""
        finally:
            self._library.free(text)

    async def size(self, url: bytes) -> int:
        """The size of a file in bytes."""
        size = ctypes.c_int64()
        await self._do(
            lambda number: self._library.size(
                *(ctypes.byref(self._handle), url, ctypes.byref(self._attribute)),
                *(ctypes.byref(size), _on_complete, number),
            ),
            size,
        )
        return size.value

    async def checksum(self, url: bytes, algorithm: bytes) -> str:
        """A checksum of a whole file."""
        text = ctypes.create_string_buffer(CHECKSUM_LENGTH)
        await self._do(
            lambda number: self._library.cksm(
                *(ctypes.byref(self._handle), url, ctypes.byref(self._attribute), text, 0, -1),
                *(algorithm, _on_complete, number),
            ),
            text,
        )
        return text.value.decode("ascii", "replace")

    async def third_party(self, source: bytes, url: bytes) -> None:
        """Have a server send a file to another one."""
        attribute = ctypes.byref(self._attribute)
        await self._do(
            lambda number: self._library.third_party(
                *(ctypes.byref(self._handle), source, attribute, url, attribute, None),
                *(_on_complete, number),
            )
        )

    # ------------------------------------------------------------ data

    async def upload(self, url: bytes, file: int, size: int | None, progress: Progress) -> None:
        """Make a file of a local one."""
        await self._transfer(
            _FileUpload(self._library, self._handle, file, size, progress), self._library.put, url
        )

    async def download(self, url: bytes, file: int, progress: Progress) -> None:
        """Write a file to a local one."""
        await self._transfer(
            _FileDownload(self._library, self._handle, file, progress), self._library.get, url
        )

    async def list(self, url: bytes, *, recursively: bool) -> list[bytes]:
        """The facts of all names in a directory (MLSD), or below it (MLSR)."""
        library = self._library
        function = library.recursive_list if recursively else library.machine_list
        parts = [bytes(block) async for block in self._read(function, url, is_file=False)]
        return b"".join(parts).split(b"\r\n")

    def read(self, url: bytes) -> AsyncGenerator[Block, None]:
        """The content of a file."""
        return self._read(self._library.get, url, is_file=True)

    async def write(self, url: bytes, blocks: AsyncIterator[Block]) -> None:
        """Make a file of blocks."""
        stream = _Stream(self._library, self._handle)
        await in_thread(self._begin, stream, self._library.put, url, None)
        free = list(stream.blocks.views)
        position = 0

        async def send(data: memoryview, *, is_last: bool) -> None:
            nonlocal position
            while not free:
                event = await stream.events.get()
                if event is None:
                    raise await stream.ended or TransientError("the server ended the transfer")
                free.append(event[0])
            address = free.pop()
            stream.blocks.views[address][: len(data)] = data
            result = self._library.register_write(
                *(stream.handle, address, len(data), position, is_last, _on_data, stream.number)
            )
            if result:
                refused = self._library.refusal(result)
                raise await stream.ended or refused
            position += len(data)

        async for block in blocks:
            data = memoryview(block)
            while data:
                await send(data[: stream.blocks.length], is_last=False)
                data = data[stream.blocks.length :]
        await send(memoryview(b""), is_last=True)
        await self._ended(stream)

    # ------------------------------------------------------------ the way of each

    async def _plain(self, function: Any, url: bytes) -> None:
        handle, attribute = ctypes.byref(self._handle), ctypes.byref(self._attribute)
        await self._do(lambda number: function(handle, url, attribute, _on_complete, number))

    async def _do(self, start: Callable[[int], int], kept: object = None) -> None:
        """Do what has no data; C writes to what is `kept`."""
        operation = self._operation = _Operation(self._library)
        operation.kept = kept
        if self._is_connected:
            result = start(operation.number)
        else:
            # The name of the server is looked up.
            result = await in_thread(start, operation.number)
        if result:
            operation.forget()
            raise self._library.refusal(result)
        await self._ended(operation)

    async def _transfer(self, transfer: _Transfer, function: Any, url: bytes) -> None:
        await in_thread(self._begin, transfer, function, url, None)
        await self._ended(transfer)

    async def _ended(self, operation: _Operation) -> None:
        error = await operation.ended
        if not self.is_busy:
            self._operation = None  # and its memory
        if error is not None:
            raise error
        self._is_connected = True

    def _begin(self, transfer: _Transfer, function: Any, url: bytes, *more: object) -> None:
        """Begin a transfer and hand its first blocks over; runs in a thread, for it reads."""
        self._operation = transfer
        result = function(
            *(ctypes.byref(self._handle), url, ctypes.byref(self._attribute), *more),
            *(_on_complete, transfer.number),
        )
        if result:
            transfer.forget()
            raise self._library.refusal(result)
        try:
            transfer.begin()
        except (DriverError, OSError) as problem:
            transfer.fail(problem)

    async def _read(
        self, function: Any, url: bytes, *, is_file: bool
    ) -> AsyncGenerator[memoryview, None]:
        stream = _Stream(self._library, self._handle)
        more = (None,) if is_file else ()
        await in_thread(self._begin, stream, function, url, *more)
        position = 0

        def receive(address: int) -> None:
            result = self._library.register_read(
                stream.handle, address, stream.blocks.length, _on_data, stream.number
            )
            if result:
                log.debug("no block is read: %s", self._library.refusal(result))

        for address in list(stream.blocks.views):
            receive(address)
        while (event := await stream.events.get()) is not None:
            address, length, offset, eof = event
            if is_file and length and offset != position:
                raise DriverError(f"the block at {offset} came before that at {position}")
            position += length
            if length:
                yield stream.blocks.views[address][:length]
            if not eof:
                receive(address)
        await self._ended(stream)


class Client:
    """The library, once it is loaded."""

    _library: ClassVar[_Library | None] = None

    async def load(self) -> None:
        """Load the library.  Raises DriverError where it is not installed."""
        if Client._library is None:
            Client._library = await asyncio.to_thread(_Library)

    def handle(self, *, is_extended: bool) -> Handle:
        """A handle that speaks extended block mode (MODE E), or plain FTP."""
        assert Client._library is not None
        return Handle(Client._library, is_extended=is_extended)
