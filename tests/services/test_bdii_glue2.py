"""The BDII driver on a real directory server that holds GLUE 2, or GLUE 2 beside GLUE 1.3."""

import logging
from pathlib import Path

import pytest

from gridmad.errors import UsageError
from gridmad.information.bdii import BdiiInformation
from gridmad.information.glue_trees import choose_trees
from tests.information import Told
from tests.services import glue, glue2
from tests.services.arc_ldif import HOST as ARC_HOST
from tests.services.arc_ldif import arc_ldif
from tests.services.slapd import SlapdMaker
from tests.services.slapd import slapd as slapd
from tests.services.test_bdii import ask_all, discover, fails, make, queue_names, run

NOTHING = glue.ldif([])


def shown(found: dict[str, Told]) -> dict[str, list[str]]:
    return {host: queue_names(attributes) for host, attributes in found.items()}


# ---------------------------------------------------------------- both trees


def test_hosts_of_both_stand_once_and_fill_each_other(slapd: SlapdMaker) -> None:
    both = glue.ce(
        "both.org:1/cream-pbs-x",
        "c",
        GlueCEName="x",
        GlueCEInfoTotalCPUs=8,
        GlueCEStateFreeJobSlots=0,
        GlueCEStateWaitingJobs=444444,
    )
    first = glue.ce("first.org:1/cream-pbs-x", "c", GlueCEName="x")
    service = glue2.service("s")
    manager = glue2.manager(service, GLUE2ComputingManagerTotalSlots=99)
    nodes = glue2.environment(manager, GLUE2ExecutionEnvironmentCPUClockSpeed=2600)
    other = glue2.service("t")
    records = [
        service,
        glue2.endpoint(service, "https://BOTH.org/", GLUE2EndpointInterfaceName="other"),
        manager,
        nodes,
        glue2.share(
            service,
            "x",
            [nodes],
            GLUE2ComputingShareFreeSlots=7,
            GLUE2ComputingShareWaitingJobs=5,
            GLUE2ComputingShareMaxWallTime=3600,
        ),
        glue2.share(service, "y", [nodes]),
        other,
        glue2.endpoint(other, "https://second.org/"),
        glue2.share(other, "z"),
    ]
    server = slapd(glue.ldif([both, first]), glue2=glue2.ldif(records))
    found = ask_all(server)
    assert shown(found) == {"both.org": ["x", "y"], "first.org": ["x"], "second.org": ["z"]}
    host = found["both.org"].host
    assert (host["LRMS_NAME"], host["NODECOUNT"], host["CPU_MHZ"]) == ("cream-pbs", 8, 2600)
    queue = found["both.org"].queues[0]
    assert queue["QUEUE_FREENODECOUNT"] == 0  # which GLUE 1.3 knows
    assert (queue["QUEUE_JOBWAIT"], queue["QUEUE_MAXTIME"]) == ("5", 60)
    assert list(ask_all(server, "--glue", "1")) == ["both.org", "first.org"]
    assert list(ask_all(server, "--glue", "2")) == ["both.org", "second.org"]
    assert ask_all(server, "--glue", "2")["both.org"].host["LRMS_NAME"] == "other-pbs"


def test_a_grid_in_both(slapd: SlapdMaker) -> None:
    server = slapd(glue.ldif(glue.grid(1000)), glue2=glue2.ldif(glue2.grid(1000)))
    found = {version: ask_all(server, "--glue", version) for version in ("1", "2", "auto")}
    assert shown(found["auto"]) == shown(found["1"]) == shown(found["2"])
    for host, merged in found["auto"].items():
        first = found["1"][host]
        assert merged.host == first.host
        assert merged.dropped == ()
        for queue, alone in zip(merged.queues, first.queues, strict=True):
            assert {**queue, **alone}.items() >= {
                name: value for name, value in alone.items() if value not in (0, "", "0")
            }.items()
            assert queue["QUEUE_MAXTIME"] == alone["QUEUE_MAXTIME"]


@pytest.mark.parametrize("version", ["2", "auto"])
def test_glue_2_alone(slapd: SlapdMaker, version: str) -> None:
    server = slapd(NOTHING, glue2=glue2.ldif(glue2.grid(20)))
    assert list(ask_all(server, "--glue", version)) == glue.host_names(20)


def test_a_named_base_chooses_its_tree(slapd: SlapdMaker) -> None:
    server = slapd(glue.ldif(glue.grid(20)), glue2=glue2.ldif(glue2.grid(24)))
    assert len(ask_all(server)) == 6
    assert len(ask_all(server, "-b", "o=grid")) == 5
    below = "GLUE2DomainID=SITE-0001,GLUE2GroupID=grid,o=glue"
    assert {host[4:12] for host in ask_all(server, "--glue2-base", below)} == {"site0001"}
    found = ask_all(server, "-b", "mds-vo-name=SITE-0000,mds-vo-name=local,o=grid", "--glue2-base",
                    below)  # fmt: skip
    assert {host[4:12] for host in found} == {"site0000", "site0001"}


def test_no_tree_at_all(slapd: SlapdMaker) -> None:
    server = slapd(NOTHING)
    assert "noSuchObject" in fails("-s", server.server, "--glue", "2")
    missing = ("-b", "mds-vo-name=a,o=grid", "--glue2-base", "o=glue")
    assert "noSuchObject" in fails("-s", server.server, *missing)
    assert ask_all(server) == {}


# ---------------------------------------------------------------- filters


A, B = glue2.service("a", "SITE"), glue2.service("b", "SITE")
MANAGER_A = glue2.manager(A, GLUE2ManagerProductName="pbs")
MANAGER_B = glue2.manager(B, GLUE2ManagerProductName="slurm")
NODES_A = glue2.environment(MANAGER_A, GLUE2ExecutionEnvironmentMainMemorySize=2048)
NODES_B = glue2.environment(MANAGER_B, GLUE2ExecutionEnvironmentPlatform="aarch64")
AX = glue2.share(A, "x", [NODES_A], GLUE2ComputingShareMaxWallTime=3600)
AY = glue2.share(
    A,
    "y",
    [NODES_A],
    GLUE2ComputingShareServingState="draining",
    GLUE2ComputingShareFreeSlots=9,
    GLUE2ComputingShareMaxWallTime=86400,
)
BX = glue2.share(B, "x", [NODES_B], GLUE2ComputingShareFreeSlots=4)
GRID = [
    glue2.site("SITE"),
    A,
    glue2.endpoint(A, "https://a.org:8443/"),
    MANAGER_A,
    NODES_A,
    AX,
    AY,
    glue2.policy(AY, ["VO:gilda", "VO:ops"]),
    B,
    glue2.endpoint(B, "https://b.org:8443/"),
    MANAGER_B,
    NODES_B,
    BX,
    glue2.policy(BX, "vo:gilda"),
]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"a.org": ["x", "y"], "b.org": ["x"]}),
        (["-q", "(GLUE2ComputingShareServingState=draining)"], {"a.org": ["y"]}),
        (["-q", "(GlueCEStateStatus=Production)"], {"a.org": ["x"], "b.org": ["x"]}),
        (
            ["-q", r"(GlueCEStateStatus=Production)(GlueCEAccessControlBaseRule=VO\:gilda)"],
            {"b.org": ["x"]},
        ),
        (
            ["-q", "(&(GLUE2PolicyRule=VO:ops)(GLUE2ComputingShareFreeSlots>=5))"],
            {"a.org": ["y"]},
        ),
        (["-q", "(GlueCEPolicyMaxWallClockTime>=61)"], {"a.org": ["y"]}),
        (["-q", "(GlueCEPolicyMaxWallClockTime<=60)"], {"a.org": ["x"]}),
        (["-q", "(GlueCEAccessControlBaseRule=VO:*)"], {"a.org": ["y"], "b.org": ["x"]}),
        (["-f", "(GlueHostArchitecturePlatformType=x86_64)"], {"a.org": ["x", "y"]}),
        (["-f", "(GlueHostMainMemoryRAMSize>=1024)(GlueCEName=y)"], {"a.org": ["x", "y"]}),
        (["-f", "(GlueCEInfoLRMSType=SLURM)"], {"b.org": ["x"]}),
        (["-f", "(GlueCEInfoHostName=b.org)"], {"b.org": ["x"]}),
        (["-f", "(!(GlueCEInfoHostName=b.*))"], {"a.org": ["x", "y"]}),
        (["-f", "(GLUE2PolicyRule=VO:ops)", "-q", "(GLUE2ComputingShareMappingQueue=x)"],
         {"a.org": ["x"]}),
        (["-f", "(GLUE2ServiceID=b)"], {"b.org": ["x"]}),
        (["-f", "(GLUE2ManagerProductName=lsf)"], {}),
    ],
)  # fmt: skip
def test_filters(slapd: SlapdMaker, arguments: list[str], expected: dict[str, list[str]]) -> None:
    server = slapd(NOTHING, glue2=glue2.ldif(GRID))
    assert shown(ask_all(server, "--glue", "2", *arguments)) == expected


def test_a_filter_for_both_trees(slapd: SlapdMaker, caplog: pytest.LogCaptureFixture) -> None:
    ces = [
        glue.ce("a.org:1/cream-pbs-x", "c", GlueCEName="x", GlueCEStateStatus="Draining"),
        glue.ce("c.org:1/cream-pbs-x", "c", GlueCEName="x", GlueCEStateStatus="Production"),
    ]
    server = slapd(glue.ldif(ces), glue2=glue2.ldif(GRID))
    found = ask_all(server, "-q", "(GlueCEStateStatus=Production)")
    assert list(found) == ["a.org", "b.org", "c.org"]
    assert "only one version" not in caplog.text
    found = ask_all(server, "-q", "(GLUE2ComputingShareServingState=production)")
    assert list(found) == ["a.org", "b.org"]
    assert "only one version of GLUE is read" in caplog.text
    found = ask_all(server, "-q", "(GlueCEUniqueID=c.org*)")
    assert list(found) == ["c.org"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--glue", "1", "-q", "(GLUE2PolicyRule=VO:x)"], "no attribute of GLUE 1.3's queues"),
        (["--glue", "2", "-q", "(GlueCEInfoDataDir=x)"], "GLUE 2 has nothing for"),
        (["-q", "(GlueCEInfoDataDir=x)(GLUE2PolicyRule=VO:x)"], "no attribute of GLUE 1.3"),
        (["-f", "(ou=people)"], "-f (ou=people): ou is no attribute of GLUE 1.3's"),
        (["-q", "(GlueCEStateStatus=Production"], "expected ')' at its end"),
        (["--glue2-base", "glue"], "--glue2-base 'glue': write a row of NAME=VALUE"),
    ],
)
def test_a_wrong_command_line_is_told_at_once(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        make("-s", "bdii", *arguments)
    assert said in str(caught.value)


@pytest.mark.parametrize("vos", ["", "a,", "a b", "(x)"])
def test_what_is_no_vo(vos: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make("-s", "bdii", "--vo", vos)
    assert "is no name of a VO" in capsys.readouterr().err


# ---------------------------------------------------------------- VOs


def test_a_vo_sees_its_queues_and_slots(slapd: SlapdMaker) -> None:
    open_to = ["VO:gilda", "VO:ops"]
    ces = [
        glue.ce("c.org:1/cream-pbs-x", "c", GlueCEName="x", GlueCEAccessControlBaseRule="VO:ops"),
        glue.ce(
            "c.org:1/cream-pbs-y",
            "c",
            GlueCEName="y",
            GlueCEAccessControlBaseRule=open_to,
            GlueCEStateFreeJobSlots=9,
        ),
    ]
    view = glue.view(ces[1], "gilda", GlueCEStateFreeJobSlots=2)
    only_by_view = glue.ce("d.org:1/cream-pbs-x", "c", GlueCEName="x")
    records = [*ces, view, only_by_view, glue.view(only_by_view, "gilda")]
    server = slapd(glue.ldif(records), glue2=glue2.ldif(GRID))
    found = ask_all(server, "--vo", "gilda")
    # a.org's x has no policy: who may use it is not known.
    assert shown(found) == {
        "a.org": ["x", "y"],
        "b.org": ["x"],
        "c.org": ["y"],
        "d.org": ["x"],
    }
    assert found["c.org"].queues[0]["QUEUE_FREENODECOUNT"] == 2
    assert found["c.org"].queues[0]["QUEUE_ACCESS"] == ":gilda:"
    assert found["a.org"].queues[1]["QUEUE_ACCESS"] == ":gilda:"
    assert found["d.org"].queues[0]["QUEUE_ACCESS"] == ":gilda:"
    assert shown(ask_all(server, "--vo", "lhcb,ops")) == {"a.org": ["x", "y"], "c.org": ["x", "y"]}
    assert ask_all(server, "--vo", "ops")["c.org"].queues[1]["QUEUE_FREENODECOUNT"] == 9


# ---------------------------------------------------------------- what sites really publish


def test_what_arc_publishes(slapd: SlapdMaker, tmp_path: Path) -> None:
    ldif = arc_ldif(tmp_path / "arc")
    # No A-REX runs here, and the provider tells so.
    (attributes,) = ask_all(slapd(NOTHING, glue2=ldif), "--glue", "2").values()
    assert {queue["QUEUE_STATUS"] for queue in attributes.queues} == {"Closed"}
    server = slapd(NOTHING, glue2=ldif.replace(b"HealthState: critical", b"HealthState: ok"))
    (attributes,) = ask_all(server, "--glue", "2").values()
    assert attributes.dropped == ()
    host = attributes.host
    assert (host["HOSTNAME"], host["LRMS_NAME"]) == (ARC_HOST, "nordugrid-fork")
    assert host["ARCH"] in ("x86_64", "aarch64")
    assert int(host["NODECOUNT"]) > 0
    assert attributes.host["SITE_NAME"] == "TEST-SITE"
    assert queue_names(attributes) == ["long", "short"]
    for queue in attributes.queues:
        assert queue["QUEUE_STATUS"] == "Production"
        assert queue["QUEUE_ACCESS"] == ":atlas::biomed:"
        assert int(queue["QUEUE_NODECOUNT"]) > 0
    found = ask_all(server, "--glue", "2", "--vo", "biomed")
    assert found[ARC_HOST].queues[0]["QUEUE_ACCESS"] == ":biomed:"
    assert ask_all(server, "--glue", "2", "--vo", "lhcb") == {}
    chosen = ("-q", r"(GlueCEStateStatus=Production)(GlueCEAccessControlBaseRule=VO\:atlas)")
    assert queue_names(ask_all(server, "--glue", "2", *chosen)[ARC_HOST]) == ["long", "short"]


def test_jobs_that_are_published_are_not_asked_for(slapd: SlapdMaker) -> None:
    endpoint = GRID[2]
    jobs = glue2.activity(endpoint, "job1")
    found = ask_all(slapd(NOTHING, glue2=glue2.ldif([*GRID, *jobs])), "--glue", "2")
    assert list(found) == ["a.org", "b.org"]
    classes = {search.object_class for search in choose_trees("2").searches}
    assert not any("Activity" in name for name in classes)


def test_names_in_another_case_and_values_of_all_kinds(slapd: SlapdMaker) -> None:
    nodes = NODES_A.changed(
        GLUE2ExecutionEnvironmentCPUModel=b'Xe"on\n\x01',
        GLUE2ExecutionEnvironmentOSName="Universität".encode(),
    )
    share = AX.changed(
        GLUE2ComputingShareServingState=b"x" * 100_000, GLUE2ComputingShareFreeSlots=7
    )
    ldif = glue2.ldif([GRID[0], A, GRID[2], MANAGER_A, nodes, share])
    ldif = ldif.replace(b"GLUE2ComputingShareFree", b"glue2COMPUTINGshareFREE")
    (attributes,) = ask_all(slapd(NOTHING, glue2=ldif), "--glue", "2").values()
    assert attributes.queues[0]["QUEUE_FREENODECOUNT"] == 7
    payload = attributes.payload
    assert b"CPU_MODEL=\"Xe'on" in payload
    assert 'OS_NAME="Universität"'.encode() in payload
    assert b"\n" not in payload
    assert payload.count(b'"') % 2 == 0
    assert b'QUEUE_NAME[0]="x"' in payload
    assert len(payload) < 10_000


def test_what_was_dropped_is_told_once(slapd: SlapdMaker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    lost = glue2.service("lost")
    records = [GRID[0], A, GRID[2], MANAGER_A, NODES_A, AX, lost, glue2.share(lost, "q")]
    ces = [glue.ce("-/cream-pbs-q", "c", GlueCEName="q")]
    server = slapd(glue.ldif(ces), glue2=glue2.ldif(records))

    async def test(driver: BdiiInformation) -> None:
        assert await discover(driver) == ["a.org"]
        for _ in range(3):
            driver.read()

    run(test, "-s", server.server)
    assert caplog.text.count("GLUE2ShareID 'q_lost' leads to no host: left out") == 1
    assert caplog.text.count("GlueCEUniqueID '-/cream-pbs-q' names no host: left out") == 1
