"""gw_im_mad_local: the machine that the driver runs on, as a host with one queue."""

import argparse
import asyncio
import os
import platform
import re
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gridmad.errors import DriverError, MissingDependencyError, UsageError
from gridmad.information.driver import InformationDriver
from gridmad.information.machine import check_name, own_name
from gridmad.information.model import Attribute, HostAttributes
from gridmad.options import count

JOB_MANAGER = "jobmanager-fork"
FRESH = 1.0
"""Seconds that figures are served from memory."""
WINDOW = 0.2
"""Seconds over which the load is measured where nothing was asked for a while; 20 ticks of
the kernel's clock, so good to 5 % of a CPU."""
LONGEST_WINDOW = 10.0
"""Seconds after which an earlier sample no longer tells the load of now."""
BUSY_REMAINDER = 80
"""Percent of one CPU above which gwd counts it as free (GW_HOST_CPU_FREE_LIMIT)."""
MIB = 1 << 20

_QUEUE = re.compile(r"[\x21-\x39\x3b-\x7e]{1,24}", re.ASCII)


class _Load(NamedTuple):
    """A sample of what the CPUs did since the machine started, in seconds over all CPUs."""

    when: float
    free: float
    total: float


class LocalInformation(InformationDriver):
    """True figures of this machine, measured when somebody asks."""

    summary = "This machine as a host with one queue, its figures measured when asked for."

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        check_name(options.hostname)
        if not _QUEUE.fullmatch(options.queue):
            raise UsageError(
                f"--queue {options.queue!r}: gwd takes queue names of at most 24 characters "
                "without blanks and colons"
            )
        self._host: str = options.hostname or ""
        self._constant: dict[str, Attribute] = {}
        self._cpus: set[int] = set()
        self._slots = 0
        self._home = _home()
        self._sample = _Load(0.0, 0.0, 0.0)
        self._attributes: HostAttributes | None = None
        self._measured_at = -float("inf")
        self._measuring = asyncio.Lock()

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the names and the size of this host."""
        parser.add_argument(
            "--hostname", metavar="NAME", help="name of this host (default: as it calls itself)"
        )
        parser.add_argument(
            "--queue", metavar="NAME", default="default", help="its queue (default: %(default)s)"
        )
        parser.add_argument(
            "--slots",
            metavar="COUNT",
            type=count,
            help="jobs that it runs at a time (default: one for each CPU)",
        )

    async def start(self) -> None:
        """Find out what does not change, and take the first sample of the load."""
        self._host = self._host or await own_name()
        await asyncio.to_thread(self._prepare)

    def discover(self) -> Sequence[str]:
        """The one host."""
        return [self._host]

    def monitor(
        self, hosts: Sequence[str]
    ) -> (
        Mapping[str, HostAttributes | DriverError]
        | Awaitable[Mapping[str, HostAttributes | DriverError]]
    ):
        """The figures of this host, at most a second old; no other host is known."""
        if self._host not in hosts:
            return {}
        if self._attributes is not None and time.monotonic() - self._measured_at < FRESH:
            return {self._host: self._attributes}
        return self._measure()

    async def _measure(self) -> Mapping[str, HostAttributes | DriverError]:
        async with self._measuring:
            if self._attributes is None or time.monotonic() - self._measured_at >= FRESH:
                age = time.monotonic() - self._sample.when
                if age > LONGEST_WINDOW:
                    self._sample = self._load()
                    age = 0.0
                if age < WINDOW:
                    await asyncio.sleep(WINDOW - age)
                # The home may be on a file server that takes its time.
                self._attributes = await asyncio.to_thread(self._figures)
                self._measured_at = time.monotonic()
            return {self._host: self._attributes}

    def _prepare(self) -> None:
        try:
            import psutil
        except ImportError:
            raise MissingDependencyError("psutil", "local") from None
        self._cpus = os.sched_getaffinity(0)
        self._slots = self.options.slots or len(self._cpus)
        name, version = _operating_system()
        frequency = psutil.cpu_freq()
        self._constant = {
            "HOSTNAME": self._host,
            "ARCH": platform.machine(),
            "OS_NAME": name,
            "OS_VERSION": version,
            "CPU_MODEL": _cpu_model(),
            "CPU_MHZ": round(frequency.max or frequency.current) if frequency else 0,
            "CPU_SMP": len(self._cpus),
            "NODECOUNT": self._slots,
            "FORK_NAME": JOB_MANAGER,
            "LRMS_NAME": JOB_MANAGER,
            # With this type gwd works out QUEUE_FREENODECOUNT[0] from CPU_FREE by itself, as
            # _figures does; what differs where --slots is below the free CPUs is only seen in
            # REQUIREMENTS and RANK: gwd hands out jobs by QUEUE_NODECOUNT.
            "LRMS_TYPE": "fork",
        }
        self._sample = self._load()

    def _load(self) -> _Load:
        import psutil

        free = total = 0.0
        for number, times in enumerate(psutil.cpu_times(percpu=True)):
            if number in self._cpus:
                free += times.idle + times.iowait
                # A guest's time is part of user and nice already.
                total += sum(times) - times.guest - times.guest_nice
        return _Load(time.monotonic(), free, total)

    def _figures(self) -> HostAttributes:
        import psutil

        load = self._load()
        total = load.total - self._sample.total
        # The kernel's counters may step back a little, and stand still in a stopped machine.
        share = min(max((load.free - self._sample.free) / total, 0.0), 1.0) if total > 0 else 1.0
        self._sample = load
        cpu_free = round(100 * len(self._cpus) * share)
        free_cpus = cpu_free // 100 + (cpu_free % 100 > BUSY_REMAINDER)
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage(_existing(self._home))
        host = self._constant | {
            "CPU_FREE": cpu_free,
            "SIZE_MEM_MB": memory.total // MIB,
            "FREE_MEM_MB": memory.available // MIB,
            "SIZE_DISK_MB": disk.total // MIB,
            "FREE_DISK_MB": disk.free // MIB,
        }
        queue: dict[str, Attribute] = {
            "QUEUE_NAME": self.options.queue,
            "QUEUE_NODECOUNT": self._slots,
            "QUEUE_FREENODECOUNT": min(free_cpus, self._slots),
            "QUEUE_MAXTIME": 0,
            "QUEUE_MAXCPUTIME": 0,
            "QUEUE_MAXCOUNT": self._slots,
            # The gwd of DRM4G gives jobs only to queues where these two are above 0.
            "QUEUE_MAXRUNNINGJOBS": self._slots,
            "QUEUE_MAXJOBSINQUEUE": self._slots,
            "QUEUE_STATUS": "enabled",
            "QUEUE_DISPATCHTYPE": "Immediate",
            "QUEUE_PRIORITY": "",
        }
        return HostAttributes(host, [queue])


def _home() -> Path:
    """The user's home directory; "/" where nobody knows one."""
    home = os.environ.get("HOME", "")
    if not home.startswith("/"):
        import pwd

        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            home = ""
    return Path("/", home)


def _existing(path: Path) -> str:
    """`path`, or the nearest folder above it that is there and can be reached."""
    for folder in (path, *path.parents):
        try:
            os.statvfs(folder)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        return str(folder)
    return "/"


def _operating_system() -> tuple[str, str]:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return release.get("ID", platform.system()), release.get("VERSION_ID", platform.release())


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model"):
            return " ".join(value.split())
    return platform.processor()


DRIVER = LocalInformation
