# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""STOMP 1.2 frames over bytes: what a broker sends in, what goes to it out.

    COMMAND EOL
    name:value EOL           as often as needed
    EOL
    body NUL                 of content-length bytes, or up to the first NUL
    EOL                      any number of them between frames: heart-beats

EOL is a line feed, or a carriage return and a line feed.  Nothing here does I/O.  The
plain-Python specification is tests/stomp_specification.py, the oracle of the property tests.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memchr, memcmp, memcpy, memmove

from gridmad.errors import GridmadError


class StompError(GridmadError):
    """What came is not STOMP 1.2, or more of it than is allowed.  Nothing more can be read."""


# ---------------------------------------------------------------- limits

cdef enum:
    HEADER_BLOCK = 65536     # bytes of a command with its headers
    HEADER_COUNT = 256       # headers of a frame
    ROOM = 262144            # bytes that one read may bring
    PASSED = 134217728       # bytes of a MESSAGE's body that are passed over

MAX_HEADER_BLOCK = HEADER_BLOCK
MAX_HEADERS = HEADER_COUNT
MAX_BODY = 1 << 20
MAX_PASSED = PASSED
READ_SIZE = ROOM


# ---------------------------------------------------------------- in

cdef enum:
    BETWEEN = 0              # frames: heart-beats, then a command
    HEAD = 1                 # somewhere in command and headers
    BODY = 2                 # of known length
    TEXT = 3                 # a body up to the first NUL
    PASSING = 4              # a body that is too long, of which `_length` bytes are to come

COMMANDS = ("CONNECTED", "MESSAGE", "RECEIPT", "ERROR")

cdef enum:
    REMEMBERED = 32          # headers that are compared with those of the frame before


@cython.final
cdef class Reader:
    """Bytes as they are read -> frames, each a tuple (command, headers, body).

    Either `feed` it, or read into `room()` and say how much came with `filled`: so bodies
    are copied once.  Of a header that is repeated the first counts.  `heartbeats` counts
    the line ends between frames.  Holds at most one frame and what one read brings.

    A MESSAGE whose body is announced to be longer than `max_body` (but no longer than any
    broker carries) comes with an empty one: it has to be acknowledged, or it would come again
    for ever.  Anything that is no frame of a broker raises StompError, as early as it shows; the
    reader is of no use after that.
    """

    cdef readonly Py_ssize_t max_body
    cdef readonly unsigned long long heartbeats
    cdef char* _data
    cdef Py_ssize_t _capacity
    cdef Py_ssize_t _start        # of the frame (or what is between frames)
    cdef Py_ssize_t _at           # how far that was taken: in HEAD, the start of a line
    cdef Py_ssize_t _seen         # how far that line was searched for its end
    cdef Py_ssize_t _end          # of what came
    cdef Py_ssize_t _body         # start of the body, once known
    cdef Py_ssize_t _length       # of the body, in state BODY
    cdef int _state
    cdef int _exported            # memoryviews of the room that are in use
    cdef str _command
    cdef dict _headers
    cdef list _names              # of the headers of the frame before, as they came
    cdef list _values
    cdef list _name_texts         # and as objects
    cdef list _value_texts

    def __cinit__(self, Py_ssize_t max_body=1 << 20):
        if max_body < 0:
            raise ValueError("a body has no negative length")
        self.max_body = max_body
        self._capacity = 2 * ROOM
        self._data = <char*>PyMem_Malloc(self._capacity)
        if self._data == NULL:
            raise MemoryError
        self._names = [None] * REMEMBERED
        self._values = [None] * REMEMBERED
        self._name_texts = [None] * REMEMBERED
        self._value_texts = [None] * REMEMBERED

    def __dealloc__(self):
        PyMem_Free(self._data)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self._data + self._end, ROOM, False, flags)
        self._exported += 1

    def __releasebuffer__(self, Py_buffer* buffer):
        self._exported -= 1

    @property
    def held(self):
        """Bytes of an unfinished frame that are kept."""
        return self._end - self._start

    def room(self):
        """Where the next bytes belong: writable, READ_SIZE bytes.  Release it, then `filled`."""
        self._make_room()
        return memoryview(self)

    def filled(self, Py_ssize_t count):
        """The frames that are whole now that `count` bytes were written to the room."""
        cdef list frames = []
        if self._exported:
            raise BufferError("the room is still in use")
        if not 0 <= count <= ROOM or count > self._capacity - self._end:
            raise ValueError(f"{count} bytes do not fit into the room")
        self._end += count
        self._take(frames)
        return frames

    def feed(self, bytes data not None):
        """The frames that are whole now that `data` came."""
        cdef list frames = []
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t count
        while at < size:
            self._make_room()
            count = min(size - at, ROOM)
            memcpy(self._data + self._end, PyBytes_AS_STRING(data) + at, count)
            self._end += count
            at += count
            self._take(frames)
        return frames

    cdef int _make_room(self) except -1:
        """Have ROOM bytes behind what came; what is unfinished moves once per doubling."""
        cdef Py_ssize_t kept = self._end - self._start
        cdef Py_ssize_t wanted
        cdef char* data
        if self._exported:
            raise BufferError("the room is still in use")
        if self._capacity - self._end >= ROOM:
            return 0
        if self._start:
            memmove(self._data, self._data + self._start, kept)
            self._at -= self._start
            self._seen -= self._start
            self._body -= self._start
            self._end = kept
            self._start = 0
        # At least as much free as kept: so each byte is moved a bounded number of times.
        wanted = kept + max(ROOM, kept)
        if self._state == BODY:
            wanted = max(wanted, self._body + self._length + 1 + ROOM)
        if wanted > self._capacity:
            data = <char*>PyMem_Realloc(self._data, wanted)
            if data == NULL:
                raise MemoryError
            self._data = data
            self._capacity = wanted
        return 0

    cdef int _take(self, list frames) except -1:
        while True:
            if self._state == BETWEEN and not self._skip():
                break
            if self._state == HEAD and not self._head():
                break
            if self._state == BODY:
                if self._end - self._body <= self._length:
                    break
                self._check_end(self._body + self._length)
            elif self._state == PASSING:
                if not self._pass_over():
                    break
            else:
                if not self._text():
                    break
            frames.append((
                self._command,
                self._headers,
                PyBytes_FromStringAndSize(self._data + self._body, self._length),
            ))
            self._start = self._at = self._body + self._length + 1
            self._command = None
            self._headers = None
            self._state = BETWEEN
        if self._start == self._end and self._state == BETWEEN:
            # Nothing is kept: begin at the front, where the cache is warm.
            self._start = self._at = self._end = self._body = 0
        return 0

    cdef int _check_end(self, Py_ssize_t end) except -1:
        if self._data[end] != 0:
            raise StompError("a body is longer than its content-length says")
        return 0

    cdef bint _pass_over(self) except -1:
        """Forget what came of a body that is too long; whether its end is there."""
        cdef Py_ssize_t count = min(self._end - self._at, self._length)
        self._at += count
        self._length -= count
        self._start = self._body = self._at
        if self._at == self._end:
            return False
        self._check_end(self._at)
        return True

    cdef bint _skip(self) except -1:
        """Pass over line ends; whether a frame begins."""
        cdef char byte
        while self._at < self._end:
            byte = self._data[self._at]
            if byte == c'\n':
                self.heartbeats += 1
                self._at += 1
            elif byte == c'\r':
                if self._at + 1 == self._end:
                    break
                if self._data[self._at + 1] != c'\n':
                    raise self._not_stomp()
                self._at += 1
            else:
                self._start = self._at
                self._state = HEAD
                return True
        self._start = self._at
        return False

    cdef bint _head(self) except -1:
        """Look for the empty line that ends the headers; whether it is there."""
        cdef char* newline
        cdef Py_ssize_t line
        if self._command is None and not self._is_command():
            return False
        while True:
            newline = <char*>memchr(self._data + self._seen, c'\n', self._end - self._seen)
            if newline == NULL:
                self._seen = self._end
                if self._end - self._start > HEADER_BLOCK:
                    raise StompError(f"headers of more than {HEADER_BLOCK} bytes")
                return False
            line = newline - self._data
            if line - self._start > HEADER_BLOCK:
                raise StompError(f"headers of more than {HEADER_BLOCK} bytes")
            if line == self._at or (line == self._at + 1 and self._data[self._at] == c'\r'):
                self._body = line + 1
                self._at = self._body
                self._find_length()
                return True
            self._header(self._at, line - 1 if self._data[line - 1] == c'\r' else line)
            self._at = self._seen = line + 1

    cdef bint _is_command(self) except -1:
        """Whether the line of the command is there, and a command."""
        cdef char* text = self._data + self._start
        cdef Py_ssize_t size = self._end - self._start
        cdef char* newline = <char*>memchr(text, c'\n', min(size, 16))
        cdef Py_ssize_t length
        cdef const char* name
        if newline == NULL:
            # An answer in another protocol may have no line end at all.
            for command in COMMANDS:
                known = (<str>command).encode() + b"\r"
                if size <= len(known) and memcmp(text, <char*>known, size) == 0:
                    return False
            raise self._not_stomp()
        length = newline - text
        if length and text[length - 1] == c'\r':
            length -= 1
        if length == 7 and memcmp(text, b"MESSAGE", 7) == 0:
            self._command = "MESSAGE"
        elif length == 7 and memcmp(text, b"RECEIPT", 7) == 0:
            self._command = "RECEIPT"
        elif length == 9 and memcmp(text, b"CONNECTED", 9) == 0:
            self._command = "CONNECTED"
        elif length == 5 and memcmp(text, b"ERROR", 5) == 0:
            self._command = "ERROR"
        else:
            raise self._not_stomp()
        self._headers = {}
        self._at = self._seen = newline + 1 - self._data
        return True

    cdef int _header(self, Py_ssize_t start, Py_ssize_t end) except -1:
        """Take the header in [start, end)."""
        cdef char* text = self._data + start
        cdef Py_ssize_t size = end - start
        cdef char* colon = <char*>memchr(text, c':', size)
        cdef Py_ssize_t length
        cdef Py_ssize_t number = len(self._headers)
        cdef str name, value
        if colon == NULL or colon == text:
            raise StompError("a header without a name")
        if number >= HEADER_COUNT:
            raise StompError(f"more than {HEADER_COUNT} headers")
        length = colon - text
        name = self._remembered(self._names, self._name_texts, number, text, length)
        value = self._remembered(
            self._values, self._value_texts, number, colon + 1, size - length - 1)
        self._headers.setdefault(name, value)
        return 0

    cdef str _remembered(self, list seen, list texts, Py_ssize_t number,
                         const char* text, Py_ssize_t size):
        """The text as an object; that of the frame before where it is the same."""
        cdef str made
        cdef bytes before
        # CONNECTED has no escapes: what looks the same may mean something else.
        if number < REMEMBERED and self._command != "CONNECTED":
            before = <bytes>seen[number]
            if (before is not None and PyBytes_GET_SIZE(before) == size
                    and memcmp(PyBytes_AS_STRING(before), text, size) == 0):
                return <str>texts[number]
        made = self._unescaped(text, size)
        if number < REMEMBERED and size <= 256 and self._command != "CONNECTED":
            seen[number] = PyBytes_FromStringAndSize(text, size)
            texts[number] = made
        return made

    cdef str _unescaped(self, const char* text, Py_ssize_t size):
        cdef bytes plain
        cdef char* out
        cdef Py_ssize_t i = 0
        # CONNECTED comes without escapes, for the sake of STOMP 1.0.
        if memchr(text, c'\\', size) == NULL or self._command == "CONNECTED":
            return PyUnicode_DecodeUTF8(text, size, "surrogateescape")
        plain = PyBytes_FromStringAndSize(NULL, size)
        out = PyBytes_AS_STRING(plain)
        while i < size:
            if text[i] == c'\\':
                i += 1
                if i < size and text[i] == c'n':
                    out[0] = c'\n'
                elif i < size and text[i] == c'r':
                    out[0] = c'\r'
                elif i < size and text[i] == c'c':
                    out[0] = c':'
                elif i < size and text[i] == c'\\':
                    out[0] = c'\\'
                else:
                    raise StompError("a header with an undefined escape")
            else:
                out[0] = text[i]
            out += 1
            i += 1
        size = out - PyBytes_AS_STRING(plain)
        return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(plain), size, "surrogateescape")

    cdef int _find_length(self) except -1:
        cdef str text = self._headers.get("content-length")
        if text is None:
            self._state = TEXT
            return 0
        if not (0 < len(text) <= 18 and text.isascii() and text.isdigit()):
            raise StompError(f"content-length is {text[:20]!r}")
        self._length = int(text)
        if self._length <= self.max_body:
            self._state = BODY
        elif self._command == "MESSAGE" and self._length <= PASSED:
            self._state = PASSING
        else:
            raise self._too_long()
        return 0

    cdef bint _text(self) except -1:
        """Look for the NUL behind a body without content-length; whether it is there."""
        cdef char* nul = <char*>memchr(self._data + self._at, 0, self._end - self._at)
        self._at = self._end if nul == NULL else nul - self._data
        if self._at - self._body > self.max_body:
            raise self._too_long()
        self._length = self._at - self._body
        return nul != NULL

    def _too_long(self):
        return StompError(f"a body of more than {self.max_body} bytes")

    def _not_stomp(self):
        size = min(self._end - self._start, 32)
        return StompError(f"not STOMP: {PyBytes_FromStringAndSize(self._data + self._start, size)!r}")


# ---------------------------------------------------------------- out

def write(str command not None, dict headers not None, Py_ssize_t body_length=-1):
    """A frame up to its body; body and NUL follow.

    `content-length` is added for a body_length of 0 or more.  Names and values are escaped
    except in CONNECT, where STOMP forbids it: there a line end is a ValueError, as are a
    colon in a name, and a NUL or an empty name anywhere.
    """
    cdef bint plain = command == "CONNECT"
    cdef list parts = [command.encode("ascii"), b"\n"]
    cdef bytes name, value
    for key, text in headers.items():
        name = (<str?>key).encode("utf-8", "surrogateescape")
        value = (<str?>text).encode("utf-8", "surrogateescape")
        if not name:
            raise ValueError("a header without a name")
        _escape(parts, name, plain, True)
        parts.append(b":")
        _escape(parts, value, plain, False)
        parts.append(b"\n")
    if body_length >= 0:
        parts.append(b"content-length:%d\n" % body_length)
    parts.append(b"\n")
    return b"".join(parts)


cdef int _escape(list parts, bytes text, bint plain, bint is_name) except -1:
    cdef const char* data = PyBytes_AS_STRING(text)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    cdef Py_ssize_t i
    cdef Py_ssize_t special = 0
    cdef char byte
    cdef bytes escaped
    cdef char* out
    for i in range(size):
        byte = data[i]
        if byte == 0:
            raise ValueError("a header cannot hold a NUL")
        if byte == c'\n' or byte == c'\r' or byte == c':' or byte == c'\\':
            if plain and (byte == c'\n' or byte == c'\r' or (is_name and byte == c':')):
                raise ValueError("a header of CONNECT cannot hold a line end")
            special += 1
    if plain or not special:
        parts.append(text)
        return 0
    escaped = PyBytes_FromStringAndSize(NULL, size + special)
    out = PyBytes_AS_STRING(escaped)
    for i in range(size):
        byte = data[i]
        if byte == c'\n' or byte == c'\r' or byte == c':' or byte == c'\\':
            out[0] = c'\\'
            out += 1
            byte = (c'n' if byte == c'\n' else c'r' if byte == c'\r'
                    else c'c' if byte == c':' else c'\\')
        out[0] = byte
        out += 1
    parts.append(escaped)
    return 0
