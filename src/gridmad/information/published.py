"""What drivers share that serve all hosts of a source from a snapshot, with a host list over it.

source --read, in a thread--> attributes --host list--> attributes --queues at their indexes-->
attributes --formatted--> snapshot
"""

import argparse
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from gridmad.errors import DriverError, TransientError
from gridmad.information.driver import InformationDriver
from gridmad.information.hostlist import HostList
from gridmad.information.model import Attribute, FormattedHost, Host, HostAttributes
from gridmad.information.queues import QueueIndexes
from gridmad.information.snapshot import Snapshots
from gridmad.options import seconds

log = logging.getLogger(__name__)

MAX_REPORTED = 100_000
"""Problems that are remembered, to be logged only once."""

Hosts = Mapping[str, FormattedHost]
Answer = TypeVar("Answer")


class PublishedInformation(InformationDriver):
    """Answers from a snapshot of all that a source publishes.

    One reading for each refresh serves every DISCOVER and MONITOR.
    """

    source = "the source"
    """What is read, for people."""
    refresh = 120.0

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._list = HostList(options.host_list) if options.host_list else None
        self._snapshots: Snapshots[Hosts] | None = None
        self._indexes = QueueIndexes()
        self._hosts: Hosts = {}
        self._reported: set[str] = set()

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the host list and how often to read the source."""
        parser.add_argument(
            "-l",
            "--host-list",
            metavar="HOSTLIST",
            help="file with lines HOST [ATTRIBUTE_FILE]: hosts to show beside those of "
            f"{cls.source}; what an attribute file says wins",
        )
        parser.add_argument(
            "--refresh",
            metavar="SECONDS",
            type=partial(seconds, shortest=1.0),
            default=cls.refresh,
            help=f"how often {cls.source} is read while somebody asks (default: %(default)g)",
        )

    async def start(self) -> None:
        """Get ready to read; nothing is read before somebody asks here."""
        self._snapshots = Snapshots(self._fetch, self.options.refresh, self.options.staleness)

    async def stop(self) -> None:
        """Stop refreshing."""
        if self._snapshots is not None:
            await self._snapshots.stop()

    def discover(self) -> Sequence[str] | Awaitable[Sequence[str]]:
        """Every host that has a queue, sorted, after those of the host list."""
        return self._answer(list)

    def monitor(
        self, hosts: Sequence[str]
    ) -> Mapping[str, Host | DriverError] | Awaitable[Mapping[str, Host | DriverError]]:
        """What the snapshot holds of `hosts`."""

        def choose(known: Hosts) -> Mapping[str, Host | DriverError]:
            return {
                host: told
                for host in hosts
                if (told := known.get(host) or known.get(host.lower())) is not None
            }

        return self._answer(choose)

    def age(self) -> float:
        """The age of the snapshot."""
        return 0.0 if self._snapshots is None else self._snapshots.age()

    def _answer(self, choose: Callable[[Hosts], Answer]) -> Answer | Awaitable[Answer]:
        assert self._snapshots is not None, "not started"
        snapshot = self._snapshots.get()
        if isinstance(snapshot, Mapping):
            return choose(snapshot)

        async def later() -> Answer:
            return choose(await snapshot)

        return later()

    # ------------------------------------------------------------ in the fetching thread

    @abstractmethod
    def read(self) -> dict[str, HostAttributes]:
        """All hosts as they are now, by their names in lower case.  Raises TransientError where
        the source does not tell them all.
        """

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the source is, for logs."""

    def give_way(self) -> None:
        """Between the steps of a reading, each at most a millisecond: let others work."""
        assert self._snapshots is not None, "not started"
        self._snapshots.give_way()

    def report(self, problem: str) -> None:
        """Log what could not be used, once."""
        if problem not in self._reported:
            if len(self._reported) >= MAX_REPORTED:
                self._reported.clear()
            self._reported.add(problem)
            log.warning("%s", problem)

    def _fetch(self) -> Hosts:
        hosts = self.read()
        if not hosts:
            # A source that has just started is empty: that is no news of the hosts.
            if self._hosts:
                raise TransientError(f"{self.place}: no hosts there now")
            log.warning("%s: no hosts there: look at what the options choose", self.place)
        queues = sum(len(attributes.queues) for attributes in hosts.values())
        log.info("%s: %d hosts, %d queues", self.place, len(hosts), queues)
        hosts = self._with_list(hosts)
        self._hosts = self._settle(hosts)
        return self._hosts

    def _with_list(self, hosts: dict[str, HostAttributes]) -> dict[str, HostAttributes]:
        """`hosts` after those of the host list, changed to what its files say."""
        if self._list is None:
            return hosts
        self._list.refresh()
        listed: dict[str, HostAttributes] = {}
        for name in self._list.hosts:
            host = name.lower()
            known, wanted = hosts.get(host), self._list.attributes.get(name)
            if known is None and wanted is None:
                self.report(
                    f"{self._list.path}: {self.source} has no host {name}, and its line no file"
                )
            else:
                listed[host] = overlay(known or HostAttributes({"HOSTNAME": host}), wanted)
        return listed | {host: hosts[host] for host in hosts if host not in listed}

    def _settle(self, hosts: dict[str, HostAttributes]) -> Hosts:
        """What gwd gets, with queues at their indexes.  `hosts` is used up: a large grid is not
        held twice, and what did not change is the object that it was.
        """
        settled = {}
        for host in list(hosts):
            self.give_way()
            told = self._indexes.arrange(host, hosts.pop(host)).formatted
            before = self._hosts.get(host)
            settled[host] = before if before is not None and before == told else told
        return settled


def overlay(published: HostAttributes, wanted: HostAttributes | None) -> HostAttributes:
    """`published`, changed to what `wanted` says.

    Queues are told by their names; one that is not published is added, and one without a
    name cannot be told and is passed over.
    """
    if wanted is None:
        return published
    more = {name: value for name, value in published.more.items() if name not in wanted.host}
    queues: dict[Attribute, Mapping[str, Attribute]] = {
        queue["QUEUE_NAME"]: queue for queue in published.queues
    }
    for queue in wanted.queues:
        if name := queue.get("QUEUE_NAME"):
            queues[name] = {**queues.get(name, {}), **queue}
    return replace(
        published, host={**published.host, **wanted.host}, queues=list(queues.values()), more=more
    )
