"""Ending jobs of this machine: TERM, a time of grace, KILL until nothing is left."""

import logging
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gridmad.execution.processes import (
    ProcessIdentity,
    ProcessStatus,
    command_line,
    members,
    send,
)

log = logging.getLogger(__name__)

SHEPHERD_TIME: Final = 5.0
"""Seconds after the first KILL when a shepherd that did not end by itself is killed too."""
GIVE_UP: Final = 30.0
"""Seconds after the first KILL when a job counts as ended though processes are left: they
hang in the kernel, and gwd should not wait for them."""


@dataclass(slots=True, eq=False)
class Ending:
    """A job that is being ended: its shepherd, and when the grace is over."""

    shepherd: ProcessIdentity
    mark: str
    """`NAME=value`, which the environment of all its processes has."""
    kill_at: float
    """By time.monotonic()."""
    told: set[tuple[int, int]] = field(default_factory=set)
    """Process id and start time of those that got TERM."""
    is_given_up: bool = False
    """Processes are left that do not die, perhaps the shepherd too."""


def sweep(endings: Sequence[Ending]) -> list[bool]:
    """Signal what is left of some jobs, once.  Blocks; call it until all are True.

    True says that nothing of a job is left, its shepherd included, or that what is left
    does not die.
    """
    now = time.monotonic()
    found = members(
        {ending.shepherd.pid for ending in endings},
        {os.fsencode(ending.mark): ending.shepherd.pid for ending in endings},
    )
    return [_sweep_one(ending, found[ending.shepherd.pid], now) for ending in endings]


def _sweep_one(ending: Ending, processes: list[ProcessStatus], now: float) -> bool:
    leader = next((one for one in processes if one.pid == ending.shepherd.pid), None)
    if leader is not None and leader.start_time != ending.shepherd.start_time:
        # The id, and with it the session, is a stranger's by now: only the marked are ours.
        processes = [one for one in processes if one.session != leader.pid]
        leader = None
    others = [one for one in processes if one is not leader]
    if now < ending.kill_at:
        _ask(ending, others, leader)
        return not processes
    for process in others:
        send(process, signal.SIGKILL)
    if leader is not None:
        if now >= ending.kill_at + SHEPHERD_TIME:
            send(leader, signal.SIGKILL)
        else:
            send(leader, signal.SIGCONT)
    if processes and now >= ending.kill_at + GIVE_UP:
        if not ending.is_given_up:
            log.error("processes do not die: %s", ", ".join(str(one.pid) for one in processes))
        ending.is_given_up = True
        return True
    return not processes


def _ask(ending: Ending, processes: list[ProcessStatus], leader: ProcessStatus | None) -> None:
    """Send TERM to those that did not get it yet."""
    shepherd = command_line(leader.pid) if leader is not None else []
    for process in processes:
        key = (process.pid, process.start_time)
        if key not in ending.told:
            # The shepherd's child still has its traps before it becomes the command: a
            # TERM just then is lost, and has to come again.
            if command_line(process.pid) != shepherd:
                ending.told.add(key)
            # A stopped process takes TERM only when it goes on.
            send(process, signal.SIGTERM, signal.SIGCONT)
