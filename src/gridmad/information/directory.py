"""A directory server: whole searches over LDAP, each answered completely or not at all.

The only place that knows ldap3; imported when a driver starts.  What entries mean is not
known here.
"""

import math
import os
import re
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

import ldap3
from ldap3.core.exceptions import LDAPException
from ldap3.strategy.sync import SyncStrategy

from gridmad.errors import TransientError
from gridmad.information.ldap import Entry, MessageReader, Search

PAGE = 1000
"""Entries a server is asked for at a time: many limit what one answer may hold."""
READ_SIZE = 1 << 16
PAGED_RESULTS = "1.2.840.113556.1.4.319"
SEARCH_RESULT_ENTRY = 4
NO_SUCH_OBJECT = 32
MAX_REASON = 300
"""Characters of a reason: some errors quote whole messages."""

_WRAPPED = re.compile(r"""\((["'])(.*)\1,?\)""")
_OTHER_NAME = re.compile(r"certificate \{.*\} doesn't match any name in \[(.*)\]")


class NoSuchBaseError(TransientError):
    """The base of a search is not there (now: a directory that starts is empty)."""


class Directory:
    """One server and the base of its tree."""

    def __init__(self, host: str, port: int, is_tls: bool, base: str, timeout: float) -> None:
        self._host = host
        self._port = port
        self._is_tls = is_tls
        self._base = base
        self._timeout = timeout
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'ldaps' if is_tls else 'ldap'}://{shown}:{port}/{base}"

    def fetch(self, searches: Iterable[Search]) -> list[list[Entry]]:
        """The entries that each search finds, over one connection.

        Raises TransientError where the server cannot be reached, takes longer than the
        time-out for an operation, or gives less than everything.
        """
        try:
            connection = self._connection()
        except LDAPException as error:
            raise TransientError(f"{self.url}: {_text(error)}") from None
        try:
            connection.bind()
            self._check(connection.result)
            return self._search_all(connection, searches)
        except (LDAPException, OSError, TransientError) as error:
            raise TransientError(f"{self.url}: {_text(error)}") from None
        finally:
            _close(connection)

    def _connection(self) -> ldap3.Connection:
        tls = None
        if self._is_tls:
            folder = os.environ.get("X509_CERT_DIR")
            tls = ldap3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_path=folder)
        server = ldap3.Server(
            self._host,
            self._port,
            use_ssl=self._is_tls,
            tls=tls,
            get_info=ldap3.NONE,
            connect_timeout=self._timeout,
        )
        return _Connection(
            server,
            auto_referrals=False,
            auto_range=False,
            check_names=False,
            read_only=True,
            return_empty_attributes=False,
            patience=self._timeout,
        )

    def _search_all(
        self, connection: ldap3.Connection, searches: Iterable[Search]
    ) -> list[list[Entry]]:
        """What each finds.  Of optional bases one has to be there."""
        found: list[list[Entry]] = []
        missing: dict[str, NoSuchBaseError] = {}
        misses = 0
        for search in searches:
            entries: list[Entry] = []
            if search.base not in missing:
                try:
                    entries = self._search(connection, search)
                except NoSuchBaseError as error:
                    if not search.is_optional:
                        raise
                    missing[search.base] = error
            misses += search.base in missing
            found.append(entries)
        if missing and misses == len(found):
            raise next(iter(missing.values()))
        return found

    def _search(self, connection: ldap3.Connection, search: Search) -> list[Entry]:
        entries: list[Entry] = []
        cookie: bytes | None = None
        while True:
            connection.search(
                search.base or self._base,
                search.whole_filter,
                attributes=list(search.attributes),
                time_limit=math.ceil(self._timeout),
                paged_size=PAGE,
                paged_cookie=cookie,
            )
            self._check(connection.result)
            for response in connection.response or ():
                if response["type"] != "searchResEntry":
                    raise TransientError("a part of the tree is on another server")
                entries.append(response["entry"])
            controls = connection.result.get("controls") or {}
            cookie = controls.get(PAGED_RESULTS, {}).get("value", {}).get("cookie")
            if not cookie:
                return entries

    def _check(self, result: dict[str, Any]) -> None:
        """Anything but success is an error: a size or time limit leaves entries out."""
        if result["result"] != 0:
            text = " ".join(f"{result['description']} {result['message'] or ''}".split())
            kind = NoSuchBaseError if result["result"] == NO_SUCH_OBJECT else TransientError
            raise kind(f"the server answers {text}")


class _Strategy(SyncStrategy):
    """Reads whole messages within the time that an operation has, and makes of an entry its
    values by name in lower case, and nothing else.

    ldap3's own time-out starts again with every byte, and it makes several dictionaries that
    compare without case of each entry; with this the same searches take two fifths of the time.
    """

    def __init__(self, connection: ldap3.Connection, patience: float) -> None:
        super().__init__(connection)
        self._patience = patience
        self._deadline = math.inf
        self._reader = MessageReader()
        self._names: dict[bytes, str] = {}

    def _open_socket(self, *arguments: Any, **options: Any) -> None:
        try:
            super()._open_socket(*arguments, **options)  # type: ignore[misc]  # not in the stubs
        except LDAPException:
            # ldap3 leaves a socket that could not connect to the garbage collector.
            if self.connection.socket is not None:
                self.connection.socket.close()
            raise

    def send(self, message_type: str, request: Any, controls: Any = None) -> int:
        """Send a request; its answer has its time from now."""
        self._deadline = time.monotonic() + self._patience
        self.connection.socket.settimeout(self._patience)
        number: int = super().send(message_type, request, controls)
        return number

    def receiving(self) -> list[bytes]:  # type: ignore[override]  # wrong in the stubs
        """The next messages, at least one; none when the server has closed the connection."""
        messages: list[bytes] = []
        while not messages:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            connected: socket.socket = self.connection.socket
            connected.settimeout(left)
            data = connected.recv(READ_SIZE)
            if not data:
                break
            messages = self._reader.feed(data)
        return messages

    def decode_response_fast(self, ldap_message: dict[str, Any]) -> dict[str, Any]:
        """One message of an answer, as ldap3 wants it; entries as this module wants them."""
        if ldap_message["protocolOp"] != SEARCH_RESULT_ENTRY:
            other: dict[str, Any] = super().decode_response_fast(ldap_message)  # type: ignore[no-untyped-call]
            return other
        entry = {}
        for attribute in ldap_message["payload"][1][3]:
            name, values = attribute[3]
            entry[self._lower(name[3])] = [value[3] for value in values[3]]
        return {"type": "searchResEntry", "entry": entry}

    def _lower(self, name: bytes) -> str:
        """The name as a str; each is made once."""
        known = self._names.get(name)
        if known is None:
            known = self._names[name] = name.decode("ascii", "replace").lower()
        return known


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
    text = _OTHER_NAME.sub(r"the server's certificate does not name \1", text)
    return text[:MAX_REASON] or type(error).__name__
