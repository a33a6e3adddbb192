"""A private Grid Engine cell on free loopback ports: master, one execution host, jobs of root.

Programs are those of Debian's gridengine-master, gridengine-exec and gridengine-client.  Jobs
have the home directory of who submits them, as its $HOME says: a site's homes need not be
those of the password file.
"""

import atexit
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.services.keeper import KeptProcess
from tests.services.ports import reserve_port
from tests.services.required import skip_without

PROGRAMS = Path("/usr/lib/gridengine")
SHARED = Path("/usr/share/gridengine")
INSTALLED = Path("/var/lib/gridengine")
START_TIME = 60.0
"""Seconds that each server has to answer (less than one is usual, on an idle machine)."""
SLOTS = 256

BOOTSTRAP = """\
admin_user root
default_domain none
ignore_fqdn false
spooling_method berkeleydb
spooling_lib libspoolb
spooling_params {folder}/spool
binary_path /usr/sbin
qmaster_spool_dir {folder}/master
security_mode none
listener_threads 1
worker_threads 1
scheduler_threads 1
"""

# What differs from the configuration that the package brings.
CONFIGURATION = {
    "execd_spool_dir": "{folder}/execution",
    # Past Debian's wrapper, a shell script that takes longer than the shepherd and its job.
    "shepherd_cmd": f"{PROGRAMS}/sge_shepherd",
    "min_uid": "0",
    "min_gid": "0",
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01"
    " accounting_flush_time={flush_time} joblog=false sharelog=00:00:00",
    # The harder case: a job that has ended is forgotten at once.
    "finished_jobs": "0",
}
SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "job_load_adjustments": "NONE",
    "max_pending_tasks_per_job": "1000",
}
QUEUE = {
    "qname": "all.q",
    "hostlist": "@allhosts",
    "slots": str(SLOTS),
    "shell": "/bin/sh",
    "shell_start_mode": "unix_behavior",
    "starter_method": "{folder}/starter",
    "load_thresholds": "NONE",
    "pe_list": "threads",
}
STARTER = """\
#!/bin/sh
HOME=$SGE_O_HOME exec /bin/sh "$@"
"""
PARALLEL_ENVIRONMENT = """\
pe_name threads
slots 999
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule $pe_slots
control_slaves FALSE
job_is_first_task TRUE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""


def missing() -> str | None:
    """What is not installed of what a cell needs; None where all is there."""
    for program, package in (
        ("sge_qmaster", "master"),
        ("sge_execd", "exec"),
        ("qsub", "client"),
    ):
        if not (PROGRAMS / program).exists():
            return f"{program} is not installed (apt-get install gridengine-{package})"
    if os.getuid() != 0:
        return "Grid Engine's servers need root"
    return None


class Cell:
    """One cell; `flush_time` (HH:MM:SS) is how late the accounting file is at most, and `prefix`
    begins every command, for a cell in another network.
    """

    def __init__(self, folder: Path, flush_time: str, prefix: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self.folder = folder.resolve()
        self.root = self.folder / "root"
        self.common = self.root / "default" / "common"
        self.environment = {
            "SGE_ROOT": str(self.root),
            "SGE_CELL": "default",
            "SGE_CLUSTER_NAME": "test",
            "SGE_QMASTER_PORT": str(reserve_port()),
            "SGE_EXECD_PORT": str(reserve_port()),
        }
        """What its tools need to reach it."""
        self._flush_time = flush_time
        self._prefix = prefix
        self._master: KeptProcess | None = None
        self._execution: KeptProcess | None = None

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Start all of it, and wait until a job could run."""
        try:
            self._lay_out()
            self.start_master()
            self._set_up()
            self._execution = self._start("sge_execd")
            self._wait("the execution host does not answer", self._has_host)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the servers and all jobs, as a crash does: they take seconds to end by themselves."""
        for server in (self._execution, self._master):
            if server is not None:
                server.kill()

    def kill_master(self) -> None:
        """The master crashes; jobs run on."""
        assert self._master is not None
        self._master.kill()
        self._master = None

    def start_master(self) -> None:
        """Start the master, and wait until it answers."""
        self._master = self._start("sge_qmaster")
        self._wait("the master does not answer", lambda: self._try("qconf", "-sh") is not None)

    def _start(self, program: str) -> KeptProcess:
        return KeptProcess(
            [*self._prefix, str(PROGRAMS / program)],
            self.folder / f"{program}.log",
            {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "SGE_ND": "1", **self.environment},
            self.folder,
        )

    def _wait(self, problem: str, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + START_TIME
        while not condition():
            assert time.monotonic() < end, problem
            time.sleep(0.02)

    def _has_host(self) -> bool:
        shown = self._try("qstat", "-f") or ""
        return any(
            line.startswith("all.q@") and len(line.split()) == 5 for line in shown.splitlines()
        )

    # ------------------------------------------------------------ tools

    def run(self, *words: str, given: str = "") -> str:
        """What a tool of the cell prints."""
        done = self._call(*words, given=given)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def _try(self, *words: str) -> str | None:
        done = self._call(*words)
        return done.stdout if done.returncode == 0 else None

    def _call(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._prefix, *words],
            input=given,
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.environment},
            timeout=START_TIME,
        )

    # ------------------------------------------------------------ layout

    def _lay_out(self) -> None:
        for name in ("spool", "master/job_scripts", "execution"):
            (self.folder / name).mkdir(parents=True)
        self.common.mkdir(parents=True)
        for name in ("bin", "lib", "utilbin", "util"):
            (self.root / name).symlink_to(INSTALLED / name)
        (self.common / "bootstrap").write_text(BOOTSTRAP.format(folder=self.folder))
        (self.common / "act_qmaster").write_text("localhost\n")
        (self.common / "cluster_name").write_text("test\n")
        name = socket.gethostname()
        if name != "localhost":
            (self.common / "host_aliases").write_text(f"localhost {name}\n")
        starter = self.folder / "starter"
        starter.write_text(STARTER)
        starter.chmod(0o755)
        settings = {
            name: value.format(folder=self.folder, flush_time=self._flush_time)
            for name, value in CONFIGURATION.items()
        }
        configuration = self._write(
            "configuration", _edited((SHARED / "default-configuration").read_text(), settings)
        )
        resources = SHARED / "util" / "resources"
        self.run(f"{PROGRAMS}/spoolinit", "berkeleydb", "libspoolb", f"{self.folder}/spool", "init")
        for words in (
            ("configuration", configuration),
            ("complexes", f"{resources}/centry"),
            ("usersets", f"{resources}/usersets"),
            ("managers", "root"),
        ):
            self.run(f"{PROGRAMS}/spooldefaults", *words)

    def _set_up(self) -> None:
        self.run("qconf", "-ah", "localhost")
        self.run("qconf", "-as", "localhost")
        group = "group_name @allhosts\nhostlist localhost\n"
        self.run("qconf", "-Ahgrp", self._write("hosts", group))
        self.run("qconf", "-Ap", self._write("threads", PARALLEL_ENVIRONMENT))
        settings = {name: value.format(folder=self.folder) for name, value in QUEUE.items()}
        queue = _edited(self.run("qconf", "-sq"), settings)
        self.run("qconf", "-Aq", self._write("queue", queue))
        scheduler = _edited(self.run("qconf", "-ssconf"), SCHEDULER)
        self.run("qconf", "-Msconf", self._write("scheduler", scheduler))

    def _write(self, name: str, text: str) -> str:
        path = self.folder / f"{name}.conf"
        path.write_text(text)
        return str(path)


def _edited(text: str, settings: dict[str, str]) -> str:
    """A configuration with other values for some of its names."""
    lines = []
    for line in text.splitlines():
        name = line.split(maxsplit=1)[0] if line else ""
        lines.append(f"{name} {settings[name]}" if name in settings else line)
    return "\n".join(lines) + "\n"


@functools.cache
def shared() -> Cell:
    """The cell of all tests that do it no harm; it ends with the test run."""
    return _started(Path(tempfile.mkdtemp(prefix="gridmad-sge-")), "00:00:00")


def _started(folder: Path, flush_time: str) -> Cell:
    problem = missing()
    if problem:
        skip_without("sge", problem)
    cell = Cell(folder, flush_time)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    cell.start()
    atexit.register(cell.stop)
    return cell


@pytest.fixture
def sge() -> Cell:
    """The shared cell."""
    return shared()


@pytest.fixture
def own_sge(tmp_path: Path) -> Iterator[Cell]:
    """A cell that a test may stop."""
    cell = _started(tmp_path / "sge", "00:00:00")
    yield cell
    cell.stop()
