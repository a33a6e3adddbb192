"""Snapshots: what a slow source says, fetched whole in the background, served from memory.

    asked for the first time      wait for the first fetch
    asked again                   answer at once; a new fetch every `refresh` seconds
    a fetch fails                 the last snapshot holds, up to `staleness` seconds of age;
                                  tried again after 1, 2, 4, ... seconds
    nobody asks for ten minutes   no fetches, until somebody asks

A fetch runs in a thread and knows nothing of this; this knows nothing of what it fetches.  But
of the interpreter they have one, and a thread that the system interrupts while it holds the
interpreter's lock holds up every answer.  So a fetch that nobody waits for takes a small part of
the time only: between its steps it calls `give_way`.
"""

import asyncio
import contextlib
import gc
import logging
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from gridmad.errors import DriverError, TransientError

log = logging.getLogger(__name__)

Value = TypeVar("Value")

IDLE = 600.0
"""Seconds without a request after which the source is left in peace."""
SWITCH = 0.0002
"""Seconds that the fetching thread may keep the interpreter while the event loop waits for it."""
STEP = 0.0005
"""Seconds that the fetching thread works before it rests."""
REST = 20.0
"""How many times longer it rests then."""
ALL_RESTS = 0.1
"""The part of the time between two fetches that all rests of one may take."""
FIRST_RETRY = 1.0
LONGEST_RETRY = 30.0


class Snapshots(Generic[Value]):
    """The latest value that `fetch` returned.  Made and asked in an event loop."""

    def __init__(self, fetch: Callable[[], Value], refresh: float, staleness: float) -> None:
        self._fetch = fetch
        self._refresh = refresh
        self._staleness = staleness
        self._value: Value | None = None
        self._taken_at = -float("inf")
        self._error: DriverError | None = None
        self._failures = 0
        self._asked_at = -float("inf")
        self._ended_at = -float("inf")
        self._keeper: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._attempt: asyncio.Future[None] | None = None
        self._is_stopped = threading.Event()
        self._step_began = 0.0
        self._rest_left = 0.0

    def get(self) -> Value | Awaitable[Value]:
        """The value where it is fresh enough, else what waits for the fetch under way.

        Raises TransientError (or returns what does) where the source fails and the last value
        is too old.
        """
        now = asyncio.get_running_loop().time()
        self._asked_at = now
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep())
        if self._value is not None:
            # After a pause, look whether there is anything newer before serving the old.
            was_tried = now - self._ended_at <= 2 * max(self._refresh, LONGEST_RETRY)
            return self._latest() if was_tried else self._wait()
        if self._error is not None and now - self._ended_at < FIRST_RETRY:
            raise self._error.with_traceback(None)
        return self._wait()

    def age(self) -> float:
        """Seconds since the value was taken."""
        return asyncio.get_running_loop().time() - self._taken_at

    def give_way(self) -> None:
        """Rest, where the step since the last rest was long enough, a value is there to answer
        with, and nobody waits for a newer one.  Called in the fetching thread.

        Raises DriverError where nobody wants the value any more, whoever else could give it.
        """
        if self._is_stopped.is_set():
            raise DriverError("the driver is stopping")
        worked = time.monotonic() - self._step_began
        if worked >= STEP and self._value is not None and self._attempt is None:
            rest = min(worked * REST, self._rest_left)
            self._rest_left -= rest
            if rest > 0:
                self._is_stopped.wait(rest)
            self._step_began = time.monotonic()

    async def stop(self) -> None:
        """No further fetches; one under way ends at its next step."""
        self._is_stopped.set()
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper

    async def _wait(self) -> Value:
        if self._attempt is None:
            self._attempt = asyncio.get_running_loop().create_future()
        self._wanted.set()
        await asyncio.shield(self._attempt)
        return self._latest()

    def _latest(self) -> Value:
        if self._value is not None and self.age() <= self._staleness:
            return self._value
        error = self._error or TransientError("the source was not asked for a while")
        raise error.with_traceback(None)  # or each raise would make it longer

    async def _keep(self) -> None:
        """Fetch, and again when it is due or wanted, while somebody asks."""
        loop = asyncio.get_running_loop()
        while True:
            await self._fetch_once()
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._delay())
            if loop.time() - self._asked_at > IDLE:
                return

    def _delay(self) -> float:
        """Seconds until the next fetch is due."""
        if not self._failures:
            return self._refresh
        return min(self._refresh, LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(self._failures - 1, 9))

    async def _fetch_once(self) -> None:
        loop = asyncio.get_running_loop()
        self._rest_left = self._refresh * ALL_RESTS
        self._step_began = time.monotonic()
        try:
            self._value = await asyncio.to_thread(in_background, self._fetch)
        except Exception as error:  # noqa: BLE001 - whatever fails, the next attempt may not
            self._failed(error)
        else:
            if self._failures:
                log.info("the source answers again")
            self._failures = 0
            self._error = None
            self._taken_at = loop.time()
        finally:
            self._ended_at = loop.time()
            if self._attempt is not None and not self._attempt.done():
                self._attempt.set_result(None)
            self._attempt = None

    def _failed(self, error: Exception) -> None:
        if isinstance(error, DriverError):
            self._error = error
        else:
            log.error("a fetch failed in an unexpected way", exc_info=error)
            self._error = TransientError(f"{type(error).__name__}: {error}")
        self._failures += 1
        # Once is enough while it lasts; each host that is served stale is told by others.
        level = logging.WARNING if self._failures == 1 else logging.DEBUG
        log.log(level, "%s; what was known before holds for %g s", self._error, self._staleness)


def in_background(work: Callable[[], Value]) -> Value:
    """Call what takes long, in a thread of its own, so that the event loop hardly notices.

    The cyclic garbage collector pauses: a fetch (as an import) makes very many objects and
    hardly any cycle, and the collector would walk over all of them again and again.  And the
    interpreter passes from thread to thread more often: an answer asks for it three times, and
    each time it may have to wait so long.
    """
    was_enabled = gc.isenabled()
    interval = sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(min(interval, SWITCH))
    try:
        return work()
    finally:
        sys.setswitchinterval(interval)
        if was_enabled:
            gc.enable()
