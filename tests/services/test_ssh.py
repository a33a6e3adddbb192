"""The ssh driver on a real sshd, and on a real Slurm behind it."""

import asyncio
import contextlib
import os
import random
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gridmad.driver import Batch
from gridmad.errors import DriverError, TransientError, UsageError
from gridmad.execution import follower, link
from gridmad.execution.description.model import JobDescription
from gridmad.execution.driver import Contact
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState, Phase, Submission
from gridmad.execution.service import ExecutionService
from gridmad.execution.ssh import DRIVER
from tests.services.sge import Cell
from tests.services.slurm import SlurmCluster
from tests.services.sshd import Sshd, SshdMaker
from tests.unit.session import options

WAIT = 40.0
HOST = "localhost"


class Session:
    """A driver that runs, and what it reported."""

    def __init__(self, arguments: str) -> None:
        given = options(ExecutionService, DRIVER, f"--interval 0.3 --settle 0.3 {arguments}")
        self.driver = DRIVER(given)
        self.reports: dict[Contact, list[JobState]] = {}
        self._changed = asyncio.Event()
        self.driver.report = self._report

    def _report(self, contact: Contact, state: JobState) -> None:
        self.reports.setdefault(contact, []).append(state)
        self._changed.set()

    async def submit(
        self, *jobs: JobDescription, host: str = HOST, manager: str = ""
    ) -> list[Contact | DriverError]:
        outcomes: dict[int, Contact | DriverError] = {}
        submissions = [Submission(str(n), host, manager, job) for n, job in enumerate(jobs)]
        await self.driver.submit(Batch(submissions, outcomes.__setitem__))
        return [outcomes[index] for index in range(len(jobs))]

    async def start(self, text: str, manager: str = "", **more: object) -> Contact:
        job = JobDescription("/bin/sh", ["-c", text], **more)  # type: ignore[arg-type]
        [contact] = await self.submit(job, manager=manager)
        assert isinstance(contact, str), contact
        return contact

    async def refused(self, job: JobDescription, host: str = HOST, manager: str = "") -> str:
        async with asyncio.timeout(WAIT):
            [outcome] = await self.submit(job, host=host, manager=manager)
        assert isinstance(outcome, DriverError), outcome
        assert not isinstance(outcome, TransientError), outcome
        return str(outcome)

    async def recover(self, contact: Contact) -> JobState | DriverError:
        outcomes: dict[int, JobState | DriverError] = {}
        await self.driver.recover(Batch([contact], outcomes.__setitem__))
        outcome = outcomes[0]
        if isinstance(outcome, JobState):
            self._report(contact, outcome)  # the answer tells it, and nothing else may
        return outcome

    async def cancel(self, *contacts: Contact) -> None:
        assert await self.driver.cancel(Batch(contacts, ignore)) == [None] * len(contacts)

    async def until(self, contact: Contact, *states: JobState) -> JobState:
        """Its final state, or one of these."""
        async with asyncio.timeout(WAIT):
            while True:
                told = self.reports.get(contact, [PENDING])[-1]
                if told.is_final or told in states:
                    return told
                self._changed.clear()
                await self._changed.wait()


def ignore(_index: int, _outcome: object) -> None:
    """What is returned is what counts."""


@contextlib.asynccontextmanager
async def session(arguments: str = "") -> AsyncIterator[Session]:
    one = Session(arguments)
    await one.driver.start()
    try:
        yield one
    finally:
        await one.driver.stop()


def run(test: Callable[[Session], Coroutine[Any, Any, None]], arguments: str = "") -> None:
    async def main() -> None:
        async with session(arguments) as one:
            await test(one)

    asyncio.run(main())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, on both sides."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


@pytest.fixture
def host(home: Path, sshd: SshdMaker) -> Iterator[Sshd]:
    """A host; no process of a job may be left at the end."""
    server = sshd(home)
    yield server
    left = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = path.joinpath("environ").read_bytes().split(b"\0")
            words = path.joinpath("cmdline").read_bytes()
            if f"HOME={home}".encode() in environment and b"sleep" in words:
                os.kill(int(path.name), 9)
                left.append(words)
    assert left == []


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that no test waits for."""
    monkeypatch.setattr(link, "LONGEST_PAUSE", 0.5)
    monkeypatch.setattr(follower, "HASTE", 0.1)


# ---------------------------------------------------------------- jobs


def test_ends(host: Sshd) -> None:
    async def test(one: Session) -> None:
        texts = ["exit 0", "exit 7", "exit 255", "kill -TERM $$", "kill -KILL $$", "kill -SEGV $$"]
        jobs = [JobDescription("/bin/sh", ["-c", text]) for text in texts]
        jobs += [
            JobDescription("/no/such/program"),
            JobDescription("/bin/true", directory="nowhere"),
        ]
        contacts = await one.submit(*jobs)
        ends = [await one.until(str(contact)) for contact in contacts]
        assert ends[:7] == [JobState.done(code) for code in (0, 7, 255, 143, 137, 139, 127)]
        assert ends[7] == JobState.failed("the directory nowhere cannot be entered")
        for contact in contacts:
            assert str(contact).startswith("ssh://localhost/")
            assert one.reports[str(contact)][:-1] in ([], [ACTIVE])

    run(test)


def test_what_a_description_says_is_what_runs(host: Sshd, home: Path) -> None:
    words = ["it's", 'a "b"', "$HOME `id` \\", "two\nlines", "", "!!", "*"]
    folder = home / "a folder's"
    folder.mkdir()
    program = folder / "program"
    program.write_text(
        "#!/bin/sh\n"
        'cat; pwd; printf \'%s|\' "$@"; echo "$SECRET$GRIDMAD_JOB"; echo $SSH_CLIENT >&2\n'
    )
    program.chmod(0o755)
    (folder / "in").write_text("input\n")

    async def test(one: Session) -> None:
        [contact] = await one.submit(
            JobDescription(
                "program",
                words,
                directory="a folder's",
                environment={"SECRET": "x'y\n"},
                stdin="in",
                stdout="out",
                stderr=f"file://{folder}/errors",
            )
        )
        assert await one.until(str(contact)) == JobState.done(0)
        tag = str(contact).rpartition("/")[2]
        assert (folder / "out").read_text() == "\n".join(
            ["input", str(folder), "|".join(words) + f"|x'y\n{tag}\n"]
        )
        assert (folder / "errors").read_text() == "\n"

    run(test)


def test_a_stopped_job_is_suspended(host: Sshd, home: Path) -> None:
    async def test(one: Session) -> None:
        contact = await one.start("echo $$ >pid; exec sleep 300")
        assert await one.until(contact, ACTIVE) == ACTIVE
        async with asyncio.timeout(WAIT):
            while not (home / "pid").exists() or not (home / "pid").read_text():
                await asyncio.sleep(0.01)
        pid = int((home / "pid").read_text())
        os.kill(pid, 19)
        assert await one.until(contact, SUSPENDED) == SUSPENDED
        os.kill(pid, 18)
        assert await one.until(contact, ACTIVE) == ACTIVE
        await one.cancel(contact)
        assert await one.until(contact) == JobState.done(143)

    run(test)


def test_a_hundred_jobs_are_cancelled(host: Sshd) -> None:
    async def test(one: Session) -> None:
        jobs = [JobDescription("/bin/sleep", [str(number)]) for number in range(300, 400)]
        contacts = [str(contact) for contact in await one.submit(*jobs)]
        await one.cancel(*contacts)
        assert {await one.until(contact) for contact in contacts} == {JobState.done(143)}

    run(test)


def test_an_end_is_told_at_once(host: Sshd, home: Path) -> None:
    """And not when the driver asks next."""
    os.mkfifo(home / "gate")

    async def test(one: Session) -> None:
        contact = await one.start("read line <gate; exit 3")
        assert await one.until(contact, ACTIVE) == ACTIVE
        (home / "gate").write_text("go\n")
        assert await one.until(contact) == JobState.done(3)

    run(test, "--interval 3600")


@pytest.mark.parametrize("sessions", [1, 2])
def test_a_host_that_allows_few_sessions(home: Path, sshd: SshdMaker, sessions: int) -> None:
    sshd(home, limits=f"MaxSessions {2 * sessions}")

    async def test(one: Session) -> None:
        for _ in range(5):
            contacts = [str(c) for c in await one.submit(*[JobDescription("/bin/true")] * 10)]
            assert {await one.until(contact) for contact in contacts} == {JobState.done(0)}

    run(test, f"--sessions {sessions}")


def test_a_talkative_login_shell(host: Sshd, home: Path) -> None:
    (home / ".bashrc").write_text(
        "echo gridmad home /elsewhere; echo gridmad end; echo 0123456789abcdef ended 0\n"
        "echo oh >&2\n"
    )

    async def test(one: Session) -> None:
        assert await one.until(await one.start("exit 5")) == JobState.done(5)

    run(test)


def test_a_host_that_lost_our_files(host: Sshd, home: Path) -> None:
    async def test(one: Session) -> None:
        assert await one.until(await one.start("exit 5")) == JobState.done(5)
        (home / ".gridmad").rename(home / "gone")
        assert await one.until(await one.start("exit 6")) == JobState.done(6)

    run(test)


# ---------------------------------------------------------------- refusals


def test_what_is_refused(host: Sshd) -> None:
    async def test(one: Session) -> None:
        true = JobDescription("/bin/true")
        assert "not 3" in await one.refused(
            JobDescription("/bin/true", job_type="multiple", count=3)
        )
        assert "nowhere.invalid" in await one.refused(true, host="nowhere.invalid")
        assert "[user@]host" in await one.refused(true, host="-oProxyCommand=x")
        assert "jobmanager-slurm" in await one.refused(true, manager="jobmanager-pbs")

    run(test)


def test_a_host_whose_key_is_unknown_or_another(host: Sshd, tmp_path: Path) -> None:
    async def test(one: Session) -> None:
        assert "ssh-keyscan" in await one.refused(JobDescription("/bin/true"))

    known = tmp_path / "known"
    run(test, f"--known-hosts {known}")
    known.touch()
    run(test, f"--known-hosts {known}")
    host.known_hosts.unlink()
    run(test)
    host.know(host.identity.with_suffix(".pub"))
    run(test)
    # Whatever the user's configuration says.
    with (host.home / ".ssh/config").open("a") as file:
        file.write("StrictHostKeyChecking no\nUserKnownHostsFile none\n")
    run(test)


def test_a_host_that_does_not_take_our_key(host: Sshd, tmp_path: Path) -> None:
    async def test(one: Session) -> None:
        assert "authorized_keys" in await one.refused(JobDescription("/bin/true"))

    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    host.identity.unlink()
    run(test, f"--identity {key}")
    run(test)


def test_a_key_that_has_a_passphrase(host: Sshd, tmp_path: Path) -> None:
    async def test(one: Session) -> None:
        assert "passphrase" in (await one.refused(JobDescription("/bin/true"))).lower()

    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", key], check=True)
    run(test, f"--identity {key}")


def test_a_refusal_is_not_the_end_of_a_job(host: Sshd) -> None:
    contact = ""

    async def begin(one: Session) -> None:
        nonlocal contact
        contact = await one.start("sleep 300")

    async def refused(one: Session) -> None:
        outcome = await one.recover(contact)
        assert isinstance(outcome, TransientError), outcome
        await one.cancel(contact)  # accepted, and tried for as long as it takes
        await asyncio.sleep(0.5)
        assert one.reports == {}

    async def end(one: Session) -> None:
        assert await one.recover(contact) == ACTIVE
        await one.cancel(contact)
        assert await one.until(contact) == JobState.done(143)

    run(begin)
    keys = host.known_hosts.read_text()
    host.know(host.identity.with_suffix(".pub"))
    run(refused)
    host.known_hosts.write_text(keys)
    run(end)


@pytest.mark.parametrize("words", ["--slurm=--no-such", "--slurm='", "--sessions 0", "--grace x"])
def test_wrong_options(words: str) -> None:
    with pytest.raises((UsageError, SystemExit)):
        DRIVER(options(ExecutionService, DRIVER, words))


# ---------------------------------------------------------------- faults


def test_a_server_that_is_down_for_a_while(host: Sshd, home: Path) -> None:
    async def test(one: Session) -> None:
        contacts = [await one.start(f"sleep {n / 4}; exit {n}") for n in range(8)]
        host.stop()
        late = asyncio.create_task(one.start("exit 99"))
        await asyncio.sleep(1.5)
        told = [states[-1] for states in one.reports.values()]
        assert not [state for state in told if state.phase is Phase.FAILED]
        assert not late.done()
        host.start()
        for number, contact in enumerate(contacts):
            assert await one.until(contact) == JobState.done(number)
        assert await one.until(await late) == JobState.done(99)

    run(test)


@pytest.mark.parametrize("seed", range(2))
def test_connections_that_break_at_any_moment(host: Sshd, home: Path, seed: int) -> None:
    """No job is lost and none runs twice."""
    chance = random.Random(seed)
    traces = home / "traces"
    traces.mkdir()
    rounds, count = 20, 12

    async def test(one: Session) -> None:
        contacts: list[Contact] = []
        for number in range(rounds):
            texts = [f"echo x >>traces/{number}.{n}; exit {n}" for n in range(count)]
            jobs = [JobDescription("/bin/sh", ["-c", text]) for text in texts]
            submitting = asyncio.create_task(one.submit(*jobs))
            await asyncio.sleep(chance.uniform(0, 0.1))
            host.cut()
            async with asyncio.timeout(WAIT):
                contacts += [str(contact) for contact in await submitting]
        ends = [await one.until(contact) for contact in contacts]
        assert ends == [JobState.done(n) for _ in range(rounds) for n in range(count)]

    run(test)
    runs = {path.name: path.read_text() for path in traces.iterdir()}
    assert runs == {f"{a}.{b}": "x\n" for a in range(rounds) for b in range(count)}


def test_a_thousand_jobs_half_of_them_cancelled(host: Sshd, home: Path) -> None:
    """All are accounted for, over a driver's life and death."""
    traces = home / "traces"
    traces.mkdir()
    count = 1000
    contacts: list[Contact] = []

    async def begin(one: Session) -> None:
        jobs = [
            JobDescription("/bin/sh", ["-c", f"echo x >>traces/{n}; [ {n % 2} = 0 ] || sleep 300"])
            for n in range(count)
        ]
        contacts.extend(str(contact) for contact in await one.submit(*jobs))

    async def end(one: Session) -> None:
        async with asyncio.timeout(WAIT):
            await asyncio.gather(*map(one.recover, contacts))
        await one.cancel(*contacts[1::2])
        ends = [await one.until(contact) for contact in contacts]
        assert set(ends[0::2]) == {JobState.done(0)}
        assert set(ends[1::2]) == {JobState.done(143)}

    run(begin)
    run(end)
    assert {path.read_text() for path in traces.iterdir()} == {"x\n"}
    assert len(list(traces.iterdir())) == count


# ---------------------------------------------------------------- a batch system behind ssh


class Head(NamedTuple):
    """A host that has a cluster's tools, and a talkative login shell."""

    host: Sshd
    manager: str


@pytest.fixture(params=["slurm", "sge"])
def head(request: pytest.FixtureRequest, home: Path, sshd: SshdMaker) -> Head:
    """In front of each kind of cluster."""
    cluster: SlurmCluster | Cell = request.getfixturevalue(request.param)
    (home / ".bashrc").write_text("echo 4711; echo Welcome\n")
    return Head(sshd(home, environment=cluster.environment), f"jobmanager-{request.param}")


def test_jobs_of_a_cluster_behind_a_host(head: Head, home: Path) -> None:
    async def test(one: Session) -> None:
        texts = [f"echo x >>trace{n}; exit {n}" for n in range(3)]
        jobs = [JobDescription("/bin/sh", ["-c", text]) for text in texts]
        contacts = [str(contact) for contact in await one.submit(*jobs, manager=head.manager)]
        kind = head.manager.removeprefix("jobmanager-")
        assert all(contact.startswith(f"ssh://localhost+{kind}/") for contact in contacts)
        ends = [await one.until(contact) for contact in contacts]
        assert ends == [JobState.done(n) for n in range(3)]
        assert [(home / f"trace{n}").read_text() for n in range(3)] == ["x\n"] * 3
        true = JobDescription("/bin/true", queue="nosuch")
        assert "nosuch" in await one.refused(true, manager=head.manager)
        contact = await one.start("sleep 300", manager=head.manager)
        assert await one.until(contact, ACTIVE) == ACTIVE
        await one.cancel(contact)
        # A running job Grid Engine kills at once, and only its accounting file tells of that.
        assert await one.until(contact) in (JobState.done(137), JobState.done(143))

    run(test, "--slurm=--partition=short")


def test_connections_to_a_cluster_that_break_at_any_moment(head: Head, home: Path) -> None:
    chance = random.Random(3)
    traces = home / "traces"
    traces.mkdir()
    rounds, count = 8, 5

    async def test(one: Session) -> None:
        contacts: list[Contact] = []
        for number in range(rounds):
            texts = [f"echo x >>traces/{number}.{n}; exit {n}" for n in range(count)]
            jobs = [JobDescription("/bin/sh", ["-c", text]) for text in texts]
            submitting = asyncio.create_task(one.submit(*jobs, manager=head.manager))
            await asyncio.sleep(chance.uniform(0, 0.15))
            head.host.cut()
            async with asyncio.timeout(WAIT):
                contacts += [str(contact) for contact in await submitting]
        ends = [await one.until(contact) for contact in contacts]
        assert ends == [JobState.done(n) for _ in range(rounds) for n in range(count)]

    run(test)
    runs = {path.name: path.read_text() for path in traces.iterdir()}
    assert runs == {f"{a}.{b}": "x\n" for a in range(rounds) for b in range(count)}
