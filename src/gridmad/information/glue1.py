"""GLUE 1.3 entries to host attributes.

    GlueCE --GlueForeignKey--> GlueCluster <--GlueChunkKey-- GlueSubCluster
    GlueCE <--GlueChunkKey-- GlueVOView
    GlueSubCluster <--GlueChunkKey-- GlueHostLocalFileSystem

A host is what the CEs of one host name have in common, each CE is one of its queues.  What
a site does not publish is 0 or "", and nothing here raises for what is absent or broken.
Source: the GLUE schema 1.3 and the attributes of GridWay 5.14's developers' guide.

Entries are joined as they come, so that the directory is at work meanwhile: what CEs refer to
comes before them, and the many views, which few hosts need, at the end.  No I/O happens here.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from gridmad._glue import keys_of
from gridmad.information.glue import (
    UNSET,
    Decoded,
    Known,
    PublishedHost,
    access,
    decoded,
    host_name,
    lets_in,
    numbers_of,
    quantity_of,
    state,
    text_of,
    words_of,
)
from gridmad.information.ldap import Entry, Search
from gridmad.information.model import Attribute

SMALLEST_FILE_SYSTEM = 100_000_000
"""The schema wants bytes, many publish MB; nothing below this is a file system in bytes."""
VIEWS_FOR_A_HOST = 5
"""Views that a server finds in the time in which a host is joined."""

SEARCHES: Mapping[str, Search] = {
    search.object_class: search
    for search in (
        Search("GlueCluster", ("GlueClusterUniqueID", "GlueForeignKey")),
        Search(
            "GlueSubCluster",
            (
                "GlueSubClusterUniqueID",
                "GlueChunkKey",
                "GlueSubClusterLogicalCPUs",
                "GlueHostArchitecturePlatformType",
                "GlueHostArchitectureSMPSize",
                "GlueHostOperatingSystemName",
                "GlueHostOperatingSystemRelease",
                "GlueHostOperatingSystemVersion",
                "GlueHostProcessorModel",
                "GlueHostProcessorClockSpeed",
                "GlueHostMainMemoryRAMSize",
                "GlueHostMainMemoryRAMAvailable",
                "GlueHostBenchmarkSI00",
                "GlueHostBenchmarkSF00",
            ),
        ),
        Search(
            "GlueHostLocalFileSystem",
            (
                "GlueChunkKey",
                "GlueHostLocalFileSystemSize",
                "GlueHostLocalFileSystemAvailableSpace",
            ),
        ),
        Search(
            "GlueCE",
            (
                "GlueCEUniqueID",
                "GlueCEName",
                "GlueCEHostingCluster",
                "GlueForeignKey",
                "GlueCEInfoHostName",
                "GlueCEInfoLRMSType",
                "GlueCEInfoTotalCPUs",
                "GlueCEStateStatus",
                "GlueCEStateFreeCPUs",
                "GlueCEStateFreeJobSlots",
                "GlueCEStateRunningJobs",
                "GlueCEStateWaitingJobs",
                "GlueCEStateEstimatedResponseTime",
                "GlueCEPolicyAssignedJobSlots",
                "GlueCEPolicyMaxWallClockTime",
                "GlueCEPolicyMaxObtainableWallClockTime",
                "GlueCEPolicyMaxCPUTime",
                "GlueCEPolicyMaxObtainableCPUTime",
                "GlueCEPolicyMaxSlotsPerJob",
                "GlueCEPolicyMaxRunningJobs",
                "GlueCEPolicyMaxTotalJobs",
                "GlueCEPolicyPriority",
                "GlueCEAccessControlBaseRule",
            ),
        ),
        Search(
            "GlueVOView",
            (
                "GlueVOViewLocalID",
                "GlueChunkKey",
                "GlueCEAccessControlBaseRule",
                "GlueCEStateFreeCPUs",
                "GlueCEStateFreeJobSlots",
            ),
        ),
    )
}
"""What to ask a directory for, by object class, in the order in which a Join takes them."""


IsWanted = Callable[[str, Iterable[Sequence[str]]], bool]
"""Whether a host is, by its name and the clusters that each of its CEs names."""


def any_host(_name: str, _clusters: Iterable[Sequence[str]]) -> bool:
    """Every host is wanted."""
    return True


def host_of(ce: Entry) -> str | None:
    """The host of a GlueCE entry in lower case, None where it names none."""
    return _host_of(text_of(ce, "glueceinfohostname"), text_of(ce, "glueceuniqueid"))


def _host_of(name: str, identity: str) -> str | None:
    return host_name(name) or host_name(identity.partition("/")[0].partition(":")[0])


def cluster_keys(ce: Entry) -> list[str]:
    """The clusters that a GlueCE entry names, in lower case, the likeliest first."""
    keys = keys_of(ce, "glueforeignkey", "glueclusteruniqueid")
    hosting = text_of(ce, "gluecehostingcluster").lower()
    return [*keys, hosting] if hosting and hosting not in keys else keys


class _CE:
    """A GlueCE entry with the names that its identity holds.

    `host:port/jobmanager-lcgpbs-my-queue` with the queue `my-queue` is managed by
    `jobmanager-lcgpbs`: names of queues contain dashes, so the queue is taken off the end.
    """

    __slots__ = (
        "clusters",
        "free_slots",
        "host",
        "identity",
        "key",
        "lrms_type",
        "manager",
        "numbers",
        "priority",
        "queue",
        "rules",
        "status",
    )

    def __init__(self, entry: Entry, clusters: Sequence[str]) -> None:
        host, self.identity, self.queue, lrms_type, self.status, self.priority = words_of(
            entry, _WORDS
        )
        self.clusters = clusters
        self.rules = tuple(entry.get(_RULES, ()))
        self.key = self.identity.lower()
        self.host = _host_of(host, self.identity)
        self.lrms_type = lrms_type.lower()
        self.numbers = _Numbers._make(numbers_of(entry, _NUMBERS))
        self.free_slots = _free(self.numbers.free_slots, self.numbers.free_cpus)
        path = self.identity.partition("/")[2]
        if self.queue and path.lower().endswith("-" + self.queue.lower()):
            self.manager = path[: -len(self.queue) - 1]
        elif self.queue:
            self.manager = path
        else:
            # Without a name of its own the queue is what follows <service>-<batch system>-.
            parts = path.split("-", 2)
            self.manager = "-".join(parts[:2])
            self.queue = parts[2] if len(parts) > 2 else ""


class _Numbers(NamedTuple):
    """The numbers of a GlueCE entry, each None where it is not there."""

    assigned_slots: int | None
    total_cpus: int | None
    free_slots: int | None
    free_cpus: int | None
    max_wall_time: int | None
    max_obtainable_wall_time: int | None
    max_cpu_time: int | None
    max_obtainable_cpu_time: int | None
    max_total_jobs: int | None
    max_running_jobs: int | None
    max_slots_per_job: int | None
    waiting_jobs: int | None
    running_jobs: int | None
    response_time: int | None


_NUMBERS = (
    "gluecepolicyassignedjobslots",
    "glueceinfototalcpus",
    "gluecestatefreejobslots",
    "gluecestatefreecpus",
    "gluecepolicymaxwallclocktime",
    "gluecepolicymaxobtainablewallclocktime",
    "gluecepolicymaxcputime",
    "gluecepolicymaxobtainablecputime",
    "gluecepolicymaxtotaljobs",
    "gluecepolicymaxrunningjobs",
    "gluecepolicymaxslotsperjob",
    "gluecestatewaitingjobs",
    "gluecestaterunningjobs",
    "gluecestateestimatedresponsetime",
)
"""Where a _Numbers is from, in its order."""
_FREE = ("gluecestatefreejobslots", "gluecestatefreecpus")
_RULES = "glueceaccesscontrolbaserule"
_WORDS = (
    "glueceinfohostname",
    "glueceuniqueid",
    "gluecename",
    "glueceinfolrmstype",
    "gluecestatestatus",
    "gluecepolicypriority",
)


class _View(NamedTuple):
    """A GlueVOView: what a CE is for some of its users."""

    free_slots: int | None
    rules: Sequence[bytes]


class Join:
    """Entries to hosts.  `take` gets them in pages, class by class in the order of SEARCHES."""

    def __init__(
        self, vos: Iterable[str] = (), *, only: bool = False, is_wanted: IsWanted = any_host
    ) -> None:
        """Free slots are those that the views of `vos` show, where some are named.  With `only`,
        a queue whose rules let none of them in is left out, and QUEUE_ACCESS tells of no others.
        """
        self._vos = frozenset(vo.lower() for vo in vos)
        self._only = self._vos if only else frozenset[str]()
        self._is_wanted = is_wanted
        self._hosts: dict[str, PublishedHost] = {}
        self._problems: list[str] = []
        self._ces: defaultdict[str, dict[str, _CE]] = defaultdict(dict)
        self._cluster_keys: dict[tuple[bytes, ...], Sequence[str]] = {}
        self._accesses: dict[tuple[bytes, ...], str] = {}
        self._clusters_of: defaultdict[str, list[str]] = defaultdict(list)
        self._sites: dict[str, str] = {}
        self._sub_clusters: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        self._file_systems: dict[str, Entry] = {}
        self._views: defaultdict[str, list[_View]] = defaultdict(list)
        self._free_of_views: set[str] = set()
        """CEs that do not tell themselves how many slots are free."""
        self._take: Mapping[str, Callable[[Sequence[Entry]], None]] = {
            "GlueCluster": self._take_clusters,
            "GlueSubCluster": self._take_sub_clusters,
            "GlueHostLocalFileSystem": self._take_file_systems,
            "GlueCE": self._take_ces,
            "GlueVOView": self._take_views,
        }

    def take(self, object_class: str, entries: Sequence[Entry]) -> None:
        """Further entries of a class."""
        self._take[object_class](entries)

    def finish(self) -> Decoded:
        """The hosts that all entries describe, their queues sorted by name."""
        self._join(len(self._ces))
        return Decoded({name: self._hosts[name] for name in sorted(self._hosts)}, self._problems)

    # ------------------------------------------------------------ entries

    def _take_clusters(self, entries: Iterable[Entry]) -> None:
        for cluster in entries:
            identity = text_of(cluster, "glueclusteruniqueid").lower()
            for value in cluster.get("glueforeignkey", ()):
                kind, _, target = decoded(value).partition("=")
                if kind.lower() == "glueceuniqueid":
                    self._clusters_of[target.lower()].append(identity)
                elif kind.lower() == "gluesiteuniqueid" and target:
                    self._sites.setdefault(identity, target)

    def _take_sub_clusters(self, entries: Iterable[Entry]) -> None:
        for sub_cluster in entries:
            identity = text_of(sub_cluster, "gluesubclusteruniqueid").lower()
            for key in keys_of(sub_cluster, "gluechunkkey", "glueclusteruniqueid"):
                self._sub_clusters[key].setdefault(identity, sub_cluster)

    def _take_file_systems(self, entries: Iterable[Entry]) -> None:
        for file_system in entries:
            for key in keys_of(file_system, "gluechunkkey", "gluesubclusteruniqueid"):
                largest = self._file_systems.setdefault(key, file_system)
                if (_size(file_system) or 0) > (_size(largest) or 0):
                    self._file_systems[key] = file_system

    def _take_ces(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            ce = _CE(entry, self._named_clusters(entry))
            if ce.host is None:
                self._problems.append(f"GlueCEUniqueID {ce.identity!r} names no host: left out")
            elif ce.key in (ces := self._ces[ce.host]):
                # A top-level directory may hold an entry twice, below two sites.
                self._problems.append(
                    f"GlueCEUniqueID {ce.identity!r} is published twice: the first counts"
                )
            else:
                ces[ce.key] = ce
                if ce.free_slots is None:
                    self._free_of_views.add(ce.key)

    def _named_clusters(self, ce: Entry) -> Sequence[str]:
        # The CEs of a host have the same.
        written = (*ce.get("glueforeignkey", ()), *ce.get("gluecehostingcluster", ()))
        keys = self._cluster_keys.get(written)
        if keys is None:
            keys = self._cluster_keys[written] = cluster_keys(ce)
        return keys

    def _take_views(self, entries: Sequence[Entry]) -> None:
        if self._vos or self._free_of_views:
            for view in entries:
                for key in keys_of(view, "gluechunkkey", "glueceuniqueid"):
                    if self._vos or key in self._free_of_views:
                        free = _free(*numbers_of(view, _FREE))
                        self._views[key].append(_View(free, view.get(_RULES, ())))
        else:
            # The directory is looking for the next page meanwhile.
            self._join(1 + len(entries) // VIEWS_FOR_A_HOST)

    # ------------------------------------------------------------ hosts

    def _join(self, count: int) -> None:
        """Make hosts of the CEs of so many, or of all."""
        while count and self._ces:
            count -= 1
            name, ces = self._ces.popitem()
            if self._is_wanted(name, [ce.clusters for ce in ces.values()]) and (
                open_ces := [ce for ce in ces.values() if self._is_open(ce)]
            ):
                self._hosts[name] = _host(name, open_ces, self, self._problems)

    def clusters(self, host: str, ce: _CE) -> tuple[str, ...]:
        """The keys that may lead to the nodes of a CE, the likeliest first."""
        return (*ce.clusters, *self._clusters_of.get(ce.key, ()), host)

    def sub_clusters(self, clusters: Iterable[str]) -> Mapping[str, Entry]:
        """The subclusters of the first key that leads to some, by identity."""
        for key in clusters:
            if found := self._sub_clusters.get(key):
                return found
        return {}

    def site(self, clusters: Iterable[str]) -> str:
        """The site of the first cluster that names one."""
        return next((self._sites[key] for key in clusters if key in self._sites), "")

    def file_system(self, sub_cluster: str) -> Entry:
        """The largest local file system of a subcluster."""
        return self._file_systems.get(sub_cluster, {})

    def _is_open(self, ce: _CE) -> bool:
        """Whether the VOs that alone count may use a CE, as far as its rules and views tell."""
        if not self._only:
            return True
        return not ce.rules or _lets_in(ce, self._only) or bool(self._chosen(ce))

    def access(self, ce: _CE) -> str:
        """Who may use a CE."""
        if not self._only:
            # Most CEs have the rules of others.
            known = self._accesses.get(ce.rules)
            if known is None:
                known = self._accesses[ce.rules] = access(map(decoded, ce.rules))
            return known
        rules = list(ce.rules)
        for view in self._chosen(ce):
            rules += view.rules
        return access(map(decoded, rules), self._only)

    def free_slots(self, ce: _CE) -> int | None:
        """What the views of the VOs show, else what the CE shows, else the largest view."""
        if self._vos:
            known = [view.free_slots for view in self._chosen(ce) if view.free_slots is not None]
            if known:
                return max(known)
        if ce.free_slots is not None:
            return ce.free_slots
        views = self._views.get(ce.key, ())
        return max((v.free_slots for v in views if v.free_slots is not None), default=None)

    def _chosen(self, ce: _CE) -> list[_View]:
        return [view for view in self._views.get(ce.key, ()) if _lets_in(view, self._vos)]


def _host(host: str, ces: Sequence[_CE], join: Join, problems: list[str]) -> PublishedHost:
    manager, lrms_type = ces[0].manager, ces[0].lrms_type
    if any(ce.manager != manager or ce.lrms_type != lrms_type for ce in ces):
        counted = Counter((ce.manager, ce.lrms_type) for ce in ces)
        # Of several managers on a host gwd can address one: that of most queues.
        manager, lrms_type = min(counted, key=lambda key: (-counted[key], key))
    queues: dict[str, _CE] = {}
    for ce in sorted(ces, key=lambda ce: (ce.queue, ce.manager != manager, ce.identity)):
        if not ce.queue:
            problems.append(f"GlueCEUniqueID {ce.identity!r} names no queue: left out")
        elif ce.queue in queues:
            problems.append(
                f"GlueCEUniqueID {ce.identity!r}: {host} has a queue {ce.queue} of "
                f"{queues[ce.queue].manager} already: left out"
            )
        else:
            queues[ce.queue] = ce
    clusters = dict.fromkeys(join.clusters(host, ce) for ce in ces)
    sub_clusters: dict[str, Entry] = {}
    for keys in clusters:
        sub_clusters.update(join.sub_clusters(keys))
    if not sub_clusters:
        problems.append(f"host {host}: no GlueSubCluster belongs to {min(clusters)[0]}")
    cpus = {
        key: quantity_of(entry, "gluesubclusterlogicalcpus") or 0
        for key, entry in sub_clusters.items()
    }
    largest = min(cpus, key=lambda key: (-cpus[key], key), default="")
    nodes: Entry = sub_clusters.get(largest, {})
    memory = quantity_of(nodes, "gluehostmainmemoryramsize")
    release = text_of(nodes, "gluehostoperatingsystemrelease")
    total_cpus = max(ce.numbers.total_cpus or 0 for ce in ces)
    attributes: dict[str, Known] = {
        "HOSTNAME": host,
        "ARCH": text_of(nodes, "gluehostarchitectureplatformtype") or None,
        "NODECOUNT": total_cpus or sum(cpus.values()) or None,
        "LRMS_NAME": manager or None,
        "LRMS_TYPE": lrms_type or None,
        "OS_NAME": text_of(nodes, "gluehostoperatingsystemname") or None,
        "OS_VERSION": text_of(nodes, "gluehostoperatingsystemversion") or release or None,
        "CPU_MODEL": text_of(nodes, "gluehostprocessormodel") or None,
        "CPU_MHZ": quantity_of(nodes, "gluehostprocessorclockspeed"),
        "CPU_SMP": quantity_of(nodes, "gluehostarchitecturesmpsize"),
        "FREE_MEM_MB": quantity_of(nodes, "gluehostmainmemoryramavailable") or memory,
        "SIZE_MEM_MB": memory,
    }
    more: dict[str, Attribute] = {}
    file_system = join.file_system(largest)
    if size := _size(file_system):
        free = _megabytes(file_system, "gluehostlocalfilesystemavailablespace")
        more["SIZE_DISK_MB"] = size
        more["FREE_DISK_MB"] = free or 0
    if release:
        more["OS_RELEASE"] = release
    if site := join.site(key for keys in clusters for key in keys):
        more["SITE_NAME"] = site
    for name, published in (
        ("SPEC_INT", "gluehostbenchmarksi00"),
        ("SPEC_FLOAT", "gluehostbenchmarksf00"),
    ):
        if value := quantity_of(nodes, published):
            more[name] = value
    queue_attributes = {name: _queue(ce, join) for name, ce in queues.items()}
    return PublishedHost(attributes, queue_attributes, more)


def _queue(ce: _CE, join: Join) -> dict[str, Known]:
    numbers = ce.numbers
    slots = numbers.assigned_slots
    if not slots or slots == UNSET:
        slots = numbers.total_cpus
    waiting = state(numbers.waiting_jobs)
    queue: dict[str, Known] = {
        "QUEUE_NAME": ce.queue,
        "QUEUE_NODECOUNT": slots or None,
        "QUEUE_FREENODECOUNT": join.free_slots(ce),
        "QUEUE_MAXTIME": numbers.max_wall_time or numbers.max_obtainable_wall_time or None,
        "QUEUE_MAXCPUTIME": numbers.max_cpu_time or numbers.max_obtainable_cpu_time or None,
        "QUEUE_MAXJOBSINQUEUE": numbers.max_total_jobs or None,
        "QUEUE_MAXRUNNINGJOBS": numbers.max_running_jobs or None,
        "QUEUE_STATUS": ce.status or None,
        "QUEUE_DISPATCHTYPE": "batch",
        "QUEUE_PRIORITY": ce.priority or None,
        "QUEUE_JOBWAIT": None if waiting is None else str(waiting),
        "QUEUE_ACCESS": join.access(ce) or None,
        "QUEUE_MAXCOUNT": numbers.max_slots_per_job or None,
    }
    running = state(numbers.running_jobs)
    if running is not None:
        queue["QUEUE_JOBRUN"] = running
    response_time = state(numbers.response_time)
    if response_time is not None:
        queue["QUEUE_RESPONSETIME"] = response_time
    return queue


def _lets_in(ruled: _CE | _View, vos: frozenset[str]) -> bool:
    return lets_in(map(decoded, ruled.rules), vos)


def _free(slots: int | None, cpus: int | None) -> int | None:
    """The free slots that a CE or a view shows."""
    known = state(slots)
    return state(cpus) if known is None else known


def _size(file_system: Entry) -> int | None:
    return _megabytes(file_system, "gluehostlocalfilesystemsize")


def _megabytes(file_system: Entry, name: str) -> int | None:
    number = quantity_of(file_system, name)
    size = quantity_of(file_system, "gluehostlocalfilesystemsize") or 0
    return number >> 20 if number and size >= SMALLEST_FILE_SYSTEM else number
