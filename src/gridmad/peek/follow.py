"""Files that something else writes, followed by inode and offset.

A file may appear later, be renamed and made anew (the old one is read to its end first) or
be cut (what was known to be there and not yet read is then missing).  There is no inotify
in the standard library, and none works on network file systems: sizes are polled.
"""

import logging
import os
import stat
import threading
import time
from pathlib import Path
from typing import Final, Protocol

LOGGER = logging.getLogger(__name__)

BUSY: Final = 0.02
"""Seconds between two looks at a file that grows."""
QUIET: Final = 0.05
"""Seconds between two looks at one that does not: a line is to be on a screen within 150 ms."""
NAME: Final = 0.25
"""Seconds between two looks at which file has the name."""
FLUSH: Final = 0.05
"""Seconds that the beginning of a chunk waits for its rest."""


class Sink(Protocol):
    """Where the bytes go."""

    @property
    def is_empty(self) -> bool:
        """Nothing waits to be flushed."""

    @property
    def room(self) -> int:
        """Bytes to read at most."""

    def take(self, data: bytes) -> None:
        """Take what was read."""

    def miss(self, length: int) -> None:
        """So many bytes were lost."""

    def flush(self) -> None:
        """Nothing more comes for a while."""

    def finish(self) -> None:
        """Nothing more comes."""


class FollowedFile:
    """Reads what a file's name stands for, one piece a call."""

    def __init__(self, path: Path, sink: Sink) -> None:
        self._path = path
        self._sink = sink
        self._descriptor = -1
        self._identity = (0, 0)
        self._position = 0
        self._size = 0
        self._refused = ""

    def read(self) -> bool:
        """Read a piece; False when there is nothing more for now."""
        if self._descriptor < 0 and not self._open():
            return False
        try:
            size = os.fstat(self._descriptor).st_size
            if size < self._position:
                self._note_cut()
            self._size = size
            if size == self._position:
                return False
            data = os.pread(self._descriptor, self._sink.room, self._position)
        except OSError as error:  # such as ESTALE
            self._refuse(f"{self._path}: {error.strerror}")
            return False
        self._position += len(data)
        if data:
            self._sink.take(data)
        return bool(data)

    def check_name(self) -> bool:
        """Go on with another file that has the name now and isn't empty, if there is one.

        For when `read` found nothing.  An empty one waits: who renamed a file may go on
        writing to it until he notices.
        """
        if self._descriptor < 0:
            return False
        try:
            status = self._path.stat()
        except OSError:
            return False
        if (status.st_dev, status.st_ino) == self._identity or not status.st_size:
            return False
        while self.read():
            pass  # it was written to before it was renamed, and after it was read
        self.close()
        return self._open()

    def close(self) -> None:
        """Give the file back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> bool:
        try:
            # O_NONBLOCK: opening a named pipe would wait for its writer.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._refuse(f"{self._path}: {error.strerror}")
            return False
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            self._refuse(f"{self._path} is no regular file")
            return False
        self._descriptor = descriptor
        self._identity = (status.st_dev, status.st_ino)
        self._position = self._size = 0
        self._refused = ""
        return True

    def _note_cut(self) -> None:
        missing = self._size - self._position
        LOGGER.warning(
            "%s was cut: %d bytes of it were not read; reading it from its beginning",
            self._path,
            missing,
        )
        if missing:
            self._sink.miss(missing)
        self._position = 0

    def _refuse(self, problem: str) -> None:
        if problem != self._refused:
            LOGGER.warning("cannot follow %s; trying on", problem)
            self._refused = problem


class Follower(threading.Thread):
    """Follows one file until `end` is called, and then to where it ends at that time."""

    def __init__(self, path: Path, sink: Sink) -> None:
        super().__init__(name=f"follow {path.name}", daemon=True)
        self._file = FollowedFile(path, sink)
        self._sink = sink
        self._ended = threading.Event()

    def end(self) -> None:
        """Nothing more will be written."""
        self._ended.set()

    def run(self) -> None:  # noqa: D102
        try:
            self._follow()
        except Exception:
            LOGGER.exception("following a file failed")
        finally:
            self._file.close()
            self._sink.finish()

    def _follow(self) -> None:
        pause = QUIET
        flush_at = named_at = 0.0
        while True:
            is_last = self._ended.is_set()  # first: what was written before is then seen
            if self._file.read():
                pause = BUSY
                continue
            now = time.monotonic()
            if now >= named_at or is_last:
                named_at = now + NAME
                if self._file.check_name():
                    continue
            if is_last:
                return
            if self._sink.is_empty:
                flush_at = now
            elif now >= flush_at:
                self._sink.flush()
                flush_at = now + FLUSH
            self._ended.wait(pause)
            pause = min(QUIET, pause * 1.25)
