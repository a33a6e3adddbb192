"""Entries of the GLUE 2 schema as sites publish them, and LDIF of them.

`grid(count)` makes up the same resources that tests.services.glue.grid(count) publishes in
GLUE 1.3: equal names of hosts, queues and sites, and figures of its own.
"""

import random
from collections.abc import Iterable, Iterator, Sequence

from tests.services import glue
from tests.services.glue import Record, Value, record

TOP = "o=glue"
GROUP = f"GLUE2GroupID=grid,{TOP}"


def ldif(records: Iterable[Record]) -> bytes:
    """The records below the top of the tree, as slapadd reads them."""
    top = [
        record(TOP, ["organization"], {"o": "glue"}),
        record(GROUP, ["GLUE2Group"], {"GLUE2GroupID": "grid"}),
    ]
    return glue.plain_ldif([*top, *records])


# ---------------------------------------------------------------- entries of each kind


def site(name: str) -> Record:
    return record(
        f"GLUE2DomainID={name},{GROUP}",
        ["GLUE2Domain", "GLUE2AdminDomain"],
        {"GLUE2DomainID": name},
    )


def service(identity: str, site: str = "", **attributes: Value | Sequence[Value]) -> Record:
    base = f"GLUE2DomainID={site},{GROUP}" if site else GROUP
    return record(
        f"GLUE2ServiceID={identity},{base}",
        ["GLUE2Entity", "GLUE2Service", "GLUE2ComputingService"],
        {
            "GLUE2ServiceID": identity,
            "GLUE2ServiceType": "org.glite.ce.CREAM",
            "GLUE2ServiceCapability": "executionmanagement.jobexecution",
            "GLUE2ServiceQualityLevel": "production",
            "GLUE2ServiceAdminDomainForeignKey": site or "nowhere",
        },
        attributes,
    )


def endpoint(
    parent: Record, url: str, name: str = "e", **attributes: Value | Sequence[Value]
) -> Record:
    key = _id(parent, "GLUE2ServiceID")
    identity = f"{key}_{name}"
    return record(
        f"GLUE2EndpointID={identity},{parent.dn}",
        ["GLUE2Entity", "GLUE2Endpoint", "GLUE2ComputingEndpoint"],
        {
            "GLUE2EndpointID": identity,
            "GLUE2EndpointURL": url,
            "GLUE2EndpointInterfaceName": "org.glite.ce.CREAM",
            "GLUE2EndpointQualityLevel": "production",
            "GLUE2EndpointCapability": "executionmanagement.jobexecution",
            "GLUE2EndpointHealthState": "ok",
            "GLUE2EndpointServingState": "production",
            "GLUE2EndpointServiceForeignKey": key,
            "GLUE2ComputingEndpointComputingServiceForeignKey": key,
        },
        attributes,
    )


def manager(parent: Record, name: str = "m", **attributes: Value | Sequence[Value]) -> Record:
    key = _id(parent, "GLUE2ServiceID")
    identity = f"{key}_{name}"
    return record(
        f"GLUE2ManagerID={identity},{parent.dn}",
        ["GLUE2Entity", "GLUE2Manager", "GLUE2ComputingManager"],
        {
            "GLUE2ManagerID": identity,
            "GLUE2ManagerProductName": "pbs",
            "GLUE2ManagerServiceForeignKey": key,
            "GLUE2ComputingManagerComputingServiceForeignKey": key,
        },
        attributes,
    )


def environment(parent: Record, name: str = "x", **attributes: Value | Sequence[Value]) -> Record:
    key = _id(parent, "GLUE2ManagerID")
    identity = f"{key}_{name}"
    return record(
        f"GLUE2ResourceID={identity},{parent.dn}",
        ["GLUE2Entity", "GLUE2Resource", "GLUE2ExecutionEnvironment"],
        {
            "GLUE2ResourceID": identity,
            "GLUE2ExecutionEnvironmentPlatform": "amd64",
            "GLUE2ExecutionEnvironmentOSFamily": "linux",
            "GLUE2ExecutionEnvironmentMainMemorySize": 999999999,
            "GLUE2ExecutionEnvironmentConnectivityIn": "FALSE",
            "GLUE2ExecutionEnvironmentConnectivityOut": "TRUE",
            "GLUE2ResourceManagerForeignKey": key,
            "GLUE2ExecutionEnvironmentComputingManagerForeignKey": key,
        },
        attributes,
    )


def benchmark(parent: Record, kind: str, value: Value) -> Record:
    key = _id(parent, "GLUE2ResourceID")
    identity = f"{key}_{kind}"
    return record(
        f"GLUE2BenchmarkID={identity},{parent.dn}",
        ["GLUE2Entity", "GLUE2Benchmark"],
        {
            "GLUE2BenchmarkID": identity,
            "GLUE2BenchmarkType": kind,
            "GLUE2BenchmarkValue": value,
            "GLUE2BenchmarkExecutionEnvironmentForeignKey": key,
        },
    )


def share(
    parent: Record,
    name: str,
    environments: Iterable[Record] = (),
    **attributes: Value | Sequence[Value],
) -> Record:
    key = _id(parent, "GLUE2ServiceID")
    identity = f"{name}_{key}"
    nodes = [_id(node, "GLUE2ResourceID") for node in environments]
    return record(
        f"GLUE2ShareID={identity},{parent.dn}",
        ["GLUE2Entity", "GLUE2Share", "GLUE2ComputingShare"],
        {
            "GLUE2ShareID": identity,
            "GLUE2ShareServiceForeignKey": key,
            "GLUE2ComputingShareMappingQueue": name,
            "GLUE2ComputingShareServingState": "production",
        },
        {"GLUE2ComputingShareExecutionEnvironmentForeignKey": nodes} if nodes else {},
        attributes,
    )


def policy(parent: Record, rules: Value | Sequence[Value], name: str = "p") -> Record:
    key = _id(parent, "GLUE2ShareID")
    identity = f"{key}_{name}"
    return record(
        f"GLUE2PolicyID={identity},{parent.dn}",
        ["GLUE2Entity", "GLUE2Policy", "GLUE2MappingPolicy"],
        {
            "GLUE2PolicyID": identity,
            "GLUE2PolicyScheme": "org.glite.standard",
            "GLUE2PolicyRule": rules,
            "GLUE2MappingPolicyShareForeignKey": key,
        },
    )


def activity(parent: Record, name: str) -> list[Record]:
    """A job as ARC publishes it, and the group that it is in."""
    group = f"GLUE2GroupID=ComputingActivities,{parent.dn}"
    return [
        record(group, ["GLUE2Group"], {"GLUE2GroupID": "ComputingActivities"}),
        record(
            f"GLUE2ActivityID={name},{group}",
            ["GLUE2Entity", "GLUE2Activity", "GLUE2ComputingActivity"],
            {
                "GLUE2ActivityID": name,
                "GLUE2ComputingActivityState": "arcrest:RUNNING",
                "GLUE2ComputingActivityOwner": "/CN=somebody",
            },
        ),
    ]


# ---------------------------------------------------------------- a grid


def grid(ces: int, queues_per_host: int = 4, seed: int = 1) -> list[Record]:
    """The services behind tests.services.glue.grid(ces, queues_per_host)."""
    chance = random.Random(seed)
    records: list[Record] = []
    for number, first in enumerate(range(0, ces, queues_per_host)):
        name = f"SITE-{number // 3:04}"
        if number % 3 == 0:
            records.append(site(name))
        host = f"ce{number % 3 + 1}.site{number // 3:04}.example.org"
        records += _host(chance, host, name, min(queues_per_host, ces - first))
    return records


def _host(chance: random.Random, host: str, site: str, queues: int) -> Iterator[Record]:
    model, mhz, cores = chance.choice(glue.PROCESSORS)
    nodes = chance.choice((4, 16, 64, 256))
    slots = nodes * cores
    parent = service(f"{host}_org.glite.ce.CREAM", site)
    yield parent
    yield endpoint(parent, f"https://{host}:8443/ce-cream/services")
    batch_system = manager(
        parent,
        GLUE2ManagerProductName=chance.choice(("pbs", "slurm", "sge")),
        GLUE2ComputingManagerTotalSlots=slots,
    )
    yield batch_system
    system = environment(
        batch_system,
        GLUE2ExecutionEnvironmentTotalInstances=nodes,
        GLUE2ExecutionEnvironmentLogicalCPUs=cores,
        GLUE2ExecutionEnvironmentCPUModel=model,
        GLUE2ExecutionEnvironmentCPUClockSpeed=mhz,
        GLUE2ExecutionEnvironmentMainMemorySize=4096 * cores,
        GLUE2ExecutionEnvironmentOSName="centos",
        GLUE2ExecutionEnvironmentOSVersion="7.9",
    )
    yield system
    yield benchmark(system, "hep-spec06", "11.5")
    for number in range(queues):
        queue = glue.QUEUES[number] if number < len(glue.QUEUES) else f"queue{number}"
        used = chance.randint(0, slots)
        queue_share = share(
            parent,
            queue,
            [system],
            GLUE2ComputingShareMaxWallTime=chance.choice(glue.WALL_CLOCK) * 60,
            GLUE2ComputingShareMaxRunningJobs=slots,
            GLUE2ComputingShareMaxTotalJobs=2 * slots,
            GLUE2ComputingShareFreeSlots=slots - used,
            GLUE2ComputingShareUsedSlots=used,
            GLUE2ComputingShareRunningJobs=used,
            GLUE2ComputingShareWaitingJobs=chance.choice((0, 7, 444444)),
        )
        yield queue_share
        vos = sorted(chance.sample(glue.VOS, chance.randint(1, 4)))
        yield policy(queue_share, [f"VO:{vo}" for vo in vos])


def _id(entry: Record, name: str) -> str:
    return entry.attributes[name][0].decode()
