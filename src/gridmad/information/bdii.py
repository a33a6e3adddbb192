"""gw_im_mad_bdii: the hosts that a BDII publishes in GLUE 1.3."""

import argparse
import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from gridmad.errors import DriverError, MissingDependencyError, TransientError, UsageError
from gridmad.information import glue1, ldap_server
from gridmad.information.driver import InformationDriver
from gridmad.information.glue1_filter import HostFilter, QueueFilter
from gridmad.information.hostlist import HostList
from gridmad.information.ldap import Entry, Search
from gridmad.information.model import Attribute, HostAttributes
from gridmad.information.queues import QueueIndexes
from gridmad.information.snapshot import Snapshots
from gridmad.options import seconds

if TYPE_CHECKING:
    from gridmad.information.directory import Directory

log = logging.getLogger(__name__)

BDII_PORT = 2170
MAX_REPORTED = 100_000
"""Problems that are remembered, to be logged only once."""
BASE = "mds-vo-name=local,o=grid"

Hosts = Mapping[str, HostAttributes]
Answer = TypeVar("Answer")


class BdiiInformation(InformationDriver):
    """Answers from a snapshot of the whole directory, joined in memory.

    One paged search per class of entries and refresh serves every DISCOVER and MONITOR.
    """

    summary = "Hosts and queues that a BDII (LDAP) publishes in GLUE 1.3."

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._servers = ldap_server.servers_of(options, BDII_PORT)
        self._access = ldap_server.access_of(options, self._servers)
        _check_base(options.base)
        self._queue_filter = QueueFilter(options.queue_filter)
        self._host_filter = HostFilter(options.host_filter)
        self._list = HostList(options.host_list) if options.host_list else None
        self._snapshots: Snapshots[Hosts] | None = None
        self._directory: Directory | None = None
        self._indexes = QueueIndexes()
        self._hosts: Hosts = {}
        self._reported: set[str] = set()

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the servers, the filters and how often to ask."""
        ldap_server.add_options(parser, BDII_PORT)
        parser.add_argument(
            "-b",
            "--base",
            metavar="BASE",
            default=BASE,
            help="base of the tree (default: %(default)s)",
        )
        parser.add_argument(
            "-q",
            "--queue-filter",
            metavar="QUEUEFILTER",
            default="",
            help="LDAP filter of GlueCE entries, the queues to show, for instance "
            "(GlueCEStateStatus=Production)(GlueCEAccessControlBaseRule=VO:biomed)",
        )
        parser.add_argument(
            "-f",
            "--host-filter",
            metavar="HOSTFILTER",
            default="",
            help="LDAP filter of hosts by their GlueCE, GlueCluster and GlueSubCluster entries, "
            "for instance (GlueHostArchitecturePlatformType=x86_64)",
        )
        parser.add_argument(
            "-l",
            "--host-list",
            metavar="HOSTLIST",
            help="file with lines HOST [ATTRIBUTE_FILE]: hosts to show beside those of the BDII; "
            "what an attribute file says wins",
        )
        parser.add_argument(
            "--refresh",
            metavar="SECONDS",
            type=partial(seconds, shortest=1.0),
            default=120.0,
            help="how often the BDII is read while somebody asks (default: %(default)g)",
        )
        parser.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=seconds,
            default=30.0,
            help="time that the BDII has for one LDAP operation (default: %(default)g)",
        )

    async def start(self) -> None:
        """Import the LDAP library; nothing is asked of the BDII before somebody asks here."""
        self._directory = await asyncio.to_thread(self._open)
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
    ) -> (
        Mapping[str, HostAttributes | DriverError]
        | Awaitable[Mapping[str, HostAttributes | DriverError]]
    ):
        """What the snapshot holds of `hosts`."""

        def choose(known: Hosts) -> Mapping[str, HostAttributes | DriverError]:
            return {
                host: attributes
                for host in hosts
                if (attributes := known.get(host) or known.get(host.lower())) is not None
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

    def _open(self) -> "Directory":
        try:
            from gridmad.information.directory import Directory
        except ImportError:
            raise MissingDependencyError("ldap3", "bdii") from None
        return Directory(self._servers, self._access, self.options.base, self.options.timeout)

    # ------------------------------------------------------------ in the fetching thread

    def _fetch(self) -> Hosts:
        """All hosts, as they are now."""
        assert self._directory is not None
        searches = self._queue_filter.apply(glue1.SEARCHES.values())
        choices = self._host_filter.searches
        found = self._directory.fetch([*searches, *choices])
        entries = _by_class(searches, found[: len(searches)])
        chosen = _by_class(choices, found[len(searches) :])
        entries["GlueCE"] = self._host_filter.choose(entries["GlueCE"], chosen)
        hosts, problems = glue1.decode(entries, self._queue_filter.vos)
        for problem in problems:
            self._report(problem)
        if not hosts:
            # A BDII that has just started is empty: that is no news of the hosts.
            if self._hosts:
                raise TransientError(f"{self._directory.url}: no hosts there now")
            log.warning("%s: no hosts there: look at the base and the filters", self._directory.url)
        self._hosts = self._settle(self._with_list(hosts))
        log.info("%s: %d hosts, %d queues", self._directory.url, len(hosts), len(entries["GlueCE"]))
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
                self._report(
                    f"{self._list.path}: host {name} is not in the BDII and has no attributes"
                )
            else:
                listed[host] = overlay(known or HostAttributes({"HOSTNAME": host}), wanted)
        return listed | {host: hosts[host] for host in hosts if host not in listed}

    def _settle(self, hosts: dict[str, HostAttributes]) -> Hosts:
        """Queues at their indexes; what did not change is the object that it was."""
        settled = {}
        for host, attributes in hosts.items():
            arranged = self._indexes.arrange(host, attributes)
            before = self._hosts.get(host)
            settled[host] = before if before is not None and before == arranged else arranged
        return settled

    def _report(self, problem: str) -> None:
        if problem not in self._reported:
            if len(self._reported) >= MAX_REPORTED:
                self._reported.clear()
            self._reported.add(problem)
            log.warning("%s", problem)


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


def _by_class(
    searches: Iterable[Search], found: Iterable[list[Entry]]
) -> dict[str, Sequence[Entry]]:
    return {search.object_class: f for search, f in zip(searches, found, strict=True)}


def _check_base(base: str) -> None:
    for part in base.split(","):
        name, equals, value = part.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise UsageError(f"-b {base!r}: write a row of NAME=VALUE, such as {BASE}")


DRIVER = BdiiInformation
