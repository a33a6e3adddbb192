"""sftp: the files of hosts that are reached over ssh.

A connection is a program `ssh` that is kept (see gridmad.transfer.sftp_connection), and several
sessions share one.  SFTP names files by paths: before a directory is emptied the server tells its
real path, which has to be the one that was meant.  Whoever exchanges it for a link in the moment
after that has the rights of the user's own account already.

SFTP has no checksums: sizes are compared.
"""

import argparse
import asyncio
import os
import re
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from typing import ClassVar, TypeVar

from gridmad import ssh
from gridmad.errors import DriverError, TransientError
from gridmad.ssh import Address
from gridmad.transfer import sftp_protocol as protocol
from gridmad.transfer.sftp_connection import Connection, command
from gridmad.transfer.sftp_protocol import Attributes, Entry, Open, StatusError
from gridmad.transfer.storage import (
    Block,
    Progress,
    Session,
    Status,
    Storage,
    blocks_of,
    in_thread,
    write_all,
)
from gridmad.transfer.url import Url

Result = TypeVar("Result")

SHARE = 4
"""Sessions that share a connection: another one costs both sides processes and a handshake."""
_AT_ONCE = 64
"""Files that are removed, and pieces that are written, at a time."""
_ATTEMPTS = 3
"""How often a directory is emptied when somebody goes on writing into it."""
_JOB_DIRECTORY_MODE = 0o700
_DIRECTORY_MODE = 0o777
_FILE_MODE = 0o666
_GONE = protocol.Status.NO_SUCH_FILE
_NAME = re.compile(r"[A-Za-z0-9_.:%-]+", re.ASCII)
_REASONS: dict[int, str] = {
    protocol.Status.NO_SUCH_FILE: "no such file or directory",
    protocol.Status.PERMISSION_DENIED: "permission denied",
    protocol.Status.OP_UNSUPPORTED: "the server does not do that",
}


class Sftp(Storage):
    """Hosts, and the connections to them."""

    schemes: ClassVar[frozenset[str]] = frozenset({"sftp"})

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._settings = ssh.Settings.of(options)
        self._connections: dict[str, list[Connection]] = {}

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare how hosts are reached."""
        ssh.add_login_options(parser)

    async def connect(self, url: Url) -> Session:
        """A place at a connection that has one, or a new connection."""
        connections = self._connections.setdefault(self.endpoint(url), [])
        connections[:] = [one for one in connections if not one.is_lost]
        for connection in connections:
            if connection.users < SHARE:
                break
        else:
            connection = await self._log_in(url)
            connections.append(connection)
        connection.users += 1
        return SftpSession(self, connection)

    async def _log_in(self, url: Url) -> Connection:
        if not _NAME.fullmatch(url.host) or url.host.startswith("-"):
            raise DriverError(f"{url.host} is no name of a host")
        if url.user and (not _NAME.fullmatch(url.user) or url.user.startswith("-")):
            raise DriverError(f"{url.user} is no name of a user")
        address = Address(url.user, url.host, url.port or 0)
        words = command(address, self._settings)
        return await Connection.open(str(address), words, self._settings.connect_time)


class SftpSession(Session):
    """A place at a connection."""

    def __init__(self, storage: Storage, connection: Connection) -> None:
        super().__init__(storage)
        self._connection = connection
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether the connection is."""
        return not self._is_closed and not self._connection.is_lost

    async def close(self) -> None:
        """Leave the connection; the last one closes it."""
        if not self._is_closed:
            self._is_closed = True
            self._connection.users -= 1
            if not self._connection.users:
                await self._connection.close()

    # ------------------------------------------------------------ names

    async def status(self, url: Url) -> Status | None:
        """What is there; of a link the size of what it leads to."""
        path = await self._path(url)
        found = await self._find(self._connection.link_status(path))
        if found is None:
            return None
        if not _is_link(found):
            return Status(found.size or 0, _is_directory(found))
        target = await self._find(self._connection.status(path)) or Attributes()
        link = await self._do(self._connection.link(path))
        return Status(
            target.size or 0, _is_directory(target), link.decode("utf-8", "surrogateescape")
        )

    async def make_directories(self, url: Url) -> None:
        """Make a directory and its parents."""
        path = await self._path(url)
        missing: list[bytes] = []
        while not await self._is_directory(path):
            missing.append(path)
            path = path.rpartition(b"/")[0] or b"/"
        mode = _JOB_DIRECTORY_MODE if url.is_in_job_directory else _DIRECTORY_MODE
        for path in reversed(missing):
            try:
                await self._connection.make_directory(path, mode)
            except StatusError as error:
                if not await self._is_directory(path):  # somebody else was faster
                    raise _error(error) from None

    async def _is_directory(self, path: bytes) -> bool:
        found = await self._find(self._connection.status(path))
        if found is not None and not _is_directory(found):
            raise DriverError(f"{path.decode('utf-8', 'replace')} is no directory")
        return found is not None

    async def remove_tree(self, url: Url) -> None:
        """Remove a directory with all it holds."""
        steps = _steps(url)
        if ".." in steps:
            raise DriverError("it has '..' in it")
        path = await self._path(url)
        folder, _, name = path.rpartition(b"/")
        parent = await self._real_path(folder or b"/")
        if parent is None or not name:
            return
        path = parent.rstrip(b"/") + b"/" + name
        home = await self._home("")
        if (home.rstrip(b"/") + b"/").startswith(path + b"/"):
            raise DriverError("it is or holds the home directory")
        found = await self._find(self._connection.link_status(path))
        if found is None:
            return
        if _is_link(found):
            await self._do(self._connection.remove(path))
            return
        if not _is_directory(found):
            raise DriverError("it is no directory")
        for _ in range(_ATTEMPTS):
            if await self._empty(path):
                return
        raise DriverError("something goes on writing into it")

    async def _empty(self, root: bytes) -> bool:
        """Remove a tree by its real path; false where something came meanwhile."""
        # Directories in the order in which they were found: the last one is the first to be empty.
        found = [root]
        for folder in found:
            found += await self._remove_files(folder)
        for folder in reversed(found):
            try:
                await self._connection.remove_directory(folder)
            except StatusError as error:
                if error.code == protocol.Status.FAILURE and await self._list(folder):
                    return False
                if error.code != _GONE:
                    raise _error(error, folder) from None
        return True

    async def _remove_files(self, folder: bytes) -> list[bytes]:
        """Remove all but directories, which are returned."""
        if await self._real_path(folder) != folder:
            raise DriverError(f"{folder.decode('utf-8', 'replace')} became a symbolic link")
        entries = await self._list(folder)
        files = [folder + b"/" + entry.name for entry in entries if not _is_folder(entry)]
        for start in range(0, len(files), _AT_ONCE):
            await asyncio.gather(*map(self._remove, files[start : start + _AT_ONCE]))
        return [folder + b"/" + entry.name for entry in entries if _is_folder(entry)]

    async def _list(self, folder: bytes) -> list[Entry]:
        try:
            return await self._connection.list(folder)
        except StatusError as error:
            if error.code == _GONE:
                return []
            if error.code != protocol.Status.PERMISSION_DENIED:
                raise _error(error, folder) from None
        try:
            await self._connection.set_mode(folder, stat.S_IRWXU)
            return await self._connection.list(folder)
        except StatusError as error:
            raise _error(error, folder) from None

    async def _remove(self, path: bytes) -> None:
        try:
            await self._connection.remove(path)
        except StatusError as error:
            if error.code == _GONE:
                return
            if error.code != protocol.Status.PERMISSION_DENIED:
                raise _error(error, path) from None
        else:
            return
        try:
            await self._connection.set_mode(path.rpartition(b"/")[0], stat.S_IRWXU)
            await self._connection.remove(path)
        except StatusError as error:
            raise _error(error, path) from None

    async def remove(self, url: Url) -> None:
        """Remove a file."""
        await self._do(self._connection.remove(await self._path(url)))

    async def rename(self, url: Url, new: Url) -> None:
        """Give a file another name in its folder."""
        await self._do(self._connection.rename(await self._path(url), await self._path(new)))

    async def make_executable(self, url: Url) -> None:
        """Let who may read a file execute it."""
        path = await self._path(url)
        found = await self._do(self._connection.status(path))
        mode = stat.S_IMODE(found.mode or _FILE_MODE)
        await self._do(self._connection.set_mode(path, mode | (mode & 0o444) >> 2))

    # ------------------------------------------------------------ contents

    async def read(self, url: Url) -> AsyncGenerator[Block, None]:
        """The content of a file."""
        async with (
            self._reading(url) as (handle, size),
            aclosing(self._connection.read(handle, size)) as blocks,
        ):
            try:
                async for block in blocks:
                    yield block
            except StatusError as error:
                raise _error(error) from None

    async def download(self, url: Url, file: int, progress: Progress) -> None:
        """Write a file's content to a local one."""
        async with self._reading(url) as (handle, size):
            progress.size = size
            blocks: list[Block] = []
            waiting = 0

            async def keep() -> None:
                await in_thread(_write_blocks, file, blocks)
                progress.moved += waiting
                blocks.clear()

            async with aclosing(self._connection.read(handle, size)) as contents:
                try:
                    async for block in contents:
                        blocks.append(block)
                        waiting += len(block)
                        if waiting >= self._connection.blocks * self._connection.read_size:
                            await keep()
                            waiting = 0
                except StatusError as error:
                    raise _error(error) from None
            await keep()

    @asynccontextmanager
    async def _reading(self, url: Url) -> AsyncIterator[tuple[bytes, int]]:
        path = await self._path(url)
        handle = await self._do(self._connection.open_file(path, Open.READ))
        try:
            status = await self._do(self._connection.handle_status(handle))
            if _is_directory(status):
                raise DriverError("it is a directory")
            yield handle, status.size or 0
        finally:
            self._connection.leave(handle)

    async def write(self, url: Url, blocks: AsyncIterator[Block], size: int | None) -> None:
        """Make a file."""
        await self._write(url, blocks, _FILE_MODE)

    async def upload(self, url: Url, file: int, size: int | None, progress: Progress) -> None:
        """Make a file of a local one, with its permissions."""
        step = self._connection.blocks * self._connection.write_size
        mode = stat.S_IMODE(os.fstat(file).st_mode) & 0o777
        async with aclosing(blocks_of(file, size, progress, step)) as blocks:
            await self._write(url, blocks, mode)

    async def _write(self, url: Url, blocks: AsyncIterator[Block], mode: int) -> None:
        handle = await self._create(await self._path(url), mode)
        try:
            await self._do(self._connection.write(handle, blocks))
            await self._do(self._connection.close_file(handle))
        except BaseException:
            self._connection.leave(handle)
            raise

    async def _create(self, path: bytes, mode: int) -> bytes:
        flags = Open.WRITE | Open.CREATE | Open.EXCLUSIVE
        try:
            return await self._connection.open_file(path, flags, mode)
        except StatusError as error:
            if error.code != protocol.Status.FAILURE:
                raise _error(error) from None
        # Something is there, and is not to be followed where it may lead.
        await self._do(self._connection.remove(path))
        return await self._do(self._connection.open_file(path, flags, mode))

    # ------------------------------------------------------------ paths

    async def _path(self, url: Url) -> bytes:
        steps = [step for step in _steps(url) if step not in ("", ".")]
        path = "/".join(steps).encode("utf-8", "surrogateescape")
        user = url.home_user
        if user is None:
            return b"/" + path
        home = (await self._home(user)).rstrip(b"/")
        return home + b"/" + path if path else home or b"/"

    async def _home(self, user: str) -> bytes:
        known = self._connection.homes.get(user)
        if known is None:
            name = user.encode("utf-8", "surrogateescape")
            known = await self._do(
                self._connection.home_of(name) if user else self._connection.real_path(b".")
            )
            self._connection.homes[user] = known
        return known

    async def _real_path(self, path: bytes) -> bytes | None:
        try:
            return await self._connection.real_path(path)
        except StatusError as error:
            if error.code == _GONE:
                return None
            raise _error(error, path) from None

    async def _find(self, status: Awaitable[Attributes]) -> Attributes | None:
        try:
            return await status
        except StatusError as error:
            if error.code == _GONE:
                return None
            raise _error(error) from None

    async def _do(self, call: Awaitable[Result]) -> Result:
        try:
            return await call
        except StatusError as error:
            raise _error(error) from None


def _steps(url: Url) -> list[str]:
    return url.steps.split("/")


def _is_link(found: Attributes) -> bool:
    return found.mode is not None and stat.S_ISLNK(found.mode)


def _is_directory(found: Attributes) -> bool:
    return found.mode is not None and stat.S_ISDIR(found.mode)


def _is_folder(entry: Entry) -> bool:
    return _is_directory(entry.attributes)


def _write_blocks(file: int, blocks: list[Block]) -> None:
    for start in range(0, len(blocks), _AT_ONCE):
        some = blocks[start : start + _AT_ONCE]
        written = os.writev(file, some)
        for block in some:
            if written < len(block):
                write_all(file, memoryview(block)[written:])
            written = max(0, written - len(block))


def _error(error: StatusError, path: bytes = b"") -> DriverError:
    """Said by a server; one that has lost its own connection may get it back."""
    text = _REASONS.get(error.code) or str(error)
    if path:
        text = f"{path.decode('utf-8', 'replace')}: {text}"
    lost = (protocol.Status.NO_CONNECTION, protocol.Status.CONNECTION_LOST)
    return TransientError(text) if error.code in lost else DriverError(text)
