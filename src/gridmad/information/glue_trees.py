"""The trees of a directory that are read: GLUE 1.3's, GLUE 2's, or both, joined to hosts.

Which entries a tree is searched for, and what becomes of those that were found.  No I/O
happens here.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Final, Protocol

from gridmad.errors import UsageError
from gridmad.information import glue1, glue1_filter, glue2, glue2_filter, glue2_schema
from gridmad.information.glue import Decoded, merge
from gridmad.information.ldap import Entry, Page, Search

log = logging.getLogger(__name__)

BASE_1: Final = "mds-vo-name=local,o=grid"
BASE_2: Final = "o=glue"


class Tree(Protocol):
    """One version of GLUE below one base."""

    @property
    def searches(self) -> Sequence[Search]:
        """What to ask the directory for."""

    def decode(self, pages: Iterable[Page]) -> Decoded:
        """The hosts that what the searches find describes, taken as it comes."""


class Glue1Tree:
    """Hosts in GLUE 1.3."""

    def __init__(
        self, base: str, queue_filter: str = "", host_filter: str = "", vos: Collection[str] = ()
    ) -> None:
        """Raises UsageError for filters that are none of GLUE 1.3."""
        self._queues = glue1_filter.QueueFilter(queue_filter)
        self._hosts = glue1_filter.HostFilter(host_filter)
        self._vos = vos
        searches = [*self._hosts.searches, *self._queues.apply(glue1.SEARCHES.values())]
        self.searches = [search._replace(base=base) for search in searches]

    def decode(self, pages: Iterable[Page]) -> Decoded:
        """The hosts that the filters let stay."""
        choice = self._hosts.choice()
        vos = self._vos or self._queues.vos
        join = glue1.Join(vos, only=bool(self._vos), is_wanted=choice.has)
        first = len(self._hosts.searches)
        for turn, entries in pages:
            if turn < first:
                choice.take(turn, entries)
            else:
                join.take(self.searches[turn].object_class, entries)
        return join.finish()


class Glue2Tree:
    """Hosts in GLUE 2."""

    def __init__(
        self, base: str, queue_filter: str = "", host_filter: str = "", vos: Collection[str] = ()
    ) -> None:
        """Raises UsageError for filters that are none of GLUE 2 and cannot be made one."""
        self._queues = glue2_filter.QueueFilter(queue_filter)
        self._hosts = glue2_filter.HostFilter(host_filter)
        self._vos = vos
        searches = [
            *self._queues.apply(glue2_schema.SEARCHES.values()),
            *self._queues.searches,
            *self._hosts.searches,
        ]
        self.searches = [search._replace(base=base) for search in searches]

    def decode(self, pages: Iterable[Page]) -> Decoded:
        """The hosts that the filters let stay."""
        found: list[list[Entry]] = [[] for _ in self.searches]
        for turn, page in pages:
            found[turn] += page
        first = len(glue2_schema.SEARCHES)
        second = first + len(self._queues.searches)
        entries: dict[str, Sequence[Entry]] = dict(zip(glue2_schema.SEARCHES, found, strict=False))
        by_queue = _by_class(self._queues.searches, found[first:second])
        shares = self._hosts.choose(entries, found[second:])
        entries["GLUE2ComputingShare"] = self._queues.choose(shares, by_queue)
        return glue2.decode(entries, self._vos or self._queues.vos, only=bool(self._vos))


class Trees:
    """All trees that are read of one directory."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self._trees = trees
        is_optional = len(trees) > 1
        self.searches = [
            search._replace(is_optional=is_optional) for tree in trees for search in tree.searches
        ]
        """What to ask the directory for."""
        counts = [len(tree.searches) for tree in trees]
        self._places = [(tree, turn) for tree, count in enumerate(counts) for turn in range(count)]

    def decode(self, pages: Iterable[Page]) -> Decoded:
        """Every host once; where several trees tell of it, GLUE 1.3's word comes first, for
        its names of queues and managers are what GridWay's users know.
        """
        parts = groupby(pages, key=lambda page: self._places[page[0]][0])
        decoded = []
        for number, own in parts:
            numbered = ((self._places[turn][1], entries) for turn, entries in own)
            decoded.append(self._trees[number].decode(numbered))
        return merge(decoded)


def choose_trees(
    version: str,
    base_1: str | None = None,
    base_2: str | None = None,
    *,
    queue_filter: str = "",
    host_filter: str = "",
    vos: Collection[str] = (),
) -> Trees:
    """The trees that `version` ("1", "2" or "auto") means.

    With "auto" these are the ones whose bases are named, or else both; a filter that only one
    version has words for leaves that one.  Raises UsageError where the filters leave none.
    """
    is_one_named = (base_1 is None) != (base_2 is None)
    trees: list[Tree] = []
    problems: list[str] = []
    kinds: Sequence[tuple[str, type[Glue1Tree] | type[Glue2Tree], str | None, str]] = (
        ("1", Glue1Tree, base_1, BASE_1),
        ("2", Glue2Tree, base_2, BASE_2),
    )
    for number, kind, base, default in kinds:
        if version not in (number, "auto") or (version == "auto" and is_one_named and base is None):
            continue
        try:
            trees.append(kind(base or default, queue_filter, host_filter, vos))
        except UsageError as error:
            problems.append(str(error))
    if not trees:
        raise UsageError("; ".join(dict.fromkeys(problems)))
    for problem in problems:
        log.warning("only one version of GLUE is read: %s", problem)
    return Trees(trees)


def _by_class(
    searches: Iterable[Search], found: Iterable[Sequence[Entry]]
) -> dict[str, Sequence[Entry]]:
    return {search.object_class: entries for search, entries in zip(searches, found, strict=True)}
