"""The SFTP protocol, version 3: requests to bytes, bytes to answers.

    packet  = length of the rest (4 bytes) | kind (1) | request's number (4) | fields
    string  = length (4) | bytes

All numbers are unsigned, the most significant byte first.  Names are bytes, which servers take
as they are.

Source: draft-ietf-secsh-filexfer-02; OpenSSH, PROTOCOL, section 4.  No I/O happens here.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

from gridmad.errors import GridmadError, TransientError

VERSION: Final = 3
MAX_PACKET: Final = 1 << 18
"""Bytes of a packet's rest that OpenSSH sends and takes; more is a fault."""
MAX_DATA: Final = MAX_PACKET - 1024
"""Bytes of a READ or WRITE that a server takes which says so by limits@openssh.com."""
SAFE_DATA: Final = 1 << 15
"""Bytes that every server takes."""

POSIX_RENAME: Final = b"posix-rename@openssh.com"
LIMITS: Final = b"limits@openssh.com"
EXPAND_PATH: Final = b"expand-path@openssh.com"
FSYNC: Final = b"fsync@openssh.com"

_MOST_PIECES: Final = 256
"""Pieces of a packet that are kept apart: sound servers send some dozens."""

_LENGTH: Final = struct.Struct(">I")
_HEAD: Final = struct.Struct(">IBI")
_NUMBER: Final = struct.Struct(">I")
_LARGE: Final = struct.Struct(">Q")
_PLACE: Final = struct.Struct(">QI")
_FOUR: Final = struct.Struct(">QQQQ")


class Kind(IntEnum):
    """Kinds of packets."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    SETSTAT = 9
    FSETSTAT = 10
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    REALPATH = 16
    STAT = 17
    RENAME = 18
    READLINK = 19
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Status(IntEnum):
    """What a STATUS says."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    NO_CONNECTION = 6
    CONNECTION_LOST = 7
    OP_UNSUPPORTED = 8


class Open(IntFlag):
    """How a file is opened."""

    READ = 1
    WRITE = 2
    CREATE = 8
    EXCLUSIVE = 32


class _Has(IntFlag):
    """Which attributes follow."""

    SIZE = 1
    OWNER = 2
    PERMISSIONS = 4
    TIMES = 8
    EXTENDED = 0x8000_0000


class SftpProtocolError(TransientError):
    """What came is no SFTP."""


class StatusError(GridmadError):
    """A request was refused."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text or f"status {code}")
        self.code = code


class Answer(NamedTuple):
    """A packet that came; of VERSION, `number` is the version."""

    kind: int
    number: int
    fields: memoryview
    more: Sequence[memoryview] = ()
    """The rest of the fields of a DATA that came in pieces, which are not worth a copy."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """Of a file; None is what a server does not tell, or what is not to be changed."""

    size: int | None = None
    mode: int | None = None
    """As st_mode."""


class Entry(NamedTuple):
    """Of a directory; the attributes of a symbolic link are its own."""

    name: bytes
    attributes: Attributes


# ---------------------------------------------------------------- requests


def string(value: bytes) -> bytes:
    """A string field."""
    return _LENGTH.pack(len(value)) + value


def number(value: int) -> bytes:
    """A field of four bytes."""
    return _NUMBER.pack(value)


def place(offset: int, length: int) -> bytes:
    """Where in a file, and how many bytes."""
    return _PLACE.pack(offset, length)


def attributes(value: Attributes) -> bytes:
    """A field of attributes."""
    flags, fields = 0, b""
    if value.size is not None:
        flags |= _Has.SIZE
        fields += _LARGE.pack(value.size)
    if value.mode is not None:
        flags |= _Has.PERMISSIONS
        fields += _NUMBER.pack(value.mode)
    return _NUMBER.pack(flags) + fields


def init() -> bytes:
    """The first packet."""
    return struct.pack(">IBI", 5, Kind.INIT, VERSION)


def request(kind: Kind, request_number: int, fields: bytes, more: int = 0) -> bytes:
    """A request; `more` bytes of its last field are sent by the caller."""
    return _HEAD.pack(5 + len(fields) + more, kind, request_number) + fields


# ---------------------------------------------------------------- answers


class Answers:
    """Takes bytes as they come and gives the packets that are whole."""

    def __init__(self) -> None:
        self._pieces: list[memoryview] = []
        """What came of a packet that is not whole."""
        self._missing = 0
        """Bytes without which there is nothing to give."""

    def feed(self, data: bytes) -> Iterator[Answer]:
        """Packets in their order; SftpProtocolError for what can be none.

        Their fields are valid as long as they are held.
        """
        self._pieces.append(memoryview(data))
        self._missing -= len(data)
        if self._missing > 0:
            if len(self._pieces) > _MOST_PIECES:
                self._pieces = [memoryview(b"".join(self._pieces))]
            return
        view = self._pieces[-1]
        position = 0
        if len(self._pieces) > 1:
            # Contents are given as they came; all else is small, and joined.
            first = self._pieces[0]
            if len(first) >= _HEAD.size + _NUMBER.size and first[_LENGTH.size] == Kind.DATA:
                position = len(view) + self._missing
                more = (*self._pieces[1:-1], view[:position])
                _, kind, request_number = _HEAD.unpack_from(first)
                yield Answer(kind, request_number, first[_HEAD.size :], more)
            else:
                view = memoryview(b"".join(self._pieces))
        end = len(view)
        while end - position >= _HEAD.size:
            length, kind, request_number = _HEAD.unpack_from(view, position)
            if not 5 <= length <= MAX_PACKET:
                raise SftpProtocolError(f"a packet of {length} bytes came")
            after = position + _LENGTH.size + length
            if after > end:
                self._missing = after - end
                break
            yield Answer(kind, request_number, view[position + _HEAD.size : after])
            position = after
        else:
            self._missing = _HEAD.size - (end - position)
        self._pieces = [view[position:]] if position < end else []


class _Fields:
    """Reads fields one by one."""

    def __init__(self, fields: memoryview) -> None:
        self._fields = fields
        self._position = 0

    def string(self) -> bytes:
        length = self.number()
        if length > len(self._fields) - self._position:
            raise SftpProtocolError("a string is longer than its packet")
        start = self._position
        self._position += length
        return bytes(self._fields[start : self._position])

    def number(self) -> int:
        value: int = self._unpack(_NUMBER)[0]
        return value

    def attributes(self) -> Attributes:
        flags = self.number()
        size: int | None = self._unpack(_LARGE)[0] if flags & _Has.SIZE else None
        if flags & _Has.OWNER:
            self._unpack(_LARGE)
        mode = self.number() if flags & _Has.PERMISSIONS else None
        if flags & _Has.TIMES:
            self._unpack(_LARGE)
        if flags & _Has.EXTENDED:
            for _ in range(self.number()):
                self.string()
                self.string()
        return Attributes(size, mode)

    @property
    def is_at_end(self) -> bool:
        return self._position == len(self._fields)

    def _unpack(self, form: struct.Struct) -> tuple[int, ...]:
        try:
            values = form.unpack_from(self._fields, self._position)
        except struct.error:
            raise SftpProtocolError("a packet ends within a field") from None
        self._position += form.size
        return values


def read_extensions(answer: Answer) -> Mapping[bytes, bytes]:
    """What a VERSION says that the server can do beyond the protocol, and in which version."""
    if answer.kind != Kind.VERSION:
        raise SftpProtocolError(f"the first packet is of kind {answer.kind}")
    if answer.number < VERSION:
        raise SftpProtocolError(f"the server speaks version {answer.number} of SFTP")
    fields = _Fields(answer.fields)
    extensions = {}
    while not fields.is_at_end:
        name = fields.string()
        extensions[name] = fields.string()
    return extensions


def read_data(answer: Answer, most: int) -> Sequence[memoryview] | None:
    """What a READ of `most` bytes got, in pieces; None at the end of the file.

    Nothing is no answer: the file would be asked for it for ever.
    """
    if answer.kind == Kind.DATA and len(answer.fields) >= _NUMBER.size:
        pieces = (answer.fields[_NUMBER.size :], *answer.more)
        size = sum(map(len, pieces))
        if size != _NUMBER.unpack_from(answer.fields)[0]:
            raise SftpProtocolError("a string is not as long as its packet")
        if not 0 < size <= most:
            raise SftpProtocolError(f"a READ of {most} bytes got {size}")
        return pieces
    try:
        _refuse(answer)
    except StatusError as error:
        if error.code == Status.EOF:
            return None
        raise
    return None


def read_handle(answer: Answer) -> bytes:
    """What an OPEN or OPENDIR got."""
    _expect(answer, Kind.HANDLE)
    return _Fields(answer.fields).string()


def read_attributes(answer: Answer) -> Attributes:
    """What an LSTAT, STAT or FSTAT got."""
    _expect(answer, Kind.ATTRS)
    return _Fields(answer.fields).attributes()


def read_entries(answer: Answer) -> list[Entry] | None:
    """What a READDIR got, without "." and ".."; None at the end of the directory.

    A name that is no name of an entry is a fault: it could lead elsewhere.
    """
    if answer.kind == Kind.STATUS:
        try:
            read_ok(answer)
        except StatusError as error:
            if error.code == Status.EOF:
                return None
            raise
    entries = [entry for entry in _read_names(answer) if entry.name not in (b".", b"..")]
    for entry in entries:
        if not entry.name or b"/" in entry.name or b"\0" in entry.name:
            raise SftpProtocolError(f"{entry.name!r} is no name of a file")
    return entries


def read_path(answer: Answer) -> bytes:
    """What a REALPATH got."""
    path = read_link(answer)
    if not path.startswith(b"/"):
        raise SftpProtocolError("a path from / on was expected")
    return path


def read_link(answer: Answer) -> bytes:
    """What a READLINK got."""
    names = _read_names(answer)
    if len(names) != 1:
        raise SftpProtocolError("one name was expected")
    return names[0].name


def read_limits(answer: Answer) -> tuple[int, int]:
    """Bytes that a READ and a WRITE may have; 0 is not told."""
    _expect(answer, Kind.EXTENDED_REPLY)
    try:
        _, read, write, _ = _FOUR.unpack_from(answer.fields)
    except struct.error:
        raise SftpProtocolError("a packet ends within a field") from None
    return read, write


def read_ok(answer: Answer) -> None:
    """What all other requests got.  Raises StatusError where they were refused."""
    _expect(answer, Kind.STATUS)
    fields = _Fields(answer.fields)
    code = fields.number()
    if code == Status.OK:
        return
    text = b"" if fields.is_at_end else fields.string()
    raise StatusError(code, text.decode("utf-8", "replace"))


def _read_names(answer: Answer) -> list[Entry]:
    _expect(answer, Kind.NAME)
    fields = _Fields(answer.fields)
    names = []
    for _ in range(fields.number()):
        name = fields.string()
        fields.string()  # a line for people
        names.append(Entry(name, fields.attributes()))
    return names


def _expect(answer: Answer, kind: Kind) -> None:
    if answer.kind != kind:
        _refuse(answer)


def _refuse(answer: Answer) -> None:
    """Raise what a STATUS in place of what was asked for says."""
    if answer.kind == Kind.STATUS:
        read_ok(answer)
    raise SftpProtocolError(f"a packet of kind {answer.kind} came in answer")
