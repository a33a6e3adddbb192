"""libglobus_ftp_client, the client library of GridFTP: its functions, and what is under way.

The library does its work in threads of its own: an operation is handed over, and its end comes
back by a C callback, as does each block of data.  Ends are passed to the event loop.

Functions: globus_ftp_client.h of the Grid Community Toolkit 6.2.
"""

import asyncio
import contextlib
import ctypes
import itertools
import time
from collections.abc import Callable
from typing import Any, Final

from gridmad.errors import DriverError
from gridmad.transfer.gridftp_reply import error_of

PACKAGE: Final = "libglobus-ftp-client2"

CompleteCallback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
DataCallback = ctypes.CFUNCTYPE(
    None,
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p),
    *(ctypes.c_size_t, ctypes.c_int64, ctypes.c_int),
)


class Library:
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
        done = (CompleteCallback, pointer)
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
            "register_read", pointer, pointer, ctypes.c_size_t, DataCallback, pointer
        )
        self.register_write = self._of(
            "register_write",
            *(pointer, pointer, ctypes.c_size_t, number, ctypes.c_int, DataCallback, pointer),
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
_operations: dict[int, "Operation"] = {}
"""Those that C knows of, by the number that it gives back; whatever they use lives as long."""


class Operation:
    """Something under way at a handle."""

    def __init__(self, library: Library) -> None:
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

    @property
    def is_known(self) -> bool:
        """C knows of it: its end has not come."""
        return self.number in _operations

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
on_complete = CompleteCallback(_ended)
on_data = DataCallback(_moved)
