"""GLUE 2 entries to host attributes.

    MappingPolicy --> ComputingShare --> ComputingService <-- ComputingEndpoint
                            |                    ^
                            v                    |
    Benchmark --> ExecutionEnvironment --> ComputingManager

A host is what the shares of services at one host name have in common.  Its queues are the
shares grouped by the queue that they map to: a site may publish one for each VO, and one
without a policy, which then stands for all of them.  What a site does not publish is None,
and nothing here raises for what is absent or broken.  Times are seconds, disks are GB.
Source: GFD.147, the GLUE specification 2.0; GFD.218, its LDAP rendering; the EGI profile.
No I/O happens here.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from gridmad.information.glue import (
    UNSET,
    Decoded,
    Known,
    PublishedHost,
    access,
    host_name,
    lets_in,
    number_of,
    numbers_of,
    state,
    state_of,
    text_of,
    texts_of,
    words_of,
)
from gridmad.information.ldap import Entry, Search
from gridmad.information.model import Attribute

SEARCHES: Mapping[str, Search] = {
    search.object_class: search
    for search in (
        Search(
            "GLUE2ComputingShare",
            (
                "GLUE2ShareID",
                "GLUE2ShareServiceForeignKey",
                "GLUE2ShareEndpointForeignKey",
                "GLUE2ShareResourceForeignKey",
                "GLUE2ComputingShareComputingServiceForeignKey",
                "GLUE2ComputingShareComputingEndpointForeignKey",
                "GLUE2ComputingShareExecutionEnvironmentForeignKey",
                "GLUE2ComputingShareMappingQueue",
                "GLUE2ComputingShareServingState",
                "GLUE2ComputingShareMaxWallTime",
                "GLUE2ComputingShareDefaultWallTime",
                "GLUE2ComputingShareMaxCPUTime",
                "GLUE2ComputingShareDefaultCPUTime",
                "GLUE2ComputingShareMaxSlotsPerJob",
                "GLUE2ComputingShareMaxRunningJobs",
                "GLUE2ComputingShareMaxWaitingJobs",
                "GLUE2ComputingShareMaxTotalJobs",
                "GLUE2ComputingShareFreeSlots",
                "GLUE2ComputingShareFreeSlotsWithDuration",
                "GLUE2ComputingShareUsedSlots",
                "GLUE2ComputingShareRunningJobs",
                "GLUE2ComputingShareWaitingJobs",
                "GLUE2ComputingShareEstimatedAverageWaitingTime",
            ),
        ),
        Search("GLUE2MappingPolicy", ("GLUE2MappingPolicyShareForeignKey", "GLUE2PolicyRule")),
        Search(
            "GLUE2ComputingService",
            (
                "GLUE2ServiceID",
                "GLUE2ServiceType",
                "GLUE2ServiceAdminDomainForeignKey",
                # The tree itself tells the site (RFC 5020).
                "entryDN",
            ),
        ),
        Search(
            "GLUE2ComputingEndpoint",
            (
                "GLUE2EndpointID",
                "GLUE2EndpointURL",
                "GLUE2EndpointInterfaceName",
                "GLUE2EndpointHealthState",
                "GLUE2EndpointServingState",
                "GLUE2EndpointServiceForeignKey",
                "GLUE2ComputingEndpointComputingServiceForeignKey",
            ),
        ),
        Search(
            "GLUE2ComputingManager",
            (
                "GLUE2ManagerID",
                "GLUE2ManagerProductName",
                "GLUE2ManagerServiceForeignKey",
                "GLUE2ComputingManagerComputingServiceForeignKey",
                "GLUE2ComputingManagerTotalSlots",
                "GLUE2ComputingManagerTotalLogicalCPUs",
                "GLUE2ComputingManagerWorkingAreaTotal",
                "GLUE2ComputingManagerWorkingAreaFree",
            ),
        ),
        Search(
            "GLUE2ExecutionEnvironment",
            (
                "GLUE2ResourceID",
                "GLUE2ResourceManagerForeignKey",
                "GLUE2ExecutionEnvironmentComputingManagerForeignKey",
                "GLUE2ExecutionEnvironmentPlatform",
                "GLUE2ExecutionEnvironmentTotalInstances",
                "GLUE2ExecutionEnvironmentLogicalCPUs",
                "GLUE2ExecutionEnvironmentCPUModel",
                "GLUE2ExecutionEnvironmentCPUClockSpeed",
                "GLUE2ExecutionEnvironmentMainMemorySize",
                "GLUE2ExecutionEnvironmentOSFamily",
                "GLUE2ExecutionEnvironmentOSName",
                "GLUE2ExecutionEnvironmentOSVersion",
            ),
        ),
        Search(
            "GLUE2Benchmark",
            (
                "GLUE2BenchmarkExecutionEnvironmentForeignKey",
                "GLUE2BenchmarkType",
                "GLUE2BenchmarkValue",
            ),
        ),
    )
}
"""What to ask a directory for, by object class; ARC's entries for jobs are of none of them."""

SERVICE_OF_SHARE: Final = (
    "glue2computingsharecomputingserviceforeignkey",
    "glue2shareserviceforeignkey",
)
SERVICE_OF_ENDPOINT: Final = (
    "glue2computingendpointcomputingserviceforeignkey",
    "glue2endpointserviceforeignkey",
)
SERVICE_OF_MANAGER: Final = (
    "glue2computingmanagercomputingserviceforeignkey",
    "glue2managerserviceforeignkey",
)
_ENVIRONMENTS_OF_SHARE: Final = (
    "glue2computingshareexecutionenvironmentforeignkey",
    "glue2shareresourceforeignkey",
)
MANAGER_OF_ENVIRONMENT: Final = (
    "glue2executionenvironmentcomputingmanagerforeignkey",
    "glue2resourcemanagerforeignkey",
)
_ENDPOINTS_OF_SHARE: Final = (
    "glue2computingsharecomputingendpointforeignkey",
    "glue2shareendpointforeignkey",
)
_KEYS_OF_SHARE: Final = (*SERVICE_OF_SHARE, *_ENVIRONMENTS_OF_SHARE, *_ENDPOINTS_OF_SHARE)

ARCHITECTURES: Final = {"amd64": "x86_64"}
"""GridWay's names of those that GLUE 2 calls otherwise."""
STATES: Final = ("Production", "Queueing", "Draining", "Closed")
"""In GLUE 1's words, the best first."""
SPEC_INT_OF_HEPSPEC: Final = 250
"""The SPECint2000 that one HEP-SPEC06 counts as in the accounting of WLCG."""

_PLACEHOLDERS: Final = frozenset({"undefinedvalue", "undefined"})
_URL_HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/:?#\s]+)")
_URN_HOST = re.compile(r"urn:ogf:Computing(?:Share|Service|Manager):([^:]+)", re.IGNORECASE)
_URN_OF_SITES: Final = "urn:ad:"
_FREE_SLOTS = re.compile(r"([0-9]{1,15})(?::[0-9]+)?")
_VALUE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*")


def decode(
    entries: Mapping[str, Iterable[Entry]], vos: Iterable[str] = (), *, only: bool = False
) -> Decoded:
    """The hosts that `entries`, by object class, describe, their queues sorted by name.

    Figures are those of the shares that a policy maps `vos` to, where some are named.  With
    `only`, a queue whose policies let none of them in is left out, and QUEUE_ACCESS tells of
    no others.
    """
    problems: list[str] = []
    directory = _Directory(entries, problems)
    wanted = frozenset(vo.lower() for vo in vos)
    found: defaultdict[str, defaultdict[str, list[_Share]]] = defaultdict(lambda: defaultdict(list))
    for share in directory.shares():
        if share.host is None:
            problems.append(f"GLUE2ShareID {share.identity!r} leads to no host: left out")
        elif not share.queue:
            problems.append(f"GLUE2ShareID {share.identity!r} names no queue: left out")
        else:
            found[share.host][share.queue].append(share)
    hosts = {}
    for host in sorted(found):
        queues = {
            queue: sorted(shares, key=lambda share: share.identity)
            for queue, shares in found[host].items()
            if not only or _is_open(shares, wanted)
        }
        if queues:
            hosts[host] = _published(host, queues, directory, wanted, only)
            if not any(s.around.environments for shares in queues.values() for s in shares):
                problems.append(f"host {host}: its shares lead to no GLUE2ExecutionEnvironment")
    return Decoded(hosts, problems)


def _is_open(shares: Sequence["_Share"], vos: Collection[str]) -> bool:
    """Whether some policy of a queue lets one of `vos` in, or it has none."""
    rules = [rule for share in shares for rule in share.rules]
    return not rules or lets_in(rules, vos)


class _Share:
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

    def __init__(self, entry: Entry, rules: Sequence[str], around: "_Surroundings") -> None:
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
        return _set(self.numbers.max_running_jobs)

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


class _Surroundings(NamedTuple):
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


class _Directory:
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
        self._surroundings: dict[tuple[bytes, ...], _Surroundings] = {}

    def shares(self) -> Iterable[_Share]:
        """Every share once."""
        for identity, entry in self._shares.items():
            keys = tuple(value for name in _KEYS_OF_SHARE for value in entry.get(name, ()))
            around = self._surroundings.get(keys)
            if around is None:
                around = self._surroundings[keys] = self._around(entry)
            yield _Share(entry, self._rules.get(identity, ()), around)

    def _around(self, share: Entry) -> _Surroundings:
        services = keys_of(share, *SERVICE_OF_SHARE)
        service = next((key for key in services if key in self._services), "".join(services[:1]))
        of_service = self._endpoints_of.get(service, {})
        named = keys_of(share, *_ENDPOINTS_OF_SHARE)
        endpoints = [self._endpoints[key] for key in named if key in self._endpoints]
        endpoints = endpoints or list(of_service.values())
        environments = {
            key: self._environments[key]
            for key in keys_of(share, *_ENVIRONMENTS_OF_SHARE)
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
            (name for m in managers.values() if (name := _text(m, "glue2managerproductname"))),
            default="",
        )
        interface = self._interface(service, endpoints)
        health = {text_of(entry, "glue2endpointhealthstate").lower() for entry in endpoints}
        states = {text_of(entry, "glue2endpointservingstate") for entry in endpoints}
        return _Surroundings(
            _host_of(of_service.values()) or _urn_host(service),
            self._site(service),
            "-".join(part for part in (interface, product) if part),
            product.lower(),
            health == {"critical"},
            min(filter(None, states), default=""),
            max(map(_slots, managers.values()), default=0) or None,
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


def _published(
    host: str,
    queues: Mapping[str, Sequence[_Share]],
    directory: _Directory,
    vos: Collection[str],
    only: bool,
) -> PublishedHost:
    """A host with its queues, each of the shares that map to it."""
    around = [share.around for shares in queues.values() for share in shares]
    counted = Counter((each.lrms_name, each.lrms_type) for each in around)
    # Of several batch systems on a host gwd can address one: that of most shares.
    manager, lrms_type = min(counted, key=lambda key: (-counted[key], key))
    environments: dict[str, Entry] = {}
    managers: dict[str, Entry] = {}
    for each in around:
        environments.update(each.environments)
        managers.update(each.managers)
    cpus = {key: _cpus(entry) for key, entry in environments.items()}
    largest = min(cpus, key=lambda key: (-cpus[key], key), default="")
    nodes = environments.get(largest, {})
    sizes = (_limit(e, "glue2executionenvironmentmainmemorysize") for e in environments.values())
    memory = min((size for size in sizes if size), default=None)
    platform = _text(nodes, "glue2executionenvironmentplatform") or ""
    slots = max((each.slots or 0 for each in around), default=0)
    attributes: dict[str, Known] = {
        "HOSTNAME": host,
        "ARCH": ARCHITECTURES.get(platform.lower(), platform) or None,
        "NODECOUNT": slots or sum(cpus.values()) or None,
        "LRMS_NAME": manager or None,
        "LRMS_TYPE": lrms_type or None,
        "OS_NAME": _text(nodes, "glue2executionenvironmentosname")
        or _text(nodes, "glue2executionenvironmentosfamily"),
        "OS_VERSION": _text(nodes, "glue2executionenvironmentosversion"),
        "CPU_MODEL": _text(nodes, "glue2executionenvironmentcpumodel"),
        "CPU_MHZ": _limit(nodes, "glue2executionenvironmentcpuclockspeed"),
        "CPU_SMP": _limit(nodes, "glue2executionenvironmentlogicalcpus"),
        "FREE_MEM_MB": memory,
        "SIZE_MEM_MB": memory,
    }
    more = _disks(managers.values())
    if site := next((each.site for each in around if each.site), ""):
        more["SITE_NAME"] = site
    more |= _benchmarks(directory.benchmarks(largest))
    told_queues = {name: _queue(name, queues[name], vos, only) for name in sorted(queues)}
    return PublishedHost(attributes, told_queues, more)


def _disks(managers: Iterable[Entry]) -> dict[str, Attribute]:
    """The largest working area."""
    disks: dict[str, Attribute] = {}
    largest = 0
    for manager in managers:
        size = _limit(manager, "glue2computingmanagerworkingareatotal") or 0
        if size > largest:
            largest = size
            free = state_of(manager, "glue2computingmanagerworkingareafree")
            disks = {"SIZE_DISK_MB": size * 1024, "FREE_DISK_MB": (free or 0) * 1024}
    return disks


def _benchmarks(entries: Iterable[Entry]) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {}
    for benchmark in entries:
        match = _VALUE.fullmatch(text_of(benchmark, "glue2benchmarkvalue"))
        kind = text_of(benchmark, "glue2benchmarktype").lower().replace("-", "")
        value = float(match[1]) if match else 0.0
        if kind in ("hepspec", "hepspec06"):
            kind, value = "specint2000", value * SPEC_INT_OF_HEPSPEC
        name = {"specint2000": "SPEC_INT", "specfp2000": "SPEC_FLOAT"}.get(kind)
        if name and round(value):
            found[name] = round(value)
    return found


def _queue(
    name: str, group: Sequence[_Share], vos: Collection[str], only: bool
) -> dict[str, Known]:
    """One queue of the shares that map to it."""
    shares = group
    if len(group) > 1 or vos:
        shares = [share for share in group if vos and lets_in(share.rules, vos)]
        shares = shares or [share for share in group if not share.rules] or group
    numbers = [share.numbers for share in shares]
    slots = _largest(share.max_running_jobs for share in shares)
    if slots is None:
        slots = _largest(share.around.slots for share in shares)
    waiting = _total(each.waiting_jobs for each in numbers)
    states = {share.state for share in shares if share.state}
    rules = [rule for share in group for rule in share.rules]
    queue: dict[str, Known] = {
        "QUEUE_NAME": name,
        "QUEUE_NODECOUNT": slots,
        "QUEUE_FREENODECOUNT": _largest(share.free_slots(slots) for share in shares),
        "QUEUE_MAXTIME": _largest(
            _minutes(each.max_wall_time or each.default_wall_time) for each in numbers
        ),
        "QUEUE_MAXCPUTIME": _largest(
            _minutes(each.max_cpu_time or each.default_cpu_time) for each in numbers
        ),
        "QUEUE_MAXJOBSINQUEUE": _largest(share.max_jobs for share in shares),
        "QUEUE_MAXRUNNINGJOBS": _largest(each.max_running_jobs for each in numbers) or None,
        "QUEUE_STATUS": next((s for s in STATES if s in states), min(states, default=None)),
        "QUEUE_DISPATCHTYPE": "batch",
        "QUEUE_PRIORITY": None,
        "QUEUE_JOBWAIT": None if waiting is None else str(waiting),
        "QUEUE_ACCESS": access(rules, vos if only else ()) or None,
        "QUEUE_MAXCOUNT": _largest(each.max_slots_per_job for each in numbers) or None,
    }
    running = _total(each.running_jobs for each in numbers)
    if running is not None:
        queue["QUEUE_JOBRUN"] = running
    response_time = _largest(state(each.average_waiting_time) for each in numbers)
    if response_time is not None:
        queue["QUEUE_RESPONSETIME"] = response_time
    return queue


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _total(values: Iterable[int | None]) -> int | None:
    """The sum of those that are known."""
    known = [value for value in map(state, values) if value is not None]
    return sum(known) if known else None


def keys_of(entry: Entry, *names: str) -> list[str]:
    """The identities that the keys of these names refer to, each once."""
    return list(dict.fromkeys(key for name in names for key in texts_of(entry, name) if key))


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


def _text(entry: Entry, name: str) -> str | None:
    text = text_of(entry, name)
    return None if not text or text.lower() in _PLACEHOLDERS else text


def _limit(entry: Entry, name: str) -> int | None:
    """A quantity that somebody set."""
    return _set(number_of(entry, name))


def _set(number: int | None) -> int | None:
    return None if not number or number >= UNSET else number


def _cpus(environment: Entry) -> int:
    instances = _limit(environment, "glue2executionenvironmenttotalinstances")
    return (instances or 0) * (_limit(environment, "glue2executionenvironmentlogicalcpus") or 0)


def _slots(manager: Entry) -> int:
    slots = _limit(manager, "glue2computingmanagertotalslots")
    return slots or _limit(manager, "glue2computingmanagertotallogicalcpus") or 0


def _minutes(seconds: int | None) -> int | None:
    """A limit in minutes; one that nobody set as it is."""
    if not seconds:
        return None
    return seconds if seconds >= UNSET else max(1, seconds // 60)
