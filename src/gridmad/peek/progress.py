"""How far a stream has come, in one line on a terminal: bytes, rate, lag and state."""

import sys
import threading
import time
from types import TracebackType
from typing import Any, Final, Self, TextIO

from gridmad.errors import MissingDependencyError

INTERVAL: Final = 0.1
"""Seconds between two drawings: lines that rush by are not slowed down by each a bar."""


class Progress:
    """A bar below the output; every call is of no effect where the stream is no terminal.

    What writes lines calls `hide` before, and `show` when the cursor is at the beginning of
    a line again.  Any thread may call.  MissingDependencyError where tqdm is not installed.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """Draw on `stream`, by default stderr."""
        self._lock = threading.Lock()
        self._bar: Any = None
        stream = sys.stderr if stream is None else stream
        if not stream.isatty():
            return
        try:
            from tqdm import tqdm
        except ImportError:
            raise MissingDependencyError("tqdm", "peek") from None

        progress = self

        class Bar(tqdm):  # type: ignore[type-arg]
            monitor_interval = 0  # no thread of its own: it is drawn when there is news

            def refresh(self, *arguments: Any, **options: Any) -> None:
                """Draw, but not into lines that are being written; update() calls it too."""
                if not progress._is_held:
                    progress._is_drawn = True
                    progress._drawn_at = time.monotonic()
                    super().refresh(*arguments, **options)

        self._is_held = False
        self._is_drawn = False
        self._drawn_at = 0.0
        self._state = ""
        self._bar = Bar(
            file=stream,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            dynamic_ncols=True,
            leave=False,
            mininterval=INTERVAL,
            miniters=0,  # lag and state are news as well
            delay=1e-9,  # it appears with the first news
            bar_format="{n_fmt}{unit} {rate_fmt}{postfix}",
        )

    def update(self, bytes_total: int, lag: int, state: str) -> None:
        """Take news: bytes shown so far, bytes the job is ahead, and a word of ours."""
        with self._lock:
            if self._bar is None:
                return
            behind = self._bar.format_sizeof(lag, "B", 1024)
            self._bar.set_postfix_str(f"{behind} behind, {state}", refresh=False)
            self._bar.update(max(0, bytes_total - self._bar.n))
            if state != self._state:
                self._state = state
                self._bar.refresh()

    def hide(self) -> None:
        """Make way for lines."""
        with self._lock:
            if self._bar is None:
                return
            self._is_held = True
            if self._is_drawn:
                self._bar.clear()
                self._is_drawn = False

    def show(self) -> None:
        """Lines were written, and the last one is complete."""
        with self._lock:
            if self._bar is None:
                return
            self._is_held = False
            # Without news there is nothing to show yet.
            if self._state and time.monotonic() - self._drawn_at >= INTERVAL:
                self._bar.refresh()

    def close(self) -> None:
        """Remove the bar, for good."""
        with self._lock:
            if self._bar is not None:
                self._bar.leave = False
                self._bar.close()
                self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
