"""How things stand with one endpoint of a resource, and the workers that deal with it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from gridmad.errors import DriverError, TransientError
from gridmad.execution.pacing import Breaker

log = logging.getLogger(__name__)

Result = TypeVar("Result")

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 120.0
"""Seconds that an endpoint which fails is left alone, at first and at most."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a site sets."""

    interval: float
    """Seconds between two questions for the states of jobs."""
    max_jobs: int
    """On one endpoint."""
    submit_rate: float
    """Jobs a second."""
    settle_time: float
    """Seconds after which a submission that was broken off has had its effect, if any."""
    call_time: float
    """Seconds that a resource may take for an answer."""


class Link:
    """An endpoint that answers, or fails and is left alone for a while.

    Each operation ("query", "cancel" ...) is left alone by itself: an endpoint that takes no
    jobs may well tell the states of those it has, and its answer to that says nothing of the
    other.
    """

    def __init__(self, endpoint: str, limits: Limits) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self._breakers: dict[str, Breaker] = {}
        self._troubles: dict[str, str] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._wakes: dict[str, asyncio.Event] = {}

    def stop(self) -> None:
        """Break off what is under way."""
        for worker in self._workers.values():
            worker.cancel()

    # ------------------------------------------------------------ calls

    def pause(self, operation: str) -> float:
        """Seconds for which the endpoint is to be left alone."""
        return self._breaker(operation).wait(time.monotonic())

    def trouble(self, operation: str) -> str:
        """Why it fails; "" where it does not."""
        return self._troubles.get(operation, "")

    async def call(
        self,
        operation: str,
        answer: Awaitable[Result],
        *,
        is_refusable: bool = False,
        outcomes: Callable[[Result], Iterable[object]] = lambda _result: (),
    ) -> Result:
        """The resource's answer.

        Raises TransientError where there is none, whatever the reason, and notes that the
        endpoint failed; a plain DriverError only where the call `is_refusable`.  An answer
        of which one of the `outcomes` is a TransientError counts as a failure too.
        """
        try:
            async with asyncio.timeout(self.limits.call_time):
                result = await answer
        except TimeoutError:
            text = f"no answer within {self.limits.call_time:g} seconds"
            raise self._failed(operation, TransientError(text)) from None
        except TransientError as error:
            raise self._failed(operation, error) from None
        except DriverError as error:
            if is_refusable:
                raise
            raise self._failed(operation, TransientError(str(error))) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not this worker was cancelled, but something that the resource waited for.
            text = "internal error: what the resource waited for was cancelled"
            raise self._failed(operation, TransientError(text)) from None
        except Exception as error:
            log.error("%s: %r", self.endpoint, error, exc_info=error)
            text = f"internal error: {type(error).__name__}: {error}"
            raise self._failed(operation, TransientError(text)) from None
        for outcome in outcomes(result):
            if isinstance(outcome, TransientError):
                self._failed(operation, outcome)
                return result
        if self._breaker(operation).succeeded():
            log.warning("%s: %s works again", self.endpoint or "the resource", operation)
        self._troubles.pop(operation, None)
        return result

    def _failed(self, operation: str, error: TransientError) -> TransientError:
        """Note that the endpoint failed, and say so once."""
        now = time.monotonic()
        breaker = self._breaker(operation)
        breaker.failed(now)
        text = str(error)
        if text != self._troubles.get(operation):
            self._troubles[operation] = text
            log.warning(
                "%s: %s fails, next attempt in %.0f s: %s",
                self.endpoint or "the resource",
                operation,
                breaker.wait(now),
                text,
            )
        return error

    def _breaker(self, operation: str) -> Breaker:
        breaker = self._breakers.get(operation)
        if breaker is None:
            breaker = Breaker(min(FIRST_PAUSE, self.limits.interval), LONGEST_PAUSE)
            self._breakers[operation] = breaker
        return breaker

    # ------------------------------------------------------------ workers

    def work(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Have a worker of this name at work; one that waits is woken."""
        self._wakes.setdefault(name, asyncio.Event()).set()
        if self.is_at_work(name):
            return
        task = asyncio.get_running_loop().create_task(work(), name=f"{self.endpoint} {name}")
        self._workers[name] = task

        def ended(task: asyncio.Task[None]) -> None:
            if self._workers.get(name) is task:
                del self._workers[name]
            if not task.cancelled() and (error := task.exception()) is not None:
                # A fault of ours: what it left must not wait for ever.
                log.critical("%s: %r", task.get_name(), error, exc_info=error)
                asyncio.get_running_loop().call_later(FIRST_PAUSE, self.work, name, work)

        task.add_done_callback(ended)

    def is_at_work(self, name: str) -> bool:
        """There is a worker of this name."""
        # One that has just ended would not see what is new, though its callbacks are to come.
        worker = self._workers.get(name)
        return worker is not None and not worker.done()

    async def wait(self, name: str, seconds: float) -> None:
        """Wait until there is something for the worker of this name, `seconds` at most."""
        wake = self._wakes[name]
        try:
            async with asyncio.timeout(seconds):
                await wake.wait()
        except TimeoutError:
            return
        finally:
            wake.clear()
