"""GLUE 1.3 entries to host attributes.

    GlueCE --GlueForeignKey--> GlueCluster <--GlueChunkKey-- GlueSubCluster
    GlueCE <--GlueChunkKey-- GlueVOView
    GlueSubCluster <--GlueChunkKey-- GlueHostLocalFileSystem

A host is what the CEs of one host name have in common, each CE is one of its queues.  What
a site does not publish is 0 or "", and nothing here raises for what is absent or broken.
Source: the GLUE schema 1.3 and the attributes of GridWay 5.14's developers' guide.
No I/O happens here.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gridmad._glue import keys_of
from gridmad.information.glue import (
    UNSET,
    Decoded,
    Known,
    PublishedHost,
    access,
    access_of,
    decoded,
    host_name,
    lets_in,
    numbers_of,
    quantity_of,
    state,
    text_of,
    texts_of,
    words_of,
)
from gridmad.information.ldap import Entry, Search
from gridmad.information.model import Attribute

SMALLEST_FILE_SYSTEM = 100_000_000
"""The schema wants bytes, many publish MB; nothing below this is a file system in bytes."""

SEARCHES: Mapping[str, Search] = {
    search.object_class: search
    for search in (
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
    )
}
"""What to ask a directory for, by object class."""


def decode(
    entries: Mapping[str, Iterable[Entry]], vos: Iterable[str] = (), *, only: bool = False
) -> Decoded:
    """The hosts that `entries`, by object class, describe, their queues sorted by name.

    Free slots are those that the views of `vos` show, where some are named.  With `only`, a
    queue whose rules let none of them in is left out, and QUEUE_ACCESS tells of no others.
    """
    directory = _Directory(entries, frozenset(vo.lower() for vo in vos), only)
    problems: list[str] = []
    ces: defaultdict[str, dict[str, _CE]] = defaultdict(dict)
    for entry in entries.get("GlueCE", ()):
        ce = _CE(entry)
        host = ce.host
        if host is None:
            problems.append(f"GlueCEUniqueID {ce.identity!r} names no host: left out")
        elif ce.key in ces[host]:
            # A top-level directory may hold an entry twice, below two sites.
            problems.append(f"GlueCEUniqueID {ce.identity!r} is published twice: the first counts")
        elif directory.is_open(ce):
            ces[host][ce.key] = ce
    hosts = {}
    for name in sorted(ces):
        if host_ces := ces[name]:
            hosts[name] = _host(name, list(host_ces.values()), directory, problems)
    return Decoded(hosts, problems)


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
        "entry",
        "host",
        "identity",
        "key",
        "lrms_type",
        "manager",
        "numbers",
        "priority",
        "queue",
        "status",
    )

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.identity = text_of(entry, "glueceuniqueid")
        self.key = self.identity.lower()
        host, self.queue, lrms_type, self.status, self.priority = words_of(entry, _WORDS)
        self.host = _host_of(host, self.identity)
        self.lrms_type = lrms_type.lower()
        self.numbers = _Numbers._make(numbers_of(entry, _NUMBERS))
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
_WORDS = (
    "glueceinfohostname",
    "gluecename",
    "glueceinfolrmstype",
    "gluecestatestatus",
    "gluecepolicypriority",
)


class _Directory:
    """The entries that CEs refer to, by the keys that lead to them."""

    def __init__(
        self, entries: Mapping[str, Iterable[Entry]], vos: frozenset[str], only: bool
    ) -> None:
        self._vos = vos
        self._only = vos if only else frozenset[str]()
        self._cluster_keys: dict[tuple[bytes, ...], list[str]] = {}
        self._view_entries = entries.get("GlueVOView", ())
        self._views: dict[str, list[Entry]] | None = None
        self._clusters_of: defaultdict[str, list[str]] = defaultdict(list)
        self._sites: dict[str, str] = {}
        for cluster in entries.get("GlueCluster", ()):
            identity = text_of(cluster, "glueclusteruniqueid").lower()
            for value in cluster.get("glueforeignkey", ()):
                kind, _, target = decoded(value).partition("=")
                if kind.lower() == "glueceuniqueid":
                    self._clusters_of[target.lower()].append(identity)
                elif kind.lower() == "gluesiteuniqueid" and target:
                    self._sites.setdefault(identity, target)
        self._sub_clusters: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        for sub_cluster in entries.get("GlueSubCluster", ()):
            identity = text_of(sub_cluster, "gluesubclusteruniqueid").lower()
            for key in keys_of(sub_cluster, "gluechunkkey", "glueclusteruniqueid"):
                self._sub_clusters[key].setdefault(identity, sub_cluster)
        self._file_systems: dict[str, Entry] = {}
        for file_system in entries.get("GlueHostLocalFileSystem", ()):
            for key in keys_of(file_system, "gluechunkkey", "gluesubclusteruniqueid"):
                largest = self._file_systems.setdefault(key, file_system)
                if (_size(file_system) or 0) > (_size(largest) or 0):
                    self._file_systems[key] = file_system

    def clusters(self, host: str, ce: _CE) -> tuple[str, ...]:
        """The keys that may lead to the nodes of a CE, the likeliest first."""
        # The CEs of a host have the same.
        written = (*ce.entry.get("glueforeignkey", ()), *ce.entry.get("gluecehostingcluster", ()))
        keys = self._cluster_keys.get(written)
        if keys is None:
            keys = self._cluster_keys[written] = cluster_keys(ce.entry)
        return (*keys, *self._clusters_of.get(ce.key, ()), host)

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

    def is_open(self, ce: _CE) -> bool:
        """Whether the VOs that alone count may use a CE, as far as its rules and views tell."""
        if not self._only:
            return True
        rules = _rules(ce.entry)
        return not rules or lets_in(rules, self._only) or bool(self._chosen(ce))

    def access(self, ce: _CE) -> str:
        """Who may use a CE."""
        if not self._only:
            return access_of(ce.entry, "glueceaccesscontrolbaserule")
        rules = [rule for entry in (ce.entry, *self._chosen(ce)) for rule in _rules(entry)]
        return access(rules, self._only)

    def free_slots(self, ce: _CE) -> int | None:
        """What the views of the VOs show, else what the CE shows, else the largest view."""
        if self._vos:
            known = [free for view in self._chosen(ce) if (free := _free_of(view)) is not None]
            if known:
                return max(known)
        free = _free(ce.numbers.free_slots, ce.numbers.free_cpus)
        if free is None:
            known = [free for view in self._views_of(ce) if (free := _free_of(view)) is not None]
            return max(known, default=None)
        return free

    def _chosen(self, ce: _CE) -> list[Entry]:
        return [view for view in self._views_of(ce) if lets_in(_rules(view), self._vos)]

    def _views_of(self, ce: _CE) -> Sequence[Entry]:
        if self._views is None:
            # Most of the entries there are, and most directories are asked for no VO.
            self._views = defaultdict(list)
            for view in self._view_entries:
                for key in keys_of(view, "gluechunkkey", "glueceuniqueid"):
                    self._views[key].append(view)
        return self._views.get(ce.key, ())


def _host(
    host: str, ces: Sequence[_CE], directory: _Directory, problems: list[str]
) -> PublishedHost:
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
    clusters = dict.fromkeys(directory.clusters(host, ce) for ce in ces)
    sub_clusters: dict[str, Entry] = {}
    for keys in clusters:
        sub_clusters.update(directory.sub_clusters(keys))
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
    file_system = directory.file_system(largest)
    if size := _size(file_system):
        free = _megabytes(file_system, "gluehostlocalfilesystemavailablespace")
        more["SIZE_DISK_MB"] = size
        more["FREE_DISK_MB"] = free or 0
    if release:
        more["OS_RELEASE"] = release
    if site := directory.site(key for keys in clusters for key in keys):
        more["SITE_NAME"] = site
    for name, published in (
        ("SPEC_INT", "gluehostbenchmarksi00"),
        ("SPEC_FLOAT", "gluehostbenchmarksf00"),
    ):
        if value := quantity_of(nodes, published):
            more[name] = value
    queue_attributes = {name: _queue(ce, directory) for name, ce in queues.items()}
    return PublishedHost(attributes, queue_attributes, more)


def _queue(ce: _CE, directory: _Directory) -> dict[str, Known]:
    numbers = ce.numbers
    slots = numbers.assigned_slots
    if not slots or slots == UNSET:
        slots = numbers.total_cpus
    waiting = state(numbers.waiting_jobs)
    queue: dict[str, Known] = {
        "QUEUE_NAME": ce.queue,
        "QUEUE_NODECOUNT": slots or None,
        "QUEUE_FREENODECOUNT": directory.free_slots(ce),
        "QUEUE_MAXTIME": numbers.max_wall_time or numbers.max_obtainable_wall_time or None,
        "QUEUE_MAXCPUTIME": numbers.max_cpu_time or numbers.max_obtainable_cpu_time or None,
        "QUEUE_MAXJOBSINQUEUE": numbers.max_total_jobs or None,
        "QUEUE_MAXRUNNINGJOBS": numbers.max_running_jobs or None,
        "QUEUE_STATUS": ce.status or None,
        "QUEUE_DISPATCHTYPE": "batch",
        "QUEUE_PRIORITY": ce.priority or None,
        "QUEUE_JOBWAIT": None if waiting is None else str(waiting),
        "QUEUE_ACCESS": directory.access(ce) or None,
        "QUEUE_MAXCOUNT": numbers.max_slots_per_job or None,
    }
    running = state(numbers.running_jobs)
    if running is not None:
        queue["QUEUE_JOBRUN"] = running
    response_time = state(numbers.response_time)
    if response_time is not None:
        queue["QUEUE_RESPONSETIME"] = response_time
    return queue


def _rules(entry: Entry) -> list[str]:
    return texts_of(entry, "glueceaccesscontrolbaserule")


def _free(slots: int | None, cpus: int | None) -> int | None:
    """The free slots that a CE or a view shows."""
    known = state(slots)
    return state(cpus) if known is None else known


def _free_of(view: Entry) -> int | None:
    return _free(*numbers_of(view, _FREE))


def _size(file_system: Entry) -> int | None:
    return _megabytes(file_system, "gluehostlocalfilesystemsize")


def _megabytes(file_system: Entry, name: str) -> int | None:
    number = quantity_of(file_system, name)
    size = quantity_of(file_system, "gluehostlocalfilesystemsize") or 0
    return number >> 20 if number and size >= SMALLEST_FILE_SYSTEM else number
