"""Transfer requests: the phases of a job's staging, each request answered as it ends."""

import logging
from collections.abc import Awaitable, Callable

from gridmad import wire
from gridmad.driver import Batch
from gridmad.errors import DriverError
from gridmad.service import Service, settle
from gridmad.transfer.driver import COPY_DEADLINE, Outcomes, TransferDriver
from gridmad.transfer.model import Copy
from gridmad.wire import Request

log = logging.getLogger(__name__)


class TransferService(Service):
    """START and END bracket a phase; as requests of one job are served in their order,
    END is answered when all copies of the phase have been.

    In a phase that was begun twice a CP that comes twice is done and answered once, unless the
    first one failed: gwd means one.  When it replaces a driver that died it begins the phases of
    all jobs again, also of those that came to theirs while it waited for INIT's answer, and then
    orders every copy of these twice.  Two answers would end the phase twice; the second end,
    taken for that of the next phase, the epilog, would have a job done without its outputs.
    (gw_tm_mad_reload, gw_job_pool_tm_recover and gw_tm_epilog_cp_cb of GridWay 5.8 and 5.14.)
    """

    grammar = wire.TRANSFER
    is_sequenced = True
    parallel = frozenset({"CP"})
    deadlines = {  # noqa: RUF012 - overrides a ClassVar
        "START": 60.0,
        "END": 60.0,
        "MKDIR": 600.0,
        "RMDIR": 600.0,
        "EXISTS": 600.0,
        "CP": COPY_DEADLINE,
    }

    def __init__(self, driver: TransferDriver) -> None:
        super().__init__(driver)
        self._transfer = driver
        self._begun: set[str] = set()
        """The jobs in a phase."""
        self._begun_twice: dict[str, set[tuple[str, ...]]] = {}
        """Of those whose phase was begun twice the copies that are under way or done."""
        self._operations: dict[str, Callable[[Batch[str, None]], Outcomes]] = {
            "MKDIR": driver.mkdir,
            "RMDIR": driver.rmdir,
            "EXISTS": driver.exists,
        }

    @property
    def init_waits_for_start(self) -> bool:
        """A driver that starts a server for staging knows its URL only then."""
        return self._transfer.init_waits_for_start

    def greeting(self) -> bytes:
        """The staging URL."""
        return wire.clean(self._transfer.staging_url, 1000)

    def serve(self, operation: str, requests: list[Request]) -> Awaitable[None] | None:
        """Serve requests of one operation."""
        if operation in ("START", "END"):
            for request in requests:
                if operation == "END":
                    self._begun.discard(request.id)
                    self._begun_twice.pop(request.id, None)
                elif request.id in self._begun:
                    self._begun_twice[request.id] = set()
                else:
                    self._begun.add(request.id)
            self.answer(requests, [wire.SUCCESS] * len(requests))
            return None
        if operation == "CP" and self._begun_twice:
            requests = self._without_repeated(requests)
            if not requests:
                return None

        def settled(index: int, outcome: DriverError | None) -> None:
            request = requests[index]
            payload = wire.SUCCESS
            if outcome is not None:
                # gwd logs no text of a failed copy.
                log.error("%s: %s", _name(request), outcome)
                payload = wire.failure(str(outcome))
                self._forget(request)
            self.answer([request], [payload])

        if operation == "CP":
            copies: Batch[Copy, None] = Batch(
                [Copy(r[4], r[5], r[3].upper() == "X", r.id) for r in requests], settled
            )
            return settle(copies, self._transfer.copy(copies))
        urls: Batch[str, None] = Batch([request[4] for request in requests], settled)
        return settle(urls, self._operations[operation](urls))

    def fallback(self, operation: str, request: Request, error: Exception) -> bytes:
        """FAILURE, but never for END."""
        log.error("%s: %s", _name(request), error)
        if operation == "END":
            return wire.SUCCESS
        self._forget(request)
        return super().fallback(operation, request, error)

    def _without_repeated(self, copies: list[Request]) -> list[Request]:
        """Drop the copies that their phase has already."""
        new = []
        for request in copies:
            phase = self._begun_twice.get(request.id)
            copy = _fields(request)
            if phase is None or copy not in phase:
                new.append(request)
                if phase is not None:
                    phase.add(copy)
            else:
                log.info("%s: gwd has ordered it before", _name(request))
                self.drop([request])
        return new

    def _forget(self, request: Request) -> None:
        """What failed may come again."""
        if request.id in self._begun_twice:
            self._begun_twice[request.id].discard(_fields(request))


def _fields(request: Request) -> tuple[str, ...]:
    return tuple(request[index] for index in range(2, 6))


def _name(request: Request) -> str:
    fields = (field for field in _fields(request) if field != "-")
    return " ".join([request.operation, request.id, *fields])
