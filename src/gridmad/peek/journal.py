"""The journal beside a file that a client writes (PROTOCOL.md, 9).

    0       4       6       8                16
    +-------+-------+-------+----------------+
    | "MPKJ"|version| flags | count          |
    +-------+-------+-------+----------------+
    | client (16)                            |  16
    +-------+-------+-------+----------------+
    | epoch | exit  | size  | stream (128),  |  32, 36, 38, 40
    |       |       |       | `size` are used|
    +-------+-------+-------+----------------+
    | bytes of the list of gaps (8)          |  168
    +----------------------------------------+
    | stdout (48), stderr (48)               |  176: flags, committed, origin, base, length, missing
    +-------+--------------------------------+
    | CRC-32|                                   272
    +-------+

All numbers are little-endian.  The file holds this record twice, at 0 and at 4,096, which
are written in turn, each by one pwrite of less than a page: one that was being written when
the process or the machine died fails its checksum, and the other, one commit older, counts.
`count` tells the newer.  From 8,192 on there is a list of the gaps as lines of text, for
people: at most 64 KiB, of which only those count that the record knows.

Flags of the record: 1 the stream is complete and `exit` its exit code, 2 `epoch` is known.
Flags of a source: 1 it is wanted, 2 `origin` is known.  The source's file then holds, from
`base` on, the bytes from offset `origin` to `committed` of that epoch, less those that are
missing; what lies before `base` is of attempts before.
"""

import contextlib
import fcntl
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from gridmad.peek.errors import JournalError
from gridmad.peek.stream import STREAM

SUFFIX: Final = ".msgpeek"
MAGIC: Final = b"MPKJ"
VERSION: Final = 1
SLOTS: Final = (0, 4096)
GAPS: Final = 8192
MAX_GAPS: Final = 65_536
"""Bytes of the list of gaps."""
SOURCES: Final = (1, 2)

_RECORD: Final = struct.Struct("<4sHHQ16sIHH128sQ6Q6Q")
_CRC: Final = struct.Struct("<I")
_SIZE: Final = _RECORD.size + _CRC.size
_COMPLETE: Final = 1
_HAS_EPOCH: Final = 2
_WANTED: Final = 1
_HAS_ORIGIN: Final = 2


@dataclass(slots=True)
class Position:
    """How far one source is; offsets of its bytes, `base` and `length` of its file.

    `origin` is the first offset of this attempt that was taken, None until it is known.
    """

    committed: int = 0
    origin: int | None = None
    base: int = 0
    length: int = 0
    missing: int = 0

    @property
    def is_consistent(self) -> bool:
        """Whether the file's length is what the offsets say."""
        written = self.committed - (self.origin or 0) - self.missing
        return self.base >= 0 and written >= 0 and self.length == self.base + written


@dataclass(slots=True)
class Record:
    """All that must not be forgotten; `exit_code` is None until the stream is complete."""

    stream: str
    client: str
    epoch: int | None = None
    exit_code: int | None = None
    positions: dict[int, Position] = field(default_factory=dict)


class Journal:
    """An open, locked journal.  JournalError wherever the file system does not play along.

    Another process that has it open makes it an error, as does a file that is no journal
    or is damaged.
    """

    record: Record | None
    """What was read; None in a new journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0
        self._gaps = 0
        self._unwritten = b""
        self._file = -1
        with self._reported():
            self._file = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600
            )
        try:
            self._lock()
            self.record = self._read()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def path_of(file: Path) -> Path:
        """Where the journal of a file is."""
        return file.with_name(file.name + SUFFIX)

    def write(self, record: Record) -> None:
        """Make the record the one that counts; what was there before stays till then."""
        gaps = self._gaps + len(self._unwritten)
        encoded = _encode(record, self._count + 1, gaps)
        with self._reported():
            if self._unwritten:
                _pwrite(self._file, self._unwritten, GAPS + self._gaps)
            _pwrite(self._file, encoded, SLOTS[self._count % 2])
        self._count += 1
        self._gaps = gaps
        self._unwritten = b""

    def note(self, line: str) -> None:
        """Add a line to the list of gaps with the next record, if there is room."""
        text = line.encode("ascii", "replace") + b"\n"
        if self._gaps + len(self._unwritten) + len(text) <= MAX_GAPS:
            self._unwritten += text

    def gaps(self) -> list[str]:
        """The list of gaps."""
        with self._reported():
            return os.pread(self._file, self._gaps, GAPS).decode("ascii", "replace").splitlines()

    def remove(self) -> None:
        """Remove the file, while it is locked."""
        with self._reported():
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process have it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock(self) -> None:
        with self._reported():
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise JournalError(f"{self.path} is no file")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                name = self.path.name.removesuffix(SUFFIX)
                raise JournalError(
                    f"another msgpeek is writing {self.path.with_name(name)}"
                ) from None

    def _read(self) -> Record | None:
        with self._reported():
            slots = [os.pread(self._file, _SIZE, at) for at in SLOTS]
            size = os.fstat(self._file).st_size
        records = [decoded for decoded in map(_decode, slots) if decoded is not None]
        if not records:
            # A process that died before its first record leaves an empty file, a machine zeros.
            if not any(any(slot) for slot in slots) and size <= GAPS:
                return None
            raise JournalError(
                f"{self.path} is no journal of this version of msgpeek, or is damaged: "
                "move it and its file away to begin anew"
            )
        self._count, self._gaps, record = max(records, key=lambda decoded: decoded[0])
        return record

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JournalError(f"the journal {self.path}: {error.strerror}") from None


def _pwrite(file: int, data: bytes, at: int) -> None:
    while data:
        written = os.pwrite(file, data, at)
        data = data[written:]
        at += written


def _encode(record: Record, count: int, gaps: int) -> bytes:
    flags = 0
    if record.exit_code is not None:
        flags |= _COMPLETE
    if record.epoch is not None:
        flags |= _HAS_EPOCH
    numbers: list[int] = []
    for source in SOURCES:
        position = record.positions.get(source)
        if position is None:
            numbers += (0,) * 6
            continue
        numbers += (
            _WANTED if position.origin is None else _WANTED | _HAS_ORIGIN,
            position.committed,
            position.origin or 0,
            position.base,
            position.length,
            position.missing,
        )
    encoded = _RECORD.pack(
        MAGIC,
        VERSION,
        flags,
        count,
        bytes.fromhex(record.client),
        record.epoch or 0,
        record.exit_code or 0,
        len(record.stream),
        record.stream.encode("ascii"),
        gaps,
        *numbers,
    )
    return encoded + _CRC.pack(zlib.crc32(encoded))


def _decode(slot: bytes) -> tuple[int, int, Record] | None:
    """Count, bytes of the list of gaps, and record; None where it is no valid one."""
    if len(slot) != _SIZE or zlib.crc32(slot[:-4]) != _CRC.unpack(slot[-4:])[0]:
        return None
    magic, version, flags, count, client, epoch, exit_code, size, name, gaps, *numbers = (
        _RECORD.unpack(slot[:-4])
    )
    stream = name[:size].decode("ascii", "replace")
    if magic != MAGIC or version != VERSION or gaps > MAX_GAPS or not STREAM.fullmatch(stream):
        return None
    record = Record(
        stream,
        client.hex(),
        epoch if flags & _HAS_EPOCH else None,
        exit_code if flags & _COMPLETE else None,
    )
    for source, at in zip(SOURCES, (0, 6), strict=True):
        source_flags, committed, origin, base, length, missing = numbers[at : at + 6]
        if source_flags & _WANTED:
            position = Position(
                committed, origin if source_flags & _HAS_ORIGIN else None, base, length, missing
            )
            if not position.is_consistent:
                return None
            record.positions[source] = position
    return (count, gaps, record) if record.positions else None
