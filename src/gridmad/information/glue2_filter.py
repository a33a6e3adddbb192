"""GridWay's filters -q and -f over GLUE 2, in its own terms or in those of GLUE 1.3.

-q looks at queues, that is ComputingShare entries and the MappingPolicy entries that tell who
may use them.  -f looks at hosts, that is services: each of its conditions goes to the class of
entries that has its attributes, and a service stays where, for every class, one of its entries
meets all conditions for it.

The attributes of GLUE 1.3 that filters usually have are translated, with their values: GLUE 2
writes states and systems in small letters and compares them so, and limits in seconds.  No I/O
happens here.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from gridmad.errors import UsageError
from gridmad.information import ldap
from gridmad.information.glue import text_of, vo_of
from gridmad.information.glue2_schema import (
    ARCHITECTURES,
    MANAGER_OF_ENVIRONMENT,
    SEARCHES,
    SERVICE_OF_ENDPOINT,
    SERVICE_OF_MANAGER,
    SERVICE_OF_SHARE,
    keys_of,
)
from gridmad.information.ldap import Condition, Entry, Search

_SHARE: Final = "GLUE2ComputingShare"
_POLICY: Final = "GLUE2MappingPolicy"

_CLASSES: Final = (
    # The longest of equal beginnings first.
    ("glue2computingendpoint", "GLUE2ComputingEndpoint"),
    ("glue2computingmanager", "GLUE2ComputingManager"),
    ("glue2computingservice", "GLUE2ComputingService"),
    ("glue2computingshare", _SHARE),
    ("glue2endpoint", "GLUE2ComputingEndpoint"),
    ("glue2executionenvironment", "GLUE2ExecutionEnvironment"),
    ("glue2manager", "GLUE2ComputingManager"),
    ("glue2mappingpolicy", _POLICY),
    ("glue2policy", _POLICY),
    ("glue2resource", "GLUE2ExecutionEnvironment"),
    ("glue2service", "GLUE2ComputingService"),
    ("glue2share", _SHARE),
)
_IDENTITY: Final = {
    _SHARE: (
        "GLUE2ShareServiceForeignKey",
        "GLUE2ComputingShareComputingServiceForeignKey",
    ),
    _POLICY: ("GLUE2MappingPolicyShareForeignKey",),
    "GLUE2ComputingService": ("GLUE2ServiceID",),
    "GLUE2ComputingEndpoint": (
        "GLUE2EndpointServiceForeignKey",
        "GLUE2ComputingEndpointComputingServiceForeignKey",
    ),
    "GLUE2ComputingManager": (
        "GLUE2ManagerServiceForeignKey",
        "GLUE2ComputingManagerComputingServiceForeignKey",
    ),
    "GLUE2ExecutionEnvironment": (
        "GLUE2ResourceManagerForeignKey",
        "GLUE2ExecutionEnvironmentComputingManagerForeignKey",
    ),
}
_SERVICE_OF: Final[Mapping[str, Sequence[str]]] = {
    _SHARE: SERVICE_OF_SHARE,
    _POLICY: SERVICE_OF_SHARE,
    "GLUE2ComputingService": ("glue2serviceid",),
    "GLUE2ComputingEndpoint": SERVICE_OF_ENDPOINT,
    "GLUE2ComputingManager": SERVICE_OF_MANAGER,
    "GLUE2ExecutionEnvironment": SERVICE_OF_MANAGER,
}
"""The keys that lead from entries, or from what they lead to, to services."""


class QueueFilter:
    """-q: the queues to show."""

    def __init__(self, text: str) -> None:
        """Raises UsageError where `text` is no filter of shares and their policies."""
        text = translated(text)
        texts = ldap.by_class(text, "-q", class_of)
        for other in sorted(texts.keys() - {_SHARE, _POLICY}):
            raise UsageError(f"-q {texts[other]}: it is of {other}, and queues are shares: use -f")
        self._text = texts.pop(_SHARE, "")
        self.vos = frozenset(_vos(text))
        """The VOs that it names: their share of a queue is what counts."""
        self.searches = [_identities(*item) for item in texts.items()]
        """What else to ask the directory."""

    def apply(self, searches: Iterable[Search]) -> list[Search]:
        """The searches, that for shares narrowed to these queues."""
        return [
            search._replace(filter=self._text) if search.object_class == _SHARE else search
            for search in searches
        ]

    def choose(
        self, shares: Sequence[Entry], found: Mapping[str, Iterable[Entry]]
    ) -> Sequence[Entry]:
        """The shares that the policies that were `found` let stay."""
        for policies in found.values():
            mapped = _all_keys(policies, "glue2mappingpolicyshareforeignkey")
            shares = [share for share in shares if text_of(share, "glue2shareid") in mapped]
        return shares


class HostFilter:
    """-f: the hosts to show."""

    def __init__(self, text: str) -> None:
        """Raises UsageError where a condition is for no one class of entries."""
        texts = ldap.by_class(translated(text), "-f", class_of)
        self._classes = list(texts)
        self.searches = [_identities(*item) for item in texts.items()]
        """What else to ask the directory."""
        if _POLICY in texts:
            # All shares: those that -q leaves may not be the ones that the policies are for.
            self.searches.append(
                SEARCHES[_SHARE]._replace(attributes=("GLUE2ShareID", *_IDENTITY[_SHARE]))
            )

    def choose(
        self, entries: Mapping[str, Sequence[Entry]], found: Sequence[Sequence[Entry]]
    ) -> Sequence[Entry]:
        """The shares of the services that what the searches `found` lets stay."""
        shares: Sequence[Entry] = entries[_SHARE]
        for object_class, chosen in zip(self._classes, found, strict=False):
            if object_class == _POLICY:
                mapped = _all_keys(chosen, "glue2mappingpolicyshareforeignkey")
                chosen = [s for s in found[-1] if text_of(s, "glue2shareid") in mapped]
            elif object_class == "GLUE2ExecutionEnvironment":
                managers = _all_keys(chosen, *MANAGER_OF_ENVIRONMENT)
                chosen = [
                    manager
                    for manager in entries["GLUE2ComputingManager"]
                    if text_of(manager, "glue2managerid") in managers
                ]
            services = _all_keys(chosen, *_SERVICE_OF[object_class])
            shares = [s for s in shares if not services.isdisjoint(keys_of(s, *SERVICE_OF_SHARE))]
        return shares


def class_of(attribute: str) -> str:
    """The class of entries that has an attribute (in lower case).

    Raises UsageError where no class of GLUE 2 that hosts and queues are of has it.
    """
    for beginning, object_class in _CLASSES:
        if attribute.startswith(beginning):
            return object_class
    raise UsageError(f"{attribute} is no attribute of GLUE 2's queues and hosts")


def _identities(object_class: str, conditions: str) -> Search:
    return SEARCHES[object_class]._replace(attributes=_IDENTITY[object_class], filter=conditions)


def _all_keys(entries: Iterable[Entry], *names: str) -> set[str]:
    return {key for entry in entries for key in keys_of(entry, *names)}


# ---------------------------------------------------------------- from GLUE 1.3


_LEAF = re.compile(
    r"\(([A-Za-z0-9][A-Za-z0-9.-]*)((?:;[A-Za-z0-9-]+)*)"
    r"(>=|<=|~=|(?::dn)?(?::[A-Za-z0-9.-]+)?:=|=)([^()]*)\)"
)
_NUMBER = re.compile(r"[0-9]{1,8}")


def translated(text: str) -> str:
    """A filter with what it has of GLUE 1.3 in terms of GLUE 2.

    Raises UsageError for a filter that is none, and for conditions that GLUE 2 has nothing for.
    """

    def translate(match: re.Match[str]) -> str:
        name, _, operator, value = match.groups()
        if not name.lower().startswith("glue") or name.lower().startswith("glue2"):
            return match[0]
        rule = _TRANSLATIONS.get(name.lower())
        if rule is None:
            raise UsageError(
                f"{match[0]}: GLUE 2 has nothing for {name}: write GLUE 2's own attributes, or "
                "read GLUE 1.3 only (--glue 1)"
            )
        attribute, convert = rule
        return convert(attribute, Condition(attribute, operator, value, is_negated=False))

    return "".join(_LEAF.sub(translate, part.text) for part in ldap.parse_filter(text))


def _vos(text: str) -> Iterable[str]:
    for part in ldap.parse_filter(text):
        for attribute, operator, value, is_negated in part.conditions:
            is_rule = attribute == "glue2policyrule" and operator in ("=", ":caseIgnoreMatch:=")
            if is_rule and not is_negated and (vo := vo_of(ldap.unescaped(value))):
                yield vo


def _same(attribute: str, condition: Condition) -> str:
    return f"({attribute}{condition.operator}{condition.value})"


def _any_case(attribute: str, condition: Condition) -> str:
    """Equal but for case, as GLUE 1.3 compares."""
    _, operator, value, _ = condition
    if operator == "=" and "*" not in value:
        return f"({attribute}:caseIgnoreMatch:={value})"
    variants = dict.fromkeys([value, value.lower(), value.upper()])
    texts = [f"({attribute}{operator}{variant})" for variant in variants]
    return texts[0] if len(texts) == 1 else f"(|{''.join(texts)})"


def _architecture(attribute: str, condition: Condition) -> str:
    names = [other for other, ours in ARCHITECTURES.items() if ours == condition.value.lower()]
    texts = [_any_case(attribute, condition._replace(value=v)) for v in (condition.value, *names)]
    return texts[0] if len(texts) == 1 else f"(|{''.join(texts)})"


def _seconds(attribute: str, condition: Condition) -> str:
    value = condition.value
    if _NUMBER.fullmatch(value):
        value = str(int(value) * 60)
    return f"({attribute}{condition.operator}{value})"


def _endpoint_host(attribute: str, condition: Condition) -> str:
    """The host within a URL."""
    value = condition.value
    if condition.operator != "=" or value == "*":
        return _same(attribute, condition)
    return f"(|({attribute}=*://{value}:*)({attribute}=*://{value}/*))"


_TRANSLATIONS: Final[Mapping[str, tuple[str, Callable[[str, Condition], str]]]] = {
    "gluecename": ("GLUE2ComputingShareMappingQueue", _same),
    "gluecestatestatus": ("GLUE2ComputingShareServingState", _any_case),
    "gluecestatefreejobslots": ("GLUE2ComputingShareFreeSlots", _same),
    "gluecestatefreecpus": ("GLUE2ComputingShareFreeSlots", _same),
    "gluecestaterunningjobs": ("GLUE2ComputingShareRunningJobs", _same),
    "gluecestatewaitingjobs": ("GLUE2ComputingShareWaitingJobs", _same),
    "gluecestatetotaljobs": ("GLUE2ComputingShareTotalJobs", _same),
    "gluecestateestimatedresponsetime": (
        "GLUE2ComputingShareEstimatedAverageWaitingTime",
        _same,
    ),
    "gluecepolicymaxwallclocktime": ("GLUE2ComputingShareMaxWallTime", _seconds),
    "gluecepolicymaxcputime": ("GLUE2ComputingShareMaxCPUTime", _seconds),
    "gluecepolicymaxrunningjobs": ("GLUE2ComputingShareMaxRunningJobs", _same),
    "gluecepolicymaxwaitingjobs": ("GLUE2ComputingShareMaxWaitingJobs", _same),
    "gluecepolicymaxtotaljobs": ("GLUE2ComputingShareMaxTotalJobs", _same),
    "gluecepolicymaxslotsperjob": ("GLUE2ComputingShareMaxSlotsPerJob", _same),
    "glueceaccesscontrolbaserule": ("GLUE2PolicyRule", _any_case),
    "glueceinfolrmstype": ("GLUE2ManagerProductName", _any_case),
    "glueceinfohostname": ("GLUE2EndpointURL", _endpoint_host),
    "gluehostarchitectureplatformtype": ("GLUE2ExecutionEnvironmentPlatform", _architecture),
    "gluehostarchitecturesmpsize": ("GLUE2ExecutionEnvironmentLogicalCPUs", _same),
    "gluehostmainmemoryramsize": ("GLUE2ExecutionEnvironmentMainMemorySize", _same),
    "gluehostoperatingsystemname": ("GLUE2ExecutionEnvironmentOSName", _any_case),
    "gluehostoperatingsystemrelease": ("GLUE2ExecutionEnvironmentOSVersion", _any_case),
    "gluehostprocessormodel": ("GLUE2ExecutionEnvironmentCPUModel", _any_case),
    "gluehostprocessorclockspeed": ("GLUE2ExecutionEnvironmentCPUClockSpeed", _same),
}
