"""Reads the command's pipes: into the view, and on to where the output goes anyway.

A thread for each, so that one whose own output is not taken does not hold up the other.
"""

import array
import contextlib
import errno
import fcntl
import logging
import os
import select
import termios
import threading
import time
from pathlib import Path
from typing import Final

from gridmad.errors import UsageError
from gridmad.peek.frame import MAX_RAW
from gridmad.peek.intake import Intake

LOGGER = logging.getLogger(__name__)

PIPE_SIZE: Final = 1 << 20
"""Bytes of room that is asked for in a pipe, as much as an ordinary user may have."""
FLUSH: Final = 0.1
"""Seconds that the beginning of a chunk waits for its rest, unless all was quiet before."""
BUSY_FLUSH: Final = 0.25
"""The same while more than a chunk comes in that time, which nobody reads as it comes: each
body wakes threads on both sides and in the broker, where it may be one of fifty streams."""
SHORTEST_PAUSE: Final = 0.002
FASTEST: Final = 500e6
"""Bytes a second that a command may write without finding its pipe full in a short pause."""
LONGEST_PAUSE: Final = 0.03
"""What pauses grow to while they fill less than a quarter of the pipe: a reader that looks
every 2 ms costs 2 % of a core, and a node may run fifty.  A burst may wait for it once."""
QUIET_GRACE: Final = 2.0
"""Seconds of silence after the command's end, when another process keeps its pipe open."""
GRACE: Final = 30.0
"""Seconds after the command's end for which such a process may go on writing."""


def new_pipe() -> tuple[int, int, int]:
    """A pipe as big as we may have: its ends for reading and writing, and its size in bytes."""
    reading, writing = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return reading, writing, fcntl.fcntl(reading, fcntl.F_GETPIPE_SZ)


class Output:
    """Where the output goes beside the view.  When nobody takes it any more it goes nowhere."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name

    @classmethod
    def to_file(cls, path: Path) -> "Output":
        """Into a file that is emptied, and that only its owner can read if it is made.

        UsageError where it cannot be written.
        """
        # O_APPEND: both outputs may go to the same file.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        try:
            return cls(os.open(path, flags, 0o600), str(path))
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None

    def write(self, data: bytes) -> None:
        """Write all of it, however long that takes."""
        rest = memoryview(data)
        while rest and self._descriptor >= 0:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody made it so, and shares it with us
                select.select([], [self._descriptor], [])
            except OSError as error:
                if error.errno != errno.EPIPE:  # of a closed pipe tee says nothing either
                    LOGGER.warning("%s: %s; it is not written further", self._name, error.strerror)
                self._descriptor = -1


class PipeReader(threading.Thread):
    """Reads one pipe to its end, or until `end` and nothing more comes.

    `size` is the pipe's; the descriptor is closed at the end.
    """

    def __init__(self, descriptor: int, size: int, intake: Intake, output: Output | None) -> None:
        super().__init__(name=f"reader {intake.source}", daemon=True)
        os.set_blocking(descriptor, False)  # the other end is not ours, and blocks
        self._descriptor = descriptor
        self._pause = self._shortest = min(SHORTEST_PAUSE, size / FASTEST)
        self._quarter = size // 4
        self._intake = intake
        self._output = output
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ended_at: float | None = None
        self._owed = 0
        self.was_cut_off = False
        """A process other than the command had the pipe open when reading ended."""

    def end(self) -> None:
        """The command has ended: what is in the pipe is read, and little more is waited for."""
        count = array.array("i", [0])
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._descriptor, termios.FIONREAD, count)
        self._owed = count[0]
        self._ended_at = time.monotonic()
        os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Give back what `end` needs, after the thread has ended."""
        os.close(self._bell)

    def run(self) -> None:  # noqa: D102
        try:
            self._read()
            self._intake.finish()
        except Exception:
            # The view has failed; the command goes on as without it.
            LOGGER.exception("from here on the output is only passed on")
            self._intake.give_up()
            self._pass_on()
        finally:
            os.close(self._descriptor)

    def _pass_on(self) -> None:
        """Read to the end for the output beside the view alone."""
        read_at = 0.0
        while True:
            try:
                data = os.read(self._descriptor, MAX_RAW)
            except BlockingIOError:
                now = time.monotonic()
                if self._is_over(now, read_at):
                    return
                self._wait(now, read_at)
                continue
            if not data:
                return
            read_at = time.monotonic()
            if self._output is not None:
                self._output.write(data)

    def _read(self) -> None:
        intake, output, descriptor = self._intake, self._output, self._descriptor
        flush_at = read_at = 0.0
        gathered = unflushed = 0
        while True:
            try:
                data = os.read(descriptor, intake.room)
            except BlockingIOError:
                now = time.monotonic()
                if self._is_over(now, read_at):
                    return
                if intake.is_empty:
                    self._wait(now, read_at)
                elif now >= flush_at:
                    intake.flush()
                    flush_at = now + (FLUSH if unflushed < MAX_RAW else BUSY_FLUSH)
                    unflushed = 0
                else:
                    # More may be on its way: to wake up for each line would cost more.
                    self._rest(gathered, flush_at - now)
                    gathered = 0
                continue
            if not data:
                return
            gathered += len(data)
            unflushed += len(data)
            if output is not None:
                output.write(data)
            intake.take(data)
            if self._ended_at is not None:
                self._owed -= len(data)
                read_at = time.monotonic()
                if self._owed <= 0 and read_at > self._ended_at + GRACE:
                    self.was_cut_off = True
                    return

    def _rest(self, gathered: int, longest: float) -> None:
        """Pause, the longer the less the pipe held after the last pause."""
        is_fast = gathered > self._quarter
        self._pause = self._shortest if is_fast else min(2 * self._pause, LONGEST_PAUSE)
        time.sleep(min(self._pause, longest))

    def _is_over(self, now: float, read_at: float) -> bool:
        if self._ended_at is None:
            return False
        self.was_cut_off = now >= max(self._ended_at, read_at) + QUIET_GRACE
        return self.was_cut_off

    def _wait(self, now: float, read_at: float) -> None:
        """Until there is something to read, or the command has ended, or was long ago."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if self._ended_at is None:
            poll.register(self._bell, select.POLLIN)
            poll.poll()
        else:
            poll.poll(1 + int(1000 * (max(self._ended_at, read_at) + QUIET_GRACE - now)))
