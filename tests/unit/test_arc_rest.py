"""What is said to A-REX and what it answers; the answers are a real server's."""

import base64
import json
import logging
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import DriverError, TransientError
from gridmad.execution import arc_rest
from gridmad.execution.description.model import JobDescription
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState, Submission
from gridmad.execution.payload import payload
from gridmad.execution.resource import Task

TAG = "5f0c3a91d2e80007"
ADL = "{http://www.eu-emi.eu/es/2010/12/adl}"
FIRST = "DmUNDmcPOqAoOSAtDmABFKDmABFKDmABFKDmMTHKDmABFKDmubtDJm"
SECOND = "8IiNDmcPOqAoOSAtDmABFKDmABFKDmABFKDmMTHKDmBBFKDmVPUxhn"

CREATED = f"""\
{{"job":[{{"status-code":"201","reason":"Created","id":"{FIRST}","state":"ACCEPTING"}},\
{{"status-code":"500","reason":"Requested queue nosuch is not allowed for this user"}}]}}"""
CREATED_ONE = f"""\
{{"job":{{"status-code":"201","reason":"Created","id":"{FIRST}","state":"ACCEPTING"}}}}"""
STATUS = f"""\
{{"job":[{{"status-code":"200","reason":"OK","id":"{FIRST}","state":"RUNNING"}},\
{{"status-code":"404","reason":"Job not found","id":"{SECOND}","state":"None"}}]}}"""
KILLED = f"""\
{{"job":[{{"status-code":"202","reason":"Queued for killing","id":"{FIRST}"}},\
{{"status-code":"404","reason":"Job not found","id":"nonesuch"}},\
{{"status-code":"505","reason":"Job could not be canceled","id":"{SECOND}"}}]}}"""
INFO = """\
{"job":{"status-code":"200","reason":"OK","id":"%s","info_document":{"ComputingActivity":\
{"ID":"urn:caid:localhost:org.nordugrid.arcrest:8IiN","Name":"gridmad-5f0c3a91d2e80007",\
"OtherInfo":"SubmittedVia=org.nordugrid.arcrest","Type":"single","IDFromEndpoint":\
"urn:idfe:8IiN","JobDescription":"emies:adl","State":["nordugrid:FAILED::INLRMS",\
"file:inlrms","bes:Failed","arcrest:FAILED","emies:terminal","emiesattr:processing-failure"],\
"RestartState":["nordugrid:INLRMS","file:inlrms","bes:Running","arcrest:OTHER",\
"emies:processing-running","emiesattr:app-running"],"ExitCode":"7","Error":\
"LRMS error: (7) Job finished with wrong exit code - 7 != 0","Owner":"/O=gridmad test/CN=alice",\
"LocalOwner":"daemon","RequestedSlots":"1","StdIn":"/dev/null","StdOut":"out","StdErr":"err",\
"ExecutionNode":"vm","Queue":"fork","UsedTotalWallTime":"5","SubmissionTime":\
"2026-11-25T09:24:04Z","Associations":{"ComputingShareID":"urn:ogf:ComputingShare:localhost:fork"},\
"_attributes":{"BaseType":"  ","CreationTime":"  ","Validity":"  "}}}}}"""
LOCAL = b"""\
globalid=DmUN
lrms=fork
args=/bin/sh -c echo\\ ZW52\\ |\\ base64\\ -d\\ |\\ /bin/sh
jobname=gridmad-5f0c3a91d2e80007
subject=/O=gridmad test/CN=alice
"""


def task(job: JobDescription) -> Task:
    return Task(TAG, Submission("1", "host", "", job))


JOB = JobDescription("/bin/echo", ("a b", "$HOME", "it's"), stdout="out", stderr="err")


def read(element: ET.Element) -> ET.Element:
    """The one description of a document, with the document's namespace."""
    root = ET.fromstring(arc_rest.activities([element]))
    assert root.tag == f"{ADL}ActivityDescriptions"
    (found,) = root
    return found


def text(element: ET.Element, path: str) -> str | None:
    return element.findtext("/".join(f"{ADL}{name}" for name in path.split("/")))


def script(element: ET.Element) -> str:
    """The shell script of a description, as the job's shell gets it."""
    words = [one.text for one in element.iter(f"{ADL}Argument")]
    assert words[0] == "-c"
    assert words[1] is not None
    assert not set("$`\\\"'\n") & set(words[1]), "A-REX would expand it"
    _, encoded, *rest = shlex.split(words[1])
    assert rest == ["|", "base64", "-d", "|", "/bin/sh"]
    return base64.b64decode(encoded).decode("utf-8", "surrogateescape")


# ---------------------------------------------------------------- descriptions


def test_a_description() -> None:
    job = replace(
        JOB,
        count=4,
        processes_per_node=2,
        queue="long",
        max_wall_time=90,
        max_cpu_time=60,
        max_memory=2048,
        min_memory=1,
    )
    found = read(arc_rest.activity(task(job), queue="short"))
    assert text(found, "ActivityIdentification/Name") == f"gridmad-{TAG}"
    assert text(found, "Application/Executable/Path") == "/bin/sh"
    assert text(found, "Resources/QueueName") == "long"
    assert text(found, "Resources/SlotRequirement/NumberOfSlots") == "4"
    assert text(found, "Resources/SlotRequirement/SlotsPerHost") == "2"
    assert text(found, "Resources/WallTime") == "5400"
    assert text(found, "Resources/IndividualCPUTime") == "3600"
    assert text(found, "Resources/IndividualPhysicalMemory") == str(2048 << 20)
    assert text(found, "DataStaging/InputFile/Name") == arc_rest.COMMIT
    assert text(found, "DataStaging/InputFile/Source/URI") is None, "it would not be waited for"
    assert "'/bin/echo' 'a b' '$HOME' 'it'\\''s'" in script(found)


def test_what_is_not_asked_for_is_not_mentioned() -> None:
    found = read(arc_rest.activity(task(JOB)))
    resources = found.find(f"{ADL}Resources")
    assert resources is not None
    assert len(resources) == 0
    assert not arc_rest.stages_files(JOB)


def test_a_job_that_names_no_queue_gets_the_default() -> None:
    assert text(read(arc_rest.activity(task(JOB), queue="short")), "Resources/QueueName") == "short"


@pytest.mark.parametrize(
    ("job", "problem"),
    [
        (replace(JOB, project="p"), "no projects"),
        (replace(JOB, job_type="mpi", count=2), "type mpi"),
        (replace(JOB, job_type="multiple", count=2), "type multiple"),
        (replace(JOB, executable="gsiftp://host/x"), "not on the resource"),
        (replace(JOB, environment={"a b": "c"}), "environment"),
        (replace(JOB, queue="a\x1bb"), "XML"),
        (replace(JOB, stdout="https://host/out"), "needs a proxy"),
        (replace(JOB, arguments=("x" * 100_000,)), "more than"),
    ],
)
def test_what_arc_has_not_is_refused(job: JobDescription, problem: str) -> None:
    with pytest.raises(DriverError, match=problem):
        arc_rest.activity(task(job))


def test_standard_streams_that_are_urls_are_staged() -> None:
    job = replace(JOB, stdin="gsiftp://a/in", stdout="https://a/out", stderr="https://a/err")
    assert arc_rest.stages_files(job)
    found = read(arc_rest.activity(task(job), delegation="d1"))
    staged = [
        (one.tag.removeprefix(ADL), *(value.text for value in one.iter() if value is not one))
        for one in found.find(f"{ADL}DataStaging") or ()
    ]
    assert staged == [
        ("InputFile", "gridmad.commit"),
        ("InputFile", "gridmad.stdin.staged", None, "gsiftp://a/in", "d1"),
        ("OutputFile", "gridmad.stdout.staged", None, "https://a/out", "d1", *["true"] * 3),
        ("OutputFile", "gridmad.stderr.staged", None, "https://a/err", "d1", *["true"] * 3),
    ]


def test_output_and_errors_with_one_url_are_one_file() -> None:
    job = replace(JOB, stdout="https://a/out", stderr="https://a/out")
    found = read(arc_rest.activity(task(job), delegation="d1"))
    assert [one.findtext(f"{ADL}Name") for one in found.iter(f"{ADL}OutputFile")] == [
        "gridmad.stdout.staged"
    ]


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(
    st.lists(TEXT, max_size=4), st.dictionaries(st.from_regex(r"\A[A-Z]{1,9}\Z"), TEXT, max_size=3)
)
def test_any_text_survives_the_way_to_the_shell(
    arguments: list[str], environment: dict[str, str]
) -> None:
    job = JobDescription("/bin/echo", (*arguments, "\udcff"), environment=environment)
    made = script(read(arc_rest.activity(task(job), home="/h")))
    assert made.endswith(f"\n{payload(job, environment={'HOME': '/h'})}")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def run(job: JobDescription, session: Path, home: Path) -> int:
    """What A-REX does with a job, but for the waiting."""
    element = arc_rest.activity(task(job), home=str(home), delegation="d1")
    words = [one.text or "" for one in element.iter() if one.tag in ("Path", "Argument")]
    environment = {**os.environ, "HOME": str(session)}
    return subprocess.run(words, cwd=session, env=environment).returncode


def test_the_script_runs_as_described(tmp_path: Path, home: Path) -> None:
    (home / "in").write_text("given\n")
    arguments = ("-c", 'cat; echo "$X|$1|$HOME|$PWD"; exit 3', "sh", "tök $(id)\n`id`")
    job = JobDescription(
        "/bin/sh", arguments, stdin="in", stdout="out", environment={"X": "a\x1b b"}
    )
    assert run(job, tmp_path, home) == 3
    assert (home / "out").read_text() == f"given\na\x1b b|tök $(id)\n`id`|{home}|{home}\n"


def test_staged_streams_are_files_of_the_session(tmp_path: Path, home: Path) -> None:
    (tmp_path / "gridmad.stdin.staged").write_text("given\n")
    arguments = ("-c", "cat; echo error >&2")
    job = JobDescription(
        "/bin/sh", arguments, stdin="https://h/i", stdout="https://h/o", stderr="https://h/e"
    )
    assert run(job, tmp_path, home) == 0
    assert (tmp_path / "gridmad.stdout.staged").read_text() == "given\n"
    assert (tmp_path / "gridmad.stderr.staged").read_text() == "error\n"
    assert run(replace(job, stderr="https://h/o"), tmp_path, home) == 0
    assert (tmp_path / "gridmad.stdout.staged").read_text() == "given\nerror\n"


# ---------------------------------------------------------------- answers


def test_new_jobs() -> None:
    first, second = arc_rest.created(CREATED.encode(), 2)
    assert first == FIRST
    assert str(second) == "Requested queue nosuch is not allowed for this user"
    assert arc_rest.created(CREATED_ONE.encode(), 1) == [FIRST]


@pytest.mark.parametrize("answer", [CREATED, CREATED_ONE, "", '{"job":[]}', '{"job":["x","y"]}'])
def test_an_answer_that_does_not_tell_of_each_job_is_a_doubt(answer: str) -> None:
    with pytest.raises(TransientError):
        arc_rest.created(answer.encode(), 3)


def test_an_id_that_is_none_is_not_taken() -> None:
    for name in ("", "a/b", "a b", "x" * 300):
        answer = json.dumps({"job": {"status-code": "201", "reason": "Created", "id": name}})
        (outcome,) = arc_rest.created(answer.encode(), 1)
        assert isinstance(outcome, DriverError)


def test_states() -> None:
    assert arc_rest.states(STATUS.encode()) == {FIRST: "RUNNING"}
    assert arc_rest.states(b"") == {}
    for names, state in (
        ("ACCEPTING ACCEPTED PREPARING PREPARED SUBMITTING QUEUING", PENDING),
        ("RUNNING EXITINGLRMS OTHER EXECUTED FINISHING KILLING", ACTIVE),
        ("HELD", SUSPENDED),
    ):
        for name in names.split():
            assert arc_rest.job_state(name) == state
            assert not arc_rest.is_ended(name)
    assert all(map(arc_rest.is_ended, ("FINISHED", "FAILED", "KILLED")))


def test_an_unknown_state_is_told_to_people(caplog: pytest.LogCaptureFixture) -> None:
    assert arc_rest.job_state("DREAMING") == ACTIVE
    assert "DREAMING" in caplog.text


def test_documents() -> None:
    ((job, document),) = arc_rest.documents((INFO % SECOND).encode())
    assert job == SECOND
    assert arc_rest.tag_of(document) == TAG
    assert arc_rest.ending(document) == JobState.done(7)


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("", None),
        ("gridmad-", ""),
        (f"gridmad-{TAG}", TAG),
        (f"gridmad-{TAG}0", ""),
        (TAG, ""),
        ("another", ""),
    ],
)
def test_the_tag_of_a_name(name: str, tag: str | None) -> None:
    assert arc_rest.tag_of({"Name": name}) == tag


def test_the_name_in_a_control_file() -> None:
    assert arc_rest.tag_in(arc_rest.name_in(LOCAL)) == TAG
    assert arc_rest.name_in(b"\xff\nlrms=fork") == ""


def document(state: str, **more: Any) -> dict[str, Any]:
    return {"State": ["nordugrid:X", f"arcrest:{state}", "emies:terminal"], **more}


UNEXPLAINED = "ARC could not run it, and does not say why"


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (document("FINISHED", ExitCode="0"), JobState.done(0)),
        (document("FINISHED"), JobState.done(0)),
        (document("FAILED", ExitCode="137"), JobState.done(137)),
        (document("FAILED", ExitCode="271", Error="job killed: walltime"), JobState.done(143)),
        (document("FAILED", Error="LRMS error: (3) wrong exit code"), JobState.done(3)),
        (document("FAILED", ExitCode="-1", Error="was lost"), JobState.failed("was lost")),
        (
            document("FAILED", ExitCode="0", Error=["Failed in files upload", "x"]),
            JobState.failed("Failed in files upload; x"),
        ),
        (
            document("FAILED", Error="User file: gridmad.commit - Timeout waiting"),
            JobState.failed("User file: gridmad.commit - Timeout waiting"),
        ),
        (document("FAILED", ExitCode="-1"), JobState.failed(UNEXPLAINED)),
        (document("FAILED"), None),
        (document("KILLED", ExitCode="0"), JobState.done(143)),
        (document("RUNNING"), None),
        ({}, None),
        ({"State": {"x": 1}}, None),
    ],
)
def test_endings(found: dict[str, Any], state: JobState | None) -> None:
    assert arc_rest.ending(found) == state


def test_a_limit_that_killed_a_job_is_told_to_people(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    arc_rest.ending(document("FAILED", ExitCode="271", Error="job killed: walltime"))
    assert "job killed: walltime" in caplog.text


def test_cancellations() -> None:
    outcomes = arc_rest.cancelled(KILLED.encode())
    assert outcomes[FIRST] is None
    assert outcomes["nonesuch"] is None
    assert str(outcomes[SECOND]) == "Job could not be canceled"


def test_the_list_of_all_jobs() -> None:
    assert arc_rest.listed(b"") == []
    assert arc_rest.listed(b'{"job":{"id":"a"}}') == ["a"]
    assert arc_rest.listed(b'{"job":[{"id":"a"},{"id":"b"},{}]}') == ["a", "b"]


def test_a_question() -> None:
    assert json.loads(arc_rest.question(["a", "b"])) == {"job": [{"id": "a"}, {"id": "b"}]}


@pytest.mark.parametrize(
    "answer", [b"<html>", b"[]x", b'{"jobs":[]}', b"3", b'"job"', b"[" * 100_000, b"\xff"]
)
def test_garbage_is_no_answer(answer: bytes) -> None:
    with pytest.raises(TransientError, match="unreadable"):
        arc_rest.states(answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "state", "job", "info_document", "ComputingActivity", "Name"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps({"job": value}).encode()))
def test_any_answer_is_read_or_refused(answer: bytes) -> None:
    try:
        arc_rest.states(answer)
        arc_rest.cancelled(answer)
        arc_rest.listed(answer)
        for _, found in arc_rest.documents(answer):
            arc_rest.ending(found)
            arc_rest.tag_of(found)
        arc_rest.created(answer, 1)
    except TransientError:
        pass
