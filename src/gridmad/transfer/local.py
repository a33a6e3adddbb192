"""gw_tm_mad_local: files of this machine, for jobs that run on it.

file: URLs and bare paths are local; so are the URLs of any other scheme whose host is this
one, with "~" as the user's home directory.

RMDIR takes nothing but job directories, `~/.gw_<user>_<jid>` and what is below them, unless
--rmdir-anywhere is given; "/", the home directory and what holds it are never removed.
MKDIR makes job directories with mode 0700, since credentials lie in them, and others under
the umask.
"""

import argparse
import asyncio
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ClassVar

from gridmad.driver import Batch, file_name
from gridmad.errors import DriverError
from gridmad.options import count, seconds
from gridmad.transfer.driver import COPY_DEADLINE, TransferDriver
from gridmad.transfer.file_copy import copy_file
from gridmad.transfer.model import Copy
from gridmad.transfer.tree import remove_tree
from gridmad.transfer.url import parse

_ALWAYS_HERE = frozenset({"", "localhost", "127.0.0.1", "::1"})
_JOB_DIRECTORY = re.compile(r"\.gw_.+_[0-9]+", re.DOTALL | re.ASCII)
_JOB_DIRECTORY_MODE = 0o700
_DIRECTORY_STREAMS = 2
_MOST_STREAMS = 256


class LocalTransfer(TransferDriver):
    """Serves every request in a thread, since any file system may be a slow one."""

    summary: ClassVar[str] = "Transfer driver for files of this machine"

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._names = _ALWAYS_HERE | {name.lower() for name in options.host}
        self._full_name: str | None = None
        self._time_limit: float = options.timeout
        self._deadline: float = options.deadline or COPY_DEADLINE
        self._can_remove_anywhere: bool = options.rmdir_anywhere
        self._has_ended = threading.Event()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        # Directories have threads of their own: they do not wait for long copies.
        self._copying = ThreadPoolExecutor(options.streams, "copy")
        self._directories = ThreadPoolExecutor(_DIRECTORY_STREAMS, "directory")

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare this driver's own options."""
        parser.add_argument(
            "--host",
            action="append",
            type=_host_name,
            default=[],
            metavar="NAME",
            help="another name under which this machine occurs in URLs (may be repeated); "
            "its host name is known",
        )
        parser.add_argument(
            "--streams",
            type=partial(count, most=_MOST_STREAMS),
            default=4,
            metavar="N",
            help="copy at most N files at a time (default: %(default)s)",
        )
        parser.add_argument(
            "--timeout",
            type=_time_limit,
            default=3600.0,
            metavar="SECONDS",
            help="give a copy up after this time, 0 for never (default: %(default)g)",
        )
        parser.add_argument(
            "--rmdir-anywhere",
            action="store_true",
            help="let RMDIR remove directories that are not job directories (~/.gw_USER_JID) too",
        )

    async def stop(self) -> None:
        """End the copies under way; they leave nothing behind."""
        self._has_ended.set()
        self._directories.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._copying.shutdown, cancel_futures=True)

    async def copy(self, copies: Batch[Copy, None]) -> None:
        """Copy files."""
        # Some time before the daemon's own deadline, which leaves the threads running.
        end = time.monotonic() + self._deadline - min(1.0, self._deadline / 10)
        await copies.each_in_thread(self._copying, partial(self._copy, end))

    async def mkdir(self, urls: Batch[str, None]) -> None:
        """Make directories."""
        await urls.each_in_thread(self._directories, self._mkdir)

    async def rmdir(self, urls: Batch[str, None]) -> None:
        """Remove directories."""
        await urls.each_in_thread(self._directories, self._rmdir)

    async def exists(self, urls: Batch[str, None]) -> None:
        """Look for files and directories."""
        await urls.each_in_thread(self._directories, self._exists)

    def _copy(self, end: float, copy: Copy) -> None:
        check = self._check(end)
        check()
        copy_file(
            self._path(copy.source),
            self._path(copy.destination),
            is_executable=copy.is_executable,
            umask=self._umask,
            check=check,
        )

    def _mkdir(self, url: str) -> None:
        path = self._path(url)
        try:
            _make_directories(path.rstrip("/") or "/", _home().rstrip("/"))
        except OSError as error:
            raise DriverError(f"cannot make {path}: {error.strerror}") from None

    def _rmdir(self, url: str) -> None:
        path = self._path(url)
        steps = [step for step in path.split("/") if step not in {"", "."}]
        if ".." in steps:
            raise DriverError(f"{path} is not removed: it has '..' in it")
        if not steps:
            raise DriverError("/ is not removed")
        try:
            parent = os.open("/" + "/".join(steps[:-1]), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            raise DriverError(f"cannot remove {path}: {error.strerror}") from None
        try:
            # The kernel's own name of what was opened: no link in it, and none can come in.
            folder = str(Path(f"/proc/self/fd/{parent}").readlink()).rstrip("/")
            self._refuse_precious(f"{folder}/{steps[-1]}")
            remove_tree(parent, steps[-1], path, self._check())
        finally:
            os.close(parent)

    def _refuse_precious(self, path: str) -> None:
        home = os.path.realpath(_home()).rstrip("/")
        if f"{home}/".startswith(f"{path}/"):
            raise DriverError(f"{path} is not removed: it is or holds the home directory")
        if not self._can_remove_anywhere and not _is_in_job_directory(path, home):
            raise DriverError(
                f"{path} is not removed: it is no job directory {home}/.gw_USER_JID "
                "(--rmdir-anywhere allows it)"
            )

    def _exists(self, url: str) -> None:
        path = self._path(url)
        try:
            Path(path).stat()
        except OSError as error:
            raise DriverError(f"{path}: {error.strerror}") from None

    def _path(self, text: str) -> str:
        url = parse(text)
        if not self._is_here(url.host):
            raise DriverError(
                f"{text} is not on this machine: {url.host} is none of its names (--host adds one)"
            )
        user = url.home_user
        path = url.path if user is None else f"{_home(user)}/{url.steps}"
        # Requests are UTF-8, whatever the locale says about the names of files.
        return file_name(path)

    def _is_here(self, host: str) -> bool:
        if host in self._names:
            return True
        if self._full_name is None:
            # May ask a name server: here, in a thread, and only for a host not known yet.
            name = socket.gethostname().lower()
            self._names |= {name, name.partition(".")[0]}
            if host in self._names:
                return True
            self._full_name = socket.getfqdn().lower()
        return host == self._full_name

    def _check(self, end: float = math.inf) -> Callable[[], None]:
        """What raises DriverError once the driver is stopped or the time limit or `end`
        (time.monotonic) has passed.
        """
        limit = time.monotonic() + self._time_limit if self._time_limit else math.inf

        def check() -> None:
            if self._has_ended.is_set():
                raise DriverError("the driver was stopped")
            now = time.monotonic()
            if now > limit:
                raise DriverError(f"not done within {self._time_limit:g} seconds")
            if now > end:
                raise DriverError(f"not done within the deadline of {self._deadline:g} seconds")

        return check


def _host_name(text: str) -> str:
    if not re.fullmatch(r"[^\s/@\[\]]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a host")
    return text


def _time_limit(text: str) -> float:
    return 0.0 if text == "0" else seconds(text)


def _home(user: str = "") -> str:
    """A home directory, one's own for ""; no I/O where HOME is set."""
    home = os.environ.get("HOME", "")
    if not user and home.startswith("/"):
        return home
    import pwd

    try:
        entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.getuid())
    except KeyError:
        raise DriverError(f"no user {user or os.getuid()} is known here") from None
    return entry.pw_dir


def _is_in_job_directory(path: str, home: str) -> bool:
    return path.startswith(f"{home}/") and bool(
        _JOB_DIRECTORY.fullmatch(path[len(home) + 1 :].partition("/")[0])
    )


def _make_directories(path: str, home: str) -> None:
    mode = _JOB_DIRECTORY_MODE if _is_in_job_directory(path, home) else 0o777
    try:
        Path(path).mkdir(mode, exist_ok=True)
    except FileNotFoundError:
        _make_directories(path.rpartition("/")[0].rstrip("/") or "/", home)
        Path(path).mkdir(mode, exist_ok=True)


DRIVER = LocalTransfer
