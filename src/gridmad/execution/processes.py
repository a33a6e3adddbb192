"""Processes of this machine, told apart for good, and the sessions they belong to.

A process id is used again after a while.  Together with the time its process started
(clock ticks since boot) and the id of that boot, it names one process.

Source: proc(5), pidfd_open(2).
"""

import contextlib
import os
import signal
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple


class ProcessStatus(NamedTuple):
    """What /proc/PID/stat says."""

    pid: int
    state: str
    """One letter: R, S, D, Z (ended, not waited for), T (stopped) ..."""
    session: int
    start_time: int
    """Clock ticks since boot."""

    @property
    def has_ended(self) -> bool:
        """It runs no more, though its parent may not know yet."""
        return self.state in ("Z", "X")


@cache
def host_name() -> str:
    """The name of this machine."""
    return os.uname().nodename


@cache
def boot_id() -> str:
    """The id of this boot of the machine; another one after each."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def status(pid: int) -> ProcessStatus | None:
    """What is known of a process; None where there is none."""
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    # The name in parentheses may itself hold blanks and parentheses.
    fields = text.rpartition(b") ")[2].split()
    return ProcessStatus(pid, fields[0].decode("ascii"), int(fields[3]), int(fields[19]))


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, for good."""

    host: str
    boot_id: str
    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity":
        """The process that has this id now.  Raises ProcessLookupError."""
        found = status(pid)
        if found is None:
            raise ProcessLookupError(f"no process {pid}")
        return cls(host_name(), boot_id(), pid, found.start_time)

    @classmethod
    def parse(cls, text: str) -> "ProcessIdentity":
        """The identity that `str` wrote.  Raises ValueError."""
        host, boot, pid, start_time = text.split("/")
        return cls(host, boot, int(pid), int(start_time))

    def __str__(self) -> str:
        return f"{self.host}/{self.boot_id}/{self.pid}/{self.start_time}"

    @property
    def is_here(self) -> bool:
        """It is or was a process of this machine, in whichever boot and under whichever name."""
        return self.boot_id == boot_id() or self.host == host_name()

    @property
    def is_alive(self) -> bool:
        """It runs on this machine."""
        if not self.is_here or self.boot_id != boot_id():
            return False
        found = status(self.pid)
        return found is not None and self._is(found) and not found.has_ended

    def _is(self, found: ProcessStatus) -> bool:
        return found.start_time == self.start_time

    def open(self) -> int | None:
        """A descriptor that becomes readable when the process ends; None if it has."""
        if not self.is_here or self.boot_id != boot_id():
            return None
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        # Only now is it sure that the id does not pass to another process meanwhile.
        if self.is_alive:
            return descriptor
        os.close(descriptor)
        return None


def send(process: ProcessStatus, *signals: signal.Signals) -> None:
    """Signal a process if it is still the one that was seen."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        descriptor = os.pidfd_open(process.pid)
        try:
            now = status(process.pid)
            if now is not None and now.start_time == process.start_time:
                for number in signals:
                    signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def members(
    sessions: Collection[int], marks: Mapping[bytes, int]
) -> dict[int, list[ProcessStatus]]:
    """The running processes of some sessions, each with its leader, by session id.

    One that left for a session of its own (setsid) is found by its environment: `marks`
    has for `NAME=value` the session that it came from.
    """
    found: dict[int, list[ProcessStatus]] = {session: [] for session in sessions}
    for process in _all():
        if process.has_ended:
            continue
        session: int | None = process.session
        if session not in found:
            session = _marked(process.pid, marks) if marks else None
        if session in found:
            found[session].append(process)
    return found


def first_child(pid: int) -> int | None:
    """The oldest child of a process that has one thread."""
    text = _read(f"/proc/{pid}/task/{pid}/children")
    return int(text.split(maxsplit=1)[0]) if text else None


def command_line(pid: int) -> list[bytes]:
    """The words that a process was started with; none where it is gone."""
    return (_read(f"/proc/{pid}/cmdline") or b"").split(b"\0")[:-1]


def find_by_argument(argument: str) -> Iterator[ProcessStatus]:
    """The running processes that were started with `argument` among their words."""
    wanted = os.fsencode(argument)
    return (process for process in _all() if wanted in command_line(process.pid))


def find_by_ending(endings: tuple[bytes, ...]) -> Iterator[ProcessStatus]:
    """The running processes that were started with a word that ends so."""
    for process in _all():
        if any(word.endswith(endings) for word in command_line(process.pid)):
            yield process


def _all() -> Iterator[ProcessStatus]:
    for name in os.listdir("/proc"):  # noqa: PTH208 - a third of the time of Path.iterdir
        if name.isdigit():
            process = status(int(name))
            if process is not None:
                yield process


def _marked(pid: int, marks: Mapping[bytes, int]) -> int | None:
    environment = _read(f"/proc/{pid}/environ")
    if environment:
        for variable in environment.split(b"\0"):
            if variable in marks:
                return marks[variable]
    return None


def _read(path: str) -> bytes | None:
    """A file of /proc; None where the process is gone or not ours to see."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - see _all
            return file.readall()
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return None
