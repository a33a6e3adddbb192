"""What Slurm's commands print, as a host and its queues."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.information import slurm_tables
from gridmad.information.glue import UNSET
from gridmad.information.slurm_tables import Facts

NODES = b"""\
short|up|a0|0/64/0/64|64|16000|9000|100|1:00:00|1-2|1|all
short|up|a1|60/4/0/64|64|16000|9500|100|1:00:00|1-2|1|all
short|up|a2|0/0/64/64|64|16000|15000|100|1:00:00|1-2|1|all
short|up|b0|0/8/0/8|8|2000|N/A|0|1:00:00|1-2|1|all
gpu|inact|b0|0/8/0/8|8|2000|N/A|0|infinite|1-infinite|10|physics,staff
"""


def test_a_cluster() -> None:
    partitions, problems = slurm_tables.partitions(NODES)
    assert problems == []
    counts = slurm_tables.jobs(b"R|short\nPD|short,gpu\nPD|gpu\n")
    host = slurm_tables.host("h", partitions, counts, Facts("x86_64", "Linux", "6.1"))
    assert host.payload == (
        b'SUCCESS HOSTNAME="h" ARCH="x86_64" NODECOUNT=136 LRMS_NAME="jobmanager-slurm" '
        b'LRMS_TYPE="slurm" FORK_NAME="jobmanager-slurm" OS_NAME="Linux" OS_VERSION="6.1" '
        b"CPU_SMP=64 FREE_MEM_MB=9500 SIZE_MEM_MB=16000 SIZE_DISK_MB=100 "
        b'QUEUE_NAME[0]="gpu" QUEUE_NODECOUNT[0]=8 QUEUE_FREENODECOUNT[0]=8 '
        b"QUEUE_MAXTIME[0]=999999999 QUEUE_MAXCPUTIME[0]=999999999 "
        b"QUEUE_MAXJOBSINQUEUE[0]=999999999 QUEUE_MAXRUNNINGJOBS[0]=8 "
        b'QUEUE_STATUS[0]="Closed" QUEUE_DISPATCHTYPE[0]="batch" QUEUE_PRIORITY[0]="10" '
        b'QUEUE_JOBWAIT[0]="2" QUEUE_ACCESS[0]=":physics::staff:" QUEUE_MAXCOUNT[0]=8 '
        b"QUEUE_JOBRUN[0]=0 "
        b'QUEUE_NAME[1]="short" QUEUE_NODECOUNT[1]=136 QUEUE_FREENODECOUNT[1]=76 '
        b"QUEUE_MAXTIME[1]=60 QUEUE_MAXCPUTIME[1]=60 "
        b"QUEUE_MAXJOBSINQUEUE[1]=999999999 QUEUE_MAXRUNNINGJOBS[1]=136 "
        b'QUEUE_STATUS[1]="Production" QUEUE_DISPATCHTYPE[1]="batch" QUEUE_PRIORITY[1]="1" '
        b'QUEUE_JOBWAIT[1]="1" QUEUE_ACCESS[1]="" QUEUE_MAXCOUNT[1]=128 '
        b"QUEUE_JOBRUN[1]=1"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("infinite", UNSET),
        ("UNLIMITED", UNSET),
        ("n/a", UNSET),
        ("30", 30),
        ("45:00", 45),
        ("0:30", 1),
        ("12:00:00", 720),
        ("2-00:00:00", 2880),
        ("2-12", 3600),
        ("2-12:30", 3630),
    ],
)
def test_limits_of_time(text: str, expected: int) -> None:
    assert slurm_tables.minutes(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "-1", "1:2:3", "1::", "٣"])
def test_what_is_no_limit_of_time(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        slurm_tables.minutes(text)


@pytest.mark.parametrize(
    "line",
    [
        b"slurm_load_partitions: Unable to contact slurm controller",
        b"short|up|a0|0/64/0|64|16000|9000|100|1:00:00|1-2|1|all",
        b"short|up|a0|0/64/0/64|many|16000|9000|100|1:00:00|1-2|1|all",
        b"short|up|a0|0/64/0/64|64|16000|9000|100|soon|1-2|1|all",
        b"a|b|c|d|e|f|g|h|i|j|k|l|m",
        b"\xff\xfe|",
    ],
)
def test_a_line_that_cannot_be_read_is_told_and_left_out(line: bytes) -> None:
    partitions, problems = slurm_tables.partitions(line + b"\n" + NODES)
    assert [partition.name for partition in partitions] == ["gpu", "short"]
    assert len(partitions[1].nodes) == 4
    (problem,) = problems
    assert problem.startswith("sinfo printed '")


def test_what_a_node_has() -> None:
    line = b"NodeName=n0 Arch=x86_64 CPUTot=64 OS=Linux 6.1.0-13-amd64 #1 SMP Debian RealMemory=1\n"
    assert slurm_tables.facts(line) == Facts("x86_64", "Linux", "6.1.0")
    assert slurm_tables.facts(b"NodeName=n0 State=DOWN OS=Linux RealMemory=1") == Facts(
        "", "Linux", ""
    )
    assert slurm_tables.facts(b"\xff") == Facts()


@given(st.binary(), st.binary(), st.binary())
def test_any_output_is_survived(nodes: bytes, jobs: bytes, facts: bytes) -> None:
    partitions, _ = slurm_tables.partitions(nodes)
    told = slurm_tables.facts(facts)
    host = slurm_tables.host("h", partitions, slurm_tables.jobs(jobs), told)
    assert b"\n" not in host.payload


LINE = st.lists(
    st.sampled_from([b"short", b"up", b"1/2/0/3", b"4", b"1-2", b"infinite", b"N/A", b"-7", b"x"]),
    min_size=12,
    max_size=12,
).map(b"|".join)


@given(st.lists(LINE, max_size=5).map(b"\n".join))
def test_lines_of_any_words_are_survived(nodes: bytes) -> None:
    partitions, _ = slurm_tables.partitions(nodes)
    host = slurm_tables.host("h", partitions, {}, Facts())
    assert len(host.queues) == len(partitions)
    assert b"\n" not in host.payload
