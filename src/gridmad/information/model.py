"""Host attributes: the one model that every information driver fills."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from gridmad import wire

Attribute = int | str


class FormattedHost(NamedTuple):
    """A host as gwd reads it: a tenth of the memory that its attributes take."""

    payload: bytes
    """`SUCCESS NAME=value ...`"""
    dropped: Sequence[str] = ()
    """What gwd could not have taken and was left out, each with its reason."""


@dataclass(frozen=True)
class HostAttributes:
    """What one host offers, under GridWay's names, in the order gwd shall read it.

    `host` holds the host's own attributes (`HOSTNAME`, `ARCH`, `CPU_MHZ`, ...), `queues[i]`
    those of queue i under their names without an index (`QUEUE_NAME`, ...).  Units are
    GridWay's: MHz, MB, minutes.  A queue that went away is `{"QUEUE_NAME": ""}`, so that
    those behind it keep their index.  `more` are further attributes of the host that
    come after the queues' and are the first to be left out where a line is full.
    """

    host: Mapping[str, Attribute]
    queues: Sequence[Mapping[str, Attribute]] = field(default=())
    more: Mapping[str, Attribute] = field(default_factory=dict)

    @cached_property
    def formatted(self) -> FormattedHost:
        """What gwd gets, formatted once."""
        info, dropped = wire.format_attributes(
            dict(self.host), [dict(queue) for queue in self.queues], dict(self.more)
        )
        return FormattedHost(b"SUCCESS " + (info or b"-"), tuple(dropped))

    @property
    def payload(self) -> bytes:
        """That of what is formatted."""
        return self.formatted.payload

    @property
    def dropped(self) -> Sequence[str]:
        """That of what is formatted."""
        return self.formatted.dropped


Host = HostAttributes | FormattedHost
"""What a driver tells of a host: its attributes, or these as gwd gets them."""
