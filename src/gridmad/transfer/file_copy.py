"""Copies one file of this machine so that it is there whole or not at all.

The bytes go to a temporary file beside the destination, which takes the destination's name
when it is complete.  The source may grow meanwhile, as a log does: what it holds when its
end is reached is copied.  One that shrinks was replaced under our hands: an error.

A temporary file's name tells the process that writes it.  What a killed one left is removed
by the next that writes into the folder.
"""
# System calls on plain names; objects would cost more than the calls:
# ruff: noqa: PTH104, PTH108

import contextlib
import errno
import itertools
import os
import re
import stat
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from gridmad.errors import DriverError

Check = Callable[[], None]
"""Called between slices; raises DriverError when the work is to end."""

_SLICE = 8 << 20
"""Bytes the kernel copies at a time: some 10 ms between two checks."""
_BUFFER = 1 << 20
_NULL_DEVICE = os.makedev(1, 3)
_NOT_HERE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EOPNOTSUPP, errno.EPERM})
"""How a kernel or file system says that it cannot copy between these two files."""

_TEMPORARY = re.compile(
    r"\.gridmad-(.+)-([0-9a-f]{8}-[0-9]+)-([0-9]+)-([0-9]+)-[0-9a-f]+", re.DOTALL | re.ASCII
)
_DAY = 86_400.0
_MAX_FOLDERS = 10_000

_tidied: set[str] = set()
_numbers = itertools.count()


def copy_file(
    source: str, destination: str, *, is_executable: bool, umask: int, check: Check
) -> None:
    """Copy a regular file to an absolute path; DriverError says which side failed and why.

    A new file gets the source's permissions under `umask`, an existing one keeps its own
    (as cp does); `is_executable` lets who may read it execute it, under `umask`.  Where the
    destination is a link of the user's own, the file that it names is replaced.  From and to
    the null device there is nothing to copy.
    """
    source_file, status = open_source(source)
    try:
        target = Target(destination, status.st_mode, is_executable=is_executable, umask=umask)
        if target.is_null_device:
            return
        if target.existing is not None and os.path.samestat(status, target.existing):
            if target.mode != stat.S_IMODE(target.existing.st_mode):
                os.fchmod(source_file, target.mode)
            return
        try:
            with target:
                copied = _copy_contents(source_file, target.file, status, check)
                if copied < status.st_size:
                    raise DriverError(
                        f"cannot read {source}: it shrank from {status.st_size} to {copied} bytes "
                        "while it was copied"
                    )
                target.put_in_place(copied, check)
        except OSError as error:
            raise DriverError(f"cannot copy {source} to {destination}: {error.strerror}") from None
    finally:
        os.close(source_file)


def open_source(path: str) -> tuple[int, os.stat_result]:
    """Open a file to be copied: a regular one or the null device."""
    try:
        # O_NONBLOCK: opening a named pipe would wait for its writer.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise DriverError(f"cannot read {path}: {error.strerror}") from None
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) and not _is_null_device(status):
        os.close(file)
        raise DriverError(f"cannot read {path}: it is {_kind(status.st_mode)}")
    return file, status


class Target:
    """A file that is about to be written: under a temporary name, until it is whole.

    `permissions` are those of its source, which a new file gets under `umask`.  Entered, it is
    open as `file`; left without `put_in_place`, nothing of it remains.
    """

    def __init__(
        self, destination: str, permissions: int, *, is_executable: bool, umask: int
    ) -> None:
        self._destination, self.existing = _resolve(destination)
        self.is_null_device = self.existing is not None and _is_null_device(self.existing)
        kept = permissions & ~umask if self.existing is None else self.existing.st_mode
        mode = kept & 0o777
        if is_executable:
            mode |= (mode & 0o444) >> 2 & ~umask
        self.mode = mode
        self.file = -1
        self._temporary = ""

    def __enter__(self) -> Self:
        folder = self._destination.rpartition("/")[0]
        if folder not in _tidied:
            if len(_tidied) >= _MAX_FOLDERS:
                _tidied.clear()
            _tidied.add(folder)
            _remove_left_behind(folder or "/")
        temporary = f"{folder}/{temporary_name()}"
        try:
            self.file = os.open(
                temporary,
                os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
            )
        except OSError as error:
            raise DriverError(f"cannot write {self._destination}: {error.strerror}") from None
        self._temporary = temporary
        return self

    def put_in_place(self, size: int, check: Check) -> None:
        """Give the file its name, where it has `size` bytes.  Raises OSError and DriverError."""
        written = os.fstat(self.file).st_size
        if written != size:
            raise DriverError(
                f"cannot write {self._destination}: {written} of {size} bytes arrived"
            )
        os.fchmod(self.file, self.mode)
        file, self.file = self.file, -1
        os.close(file)  # may be where NFS tells that there was no space
        # Who gave the copy up meanwhile may have asked for another one.
        check()
        os.rename(self._temporary, self._destination)
        self._temporary = ""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The name goes first: to free what a long file holds takes longer than a stop may.
        if self._temporary:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)
        if self.file >= 0:
            with contextlib.suppress(OSError):
                os.close(self.file)
            self.file = -1


def _resolve(path: str) -> tuple[str, os.stat_result | None]:
    """Where to write, and what is there."""
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            # In a folder that all may write to, another user's link is a trap.
            if status.st_uid != os.geteuid():
                raise DriverError(f"cannot write {path}: it is another user's symbolic link")
            path = os.path.realpath(path)
            status = os.lstat(path)
    except FileNotFoundError:
        return path, None
    except OSError as error:
        raise DriverError(f"cannot write {path}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode) and not _is_null_device(status):
        raise DriverError(f"cannot write {path}: it is {_kind(status.st_mode)}")
    return path, status


def temporary_name() -> str:
    """A name that nobody else uses, of a file in whatever folder."""
    return f"{_prefix()}-{next(_numbers):x}"


@cache
def _pids_known() -> str:
    """Where and while a process id names a process: `BOOT-NAMESPACE`."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    return f"{boot[:8]}-{Path('/proc/self/ns/pid').stat().st_ino}"


@cache
def _prefix() -> str:
    """How the names of this process's temporary files begin."""
    pid = os.getpid()
    return f".gridmad-{os.uname().nodename}-{_pids_known()}-{pid}-{_start_time(pid)}"


def _start_time(pid: int) -> int | None:
    """Clock ticks since boot (proc(5)); None where no such process runs."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name in parentheses may itself hold blanks and parentheses.
    return int(text.rpartition(b") ")[2].split()[19])


def _remove_left_behind(folder: str) -> None:
    """Remove this user's temporary files whose processes were killed."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if found := _TEMPORARY.fullmatch(entry.name):
                status = entry.stat(follow_symlinks=False)
                is_own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
                if is_own and _is_left_behind(found, status.st_mtime):
                    os.unlink(entry.path)


def _is_left_behind(name: re.Match[str], written_at: float) -> bool:
    """Whether nobody writes the file any more.

    Another machine's processes cannot be seen: their files are left to it.  Nor can those of
    another boot or container of this machine: their files go when a day has passed.
    """
    host, pids_known, pid, start_time = name.groups()
    if host != os.uname().nodename:
        return False
    if pids_known != _pids_known():
        return time.time() - written_at > _DAY
    return _start_time(int(pid)) != int(start_time)


def _copy_contents(source: int, destination: int, status: os.stat_result, check: Check) -> int:
    """Copy up to the source's end; returns its position."""
    position = 0
    if status.st_blocks * 512 < status.st_size:
        position = _copy_around_holes(source, destination, status.st_size, check)
    return position + _copy_bytes(source, destination, status.st_size - position, None, check)


def _copy_around_holes(source: int, destination: int, size: int, check: Check) -> int:
    """Copy all but the holes; returns the position reached, 0 where none can be told."""
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                break
            position = size
            os.ftruncate(destination, size)
            break
        position = min(os.lseek(source, start, os.SEEK_HOLE), size)
        os.lseek(source, start, os.SEEK_SET)
        os.lseek(destination, start, os.SEEK_SET)
        length = position - start
        _copy_bytes(source, destination, length, length, check)
    os.lseek(source, position, os.SEEK_SET)
    os.lseek(destination, position, os.SEEK_SET)
    return min(position, os.fstat(source).st_size)


def _copy_bytes(
    source: int, destination: int, expected: int, limit: int | None, check: Check
) -> int:
    """Copy from both files' positions to the end or `limit`; returns how many bytes."""
    # What says that it is empty may be a file of /proc, which can only be read.
    methods = (_copy_range, _send, _read_and_write) if expected else (_read_and_write,)
    copied = 0
    for method in methods:
        try:
            while limit is None or copied < limit:
                count = method(
                    source, destination, _SLICE if limit is None else min(_SLICE, limit - copied)
                )
                if count == 0:
                    break
                copied += count
                check()
        except OSError as error:
            if error.errno not in _NOT_HERE or method is _read_and_write:
                raise
        else:
            # Some file systems answer "the end" at once where they mean "not here".
            if copied >= expected:
                break
    return copied


def _copy_range(source: int, destination: int, length: int) -> int:
    return os.copy_file_range(source, destination, length)


def _send(source: int, destination: int, length: int) -> int:
    # Without an offset sendfile moves the source's own position, as copy_file_range does.
    return os.sendfile(destination, source, None, length)


def _read_and_write(source: int, destination: int, length: int) -> int:
    data = memoryview(os.read(source, min(length, _BUFFER)))
    copied = len(data)
    while data:
        data = data[os.write(destination, data) :]
    return copied


def _is_null_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_DEVICE


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFLNK: "a symbolic link",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")
