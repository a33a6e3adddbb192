"""What the connections of a client hand to the thread that writes: a bounded queue."""

import threading
import time
from collections import deque
from typing import Final, Generic, TypeVar

T = TypeVar("T")

BATCH: Final = 1 << 20
"""Bytes of items that are taken at once."""
ITEM_COST: Final = 512
"""Bytes that an item takes beside its body."""


class Inbox(Generic[T]):
    """Items with a size; who adds one beyond `capacity` bytes waits, except with `put_now`."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._is_closed = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._items

    def put(self, item: T, size: int) -> None:
        """Add an item when there is room; after `close` it is dropped."""
        size += ITEM_COST
        with self._changed:
            while self._size + size > self._capacity and self._items and not self._is_closed:
                self._changed.wait()
            if not self._is_closed:
                self._append(item, size)

    def put_now(self, item: T) -> None:
        """Add a small item without waiting."""
        with self._changed:
            if not self._is_closed:
                self._append(item, 0)

    def take(self, timeout: float | None) -> list[T]:
        """The items of at least one and about BATCH bytes; none after `timeout` s, or `close`."""
        end = None if timeout is None else time.monotonic() + timeout
        taken: list[T] = []
        size = 0
        with self._changed:
            while not self._items and not self._is_closed:
                rest = None if end is None else end - time.monotonic()
                if rest is not None and rest <= 0:
                    return taken
                self._changed.wait(rest)
            while self._items and size < BATCH:
                item, cost = self._items.popleft()
                taken.append(item)
                size += cost
            self._size -= size
            if size:
                self._changed.notify_all()
        return taken

    def close(self) -> None:
        """Wake all that wait; what was not taken is dropped."""
        with self._changed:
            self._is_closed = True
            self._items.clear()
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def _append(self, item: T, size: int) -> None:
        self._items.append((item, size))
        self._size += size
        self._changed.notify_all()
