"""A private Slurm: munged, slurmctld and some virtual nodes, on loopback and free ports.

Programs are those of Debian's package slurm-wlm.  They need root, no systemd and no cgroups.
"""

import atexit
import functools
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.services.keeper import KeptProcess
from tests.services.ports import reserve_port
from tests.services.required import skip_without
from tests.services.slurm_accounting import SlurmAccounting

NODES = 2
CPUS = 64
START_TIME = 30.0
"""Seconds that all of it has to start."""

CONFIGURATION = """\
ClusterName=gridmad
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key={folder}/state/jwt.key
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=100000,bf_interval=1,default_queue_depth=1000
MaxJobCount=50000
MaxArraySize=10001
MinJobAge={min_job_age}
InactiveLimit=0
KillWait=1
MessageTimeout=5
{accounting}
SlurmdParameters=config_overrides
{nodes}
PartitionName=short Nodes=ALL Default=YES MaxTime=60 DefMemPerCPU=10 State=UP
PartitionName=long Nodes=ALL MaxTime=1440 DefMemPerCPU=10 State=UP
"""


COMPLETION_LOG = """\
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.log
"""
"""What tells of jobs that squeue has forgotten, where there is no accounting."""


def missing() -> str | None:
    """What is not there of what a cluster needs; None where all is."""
    for program in ("munged", "slurmctld", "slurmd"):
        if not _program(program):
            return f"{program} is not installed (apt-get install slurm-wlm)"
    if os.getuid() != 0:
        return "Slurm's daemons need root"
    return None


class SlurmCluster:
    """One cluster; `min_job_age` is how long squeue shows a job that has ended, in seconds.

    `prefix` begins every command, for a cluster in another network.  Without accounting it has a
    log of completed jobs.
    """

    def __init__(
        self,
        folder: Path,
        min_job_age: int = 300,
        prefix: Sequence[str] = (),
        *,
        has_accounting: bool = False,
    ) -> None:
        self.folder = folder
        self.accounting = (
            SlurmAccounting(folder / "munge/socket", prefix) if has_accounting else None
        )
        self._prefix = prefix
        host = os.uname().nodename.partition(".")[0]
        self._port = reserve_port()
        for name in ("munge", "state", *(f"spool-n{number}" for number in range(NODES))):
            (folder / name).mkdir(mode=0o700, parents=True)
        _write(folder / "munge/key", secrets.token_bytes(128))
        _write(folder / "state/jwt.key", secrets.token_bytes(32))
        nodes = "\n".join(
            f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={reserve_port()}"
            f" CPUs={CPUS} RealMemory=16000 State=UNKNOWN"
            for number in range(NODES)
        )
        self.configuration = folder / "slurm.conf"
        self.configuration.write_text(
            CONFIGURATION.format(
                host=host,
                port=self._port,
                folder=folder,
                min_job_age=min_job_age,
                accounting=(
                    self.accounting.settings
                    if self.accounting
                    else COMPLETION_LOG.format(folder=folder)
                ),
                nodes=nodes,
            )
        )
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        self._munged: KeptProcess | None = None
        self.controller: KeptProcess | None = None
        self.rest: KeptProcess | None = None
        self._public: Path | None = None
        self._nodes: list[KeptProcess] = []

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's commands need."""
        return {"SLURM_CONF": str(self.configuration)}

    def run(self, *words: str) -> str:
        """The output of one of Slurm's commands."""
        done = subprocess.run(
            [*self._prefix, *words],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def start(self) -> None:
        self._munged = self._keep(
            "munged",
            "--foreground",
            "--force",
            f"--key-file={self.folder}/munge/key",
            f"--socket={self.folder}/munge/socket",
            f"--pid-file={self.folder}/munge/pid",
            f"--log-file={self.folder}/munge/log",
            f"--seed-file={self.folder}/munge/seed",
        )
        self._await(lambda: (self.folder / "munge/socket").exists(), "munged does not start")
        if self.accounting is not None:
            self.accounting.start()
        self.start_controller()
        self._nodes = [
            self._keep("slurmd", "-D", "-N", f"n{number}", "-f", str(self.configuration))
            for number in range(NODES)
        ]
        self._await(lambda: self._states().count("idle") == NODES, "the nodes do not come up")

    def start_controller(self) -> None:
        """Start slurmctld, and wait until it answers."""
        self.controller = self._keep("slurmctld", "-D", "-f", str(self.configuration))
        self._await(lambda: self._states() != [], "slurmctld does not answer")

    def stop_controller(self) -> None:
        """Jobs go on, but nobody answers."""
        assert self.controller is not None
        self.controller.kill()

    def start_rest(self) -> str:
        """Start slurmrestd, which does not run as root; its URL."""
        public = Path(tempfile.mkdtemp(prefix="gridmad-slurmrestd-"))
        public.chmod(0o755)
        shutil.copy(self.configuration, public / "slurm.conf")
        self._public = public
        port = reserve_port()
        program = _program("slurmrestd")
        assert program is not None
        nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
        self.rest = KeptProcess(
            [*self._prefix, *nobody, program, "-f", str(public / "slurm.conf"),
             "-a", "rest_auth/jwt", "-s", "openapi/v0.0.38", f"127.0.0.1:{port}"],
            self.folder / "slurmrestd.log",
            {**os.environ, "SLURM_JWT": "daemon", "SLURM_CONF": str(public / "slurm.conf")},
            public,
        )  # fmt: skip

        def answers() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        self._await(answers, "slurmrestd does not start")
        return f"http://127.0.0.1:{port}"

    def token(self, seconds: int = 86400) -> str:
        """A JSON Web Token for this user."""
        return self.run("scontrol", "token", f"lifespan={seconds}").strip().partition("=")[2]

    def stop(self) -> None:
        """End all of it, jobs too."""
        for process in (self.rest, *self._nodes, self.controller, self._munged):
            if process is not None:
                process.kill()
        if self.accounting is not None:
            self.accounting.stop()
        if self._public is not None:
            shutil.rmtree(self._public, ignore_errors=True)

    def _keep(self, program: str, *words: str) -> KeptProcess:
        path = _program(program)
        assert path is not None
        return KeptProcess(
            [*self._prefix, path, *words],
            self.folder / f"{program}.log",
            os.environ | self.environment,
            self.folder,
        )

    def _states(self) -> list[str]:
        done = subprocess.run(
            [*self._prefix, "sinfo", "--noheader", "--Node", "--partition=short", "--format=%T"],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split()

    def _await(self, condition: Callable[[], bool], problem: str) -> None:
        end = time.monotonic() + START_TIME
        while not condition():
            assert time.monotonic() < end, f"{problem}; see {self.folder}"
            time.sleep(0.05)


@functools.cache
def shared() -> SlurmCluster:
    """The cluster of all tests that do it no harm; it ends with the test run."""
    skip_if_missing()
    folder = Path(tempfile.mkdtemp(prefix="gridmad-slurm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    cluster = SlurmCluster(folder)
    cluster.start()
    atexit.register(cluster.stop)
    return cluster


@functools.cache
def shared_rest() -> str:
    """The URL of slurmrestd of the shared cluster."""
    if not _program("slurmrestd"):
        skip_without("slurm", "slurmrestd is not installed (apt-get install slurmrestd)")
    return shared().start_rest()


def skip_if_missing() -> None:
    """Skip the test where there can be no cluster."""
    if problem := missing():
        skip_without("slurm", problem)


@contextmanager
def running(cluster: SlurmCluster) -> Iterator[SlurmCluster]:
    """The cluster, which runs until the end."""
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def slurm() -> SlurmCluster:
    """The shared cluster."""
    return shared()


@pytest.fixture
def own_slurm(tmp_path: Path) -> Iterator[SlurmCluster]:
    """A cluster that a test may stop."""
    skip_if_missing()
    with running(SlurmCluster(tmp_path / "slurm", min_job_age=2)) as cluster:
        yield cluster


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin")


def _write(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
