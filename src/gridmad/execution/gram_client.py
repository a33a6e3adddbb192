"""libglobus_gram_client, the client library of GRAM, for asyncio.

The library does its work in threads of its own: a request is handed over, and the answer comes
back by a C callback, as does each change of a job's state.  Both are passed to the event loop.
Nothing here waits in a thread while a server thinks, and nothing polls.

Functions and structures: globus_gram_client.h and globus_gram_protocol.h of the Grid Community
Toolkit 6.2.
"""

import asyncio
import contextlib
import ctypes
import itertools
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from gridmad.errors import CredentialError, DriverError, TransientError
from gridmad.execution.gram_answers import Answer, Signal

PACKAGE: Final = "libglobus-gram-client3"
ALL_STATES: Final = 0xFFFFF
STARTERS: Final = 8
"""Threads that hand requests over, for the name of a server is looked up meanwhile."""
LAST_ERROR: Final = 167

_GSS_BOTH: Final = 0
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


class _JobInfo(ctypes.Structure):
    _fields_ = (
        ("extensions", ctypes.c_void_p),
        ("job_contact", ctypes.c_char_p),
        ("job_state", ctypes.c_int),
        ("protocol_error_code", ctypes.c_int),
    )


class _Extension(ctypes.Structure):
    _fields_ = (("attribute", ctypes.c_char_p), ("value", ctypes.c_char_p))


_InfoCallback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(_JobInfo))
_PlainCallback = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_int
)
_StateCallback = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int
)


class _Library:
    """The functions, with their types.  There is one for a process, since the threads that it
    starts never end.
    """

    def __init__(self) -> None:
        try:
            common = ctypes.CDLL("libglobus_common.so.0")
            assist = ctypes.CDLL("libglobus_gss_assist.so.3")
            protocol = ctypes.CDLL("libglobus_gram_protocol.so.3")
            self.client = client = ctypes.CDLL("libglobus_gram_client.so.3")
        except OSError as error:
            raise DriverError(
                f"the client library of GRAM is not installed ({PACKAGE}): {error}"
            ) from None
        text, handle = ctypes.c_char_p, ctypes.c_void_p
        self.set_model = _declare(common.globus_thread_set_model, text)
        self.activate = _declare(common.globus_module_activate, handle)
        self.lookup = _declare(common.globus_hashtable_lookup, handle, text)
        self.lookup.restype = ctypes.POINTER(_Extension)
        self.error_string = _declare(protocol.globus_gram_protocol_error_string, ctypes.c_int)
        self.error_string.restype = text
        self.acquire = _declare(assist.globus_gss_assist_acquire_cred, handle, ctypes.c_int, handle)
        self.acquire.restype = ctypes.c_uint32
        self.set_credentials = _declare(client.globus_gram_client_set_credentials, handle)
        self.callback_allow = _declare(
            client.globus_gram_client_callback_allow, _StateCallback, handle, handle
        )
        self.request = _declare(
            client.globus_gram_client_register_job_request_with_info,
            *(text, text, ctypes.c_int, text, handle, _InfoCallback, handle),
        )
        self.status = _declare(
            client.globus_gram_client_register_job_status_with_info,
            *(text, handle, _InfoCallback, handle),
        )
        self.cancel = _declare(
            client.globus_gram_client_register_job_cancel, text, handle, _PlainCallback, handle
        )
        self.signal = _declare(
            client.globus_gram_client_register_job_signal,
            *(text, ctypes.c_int, text, handle, _PlainCallback, handle),
        )
        self.listen = _declare(
            client.globus_gram_client_register_job_callback_registration,
            *(text, ctypes.c_int, text, handle, _PlainCallback, handle),
        )
        self.renew = _declare(
            client.globus_gram_client_register_job_refresh_credentials,
            *(text, handle, handle, _PlainCallback, handle),
        )
        code = self.set_model(b"pthread")
        if code:
            raise DriverError(f"Globus has no threads here: error {code}")

    def text(self, code: int) -> str:
        """An error in words.

        The library gives errors 7 and 10, and those of staging in what a job manager tells,
        words of their own: they are those of this thread's last error.
        """
        if not code:
            return ""
        raw = self.error_string(code)
        words = (raw or b"").decode("utf-8", "replace").split()
        return f"{' '.join(words)} (GRAM error {code})"


def _declare(function: Any, *arguments: Any) -> Any:
    function.argtypes = arguments
    function.restype = ctypes.c_int
    return function


class GramClient:
    """A client; `changed(contact, answer)` is called in the event loop at each change of a
    job's state that a job manager tells.

    Requests are answered by an Answer; that it may take any time is the caller's business, who
    may stop waiting.
    """

    def __init__(self, changed: Callable[[str, Answer], None]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._library: _Library | None = None
        self._callback_contact = b""
        self._failures: dict[int, str] = {}
        """Errors in the words that they have for all jobs."""
        self._credential = ctypes.c_void_p()
        self._starters = ThreadPoolExecutor(STARTERS, "gram")
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._numbers = itertools.count(1)
        # C keeps these for as long as the process lives.
        self._on_info = _InfoCallback(self._info_came)
        self._on_plain = _PlainCallback(self._plain_came)
        self._on_state = _StateCallback(self._state_came)

    async def load(self) -> None:
        """Load the library.  Raises DriverError where it is not installed."""
        self._library = await asyncio.to_thread(_Library)

    async def open(self) -> None:
        """Read the user's proxy, the first time or anew; requests may be made then.

        Raises CredentialError for one that Globus does not take.
        """
        await asyncio.get_running_loop().run_in_executor(self._starters, self._open)

    def close(self) -> None:
        """Take no more answers.  The library's threads end with the process."""
        self._starters.shutdown(wait=False, cancel_futures=True)
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()

    # ------------------------------------------------------------ requests

    async def request(self, resource: str, rsl: bytes) -> Answer:
        """Ask the gatekeeper of `resource` (host:port/service) for a job."""
        library = self._opened()
        return await self._ask(
            lambda number: library.request(
                *(resource.encode(), rsl, ALL_STATES, self._callback_contact, None),
                *(self._on_info, number),
            )
        )

    async def status(self, contact: str) -> Answer:
        """Ask for the state of a job."""
        library = self._opened()
        return await self._ask(
            lambda number: library.status(contact.encode(), None, self._on_info, number)
        )

    async def cancel(self, contact: str) -> Answer:
        """End a job."""
        library = self._opened()
        return await self._ask(
            lambda number: library.cancel(contact.encode(), None, self._on_plain, number)
        )

    async def signal(self, contact: str, signal: Signal) -> Answer:
        """Tell a job manager something."""
        library = self._opened()
        return await self._ask(
            lambda number: library.signal(
                contact.encode(), int(signal), b"", None, self._on_plain, number
            )
        )

    async def listen(self, contact: str) -> Answer:
        """Have the changes of a job's state told here, that of an earlier client too."""
        library = self._opened()
        return await self._ask(
            lambda number: library.listen(
                contact.encode(), ALL_STATES, self._callback_contact, None, self._on_plain, number
            )
        )

    async def renew(self, contact: str) -> Answer:
        """Give a job the credential that the client has now."""
        library = self._opened()
        return await self._ask(
            lambda number: library.renew(
                contact.encode(), self._credential, None, self._on_plain, number
            )
        )

    def _opened(self) -> _Library:
        assert self._library is not None
        assert self._callback_contact
        return self._library

    async def _ask(self, start: Callable[[int], int]) -> Answer:
        number = next(self._numbers)
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[number] = future
        try:
            starting = self._loop.run_in_executor(self._starters, self._start, start, number)
        except RuntimeError:
            self._waiting.pop(number, None)
            raise TransientError("the driver is stopping") from None
        try:
            refused = await starting
            return refused if refused is not None else await future
        finally:
            # An answer that comes later is dropped.
            self._waiting.pop(number, None)

    def _start(self, start: Callable[[int], int], number: int) -> Answer | None:
        code = start(number)
        return Answer(code, self._text(code)) if code else None

    # ------------------------------------------------------------ in the library's threads

    def _info_came(self, number: int, contact: bytes | None, pointer: Any) -> None:
        info = pointer.contents
        code, failure = info.protocol_error_code, self._number(info, b"job-failure-code") or 0
        self._answer(
            number,
            Answer(
                code,
                self._text(code),
                _decode(contact),
                info.job_state,
                self._extension(info, b"gt3-failure-message"),
                failure,
                self._failures.get(failure, f"GRAM error {failure}") if failure else "",
                self._number(info, b"exit-code"),
            ),
        )

    def _extension(self, info: _JobInfo, name: bytes) -> str:
        """What an answer says beyond the protocol's second version."""
        assert self._library is not None
        if not info.extensions:
            return ""
        found = self._library.lookup(ctypes.byref(info, _JobInfo.extensions.offset), name)
        return _decode(found.contents.value) if found else ""

    def _number(self, info: _JobInfo, name: bytes) -> int | None:
        text = self._extension(info, name)
        return int(text) if _NUMBER.fullmatch(text) else None

    def _plain_came(
        self, number: int, code: int, contact: bytes | None, state: int, job_code: int
    ) -> None:
        self._answer(number, Answer(code, self._text(code), _decode(contact), state))

    def _state_came(
        self, _number: int | None, contact: bytes | None, state: int, failure: int
    ) -> None:
        if contact:  # there is none where a connection broke
            url = _decode(contact)
            told = Answer(0, "", url, state, failure=failure, failure_text=self._text(failure))
            self._call(self._changed, url, told)

    def _answer(self, number: int, answer: Answer) -> None:
        self._call(self._settle, number, answer)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)

    def _text(self, code: int) -> str:
        assert self._library is not None
        return self._library.text(code)

    # ------------------------------------------------------------ in the event loop

    def _settle(self, number: int, answer: Answer) -> None:
        future = self._waiting.pop(number, None)
        if future is not None and not future.done():
            future.set_result(answer)

    # ------------------------------------------------------------ credential

    def _open(self) -> None:
        library = self._library
        assert library is not None
        minor, credential = ctypes.c_uint32(), ctypes.c_void_p()
        code = library.acquire(ctypes.byref(minor), _GSS_BOTH, ctypes.byref(credential))
        if code:
            raise CredentialError(f"Globus cannot use the proxy (GSS error {code:#x})")
        if not self._callback_contact:
            self._activate(library)
        # The library takes it over, and frees the one before when it is out of use.
        library.set_credentials(credential)
        self._credential = credential

    def _activate(self, library: _Library) -> None:
        module = ctypes.byref(ctypes.c_char.in_dll(library.client, "globus_gram_client_module"))
        code = library.activate(module)
        if code:
            raise CredentialError(f"GRAM's client cannot be started: {library.text(code)}")
        contact = ctypes.c_char_p()
        code = library.callback_allow(self._on_state, None, ctypes.byref(contact))
        if code or not contact.value:
            raise TransientError(f"job managers cannot call back: {library.text(code)}")
        self._failures = {code: library.text(code) for code in range(1, LAST_ERROR + 1)}
        self._callback_contact = contact.value


def _decode(text: bytes | None) -> str:
    return (text or b"").decode("utf-8", "replace")
