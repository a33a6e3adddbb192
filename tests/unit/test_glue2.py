"""GLUE 2 entries to host attributes: every rule, and whatever sites publish instead."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import TransientError, UsageError
from gridmad.information import glue2, glue2_json, glue2_schema
from gridmad.information.glue import Decoded
from gridmad.information.glue2_filter import HostFilter, QueueFilter, translated
from gridmad.information.model import HostAttributes
from tests.services import glue
from tests.services import glue2 as published
from tests.services.glue import Record, Value

HOST = "ce.example.org"


def decode(*records: Record, vos: tuple[str, ...] = (), only: bool = False) -> Decoded:
    return glue2.decode(glue.entries(records), vos, only=only)


def one(*records: Record, vos: tuple[str, ...] = (), only: bool = False) -> HostAttributes:
    (host,) = decode(*records, vos=vos, only=only).hosts.values()
    return host.attributes()


SERVICE = published.service("s", "SITE")
ENDPOINT = published.endpoint(SERVICE, f"https://{HOST}:8443/ce-cream/services")
MANAGER = published.manager(SERVICE, GLUE2ComputingManagerTotalSlots=64)
NODES = published.environment(
    MANAGER,
    GLUE2ExecutionEnvironmentTotalInstances=4,
    GLUE2ExecutionEnvironmentLogicalCPUs=16,
    GLUE2ExecutionEnvironmentCPUModel="Xeon",
    GLUE2ExecutionEnvironmentCPUClockSpeed=2600,
    GLUE2ExecutionEnvironmentMainMemorySize=4096,
    GLUE2ExecutionEnvironmentOSName="centos",
    GLUE2ExecutionEnvironmentOSVersion="7.9",
)
AROUND = (SERVICE, ENDPOINT, MANAGER, NODES)


def queue_of(**attributes: Value | list[Value]) -> dict[str, int | str]:
    """The only queue of a host with one share that publishes this."""
    share = published.share(SERVICE, "long", [NODES]).changed(**attributes)
    (queue,) = one(*AROUND, share).queues
    return dict(queue)


def test_a_whole_host() -> None:
    share = published.share(
        SERVICE,
        "long",
        [NODES],
        GLUE2ComputingShareMaxRunningJobs=32,
        GLUE2ComputingShareFreeSlots=5,
        GLUE2ComputingShareMaxWallTime=86400,
        GLUE2ComputingShareMaxCPUTime=3600,
        GLUE2ComputingShareMaxSlotsPerJob=8,
        GLUE2ComputingShareMaxTotalJobs=100,
        GLUE2ComputingShareWaitingJobs=3,
        GLUE2ComputingShareRunningJobs=27,
        GLUE2ComputingShareEstimatedAverageWaitingTime=600,
    )
    benchmark = published.benchmark(NODES, "hep-spec06", "10.5")
    manager = MANAGER.changed(
        GLUE2ComputingManagerWorkingAreaTotal=100, GLUE2ComputingManagerWorkingAreaFree=40
    )
    policy = published.policy(share, ["VO:biomed", "VOMS:/atlas/Role=production"])
    attributes = one(SERVICE, ENDPOINT, manager, NODES, share, benchmark, policy)
    assert attributes.dropped == ()
    assert attributes.payload.decode() == (
        'SUCCESS HOSTNAME="ce.example.org" ARCH="x86_64" NODECOUNT=64 LRMS_NAME="cream-pbs" '
        'LRMS_TYPE="pbs" OS_NAME="centos" OS_VERSION="7.9" CPU_MODEL="Xeon" CPU_MHZ=2600 '
        "CPU_SMP=16 FREE_MEM_MB=4096 SIZE_MEM_MB=4096 "
        'QUEUE_NAME[0]="long" QUEUE_NODECOUNT[0]=32 QUEUE_FREENODECOUNT[0]=5 '
        "QUEUE_MAXTIME[0]=1440 QUEUE_MAXCPUTIME[0]=60 QUEUE_MAXJOBSINQUEUE[0]=100 "
        'QUEUE_MAXRUNNINGJOBS[0]=32 QUEUE_STATUS[0]="Production" '
        'QUEUE_DISPATCHTYPE[0]="batch" QUEUE_PRIORITY[0]="" QUEUE_JOBWAIT[0]="3" '
        'QUEUE_ACCESS[0]=":biomed::atlas::/atlas/Role=production:" QUEUE_MAXCOUNT[0]=8 '
        "QUEUE_JOBRUN[0]=27 QUEUE_RESPONSETIME[0]=600 "
        'SIZE_DISK_MB=102400 FREE_DISK_MB=40960 SITE_NAME="SITE" SPEC_INT=2625'
    )


def test_a_grid_is_the_one_that_glue_1_describes() -> None:
    found = decode(*published.grid(20)).hosts
    assert list(found) == glue.host_names(20)
    for host in found.values():
        attributes = host.attributes()
        assert attributes.dropped == ()
        assert [queue["QUEUE_NAME"] for queue in attributes.queues] == sorted(glue.QUEUES[:4])
        assert attributes.host["ARCH"] == "x86_64"
        assert attributes.more["SITE_NAME"] in {f"SITE-{number:04}" for number in range(2)}


# ---------------------------------------------------------------- hosts and their names


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        (["https://A.Example.org:8443/x"], "a.example.org"),
        (["ldap://b.org:2170/o=glue", "https://a.org/x", "https://b.org"], "b.org"),
        (["https://b.org", "https://a.org"], "a.org"),
        (["urn:none", "a.org", "https://"], None),
    ],
)
def test_a_host_is_that_of_the_endpoints(urls: list[str], expected: str | None) -> None:
    endpoints = [published.endpoint(SERVICE, url, str(i)) for i, url in enumerate(urls)]
    share = published.share(SERVICE, "long")
    decoded = decode(SERVICE, *endpoints, share)
    assert list(decoded.hosts) == ([expected] if expected else [])
    if expected is None:
        assert decoded.problems == ["GLUE2ShareID 'long_s' leads to no host: left out"]


def test_arcs_names_stand_in_for_endpoints() -> None:
    service = published.service(
        "urn:ogf:ComputingService:arc.org:arex", GLUE2ServiceType="org.nordugrid.arex"
    )
    manager = published.manager(service, GLUE2ManagerProductName="SLURM")
    share = published.share(service, "q").changed(
        GLUE2ShareID="urn:ogf:ComputingShare:arc.org:grid_atlas",
        GLUE2ComputingShareMappingQueue=None,
    )
    attributes = one(service, manager, share)
    assert attributes.host["HOSTNAME"] == "arc.org"
    assert attributes.host["LRMS_NAME"] == "nordugrid-SLURM"
    assert attributes.host["LRMS_TYPE"] == "slurm"
    assert attributes.queues[0]["QUEUE_NAME"] == "grid_atlas"
    (lonely,) = decode(share).hosts
    assert lonely == "arc.org"


@pytest.mark.parametrize(
    ("interface", "product", "expected"),
    [
        ("org.glite.ce.CREAM", "pbs", "cream-pbs"),
        ("org.opensciencegrid.htcondorce", "condor", "htcondorce-condor"),
        ("org.nordugrid.arcrest", "SLURM", "nordugrid-SLURM"),
        ("plain", "UNDEFINEDVALUE", "plain"),
        ("", "lsf", "lsf"),
    ],
)
def test_the_managers_name(interface: str, product: str, expected: str) -> None:
    endpoint = ENDPOINT.changed(GLUE2EndpointInterfaceName=interface)
    manager = MANAGER.changed(GLUE2ManagerProductName=product)
    share = published.share(SERVICE, "long", [NODES])
    assert one(SERVICE, endpoint, manager, NODES, share).host["LRMS_NAME"] == expected


def test_the_site_is_the_nearest_domain_of_the_tree() -> None:
    share = published.share(SERVICE, "long")
    for dn, expected in (
        ("GLUE2ServiceID=s,GLUE2GroupID=x,GLUE2DomainID=B,GLUE2DomainID=A,o=glue", "A"),
        ("GLUE2ServiceID=s,GLUE2DomainID=urn:ad:C,GLUE2GroupID=grid,o=glue", "C"),
        ("GLUE2ServiceID=s,o=glue", "SITE"),
    ):
        service = SERVICE.changed(entryDN=dn)
        assert one(service, ENDPOINT, share).more["SITE_NAME"] == expected


# ---------------------------------------------------------------- nodes


def test_several_environments() -> None:
    small = published.environment(
        MANAGER,
        "a",
        GLUE2ExecutionEnvironmentTotalInstances=1,
        GLUE2ExecutionEnvironmentLogicalCPUs=2,
        GLUE2ExecutionEnvironmentMainMemorySize=1024,
        GLUE2ExecutionEnvironmentPlatform="i386",
    )
    share = published.share(SERVICE, "long", [small, NODES])
    manager = MANAGER.changed(GLUE2ComputingManagerTotalSlots=None)
    host = one(SERVICE, ENDPOINT, manager, small, NODES, share).host
    assert host["ARCH"] == "x86_64"
    assert host["SIZE_MEM_MB"] == 1024
    assert host["NODECOUNT"] == 66
    manager = manager.changed(GLUE2ComputingManagerTotalLogicalCPUs=70)
    assert one(SERVICE, ENDPOINT, manager, small, NODES, share).host["NODECOUNT"] == 70


def test_placeholders_are_nothing() -> None:
    nodes = NODES.changed(
        GLUE2ExecutionEnvironmentPlatform="UNDEFINEDVALUE",
        GLUE2ExecutionEnvironmentMainMemorySize=999999999,
        GLUE2ExecutionEnvironmentOSName="UNDEFINEDVALUE",
        GLUE2ExecutionEnvironmentCPUModel="undefined",
        GLUE2ExecutionEnvironmentCPUClockSpeed="fast",
    )
    share = published.share(SERVICE, "long", [nodes])
    host = one(SERVICE, ENDPOINT, MANAGER, nodes, share).host
    assert (host["ARCH"], host["SIZE_MEM_MB"], host["CPU_MODEL"], host["CPU_MHZ"]) == ("", 0, "", 0)
    assert host["OS_NAME"] == "linux"


def test_keys_that_lead_nowhere_are_told_and_do_no_harm() -> None:
    share = published.share(SERVICE, "long").changed(
        GLUE2ComputingShareExecutionEnvironmentForeignKey="nowhere",
        GLUE2ComputingShareComputingEndpointForeignKey="nowhere",
    )
    decoded = decode(SERVICE, ENDPOINT, MANAGER, share)
    attributes = decoded.hosts[HOST].attributes()
    assert attributes.host["LRMS_NAME"] == "cream-pbs"
    assert (attributes.host["ARCH"], attributes.host["CPU_MHZ"]) == ("", 0)
    assert decoded.problems == [
        f"host {HOST}: its shares lead to no GLUE2ExecutionEnvironment",
    ]


def test_an_entry_published_twice_counts_once() -> None:
    share = published.share(SERVICE, "long", [NODES], GLUE2ComputingShareFreeSlots=5)
    again = share.changed(GLUE2ComputingShareFreeSlots=9)
    decoded = decode(*AROUND, share, again)
    (queue,) = decoded.hosts[HOST].attributes().queues
    assert queue["QUEUE_FREENODECOUNT"] == 5
    assert decoded.problems == ["GLUE2ComputingShare 'long_s' is published twice: the first counts"]


# ---------------------------------------------------------------- queues


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"FreeSlots": 5, "FreeSlotsWithDuration": "9"}, 5),
        ({"FreeSlots": 0, "FreeSlotsWithDuration": "9"}, 0),
        ({"FreeSlotsWithDuration": "2:3600 7"}, 9),
        ({"FreeSlotsWithDuration": ["2:3600", "x 1"]}, 3),
        ({"FreeSlots": 444444, "UsedSlots": 60}, 4),
        ({"MaxRunningJobs": 10, "UsedSlots": 60}, 0),
        ({"UsedSlots": 444444}, 0),
        ({}, 0),
    ],
)
def test_free_slots(attributes: Mapping[str, Value | list[Value]], expected: int) -> None:
    named = {f"GLUE2ComputingShare{name}": value for name, value in attributes.items()}
    assert queue_of(**named)["QUEUE_FREENODECOUNT"] == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"MaxWallTime": 86400}, ("MAXTIME", 1440)),
        ({"MaxWallTime": 30}, ("MAXTIME", 1)),
        ({"MaxWallTime": 0, "DefaultWallTime": 7200}, ("MAXTIME", 120)),
        ({"MaxWallTime": 999999999}, ("MAXTIME", 999999999)),
        ({"MaxCPUTime": 600}, ("MAXCPUTIME", 10)),
        ({"MaxRunningJobs": 7}, ("NODECOUNT", 7)),
        ({"MaxRunningJobs": 999999999}, ("NODECOUNT", 64)),
        ({"MaxRunningJobs": 999999999}, ("MAXRUNNINGJOBS", 999999999)),
        ({"MaxTotalJobs": 9, "MaxRunningJobs": 1, "MaxWaitingJobs": 1}, ("MAXJOBSINQUEUE", 9)),
        ({"MaxRunningJobs": 3, "MaxWaitingJobs": 4}, ("MAXJOBSINQUEUE", 7)),
        (
            {"MaxRunningJobs": 3, "MaxWaitingJobs": 999999999},
            ("MAXJOBSINQUEUE", 999999999),
        ),
        ({"MaxRunningJobs": 3}, ("MAXJOBSINQUEUE", 0)),
        ({"WaitingJobs": 444444}, ("JOBWAIT", "0")),
        ({"ServingState": "draining"}, ("STATUS", "Draining")),
        ({"ServingState": None}, ("STATUS", "Production")),
    ],
)
def test_figures(attributes: Mapping[str, Value], expected: tuple[str, Value]) -> None:
    named = {f"GLUE2ComputingShare{name}": value for name, value in attributes.items()}
    name, value = expected
    assert queue_of(**named)[f"QUEUE_{name}"] == value


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        (["critical"], "Closed"),
        (["critical", "ok"], "Production"),
        (["warning"], "Production"),
        (["CRITICAL", "critical"], "Closed"),
    ],
)
def test_sick_endpoints_close_the_queue(health: list[str], expected: str) -> None:
    endpoints = [
        published.endpoint(SERVICE, f"https://{HOST}/", str(i), GLUE2EndpointHealthState=state)
        for i, state in enumerate(health)
    ]
    share = published.share(SERVICE, "long", [NODES])
    (queue,) = one(SERVICE, *endpoints, MANAGER, NODES, share).queues
    assert queue["QUEUE_STATUS"] == expected


def share_of(name: str, queue: str, **attributes: Value) -> Record:
    return published.share(SERVICE, name, [NODES], **attributes).changed(
        GLUE2ComputingShareMappingQueue=queue
    )


PLAIN = share_of("plain", "q", GLUE2ComputingShareFreeSlots=50, GLUE2ComputingShareWaitingJobs=9)
ATLAS = share_of("atlas", "q", GLUE2ComputingShareFreeSlots=7, GLUE2ComputingShareWaitingJobs=4)
CMS = share_of("cms", "q", GLUE2ComputingShareFreeSlots=3, GLUE2ComputingShareWaitingJobs=5)
POLICIES = (
    published.policy(ATLAS, "vo:atlas"),
    published.policy(CMS, ["VO:cms", "VOMS:/cms/Role=pilot"]),
)


@pytest.mark.parametrize(
    ("shares", "vos", "expected"),
    [
        ((PLAIN, ATLAS, CMS), (), (50, "9")),
        ((ATLAS, CMS), (), (7, "9")),
        ((PLAIN, ATLAS, CMS), ("ATLAS",), (7, "4")),
        ((PLAIN, ATLAS, CMS), ("atlas", "cms"), (7, "9")),
        ((PLAIN, ATLAS, CMS), ("lhcb",), (50, "9")),
    ],
)
def test_shares_of_one_queue(
    shares: tuple[Record, ...], vos: tuple[str, ...], expected: tuple[int, str]
) -> None:
    (queue,) = one(*AROUND, *shares, *POLICIES, vos=vos).queues
    assert (queue["QUEUE_FREENODECOUNT"], queue["QUEUE_JOBWAIT"]) == expected
    assert queue["QUEUE_ACCESS"] == ":atlas::cms::/cms/Role=pilot:"


def test_with_a_vo_there_are_only_its_queues() -> None:
    free = share_of("free", "open")
    records = (*AROUND, PLAIN, ATLAS, CMS, free, *POLICIES)
    for vos, names in ((("cms",), ["open", "q"]), (("lhcb",), ["open"])):
        attributes = one(*records, vos=vos, only=True)
        assert [queue["QUEUE_NAME"] for queue in attributes.queues] == names
    queue = one(*records, vos=("cms",), only=True).queues[1]
    assert queue["QUEUE_ACCESS"] == ":cms::/cms/Role=pilot:"
    assert decode(*AROUND, ATLAS, POLICIES[0], vos=("lhcb",), only=True).hosts == {}
    everybody = (*AROUND, ATLAS, published.policy(ATLAS, "ALL"))
    assert list(decode(*everybody, vos=("lhcb",), only=True).hosts) == [HOST]


# ---------------------------------------------------------------- bad values


VALUES = st.lists(
    st.binary(max_size=8)
    | st.sampled_from(
        [
            b"1",
            b"444444",
            b"a",
            b"b",
            b"VO:x",
            b"https://a.org/",
            b"urn:ogf:ComputingShare:h.org:q",
            b'"\n\x00',
            b"\xff",
            b"critical",
            b"2:5 x",
            b"x" * 5000,
        ]
    ),
    max_size=3,
)


@given(st.data())
def test_any_entries_are_survived(data: st.DataObject) -> None:
    entries = {}
    for search in glue2_schema.SEARCHES.values():
        names = [name.lower() for name in search.attributes]
        entry = st.dictionaries(st.sampled_from(names), VALUES)
        entries[search.object_class] = data.draw(st.lists(entry, max_size=3))
    for only in (False, True):
        for host in glue2.decode(entries, ["x"], only=only).hosts.values():
            payload = host.attributes().payload
            assert b"\n" not in payload
            assert payload.count(b'"') % 2 == 0
            assert len(payload) < 65_000


def test_a_huge_value_does_no_harm() -> None:
    nodes = NODES.changed(GLUE2ExecutionEnvironmentCPUModel=b"x" * 100_000)
    share = published.share(SERVICE, "long", [nodes], GLUE2ComputingShareFreeSlots=b"1" * 100_000)
    attributes = one(SERVICE, ENDPOINT, MANAGER, nodes, share)
    assert len(attributes.payload) < 10_000
    assert attributes.queues[0]["QUEUE_FREENODECOUNT"] == 0
    assert b'QUEUE_NAME[0]="long"' in attributes.payload


# ---------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("(GLUE2ComputingShareServingState=production)", None),
        (
            r"(GlueCEStateStatus=Production)(GlueCEAccessControlBaseRule=VO\:gilda)",
            (
                "(GLUE2ComputingShareServingState:caseIgnoreMatch:=Production)"
                "(GLUE2PolicyRule:caseIgnoreMatch:=VO:gilda)"
            ),
        ),
        (
            "(&(GlueCEName=a*)(|(GlueCEPolicyMaxWallClockTime>=60)(!(gluecename=b))))",
            (
                "(GLUE2ComputingShareMappingQueue=a*)"
                "(|(GLUE2ComputingShareMaxWallTime>=3600)(!(GLUE2ComputingShareMappingQueue=b)))"
            ),
        ),
        (
            "(GlueCEPolicyMaxWallClockTime=999999999)(GlueCEPolicyMaxCPUTime=*)",
            "(GLUE2ComputingShareMaxWallTime=999999999)(GLUE2ComputingShareMaxCPUTime=*)",
        ),
        (
            "(GlueHostArchitecturePlatformType=x86_64)",
            (
                "(|(GLUE2ExecutionEnvironmentPlatform:caseIgnoreMatch:=x86_64)"
                "(GLUE2ExecutionEnvironmentPlatform:caseIgnoreMatch:=amd64))"
            ),
        ),
        (
            "(GlueHostOperatingSystemName=Cent*)",
            (
                "(|(GLUE2ExecutionEnvironmentOSName=Cent*)(GLUE2ExecutionEnvironmentOSName=cent*)"
                "(GLUE2ExecutionEnvironmentOSName=CENT*))"
            ),
        ),
        (
            "(GlueCEInfoHostName=*.example.org)",
            "(|(GLUE2EndpointURL=*://*.example.org:*)(GLUE2EndpointURL=*://*.example.org/*))",
        ),
    ],
)
def test_filters_of_glue_1_are_translated(written: str, expected: str | None) -> None:
    assert translated(written) == (written if expected is None else expected)
    assert translated(translated(written)) == translated(written)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("(GlueCEInfoDataDir=x)", "GLUE 2 has nothing for GlueCEInfoDataDir"),
        ("(GLUE2StorageShareServingState=x)", "is no attribute of GLUE 2's queues and hosts"),
        ("(GLUE2ManagerProductName=pbs)", "queues are shares: use -f"),
        (
            "(|(GLUE2PolicyRule=VO:x)(GLUE2ComputingShareFreeSlots>=1))",
            "looks at GLUE2ComputingShare and GLUE2MappingPolicy entries at once",
        ),
        ("(GLUE2PolicyRule=", "expected ')'"),
    ],
)
def test_a_queue_filter_that_cannot_be(written: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        QueueFilter(written)
    assert said in str(caught.value)


def test_the_queue_filter_names_vos() -> None:
    chosen = QueueFilter(
        "(GlueCEAccessControlBaseRule=VOMS:/pheno/Role=x)(!(GLUE2PolicyRule=VO:no))"
        "(GLUE2PolicyRule=vo:gilda)"
    )
    assert chosen.vos == {"pheno", "gilda"}
    (search,) = chosen.searches
    assert search.object_class == "GLUE2MappingPolicy"
    assert search.filter.startswith("(GLUE2PolicyRule:caseIgnoreMatch:=VOMS:/pheno")


@pytest.mark.parametrize(
    ("written", "chosen", "expected"),
    [
        ("(GLUE2ComputingShareMappingQueue=q)", [ATLAS], ["plain_s", "atlas_s"]),
        ("(GLUE2PolicyRule=vo:atlas)", [POLICIES[0]], ["plain_s", "atlas_s"]),
        ("(GlueHostArchitectureSMPSize=16)", [NODES], ["plain_s", "atlas_s"]),
        ("(GlueCEInfoLRMSType=pbs)", [MANAGER], ["plain_s", "atlas_s"]),
        ("(GlueCEInfoHostName=ce.*)", [ENDPOINT], ["plain_s", "atlas_s"]),
        ("(GLUE2ServiceID=t)", [published.service("t")], ["q_t"]),
        ("(GLUE2ServiceID=u)", [], []),
    ],
)
def test_a_host_filter_chooses_services(
    written: str, chosen: list[Record], expected: list[str]
) -> None:
    other = published.service("t")
    entries = glue.entries([*AROUND, PLAIN, ATLAS, POLICIES[0], other, published.share(other, "q")])
    host_filter = HostFilter(written)
    found = [glue.entries(chosen).get(host_filter.searches[0].object_class, [])]
    if len(host_filter.searches) > 1:
        found.append(entries[host_filter.searches[1].object_class])
    shares = host_filter.choose(entries, found)
    assert [share["glue2shareid"] for share in shares] == [[name.encode()] for name in expected]


# ---------------------------------------------------------------- ARC's JSON


DOCUMENT = {
    "Domains": {
        "AdminDomain": {
            "ID": "urn:ad:SITE",
            "Services": {
                "ComputingService": {
                    "ID": "urn:ogf:ComputingService:arc.org:arex",
                    "Type": "org.nordugrid.arex",
                    "ComputingEndpoint": [
                        {
                            "ID": "e",
                            "URL": "https://arc.org:8443/arex",
                            "HealthState": "ok",
                            "ComputingActivities": {"ComputingShare": {"ID": "none"}},
                        },
                        "\n   ",
                    ],
                    "ComputingShare": {
                        "ID": "urn:ogf:ComputingShare:arc.org:grid",
                        "MappingQueue": "grid",
                        "ServingState": "production",
                        "MaxWallTime": "3600",
                        "FreeSlots": "12",
                        "MappingPolicy": {"ID": "p", "Rule": ["vo:atlas", "vo:cms"]},
                        "Associations": {
                            "ComputingEndpointID": "nowhere",
                            "ExecutionEnvironmentID": ["x", "y"],
                        },
                        "_attributes": {"BaseType": "\n  "},
                    },
                    "ComputingManager": {
                        "ID": "m",
                        "ProductName": "slurm",
                        "TotalSlots": "99",
                        "ExecutionEnvironments": {
                            "ExecutionEnvironment": [
                                {"ID": "x", "Platform": "amd64", "CPUClockSpeed": "2000"},
                                {"ID": "y", "Benchmark": {"Type": "HEPSPEC", "Value": "2"}},
                            ]
                        },
                        "ApplicationEnvironments": "\n  ",
                    },
                },
            },
        }
    }
}


def test_what_stands_within_what_becomes_keys() -> None:
    decoded = glue2.decode(glue2_json.entries(json.dumps(DOCUMENT).encode()))
    assert decoded.problems == []
    attributes = decoded.hosts["arc.org"].attributes()
    assert attributes.host["LRMS_NAME"] == "nordugrid-slurm"
    assert (attributes.host["ARCH"], attributes.host["CPU_MHZ"]) == ("x86_64", 2000)
    assert (attributes.host["NODECOUNT"], attributes.more["SITE_NAME"]) == (99, "SITE")
    (queue,) = attributes.queues
    assert (queue["QUEUE_NAME"], queue["QUEUE_MAXTIME"]) == ("grid", 60)
    assert (queue["QUEUE_FREENODECOUNT"], queue["QUEUE_ACCESS"]) == (12, ":atlas::cms:")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "tells nothing yet"),
        (b"  \n", "tells nothing yet"),
        (b"<html>", "tells '<html>'"),
        (b"\xff", "tells"),
        (b"[" * 100_000, "tells"),
    ],
)
def test_what_is_no_document(document: bytes, said: str) -> None:
    with pytest.raises(TransientError, match=said):
        glue2_json.entries(document)


NAMES = st.sampled_from(
    [
        "ComputingService",
        "ComputingShare",
        "ComputingManager",
        "ExecutionEnvironment",
        "MappingPolicy",
        "ComputingEndpoint",
        "Benchmark",
        "Associations",
        "ID",
        "Rule",
        "MappingQueue",
        "URL",
        "ExecutionEnvironmentID",
        "FreeSlots",
        "Value",
    ]
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)


@given(TREES)
def test_any_document_is_survived(tree: object) -> None:
    entries = glue2_json.entries(json.dumps(tree).encode())
    for host in glue2.decode(entries, ["x"]).hosts.values():
        assert b"\n" not in host.attributes().payload
