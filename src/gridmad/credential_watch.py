"""Watches a credential on disk, so that it is renewed without a restart.

The file is looked at (one stat) whenever a back end asks for the credential, and now and then
by a timer, which also says when it was renewed, when it will soon end, and when it has ended.
A file that others may read or that belongs to another user is refused, as Globus does.
"""

import argparse
import asyncio
import logging
import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gridmad.credential import (
    MAX_BYTES,
    WARNINGS,
    Agenda,
    Credential,
    CredentialSource,
    read_credential,
    validity,
)
from gridmad.driver import describe
from gridmad.errors import CredentialError, DriverError
from gridmad.options import seconds

log = logging.getLogger(__name__)

INTERVAL: Final = 45.0
"""Seconds between looks at a file that nobody asks for."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare when the end of a credential is warned of."""
    parser.add_argument(
        "--credential-warnings",
        metavar="SECONDS[,SECONDS...]",
        type=lambda text: tuple(seconds(part) for part in text.split(",")),
        default=WARNINGS,
        help="how long before its end a credential is warned of in the log (default: "
        f"{','.join(f'{left:g}' for left in WARNINGS)})",
    )


class _Version(NamedTuple):
    """What changes when a file is written or replaced."""

    path: str
    inode: int
    size: int
    modified: int
    changed: int


class CredentialWatch:
    """The credential of one source, as it is now.

    `warnings` are the seconds before its end at which a warning is logged.
    """

    def __init__(
        self,
        source: CredentialSource,
        *,
        warnings: Sequence[float] = WARNINGS,
        interval: float = INTERVAL,
    ) -> None:
        self.source = source
        self._warnings = warnings
        self._interval = interval
        self._version: _Version | None = None
        self._credential: Credential | None = None
        self._agenda = Agenda(float("inf"), 0.0, ())
        self._problem = ""
        self._tell: Callable[[str], None] = log.info
        self._lock = asyncio.Lock()

    async def require_valid(self) -> Credential:
        """The credential, read again where its file has changed.

        Raises CredentialError where there is none that is valid now.
        """
        async with self._lock:
            credential = await self._look()
        if credential.end <= time.time():
            raise CredentialError(
                f"the {self._name(credential.path)} ended on {time.ctime(credential.end)}"
            )
        return credential

    async def run(self, tell: Callable[[str], None]) -> None:
        """Watch until cancelled; `tell` gets a line for people at first and at each renewal."""
        self._tell = tell
        if self._credential is not None:  # a back end was faster
            self._announce(self._credential)
        while True:
            try:
                async with self._lock:
                    await self._look()
            except DriverError as error:
                self._report(str(error))
            now = time.time()
            self._remind(now)
            await asyncio.sleep(min(self._interval, self._agenda.wait(now)))

    async def _look(self) -> Credential:
        """Read the file where it is not the one that was read before."""
        try:
            found = await asyncio.to_thread(self._read)
        except DriverError:
            self._version, self._credential = None, None
            raise
        if found is not None:
            self._version, credential = found
            if credential != self._credential:
                self._take(credential)
        assert self._credential is not None
        return self._credential

    def _read(self) -> tuple[_Version, Credential] | None:
        """The credential and its file's version; None where that is the known one."""
        kind, value = self.source.kind, self.source.value
        if not self.source.paths:
            if self._credential is not None:
                return None
            if not value:
                raise CredentialError(f"there is no {kind.value}")
            path, version, content = "", _Version("", 0, 0, 0, 0), os.fsencode(value)
        else:
            paths = self.source.paths
            path = next((path for path in paths if Path(path).exists()), paths[-1])
            try:
                with open(path, "rb", opener=_open_at_once) as file:
                    version = _check(path, os.fstat(file.fileno()))
                    if version == self._version:
                        return None
                    content = file.read(MAX_BYTES + 1)
            except OSError as error:
                raise CredentialError(f"the {kind.value} {describe(error)}") from None
            except CredentialError as error:
                raise CredentialError(f"the {self._name(path)}: {error}") from None
        try:
            return version, read_credential(kind, content, path)
        except CredentialError as error:
            raise CredentialError(f"the {self._name(path)}: {error}") from None

    def _take(self, credential: Credential) -> None:
        self._credential, self._problem = credential, ""
        self._agenda = Agenda(credential.end, time.time(), self._warnings)
        log.info("the %s was read", self._name(credential.path))
        self._announce(credential)

    def _announce(self, credential: Credential) -> None:
        if credential.end > time.time():
            self._tell(validity(credential.end))

    def _remind(self, now: float) -> None:
        left = self._agenda.take(now)
        if left is None or self._credential is None:
            return
        name = self._name(self._credential.path)
        if left > 0:
            log.warning("the %s will end on %s", name, time.ctime(self._credential.end))
        else:
            self._report(f"the {name} has ended; jobs keep their last states till it is renewed")

    def _report(self, problem: str) -> None:
        """Log what is wrong, once."""
        if problem != self._problem:
            self._problem = problem
            log.error("%s", problem)

    def _name(self, path: str) -> str:
        return f"{self.source.kind.value} {path}".rstrip()


def _open_at_once(path: str, flags: int) -> int:
    """Never waits for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _check(path: str, status: os.stat_result) -> _Version:
    """The version of a file that only its owner, who we are, can read."""
    if not stat.S_ISREG(status.st_mode):
        raise CredentialError("it is no file")
    if status.st_uid != os.geteuid():
        raise CredentialError(f"it belongs to user {status.st_uid}, and this is {os.geteuid()}")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise CredentialError(f"its mode is {mode:04o}; nobody but its owner may read it (0600)")
    if status.st_size > MAX_BYTES:
        raise CredentialError(f"it has more than {MAX_BYTES} bytes")
    return _Version(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
