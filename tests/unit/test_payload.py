"""Jobs as text for a shell: run by one, and compared with what was asked for."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmad.errors import DriverError
from gridmad.execution.description.model import JobDescription, StagedFile
from gridmad.execution.model import JobState
from gridmad.execution.payload import encode, payload, read_status

TAG = "0123456789ab0000"
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home/job dir").mkdir(parents=True)
    return tmp_path / "home"


def run(home: Path, job: JobDescription, status: str = "") -> int:
    script = encode(payload(job, status_file=status))
    done = subprocess.run(
        ["/bin/sh"],
        input=script,
        cwd="/",
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    return done.returncode


def test_files_that_were_brought_are_copied_and_the_job_s_own_are_moved(home: Path) -> None:
    begin = home / "where it begins"
    begin.mkdir()
    (begin / "own").write_text("own")
    (home / "shared").write_text("shared")
    job = shell(
        'cat a b >out; echo "$part$code"; [ -x b ] && [ ! -e c ]',
        directory="job dir",
        environment={"part": "1", "code": "2"},
        stdout="told",
        copies=[
            StagedFile("a", "own"),
            StagedFile("b", str(home / "shared"), is_executable=True),
            StagedFile("c", "missing"),
        ],
    )
    script = encode(payload(job))
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=begin,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=60,
    )
    folder = home / "job dir"
    assert (done.returncode, done.stderr) == (0, b"")
    assert (folder / "out").read_text() == "ownshared"
    assert (folder / "told").read_text() == "12\n"
    assert {path.name for path in folder.iterdir()} == {"a", "b", "out", "told"}
    assert (folder / "a").stat().st_mode & 0o777 == 0o600
    assert list(begin.iterdir()) == []
    assert (home / "shared").exists()


def shell(text: str, **fields: object) -> JobDescription:
    return JobDescription("/bin/sh", ("-c", text), **fields)  # type: ignore[arg-type]


@settings(max_examples=30)
@given(st.lists(TEXT, max_size=4), TEXT)
def test_words_and_variables_arrive_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], value: str
) -> None:
    home = tmp_path_factory.mktemp("home")
    job = JobDescription(
        "/bin/sh",
        ("-c", 'printf "%s\\0" "$@" "$VALUE"', "sh", *words),
        environment={"VALUE": value},
        stdout="out",
    )
    assert run(home, job) == 0
    assert (home / "out").read_bytes().split(b"\0")[:-1] == [
        text.encode() for text in (*words, value)
    ]


def test_bytes_that_are_no_text_arrive_as_they_are(home: Path) -> None:
    word = b"\xff\x80'".decode("utf-8", "surrogateescape")
    job = JobDescription("/bin/sh", ("-c", 'printf %s "$1"', "sh", word), stdout="out")
    assert run(home, job) == 0
    assert (home / "out").read_bytes() == b"\xff\x80'"


def test_where_a_job_runs_and_what_its_files_are(home: Path) -> None:
    (home / "job dir/in").write_text("input\n")
    program = home / "job dir/program"
    program.write_text("#!/bin/sh\ncat; pwd; echo error >&2; exit 5\n")
    program.chmod(0o755)
    job = JobDescription(
        "program", directory="job dir", stdin="in", stdout="out", stderr=f"file://{home}/err"
    )
    assert run(home, job) == 5
    assert (home / "job dir/out").read_text() == f"input\n{home}/job dir\n"
    assert (home / "err").read_text() == "error\n"


def test_one_file_for_both_outputs(home: Path) -> None:
    assert run(home, shell("echo a; echo b >&2; echo c", stdout="out", stderr="out")) == 0
    assert (home / "out").read_text() == "a\nb\nc\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [("exit 0", 0), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -9 $$", 137)],
)
def test_the_exit_code_is_left_behind(home: Path, text: str, code: int) -> None:
    status = home / TAG
    assert run(home, shell(text), str(status)) == code
    assert read_status(status) == JobState.done(code)
    assert status.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.iterdir()].count(f"{TAG}.part") == 0


@pytest.mark.parametrize(
    "job",
    [
        JobDescription("/no/such/program"),
        JobDescription("/etc/hostname"),
        shell("true", stdin="/no/such/file"),
        shell("true", stdout="no/such/folder/out"),
    ],
)
def test_what_cannot_begin_has_an_exit_code_too(home: Path, job: JobDescription) -> None:
    code = run(home, job, str(home / TAG))
    assert code != 0
    assert read_status(home / TAG) == JobState.done(code)


def test_a_missing_directory_is_a_reason(home: Path) -> None:
    assert run(home, shell("true", directory="-none"), str(home / TAG)) == 127
    assert read_status(home / TAG) == JobState.failed("the directory -none cannot be entered")


def test_a_status_file_that_cannot_be_written_changes_nothing(home: Path) -> None:
    assert run(home, shell("exit 4"), "/no/such/folder/status") == 4


def test_an_output_elsewhere_is_kept_beside_the_status_file(home: Path) -> None:
    job = shell("echo text", stdout="https://gass.example.org:1/out")
    assert run(home, job, str(home / TAG)) == 0
    assert (home / f"{TAG}.stdout").read_text() == "text\n"
    assert run(home, job) == 0


@pytest.mark.parametrize(
    "job",
    [
        JobDescription("gsiftp://example.org/program"),
        JobDescription("true", stdin="https://example.org/in"),
        JobDescription("true", directory="ftp://example.org/"),
        JobDescription("true", environment={"A-B": "x"}),
        JobDescription("true", environment={"A=$(reboot)": "x"}),
    ],
)
def test_what_no_shell_can_run_is_refused(job: JobDescription) -> None:
    with pytest.raises(DriverError):
        payload(job)


def test_a_launcher_gets_the_command(home: Path) -> None:
    script = payload(shell("exit 3"), launcher=("/usr/bin/env", "-u", "HOME"))
    assert subprocess.run(["sh"], input=script.encode(), env={"HOME": str(home)}).returncode == 3


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("7\n", JobState.done(7)),
        ("0", JobState.done(0)),
        ("256\n", JobState.failed("256")),
        ("", JobState.failed("the job left an empty status file")),
        ("DONE\x1b[2J\n", JobState.failed("DONE\x1b[2J")),
    ],
)
def test_status_files(tmp_path: Path, text: str, state: JobState) -> None:
    (tmp_path / TAG).write_text(text)
    assert read_status(tmp_path / TAG) == state
    assert read_status(tmp_path / "other") is None
    with pytest.raises(NotADirectoryError):
        read_status(tmp_path / TAG / "below")


def test_what_is_no_file_is_no_status_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / TAG)
    assert read_status(tmp_path / TAG) is None
    assert read_status(tmp_path) is None
