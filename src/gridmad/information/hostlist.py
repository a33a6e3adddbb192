"""Host lists: GridWay's static format, re-read when its files change.

A list has a line for each host, `HOST [ATTRIBUTE_FILE]`; blank lines and those that begin
with "#" are passed over.  Paths are absolute, or relative to $GW_LOCATION.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gridmad.driver import file_name
from gridmad.errors import UsageError
from gridmad.information.attributes import parse_attributes
from gridmad.information.model import HostAttributes

log = logging.getLogger(__name__)

CHECK_INTERVAL = 0.1
"""Seconds between two looks at the files: a storm of requests costs one."""
CHECK_SHARE = 0.02
"""Of all time, the share that looking at very many files may take."""
LONGEST_INTERVAL = 5.0
"""Seconds after which the files are looked at again in any case."""
SETTLED = 50_000_000
"""Nanoseconds after which a file's time stamp tells a further change for sure."""

Signature = tuple[int, int, int]


def resolve(path: str) -> Path:
    """`path` below $GW_LOCATION, or where it is not there, below the current folder."""
    first, *others = _places(path)
    return next((other for other in others if not first.exists() and other.exists()), first)


def _places(path: str) -> list[Path]:
    """Where a file of that name may be."""
    location = os.environ.get("GW_LOCATION")
    here = Path(path).absolute()
    return list(dict.fromkeys([Path(location, path), here] if location else [here]))


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8-sig", "surrogateescape").split("\n")


class _File:
    """A file's bytes; `read` returns None while they are the ones that were read before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: Signature | None = None
        self._data: bytes | None = None

    def read(self) -> bytes | None:
        """New bytes; raises OSError where the file cannot be read, each time."""
        status = self._path.stat()
        signature = (status.st_mtime_ns, status.st_size, status.st_ino)
        if signature == self._signature:
            return None
        now = time.time_ns()
        data = self._path.read_bytes()
        # A file written just now may change again within one tick of its time stamp.
        is_settled = abs(now - status.st_mtime_ns) > SETTLED
        self._signature = signature if is_settled else None
        if data == self._data:
            return None
        self._data = data
        return data


@dataclass(slots=True)
class _Entry:
    """A line of the list: its host's attribute file and what was last read from it."""

    line: int
    path: Path | None
    file: _File | None
    attributes: HostAttributes | None = None


class HostList:
    """The hosts of a list, and the attributes that their files give them.

    What cannot be read is logged once; the rest holds, and what was read before from a file
    that has gone or broken holds, too.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises UsageError where there is no file at `path`."""
        self.path = resolve(path)
        if not self.path.is_file():
            places = " nor ".join(map(str, _places(path)))
            raise UsageError(f"-l {path}: no such host list: there is no file {places}")
        self.attributes: dict[str, HostAttributes] = {}
        """Of each host that has some, in the order of the list."""
        self._list = _File(self.path)
        self._entries: dict[str, _Entry] = {}
        self._clock = clock
        self._next_check = -float("inf")
        self._logged: set[str] = set()

    @property
    def hosts(self) -> list[str]:
        """Every host of the list, with attributes or without."""
        return list(self._entries)

    def refresh(self) -> None:
        """Take over what changed in the list and its files; raises nothing."""
        start = self._clock()
        if start < self._next_check:
            return
        is_changed = self._read_list()
        for entry in self._entries.values():
            is_changed |= self._read_attributes(entry)
        if is_changed:
            self.attributes = {
                host: entry.attributes
                for host, entry in self._entries.items()
                if entry.attributes is not None
            }
        end = self._clock()
        pause = max(CHECK_INTERVAL, (end - start) / CHECK_SHARE)
        self._next_check = end + min(pause, LONGEST_INTERVAL)

    def _read_list(self) -> bool:
        try:
            data = self._list.read()
        except OSError as error:
            self._complain(f"{self.path}: {error.strerror}: the hosts read before still hold")
            return False
        if data is None:
            return False
        self._logged.clear()
        entries: dict[str, _Entry] = {}
        for number, line in enumerate(_lines(data), 1):
            words = line.split(maxsplit=1)
            if not words or words[0].startswith("#"):
                continue
            host = words[0]
            if host in entries:
                self._complain(
                    f"{self.path}:{number}: host {host} stands on line {entries[host].line} "
                    "already: remove one of the two"
                )
                continue
            entries[host] = self._entry(host, number, words[1].strip() if words[1:] else None)
        self._entries = entries
        return True

    def _entry(self, host: str, number: int, name: str | None) -> _Entry:
        path = resolve(file_name(name)) if name is not None else None
        known = self._entries.get(host)
        if known is not None and known.path == path:
            known.line = number
            return known
        return _Entry(number, path, _File(path) if path else None)

    def _read_attributes(self, entry: _Entry) -> bool:
        if entry.file is None:
            return False
        try:
            data = entry.file.read()
        except OSError as error:
            kept = ": what was read before still holds" if entry.attributes else ""
            self._complain(
                f"{self.path}:{entry.line}: {entry.path}: {error.strerror}{kept}; "
                "restore the file or correct the line"
            )
            return False
        if data is None:
            return False
        attributes, problems = parse_attributes(data.decode("utf-8-sig", "replace"))
        for problem in problems:
            self._complain(f"{entry.path}:{problem.line}: {problem.text}")
        if not attributes.host and not attributes.queues:
            self._complain(f"{entry.path}: no attributes in it: write lines such as NODECOUNT=4")
            return False
        if attributes == entry.attributes:
            return False
        entry.attributes = attributes
        return True

    def _complain(self, text: str) -> None:
        if text not in self._logged:
            self._logged.add(text)
            log.warning("%s", text)
