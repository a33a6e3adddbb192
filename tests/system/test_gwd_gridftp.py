"""Jobs through a real gwd whose files go by GridFTP, all in one private network."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import gridftp, gwd
from tests.services.gridftp import GridFtp
from tests.services.gwd import GridWay, Mad
from tests.services.network import PrivateNetwork
from tests.services.required import skip_without

TASKS = 20


@pytest.fixture(scope="module")
def network() -> Iterator[PrivateNetwork]:
    with PrivateNetwork() as network:
        yield network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gwd's, whose home is that of the jobs and of the server's users."""
    return tmp_path_factory.mktemp("gridway")


@pytest.fixture(scope="module")
def server(
    network: PrivateNetwork, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GridFtp]:
    gridftp.require()
    server = GridFtp(tmp_path_factory.mktemp("server"), folder / "home", prefix=network.prefix)
    with server:
        yield server


@pytest.fixture(scope="module")
def gridway(network: PrivateNetwork, folder: Path, server: GridFtp) -> Iterator[GridWay]:
    if problem := gwd.problem():
        skip_without("gwd", problem)
    gridway = GridWay(
        folder,
        information=[Mad("im", "gw_im_mad_local", f"--hostname localhost --slots {TASKS}")],
        execution=[Mad("em", "gw_em_mad_fork")],
        transfer=[Mad("tm", "gw_tm_mad_ftp", f"--gridftp-port {server.port} --log-level info")],
        environment=server.environment,
        network=network,
    )
    with gridway:
        gridway.wait_for_host()
        yield gridway


def test_an_array_with_staging_in_and_out(gridway: GridWay, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (jobs / "job.sh").write_text('#!/bin/sh\ncat "$1" >result; cat common; echo "$2" >&2\n')
    for task in range(TASKS):
        (jobs / f"in.{task}").write_bytes(b"%d\n" % task * 1000)
    (tmp_path / "common").write_text("common\n")
    numbers = gridway.submit(
        jobs,
        {
            "EXECUTABLE": "job.sh",
            "ARGUMENTS": "input ${TASK_ID}",
            "INPUT_FILES": f"in.${{TASK_ID}} input, file://{tmp_path}/common common",
            "OUTPUT_FILES": "result out.${TASK_ID}",
            "STDOUT_FILE": "stdout.${TASK_ID}",
            "STDERR_FILE": "stderr.${TASK_ID}",
        },
        TASKS,
    )
    ended = gridway.wait(numbers, 90)
    assert [(job.state, job.exit_code) for job in ended.values()] == [("done", 0)] * TASKS
    for job in ended.values():
        task = job.task_id
        content = (jobs / f"in.{task}").read_bytes()
        assert (jobs / f"out.{task}").read_bytes() == content
        assert (jobs / f"stdout.{task}").read_text() == "common\n"
        assert (jobs / f"stderr.{task}").read_text() == f"{task}\n"
    left = gridway.home.glob(".gw_*_*")
    assert not list(left), "directories of jobs are removed"


def test_a_job_whose_input_is_missing_fails(gridway: GridWay, tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (job,) = gridway.submit(
        tmp_path / "jobs",
        {
            "EXECUTABLE": "/bin/true",
            "INPUT_FILES": "none",
            "NUMBER_OF_RETRIES": "1",
            "RESCHEDULE_ON_FAILURE": "no",
        },
    )
    assert gridway.wait([job], 90)[job].state == "fail"


def test_a_driver_that_dies(gridway: GridWay, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (jobs / "job.sh").write_text("#!/bin/sh\nsleep 2; cat input\n")
    (jobs / "input").write_text("input\n")
    numbers = gridway.submit(
        jobs,
        {"EXECUTABLE": "job.sh", "INPUT_FILES": "input", "STDOUT_FILE": "out.${TASK_ID}"},
        5,
    )
    gridway.wait_for_state(numbers[0], "wrap/actv")
    gridway.kill_driver("tm")
    ended = gridway.wait(numbers, 90)
    assert [(job.state, job.exit_code) for job in ended.values()] == [("done", 0)] * 5
    for task in range(5):
        assert (jobs / f"out.{task}").read_text() == "input\n"
