"""Queues keep their numbers: gwd knows a queue of a host by its index and never forgets one.

So a queue that went leaves `QUEUE_NAME[i]=""` behind, which takes no jobs, and its index goes
to no other queue while there are unused ones.
"""

import logging
from dataclasses import replace

from gridmad import wire
from gridmad.information.model import Attribute, HostAttributes

log = logging.getLogger(__name__)


class QueueIndexes:
    """The indexes of all queues of all hosts that were seen so far."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._reported: set[str] = set()

    def arrange(self, host: str, attributes: HostAttributes) -> HostAttributes:
        """The same attributes with each queue at its index.

        New queues follow in the order they have in `attributes`.  gwd takes 67 queues: the
        indexes of vanished ones are given away when these are used up, and what is left over
        then is left out and logged once.
        """
        queues = {str(queue["QUEUE_NAME"]): queue for queue in attributes.queues}
        names = self._names.setdefault(host, [])
        vanished = [index for index, name in enumerate(names) if name not in queues]
        left_out = []
        known = set(names)
        for name in [name for name in queues if name not in known]:
            if len(names) < wire.MAX_QUEUES:
                names.append(name)
            elif vanished:
                names[vanished.pop(0)] = name
            else:
                left_out.append(name)
        if left_out and host not in self._reported:
            self._reported.add(host)
            log.warning(
                "host %s: gwd takes %d queues, left out are %s",
                host,
                wire.MAX_QUEUES,
                " ".join(left_out),
            )
        if names == list(queues):
            return attributes
        gone: dict[str, Attribute] = {"QUEUE_NAME": ""}
        return replace(attributes, queues=[queues.get(name, gone) for name in names])
