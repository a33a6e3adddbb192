"""The transfer engine: files between this machine and servers of whatever kind, and between those.

    Batch -> a Work for each item -> Dispatcher (what may begin, what is tried again)
          -> Copying (one copy) -> Sessions -> a back end's Session

The scheme of a URL picks the back end (`gridmad.transfer.storage`).  gwd writes the URLs of job
directories as `gsiftp://<host>/~/.gw_<user>_<jid>/` whatever the host speaks, GridWay 5.8 as
`remote://...`: those are of the driver's own scheme, --job-scheme.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import ClassVar, Final, TypeAlias, TypeVar

from gridmad import credential_watch
from gridmad.driver import Batch
from gridmad.errors import DriverError
from gridmad.options import count, port_number, seconds
from gridmad.transfer.copying import Copying, Place, Rules
from gridmad.transfer.dispatcher import Dispatcher, Work
from gridmad.transfer.driver import TransferDriver
from gridmad.transfer.failure import about
from gridmad.transfer.files import LocalFiles
from gridmad.transfer.model import Copy
from gridmad.transfer.schedule import Endpoints
from gridmad.transfer.sessions import Sessions
from gridmad.transfer.storage import Session
from gridmad.transfer.storages import STORAGES
from gridmad.transfer.url import Url, is_job_directory, parse

Item = TypeVar("Item")
Plan: TypeAlias = tuple[str, Endpoints, Callable[[], Awaitable[None]]]
"""Whose turn it is, where places are needed, and what is to be done."""

STREAMS: Final = 64
PER_ENDPOINT: Final = 8
DIRECTORIES_PER_ENDPOINT: Final = 2
"""Directories do not wait for copies."""
RETRIES: Final = 4
STALL: Final = 300.0
CHECKSUMS: Final = ("adler32", "md5")
_LOCAL_STREAMS: Final = 4
_MOST: Final = 1024
_JOB_SCHEMES: Final = frozenset({"gsiftp", "remote"})


class UrlTransfer(TransferDriver):
    """Serves URLs of all schemes."""

    job_scheme: ClassVar[str]
    """Of job directories, where --job-scheme says nothing."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._files = LocalFiles(options)
        self._storages = {
            scheme: storage
            for storage in (kind(options) for kind in STORAGES)
            for scheme in storage.schemes
        }
        self._sessions = Sessions()
        algorithms = {"none": (), "auto": CHECKSUMS}.get(options.checksum, (options.checksum,))
        rules = Rules(algorithms, options.checksum in CHECKSUMS, options.stall)
        self._copying = Copying(self._sessions, self._files, rules)
        self._copies = Dispatcher(options.streams, options.per_endpoint, options.retries)
        self._directories = Dispatcher(options.streams, DIRECTORIES_PER_ENDPOINT, options.retries)
        self._threads = ThreadPoolExecutor(_LOCAL_STREAMS, "file")

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the engine's options, and those of all back ends."""
        schemes = sorted(scheme for kind in STORAGES for scheme in kind.schemes)
        parser.add_argument(
            "--job-scheme",
            metavar="SCHEME",
            choices=schemes,
            default=cls.job_scheme,
            help="how the directories of jobs are reached, which gwd calls "
            f"gsiftp://HOST/~/.gw_USER_JID: one of {', '.join(schemes)} (default: %(default)s)",
        )
        parser.add_argument(
            "--job-port",
            metavar="N",
            type=port_number,
            help="the port there, since gwd names none (default: the scheme's own)",
        )
        parser.add_argument(
            "--streams",
            type=partial(count, most=_MOST),
            default=STREAMS,
            metavar="N",
            help="copy at most N files at a time (default: %(default)s)",
        )
        parser.add_argument(
            "--per-endpoint",
            type=partial(count, most=_MOST),
            default=PER_ENDPOINT,
            metavar="N",
            help="of these at most N from or to one server (default: %(default)s)",
        )
        parser.add_argument(
            "--retries",
            type=_retries,
            default=RETRIES,
            metavar="N",
            help="try a copy again N times where the error may be over in a moment "
            "(default: %(default)s)",
        )
        parser.add_argument(
            "--stall",
            type=seconds,
            default=STALL,
            metavar="SECONDS",
            help="take a copy of which no byte moves for this time for broken "
            "(default: %(default)g)",
        )
        parser.add_argument(
            "--checksum",
            choices=("none", "auto", *CHECKSUMS),
            default="none",
            help="compare checksums where both ends can tell them (auto), or always; sizes are "
            "compared in any case (default: %(default)s)",
        )
        LocalFiles.add_options(parser)
        credential_watch.add_options(parser)
        for kind in STORAGES:
            kind.add_options(parser)

    async def stop(self) -> None:
        """Give up what is under way, and leave all servers."""
        self._files.stop()
        self._sessions.end()
        await self._copies.stop()
        await self._directories.stop()
        await self._copying.stop()
        await self._sessions.close()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def copy(self, copies: Batch[Copy, None]) -> None:
        """Copy files."""
        end = time.monotonic() + self._files.longest
        await self._perform(self._copies, copies, partial(self._plan_copy, end))

    async def mkdir(self, urls: Batch[str, None]) -> None:
        """Make directories."""
        await self._perform(
            self._directories,
            urls,
            partial(self._plan, self._files.make_directories, self._make_directories),
        )

    async def rmdir(self, urls: Batch[str, None]) -> None:
        """Remove directories."""
        await self._perform(
            self._directories, urls, partial(self._plan, self._files.remove_tree, self._remove_tree)
        )

    async def exists(self, urls: Batch[str, None]) -> None:
        """Look for files and directories."""
        await self._perform(
            self._directories, urls, partial(self._plan, self._files.require, self._require)
        )

    # ------------------------------------------------------------ plans

    async def _perform(
        self,
        dispatcher: Dispatcher,
        batch: Batch[Item, None],
        plan: Callable[[Item], Plan],
    ) -> None:
        works = []
        for index, item in enumerate(batch):
            try:
                job, endpoints, run = plan(item)
            except DriverError as error:
                batch.settle(index, error)
            else:
                works.append(Work(endpoints, job, run, partial(batch.settle, index)))
        await dispatcher.perform(works)

    def _plan_copy(self, end: float, copy: Copy) -> Plan:
        source, destination = self._place(copy.source), self._place(copy.destination)
        endpoints = tuple(
            place.storage.endpoint(place.url)
            for place in (source, destination)
            if place.storage is not None
        )
        if not endpoints:
            return copy.job, (), partial(self._in_thread, self._files.copy, end, copy)
        return copy.job, endpoints, partial(self._copying.run, copy, source, destination, end)

    def _plan(
        self,
        here: Callable[[str], None],
        there: Callable[[Session, Url], Awaitable[None]],
        text: str,
    ) -> Plan:
        place = self._place(text)
        if place.storage is None:
            return text, (), partial(self._in_thread, here, text)
        return text, (place.storage.endpoint(place.url),), partial(self._there, there, place)

    def _place(self, text: str) -> Place:
        """What a URL means to this driver.  Raises DriverError."""
        url = parse(text)
        if url.scheme == "file":
            return Place(text, url, None)
        is_of_job = url.is_in_job_directory
        if url.scheme == "remote" or (url.scheme == "gsiftp" and is_of_job and url.home_user == ""):
            url = replace(
                url, scheme=self.options.job_scheme, port=url.port or self.options.job_port
            )
        if is_of_job and ".." in url.path.split("/"):
            raise DriverError(f"{text} leads out of the job's directory: it has '..' in it")
        storage = self._storages.get(url.scheme)
        if storage is None:
            known = ", ".join(sorted({"file", *self._storages}))
            raise DriverError(f"{text} cannot be reached: the schemes here are {known}")
        return Place(text, url, storage)

    # ------------------------------------------------------------ directories

    async def _in_thread(self, function: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _there(
        self, operation: Callable[[Session, Url], Awaitable[None]], place: Place
    ) -> None:
        assert place.storage is not None
        async with asyncio.timeout(self.options.stall):
            async with self._sessions.session(place.storage, place.url) as session:
                await operation(session, place.url)

    async def _make_directories(self, session: Session, url: Url) -> None:
        url = replace(url, path=url.path.rstrip("/") or "/")
        with about("make", url):
            await self._copying.check_folders(session, url, trust=0.0)
            await session.make_directories(url)
            if is_job_directory(url.path.rpartition("/")[2]):
                status = await session.status(url)
                if status is None or status.link is not None:
                    raise DriverError("it is a symbolic link, and may lead anywhere")

    async def _remove_tree(self, session: Session, url: Url) -> None:
        url = replace(url, path=url.path.rstrip("/") or "/")
        if not url.is_in_job_directory and not self.options.rmdir_anywhere:
            raise DriverError(
                f"{url} is not removed: it is no job directory .gw_USER_JID "
                "(--rmdir-anywhere allows it)"
            )
        steps = [step for step in url.steps.split("/") if step not in {"", "."}]
        if not steps or ".." in steps:
            raise DriverError(f"{url} is not removed: it is '/', the home directory, or has '..'")
        with about("remove", url):
            if await self._copying.check_folders(session, url, trust=0.0):
                await session.remove_tree(url)

    async def _require(self, session: Session, url: Url) -> None:
        with about("find", url):
            if await session.status(url) is None:
                raise DriverError("No such file or directory")


def _retries(text: str) -> int:
    return 0 if text == "0" else count(text, 100)
