"""Runs transfers as the schedule lets them begin, and those again that failed for now."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from gridmad.driver import describe
from gridmad.errors import CredentialError, DriverError, TransientError
from gridmad.transfer.failure import TransientToldError
from gridmad.transfer.schedule import Endpoints, Schedule
from gridmad.transfer.sessions import StaleSessionError

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.5
"""Seconds before what failed for now is tried again; ..."""
GROWTH: Final = 3.0
"""... each pause is that many times as long as the one before."""


@dataclass(slots=True, eq=False)
class Work:
    """One item of a batch."""

    endpoints: Endpoints
    job: str
    run: Callable[[], Awaitable[None]]
    settle: Callable[[DriverError | None], None]
    attempts: int = 0
    is_over: bool = False

    def end(self, error: DriverError | None) -> None:
        """Settle it, once."""
        if not self.is_over:
            self.is_over = True
            self.settle(error)


class Dispatcher:
    """At most `streams` transfers run at a time, and `per_endpoint` at each endpoint.

    What raises TransientError is tried again, `retries` times at most, and gives its places
    away meanwhile.
    """

    def __init__(self, streams: int, per_endpoint: int, retries: int) -> None:
        self._schedule: Schedule[Work] = Schedule(streams, per_endpoint)
        self._retries = retries
        self._running: dict[Work, asyncio.Task[None]] = {}
        self._pausing: dict[Work, asyncio.TimerHandle] = {}

    async def perform(self, works: list[Work]) -> None:
        """Wait until all have been settled; those that have not are given up on cancellation."""
        done = asyncio.get_running_loop().create_future()
        left = len(works)

        def count(settle: Callable[[DriverError | None], None]) -> Callable[..., None]:
            def settle_and_count(error: DriverError | None) -> None:
                nonlocal left
                settle(error)
                left -= 1
                if left == 0 and not done.done():
                    done.set_result(None)

            return settle_and_count

        if not works:
            return
        for work in works:
            work.settle = count(work.settle)
            self._schedule.add(work, work.job, work.endpoints)
        self._begin()
        try:
            await done
        finally:
            for work in works:
                self._give_up(work)

    async def stop(self) -> None:
        """Give up all that waits or runs."""
        self._schedule.clear()
        for timer in self._pausing.values():
            timer.cancel()
        self._pausing.clear()
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _give_up(self, work: Work) -> None:
        """Stop it where it runs or pauses, and see to it that it does not begin."""
        work.is_over = True
        if work in self._running:
            self._running[work].cancel()
        elif work in self._pausing:
            self._pausing.pop(work).cancel()

    def _begin(self) -> None:
        while (work := self._schedule.take()) is not None:
            if work.is_over:
                self._schedule.release(work.endpoints)
            else:
                self._running[work] = asyncio.create_task(self._run(work))

    async def _run(self, work: Work) -> None:
        again: float | None = None
        try:
            await work.run()
        except StaleSessionError:
            again = 0.0
        except CredentialError as error:
            work.end(error)
        except TransientError as error:
            again = self._pause(work, error)
        except DriverError as error:
            work.end(error)
        except asyncio.CancelledError:
            work.end(TransientError("the driver gave it up"))
        except OSError as error:
            work.end(DriverError(describe(error)))
        except Exception as error:  # noqa: BLE001 - whatever a library raises
            work.end(DriverError(f"{type(error).__name__}: {error}"))
        else:
            work.end(None)
        finally:
            del self._running[work]
            self._schedule.release(work.endpoints)
        if again is not None and not work.is_over:
            loop = asyncio.get_running_loop()
            self._pausing[work] = loop.call_later(again, self._try_again, work)
        self._begin()

    def _pause(self, work: Work, error: TransientError) -> float | None:
        """Seconds to wait before another attempt; None where it was the last."""
        work.attempts += 1
        if work.attempts > self._retries:
            again = f" (attempt {work.attempts})" if self._retries else ""
            work.end(TransientToldError(f"{error}{again}"))
            return None
        longest = FIRST_PAUSE * GROWTH ** (work.attempts - 1)
        pause = random.uniform(longest / 2, longest)  # noqa: S311 - not for secrets
        log.info("%s; once more in %.1f s", error, pause)
        return pause

    def _try_again(self, work: Work) -> None:
        self._pausing.pop(work, None)
        self._schedule.add(work, work.job, work.endpoints)
        self._begin()
