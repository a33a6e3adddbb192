"""One copy between this machine and a server, or between two servers.

A server's file gets a temporary name beside its own and is moved in place when it is whole: its
size is that of what was sent, and its checksum where that is compared (--checksum).  A source may
grow meanwhile, as a log does, but not shrink.

What is copied from or to a job's directory stays in it: no ".." leads out, and no symbolic link
that the job has left there.
"""

import asyncio
import contextlib
import hashlib
import logging
import math
import os
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from gridmad.errors import DriverError, TransientError
from gridmad.transfer.failure import about
from gridmad.transfer.file_copy import Target, temporary_name
from gridmad.transfer.files import LocalFiles
from gridmad.transfer.model import Copy
from gridmad.transfer.sessions import Sessions
from gridmad.transfer.storage import Block, Progress, Session, Status, Storage, in_thread
from gridmad.transfer.url import Url

log = logging.getLogger(__name__)

REPORT_INTERVAL: Final = 10.0
"""Seconds between two lines about a long copy."""
FOLDER_TRUST: Final = 5.0
"""Seconds for which a job's directory that was no symbolic link is taken for none."""
CLEANING_PAUSES: Final = (0.0, 2.0, 10.0, 60.0)
"""Seconds before each attempt to remove what is left of a copy that broke ..."""
CLEANING_TIME: Final = 10.0
"""... and seconds that each may take."""
MAX_FOLDERS: Final = 10_000
_CHUNK: Final = 1 << 20
_MIB: Final = 1 << 20
_Sum: TypeAlias = Callable[[str], Awaitable[str]]
"""A file's checksum by an algorithm."""


class Place(NamedTuple):
    """One end of a copy."""

    text: str
    """As gwd wrote it."""
    url: Url
    storage: Storage | None
    """None for this machine."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How copies are done."""

    checksums: Sequence[str]
    """The algorithms to choose from, the best first; none to compare no checksums."""
    must_compare: bool
    """What cannot be compared is no success."""
    stall: float
    """Seconds without a byte after which a copy counts as broken."""


class Copying:
    """Copies between places of which one at least is a server's."""

    def __init__(self, sessions: Sessions, files: LocalFiles, rules: Rules) -> None:
        self._sessions = sessions
        self._files = files
        self._rules = rules
        self._folders: dict[str, float] = {}
        """Directories of jobs that are no symbolic links, and when that was seen."""
        self._cleaning: set[asyncio.Task[None]] = set()

    async def run(self, copy: Copy, source: Place, destination: Place, end: float) -> None:
        """Do one copy, by `end` (time.monotonic)."""
        check = self._files.check(end)
        check()
        progress = Progress()
        started = time.monotonic()
        async with self._watched(copy, progress, end):
            if destination.storage is None:
                await self._download(copy, source, destination, progress, check)
            else:
                await self._upload(copy, source, destination, progress)
        seconds = time.monotonic() - started
        log.info(
            "%s -> %s: %d bytes in %.3f s, %.1f MiB/s",
            *(copy.source, copy.destination, progress.moved, seconds),
            progress.moved / _MIB / max(seconds, 1e-6),
        )

    async def stop(self) -> None:
        """Leave what is being removed."""
        for task in self._cleaning:
            task.cancel()
        await asyncio.gather(*self._cleaning, return_exceptions=True)

    # ------------------------------------------------------------ to this machine

    async def _download(
        self,
        copy: Copy,
        source: Place,
        destination: Place,
        progress: Progress,
        check: Callable[[], None],
    ) -> None:
        async with self._session(source) as session, _closing() as local:
            status = await self._source_status(session, source.url)
            progress.size = status.size
            target = await in_thread(
                _open_target, local, self._files, destination.text, copy.is_executable
            )
            if target.is_null_device:
                return
            with about("read", source.url):
                algorithms = self._algorithms(source.storage)
                await session.download(source.url, target.file, progress)
                if progress.moved != status.size:
                    # It may have grown, as logs do.
                    now = await session.status(source.url)
                    if now is None or not status.size <= progress.moved <= now.size:
                        raise TransientError(f"{progress.moved} of {status.size} bytes came")
                await self._compare(
                    algorithms,
                    partial(session.checksum, source.url),
                    partial(_checksum_here, target.file, progress.moved),
                )
            try:
                await in_thread(target.put_in_place, progress.moved, check)
            except OSError as error:
                raise DriverError(f"cannot write {destination.text}: {error.strerror}") from None

    # ------------------------------------------------------------ to a server

    async def _upload(
        self, copy: Copy, source: Place, destination: Place, progress: Progress
    ) -> None:
        if source.storage is not None:
            async with self._session(source) as session:
                status = await self._source_status(session, source.url)
            progress.size = status.size
            await self._put(copy, destination, progress, _Remote(self, source, status.size))
            return
        with ExitStack() as local:  # to close what was only read waits for nothing
            file, size = await in_thread(_open_source, local, self._files, source.text)
            progress.size = size
            await self._put(copy, destination, progress, _Local(file, size))

    async def _put(
        self, copy: Copy, destination: Place, progress: Progress, content: "_Content"
    ) -> None:
        """Make a server's file of what comes from elsewhere."""
        url = destination.url
        with about("write", url):
            algorithms = self._algorithms(destination.storage, content.storage)
        async with self._session(destination) as session:
            if not await self.check_folders(session, url):
                raise DriverError(f"cannot write {url}: No such file or directory")
            new = url if session.writes_whole else url.beside(temporary_name())
            try:
                with about("write", url):
                    await content.send(session, new, progress)
                    there = await session.status(new)
                    if there is None or there.size != progress.moved:
                        size = 0 if there is None else there.size
                        raise TransientError(f"{size} of {progress.moved} bytes arrived")
                    await self._compare(
                        algorithms,
                        partial(session.checksum, new),
                        partial(content.checksum, progress.moved),
                    )
                    if copy.is_executable:
                        await session.make_executable(new)
                    if new is not url:
                        await session.rename(new, url)
            except BaseException as error:
                if new is not url:
                    if isinstance(error, DriverError) and session.is_open:
                        with contextlib.suppress(DriverError):
                            await session.remove(new)
                    else:
                        self._remove_later(destination._replace(url=new))
                raise

    def _remove_later(self, place: Place) -> None:
        """Remove what a copy left that broke or was given up; nobody waits for that."""

        async def remove() -> None:
            for pause in CLEANING_PAUSES:
                await asyncio.sleep(pause)
                with contextlib.suppress(DriverError, TimeoutError):
                    async with asyncio.timeout(CLEANING_TIME), self._session(place) as session:
                        if await session.status(place.url) is not None:
                            await session.remove(place.url)
                        return

        task = asyncio.create_task(remove())
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    # ------------------------------------------------------------ what both have

    def _session(self, place: Place) -> AbstractAsyncContextManager[Session]:
        assert place.storage is not None
        return self._sessions.session(place.storage, place.url)

    @contextlib.asynccontextmanager
    async def read(self, place: Place) -> AsyncIterator[AsyncGenerator[Block, None]]:
        """The content of a server's file."""
        async with self._session(place) as session, aclosing(session.read(place.url)) as blocks:
            with about("read", place.url):
                yield blocks

    async def checksum(self, place: Place, algorithm: str) -> str:
        """What a server says of its file."""
        async with self._session(place) as session:
            return await session.checksum(place.url, algorithm)

    async def _source_status(self, session: Session, url: Url) -> Status:
        """Raises DriverError for what is no file, or would be fetched from elsewhere."""
        is_there = await self.check_folders(session, url)
        with about("read", url):
            status = await session.status(url) if is_there else None
            if status is None:
                raise DriverError("No such file or directory")
            if status.is_directory:
                raise DriverError("it is a directory")
            if status.link is not None and url.is_in_job_directory and _leads_out(status.link, url):
                raise DriverError("it is a symbolic link that leads out of the job's directory")
        return status

    async def check_folders(self, session: Session, url: Url, trust: float = FOLDER_TRUST) -> bool:
        """Raises DriverError where a directory of a job is a symbolic link to another place;
        false where one is missing.  Those that were looked at within `trust` seconds are believed.
        """
        for folder in url.job_folders:
            name = str(folder)
            now = time.monotonic()
            if now - self._folders.get(name, -math.inf) < trust:
                continue
            with about("enter", folder):
                status = await session.status(folder)
                if status is None:
                    return False
                if status.link is not None:
                    raise DriverError("it is a symbolic link, and may lead anywhere")
            if len(self._folders) >= MAX_FOLDERS:
                self._folders.clear()
            self._folders[name] = now
        return True

    @contextlib.asynccontextmanager
    async def following(self, place: Place, progress: Progress) -> AsyncIterator[None]:
        """See in another session how a file grows that is made without us, where that shows."""

        async def follow() -> None:
            pause = self._pause()
            while True:
                await asyncio.sleep(pause)
                with contextlib.suppress(DriverError, TimeoutError):
                    async with asyncio.timeout(pause), self._session(place) as session:
                        status = await session.status(place.url)
                    if status is not None:
                        progress.moved = max(progress.moved, status.size)

        task = asyncio.create_task(follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def _pause(self) -> float:
        """Seconds between two looks at a copy."""
        return min(REPORT_INTERVAL, self._rules.stall / 4)

    def _algorithms(self, *storages: Storage | None) -> list[str]:
        """The checksums that all may tell, this machine always; raises DriverError where one has
        to be.
        """
        known = [
            name
            for name in self._rules.checksums
            if all(storage is None or name in storage.checksums for storage in storages)
        ]
        if self._rules.must_compare and not known:
            names = " or ".join(self._rules.checksums)
            raise DriverError(
                f"its {names} cannot be compared: a server of its kind tells none "
                "(--checksum auto compares where both ends can)"
            )
        return known

    async def _compare(self, algorithms: Sequence[str], one: _Sum, other: _Sum) -> None:
        """Compare checksums by the first algorithm that both ends know.  Raises DriverError."""
        for algorithm in algorithms:
            try:
                sums = await one(algorithm), await other(algorithm)
            except TransientError:
                raise
            except DriverError as error:
                if self._rules.must_compare:
                    raise
                log.info("no %s is compared: %s", algorithm, error)
                continue
            if sums[0].lower().lstrip("0") != sums[1].lower().lstrip("0"):
                raise TransientError(f"the checksums ({algorithm}) differ: {' and '.join(sums)}")
            return

    @contextlib.asynccontextmanager
    async def _watched(self, copy: Copy, progress: Progress, end: float) -> AsyncIterator[None]:
        """Breaks a copy off that takes too long or stands still, and tells how a long one goes."""
        loop = asyncio.get_running_loop()
        longest = min(end - time.monotonic(), self._files.time_limit)
        stall = self._rules.stall
        seen = -1
        timer: asyncio.TimerHandle

        def tick() -> None:
            nonlocal timer, seen
            timer = loop.call_later(self._pause(), tick)
            if progress.moved == seen and (progress.is_told or seen):
                return
            seen = progress.moved
            quiet.reschedule(loop.time() + stall)
            of_all = f" of {progress.size}" if progress.size is not None else ""
            log.info("%s -> %s: %d%s bytes", copy.source, copy.destination, seen, of_all)

        timer = loop.call_later(self._pause(), tick)
        try:
            async with asyncio.timeout(longest) as whole, asyncio.timeout(stall) as quiet:
                yield
        except TimeoutError:
            if whole.expired():
                raise DriverError(f"not done within {longest:g} seconds") from None
            if quiet.expired():
                raise TransientError(f"nothing has moved for {stall:g} seconds") from None
            raise
        finally:
            timer.cancel()


class _Content:
    """What is written to a server."""

    storage: Storage | None

    async def send(self, session: Session, url: Url, progress: Progress) -> None:
        """Write it there."""
        raise NotImplementedError

    async def checksum(self, size: int, algorithm: str) -> str:
        """Of its first `size` bytes."""
        raise NotImplementedError


class _Local(_Content):
    """A file of this machine."""

    storage = None

    def __init__(self, file: int, size: int | None) -> None:
        self._file = file
        self._size = size

    async def send(self, session: Session, url: Url, progress: Progress) -> None:
        await session.upload(url, self._file, self._size, progress)

    async def checksum(self, size: int, algorithm: str) -> str:
        return await _checksum_here(self._file, size, algorithm)


class _Remote(_Content):
    """A file of a server."""

    def __init__(self, copying: Copying, place: Place, size: int) -> None:
        self.storage = place.storage
        self._copying = copying
        self._place = place
        self._size = size

    async def send(self, session: Session, url: Url, progress: Progress) -> None:
        if self.storage is session.storage:
            progress.is_told = False
            async with self._copying.following(Place(str(url), url, session.storage), progress):
                is_done = await session.fetch(url, self._place.url, progress)
            if is_done:
                progress.moved = self._size
                return
            progress.moved = 0
            progress.is_told = True
        async with (
            self._copying.read(self._place) as read,
            aclosing(_counted(read, self._size, progress)) as blocks,
        ):
            await session.write(url, blocks, self._size)

    async def checksum(self, size: int, algorithm: str) -> str:
        return await self._copying.checksum(self._place, algorithm)


async def _counted(
    blocks: AsyncIterator[Block], size: int, progress: Progress
) -> AsyncGenerator[Block, None]:
    """The first `size` bytes."""
    async for block in blocks:
        part = memoryview(block)[: size - progress.moved]
        if part:
            yield part
            progress.moved += len(part)
    if progress.moved < size:
        raise TransientError(f"{progress.moved} of {size} bytes came")


@contextlib.asynccontextmanager
async def _closing() -> AsyncIterator[ExitStack]:
    """A stack for what threads open; it is closed in a thread."""
    stack = ExitStack()
    try:
        yield stack
    finally:
        await in_thread(stack.close)


def _open_target(stack: ExitStack, files: LocalFiles, url: str, is_executable: bool) -> Target:
    target = files.target(url, is_executable=is_executable)
    return target if target.is_null_device else stack.enter_context(target)


def _open_source(stack: ExitStack, files: LocalFiles, url: str) -> tuple[int, int | None]:
    """A local file, and its size where that can be believed."""
    file, status = files.open_source(url)
    stack.callback(os.close, file)
    # A file of /proc says that it is empty.
    is_known = status.st_size > 0 or not os.pread(file, 1, 0)
    return file, status.st_size if is_known else None


def checksum(file: int, algorithm: str, size: int) -> str:
    """Of the first `size` bytes of a local file: "adler32" (RFC 1950) or "md5"."""
    adler, md5 = 1, hashlib.md5(usedforsecurity=False)
    for position in range(0, size, _CHUNK):
        block = os.pread(file, min(_CHUNK, size - position), position)
        if algorithm == "md5":
            md5.update(block)
        else:
            adler = zlib.adler32(block, adler)
    return md5.hexdigest() if algorithm == "md5" else f"{adler:08x}"


async def _checksum_here(file: int, size: int, algorithm: str) -> str:
    return await in_thread(checksum, file, algorithm, size)


def _leads_out(link: str, url: Url) -> bool:
    """Whether a link's text may lead out of the job's directory that `url` is in.

    Servers tell what a link means in the end, or what it says; "" is one that is not known.
    """
    steps = link.split("/")
    if not link or ".." in steps:
        return True
    return link.startswith("/") and url.job_folders[0].path.rpartition("/")[2] not in steps[:-1]
