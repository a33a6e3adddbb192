"""What information drivers answer, as tests look at it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gridmad.information.attributes import parse_attributes
from gridmad.information.model import Attribute, Host


@dataclass(frozen=True)
class Told:
    """A host as gwd reads it: all of its attributes, and those of each of its queues."""

    payload: bytes
    dropped: Sequence[str]
    host: Mapping[str, Attribute]
    queues: Sequence[Mapping[str, Attribute]]


def read_host(value: object) -> Told:
    """What is in an answer to MONITOR, which must be one."""
    assert isinstance(value, Host)
    attributes, problems = parse_attributes(value.payload.removeprefix(b"SUCCESS ").decode())
    assert problems == []
    return Told(value.payload, value.dropped, attributes.host, attributes.queues)
