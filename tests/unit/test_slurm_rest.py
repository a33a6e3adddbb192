"""What slurmrestd answers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import TransientError
from gridmad.execution.slurm import Row, job_state
from gridmad.execution.slurm_rest import _error, parse_jobs

NAME = "gridmad-bbbbbbbbbbbb"


def job(**fields: object) -> dict[str, object]:
    """A job as v0.0.38 tells it; much is left out."""
    plain: dict[str, object] = {"job_id": 18, "array_job_id": 18, "array_task_id": None,
             "array_task_string": "",
             "name": NAME, "job_state": "PENDING", "exit_code": 0,
             "state_reason": "None"}  # fmt: skip
    return plain | fields


def rows(*jobs: object) -> list[Row]:
    return parse_jobs(json.dumps({"meta": {}, "errors": [], "jobs": jobs}).encode())


def test_tasks_that_have_begun() -> None:
    ended = job(job_id=19, array_task_id=0, job_state="FAILED", exit_code=1792)
    assert rows(ended) == [Row("18_0", "19", NAME, "FAILED", 1792, "None")]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0-2", [0, 1, 2]),
        ("0,2,5", [0, 2, 5]),
        ("[3-4,7]", [3, 4, 7]),
        ("0-8:4,9%2", [0, 4, 8, 9]),
        ("195,197,...", [195, 197, 198, 199]),
    ],
)
def test_tasks_that_wait_are_one_job(text: str, numbers: list[int]) -> None:
    assert [row.job for row in rows(job(array_task_string=text))] == [f"18_{n}" for n in numbers]


def test_what_has_begun_comes_last() -> None:
    found = rows(job(job_id=19, array_task_id=2, job_state="RUNNING"), job(array_task_string="0-2"))
    assert {row.job: row.state for row in found}["18_2"] == "RUNNING"


def test_an_array_that_was_cancelled_before_it_began() -> None:
    assert [row.job for row in rows(job(job_state="CANCELLED"))] == ["18_N/A"]


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        (["RUNNING"], {"return_code": {"set": False, "number": 0}}, ("RUNNING", 0)),
        (["CANCELLED", "COMPLETING"], {"return_code": 0}, ("COMPLETING", 0)),
        (["FAILED"], {"return_code": {"set": True, "number": 7}}, ("FAILED", 1792)),
        (["FAILED"], {"return_code": {"set": True, "number": 0},
                      "signal": {"id": {"set": True, "number": 9}, "name": "KILL"}}, ("FAILED", 9)),
        (["FAILED"], {"return_code": 0, "signal": {"signal_id": 15}}, ("FAILED", 15)),
    ],
)  # fmt: skip
def test_later_versions(state: object, code: object, expected: tuple[str, int]) -> None:
    number = {"set": True, "infinite": False, "number": 3}
    found = rows(job(array_task_id=number, job_state=state, exit_code=code))
    assert [(row.job, row.state, row.status) for row in found] == [("18_3", *expected)]


def test_jobs_that_are_no_arrays_are_passed_over() -> None:
    assert rows(job(array_job_id=0), job(array_job_id={"set": False, "number": 0}), 7, None) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_list(content: bytes) -> None:
    with pytest.raises(TransientError):
        parse_jobs(content)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.text(max_size=5) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["set", "number", "return_code", "signal", "id", "error"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
KEYS = st.sampled_from([*job()])


@given(st.lists(st.dictionaries(KEYS, VALUES) | VALUES, max_size=4))
def test_whatever_is_answered_is_read(jobs: list[object]) -> None:
    for row in rows(*(job() | one if isinstance(one, dict) else one for one in jobs)):
        job_state(row)


@given(st.binary() | VALUES.map(lambda value: json.dumps({"errors": [value]}).encode()))
def test_errors(answer: bytes) -> None:
    code, text = _error(answer)
    assert code >= 0
    assert "\n" not in text


def test_an_error() -> None:
    answer = b'{"errors": [{"error_code": 2000, "error": "Invalid partition name specified"}]}'
    assert _error(answer) == (2000, "Invalid partition name specified")
