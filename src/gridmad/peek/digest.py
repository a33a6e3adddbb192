"""SHA-256 of what a client has written, for the comparison at the end (PROTOCOL.md, 5)."""

import hashlib
import os
import threading
from collections.abc import Iterable
from typing import Final

READ_SIZE: Final = 1 << 20


class FileDigest:
    """The digest of a file's section that begins at `base`, while it grows.

    What is there already is read by a thread of its own, which follows what is written
    meanwhile; when it has caught up, digesting goes on with the data as it is written.
    """

    def __init__(self, file: int, base: int, length: int) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._at = base
        self._length = length
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._error: OSError | None = None
        self._thread: threading.Thread | None = None
        if length > base:
            self._thread = threading.Thread(target=self._catch_up, name="digest", daemon=True)
            self._thread.start()

    def written(self, data: Iterable[bytes], length: int) -> None:
        """That much was written behind what was there."""
        if self._thread is not None:
            with self._lock:
                if self._at < self._length:
                    self._length += length
                    return
            self._thread.join()
            self._thread = None
        update = self._hash.update
        for piece in data:
            update(piece)
        self._at += length
        self._length += length

    def hexdigest(self) -> str | None:
        """Of the whole section, once it was read; None where that failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return None if self._error is not None or self._is_cancelled else self._hash.hexdigest()

    def cancel(self) -> None:
        """Read no further: the file will be closed."""
        self._is_cancelled = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _catch_up(self) -> None:
        try:
            while not self._is_cancelled:
                with self._lock:
                    size = min(READ_SIZE, self._length - self._at)
                data = os.pread(self._file, size, self._at)
                if not data:
                    raise OSError("the file became shorter")
                self._hash.update(data)
                with self._lock:
                    self._at += len(data)
                    if self._at == self._length:
                        return
        except OSError as error:
            self._error = error
            with self._lock:
                self._at = self._length
