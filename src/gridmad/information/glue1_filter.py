"""GridWay's filters -q and -f over GLUE 1.3: what they ask of which entries.

-q looks at queues, that is GlueCE entries.  -f looks at hosts: each of its conditions goes to
the class of entries that has its attributes, and a host stays where, for every class, one of
its entries meets all conditions for it.  No I/O happens here.
"""

from collections.abc import Iterable, Sequence

from gridmad._glue import keys_of
from gridmad.errors import UsageError
from gridmad.information import ldap
from gridmad.information.glue import text_of, vo_of
from gridmad.information.glue1 import SEARCHES, host_of
from gridmad.information.ldap import Entry, Filter, Search


class QueueFilter:
    """-q: the queues to show."""

    def __init__(self, text: str) -> None:
        """Raises UsageError where `text` is no filter of GlueCE entries."""
        parts = ldap.parse_filter(text)
        for part in parts:
            for attribute in sorted(part.attributes):
                if (other := class_of(attribute)) != "GlueCE":
                    raise UsageError(
                        f"-q {part.text}: queues are GlueCE entries, and {attribute} is of "
                        f"{other}: use -f"
                    )
        self._text = "".join(part.text for part in parts)
        self.vos = frozenset(_vos(parts))
        """The VOs that it names: their share of a queue is what counts."""

    def apply(self, searches: Iterable[Search]) -> list[Search]:
        """The searches, that for GlueCE narrowed to these queues."""
        return [
            search._replace(filter=self._text) if search.object_class == "GlueCE" else search
            for search in searches
        ]


class HostFilter:
    """-f: the hosts to show."""

    def __init__(self, text: str) -> None:
        """Raises UsageError where a condition is for no one class of entries."""
        self.searches = [
            SEARCHES[object_class]._replace(attributes=_IDENTITY[object_class], filter=conditions)
            for object_class, conditions in ldap.by_class(text, "-f", class_of).items()
        ]
        """What else to ask the directory."""

    def choice(self) -> "HostChoice":
        """What gets to know the entries that the searches find."""
        return HostChoice([search.object_class for search in self.searches])


class HostChoice:
    """The hosts that stay: for every search, one of their entries is among those it finds."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._found: list[tuple[str, set[str | None]]] = [(name, set()) for name in classes]

    def take(self, number: int, entries: Iterable[Entry]) -> None:
        """Further entries that a search found."""
        object_class, found = self._found[number]
        for entry in entries:
            if object_class == "GlueCE":
                found.add(host_of(entry))
            else:
                found.update(_clusters(object_class, entry))

    def has(self, host: str, clusters: Iterable[Sequence[str]]) -> bool:
        """Whether a host stays, by its name and the clusters that each of its CEs names."""
        if not self._found:
            return True
        named = {key for keys in clusters for key in keys}
        return all(
            host in found if object_class == "GlueCE" else not found.isdisjoint(named)
            for object_class, found in self._found
        )


_IDENTITY = {
    "GlueCE": ("GlueCEUniqueID", "GlueCEInfoHostName"),
    "GlueCluster": ("GlueClusterUniqueID",),
    "GlueSubCluster": ("GlueChunkKey",),
}
_OF_CES = (
    "gluece",
    "glueforeignkey",
    "glueinformationservice",
    "glueschemaversion",
    "objectclass",
)


def class_of(attribute: str) -> str:
    """The class of entries that has an attribute (in lower case).

    Raises UsageError where no class of GLUE 1.3 that hosts and queues are of has it.
    """
    if attribute.startswith(("gluesubcluster", "gluehost")):
        return "GlueSubCluster"
    if attribute.startswith("gluecluster"):
        return "GlueCluster"
    if not attribute.startswith(_OF_CES):
        raise UsageError(f"{attribute} is no attribute of GLUE 1.3's queues and hosts")
    return "GlueCE"


def _clusters(object_class: str, entry: Entry) -> list[str]:
    if object_class == "GlueCluster":
        return [text_of(entry, "glueclusteruniqueid").lower()]
    return keys_of(entry, "gluechunkkey", "glueclusteruniqueid")


def _vos(parts: Iterable[Filter]) -> Iterable[str]:
    for part in parts:
        for attribute, operator, value, is_negated in part.conditions:
            is_rule = attribute == "glueceaccesscontrolbaserule" and operator == "="
            if is_rule and not is_negated and (vo := vo_of(ldap.unescaped(value))):
                yield vo
