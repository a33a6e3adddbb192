"""Jobs as processes of this machine: real ones, and nothing left of them."""

import argparse
import asyncio
import contextlib
import os
import random
import re
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gridmad.driver import Batch
from gridmad.errors import DriverError, TransientError, UnknownJobError, UsageError
from gridmad.execution.description.model import JobDescription
from gridmad.execution.driver import Contact
from gridmad.execution.fork import DRIVER, ForkDriver
from gridmad.execution.fork_job import Name
from gridmad.execution.journal import FILE_NAME
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState, Phase, Submission

WAIT = 30.0
LIBRARY_SIGNALS = 3 << 31
"""32 and 33 are the C library's own: some parents (make) ignore them, and nobody can change it."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's home; whatever a test started must be gone at its end."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    yield folder
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    resource.setrlimit(resource.RLIMIT_NOFILE, descriptors)
    left = processes_of(folder)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == {}


def processes_of(home: Path) -> dict[int, str]:
    """Processes whose home this is."""
    found = {}
    wanted = f"HOME={home}".encode()
    for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
        with contextlib.suppress(OSError):
            if pid == os.getpid() or b") Z " in Path(f"/proc/{pid}/stat").read_bytes():
                continue
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_text()
    return found


class Session:
    """A driver that runs, and what it reported."""

    def __init__(self, options: Sequence[str]) -> None:
        parser = argparse.ArgumentParser()
        ForkDriver.add_options(parser)
        self.driver = ForkDriver(parser.parse_args(options))
        self.reports: dict[Contact, list[JobState]] = {}
        self._changed = asyncio.Event()
        self.driver.report = self._report

    def _report(self, contact: Contact, state: JobState) -> None:
        self.reports.setdefault(contact, []).append(state)
        self._changed.set()

    async def submit(self, *jobs: JobDescription) -> list[Contact | DriverError]:
        outcomes: dict[int, Contact | DriverError] = {}
        submissions = [Submission(str(n), "here", "fork", job) for n, job in enumerate(jobs)]
        await self.driver.submit(Batch(submissions, outcomes.__setitem__))
        return [outcomes[index] for index in range(len(jobs))]

    async def start(self, *command: str, **more: object) -> Contact:
        [contact] = await self.submit(JobDescription(command[0], command[1:], **more))  # type: ignore[arg-type]
        assert isinstance(contact, str), contact
        return contact

    async def refused(self, job: JobDescription) -> str:
        [outcome] = await self.submit(job)
        assert isinstance(outcome, DriverError)
        return str(outcome)

    async def poll(self, contact: Contact) -> JobState | DriverError:
        states = self.driver.poll(Batch([contact], ignore))
        if not isinstance(states, Sequence):
            states = await states
        return states[0]

    async def recover(self, contact: Contact) -> JobState | DriverError:
        return (await self.driver.recover(Batch([contact], ignore)))[0]

    async def cancel(self, *contacts: Contact) -> list[DriverError | None]:
        return await self.driver.cancel(Batch(contacts, ignore))

    async def end(self, contact: Contact) -> JobState:
        """The job's final state."""
        async with asyncio.timeout(WAIT):
            while not (self.reports.get(contact) and self.reports[contact][-1].is_final):
                self._changed.clear()
                await self._changed.wait()
        return self.reports[contact][-1]


def ignore(_index: int, _outcome: object) -> None:
    """What is returned is what counts."""


@contextlib.asynccontextmanager
async def session(*options: str) -> AsyncIterator[Session]:
    one = Session(options)
    await one.driver.start()
    try:
        yield one
    finally:
        await one.driver.stop()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.01)


def pid_of(contact: Contact) -> int:
    return Name.parse(contact).shepherd.pid


def script(home: Path, text: str, name: str = "job.sh") -> str:
    path = home / name
    path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    path.chmod(0o755)
    return str(path)


# ---------------------------------------------------------------- running


@pytest.mark.parametrize(
    ("text", "exit_code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
        ("kill -INT $$", 130),
        ("exec /does/not/exist", 127),
    ],
)
def test_exit_codes(home: Path, text: str, exit_code: int) -> None:
    async def run() -> None:
        async with session() as one:
            contact = await one.start("/bin/sh", "-c", text)
            assert await one.end(contact) == JobState.done(exit_code)
            assert one.reports[contact] == [ACTIVE, JobState.done(exit_code)]
            assert await one.poll(contact) == JobState.done(exit_code)

    asyncio.run(run())


def test_active_is_told_after_the_answer_and_before_the_end(home: Path) -> None:
    async def run() -> None:
        async with session() as one:
            order: list[str] = []
            one.driver.report = lambda _contact, state: order.append(state.phase.value)
            batch: Batch[Submission, Contact] = Batch(
                [Submission("1", "here", "", JobDescription("/bin/true"))],
                lambda _index, _contact: order.append("answer"),
            )
            await one.driver.submit(batch)
            await until(lambda: len(order) == 3)
            assert order == ["answer", "ACTIVE", "DONE"]

    asyncio.run(run())


def test_contact_is_one_short_word(home: Path) -> None:
    async def run() -> None:
        async with session() as one:
            contact = await one.start("/bin/true")
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            host = re.escape(socket.gethostname())
            assert re.fullmatch(rf"fork://{host}/{boot}/\d+/\d+/[0-9a-f]{{16}}", contact)
            assert len(contact) < 200
            await one.end(contact)

    asyncio.run(run())


def test_directory_files_and_arguments(home: Path) -> None:
    (home / "work").mkdir()
    (home / "work" / "in").write_text("what it reads")
    script(home / "work", 'pwd; cat; printf "<%s>" "$@"; echo bad >&2')

    async def run() -> None:
        async with session() as one:
            contact = await one.start(
                "job.sh", "a b", "", "$(id)", "ä\udcff",
                directory="work", stdin="in", stdout="out", stderr="err",
            )  # fmt: skip
            assert await one.end(contact) == JobState.done(0)

    before = os.umask(0o027)
    try:
        asyncio.run(run())
    finally:
        os.umask(before)
    expected = f"{home}/work\nwhat it reads<a b><><$(id)><ä\udcff>"
    out = home / "work" / "out"
    assert out.read_bytes() == expected.encode("utf-8", "surrogateescape")
    assert (home / "work" / "err").read_text() == "bad\n"
    assert stat.S_IMODE(out.stat().st_mode) == 0o640


def test_names_are_utf8_whatever_the_locale(home: Path) -> None:
    """The job gets the bytes of its description, and so do its files."""
    folder = home / "größe"
    folder.mkdir()
    (folder / "prüfung").write_text('#!/bin/sh\nprintf %s "$1 $WO"\n')
    (folder / "prüfung").chmod(0o755)
    (home / "jöb").write_text(
        "&(executable=prüfung)(directory=größe)(arguments=Äpfel)"
        "(environment=(WO Köln))(stdout=ergebnis-ö)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER_PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        driver.stdin.write(f"SUBMIT 1 h {home}/jöb\n".encode())
        driver.stdin.flush()
        # At the end of its input the driver may stop before it has got to the job.
        assert driver.stdout.readline().startswith(b"SUBMIT 1 SUCCESS")
    output = folder / "ergebnis-ö"
    deadline = time.monotonic() + WAIT
    while not (output.exists() and output.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert output.read_bytes() == "Äpfel Köln".encode()


DRIVER_PROGRAM = """
import sys
from gridmad.cli.driver import launcher
assert sys.getfilesystemencoding() == "ascii"
launcher("execution", "gridmad.execution.fork")()
"""


def test_one_file_for_both_outputs_and_nothing_to_read(home: Path) -> None:
    async def run() -> None:
        async with session() as one:
            contact = await one.start(
                "/bin/sh", "-c", "cat; echo 1; echo 2 >&2; echo 3", stdout="o", stderr="./../home/o"
            )
            await one.end(contact)
            contact = await one.start(
                "/bin/sh", "-c", "echo 1; echo 2 >&2; echo 3", stdout="p", stderr="p"
            )
            await one.end(contact)

    asyncio.run(run())
    assert (home / "p").read_text() == "1\n2\n3\n"


def test_what_the_shell_says_of_a_killed_job_is_not_its_output(home: Path) -> None:
    async def run() -> None:
        async with session() as one:
            contact = await one.start("/bin/sh", "-c", "echo mine >&2; kill -SEGV $$", stderr="err")
            await one.end(contact)

    asyncio.run(run())
    assert (home / "err").read_text() == "mine\n"


def test_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X509_USER_PROXY", "/tmp/x509up_u1")
    monkeypatch.setenv("GW_LOCATION", "/opt/gw")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/gw/lib")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("TZ", "UTC")

    async def run() -> None:
        async with session() as one:
            contact = await one.start(
                "/usr/bin/env", "-0",
                stdout="env", environment={"GW_JOB_ID": "7", "EMPTY": "", "TZ": "CET", "L": "1\n2"},
            )  # fmt: skip
            await one.end(contact)

    asyncio.run(run())
    lines = (home / "env").read_text().rstrip("\0").split("\0")
    found = dict(line.split("=", 1) for line in lines)
    assert len(found.pop("GRIDMAD_JOB")) == 16
    found.pop("PWD")
    for name in ("LANG", "TMPDIR", "GLOBUS_LOCATION", "X509_CERT_DIR", "OLDPWD"):
        found.pop(name, None)
    found = {name: value for name, value in found.items() if not name.startswith("LC_")}
    assert found.pop("SHELL").startswith("/")
    assert found.pop("USER") == found.pop("LOGNAME")
    assert found == {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "X509_USER_PROXY": "/tmp/x509up_u1",
        "GW_JOB_ID": "7",
        "EMPTY": "",
        "TZ": "CET",
        "L": "1\n2",
    }


def test_a_job_starts_clean(home: Path) -> None:
    """Default signals whatever the driver does with its own, few files, the usual limit."""

    async def run() -> int:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        async with session() as one:
            contact = await one.start(
                "/bin/sh", "-c", "cat /proc/self/status; ulimit -n; ls /proc/self/fd", stdout="out"
            )
            await one.end(contact)
        return before

    limit = asyncio.run(run())
    text = (home / "out").read_text()
    for name in ("SigBlk", "SigIgn", "SigCgt"):
        mask = re.search(rf"^{name}:\t([0-9a-f]+)$", text, re.MULTILINE)
        assert mask is not None
        assert int(mask[1], 16) & ~LIBRARY_SIGNALS == 0, (name, mask[1])
    *_, found, first, second, third, folder = text.split()
    assert int(found) == limit
    # The fourth is the folder that ls reads.
    assert [first, second, third, folder] == ["0", "1", "2", "3"]


def test_output_for_another_machine_is_kept(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with session() as one:
            contact = await one.start(
                "/bin/echo", "hello", stdout="https://gn0.example:40000/dev/stdout"
            )
            assert await one.end(contact) == JobState.done(0)

    asyncio.run(run())
    [kept] = (home / ".local/state/gridmad/fork/jobs").glob("*.stdout")
    assert kept.read_text() == "hello\n"
    assert f"it is kept in {kept}" in caplog.text


def test_file_urls_are_paths(home: Path) -> None:
    async def run() -> None:
        async with session() as one:
            contact = await one.start(
                "file:///bin/echo", "hello", stdout=f"file://localhost{home}/a%20b"
            )
            assert await one.end(contact) == JobState.done(0)

    asyncio.run(run())
    assert (home / "a%20b").read_text() == "hello\n"


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (JobDescription("/no/such"), "cannot be run: /no/such: No such file or directory"),
        (JobDescription("sleep"), "/home/sleep: No such file or directory"),
        (JobDescription("/etc/passwd"), "/etc/passwd lacks the permission to run"),
        (JobDescription("/etc"), "/etc is no file"),
        (JobDescription("gsiftp://se/x"), "the executable gsiftp://se/x is not on this machine"),
        (JobDescription("file://se/x"), "the executable file://se/x is not on this machine"),
        (JobDescription("/bin/true", directory="gone"), "/home/gone does not exist"),
        (JobDescription("/bin/true", stdin="gone"), "/home/gone: No such file or directory"),
        (JobDescription("/bin/true", stdout="no/out"), "/home/no/out: No such file or directory"),
        (JobDescription("/bin/true", stderr="/"), "/: Is a directory"),
        (JobDescription("/bin/true", stdin="https://x/"), "stdin https://x/ is not on this"),
        (JobDescription("/bin/true", count=4, job_type="multiple"), "one process for a job, not 4"),
        (JobDescription("/bin/true", ("x" * 200_000,)), "Argument list too long"),
        (JobDescription("/bin/tr\0ue"), "embedded null"),
        (JobDescription("/bin/true", ("a\0b",)), "embedded null"),
    ],
)
def test_what_cannot_start_is_refused(home: Path, job: JobDescription, message: str) -> None:
    async def run() -> None:
        async with session() as one:
            assert message in await one.refused(job)
            assert one.reports == {}

    asyncio.run(run())
    connection = sqlite3.connect(home / ".local/state/gridmad/fork" / FILE_NAME)
    assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    connection.close()


def test_a_pipe_that_nobody_reads_does_not_stop_the_driver(home: Path) -> None:
    os.mkfifo(home / "pipe")

    async def run() -> None:
        async with session() as one:
            job = JobDescription("/bin/true", stdout="pipe")
            assert "pipe: No such device or address" in await one.refused(job)

    asyncio.run(run())


def test_two_hundred_at_once(home: Path) -> None:
    async def run() -> None:
        async with session() as one:
            jobs = [JobDescription("/bin/sh", ("-c", f"exit {n}")) for n in range(200)]
            contacts = await one.submit(*jobs)
            assert len(set(contacts)) == 200
            for exit_code, contact in enumerate(contacts):
                assert isinstance(contact, str)
                assert await one.end(contact) == JobState.done(exit_code)
                assert len(one.reports[contact]) == 2

    asyncio.run(run())


def test_more_jobs_than_descriptors_that_gwd_gives(home: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some 60 beside what other tests have open in this process.
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 61, hard))

    async def run() -> None:
        async with session() as one:
            contacts = await one.submit(*[JobDescription("/bin/sleep", ("60",))] * 100)
            names = [contact for contact in contacts if isinstance(contact, str)]
            assert len(names) == 100
            assert await one.cancel(*names) == [None] * 100
            for contact in names:
                assert await one.end(contact) == JobState.done(143)

    try:
        asyncio.run(run())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_full_disk_does_not_hide_an_exit_code(home: Path) -> None:
    """What the shepherd cannot write its own exit code tells."""

    async def run() -> None:
        async with session() as one:
            contact = await one.start("/bin/sh", "-c", "sleep 0.3; exit 9")
            jobs = home / ".local/state/gridmad/fork/jobs"
            jobs.rename(jobs.with_name("gone"))
            assert await one.end(contact) == JobState.done(9)

    asyncio.run(run())


def test_a_job_is_pending_until_active_was_told(home: Path) -> None:
    """A POLL right behind its SUBMIT must not tell what a CALLBACK is about to tell."""

    async def run() -> None:
        async with session() as one:
            contact = await one.start("/bin/sleep", "0.2")
            assert await one.poll(contact) == PENDING
            await asyncio.sleep(0)
            assert await one.poll(contact) == ACTIVE
            assert await one.end(contact) == JobState.done(0)

    asyncio.run(run())


def test_suspended(home: Path) -> None:
    async def run() -> None:
        async with session() as one:
            contact = await one.start("/bin/sleep", "60")
            shepherd = pid_of(contact)
            children = Path(f"/proc/{shepherd}/task/{shepherd}/children")
            await until(children.read_text)
            job = int(children.read_text())
            await asyncio.sleep(0)
            assert await one.poll(contact) == ACTIVE
            os.kill(job, signal.SIGSTOP)
            await until(lambda: ") T " in Path(f"/proc/{job}/stat").read_text())
            assert await one.poll(contact) == SUSPENDED
            # TERM reaches a stopped job too.
            await one.cancel(contact)
            assert await one.end(contact) == JobState.done(143)

    asyncio.run(run())


# ---------------------------------------------------------------- ending


STUBBORN = """
    trap '' TERM
    (trap '' TERM; sleep 61 & sleep 62) &
    setsid sh -c 'trap "" TERM; sleep 63 & sleep 64' &
    touch ready
    while :; do sleep 65; done
"""


def test_cancel_ends_everything_that_a_job_started(home: Path) -> None:
    async def run() -> None:
        async with session("--grace", "0.3") as one:
            other = await one.start("/bin/sleep", "60")
            contact = await one.start(script(home, STUBBORN))
            await until(lambda: (home / "ready").exists() and len(processes_of(home)) >= 9)
            begin = time.monotonic()
            assert await one.cancel(contact) == [None]
            # gwd asks again, three times.
            assert await one.cancel(contact, contact) == [None, None]
            assert await one.end(contact) == JobState.done(137)
            assert 0.3 <= time.monotonic() - begin < 5
            assert set(map(str.strip, processes_of(home).values())) == {
                text for text in processes_of(home).values() if "\x0060" in text
            }
            assert await one.cancel(contact) == [None]
            assert await one.poll(other) == ACTIVE
            await one.cancel(other)
            assert await one.end(other) == JobState.done(143)

    asyncio.run(run())


def test_a_job_cancelled_as_it_starts_gets_term(home: Path) -> None:
    """Between fork and exec a signal would go to the shepherd's own traps."""

    async def run() -> None:
        async with session() as one:
            jobs = [JobDescription("/bin/sleep", ("60",))] * 20
            for _ in range(10):
                contacts = [str(contact) for contact in await one.submit(*jobs)]
                await one.cancel(*contacts)
                for contact in contacts:
                    assert await one.end(contact) == JobState.done(143)

    asyncio.run(run())


def test_a_job_that_takes_term_may_clean_up(home: Path) -> None:
    text = "trap 'echo clean >done; exit 3' TERM; touch ready; while :; do sleep 0.05; done"

    async def run() -> None:
        async with session() as one:
            contact = await one.start(script(home, text))
            await until((home / "ready").exists)
            await one.cancel(contact)
            assert await one.end(contact) == JobState.done(3)

    asyncio.run(run())
    assert (home / "done").read_text() == "clean\n"


def test_the_end_is_told_when_nothing_is_left(home: Path) -> None:
    """The scheduler removes the job's directory then: nothing may write there any more."""
    text = "(trap '' TERM; sleep 60) & touch ready; sleep 60"

    async def run() -> None:
        async with session("--grace", "0.3") as one:
            contact = await one.start(script(home, text))
            await until(lambda: (home / "ready").exists() and len(processes_of(home)) >= 4)
            await one.cancel(contact)
            assert await one.end(contact) == JobState.done(143)
            assert processes_of(home) == {}

    asyncio.run(run())


def test_a_job_whose_shepherd_is_killed_failed_and_nothing_runs_on(home: Path) -> None:
    async def run() -> None:
        async with session() as one:
            contact = await one.start("/bin/sleep", "60")
            await until(lambda: len(processes_of(home)) == 2)
            os.kill(pid_of(contact), signal.SIGKILL)
            state = await one.end(contact)
            assert state.phase is Phase.FAILED
            assert "vanished without an exit code" in state.reason
            assert processes_of(home) == {}

    asyncio.run(run())


# ---------------------------------------------------------------- recovering


DRIVER_PROCESS = """
import argparse, asyncio, sys
from gridmad.driver import Batch
from gridmad.execution.description.model import JobDescription
from gridmad.execution.fork import ForkDriver
from gridmad.execution.model import Submission

async def main():
    parser = argparse.ArgumentParser()
    ForkDriver.add_options(parser)
    driver = ForkDriver(parser.parse_args(["--grace", "0.5"]))
    driver.report = lambda contact, state: None
    await driver.start()
    def settle(index, outcome):
        print(outcome, flush=True)
    job = JobDescription("/bin/sh", ("-c", sys.argv[1]))
    count = int(sys.argv[2])
    jobs = [Submission(str(n), "here", "fork", job) for n in range(count)]
    print("ready", flush=True)
    await driver.submit(Batch(jobs, settle))
    for command in sys.stdin:
        contacts = command.split()
        await driver.cancel(Batch(contacts, settle))
        print("cancelled", flush=True)
        await asyncio.sleep(0.2)
        print("swept", flush=True)

asyncio.run(main())
"""


def other_driver(text: str, count: int = 1) -> "subprocess.Popen[str]":
    """A driver in a process of its own that submits jobs and prints their contacts."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER_PROCESS, text, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: "subprocess.Popen[str]") -> list[str]:
    """SIGKILL a driver; the contacts that it had printed."""
    process.kill()
    text, _ = process.communicate()
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_a_job_outlives_its_driver(home: Path) -> None:
    process = other_driver("while [ ! -e go ]; do sleep 0.05; done; exit 42")
    assert process.stdout is not None
    contact = process.stdout.readline().strip()
    kill(process)

    async def run() -> None:
        async with session() as one:
            assert one.driver.remembered("0") == contact
            assert one.driver.remembered("1") is None
            assert await one.recover(contact) == ACTIVE
            assert await one.recover(contact) == ACTIVE
            assert await one.poll(contact) == ACTIVE
            (home / "go").touch()
            assert await one.end(contact) == JobState.done(42)
            assert one.reports[contact] == [JobState.done(42)]
            assert await one.recover(contact) == JobState.done(42)

    asyncio.run(run())


def test_an_exit_code_outlives_its_driver_and_the_journal(home: Path) -> None:
    process = other_driver("exit 42")
    assert process.stdout is not None
    contact = process.stdout.readline().strip()
    kill(process)
    shepherd = pid_of(contact)

    async def run() -> None:
        await until(lambda: not any(str(shepherd) == str(pid) for pid in processes_of(home)))
        for file in (home / ".local/state/gridmad/fork").glob(FILE_NAME + "*"):
            file.unlink()
        async with session() as one:
            assert await one.recover(contact) == JobState.done(42)
            assert await one.cancel(contact) == [None]

    asyncio.run(run())


def test_a_job_that_runs_is_found_without_the_journal(home: Path) -> None:
    process = other_driver("sleep 60")
    assert process.stdout is not None
    contact = process.stdout.readline().strip()
    kill(process)
    for file in (home / ".local/state/gridmad/fork").glob(FILE_NAME + "*"):
        file.unlink()

    async def run() -> None:
        async with session() as one:
            assert await one.cancel(contact) == [None]
            assert await one.end(contact) == JobState.done(143)

    asyncio.run(run())


def test_another_life_of_a_driver_goes_on_ending_a_job(home: Path) -> None:
    process = other_driver("trap '' TERM; touch ready; while :; do sleep 60; done")
    assert process.stdin is not None
    assert process.stdout is not None
    contact = process.stdout.readline().strip()
    while not (home / "ready").exists():
        time.sleep(0.01)
    process.stdin.write(contact + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "cancelled\n"
    assert process.stdout.readline() == "swept\n"
    kill(process)
    assert processes_of(home) != {}

    async def run() -> None:
        async with session("--grace", "0.2") as one:
            state = await one.recover(contact)
            if state == ACTIVE:
                state = await one.end(contact)
            assert state == JobState.done(137)
            await until(lambda: processes_of(home) == {})

    asyncio.run(run())


def test_the_end_of_a_driver_leaves_its_jobs(home: Path) -> None:
    async def run() -> None:
        async with session() as one:
            contact = await one.start("/bin/sh", "-c", "sleep 0.5; exit 6")
        async with session() as one:
            assert await one.recover(contact) == ACTIVE
            assert await one.end(contact) == JobState.done(6)

    asyncio.run(run())


def test_a_process_id_alone_is_not_enough(home: Path) -> None:
    async def run() -> None:
        async with session() as one:
            contact = await one.start("/bin/sleep", "60")
            name = Name.parse(contact)
            tag = "0123456789abcdef"
            pid, start, boot = name.shepherd.pid, name.shepherd.start_time, name.shepherd.boot_id
            host = name.shepherd.host
            used_again = f"fork://{host}/{boot}/{pid}/{start - 1}/{tag}"
            assert await one.recover(used_again) == ACTIVE
            assert await one.end(used_again) == JobState.failed(
                "the job's shepherd vanished without an exit code (it was killed)"
            )
            rebooted = f"fork://{host}/00000000-0000-0000-0000-000000000000/{pid}/{start}/{tag}"
            state = await one.recover(rebooted)
            assert state == JobState.failed("the machine was started anew while the job ran")
            assert await one.cancel(used_again, rebooted) == [None, None]
            await asyncio.sleep(0.5)
            assert await one.poll(contact) == ACTIVE
            await one.cancel(contact)
            assert await one.end(contact) == JobState.done(143)

    asyncio.run(run())


def test_contacts_that_are_not_ours(home: Path) -> None:
    async def run() -> None:
        async with session() as one:
            elsewhere = "fork://elsewhere.example/b/1/2/0123456789abcdef"
            state = await one.recover(elsewhere)
            assert isinstance(state, DriverError)
            assert not isinstance(state, TransientError)
            assert "runs on elsewhere.example" in str(state)
            host = socket.gethostname()
            for contact in (
                "https://host:2119/16/17/",
                "-",
                "fork://",
                "fork:///",
                f"fork://{host}/b/1/2/../../../etc/passwd",
                f"fork://{host}/b/1/2/0123456789ABCDEF",
                f"fork://{host}/b/x/2/0123456789abcdef",
                f"fork://{host}/b/+1/2/0123456789abcdef",
                f"fork://{host}/b/1/0123456789abcdef",
            ):
                assert isinstance(await one.recover(contact), UnknownJobError), contact
                [outcome] = await one.cancel(contact)
                assert isinstance(outcome, UnknownJobError)

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(8))
def test_killed_at_any_moment_every_job_that_runs_is_known(home: Path, seed: int) -> None:
    """A driver dies while it submits: what it began runs, and nothing else."""
    process = other_driver("exec sleep 60", 60)
    time.sleep(random.Random(seed).uniform(0.0, 0.09))
    answered = [line.strip() for line in kill(process)]

    async def run() -> None:
        async with session("--grace", "0.2") as one:
            connection = sqlite3.connect(home / ".local/state/gridmad/fork" / FILE_NAME)
            query = "SELECT contact FROM jobs WHERE contact IS NOT NULL"
            recorded = {row[0] for row in connection.execute(query)}
            assert set(answered) <= recorded
            await until(lambda: not one.driver._ends)
            query = "SELECT count(*) FROM jobs WHERE contact IS NULL AND ended IS NULL"
            assert connection.execute(query).fetchone() == (0,)
            connection.close()
            for contact in recorded:
                assert await one.recover(contact) == ACTIVE
            await until(lambda: len(processes_of(home)) == 2 * len(recorded))
            await one.cancel(*recorded)
            for contact in recorded:
                assert (await one.end(contact)).exit_code in (137, 143)

    asyncio.run(run())


DATABASE = ".local/state/gridmad/fork/" + FILE_NAME


def begin(home: Path, text: str, *, is_recorded: bool) -> Contact:
    """The contact of a job whose SUBMIT was not answered when its driver was killed: before it
    was written down, or after that.
    """
    process = other_driver(text)
    assert process.stdout is not None
    contact = process.stdout.readline().strip()
    kill(process)
    if not is_recorded:
        with contextlib.closing(sqlite3.connect(home / DATABASE)) as connection:
            connection.execute("UPDATE jobs SET contact = NULL, started = NULL")
            connection.commit()
    return contact


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_job_that_is_ordered_again_is_taken_over(home: Path, is_recorded: bool) -> None:
    text = "echo ran >>runs; while [ ! -e go ]; do sleep 0.05; done; exit 42"
    contact = begin(home, text, is_recorded=is_recorded)

    async def run() -> None:
        async with session() as one:
            assert await one.submit(JobDescription("/bin/sh", ("-c", text))) == [contact]
            await until(lambda: one.reports.get(contact) == [ACTIVE])
            # The next job of that number is another one.
            [other] = await one.submit(JobDescription("/bin/sh", ("-c", text)))
            assert isinstance(other, str)
            assert other != contact
            (home / "go").touch()
            for name in (contact, other):
                assert await one.end(name) == JobState.done(42)

    asyncio.run(run())
    assert (home / "runs").read_text() == "ran\n" * 2


@pytest.mark.parametrize("is_recorded", [True, False])
def test_one_that_has_ended_meanwhile_is_not_run_again(home: Path, is_recorded: bool) -> None:
    text = "echo ran >>runs; exit 42"
    contact = begin(home, text, is_recorded=is_recorded)
    tag = contact.rpartition("/")[2]

    async def run() -> None:
        status_file = home / ".local/state/gridmad/fork/jobs" / tag
        await until(lambda: status_file.exists() and status_file.read_text() == "42\n")
        await until(lambda: not processes_of(home))
        with contextlib.closing(sqlite3.connect(home / DATABASE)) as connection:
            connection.execute("UPDATE jobs SET ended = NULL, phase = NULL")
            connection.commit()
        async with session() as one:
            [again] = await one.submit(JobDescription("/bin/sh", ("-c", text)))
            assert isinstance(again, str)
            assert again.endswith(f"/{tag}")
            assert (again == contact) is is_recorded
            assert await one.end(again) == JobState.done(42)
        async with session() as one:
            assert await one.recover(again) == JobState.done(42)

    asyncio.run(run())
    assert (home / "runs").read_text() == "ran\n"


@pytest.mark.parametrize("is_recorded", [True, False])
@pytest.mark.parametrize("origin", ["", "another gwd's"])
def test_what_another_job_left_under_its_number_is_ended(
    home: Path, is_recorded: bool, origin: str
) -> None:
    text = "sleep 60"
    begun = begin(home, text, is_recorded=is_recorded)

    async def run() -> None:
        async with session("--grace", "0.2") as one:
            job = JobDescription("/bin/sh", ("-c", text if origin else "sleep 61"))
            outcomes: dict[int, Contact | DriverError] = {}
            submission = Submission("0", "here", "fork", job, origin)
            await one.driver.submit(Batch([submission], outcomes.__setitem__))
            contact = outcomes[0]
            assert isinstance(contact, str)
            assert contact != begun
            assert (await one.end(begun)).exit_code in (137, 143)
            assert await one.poll(contact) == ACTIVE
            await one.cancel(contact)
            await one.end(contact)

    asyncio.run(run())


@pytest.mark.parametrize("is_recorded", [True, False])
def test_of_jobs_that_nobody_orders_those_that_gwd_may_know_run_on(
    home: Path, is_recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gridmad.execution.fork.WANTED_TIME", 0.1)
    begun = begin(home, "sleep 60", is_recorded=is_recorded)

    async def run() -> None:
        async with session("--grace", "0.2") as one:
            if is_recorded:
                await asyncio.sleep(0.3)
                assert await one.recover(begun) == ACTIVE
                await one.cancel(begun)
            assert (await one.end(begun)).exit_code in (137, 143)

    asyncio.run(run())


def test_a_driver_that_lives_keeps_its_jobs(home: Path) -> None:
    """Another driver of the same user starts meanwhile."""
    process = other_driver("sleep 60", 40)
    assert process.stdout is not None

    async def run() -> None:
        async with session() as one:
            assert not one.driver._ends
        assert process.stdout is not None
        contacts = [process.stdout.readline().strip() for _ in range(40)]
        async with session() as one:
            assert not one.driver._ends
            assert [await one.recover(contact) for contact in contacts] == [ACTIVE] * 40
            await one.cancel(*contacts)
            for contact in contacts:
                assert await one.end(contact) == JobState.done(143)
        kill(process)

    asyncio.run(run())


def test_a_job_forbidden_before_its_shepherd_is_at_work_never_runs(home: Path) -> None:
    async def run() -> None:
        async with session() as one:
            shepherds = one.driver._shepherds
            tag = "0123456789abcdef"
            assert shepherds.decide(tag) is None
            process, _ = shepherds.start(JobDescription("/bin/touch", ("ran",)), tag)
            assert process.wait() == 0
            assert shepherds.exit_code(tag) is None
            assert shepherds.decide(tag) is None

    asyncio.run(run())
    assert not (home / "ran").exists()


def test_a_submit_cut_short_leaves_nothing(home: Path) -> None:
    """FINALIZE while jobs are started: gwd will submit again what was not answered."""

    async def run() -> None:
        async with session() as one:
            settled: list[Contact] = []
            jobs = [Submission(str(n), "", "", JobDescription("/bin/sleep", ("60",)))
                    for n in range(64)]  # fmt: skip
            batch: Batch[Submission, Contact] = Batch(
                jobs, lambda _index, contact: settled.append(str(contact))
            )
            task = asyncio.create_task(one.driver.submit(batch))
            await until(lambda: settled)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: len(processes_of(home)) == 2 * len(settled))
        async with session() as one:
            await one.cancel(*settled)
            for contact in settled:
                assert await one.end(contact) == JobState.done(143)

    asyncio.run(run())


def test_ended_jobs_expire(home: Path) -> None:
    async def run() -> None:
        jobs = home / ".local/state/gridmad/fork/jobs"
        async with session() as one:
            old, new = await one.start("/bin/true"), await one.start("/bin/true")
            await one.end(old)
            await one.end(new)
        week = time.time() - 8 * 86400
        os.utime(jobs / Name.parse(old).tag, (week, week))
        async with session() as one:
            assert await one.recover(new) == JobState.done(0)
            assert await one.recover(old) == ACTIVE
            assert (await one.end(old)).phase is Phase.FAILED
        async with session("--keep-days", "9"):
            assert [path.name for path in jobs.iterdir()] == [Name.parse(new).tag]

    asyncio.run(run())


def test_an_idle_driver_does_nothing(home: Path) -> None:
    async def run() -> None:
        async with session() as one:
            contact = await one.start("/bin/sleep", "60")
            await asyncio.sleep(0.2)
            before = time.process_time()
            await asyncio.sleep(1)
            assert time.process_time() - before < 0.005
            await one.cancel(contact)
            await one.end(contact)

    asyncio.run(run())


def test_state_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "xdg"))
    assert DRIVER is ForkDriver

    async def run() -> None:
        async with session():
            assert (home / "xdg/gridmad/fork" / FILE_NAME).exists()
        async with session("--state", str(home / "own")):
            assert (home / "own" / FILE_NAME).exists()

    asyncio.run(run())
    for path in [home / "own", *(home / "own").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_without_its_journal_a_driver_follows_jobs(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        state = home / "state"
        async with session("--state", str(state)) as one:
            cancelled = await one.start("/bin/sleep", "60")
            short = await one.start(script(home, f"until [ -e {home}/go ]; do sleep 0.05; done"))
        file = state / FILE_NAME
        content = file.read_bytes()
        file.unlink()
        file.mkdir()
        async with session("--state", str(state)) as one:
            assert await one.recover(cancelled) == ACTIVE
            assert await one.recover(short) == ACTIVE
            with pytest.raises(DriverError, match=r"the journal cannot be made: .*directory"):
                await one.submit(JobDescription("/bin/true"))
            (home / "go").touch()
            assert await one.end(short) == JobState.done(0)
            assert await one.cancel(cancelled) == [None]
            assert await one.end(cancelled) == JobState.done(143)
            file.rmdir()
            file.write_bytes(content)
            assert await one.end(await one.start("/bin/true")) == JobState.done(0)

    asyncio.run(run())
    assert "no job can be submitted: the journal cannot be made" in caplog.text


def test_an_exit_code_that_cannot_be_read_is_tried_again(home: Path) -> None:
    """And holds up no other job."""

    async def run() -> None:
        jobs = home / ".local/state/gridmad/fork/jobs"
        wait = script(home, f"until [ -e {home}/go ]; do sleep 0.05; done; exit 7")
        async with session() as one:
            bad, good = await one.start(wait), await one.start(wait)
        async with session() as one:
            assert await one.recover(bad) == ACTIVE
            assert await one.recover(good) == ACTIVE
            unreadable = jobs / Name.parse(bad).tag
            unreadable.mkdir()
            (home / "go").touch()
            assert await one.end(good) == JobState.done(7)
            assert bad not in one.reports
            unreadable.rmdir()
            unreadable.write_text("7\n")
            assert await one.end(bad) == JobState.done(7)

    asyncio.run(run())


def test_what_does_not_die_counts_as_ended(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Signals do not reach a process that hangs in the kernel."""
    monkeypatch.setattr("gridmad.execution.ending.send", lambda *_: None)
    monkeypatch.setattr("gridmad.execution.ending.GIVE_UP", 0.3)

    async def run() -> None:
        async with session("--grace", "0.1") as one:
            contact = await one.start("/bin/sleep", "1.5")
            assert await one.cancel(contact) == [None]
            assert await one.end(contact) == JobState.done(137)
            await asyncio.sleep(1.5)
            assert len(one.reports[contact]) == 2

    asyncio.run(run())
    assert caplog.text.count("processes do not die") == 1


def test_files_of_jobs_that_run_do_not_expire(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridmad.execution.fork.EXPIRY_INTERVAL", 0.2)

    async def run() -> None:
        jobs = home / ".local/state/gridmad/fork/jobs"
        async with session() as one:
            contact = await one.start("/bin/sleep", "60", stdout="gsiftp://far/out")
            kept = jobs / f"{Name.parse(contact).tag}.stdout"
            ended = jobs / "0123456789abcdef"
            ended.touch()
            for path in (kept, ended):
                os.utime(path, (0, 0))
            await until(lambda: not ended.exists())
            assert kept.exists()
            await one.cancel(contact)
            await one.end(contact)
            os.utime(kept, (0, 0))
            await until(lambda: not kept.exists())

    asyncio.run(run())


def test_a_machine_may_change_its_name(home: Path) -> None:
    async def run() -> None:
        async with session() as one:
            contact = await one.start("/bin/sleep", "60")
            renamed = contact.replace(f"//{socket.gethostname()}/", "//before.example/")
            assert await one.recover(renamed) == ACTIVE
            assert await one.cancel(renamed) == [None]
            assert await one.end(renamed) == JobState.done(143)

    asyncio.run(run())


@pytest.mark.parametrize(
    "options", [["--state", ""], ["--keep-days", "9" * 400], ["--keep-days", "0"]]
)
def test_options_that_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        Session(options)
    assert "error: argument" in capsys.readouterr().err


def test_nobody_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(UsageError, match="give --state or set HOME"):
        Session([])


def test_a_state_folder_that_cannot_be_made_is_said(home: Path) -> None:
    (home / "file").touch()

    async def run() -> None:
        one = Session(["--state", str(home / "file")])
        await one.driver.start()
        with pytest.raises(DriverError, match=r"the journal cannot be made: .*/file"):
            await one.submit(JobDescription("/bin/true"))
        (home / "file").unlink()
        contact = await one.start("/bin/true")
        assert await one.end(contact) == JobState.done(0)
        await one.driver.stop()

    asyncio.run(run())
