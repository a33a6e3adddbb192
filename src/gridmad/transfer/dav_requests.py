"""Requests to WebDAV servers and web servers, and to wherever those send us.  They block.

    Requests -> http_connection -> http_message

A server that a URL names may be shown a certificate and a token.  One that it sends us to gets no
credential at all, only what the URL has that it was named by, and no name in the clear is followed
from TLS.
"""

import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple
from urllib.parse import urljoin, urlsplit

from gridmad.credential import Credential
from gridmad.errors import DriverError, TransientError
from gridmad.transfer import webdav
from gridmad.transfer.http_connection import CONTINUE_TIME, Connection, Origin
from gridmad.transfer.http_message import Head
from gridmad.transfer.webdav import Resource

REDIRECTIONS: Final = 5
NOT_FOUND: Final = frozenset({404, 410})
_SILENCE: Final = 300.0
"""Seconds without a byte after which a connection counts as broken."""
_TRANSIENT: Final = frozenset({408, 425, 429, 502, 503, 504})
_REPEATABLE: Final = frozenset({"GET", "HEAD", "PROPFIND", "DELETE", "MKCOL"})
_EXCERPT: Final = 200


class Access(NamedTuple):
    """What opens connections and requests."""

    named: ssl.SSLContext
    """For the server that a URL names."""
    nameless: ssl.SSLContext
    """For all others: it shows no certificate."""
    proxy: Credential | None


class Target(NamedTuple):
    """Where a request goes."""

    origin: Origin
    path: str
    """Escaped, with its query."""

    def __str__(self) -> str:
        return f"{self.origin}{self.path}"


class RefusedError(DriverError):
    """A server's refusal."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Requests:
    """Of one session: a connection to its server, and for a moment those to which it sends us.

    Raises TransientError, RefusedError and other DriverErrors.
    """

    def __init__(self, origin: Origin, access: Access, token: str) -> None:
        self._origin = origin
        self._access = access
        self._token = token
        self._connection: Connection | None = None
        self._elsewhere: Connection | None = None
        self.is_cut = False
        self.is_xrootd = False
        """Whether the last answer came from a server of XRootD's."""

    def close(self) -> None:
        """Leave."""
        self.is_cut = True
        for connection in (self._connection, self._elsewhere):
            if connection is not None:
                connection.close()

    def cut(self) -> None:
        """End, from another thread, what is under way."""
        self.is_cut = True
        for connection in (self._connection, self._elsewhere):
            if connection is not None:
                connection.cut()

    def ask(
        self,
        method: str,
        target: Target,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[Head, bytes]:
        """A request whose answer is short.  Raises RefusedError."""
        length = {"Content-Length": str(len(body))} if body or method == "MKCOL" else {}
        connection, head = self.request(method, target, {**(headers or {}), **length}, body)
        if not head.is_success:
            raise refusal(head, connection)
        content = connection.read_text()
        if head.status == 207 and method != "PROPFIND":
            raise RefusedError(head.status, "a part of it was refused")
        return head, content

    def request(
        self,
        method: str,
        target: Target,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[Connection, Head]:
        """Send a request to wherever the server wants it, up to the head of its answer."""
        for _ in range(REDIRECTIONS):
            own = dict(headers or {})
            if target.origin == self._origin and self._token:
                own["Authorization"] = f"Bearer {self._token}"
            connection = self._connect(target.origin)
            is_kept = connection.is_kept
            try:
                head = _exchange(connection, method, target.path, own, body)
            except TransientError:
                # A server may close what it kept just when it is used again (RFC 9112, 9.3.1).
                if not is_kept or method not in _REPEATABLE or self.is_cut:
                    raise
                connection.close()
                connection = self._connect(target.origin)
                head = _exchange(connection, method, target.path, own, body)
            if not head.redirection:
                self.is_xrootd = head.headers.get("server", "").lower().startswith("xrootd")
                return connection, head
            if "Expect" in own:
                connection.close()
            else:
                connection.read_text()
            target = _redirected(target, head.redirection)
        raise DriverError(f"the server sends us elsewhere more than {REDIRECTIONS} times")

    def list(self, target: Target, depth: str) -> list[Resource]:
        """A resource (depth "0"), or it and those that it holds ("1")."""
        headers = {"Depth": depth, "Content-Type": "application/xml"}
        return webdav.read_resources(self.ask("PROPFIND", target, headers, webdav.PROPFIND)[1])

    def _connect(self, origin: Origin) -> Connection:
        if self.is_cut:
            raise TransientError("given up")
        if origin == self._origin:
            if self._connection is None or not self._connection.is_ready():
                if self._connection is not None:
                    self._connection.close()
                context = self._access.named if origin.is_tls else None
                self._connection = Connection(origin, context, _SILENCE)
            return self._connection
        if self._elsewhere is not None:
            self._elsewhere.close()
        context = self._access.nameless if origin.is_tls else None
        self._elsewhere = Connection(origin, context, _SILENCE)
        return self._elsewhere

    def macaroon(self, source: Target, token: str) -> str:
        """A macaroon of the server of a source, which is shown `token`; "" where it makes none."""
        if not source.origin.is_tls:
            return ""
        other = Connection(source.origin, self._access.named, _SILENCE)
        headers = {"Content-Type": webdav.MACAROON_REQUEST}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        body = webdav.macaroon_request()
        headers["Content-Length"] = str(len(body))
        self._elsewhere = other
        try:
            other.send_head("POST", source.path, headers)
            other.send(body)
            head = other.read_final_head()
            content = other.read_text()
        finally:
            other.close()
        return webdav.read_macaroon(content) if head.is_success else ""


def _exchange(
    connection: Connection, method: str, path: str, headers: Mapping[str, str], body: bytes
) -> Head:
    """The head of an answer.  One that expects 100 gets it, too, where a server says nothing for a
    while.
    """
    connection.send_head(method, path, {**headers, "Accept": "*/*"})
    if body:
        connection.send(body)
    if "Expect" not in headers:
        return connection.read_final_head()
    if not connection.has_answer(CONTINUE_TIME):
        return Head(100, "", {}, is_kept=True)
    head = connection.read_head()
    return head if head.status == 100 or head.status >= 200 else connection.read_final_head()


def refusal(head: Head, connection: Connection) -> DriverError:
    """What a refusal says; the connection is used up where that is long."""
    said = ""
    with suppress(TransientError):
        said = " ".join(connection.read_text(1 << 16).decode("utf-8", "replace").split())
    if "<" in said:  # a page for people
        said = ""
    text = f"{head.status} {head.reason}".strip() + (f": {said[:_EXCERPT]}" if said else "")
    if head.status in _TRANSIENT:
        return TransientError(text)
    return RefusedError(head.status, text)


def _redirected(target: Target, location: str) -> Target:
    """Where a server sends us.  Raises DriverError for where we do not go."""
    try:
        parts = urlsplit(urljoin(str(target), location))
        is_tls = parts.scheme == "https"
        port = parts.port or (443 if is_tls else 80)
    except ValueError:
        raise DriverError("the server sends us to what is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DriverError(f"the server sends us to what is no web server: {location[:_EXCERPT]}")
    if target.origin.is_tls and not is_tls:
        raise DriverError(f"the server sends us out of TLS: {parts.hostname}")
    path = parts.path or "/"
    return Target(
        Origin(is_tls, parts.hostname.lower(), port),
        f"{path}?{parts.query}" if parts.query else path,
    )
