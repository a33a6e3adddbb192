"""https, http, davs, dav: the files of WebDAV servers, and of web servers.

    Session (one connection) -> http_connection (blocking, in threads) -> http_message, webdav

A server is shown the user's proxy, or a certificate ($X509_USER_CERT, $X509_USER_KEY), where there
is one: who sees it can do nothing with it.  Who sees a bearer token can use it, so it goes to
those hosts only that --dav-token-for names, and over TLS only.  A server may send us to another
one, as storage systems do: that one gets no credential at all, only what the URL has that it
was named by, and no name in the clear is followed from TLS.

The library is Python's own: what is on top of h11 was measured at a quarter of the speed of curl.

Where servers of one kind copy from each other (HTTP third-party copy), that of the destination gets
a macaroon which the source made for one file, never a token of ours.

WebDAV has no symbolic links and no permissions.  A server that removes no directory which holds
something (XRootD's) has it emptied by us, and only what such a server calls a directory that is
not empty is entered.
"""

import argparse
import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final, NamedTuple, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

from gridmad.authorities import AUTHORITIES, trusting
from gridmad.credential import Credential, proxy_source, token_source
from gridmad.credential_watch import CredentialWatch
from gridmad.errors import CredentialError, DriverError, TransientError
from gridmad.options import absolute_path
from gridmad.transfer import http_message, webdav
from gridmad.transfer.http_connection import CONTINUE_TIME, Connection, Origin
from gridmad.transfer.http_message import Head, escape_path
from gridmad.transfer.storage import Block, Progress, Session, Status, Storage, write_all
from gridmad.transfer.url import Url
from gridmad.transfer.webdav import Resource

Result = TypeVar("Result")

BLOCK: Final = 1 << 18
REDIRECTIONS: Final = 5
_SILENCE: Final = 300.0
"""Seconds without a byte after which a connection counts as broken."""
_THREADS: Final = 1024
_ATTEMPTS: Final = 3
"""How often a directory is emptied when somebody goes on writing into it."""
_TRANSIENT: Final = frozenset({408, 425, 429, 502, 503, 504})
_IS_NO_DAV: Final = frozenset({405, 501})
_NOT_FOUND: Final = frozenset({404, 410})
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


class Dav(Storage):
    """WebDAV and web servers."""

    schemes: ClassVar[frozenset[str]] = frozenset({"https", "http", "davs", "dav"})
    checksums: ClassVar[Sequence[str]] = ("adler32", "md5")

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.home: str = options.dav_home or ""
        self.token_hosts = frozenset(host.lower() for host in options.dav_token_for)
        self.threads = ThreadPoolExecutor(_THREADS, "dav")
        warnings = options.credential_warnings
        user = os.geteuid()
        self._proxy = CredentialWatch(proxy_source(os.environ, user), warnings=warnings)
        self._token = CredentialWatch(token_source(os.environ, user), warnings=warnings)
        self.unescape: dict[Origin, bool] = {}
        """Servers that do so with the names in `Destination`, or do not."""
        self._opening = asyncio.Lock()
        self._access: Access | None = None

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare whom to trust, and who is trusted with a token."""
        parser.add_argument(
            "--dav-ca",
            metavar="PATH",
            type=Path,
            help="the authorities that https servers are trusted by: a folder or a PEM file "
            f"(default: $X509_CERT_DIR, else {AUTHORITIES}, else those of the system)",
        )
        parser.add_argument(
            "--dav-token-for",
            metavar="HOST",
            action="append",
            default=[],
            help="show the bearer token ($BEARER_TOKEN, $BEARER_TOKEN_FILE, ...) to HOST, over "
            "https only; may be given again (default: to nobody)",
        )
        parser.add_argument(
            "--dav-home",
            metavar="PATH",
            type=absolute_path,
            help="what '~' is on WebDAV servers, which have no home directories",
        )

    def credentials(self) -> Sequence[CredentialWatch]:
        """Those that are there."""
        found = [self._proxy] if _exists(self._proxy) else []
        return [*found, self._token] if self.token_hosts else found

    async def connect(self, url: Url) -> Session:
        """A session, which connects with its first request."""
        is_tls = url.scheme in ("https", "davs")
        origin = Origin(is_tls, url.host, url.port or (443 if is_tls else 80))
        if url.user:
            raise DriverError("a name before the host means nothing to a web server")
        token = ""
        if is_tls and url.host in self.token_hosts:
            token = (await self._token.require_valid()).content.decode("ascii")
        return DavSession(self, origin, await self._new_access(), token)

    async def close(self) -> None:
        """Leave the threads."""
        self.threads.shutdown(wait=False, cancel_futures=True)

    async def _new_access(self) -> Access:
        """Made again where the proxy was renewed."""
        proxy = await self._proxy.require_valid() if _exists(self._proxy) else None
        async with self._opening:
            if self._access is None or self._access.proxy is not proxy:
                self._access = await asyncio.to_thread(self._read_access, proxy)
            return self._access

    def _read_access(self, proxy: Credential | None) -> Access:
        named, nameless = trusting(self.options.dav_ca), trusting(self.options.dav_ca)
        certificate = proxy.path if proxy else os.environ.get("X509_USER_CERT", "")
        key = "" if proxy else os.environ.get("X509_USER_KEY", "")
        if certificate:
            try:
                named.load_cert_chain(certificate, key or None)
            except OSError as error:
                raise CredentialError(f"the certificate {certificate}: {error}") from None
        return Access(named, nameless, proxy)


class DavSession(Session):
    """A connection to a server, and for a moment those to which it sends us."""

    def __init__(self, storage: Dav, origin: Origin, access: Access, token: str) -> None:
        super().__init__(storage)
        self._origin = origin
        self._access = access
        self._token = token
        self._home = storage.home
        self._threads = storage.threads
        self._connection: Connection | None = None
        self._elsewhere: Connection | None = None
        self._is_cut = False
        self._is_dav = True
        self._is_xrootd = False

    @property
    def is_open(self) -> bool:
        """A connection that has ended is made again."""
        return not self._is_cut

    async def close(self) -> None:
        """Leave."""
        self._is_cut = True
        for connection in (self._connection, self._elsewhere):
            if connection is not None:
                connection.close()

    # ------------------------------------------------------------ names

    async def status(self, url: Url) -> Status | None:
        """What is there."""
        return await self._run(self._status, self._target(url))

    def _status(self, target: Target) -> Status | None:
        if self._is_dav:
            try:
                resources = self._list(target, "0")
            except _RefusedError as error:
                if error.status in _NOT_FOUND:
                    return None
                if error.status not in _IS_NO_DAV:
                    raise
                self._is_dav = False
            else:
                if len(resources) == 1 and (
                    resources[0].size is not None or resources[0].is_directory
                ):
                    return Status(resources[0].size or 0, resources[0].is_directory)
        try:
            head = self._ask("HEAD", target)[0]
        except _RefusedError as error:
            if error.status in _NOT_FOUND:
                return None
            raise
        return Status(http_message.content_length(head) or 0)

    def _list(self, target: Target, depth: str) -> list[Resource]:
        headers = {"Depth": depth, "Content-Type": "application/xml"}
        return webdav.read_resources(self._ask("PROPFIND", target, headers, webdav.PROPFIND)[1])

    async def make_directories(self, url: Url) -> None:
        """Make a directory and its parents."""
        await self._run(self._make_directories, self._target(url))

    def _make_directories(self, target: Target) -> None:
        path = target.path.rstrip("/")
        missing: list[str] = []
        while path and not self._is_directory(target._replace(path=path)):
            missing.append(path)
            path = path.rpartition("/")[0]
        for folder in reversed(missing):
            place = target._replace(path=f"{folder}/")
            try:
                self._ask("MKCOL", place)
            except _RefusedError:
                if not self._is_directory(place):  # somebody else was faster
                    raise

    def _is_directory(self, target: Target) -> bool:
        found = self._status(target)
        if found is not None and not found.is_directory:
            raise DriverError(f"{target.path} is no directory")
        return found is not None

    async def remove_tree(self, url: Url) -> None:
        """Remove a directory with all it holds."""
        target = self._target(url)
        path = target.path.rstrip("/")
        if not path or ".." in url.path.split("/"):
            raise DriverError("it is '/', or has '..' in it")
        if f"{escape_path(self._home)}/".startswith(f"{path}/"):
            raise DriverError("it is or holds the home directory")
        await self._run(self._remove_tree, target._replace(path=path))

    def _remove_tree(self, target: Target) -> None:
        found = self._status(target)
        if found is None:
            return
        if not found.is_directory:
            raise DriverError("it is no directory")
        for _ in range(_ATTEMPTS):
            if self._empty(target):
                return
        raise DriverError("something goes on writing into it")

    def _empty(self, root: Target) -> bool:
        """Remove a tree; false where something came meanwhile."""
        # Directories in the order in which they were found: the last one is the first to be empty.
        found = [root]
        for folder in found:
            if not self._remove_if_empty(folder._replace(path=f"{folder.path}/")):
                found += self._remove_entries(folder)
        return all(
            self._remove_if_empty(folder._replace(path=f"{folder.path}/"))
            for folder in reversed(found)
        )

    def _remove_entries(self, folder: Target) -> list[Target]:
        """Remove all but directories that hold something, which are returned."""
        kept = []
        try:
            resources = self._list(folder._replace(path=f"{folder.path}/"), "1")
        except _RefusedError as error:
            if error.status in _NOT_FOUND:
                return []
            raise
        for resource in resources[1:]:
            for name in resource.names:
                if name in ("", ".", "..") or "/" in name:
                    raise TransientError(f"{name!r} is no name of a file")
                entry = folder._replace(path=f"{folder.path}/{escape_path(name)}")
                try:
                    if not self._remove_if_empty(entry):
                        kept.append(entry)
                except _RefusedError as error:
                    if error.status not in _NOT_FOUND:
                        raise DriverError(f"{entry.path}: {error}") from None
                    continue  # its other name
                break
        return kept

    def _remove_if_empty(self, target: Target) -> bool:
        """Remove a file or a directory; false where that holds something."""
        try:
            self._ask("DELETE", target)
        except _RefusedError as error:
            if "not empty" in str(error):
                return False
            if error.status in _NOT_FOUND and target.path.endswith("/"):
                return True
            raise
        return True

    async def remove(self, url: Url) -> None:
        """Remove a file."""
        await self._run(self._ask, "DELETE", self._target(url))

    async def rename(self, url: Url, new: Url) -> None:
        """Give a file another name in its folder."""
        await self._run(self._rename, self._target(url), self._target(new))

    def _rename(self, target: Target, new: Target) -> None:
        plain = unquote(new.path, errors="surrogateescape")
        if plain == new.path or not self._is_xrootd:
            self._move(target, str(new))
            return
        # XRootD's server takes what `Destination` says as it is, and blanks and bytes above ASCII
        # at its end for nothing, but not before a query.  One day it may unescape that.
        if "?" in plain:
            raise DriverError("XRootD takes no '?' in the name of a file")
        storage = self.storage
        assert isinstance(storage, Dav)
        if "%" in plain and new.origin not in storage.unescape:
            target, storage.unescape[new.origin] = self._find_out(target)
        self._move(target, str(new) if storage.unescape.get(new.origin) else _unescaped(new))

    def _move(self, target: Target, destination: str) -> None:
        self._ask("MOVE", target, {"Destination": destination, "Overwrite": "T"})

    def _find_out(self, target: Target) -> tuple[Target, bool]:
        """Where a temporary file is when it was renamed, and whether the server unescapes what
        `Destination` says.
        """
        folder, _, name = target.path.rpartition("/")
        tried = target._replace(path=f"{folder}/{name}%252D2")
        self._move(target, _unescaped(tried))
        unescaped = target._replace(path=f"{folder}/{name}-2")
        if self._status(unescaped) is not None:
            return unescaped, True
        return tried, False

    async def checksum(self, url: Url, algorithm: str) -> str:
        """Ask the server, which may have to read the file."""
        headers = {"Want-Digest": algorithm}
        head, _ = await self._run(self._ask, "HEAD", self._target(url), headers)
        found = http_message.digest(head, algorithm)
        if found is None:
            raise DriverError(f"the server tells no {algorithm}")
        return found

    # ------------------------------------------------------------ contents

    async def read(self, url: Url) -> AsyncGenerator[Block, None]:
        """The content of a file."""
        connection = await self._run(self._get, self._target(url))
        buffer = memoryview(bytearray(BLOCK))
        is_whole = False
        try:
            while count := await self._run(connection.fill, buffer):
                yield buffer[:count]
            is_whole = True
        finally:
            if not is_whole:
                connection.close()

    async def download(self, url: Url, file: int, progress: Progress) -> None:
        """Write a file's content to a local one."""

        def download() -> None:
            connection = self._get(target)
            buffer = memoryview(bytearray(BLOCK))
            try:
                while count := connection.fill(buffer):
                    write_all(file, buffer[:count])
                    progress.moved += count
            except BaseException:
                connection.close()
                raise

        target = self._target(url)
        await self._run(download)

    def _get(self, target: Target) -> Connection:
        connection, head = self._request("GET", target)
        if head.status != 200:
            raise _refusal(head, connection)
        return connection

    async def write(self, url: Url, blocks: AsyncIterator[Block], size: int | None) -> None:
        """Make a file."""
        put = await self._run(self._begin_put, self._target(url), size)
        try:
            async for block in blocks:
                if block:
                    parts = [block] if size is not None else http_message.chunk(block)
                    await self._run(self._send, put.connection, parts)
            if size is None:
                await self._run(self._send, put.connection, [http_message.LAST_CHUNK])
            await self._run(self._end_put, put)
        except BaseException:
            put.connection.close()
            raise

    async def upload(self, url: Url, file: int, size: int | None, progress: Progress) -> None:
        """Make a file of a local one."""

        def upload() -> None:
            put = self._begin_put(target, size)
            try:
                left = size
                buffer = memoryview(bytearray(BLOCK))
                while left is None or left > 0:
                    count = os.readv(file, [buffer if left is None else buffer[:left]])
                    if not count:
                        break
                    data = buffer[:count]
                    parts = [data] if left is not None else http_message.chunk(data)
                    self._send(put.connection, parts)
                    progress.moved += count
                    if left is not None:
                        left -= count
                if left:
                    raise DriverError(f"it became shorter by {left} bytes while it was copied")
                if left is None:
                    self._send(put.connection, [http_message.LAST_CHUNK])
                self._end_put(put)
            except BaseException:
                put.connection.close()
                raise

        target = self._target(url)
        await self._run(upload)

    def _begin_put(self, target: Target, size: int | None) -> "_Put":
        """What waits for the content."""
        length = {"Content-Length": str(size)} if size is not None else {}
        headers = length or {"Transfer-Encoding": "chunked"}
        if size == 0:
            return _Put(*self._request("PUT", target, headers))
        connection, head = self._request("PUT", target, {**headers, "Expect": "100-continue"})
        if head.status != 100:
            raise _refusal(head, connection)
        return _Put(connection, None)

    def _end_put(self, put: "_Put") -> None:
        head = put.head or put.connection.read_final_head()
        if not head.is_success:
            raise _refusal(head, put.connection)
        put.connection.read_text()

    def _send(self, connection: Connection, parts: Sequence[Block]) -> None:
        try:
            connection.send(*parts)
        except TransientError:
            # A server that refuses the rest says why, and closes.
            with suppress(TransientError):
                head = connection.read_final_head()
                if not head.is_success:
                    raise _refusal(head, connection) from None
            raise

    async def fetch(self, url: Url, source: Url, progress: Progress) -> bool:
        """Have the server fetch a file from another one."""
        return await self._run(self._fetch, self._target(url), self._target(source), progress)

    def _fetch(self, target: Target, source: Target, progress: Progress) -> bool:
        macaroon = self._macaroon(source)
        if not macaroon:
            return False
        headers = {
            "Source": str(source),
            "TransferHeaderAuthorization": f"Bearer {macaroon}",
            "Credential": "none",
            "Overwrite": "T",
            "RequireChecksumVerification": "false",
        }
        connection, head = self._request("COPY", target, headers)
        if not head.is_success:
            connection.read_text()
            return False
        answer = webdav.CopyAnswer()
        buffer = memoryview(bytearray(BLOCK))
        while count := connection.read_into(buffer):
            answer.feed(bytes(buffer[:count]))
            progress.moved = answer.moved
        answer.close()
        return answer.failure is None

    def _macaroon(self, source: Target) -> str:
        """Of the server of a source; "" where it makes none."""
        if not source.origin.is_tls:
            return ""
        is_same = source.origin == self._origin
        storage = self.storage
        assert isinstance(storage, Dav)
        other = Connection(source.origin, self._access.named, _SILENCE)
        headers = {"Content-Type": webdav.MACAROON_REQUEST}
        if self._token and (is_same or source.origin.host in storage.token_hosts):
            headers["Authorization"] = f"Bearer {self._token}"
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

    # ------------------------------------------------------------ requests

    async def _run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call what blocks in a thread; on cancellation the connections are cut."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, function, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._is_cut = True
            for connection in (self._connection, self._elsewhere):
                if connection is not None:
                    connection.cut()
            await asyncio.wait([future])
            future.exception()
            raise

    def _ask(
        self,
        method: str,
        target: Target,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[Head, bytes]:
        """A request whose answer is short.  Raises _RefusedError."""
        length = {"Content-Length": str(len(body))} if body or method == "MKCOL" else {}
        connection, head = self._request(method, target, {**(headers or {}), **length}, body)
        if not head.is_success:
            raise _refusal(head, connection)
        content = connection.read_text()
        if head.status == 207 and method != "PROPFIND":
            raise _RefusedError(head.status, "a part of it was refused")
        return head, content

    def _request(
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
                if not is_kept or method not in _REPEATABLE or self._is_cut:
                    raise
                connection.close()
                connection = self._connect(target.origin)
                head = _exchange(connection, method, target.path, own, body)
            if not head.redirection:
                self._is_xrootd = head.headers.get("server", "").lower().startswith("xrootd")
                return connection, head
            if "Expect" in own:
                connection.close()
            else:
                connection.read_text()
            target = _redirected(target, head.redirection)
        raise DriverError(f"the server sends us elsewhere more than {REDIRECTIONS} times")

    def _connect(self, origin: Origin) -> Connection:
        if self._is_cut:
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

    def _target(self, url: Url) -> Target:
        is_tls = url.scheme in ("https", "davs")
        origin = Origin(is_tls, url.host, url.port or (443 if is_tls else 80))
        steps = "/".join(step for step in url.steps.split("/") if step not in ("", "."))
        if url.home_user is not None:
            if url.home_user or not self._home:
                raise DriverError("WebDAV has no home directories (--dav-home says what '~' is)")
            return Target(origin, escape_path(f"{self._home}/{steps}".rstrip("/")))
        return Target(origin, escape_path(f"/{steps}"))


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


def _unescaped(target: Target) -> str:
    """A URL with its names as they are, as a header can have it."""
    plain = unquote(target.path, errors="surrogateescape")
    return f"{target.origin}{plain}?".encode("utf-8", "surrogateescape").decode("latin-1")


class _Put(NamedTuple):
    """A PUT whose content is sent next."""

    connection: Connection
    head: Head | None
    """Of the answer, where there is no content."""


class _RefusedError(DriverError):
    """A server's refusal."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _refusal(head: Head, connection: Connection) -> DriverError:
    """What a refusal says; the connection is used up where that is long."""
    said = ""
    with suppress(TransientError):
        said = " ".join(connection.read_text(1 << 16).decode("utf-8", "replace").split())
    if "<" in said:  # a page for people
        said = ""
    text = f"{head.status} {head.reason}".strip() + (f": {said[:_EXCERPT]}" if said else "")
    if head.status in _TRANSIENT:
        return TransientError(text)
    return _RefusedError(head.status, text)


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


def _exists(watch: CredentialWatch) -> bool:
    return any(Path(path).exists() for path in watch.source.paths)
