"""What Slurm's tools print, and the words of sbatch."""

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.execution.description.model import JobDescription
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState, Submission
from gridmad.execution.resource import Task
from gridmad.execution.slurm import (
    MAX_SCRIPT,
    Row,
    _pieces,
    _requirements,
    array_ranges,
    job_state,
    parse_sacct,
    parse_squeue,
)

SQUEUE = b"""\
3|1|0|gridmad-0123456789ab|COMPLETED|0|None|
4|1|1|gridmad-0123456789ab|FAILED|1792|NonZeroExitCode|
5|1|2|gridmad-0123456789ab|FAILED|9|JobLaunchFailure|
2|2|0|a|b
c|PENDING|0|JobHeldUser|
6|1|3|gridmad-0123456789ab|RUNNING|0|None|
12|12|N/A|wrap|TIMEOUT|15|TimeLimit|
15|15|N/A|gridmad-aaaaaaaaaaaa|CANCELLED|0|None|
12||N/A|wrap|TIMEOUT|15|TimeLimit|
slurm_load_jobs error: Unable to contact slurm controller (connect failure)
"""

SACCT = b"""\
1|gridmad-0123456789ab|FAILED|0:15
3|gridmad-0123456789ab|COMPLETED|0:0
4|a|b|FAILED|7:0
17_4|gridmad-0123456789ab|CANCELLED by 0|0:15
17_5|gridmad-0123456789ab|OUT_OF_MEMORY|0:125
18|half
19|x|RUNNING|what
sacct: error: Unknown type ArrayJobId: 1
"""


def test_squeue() -> None:
    name = "gridmad-0123456789ab"
    assert list(parse_squeue(SQUEUE)) == [
        Row("1_0", "3", name, "COMPLETED", 0, "None"),
        Row("1_1", "4", name, "FAILED", 1792, "NonZeroExitCode"),
        Row("1_2", "5", name, "FAILED", 9, "JobLaunchFailure"),
        Row("1_3", "6", name, "RUNNING", 0, "None"),
        Row("12_N/A", "12", "wrap", "TIMEOUT", 15, "TimeLimit"),
        Row("15_N/A", "15", "gridmad-aaaaaaaaaaaa", "CANCELLED", 0, "None"),
    ]


def test_sacct() -> None:
    name = "gridmad-0123456789ab"
    assert list(parse_sacct(SACCT)) == [
        Row("1", "1", name, "FAILED", 15, ""),
        Row("3", "3", name, "COMPLETED", 0, ""),
        Row("4", "4", "a|b", "FAILED", 7 << 8, ""),
        Row("17_4", "17_4", name, "CANCELLED", 15, ""),
        Row("17_5", "17_5", name, "OUT_OF_MEMORY", 125, ""),
    ]


@given(st.binary() | st.text(alphabet="0123456789|_:NA/ \n").map(str.encode))
def test_whatever_tools_print_is_read(output: bytes) -> None:
    for row in (*parse_squeue(output), *parse_sacct(output)):
        job_state(row)


@given(st.lists(st.sampled_from([b"1", b"0", b"7", b"COMPLETED", b"FAILED", b"\xff", b"9" * 30])))
def test_every_row_has_a_state(fields: list[bytes]) -> None:
    line = b"|".join(fields)
    for row in (*parse_squeue(line), *parse_sacct(line)):
        code = job_state(row).exit_code
        assert code is None or 0 <= code < 256


@pytest.mark.parametrize(
    ("state", "status", "expected"),
    [
        ("PENDING", 0, PENDING),
        ("CONFIGURING", 0, PENDING),
        ("REQUEUE_HOLD", 0, PENDING),
        ("RUNNING", 0, ACTIVE),
        ("COMPLETING", 15, ACTIVE),
        ("A_STATE_TO_COME", 0, ACTIVE),
        ("SUSPENDED", 0, SUSPENDED),
        ("STOPPED", 0, SUSPENDED),
        ("COMPLETED", 0, JobState.done(0)),
        ("FAILED", 1792, JobState.done(7)),
        ("FAILED", 9, JobState.done(137)),
        ("CANCELLED", 0, JobState.done(143)),
        ("CANCELLED", 15, JobState.done(143)),
        ("CANCELLED", 9, JobState.done(137)),
        ("TIMEOUT", 15, JobState.done(143)),
        ("TIMEOUT", 0, JobState.done(143)),
        ("OUT_OF_MEMORY", 0, JobState.done(137)),
        ("NODE_FAIL", 0, JobState.failed("its node failed (NODE_FAIL)")),
        ("FAILED", 0, JobState.failed("Slurm could not run it: JobHeldAdmin")),
    ],
)
def test_states(state: str, status: int, expected: JobState) -> None:
    assert job_state(Row("1_0", "1", "name", state, status, "JobHeldAdmin")) == expected


@given(st.sets(st.integers(0, 300), min_size=1))
def test_ranges(numbers: set[int]) -> None:
    found: list[int] = []
    for part in array_ranges(sorted(numbers)).split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    assert found == sorted(numbers)


def test_requirements() -> None:
    options = argparse.Namespace(partition=None)
    assert _requirements(JobDescription("x"), options) == ()
    job = JobDescription(
        "x", queue="long", project="physics", count=3, max_wall_time=17, max_memory=50, min_memory=9
    )
    assert _requirements(job, options) == (
        "--partition=long", "--account=physics", "--ntasks=3", "--time=17", "--mem=50M"
    )  # fmt: skip
    assert _requirements(JobDescription("x"), argparse.Namespace(partition="p")) == (
        "--partition=p",
    )
    spread = JobDescription("x", count=8, nodes=4, processes_per_node=2)
    assert _requirements(spread, options) == ("--ntasks=8", "--nodes=4", "--ntasks-per-node=2")


@given(st.lists(st.integers(0, MAX_SCRIPT), max_size=20))
def test_no_script_is_too_large(sizes: list[int]) -> None:
    submission = Submission("1", "", "", JobDescription("x"))
    array = [(Task(f"{i:016x}", submission), "x" * size) for i, size in enumerate(sizes)]
    pieces = list(_pieces(array))
    assert [one for piece in pieces for one in piece] == array
    assert all(sum(len(script) for _, script in piece) <= MAX_SCRIPT for piece in pieces)
