"""Jobs through a real gwd and our drivers on this machine.

One gwd serves the whole module.  It knows this machine under five names, each published by
another information driver or served through another dialect of job descriptions.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.services import glue, gwd
from tests.services.gwd import GridWay, Host, Mad, wait_for
from tests.services.network import PrivateNetwork
from tests.services.required import skip_without
from tests.services.slapd import Slapd, missing

SLOTS = 30
LOCAL, RSL, NO_WRAPPER, STATIC, GRID = "one", "two", "three", "four", "localhost"
"""The names of this machine."""

STATIC_ATTRIBUTES = """\
HOSTNAME="four" ARCH="riscv64" OS_NAME="Linux" OS_VERSION="6" CPU_MODEL="made up" CPU_MHZ=1
CPU_FREE=100 CPU_SMP=1 NODECOUNT=1 SIZE_MEM_MB=1 FREE_MEM_MB=1 SIZE_DISK_MB=1 FREE_DISK_MB=1
FORK_NAME="jobmanager-fork" LRMS_NAME="jobmanager-fork" LRMS_TYPE="fork"
QUEUE_NAME[0]="q" QUEUE_NODECOUNT[0]=1 QUEUE_FREENODECOUNT[0]=1 QUEUE_MAXTIME[0]=0
QUEUE_MAXCPUTIME[0]=0 QUEUE_MAXCOUNT[0]=0 QUEUE_MAXRUNNINGJOBS[0]=1 QUEUE_MAXJOBSINQUEUE[0]=1
QUEUE_STATUS[0]="enabled" QUEUE_DISPATCHTYPE[0]="batch" QUEUE_PRIORITY[0]="1"
"""


@pytest.fixture(scope="module")
def network() -> Iterator[PrivateNetwork]:
    """The network that gwd and slapd share."""
    with PrivateNetwork() as network:
        yield network


@pytest.fixture(scope="module")
def directory(
    network: PrivateNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Slapd | None]:
    """A BDII in that network, which publishes this machine as a compute element; None where
    slapd is not installed.
    """
    if missing():
        yield None
        return
    identity = f"{GRID}:2119/jobmanager-fork-short"
    element = glue.ce(
        identity,
        GRID,
        GlueCEName="short",
        GlueCEInfoHostName=GRID,
        GlueCEInfoLRMSType="fork",
        GlueCEInfoTotalCPUs=SLOTS,
        GlueCEStateFreeCPUs=SLOTS,
        GlueCEStateFreeJobSlots=SLOTS,
        GlueCEStateStatus="Production",
        GlueCEPolicyAssignedJobSlots=SLOTS,
        GlueCEPolicyMaxRunningJobs=SLOTS,
        GlueCEPolicyMaxTotalJobs=SLOTS,
        GlueCEPolicyPriority="1",
    )
    server = Slapd(
        tmp_path_factory.mktemp("slapd"), glue.ldif([element, glue.cluster(GRID, [identity])])
    )
    settings = ["-f", str(server.folder / "slapd.conf"), "-h", f"ldap://{server.server}"]
    process = subprocess.Popen(
        [*network.prefix, "/usr/sbin/slapd", "-d", "0", *settings], stderr=subprocess.DEVNULL
    )
    yield server
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def gridway(
    network: PrivateNetwork, directory: Slapd | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GridWay]:
    """A gwd that runs our drivers and knows all hosts."""
    if problem := gwd.problem():
        skip_without("gwd", problem)
    names = {LOCAL, RSL, NO_WRAPPER, STATIC} | ({GRID} if directory else set())
    bdii = [Mad("im5", "gw_im_mad_bdii", f"-s {directory.server}")] if directory else []
    gridway = GridWay(
        tmp_path_factory.mktemp("gridway"),
        information=[
            Mad("im", "gw_im_mad_local", f"--hostname {LOCAL} --slots {SLOTS}"),
            Mad("im2", "gw_im_mad_local", f"--hostname {RSL} --slots 2", execution="rsl"),
            Mad("im3", "gw_im_mad_local", f"--hostname {NO_WRAPPER} --slots 2", execution="bare"),
            Mad("im4", "gw_im_mad_static", "-l etc/hosts"),
            *bdii,
        ],
        execution=[
            Mad("em", "gw_em_mad_fork", "--grace 1", mode="rsl2_wrapper"),
            Mad("rsl", "gw_em_mad_fork", mode="rsl"),
            Mad("bare", "gw_em_mad_fork", mode="rsl2_nowrapper"),
        ],
        transfer=[Mad("tm", "gw_tm_mad_local", " ".join(f"--host {name}" for name in names))],
        files={"etc/hosts": f"{STATIC} etc/four.attributes\n"}
        | {"etc/four.attributes": STATIC_ATTRIBUTES.replace("\n", " ")},
        network=network,
    )
    with gridway:

        def are_known() -> bool:
            return {host.name for host in gridway.hosts() if host.queues} == names

        wait_for(are_known, 30, f"the hosts {names}", lambda: str(gridway.hosts()))
        yield gridway


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test's job lives."""
    return tmp_path


def host(gridway: GridWay, name: str) -> Host:
    if name == GRID and (problem := missing()):
        skip_without("slapd", problem)
    (found,) = [host for host in gridway.hosts() if host.name == name]
    return found


def template(host: str = LOCAL, **more: str) -> dict[str, str]:
    return {
        "EXECUTABLE": "job.sh",
        "STDOUT_FILE": "out.${TASK_ID}",
        "STDERR_FILE": "err.${TASK_ID}",
        "REQUIREMENTS": f'HOSTNAME = "{host}"',
        **more,
    }


def write_job(folder: Path, *lines: str, host: str = LOCAL) -> None:
    # This gwd fetches the wrapper's output also from jobs that have no wrapper.
    no_wrapper = "trap 'echo EXIT_STATUS=$? >stdout.wrapper; >stderr.wrapper' EXIT"
    first = [no_wrapper] if host == NO_WRAPPER else []
    (folder / "job.sh").write_text("\n".join(["#!/bin/sh", *first, *lines, ""]))


def assert_nothing_is_left(gridway: GridWay, job_id: int) -> None:
    """Neither a process of the job nor its working folder."""
    assert gridway.processes(job_id) == []
    assert list(gridway.home.glob(f".gw_*_{job_id}")) == []


# ---------------------------------------------------------------- hosts


def test_this_machine_is_known_with_its_true_figures(gridway: GridWay) -> None:
    fields = host(gridway, LOCAL).fields
    memory = psutil.virtual_memory()
    assert int(fields["SIZE_MEM_MB"]) == memory.total >> 20
    assert 0 < int(fields["FREE_MEM_MB"]) <= int(fields["SIZE_MEM_MB"])
    assert 0 <= int(fields["CPU_FREE"]) <= 100 * (psutil.cpu_count() or 1)
    assert 0 < int(fields["FREE_DISK_MB"]) <= int(fields["SIZE_DISK_MB"])
    assert fields["ARCH"] == subprocess.check_output(["uname", "-m"], text=True).strip()
    (queue,) = host(gridway, LOCAL).queues
    assert queue["QUEUE_NODECOUNT"] == str(SLOTS)
    assert queue["QUEUE_STATUS"] == "enabled"


def test_hosts_of_files_and_of_the_directory_are_known_as_published(gridway: GridWay) -> None:
    static = host(gridway, STATIC)
    assert (static.fields["ARCH"], static.queues[0]["QUEUE_NAME"]) == ("riscv64", "q")
    grid = host(gridway, GRID)
    assert (grid.fields["LRMS_NAME"], grid.fields["LRMS_TYPE"]) == ("jobmanager-fork", "fork")
    (queue,) = grid.queues
    assert (queue["QUEUE_NAME"], queue["QUEUE_STATUS"]) == ("short", "Production")


# ---------------------------------------------------------------- jobs


def test_an_array_brings_its_outputs_back(gridway: GridWay, folder: Path) -> None:
    tasks = 20
    write_job(folder, 'tr a-z A-Z <"words.$1" >"shout.$1"', 'echo "task $1"', "cat >&2")
    for task in range(tasks):
        (folder / f"words.{task}").write_text(f"words of task {task}\n" * 1000)
    (folder / "stdin").write_text("on stdin\n")
    jobs = gridway.submit(
        folder,
        template(
            ARGUMENTS="${TASK_ID}",
            STDIN_FILE="stdin",
            INPUT_FILES="words.${TASK_ID}",
            OUTPUT_FILES="shout.${TASK_ID}",
        ),
        tasks,
    )
    ended = gridway.wait(jobs)
    assert [(job.state, job.exit_code) for job in ended.values()] == [("done", 0)] * tasks
    assert [job.task_id for job in ended.values()] == list(range(tasks))
    for task in range(tasks):
        assert (folder / f"out.{task}").read_text() == f"task {task}\n"
        assert (folder / f"err.{task}").read_text() == "on stdin\n"
        assert (folder / f"shout.{task}").read_text() == f"WORDS OF TASK {task}\n" * 1000
    for job in jobs:
        assert_nothing_is_left(gridway, job)


@pytest.mark.parametrize("name", [LOCAL, RSL, NO_WRAPPER, STATIC, GRID])
def test_the_exit_code_of_a_job_arrives(gridway: GridWay, folder: Path, name: str) -> None:
    """With each dialect of descriptions, and on hosts of each information driver."""
    assert host(gridway, name).queues
    write_job(folder, 'echo "$GW_HOSTNAME $1"', "exit 7", host=name)
    (job,) = gridway.submit(folder, template(name, ARGUMENTS="argument"))
    ended = gridway.wait([job])[job]
    assert (ended.state, ended.exit_code) == ("done", 7)
    assert ended.host == f"{name}/jobmanager-fork"
    assert (folder / "out.0").read_text() == f"{name} argument\n"
    assert_nothing_is_left(gridway, job)


def test_the_pre_wrapper_runs_before_the_job(gridway: GridWay, folder: Path) -> None:
    """Both are submitted under one id, with one file name for two descriptions."""
    trace = folder / "trace"
    (folder / "before.sh").write_text(f"#!/bin/sh\necho before $1 >>{trace}\n")
    write_job(folder, f"echo job >>{trace}")
    (job,) = gridway.submit(
        folder,
        template(PRE_WRAPPER="before.sh", PRE_WRAPPER_ARGUMENTS="x"),
    )
    assert gridway.wait([job])[job].exit_code == 0
    assert trace.read_text() == "before x\njob\n"


def test_a_cancelled_job_ends_with_all_its_processes(gridway: GridWay, folder: Path) -> None:
    write_job(folder, "trap : TERM", "sleep 1000 &", "(trap '' TERM; sleep 1000) &", "wait; wait")
    (job,) = gridway.submit(folder, template())
    gridway.wait_for_state(job, "wrap/actv")
    wait_for(lambda: len(gridway.processes(job)) >= 4, 10, "the job's processes")
    gridway.command("gwkill", str(job))
    assert job not in gridway.jobs()
    assert_nothing_is_left(gridway, job)


def test_a_file_that_cannot_be_staged_fails_the_job(gridway: GridWay, folder: Path) -> None:
    write_job(folder, "echo never")
    (job,) = gridway.submit(
        folder,
        template(INPUT_FILES="absent", NUMBER_OF_RETRIES="1", RESCHEDULE_ON_FAILURE="no"),
    )
    ended = gridway.wait([job])[job]
    assert ended.state == "fail"
    assert "Copy of file absent failed" in gridway.job_log(job)
    assert not (folder / "out.0").exists()
    assert_nothing_is_left(gridway, job)


# ---------------------------------------------------------------- drivers that die


@pytest.mark.parametrize(("name", "em"), [(LOCAL, "em"), (NO_WRAPPER, "bare")])
def test_a_job_outlives_its_execution_driver(
    gridway: GridWay, folder: Path, name: str, em: str
) -> None:
    """It runs once, and its true exit code arrives through the driver's next life."""
    trace = folder / "trace"
    lines = (f"echo begin >>{trace}", "sleep 4", f"echo end >>{trace}", "exit 3")
    write_job(folder, *lines, host=name)
    (job,) = gridway.submit(folder, template(name))
    gridway.wait_for_state(job, "wrap/actv")
    gridway.kill_driver(em)
    assert trace.read_text() == "begin\n"
    ended = gridway.wait([job])[job]
    assert (ended.state, ended.exit_code) == ("done", 3)
    assert trace.read_text() == "begin\nend\n"
    assert f"MAD ({em}) successfully reloaded" in gridway.log()
    assert_nothing_is_left(gridway, job)


def test_a_job_is_cancelled_after_its_driver_was_replaced(gridway: GridWay, folder: Path) -> None:
    write_job(folder, "sleep 1000")
    (job,) = gridway.submit(folder, template())
    gridway.wait_for_state(job, "wrap/actv")
    gridway.kill_driver("em")
    gridway.command("gwkill", str(job))
    wait_for(lambda: not gridway.processes(job), 30, "the job's processes to end")
    assert_nothing_is_left(gridway, job)


def test_a_job_is_cancelled_while_its_driver_is_replaced(gridway: GridWay, folder: Path) -> None:
    """A job that is being cancelled is not recovered, but gwd asks for it."""
    write_job(folder, "sleep 1000")
    (job,) = gridway.submit(folder, template())
    gridway.wait_for_state(job, "wrap/actv")
    gridway.kill_driver("em", is_awaited=False)
    gridway.command("gwkill", "-a", str(job))
    wait_for(lambda: not gridway.processes(job), 30, "the job's processes to end")


def test_files_arrive_whole_though_the_transfer_driver_dies(gridway: GridWay, folder: Path) -> None:
    content = b"0123456789abcdef" * (1 << 20)
    (folder / "in").write_bytes(content)
    write_job(folder, "sleep 4", "mv in back.$1")
    jobs = gridway.submit(
        folder,
        template(ARGUMENTS="${TASK_ID}", INPUT_FILES="in", OUTPUT_FILES="back.${TASK_ID}"),
        10,
    )
    gridway.wait_for_state(jobs[0], "prol", "wrap")
    gridway.kill_driver("tm")
    ended = gridway.wait(jobs)
    assert [job.exit_code for job in ended.values()] == [0] * 10
    for task in range(10):
        assert (folder / f"back.{task}").read_bytes() == content


def test_outputs_arrive_of_jobs_that_end_while_the_transfer_driver_is_replaced(
    gridway: GridWay, folder: Path
) -> None:
    """Of those that end between the new driver's start and its INIT gwd begins the epilog twice.

    They end all along the second and more that it takes.
    """
    tasks = SLOTS
    write_job(folder, 'sleep "$(($1 / 10)).$(($1 % 10))"', "cat input")
    (folder / "input").write_text("input\n")
    jobs = gridway.submit(folder, template(ARGUMENTS="${TASK_ID}", INPUT_FILES="input"), tasks)
    gridway.wait_for_state(jobs[-1], "wrap/actv")
    gridway.kill_driver("tm")
    ended = gridway.wait(jobs)
    assert [(job.state, job.exit_code) for job in ended.values()] == [("done", 0)] * tasks
    for task in range(tasks):
        assert (folder / f"out.{task}").read_text() == "input\n", gridway.job_log(jobs[task])


def test_hosts_are_known_again_after_the_information_driver_died(
    gridway: GridWay, folder: Path
) -> None:
    gridway.kill_driver("im")
    write_job(folder, "true")
    (job,) = gridway.submit(folder, template())
    assert gridway.wait([job])[job].exit_code == 0
    assert int(host(gridway, LOCAL).fields["FREE_MEM_MB"]) > 0
