"""Jobs through a real gwd and our drivers for Grid Engine, GRAM5 and ssh, on the real servers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.services import gram, gwd, sge, sshd
from tests.services.gwd import GridWay, Mad
from tests.services.network import PrivateNetwork
from tests.services.required import skip_without

TASKS = 6
HOST = """\
HOSTNAME="localhost" ARCH="x86_64" OS_NAME="Linux" CPU_MHZ=3000 NODECOUNT=8
LRMS_NAME="jobmanager-fork" LRMS_TYPE="pbs" FORK_NAME="jobmanager-fork"
QUEUE_NAME[0]="all.q" QUEUE_NODECOUNT[0]=8 QUEUE_FREENODECOUNT[0]=8
QUEUE_MAXRUNNINGJOBS[0]=8 QUEUE_MAXJOBSINQUEUE[0]=8
"""


class Scene:
    """A gwd and a server of one kind in a private network, with one home."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.network = stack.enter_context(PrivateNetwork())
        self.home = folder / "gridway/home"
        self.home.mkdir(parents=True, mode=0o700)

    def grid_engine(self) -> tuple[Mad, dict[str, str]]:
        if problem := sge.missing():
            skip_without("sge", problem)
        cell = sge.Cell(self.folder / "sge", "00:00:00", self.network.prefix)
        self.stack.callback(cell.stop)
        cell.start()
        return Mad("em", "gw_em_mad_sge", "--queue all.q --interval 1"), cell.environment

    def gram5(self) -> tuple[Mad, dict[str, str]]:
        if problem := gram.missing():
            skip_without("gram", problem)
        server = gram.Gram(
            self.folder / "gram", self.home, gram.shared_authority(), prefix=self.network.prefix
        )
        self.stack.enter_context(server)
        arguments = f"--port {server.port} --interval 1"
        return Mad("em", "gw_em_mad_prews", arguments, mode="rsl"), server.environment

    def ssh(self) -> tuple[Mad, dict[str, str]]:
        if problem := sshd.missing():
            skip_without("sshd", problem)
        server = sshd.Sshd(self.folder / "sshd", self.home, prefix=self.network.prefix)
        self.stack.enter_context(server)
        return Mad("em", "gw_em_mad_ssh", "--interval 1"), {}


@pytest.fixture(params=[Scene.grid_engine, Scene.gram5, Scene.ssh], ids=lambda of: of.__name__)
def gridway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GridWay]:
    serve: Callable[[Scene], tuple[Mad, dict[str, str]]] = request.param
    if problem := gwd.problem():
        skip_without("gwd", problem)
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack)
        execution, environment = serve(scene)
        gridway = GridWay(
            tmp_path / "gridway",
            information=[Mad("im", "gw_im_mad_static", "-l etc/hosts")],
            execution=[execution],
            transfer=[Mad("tm", "gw_tm_mad_local")],
            files={"etc/hosts": "localhost etc/localhost\n", "etc/localhost": HOST},
            environment=environment,
            network=scene.network,
        )
        stack.enter_context(gridway)
        gridway.wait_for_host()
        yield gridway


def test_a_handful_of_jobs(gridway: GridWay, tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "job.sh").write_text('#!/bin/sh\necho "task $1"\necho err >&2\nexit $1\n')
    template = {
        "EXECUTABLE": "job.sh",
        "ARGUMENTS": "${TASK_ID}",
        "STDOUT_FILE": "out.${TASK_ID}",
        "STDERR_FILE": "err.${TASK_ID}",
    }
    jobs = gridway.submit(folder, template, TASKS)
    assert len(jobs) == TASKS
    for job in gridway.wait(jobs, 100).values():
        assert (job.state, job.exit_code) == ("done", job.task_id), gridway.job_log(job.job_id)
        assert (folder / f"out.{job.task_id}").read_text() == f"task {job.task_id}\n"
        assert (folder / f"err.{job.task_id}").read_text() == "err\n"
