"""Jobs at a gatekeeper: what was heard of each, and where its job manager is."""

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Final

from gridmad.errors import DriverError, TransientError
from gridmad.execution.gram_answers import address_of, path_of
from gridmad.execution.model import PENDING, JobState
from gridmad.execution.resource import JobId

PLACES: Final = 8
"""Requests under way at once."""
CANCELLERS: Final = 32
"""Cancellations under way at once; job managers take seconds for one, most of them asleep."""
RESTART_PAUSE: Final = 60.0
"""Seconds before one asks again for a job manager that runs and does not answer."""


class Gatekeeper:
    """What is under way at an endpoint, and where its job managers are."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places = asyncio.Semaphore(PLACES)
        self.cancellers = asyncio.Semaphore(CANCELLERS)
        self.restarting = asyncio.Lock()
        self._moved: dict[str, str] = {}
        self._in_vain: dict[str, float] = {}

    def check(self, contact: str) -> None:
        """Raises TransientError where a job manager is there, and does not answer."""
        address = address_of(contact)
        if time.monotonic() < self._in_vain.get(address, -math.inf) + RESTART_PAUSE:
            raise TransientError(f"the job manager at {address} does not answer")

    def moved(self, before: str, after: str) -> None:
        """The job manager that these contacts have in common has another address now."""
        old, new = address_of(before), address_of(after)
        self._moved.pop(new, None)  # it is there, whoever left it before
        if old != new:
            self._moved[old] = new

    def restarted(self, before: str, after: str) -> None:
        """A job manager was to be started again; one that runs is where it was."""
        if address_of(before) == address_of(after):
            self._in_vain[address_of(after)] = time.monotonic()
        self.moved(before, after)

    def where(self, contact: str) -> str:
        """The contact of a job whose manager may have moved."""
        while (address := address_of(contact)) in self._moved:
            contact = f"https://{self._moved[address]}{path_of(contact)}"
        return contact


@dataclass(slots=True, eq=False)
class Known:
    """A job, and what was heard of it."""

    gatekeeper: Gatekeeper
    job: JobId
    url: str
    """Where it is now."""
    state: JobState = PENDING
    heard: float = -math.inf
    """By time.monotonic()."""
    tells: bool = False
    """Its changes are told to this process."""
    credential: int = 0
    """The number of the proxy that it has; 0 for one of an earlier driver."""
    is_cancelled: bool = False
    asking: asyncio.Task[None] | None = None
    ending: asyncio.Task[DriverError | None] | None = None
    ended: asyncio.Event | None = None
    """Set at its end, where somebody waits for that."""
