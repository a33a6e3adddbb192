"""What every driver is: a class with options, started after INIT was answered.

A driver never sees a request.  Its family (gridmad.information, .execution, .transfer)
gives it the items of all waiting requests of one operation as a Batch, and it answers
them together:

    async def poll(self, contacts: Batch[str, JobState]) -> list[JobState | DriverError]:
        states = await self.query()
        return [states.get(contact, UnknownJobError(contact)) for contact in contacts]

An operation that answers from memory may be a plain `def`; it is then served without a
task, in microseconds.  Nothing in a driver may block the event loop: what blocks goes
through `asyncio.to_thread` or `Batch.each_in_thread`.
"""

import argparse
import asyncio
import os
import stat
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, ClassVar, Generic, TypeAlias, TypeVar, overload

from gridmad.crew import Crew
from gridmad.errors import DriverError

Item = TypeVar("Item")
Value = TypeVar("Value")
Result = TypeVar("Result")

MaybeAwaitable: TypeAlias = Awaitable[Result] | Result


class Driver:
    """The part that all families share.

    `add_options` declares the command line, `__init__` checks what it gave (raise
    UsageError) and does nothing slow.  `start` runs after INIT was answered and before
    the first batch; that is the place to import a back end's library and to connect.
    `stop` has a good half second; whatever it leaves is left.
    """

    summary: ClassVar[str] = ""
    """One line for --help."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare this driver's own options."""

    async def start(self) -> None:
        """Get ready; a DriverError raised here answers every request until it succeeds."""

    async def stop(self) -> None:
        """Leave nothing behind but running jobs."""


class Batch(Sequence[Item], Generic[Item, Value]):
    """The items of all waiting requests of one operation, in the order they came.

    An operation returns one outcome per item, or calls `settle` for each as soon as it is
    known and returns None.  The first outcome of an item counts; an item that has none
    when the operation ends, fails or passes its deadline is answered by the daemon.
    """

    __slots__ = ("_items", "_settle", "_settled")

    def __init__(
        self, items: Sequence[Item], settle: Callable[[int, Value | DriverError], None]
    ) -> None:
        self._items = items
        self._settle = settle
        self._settled = bytearray(len(items))

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def settle(self, index: int, outcome: Value | DriverError) -> None:
        """Answer item number `index`; what comes after the first outcome is dropped."""
        if not self._settled[index]:
            self._settled[index] = 1
            self._settle(index, outcome)

    def settle_all(self, outcomes: Sequence[Value | DriverError]) -> None:
        """Answer every item that has no outcome yet."""
        if len(outcomes) != len(self._items):
            raise ValueError(f"{len(outcomes)} outcomes for {len(self._items)} items")
        for index, outcome in enumerate(outcomes):
            self.settle(index, outcome)

    async def each_in_thread(self, crew: Crew, function: Callable[[Item], Value]) -> None:
        """Call `function(item)` for every item in threads, settling each as it ends.

        What the function raises settles its item: a DriverError as it is, an OSError with
        its own text.  When this is cancelled, items that no thread took up are left out.
        """
        loop = asyncio.get_running_loop()
        waiting = deque(enumerate(self._items))
        finished: deque[tuple[int, Value | DriverError]] = deque()
        done = loop.create_future()
        left = len(waiting)
        is_woken = False

        def collect() -> None:
            # The flag falls before the queue is emptied: what ends from now on either is
            # still seen below or wakes the loop again.
            nonlocal left, is_woken
            is_woken = False
            while finished:
                self.settle(*finished.popleft())
                left -= 1
            if left == 0 and not done.done():
                done.set_result(None)

        def run() -> None:
            nonlocal is_woken
            try:
                index, item = waiting.popleft()
            except IndexError:  # cancelled
                return
            finished.append((index, _outcome(function, item)))
            # To wake the loop costs about as much as all system calls of a small file's copy.
            if not is_woken:
                is_woken = True
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(collect)

        try:
            crew.add([run] * left)
            if left:
                await done
        finally:
            waiting.clear()


def _outcome(function: Callable[[Item], Value], item: Item) -> Value | DriverError:
    try:
        return function(item)
    except DriverError as error:
        return error
    except OSError as error:
        return DriverError(describe(error))
    except BaseException as error:  # noqa: BLE001 - it would end the thread and be lost
        return DriverError(f"{type(error).__name__}: {error}")


def describe(error: OSError) -> str:
    """An operating system's error as one readable line: what failed, on which path."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    text = error.strerror or str(error) or type(error).__name__
    return f"{' -> '.join(names)}: {text}" if names else text


def open_file(path: str | Path) -> BinaryIO | None:
    """Open a file for reading; None for what is there and is no file (a pipe would wait for its
    other end).  Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return open(descriptor, "rb")  # noqa: PTH123 - opened without waiting


def file_name(text: str) -> str:
    """A name from a request or a job description, as the operating system takes it.

    These are UTF-8, with surrogates for bytes that are not, whatever the locale says about
    the names of files.  Raises UnicodeEncodeError, a ValueError, for other surrogates.
    """
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))
