"""What a back end of the transfer engine is: the servers of a few URL schemes.

A back end is one file with one `Storage`, which makes a `Session` for whoever has work at an
endpoint.  The engine does the rest: it decides what runs when, keeps and reuses sessions, gives
files temporary names and moves them in place, checks sizes and checksums, tries again what
failed for now, and says in one line what failed where.

    class Sftp(Storage):
        schemes = frozenset({"sftp"})

        async def open(self) -> None:              # import the library
        async def connect(self, url) -> Session:   # log in

Errors: TransientError for what may work in a moment (the server is down, the connection broke,
it is busy), DriverError for what will not (no such file, no permission, no space), each in one
line, with the server's own words; the engine adds what was to be done and where.
"""

import argparse
import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import ClassVar, TypeAlias, TypeVar

from gridmad.credential_watch import CredentialWatch
from gridmad.errors import DriverError
from gridmad.transfer.url import Url

BLOCK_SIZE = 1 << 18
"""Bytes that are read at a time where a back end has no better idea.  A session holds a few of
them: 64 copies under way have to stay within 100 MiB."""

Result = TypeVar("Result")
Block: TypeAlias = bytes | bytearray | memoryview


class Progress:
    """How far a copy is.  Whoever moves bytes adds them to `moved`, in whatever thread."""

    __slots__ = ("is_told", "moved", "size")

    def __init__(self) -> None:
        self.moved = 0
        """Bytes."""
        self.size: int | None = None
        """Bytes in all, where that is known."""
        self.is_told = True
        """`moved` grows as bytes move; where servers do it among themselves it may."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a server says of a name."""

    size: int
    """Bytes."""
    is_directory: bool = False
    link: str | None = None
    """What a symbolic link names, "" where that is not told; None for what is no link."""


class Session:
    """Somebody's place at an endpoint, for one operation at a time.

    A library that serves many over one connection may give the same connection to many sessions.
    URLs are those of the endpoint; `url.home_user` and `url.steps` say where "~" leads.
    An operation may be cancelled; the session is then closed.
    """

    writes_whole: ClassVar[bool] = False
    """What `write` and `upload` make is there whole or not at all: no temporary name is needed,
    and `rename` not used."""

    def __init__(self, storage: "Storage") -> None:
        self.storage = storage

    @property
    def is_open(self) -> bool:
        """Whether another operation may be tried."""
        return True

    async def close(self) -> None:
        """Leave, whatever is under way; raises nothing."""
        raise NotImplementedError

    async def abandon(self) -> None:
        """As `close`, where the process ends right afterwards."""
        await self.close()

    async def status(self, url: Url) -> Status | None:
        """What is there; None where nothing is."""
        raise NotImplementedError

    async def make_directories(self, url: Url) -> None:
        """Make a directory and its parents; one that exists is fine.

        A job's directory (`is_job_directory`) is for its user alone, where there is such a thing.
        """
        raise NotImplementedError

    async def remove_tree(self, url: Url) -> None:
        """Remove a directory with all it holds, or a symbolic link in its place; a missing one
        is fine.  Links are removed and never followed.
        """
        raise NotImplementedError

    async def remove(self, url: Url) -> None:
        """Remove a file."""
        raise NotImplementedError

    async def rename(self, url: Url, new: Url) -> None:
        """Give a file another name in its folder, in place of a file that has it."""
        raise NotImplementedError

    async def make_executable(self, url: Url) -> None:
        """Let who may read a file execute it, where there is such a thing."""

    def read(self, url: Url) -> AsyncGenerator[Block, None]:
        """The content of a file.  A block is used up when the next one is asked for."""
        raise NotImplementedError

    async def write(self, url: Url, blocks: AsyncIterator[Block], size: int | None) -> None:
        """Make a file, in place of one that is there; `size` in bytes is exact where known."""
        raise NotImplementedError

    async def checksum(self, url: Url, algorithm: str) -> str:
        """A checksum of a file in hexadecimal digits; `algorithm` is one of the storage's."""
        raise NotImplementedError

    async def download(self, url: Url, file: int, progress: Progress) -> None:
        """Write a file's content to a new local file, which is open as `file`.

        For back ends that can do better than `read`.
        """
        async with aclosing(self.read(url)) as blocks:
            async for block in blocks:
                await in_thread(write_all, file, block)
                progress.moved += len(block)

    async def upload(self, url: Url, file: int, size: int | None, progress: Progress) -> None:
        """Make a file of the `size` first bytes of a local one, which is open as `file`; of all
        where that is None.

        For back ends that can do better than `write`.
        """
        async with aclosing(blocks_of(file, size, progress)) as blocks:
            await self.write(url, blocks, size)

    async def fetch(self, url: Url, source: Url, progress: Progress) -> bool:
        """Copy from another server of this storage without the bytes coming here (third party).

        False where that cannot be, and nothing was done: they then come through here.
        """
        return False


class Storage:
    """The servers of some schemes."""

    schemes: ClassVar[frozenset[str]]
    checksums: ClassVar[Sequence[str]] = ()
    """Of "adler32" and "md5" those that servers can tell."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Nothing slow; raises UsageError for wrong options."""
        self.options = options

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare this back end's own options."""

    def credentials(self) -> Sequence[CredentialWatch]:
        """What it needs to be let in, made in `__init__`; the engine runs these watches from
        `open` to `close`, and the back end asks for `require_valid()` before it connects.  When
        they warn, `options.credential_warnings` says.
        """
        return ()

    def endpoint(self, url: Url) -> str:
        """What URLs with the same sessions have in common."""
        return str(url)[: -len(url.path)]

    async def open(self) -> None:
        """Get ready, before the first session; DriverError is the answer to the request that
        needed it, and the next request tries again.  The place to import a library
        (MissingDependencyError names what to install).
        """

    async def connect(self, url: Url) -> Session:
        """A new session at the endpoint of `url`."""
        raise NotImplementedError

    async def close(self) -> None:
        """Leave nothing behind; sessions are closed by then.  There is half a second for all."""


async def in_thread(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function that waits for a disk.

    On cancellation it is waited for all the same: what it works on may be closed after that.
    """
    future = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


def write_all(file: int, block: Block) -> None:
    """Write a block to the position of a file.  Raises OSError."""
    view = memoryview(block)
    while view:
        view = view[os.write(file, view) :]


async def blocks_of(
    file: int, size: int | None, progress: Progress, most: int = BLOCK_SIZE
) -> AsyncGenerator[bytes, None]:
    """The first `size` bytes of a local file, or all of it, in blocks of at most `most` bytes.

    Raises DriverError for one that is shorter by now.
    """
    left = size
    while left is None or left > 0:
        length = most if left is None else min(most, left)
        block = await in_thread(os.read, file, length)
        if not block:
            break
        yield block
        progress.moved += len(block)
        if left is not None:
            left -= len(block)
    if left:
        raise DriverError(f"it became shorter by {left} bytes while it was copied")
