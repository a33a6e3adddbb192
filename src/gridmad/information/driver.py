"""The information family: what a driver of it implements."""

from collections.abc import Mapping, Sequence

from gridmad.driver import Driver, MaybeAwaitable
from gridmad.errors import DriverError
from gridmad.information.model import Host


class InformationDriver(Driver):
    """Knows hosts and their attributes.

    Both operations may be plain `def` where the answer is in memory.  Raise TransientError
    (or return it for a host) when the source is out of reach: the daemon then serves the
    last good values within its staleness budget.
    """

    def discover(self) -> MaybeAwaitable[Sequence[str]]:
        """Every host there is, in a stable order."""
        raise NotImplementedError

    def monitor(self, hosts: Sequence[str]) -> MaybeAwaitable[Mapping[str, Host | DriverError]]:
        """The attributes of each of `hosts` (no duplicates); one left out is unknown."""
        raise NotImplementedError

    def age(self) -> float:
        """Seconds since what is answered now was true at its source: counts as stale time."""
        return 0.0
