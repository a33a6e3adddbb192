# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The MAD line protocol over bytes: requests in, answers out.

    request   OPERATION ID FIELD ... NEWLINE       fields separated by blanks or tabs
    answer    OPERATION ID [TID] RESULT INFO NEWLINE

Everything here is a pure function of bytes or a small parser; nothing does I/O.  The
plain-Python specification is tests/specification.py, the oracle of the property tests.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy


# ---------------------------------------------------------------- limits (see gridmad.wire)

cdef enum:
    LINE = 65535          # bytes of a line with its newline that gwd takes in one piece
    MAX_FEED = 1 << 30    # bytes of one feed: fields are kept as 32-bit offsets
    FIELDS = 6            # the transfer family has the most
    EXCERPT = 64          # bytes of a line that is too long that are looked at

MAX_LINE = LINE


# ---------------------------------------------------------------- classes of bytes

cdef enum:
    ORDINARY = 0
    BLANK = 1
    CONTROL = 2

cdef uint8_t CLASS[256]
cdef uint8_t UPPER[256]


cdef void _fill_tables() noexcept:
    cdef int i
    for i in range(256):
        CLASS[i] = CONTROL if i < 32 or i == 127 else ORDINARY
        UPPER[i] = <uint8_t>(i - 32 if c'a' <= i <= c'z' else i)
    CLASS[c' '] = BLANK
    CLASS[c'\t'] = BLANK

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


def drop(list requests not None):
    """Let `requests` go without an answer: what is said of them later is left out, too."""
    cdef Request request
    for request in requests:
        request.answered = True


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
