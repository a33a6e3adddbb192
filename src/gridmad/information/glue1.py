"""GLUE 1.3 entries to host attributes.

    GlueCE --GlueForeignKey--> GlueCluster <--GlueChunkKey-- GlueSubCluster
    GlueCE <--GlueChunkKey-- GlueVOView
    GlueSubCluster <--GlueChunkKey-- GlueHostLocalFileSystem

A host is what the CEs of one host name have in common, each CE is one of its queues.  What
a site does not publish is 0 or "", and nothing here raises for what is absent or broken.
Source: the GLUE schema 1.3 and the attributes of GridWay 5.14's developers' guide.
No I/O happens here.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gridmad.information.ldap import Entry, Search
from gridmad.information.model import Attribute, HostAttributes

UNSET = 999_999_999
"""A limit that nobody set."""
UNKNOWN = 444_444
"""A state that nobody knows."""
ROOMY = 60
"""Queues up to which there is room for all generic attributes: gwd takes 134 integers and
134 texts of a host, and each queue brings two of both."""
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

_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?", re.ASCII)
_INTEGER = re.compile(r"\s*([+-]?[0-9]{1,30})(?:\.[0-9]*)?\s*", re.ASCII)


class Decoded(NamedTuple):
    """Hosts by name, sorted, their queues sorted by name; and what could not be used."""

    hosts: dict[str, HostAttributes]
    problems: list[str]


def decode(entries: Mapping[str, Iterable[Entry]], vos: Iterable[str] = ()) -> Decoded:
    """The hosts that `entries`, by object class, describe.

    Free slots are those that the views of `vos` show, where some are named.
    """
    directory = _Directory(entries, frozenset(vo.lower() for vo in vos))
    problems: list[str] = []
    ces: defaultdict[str, dict[str, _CE]] = defaultdict(dict)
    for entry in entries.get("GlueCE", ()):
        identity = text_of(entry, "glueceuniqueid")
        host = host_of(entry)
        if host is None:
            problems.append(f"GlueCEUniqueID {identity!r} names no host: left out")
            continue
        # A top-level directory may hold an entry twice, below two sites.
        ces[host].setdefault(identity.lower(), _CE(entry, identity))
    hosts = {host: _host(host, list(ces[host].values()), directory) for host in sorted(ces)}
    return Decoded(hosts, problems)


def host_of(ce: Entry) -> str | None:
    """The host of a GlueCE entry in lower case, None where it names none."""
    identity = text_of(ce, "glueceuniqueid").partition("/")[0].partition(":")[0]
    for name in (text_of(ce, "glueceinfohostname"), identity):
        host = name.strip().rstrip(".").lower()
        if _HOST.fullmatch(host):
            return host
    return None


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

    __slots__ = ("entry", "identity", "manager", "queue")

    def __init__(self, entry: Entry, identity: str) -> None:
        self.entry = entry
        self.identity = identity
        path = identity.partition("/")[2]
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

    def __init__(self, entries: Mapping[str, Iterable[Entry]], vos: frozenset[str]) -> None:
        self._vos = vos
        self._views: defaultdict[str, list[Entry]] = defaultdict(list)
        for view in entries.get("GlueVOView", ()):
            for key in keys_of(view, "gluechunkkey", "glueceuniqueid"):
                self._views[key].append(view)
        self._clusters_of: defaultdict[str, list[str]] = defaultdict(list)
        for cluster in entries.get("GlueCluster", ()):
            for key in keys_of(cluster, "glueforeignkey", "glueceuniqueid"):
                self._clusters_of[key].append(text_of(cluster, "glueclusteruniqueid").lower())
        self._sub_clusters: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        for sub_cluster in entries.get("GlueSubCluster", ()):
            identity = text_of(sub_cluster, "gluesubclusteruniqueid").lower()
            for key in keys_of(sub_cluster, "gluechunkkey", "glueclusteruniqueid"):
                self._sub_clusters[key].setdefault(identity, sub_cluster)
        self._file_systems: dict[str, Entry] = {}
        for file_system in entries.get("GlueHostLocalFileSystem", ()):
            for key in keys_of(file_system, "gluechunkkey", "gluesubclusteruniqueid"):
                largest = self._file_systems.setdefault(key, file_system)
                if _size(file_system) > _size(largest):
                    self._file_systems[key] = file_system

    def sub_clusters(self, host: str, ce: _CE) -> Mapping[str, Entry]:
        """The subclusters of a CE by identity; an unkept key is made up for where possible."""
        keys = cluster_keys(ce.entry) + self._clusters_of.get(ce.identity.lower(), []) + [host]
        for key in keys:
            if found := self._sub_clusters.get(key):
                return found
        return {}

    def file_system(self, sub_cluster: str) -> Entry:
        """The largest local file system of a subcluster."""
        return self._file_systems.get(sub_cluster, {})

    def free_slots(self, ce: _CE) -> int:
        """What the views of the VOs show, else what the CE shows, else the largest view."""
        views = self._views.get(ce.identity.lower(), ())
        chosen = [view for view in views if self._vos and self._vos & set(_vos_of(view))]
        for group in (chosen, [ce.entry], views):
            known = [free for free in map(_free, group) if free is not None]
            if known:
                return max(known)
        return 0


def _host(host: str, ces: Sequence[_CE], directory: _Directory) -> HostAttributes:
    counted = Counter((ce.manager, text_of(ce.entry, "glueceinfolrmstype").lower()) for ce in ces)
    # Of several managers on a host gwd can address one: that of most queues.
    manager, lrms_type = min(counted, key=lambda key: (-counted[key], key))
    queues: dict[str, _CE] = {}
    for ce in sorted(ces, key=lambda ce: (ce.queue, ce.manager != manager, ce.identity)):
        if ce.queue:
            queues.setdefault(ce.queue, ce)
    sub_clusters: dict[str, Entry] = {}
    for ce in ces:
        sub_clusters.update(directory.sub_clusters(host, ce))
    cpus = {
        key: _integer(entry, "gluesubclusterlogicalcpus") for key, entry in sub_clusters.items()
    }
    largest = min(cpus, key=lambda key: (-cpus[key], key), default="")
    nodes: Entry = sub_clusters.get(largest, {})
    memory = _integer(nodes, "gluehostmainmemoryramsize")
    release = text_of(nodes, "gluehostoperatingsystemrelease")
    attributes: dict[str, Attribute] = {
        "HOSTNAME": host,
        "ARCH": text_of(nodes, "gluehostarchitectureplatformtype"),
        "NODECOUNT": max(_integer(ce.entry, "glueceinfototalcpus") for ce in ces)
        or sum(cpus.values()),
        "LRMS_NAME": manager,
        "LRMS_TYPE": lrms_type,
        "OS_NAME": text_of(nodes, "gluehostoperatingsystemname"),
        "OS_VERSION": text_of(nodes, "gluehostoperatingsystemversion") or release,
        "CPU_MODEL": text_of(nodes, "gluehostprocessormodel"),
        "CPU_MHZ": _integer(nodes, "gluehostprocessorclockspeed"),
        "CPU_SMP": _integer(nodes, "gluehostarchitecturesmpsize"),
        "FREE_MEM_MB": _integer(nodes, "gluehostmainmemoryramavailable") or memory,
        "SIZE_MEM_MB": memory,
    }
    is_roomy = len(queues) <= ROOMY
    more: dict[str, Attribute] = {}
    file_system = directory.file_system(largest)
    if size := _size(file_system):
        more["SIZE_DISK_MB"] = size
        more["FREE_DISK_MB"] = _megabytes(file_system, "gluehostlocalfilesystemavailablespace")
    if release and is_roomy:
        more["OS_RELEASE"] = release
    for name, published in (
        ("SPEC_INT", "gluehostbenchmarksi00"),
        ("SPEC_FLOAT", "gluehostbenchmarksf00"),
    ):
        if (value := _integer(nodes, published)) and is_roomy:
            more[name] = value
    return HostAttributes(attributes, [_queue(ce, directory) for ce in queues.values()], more)


def _queue(ce: _CE, directory: _Directory) -> dict[str, Attribute]:
    entry = ce.entry
    slots = _integer(entry, "gluecepolicyassignedjobslots")
    if slots in (0, UNSET):
        slots = _integer(entry, "glueceinfototalcpus")
    queue: dict[str, Attribute] = {
        "QUEUE_NAME": ce.queue,
        "QUEUE_NODECOUNT": slots,
        "QUEUE_FREENODECOUNT": directory.free_slots(ce),
        "QUEUE_MAXTIME": _integer(
            entry, "gluecepolicymaxwallclocktime", "gluecepolicymaxobtainablewallclocktime"
        ),
        "QUEUE_MAXCPUTIME": _integer(
            entry, "gluecepolicymaxcputime", "gluecepolicymaxobtainablecputime"
        ),
        "QUEUE_MAXJOBSINQUEUE": _integer(entry, "gluecepolicymaxtotaljobs"),
        "QUEUE_MAXRUNNINGJOBS": _integer(entry, "gluecepolicymaxrunningjobs"),
        "QUEUE_STATUS": text_of(entry, "gluecestatestatus"),
        "QUEUE_DISPATCHTYPE": "batch",
        "QUEUE_PRIORITY": text_of(entry, "gluecepolicypriority"),
        "QUEUE_JOBWAIT": str(_state(entry, "gluecestatewaitingjobs") or 0),
        "QUEUE_ACCESS": _access(entry),
        "QUEUE_MAXCOUNT": _integer(entry, "gluecepolicymaxslotsperjob"),
    }
    for name, published in (
        ("QUEUE_JOBRUN", "gluecestaterunningjobs"),
        ("QUEUE_RESPONSETIME", "gluecestateestimatedresponsetime"),
    ):
        value = _state(entry, published)
        if value is not None:
            queue[name] = value
    return queue


def _access(ce: Entry) -> str:
    """`:x:` for each VO that some rule lets in, and `:/x/Role=y:` for each VOMS rule."""
    rules = [_decoded(value) for value in ce.get("glueceaccesscontrolbaserule", ())]
    fqans = [rule.partition(":")[2] for rule in rules if rule[:5].upper() == "VOMS:"]
    tokens = dict.fromkeys([*_vos_of(ce, keep_case=True), *fqans])
    return "".join(f":{token}:" for token in tokens if token)


def _vos_of(entry: Entry, keep_case: bool = False) -> list[str]:
    """The VOs that the rules of a CE or a view let in."""
    vos = []
    for value in entry.get("glueceaccesscontrolbaserule", ()):
        kind, _, subject = _decoded(value).partition(":")
        if kind.upper() == "VOMS":
            vos.append(subject.strip("/").partition("/")[0])
        elif kind.upper() == "VO":
            vos.append(subject)
    return vos if keep_case else [vo.lower() for vo in vos]


def keys_of(entry: Entry, name: str, target: str) -> list[str]:
    """The identities, in lower case, that the keys of one kind in `entry` refer to."""
    keys = []
    for value in entry.get(name, ()):
        kind, _, identity = _decoded(value).partition("=")
        if kind.strip().lower() == target and identity:
            keys.append(identity.strip().lower())
    return keys


def _decoded(value: bytes) -> str:
    """A value as text; what is no UTF-8 is what sites wrote before it, Latin-1."""
    try:
        return value.decode().strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()


def text_of(entry: Entry, name: str) -> str:
    """The first value under `name`, "" where there is none."""
    values = entry.get(name)
    return _decoded(values[0]) if values else ""


def _number(entry: Entry, name: str) -> int | None:
    """The integer that `entry` holds under `name`, None where it holds none of at least 0."""
    match = _INTEGER.fullmatch(text_of(entry, name))
    number = int(match[1]) if match else -1
    return number if number >= 0 else None


def _integer(entry: Entry, *names: str) -> int:
    """The first of these integers that is known and not 0, or 0."""
    return next((number for name in names if (number := _number(entry, name))), 0)


def _state(entry: Entry, name: str) -> int | None:
    number = _number(entry, name)
    return None if number == UNKNOWN else number


def _free(entry: Entry) -> int | None:
    """The free slots that a CE or a view shows."""
    slots = _state(entry, "gluecestatefreejobslots")
    return _state(entry, "gluecestatefreecpus") if slots is None else slots


def _size(file_system: Entry) -> int:
    return _megabytes(file_system, "gluehostlocalfilesystemsize")


def _megabytes(file_system: Entry, name: str) -> int:
    number = _integer(file_system, name)
    is_in_bytes = _integer(file_system, "gluehostlocalfilesystemsize") >= SMALLEST_FILE_SYSTEM
    return number >> 20 if is_in_bytes else number
