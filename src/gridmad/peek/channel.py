"""A byte stream to a broker, over TCP or TLS, that is read and written at the same time.

The reader is one thread; writers are any.  A writer that the peer holds up never keeps the
reader from reading, so the peer can go on.
"""

import errno
import logging
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gridmad.peek.errors import AuthenticationError, BrokerError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
"""Seconds for TCP, and for TLS, to be set up."""
LARGEST_WRITE = 1000
"""Pieces of one sendmsg; the kernel takes 1024."""
POLL_TIME = 0.1
"""Seconds after which a writer looks again whether TLS lets it write."""


class NotTlsError(BrokerError):
    """What listens does not answer in TLS."""


@dataclass(frozen=True)
class Endpoint:
    """A broker's address.  `name` is what its certificate is checked against, if not `host`."""

    host: str
    port: int
    tls: bool
    name: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        alias = f" ({self.name})" if self.name and self.name != self.host else ""
        return f"{host}:{self.port}{alias}"


@dataclass(frozen=True)
class Login:
    """Who we are to a broker, and whom we trust."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    """Certificates of authorities; None for those of the system."""
    certificate: Path | None = None
    key: Path | None = None
    virtual_host: str | None = None


def expand(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Each endpoint, an alias of several brokers as all its addresses.

    IPv4 is taken where there is any: a broker with two kinds of addresses is one broker.
    A name that cannot be resolved now stays as it is.
    """
    found: list[Endpoint] = []
    for endpoint in endpoints:
        try:
            answers = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            answers = []
        addresses: dict[socket.AddressFamily, dict[str, None]] = {}
        for family, _, _, _, address in answers:
            addresses.setdefault(family, {})[str(address[0])] = None
        hosts = list(addresses.get(socket.AF_INET, addresses.get(socket.AF_INET6, {})))
        if len(hosts) < 2:
            hosts = [endpoint.host]
        for host in hosts:
            name = endpoint.name or (endpoint.host if host != endpoint.host else "")
            found.append(Endpoint(host, endpoint.port, endpoint.tls, name))
    return list(dict.fromkeys(found))


def connect(endpoint: Endpoint, login: Login, patience: float) -> "Channel":
    """A stream to the broker.  What is not taken for `patience` seconds breaks it.

    BrokerError where nobody answers or no TLS is spoken, AuthenticationError where TLS
    does not prove who the broker is, or our own certificate cannot be used.
    """
    context = _context(login) if endpoint.tls else None
    try:
        # The name is resolved anew: a broker that moved is found again.
        end = socket.create_connection((endpoint.host, endpoint.port), CONNECT_TIMEOUT)
    except (OSError, UnicodeError) as error:
        raise BrokerError(f"{endpoint} cannot be reached: {_reason(error)}") from None
    try:
        try:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience * 1000))
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(patience / 2)))
            # A balancer in front of a dead broker accepts and resets at once: a socket that
            # is not connected any more would be wrapped, and without TLS.
            end.getpeername()
        except OSError as error:
            raise BrokerError(f"{endpoint} broke the connection: {_reason(error)}") from None
        if context is None:
            end.settimeout(None)
            return Channel(end)
        return _TlsChannel(_handshake(end, context, endpoint))
    except BaseException:
        end.close()
        raise


def speaks_tls(endpoint: Endpoint) -> bool:
    """Whether the endpoint, which did not answer in plain, answers TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((endpoint.host, endpoint.port), 3) as end,
            context.wrap_socket(end),
        ):
            return True
    except OSError:
        return False


def _context(login: Login) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if login.ca is not None:
        # This authority, and none of those of the system.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(login.ca)
        except OSError as error:
            raise AuthenticationError(
                f"the certificates of --ca {login.ca} cannot be read: {_reason(error)}"
            ) from None
    if login.certificate is not None:
        try:
            # A key with a password must not make OpenSSL ask at the terminal.
            context.load_cert_chain(login.certificate, login.key, password=lambda: "")
        except OSError as error:
            raise AuthenticationError(
                f"the client certificate {login.certificate} cannot be used: {_reason(error)}"
            ) from None
    return context


def _handshake(end: socket.socket, context: ssl.SSLContext, endpoint: Endpoint) -> ssl.SSLSocket:
    name = endpoint.name or endpoint.host
    try:
        secured = context.wrap_socket(end, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        raise AuthenticationError(
            f"the certificate of {endpoint} is not accepted: {error.verify_message} "
            "(--ca FILE names the authority that signed it)"
        ) from None
    except (ssl.SSLError, TimeoutError) as error:
        # ActiveMQ's plain port waits for the rest of what it takes for a frame.
        raise NotTlsError(
            f"{endpoint} does not speak TLS as we do ({_reason(error)}): "
            "is stomp:// meant, or another port?"
        ) from None
    except OSError as error:
        # Where the peer resets within wrap_socket CPython leaves its socket to be collected,
        # which the error's frames would keep open for as long as somebody keeps the error.
        error.__traceback__ = None
        # Also what a balancer without a broker does: it may help to try again.
        raise BrokerError(
            f"{endpoint} does not set up TLS ({_reason(error)}): "
            "is stomp:// meant, or another port?"
        ) from None
    secured.setblocking(False)
    return secured


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


class Channel:
    """A connected TCP stream."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._sending = threading.Lock()
        """Held by who writes: pieces of two frames must not mix."""
        self._posted: deque[memoryview] = deque()
        self._is_shut = False

    # ------------------------------------------------------------ reading, by one thread

    def receive(self, room: memoryview) -> int:
        """Wait for bytes; how many came, 0 for the end of the stream."""
        return self.socket.recv_into(room)

    # ------------------------------------------------------------ writing, by any thread

    @property
    def has_posted(self) -> bool:
        """Whether something that was posted has not gone out."""
        return bool(self._posted)

    def send(self, pieces: Sequence[bytes]) -> None:
        """Write all pieces, one behind the other, as fast as the peer takes them."""
        with self._sending:
            while self._posted:
                self._write([self._posted[0]])
                self._posted.popleft()
            self._write(pieces)
        # What was posted while the lock was held found nobody else to take it along.
        self.push()

    def post(self, data: bytes) -> None:
        """Have `data` (whole frames) written soon, and never wait for the peer.

        What does not fit now goes with the next `send` or `push`.
        """
        self._posted.append(memoryview(data))
        self.push()

    def push(self) -> None:
        """Write of what was posted as much as the peer takes now."""
        while self._posted and self._sending.acquire(blocking=False):
            try:
                while self._posted:
                    piece = self._posted[0]
                    count = self._try(piece)
                    if count < len(piece):
                        self._posted[0] = piece[count:]
                        return
                    self._posted.popleft()
            finally:
                self._sending.release()

    def beat(self, data: bytes) -> None:
        """Write a heart-beat, unless something else is on its way anyway."""
        if not self._posted and not self._sending.locked():
            self.post(data)

    def _write(self, pieces: Sequence[bytes | memoryview]) -> None:
        while pieces:
            count = self._write_some(pieces[:LARGEST_WRITE])
            pieces = _behind(pieces, count)

    def _write_some(self, pieces: Sequence[bytes | memoryview]) -> int:
        return self.socket.sendmsg(pieces)

    def _try(self, piece: memoryview) -> int:
        try:
            return self.socket.send(piece, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    # ------------------------------------------------------------ the end

    def shut(self) -> None:
        """End the stream both ways: who waits in it returns or gets an OSError."""
        self._is_shut = True
        try:
            # Of the socket beneath: TLS has nothing to say any more.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EBADF):
                raise

    def close(self) -> None:
        """Give the socket back, when nobody reads or writes any more."""
        self.shut()
        with self._sending:
            self.socket.close()


def _behind(pieces: Sequence[bytes | memoryview], count: int) -> Sequence[bytes | memoryview]:
    """What is left of the pieces when so many bytes were written."""
    for at, piece in enumerate(pieces):
        if count < len(piece):
            return [memoryview(piece)[count:], *pieces[at + 1 :]]
        count -= len(piece)
    return []


class _TlsChannel(Channel):
    """A TLS stream.

    OpenSSL must not be called by two threads at once, and must not be waited in: each call
    is made under a lock and returns at once, and who has to wait does so outside of it.
    """

    socket: ssl.SSLSocket

    def __init__(self, end: ssl.SSLSocket) -> None:
        super().__init__(end)
        self._calling = threading.Lock()
        self._readable = select.poll()
        self._readable.register(end, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(end, select.POLLOUT)

    def receive(self, room: memoryview) -> int:
        count = 0
        while True:
            try:
                # One call gives one record: take what is there before anything is done with it.
                with self._calling:
                    while count < len(room):
                        got = self.socket.recv_into(room[count:])
                        if not got:
                            return count
                        count += got
                return count
            except ssl.SSLWantReadError:
                wait = self._readable
            except ssl.SSLWantWriteError:
                wait = self._writable
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return count
            if count:
                return count
            self._wait(wait, None)

    def _write_some(self, pieces: Sequence[bytes | memoryview]) -> int:
        # Encryption copies anyway: pieces are joined so that records are full.
        data = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        count = 0
        while count < len(data):
            # OpenSSL wants what it could not write again, and nothing else before it:
            # the lock of writers is held until all is written.
            taken = self._try(data[count:])
            count += taken
            if not taken:
                self._wait(self._writable, POLL_TIME)
        return count

    def _try(self, piece: memoryview) -> int:
        try:
            with self._calling:
                return self.socket.send(piece)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def _wait(self, wait: select.poll, timeout: float | None) -> None:
        if self._is_shut:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the connection was closed")
        wait.poll(None if timeout is None else timeout * 1000)
