"""The contacts of jobs on a resource: enough by themselves to find a job again.

    scheme://ENDPOINT/JOB/TAG        slurm://cluster/1234_7/5f0c3a91d2e80007

ENDPOINT names where the resource is reached, JOB is the resource's own id of the job, TAG is
ours.  What is not a letter, a digit or one of `-._~:@,+` in the first two is written as %XX.
"""

import os
import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from gridmad.errors import UnknownJobError
from gridmad.execution.driver import Contact

TAG: Final = re.compile(r"[0-9a-f]{16}")
GROUP_LENGTH: Final = 12
"""Characters that the tags of jobs which were submitted together share."""
MAX_GROUP: Final = 1 << 16

_SAFE: Final = ":@,+"
_CONTACT: Final = re.compile(r"([a-z0-9]+)://([^/\s]*)/([^/\s]+)/([0-9a-f]{16})")


class JobName(NamedTuple):
    """What a contact says."""

    scheme: str
    endpoint: str
    job: str
    """The resource's own id of the job."""
    tag: str

    def __str__(self) -> Contact:
        endpoint, job = quote(self.endpoint, _SAFE), quote(self.job, _SAFE)
        return f"{self.scheme}://{endpoint}/{job}/{self.tag}"

    @classmethod
    def parse(cls, contact: Contact, scheme: str) -> "JobName":
        """Read a contact of a driver with this scheme.  Raises UnknownJobError for others."""
        match = _CONTACT.fullmatch(contact)
        if match is None or match[1] != scheme:
            raise UnknownJobError(contact)
        name = cls(scheme, unquote(match[2]), unquote(match[3]), match[4])
        if str(name) != contact:
            raise UnknownJobError(contact)
        return name


def group_name(tag: str) -> str:
    """The name under which resources know the jobs of a tag's group."""
    return f"gridmad-{tag[:GROUP_LENGTH]}"


def number_in_group(tag: str) -> int:
    """Which of its group a tag's job is; from 0."""
    return int(tag[GROUP_LENGTH:], 16)


def new_tags(count: int) -> Sequence[str]:
    """Tags for jobs that are submitted together: a random group, then the job's number."""
    if count > MAX_GROUP:
        raise ValueError(f"a group has at most {MAX_GROUP} jobs, not {count}")
    group = os.urandom(GROUP_LENGTH // 2).hex()
    return [f"{group}{number:04x}" for number in range(count)]
