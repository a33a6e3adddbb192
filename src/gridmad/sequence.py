"""Order among requests: those of one job one after the other, those of many together."""

from collections import deque
from dataclasses import dataclass, field

from gridmad.wire import Request


@dataclass(slots=True)
class Lane:
    """The requests of one job: of one operation those that run, and all that wait."""

    operation: str
    running: set[Request] = field(default_factory=set)
    waiting: deque[tuple[str, Request]] = field(default_factory=deque)


class Sequence:
    """Lets the requests of each id pass in the order they came.

    One at a time, except for operations in `parallel`: of those all that stand together
    pass together (the copies of one staging phase).
    """

    def __init__(self, parallel: frozenset[str]) -> None:
        self._parallel = parallel
        self._lanes: dict[str, Lane] = {}

    def __len__(self) -> int:
        """How many ids have requests that run or wait."""
        return len(self._lanes)

    def admit(self, operation: str, requests: list[Request]) -> list[Request]:
        """Those of `requests` that may run now; the others wait for `release`."""
        admitted = []
        for request in requests:
            lane = self._lanes.get(request.id)
            if lane is None:
                lane = self._lanes[request.id] = Lane(operation)
            elif lane.waiting or lane.operation != operation or operation not in self._parallel:
                lane.waiting.append((operation, request))
                continue
            lane.running.add(request)
            admitted.append(request)
        return admitted

    def release(self, requests: list[Request]) -> dict[str, list[Request]]:
        """Note that `requests` were answered; what may run now, by operation."""
        ready: dict[str, list[Request]] = {}
        for request in requests:
            lane = self._lanes.get(request.id)
            if lane is None or request not in lane.running:
                continue
            lane.running.discard(request)
            if not lane.running:
                self._advance(request.id, lane, ready)
        return ready

    def _advance(self, job_id: str, lane: Lane, ready: dict[str, list[Request]]) -> None:
        if not lane.waiting:
            del self._lanes[job_id]
            return
        lane.operation, request = lane.waiting.popleft()
        while True:
            lane.running.add(request)
            ready.setdefault(lane.operation, []).append(request)
            if lane.operation not in self._parallel or not lane.waiting:
                return
            if lane.waiting[0][0] != lane.operation:
                return
            _, request = lane.waiting.popleft()

    def unanswered(self) -> list[tuple[str, Request]]:
        """All that run or wait, those of one id in their order."""
        entries: list[tuple[str, Request]] = []
        for lane in self._lanes.values():
            entries += ((lane.operation, request) for request in lane.running)
            entries += lane.waiting
        return entries
