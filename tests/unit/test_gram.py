"""What GRAM's back end makes of descriptions and answers, without a server."""

import argparse
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import DescriptionError, DriverError, TransientError
from gridmad.execution import gram
from gridmad.execution.description import parse_description
from gridmad.execution.description.model import JobDescription, StagedFile
from gridmad.execution.gram import Gram
from gridmad.execution.gram_answers import (
    NO_REASON,
    Answer,
    GramError,
    GramState,
    explain,
    path_of,
    state_of,
)
from gridmad.execution.gram_jobs import Gatekeeper
from gridmad.execution.gram_rsl import job_rsl
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState, Submission

CONTACT = "https://ce.example.org:42331/17370860850872285611/72057598265975683/"


def test_the_example_of_gridways_guide() -> None:
    read = parse_description(
        b'&(executable="/bin/sleep")(arguments="50")'
        b'(stdout="https://gw.example.org:4321/o")(stderr="https://gw.example.org:4321/e")'
        b'(queue="gilda")'
    )
    assert job_rsl(read, 300) == (
        b'&(executable="/bin/sleep")(arguments="50")'
        b'(stdout="https://gw.example.org:4321/o")(stderr="https://gw.example.org:4321/e")'
        b'(queue="gilda")(two_phase="300")'
    )


def test_all_that_a_description_may_have() -> None:
    job = JobDescription(
        executable="a.out",
        arguments=("", 'say "hi"', "$(HOME)"),
        directory="work",
        environment={"A": "1", "B": "x y"},
        stdin="in",
        stdout="out",
        stderr="err",
        inputs=(StagedFile("a.out", "https://gw/a.out", True), StagedFile("there already")),
        outputs=(StagedFile("result", "gsiftp://gw/result"),),
        count=8,
        nodes=2,
        job_type="mpi",
        queue="q",
        project="p",
        max_wall_time=60,
        max_cpu_time=55,
        max_memory=2048,
        min_memory=128,
    )
    assert job_rsl(job, 9).decode() == (
        '&(executable="a.out")(arguments="" "say ""hi""" "$(HOME)")'
        '(environment=("A" "1") ("B" "x y"))'
        '(directory="work")(stdin="in")(stdout="out")(stderr="err")(job_type="mpi")(queue="q")'
        '(project="p")(count="8")(host_count="2")(max_wall_time="60")(max_cpu_time="55")'
        '(max_memory="2048")(min_memory="128")(file_stage_in=("https://gw/a.out" "a.out"))'
        '(file_stage_out=("result" "gsiftp://gw/result"))(two_phase="9")'
    )


def test_what_only_gram_knows_is_handed_on_as_it_was_written() -> None:
    read = parse_description(
        b'&(executable=x)(File_Stage_In=(https://a/b c) ("http://d" e))(scratch_dir=$(S))'
        b"(restart=https://evil/)(two_phase=1)(unknown=1)(rsl_substitution=(S /tmp))"
    )
    text = job_rsl(read, 60).decode()
    assert text.startswith('&(executable="x")(two_phase="60")')
    assert '(file_stage_in=(https://a/b c) ("http://d" e))' in text
    assert "restart" not in text
    assert "unknown" not in text


def test_what_other_dialects_say_of_a_known_name_is_no_rsl() -> None:
    job = JobDescription(
        "x", extra={"filestagein": "a)(executable=/bin/evil", "scratchdir": "<d/>"}
    )
    assert b"evil" not in job_rsl(job, 60)


@pytest.mark.parametrize("url", ["data", "file:///tmp/data", "srm://se/data"])
def test_a_file_that_gram_cannot_stage_is_refused(url: str) -> None:
    with pytest.raises(DescriptionError, match="cannot stage data"):
        job_rsl(JobDescription("x", inputs=(StagedFile("data", url),)), 60)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(
    executable=texts.filter(lambda text: text.strip() == text != "" and text != "(null)"),
    arguments=st.lists(texts),
    environment=st.dictionaries(st.from_regex(r"[A-Z]{1,8}", fullmatch=True), texts),
)
def test_what_is_written_is_what_was_meant(
    executable: str, arguments: list[str], environment: dict[str, str]
) -> None:
    job = JobDescription(executable, tuple(arguments), environment=environment)
    read = parse_description(job_rsl(job, 60))
    assert (read.executable, read.arguments) == (executable, tuple(arguments))
    assert read.environment == environment


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (GramState.UNSUBMITTED, PENDING),
        (GramState.STAGE_IN, PENDING),
        (GramState.PENDING, PENDING),
        (GramState.ACTIVE, ACTIVE),
        (GramState.STAGE_OUT, ACTIVE),
        (GramState.SUSPENDED, SUSPENDED),
        (0, PENDING),
        (4096, PENDING),
    ],
)
def test_states(state: int, expected: JobState) -> None:
    assert state_of(Answer(0, "", state=state)) == expected


@pytest.mark.parametrize("code", [0, 1, 255, None])
def test_ends(code: int | None) -> None:
    answer = Answer(0, "", state=GramState.DONE, exit_code=code)
    assert state_of(answer) == JobState.done(code)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (GramError.USER_CANCELLED, JobState.done(143)),
        (GramError.SYSTEM_CANCELLED, JobState.done(143)),
        (GramError.JOB_MANAGER_STOPPED, ACTIVE),
        (GramError.PROXY_EXPIRED, ACTIVE),
        (5, JobState.failed("no such file (GRAM error 5) /x")),
        (0, JobState.failed(NO_REASON)),
    ],
)
def test_failures(failure: int, expected: JobState) -> None:
    text = f"no such file (GRAM error {failure})" if failure else ""
    answer = Answer(
        0, "", state=GramState.FAILED, failure=failure, failure_text=text,
        detail="/x" if failure else "",
    )  # fmt: skip
    assert state_of(answer) == expected


def test_an_error_in_words() -> None:
    assert explain(Answer(48, "the RSL is wrong (GRAM error 48)")) == (
        "the RSL is wrong (GRAM error 48)"
    )
    assert explain(Answer(1, "not supported", detail="x")) == "not supported: x"


# ---------------------------------------------------------------- contacts


def resource(port: int = 2119) -> Gram:
    words = argparse.Namespace(port=port, credential_warnings=(), timeout=60.0, interval=20.0)
    return Gram(words)


@pytest.mark.parametrize(
    ("host", "service", "expected"),
    [
        ("ce.example.org", "jobmanager-pbs", "ce.example.org:2119/jobmanager-pbs"),
        ("ce.example.org:4711", "jobmanager-fork", "ce.example.org:4711/jobmanager-fork"),
        ("ce", "", "ce:2119/jobmanager"),
    ],
)
def test_endpoints(host: str, service: str, expected: str) -> None:
    job = Submission("1", host, service, JobDescription("x"))
    assert resource().endpoint(job) == expected


@pytest.mark.parametrize(
    ("host", "service"),
    [("", "jobmanager"), ("a b", "x"), ("[::1]", "x"), ("ce:123456", "x"), ("ce", "x/y"),
     ("ce", "x:subject"), ("ce\n", "x")],
)  # fmt: skip
def test_what_is_no_endpoint(host: str, service: str) -> None:
    with pytest.raises(DriverError, match="no contact of a gatekeeper"):
        resource().endpoint(Submission("1", host, service, JobDescription("x")))


def test_a_job_is_known_by_its_path() -> None:
    assert path_of(CONTACT) == "/17370860850872285611/72057598265975683/"
    assert path_of("nonsense") == ""


def test_job_managers_move() -> None:
    gatekeeper = Gatekeeper("ce:2119/jobmanager")
    assert gatekeeper.where(CONTACT) == CONTACT
    gatekeeper.moved(CONTACT, CONTACT.replace("42331", "2000"))
    gatekeeper.moved("https://ce.example.org:2000/1/2/", "https://ce.example.org:3000/1/2/")
    assert gatekeeper.where(CONTACT) == CONTACT.replace("42331", "3000")
    # Back at an address that it had: no circle.
    gatekeeper.moved("https://ce.example.org:3000/1/2/", CONTACT)
    assert gatekeeper.where(CONTACT) == CONTACT
    assert gatekeeper.where(CONTACT.replace("42331", "2000")) == CONTACT


def test_a_job_manager_that_runs_and_does_not_answer_is_left_alone_for_a_while() -> None:
    gatekeeper = Gatekeeper("ce:2119/jobmanager")
    gatekeeper.check(CONTACT)
    gatekeeper.restarted(CONTACT, CONTACT)
    with pytest.raises(TransientError, match=r"ce\.example\.org:42331"):
        gatekeeper.check(CONTACT)
    moved = CONTACT.replace("42331", "2000")
    gatekeeper.restarted(CONTACT, moved)
    gatekeeper.check(gatekeeper.where(CONTACT))


@pytest.mark.parametrize(
    ("name", "is_known", "is_taken"),
    [
        ("gw.example.org", True, True),
        ("gw.example.org", False, False),
        ("gw", True, False),
        ("localhost.localdomain", True, False),
    ],
)
def test_a_name_by_which_job_managers_reach_this_machine(
    monkeypatch: pytest.MonkeyPatch, name: str, is_known: bool, is_taken: bool
) -> None:
    def resolve(host: str, port: None) -> list[object]:
        if not is_known:
            raise socket.gaierror
        return []

    monkeypatch.setattr(socket, "getfqdn", lambda: name)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    found = gram.own_name()
    if is_taken:
        assert found == name
    else:
        assert found == "localhost" or ipaddress.ip_address(found)
