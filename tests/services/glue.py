"""Entries of the GLUE 1.3 schema as sites of a grid publish them, and LDIF of them.

`grid(count)` makes up a grid: sites with compute elements (CEs), a few queues on each host,
views of the VOs on each queue, a cluster and its subclusters per host.  The same arguments
give the same entries.
"""

import base64
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

Value = str | bytes | int
Published = Mapping[str, Value | Sequence[Value]]

TOP = "mds-vo-name=local,o=grid"
VERSION: Published = {"GlueSchemaVersionMajor": 1, "GlueSchemaVersionMinor": 3}


@dataclass(frozen=True)
class Record:
    """An entry of a directory."""

    dn: str
    attributes: dict[str, list[bytes]] = field(default_factory=dict)

    def changed(self, **attributes: Value | Sequence[Value] | None) -> "Record":
        """A copy with other values; None takes an attribute away."""
        merged = dict(self.attributes)
        for name, value in attributes.items():
            merged.pop(name, None)
            if value is not None:
                merged[name] = _values(value)
        return Record(self.dn, merged)


def record(dn: str, classes: Sequence[str], *parts: Published) -> Record:
    """An entry with these object classes; of equal names in `parts` the later wins."""
    attributes = {"objectClass": _values(classes)}
    for part in parts:
        attributes |= {name: _values(value) for name, value in part.items()}
    return Record(dn, attributes)


def ldif(records: Iterable[Record]) -> bytes:
    """The records below the top of the tree, as slapadd reads them."""
    whole = [
        record("o=grid", ["organization"], {"o": "grid"}),
        record(TOP, ["MDS"], {"Mds-Vo-name": "local"}),
        *records,
    ]
    return plain_ldif(whole)


def plain_ldif(records: Iterable[Record]) -> bytes:
    """The records and nothing else."""
    lines = []
    for item in records:
        lines.append(_line("dn", item.dn.encode()))
        for name, values in item.attributes.items():
            lines += [_line(name, value) for value in values]
        lines.append(b"")
    return b"\n".join(lines) + b"\n"


def entries(records: Iterable[Record]) -> dict[str, list[dict[str, list[bytes]]]]:
    """The records by object class with names in lower case: what a directory would answer."""
    found: dict[str, list[dict[str, list[bytes]]]] = {}
    for item in records:
        entry = {name.lower(): list(values) for name, values in item.attributes.items()}
        for object_class in item.attributes["objectClass"]:
            found.setdefault(object_class.decode(), []).append(entry)
    return found


# ---------------------------------------------------------------- entries of each kind


def site(name: str, base: str = TOP) -> list[Record]:
    return [
        record(f"mds-vo-name={name},{base}", ["MDS"], {"Mds-Vo-name": name}),
        record(
            f"GlueSiteUniqueID={name},mds-vo-name={name},{base}",
            ["GlueTop", "GlueSite", "GlueKey", "GlueSchemaVersion"],
            {"GlueSiteUniqueID": name, "GlueSiteName": name, "GlueSiteSponsor": "none"},
            VERSION,
        ),
    ]


def ce(
    identity: str, cluster: str, base: str = TOP, **attributes: Value | Sequence[Value]
) -> Record:
    return record(
        f"GlueCEUniqueID={identity},{base}",
        [
            "GlueTop",
            "GlueCETop",
            "GlueCE",
            "GlueCEAccessControlBase",
            "GlueCEInfo",
            "GlueCEPolicy",
            "GlueCEState",
            "GlueInformationService",
            "GlueKey",
            "GlueSchemaVersion",
        ],
        {
            "GlueCEUniqueID": identity,
            "GlueForeignKey": f"GlueClusterUniqueID={cluster}",
            "GlueCEAccessControlBaseRule": "VO:dteam",
        },
        attributes,
        VERSION,
    )


def view(parent: Record, vo: str, **attributes: Value | Sequence[Value]) -> Record:
    identity = parent.attributes["GlueCEUniqueID"][0].decode()
    return record(
        f"GlueVOViewLocalID={vo},{parent.dn}",
        [
            "GlueCETop",
            "GlueVOView",
            "GlueCEInfo",
            "GlueCEState",
            "GlueCEAccessControlBase",
            "GlueCEPolicy",
            "GlueKey",
            "GlueSchemaVersion",
        ],
        {
            "GlueVOViewLocalID": vo,
            "GlueCEAccessControlBaseRule": f"VO:{vo}",
            "GlueChunkKey": f"GlueCEUniqueID={identity}",
        },
        attributes,
        VERSION,
    )


def cluster(identity: str, ces: Iterable[str] = (), base: str = TOP, site: str = "S") -> Record:
    return record(
        f"GlueClusterUniqueID={identity},{base}",
        [
            "GlueClusterTop",
            "GlueCluster",
            "GlueInformationService",
            "GlueKey",
            "GlueSchemaVersion",
        ],
        {
            "GlueClusterUniqueID": identity,
            "GlueClusterName": identity,
            "GlueForeignKey": [
                f"GlueSiteUniqueID={site}",
                *(f"GlueCEUniqueID={key}" for key in ces),
            ],
        },
        VERSION,
    )


def sub_cluster(
    identity: str, parent: str, base: str = TOP, **attributes: Value | Sequence[Value]
) -> Record:
    return record(
        f"GlueSubClusterUniqueID={identity},GlueClusterUniqueID={parent},{base}",
        [
            "GlueClusterTop",
            "GlueSubCluster",
            "GlueHostApplicationSoftware",
            "GlueHostArchitecture",
            "GlueHostBenchmark",
            "GlueHostMainMemory",
            "GlueHostNetworkAdapter",
            "GlueHostOperatingSystem",
            "GlueHostProcessor",
            "GlueInformationService",
            "GlueKey",
            "GlueSchemaVersion",
        ],
        {
            "GlueSubClusterUniqueID": identity,
            "GlueSubClusterName": identity,
            "GlueChunkKey": f"GlueClusterUniqueID={parent}",
        },
        attributes,
        VERSION,
    )


def file_system(name: str, parent: Record, **attributes: Value | Sequence[Value]) -> Record:
    identity = parent.attributes["GlueSubClusterUniqueID"][0].decode()
    return record(
        f"GlueHostLocalFileSystemName={name},{parent.dn}",
        ["GlueClusterTop", "GlueHostLocalFileSystem", "GlueKey"],
        {
            "GlueHostLocalFileSystemName": name,
            "GlueChunkKey": f"GlueSubClusterUniqueID={identity}",
        },
        attributes,
    )


# ---------------------------------------------------------------- the developers' guide


GUIDE_HOST = "gn0.hpcc.sztaki.hu"
GUIDE_ATTRIBUTES = (
    'HOSTNAME="gn0.hpcc.sztaki.hu" ARCH="i686" NODECOUNT=16 LRMS_NAME="jobmanager-lcgpbs" '
    'LRMS_TYPE="torque" OS_NAME="ScientificSL" OS_VERSION="Beryllium" CPU_MODEL="PentiumD" '
    "CPU_MHZ=3000 CPU_SMP=2 FREE_MEM_MB=1024 SIZE_MEM_MB=1024 "
    'QUEUE_NAME[0]="gilda" QUEUE_NODECOUNT[0]=16 QUEUE_FREENODECOUNT[0]=16 '
    "QUEUE_MAXTIME[0]=4320 QUEUE_MAXCPUTIME[0]=2880 QUEUE_MAXJOBSINQUEUE[0]=999999999 "
    'QUEUE_MAXRUNNINGJOBS[0]=999999999 QUEUE_STATUS[0]="Production" '
    'QUEUE_DISPATCHTYPE[0]="batch" QUEUE_PRIORITY[0]="1" QUEUE_JOBWAIT[0]="0" '
    'QUEUE_ACCESS[0]=":gilda:"'
)
"""What a MONITOR of that host answers in the guide's session, further attributes after it."""


def guide() -> list[Record]:
    """The entries behind the session that GridWay's developers' guide shows."""
    base = f"mds-vo-name=SZTAKI,{TOP}"
    identity = f"{GUIDE_HOST}:2119/jobmanager-lcgpbs-gilda"
    queue = ce(
        identity,
        GUIDE_HOST,
        base,
        GlueCEName="gilda",
        GlueCEHostingCluster=GUIDE_HOST,
        GlueCEInfoHostName=GUIDE_HOST,
        GlueCEInfoGatekeeperPort="2119",
        GlueCEInfoContactString=identity,
        GlueCEInfoJobManager="lcgpbs",
        GlueCEInfoLRMSType="torque",
        GlueCEInfoLRMSVersion="2.1.9",
        GlueCEInfoTotalCPUs=16,
        GlueCEStateStatus="Production",
        GlueCEStateFreeCPUs=16,
        GlueCEStateFreeJobSlots=16,
        GlueCEStateRunningJobs=0,
        GlueCEStateWaitingJobs=0,
        GlueCEStateTotalJobs=0,
        GlueCEStateEstimatedResponseTime=0,
        GlueCEStateWorstResponseTime=0,
        GlueCEPolicyMaxWallClockTime=4320,
        GlueCEPolicyMaxCPUTime=2880,
        GlueCEPolicyMaxTotalJobs=999999999,
        GlueCEPolicyMaxRunningJobs=999999999,
        GlueCEPolicyAssignedJobSlots=0,
        GlueCEPolicyPriority=1,
        GlueCEAccessControlBaseRule="VO:gilda",
    )
    return [
        *site("SZTAKI"),
        queue,
        view(queue, "gilda", GlueCEStateFreeJobSlots=16, GlueCEStateWaitingJobs=0),
        cluster(GUIDE_HOST, [identity], base, "SZTAKI"),
        sub_cluster(
            GUIDE_HOST,
            GUIDE_HOST,
            base,
            GlueSubClusterPhysicalCPUs=8,
            GlueSubClusterLogicalCPUs=16,
            GlueHostArchitecturePlatformType="i686",
            GlueHostArchitectureSMPSize=2,
            GlueHostOperatingSystemName="ScientificSL",
            GlueHostOperatingSystemRelease="4.5",
            GlueHostOperatingSystemVersion="Beryllium",
            GlueHostProcessorVendor="intel",
            GlueHostProcessorModel="PentiumD",
            GlueHostProcessorClockSpeed=3000,
            GlueHostMainMemoryRAMSize=1024,
            GlueHostMainMemoryVirtualSize=2048,
            GlueHostBenchmarkSI00=1300,
            GlueHostBenchmarkSF00=1200,
        ),
    ]


# ---------------------------------------------------------------- a grid


VOS = ("atlas", "biomed", "cms", "compchem", "dteam", "enmr.eu", "fusion", "lhcb", "ops")
SERVICES = (  # port, first word of the path, name
    (2119, "jobmanager", "LCG-CE"),
    (8443, "cream", "CREAM"),
    (2811, "nordugrid", "ARC-CE"),
)
BATCH_SYSTEMS = ("lcgpbs", "lsf", "sge", "slurm", "condor")
SYSTEMS = (
    ("ScientificSL", "5.5", "Boron"),
    ("ScientificSL", "6.9", "Carbon"),
    ("CentOS", "7.9", "Core"),
    ("Debian", "12", "bookworm"),
)
PROCESSORS = (("Xeon", 2667, 8), ("Opteron 6276", 2300, 64), ("EPYC 7452", 2350, 64))
QUEUES = ("short", "long", "infinite-gpu", "grid", "multi-core", "test")
WALL_CLOCK = (30, 1440, 2880, 4320, 10080)


def grid(ces: int, queues_per_host: int = 4, seed: int = 1) -> list[Record]:
    """A grid with this many CEs, that is queues; the last host may have fewer than others."""
    chance = random.Random(seed)
    records: list[Record] = []
    base, name = TOP, ""
    for number, first in enumerate(range(0, ces, queues_per_host)):
        if number % 3 == 0:
            name = f"SITE-{number // 3:04}"
            base = f"mds-vo-name={name},{TOP}"
            records += site(name)
        host = f"ce{number % 3 + 1}.site{number // 3:04}.example.org"
        records += _host(chance, host, min(queues_per_host, ces - first), base, name)
    return records


def host_names(ces: int, queues_per_host: int = 4) -> list[str]:
    """The hosts of grid(ces, queues_per_host), sorted."""
    numbers = range((ces + queues_per_host - 1) // queues_per_host)
    return sorted(f"ce{n % 3 + 1}.site{n // 3:04}.example.org" for n in numbers)


def _host(chance: random.Random, host: str, queues: int, base: str, site: str) -> Iterator[Record]:
    port, service, implementation = chance.choice(SERVICES)
    system = chance.choice(BATCH_SYSTEMS)
    model, mhz, cores = chance.choice(PROCESSORS)
    os_name, os_release, os_version = chance.choice(SYSTEMS)
    nodes = chance.choice((4, 16, 64, 256))
    slots = nodes * cores
    parent = f"cluster.{host}"  # most sites name the cluster otherwise than the host
    identities = []
    for number in range(queues):
        queue = QUEUES[number] if number < len(QUEUES) else f"queue{number}"
        identity = f"{host}:{port}/{service}-{system}-{queue}"
        identities.append(identity)
        vos = sorted(chance.sample(VOS, chance.randint(1, 4)))
        running = chance.randint(0, slots)
        waiting = chance.choice((0, 0, chance.randint(1, 900), 444444))
        wall_clock = chance.choice(WALL_CLOCK)
        parts = _shares(chance, slots - running, len(vos))
        entry = ce(
            identity,
            parent,
            base,
            GlueCEName=queue,
            GlueCEHostingCluster=parent,
            GlueCEImplementationName=implementation,
            GlueCECapability=[f"Share={vo}:{100 // len(vos)}" for vo in vos],
            GlueCEInfoHostName=host,
            GlueCEInfoGatekeeperPort=str(port),
            GlueCEInfoContactString=identity,
            GlueCEInfoJobManager=system,
            GlueCEInfoLRMSType="torque" if system == "lcgpbs" else system,
            GlueCEInfoTotalCPUs=slots,
            GlueCEInfoDataDir="unset",
            GlueCEStateStatus="Production" if chance.random() < 0.9 else "Draining",
            GlueCEStateRunningJobs=running,
            GlueCEStateWaitingJobs=waiting,
            GlueCEStateTotalJobs=running + waiting,
            GlueCEStateFreeCPUs=slots - running,
            GlueCEStateFreeJobSlots=slots - running,
            GlueCEStateEstimatedResponseTime=chance.randint(0, 100_000),
            GlueCEStateWorstResponseTime=200_000,
            GlueCEPolicyMaxWallClockTime=wall_clock,
            GlueCEPolicyMaxObtainableWallClockTime=wall_clock,
            GlueCEPolicyMaxCPUTime=wall_clock * 9 // 10,
            GlueCEPolicyMaxObtainableCPUTime=wall_clock * 9 // 10,
            GlueCEPolicyMaxRunningJobs=chance.choice((slots, 999999999)),
            GlueCEPolicyMaxWaitingJobs=999999999,
            GlueCEPolicyMaxTotalJobs=chance.choice((2 * slots, 999999999)),
            GlueCEPolicyAssignedJobSlots=chance.choice((0, slots)),
            GlueCEPolicyMaxSlotsPerJob=cores,
            GlueCEPolicyPriority=1,
            GlueCEPolicyPreemption=0,
            GlueCEAccessControlBaseRule=[f"VO:{vo}" for vo in vos]
            + [f"VOMS:/{vo}/Role=production" for vo in vos],
            GlueInformationServiceURL=f"ldap://{host}:2170/mds-vo-name=resource,o=grid",
        )
        yield entry
        for vo, free in zip(vos, parts, strict=True):
            yield view(
                entry,
                vo,
                GlueCEStateFreeJobSlots=free,
                GlueCEStateRunningJobs=running // len(vos),
                GlueCEStateWaitingJobs=waiting,
                GlueCEInfoDataDir="unset",
            )
    yield cluster(parent, identities, base, site)
    # The smaller subcluster comes first, and is not the one that tells what the host is.
    for identity, share, memory in ((f"a.{parent}", 1, 2048), (f"b.{parent}", 3, 4096)):
        yield sub_cluster(
            identity,
            parent,
            base,
            GlueSubClusterLogicalCPUs=slots * share // 4,
            GlueSubClusterPhysicalCPUs=nodes * share // 4,
            GlueHostApplicationSoftwareRunTimeEnvironment=[f"VO-{vo}-release-1" for vo in VOS],
            GlueHostArchitecturePlatformType="x86_64",
            GlueHostArchitectureSMPSize=cores,
            GlueHostBenchmarkSI00=chance.randint(1000, 4000),
            GlueHostBenchmarkSF00=chance.randint(1000, 4000),
            GlueHostMainMemoryRAMSize=memory * cores,
            GlueHostMainMemoryVirtualSize=2 * memory * cores,
            GlueHostNetworkAdapterInboundIP="FALSE",
            GlueHostNetworkAdapterOutboundIP="TRUE",
            GlueHostOperatingSystemName=os_name,
            GlueHostOperatingSystemRelease=os_release,
            GlueHostOperatingSystemVersion=os_version,
            GlueHostProcessorClockSpeed=mhz,
            GlueHostProcessorModel=model,
            GlueHostProcessorOtherDescription=f"Cores={cores}",
        )


def _shares(chance: random.Random, whole: int, count: int) -> list[int]:
    """`whole` cut into `count` parts."""
    cuts = sorted(chance.randint(0, whole) for _ in range(count - 1))
    return [end - start for start, end in zip([0, *cuts], [*cuts, whole], strict=True)]


# ---------------------------------------------------------------- LDIF


def _values(value: Value | Sequence[Value]) -> list[bytes]:
    if isinstance(value, (str, bytes, int)):
        value = [value]
    return [item if isinstance(item, bytes) else str(item).encode() for item in value]


def _line(name: str, value: bytes) -> bytes:
    is_plain = all(32 <= byte < 127 for byte in value) and value[:1] not in (b" ", b":", b"<", b"")
    if is_plain and not value.endswith(b" "):
        return name.encode() + b": " + value
    return name.encode() + b":: " + base64.b64encode(value)
