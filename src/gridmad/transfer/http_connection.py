"""A connection to a web server, for one request at a time, in blocking calls.

TLS is taken out of the way of the event loop so: a thread reads and writes large blocks, in which
OpenSSL works without the interpreter's lock.  `cut`, from any thread, ends what is under way.
"""

import contextlib
import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from gridmad.errors import DriverError, TransientError
from gridmad.transfer import http_message
from gridmad.transfer.http_message import Chunks, Head

MAX_TEXT: Final = 16 << 20
"""Bytes of an answer that is kept in memory."""
CONNECT_TIME: Final = 15.0
"""Seconds for a connection to come about."""
CONTINUE_TIME: Final = 2.0
"""Seconds to wait for a server that may say that it does not want a body."""
BODY_TIME: Final = 60.0
"""Seconds for more of a body that has begun to come: servers may take their time before that, but
some fall silent for good when they could not send for a moment (XRootD's with TLS)."""
_RECEIVE: Final = 1 << 16
_SLICE: Final = 100
"""Milliseconds."""


class Origin(NamedTuple):
    """Whom a credential is for."""

    is_tls: bool
    host: str
    port: int

    @property
    def name(self) -> str:
        """As the header Host has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"http{'s' if self.is_tls else ''}://{self.name}"


class Connection:
    """Raises TransientError where the connection does not come about or breaks."""

    def __init__(self, origin: Origin, context: ssl.SSLContext | None, seconds: float) -> None:
        self.origin = origin
        self.is_usable = True
        """For another request, as far as one can tell without a look."""
        self.is_kept = False
        """It has had an answer."""
        self._context = context
        self._seconds = seconds
        self._socket: socket.socket | None = None
        self._rest = bytearray()
        """What came behind the last head."""
        self._method = ""
        self._left: int | None = 0
        self._chunks: Chunks | None = None
        self._may_keep = True
        self._is_cut = False

    # ------------------------------------------------------------ life

    def cut(self) -> None:
        """End it, and whoever waits for it."""
        self._is_cut = True
        self.is_usable = False
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # The raw socket's: TLS has nothing to say in this.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Leave."""
        self.is_usable = False
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def is_ready(self) -> bool:
        """Whether another request may be tried: a server that says something now says goodbye."""
        if not self.is_usable or self._socket is None:
            return self.is_usable
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        return not self._rest and not waiting.poll(0)

    def _connect(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        origin = self.origin
        try:
            connection = self._socket = self._open()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                # The handshake comes later, when `cut` finds the socket.
                connection = self._socket = self._context.wrap_socket(
                    connection, server_hostname=origin.host, do_handshake_on_connect=False
                )
                connection.settimeout(CONNECT_TIME)
                connection.do_handshake()
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise DriverError(f"{origin} is not trusted: {error.verify_message}") from None
        except OSError as error:
            self.close()
            raise TransientError(f"{origin} is out of reach: {_describe(error)}") from None
        connection.settimeout(self._seconds)
        return connection

    def _open(self) -> socket.socket:
        """Connect to one of the host's addresses, in slices of time between which `cut` is seen."""
        problem: OSError = TimeoutError()
        end = time.monotonic() + CONNECT_TIME
        host, port = self.origin.host, self.origin.port
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        ):
            connection = socket.socket(family, kind, protocol)
            connection.setblocking(False)
            code = connection.connect_ex(address)
            waiting = select.poll()
            waiting.register(connection, select.POLLOUT)
            while code in (errno.EINPROGRESS, errno.EAGAIN) and time.monotonic() < end:
                if self._is_cut:
                    break
                if waiting.poll(_SLICE):
                    code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code and not self._is_cut:
                connection.settimeout(CONNECT_TIME)
                return connection
            connection.close()
            if code != errno.EINPROGRESS:
                problem = OSError(code, os.strerror(code))
        raise problem

    # ------------------------------------------------------------ a request

    def send_head(self, method: str, target: str, headers: Mapping[str, str]) -> None:
        """Begin a request."""
        self._connect()
        self._method = method
        self.send(http_message.request_head(method, target, {"Host": self.origin.name, **headers}))

    def send(self, *parts: bytes | bytearray | memoryview) -> None:
        """Send what follows."""
        connection = self._connect()
        try:
            for part in parts:
                connection.sendall(part)
        except OSError as error:
            self.is_usable = False
            raise TransientError(f"{self.origin}: {_describe(error)}") from None

    def has_answer(self, seconds: float) -> bool:
        """Whether something comes within a time, such as a refusal of a body."""
        connection = self._connect()
        if self._rest:
            return True
        connection.settimeout(seconds)
        try:
            self._receive()
        except TimeoutError:
            return False
        finally:
            connection.settimeout(self._seconds)
        return True

    def read_head(self) -> Head:
        """The head of the next answer, whose body has to be read before another request."""
        while (found := http_message.read_head(self._rest)) is None:
            try:
                self._receive()
            except TimeoutError:
                self.is_usable = False
                raise TransientError(
                    f"{self.origin} does not answer within {self._seconds:g} seconds"
                ) from None
        head, length = found
        del self._rest[:length]
        if head.status == 100:
            return head
        self._chunks = Chunks() if http_message.is_chunked(head) else None
        self._left = http_message.body_length(head, self._method)
        self._may_keep = head.is_kept and (self._left is not None or self._chunks is not None)
        if self._left == 0:
            self._end()
        else:
            self._connect().settimeout(min(BODY_TIME, self._seconds))
        return head

    def read_final_head(self) -> Head:
        """The head of an answer that is more than a word of encouragement."""
        while True:
            head = self.read_head()
            if head.status >= 200:
                return head

    def read_into(self, view: memoryview) -> int:
        """The next bytes of a body; 0 at its end."""
        while self._chunks is not None and not self._chunks.left:
            if self._chunks.is_over:
                self._end()
                return 0
            if not self._rest:
                self._receive_more()
            del self._rest[: self._chunks.feed(self._rest)]
        left = self._chunks.left if self._chunks is not None else self._left
        if left == 0:
            return 0
        if left is not None:
            view = view[:left]
        count = self._take(view)
        if not count:
            if left is None:  # the end of the connection is that of the body
                self.is_usable = False
                return 0
            raise TransientError(f"{self.origin} closed the connection in the middle of a body")
        if self._chunks is not None:
            self._chunks.left -= count
        elif self._left is not None:
            self._left -= count
            if not self._left:
                self._end()
        return count

    def fill(self, view: memoryview) -> int:
        """As many of a body's next bytes as there is place for, fewer at its end: TLS tells no
        more than 16 KiB at a time, and a file takes large blocks with less work.
        """
        size = 0
        while size < len(view) and (count := self.read_into(view[size:])):
            size += count
        return size

    def read_text(self, most: int = MAX_TEXT) -> bytes:
        """A whole body."""
        parts: list[bytes] = []
        size = 0
        block = memoryview(bytearray(_RECEIVE))
        while count := self.read_into(block):
            size += count
            if size > most:
                self.is_usable = False
                raise TransientError(f"{self.origin} answered more than {most} bytes")
            parts.append(bytes(block[:count]))
        return b"".join(parts)

    def _take(self, view: memoryview) -> int:
        if self._rest:
            count = min(len(view), len(self._rest))
            view[:count] = self._rest[:count]
            del self._rest[:count]
            return count
        try:
            return self._connect().recv_into(view)
        except OSError as error:
            self.is_usable = False
            raise TransientError(f"{self.origin}: {_describe(error)}") from None

    def _receive_more(self) -> None:
        try:
            self._receive()
        except TimeoutError as error:
            self.is_usable = False
            raise TransientError(f"{self.origin}: {_describe(error)}") from None

    def _receive(self) -> None:
        """More of what is no data.  Raises TimeoutError."""
        try:
            data = self._connect().recv(_RECEIVE)
        except TimeoutError:
            raise
        except OSError as error:
            self.is_usable = False
            raise TransientError(f"{self.origin}: {_describe(error)}") from None
        if not data:
            self.is_usable = False
            raise TransientError(f"{self.origin} closed the connection")
        self._rest += data

    def _end(self) -> None:
        self.is_kept = True
        if self._socket is not None:
            self._socket.settimeout(self._seconds)
        if not self._may_keep:
            self.is_usable = False


def _describe(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "nothing came in time"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return error.strerror or str(error) or type(error).__name__
