"""https, http, davs, dav: the files of WebDAV servers, and of web servers.

    DavSession -> dav_requests (blocking, in threads) -> http_connection -> http_message, webdav

A server is shown the user's proxy, or a certificate ($X509_USER_CERT, $X509_USER_KEY), where there
is one: who sees it can do nothing with it.  Who sees a bearer token can use it, so it goes to
those hosts only that --dav-token-for names, and over TLS only.

The library is Python's own: what is on top of h11 was measured at a quarter of the speed of curl.

Where servers of one kind copy from each other (HTTP third-party copy), that of the destination gets
a macaroon which the source made for one file, never a token of ours.

WebDAV has no symbolic links and no permissions.
"""

import argparse
import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final, NamedTuple, TypeVar
from urllib.parse import unquote

from gridmad.authorities import AUTHORITIES, trusting
from gridmad.credential import Credential, proxy_source, token_source
from gridmad.credential_watch import CredentialWatch
from gridmad.errors import CredentialError, DriverError, TransientError
from gridmad.options import absolute_path
from gridmad.transfer import http_message, webdav
from gridmad.transfer.dav_requests import NOT_FOUND, Access, RefusedError, Requests, Target, refusal
from gridmad.transfer.dav_tree import remove_tree
from gridmad.transfer.http_connection import Connection, Origin
from gridmad.transfer.http_message import Head, escape_path
from gridmad.transfer.storage import Block, Progress, Session, Status, Storage, write_all
from gridmad.transfer.url import Url

Result = TypeVar("Result")

BLOCK: Final = 1 << 18
_THREADS: Final = 1024
_IS_NO_DAV: Final = frozenset({405, 501})


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
    """Files of one server."""

    def __init__(self, storage: Dav, origin: Origin, access: Access, token: str) -> None:
        super().__init__(storage)
        self._origin = origin
        self._token = token
        self._requests = Requests(origin, access, token)
        self._dav = storage
        self._is_dav = True

    @property
    def is_open(self) -> bool:
        """A connection that has ended is made again."""
        return not self._requests.is_cut

    async def close(self) -> None:
        """Leave."""
        self._requests.close()

    # ------------------------------------------------------------ names

    async def status(self, url: Url) -> Status | None:
        """What is there."""
        return await self._run(self._status, self._target(url))

    def _status(self, target: Target) -> Status | None:
        if self._is_dav:
            try:
                resources = self._requests.list(target, "0")
            except RefusedError as error:
                if error.status in NOT_FOUND:
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
            head = self._requests.ask("HEAD", target)[0]
        except RefusedError as error:
            if error.status in NOT_FOUND:
                return None
            raise
        return Status(http_message.content_length(head) or 0)

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
                self._requests.ask("MKCOL", place)
            except RefusedError:
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
        if f"{escape_path(self._dav.home)}/".startswith(f"{path}/"):
            raise DriverError("it is or holds the home directory")
        await self._run(self._remove_tree, target._replace(path=path))

    def _remove_tree(self, target: Target) -> None:
        if self._is_directory(target):
            remove_tree(self._requests, target)

    async def remove(self, url: Url) -> None:
        """Remove a file."""
        await self._run(self._requests.ask, "DELETE", self._target(url))

    async def rename(self, url: Url, new: Url) -> None:
        """Give a file another name in its folder."""
        await self._run(self._rename, self._target(url), self._target(new))

    def _rename(self, target: Target, new: Target) -> None:
        plain = unquote(new.path, errors="surrogateescape")
        if plain == new.path or not self._requests.is_xrootd:
            self._move(target, str(new))
            return
        # XRootD's server takes what `Destination` says as it is, and blanks and bytes above ASCII
        # at its end for nothing, but not before a query.  One day it may unescape that.
        if "?" in plain:
            raise DriverError("XRootD takes no '?' in the name of a file")
        if "%" in plain and new.origin not in self._dav.unescape:
            target, self._dav.unescape[new.origin] = self._find_out(target)
        self._move(target, str(new) if self._dav.unescape.get(new.origin) else _unescaped(new))

    def _move(self, target: Target, destination: str) -> None:
        self._requests.ask("MOVE", target, {"Destination": destination, "Overwrite": "T"})

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
        head, _ = await self._run(self._requests.ask, "HEAD", self._target(url), headers)
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
        connection, head = self._requests.request("GET", target)
        if head.status != 200:
            raise refusal(head, connection)
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
            return _Put(*self._requests.request("PUT", target, headers))
        connection, head = self._requests.request(
            "PUT", target, {**headers, "Expect": "100-continue"}
        )
        if head.status != 100:
            raise refusal(head, connection)
        return _Put(connection, None)

    def _end_put(self, put: "_Put") -> None:
        head = put.head or put.connection.read_final_head()
        if not head.is_success:
            raise refusal(head, put.connection)
        put.connection.read_text()

    def _send(self, connection: Connection, parts: Sequence[Block]) -> None:
        try:
            connection.send(*parts)
        except TransientError:
            # A server that refuses the rest says why, and closes.
            with suppress(TransientError):
                head = connection.read_final_head()
                if not head.is_success:
                    raise refusal(head, connection) from None
            raise

    async def fetch(self, url: Url, source: Url, progress: Progress) -> bool:
        """Have the server fetch a file from another one."""
        return await self._run(self._fetch, self._target(url), self._target(source), progress)

    def _fetch(self, target: Target, source: Target, progress: Progress) -> bool:
        host = source.origin.host
        is_trusted = source.origin == self._origin or host in self._dav.token_hosts
        macaroon = self._requests.macaroon(source, self._token if is_trusted else "")
        if not macaroon:
            return False
        headers = {
            "Source": str(source),
            "TransferHeaderAuthorization": f"Bearer {macaroon}",
            "Credential": "none",
            "Overwrite": "T",
            "RequireChecksumVerification": "false",
        }
        connection, head = self._requests.request("COPY", target, headers)
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

    # ------------------------------------------------------------ requests

    async def _run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call what blocks in a thread; on cancellation the connections are cut."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._dav.threads, function, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._requests.cut()
            await asyncio.wait([future])
            future.exception()
            raise

    def _target(self, url: Url) -> Target:
        is_tls = url.scheme in ("https", "davs")
        origin = Origin(is_tls, url.host, url.port or (443 if is_tls else 80))
        steps = "/".join(step for step in url.steps.split("/") if step not in ("", "."))
        if url.home_user is not None:
            if url.home_user or not self._dav.home:
                raise DriverError("WebDAV has no home directories (--dav-home says what '~' is)")
            return Target(origin, escape_path(f"{self._dav.home}/{steps}".rstrip("/")))
        return Target(origin, escape_path(f"/{steps}"))


def _unescaped(target: Target) -> str:
    """A URL with its names as they are, as a header can have it."""
    plain = unquote(target.path, errors="surrogateescape")
    return f"{target.origin}{plain}?".encode("utf-8", "surrogateescape").decode("latin-1")


class _Put(NamedTuple):
    """A PUT whose content is sent next."""

    connection: Connection
    head: Head | None
    """Of the answer, where there is no content."""


def _exists(watch: CredentialWatch) -> bool:
    return any(Path(path).exists() for path in watch.source.paths)
