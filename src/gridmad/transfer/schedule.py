"""Which of the waiting transfers may begin.  No I/O.

Transfers between the same endpoints wait together, those of one job one behind the other; jobs
take turns, and so do groups of endpoints.  What waits for a busy endpoint holds nobody else up.
"""

from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")

Endpoints = tuple[str, ...]
"""The servers that a transfer needs a place at; none for one within this machine."""


class _Group(Generic[Item]):
    """What waits for the same endpoints: the items of each job, the next job's first."""

    def __init__(self) -> None:
        self._jobs: dict[str, deque[Item]] = {}

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, item: Item, job: str) -> None:
        self._jobs.setdefault(job, deque()).append(item)

    def take(self) -> Item:
        job = next(iter(self._jobs))
        items = self._jobs.pop(job)
        item = items.popleft()
        if items:
            self._jobs[job] = items  # behind all others
        return item


class Schedule(Generic[Item]):
    """At most `streams` transfers at a time, and `per_endpoint` at each endpoint."""

    def __init__(self, streams: int, per_endpoint: int) -> None:
        self._free = streams
        self._per_endpoint = per_endpoint
        self._busy: dict[str, int] = {}
        self._groups: dict[Endpoints, _Group[Item]] = {}

    def add(self, item: Item, job: str, endpoints: Endpoints) -> None:
        """Let an item wait."""
        group = self._groups.get(endpoints)
        if group is None:
            group = self._groups[endpoints] = _Group()
        group.add(item, job)

    def take(self) -> Item | None:
        """The next item that may begin, which has its places until `release`; None for none."""
        if self._free == 0:
            return None
        endpoints = next(filter(self._has_places, self._groups), None)
        if endpoints is None:
            return None
        group = self._groups.pop(endpoints)
        item = group.take()
        if group:
            self._groups[endpoints] = group  # behind all others
        self._free -= 1
        for endpoint in set(endpoints):
            self._busy[endpoint] = self._busy.get(endpoint, 0) + 1
        return item

    def release(self, endpoints: Endpoints) -> None:
        """An item that was taken has ended."""
        self._free += 1
        for endpoint in set(endpoints):
            self._busy[endpoint] -= 1
            if not self._busy[endpoint]:
                del self._busy[endpoint]

    def clear(self) -> None:
        """Forget all that wait."""
        self._groups.clear()

    def _has_places(self, endpoints: Endpoints) -> bool:
        return all(self._busy.get(endpoint, 0) < self._per_endpoint for endpoint in endpoints)
