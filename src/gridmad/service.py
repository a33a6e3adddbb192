"""Between the daemon and a driver: what a family's requests mean.

A service turns requests into items for its driver and outcomes into payloads.  It does no
I/O of its own; the daemon gives it requests and takes its answers.
"""

import argparse
import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar, TypeAlias, TypeVar

from gridmad import wire
from gridmad.driver import Batch, Driver, MaybeAwaitable
from gridmad.errors import DriverError
from gridmad.options import seconds
from gridmad.wire import Grammar, Request

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Item = TypeVar("Item")
Value = TypeVar("Value")
Answer: TypeAlias = Callable[[list[Request], list[bytes]], None]
"""Answers requests, each with its payload; one that was answered before is left out."""


class Service(ABC):
    """One family's side of the protocol over one driver."""

    grammar: ClassVar[Grammar]
    is_sequenced: ClassVar[bool] = False
    """Requests of one id are served in their order, one at a time ..."""
    parallel: ClassVar[frozenset[str]] = frozenset()
    """... but for those of these operations, which run together."""
    gathered: frozenset[str] = frozenset()
    """Operations of which one batch is under way at a time while the next one gathers."""
    deadlines: ClassVar[Mapping[str, float]]
    """Seconds after which a batch's unanswered requests get their fallback."""

    tell: Callable[[bytes], None]
    """Writes a line that nobody asked for; set by the daemon."""
    answer: Answer
    """Set by the daemon."""
    drop: Callable[[list[Request]], None]
    """Lets requests go without an answer, as if they had never come; set by the daemon."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._deadline: float | None = driver.options.deadline

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the options that all drivers of this family have."""
        parser.add_argument(
            "--deadline",
            metavar="SECONDS",
            type=seconds,
            help="answer a request in any case after this time (default: from "
            f"{min(cls.deadlines.values()):g} to {max(cls.deadlines.values()):g}, by operation)",
        )

    def deadline(self, operation: str) -> float:
        """Seconds that a batch of `operation` may take."""
        return self.deadlines[operation] if self._deadline is None else self._deadline

    async def start(self) -> None:
        """Start the driver; raises what it raises."""
        await self.driver.start()

    async def stop(self) -> None:
        """Stop the driver."""
        await self.driver.stop()

    @property
    def init_waits_for_start(self) -> bool:
        """INIT's answer needs something that only a started driver knows."""
        return False

    def greeting(self) -> bytes:
        """The info of INIT's answer."""
        return b"-"

    @abstractmethod
    def serve(self, operation: str, requests: list[Request]) -> Awaitable[None] | None:
        """Serve the requests of one batch, answering each through `answer`.

        Returns None where all is done, else what is to be awaited.  What is unanswered
        after that, or when it raises or passes its deadline, gets its `fallback`.
        """

    def fallback(self, operation: str, request: Request, error: Exception) -> bytes:
        """The payload for a request that the driver did not answer."""
        return wire.failure(message(error))


def message(error: Exception) -> str:
    """An exception as one line for the request's sender."""
    if isinstance(error, DriverError):
        return str(error)
    return f"internal error: {type(error).__name__}: {error}"


def then(
    result: MaybeAwaitable[Result], finish: Callable[[Result], None]
) -> Awaitable[None] | None:
    """Finish now where the result is there, else an awaitable that finishes later."""
    if inspect.isawaitable(result):
        return _finish_later(result, finish)
    finish(result)
    return None


def settle(
    batch: Batch[Item, Value], outcomes: MaybeAwaitable[Sequence[Value | DriverError] | None]
) -> Awaitable[None] | None:
    """Settle a batch with what its operation returned: outcomes, or None where it settled
    each item itself.
    """
    return then(outcomes, lambda known: None if known is None else batch.settle_all(known))


async def _finish_later(awaitable: Awaitable[Result], finish: Callable[[Result], None]) -> None:
    finish(await awaitable)
