"""What a driver that died left on this machine, and what gwd says of it.

gwd orders a job again whose SUBMIT was not answered, and recovers the others.  So a job that is
ordered again and is the same is taken over; of one that gwd speaks of by its contact it knows.
"""

import logging
from typing import NamedTuple

from gridmad.driver import describe
from gridmad.errors import DriverError
from gridmad.execution.driver import Contact
from gridmad.execution.fork_job import Name, final_state, may_have_left
from gridmad.execution.journal import Journal, Started, Unended
from gridmad.execution.model import JobState, Phase
from gridmad.execution.processes import ProcessIdentity
from gridmad.execution.shepherd import Shepherds

log = logging.getLogger(__name__)


class Begun(NamedTuple):
    """A job that was begun."""

    contact: Contact
    job_id: str
    """gwd's."""
    digest: str
    """Of what was ordered."""
    is_unknown: bool
    """Its contact was never told."""


class Left(NamedTuple):
    """What was left."""

    contacts: dict[str, Contact]
    """Of all jobs, by gwd's ids."""
    begun: list[Begun]
    """Those that gwd may order again."""
    ends: list[tuple[Name, JobState | None]]
    """What is to be ended, with their states if their shepherds are gone."""


def take_over(journal: Journal, shepherds: Shepherds) -> Left:
    """Claim the jobs of drivers that died.  Blocks.  Raises DriverError."""
    left = Left({}, [], [])
    ended: list[tuple[str, JobState]] = []
    for row in journal.claim():
        try:
            contact = row.contact or _find(journal, shepherds, row)
            if contact is None:
                continue
            left.contacts[row.job_id] = contact
            name, state = Name.parse(contact), None
            if not name.shepherd.is_alive:
                state = final_state(shepherds, name, None, row.is_cancelled)
        except (OSError, DriverError) as error:
            text = describe(error) if isinstance(error, OSError) else error
            log.error("job %s of an earlier driver: %s", row.job_id, text)
            continue
        if state is not None:
            ended.append((row.tag, state))
        if may_have_left(state) if state is not None else row.is_cancelled:
            log.info("job %s was being ended or killed, and still is ended", contact)
            left.ends.append((name, state))
        elif state is None or state.phase is Phase.DONE:
            left.begun.append(Begun(contact, row.job_id, row.digest, row.contact is None))
    journal.end(ended)
    return left


def _find(journal: Journal, shepherds: Shepherds, row: Unended) -> Contact | None:
    """The contact of a job that may have been begun; None where it never ran and never will."""
    found = shepherds.decide(row.tag)
    if found is None:
        journal.record((), [row.tag])
        return None
    # Nobody knows any more who led one that has ended: the driver stands for that.
    shepherd = ProcessIdentity.parse(row.owner) if isinstance(found, int) else found
    contact = str(Name(shepherd, row.tag))
    journal.record([Started(row.tag, contact)])
    return contact


class BegunJobs:
    """Those of which gwd has said nothing yet: few, and soon none."""

    def __init__(self) -> None:
        self._jobs: dict[Contact, Begun] = {}

    def add(self, jobs: list[Begun]) -> None:
        """Jobs that an earlier driver left."""
        self._jobs.update((job.contact, job) for job in jobs)

    def heard(self, contact: Contact) -> None:
        """Note that gwd knows this one."""
        self._jobs.pop(contact, None)

    def ordered(self, job_id: str, digest: str) -> tuple[Contact | None, list[Contact]]:
        """Of those with gwd's id the one that is ordered again, and those that nobody wants."""
        if not self._jobs:
            return None, []
        found = [job for job in self._jobs.values() if job.job_id == job_id]
        for job in found:
            del self._jobs[job.contact]
        same = [job.contact for job in found if job.digest == digest][:1]
        return (same[0] if same else None), [
            job.contact for job in found if job.contact not in same
        ]

    def unwanted(self) -> list[Contact]:
        """Those that gwd cannot know and did not order again; from here on there are none."""
        left, self._jobs = self._jobs, {}
        return [job.contact for job in left.values() if job.is_unknown]
