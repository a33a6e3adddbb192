# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The MAD line protocol over bytes: requests in, answers and host attributes out.

    request   OPERATION ID FIELD ... NEWLINE       fields separated by blanks or tabs
    answer    OPERATION ID [TID] RESULT INFO NEWLINE

Everything here is a pure function of bytes or a small parser; nothing does I/O.  The
plain-Python specification is tests/specification.py, the oracle of the property tests.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_Check, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset


# ---------------------------------------------------------------- limits (see gridmad.wire)

cdef enum:
    LINE = 65535          # bytes of a line with its newline that gwd takes in one piece
    INFO = 64900          # bytes of attributes: leaves room for "MONITOR <id> SUCCESS "
    MAX_FEED = 1 << 30    # bytes of one feed: fields are kept as 32-bit offsets
    FIELDS = 6            # the transfer family has the most
    EXCERPT = 64          # bytes of a line that is too long that are looked at
    QUEUES = 67           # queues of a host (GW_HOST_MAX_QUEUES)
    GENERIC = 134         # generic attributes of a host, each of integers and of texts
    TEXT = 4000           # bytes of one text value: one value must not push the others out
    NAME = 64             # bytes of an attribute's name
    KNOWN_TEXT = 24       # bytes of a name that gwd copies: queue, LRMS, fork, architecture
    HOST_TEXT = 39        # bytes of a host's name

MAX_LINE = LINE
MAX_INFO = INFO
MAX_QUEUES = QUEUES
MAX_GENERIC = GENERIC
MAX_TEXT = TEXT


# ---------------------------------------------------------------- classes of bytes

cdef enum:
    ORDINARY = 0
    BLANK = 1
    CONTROL = 2

cdef uint8_t CLASS[256]
cdef uint8_t UPPER[256]
cdef uint8_t SAFE[256]      # what a byte becomes inside a quoted text


cdef void _fill_tables() noexcept:
    cdef int i
    for i in range(256):
        CLASS[i] = CONTROL if i < 32 or i == 127 else ORDINARY
        UPPER[i] = <uint8_t>(i - 32 if c'a' <= i <= c'z' else i)
        SAFE[i] = <uint8_t>(c' ' if i < 32 or i == 127 else i)
    CLASS[c' '] = BLANK
    CLASS[c'\t'] = BLANK
    SAFE[c'"'] = c"'"

_fill_tables()


# ---------------------------------------------------------------- grammar

cdef enum:
    # What an operation demands of its fields; bits of Grammar.demands.
    NEEDS_ID = 1            # a job id in digits (otherwise digits or "-")
    NEEDS_2 = 4             # field number 2 is not "-"
    NEEDS_3 = 8
    NEEDS_4 = 16
    NEEDS_5 = 32
    NEEDS_TID = 64          # field number 2 in digits

cdef enum:
    OK = 0
    UNKNOWN_OPERATION = 1
    CONTROL_CHARACTER = 2
    TOO_LONG = 3
    BAD_ID = 4
    BAD_TID = 5
    MISSING_FIELD = 6


cdef inline uint64_t _pack(const char* text, Py_ssize_t length) noexcept nogil:
    """The first eight bytes, in capitals, as one number: names compare in one step."""
    cdef uint64_t word = 0
    cdef Py_ssize_t i
    for i in range(length):
        word |= <uint64_t>UPPER[<uint8_t>text[i]] << (8 * i)
    return word


@cython.final
cdef class Grammar:
    """The requests of one family: how many fields, which operations, what they demand.

    `operations` maps each name (capitals, eight letters at most) to its demands: the
    sum of "id" and "tid" (digits) and of the numbers of fields that may not be "-".
    """

    cdef readonly int fields
    cdef readonly tuple operations
    cdef readonly bint has_tid
    cdef uint64_t words[16]
    cdef uint32_t lengths[16]
    cdef int demands[16]

    def __init__(self, int fields, dict operations not None, bint has_tid=False):
        cdef int i = 0
        cdef int demand
        if not 2 <= fields <= FIELDS or len(operations) > 16:
            raise ValueError("a grammar has 2 to 6 fields and at most 16 operations")
        self.fields = fields
        self.has_tid = has_tid
        self.operations = tuple(operations)
        for name, needs in operations.items():
            text = name.encode("ascii")
            if not 0 < len(text) <= 8:
                raise ValueError(f"operation {name!r} does not have 1 to 8 letters")
            self.words[i] = _pack(text, len(text))
            self.lengths[i] = <uint32_t>len(text)
            demand = 0
            for need in needs:
                demand |= {"id": NEEDS_ID, "tid": NEEDS_TID, 2: NEEDS_2, 3: NEEDS_3,
                           4: NEEDS_4, 5: NEEDS_5}[need]
            self.demands[i] = demand
            i += 1


# ---------------------------------------------------------------- requests

@cython.final
@cython.no_gc
@cython.freelist(4096)
cdef class Request:
    """One request line.  Fields are made into objects when they are asked for.

    `operation` is "" and `problem` says why where the line is no valid request.
    """

    cdef bytes _data
    cdef Grammar _grammar
    cdef uint32_t _start[FIELDS]
    cdef uint32_t _length[FIELDS]
    cdef int _count
    cdef int _code              # index of the operation in the grammar, -1 if unknown
    cdef int _fault
    cdef readonly bint answered

    def __init__(self):
        raise TypeError("requests come from a Parser")

    @property
    def operation(self):
        return "" if self._fault else self._grammar.operations[self._code]

    @property
    def id(self):
        """The id as it came; "-" where there is none that may be echoed."""
        return self._field(1) if self._echoes_id() else "-"

    @property
    def problem(self):
        """Why this line is no valid request, for its sender to read; None where it is."""
        if self._fault == OK:
            return None
        if self._fault == UNKNOWN_OPERATION:
            return "unknown operation; known are " + " ".join(self._grammar.operations)
        if self._fault == CONTROL_CHARACTER:
            return "control character in the request"
        if self._fault == TOO_LONG:
            return f"request longer than {LINE} bytes"
        if self._fault == BAD_ID:
            return f"the id of {self._grammar.operations[self._code]} is a number in digits"
        if self._fault == BAD_TID:
            return f"the transfer id of {self._grammar.operations[self._code]} is a number in digits"
        return f"{self._grammar.operations[self._code]} lacks a field"

    def __getitem__(self, int index):
        """Field number `index`; 0 is the operation as it came.  A missing one is "-"."""
        if not 0 <= index < FIELDS:
            raise IndexError(index)
        return self._field(index)

    def __repr__(self):
        return "<Request %r>" % " ".join(self._field(i) for i in range(self._count))

    cdef str _field(self, int index):
        if index >= self._count:
            return "-"
        return PyUnicode_DecodeUTF8(
            PyBytes_AS_STRING(self._data) + self._start[index],
            self._length[index], "surrogateescape")

    cdef bint _echoes_id(self) noexcept:
        # An id goes back as it came, but only one that cannot disturb the answer's fields.
        cdef const char* text
        cdef uint32_t i
        if self._count < 2 or self._length[1] > 10:
            return False
        text = PyBytes_AS_STRING(self._data) + self._start[1]
        for i in range(self._length[1]):
            if not 33 <= <uint8_t>text[i] <= 126:
                return False
        return True


cdef inline bint _digits(const char* text, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t i
    if not 0 < length <= 10:
        return False
    for i in range(length):
        if not c'0' <= text[i] <= c'9':
            return False
    return True


cdef Request _request(Grammar grammar, bytes data, Py_ssize_t start, Py_ssize_t end):
    """The request in data[start:end] (no newline), or None where the line is blank."""
    cdef const char* text = PyBytes_AS_STRING(data)
    cdef Py_ssize_t at = start
    cdef Request request
    cdef int last = grammar.fields - 1
    cdef int count = 0
    cdef int code, demand, number
    cdef bint control = False
    cdef uint8_t kind
    cdef uint64_t word
    if end > start and text[end - 1] == c'\r':
        end -= 1
    while end > start and CLASS[<uint8_t>text[end - 1]] == BLANK:
        end -= 1
    while at < end and CLASS[<uint8_t>text[at]] == BLANK:
        at += 1
    if at == end:
        return None
    request = Request.__new__(Request)
    request._data = data
    request._grammar = grammar
    while True:
        request._start[count] = <uint32_t>at
        if count == last:
            # The last field takes the rest, blanks and all: a path may hold some.
            for at in range(at, end):
                control |= CLASS[<uint8_t>text[at]] == CONTROL
            request._length[count] = <uint32_t>end - request._start[count]
            count += 1
            break
        while at < end:
            kind = CLASS[<uint8_t>text[at]]
            if kind == BLANK:
                break
            control |= kind == CONTROL
            at += 1
        request._length[count] = <uint32_t>at - request._start[count]
        count += 1
        while at < end and CLASS[<uint8_t>text[at]] == BLANK:
            at += 1
        if at == end:
            break
    request._count = count

    code = -1
    if request._length[0] <= 8:
        word = _pack(text + request._start[0], request._length[0])
        for number in range(len(grammar.operations)):
            # A NUL packs into nothing: the length tells POLL from one with a NUL behind.
            if grammar.words[number] == word and grammar.lengths[number] == request._length[0]:
                code = number
                break
    request._code = code
    if control:
        request._fault = CONTROL_CHARACTER
    elif code < 0:
        request._fault = UNKNOWN_OPERATION
    else:
        demand = grammar.demands[code]
        request._fault = _check(request, text, demand)
    return request


cdef inline bint _dash(Request request, const char* text, int index) noexcept:
    return index >= request._count or (
        request._length[index] == 1 and text[request._start[index]] == c'-')


cdef int _check(Request request, const char* text, int demand) noexcept:
    cdef int index
    if demand & NEEDS_ID or not _dash(request, text, 1):
        if request._count < 2 or not _digits(text + request._start[1], request._length[1]):
            return BAD_ID
    if demand & NEEDS_TID:
        if request._count < 3 or not _digits(text + request._start[2], request._length[2]):
            return BAD_TID
    for index in range(2, FIELDS):
        if demand & (1 << index) and _dash(request, text, index):
            return MISSING_FIELD
    return OK


@cython.final
cdef class Parser:
    """Bytes as they are read -> requests, grouped in runs of one operation.

    Holds at most one unfinished line of MAX_LINE bytes: what a longer one brings beyond
    that is dropped as it comes, and the line becomes one request with a problem.
    """

    cdef readonly Grammar grammar
    cdef bytes _rest
    cdef bint _overlong

    def __init__(self, Grammar grammar not None):
        self.grammar = grammar
        self._rest = b""
        self._overlong = False

    def feed(self, bytes data not None):
        """Every whole line of what was kept and `data`: [(operation, [Request, ...]), ...].

        Requests stand in the order they came; blank lines are passed over.
        """
        cdef list runs = []
        cdef list run = None
        cdef const char* text
        cdef const char* newline
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t size, end
        cdef int code = -2
        cdef int this
        cdef Request request
        cdef Grammar grammar = self.grammar
        if self._rest:
            data = self._rest + data
            self._rest = b""
        size = PyBytes_GET_SIZE(data)
        if size > MAX_FEED:
            raise OverflowError(f"{size} bytes at once: the limit is {MAX_FEED}")
        text = PyBytes_AS_STRING(data)
        while at < size:
            newline = <const char*>memchr(text + at, c'\n', size - at)
            if newline == NULL:
                self._keep(data, at, size)
                break
            end = newline - text
            if self._overlong or end - at >= LINE:
                # The same bytes count whether the line came at once or in pieces.
                self._overlong = False
                request = _request(grammar, data, at, min(end, at + EXCERPT))
                if request is not None:
                    request._fault = TOO_LONG
            else:
                request = _request(grammar, data, at, end)
            at = end + 1
            if request is None:
                continue
            this = -1 if request._fault else request._code
            if this != code:
                run = []
                runs.append(("" if this < 0 else grammar.operations[this], run))
                code = this
            run.append(request)
        return runs

    def finish(self):
        """What end of file leaves: a last line without a newline counts as a line."""
        return self.feed(b"\n") if self._rest else []

    cdef _keep(self, bytes data, Py_ssize_t at, Py_ssize_t size):
        if size - at >= LINE or self._overlong:
            # Enough to echo the operation and the id of a line that is too long anyway.
            self._overlong = True
            size = min(size, at + EXCERPT)
        self._rest = data if at == 0 and size == len(data) else data[at:size]


def column(list requests not None, int index):
    """Field number `index` of each request.  Runs of equal fields share one object."""
    cdef Request request
    cdef Request before = None
    cdef str field = None
    cdef list fields = []
    if not 0 <= index < FIELDS:
        raise IndexError(index)
    for item in requests:
        request = <Request?>item
        if (before is None or index >= request._count or index >= before._count
                or request._length[index] != before._length[index]
                or memcmp(PyBytes_AS_STRING(request._data) + request._start[index],
                          PyBytes_AS_STRING(before._data) + before._start[index],
                          request._length[index]) != 0):
            field = request._field(index)
        before = request
        fields.append(field)
    return fields


# ---------------------------------------------------------------- answers

def answer(list requests not None, list payloads not None):
    """The lines that answer `requests`: (bytes, how many were answered).

    A payload is RESULT and INFO, as gridmad.wire.success and failure make them.  A
    request is answered once: those that were answered before are left out.
    """
    cdef Py_ssize_t count = PyList_GET_SIZE(requests)
    cdef Py_ssize_t i
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t answered = 0
    cdef Request request
    cdef bytes payload
    cdef bytes line
    cdef char* out
    if PyList_GET_SIZE(payloads) != count:
        raise ValueError(f"{count} requests and {PyList_GET_SIZE(payloads)} payloads")
    for i in range(count):
        request = <Request?>requests[i]
        payload = <bytes?>payloads[i]
        if request.answered:
            continue
        # operation, id and transfer id are at most 20, 10 and 11 bytes, and three blanks
        total += PyBytes_GET_SIZE(payload) + 45
        if PyBytes_GET_SIZE(payload) + 45 > LINE:
            raise ValueError(f"an answer of {PyBytes_GET_SIZE(payload)} bytes is too long for a line")
    line = PyBytes_FromStringAndSize(NULL, total)
    out = PyBytes_AS_STRING(line)
    for i in range(count):
        request = <Request>PyList_GET_ITEM(requests, i)
        if request.answered:
            continue
        request.answered = True
        answered += 1
        payload = <bytes>PyList_GET_ITEM(payloads, i)
        out = _head(request, out)
        memcpy(out, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        out += PyBytes_GET_SIZE(payload)
        out[0] = c'\n'
        out += 1
    return line[:out - PyBytes_AS_STRING(line)], answered


cdef inline char* _copy(Request request, int index, char* out) noexcept:
    memcpy(out, PyBytes_AS_STRING(request._data) + request._start[index], request._length[index])
    return out + request._length[index]


cdef char* _head(Request request, char* out) noexcept:
    cdef uint32_t i
    cdef const char* text = PyBytes_AS_STRING(request._data)
    cdef bint plain
    if request._code >= 0:
        # The operation goes back in capitals, as gwd knows it.
        for i in range(request._length[0]):
            out[i] = <char>UPPER[<uint8_t>text[request._start[0] + i]]
        out += request._length[0]
    else:
        # What only drivers say must not go back: gwd would take it for news of a job.
        plain = request._length[0] <= 20 and not (
            request._length[0] == 8 and _pack(text + request._start[0], 8) == _pack(b"CALLBACK", 8))
        for i in range(request._length[0] if plain else 0):
            plain = plain and 33 <= <uint8_t>text[request._start[0] + i] <= 126
        if plain:
            out = _copy(request, 0, out)
        else:
            out[0] = c'-'
            out += 1
    out[0] = c' '
    out += 1
    if request._echoes_id():
        out = _copy(request, 1, out)
    else:
        out[0] = c'-'
        out += 1
    out[0] = c' '
    out += 1
    if request._grammar.has_tid:
        if (request._code >= 0 and request._grammar.demands[request._code] & NEEDS_TID
                and request._count > 2 and _digits(text + request._start[2], request._length[2])):
            if request._length[1] >= 5 and request._echoes_id():
                # gwd scans a job id of five digits and the TID as one number; "+" parts them.
                out[0] = c'+'
                out += 1
            out = _copy(request, 2, out)
        else:
            out[0] = c'-'
            out += 1
        out[0] = c' '
        out += 1
    return out


# ---------------------------------------------------------------- host attributes

KNOWN_INTEGERS = frozenset((
    "CPU_MHZ", "CPU_FREE", "CPU_SMP", "NODECOUNT", "SIZE_MEM_MB", "FREE_MEM_MB",
    "SIZE_DISK_MB", "FREE_DISK_MB"))
KNOWN_TEXTS = frozenset((
    "HOSTNAME", "ARCH", "OS_NAME", "OS_VERSION", "CPU_MODEL", "FORK_NAME", "LRMS_NAME",
    "LRMS_TYPE"))
KNOWN_QUEUE_INTEGERS = frozenset((
    "QUEUE_NODECOUNT", "QUEUE_FREENODECOUNT", "QUEUE_MAXTIME", "QUEUE_MAXCPUTIME",
    "QUEUE_MAXCOUNT", "QUEUE_MAXRUNNINGJOBS", "QUEUE_MAXJOBSINQUEUE"))
KNOWN_QUEUE_TEXTS = frozenset((
    "QUEUE_NAME", "QUEUE_STATUS", "QUEUE_DISPATCHTYPE", "QUEUE_PRIORITY"))

cdef enum:
    # What is known of a name; bits of a Name.
    HOST_INTEGER = 1
    HOST_STRING = 2
    QUEUE_INTEGER = 4
    QUEUE_STRING = 8
    COPIED = 16             # gwd copies it into a field of 24 bytes
    BAD_NAME = 32
    QUEUE_PREFIX = 64
    QUEUE_KEY = 128         # QUEUE_NAME: no blank, no colon
    HOST_KEY = 256          # HOSTNAME

cdef extern from "Python.h":
    void Py_XDECREF(PyObject* o)
    void PyErr_Clear()
    const char* _AsUTF8 "PyUnicode_AsUTF8AndSize" (PyObject* text, Py_ssize_t* size) noexcept


cdef struct Name:
    PyObject* key           # a reference of its own, so the address stays this name's
    const char* text
    Py_ssize_t length
    int kind

cdef enum:
    NAMES = 512
    PROBES = 4              # slots looked at: two names of one slot must not chase each other
cdef Name names[NAMES]      # found by the address of the (interned) name
memset(names, 0, sizeof(names))


cdef int _kind(str name) except -1:
    cdef int kind = 0
    if name in KNOWN_INTEGERS:
        kind = HOST_INTEGER
    elif name in KNOWN_TEXTS:
        kind = HOST_STRING
    elif name in KNOWN_QUEUE_INTEGERS:
        kind = QUEUE_INTEGER
    elif name in KNOWN_QUEUE_TEXTS:
        kind = QUEUE_STRING
    if name in ("ARCH", "FORK_NAME", "LRMS_NAME", "QUEUE_NAME"):
        kind |= COPIED
    if name == "QUEUE_NAME":
        kind |= QUEUE_KEY
    if name == "HOSTNAME":
        kind |= HOST_KEY
    if name.startswith("QUEUE_"):
        kind |= QUEUE_PREFIX
    if not (name.isascii() and name.isidentifier() and name[0] != "_" and len(name) <= NAME):
        kind = BAD_NAME
    return kind


cdef inline Name* _name(PyObject* key) except NULL:
    cdef size_t slot = <size_t>key >> 4
    cdef Name* entry
    cdef int probe
    for probe in range(PROBES):
        entry = &names[(slot + probe) % NAMES]
        if entry.key == key:
            return entry
        if entry.key == NULL:
            break
    else:
        entry = &names[slot % NAMES]
    _learn(entry, key)
    return entry


cdef int _learn(Name* entry, PyObject* key) except -1:
    """Keep what is known of a name in `entry`, in place of what was there."""
    cdef Py_ssize_t length = 0
    cdef const char* text = NULL
    cdef int kind
    cdef PyObject* before = entry.key
    if not PyUnicode_Check(<object>key):
        raise TypeError(f"the name of an attribute is a str, not {type(<object>key).__name__}")
    kind = _kind(<str>key)
    if kind != BAD_NAME:
        text = PyUnicode_AsUTF8AndSize(<object>key, &length)
    Py_INCREF(<object>key)
    entry.key = key
    entry.text = text
    entry.length = length
    entry.kind = kind
    Py_XDECREF(before)
    return 0


cdef inline const char* _utf8(PyObject* text, Py_ssize_t* length) noexcept:
    """The text's own UTF-8; NULL where it holds surrogates and has none."""
    cdef const char* utf8 = _AsUTF8(text, length)
    if utf8 == NULL:
        PyErr_Clear()
    return utf8


cdef struct Writer:
    char* start
    char* at
    char* end
    int generic_integers
    int generic_texts
    bint full


cdef char attributes_buffer[INFO + 256]


cdef inline bint _clean(const char* text, Py_ssize_t length) noexcept nogil:
    """No byte below 32, no quote, no DEL: the text goes out as it is."""
    cdef Py_ssize_t i = 0
    cdef uint64_t word
    cdef uint64_t ones = 0x0101010101010101
    cdef uint64_t highs = 0x8080808080808080
    cdef uint64_t quotes, deletes
    while i + 8 <= length:
        memcpy(&word, text + i, 8)
        quotes = word ^ (ones * 34)
        deletes = word ^ (ones * 127)
        if (((word - ones * 32) & ~word) | ((quotes - ones) & ~quotes)
                | ((deletes - ones) & ~deletes)) & highs:
            return False
        i += 8
    while i < length:
        if SAFE[<uint8_t>text[i]] != <uint8_t>text[i]:
            return False
        i += 1
    return True


cdef char* _number(char* out, long long value) noexcept nogil:
    # The value is held to 32 bits; dividing those is three times as fast as 64.
    cdef char digits[12]
    cdef int count = 0
    cdef uint32_t rest
    if value < 0:
        out[0] = c'-'
        out += 1
        value = -value
    rest = <uint32_t>value
    while True:
        digits[count] = <char>(c'0' + rest % 10)
        count += 1
        rest //= 10
        if rest == 0:
            break
    while count:
        count -= 1
        out[0] = digits[count]
        out += 1
    return out


cdef str _put(Writer* writer, PyObject* key, PyObject* value, int queue):
    """Write one NAME=value; None, or why it was left out."""
    cdef Name* name = _name(key)
    cdef int kind = name.kind
    cdef long long number
    cdef int overflow = 0
    cdef const char* text
    cdef Py_ssize_t length = 0
    cdef Py_ssize_t i
    cdef char* out
    cdef bint is_text
    cdef bint generic = not kind & (
        HOST_INTEGER | HOST_STRING if queue < 0 else QUEUE_INTEGER | QUEUE_STRING)
    cdef bytes encoded
    if kind & BAD_NAME:
        return "its name is none that gwd reads"
    if queue < 0 and kind & QUEUE_PREFIX:
        return "a name of a queue needs a queue"
    if queue >= 0 and kind & (HOST_INTEGER | HOST_STRING):
        return "a name of a host has no queue"
    if PyUnicode_Check(<object>value):
        is_text = True
    elif PyLong_Check(<object>value):
        is_text = False
    else:
        return f"its value is {type(<object>value).__name__}, not an integer or a text"
    if is_text and kind & (HOST_INTEGER | QUEUE_INTEGER):
        return "its value must be an integer"
    if not is_text and kind & (HOST_STRING | QUEUE_STRING):
        return "its value must be a text"
    if generic:
        if is_text and writer.generic_texts >= GENERIC:
            return f"a host has at most {GENERIC} generic texts"
        if not is_text and writer.generic_integers >= GENERIC:
            return f"a host has at most {GENERIC} generic integers"
    if is_text:
        text = _utf8(value, &length)
        if text == NULL:
            encoded = (<str>value).encode("utf-8", "replace")
            text = PyBytes_AS_STRING(encoded)
            length = PyBytes_GET_SIZE(encoded)
        if kind & COPIED and length > KNOWN_TEXT:
            return f"its value is longer than the {KNOWN_TEXT} bytes that gwd takes"
        if kind & HOST_KEY and length > HOST_TEXT:
            return f"its value is longer than the {HOST_TEXT} bytes that gwd takes"
        if kind & (COPIED | HOST_KEY):
            # gwd writes these into lines whose fields are parted by blanks and colons.
            for i in range(length):
                if (text[i] == c' ' or SAFE[<uint8_t>text[i]] != <uint8_t>text[i]
                        or (text[i] == c':' and kind & (QUEUE_KEY | HOST_KEY))):
                    return "its value has a blank, a colon or another character that gwd cannot take"
        if length > TEXT:
            length = TEXT
            while length and (<uint8_t>text[length] & 0xC0) == 0x80:
                length -= 1     # never half a UTF-8 character
    if writer.at + name.length + length + 32 > writer.end:
        writer.full = True
        return f"a host has at most {INFO} bytes of attributes"
    out = writer.at
    if out != writer.start:
        out[0] = c' '
        out += 1
    memcpy(out, name.text, name.length)
    out += name.length
    if queue >= 0:
        out[0] = c'['
        out = _number(out + 1, queue)
        out[0] = c']'
        out += 1
    out[0] = c'='
    out += 1
    if is_text:
        out[0] = c'"'
        out += 1
        if _clean(text, length):
            memcpy(out, text, length)
        else:
            for i in range(length):
                out[i] = <char>SAFE[<uint8_t>text[i]]
        out += length
        out[0] = c'"'
        out += 1
        writer.generic_texts += generic
    else:
        number = PyLong_AsLongLongAndOverflow(<object>value, &overflow)
        if overflow > 0 or number > 2147483647:
            number = 2147483647
        elif overflow < 0 or number < -2147483648:
            number = -2147483648
        out = _number(out, number)
        writer.generic_integers += generic
    writer.at = out
    return None


def format_attributes(dict host not None, list queues not None, dict more not None={}):
    """Attributes as gwd reads them: (bytes, what was left out and why).

    `host` maps names to int or str; queues[i] likewise, each name getting the index [i];
    `more` are attributes of the host that are written last, and left out first.
    Integers are held to 32 bits; quotes and control characters in texts are replaced;
    whatever would harm gwd (by its name, type, number or length) is left out, and a queue
    whose name gwd cannot take, or that does not fit, is left out whole.
    """
    cdef Writer writer
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    cdef int queue
    cdef list dropped = []
    cdef dict attributes
    cdef Writer before      # where a queue began: it is written whole or not at all
    cdef bint whole
    writer.start = writer.at = attributes_buffer
    writer.end = attributes_buffer + INFO
    writer.generic_integers = writer.generic_texts = 0
    writer.full = False
    _put_all(&writer, host, dropped)
    for queue in range(<int>PyList_GET_SIZE(queues)):
        attributes = <dict?>queues[queue]
        if queue >= QUEUES:
            dropped.append(f"queues from {queue} on: a host has at most {QUEUES} queues")
            break
        before = writer
        before.full = writer.full = False
        whole = True
        at = 0
        while PyDict_Next(attributes, &at, &key, &value):
            reason = _put(&writer, key, value, queue)
            if reason is not None:
                dropped.append(f"{<object>key}[{queue}]: {reason}")
                whole = whole and not _name(key).kind & QUEUE_KEY
        if writer.full or not whole:
            writer = before
    _put_all(&writer, more, dropped)
    return PyBytes_FromStringAndSize(writer.start, writer.at - writer.start), dropped


cdef _put_all(Writer* writer, dict attributes, list dropped):
    """Write a host's own attributes."""
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    while PyDict_Next(attributes, &at, &key, &value):
        reason = _put(writer, key, value, -1)
        if reason is not None:
            dropped.append(f"{<object>key}: {reason}")
