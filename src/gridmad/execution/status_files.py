"""Exit codes that jobs leave in a folder which this machine shares with the resource.

It tells the end of a job within a second and at no cost to the batch system, and knows exit
codes of which that keeps no account.  Where the folder is not shared nothing ever comes, and
the resource is asked as ever.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from gridmad.driver import describe
from gridmad.errors import TransientError
from gridmad.execution.model import JobState
from gridmad.execution.payload import read_status
from gridmad.execution.resource import JobId

TICK: Final = 1_000_000_000
"""Nanoseconds in which a folder may change without another time of its last change."""


class StatusFiles:
    """The files of a folder, each named by the tag of its job (see gridmad.execution.payload)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A folder that hangs may have this thread, and no other.
        self._thread = ThreadPoolExecutor(1, "status files")
        self._changed = 0

    def path(self, tag: str) -> str:
        """Where a job is to leave its exit code."""
        return str(self._folder / tag)

    async def look(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """The final states of those of `jobs` (given with their tags) that left one.

        The folder is read when something was added to it.  Raises TransientError.
        """
        try:
            look = asyncio.get_running_loop().run_in_executor(self._thread, self._look, jobs)
            return await look
        except OSError as error:
            raise TransientError(describe(error)) from None

    async def read(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        """As `look`, but whatever was known before."""
        self._changed = 0
        try:
            return await self.look(jobs)
        finally:
            # These were not all jobs: the next look is for those that this one left out.
            self._changed = 0

    def _look(self, jobs: Mapping[JobId, str]) -> Mapping[JobId, JobState]:
        changed = self._folder.stat().st_mtime_ns
        if changed == self._changed:
            return {}
        present = set(os.listdir(self._folder))  # noqa: PTH208 - names are all that is needed
        states: dict[JobId, JobState] = {}
        for job_id, tag in jobs.items():
            if tag in present:
                state = read_status(self._folder / tag)
                if state is not None:
                    states[job_id] = state
        # What is added within the same tick of the file system's clock does not show.
        self._changed = changed if time.time_ns() - changed > TICK else 0
        return states
