"""Where a real gwd sends jobs, by what the drivers published: a directory's hosts and a Slurm.

One gwd serves the whole module. The hosts of the directory are names of this machine, where
gw_em_mad_fork runs what is sent to them; what is sent to the cluster runs on a real Slurm.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import glue, glue2, gwd, slapd, slurm
from tests.services.glue import Record
from tests.services.gwd import GridWay, Mad, wait_for
from tests.services.network import PrivateNetwork
from tests.services.required import skip_without
from tests.services.slapd import Slapd
from tests.services.slurm import SlurmCluster

FAST, LARGE, MODERN = "fast.example.org", "large.example.org", "modern.example.org"
"""Hosts with the fastest CPUs, with most memory, and in GLUE 2 alone."""
CLUSTER = "cluster.example.org"
SLOTS = 20
CHOSEN = "(GlueCEStateStatus=Production)(GlueCEPolicyMaxTotalJobs>=1)"


def host(name: str, mhz: int, memory: int, **free: int) -> list[Record]:
    """A host in GLUE 1.3, with the free slots of its queues."""
    ces = [
        glue.ce(
            f"{name}:2119/jobmanager-fork-{queue}",
            f"cluster.{name}",
            GlueCEName=queue,
            GlueCEInfoHostName=name,
            GlueCEInfoLRMSType="pbs",
            GlueCEInfoTotalCPUs=SLOTS,
            GlueCEStateFreeJobSlots=slots,
            GlueCEStateStatus="Draining" if queue == "old" else "Production",
            GlueCEPolicyMaxWallClockTime=60 if queue == "short" else 2880,
            GlueCEPolicyMaxRunningJobs=SLOTS,
            GlueCEPolicyMaxTotalJobs=SLOTS,
            GlueCEAccessControlBaseRule=f"VO:{'biomed' if queue == 'long' else 'atlas'}",
        )
        for queue, slots in free.items()
    ]
    nodes = glue.sub_cluster(
        f"nodes.{name}",
        f"cluster.{name}",
        GlueHostArchitecturePlatformType="x86_64",
        GlueHostProcessorClockSpeed=mhz,
        GlueHostMainMemoryRAMSize=memory,
    )
    return [*ces, glue.cluster(f"cluster.{name}"), nodes]


def modern() -> list[Record]:
    service = glue2.service("modern")
    manager = glue2.manager(service, GLUE2ManagerProductName="fork")
    nodes = glue2.environment(
        manager,
        GLUE2ExecutionEnvironmentPlatform="aarch64",
        GLUE2ExecutionEnvironmentCPUClockSpeed=2000,
        GLUE2ExecutionEnvironmentMainMemorySize=8192,
    )
    share = glue2.share(
        service,
        "short",
        [nodes],
        GLUE2ComputingShareMaxRunningJobs=SLOTS,
        GLUE2ComputingShareMaxTotalJobs=SLOTS,
        GLUE2ComputingShareFreeSlots=1,
        GLUE2ComputingShareMaxWallTime=86400,
    )
    endpoint = glue2.endpoint(
        service, f"https://{MODERN}/", GLUE2EndpointInterfaceName="jobmanager"
    )
    return [service, endpoint, manager, nodes, share]


@pytest.fixture(scope="module")
def network() -> Iterator[PrivateNetwork]:
    with PrivateNetwork() as network:
        yield network


@pytest.fixture(scope="module")
def directory(network: PrivateNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """A BDII in that network."""
    if problem := slapd.missing():
        skip_without("slapd", problem)
    records = [
        *host(FAST, 3600, 512, short=9, long=2, old=20),
        *host(LARGE, 2400, 4096, short=4, long=5),
    ]
    with Slapd(
        tmp_path_factory.mktemp("slapd"),
        glue.ldif(records),
        glue2=glue2.ldif(modern()),
        prefix=network.prefix,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(
    network: PrivateNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SlurmCluster]:
    slurm.skip_if_missing()
    folder = tmp_path_factory.mktemp("slurm")
    with slurm.running(SlurmCluster(folder, prefix=network.prefix)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def gridway(
    network: PrivateNetwork,
    directory: Slapd,
    cluster: SlurmCluster,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GridWay]:
    if problem := gwd.problem():
        skip_without("gwd", problem)
    names = {FAST, LARGE, MODERN, CLUSTER}
    gridway = GridWay(
        tmp_path_factory.mktemp("gridway"),
        information=[
            Mad("im", "gw_im_mad_bdii", f"-s {directory.server} -q {CHOSEN} -l etc/hosts"),
            Mad("im2", "gw_im_mad_slurm", f"--hostname {CLUSTER}", execution="slurm"),
        ],
        execution=[
            Mad("em", "gw_em_mad_fork"),
            Mad("slurm", "gw_em_mad_slurm", "--interval 1"),
        ],
        transfer=[Mad("tm", "gw_tm_mad_local", " ".join(f"--host {name}" for name in names))],
        files={
            "etc/hosts": f"{FAST} etc/fast.attributes\n",
            "etc/fast.attributes": 'CPU_MHZ=3700 RACK="cellar" ',
        },
        environment=cluster.environment,
        network=network,
    )
    with gridway:

        def are_known() -> bool:
            return {host.name for host in gridway.hosts() if host.queues} == names

        wait_for(are_known, 60, f"the hosts {names}", lambda: str(gridway.hosts()))
        yield gridway


def sent(gridway: GridWay, folder: Path, **template: str) -> tuple[str, str]:
    """The host and the queue that a job was sent to, and where it ran to its end."""
    (folder / "job.sh").write_text("#!/bin/sh\necho $GW_HOSTNAME ${SLURM_JOB_PARTITION-}\n")
    (job,) = gridway.submit(
        folder, {"EXECUTABLE": "job.sh", "STDOUT_FILE": "out", "STDERR_FILE": "err", **template}
    )
    ended = gridway.wait([job])[job]
    assert (ended.state, ended.exit_code) == ("done", 0)
    (description,) = (gridway.location / "var").glob(f"*/{job}/job.rsl.0")
    _, _, after = description.read_text().partition("<queue>")
    name, queue = ended.host.partition("/")[0], after.partition("<")[0]
    assert (folder / "out").read_text().split()[0] == name
    return name, queue


def test_what_gwd_knows_is_what_was_published(gridway: GridWay) -> None:
    known = {found.name: found for found in gridway.hosts()}
    assert known[FAST].fields["CPU_MHZ"] == "3700"  # the host's file wins
    assert known[FAST].fields["RACK"] == "cellar"
    assert known[LARGE].fields["FREE_MEM_MB"] == "4096"
    assert known[MODERN].fields["LRMS_NAME"] == "jobmanager-fork"
    queues = {name: [q["QUEUE_NAME"] for q in found.queues] for name, found in known.items()}
    assert queues == {
        FAST: ["long", "short"],
        LARGE: ["long", "short"],
        MODERN: ["short"],
        CLUSTER: ["long", "short"],
    }


@pytest.mark.parametrize(
    ("requirements", "rank", "expected"),
    [
        ('QUEUE_NAME = "short" & FREE_MEM_MB > 1024 & ARCH = "x86_64" & LRMS_TYPE = "pbs"',
         "CPU_MHZ", (LARGE, "short")),
        ('QUEUE_NAME = "short" & LRMS_TYPE != "slurm"', "CPU_MHZ", (FAST, "short")),
        ('QUEUE_NAME = "short" & LRMS_TYPE != "slurm"', "FREE_MEM_MB", (MODERN, "short")),
        ('LRMS_TYPE = "pbs" & QUEUE_MAXTIME > 60', "QUEUE_FREENODECOUNT", (LARGE, "long")),
        ('LRMS_TYPE = "pbs"', "QUEUE_FREENODECOUNT", (FAST, "short")),
        ('QUEUE_ACCESS = "*:biomed:*"', "CPU_MHZ", (FAST, "long")),
        ('ARCH = "aarch64"', "CPU_MHZ", (MODERN, "short")),
        ('RACK = "cellar"', "QUEUE_FREENODECOUNT", (FAST, "short")),
    ],
)  # fmt: skip
def test_a_job_lands_where_it_must(
    gridway: GridWay, tmp_path: Path, requirements: str, rank: str, expected: tuple[str, str]
) -> None:
    assert sent(gridway, tmp_path, REQUIREMENTS=requirements, RANK=rank) == expected


def test_a_job_lands_in_a_partition_of_the_cluster(gridway: GridWay, tmp_path: Path) -> None:
    requirements = 'LRMS_TYPE = "slurm" & QUEUE_MAXTIME > 60 & SIZE_MEM_MB > 1024'
    assert sent(gridway, tmp_path, REQUIREMENTS=requirements) == (CLUSTER, "long")
    assert (tmp_path / "out").read_text() == f"{CLUSTER} long\n"
