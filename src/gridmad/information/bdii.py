"""gw_im_mad_bdii: the hosts that a BDII publishes, in GLUE 1.3, in GLUE 2, or in both."""

import argparse
import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Protocol, TypeVar

from gridmad.errors import MissingDependencyError, UsageError
from gridmad.information import ldap_server
from gridmad.information.glue import Decoded
from gridmad.information.glue_trees import BASE_1, BASE_2, choose_trees
from gridmad.information.ldap import Page, Search
from gridmad.information.model import HostAttributes
from gridmad.information.published import PublishedInformation
from gridmad.information.snapshot import in_background
from gridmad.options import seconds

BDII_PORT = 2170

Joined = TypeVar("Joined")

_VO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


class Source(Protocol):
    """What can be searched for entries: a directory, or what gives the same."""

    @property
    def url(self) -> str:
        """Where it is, for logs."""

    def fetch(self, searches: Sequence[Search], join: Callable[[Iterator[Page]], Joined]) -> Joined:
        """What `join` makes of the entries that the searches find, one search after the other.

        Raises TransientError where these are not all.
        """


class BdiiInformation(PublishedInformation):
    """Answers from a snapshot of the whole directory, joined in memory.

    One paged search per class of entries and refresh serves every DISCOVER and MONITOR.
    """

    summary = "Hosts and queues that a BDII (LDAP) publishes in GLUE 1.3 or GLUE 2."
    source = "the BDII"
    port: ClassVar[int] = BDII_PORT
    glue: ClassVar[str] = "auto"
    """The version of GLUE that is read where --glue names none."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.locate()
        for option, base in (("-b", options.base), ("--glue2-base", options.glue2_base)):
            if base is not None:
                _check_base(option, base)
        self._trees = choose_trees(
            options.glue,
            options.base,
            options.glue2_base,
            queue_filter=options.queue_filter,
            host_filter=options.host_filter,
            vos=options.vo,
        )
        self._directory: Source | None = None

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the servers, the trees, the filters and how often to ask."""
        ldap_server.add_options(parser, cls.source, cls.port)
        cls.add_tree_options(parser)
        parser.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=seconds,
            default=30.0,
            help=f"time that {cls.source} has for one LDAP operation (default: %(default)g)",
        )
        super().add_options(parser)

    @classmethod
    def add_tree_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare what is read of it."""
        parser.add_argument(
            "--glue",
            choices=["1", "2", "auto"],
            default=cls.glue,
            help="the version of GLUE to read; auto is both, or the one whose base is named or "
            "that the filters are for, and merges them (default: %(default)s)",
        )
        parser.add_argument(
            "-b", "--base", metavar="BASE", help=f"base of GLUE 1.3's tree (default: {BASE_1})"
        )
        parser.add_argument(
            "--glue2-base", metavar="BASE", help=f"base of GLUE 2's tree (default: {BASE_2})"
        )
        parser.add_argument(
            "--vo",
            metavar="VO[,VO...]",
            type=_vos,
            default=(),
            help="show the queues that let one of these in, with the slots that are free for "
            "them (default: all queues)",
        )
        parser.add_argument(
            "-q",
            "--queue-filter",
            metavar="QUEUEFILTER",
            default="",
            help="LDAP filter of queues, for instance "
            "(GlueCEStateStatus=Production)(GlueCEAccessControlBaseRule=VO:biomed); for GLUE 2 "
            "it is translated, or written as (GLUE2ComputingShareServingState=production)",
        )
        parser.add_argument(
            "-f",
            "--host-filter",
            metavar="HOSTFILTER",
            default="",
            help="LDAP filter of hosts by what is published of them and their nodes, "
            "for instance (GlueHostArchitecturePlatformType=x86_64)",
        )

    async def start(self) -> None:
        """Import the LDAP library; nothing is asked of the server before somebody asks here."""
        self._directory = await asyncio.to_thread(in_background, self.open)
        await super().start()

    def locate(self) -> None:
        """Find out where the source is.  Raises UsageError where the options tell that wrong."""
        self._servers = ldap_server.servers_of(self.options, self.port)
        self._access = ldap_server.access_of(self.options, self._servers)

    def open(self) -> Source:
        """The source, with its library imported; connects to nothing yet."""
        try:
            from gridmad.information.directory import Directory
        except ImportError:
            raise MissingDependencyError("ldap3", "bdii") from None
        base = self._trees.searches[0].base
        return Directory(self._servers, self._access, base, self.options.timeout)

    @property
    def place(self) -> str:
        """The server's URL."""
        return self._directory.url if self._directory else ""

    def read(self) -> dict[str, HostAttributes]:
        """All hosts of all trees."""
        assert self._directory is not None, "not started"
        hosts, problems = self._directory.fetch(self._trees.searches, self._join)
        for problem in problems:
            self.report(problem)
        # Each goes when its attributes are made: a large grid is not held twice.
        attributes = {}
        for name in list(hosts):
            self.give_way()
            attributes[name] = hosts.pop(name).attributes()
        return attributes

    def _join(self, pages: Iterator[Page]) -> Decoded:
        return self._trees.decode(map(self._after_a_rest, pages))

    def _after_a_rest(self, page: Page) -> Page:
        self.give_way()
        return page


def _check_base(option: str, base: str) -> None:
    for part in base.split(","):
        name, equals, value = part.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise UsageError(f"{option} {base!r}: write a row of NAME=VALUE, such as {BASE_1}")


def _vos(text: str) -> tuple[str, ...]:
    vos = tuple(text.split(","))
    for vo in vos:
        if not _VO.fullmatch(vo):
            raise argparse.ArgumentTypeError(f"{vo!r} is no name of a VO")
    return vos


DRIVER = BdiiInformation
