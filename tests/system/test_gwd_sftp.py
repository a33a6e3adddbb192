"""Jobs of a real gwd that run on a host over ssh, their files going there and back over sftp."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import gwd, sshd
from tests.services.gwd import GridWay, Mad
from tests.services.network import PrivateNetwork
from tests.services.required import skip_without
from tests.services.sshd import Sshd

TASKS = 20


@pytest.fixture(scope="module")
def gridway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridWay]:
    if no_gwd := gwd.problem():
        skip_without("gwd", no_gwd)
    if no_sshd := sshd.missing():
        skip_without("sshd", no_sshd)
    folder = tmp_path_factory.mktemp("gridway")
    host = (
        f'HOSTNAME="localhost" ARCH="x86_64" NODECOUNT={TASKS}\n'
        'LRMS_NAME="jobmanager-fork" LRMS_TYPE="pbs" FORK_NAME="jobmanager-fork"\n'
        f'QUEUE_NAME[0]="all" QUEUE_NODECOUNT[0]={TASKS} QUEUE_FREENODECOUNT[0]={TASKS}\n'
        f"QUEUE_MAXRUNNINGJOBS[0]={TASKS} QUEUE_MAXJOBSINQUEUE[0]={TASKS}\n"
    )
    # Where jobs run is another home than gwd's: what is there has gone over sftp.
    there = folder / "there"
    with PrivateNetwork() as network:
        gridway = GridWay(
            folder,
            information=[Mad("im", "gw_im_mad_static", "-l etc/hosts")],
            execution=[Mad("em", "gw_em_mad_ssh", "--interval 1")],
            transfer=[Mad("tm", "gw_tm_mad_ssh")],
            files={"etc/hosts": "localhost etc/localhost\n", "etc/localhost": host},
            network=network,
        )
        with gridway, Sshd(folder / "sshd", there, prefix=network.prefix):
            (there / ".ssh").rename(gridway.home / ".ssh")
            gridway.wait_for_host()
            yield gridway


def test_an_array_with_files_in_and_out(gridway: GridWay, tmp_path: Path) -> None:
    for task in range(TASKS):
        (tmp_path / f"in.{task}").write_text(f"input {task}\n" * 1000)
    (tmp_path / "job.sh").write_text("#!/bin/sh\ncat in | tr a-z A-Z >out; pwd; exit $(($1 % 3))\n")
    template = {
        "EXECUTABLE": "job.sh",
        "ARGUMENTS": "${TASK_ID}",
        "INPUT_FILES": "in.${TASK_ID} in",
        "OUTPUT_FILES": "out result.${TASK_ID}",
        "STDOUT_FILE": "stdout.${TASK_ID}",
        "STDERR_FILE": "stderr.${TASK_ID}",
    }
    jobs = gridway.submit(tmp_path, template, TASKS)
    ended = gridway.wait(jobs, 90)
    for job in ended.values():
        assert (job.state, job.exit_code) == ("done", job.task_id % 3)
        result = (tmp_path / f"result.{job.task_id}").read_text()
        assert result == f"INPUT {job.task_id}\n" * 1000
        assert "/there/.gw_" in (tmp_path / f"stdout.{job.task_id}").read_text()
    there = gridway.location.parent / "there"
    assert not list(there.glob(".gw_*")), "the directories of jobs are gone"
