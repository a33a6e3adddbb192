"""A private GRAM5: a gatekeeper with job managers for fork, and a GASS server.

Programs are those of Debian's packages globus-gatekeeper, globus-gram-job-manager,
globus-gram-job-manager-fork-setup-poll and globus-gass-server-ez-progs.  Jobs run as the
user of the tests, with a home directory of their own.  The gatekeeper's services are

    jobmanager-fork    knows exit codes: its starter writes what happens to a log that the
                       job manager reads (a scheduler event generator, in Globus' words)
    jobmanager-poll    knows that a job has ended, not how: what most sites have
    jobmanager-slurm   polls a Slurm, where one is given

The starter finds its log, and the job manager for Slurm its commands, by files below /etc,
which a mount namespace replaces.
"""

import atexit
import contextlib
import functools
import getpass
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.services import grid_pki
from tests.services.grid_pki import GridAuthority
from tests.services.keeper import KeptProcess
from tests.services.ports import is_listening, reserve_port, wait_for_port
from tests.services.required import skip_without
from tests.services.server import Server
from tests.services.slurm import SlurmCluster

GATEKEEPER = "/usr/sbin/globus-gatekeeper"
JOB_MANAGER = "/usr/sbin/globus-job-manager"
FORK_CONFIGURATION = Path("/etc/globus/globus-fork.conf")
SLURM_CONFIGURATION = Path("/etc/globus/globus-slurm.conf")
SLURM_COMMANDS = ("sbatch", "scancel", "scontrol", "srun", "salloc")
START_TIME = 20.0
"""Seconds that a server has to listen."""

JOB_MANAGER_CONFIGURATION = """\
-home /usr
-target-globus-location /usr
-globus-toolkit-version 6.2
-state-file-dir {state}
-log-pattern {folder}/job-manager.log
-log-levels FATAL|ERROR|WARN|INFO
-globus-gatekeeper-host localhost
-globus-gatekeeper-port {port}
-globus-gatekeeper-subject {subject}
-x509-cert-dir {certificates}
"""
SERVICE = (
    "stderr_log,local_cred - /usr/bin/env env -C {home} HOME={home} GLOBUS_HOSTNAME=localhost"
    " JOB_MANAGER_SEG_LOG_PATH={folder}/events"
    " {program} -conf {folder}/job-manager.conf {options}\n"
)
# A gatekeeper that is stopped leaves job managers and jobs alone, and comes back.
SCRIPT = """\
mount --bind {folder}/fork.conf {fork_configuration} || exit
[ ! -e {folder}/slurm.conf ] || mount --bind {folder}/slurm.conf {slurm_configuration} || exit
while :; do
  {gatekeeper} -f -port {port} -e /usr/sbin -grid_services {folder}/services \
    -gridmap {folder}/grid-mapfile -x509_cert_dir {certificates} \
    -x509_user_cert {certificate} -x509_user_key {key} \
    -logfile {folder}/gatekeeper.log &
  echo $! >{folder}/gatekeeper.pid
  wait
  while [ -e {folder}/stopped ]; do sleep 0.05; done
done
"""


def missing() -> str | None:
    """What is not installed or allowed of what a server needs; None where all is there."""
    for program, package in (
        (GATEKEEPER, "globus-gatekeeper"),
        (JOB_MANAGER, "globus-gram-job-manager"),
        ("globus-gass-server", "globus-gass-server-ez-progs"),
        ("globusrun", "globus-gram-client-tools"),
    ):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install {package})"
    if not FORK_CONFIGURATION.exists():
        return (
            "the job manager for fork is not installed"
            " (apt-get install globus-gram-job-manager-fork-setup-poll)"
        )
    if not SLURM_CONFIGURATION.exists():
        return (
            "the job manager for Slurm is not installed"
            " (apt-get install globus-gram-job-manager-slurm)"
        )
    if os.geteuid() != 0:
        return "a gatekeeper runs as root alone"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        return "a mount namespace is not allowed here"
    return grid_pki.missing()


class Gram(Server):
    """A gatekeeper on a free loopback port; `home` is where its jobs are at home, and `prefix`
    begins its command, for one in another network.
    """

    def __init__(
        self,
        folder: Path,
        home: Path | None = None,
        authority: GridAuthority | None = None,
        slurm: SlurmCluster | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.home = folder / "home" if home is None else home
        self.port = reserve_port()
        self.authority = GridAuthority(folder / "pki") if authority is None else authority
        self.host = self.authority.host()
        self.user = self.authority.user("alice")
        self.proxy = self.authority.proxy(self.user, f"proxy-{self.port}").proxy
        self.keeper: KeptProcess | None = None
        self._prefix = prefix
        # Job managers put a socket there, whose path may have 107 characters.
        self.state = Path(tempfile.mkdtemp(prefix="gram-", dir="/tmp"))
        self._configure()
        if slurm is not None:
            self._configure_slurm(slurm)

    @property
    def contact(self) -> str:
        """What a job is submitted to."""
        return self.service("fork")

    def service(self, name: str) -> str:
        return f"localhost:{self.port}/jobmanager-{name}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to reach it."""
        return {
            "X509_CERT_DIR": str(self.authority.certificates),
            "X509_USER_PROXY": str(self.proxy),
            "GLOBUS_HOSTNAME": "localhost",
        }

    def job_managers(self) -> list[int]:
        """The processes of job managers."""
        mark = f"\0{self.folder}/job-manager.conf\0".encode()
        found = []
        for path in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (path / "cmdline").read_bytes() if path.name.isdigit() else b""
                if words.startswith(JOB_MANAGER.encode()) and mark in words:
                    found.append(int(path.name))
        return found

    def kill_job_managers(self) -> None:
        """End all job managers, as a crash does; their jobs go on."""
        for pid in self.job_managers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start(self) -> None:
        """Start the gatekeeper, or start it again."""
        (self.folder / "stopped").unlink(missing_ok=True)
        if self.keeper is None:
            self.keeper = KeptProcess(
                [*self._prefix, "unshare", "--mount", "sh", str(self.folder / "run.sh")],
                self.folder / "gatekeeper.out",
                {"PATH": os.environ["PATH"], "GLOBUS_HOSTNAME": "localhost"},
                self.folder,
            )
        keeper = self.keeper
        log = self.folder / "gatekeeper.out"
        wait_for_port(self.port, lambda: keeper.is_running, log, START_TIME, self._prefix)

    def stop(self) -> None:
        """Stop the gatekeeper alone, at once; `start` starts it again."""
        (self.folder / "stopped").touch()
        os.kill(int((self.folder / "gatekeeper.pid").read_text()), signal.SIGKILL)
        end = time.monotonic() + START_TIME
        while is_listening(self.port):
            assert time.monotonic() < end, "the gatekeeper does not end"
            time.sleep(0.01)

    def close(self) -> None:
        """End the gatekeeper, all job managers and all jobs."""
        if self.keeper is not None:
            self.keeper.kill()
            self.keeper = None
        shutil.rmtree(self.state, ignore_errors=True)

    def _configure(self) -> None:
        folder = self.folder
        for name in ("services", "events"):
            (folder / name).mkdir()
        self.home.mkdir(exist_ok=True)
        (folder / "grid-mapfile").write_text(f'"{self.user.subject}" {getpass.getuser()}\n')
        (folder / "fork.conf").write_text(
            f'log_path="{folder}/events/log"\nmpiexec="no"\nmpirun="no"\nsoftenv_dir=""\n'
        )
        # The job manager reads a file for each day.
        log = folder / "events/log"
        log.touch()
        log.chmod(0o666)
        for day in range(-1, 3):
            name = f"{datetime.now(UTC) + timedelta(days=day):%Y%m%d}"
            (folder / "events" / name).symlink_to(log)
        (folder / "job-manager.conf").write_text(
            JOB_MANAGER_CONFIGURATION.format(
                folder=folder,
                state=self.state,
                port=self.port,
                subject=self.host.subject,
                certificates=self.authority.certificates,
            )
        )
        self._add_service("fork", "-type fork -seg-module fork")
        self._add_service("poll", "-type fork -service-tag poll")
        (folder / "run.sh").write_text(
            SCRIPT.format(
                folder=folder,
                fork_configuration=FORK_CONFIGURATION,
                slurm_configuration=SLURM_CONFIGURATION,
                gatekeeper=GATEKEEPER,
                port=self.port,
                certificates=self.authority.certificates,
                certificate=self.host.certificate,
                key=self.host.key,
            )
        )

    def _add_service(self, name: str, options: str) -> None:
        line = SERVICE.format(
            home=self.home, folder=self.folder, program=JOB_MANAGER, options=options
        )
        (self.folder / f"services/jobmanager-{name}").write_text(line)

    def _configure_slurm(self, slurm: SlurmCluster) -> None:
        """Job managers run Slurm's commands in an environment of their own."""
        folder = self.folder / "bin"
        folder.mkdir()
        variables = " ".join(f"{name}={value}" for name, value in slurm.environment.items())
        lines = ['slurm_path="/usr"']
        for name in SLURM_COMMANDS:
            script = folder / name
            script.write_text(f'#!/bin/sh\nexec env {variables} /usr/bin/{name} "$@"\n')
            script.chmod(0o755)
            lines.append(f'{name}="{script}"')
        lines += [f'{name}=""' for name in ("openmpi_path", "mpich2_path", "softenv_dir")]
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        self._add_service("slurm", "-type slurm")


class Gass(Server):
    """A GASS server that lets its user read and write all files, by `url` and their path."""

    def __init__(self, gram: Gram) -> None:
        self._gram = gram
        self.port = reserve_port()
        self._keeper: KeptProcess | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def start(self) -> None:
        """Start, with the proxy of the gatekeeper's user."""
        log = self._gram.folder / "gass.out"
        self._keeper = KeptProcess(
            ["globus-gass-server", "-r", "-w", "-p", str(self.port)],
            log,
            {"PATH": os.environ["PATH"], "HOME": str(self._gram.home), **self._gram.environment},
            self._gram.folder,
        )
        keeper = self._keeper
        wait_for_port(self.port, lambda: keeper.is_running, log, START_TIME)

    def close(self) -> None:
        """End it."""
        if self._keeper is not None:
            self._keeper.kill()


@functools.cache
def shared_authority() -> GridAuthority:
    """An authority for the whole run, since keys take time to make."""
    folder = Path(tempfile.mkdtemp(prefix="gridmad-pki-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return GridAuthority(folder / "pki")


@pytest.fixture(scope="session")
def gram(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gram]:
    """A GRAM5 that runs; a test that stops it starts it again."""
    problem = missing()
    if problem:
        skip_without("gram", problem)
    with Gram(tmp_path_factory.mktemp("gram")) as server:
        yield server
