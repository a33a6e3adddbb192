"""gw_em_mad_prews with a real gatekeeper, its job managers, and a GASS server."""

import asyncio
import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gridmad.execution.gram_answers import GramError, GramState, Signal
from gridmad.execution.gram_client import GramClient
from tests.conformance.gwd import Player
from tests.services import gram as server
from tests.services import slurm as slurm_server
from tests.services.gram import Gass, Gram
from tests.services.required import skip_without

DRIVER = shutil.which("gw_em_mad_prews", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
log = logging.getLogger(__name__)

MANY = int(os.environ.get("GRIDMAD_GRAM_JOBS", "12"))
"""Jobs at a time: hundreds take minutes, most of it the job manager's."""
END_TIME = 60.0
"""Seconds that a job has to end in."""


class Site:
    """A gwd's side: its folder, the descriptions it writes, and the drivers it starts."""

    def __init__(self, folder: Path, gram: Gram, gass: Gass) -> None:
        self.folder = folder
        self.gram = gram
        self.gass = gass
        self.proxy = folder / "proxy"
        self.proxy.write_bytes(gram.proxy.read_bytes())
        self.proxy.chmod(0o600)
        self._drivers: list[Player] = []

    def driver(self, options: str = "", *, is_started: bool = True) -> Player:
        """A driver; one that comes after another has its journal."""
        assert DRIVER is not None
        player = Player(
            DRIVER,
            "execution",
            [f"--port {self.gram.port} --interval 1 --state {self.folder}/state {options}"],
            self.folder / "gw",
            {
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "GW_LOCATION": str(self.folder / "gw"),
                **self.gram.environment,
                "X509_USER_PROXY": str(self.proxy),
            },
        )
        self._drivers.append(player)
        if is_started:
            player.initialise()
        return player

    def submit(
        self, gwd: Player, job: int, rsl: str, service: str = "fork", host: str = "localhost"
    ) -> None:
        """Send SUBMIT, and do not wait."""
        path = self.folder / f"job{job}.rsl"
        path.write_text(rsl)
        gwd.ask(f"SUBMIT {job} {host}/jobmanager-{service} {path}")

    def close(self) -> None:
        for player in self._drivers:
            player.kill()
            assert not player.breaches, player.breaches


@pytest.fixture(scope="module")
def gass(gram: Gram) -> Iterator[Gass]:
    with Gass(gram) as gass:
        yield gass


@pytest.fixture
def site(tmp_path: Path, gram: Gram, gass: Gass) -> Iterator[Site]:
    site = Site(tmp_path, gram, gass)
    yield site
    site.close()


def shell(text: str) -> str:
    """A description that runs a shell script; it must have no quotes."""
    return f'&(executable="/bin/sh")(arguments="-c" "{text}")'


def gated(gate: Path, code: int) -> str:
    """A description of a job that ends when there is a file `gate`."""
    return shell(f"while [ ! -e {gate} ]; do sleep 0.1; done; exit {code}")


def answer(gwd: Player, job: int, operation: str = "SUBMIT", seconds: float = END_TIME) -> str:
    """The answer to a request that was sent."""
    start = f"{operation} {job} "

    def found() -> list[str]:
        return [line for line in gwd.answers if line.startswith(start)]

    gwd.wait(lambda: bool(found()), f"{operation} {job} is not answered", seconds)
    return found()[-1].removeprefix(start)


def end(gwd: Player, job: int, seconds: float = END_TIME) -> list[str]:
    """The states that were told of a job, when it has ended."""
    gwd.wait(lambda: gwd.has_ended(job), f"job {job} does not end", seconds)
    return gwd.told[job]


def wait_for(condition: Callable[[], bool], problem: str, seconds: float = END_TIME) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, problem
        time.sleep(0.05)


def job_path(gwd: Player, job: int) -> str:
    """The first part of the path of a job's contact, by which job managers name its files."""
    return gwd.contacts[job].split("%2F")[-3]


def reason(gwd: Player, job: int) -> str:
    """What CALLBACK FAILURE said."""
    return next(line for line in gwd.answers if line.startswith(f"CALLBACK {job} FAILURE"))


# ---------------------------------------------------------------- states


def test_states_and_exit_codes(site: Site) -> None:
    gwd = site.driver()
    jobs = {
        0: ("sleep 1", ["ACTIVE", "DONE:0"]),
        1: ("sleep 1; exit 7", ["ACTIVE", "DONE:7"]),
        2: ("sleep 1; exit 255", ["ACTIVE", "DONE:255"]),
        3: ("sleep 1; kill -9 $$", ["ACTIVE", "FAILED"]),
    }
    for job, (text, _) in jobs.items():
        site.submit(gwd, job, shell(text))
    for job, (_, states) in jobs.items():
        told = end(gwd, job)
        assert [state for state in told if state != "PENDING"] == states, job


def test_a_job_manager_that_knows_no_exit_code(site: Site) -> None:
    gwd = site.driver()
    site.submit(gwd, 1, shell("exit 3"), "poll")
    assert end(gwd, 1)[-1] == "DONE"
    assert gwd.ask_and_wait("POLL 1 - -") == ["POLL 1 SUCCESS DONE"]


def test_what_a_description_says(site: Site) -> None:
    gwd = site.driver()
    home = site.gram.home
    (home / "work").mkdir(exist_ok=True)
    (home / "work/input").write_text("given\n")
    site.submit(
        gwd,
        1,
        '&(executable="/bin/sh")(arguments="-c" "pwd; cat; echo $NAME; echo ""a  b"" >&2")'
        '(directory="work")(stdin="input")(stdout="out")(stderr="err")'
        "(environment=(NAME 'it''s \"me\"'))",
    )
    assert end(gwd, 1)[-1] == "DONE:0"
    assert (home / "work/out").read_text() == f'{home}/work\ngiven\nit\'s "me"\n'
    assert (home / "work/err").read_text() == "a  b\n"


def test_jobs_that_cannot_run(site: Site) -> None:
    gwd = site.driver()
    site.submit(gwd, 1, '&(executable="/nonexistent/program")')
    site.submit(gwd, 2, "&(executable=/bin/true)(directory=/nonexistent)")
    site.submit(gwd, 3, "&(executable=/bin/true)(job_type=mpi)(count=2)")
    for job, words in (
        (1, "the executable does not exist (GRAM error 5)"),
        (2, "directory"),
        (3, "jobtype"),
    ):
        assert end(gwd, job)[-1] == "FAILED"
        assert words in reason(gwd, job)


def test_what_the_gatekeeper_refuses(site: Site) -> None:
    gwd = site.driver()
    site.submit(gwd, 1, "&(executable=/bin/true)", "nowhere")
    site.submit(gwd, 2, "&(executable=/bin/true)", host="[::1]")
    site.submit(gwd, 3, "&(executable=/bin/true)(max_wall_time=x)")
    assert answer(gwd, 1).startswith("FAILURE the gatekeeper failed to find the requested service")
    assert answer(gwd, 2) == "FAILURE [::1]/jobmanager-fork is no contact of a gatekeeper"
    assert answer(gwd, 3).startswith("FAILURE")


def test_jobs_are_cancelled_as_soon_as_they_are_there_and_later(site: Site) -> None:
    gwd = site.driver()
    for job in range(3):
        site.submit(gwd, job, shell("sleep 300"))
    for job in range(3):
        assert answer(gwd, job).startswith("SUCCESS")
        if job < 2:
            gwd.ask(f"CANCEL {job} - -")
    gwd.wait(lambda: "ACTIVE" in gwd.told[2], "the job does not run")
    gwd.ask("CANCEL 2 - -")
    for job in range(3):
        assert answer(gwd, job, "CANCEL").startswith("SUCCESS")
        assert end(gwd, job)[-1] == "DONE:143"


@pytest.mark.timeout(120 + 6 * MANY)
def test_many_jobs_of_which_half_are_cancelled(site: Site, tmp_path: Path) -> None:
    count, patience = MANY, END_TIME + MANY
    runs, gate = tmp_path / "runs", tmp_path / "gate"
    runs.mkdir()
    begun = time.monotonic()
    gwd = site.driver()
    for job in range(count):
        run = f"echo run >> {runs}/{job}"
        wait = f"while [ ! -e {gate} ]; do sleep 1; done" if job % 2 else "true"
        site.submit(gwd, job, shell(f"{run}; {wait}; exit {job % 7}"))
    for job in range(count):
        assert answer(gwd, job, seconds=patience).startswith("SUCCESS ")
    submitted = time.monotonic()
    for job in range(1, count, 2):
        gwd.ask(f"CANCEL {job} - -")
    for job in range(1, count, 2):
        assert answer(gwd, job, "CANCEL", patience).startswith("SUCCESS")
    for job in range(count):
        last = end(gwd, job, patience)[-1]
        assert last == ("DONE:143" if job % 2 else f"DONE:{job % 7}"), (job, gwd.told[job])
    ended = time.monotonic()
    log.info(
        "%d jobs: %.1f s to submit, %.1f s more to their ends",
        *(count, submitted - begun, ended - submitted),
    )
    for job in range(count):
        path = runs / str(job)
        if job % 2:  # it may have been cancelled before it began
            assert not path.exists() or path.read_text() == "run\n"
        else:
            assert path.read_text() == "run\n"


# ---------------------------------------------------------------- files


def test_the_example_of_gridways_guide(site: Site, tmp_path: Path) -> None:
    """Its executable, its output and its input are on a GASS server."""
    gwd = site.driver()
    url = site.gass.url
    program, given, out, err = (tmp_path / name for name in ("program", "given", "out", "err"))
    program.write_text('#!/bin/sh\necho "args: $*"\ncat\necho problem >&2\nexit 4\n')
    given.write_text("some input\n")
    site.submit(
        gwd,
        1,
        f'&(executable="{url}{program}")(arguments="50" "a b")(stdin="{url}{given}")'
        f'(stdout="{url}{out}")(stderr="{url}{err}")(queue="gilda")',
    )
    assert end(gwd, 1)[-1] == "DONE:4"
    assert out.read_text() == "args: 50 a b\nsome input\n"
    assert err.read_text() == "problem\n"


def test_files_are_staged(site: Site, tmp_path: Path) -> None:
    gwd = site.driver()
    url, home = site.gass.url, site.gram.home
    (tmp_path / "data").write_text("data\n")
    site.submit(
        gwd,
        1,
        shell("cat here here > there")
        + f'(file_stage_in=("{url}{tmp_path}/data" "here"))'
        + f'(file_stage_out=("there" "{url}{tmp_path}/back"))(file_clean_up="here")',
    )
    assert end(gwd, 1)[-1] == "DONE:0"
    assert (tmp_path / "back").read_text() == "data\ndata\n"
    wait_for(lambda: not (home / "here").exists(), "the file is not removed")


def test_a_file_that_cannot_be_staged(site: Site, tmp_path: Path) -> None:
    gwd = site.driver()
    url = f"{site.gass.url}{tmp_path}/none"
    site.submit(gwd, 1, f'&(executable="{url}")')
    assert end(gwd, 1)[-1] == "FAILED"
    assert f"could not stage in executable from {url} (GRAM error 43)" in reason(gwd, 1)


# ---------------------------------------------------------------- credentials


def test_a_proxy_that_ends_costs_no_job_and_is_renewed_without_a_restart(site: Site) -> None:
    gwd = site.driver()
    gate = site.folder / "gate"
    site.submit(gwd, 1, gated(gate, 6))
    gwd.wait(lambda: "ACTIVE" in gwd.told.get(1, ()), "the job does not run")

    # What the job stages out with at its end.
    (delegated,) = site.gram.home.glob(f".globus/job/*/{job_path(gwd, 1)}.*/x509_user_proxy")
    before = delegated.read_bytes()

    over = site.gram.authority.proxy(site.gram.user, "over", days=-1).proxy
    replace(site.proxy, over.read_bytes())
    site.submit(gwd, 2, shell("exit 3"))
    for _ in range(5):
        time.sleep(0.4)
        gwd.ask("POLL 1 - -")
    gwd.wait(lambda: gwd.answers.count("POLL 1 SUCCESS ACTIVE") == 5, "the state is not known")
    assert not [line for line in gwd.answers if line.startswith("SUBMIT 2")]

    new = site.gram.authority.proxy(site.gram.user, "new").proxy
    replace(site.proxy, new.read_bytes())
    assert answer(gwd, 2).startswith("SUCCESS")
    assert end(gwd, 2)[-1] == "DONE:3"
    wait_for(lambda: delegated.read_bytes() != before, "the job's proxy is not renewed")
    gate.touch()
    assert end(gwd, 1)[-1] == "DONE:6"


def test_a_driver_without_a_proxy_waits_for_one(site: Site) -> None:
    content = site.proxy.read_bytes()
    site.proxy.unlink()
    gwd = site.driver()
    site.submit(gwd, 1, shell("exit 1"))
    time.sleep(1)
    replace(site.proxy, content)
    assert end(gwd, 1)[-1] == "DONE:1"


def test_a_user_whom_the_gatekeeper_does_not_know(site: Site) -> None:
    mallory = site.gram.authority.user("mallory")
    stranger = site.gram.authority.proxy(mallory, "stranger").proxy
    replace(site.proxy, stranger.read_bytes())
    gwd = site.driver()
    site.submit(gwd, 1, shell("exit 1"))
    assert answer(gwd, 1).startswith("FAILURE authentication")


# ---------------------------------------------------------------- faults


def test_a_gatekeeper_that_is_down_for_a_while(site: Site) -> None:
    gwd = site.driver()
    gate = site.folder / "gate"
    site.submit(gwd, 1, gated(gate, 5))
    gwd.wait(lambda: "ACTIVE" in gwd.told.get(1, ()), "the job does not run")
    site.gram.stop()
    try:
        site.submit(gwd, 2, shell("exit 2"))
        gate.touch()
        assert end(gwd, 1)[-1] == "DONE:5"
        time.sleep(1)
        assert gwd.open, "SUBMIT was answered though nobody could take the job"
    finally:
        site.gram.start()
    assert end(gwd, 2)[-1] == "DONE:2"


def test_job_managers_that_die(site: Site) -> None:
    gwd = site.driver()
    gate = site.folder / "gate"
    for job in range(4):
        site.submit(gwd, job, gated(gate, job) if job % 2 else shell(f"sleep 1; exit {job}"))
    for job in range(4):
        gwd.wait(lambda job=job: "ACTIVE" in gwd.told.get(job, ()), f"job {job} does not run")  # type: ignore[misc]
    assert site.gram.job_managers()
    site.gram.kill_job_managers()
    gate.touch()
    for job in range(4):
        assert end(gwd, job)[-1] == f"DONE:{job}"


def test_a_job_that_ends_while_no_driver_is_there_is_remembered(site: Site) -> None:
    first = site.driver()
    gate = site.folder / "gate"
    site.submit(first, 1, gated(gate, 9))
    contact = answer(first, 1).split()[1]
    first.wait(lambda: "ACTIVE" in first.told.get(1, ()), "the job does not run")
    first.process.kill()
    first.process.wait()
    gate.touch()
    log = site.gram.folder / "events/log"
    wait_for(lambda: log.read_text().rstrip().endswith(";8;9"), "the job does not end")
    time.sleep(2)

    second = site.driver()
    second.ask(f"RECOVER 1 {contact} -")
    assert answer(second, 1, "RECOVER") == "SUCCESS DONE:9"
    path = job_path(first, 1)
    state = site.gram.state
    wait_for(lambda: not list(state.rglob(f"*{path}*")), "the job manager keeps the job for ever")


def test_a_job_that_nobody_commits_never_runs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a driver leaves it that dies before it has written the contact down."""
    ran = site.folder / "ran"

    async def request(rsl: str, *, is_committed: bool) -> list[int]:
        told: dict[str, list[int]] = {}
        client = GramClient(lambda contact, it: told.setdefault(contact, []).append(it.state))
        await client.load()
        await client.open()
        answer = await client.request(site.gram.contact, rsl.encode())
        assert answer.code == GramError.WAITING_FOR_COMMIT, answer.text
        if is_committed:
            assert not (await client.signal(answer.contact, Signal.COMMIT_REQUEST)).code
        final = {GramState.DONE, GramState.FAILED}
        async with asyncio.timeout(END_TIME):
            while not final & set(told.get(answer.contact, ())):
                await asyncio.sleep(0.05)
        client.close()
        return told[answer.contact]

    for name, value in site.gram.environment.items():
        monkeypatch.setenv(name, value)
    rsl = f'&(executable="/usr/bin/touch")(arguments="{ran}")(two_phase=1)'
    assert asyncio.run(request(rsl, is_committed=False)) == [GramState.FAILED]
    assert not ran.exists()
    assert asyncio.run(request(rsl, is_committed=True))[-1] == GramState.DONE
    assert ran.exists()


def test_strangers_at_the_port_for_changes_of_state(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in site.gram.environment.items():
        monkeypatch.setenv(name, value)

    async def run() -> None:
        told: list[int] = []
        client = GramClient(lambda _contact, it: told.append(it.state))
        await client.load()
        await client.open()
        port = int(client._callback_contact.rpartition(b":")[2].strip(b"/"))
        for data in (b"", b"\0" * 5, b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff" * 99):
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(data)
        with socket.create_connection(("127.0.0.1", port)):  # one that says nothing, and stays
            rsl = b"&(executable=/bin/true)(two_phase=60)"
            answer = await client.request(site.gram.contact, rsl)
            await client.signal(answer.contact, Signal.COMMIT_REQUEST)
            async with asyncio.timeout(END_TIME):
                while GramState.DONE not in told:
                    await asyncio.sleep(0.05)
        assert not (await client.signal(answer.contact, Signal.COMMIT_END)).code
        client.close()

    asyncio.run(run())


def test_a_driver_with_nothing_to_do_sleeps(site: Site) -> None:
    gwd = site.driver()
    site.submit(gwd, 1, shell("sleep 300"))
    gwd.wait(lambda: "ACTIVE" in gwd.told.get(1, ()), "the job does not run")
    time.sleep(2)
    before = switches(gwd.process.pid)
    time.sleep(2)
    # The client library's own loop would wake a thousand times a second where it polls.
    assert switches(gwd.process.pid) - before < 100
    gwd.ask("CANCEL 1 - -")
    assert end(gwd, 1)[-1] == "DONE:143"


def switches(pid: int) -> int:
    """How often the threads of a process went to sleep."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
    return total


# ---------------------------------------------------------------- another scheduler


def test_slurm_behind_a_job_manager(tmp_path: Path, gass: Gass) -> None:
    problem = server.missing()
    if problem:
        skip_without("gram", problem)
    cluster = slurm_server.shared()
    with Gram(tmp_path / "gram", None, server.shared_authority(), cluster) as gram:
        site = Site(tmp_path, gram, gass)
        gwd = site.driver()
        site.submit(gwd, 1, shell("sleep 300") + "(queue=long)", "slurm")
        site.submit(gwd, 2, shell("exit 0") + "(queue=nowhere)", "slurm")
        site.submit(gwd, 3, shell("exit 0") + "(queue=short)", "slurm")
        gwd.wait(lambda: "ACTIVE" in gwd.told.get(1, ()), "the job does not run", END_TIME)
        assert gwd.told[1] == ["ACTIVE"] or gwd.told[1] == ["PENDING", "ACTIVE"]
        number = cluster.run("squeue", "--noheader", "--partition=long", "--format=%i").split()[-1]
        cluster.run("scontrol", "suspend", number)
        gwd.wait(lambda: "SUSPENDED" in gwd.told[1], "it is not told to be suspended", END_TIME)
        cluster.run("scontrol", "resume", number)
        gwd.ask("CANCEL 1 - -")
        assert end(gwd, 1)[-1] == "DONE:143"
        assert end(gwd, 2)[-1] == "FAILED"
        assert end(gwd, 3)[-1] == "DONE"
        site.close()


def replace(path: Path, data: bytes) -> None:
    """Replace a proxy as its tools do."""
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.chmod(0o600)
    part.replace(path)
