"""What Grid Engine's tools print, and what they are given; no server."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.commands import Commands
from gridmad.errors import DriverError
from gridmad.execution.description.model import JobDescription
from gridmad.execution.grid_engine import (
    Listing,
    Record,
    Trouble,
    complaints,
    deleted_tasks,
    deletions,
    error_reasons,
    is_certainly_out_of_reach,
    is_out_of_reach,
    job_id,
    records,
    refusal,
    requirements,
    script,
    submitted_job,
    unnumbered_id,
)
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState
from gridmad.execution.payload import payload
from gridmad.execution.sge_accounting import Accounting, AccountingFile, RemoteAccountingFile

GROUP = "5f0c3a91d2e8"
NAME = f"gridmad-{GROUP}"


def tag(task: int) -> str:
    """The tag of a task of the group."""
    return f"{GROUP}{task - 1:04x}"


def test_names_and_ids() -> None:
    assert job_id("1234", tag(17)) == "1234.17"
    assert unnumbered_id(tag(17)) == f"{GROUP}.17"


# ---------------------------------------------------------------- submission


def test_what_a_job_asks_for() -> None:
    assert requirements(JobDescription("x")) == []
    job = JobDescription(
        "x",
        count=4,
        job_type="mpi",
        queue="long.q@@new",
        project="astro",
        max_wall_time=90,
        max_cpu_time=60,
        max_memory=2048,
        min_memory=512,
    )
    assert requirements(job, "threads") == [
        "-q", "long.q@@new", "-P", "astro", "-pe", "threads", "4",
        "-l", "h_rt=5400,h_cpu=3600,h_vmem=2048M,mem_free=512M",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("job", "problem"),
    [
        (JobDescription("x", queue="-sync"), "'-sync' cannot be the name of a queue"),
        (JobDescription("x", queue="a b"), "cannot be the name of a queue"),
        (JobDescription("x", queue="a,b=1"), "cannot be the name of a queue"),
        (JobDescription("x", project="a\n"), "cannot be the name of a project"),
        (JobDescription("x", count=2), "a count of 2 needs a parallel environment"),
        (JobDescription("x", count=2, job_type="multiple"), "one process for a job, not 2"),
    ],
)
def test_what_no_job_can_ask_for(job: JobDescription, problem: str) -> None:
    with pytest.raises(DriverError, match=problem):
        requirements(job)


def run_task(text: str, task: int, tmp_path: Path) -> int:
    """The status of a script that was started as Grid Engine starts it."""
    path = tmp_path / "job_script"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = subprocess.run(
        ["/bin/sh", str(path)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SGE_TASK_ID": str(task)},
    )
    return done.returncode


@pytest.mark.parametrize("code", [0, 1, 98, 101, 127, 143, 255])
def test_a_script_ends_with_the_code_of_its_task(tmp_path: Path, code: int) -> None:
    text = script({3: f"exit {code}\n", 4: "exit 50\n"})
    assert run_task(text, 3, tmp_path) == code


@pytest.mark.parametrize("code", [99, 100])
def test_a_script_never_ends_with_a_code_that_means_something_else(
    tmp_path: Path, code: int
) -> None:
    job = JobDescription("/bin/sh", ("-c", f"exit {code}"))
    path = tmp_path / "status"
    status = run_task(script({1: payload(job, status_file=str(path))}), 1, tmp_path)
    assert status < 0
    assert path.read_text() == f"{code}\n"
    [record] = records(accounted(failed=100, exit_status=128 - status))
    assert record.state == JobState.done(code)


def test_a_script_takes_any_text(tmp_path: Path) -> None:
    words = ("#$ -N evil\n#$ -q evil", "') ;; esac", "$(id)", "ä\udcff", "")
    job = JobDescription("/usr/bin/printf", ("<%s>", *words), stdout="out")
    assert run_task(script({1: payload(job), 2: "exit 9"}), 1, tmp_path) == 0
    expected = "".join(f"<{word}>" for word in words)
    assert (tmp_path / "out").read_bytes() == expected.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("output", "number"),
    [
        (b"17.1-200:1\n", "17"),
        (b"the site says hello\n4.3-3:1\n", "4"),
        (b"", None),
        (b"Your job 17 has been submitted\n", None),
        (b"17\n", None),
        (b"\xff\xfe17.1-2:1", None),
    ],
)
def test_the_number_that_qsub_prints(output: bytes, number: str | None) -> None:
    assert submitted_job(output) == number


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        (
            (
                'Unable to run job: Job was rejected because job requests unknown queue "nosuch". '
                "Exiting."
            ),
            'requests unknown queue "nosuch"',
        ),
        (
            (
                'Unable to run job: job rejected: the requested project "nosuch" does not exist. '
                "Exiting."
            ),
            'the requested project "nosuch" does not exist',
        ),
        (
            "Unable to run job: error: no suitable queues. Exiting.",
            "no suitable queues",
        ),
        ('Unable to run job: unknown resource "nosuch". Exiting.', 'unknown resource "nosuch"'),
        ("qsub: Unknown option", "qsub: Unknown option"),
        ("", "qsub does not say why"),
    ],
)
def test_why_qsub_takes_no_job(errors: str, reason: str) -> None:
    assert refusal(errors) == reason
    assert not is_out_of_reach(errors)


@pytest.mark.parametrize(
    ("errors", "is_certain"),
    [
        (
            (
                "error: commlib error: got select error (Connection refused) Unable to run job: "
                'unable to send message to qmaster using port 48315 on host "localhost": got '
                "send error. Exiting."
            ),
            True,
        ),
        (
            (
                'error: commlib error: got read error (closing "head/qmaster/1") Unable to run '
                'job: unable to contact qmaster using port 48315 on host "localhost". Exiting.'
            ),
            False,
        ),
        (
            (
                'error: commlib error: got read error (closing "head/qmaster/1") error: commlib '
                "error: got select error (Connection refused)"
            ),
            False,
        ),
        (
            (
                "Unable to run job: failed receiving gdi request response for mid=1 (got syncron "
                "message receive timeout error). Exiting."
            ),
            False,
        ),
        (
            (
                "error: unable to read qmaster name: qmaster hostname in "
                '"/var/lib/gridengine/default/common/act_qmaster" has zero length'
            ),
            False,
        ),
        ("Unable to run job: Error reading answer list from qmaster Exiting.", False),
    ],
)
def test_a_master_that_is_out_of_reach(errors: str, is_certain: bool) -> None:
    assert is_out_of_reach(errors)
    assert is_certainly_out_of_reach(errors) == is_certain


# ---------------------------------------------------------------- qstat

QSTAT = b"""\
<?xml version='1.0'?>
<job_info  xmlns:xsd="http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/schemas/qstat/qstat.xsd">
  <queue_info>
    <job_list state="running">
      <JB_job_number>2</JB_job_number>
      <JAT_prio>0.50000</JAT_prio>
      <JB_name>gridmad-5f0c3a91d2e8</JB_name>
      <JB_owner>root</JB_owner>
      <state>r</state>
      <JAT_start_time>2026-11-25T09:16:49</JAT_start_time>
      <queue_name>all.q@localhost</queue_name>
      <slots>1</slots>
      <tasks>6</tasks>
    </job_list>
    <job_list state="running">
      <JB_job_number>5</JB_job_number>
      <JB_name>gr\xfc\xdf&amp;%lt;&gt;</JB_name>
      <state>r</state>
    </job_list>
  </queue_info>
  <job_info>
    <job_list state="pending">
      <JB_job_number>2</JB_job_number>
      <JB_name>gridmad-5f0c3a91d2e8</JB_name>
      <state>Eqw</state>
      <JB_submission_time>2026-11-25T09:16:50</JB_submission_time>
      <queue_name></queue_name>
      <slots>1</slots>
      <tasks>2,11</tasks>
    </job_list>
    <job_list state="pending">
      <JB_job_number>3</JB_job_number>
      <JB_name>gridmad-5f0c3a91d2e8</JB_name>
      <state>hqw</state>
      <tasks>13-200:1,300</tasks>
    </job_list>
    <job_list state="zombie">
      <JB_job_number>2</JB_job_number>
      <JB_name>gridmad-5f0c3a91d2e8</JB_name>
      <state>z</state>
      <tasks>3-5:2,6,7</tasks>
    </job_list>
  </job_info>
</job_info>
"""


def state_of(listing: Listing, task: int) -> object:
    listed = listing.get(tag(task))
    return (listed.job, listed.state) if listed is not None else None


def test_what_qstat_shows() -> None:
    listing = Listing(QSTAT)
    assert state_of(listing, 6) == ("2", ACTIVE)
    assert state_of(listing, 2) == state_of(listing, 11) == ("2", Trouble.ERROR)
    assert state_of(listing, 13) == state_of(listing, 200) == ("3", PENDING)
    assert state_of(listing, 300) == ("3", PENDING)
    assert state_of(listing, 3) == state_of(listing, 5) == ("2", Trouble.ENDED)
    assert state_of(listing, 4) is state_of(listing, 201) is state_of(listing, 1) is None
    assert listing.get("0" * 16) is None


@pytest.mark.parametrize(
    ("letters", "state"),
    [
        *dict.fromkeys(("r", "t", "hr", "Rr", "Rt", "dr", "dt", "dRr"), ACTIVE).items(),
        *dict.fromkeys(("qw", "hqw", "Rq", "hRwq", "dqw"), PENDING).items(),
        *dict.fromkeys(("s", "ts", "S", "tS", "T", "tT", "Rs", "dS", "RtT"), SUSPENDED).items(),
        *dict.fromkeys(("Eqw", "Ehqw", "EhRqw"), Trouble.ERROR).items(),
        ("z", Trouble.ENDED),
        ("", ACTIVE),
    ],
)
def test_letters_of_states(letters: str, state: object) -> None:
    text = QSTAT.replace(b"<state>r</state>", f"<state>{letters}</state>".encode(), 1)
    text = text[: text.index(b"  <job_info>\n")] + b"</job_info>"
    assert state_of(Listing(text), 6) == ("2", state)


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"no jobs",
        QSTAT[:700],
        QSTAT.replace(b"<tasks>6<", b"<tasks>6-<"),
        QSTAT.replace(b"<tasks>6<", b"<tasks>1-9:0<"),
        QSTAT.replace(b"<tasks>6<", b"<tasks>999999999999<"),
        QSTAT.replace(b"<job_info  ", b'<!DOCTYPE x [<!ENTITY a "aaaa">]><job_info  '),
    ],
)
def test_what_qstat_does_not_print(output: bytes) -> None:
    with pytest.raises(ValueError, match=r"prints|are no tasks"):
        Listing(output)


@given(st.binary())
def test_garbage_is_a_value_error(noise: bytes) -> None:
    for output in (noise, QSTAT.replace(b"</slots>", b"</slots>" + noise)):
        try:
            Listing(output)
        except ValueError:
            continue


def test_reasons_of_errors() -> None:
    output = b"""\
==============================================================
job_number:                 4
exec_file:                  job_scripts/4
job_name:                   gridmad-5f0c3a91d2e8
job-array tasks:            1-1:1
error reason          1:      11/25/2026 09:16:50 [0:13784]: \
error: can't open output file "/no/x": No such file or directory
scheduling info:            Job is in error state
==============================================================
job_number:                 7
error reason          2:      11/25/2026 09:16:49 [0:13248]: exit_status of prolog = 100
error reason         12:      what nobody expects
"""
    assert error_reasons(output) == {
        "4.1": 'can\'t open output file "/no/x": No such file or directory',
        "7.2": "exit_status of prolog = 100",
        "7.12": "what nobody expects",
    }
    assert error_reasons(b"Following jobs do not exist: \n\xff4\n") == {}


# ---------------------------------------------------------------- qdel


def test_words_for_qdel() -> None:
    other = "0" * 16
    tags = [tag(3), tag(1), other, tag(2), tag(9)]
    assert list(deletions(tags)) == [
        ("gridmad-000000000000", "-t", "1-1"),
        (NAME, "-t", "1-3"),
        (NAME, "-t", "9-9"),
    ]


def test_what_qdel_prints() -> None:
    output = """\
root has registered the job-array task 2.7 for deletion
root has deleted job-array task 3.3
root has deleted job-array tasks 5,6 of job 3
root has deleted job-array tasks 8-12:2,20 of job 18
root has deleted job 4
denied: job "99" does not exist
job "2" task "9" does not exist
job 2 is already in deletion
The job gridmad-000000000000 of user(s) root does not exist
job "18" task id range "1-3:1" comprises no tasks
"""
    assert list(deleted_tasks(output)) == ["3.3", "3.5", "3.6", "18.8", "18.10", "18.12", "18.20"]
    assert complaints(output) == ""
    denied = 'nobody - you do not have the necessary privileges to delete the job "18"'
    assert complaints(f"{output}{denied}\n") == denied


# ---------------------------------------------------------------- accounting


def accounted(
    task: int = 1,
    *,
    failed: int = 0,
    exit_status: int = 0,
    job: int = 12,
    name: str = NAME,
    part: str = "NONE",
) -> bytes:
    """A line of the accounting file."""
    return (
        f"all.q:localhost:root:root:{name}:{job}:sge:0:1795598233:1795598234:1795598237:"
        f"{failed}:{exit_status}:3:1.910216:0.015365:4688.000000:0:0:0:0:225:0:0:0.000000:16:0:0:"
        f"0:1:693:NONE:defaultdepartment:NONE:1:{task}:1.925581:0.002378:0.000014:"
        f"-l h_cpu=2,h_rt=3:0.000000:{part}:1732608.000000:0:0\n"
    ).encode()


@pytest.mark.parametrize(
    ("failed", "exit_status", "state"),
    [
        (0, 0, JobState.done(0)),
        (0, 143, JobState.done(143)),
        (0, 163, JobState.done(163)),
        (100, 137, JobState.done(137)),
        (100, 163, JobState.done(99)),
        (100, 164, JobState.done(100)),
        (37, 137, JobState.done(137)),
        (15, 7, JobState.done(7)),
        (100, 0, JobState.failed("its shepherd died (the host crashed)")),
        (19, 0, JobState.failed("its end is not known (the host crashed)")),
    ],
)
def test_how_a_job_ended(failed: int, exit_status: int, state: JobState) -> None:
    block = b"# Version: 8.1.9\n# \n" + accounted(7, failed=failed, exit_status=exit_status)
    [record] = records(block)
    assert (record.tag, record.job, record.state) == (tag(7), "12", state)
    assert record.is_over_limit == (failed == 37)


@pytest.mark.parametrize(
    "line",
    [
        accounted(failed=25, exit_status=99),  # runs again
        accounted(failed=26),  # is in the queue, in error
        accounted(failed=8),  # is tried again
        accounted(name="gridmad-5f0c3a91d2e"),
        accounted(name="mine"),
        accounted(part="1.node7"),
        accounted(exit_status=-1),
        accounted(task=0),
        accounted(task=70_000),
        accounted()[:100] + b"\n",
        accounted()[:-1],
        b"\xff:gridmad-5f0c3a91d2e8:\n",
    ],
)
def test_what_is_no_end_of_a_job(line: bytes) -> None:
    assert list(records(line)) == []


@given(st.binary())
def test_noise_in_the_accounting_file(noise: bytes) -> None:
    lines = accounted(1) + noise + b"\n" + accounted(2)
    found = {record.tag for record in records(lines)}
    assert {tag(1), tag(2)} <= found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "accounting"


def ends(accounting: Accounting, *numbers: int) -> dict[str, Record]:
    return dict(asyncio.run(accounting.ends([tag(number) for number in numbers])))


@pytest.fixture
def accounting(path: Path) -> Iterator[AccountingFile]:
    one = AccountingFile(path)
    yield one
    one.close()


class TestAccountingFile:
    def test_it_is_read_on(self, path: Path, accounting: AccountingFile) -> None:
        assert ends(accounting, 1) == {}
        path.write_bytes(accounted(1) + accounted(2, exit_status=3)[:50])
        assert set(ends(accounting, 1, 2)) == {tag(1)}
        with path.open("ab") as file:
            file.write(accounted(2, exit_status=3)[50:])
        assert ends(accounting, 2)[tag(2)].state == JobState.done(3)
        assert set(ends(accounting, 1, 2, 3)) == {tag(1), tag(2)}

    def test_nothing_is_lost_when_it_is_rotated(
        self, tmp_path: Path, path: Path, accounting: AccountingFile
    ) -> None:
        path.write_bytes(accounted(1))
        ends(accounting)
        with path.open("ab") as file:
            file.write(accounted(2))
        path.rename(tmp_path / "accounting.0")
        assert set(ends(accounting, 1, 2)) == {tag(1), tag(2)}
        path.write_bytes(accounted(3))
        path.rename(tmp_path / "accounting.1")
        path.write_bytes(accounted(4))
        assert set(ends(accounting, 1, 2, 3, 4)) == {tag(1), tag(2), tag(4)}
        path.write_bytes(b"")
        path.write_bytes(accounted(5)[:80])
        assert set(ends(accounting, 4, 5)) == {tag(4)}
        path.write_bytes(accounted(5))
        assert set(ends(accounting, 5)) == {tag(5)}

    def test_the_last_of_many_are_remembered(
        self, path: Path, accounting: AccountingFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gridmad.execution.sge_accounting.MAX_ENDS", 10)
        path.write_bytes(b"".join(accounted(task) for task in range(1, 31)))
        assert set(ends(accounting, *range(1, 31))) == {tag(task) for task in range(21, 31)}


class TestRemoteAccountingFile:
    """What it has run there runs here as well."""

    def test_the_jobs_in_question_are_told(self, path: Path) -> None:
        path.write_bytes(b"\xff:noise\n" + accounted(1) + accounted(2, exit_status=3))
        accounting = RemoteAccountingFile(path, Commands())
        found = ends(accounting, 2, 3)
        assert {name: record.state for name, record in found.items()} == {tag(2): JobState.done(3)}

    def test_it_is_where_the_cell_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SGE_ROOT", str(tmp_path))
        monkeypatch.setenv("SGE_CELL", "own")
        folder = tmp_path / "own/common"
        folder.mkdir(parents=True)
        (folder / "accounting").write_bytes(accounted(1))
        assert set(ends(RemoteAccountingFile(None, Commands()), 1)) == {tag(1)}

    def test_one_that_cannot_be_read_is_told_once(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        accounting = RemoteAccountingFile(path, Commands())
        assert ends(accounting, 1) == ends(accounting, 2) == {}
        (told,) = caplog.messages
        assert "No such file" in told
        path.write_bytes(accounted(1))
        assert set(ends(accounting, 1)) == {tag(1)}
