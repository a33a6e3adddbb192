"""A real GridWay: gwd from PyPI's drm4g package, with drivers of our choice.

drm4g is installed into an environment of its own (`make gwd` makes it in .gwd; $GWD_HOME
names another one), so that its dependencies never mix with ours.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.services.network import PrivateNetwork

TOP = Path(__file__).parents[2]
OUR_BIN = Path(sys.executable).parent
"""Where the executables of gridmad are installed."""
INTERVAL = 0.1
"""Seconds between two looks at what is waited for."""
START_TIME = 20.0
"""Seconds that gwd has to come up."""
STOP_TIME = 5.0
"""Seconds that gwd, and then its drivers, have to end."""
ZEROED = """\
#include <stdlib.h>
void *malloc(size_t size) { return calloc(1, size); }
__attribute__((constructor)) static void hide(void) { unsetenv("LD_PRELOAD"); }
"""
"""Memory for gwd, not for its drivers.  This gwd counts its CANCELs of a job from whatever it finds
in the job's record: with 3 or more there it asks for none, and leaves the job to itself.  Later
ones begin with 0.
"""


class GridWayError(Exception):
    """GridWay did not do what was asked of it."""


@dataclass(frozen=True)
class Mad:
    """One driver in gwd.conf."""

    name: str
    """Its name there: that of a transfer or execution driver is what hosts refer to."""
    executable: str
    """A name in the folder of our executables, or an absolute path."""
    arguments: str = ""
    mode: str = "rsl2"
    """The dialect in which gwd describes jobs (execution only)."""
    transfer: str = "tm"
    execution: str = "em"
    """The names of the drivers that serve the hosts (information only)."""

    @property
    def path(self) -> Path:
        """The executable's own place."""
        return OUR_BIN / self.executable

    @property
    def is_ours(self) -> bool:
        """One of gridmad's."""
        return "/" not in self.executable


@dataclass(frozen=True)
class Intervals:
    """How often gwd turns to things, in seconds."""

    scheduling: int = 1
    discovery: int = 5
    monitoring: int = 5
    poll: int = 5


@dataclass(frozen=True)
class Job:
    """A job as gwps shows it."""

    job_id: int
    task_id: int
    state: str
    """gwd's own word: pend, prol, wrap, epil, done, fail, ..."""
    execution_state: str
    host: str
    exit_code: int | None
    """None before the job is done."""
    execution_seconds: float
    transfer_seconds: float

    @property
    def is_final(self) -> bool:
        """Nothing more is done for it."""
        return self.state in ("done", "fail")


@dataclass(frozen=True)
class Host:
    """A host as gwhost shows it; the fields bear gwhost's XML names."""

    name: str
    fields: Mapping[str, str]
    queues: Sequence[Mapping[str, str]] = field(default_factory=tuple)


def gwd_home() -> Path:
    """The environment that has gwd."""
    return Path(os.environ.get("GWD_HOME") or TOP / ".gwd")


def problem() -> str:
    """Why there is no gwd; "" when there is one."""
    if (gwd_home() / "bin/gwd").exists():
        return ""
    return f"no gwd in {gwd_home()} (make gwd installs it, GWD_HOME names another place)"


class GridWay:
    """A gwd with its own folder, port, network and home; a context manager.

    `files` are laid out in the folder before gwd starts, by their names there; `environment`
    is added to gwd's.  The jobs' working folders (~/.gw_<user>_<job>) are below the private
    home `home`, and our drivers' logs lie beside gwd's.
    """

    def __init__(
        self,
        folder: Path,
        *,
        information: Sequence[Mad],
        execution: Sequence[Mad],
        transfer: Sequence[Mad],
        intervals: Intervals | None = None,
        files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        network: PrivateNetwork | None = None,
    ) -> None:
        self.location = folder / "gw"
        self.home = folder / "home"
        self.network = network or PrivateNetwork()
        self._owns_network = network is None
        self._mads = {"im": information, "em": execution, "tm": transfer}
        self._intervals = intervals or Intervals()
        self._files = dict(files or {})
        self._extra = dict(environment or {})
        self._gwd: subprocess.Popen[bytes] | None = None

    # ------------------------------------------------------------ life

    def __enter__(self) -> Self:
        if self._owns_network:
            self.network.__enter__()
        try:
            self._lay_out()
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        survivors = self.stop()
        if survivors and error is None:
            raise GridWayError(f"drivers that outlived gwd: {', '.join(survivors)}")

    def stop(self) -> list[str]:
        """End gwd, its drivers and what is left of the jobs; the drivers that had to be
        killed, since they did not end with gwd.
        """
        survivors: list[str] = []
        if self._gwd is not None:
            drivers = self.drivers()
            self._gwd.send_signal(signal.SIGTERM)
            try:
                self._gwd.wait(STOP_TIME)
            except subprocess.TimeoutExpired:
                self._gwd.kill()
                self._gwd.wait()
            # gwd gives its drivers a second and never looks back: they end by end of file.
            _, alive = psutil.wait_procs(drivers, STOP_TIME)
            survivors = [" ".join(process.cmdline()) for process in alive]
            self._gwd = None
        # Jobs, and GridWay's own scheduler, which outlives gwd.
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._owns_network:
            self.network.__exit__(None, None, None)
        return survivors

    def _lay_out(self) -> None:
        if problem():
            raise GridWayError(problem())
        (settings,) = gwd_home().glob("lib/python*/site-packages/drm4g/conf")
        for name in ("bin", "etc", "libexec", "var/acct"):
            (self.location / name).mkdir(parents=True)
        self.home.mkdir(mode=0o700, exist_ok=True)
        for mads in self._mads.values():
            for mad in mads:
                link = self.location / "bin" / mad.path.name
                if not link.exists():
                    link.symlink_to(mad.path)
        # Everything of gwd's own is taken as the package has it.
        wrapper = self.location / "libexec/gw_wrapper.sh"
        shutil.copy(settings / "gw_drm4g_wrapper.sh", wrapper)
        template = (settings / "job_template.default").read_text()
        template = re.sub(r"(?m)^WRAPPER\b.*$", f"WRAPPER = {wrapper}", template)
        self._etc("job_template.default", template)
        scheduler = (settings / "sched.conf").read_text()
        scheduler = re.sub(r"(?m)^DISPATCH_CHUNK\b.*$", "DISPATCH_CHUNK = 500", scheduler)
        self._etc("sched.conf", scheduler)
        for name in ("logger.conf", "resources.conf"):
            # Only DRM4G's own drivers read these.
            shutil.copy(settings / name, self.location / "etc" / name)
        self._etc("gwd.conf", self._configuration())
        for name, text in self._files.items():
            path = self.location / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def _configuration(self) -> str:
        lines = [
            f"GWD_PORT = {self.network.free_port()}",
            "MAX_NUMBER_OF_CLIENTS = 100",
            "NUMBER_OF_ARRAYS = 100",
            "NUMBER_OF_JOBS = 1000",
            "NUMBER_OF_HOSTS = 100",
            "NUMBER_OF_USERS = 5",
            f"SCHEDULING_INTERVAL = {self._intervals.scheduling}",
            f"DISCOVERY_INTERVAL = {self._intervals.discovery}",
            f"MONITORING_INTERVAL = {self._intervals.monitoring}",
            f"POLL_INTERVAL = {self._intervals.poll}",
        ]
        for mad in self._mads["im"]:
            path = self.location / "bin" / mad.path.name
            where = f"{mad.transfer}:{mad.execution}"
            lines.append(f"IM_MAD = {mad.name}:{path}:{self._arguments(mad)}:{where}")
        for mad in self._mads["em"]:
            line = f"{mad.name}:{mad.path.name}:{self._arguments(mad)}:{mad.mode}"
            lines.append(f"EM_MAD = {line}")
        for mad in self._mads["tm"]:
            lines.append(f"TM_MAD = {mad.name}:{mad.path.name}:{self._arguments(mad)}")
        lines.append("DM_SCHED = builtin:gw_sched:")
        return "\n".join(lines) + "\n"

    def _arguments(self, mad: Mad) -> str:
        """The arguments as gwd.conf wants them: a bare colon separates fields."""
        words = [mad.arguments] if mad.arguments else []
        if mad.is_ours:
            words.append(f"--log-level info --log-file {self.location}/var/{mad.name}.log")
        return " ".join(words).replace(":", r"\:")

    def _etc(self, name: str, text: str) -> None:
        (self.location / "etc" / name).write_text(text)

    def _zeroed_memory(self) -> str:
        """The library that a program is to be started with."""
        library = str(self.location / "libexec/zeroed.so")
        compiler = ["cc", "-shared", "-fPIC", "-o", library, "-x", "c", "-"]
        subprocess.run(compiler, input=ZEROED, text=True, check=True)
        return library

    def _start(self) -> None:
        log = self.location / "var/gwd.log"
        with (self.location / "var/gwd.stderr").open("wb") as errors:
            self._gwd = subprocess.Popen(
                [
                    *(*self.network.prefix, "env", f"LD_PRELOAD={self._zeroed_memory()}"),
                    *(str(gwd_home() / "bin/gwd"), "-f"),
                ],
                env=self.environment,
                cwd=self.location,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        gwd = self._gwd

        def is_up() -> bool:
            if gwd.poll() is not None:
                raise GridWayError(f"gwd ended at its start:\n{self.log()}")
            return log.exists() and "Request Manager started" in log.read_text(errors="replace")

        wait_for(is_up, START_TIME, "gwd to start")

    # ------------------------------------------------------------ processes

    @property
    def environment(self) -> dict[str, str]:
        """The environment of gwd and its commands."""
        path = f"{self.location / 'bin'}:{gwd_home() / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        return {
            "PATH": path,
            "HOME": str(self.home),
            "GW_LOCATION": str(self.location),
            "DRM4G_DIR": str(self.location),
            "USER": os.environ.get("USER", "root"),
            "LANG": "C.UTF-8",
            **self._extra,
        }

    def drivers(self) -> list[psutil.Process]:
        """The drivers that run."""
        assert self._gwd is not None
        children = psutil.Process(self._gwd.pid).children()
        return [child for child in children if "gw_sched" not in _command(child)]

    def driver(self, name: str) -> psutil.Process:
        """The process of one of our drivers, by its name in gwd.conf."""
        for process in self.drivers():
            if f"/var/{name}.log" in " ".join(_command(process)):
                return process
        raise GridWayError(f"the driver {name} does not run")

    def kill_driver(self, name: str, is_awaited: bool = True) -> None:
        """Kill a driver as it stands, and wait until gwd has started it anew."""
        reloaded = f"MAD ({name}) successfully reloaded"
        before = self.log().count(reloaded)
        self.driver(name).kill()
        if is_awaited:
            what = f"another driver {name}"
            wait_for(lambda: self.log().count(reloaded) > before, 10, what, self._last_words)

    def processes(self, job_id: int | None = None) -> list[psutil.Process]:
        """Every process that has our private home (gwd, drivers, jobs), or those of a job."""
        found = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
            except psutil.Error:
                continue
            if environment.get("HOME") != str(self.home):
                continue
            if job_id is None or environment.get("GW_JOB_ID") == str(job_id):
                found.append(process)
        return found

    # ------------------------------------------------------------ gwd's own commands

    def command(self, *words: str, cwd: Path | None = None, timeout: float = 60) -> str:
        """What one of gwd's commands says; GridWayError when it fails."""
        done = subprocess.run(
            [*self.network.prefix, str(gwd_home() / "bin" / words[0]), *words[1:]],
            env=self.environment,
            cwd=cwd or self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        # DRM4G's gwkill ends with 255 also where it did what it should, and then says nothing.
        said = (done.stdout + done.stderr).strip()
        if "FAILED" in said or (done.returncode != 0 and words[0] != "gwkill"):
            raise GridWayError(f"{' '.join(words)}: exit code {done.returncode}: {said}")
        return done.stdout

    def submit(self, folder: Path, template: Mapping[str, str], tasks: int = 0) -> list[int]:
        """Submit a job, or an array of `tasks`, from `folder`; the job ids in order."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "job.template"
        path.write_text("".join(f"{name} = {value}\n" for name, value in template.items()))
        array = ["-n", str(tasks)] if tasks else []
        said = self.command("gwsubmit", "-v", *array, "-t", path.name, cwd=folder)
        if not tasks:
            return [int(number) for number in re.findall(r"\d+", said)][:1]
        rows = [re.findall(r"\d+", line) for line in said.splitlines()]
        return [int(row[1]) for row in rows if len(row) == 2]

    def jobs(self) -> dict[int, Job]:
        """Every job there is, by its id."""
        return {job.job_id: job for job in map(_job, self._xml("gwps", "JOB"))}

    def hosts(self) -> list[Host]:
        """Every host that gwd knows."""
        return [_host(element) for element in self._xml("gwhost", "HOST")]

    def wait(
        self,
        jobs: Iterable[int],
        timeout: float = 60,
        watch: Callable[[list[Job]], None] = lambda jobs: None,
    ) -> dict[int, Job]:
        """Wait until the jobs are done or failed; how they ended, by their ids.

        `watch` is called with the jobs at every look.
        """
        wanted = list(jobs)
        end = time.monotonic() + timeout
        while True:
            known = self.jobs()
            last = [known[number] for number in wanted if number in known]
            watch(last)
            left = [job for job in last if not job.is_final]
            if len(last) == len(wanted) and not left:
                return {job.job_id: job for job in last}
            if time.monotonic() > end:
                raise GridWayError(
                    f"{len(left)} of {len(wanted)} jobs have not ended within {timeout:g} s, "
                    f"among them {left[:1]}:\n{self._last_words(left)}"
                )
            time.sleep(INTERVAL)

    def wait_for_state(self, job_id: int, *states: str, timeout: float = 30) -> Job:
        """Wait until a job is in one of gwd's states (`wrap`) with its execution state, when
        given behind a slash (`wrap/actv`).
        """

        def is_there() -> bool:
            job = self.jobs()[job_id]
            return job.state in states or f"{job.state}/{job.execution_state}" in states

        what = f"job {job_id} to be {' or '.join(states)}"
        wait_for(is_there, timeout, what, lambda: self._last_words([self.jobs()[job_id]]))
        return self.jobs()[job_id]

    def wait_for_host(self, timeout: float = 30) -> Host:
        """Wait until a host was discovered and monitored."""
        found: list[Host] = []

        def is_there() -> bool:
            found[:] = [host for host in self.hosts() if host.queues]
            return bool(found)

        wait_for(is_there, timeout, "a host", self._last_words)
        return found[0]

    def log(self) -> str:
        """What gwd logged."""
        return (self.location / "var/gwd.log").read_text(errors="replace")

    def job_log(self, job_id: int) -> str:
        """What gwd logged of one job."""
        (path,) = (self.location / "var").glob(f"*/{job_id}/job.log")
        return path.read_text(errors="replace")

    def _last_words(self, jobs: Sequence[Job] = ()) -> str:
        """The ends of the logs, for whoever waited in vain."""
        paths = list((self.location / "var").glob("*.log"))
        for job in jobs[:1]:
            paths += (self.location / "var").glob(f"*/{job.job_id}/job.log")
        ends = []
        for path in paths:
            if lines := path.read_text(errors="replace").splitlines()[-20:]:
                ends.append("\n  ".join([f"{path.name}:", *lines]))
        return "\n".join(ends)

    def _xml(self, command: str, tag: str) -> list[ET.Element]:
        document = ET.fromstring(self.command(command, "-x").encode("iso-8859-1", "replace"))
        return document.findall(f".//{{*}}{tag}")


def wait_for(
    condition: Callable[[], bool],
    timeout: float,
    what: str,
    explain: Callable[[], str] = lambda: "",
) -> None:
    """Wait until `condition` holds; GridWayError when it does not within `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise GridWayError(f"waited {timeout:g} s in vain for {what}\n{explain()}".strip())
        time.sleep(INTERVAL)


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _text(element: ET.Element, tag: str) -> str:
    return (element.findtext(f"{{*}}{tag}") or "").strip()


def _seconds(text: str) -> float:
    hours, minutes, seconds = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds)


def _job(element: ET.Element) -> Job:
    exit_code = _text(element, "EXIT_CODE")
    return Job(
        job_id=int(element.attrib["JOB_ID"]),
        task_id=int(_text(element, "TASK_ID") or 0),
        state=_text(element, "JOB_STATE"),
        execution_state=_text(element, "EM_STATE"),
        host=_text(element, "HOST"),
        exit_code=int(exit_code) if exit_code else None,
        execution_seconds=_seconds(_text(element, "EXEC_TIME")),
        transfer_seconds=_seconds(_text(element, "XFR_TIME")),
    )


def _fields(element: ET.Element) -> dict[str, str]:
    return {child.tag.rpartition("}")[2]: child.text or "" for child in element if not len(child)}


def _host(element: ET.Element) -> Host:
    fields = _fields(element)
    for generic in element:
        if "NAME" in generic.attrib:
            fields[generic.attrib["NAME"]] = generic.attrib["VALUE"]
    queues = tuple(_fields(queue) for queue in element.findall("{*}QUEUE"))
    return Host(fields["HOSTNAME"], fields, queues)
