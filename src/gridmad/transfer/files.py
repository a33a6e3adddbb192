"""The files of this machine, by their URLs.  Everything here may wait for a disk: it runs in
threads.

RMDIR takes nothing but job directories, `~/.gw_<user>_<jid>` and what is below them, unless
--rmdir-anywhere is given; "/", the home directory and what holds it are never removed.
MKDIR makes job directories with mode 0700, since credentials lie in them, and others under
the umask.
"""

import argparse
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gridmad.driver import file_name
from gridmad.errors import DriverError
from gridmad.options import seconds
from gridmad.transfer.driver import COPY_DEADLINE
from gridmad.transfer.file_copy import Target, copy_file, open_source
from gridmad.transfer.model import Copy
from gridmad.transfer.tree import remove_tree
from gridmad.transfer.url import is_job_directory, parse

_ALWAYS_HERE = frozenset({"", "localhost", "127.0.0.1", "::1"})
_JOB_DIRECTORY_MODE = 0o700
_NEW_FILE_MODE = 0o666


class LocalFiles:
    """What is done with files and directories."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._names = _ALWAYS_HERE | {name.lower() for name in options.host}
        self._full_name: str | None = None
        self.time_limit: float = options.timeout or math.inf
        """Seconds for a copy."""
        self._deadline: float = options.deadline or COPY_DEADLINE
        self.longest = self._deadline - min(1.0, self._deadline / 10)
        """Seconds after which a copy is not put in place any more: some time before the daemon's
        own deadline, which leaves the threads running."""
        self._can_remove_anywhere: bool = options.rmdir_anywhere
        self._has_ended = threading.Event()
        self._umask = os.umask(0o077)
        os.umask(self._umask)

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare --host, --timeout and --rmdir-anywhere."""
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

    def stop(self) -> None:
        """Let what is under way end."""
        self._has_ended.set()

    def copy(self, end: float, copy: Copy) -> None:
        """Copy a file, by `end` (time.monotonic)."""
        check = self.check(end)
        check()
        copy_file(
            self._path(copy.source),
            self._path(copy.destination),
            is_executable=copy.is_executable,
            umask=self._umask,
            check=check,
        )

    def open_source(self, url: str) -> tuple[int, os.stat_result]:
        """Open a file to be copied elsewhere: its descriptor and status."""
        return open_source(self._path(url))

    def target(self, url: str, *, is_executable: bool) -> Target:
        """A file to be written with what comes from elsewhere."""
        return Target(
            self._path(url), _NEW_FILE_MODE, is_executable=is_executable, umask=self._umask
        )

    def make_directories(self, url: str) -> None:
        """Make a directory and its parents."""
        path = self._path(url)
        try:
            _make_directories(path.rstrip("/") or "/", _home().rstrip("/"))
        except OSError as error:
            raise DriverError(f"cannot make {path}: {error.strerror}") from None

    def remove_tree(self, url: str) -> None:
        """Remove a directory with all it holds."""
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
            remove_tree(parent, steps[-1], path, self.check())
        finally:
            os.close(parent)

    def require(self, url: str) -> None:
        """Raises DriverError where there is no file or directory."""
        path = self._path(url)
        try:
            Path(path).stat()
        except OSError as error:
            raise DriverError(f"{path}: {error.strerror}") from None

    def check(self, end: float = math.inf) -> Callable[[], None]:
        """What raises DriverError once the driver is stopped or the time limit or `end`
        (time.monotonic) has passed.
        """
        limit = time.monotonic() + self.time_limit

        def check() -> None:
            if self._has_ended.is_set():
                raise DriverError("the driver was stopped")
            now = time.monotonic()
            if now > limit:
                raise DriverError(f"not done within {self.time_limit:g} seconds")
            if now > end:
                raise DriverError(f"not done within the deadline of {self._deadline:g} seconds")

        return check

    def _refuse_precious(self, path: str) -> None:
        home = os.path.realpath(_home()).rstrip("/")
        if f"{home}/".startswith(f"{path}/"):
            raise DriverError(f"{path} is not removed: it is or holds the home directory")
        if not self._can_remove_anywhere and not _is_in_job_directory(path, home):
            raise DriverError(
                f"{path} is not removed: it is no job directory {home}/.gw_USER_JID "
                "(--rmdir-anywhere allows it)"
            )

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
    return path.startswith(f"{home}/") and is_job_directory(path[len(home) + 1 :].partition("/")[0])


def _make_directories(path: str, home: str) -> None:
    mode = _JOB_DIRECTORY_MODE if _is_in_job_directory(path, home) else 0o777
    try:
        Path(path).mkdir(mode, exist_ok=True)
    except FileNotFoundError:
        _make_directories(path.rpartition("/")[0].rstrip("/") or "/", home)
        Path(path).mkdir(mode, exist_ok=True)
