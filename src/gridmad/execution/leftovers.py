"""Ends what a driver that died left running of the command-line tools of a resource.

Such a tool could still submit a job after the driver's successor has looked for it.  One that
submits has the name of its group of jobs at the end of one of its words.
"""

import os
import signal
import time
from collections.abc import Collection
from typing import Final

from gridmad.execution.processes import find_by_ending, send

_LEFTOVER_TIME: Final = 5.0


def end_leftovers(names: Collection[str]) -> None:
    """End the tools on this machine that submit groups of these names.  Blocks, for seconds at
    most.
    """
    endings = tuple(os.fsencode(name) for name in names)
    until = time.monotonic() + _LEFTOVER_TIME
    while endings and time.monotonic() < until:
        left = list(find_by_ending(endings))
        if not left:
            return
        for process in left:
            send(process, signal.SIGKILL)
        time.sleep(0.02)
