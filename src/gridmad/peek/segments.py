"""Segments: files without a name that hold what does not fit into memory.

The kernel removes them with the process that opened them, however it ends.
"""

import errno
import os
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# O_TMPFILE is younger than some file systems; each says so in its own way.
_NO_TMPFILE: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})


SPARE: Final = 2
"""Files that are kept to be written again: their pages are there, and new ones cost more
than what is written to them (measured: 0.5 against 0.1 ns a byte)."""


class NamelessFiles:
    """The files of a folder's segments, by default where temporary files go.

    Any thread may call.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._spare: list[int] = []

    def __del__(self) -> None:
        for descriptor in self._spare:
            os.close(descriptor)

    def take(self) -> int:
        """A file to write, from its beginning; OSError when none can be made."""
        try:
            return self._spare.pop()
        except IndexError:
            # Not before it is needed: where disks are full there may be no such place.
            return _open_nameless(self._folder or Path(tempfile.gettempdir()))

    def give_back(self, descriptor: int) -> None:
        """Nobody reads it any more."""
        if len(self._spare) < SPARE:
            self._spare.append(descriptor)
        else:
            os.close(descriptor)


class Segment:
    """One file of blocks, one behind the other; where each of them begins is kept in memory.

    A block has a number (of its first frame) and any further numbers to find it by, its key:
    forty bytes of memory for a block of some 192 KiB.  OSError when the file cannot be made or
    written; after that the segment is as before.
    """

    def __init__(self, files: NamelessFiles, keys: int) -> None:
        self._files = files
        self._descriptor = files.take()
        self._keys = [array("Q") for _ in range(keys)]
        self._positions = array("Q")
        self.size = 0

    def __del__(self) -> None:
        # A reader may still hold the segment that the spool has dropped.
        if hasattr(self, "_descriptor"):
            self._files.give_back(self._descriptor)

    def __len__(self) -> int:
        return len(self._positions)

    def append(self, key: Sequence[int], data: bytes) -> None:
        """Write a block behind the others."""
        view = memoryview(data)
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, view[written:], self.size + written)
        self._positions.append(self.size)
        for column, value in zip(self._keys, key, strict=True):
            column.append(value)
        self.size += written

    def key(self, index: int) -> tuple[int, ...]:
        """The key of a block."""
        return tuple(column[index] for column in self._keys)

    def find(self, column: int, value: int) -> int:
        """The last block whose key in that column is not above the value, or else the first.

        The values of the column have to rise.
        """
        return max(bisect_right(self._keys[column], value) - 1, 0)

    def read(self, index: int) -> bytes:
        """A block's data; any thread may read while another appends."""
        begin = self._positions[index]
        last = index + 1 == len(self._positions)
        end = self.size if last else self._positions[index + 1]
        pieces = []
        while begin < end:
            piece = os.pread(self._descriptor, end - begin, begin)
            if not piece:
                raise OSError(errno.EIO, "a spool segment was cut")
            pieces.append(piece)
            begin += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _open_nameless(folder: Path) -> int:
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    descriptor, path = tempfile.mkstemp(prefix=".msgpeek-", dir=folder)  # 0600
    Path(path).unlink()
    return descriptor
