"""The transfer family: what a driver of it implements."""

from collections.abc import Sequence
from typing import ClassVar

from gridmad.driver import Batch, Driver, MaybeAwaitable
from gridmad.errors import DriverError
from gridmad.transfer.model import Copy

COPY_DEADLINE = 7200.0
"""Seconds after which the daemon answers a copy in any case, where --deadline says nothing.
What is put in place later may replace the file of gwd's next attempt."""

Outcomes = MaybeAwaitable[Sequence[DriverError | None] | None]


class TransferDriver(Driver):
    """Moves files.  None is success; every DriverError's text says what, where and why.

    START and END are the daemon's business: requests of one job are served in their order,
    the copies of one phase together.
    """

    init_waits_for_start: ClassVar[bool] = False
    """INIT is answered after `start`, for only that makes `staging_url` known.

    gwd waits five seconds for INIT's answer: such a start has to be quick, or to fail.
    """
    staging_url: str = ""
    """What INIT answers for gwd to build file URLs with; "" for none."""

    def mkdir(self, urls: Batch[str, None]) -> Outcomes:
        """Make the directories and their parents; one that exists is fine."""
        raise NotImplementedError

    def rmdir(self, urls: Batch[str, None]) -> Outcomes:
        """Remove the directories with all they hold; a missing one is fine."""
        raise NotImplementedError

    def exists(self, urls: Batch[str, None]) -> Outcomes:
        """Success where there is a file or directory."""
        raise NotImplementedError

    def copy(self, copies: Batch[Copy, None]) -> Outcomes:
        """Copy files; success means that the whole file is there under its final name."""
        raise NotImplementedError
