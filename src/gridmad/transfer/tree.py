"""Removes a directory tree without ever leaving it.

Every directory is entered by its descriptor: a symbolic link is removed, never followed,
whoever exchanges what meanwhile.  Another file system mounted inside is left alone.
"""

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Callable
from pathlib import Path

from gridmad.errors import DriverError

Check = Callable[[], None]
"""Called between entries; raises DriverError when the work is to end."""

_DEEPEST = 64
"""Directories open at a time; what lies deeper is moved up before it is removed."""
_ATTEMPTS = 3
"""How often a directory is emptied when somebody goes on writing into it."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(parent: int, name: str, path: str, check: Check) -> None:
    """Remove the directory `name` in the directory open as `parent`; a missing one is fine.

    `path` names it in errors.  A symbolic link there is removed itself.  The user's own
    directories that are not writable are made so.
    """
    try:
        status = os.lstat(name, dir_fd=parent)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode):
        os.unlink(name, dir_fd=parent)
    elif stat.S_ISDIR(status.st_mode):
        _Removal(status.st_dev, check).remove(parent, name, path)
    else:
        raise DriverError(f"cannot remove {path}: it is no directory")


class _Removal:
    def __init__(self, device: int, check: Check) -> None:
        self._device = device
        self._check = check
        self._root = -1
        self._numbers = itertools.count()

    def remove(self, parent: int, name: str, path: str) -> None:
        root = self._open(parent, name, path)
        if root is None:
            return
        self._root = root
        attempts = 0
        try:
            while attempts < _ATTEMPTS:
                if self._empty(root, path, 1):
                    continue
                if _remove_empty(parent, name):
                    return
                attempts += 1
        except OSError as error:
            raise DriverError(f"cannot remove {path}: {error.strerror}") from None
        finally:
            os.close(root)
        raise DriverError(f"cannot remove {path}: something goes on writing into it")

    def _empty(self, folder: int, path: str, depth: int) -> bool:
        """Remove what a directory holds; true when something of it was moved to the root."""
        has_moved = False
        with os.scandir(folder) as entries:
            listing = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in listing:
            self._check()
            try:
                if not is_directory:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)
                elif self._remove_below(folder, name, path, depth):
                    has_moved = True
            except OSError as error:
                raise DriverError(f"cannot remove {path}/{name}: {error.strerror}") from None
        return has_moved

    def _remove_below(self, folder: int, name: str, path: str, depth: int) -> bool:
        path = f"{path}/{name}"
        child = self._open(folder, name, path)
        if child is None:
            return False
        try:
            if depth == _DEEPEST:
                unique = f".gridmad-{os.getpid()}-{next(self._numbers)}"
                os.rename(name, unique, src_dir_fd=folder, dst_dir_fd=self._root)
                return True
            has_moved = self._empty(child, path, depth + 1)
        finally:
            os.close(child)
        _remove_empty(folder, name)
        return has_moved

    def _open(self, parent: int, name: str, path: str) -> int | None:
        """Open a directory whose entries can be removed; None where it is gone."""
        try:
            folder = os.open(name, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            return None
        except PermissionError:
            _make_accessible(parent, name)
            folder = os.open(name, _DIRECTORY, dir_fd=parent)
        status = os.fstat(folder)
        if status.st_dev != self._device:
            os.close(folder)
            raise DriverError(f"cannot remove {path}: another file system is mounted there")
        if status.st_mode & stat.S_IRWXU != stat.S_IRWXU and status.st_uid == os.geteuid():
            os.fchmod(folder, stat.S_IRWXU)
        return folder


def _make_accessible(parent: int, name: str) -> None:
    # What may not be read can still be named by an O_PATH descriptor, which unlike a path
    # cannot be exchanged for a link; chmod takes it through /proc only.
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        Path(f"/proc/self/fd/{handle}").chmod(stat.S_IRWXU)
    finally:
        os.close(handle)


def _remove_empty(parent: int, name: str) -> bool:
    """Remove an empty directory; false where it is not empty."""
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True
