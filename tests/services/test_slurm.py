"""gw_em_mad_slurm on a real Slurm."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance.drivers import Site, Subject
from tests.conformance.gwd import Player
from tests.services import slurm, slurm_accounting
from tests.services.required import skip_without
from tests.services.slurm import SlurmCluster, running

UNSHARED = "--state /proc/self/cwd/state"
"""A folder of the driver that no job finds."""
FAST = "--interval 0.3 --settle 0.3"
TOOLS = ("sbatch", "squeue", "scancel", "sacct")


@contextmanager
def site_of(cluster: SlurmCluster, folder: Path) -> Iterator[Site]:
    with Subject("gw_em_mad_slurm").site(folder) as site:
        lines = (f"{name}={value}\n" for name, value in cluster.environment.items())
        site.write("etc/gwrc", "".join(lines))
        site.arguments = FAST
        yield site
        cluster.run("scancel", f"--user={os.getuid()}")


@pytest.fixture
def site(slurm: SlurmCluster, tmp_path: Path) -> Iterator[Site]:
    with site_of(slurm, tmp_path) as site:
        yield site


@pytest.fixture
def own_site(own_slurm: SlurmCluster, tmp_path: Path) -> Iterator[Site]:
    with site_of(own_slurm, tmp_path) as site:
        yield site


@pytest.fixture(scope="module")
def accounted_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster with slurmdbd, which alone knows how jobs ended that squeue has forgotten."""
    slurm.skip_if_missing()
    if problem := slurm_accounting.missing():
        skip_without("slurmdbd", problem)
    folder = tmp_path_factory.mktemp("slurm")
    with running(SlurmCluster(folder, min_job_age=2, has_accounting=True)) as cluster:
        yield cluster


@pytest.fixture
def accounted_site(accounted_slurm: SlurmCluster, tmp_path: Path) -> Iterator[Site]:
    with site_of(accounted_slurm, tmp_path) as site:
        yield site


@pytest.fixture(params=["own_slurm", "accounted_slurm"])
def forgetful_slurm(request: pytest.FixtureRequest) -> SlurmCluster:
    """A cluster that soon forgets jobs: by its log of completed ones, or by slurmdbd, they are
    known all the same.
    """
    cluster: SlurmCluster = request.getfixturevalue(request.param)
    return cluster


@pytest.fixture
def forgetful_site(forgetful_slurm: SlurmCluster, tmp_path: Path) -> Iterator[Site]:
    with site_of(forgetful_slurm, tmp_path) as site:
        yield site


def request(site: Site, job: int, text: str, elements: str = "") -> str:
    """A SUBMIT of a shell script, with more elements for its description."""
    path = site.script(str(job), text)
    count = "" if "<count>" in elements else "<count>1</count>"
    path.write_text(path.read_text().replace("<count>1</count>", f"{count}{elements}"))
    return f"SUBMIT {job} localhost/jobmanager-slurm {path}"


def wait_for_state(gwd: Player, job: int, state: str, seconds: float = 30) -> None:
    gwd.wait(lambda: gwd.last_state(job) == state, f"job {job} is not {state}", seconds)


def wait_for_ends(gwd: Player, jobs: Mapping[int, str], seconds: float = 60) -> None:
    """The states that jobs are to end with."""
    gwd.wait(lambda: all(map(gwd.has_ended, jobs)), "jobs do not end", seconds)
    assert {job: gwd.last_state(job) for job in jobs} == jobs


def number(gwd: Player, job: int) -> str:
    """Slurm's number of a job."""
    return gwd.contacts[job].split("/")[3]


def shown(cluster: SlurmCluster, job: str, form: str) -> str:
    """What squeue says of a job."""
    words = ("squeue", "--noheader", "--array", "--states=all", f"--format={form}")
    return cluster.run(*words, f"--jobs={job}").strip()


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


def is_empty(cluster: SlurmCluster) -> bool:
    """It has forgotten all jobs, as it does some time after their ends (MinJobAge)."""
    return cluster.run("squeue", "--noheader", "--states=all") == ""


# ---------------------------------------------------------------- states


@pytest.mark.parametrize("state", ["", UNSHARED], ids=["status files", "none"])
def test_exit_codes(site: Site, state: str) -> None:
    texts = {
        0: ("exit 0", "DONE:0"),
        1: ("exit 7", "DONE:7"),
        2: ("kill -9 $$", "DONE:137"),
        3: ("kill -9 $PPID", "DONE:137"),  # the batch script: Slurm alone knows
        4: ("kill -15 $PPID; sleep 1", "DONE:143"),
        5: ("exit 255", "DONE:255"),
    }
    site.arguments = f"{FAST} {state}"
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(*(request(site, job, text) for job, (text, _) in texts.items()))
        wait_for_ends(gwd, {job: end for job, (_, end) in texts.items()})
        has_files = any((site.home / ".local").rglob("*/jobs/*"))
        assert has_files == (state == "")


def test_pending_active_suspended_and_back(site: Site, slurm: SlurmCluster) -> None:
    gate = site.folder / "gate"
    wait = f"while ! [ -e {gate} ]; do sleep 0.1; done"
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(request(site, 1, wait, "<count>100</count>"))
        wait_for_state(gwd, 1, "ACTIVE")
        job = number(gwd, 1)
        slurm.run("scontrol", "suspend", job)
        wait_for_state(gwd, 1, "SUSPENDED")
        slurm.run("scontrol", "resume", job)
        wait_for_state(gwd, 1, "ACTIVE")
        # Not before: Slurm gives the processors of a suspended job to one that waits.
        gwd.ask_and_wait(request(site, 2, wait, "<count>100</count>"))
        assert gwd.ask_and_wait("POLL 2 - -") == ["POLL 2 SUCCESS PENDING"]
        assert shown(slurm, number(gwd, 2), "%T") == "PENDING"
        gate.touch()
        wait_for_ends(gwd, {1: "DONE:0", 2: "DONE:0"})
        assert gwd.told[1] == ["ACTIVE", "SUSPENDED", "ACTIVE", "DONE:0"]


def test_a_job_that_is_held_and_released(site: Site, slurm: SlurmCluster) -> None:
    site.arguments = f"{FAST} --native=--hold"
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(request(site, 1, "exit 3"))
        gwd.ask_and_wait("POLL 1 - -")
        assert shown(slurm, number(gwd, 1), "%T %r") == "PENDING JobHeldUser"
        assert gwd.last_state(1) == "PENDING"
        slurm.run("scontrol", "release", number(gwd, 1))
        wait_for_ends(gwd, {1: "DONE:3"})


@pytest.mark.parametrize("state", ["", UNSHARED], ids=["status files", "none"])
def test_waiting_and_running_jobs_are_cancelled(
    site: Site, slurm: SlurmCluster, state: str
) -> None:
    site.arguments = f"{FAST} {state}"
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(
            request(site, 1, "sleep 300", "<count>100</count>"), request(site, 3, "exit 4")
        )
        wait_for_ends(gwd, {3: "DONE:4"})
        gwd.ask_and_wait(request(site, 2, "sleep 300", "<count>100</count>"))
        wait_for_state(gwd, 1, "ACTIVE")
        gwd.ask_and_wait("CANCEL 1 - -", "CANCEL 2 - -", "CANCEL 3 - -")
        wait_for_ends(gwd, {1: "DONE:143", 2: "DONE:143"})
        assert shown(slurm, number(gwd, 1), "%T") == "CANCELLED"


@pytest.mark.parametrize("state", ["", UNSHARED], ids=["status files", "none"])
def test_others_cancel_jobs(site: Site, slurm: SlurmCluster, state: str) -> None:
    """A task that has not begun leaves nothing behind when it is cancelled."""
    site.arguments = f"{FAST} {state}"
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(request(site, 1, "sleep 300"))
        wait_for_state(gwd, 1, "ACTIVE")
        large = "<count>128</count>"
        gwd.ask_and_wait(*(request(site, job, "exit 0", large) for job in (2, 3, 4)))
        gwd.ask_and_wait(request(site, 5, "exit 0", large))
        for job in 1, 2, 3, 5:
            slurm.run("scancel", number(gwd, job))
        wait_for_ends(gwd, dict.fromkeys((1, 2, 3, 5), "DONE:143") | {4: "DONE:0"})


def test_a_job_that_takes_too_long(site: Site, slurm: SlurmCluster) -> None:
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(request(site, 1, "sleep 300"))
        wait_for_state(gwd, 1, "ACTIVE")
        slurm.run("scontrol", "update", f"JobId={number(gwd, 1)}", "TimeLimit=0")
        wait_for_ends(gwd, {1: "DONE:143"}, 90)
        assert shown(slurm, number(gwd, 1), "%T") == "TIMEOUT"


def test_a_job_that_slurm_has_forgotten(
    forgetful_site: Site, forgetful_slurm: SlurmCluster
) -> None:
    gate = forgetful_site.folder / "gate"
    wait = f"while ! [ -e {gate} ]; do sleep 0.1; done"
    ends = {0: "DONE:0", 1: "DONE:7", 2: "DONE:137"}
    texts = ("exit 0", "exit 7", "kill -9 $PPID")
    forgetful_site.arguments = f"{FAST} {UNSHARED}"
    with forgetful_site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(
            *(request(forgetful_site, job, f"{wait}; {text}") for job, text in enumerate(texts))
        )
        for job in ends:
            wait_for_state(gwd, job, "ACTIVE")
        gwd.process.send_signal(signal.SIGSTOP)
        gate.touch()
        wait_until(lambda: is_empty(forgetful_slurm))
        gwd.process.send_signal(signal.SIGCONT)
        wait_for_ends(gwd, ends)


def test_a_job_that_ended_and_was_forgotten_while_nobody_lived_is_not_run_again(
    forgetful_site: Site, forgetful_slurm: SlurmCluster
) -> None:
    """As gwd never heard of it, it orders the job again."""
    runs = forgetful_site.folder / "runs"
    slow = forgetful_site.write(
        "slow/sbatch", '#!/bin/sh\n/usr/bin/sbatch "$@" >/dev/null; sleep 60\n'
    )
    slow.chmod(0o755)
    order = request(forgetful_site, 1, f"echo run >>{runs}; exit 6")
    path = f"{slow.parent}:{os.environ['PATH']}"
    with forgetful_site.play(environment={**forgetful_site.environment, "PATH": path}) as first:
        first.initialise()
        first.ask(order)
        wait_until(runs.exists)
        first.process.kill()
        first.open.clear()
    wait_until(lambda: is_empty(forgetful_slurm))
    with forgetful_site.play() as second:
        second.initialise()
        second.ask_and_wait(order)
        wait_for_ends(second, {1: "DONE:6"})
    assert runs.read_text() == "run\n"


def test_slurmdbd_dies_and_comes_back(accounted_site: Site, accounted_slurm: SlurmCluster) -> None:
    """What nobody can tell has not happened yet."""
    assert accounted_slurm.accounting is not None
    gate, log = accounted_site.folder / "gate", accounted_site.folder / "log"
    accounted_site.arguments = f"{FAST} {UNSHARED} --log-file {log}"
    with accounted_site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(
            request(accounted_site, 1, f"while ! [ -e {gate} ]; do sleep 0.1; done; exit 7")
        )
        wait_for_state(gwd, 1, "ACTIVE")
        states = ("sacct", "--allocations", "--noheader", "--format=State")
        wait_until(lambda: "RUNNING" in accounted_slurm.run(*states))
        gwd.process.send_signal(signal.SIGSTOP)
        accounted_slurm.accounting.stop_daemon()
        gate.touch()
        wait_until(lambda: is_empty(accounted_slurm))
        gwd.process.send_signal(signal.SIGCONT)
        wait_until(lambda: "ended jobs are taken for ACTIVE" in log.read_text())
        assert gwd.ask_and_wait("POLL 1 - -") == ["POLL 1 SUCCESS ACTIVE"]
        accounted_slurm.accounting.start_daemon()
        wait_for_ends(gwd, {1: "DONE:7"})


# ---------------------------------------------------------------- what a job asks for


def test_what_slurm_refuses_is_told_in_its_words(site: Site) -> None:
    with site.play() as gwd:
        gwd.initialise()
        answers = gwd.ask_and_wait(
            request(site, 1, "exit 0", "<queue>nowhere</queue>"),
            request(site, 2, "exit 0", "<maxMemory>99999999</maxMemory>"),
            request(site, 3, "exit 5"),
        )
        by_job = {line.split()[1]: line for line in answers}
        assert by_job["1"].startswith("SUBMIT 1 FAILURE sbatch: ")
        assert "invalid partition specified: nowhere" in by_job["1"]
        assert by_job["2"].startswith("SUBMIT 2 FAILURE sbatch: ")
        assert by_job["3"].startswith("SUBMIT 3 SUCCESS ")
        wait_for_ends(gwd, {3: "DONE:5"})


def test_queue_count_and_limits(site: Site, slurm: SlurmCluster) -> None:
    wants = (
        "<queue>long</queue><count>3</count><maxWallTime>17</maxWallTime><maxMemory>50</maxMemory>"
    )
    site.arguments = f"{FAST} --partition short --native=--comment=ours"
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(request(site, 1, "sleep 1", wants), request(site, 2, "exit 0"))
        form = "%P %C %l %m %k"
        assert shown(slurm, number(gwd, 1), form) == "long 3 17:00 50M ours"
        assert shown(slurm, number(gwd, 2), form) == "short 1 1:00:00 10M ours"
        wait_for_ends(gwd, {1: "DONE:0", 2: "DONE:0"})


def test_a_multiple_job_is_started_as_often_as_it_says(site: Site) -> None:
    seen = site.folder / "seen"
    multiple = "<count>3</count><jobType>multiple</jobType>"
    single = "<count>3</count><jobType>single</jobType>"
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(
            request(site, 1, f"echo $SLURM_PROCID >>{seen}; exit 2", multiple),
            request(site, 2, f"echo single >>{seen}", single),
        )
        wait_for_ends(gwd, {1: "DONE:2", 2: "DONE:0"})
    assert sorted(seen.read_text().split()) == ["0", "1", "2", "single"]


WORDS = [b"it's", b'"', b"two\nlines", b" blanks  ", "Grüße €".encode(), b"\xff\xfe", b"$HOME `id`",
         b"back\\slash\\", b"", b"-n", b"%s%%", b"*"]  # fmt: skip


def test_words_arrive_as_they_are(site: Site) -> None:
    program = site.write("libexec/program", '#!/bin/sh\nprintf \'%s\\0\' "$VALUE" "$@"; cat; pwd\n')
    program.chmod(0o755)
    folder = site.home / "a folder's"
    folder.mkdir()
    (folder / "input").write_bytes(b"what was given\n")
    arguments = b"".join(b"<argument>%s</argument>" % word for word in WORDS)
    value = b"'\"\n \xff\xc3\xbc $x"
    description = site.location / "var/job.rsl"
    description.parent.mkdir(exist_ok=True)
    description.write_bytes(
        b"<job><executable>%s</executable>%s<directory>%s</directory><stdin>input</stdin>"
        b"<stdout>out put</stdout><stderr>%s/errors</stderr>"
        b"<environment><name>VALUE</name><value>%s</value></environment></job>"
        % (bytes(program), arguments, bytes(folder), bytes(site.folder), value)
    )
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(f"SUBMIT 1 localhost {description}")
        wait_for_ends(gwd, {1: "DONE:0"})
    *words, rest = (folder / "out put").read_bytes().split(b"\0")
    assert words == [value, *WORDS]
    assert rest == b"what was given\n%s\n" % bytes(folder)
    assert (site.folder / "errors").read_bytes() == b""


def test_jobs_whose_scripts_are_too_large_for_one_array(site: Site) -> None:
    count = 120
    large = "".join(f"<argument>{'x' * 1000}</argument>" for _ in range(50))
    seen = site.folder / "seen"
    seen.mkdir()
    with site.play() as gwd:
        gwd.initialise()
        answers = gwd.ask_and_wait(
            *(request(site, job, f"echo $# >{seen}/{job}", large) for job in range(count))
        )
        assert all(" SUCCESS " in answer for answer in answers), answers[0]
        wait_for_ends(gwd, dict.fromkeys(range(count), "DONE:0"))
    assert {(seen / f"{job}").read_text() for job in range(count)} == {"50\n"}


# ---------------------------------------------------------------- faults


def test_slurmctld_dies_and_comes_back(own_site: Site, own_slurm: SlurmCluster) -> None:
    runs, gate = own_site.folder / "runs", own_site.folder / "gate"
    runs.mkdir()
    wait = f"while ! [ -e {gate} ]; do sleep 0.1; done"
    count = 10

    def order(job: int) -> str:
        return request(own_site, job, f"echo run >>{runs}/{job}; {wait}; exit {job}")

    with own_site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(*map(order, range(count)))
        for job in range(count):
            wait_for_state(gwd, job, "ACTIVE")
        _wait_for_saved_state(own_slurm)
        own_slurm.stop_controller()
        gwd.ask(*map(order, range(count, 2 * count)))
        gate.touch()
        time.sleep(1)
        own_slurm.start_controller()
        wait_for_ends(gwd, {job: f"DONE:{job}" for job in range(2 * count)})
        gwd.settle()
        assert not [line for line in gwd.answers if " FAILURE " in line]
    assert [(runs / f"{job}").read_text() for job in range(2 * count)] == ["run\n"] * 2 * count


def test_slurmctld_stands_still_while_a_job_is_submitted(
    own_site: Site, own_slurm: SlurmCluster
) -> None:
    """What it reads when it goes on is a job of which sbatch heard nothing."""
    runs = own_site.folder / "runs"
    assert own_slurm.controller is not None
    with own_site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(request(own_site, 1, "exit 0"))
        wait_for_ends(gwd, {1: "DONE:0"})
        os.kill(own_slurm.controller.pid, signal.SIGSTOP)
        gwd.ask(request(own_site, 2, f"echo run >>{runs}; exit 9"))
        time.sleep(6)  # MessageTimeout is 5
        os.kill(own_slurm.controller.pid, signal.SIGCONT)
        wait_for_ends(gwd, {2: "DONE:9"})
        gwd.settle()
        assert not [line for line in gwd.answers if " FAILURE " in line]
    assert runs.read_text() == "run\n"


def _wait_for_saved_state(cluster: SlurmCluster) -> None:
    """Until slurmctld has written down what it was told: a crash must not be its own loss."""
    now = time.time()
    cluster.run("scontrol", "reconfigure")
    wait_until(lambda: (cluster.folder / "state/job_state").stat().st_mtime >= now)


def counted_tools(folder: Path) -> tuple[str, Path]:
    """A PATH on which each of Slurm's tools first notes that it was called, and the notes."""
    bin_, notes = folder / "counted", folder / "calls"
    bin_.mkdir()
    notes.touch()
    for tool in TOOLS:
        path = bin_ / tool
        path.write_text(f'#!/bin/sh\necho {tool} >>{notes}\nexec /usr/bin/{tool} "$@"\n')
        path.chmod(0o755)
    return f"{bin_}:{os.environ['PATH']}", notes


def test_a_thousand_jobs_of_which_half_are_cancelled(site: Site) -> None:
    """The driver is killed amidst them."""
    count, interval = 1000, 2.0
    runs = site.folder / "runs"
    runs.mkdir()
    path, notes = counted_tools(site.folder)
    environment = {**site.environment, "PATH": path}
    site.arguments = f"--interval {interval:g} --settle 0.3 --submit-rate 10000"
    cancelled = range(0, count, 2)
    # The first half is to be cancelled, and holds up the others till then.
    orders = [
        request(
            site,
            job,
            f"echo run >>{runs}/{job}; " + (f"exit {job % 7}" if job % 2 else "sleep 300"),
        )
        for job in [*cancelled, *range(1, count, 2)]
    ]
    with site.play(environment=environment) as first:
        first.initialise(count)
        first.ask_and_wait(*orders, seconds=60)
        assert len(first.contacts) == count
        assert Counter(notes.read_text().split())["sbatch"] <= 2 * count / 200
        first.ask_and_wait(*(f"CANCEL {job} - -" for job in cancelled[: len(cancelled) // 2]))
        first.process.kill()
    ends = {job: "DONE:143" if job % 2 == 0 else f"DONE:{job % 7}" for job in range(count)}
    notes.write_text("")
    with site.play(environment=environment) as second:
        second.initialise(count)
        start = time.monotonic()
        known = [job for job in range(count) if not first.has_ended(job)]
        recoveries = [f"RECOVER {job} {first.contacts[job]} -" for job in known]
        second.ask_and_wait(*recoveries)
        assert Counter(notes.read_text().split())["squeue"] <= 4  # some are for cancellations
        second.ask_and_wait(*(f"CANCEL {job} - -" for job in cancelled if job in known))
        second.wait(lambda: all(map(second.has_ended, known)), "jobs do not end", 90)
        asked = Counter(notes.read_text().split())
        lasted = time.monotonic() - start
    told = {
        job: (first if first.has_ended(job) else second).last_state(job) for job in range(count)
    }
    assert told == ends
    for job in range(1, count, 2):
        assert (runs / f"{job}").read_text() == "run\n"
    assert max(Counter(path.read_text() for path in runs.iterdir())) == "run\n"
    # Each round of cancellations makes sure of the jobs' names.
    assert asked["squeue"] <= lasted / interval + 3 + asked["scancel"]
