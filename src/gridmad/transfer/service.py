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
            self.answer(requests, [wire.SUCCESS] * len(requests))
            return None

        def settled(index: int, outcome: DriverError | None) -> None:
            request = requests[index]
            payload = wire.SUCCESS
            if outcome is not None:
                # gwd logs no text of a failed copy.
                log.error("%s: %s", _name(request), outcome)
                payload = wire.failure(str(outcome))
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
        return super().fallback(operation, request, error)


def _name(request: Request) -> str:
    fields = [request[index] for index in range(2, 6)]
    return " ".join([request.operation, request.id, *(field for field in fields if field != "-")])
