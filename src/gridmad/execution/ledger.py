"""The journal of an engine, used from the event loop; its file is another thread's business.

Without a journal jobs are followed all the same, by their contacts; only new ones are refused,
and each tries to open it again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from gridmad.driver import describe
from gridmad.errors import DriverError
from gridmad.execution.contact import group_name
from gridmad.execution.journal import Intent, Journal, Started, Unended
from gridmad.execution.leftovers import end_leftovers
from gridmad.execution.model import JobState
from gridmad.execution.state import expire_files, make_folder

log = logging.getLogger(__name__)

Result = TypeVar("Result")

CLOSE_TIME: Final = 0.2
"""Seconds that the last writing has when the driver stops."""


class Ledger:
    """The journal in `folder` of the jobs that the gwd of `master` (its GW_LOCATION) has here.

    `status_folder` is for what jobs leave at their ends, in files named by their tags.
    """

    def __init__(self, folder: Path, status_folder: Path, master: str, keep: float) -> None:
        self._status_folder = status_folder
        self._folder = folder
        self._master = master
        self._keep = keep
        self._journal: Journal | None = None
        self._is_closed = False
        self._thread = ThreadPoolExecutor(1, "journal")

    async def open(self) -> Sequence[Unended]:
        """Open it if it is not open: the jobs that drivers which died left behind, none of whose
        tools run any more.  Raises DriverError.
        """
        if self._journal is not None and not self._is_closed:
            return ()  # as at every submission but the first: no need to ask the thread
        return await self._call(self._open)

    def _open(self) -> Sequence[Unended]:
        if self._journal is not None:
            return ()
        journal = Journal(self._folder, self._master)
        try:
            make_folder(self._status_folder)
            left = journal.claim()
            end_leftovers({group_name(one.tag) for one in left if one.contact is None})
        except DriverError:
            journal.close()
            raise
        self._journal = journal
        return left

    async def close(self) -> None:
        """Write what waits to be written, within CLOSE_TIME, and close it."""
        self._is_closed = True

        def close() -> None:
            if self._journal is not None:
                self._journal.close()

        closing = self._thread.submit(close)
        self._thread.shutdown(wait=False)
        await asyncio.wait([asyncio.wrap_future(closing)], timeout=CLOSE_TIME)

    async def intend(self, intents: Iterable[Intent]) -> None:
        """As Journal.intend."""
        await self._call(lambda: self._open_journal().intend(intents))

    async def record(self, started: Iterable[Started], failed: Iterable[str] = ()) -> None:
        """As Journal.record, but that it cannot be done is only logged: the jobs are there, and
        gwd keeps their contacts.
        """
        await self._try(lambda journal: journal.record(started, failed))

    async def cancel(self, tags: Iterable[str]) -> None:
        """As Journal.cancel; failing is only logged."""
        await self._try(lambda journal: journal.cancel(tags))

    async def end(self, jobs: Iterable[tuple[str, JobState]]) -> None:
        """As Journal.end; failing is only logged."""
        await self._try(lambda journal: journal.end(jobs))

    async def ends(self, tags: Sequence[str]) -> Mapping[str, JobState]:
        """As Journal.ends; what cannot be read is not known."""
        try:
            return await self._call(lambda: self._open_journal().ends(tags))
        except DriverError as error:
            log.error("%s", error)
            return {}

    async def expire(self) -> None:
        """Forget what is old; failing is only logged."""
        try:
            unended = await self._call(lambda: self._open_journal().expire(self._keep))
            # Not in the journal's thread: the folder may be another machine's, and hang.
            await asyncio.to_thread(
                expire_files, self._status_folder, time.time() - self._keep, unended
            )
        except DriverError as error:
            self._say(error)
        except OSError as error:
            log.warning("old files are not removed: %s", describe(error))

    def _open_journal(self) -> Journal:
        if self._journal is None:
            raise DriverError("the journal is not open")
        return self._journal

    async def _try(self, write: Callable[[Journal], object]) -> None:
        try:
            await self._call(lambda: write(self._open_journal()))
        except DriverError as error:
            self._say(error)

    def _say(self, error: DriverError) -> None:
        if not self._is_closed:
            log.error("%s", error)

    async def _call(self, function: Callable[[], Result]) -> Result:
        if self._is_closed:
            raise DriverError("the driver is stopping")
        try:
            future = asyncio.get_running_loop().run_in_executor(self._thread, function)
        except RuntimeError:
            raise DriverError("the driver is stopping") from None
        return await future
