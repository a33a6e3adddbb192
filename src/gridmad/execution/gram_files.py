"""Which files the endpoints of GRAM were told to fetch, and when they are told again."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

FETCH_WAIT: Final = 20.0
"""Seconds for which the first jobs wait for their inputs; later ones find them when they begin."""
PAUSE: Final = 300.0
"""Seconds after which an endpoint that did not fetch a file is told again."""
LIFE: Final = 86400.0
"""Seconds after which one that did is told again, since somebody may have removed the file."""


class Fetch(NamedTuple):
    """A job that fetches files; its result says whether it did."""

    begun: float
    task: asyncio.Task[bool]

    def is_good(self, now: float) -> bool:
        """Whether there need not be another one."""
        if not self.task.done():
            return True
        did = not self.task.cancelled() and self.task.exception() is None and self.task.result()
        return now < self.begun + (LIFE if did else PAUSE)


class Fetches:
    """`fetch(endpoint, files)` begins to have an endpoint fetch files, given by their digests."""

    def __init__(self, fetch: Callable[[str, Mapping[str, bytes]], asyncio.Task[bool]]) -> None:
        self._fetch = fetch
        self._fetches: dict[tuple[str, str], Fetch] = {}

    async def have(self, endpoint: str, files: Mapping[str, bytes]) -> None:
        """See to it that an endpoint has files, as far as can be in time."""
        now = time.monotonic()
        known = {digest: self._fetches.get((endpoint, digest)) for digest in files}
        missing = {
            digest: files[digest]
            for digest, fetch in known.items()
            if fetch is None or not fetch.is_good(now)
        }
        if missing:
            fetch = Fetch(now, self._fetch(endpoint, missing))
            good = {key: one for key, one in self._fetches.items() if one.is_good(now)}
            self._fetches = good | {(endpoint, digest): fetch for digest in missing}
        fetches = {self._fetches[endpoint, digest] for digest in files}
        waits = {one.task: one.begun + FETCH_WAIT - now for one in fetches if not one.task.done()}
        if waits:
            await asyncio.wait(waits, timeout=max(0.0, max(waits.values())))
