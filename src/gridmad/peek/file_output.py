"""Files that a client writes: each byte once and in order (PROTOCOL.md, 9).

Of one source FILE is written, of both FILE has stdout and FILE.err stderr.  A journal beside
FILE knows how far both are.  The order is: files, journal, then whatever acknowledges.  A
process that is killed leaves a file that is longer than its journal says; the next one cuts
it.  Nothing is forced to the disk: a machine that crashes may leave a file shorter than its
journal says, which is refused.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gridmad.errors import UsageError
from gridmad.peek.digest import FileDigest
from gridmad.peek.errors import JournalError
from gridmad.peek.journal import SUFFIX, Journal, Position, Record
from gridmad.peek.terminal import NAMES

GATHER: Final = 1 << 18
"""Bytes that are written at once."""
MAX_PIECES: Final = 512
"""Pieces that are written at once; the kernel takes 1,024."""


@contextlib.contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turns what the file system says into a JournalError."""
    try:
        yield
    except OSError as error:
        raise JournalError(
            f"{path} cannot be written: {error.strerror}; what is recorded there is right, "
            "and the same command goes on from it"
        ) from None


def _refuse_special(path: Path) -> None:
    with reported(path):
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is no regular file")
    if path.name.endswith(SUFFIX) or not path.name:
        raise UsageError(f"{path} cannot be the name of an output file")


class _SourceFile:
    """The file of one source; `position` is what the next record says of it."""

    def __init__(self, path: Path, position: Position) -> None:
        self.path = path
        self.position = position
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._length = position.length
        self._digest: FileDigest | None = None
        with reported(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            self._check()
        except BaseException:
            os.close(self._file)
            raise
        self._restart_digest()

    def write(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size >= GATHER or len(self._pending) >= MAX_PIECES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if not self._pending:
            return
        pieces, size = self._pending, self._pending_size
        self._pending, self._pending_size = [], 0
        with reported(self.path):
            written = os.pwritev(self._file, pieces, self._length)
            if written < size:
                rest = memoryview(b"".join(pieces))[written:]
                while rest:
                    rest = rest[os.pwrite(self._file, rest, self._length + size - len(rest)) :]
        self._length += size
        if self._digest is not None:
            self._digest.written(pieces, size)

    def settle(self) -> None:
        """Let the position say what is in the file."""
        self.flush()
        self.position.length = self._length

    def place(self, offset: int) -> None:
        """The first byte that is taken of this attempt has that offset."""
        self.settle()
        self.position.origin = self.position.committed = offset
        self.position.base = self._length
        self.position.missing = 0
        self._restart_digest()

    def digest(self) -> str | None:
        """Of all bytes of the source; None where some are not there."""
        self.flush()
        return None if self._digest is None else self._digest.hexdigest()

    def give_up_digest(self) -> None:
        if self._digest is not None:
            self._digest.cancel()
            self._digest = None

    def close(self) -> None:
        self.give_up_digest()
        os.close(self._file)

    def _check(self) -> None:
        """Cut the file to what is recorded; JournalError or UsageError where that is not right."""
        with reported(self.path):
            status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{self.path} is no regular file")
        # The origin is recorded before the first byte is written.
        if self.position.origin is None and status.st_size > 0:
            raise UsageError(
                f"{self.path} exists already and has no journal to go on from: "
                "name another file, or move it away"
            )
        if status.st_size < self._length:
            raise JournalError(
                f"{self.path} has {status.st_size} bytes where its journal says {self._length}: "
                f"it was changed; remove {self.path} and its journal to begin anew"
            )
        if status.st_size > self._length:
            with reported(self.path):
                os.ftruncate(self._file, self._length)

    def _restart_digest(self) -> None:
        self.give_up_digest()
        if self.position.origin == 0 and self.position.missing == 0:
            self._digest = FileDigest(self._file, self.position.base, self._length)


class FileSink:
    """Writes one stream to its file or files, and knows where to go on.

    `client` is the identity to use, which is the one of before where the file is continued.
    UsageError where the file or its journal is of something else, JournalError where one
    of them cannot be written, is damaged, or is being written by another process.  After a
    JournalError what was committed is right, and the same command goes on from there.
    """

    def __init__(self, path: Path, stream: str, sources: set[int], client: str) -> None:
        self.path = path
        _refuse_special(path)
        self._journal = Journal(Journal.path_of(path))
        self._files: dict[int, _SourceFile] = {}
        is_new = self._journal.record is None
        self.is_resumed = not is_new
        """Whether the journal was there."""
        try:
            self._record = self._journal.record or Record(
                stream, client, positions={source: Position() for source in sources}
            )
            self._check(stream, sources)
            if is_new:
                self._journal.write(self._record)
            self._open()
        except BaseException:
            if is_new:
                self._journal.remove()
            self.close()
            raise

    @property
    def journal(self) -> Path:
        """Where the journal is."""
        return self._journal.path

    @property
    def client(self) -> str:
        """The identity of the client."""
        return self._record.client

    @property
    def epoch(self) -> int | None:
        """The attempt that is in the file; None where nothing is."""
        return self._record.epoch

    @property
    def positions(self) -> dict[int, int]:
        """Where to go on, for each source of which that is known."""
        return {
            source: position.committed
            for source, position in self._record.positions.items()
            if position.origin is not None
        }

    @property
    def origins(self) -> dict[int, int]:
        """The first offset that is in the file, for each source of which that is known."""
        return {
            source: position.origin
            for source, position in self._record.positions.items()
            if position.origin is not None
        }

    @property
    def missing(self) -> dict[int, int]:
        """Bytes of this attempt that gaps left out."""
        return {source: p.missing for source, p in self._record.positions.items()}

    @property
    def exit_code(self) -> int | None:
        """What `finished` was told: the stream is complete, and nothing is left to do."""
        return self._record.exit_code

    def place(self, epoch: int, source: int, offset: int) -> None:
        """What follows of a source begins at that offset of that attempt."""
        self._record.epoch = epoch
        self._files[source].place(offset)
        self.commit()

    def drain(self) -> None:
        """What follows comes from the park: a file takes all of it."""

    def write(self, source: int, offset: int, time: int, data: bytes) -> None:
        """Take the next bytes of a source.  They are written with others."""
        file = self._files[source]
        file.write(data)
        file.position.committed = offset + len(data)

    def gap(self, source: int, offset: int, length: int, reason: str) -> None:
        """Go on behind bytes that will not come."""
        position = self._files[source].position
        position.committed = offset + length
        position.missing += length
        self._files[source].give_up_digest()
        self._journal.note(
            f"epoch {self._record.epoch} {NAMES[source]} {offset} +{length} {reason}"
        )

    def attempt(self, epoch: int) -> None:
        """The job was started again: the files go on with its output."""
        for file in self._files.values():
            file.place(0)
        self._record.epoch = epoch
        self._journal.note(f"epoch {epoch} begins")

    def flush(self) -> None:
        """Write what was gathered."""
        for file in self._files.values():
            file.flush()

    def commit(self) -> None:
        """Write what was gathered, and then the journal: the next process goes on from here."""
        for file in self._files.values():
            file.settle()
        self._journal.write(self._record)

    def digest(self, source: int) -> str | None:
        """Of all bytes of a source in this attempt; None where some were not written."""
        return self._files[source].digest()

    def finished(self, exit_code: int) -> None:
        """The stream is complete."""
        self._record.exit_code = exit_code
        self.commit()

    def finish(self) -> None:
        """Nothing more follows."""
        self.flush()

    def close(self) -> None:
        """Close the files; what was not committed is cut by the next process."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._journal.close()

    def _check(self, stream: str, sources: set[int]) -> None:
        record, journal = self._record, self._journal.path
        if record.stream != stream:
            raise UsageError(
                f"{self.path} has the output of {record.stream}: name another file "
                f"(or remove it and {journal})"
            )
        if set(record.positions) != sources:
            had = " and ".join(NAMES[source] for source in record.positions)
            raise UsageError(f"{self.path} was begun with {had}: go on with the same")

    def _file_of(self, source: int) -> Path:
        if source == 2 and len(self._record.positions) > 1:
            return self.path.with_name(self.path.name + ".err")
        return self.path

    def _open(self) -> None:
        for source, position in self._record.positions.items():
            path = self._file_of(source)
            if position.length and not path.exists():
                raise JournalError(
                    f"{path} is gone, but its journal {self._journal.path} is there: "
                    "remove that to begin anew"
                )
            self._files[source] = _SourceFile(path, position)
