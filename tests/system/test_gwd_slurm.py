"""Jobs through a real gwd and gw_em_mad_slurm on a real Slurm, both in one private network."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import gwd, slurm
from tests.services.gwd import GridWay, Mad
from tests.services.network import PrivateNetwork
from tests.services.required import skip_without
from tests.services.slurm import SlurmCluster

TASKS = 200


@pytest.fixture(scope="module")
def network() -> Iterator[PrivateNetwork]:
    with PrivateNetwork() as network:
        yield network


@pytest.fixture(scope="module")
def cluster(
    network: PrivateNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SlurmCluster]:
    slurm.skip_if_missing()
    folder = tmp_path_factory.mktemp("slurm")
    with slurm.running(SlurmCluster(folder, prefix=network.prefix)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def gridway(
    network: PrivateNetwork, cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GridWay]:
    if problem := gwd.problem():
        skip_without("gwd", problem)
    gridway = GridWay(
        tmp_path_factory.mktemp("gridway"),
        information=[Mad("im", "gw_im_mad_local", f"--queue short --slots {TASKS}")],
        execution=[Mad("em", "gw_em_mad_slurm", "--interval 1")],
        transfer=[Mad("tm", "gw_tm_mad_local")],
        environment=cluster.environment,
        network=network,
    )
    with gridway:
        gridway.wait_for_host()
        yield gridway


def submit(gridway: GridWay, folder: Path, *lines: str, tasks: int = 0) -> list[int]:
    folder.mkdir(exist_ok=True)
    (folder / "job.sh").write_text("\n".join(["#!/bin/sh", *lines, ""]))
    template = {
        "EXECUTABLE": "job.sh",
        "ARGUMENTS": "${TASK_ID}",
        "STDOUT_FILE": "out.${TASK_ID}",
        "STDERR_FILE": "err.${TASK_ID}",
    }
    return gridway.submit(folder, template, tasks)


def test_an_array_of_200_tasks(gridway: GridWay, cluster: SlurmCluster, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    jobs = submit(
        gridway,
        tmp_path / "jobs",
        f'echo run >>"{runs}/$1"',
        'echo "task $1 of $SLURM_ARRAY_JOB_ID"',
        "exit $(($1 % 7))",
        tasks=TASKS,
    )
    assert len(jobs) == TASKS
    ended = gridway.wait(jobs, 90)
    for job in ended.values():
        assert (job.state, job.exit_code) == ("done", job.task_id % 7)
        output = (tmp_path / f"jobs/out.{job.task_id}").read_text().split()
        assert output[:2] == ["task", str(job.task_id)]
        assert output[3].isdecimal(), "it ran on Slurm"
        assert (runs / str(job.task_id)).read_text() == "run\n"
    arrays = cluster.run("squeue", "--states=all", "--noheader", "--format=%F").split()
    assert len(set(arrays)) < TASKS / 2, "what comes together is submitted together"


def test_a_driver_that_dies_while_jobs_run(
    gridway: GridWay, cluster: SlurmCluster, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    jobs = submit(
        gridway,
        tmp_path / "jobs",
        f"while ! [ -e '{gate}' ]; do sleep 0.1; done; echo $1; exit 3",
        tasks=5,
    )
    for job in jobs:
        gridway.wait_for_state(job, "wrap/actv")
    gridway.kill_driver("em")
    gate.touch()
    ended = gridway.wait(jobs)
    assert [(job.state, job.exit_code) for job in ended.values()] == [("done", 3)] * 5
    for task in range(5):
        assert (tmp_path / f"jobs/out.{task}").read_text() == f"{task}\n"


def test_a_job_that_is_killed(gridway: GridWay, cluster: SlurmCluster, tmp_path: Path) -> None:
    (job,) = submit(gridway, tmp_path / "jobs", "sleep 300")
    gridway.wait_for_state(job, "wrap/actv")
    gridway.command("gwkill", str(job))
    assert "Cancelling job" in gridway.job_log(job)
    assert job not in gridway.jobs()
    assert "CANCELLED" in cluster.run("squeue", "--states=all", "--noheader", "--format=%T")
