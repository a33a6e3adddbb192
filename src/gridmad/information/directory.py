"""Directory servers: whole searches over LDAP, each answered completely or not at all.

    SearchRequest (ldap3) -> socket -> _ber.Decoder -> pages of entries -> who joins them

The only place that knows ldap3; imported when a driver starts.  What entries mean is not
known here.
"""

import logging
import math
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ldap3
from ldap3.core.exceptions import LDAPException
from ldap3.core.results import RESULT_CODES
from ldap3.operation.search import search_operation
from ldap3.strategy.base import RESPONSE_COMPLETE
from ldap3.strategy.sync import SyncStrategy
from ldap3.utils.asn1 import encode  # type: ignore[attr-defined]  # not in the stubs

from gridmad._ber import BerError, Decoder, Result, paged
from gridmad.authorities import trusting
from gridmad.errors import TransientError, UsageError
from gridmad.information.ldap import PAGED_RESULTS, Entry, Page, Search, page_request
from gridmad.information.ldap_server import Access, Server
from gridmad.secret import read_secret

log = logging.getLogger(__name__)

Joined = TypeVar("Joined")

PAGE = 1000
"""Entries a server is asked for at a time: many limit what one answer may hold."""
READ_SIZE = 1 << 16
"""Bytes that are decoded at once, in a third of a millisecond, which others wait for.  Servers
send an entry at a time, so a read brings less where nothing else was done meanwhile."""
RECEIVE_BUFFER = 1 << 22
"""Bytes of answers that the system keeps while what came before is decoded."""
MAX_RECEIVED = 1 << 29
"""Bytes of all answers over one connection: a grid of 10,000 queues has 25 million."""
MAX_REASON = 300
"""Characters of a reason: some errors quote whole messages."""
MAX_PASSWORD = 1024
NO_SUCH_OBJECT = 32
OPERATIONS = {1: "bindResponse", 5: "searchResDone", 24: "extendedResp"}
"""ldap3's names of results."""

_WRAPPED = re.compile(r"""\((["'])(.*)\1,?\)""")


class Directory:
    """Servers that hold the same tree, its base, and how to log in.

    One server is asked as long as it answers, then the next.
    """

    def __init__(
        self, servers: Sequence[Server], access: Access, base: str, timeout: float
    ) -> None:
        self._servers = deque(servers)
        self._access = access
        self._base = base
        self._timeout = timeout
        self._operations: dict[Search, bytes] = {}

    @property
    def url(self) -> str:
        """The server that answered last, or is to be asked first."""
        return self._url(self._servers[0])

    def fetch(self, searches: Sequence[Search], join: Callable[[Iterator[Page]], Joined]) -> Joined:
        """What `join` makes of the entries that the searches find, one search after the other,
        all from one server over one connection.  It gets pages while the server is at work on
        those that follow, and is called anew for each server that is asked.

        Raises TransientError where no server can be reached, answers each operation within
        the time-out, and gives everything.
        """
        problems: list[str] = []
        for _ in range(len(self._servers)):
            try:
                joined = self._fetch_from(self._servers[0], searches, join)
            except (LDAPException, BerError, OSError, TransientError, UsageError) as error:
                problems.append(f"{self.url}: {_text(error)}")
                self._servers.rotate(-1)
            else:
                if problems:
                    log.warning("%s; %s answers instead", "; ".join(problems), self.url)
                return joined
        raise TransientError("; ".join(problems))

    def _url(self, server: Server) -> str:
        shown = f"[{server.host}]" if ":" in server.host else server.host
        return f"{'ldaps' if server.is_tls else 'ldap'}://{shown}:{server.port}/{self._base}"

    def _fetch_from(
        self,
        server: Server,
        searches: Sequence[Search],
        join: Callable[[Iterator[Page]], Joined],
    ) -> Joined:
        connection = self._connection(server)
        try:
            strategy = connection.strategy
            if self._access.starts_tls and not server.is_tls:
                connection.open(read_server_info=False)
                connection.start_tls(read_server_info=False)
                if not connection.tls_started:
                    raise TransientError("the server does not start TLS")
            connection.bind(read_server_info=False)
            if connection.result["result"] != 0:
                raise _refusal(connection.result["result"], connection.result["message"])
            pages = self._search(strategy, searches)
            joined = join(pages)
            for _ in pages:
                pass  # nothing is taken for the whole before the last result said that it is
            return joined
        finally:
            _close(connection)

    def _connection(self, server: Server) -> ldap3.Connection:
        access = self._access
        tls = None
        if server.is_tls or access.starts_tls:
            tls = _Tls(access)
        login: dict[str, Any] = {}
        if access.password_file is not None:
            login = {"user": access.bind_dn, "password": _password(access.password_file)}
        elif access.is_external:
            login = {
                "authentication": ldap3.SASL,
                "sasl_mechanism": ldap3.EXTERNAL,
                "sasl_credentials": "",  # whom the certificate names
            }
        return _Connection(
            ldap3.Server(
                server.host,
                server.port,
                use_ssl=server.is_tls,
                tls=tls,
                get_info=ldap3.NONE,
                connect_timeout=self._timeout,
            ),
            auto_referrals=False,
            check_names=False,
            read_only=True,
            patience=self._timeout,
            **login,
        )

    def _encoded(self, search: Search) -> bytes:
        """A SearchRequest; the library takes most of a millisecond to make one, so once."""
        known = self._operations.get(search)
        if known is not None:
            return known
        request = search_operation(
            search.base or self._base,
            search.whole_filter,
            ldap3.SUBTREE,
            ldap3.DEREF_NEVER,
            list(search.attributes),
            0,
            math.ceil(self._timeout),
            False,
            None,
            True,
        )
        encoded: bytes = encode(request)
        self._operations[search] = encoded
        return encoded

    def _search(self, strategy: "_Strategy", searches: Sequence[Search]) -> Iterator[Page]:
        """What each finds.  What came last is decoded, and used by whoever iterates, while the
        server is at work on what was asked next.  Of optional bases one has to be there.
        """
        misses = turn = 0
        operation, cookie = b"", b""
        for search in searches[:1]:
            operation = self._encoded(search)
            strategy.ask(operation, cookie)
        while turn < len(searches):
            result = strategy.read()
            following = turn
            if result is not None:
                if result.code == NO_SUCH_OBJECT and searches[turn].is_optional:
                    misses += 1
                    if misses == len(searches):
                        _check(result)
                else:
                    _check(result)
                if result.references:
                    raise TransientError("a part of the tree is on another server")
                cookie = _cookie(result)
                if not cookie:
                    following = turn + 1
                    if following < len(searches):
                        operation = self._encoded(searches[following])
                if following < len(searches):
                    strategy.ask(operation, cookie)
            yield turn, strategy.entries()
            turn = following


class _Strategy(SyncStrategy):
    """ldap3's connection, with our own way of reading: compiled, and within the time that an
    operation has (ldap3's time-out starts again with every byte).
    """

    def __init__(self, connection: ldap3.Connection, patience: float) -> None:
        super().__init__(connection)
        self._patience = patience
        self._patience_left = patience
        self._decoder = Decoder()
        self._received = 0

    def _open_socket(self, *arguments: Any, **options: Any) -> None:
        try:
            super()._open_socket(*arguments, **options)  # type: ignore[misc]  # not in the stubs
        except LDAPException:
            # ldap3 leaves a socket that could not connect to the garbage collector.
            if self.connection.socket is not None:
                self.connection.socket.close()
            raise
        self.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

    def send(self, message_type: str, request: Any, controls: Any = None) -> int:
        """Send a request of ldap3's; its answer has its time from now."""
        self._begin()
        number: int = super().send(message_type, request, controls)
        self._decoder.expect(number)
        return number

    def ask(self, operation: bytes, cookie: bytes) -> None:
        """Send an encoded SearchRequest for the page after that of `cookie`."""
        self._begin()
        number = self.connection.server.next_message_id()
        self._decoder.expect(number)
        self.connection.socket.sendall(page_request(number, operation, PAGE, cookie))

    def read(self) -> Result | None:
        """The Result where it came, else there are further entries, READ_SIZE bytes or more."""
        result = self._decoder.feed(b"")
        size = 0
        while result is None and size < READ_SIZE:
            data = self._receive()
            size += len(data)
            result = self._decoder.feed(data)
        if result is not None and result.number == 0:
            text = result.text.decode("utf-8", "replace")
            raise TransientError(f"the server ends the connection: {_description(result)} {text}")
        return result

    def _receive(self) -> bytes:
        """What the server says next, within the time that it has left."""
        if self._patience_left <= 0:
            raise TimeoutError("timed out")
        connected: socket.socket = self.connection.socket
        connected.settimeout(self._patience_left)
        start = time.monotonic()
        data = connected.recv(READ_SIZE)
        # What passes between two reads is ours, and not the server's.
        self._patience_left -= time.monotonic() - start
        if not data:
            raise TransientError("the server has closed the connection")
        self._received += len(data)
        if self._received > MAX_RECEIVED:
            raise TransientError(f"the server sends more than {MAX_RECEIVED} bytes")
        return data

    def entries(self) -> Sequence[Entry]:
        """The entries that were read and not decoded yet."""
        return self._decoder.entries()

    def refuse_rest(self) -> None:
        """Raises TransientError where the server said more than it was asked: what comes in the
        clear before TLS must not be taken for what comes over it.
        """
        if self._decoder.held:
            raise TransientError("the server sends something between StartTLS and TLS")

    def _begin(self) -> None:
        self._patience_left = self._patience
        self.connection.socket.settimeout(self._patience)

    def _get_response(self, message_id: int, timeout: float) -> list[Any]:
        """The result of a bind or StartTLS, as ldap3 wants it."""
        while (result := self.read()) is None:
            pass
        return [
            {
                "type": OPERATIONS[result.operation],
                "result": result.code,
                "description": _description(result),
                "dn": result.matched_dn.decode("utf-8", "replace"),
                "message": result.text.decode("utf-8", "replace"),
                "referrals": None,
                "saslCreds": result.credentials,
                "responseName": result.name,
                "responseValue": result.value,
            },
            RESPONSE_COMPLETE,
        ]


class _Tls(ldap3.Tls):
    """TLS as the rest of this package has it, and not as ldap3 does."""

    def __init__(self, access: Access) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._access = access

    def wrap_socket(self, connection: ldap3.Connection, do_handshake: bool = False) -> None:
        """Shake hands; raises OSError where the server's certificate is not to be trusted."""
        connection.strategy.refuse_rest()
        context = trusting(self._access.authorities)
        if self._access.certificate is not None:
            context.load_cert_chain(self._access.certificate, self._access.key)
        connection.socket = context.wrap_socket(
            connection.socket, server_hostname=connection.server.host
        )


class _Connection(ldap3.Connection):
    """A connection with that strategy."""

    def __init__(self, server: ldap3.Server, patience: float, **options: Any) -> None:
        super().__init__(server, **options)
        self.strategy = _Strategy(self, patience)
        self.send = self.strategy.send
        self.open = self.strategy.open
        self.get_response = self.strategy.get_response
        self.post_send_single_response = self.strategy.post_send_single_response
        self.post_send_search = self.strategy.post_send_search


def _check(result: Result) -> None:
    """Anything but success is an error: a size or time limit leaves entries out."""
    if result.code != 0:
        raise _refusal(result.code, result.text.decode("utf-8", "replace"))


def _refusal(code: int, text: str) -> TransientError:
    return TransientError(f"the server answers {RESULT_CODES.get(code, code)} {text}")


def _description(result: Result) -> str:
    return str(RESULT_CODES.get(result.code, result.code))


def _cookie(result: Result) -> bytes:
    """What asks for the next page; b"" after the last."""
    for control in result.controls:
        if control.oid == PAGED_RESULTS and control.value is not None:
            return paged(control.value)[1]
    return b""


def _password(file: Path) -> str:
    """The first line of the file, read each time: passwords are renewed."""
    content = read_secret(file, MAX_PASSWORD, "the password file")
    try:
        password = content.partition(b"\n")[0].removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise UsageError(f"the password file {str(file)!r} is not in UTF-8") from None
    if not password:
        raise UsageError(f"the password file {str(file)!r} has no first line")
    return password


def _close(connection: ldap3.Connection) -> None:
    try:
        connection.unbind()
    except (LDAPException, OSError):
        connection.strategy.close()


def _text(error: Exception) -> str:
    """The innermost reason: ldap3 wraps one in the other."""
    while error.args and isinstance(error.args[-1], (list, tuple, Exception)):
        inner = error.args[-1]
        while isinstance(inner, (list, tuple)) and inner:
            inner = inner[0]
        if not isinstance(inner, Exception):
            break
        error = inner
    text = " ".join(str(error).split())
    while found := _WRAPPED.fullmatch(text):
        text = found[2]
    return text[:MAX_REASON] or type(error).__name__
