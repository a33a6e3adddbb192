"""GLUE 1.3 entries to host attributes: every rule, and every fault of the driver before."""

from collections.abc import Iterable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import UsageError
from gridmad.information import glue1
from gridmad.information.glue import Decoded, PublishedHost
from gridmad.information.glue1_filter import HostChoice, HostFilter, QueueFilter
from gridmad.information.ldap import Entry
from gridmad.information.model import HostAttributes
from tests.services import glue
from tests.services.glue import Record, Value

CE = "host.example.org:8443/cream-pbs-long"
CLUSTER = "cluster.example.org"


def hosts(*records: Record, vos: tuple[str, ...] = ()) -> dict[str, HostAttributes]:
    return attributes_of(decode(glue.entries(records), vos))


def decode(entries: Mapping[str, Sequence[Entry]], vos: Iterable[str] = ()) -> Decoded:
    """What becomes of entries that all come at once, each class in two pages."""
    join = glue1.Join(vos)
    for object_class in glue1.SEARCHES:
        found = entries.get(object_class, [])
        join.take(object_class, found[:1])
        join.take(object_class, found[1:])
    return join.finish()


def attributes_of(decoded: Decoded) -> dict[str, HostAttributes]:
    return {name: host.attributes() for name, host in decoded.hosts.items()}


def one(*records: Record, vos: tuple[str, ...] = ()) -> HostAttributes:
    (attributes,) = hosts(*records, vos=vos).values()
    return attributes


def queue_of(**published: Value | list[Value]) -> dict[str, int | str]:
    """The only queue of a host with one CE that publishes this."""
    ce = glue.ce(CE, CLUSTER, GlueCEName="long").changed(**published)
    (queue,) = one(ce).queues
    return dict(queue)


def test_the_developers_guides_host() -> None:
    payload = one(*glue.guide()).payload.decode()
    assert payload.startswith(f"SUCCESS {glue.GUIDE_ATTRIBUTES} ")


def test_a_host_stands_once_however_many_queues_it_has() -> None:
    found = hosts(*glue.grid(20, queues_per_host=4))
    assert list(found) == glue.host_names(20, queues_per_host=4)
    assert [len(host.queues) for host in found.values()] == [4] * 5


def test_a_queue_has_nothing_of_the_queue_before() -> None:
    rich = glue.ce(
        "host.example.org:1/cream-pbs-a",
        CLUSTER,
        GlueCEName="a",
        GlueCEPolicyMaxWallClockTime=60,
        GlueCEStateFreeJobSlots=9,
        GlueCEPolicyPriority=5,
        GlueCEStateStatus="Production",
    )
    poor = glue.ce("host.example.org:1/cream-pbs-b", CLUSTER, GlueCEName="b")
    _, queue = one(rich, poor.changed(GlueCEAccessControlBaseRule=None)).queues
    assert dict(queue) == {
        "QUEUE_NAME": "b",
        "QUEUE_NODECOUNT": 0,
        "QUEUE_FREENODECOUNT": 0,
        "QUEUE_MAXTIME": 0,
        "QUEUE_MAXCPUTIME": 0,
        "QUEUE_MAXJOBSINQUEUE": 0,
        "QUEUE_MAXRUNNINGJOBS": 0,
        "QUEUE_STATUS": "",
        "QUEUE_DISPATCHTYPE": "batch",
        "QUEUE_PRIORITY": "",
        "QUEUE_JOBWAIT": "0",
        "QUEUE_ACCESS": "",
        "QUEUE_MAXCOUNT": 0,
    }


def test_the_subcluster_is_found_by_keys_whatever_its_name() -> None:
    small = glue.sub_cluster("a", CLUSTER, GlueSubClusterLogicalCPUs=2)
    large = glue.sub_cluster(
        "b",
        CLUSTER.upper(),
        GlueSubClusterLogicalCPUs=64,
        GlueHostArchitecturePlatformType="x86_64",
        GlueHostOperatingSystemName="CentOS",
        GlueHostOperatingSystemRelease="7.9",
        GlueHostMainMemoryRAMSize=4096,
        GlueHostMainMemoryRAMAvailable=4000,
    )
    attributes = one(glue.ce(CE, CLUSTER, GlueCEName="long"), glue.cluster(CLUSTER), small, large)
    assert attributes.host["ARCH"] == "x86_64"
    assert attributes.host["OS_VERSION"] == "7.9"
    assert attributes.host["SIZE_MEM_MB"] == 4096
    assert attributes.host["FREE_MEM_MB"] == 4000
    assert attributes.host["NODECOUNT"] == 66
    assert attributes.more == {"OS_RELEASE": "7.9", "SITE_NAME": "S"}


@pytest.mark.parametrize(
    "records",
    [
        # the hosting cluster, where the key is missing or leads nowhere
        [glue.ce(CE, "nowhere", GlueCEName="long", GlueCEHostingCluster=CLUSTER)],
        [
            glue.ce(CE, "", GlueCEName="long", GlueCEHostingCluster=CLUSTER).changed(
                GlueForeignKey=None
            )
        ],
        # the cluster's own key to the CE
        [
            glue.ce(CE, "nowhere", GlueCEName="long"),
            glue.cluster(CLUSTER, [CE]),
        ],
    ],
)
def test_a_dangling_key_is_made_up_for(records: list[Record]) -> None:
    nodes = glue.sub_cluster("s", CLUSTER, GlueHostArchitecturePlatformType="ppc64le")
    assert one(*records, nodes).host["ARCH"] == "ppc64le"


def test_a_key_that_leads_nowhere_leaves_the_host_without_its_nodes() -> None:
    attributes = one(glue.ce(CE, "nowhere", GlueCEName="long", GlueCEInfoTotalCPUs=12))
    assert attributes.host["ARCH"] == ""
    assert attributes.host["CPU_MHZ"] == 0
    assert attributes.host["NODECOUNT"] == 12


@pytest.mark.parametrize(
    ("identity", "name", "manager", "queue"),
    [
        ("h.org:2119/jobmanager-lcgpbs-gilda", "gilda", "jobmanager-lcgpbs", "gilda"),
        ("h.org:2119/jobmanager-lcgpbs-my-long-queue", "my-long-queue", "jobmanager-lcgpbs", None),
        ("h.org:2119/jobmanager-pbs-dteam-cert", "dteam-cert", "jobmanager-pbs", None),
        ("h.org:2119/jobmanager-my-own-lrms-q", "q", "jobmanager-my-own-lrms", None),
        ("h.org:2811/nordugrid-SLURM-Grid", "grid", "nordugrid-SLURM", None),
        ("h.org:2119/jobmanager-fork", "other", "jobmanager-fork", "other"),
        ("h.org:2119/jobmanager-pbs-a-b", "", "jobmanager-pbs", "a-b"),
    ],
)
def test_the_manager_is_the_path_without_the_queue(
    identity: str, name: str, manager: str, queue: str | None
) -> None:
    attributes = one(glue.ce(identity, CLUSTER, GlueCEName=name).changed(GlueCEName=name or None))
    assert attributes.host["LRMS_NAME"] == manager
    assert attributes.queues[0]["QUEUE_NAME"] == (queue or name)


def test_the_manager_of_most_queues_counts_and_its_queue_where_names_clash() -> None:
    records = [
        glue.ce(f"h.org:1/{path}-{queue}", CLUSTER, GlueCEName=queue, GlueCEInfoTotalCPUs=cpus)
        for path, queue, cpus in (
            ("a-fork", "x", 1),
            ("cream-pbs", "x", 2),
            ("cream-pbs", "y", 3),
        )
    ]
    attributes = one(*records)
    assert attributes.host["LRMS_NAME"] == "cream-pbs"
    assert [(q["QUEUE_NAME"], q["QUEUE_NODECOUNT"]) for q in attributes.queues] == [
        ("x", 2),
        ("y", 3),
    ]


def test_hosts_are_named_in_lower_case_and_by_the_identity_where_need_be() -> None:
    records = [
        glue.ce("A.org:1/m-l-q", CLUSTER, GlueCEName="q", GlueCEInfoHostName="Host.Example.ORG."),
        glue.ce("host.example.org:1/m-l-r", CLUSTER, GlueCEName="r"),
        glue.ce("B.org:1/m-l-q", CLUSTER, GlueCEName="q", GlueCEInfoHostName="not a host"),
        glue.ce("C.org/m-l-q", CLUSTER, GlueCEName="q"),
    ]
    found = hosts(*records)
    assert list(found) == ["b.org", "c.org", "host.example.org"]
    assert len(found["host.example.org"].queues) == 2


def test_a_ce_without_a_host_is_told_and_left_out() -> None:
    bad = glue.ce("(&*:1/x", CLUSTER, GlueCEName="q")
    decoded = decode(glue.entries([bad, glue.ce(CE, CLUSTER, GlueCEName="long")]))
    assert list(decoded.hosts) == ["host.example.org"]
    assert "GlueCEUniqueID '(&*:1/x' names no host: left out" in decoded.problems


def test_an_entry_published_twice_counts_once() -> None:
    first = glue.ce(CE, CLUSTER, GlueCEName="long", GlueCEInfoTotalCPUs=5)
    second = glue.ce(CE.upper(), CLUSTER, GlueCEName="long", GlueCEInfoTotalCPUs=7)
    assert [queue["QUEUE_NODECOUNT"] for queue in one(first, second).queues] == [5]


# ---------------------------------------------------------------- queues


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        ({"GlueCEPolicyAssignedJobSlots": 8, "GlueCEInfoTotalCPUs": 16}, 8),
        ({"GlueCEPolicyAssignedJobSlots": 0, "GlueCEInfoTotalCPUs": 16}, 16),
        ({"GlueCEPolicyAssignedJobSlots": 999999999, "GlueCEInfoTotalCPUs": 16}, 16),
        ({"GlueCEInfoTotalCPUs": 16}, 16),
    ],
)
def test_node_count(published: dict[str, Value], expected: int) -> None:
    assert queue_of(**published)["QUEUE_NODECOUNT"] == expected


@pytest.mark.parametrize(
    ("slots", "cpus", "expected"),
    [
        (5, 9, 5),
        (0, 9, 0),
        (None, 9, 9),
        (444444, 9, 9),
        (444444, 444444, 0),
        (-1, None, 0),
        ("soon", 9, 9),
        (None, None, 0),
    ],
)
def test_free_slots(slots: Value | None, cpus: Value | None, expected: int) -> None:
    published = {"GlueCEStateFreeJobSlots": slots, "GlueCEStateFreeCPUs": cpus}
    known = {name: value for name, value in published.items() if value is not None}
    assert queue_of(**known)["QUEUE_FREENODECOUNT"] == expected


@pytest.mark.parametrize(
    ("vos", "expected"),
    [
        ((), 50),
        (("atlas",), 7),
        (("ATLAS", "cms"), 9),
        (("biomed",), 3),
        (("ops",), 50),
        (("lhcb",), 50),
    ],
)
def test_free_slots_of_a_vo(vos: tuple[str, ...], expected: int) -> None:
    ce = glue.ce(CE, CLUSTER, GlueCEName="long", GlueCEStateFreeJobSlots=50)
    views = [
        glue.view(ce, "atlas", GlueCEStateFreeJobSlots=7),
        glue.view(ce, "cms", GlueCEStateFreeJobSlots=9),
        glue.view(ce, "lhcb", GlueCEStateFreeJobSlots=444444),
        glue.view(
            ce, "b", GlueCEAccessControlBaseRule="VOMS:/biomed/Role=x", GlueCEStateFreeCPUs=3
        ),
    ]
    (queue,) = one(ce, *views, vos=vos).queues
    assert queue["QUEUE_FREENODECOUNT"] == expected


def test_views_stand_in_for_a_ce_that_does_not_tell() -> None:
    ce = glue.ce(CE, CLUSTER, GlueCEName="long")
    views = [glue.view(ce, vo, GlueCEStateFreeJobSlots=free) for vo, free in (("a", 4), ("b", 6))]
    (queue,) = one(ce, *views).queues
    assert queue["QUEUE_FREENODECOUNT"] == 6


def test_times_and_limits() -> None:
    queue = queue_of(
        GlueCEPolicyMaxWallClockTime=0,
        GlueCEPolicyMaxObtainableWallClockTime=2880,
        GlueCEPolicyMaxCPUTime=999999999,
        GlueCEPolicyMaxTotalJobs="99999999999999999999",
        GlueCEPolicyMaxRunningJobs=7,
        GlueCEPolicyMaxSlotsPerJob=4,
        GlueCEStateWaitingJobs=444444,
        GlueCEStateRunningJobs=3,
        GlueCEStateEstimatedResponseTime=77,
    )
    assert queue["QUEUE_MAXTIME"] == 2880
    assert queue["QUEUE_MAXCPUTIME"] == 999999999
    assert queue["QUEUE_MAXJOBSINQUEUE"] == 99999999999999999999  # held to 32 bits on the line
    assert queue["QUEUE_MAXRUNNINGJOBS"] == 7
    assert queue["QUEUE_MAXCOUNT"] == 4
    assert queue["QUEUE_JOBWAIT"] == "0"
    assert queue["QUEUE_JOBRUN"] == 3
    assert queue["QUEUE_RESPONSETIME"] == 77
    assert queue_of(GlueCEStateWaitingJobs=12)["QUEUE_JOBWAIT"] == "12"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["VO:gilda"], ":gilda:"),
        (["VO:a", "VO:b", "vo:a"], ":a::b:"),
        (["VOMS:/a/Role=production", "VO:b"], ":a::b::/a/Role=production:"),
        (["DENY:/x", "VO:"], ""),
    ],
)
def test_access(rules: list[Value], expected: str) -> None:
    assert queue_of(GlueCEAccessControlBaseRule=rules)["QUEUE_ACCESS"] == expected


def test_generic_attributes_keep_within_gwds_limits() -> None:
    records = [
        glue.ce(
            f"h.org:1/m-l-q{i:02}",
            CLUSTER,
            GlueCEName=f"q{i:02}",
            GlueCEStateRunningJobs=1,
            GlueCEStateEstimatedResponseTime=1,
        )
        for i in range(67)
    ]
    nodes = glue.sub_cluster(
        "s", CLUSTER, GlueHostOperatingSystemRelease="9", GlueHostBenchmarkSI00=5
    )
    attributes = one(*records, nodes)
    assert attributes.dropped == ()
    assert b"QUEUE_ACCESS[66]" in attributes.payload


@pytest.mark.parametrize(
    ("size", "free", "expected"),
    [
        (64 << 30, 10 << 30, (65536, 10240)),
        (65536, 10240, (65536, 10240)),
        (64 << 30, 512 << 10, (65536, 0)),
    ],
)
def test_file_systems_in_bytes_and_in_megabytes(
    size: int, free: int, expected: tuple[int, int]
) -> None:
    nodes = glue.sub_cluster("s", CLUSTER)
    small = glue.file_system("boot", nodes, GlueHostLocalFileSystemSize=size // 16)
    large = glue.file_system(
        "scratch",
        nodes,
        GlueHostLocalFileSystemSize=size,
        GlueHostLocalFileSystemAvailableSpace=free,
    )
    attributes = one(glue.ce(CE, CLUSTER, GlueCEName="long"), nodes, small, large)
    assert (attributes.more["SIZE_DISK_MB"], attributes.more["FREE_DISK_MB"]) == expected


# ---------------------------------------------------------------- bad values


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        (b'say "hi"', b"OS_NAME=\"say 'hi'\""),
        (b"a\nb\r\x00c\x7f", b'OS_NAME="a b  c "'),
        ("Universität".encode(), 'OS_NAME="Universität"'.encode()),
        (b"Universit\xe4t", 'OS_NAME="Universität"'.encode()),
        (b"\xff\xfe", 'OS_NAME="ÿþ"'.encode()),
        (b"", b'OS_NAME=""'),
    ],
)
def test_values_that_would_break_the_line(published: bytes, expected: bytes) -> None:
    nodes = glue.sub_cluster("s", CLUSTER, GlueHostOperatingSystemName=published)
    payload = one(glue.ce(CE, CLUSTER, GlueCEName="long"), nodes).payload
    assert expected in payload
    assert b"\n" not in payload
    assert payload.count(b'"') % 2 == 0


def test_numbers_that_are_none() -> None:
    nodes = glue.sub_cluster(
        "s",
        CLUSTER,
        GlueHostProcessorClockSpeed="2666.76",
        GlueHostArchitectureSMPSize="eight",
        GlueHostMainMemoryRAMSize="-5",
        GlueSubClusterLogicalCPUs="1_000",
    )
    host = one(glue.ce(CE, CLUSTER, GlueCEName="long"), nodes).host
    assert host["CPU_MHZ"] == 2666
    assert (host["CPU_SMP"], host["SIZE_MEM_MB"], host["NODECOUNT"]) == (0, 0, 0)


VALUES = st.lists(
    st.binary(max_size=8)
    | st.sampled_from(
        [
            b"1",
            b"444444",
            b"h.org:1/m-l-q",
            b"GlueClusterUniqueID=c",
            b"GlueCEUniqueID=h.org:1/m-l-q",
            b"VO:x",
            b"VOMS:/x/y",
            b"c",
            b"q",
        ]
    ),
    max_size=3,
)


@given(st.data())
def test_any_entries_are_survived(data: st.DataObject) -> None:
    entries = {}
    for search in glue1.SEARCHES.values():
        names = [name.lower() for name in search.attributes]
        entry = st.dictionaries(st.sampled_from(names), VALUES)
        entries[search.object_class] = data.draw(st.lists(entry, max_size=3))
    for attributes in attributes_of(decode(entries, ["x"])).values():
        assert b"\n" not in attributes.payload
        assert len(attributes.payload) < 65_000


# ---------------------------------------------------------------- filters


def test_the_queue_filter_goes_to_the_queues_and_names_vos() -> None:
    chosen = QueueFilter(
        r"(GlueCEStateStatus=Production)(|(GlueCEAccessControlBaseRule=VO\:gilda)"
        r"(GlueCEAccessControlBaseRule=VOMS:/pheno/Role=x)(!(GlueCEAccessControlBaseRule=VO:no)))"
    )
    assert chosen.vos == {"gilda", "pheno"}
    filters = {
        search.object_class: search.filter for search in chosen.apply(glue1.SEARCHES.values())
    }
    assert filters.pop("GlueCE").startswith("(GlueCEStateStatus=Production)(|(")
    assert set(filters.values()) == {""}


def test_a_queue_filter_cannot_look_at_nodes() -> None:
    with pytest.raises(
        UsageError, match=r"gluehostoperatingsystemname is of GlueSubCluster: use -f"
    ):
        QueueFilter("(GlueHostOperatingSystemName=CentOS)")


def test_a_host_filter_asks_each_class_for_its_own() -> None:
    chosen = HostFilter(
        "(&(GlueCEInfoLRMSType=slurm)(GlueHostArchitecturePlatformType=x86_64)"
        "(GlueSubClusterLogicalCPUs>=8)(GlueClusterName=c*))"
    )
    assert {search.object_class: search.filter for search in chosen.searches} == {
        "GlueCE": "(GlueCEInfoLRMSType=slurm)",
        "GlueSubCluster": "(GlueHostArchitecturePlatformType=x86_64)(GlueSubClusterLogicalCPUs>=8)",
        "GlueCluster": "(GlueClusterName=c*)",
    }
    with pytest.raises(UsageError, match="looks at GlueCE and GlueSubCluster entries at once"):
        HostFilter("(|(GlueCEName=a)(GlueHostArchitectureSMPSize=2))")


def test_a_host_stays_with_all_its_queues() -> None:
    records = [
        glue.ce("a.org:1/m-l-q", "ca", GlueCEName="q"),
        glue.ce("a.org:1/m-l-r", "ca", GlueCEName="r"),
        glue.ce("b.org:1/m-l-q", "cb", GlueCEName="q"),
    ]
    ces = glue.entries(records)["GlueCE"]

    def staying(*found: tuple[str, Sequence[Entry]]) -> list[str]:
        choice = HostChoice([object_class for object_class, _ in found])
        for number, (_, entries) in enumerate(found):
            choice.take(number, entries[:1])
            choice.take(number, entries[1:])
        join = glue1.Join(is_wanted=choice.has)
        join.take("GlueCE", ces)
        decoded = join.finish().hosts
        assert all(len(decoded[host].queues) == 2 for host in decoded if host == "a.org")
        return list(decoded)

    assert staying() == ["a.org", "b.org"]
    assert staying(("GlueCE", [ces[1]])) == ["a.org"]
    nodes = glue.entries([glue.sub_cluster("s", "cb")])["GlueSubCluster"]
    assert staying(("GlueSubCluster", nodes)) == ["b.org"]
    assert staying(("GlueSubCluster", nodes), ("GlueCE", [ces[0]])) == []
    clusters = glue.entries([glue.cluster("CA")])["GlueCluster"]
    assert staying(("GlueCluster", clusters)) == ["a.org"]


@given(
    size=st.integers(1, 7),
    views_for_a_host=st.integers(1, 9),
    vos=st.sampled_from([(), ("biomed",)]),
    only=st.booleans(),
)
def test_pages_of_any_size_are_joined_alike(
    size: int, views_for_a_host: int, vos: tuple[str, ...], only: bool
) -> None:
    records = [
        record
        if (record.attributes.get("GlueCEName") or [b""])[0] != b"short"
        else record.changed(GlueCEStateFreeJobSlots=[], GlueCEStateFreeCPUs=[])
        for record in glue.grid(12)
    ]
    entries = glue.entries(records)

    def join(size: int) -> tuple[list[tuple[str, PublishedHost]], list[str]]:
        joined = glue1.Join(vos, only=only and bool(vos))
        for object_class in glue1.SEARCHES:
            of_class = entries.get(object_class, [])
            for start in range(0, len(of_class), size):
                joined.take(object_class, of_class[start : start + size])
        decoded = joined.finish()
        return list(decoded.hosts.items()), sorted(decoded.problems)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(glue1, "VIEWS_FOR_A_HOST", views_for_a_host)
        assert join(size) == join(1000)
