"""Threads for short work that may meet a slow disk.

System calls of microseconds are done fastest by one thread: several hand Python's lock (the GIL)
to each other with each call, and copy small files at half the speed.  So one works, and another
one joins whenever nothing has been done for a moment, up to as many as are allowed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

MOMENT: Final = 0.005
"""Seconds after which a thread counts as held up."""

Task = Callable[[], object]


class Crew:
    """At most `most` threads, which do tasks in the order in which they were added.

    A task raises nothing.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._threads = ThreadPoolExecutor(most, name)
        self._tasks: deque[Task] = deque()
        self._at_work: dict[object, float] = {}
        """When each thread began with its task (time.monotonic)."""
        self._done = 0
        """Grows with each task, though threads may count two as one."""
        self._watch: asyncio.TimerHandle | None = None

    def add(self, tasks: Iterable[Task]) -> None:
        """Have tasks done; to be called in the event loop."""
        self._tasks.extend(tasks)
        if self._tasks and not self._at_work:
            self._join()
        if self._watch is None:
            self._look_later()

    def clear(self) -> None:
        """Leave what no thread has begun with."""
        self._tasks.clear()

    async def stop(self) -> None:
        """Leave what no thread has begun with, and wait for the rest."""
        self.clear()
        await asyncio.to_thread(self._threads.shutdown)

    def abandon(self) -> None:
        """Leave all."""
        self.clear()
        self._threads.shutdown(wait=False)

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(MOMENT, self._look, self._done)

    def _look(self, done_before: int) -> None:
        self._watch = None
        if not self._tasks:
            return
        if self._done == done_before and len(self._at_work) < self._most:
            self._join()
        self._look_later()

    def _join(self) -> None:
        me = object()
        self._at_work[me] = time.monotonic()
        self._threads.submit(self._work, me)

    def _work(self, me: object) -> None:
        # What was added after the look at an empty list may have found this thread at work.
        while self._do_tasks(me) and self._tasks and not self._at_work:
            pass

    def _do_tasks(self, me: object) -> bool:
        """Do tasks until there are none; false where there are, and another thread does them."""
        begun = self._at_work[me] = time.monotonic()
        try:
            while self._tasks:
                try:
                    task = self._tasks.popleft()
                except IndexError:  # another thread was faster
                    break
                task()
                self._done += 1
                now = time.monotonic()
                if now - begun < MOMENT and self._is_done_without(me, now):
                    return False
                begun = self._at_work[me] = now
            return True
        finally:
            del self._at_work[me]

    def _is_done_without(self, me: object, now: float) -> bool:
        # A list is made at once, while another thread may come or go.
        at_work = list(self._at_work.items())
        return any(now - begun < MOMENT for other, begun in at_work if other is not me)
