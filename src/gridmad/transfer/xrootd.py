"""root, roots, xroot, xroots: the files of XRootD servers.

The library is XRootD's own client, with threads of its own; its calls are made with callbacks,
which wake the event loop.  What it needs to log in (a proxy, a token, a Kerberos ticket) it finds
by itself, as `xrdcp` does.  It keeps one connection to each server and tries by itself to get a
lost one back; how long, $XRD_CONNECTIONWINDOW and its kin say.

The protocol has no home directories, no symbolic links and no names with "?" in them.  What is no
directory to rmdir(2) is removed as a file and never entered.  (A server of XRootD's removes
with a link to a file that file too: it takes such links for its own.)

With --xrootd-delegate a server that asks for it gets a proxy made of ours, and many want one before
they fetch from another server.
"""

import argparse
import asyncio
import contextlib
import os
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, cast

from gridmad.errors import DriverError, MissingDependencyError, TransientError
from gridmad.options import absolute_path
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
from gridmad.transfer.xrootd_status import NOT_FOUND, ConnectionLostError, ServerError, error_of

if TYPE_CHECKING:
    from XRootD import client
    from XRootD.client.responses import StatInfo, XRootDStatus

BLOCK: Final = 1 << 18
REQUESTS: Final = 8
"""Blocks under way in a copy; ..."""
ALL_REQUESTS: Final = 64
"""... and in all copies, as long as each has its fewest."""
FEWEST: Final = 1
REQUEST_TIME: Final = 120
"""Seconds for a request's answer."""
_CLOSE_TIME: Final = 5.0
_LEAVING_TIME: Final = 0.2
"""Seconds that a file has to be closed, where somebody waits for that, and where nobody does."""
_THIRD_PARTY_COPIES: Final = 64
_ATTEMPTS: Final = 3
"""How often a directory is emptied when somebody goes on writing into it."""
_AT_ONCE: Final = 64
_JOB_DIRECTORY_MODE: Final = 0o700
_DIRECTORY_MODE: Final = 0o755
_FILE_MODE: Final = 0o644

_ENVIRONMENT: Final = {
    "ConnectionWindow": 15,
    "ConnectionRetry": 1,
    "StreamErrorWindow": 1,
    "RequestTimeout": REQUEST_TIME,
    "TimeoutResolution": 1,
}
"""For the library, which would try for half an hour; the engine tries again too."""

_HOST: Final = re.compile(r"[A-Za-z0-9_.:%-]+", re.ASCII)
_USER: Final = re.compile(r"[A-Za-z0-9_.-]*", re.ASCII)


class XRootD(Storage):
    """XRootD servers."""

    schemes: ClassVar[frozenset[str]] = frozenset({"root", "roots", "xroot", "xroots"})
    checksums: ClassVar[Sequence[str]] = ("adler32", "md5")

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.home: str = options.xrootd_home or ""
        self.threads: ThreadPoolExecutor | None = None
        self.moving = 0
        """Files of which the contents are being moved."""

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare where homes are, and whether to delegate."""
        parser.add_argument(
            "--xrootd-home",
            metavar="PATH",
            type=absolute_path,
            help="what '~' is on XRootD servers, which have no home directories",
        )
        parser.add_argument(
            "--xrootd-delegate",
            action="store_true",
            help="give servers that ask for it a proxy made of ours, to fetch files with",
        )

    async def open(self) -> None:
        """Import the library."""
        if self.options.xrootd_delegate:
            # Read by the library when it first logs in: it signs what the server asks for.
            os.environ.setdefault("XrdSecGSIDELEGPROXY", "1")
        try:
            from XRootD import client
        except ImportError:
            raise MissingDependencyError("XRootD's client", "xrootd") from None
        for name, value in _ENVIRONMENT.items():
            client.EnvPutInt(name, value)
        self.threads = ThreadPoolExecutor(_THIRD_PARTY_COPIES, "xrootd")

    async def connect(self, url: Url) -> Session:
        """The library connects with the first request."""
        if not _HOST.fullmatch(url.host) or not _USER.fullmatch(url.user):
            raise DriverError("its user or host is no name")
        return XRootDSession(self, url)

    async def close(self) -> None:
        """Leave copies between servers, which end by themselves."""
        if self.threads is not None:
            self.threads.shutdown(wait=False, cancel_futures=True)


class XRootDSession(Session):
    """A server."""

    def __init__(self, storage: XRootD, url: Url) -> None:
        super().__init__(storage)
        from XRootD import client

        self._client = client
        self._home = storage.home
        self._threads = storage.threads
        self._xrootd = storage
        self._is_lost = False
        self._leaving: set[asyncio.Task[None]] = set()
        self._server = client.FileSystem(storage.endpoint(url))

    @property
    def is_open(self) -> bool:
        """Whether the last request had an answer."""
        return not self._is_lost

    async def close(self) -> None:
        """The library keeps its connection for the next session."""
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=_LEAVING_TIME)
        for task in list(self._leaving):
            task.cancel()

    # ------------------------------------------------------------ names

    async def status(self, url: Url) -> Status | None:
        """What is there."""
        found = await self._find(url)
        if found is None:
            return None
        return Status(found.size, bool(found.flags & self._flags.StatInfoFlags.IS_DIR))

    async def make_directories(self, url: Url) -> None:
        """Make a directory and its parents."""
        mode = _JOB_DIRECTORY_MODE if url.is_in_job_directory else _DIRECTORY_MODE
        flags = self._flags.MkDirFlags.MAKEPATH
        path = self._path(url)
        await self._call(self._server.mkdir, path, flags, mode)
        found = await self._find(url)
        if found is not None and not found.flags & self._flags.StatInfoFlags.IS_DIR:
            raise DriverError("it is no directory")

    async def remove_tree(self, url: Url) -> None:
        """Remove a directory with all it holds."""
        path = self._path(url).rstrip("/")
        if not path or ".." in path.split("/"):
            raise DriverError("it is '/', or has '..' in it")
        if f"{self._home}/".startswith(f"{path}/"):
            raise DriverError("it is or holds the home directory")
        if await self._find(url) is None:
            return
        for _ in range(_ATTEMPTS):
            if await self._empty(path):
                return
        raise DriverError("something goes on writing into it")

    async def _empty(self, root: str) -> bool:
        """Remove a tree; false where something came meanwhile."""
        # Directories in the order in which they were found: the last one is the first to be empty.
        found = [root]
        for folder in found:
            if not await self._remove_directory(folder):
                found += await self._remove_files(folder)
        for folder in reversed(found):
            if not await self._remove_directory(folder):
                return False
        return True

    async def _remove_files(self, folder: str) -> list[str]:
        """Remove all but directories that hold something, which are returned."""
        try:
            entries = await self._call(self._server.dirlist, folder)
        except ServerError as error:
            if error.number == NOT_FOUND:
                return []
            raise
        names = [entry.name for entry in entries]
        for name in names:
            if name in ("", ".", "..") or "/" in name:
                raise TransientError(f"{name!r} is no name of a file")
        paths = [f"{folder}/{name}" for name in names]
        directories: list[str] = []
        for start in range(0, len(paths), _AT_ONCE):
            part = paths[start : start + _AT_ONCE]
            kept = await asyncio.gather(*map(self._remove_entry, part))
            directories += [path for path, is_kept in zip(part, kept, strict=True) if is_kept]
        return directories

    async def _remove_entry(self, path: str) -> bool:
        """Remove what is no directory; true for one that holds something."""
        try:
            return not await self._remove_directory(path)
        except _NoDirectoryError:
            pass
        try:
            await self._call(self._server.rm, path)
        except ServerError as error:
            if error.number != NOT_FOUND:
                raise DriverError(f"{path}: {error}") from None
        return False

    async def _remove_directory(self, path: str) -> bool:
        """Remove an empty directory; false where it holds something.

        Servers know nothing of symbolic links, but the system call does: a link is no directory
        to it, wherever it leads.
        """
        try:
            await self._call(self._server.rmdir, path)
        except ServerError as error:
            if error.number == NOT_FOUND:
                return True
            if "not empty" in str(error):
                return False
            if "not a directory" in str(error):
                raise _NoDirectoryError(f"{path} is no directory, or a symbolic link") from None
            raise
        return True

    async def remove(self, url: Url) -> None:
        """Remove a file."""
        await self._call(self._server.rm, self._path(url))

    async def rename(self, url: Url, new: Url) -> None:
        """Give a file another name in its folder."""
        await self._call(self._server.mv, self._path(url), self._path(new))

    async def make_executable(self, url: Url) -> None:
        """Let who may read a file execute it."""
        found = await self._find(url)
        mode = int(found.mode, 8) if found is not None and found.extended else _FILE_MODE
        await self._call(self._server.chmod, self._path(url), mode | (mode & 0o444) >> 2)

    async def checksum(self, url: Url, algorithm: str) -> str:
        """Ask the server, which may have to read the file."""
        query = self._flags.QueryCode.CHECKSUM
        answer: bytes = await self._call(
            self._server.query, query, f"{self._path(url)}?cks.type={algorithm}"
        )
        words = answer.rstrip(b"\0\n").decode("ascii", "replace").split()
        if len(words) != 2 or words[0] != algorithm:
            raise DriverError(f"the server tells no {algorithm}")
        return words[1]

    # ------------------------------------------------------------ contents

    async def read(self, url: Url) -> AsyncGenerator[Block, None]:
        """The content of a file."""
        file = self._client.File()
        await self._open(file, url, self._flags.OpenFlags.READ, 0)
        waiting: deque[_Request] = deque()
        self._xrootd.moving += 1
        try:
            size: int = (await self._call(file.stat, True)).size
            position = 0
            while True:
                # One request beyond the expected end finds out whether it is there.
                while len(waiting) < self._window and (position <= size or not waiting):
                    waiting.append(self._begin(file.read, position, BLOCK))
                    position += BLOCK
                offset, length = waiting[0].offset, waiting[0].length
                data = await _first(waiting)
                yield data
                if len(data) == length:
                    continue
                offset, length = offset + len(data), length - len(data)
                if not data or offset >= size:
                    return
                waiting.appendleft(self._begin(file.read, offset, length))
        finally:
            self._xrootd.moving -= 1
            self._leave(file, waiting)

    async def write(self, url: Url, blocks: AsyncIterator[Block], size: int | None) -> None:
        """Make a file."""
        file = self._client.File()
        flags = self._flags.OpenFlags
        await self._open(file, url, flags.DELETE | flags.UPDATE, _FILE_MODE)
        waiting: deque[_Request] = deque()
        position = 0
        self._xrootd.moving += 1
        try:
            async for block in blocks:
                data = bytes(block)
                while len(waiting) >= self._window:
                    await _first(waiting)
                waiting.append(self._begin(file.write, position, len(data), data))
                position += len(data)
            while waiting:
                await _first(waiting)
            await self._call(file.close)
        except BaseException as error:
            leaving = self._leave(file, waiting)
            if isinstance(error, DriverError):
                # Till then the server has the space of a file that was removed.
                await asyncio.wait([leaving], timeout=_CLOSE_TIME)
            raise
        finally:
            self._xrootd.moving -= 1

    @property
    def _window(self) -> int:
        return max(FEWEST, min(REQUESTS, ALL_REQUESTS // self._xrootd.moving))

    async def upload(self, url: Url, file: int, size: int | None, progress: Progress) -> None:
        """Make a file of a local one."""
        async with aclosing(blocks_of(file, size, progress, BLOCK)) as blocks:
            await self.write(url, blocks, size)

    async def download(self, url: Url, file: int, progress: Progress) -> None:
        """Write a file's content to a local one."""
        async with aclosing(self.read(url)) as blocks:
            async for block in blocks:
                await in_thread(write_all, file, block)
                progress.moved += len(block)

    async def _open(self, file: "client.File", url: Url, flags: int, mode: int) -> None:
        opening = asyncio.create_task(self._call(file.open, self._url(url), flags, mode))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            # What is opened all the same has to be closed.
            self._leave(file, [_Request(0, 0, opening)])
            raise

    def _begin(
        self, function: Callable[..., Any], offset: int, length: int, *data: bytes
    ) -> "_Request":
        asking = self._call(function, *data, offset, length)
        return _Request(offset, length, asyncio.create_task(asking))

    def _leave(self, file: "client.File", waiting: "Iterable[_Request]") -> "asyncio.Task[None]":
        """Close, whatever it was, when all that was asked of the file is answered: not before that
        may it be closed, and its end would wait for the server.
        """

        async def leave() -> None:
            await asyncio.gather(*(request.task for request in waiting), return_exceptions=True)
            if file.is_open():
                with contextlib.suppress(DriverError):
                    await self._call(file.close)

        task = asyncio.create_task(leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task

    async def fetch(self, url: Url, source: Url, progress: Progress) -> bool:
        """Have the server fetch a file from another one."""
        assert self._threads is not None
        process = self._client.CopyProcess()
        process.add_job(
            self._url(source),
            self._url(url),
            force=True,
            thirdparty="only",
            inittimeout=REQUEST_TIME,
        )
        watching = _Watching(progress)

        def run() -> "XRootDStatus":
            prepared = process.prepare()
            return process.run(watching)[0] if prepared.ok else prepared

        future = asyncio.get_running_loop().run_in_executor(self._threads, run)
        try:
            status = await asyncio.shield(future)
        except asyncio.CancelledError:
            watching.is_cancelled = True
            raise
        return bool(status.ok)

    # ------------------------------------------------------------ requests

    @property
    def _flags(self) -> Any:
        return self._client.flags

    async def _find(self, url: Url) -> "StatInfo | None":
        try:
            return cast("StatInfo", await self._call(self._server.stat, self._path(url)))
        except ServerError as error:
            if error.number == NOT_FOUND:
                return None
            raise

    async def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Call what takes a callback, and wait for its answer."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def settle(status: "XRootDStatus", response: object) -> None:
            if future.done():
                return
            if status.ok:
                future.set_result(response)
            else:
                future.set_exception(self._error(status))

        def called(
            status: "XRootDStatus", response: object, _hosts: object, _held: object = arguments
        ) -> None:
            # The arguments are held till now: the library reads them when it likes.
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, status, response)

        status = function(*arguments, timeout=REQUEST_TIME, callback=called)
        if not status.ok:
            raise self._error(status)
        return await future

    def _error(self, status: "XRootDStatus") -> DriverError:
        error = error_of(status.code, status.errno, status.message)
        if isinstance(error, ConnectionLostError):
            self._is_lost = True
        return error

    def _path(self, url: Url) -> str:
        if "?" in url.path:
            raise DriverError("XRootD takes no '?' in the name of a file")
        if url.home_user is None:
            return f"/{url.steps}"
        if url.home_user or not self._home:
            raise DriverError("XRootD has no home directories (--xrootd-home says what '~' is)")
        return f"{self._home}/{url.steps}".rstrip("/")

    def _url(self, url: Url) -> str:
        return f"{self.storage.endpoint(url)}/{self._path(url)}"


class _NoDirectoryError(DriverError):
    """A directory was expected."""


class _Request(NamedTuple):
    """A read or write under way."""

    offset: int
    length: int
    task: "asyncio.Task[Any]"


async def _first(waiting: deque[_Request]) -> Any:
    """The answer to the first request, which stays in its place till then: who gives up has to wait
    for it all the same.
    """
    task = waiting[0].task
    await asyncio.wait([task])
    waiting.popleft()
    return task.result()


class _Watching:
    """What a copy between servers is asked and told, in threads of the library."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.is_cancelled = False

    def begin(self, *_: object) -> None:
        """It begins."""

    def end(self, *_: object) -> None:
        """It has ended."""

    def update(self, _job: int, processed: int, _total: int) -> None:
        """So many bytes are there."""
        self._progress.moved = processed

    def should_cancel(self, _job: int) -> bool:
        """Whether it is to end."""
        return self.is_cancelled
