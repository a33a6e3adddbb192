"""Connections to GridFTP servers, for asyncio.

A `Handle` keeps its connections: one for control, and in extended block mode (MODE E) one for
data, which spares small files a handshake each.

Protocol: GFD.20.
"""

import asyncio
import ctypes
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, ClassVar, Final

from gridmad import __version__
from gridmad.errors import DriverError, TransientError
from gridmad.transfer.gridftp_library import Library, Operation, on_complete, on_data
from gridmad.transfer.gridftp_transfer import FileDownload, FileUpload, Order, Stream, Transfer
from gridmad.transfer.storage import Block, Progress, in_thread

QUIET_TIME: Final = 0.5
"""Seconds without a sign of an operation after which it may be aborted: a reply that the library
is handling just then would have it use memory that the abort has freed."""
ABORT_TIME: Final = 2.0
"""Seconds that an operation has to end when it was aborted."""
LOOK_INTERVAL: Final = 0.005
"""Seconds between two looks at an operation that is given up."""
CHECKSUM_LENGTH: Final = 128


class Handle:
    """Connections to servers; for one operation at a time.

    URLs are percent-encoded.  Raises what `error_of` makes of the library's words.
    """

    def __init__(self, library: Library, *, is_extended: bool) -> None:
        self._library = library
        self._handle, self._attribute = ctypes.c_void_p(), ctypes.c_void_p()
        self._operation: Operation | None = None
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
        return self._operation is not None and self._operation.is_known

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
                *(on_complete, number),
            )
        )

    async def chmod(self, url: bytes, mode: int) -> None:
        """Change the permissions."""
        await self._do(
            lambda number: self._library.chmod(
                *(ctypes.byref(self._handle), url, mode, ctypes.byref(self._attribute)),
                *(on_complete, number),
            )
        )

    async def mlst(self, url: bytes) -> bytes:
        """The facts of one name."""
        text, length = ctypes.c_void_p(), ctypes.c_size_t()
        await self._do(
            lambda number: self._library.mlst(
                *(ctypes.byref(self._handle), url, ctypes.byref(self._attribute)),
                *(ctypes.byref(text), ctypes.byref(length), on_complete, number),
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
                *(ctypes.byref(size), on_complete, number),
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
                *(algorithm, on_complete, number),
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
                *(on_complete, number),
            )
        )

    # ------------------------------------------------------------ data

    async def upload(self, url: bytes, file: int, size: int | None, progress: Progress) -> None:
        """Make a file of a local one."""
        await self._transfer(
            FileUpload(self._library, self._handle, file, size, progress), self._library.put, url
        )

    async def download(self, url: bytes, file: int, progress: Progress) -> None:
        """Write a file to a local one."""
        await self._transfer(
            FileDownload(self._library, self._handle, file, progress), self._library.get, url
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
        stream = Stream(self._library, self._handle)
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
                *(stream.handle, address, len(data), position, is_last, on_data, stream.number)
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
        await self._do(lambda number: function(handle, url, attribute, on_complete, number))

    async def _do(self, start: Callable[[int], int], kept: object = None) -> None:
        """Do what has no data; C writes to what is `kept`."""
        operation = self._operation = Operation(self._library)
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

    async def _transfer(self, transfer: Transfer, function: Any, url: bytes) -> None:
        await in_thread(self._begin, transfer, function, url, None)
        await self._ended(transfer)

    async def _ended(self, operation: Operation) -> None:
        error = await operation.ended
        if not self.is_busy:
            self._operation = None  # and its memory
        if error is not None:
            raise error
        self._is_connected = True

    def _begin(self, transfer: Transfer, function: Any, url: bytes, *more: object) -> None:
        """Begin a transfer and hand its first blocks over; runs in a thread, for it reads."""
        self._operation = transfer
        result = function(
            *(ctypes.byref(self._handle), url, ctypes.byref(self._attribute), *more),
            *(on_complete, transfer.number),
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
    ) -> AsyncGenerator[Block, None]:
        stream = Stream(self._library, self._handle)
        more = (None,) if is_file else ()
        await in_thread(self._begin, stream, function, url, *more)
        order = Order()

        # The offsets of a list mean nothing: one block at a time keeps its order.
        for address in list(stream.blocks.views)[: None if is_file else 1]:
            stream.receive(address)
        while (event := await stream.events.get()) is not None:
            address, length, offset, eof = event
            if length:
                view = stream.blocks.views[address][:length]
                for block in order.add(offset, view) if is_file else (view,):
                    yield block
            if not eof:
                stream.receive(address)
        await self._ended(stream)
        order.finish()


class Client:
    """The library, once it is loaded."""

    _library: ClassVar[Library | None] = None

    async def load(self) -> None:
        """Load the library.  Raises DriverError where it is not installed."""
        if Client._library is None:
            Client._library = await asyncio.to_thread(Library)

    def handle(self, *, is_extended: bool) -> Handle:
        """A handle that speaks extended block mode (MODE E), or plain FTP."""
        assert Client._library is not None
        return Handle(Client._library, is_extended=is_extended)
