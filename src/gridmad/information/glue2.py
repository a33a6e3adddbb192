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
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from gridmad.information.glue import (
    UNSET,
    Decoded,
    Known,
    PublishedHost,
    access,
    host_name,
    lets_in,
    number_of,
    quantity_of,
    state_of,
    text_of,
    texts_of,
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
ENVIRONMENTS_OF_SHARE: Final = (
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
    found: defaultdict[str, list[_Share]] = defaultdict(list)
    for share in directory.shares():
        host = directory.host(share)
        if host is None:
            problems.append(f"GLUE2ShareID {share.identity!r} leads to no host: left out")
        elif not share.queue:
            problems.append(f"GLUE2ShareID {share.identity!r} names no queue: left out")
        else:
            found[host].append(share)
    hosts = {}
    for name in sorted(found):
        shares = _open_to(found[name], wanted) if only else found[name]
        if shares:
            hosts[name] = _Host(name, shares, directory, wanted, only).published(problems)
    return Decoded(hosts, problems)


def _open_to(shares: Sequence["_Share"], vos: Collection[str]) -> list["_Share"]:
    """The shares of the queues that some policy lets one of `vos` into, or that have none."""
    rules: defaultdict[str, list[str]] = defaultdict(list)
    for share in shares:
        rules[share.queue] += share.rules
    is_open = {queue: not some or lets_in(some, vos) for queue, some in rules.items()}
    return [share for share in shares if is_open[share.queue]]


class _Share:
    """A ComputingShare and what it refers to."""

    __slots__ = ("endpoints", "entry", "environments", "identity", "queue", "rules", "service")

    def __init__(self, entry: Entry, rules: Sequence[str], service: str) -> None:
        self.entry = entry
        self.identity = text_of(entry, "glue2shareid")
        self.rules = rules
        self.service = service
        self.endpoints = keys_of(entry, *_ENDPOINTS_OF_SHARE)
        self.environments = keys_of(entry, *ENVIRONMENTS_OF_SHARE)
        queue = text_of(entry, "glue2computingsharemappingqueue")
        self.queue = queue or self.identity.rpartition(":")[2].rpartition("/")[2]


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
        self._hosts: dict[str, str | None] = {}

    def shares(self) -> Iterable[_Share]:
        """Every share once."""
        for identity, entry in self._shares.items():
            keys = keys_of(entry, *SERVICE_OF_SHARE)
            service = next((key for key in keys if key in self._services), "")
            rules = self._rules.get(identity, ())
            yield _Share(entry, rules, service or (keys[0] if keys else ""))

    def host(self, share: _Share) -> str | None:
        """The host that most endpoints of a share's service are on, else as its names tell."""
        if share.service not in self._hosts:
            counted: Counter[str] = Counter()
            for endpoint in self._endpoints_of.get(share.service, {}).values():
                match = _URL_HOST.match(text_of(endpoint, "glue2endpointurl"))
                if match and (host := host_name(match[1])):
                    counted[host] += 1
            named = min(counted, key=lambda host: (-counted[host], host), default=None)
            self._hosts[share.service] = named or _urn_host(share.service)
        return self._hosts[share.service] or _urn_host(share.identity)

    def endpoints(self, share: _Share) -> Mapping[str, Entry]:
        """The endpoints that a share names, else those of its service."""
        own = {key: self._endpoints[key] for key in share.endpoints if key in self._endpoints}
        return own or self._endpoints_of.get(share.service, {})

    def environments(self, share: _Share) -> Mapping[str, Entry]:
        """What kinds of nodes a share has."""
        return {
            key: self._environments[key] for key in share.environments if key in self._environments
        }

    def managers(self, share: _Share) -> Mapping[str, Entry]:
        """The batch systems of a share's nodes, else those of its service."""
        named = {
            key: self._managers[key]
            for environment in self.environments(share).values()
            for key in keys_of(environment, *MANAGER_OF_ENVIRONMENT)
            if key in self._managers
        }
        return named or self._managers_of.get(share.service, {})

    def site(self, service: str) -> str:
        """The site of a service: the domain above it in the tree, else the one that it names."""
        entry = self._services.get(service, {})
        for part in reversed(text_of(entry, "entrydn").split(",")):
            name, _, value = part.strip().partition("=")
            if name.lower() == "glue2domainid" and value:
                return value.removeprefix(_URN_OF_SITES)
        return text_of(entry, "glue2serviceadmindomainforeignkey").removeprefix(_URN_OF_SITES)

    def is_arc(self, share: _Share) -> bool:
        """Whether a share is of an ARC compute element."""
        kind = text_of(self._services.get(share.service, {}), "glue2servicetype")
        interfaces = [
            text_of(endpoint, "glue2endpointinterfacename")
            for endpoint in self.endpoints(share).values()
        ]
        return any(name.startswith("org.nordugrid.") for name in (kind, *interfaces))

    def benchmarks(self, environment: str) -> Sequence[Entry]:
        """What was measured on an environment."""
        return self._benchmarks.get(environment, ())


class _Host:
    """The shares of one host, and what they lead to."""

    def __init__(
        self,
        name: str,
        shares: Sequence[_Share],
        directory: _Directory,
        vos: Collection[str],
        only: bool,
    ) -> None:
        self._name = name
        self._directory = directory
        self._vos = vos
        self._only = vos if only else ()
        self._managers: dict[str, Entry] = {}
        self._environments: dict[str, Entry] = {}
        self._queues: defaultdict[str, list[_Share]] = defaultdict(list)
        for share in sorted(shares, key=lambda share: (share.queue, share.identity)):
            self._managers.update(directory.managers(share))
            self._environments.update(directory.environments(share))
            self._queues[share.queue].append(share)

    def published(self, problems: list[str]) -> PublishedHost:
        """All of it under GridWay's names."""
        if not self._environments:
            problems.append(f"host {self._name}: its shares lead to no GLUE2ExecutionEnvironment")
        shares = [share for group in self._queues.values() for share in group]
        counted = Counter(map(self._batch_system, shares))
        manager, lrms_type = min(counted, key=lambda key: (-counted[key], key))
        largest = min(
            self._environments,
            key=lambda key: (-_cpus(self._environments[key]), key),
            default="",
        )
        nodes = self._environments.get(largest, {})
        memory = min(
            (
                size
                for environment in self._environments.values()
                if (size := _limit(environment, "glue2executionenvironmentmainmemorysize"))
            ),
            default=None,
        )
        platform = _text(nodes, "glue2executionenvironmentplatform") or ""
        host: dict[str, Known] = {
            "HOSTNAME": self._name,
            "ARCH": ARCHITECTURES.get(platform.lower(), platform) or None,
            "NODECOUNT": self._node_count(),
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
        queues = {name: self._queue(name, group) for name, group in self._queues.items()}
        return PublishedHost(host, queues, self._more(shares, largest))

    def _batch_system(self, share: _Share) -> tuple[str, str]:
        """LRMS_NAME and LRMS_TYPE as a share has them."""
        products = sorted(
            product
            for entry in self._directory.managers(share).values()
            if (product := _text(entry, "glue2managerproductname"))
        )
        product = products[0] if products else ""
        prefix = "nordugrid"
        if not self._directory.is_arc(share):
            interfaces = sorted(
                text_of(endpoint, "glue2endpointinterfacename").rpartition(".")[2].lower()
                for endpoint in self._directory.endpoints(share).values()
            )
            prefix = interfaces[0] if interfaces else ""
        return "-".join(part for part in (prefix, product) if part), product.lower()

    def _node_count(self) -> int | None:
        slots = max(map(_slots, self._managers.values()), default=0)
        return slots or sum(map(_cpus, self._environments.values())) or None

    def _more(self, shares: Sequence[_Share], environment: str) -> dict[str, Attribute]:
        more: dict[str, Attribute] = {}
        for manager in self._managers.values():
            size = _limit(manager, "glue2computingmanagerworkingareatotal")
            if size and size * 1024 > int(more.get("SIZE_DISK_MB", 0)):
                free = state_of(manager, "glue2computingmanagerworkingareafree")
                more["SIZE_DISK_MB"] = size * 1024
                more["FREE_DISK_MB"] = (free or 0) * 1024
        sites = [site for share in shares if (site := self._directory.site(share.service))]
        if sites:
            more["SITE_NAME"] = sites[0]
        for benchmark in self._directory.benchmarks(environment):
            match = _VALUE.fullmatch(text_of(benchmark, "glue2benchmarkvalue"))
            kind = text_of(benchmark, "glue2benchmarktype").lower().replace("-", "")
            value = float(match[1]) if match else 0.0
            if kind in ("hepspec", "hepspec06"):
                kind, value = "specint2000", value * SPEC_INT_OF_HEPSPEC
            name = {"specint2000": "SPEC_INT", "specfp2000": "SPEC_FLOAT"}.get(kind)
            if name and round(value):
                more[name] = round(value)
        return more

    def _queue(self, name: str, group: Sequence[_Share]) -> dict[str, Known]:
        """One queue of the shares that map to it."""
        chosen = [share for share in group if self._vos and lets_in(share.rules, self._vos)]
        chosen = chosen or [share for share in group if not share.rules] or list(group)
        entries = [share.entry for share in chosen]

        def largest(read: Callable[[Entry], int | None]) -> int | None:
            return max((value for e in entries if (value := read(e)) is not None), default=None)

        def total(attribute: str) -> int | None:
            known = [value for e in entries if (value := state_of(e, attribute)) is not None]
            return sum(known) if known else None

        slots = largest(lambda e: _limit(e, "glue2computingsharemaxrunningjobs"))
        if slots is None:
            managers = [m for s in chosen for m in self._directory.managers(s).values()]
            slots = max(map(_slots, managers), default=0) or None
        waiting = total("glue2computingsharewaitingjobs")
        rules = [rule for share in group for rule in share.rules]
        queue: dict[str, Known] = {
            "QUEUE_NAME": name,
            "QUEUE_NODECOUNT": slots,
            "QUEUE_FREENODECOUNT": largest(lambda e: _free(e, slots)),
            "QUEUE_MAXTIME": largest(lambda e: _minutes(e, "walltime")),
            "QUEUE_MAXCPUTIME": largest(lambda e: _minutes(e, "cputime")),
            "QUEUE_MAXJOBSINQUEUE": largest(_max_jobs),
            "QUEUE_MAXRUNNINGJOBS": largest(
                lambda e: quantity_of(e, "glue2computingsharemaxrunningjobs")
            ),
            "QUEUE_STATUS": self._status(chosen),
            "QUEUE_DISPATCHTYPE": "batch",
            "QUEUE_PRIORITY": None,
            "QUEUE_JOBWAIT": None if waiting is None else str(waiting),
            "QUEUE_ACCESS": access(rules, self._only) or None,
            "QUEUE_MAXCOUNT": largest(
                lambda e: quantity_of(e, "glue2computingsharemaxslotsperjob")
            ),
        }
        running = total("glue2computingsharerunningjobs")
        if running is not None:
            queue["QUEUE_JOBRUN"] = running
        response_time = largest(
            lambda e: state_of(e, "glue2computingshareestimatedaveragewaitingtime")
        )
        if response_time is not None:
            queue["QUEUE_RESPONSETIME"] = response_time
        return queue

    def _status(self, shares: Iterable[_Share]) -> str | None:
        """The best state of these shares."""
        states = {state for share in shares if (state := self._state(share))}
        return next((state for state in STATES if state in states), min(states, default=None))

    def _state(self, share: _Share) -> str:
        endpoints = self._directory.endpoints(share).values()
        health = {text_of(e, "glue2endpointhealthstate").lower() for e in endpoints}
        if health == {"critical"}:
            return "Closed"
        own = [_text(share.entry, "glue2computingshareservingstate") or ""]
        names = own + sorted(text_of(e, "glue2endpointservingstate") for e in endpoints)
        return next((name.capitalize() for name in names if name), "")


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


def _urn_host(identity: str) -> str | None:
    match = _URN_HOST.match(identity)
    return host_name(match[1]) if match else None


def _text(entry: Entry, name: str) -> str | None:
    text = text_of(entry, name)
    return None if not text or text.lower() in _PLACEHOLDERS else text


def _limit(entry: Entry, name: str) -> int | None:
    """A quantity that somebody set."""
    number = quantity_of(entry, name)
    return None if number is None or number >= UNSET else number


def _cpus(environment: Entry) -> int:
    instances = _limit(environment, "glue2executionenvironmenttotalinstances")
    return (instances or 0) * (_limit(environment, "glue2executionenvironmentlogicalcpus") or 0)


def _slots(manager: Entry) -> int:
    slots = _limit(manager, "glue2computingmanagertotalslots")
    return slots or _limit(manager, "glue2computingmanagertotallogicalcpus") or 0


def _free(share: Entry, slots: int | None) -> int | None:
    free = state_of(share, "glue2computingsharefreeslots")
    if free is not None:
        return free
    counts = [
        int(match[1])
        for text in texts_of(share, "glue2computingsharefreeslotswithduration")
        for part in text.split()
        if (match := _FREE_SLOTS.fullmatch(part))
    ]
    if counts:
        return sum(counts)
    used = state_of(share, "glue2computingshareusedslots")
    return max(0, slots - used) if slots is not None and used is not None else None


def _minutes(share: Entry, kind: str) -> int | None:
    seconds = quantity_of(
        share, f"glue2computingsharemax{kind}", f"glue2computingsharedefault{kind}"
    )
    if seconds is None or seconds >= UNSET:
        return seconds
    return max(1, seconds // 60)


def _max_jobs(share: Entry) -> int | None:
    most = quantity_of(share, "glue2computingsharemaxtotaljobs")
    if most is not None:
        return most
    running = number_of(share, "glue2computingsharemaxrunningjobs")
    waiting = number_of(share, "glue2computingsharemaxwaitingjobs")
    if running is None or waiting is None:
        return None
    return min(UNSET, running + waiting) or None
