"""Grid Engine's accounting file, which tells how jobs ended that qstat does not show any more.

The master writes it with a delay (15 seconds, unless accounting_flush_time says otherwise).  It is
not read by `qacct`, which reads all of it for each job.
"""

import asyncio
import itertools
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from gridmad.commands import Commands
from gridmad.driver import describe
from gridmad.errors import TransientError
from gridmad.execution.contact import group_name
from gridmad.execution.grid_engine import Record, records

log = logging.getLogger(__name__)

DEFAULT_ROOT: Final = "/var/lib/gridengine"
"""Debian's, whose tools do without SGE_ROOT."""
DEFAULT_CELL: Final = "default"
MAX_ENDS: Final = 100_000
"""Ends of jobs that are remembered from the accounting file: the last ones."""

_BLOCK: Final = 1 << 20
_GREP: Final = (
    f'exec grep -a -F -f - -- "${{1:-${{SGE_ROOT:-{DEFAULT_ROOT}}}'
    f'/${{SGE_CELL:-{DEFAULT_CELL}}}/common/accounting}}"'
)
_NONE_FOUND: Final = 1


class Accounting(ABC):
    """How our jobs ended, as the accounting file tells it."""

    @abstractmethod
    async def ends(self, tags: Collection[str]) -> Mapping[str, Record]:
        """Those of these jobs that ended, by their tags.  Raises TransientError."""

    @abstractmethod
    def close(self) -> None:
        """Nothing is asked any more."""


class AccountingFile(Accounting):
    """The file on this machine, read on from where it was last read."""

    def __init__(self, path: Path | None) -> None:
        root = os.environ.get("SGE_ROOT") or DEFAULT_ROOT
        cell = os.environ.get("SGE_CELL") or DEFAULT_CELL
        self._path = path or Path(root, cell, "common", "accounting")
        self._file: BinaryIO | None = None
        self._ends: dict[str, Record] = {}
        self._lock = threading.Lock()
        self._is_refused = False

    async def ends(self, tags: Collection[str]) -> Mapping[str, Record]:
        """Read in a thread."""
        try:
            return await asyncio.to_thread(self._known_ends, tags)
        except OSError as error:
            raise TransientError(describe(error)) from None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _known_ends(self, tags: Collection[str]) -> Mapping[str, Record]:
        with self._lock:
            self._read()
            return {tag: self._ends[tag] for tag in tags if tag in self._ends}

    def _read(self) -> None:
        """Read what is new; after it was rotated, the rest of the old file and the new one."""
        if self._file is not None:
            is_replaced = self._is_replaced(self._file)
            self._read_on(self._file)
            if not is_replaced:
                return
            self.close()
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            return  # nothing has ended yet
        except PermissionError as error:
            if not self._is_refused:
                log.warning("exit codes are known from status files only: %s", describe(error))
            self._is_refused = True
            return
        self._read_on(self._file)

    def _is_replaced(self, file: BinaryIO) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return not os.path.samestat(there, os.fstat(file.fileno())) or there.st_size < file.tell()

    def _read_on(self, file: BinaryIO) -> None:
        rest = b""
        while block := file.read(_BLOCK):
            block = rest + block
            end = block.rfind(b"\n") + 1
            rest = block[end:]
            self._ends.update((record.tag, record) for record in records(block[:end]))
        # Half a line is read again when it is whole.
        file.seek(-len(rest), os.SEEK_CUR)
        for tag in list(itertools.islice(self._ends, max(0, len(self._ends) - MAX_ENDS))):
            del self._ends[tag]


class RemoteAccountingFile(Accounting):
    """The file where the tools run, of which the lines of the jobs in question are fetched: one
    command that reads all of it, for jobs whose ends nothing else tells.
    """

    def __init__(self, path: Path | None, commands: Commands) -> None:
        self._path = "" if path is None else str(path)
        self._commands = commands
        self._is_refused = False

    async def ends(self, tags: Collection[str]) -> Mapping[str, Record]:
        """One grep."""
        groups = sorted({group_name(tag) for tag in tags})
        wanted = "".join(f":{group}:\n" for group in groups)
        finished = await self._commands.run(
            "/bin/sh", "-c", _GREP, "sh", self._path, given=wanted.encode()
        )
        if finished.exit_code > _NONE_FOUND and not self._is_refused:
            log.warning("exit codes are known from status files only: %s", finished.errors)
        self._is_refused = finished.exit_code > _NONE_FOUND
        return {record.tag: record for record in records(finished.output) if record.tag in tags}

    def close(self) -> None:
        """Nothing is open."""
