"""Jobs that can be watched: their descriptions, and what the launch script makes of them."""

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad import __version__
from gridmad.execution.description import rsl
from gridmad.execution.description.model import JobDescription, StagedFile
from gridmad.execution.description.rsl_writer import rsl as write_rsl
from gridmad.execution.description.source import Source
from gridmad.execution.payload import encode, payload
from gridmad.execution.watchable import SCRIPT, Peek, watchable
from tests.services.ports import reserve_port

PEEK = Peek(
    bundle="/home/me/.local/state/gridmad/peek/msgpeek.pyz",
    is_staged=False,
    interpreter="/opt/gridmad/bin/python",
    usual="python3.11",
    version="msgpeek (gridmad) 1",
    options=["--unobtrusive", "--host=stomp://broker:61613"],
    environment={"MSGPEEK_USER": "me", "MSGPEEK_PASSWORD": "secret"},
)
WORDS = st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), max_size=4)


def watched(job: JobDescription, peek: Peek = PEEK) -> JobDescription:
    found = watchable(job, "17", "17", peek)
    assert found is not None
    return found


def options(job: JobDescription) -> list[str]:
    """The words between the script's own and the command's."""
    words = list(job.arguments)
    return words[9 : words.index("--")]


# ---------------------------------------------------------------- the description


@given(st.text(st.characters(exclude_characters="\0:", codec="utf-8"), min_size=1), WORDS)
def test_the_words_of_a_job_survive_in_their_order(executable: str, arguments: list[str]) -> None:
    job = JobDescription(executable, arguments)
    found = watchable(job, "17", "17", PEEK)
    if found is None:
        return
    assert found.executable == "/bin/sh"
    assert found.arguments[:2] == ["-c", SCRIPT]
    program = executable if "/" in executable else f"./{executable}"
    following = list(found.arguments)[list(found.arguments).index("--") + 1 :]
    assert following[-len(arguments) - 1 :] == [program, *arguments]
    assert found.program == executable
    # The same job is the same description, whenever it is submitted.
    assert watchable(job, "17", "17", PEEK) == found


def test_all_else_stays_what_it_was() -> None:
    job = JobDescription(
        "run", ["-x"], "work", {"A": "1"}, "in", "out", "err", queue="q", max_wall_time=5
    )
    found = watched(job)
    assert replace(
        found, executable="run", arguments=["-x"], environment={"A": "1"}, program="", inputs=()
    ) == job  # fmt: skip
    assert found.environment == {"A": "1", **PEEK.environment}


def test_no_secret_is_on_the_command_line() -> None:
    found = watched(JobDescription("/bin/true"))
    assert not any("secret" in word or word == "me" for word in found.arguments)
    assert options(found) == [
        *PEEK.options, "--id=17", "--name=17/true", "--epoch=now"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("executable", "folder"),
    [(".gw_me_17/.wrapper", ".gw_me_17/"), ("/home/me/.gw_me_17/.wrapper", "/home/me/.gw_me_17/"),
     (".wrapper", "")],
)  # fmt: skip
def test_of_a_wrapper_the_output_of_its_program_is_watched(executable: str, folder: str) -> None:
    output = f"{folder}stdout.wrapper"
    found = watched(JobDescription(executable, stdout=output))
    assert options(found)[-3:] == [
        f"--follow-stdout={folder}stdout.execution",
        f"--follow-stderr={folder}stderr.execution",
        f"--follow-status={output}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("executable", "program"),
    [("file:///bin/ls", "/bin/ls"), ("file://localhost/bin/ls", "/bin/ls"), ("ls", "./ls")],
)
def test_where_the_executable_is(executable: str, program: str) -> None:
    assert watched(JobDescription(executable)).arguments[-1] == program


@pytest.mark.parametrize(
    "job",
    [
        JobDescription("gsiftp://se/bin/ls"),
        JobDescription("https://se/bin/ls"),
        JobDescription("file://elsewhere/bin/ls"),
        JobDescription("run", count=4, job_type="mpi"),
        JobDescription("run", count=4, job_type="multiple"),
        JobDescription("run", count=4),
        JobDescription(".gw_me_17/.wrapper", count=4, job_type="multiple"),
        JobDescription(".gw_me_17/pre.sh", stdout=".gw_me_17/stdout.pre_wrapper"),
    ],
)
def test_jobs_that_cannot_be_watched(job: JobDescription) -> None:
    assert watchable(job, "17", "17", PEEK) is None


def test_jobs_of_several_processors_that_are_one_process() -> None:
    watched(JobDescription("run", count=4, job_type="single"))
    watched(JobDescription(".gw_me_17/.wrapper", count=4, job_type="mpi"))


def test_the_bundle_is_staged_to_where_the_job_is() -> None:
    peek = replace(PEEK, is_staged=True)
    for executable, place in (
        (".gw_me_17/.wrapper", ".gw_me_17/.msgpeek.pyz"), (".wrapper", ".msgpeek.pyz"),
        ("/home/me/.gw_me_17/.wrapper", ".msgpeek.pyz"), ("run", ".msgpeek.pyz"),
    ):  # fmt: skip
        job = JobDescription(executable, inputs=[StagedFile(executable, "x"), StagedFile("data")])
        found = watched(job, peek)
        assert found.inputs == [
            StagedFile(executable, "x", is_executable=True), StagedFile("data"),
            StagedFile(place, PEEK.bundle),
        ]  # fmt: skip
        assert found.arguments[3:6] == ["", place, PEEK.bundle]


def test_the_login_is_staged_for_each_job_alone() -> None:
    peek = replace(PEEK, is_staged=True, environment={}, login="/home/me/login")
    for executable, place in ((".gw_me_17/.wrapper", ".gw_me_17/"), ("run", "")):
        found = watched(JobDescription(executable), peek)
        name = f"{place}.msgpeek-17"
        assert found.inputs[0] == StagedFile(name, "/home/me/login")
        assert found.arguments[3:5] == [name, f"{place}.msgpeek.pyz"]
        assert found.environment == {}


def test_the_words_pass_through_what_back_ends_write(tmp_path: Path) -> None:
    job = JobDescription(
        "job.sh", ['a "b"', "$(c) `d` $e", "f\\", "'", "g\nh", ""], str(tmp_path), stdout="out"
    )
    found = watched(job)
    text = write_rsl([("executable", found.executable), ("arguments", found.arguments)])
    assert rsl.parse(Source(text.encode())).arguments == tuple(found.arguments)
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    script.chmod(0o700)
    subprocess.run(["sh"], input=encode(payload(found)), check=True, timeout=60)
    got = (tmp_path / "out").read_bytes().decode().split("\0")
    assert got == [*job.arguments, ""]


# ---------------------------------------------------------------- the script


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as a driver makes it."""
    file = tmp_path_factory.mktemp("bundle") / "msgpeek.pyz"
    make_bundle(file)
    assert file.stat().st_mode & 0o777 == 0o600
    return file


@pytest.fixture
def peek(bundle: Path) -> Peek:
    """What works here, but for the broker, which refuses connections."""
    return Peek(
        bundle=str(bundle),
        is_staged=False,
        interpreter=sys.executable,
        usual="python0",
        version="none",
        options=["--unobtrusive", f"--host=127.0.0.1:{reserve_port()}", "--log-file=log"],
        environment={"MSGPEEK_USER": "me", "MSGPEEK_PASSWORD": "a secret"},
    )


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH without Python and msgpeek."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("timeout", "sh", "env", "sleep", "cat", "sort", "kill", "printf"):
        path = shutil.which(name)
        assert path
        (folder / name).symlink_to(path)
    return folder


Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def run(tmp_path: Path, tools: Path) -> Run:
    """Run a job as a back end without any care of its own does."""

    def call(job: JobDescription, **options: object) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [job.executable, *job.arguments],
            cwd=tmp_path,
            env={"PATH": str(tools), "HOME": str(tmp_path), **job.environment},
            capture_output=True,
            timeout=60,
            **{"stdin": subprocess.DEVNULL, **options},
        )

    return call


def is_watched(tmp_path: Path) -> bool:
    """Whether the job side of msgpeek was there: it logs that the broker was not."""
    log = tmp_path / "log"
    return log.exists() and "cannot be watched for now" in log.read_text()


def no_python(peek: Peek) -> Peek:
    return replace(peek, interpreter="/no/python")


def damaged(peek: Peek) -> Peek:
    data = bytearray(Path(peek.bundle).read_bytes())
    data[len(data) // 2 :] = os.urandom(len(data) // 2)
    file = Path(peek.bundle).with_name("damaged.pyz")
    file.write_bytes(data)
    return replace(peek, bundle=str(file))


def crippled(peek: Peek) -> Peek:
    """One compiled module is other bytes; the archive is whole."""
    file = Path(peek.bundle).with_name("crippled.pyz")
    with zipfile.ZipFile(peek.bundle) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content if "/_block." not in name else content[:5000])
    return replace(peek, bundle=str(file))


def other_python(peek: Peek) -> Peek:
    """The interpreter is of another version than the bundle."""
    file = Path(peek.bundle).with_name("other.pyz")
    with zipfile.ZipFile(peek.bundle) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b".cpython-3", b".cpython-9"))
    return replace(peek, bundle=str(file))


def no_bundle(peek: Peek) -> Peek:
    return replace(peek, bundle="/no/such.pyz")


def hanging(peek: Peek) -> Peek:
    file = Path(peek.bundle).with_name("hanging")
    file.write_text("#!/bin/sh\nsleep 1000\n")
    file.chmod(0o700)
    return replace(peek, interpreter=str(file))


def wrong_options(peek: Peek) -> Peek:
    """What `msgpeek wrap` refuses when it has been tried and found to work."""
    return replace(peek, options=[*peek.options, "--ca=/no/such/file"])


SITES = [no_python, no_bundle, damaged, crippled, other_python, hanging, wrong_options]


def test_a_job_is_watched(peek: Peek, run: Run, tmp_path: Path) -> None:
    done = run(watched(JobDescription("/bin/sh", ["-c", "echo out; echo err >&2; exit 3"]), peek))
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert is_watched(tmp_path)


SHOW = 'echo "$MSGPEEK_USER,$MSGPEEK_PASSWORD" >seen; exit 1'
"""An interpreter that shows what it has for a login, and does not work."""


@pytest.mark.parametrize(
    ("content", "seen"),
    [("me\na \\ secret $x\n", "me,a \\ secret $x"), ("me\n\n", "me,"), ("me", "me,"), ("", ",")],
)
def test_a_login_that_was_brought_is_used_and_removed(
    peek: Peek, run: Run, tmp_path: Path, tools: Path, content: str, seen: str
) -> None:
    for name in ("rm", "mktemp"):
        (tools / name).symlink_to(f"/bin/{name}")
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{SHOW}\n")
    python.chmod(0o700)
    login = tmp_path / ".msgpeek-17"
    login.write_text(content)
    brought = replace(peek, environment={}, login="/elsewhere/login", interpreter=str(python))
    done = run(watched(JobDescription("/bin/sh", ["-c", "env; exit 3"]), brought))
    assert (tmp_path / "seen").read_text() == f"{seen}\n"
    assert not login.exists()
    assert done.returncode == 3
    assert b"MSGPEEK" not in done.stdout


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.__name__)
def test_where_nothing_works_the_job_runs_as_ever(
    site: Callable[[Peek], Peek],
    peek: Peek,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gridmad.execution.watchable.SCRIPT", SCRIPT.replace("-k 1 10", "-k 1 2"))
    program = "cat; echo out; echo err >&2; kill -9 $$"
    done = run(watched(JobDescription("/bin/sh", ["-c", program]), site(peek)), stdin=None,
               input=b"in\n")  # fmt: skip
    assert done.returncode in (-9, 137)
    assert (done.stdout, done.stderr) == (b"in\nout\n", b"err\n")
    assert not is_watched(tmp_path)


@pytest.mark.parametrize("site", [lambda peek: peek, *SITES[:2], wrong_options])
def test_the_environment_of_the_job_is_what_it_was(
    site: Callable[[Peek], Peek], peek: Peek, run: Run
) -> None:
    job = JobDescription("/bin/sh", ["-c", "exec env"], environment={"MSGPEEK_HOST": "my.own"})
    before, after = run(job), run(watched(job, site(peek)))
    assert sorted(after.stdout.split(b"\n")) == sorted(before.stdout.split(b"\n"))


@pytest.mark.parametrize("site", [lambda peek: peek, no_python])
def test_what_cannot_be_run_has_the_exit_code_that_it_had(
    site: Callable[[Peek], Peek], peek: Peek, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_text("echo hello\n")
    (tmp_path / "script").write_text("echo $1\n")
    (tmp_path / "script").chmod(0o700)
    for executable, code, output in (
        ("missing", 127, b""), ("plain", 126, b""), ("/etc", 126, b""), ("script", 0, b"x\n")
    ):  # fmt: skip
        done = run(watched(JobDescription(executable, ["x"]), site(peek)))
        assert (done.returncode, done.stdout) == (code, output)


def test_a_script_that_something_ends_is_not_left_alone(peek: Peek, tmp_path: Path) -> None:
    """A signal to the group reaches the job, and the exit code is its own."""
    job = watched(
        JobDescription(
            "/bin/sh", ["-c", "trap 'echo ended; exit 7' TERM; echo go; sleep 60 & wait"]
        ),
        peek,
    )
    process = subprocess.Popen(
        [job.executable, *job.arguments],
        cwd=tmp_path,
        env={**os.environ, **job.environment},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"go\n"
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 7
    assert b"ended" in process.stdout.read()
    process.stdout.close()


def test_nothing_is_left_behind(peek: Peek, run: Run, tmp_path: Path) -> None:
    run(watched(JobDescription("/bin/sh", ["-c", "true"], environment={"TMPDIR": str(tmp_path)}),
                peek))  # fmt: skip
    assert is_watched(tmp_path)
    assert list(tmp_path.glob(".msgpeek*")) == []


def test_where_nothing_may_be_run_from_the_temporary_folder(
    peek: Peek, run: Run, tmp_path: Path
) -> None:
    job = JobDescription("/bin/sh", ["-c", "echo out"], environment={"TMPDIR": "/dev/null"})
    assert run(watched(job, peek)).stdout == b"out\n"
    assert is_watched(tmp_path)


def make_bundle(file: Path) -> None:
    subprocess.run([sys.executable, "-m", "gridmad.cli.peek_bundle", file], check=True, timeout=60)


def test_a_bundle_is_written_where_it_is_not_whole(bundle: Path, tmp_path: Path) -> None:
    before = bundle.stat()
    make_bundle(bundle)
    assert bundle.stat().st_ino == before.st_ino
    copy = tmp_path / "copy.pyz"
    copy.write_bytes(bundle.read_bytes()[:-1000])
    make_bundle(copy)
    assert zipfile.ZipFile(copy).namelist() == zipfile.ZipFile(bundle).namelist()
    assert list(tmp_path.iterdir()) == [copy]


def test_an_installed_msgpeek_of_the_same_version_will_do(
    peek: Peek, run: Run, tools: Path, tmp_path: Path
) -> None:
    (tools / "msgpeek").symlink_to(Path(sys.executable).with_name("msgpeek"))
    job = JobDescription("/bin/sh", ["-c", "echo out"])
    assert run(watched(job, no_bundle(peek))).stdout == b"out\n"
    assert not is_watched(tmp_path)
    same = replace(no_bundle(peek), version=f"msgpeek (gridmad) {__version__}")
    assert run(watched(job, same)).stdout == b"out\n"
    assert is_watched(tmp_path)
