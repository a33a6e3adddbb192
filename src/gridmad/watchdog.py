"""Notices an event loop that is blocked for good while work is under way."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable

STUCK_TIME = 30.0
"""Seconds that the loop may be blocked."""
INTERVAL = 5.0
"""Seconds between two looks while work is under way; without work nobody looks."""


class Watchdog:
    """A thread that asks the loop for a sign of life, as long as there is work.

    When none comes within STUCK_TIME it calls `give_up(where)` from its own thread, with
    the place in the code where the loop's thread hangs.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        is_idle: Callable[[], bool],
        give_up: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._is_idle = is_idle
        self._give_up = give_up
        self._has_work = threading.Event()
        self._has_ended = False
        self._thread: threading.Thread | None = None

    def watch(self) -> None:
        """There is work.  Costs next to nothing where that was known."""
        if not self._has_work.is_set():
            self._has_work.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._has_ended = True
        self._has_work.set()

    def _run(self) -> None:
        while True:
            self._has_work.wait()
            time.sleep(INTERVAL)
            if self._has_ended:
                return
            sign = threading.Event()
            try:
                self._loop.call_soon_threadsafe(sign.set)
            except RuntimeError:  # the loop is closed
                return
            if not sign.wait(STUCK_TIME) and not self._has_ended:
                self._give_up(self._place())
                return
            self._has_work.clear()
            if not self._is_idle():
                self._has_work.set()

    def _place(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
