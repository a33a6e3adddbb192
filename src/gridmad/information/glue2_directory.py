"""GLUE 2's entries by the keys that lead to them: shares, and what surrounds each.

No I/O happens here.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from gridmad.information.glue import (
    UNSET,
    host_name,
    number_of,
    numbers_of,
    state,
    text_of,
    texts_of,
    words_of,
)
from gridmad.information.glue2_schema import (
    ENDPOINTS_OF_SHARE,
    ENVIRONMENTS_OF_SHARE,
    KEYS_OF_SHARE,
    MANAGER_OF_ENVIRONMENT,
    SERVICE_OF_ENDPOINT,
    SERVICE_OF_MANAGER,
    SERVICE_OF_SHARE,
    keys_of,
)
from gridmad.information.ldap import Entry

_PLACEHOLDERS: Final = frozenset({"undefinedvalue", "undefined"})
_URL_HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/:?#\s]+)")
_URN_HOST = re.compile(r"urn:ogf:Computing(?:Share|Service|Manager):([^:]+)", re.IGNORECASE)
_URN_OF_SITES: Final = "urn:ad:"
_FREE_SLOTS = re.compile(r"([0-9]{1,15})(?::[0-9]+)?")


class Share:
    """A ComputingShare and what it refers to."""

    __slots__ = (
        "around",
        "entry",
        "host",
        "identity",
        "numbers",
        "queue",
        "rules",
        "state",
    )

    def __init__(self, entry: Entry, rules: Sequence[str], around: "Surroundings") -> None:
        self.entry = entry
        self.identity = text_of(entry, "glue2shareid")
        self.rules = rules
        self.around = around
        self.host = around.host or _urn_host(self.identity)
        queue, serving = words_of(entry, _WORDS)
        self.queue = queue or self.identity.rpartition(":")[2].rpartition("/")[2]
        self.state = "Closed" if around.is_sick else (serving or around.state).capitalize()
        self.numbers = _Numbers._make(numbers_of(entry, _NUMBERS))

    @property
    def max_running_jobs(self) -> int | None:
        """The limit, where somebody set one."""
        return set_limit(self.numbers.max_running_jobs)

    @property
    def max_jobs(self) -> int | None:
        """How many jobs it takes."""
        numbers = self.numbers
        if numbers.max_total_jobs:
            return numbers.max_total_jobs
        if numbers.max_running_jobs is None or numbers.max_waiting_jobs is None:
            return None
        return min(UNSET, numbers.max_running_jobs + numbers.max_waiting_jobs) or None

    def free_slots(self, slots: int | None) -> int | None:
        """What it says, else what follows from its durations, or of `slots` from its use."""
        free, used = state(self.numbers.free_slots), state(self.numbers.used_slots)
        if free is not None:
            return free
        counts = [
            int(match[1])
            for text in texts_of(self.entry, "glue2computingsharefreeslotswithduration")
            for part in text.split()
            if (match := _FREE_SLOTS.fullmatch(part))
        ]
        if counts:
            return sum(counts)
        return max(0, slots - used) if slots is not None and used is not None else None


class _Numbers(NamedTuple):
    """The numbers of a ComputingShare, each None where it is not there; times in seconds."""

    max_wall_time: int | None
    default_wall_time: int | None
    max_cpu_time: int | None
    default_cpu_time: int | None
    max_slots_per_job: int | None
    max_running_jobs: int | None
    max_waiting_jobs: int | None
    max_total_jobs: int | None
    free_slots: int | None
    used_slots: int | None
    running_jobs: int | None
    waiting_jobs: int | None
    average_waiting_time: int | None


_NUMBERS: Final = (
    "glue2computingsharemaxwalltime",
    "glue2computingsharedefaultwalltime",
    "glue2computingsharemaxcputime",
    "glue2computingsharedefaultcputime",
    "glue2computingsharemaxslotsperjob",
    "glue2computingsharemaxrunningjobs",
    "glue2computingsharemaxwaitingjobs",
    "glue2computingsharemaxtotaljobs",
    "glue2computingsharefreeslots",
    "glue2computingshareusedslots",
    "glue2computingsharerunningjobs",
    "glue2computingsharewaitingjobs",
    "glue2computingshareestimatedaveragewaitingtime",
)
"""Where a _Numbers is from, in its order."""
_WORDS: Final = ("glue2computingsharemappingqueue", "glue2computingshareservingstate")


class Surroundings(NamedTuple):
    """What the shares of a service have in common that lead to the same."""

    host: str | None
    """That of most endpoints, else the one that the service's name tells."""
    site: str
    lrms_name: str
    lrms_type: str
    is_sick: bool
    """All endpoints are in a critical state."""
    state: str
    """That of the endpoints."""
    slots: int | None
    """Of the largest batch system."""
    managers: Mapping[str, Entry]
    environments: Mapping[str, Entry]


class Directory:
    """All entries, by the keys that lead to them."""

    def __init__(self, entries: Mapping[str, Iterable[Entry]], problems: list[str]) -> None:
        def by_identity(object_class: str, name: str) -> dict[str, Entry]:
            found: dict[str, Entry] = {}
            for entry in entries.get(object_class, ()):
                identity = text_of(entry, name)
                if identity in found:
                    text = f"{object_class} {identity!r} is published twice: the first counts"
                    problems.append(text)
                elif identity:
                    found[identity] = entry
            return found

        self._shares = by_identity("GLUE2ComputingShare", "glue2shareid")
        self._services = by_identity("GLUE2ComputingService", "glue2serviceid")
        self._endpoints = by_identity("GLUE2ComputingEndpoint", "glue2endpointid")
        self._managers = by_identity("GLUE2ComputingManager", "glue2managerid")
        self._environments = by_identity("GLUE2ExecutionEnvironment", "glue2resourceid")
        self._rules: defaultdict[str, list[str]] = defaultdict(list)
        for policy in entries.get("GLUE2MappingPolicy", ()):
            for share in keys_of(policy, "glue2mappingpolicyshareforeignkey"):
                self._rules[share] += texts_of(policy, "glue2policyrule")
        self._benchmarks: defaultdict[str, list[Entry]] = defaultdict(list)
        for benchmark in entries.get("GLUE2Benchmark", ()):
            for key in keys_of(benchmark, "glue2benchmarkexecutionenvironmentforeignkey"):
                self._benchmarks[key].append(benchmark)
        self._endpoints_of = _grouped(self._endpoints, SERVICE_OF_ENDPOINT)
        self._managers_of = _grouped(self._managers, SERVICE_OF_MANAGER)
        self._surroundings: dict[tuple[bytes, ...], Surroundings] = {}

    def shares(self) -> Iterable[Share]:
        """Every share once."""
        for identity, entry in self._shares.items():
            keys = tuple(value for name in KEYS_OF_SHARE for value in entry.get(name, ()))
            around = self._surroundings.get(keys)
            if around is None:
                around = self._surroundings[keys] = self._around(entry)
            yield Share(entry, self._rules.get(identity, ()), around)

    def _around(self, share: Entry) -> Surroundings:
        services = keys_of(share, *SERVICE_OF_SHARE)
        service = next((key for key in services if key in self._services), "".join(services[:1]))
        of_service = self._endpoints_of.get(service, {})
        named = keys_of(share, *ENDPOINTS_OF_SHARE)
        endpoints = [self._endpoints[key] for key in named if key in self._endpoints]
        endpoints = endpoints or list(of_service.values())
        environments = {
            key: self._environments[key]
            for key in keys_of(share, *ENVIRONMENTS_OF_SHARE)
            if key in self._environments
        }
        managers = {
            key: self._managers[key]
            for environment in environments.values()
            for key in keys_of(environment, *MANAGER_OF_ENVIRONMENT)
            if key in self._managers
        }
        managers = managers or self._managers_of.get(service, {})
        product = min(
            (name for m in managers.values() if (name := known_text(m, "glue2managerproductname"))),
            default="",
        )
        interface = self._interface(service, endpoints)
        health = {text_of(entry, "glue2endpointhealthstate").lower() for entry in endpoints}
        states = {text_of(entry, "glue2endpointservingstate") for entry in endpoints}
        return Surroundings(
            _host_of(of_service.values()) or _urn_host(service),
            self._site(service),
            "-".join(part for part in (interface, product) if part),
            product.lower(),
            health == {"critical"},
            min(filter(None, states), default=""),
            max(map(slots_of, managers.values()), default=0) or None,
            managers,
            environments,
        )

    def _interface(self, service: str, endpoints: Iterable[Entry]) -> str:
        """The first part of LRMS_NAME."""
        kind = text_of(self._services.get(service, {}), "glue2servicetype")
        names = sorted(text_of(entry, "glue2endpointinterfacename") for entry in endpoints)
        if any(name.startswith("org.nordugrid.") for name in (kind, *names)):
            return "nordugrid"
        return min((name.rpartition(".")[2].lower() for name in names), default="")

    def _site(self, service: str) -> str:
        """The site of a service: the domain above it in the tree, else the one that it names."""
        entry = self._services.get(service, {})
        for part in reversed(text_of(entry, "entrydn").split(",")):
            name, _, value = part.strip().partition("=")
            if name.lower() == "glue2domainid" and value:
                return value.removeprefix(_URN_OF_SITES)
        return text_of(entry, "glue2serviceadmindomainforeignkey").removeprefix(_URN_OF_SITES)

    def benchmarks(self, environment: str) -> Sequence[Entry]:
        """What was measured on an environment."""
        return self._benchmarks.get(environment, ())


def _grouped(entries: Mapping[str, Entry], keys: Sequence[str]) -> Mapping[str, dict[str, Entry]]:
    """Entries by what their keys refer to."""
    groups: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
    for identity, entry in entries.items():
        for key in keys_of(entry, *keys):
            groups[key][identity] = entry
    return groups


def _host_of(endpoints: Iterable[Entry]) -> str | None:
    """The host that most of these are on."""
    counted: Counter[str] = Counter()
    for endpoint in endpoints:
        match = _URL_HOST.match(text_of(endpoint, "glue2endpointurl"))
        if match and (host := host_name(match[1])):
            counted[host] += 1
    return min(counted, key=lambda host: (-counted[host], host), default=None)


def _urn_host(identity: str) -> str | None:
    match = _URN_HOST.match(identity)
    return host_name(match[1]) if match else None


def known_text(entry: Entry, name: str) -> str | None:
    """A text that is no placeholder."""
    text = text_of(entry, name)
    return None if not text or text.lower() in _PLACEHOLDERS else text


def limit(entry: Entry, name: str) -> int | None:
    """A quantity that somebody set."""
    return set_limit(number_of(entry, name))


def set_limit(number: int | None) -> int | None:
    """A limit, None where nobody set one."""
    return None if not number or number >= UNSET else number


def cpus_of(environment: Entry) -> int:
    """The logical CPUs of all nodes of an environment, 0 where that is not known."""
    instances = limit(environment, "glue2executionenvironmenttotalinstances")
    return (instances or 0) * (limit(environment, "glue2executionenvironmentlogicalcpus") or 0)


def slots_of(manager: Entry) -> int:
    """The slots of a batch system, 0 where that is not known."""
    slots = limit(manager, "glue2computingmanagertotalslots")
    return slots or limit(manager, "glue2computingmanagertotallogicalcpus") or 0
