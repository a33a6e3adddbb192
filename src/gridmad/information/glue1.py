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
    quantity_of,
    state_of,
    text_of,
    texts_of,
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
        host = host_of(entry)
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
    if name := host_name(text_of(ce, "glueceinfohostname")):
        return name
    return host_name(text_of(ce, "glueceuniqueid").partition("/")[0].partition(":")[0])


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

    __slots__ = ("entry", "identity", "key", "lrms_type", "manager", "queue")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.identity = text_of(entry, "glueceuniqueid")
        self.key = self.identity.lower()
        self.lrms_type = text_of(entry, "glueceinfolrmstype").lower()
        path = self.identity.partition("/")[2]
        self.queue = text_of(entry, "gluecename")
        if self.queue and path.lower().endswith("-" + self.queue.lower()):
            self.manager = path[: -len(self.queue) - 1]
        elif self.queue:
            self.manager = path
        else:
            # Without a name of its own the queue is what follows <service>-<batch system>-.
            parts = path.split("-", 2)
            self.manager = "-".join(parts[:2])
            self.queue = parts[2] if len(parts) > 2 else ""


class _Directory:
    """The entries that CEs refer to, by the keys that lead to them."""

    def __init__(
        self, entries: Mapping[str, Iterable[Entry]], vos: frozenset[str], only: bool
    ) -> None:
        self._vos = vos
        self._only = vos if only else frozenset[str]()
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

    def clusters(self, host: str, ce: _CE) -> list[str]:
        """The keys that may lead to the nodes of a CE, the likeliest first."""
        return [*cluster_keys(ce.entry), *self._clusters_of.get(ce.key, ()), host]

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
        rules = _rules(ce.entry)
        if self._only:
            rules += [rule for view in self._chosen(ce) for rule in _rules(view)]
        return access(rules, self._only)

    def free_slots(self, ce: _CE) -> int | None:
        """What the views of the VOs show, else what the CE shows, else the largest view."""
        if self._vos:
            known = [free for view in self._chosen(ce) if (free := _free(view)) is not None]
            if known:
                return max(known)
        free = _free(ce.entry)
        if free is None:
            known = [free for view in self._views_of(ce) if (free := _free(view)) is not None]
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
    counted = Counter([(ce.manager, ce.lrms_type) for ce in ces])
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
    keys = [directory.clusters(host, ce) for ce in ces]
    clusters = dict.fromkeys(key for some in keys for key in some)
    sub_clusters: dict[str, Entry] = {}
    for some in keys:
        sub_clusters.update(directory.sub_clusters(some))
    if not sub_clusters:
        problems.append(f"host {host}: no GlueSubCluster belongs to {' or '.join(clusters)}")
    cpus = {
        key: quantity_of(entry, "gluesubclusterlogicalcpus") or 0
        for key, entry in sub_clusters.items()
    }
    largest = min(cpus, key=lambda key: (-cpus[key], key), default="")
    nodes: Entry = sub_clusters.get(largest, {})
    memory = quantity_of(nodes, "gluehostmainmemoryramsize")
    release = text_of(nodes, "gluehostoperatingsystemrelease")
    total_cpus = max(quantity_of(ce.entry, "glueceinfototalcpus") or 0 for ce in ces)
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
    if site := directory.site(clusters):
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
    entry = ce.entry
    slots = quantity_of(entry, "gluecepolicyassignedjobslots")
    if slots is None or slots == UNSET:
        slots = quantity_of(entry, "glueceinfototalcpus")
    waiting = state_of(entry, "gluecestatewaitingjobs")
    queue: dict[str, Known] = {
        "QUEUE_NAME": ce.queue,
        "QUEUE_NODECOUNT": slots,
        "QUEUE_FREENODECOUNT": directory.free_slots(ce),
        "QUEUE_MAXTIME": quantity_of(
            entry, "gluecepolicymaxwallclocktime", "gluecepolicymaxobtainablewallclocktime"
        ),
        "QUEUE_MAXCPUTIME": quantity_of(
            entry, "gluecepolicymaxcputime", "gluecepolicymaxobtainablecputime"
        ),
        "QUEUE_MAXJOBSINQUEUE": quantity_of(entry, "gluecepolicymaxtotaljobs"),
        "QUEUE_MAXRUNNINGJOBS": quantity_of(entry, "gluecepolicymaxrunningjobs"),
        "QUEUE_STATUS": text_of(entry, "gluecestatestatus") or None,
        "QUEUE_DISPATCHTYPE": "batch",
        "QUEUE_PRIORITY": text_of(entry, "gluecepolicypriority") or None,
        "QUEUE_JOBWAIT": None if waiting is None else str(waiting),
        "QUEUE_ACCESS": directory.access(ce) or None,
        "QUEUE_MAXCOUNT": quantity_of(entry, "gluecepolicymaxslotsperjob"),
    }
    running = state_of(entry, "gluecestaterunningjobs")
    if running is not None:
        queue["QUEUE_JOBRUN"] = running
    response_time = state_of(entry, "gluecestateestimatedresponsetime")
    if response_time is not None:
        queue["QUEUE_RESPONSETIME"] = response_time
    return queue


def _rules(entry: Entry) -> list[str]:
    return texts_of(entry, "glueceaccesscontrolbaserule")


def _free(entry: Entry) -> int | None:
    """The free slots that a CE or a view shows."""
    slots = state_of(entry, "gluecestatefreejobslots")
    return state_of(entry, "gluecestatefreecpus") if slots is None else slots


def _size(file_system: Entry) -> int | None:
    return _megabytes(file_system, "gluehostlocalfilesystemsize")


def _megabytes(file_system: Entry, name: str) -> int | None:
    number = quantity_of(file_system, name)
    size = quantity_of(file_system, "gluehostlocalfilesystemsize") or 0
    return number >> 20 if number and size >= SMALLEST_FILE_SYSTEM else number
