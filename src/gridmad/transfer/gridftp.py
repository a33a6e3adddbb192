"""gsiftp and ftp: GridFTP servers, by libglobus_ftp_client.

gsiftp URLs are for servers with GSI, which the user's proxy opens; ftp URLs for those that let
anybody in.  Between GridFTP servers data goes in extended block mode, whose connections are kept
from file to file; the sender opens them, so that servers must be able to connect to this machine
to send it files ($GLOBUS_TCP_PORT_RANGE says to which ports).  --gridftp-mode stream has this
machine open them all, at the price of a handshake for each file.
"""

import argparse
import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from typing import ClassVar, Final
from urllib.parse import quote

from gridmad.credential import proxy_source
from gridmad.credential_watch import CredentialWatch
from gridmad.errors import DriverError
from gridmad.options import port_number
from gridmad.transfer.gridftp_client import Client, Handle
from gridmad.transfer.gridftp_reply import (
    CLOSING,
    NOT_LOGGED_IN,
    UNKNOWN,
    ExistsError,
    MissingError,
    ReplyError,
    parse_entry,
)
from gridmad.transfer.storage import Block, Progress, Session, Status, Storage
from gridmad.transfer.url import Url, is_job_directory

PORT: Final = 2811
MODES: Final = ("extended", "stream")
_GSI: Final = "gsiftp"
_EXECUTABLE: Final = 0o755
_PRIVATE: Final = 0o700


class GridFtp(Storage):
    """GridFTP servers."""

    schemes = frozenset({_GSI, "ftp"})
    checksums: ClassVar[Sequence[str]] = ("adler32", "md5")

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._client = Client()
        self._proxy = CredentialWatch(
            proxy_source(os.environ, os.getuid()), warnings=options.credential_warnings
        )
        self._closing: set[asyncio.Task[None]] = set()

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare --gridftp-port and --gridftp-mode."""
        parser.add_argument(
            "--gridftp-port",
            metavar="N",
            type=port_number,
            default=PORT,
            help="port of a gsiftp URL that names none (default: %(default)s)",
        )
        parser.add_argument(
            "--gridftp-mode",
            choices=MODES,
            default=MODES[0],
            help="how data goes to and from GridFTP servers: extended keeps its connections, "
            "which the sender opens, stream has this machine open one for each file "
            "(default: %(default)s)",
        )

    def credentials(self) -> Sequence[CredentialWatch]:
        """The proxy."""
        return (self._proxy,)

    def endpoint(self, url: Url) -> str:
        """Scheme, user, host and port."""
        return super().endpoint(self._with_port(url))

    async def open(self) -> None:
        """Load the library."""
        await self._client.load()

    async def connect(self, url: Url) -> "GridFtpSession":
        """Connect, and log in."""
        is_secure = url.scheme == _GSI
        end = (await self._proxy.require_valid()).end if is_secure else float("inf")
        handle = self._client.handle(
            is_extended=is_secure and self.options.gridftp_mode == MODES[0]
        )
        session = GridFtpSession(self, handle, end)
        try:
            await handle.mlst(self.encode(replace(url, path="/")))
        except ReplyError as error:
            # Any other reply comes from a server that has let us in.
            if error.code in {0, CLOSING, NOT_LOGGED_IN}:
                await session.close()
                raise
        except BaseException:
            # Nobody waits for a server that does not answer.
            closing = asyncio.create_task(session.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            raise
        return session

    async def close(self) -> None:
        """Leave those that never answered to the end of the process."""
        for closing in self._closing:
            closing.cancel()

    def encode(self, url: Url) -> bytes:
        """A URL as the library takes it, which decodes `%XX`.  Raises DriverError."""
        text = str(self._with_port(url))
        if any(letter in text for letter in "\r\n\0"):
            raise DriverError("it has a line break, which FTP cannot say")
        server = text[: len(text) - len(url.path)].encode("utf-8", "surrogateescape")
        path = quote(url.path.encode("utf-8", "surrogateescape"), safe="/~")
        return server + path.encode("ascii")

    def _with_port(self, url: Url) -> Url:
        if url.port is not None or url.scheme != _GSI:
            return url
        return replace(url, port=self.options.gridftp_port)


class GridFtpSession(Session):
    """Connections to one server, and for third-party copies to another one."""

    def __init__(self, storage: GridFtp, handle: Handle, end: float) -> None:
        super().__init__(storage)
        self._servers = storage
        self._handle = handle
        self._end = end
        self._is_sound = True

    @property
    def is_open(self) -> bool:
        """Whether no data was broken off, and the proxy that let us in has not ended."""
        return self._is_sound and not self._handle.is_busy and time.time() < self._end

    @contextmanager
    def _moving_data(self) -> Iterator[None]:
        """A data connection that was broken off is in no known state."""
        try:
            yield
        except BaseException:
            self._is_sound = False
            raise

    async def close(self) -> None:
        """Give up what is under way, and leave."""
        await self._handle.close()

    async def abandon(self) -> None:
        """Leave what is under way to the end of the process."""
        await self._handle.abandon()

    async def status(self, url: Url) -> Status | None:
        """Ask for a file's facts, or for its size alone where the server is that plain."""
        name = self._servers.encode(url)
        try:
            return parse_entry(await self._handle.mlst(name)).status
        except MissingError:
            return None
        except ReplyError as error:
            if error.code not in UNKNOWN:
                raise
        try:
            return Status(await self._handle.size(name))
        except MissingError:
            return None

    async def make_directories(self, url: Url) -> None:
        """Make what is not there, from the last step on."""
        url = replace(url, path=url.path.rstrip("/") or "/")
        try:
            await self._handle.mkdir(self._servers.encode(url))
        except ExistsError:
            await self._require_directory(url)
        except MissingError:
            parent = replace(url, path=url.path.rpartition("/")[0])
            if not parent.steps:
                raise
            await self.make_directories(parent)
            with suppress(ExistsError):
                await self._handle.mkdir(self._servers.encode(url))
            await self._protect(url)
        else:
            await self._protect(url)

    async def _require_directory(self, url: Url) -> None:
        status = await self.status(url)
        if status is None or not status.is_directory:
            raise DriverError("File exists")

    async def _protect(self, url: Url) -> None:
        if is_job_directory(url.path.rpartition("/")[2]):
            await self._handle.chmod(self._servers.encode(url), _PRIVATE)

    async def remove_tree(self, url: Url) -> None:
        """List all that it holds, and remove that one by one."""
        url = replace(url, path=url.path.rstrip("/"))
        status = await self.status(url)
        if status is None or status.link is not None:
            # A link that leads nowhere looks like nothing.
            with suppress(MissingError):
                await self.remove(url)
            return
        if not status.is_directory:
            raise DriverError("it is no directory")
        try:
            await self._remove_all(url, await self._list(url, recursively=True))
        except ReplyError:
            # A server that cannot list a tree at once; or that left out what begins with a blank,
            # as Globus' does, which does not see links that lead nowhere in the other list.
            await self._remove_all(url, await self._walk(url))

    async def _remove_all(self, url: Url, found: list[tuple[Url, Status]]) -> None:
        """Remove what was found in a directory, and it."""
        folders = [url]
        for inner, status in found:
            if status.is_directory and status.link is None:
                folders.append(inner)
            else:
                with suppress(MissingError):
                    await self.remove(inner)
        for folder in sorted(folders, key=lambda folder: -folder.path.count("/")):
            with suppress(MissingError):
                await self._handle.rmdir(self._servers.encode(folder))

    async def _walk(self, url: Url) -> list[tuple[Url, Status]]:
        """All that is below a directory, by lists of one directory at a time."""
        found: list[tuple[Url, Status]] = []
        folders = [url]
        for folder in folders:
            for inner, status in await self._list(folder):
                found.append((inner, status))
                if status.is_directory and status.link is None:
                    folders.append(inner)
        return found

    async def _list(self, url: Url, *, recursively: bool = False) -> list[tuple[Url, Status]]:
        """What a directory holds; nothing where there is none."""
        try:
            lines = await self._handle.list(self._servers.encode(url), recursively=recursively)
        except MissingError:
            return []
        found = []
        for entry in map(parse_entry, filter(None, lines)):
            steps = entry.name.split("/")
            if entry.name in {".", ".."}:
                continue
            if {"", ".", ".."} & set(steps) or (len(steps) > 1 and not recursively):
                raise DriverError(f"the server lists a name that leads out: {entry.name!r}")
            found.append((replace(url, path=f"{url.path}/{entry.name}"), entry.status))
        return found

    async def remove(self, url: Url) -> None:
        """Remove a file or a link."""
        await self._handle.delete(self._servers.encode(url))

    async def rename(self, url: Url, new: Url) -> None:
        """Rename, which replaces a file."""
        await self._handle.move(self._servers.encode(url), self._servers.encode(new))

    async def make_executable(self, url: Url) -> None:
        """Set the permissions, which cannot be asked for."""
        await self._handle.chmod(self._servers.encode(url), _EXECUTABLE)

    async def checksum(self, url: Url, algorithm: str) -> str:
        """Ask for a checksum."""
        return await self._handle.checksum(
            self._servers.encode(url), algorithm.upper().encode("ascii")
        )

    async def read(self, url: Url) -> AsyncGenerator[Block, None]:
        """Block by block."""
        with self._moving_data():
            async with aclosing(self._handle.read(self._servers.encode(url))) as blocks:
                async for block in blocks:
                    yield block

    async def write(self, url: Url, blocks: AsyncIterator[Block], size: int | None) -> None:
        """Block by block."""
        with self._moving_data():
            await self._handle.write(self._servers.encode(url), blocks)

    async def download(self, url: Url, file: int, progress: Progress) -> None:
        """In the library's threads."""
        with self._moving_data():
            await self._handle.download(self._servers.encode(url), file, progress)

    async def upload(self, url: Url, file: int, size: int | None, progress: Progress) -> None:
        """In the library's threads."""
        with self._moving_data():
            await self._handle.upload(self._servers.encode(url), file, size, progress)

    async def fetch(self, url: Url, source: Url, progress: Progress) -> bool:
        """A third-party transfer, where both servers know GSI."""
        if source.scheme != _GSI or url.scheme != _GSI:
            return False
        with self._moving_data():
            await self._handle.third_party(self._servers.encode(source), self._servers.encode(url))
        return True
