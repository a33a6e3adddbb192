# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Answers of a directory server, from the bytes that it sends (RFC 4511, encoded as in its 5.1).

    LDAPMessage   ::= SEQUENCE { messageID INTEGER, protocolOp, controls [0] OPTIONAL }
    entry     [4] ::= SEQUENCE { objectName, SEQUENCE OF SEQUENCE { type, SET OF value } }
    reference [19]::= SEQUENCE OF URI
    more      [25]::= SEQUENCE { name [0] OPTIONAL, value [1] OPTIONAL }
    result        ::= SEQUENCE { code ENUMERATED, matchedDN, diagnosticMessage,
                                 referral [3], credentials [7], name [10], value [11] }

What is read are tags and lengths: every value lies within what encloses it, or BerError is
raised.  What a later version of LDAP may add at the end of a SEQUENCE is passed over, as
RFC 4511, 4 asks for.  No I/O happens here; ldap3's own decoder is the oracle of the tests.

The interpreter's lock is kept: what could do without it, to find the ends of the messages in
64 KiB, takes some 5 us, and to get the lock back can take a thousand times as long.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem, PyDict_SetItem, PyDict_Size
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove

import sys

from gridmad.errors import GridmadError


cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject* thing)
    PyObject* PyTuple_GET_ITEM(PyObject* made, Py_ssize_t index)
    PyObject* PyList_GET_ITEM(PyObject* made, Py_ssize_t index)


class BerError(GridmadError):
    """Bytes that are none of LDAP, or more of them than a server may send at once."""


cdef enum:
    INTEGER = 0x02
    OCTETS = 0x04
    ENUMERATED = 0x0A
    SEQUENCE = 0x30
    SET = 0x31
    BIND = 0x61             # results of a bind, a search and an extended operation
    ENTRY = 0x64
    DONE = 0x65
    REFERENCE = 0x73
    EXTENDED = 0x78
    INTERMEDIATE = 0x79
    CONTROLS = 0xA0
    REFERRAL = 0xA3
    BOOLEAN = 0x01
    CREDENTIALS = 0x87
    RESPONSE_NAME = 0x8A
    RESPONSE_VALUE = 0x8B
    MORE_NAME = 0x80
    MORE_VALUE = 0x81

    MESSAGE = 1 << 24       # bytes of a message: an entry is a few thousand
    NAMES = 4096            # attributes' names that are kept: a schema has some hundred
    COMMON = 4096           # values that are kept (a power of 2): most of a grid's are few
    SHORT = 40              # bytes of a value that is looked for among those

MAX_MESSAGE = MESSAGE
MAX_NAMES = NAMES


cdef struct Span:
    const uint8_t* at
    const uint8_t* end


@cython.final
cdef class _Name:
    """An attribute's name as servers write it, and as entries have it."""

    cdef bytes written
    cdef str lower
    cdef PyObject* following    # the name that came after it last time; the Decoder holds it


@cython.final
cdef class Control:
    """A control of a message: `oid`, whether it `is_critical`, and its `value` or None."""

    cdef readonly str oid
    cdef readonly bint is_critical
    cdef readonly bytes value


@cython.final
cdef class Result:
    """What ends an answer: of a bind (`operation` 1), a search (5) or an extended request (24).

    `references` are the URIs that came between the entries, a list for each reference;
    `more` are (name, value) of the intermediate responses.  `credentials`, `name` and `value`
    are None where the result has none.  Texts are as the server sent them.
    """

    cdef readonly int number
    cdef readonly int operation
    cdef readonly int code
    cdef readonly bytes matched_dn
    cdef readonly bytes text
    cdef readonly list referrals
    cdef readonly bytes credentials
    cdef readonly bytes name
    cdef readonly bytes value
    cdef readonly list controls
    cdef readonly list references
    cdef readonly list more


@cython.final
cdef class Decoder:
    """Bytes as they are read from one connection -> the answers to one request at a time.

    `expect` says which request is answered next; `feed` takes bytes until it returns the
    Result that ends the answer, or one of the server's own accord (number 0, RFC 4511, 4.4).
    Entries are decoded when `entries` asks for them, so that the next request can be on its
    way before.  After a BerError nothing more can be read.
    """

    cdef uint8_t* data
    cdef size_t size            # bytes that `data` has room for
    cdef size_t start           # where the messages begin whose entries were not asked for
    cdef size_t framed          # where the messages end that were looked at
    cdef size_t end             # where the bytes end
    cdef int64_t number
    cdef bint is_broken
    cdef list references
    cdef list more
    cdef dict names
    cdef _Name first            # its `following` is the first name of an entry
    cdef list common

    def __cinit__(self):
        self.references = []
        self.more = []
        self.names = {}
        self.first = _Name()
        self.common = [None] * COMMON
        self.number = -1

    def __dealloc__(self):
        PyMem_Free(self.data)

    @property
    def held(self):
        """Bytes that were fed and not looked at: of an unfinished message, or after a Result."""
        return self.end - self.framed

    def expect(self, int number):
        """What is fed from now on answers the request of this number."""
        self.number = number
        self.references = []
        self.more = []

    def feed(self, bytes data not None):
        """Take bytes: the Result where it is among them, else None.

        What comes after a Result waits for the next call.  Raises BerError for what is none
        of LDAP, and for messages that answer another request.
        """
        if self.is_broken:
            raise BerError("what came before was none of LDAP")
        self._keep(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        try:
            return self._frame()
        except BerError:
            self.is_broken = True
            raise

    def entries(self):
        """The entries that came since the last call: each its values by name in lower case.

        Raises BerError where one is malformed.
        """
        cdef list found = []
        cdef Span left
        cdef Span message
        cdef Span operation
        cdef int64_t number
        if self.is_broken:
            raise BerError("what came before was none of LDAP")
        left.at = self.data + self.start
        left.end = self.data + self.framed
        try:
            while left.at < left.end:
                _enter(&left, SEQUENCE, &message, "a message")
                _integer(&message, INTEGER, &number, "a message's number")
                if _next(&message, &operation, "an operation") == ENTRY:
                    found.append(self._entry(&operation))
                    _pass_over(&message)
        except BerError:
            self.is_broken = True
            raise
        self.start = self.framed
        return found

    # ---------------------------------------------------------------- bytes to messages

    cdef int _keep(self, const char* data, size_t size) except -1:
        """Put bytes behind those that are there."""
        cdef size_t held = self.end - self.start
        cdef void* wider
        if self.end + size > self.size:
            if self.start:
                memmove(self.data, self.data + self.start, held)
                self.framed -= self.start
                self.start = 0
                self.end = held
            if held + size > self.size:
                wider = PyMem_Realloc(self.data, 2 * (held + size))
                if wider == NULL:
                    raise MemoryError
                self.data = <uint8_t*>wider
                self.size = 2 * (held + size)
        if size:
            memcpy(self.data + self.end, data, size)
            self.end += size
        return 0

    cdef Result _frame(self):
        """Look at the messages that are whole, up to the Result."""
        cdef Span left
        cdef Span message
        cdef Span operation
        cdef int64_t number
        cdef int tag
        while True:
            left.at = self.data + self.framed
            left.end = self.data + self.end
            if not _is_whole(&left):
                return None
            _enter(&left, SEQUENCE, &message, "a message")
            _integer(&message, INTEGER, &number, "a message's number")
            tag = _next(&message, &operation, "an operation")
            if number != self.number and not (number == 0 and tag == EXTENDED):
                raise BerError(f"message {number} answers no request that waits")
            self.framed = left.at - self.data
            if tag == ENTRY:
                continue
            if tag == REFERENCE:
                self.references.append(_uris(&operation, "a reference"))
                _pass_over(&message)
            elif tag == INTERMEDIATE:
                self.more.append(_intermediate(&operation))
                _pass_over(&message)
            elif tag == DONE or tag == BIND or tag == EXTENDED:
                return self._result(number, tag, &operation, &message)
            else:
                raise BerError(f"an operation with the tag {tag:#04x} is no answer")

    cdef Result _result(self, int64_t number, int tag, Span* operation, Span* message):
        cdef Result result = Result()
        cdef Span part
        cdef int64_t code
        cdef int kind
        _integer(operation, ENUMERATED, &code, "a result's code")
        if not 0 <= code <= 0x7FFFFFFF:
            raise BerError(f"{code} is no result")
        result.number = <int>number
        result.operation = tag & 0x1F
        result.code = <int>code
        _enter(operation, OCTETS, &part, "a result's matched name")
        result.matched_dn = _bytes(&part)
        _enter(operation, OCTETS, &part, "a result's text")
        result.text = _bytes(&part)
        result.referrals = []
        while operation.at < operation.end:
            kind = _next(operation, &part, "a part of a result")
            if kind == REFERRAL:
                result.referrals = _uris(&part, "a referral")
            elif kind == CREDENTIALS and tag == BIND:
                result.credentials = _bytes(&part)
            elif kind == RESPONSE_NAME and tag == EXTENDED:
                result.name = _bytes(&part)
            elif kind == RESPONSE_VALUE and tag == EXTENDED:
                result.value = _bytes(&part)
        result.controls = _controls(message)
        result.references = self.references
        result.more = self.more
        return result

    # ---------------------------------------------------------------- entries

    cdef dict _entry(self, Span* operation):
        cdef dict entry = {}
        cdef Span name
        cdef Span attributes
        cdef Span attribute
        cdef Span values
        cdef _Name known = self.first
        _enter(operation, OCTETS, &name, "an entry's name")
        _enter(operation, SEQUENCE, &attributes, "an entry's attributes")
        while attributes.at < attributes.end:
            _enter(&attributes, SEQUENCE, &attribute, "an attribute")
            _enter(&attribute, OCTETS, &name, "an attribute's name")
            _enter(&attribute, SET, &values, "an attribute's values")
            _pass_over(&attribute)
            known = self._name(known, &name)
            PyDict_SetItem(entry, known.lower, self._values(&values))
        _pass_over(operation)
        return entry

    cdef _Name _name(self, _Name before, Span* name):
        """A name; each is made once.  Most follow the one that they followed last time."""
        cdef Py_ssize_t size = name.end - name.at
        cdef _Name known
        cdef PyObject* found
        cdef bytes written
        if before.following != NULL:
            known = <_Name>before.following
            if (PyBytes_GET_SIZE(known.written) == size
                    and memcmp(PyBytes_AS_STRING(known.written), name.at, size) == 0):
                return known
        written = PyBytes_FromStringAndSize(<const char*>name.at, size)
        found = PyDict_GetItem(self.names, written)
        if found != NULL:
            known = <_Name>found
        else:
            known = _Name()
            known.written = written
            known.lower = sys.intern(written.decode("ascii", "replace").lower())
            if PyDict_Size(self.names) >= NAMES:
                return known
            PyDict_SetItem(self.names, written, known)
        before.following = <PyObject*>known
        return known

    cdef tuple _values(self, Span* values):
        """The values of one attribute."""
        cdef Span value
        cdef Span ahead
        cdef Py_ssize_t count = 1
        cdef Py_ssize_t index
        cdef tuple made
        cdef bytes item
        if values.at == values.end:
            return ()
        ahead = values[0]
        _enter(&ahead, OCTETS, &value, "a value")
        if ahead.at == ahead.end:
            return self._single(&value)
        while ahead.at < ahead.end:
            _enter(&ahead, OCTETS, &value, "a value")
            count += 1
        made = PyTuple_New(count)
        for index in range(count):
            _enter(values, OCTETS, &value, "a value")
            item = _bytes(&value)
            Py_INCREF(item)
            PyTuple_SET_ITEM(made, index, item)
        # Bytes have no references: the cyclic garbage collector has nothing to see in it.
        PyObject_GC_UnTrack(<PyObject*>made)
        return made

    cdef tuple _single(self, Span* value):
        """A tuple of one value; the same one again where the value is short and common."""
        cdef size_t size = value.end - value.at
        cdef size_t slot = 0
        cdef PyObject* kept
        cdef PyObject* item
        cdef tuple made
        if size <= SHORT:
            slot = _slot(value.at, size)
            kept = PyList_GET_ITEM(<PyObject*>self.common, slot)
            if kept != <PyObject*>None:
                item = PyTuple_GET_ITEM(kept, 0)
                if (<size_t>PyBytes_GET_SIZE(<object>item) == size
                        and memcmp(PyBytes_AS_STRING(<object>item), value.at, size) == 0):
                    return <tuple>kept
        made = (_bytes(value),)
        PyObject_GC_UnTrack(<PyObject*>made)
        if size <= SHORT:
            self.common[slot] = made
        return made


def paged(bytes value not None):
    """The size and the cookie in the value of a paged-results control (RFC 2696)."""
    cdef Span whole
    cdef Span parts
    cdef Span cookie
    cdef int64_t size
    whole.at = <const uint8_t*>PyBytes_AS_STRING(value)
    whole.end = whole.at + PyBytes_GET_SIZE(value)
    _enter(&whole, SEQUENCE, &parts, "a paged-results control")
    _integer(&parts, INTEGER, &size, "the size in a paged-results control")
    _enter(&parts, OCTETS, &cookie, "the cookie in a paged-results control")
    return size, _bytes(&cookie)


# -------------------------------------------------------------------- tags and lengths


cdef enum:
    WHOLE = 0
    CUT = 1
    WRONG_TAG = 2
    WRONG_LENGTH = 3
    TOO_LONG = 4


cdef inline int _head(const uint8_t* at, const uint8_t* end, size_t* head, size_t* size) noexcept:
    """Bytes of the tag and length at `at`, and of what follows them; a reason where not WHOLE.

    Lengths may have any number of leading zeros.  LDAP has no tags of several bytes, and no
    lengths that only the end tells.
    """
    cdef size_t count
    cdef size_t length
    cdef const uint8_t* byte
    if end - at < 2:
        return CUT
    if at[0] & 0x1F == 0x1F:
        return WRONG_TAG
    length = at[1]
    if length < 0x80:
        head[0] = 2
        size[0] = length
        return WHOLE
    if length == 0x80 or length == 0xFF:
        return WRONG_LENGTH
    count = length - 0x80
    length = 0
    byte = at + 2
    while count:
        if byte == end:
            return CUT
        length = length << 8 | byte[0]
        if length > MESSAGE:
            return TOO_LONG
        byte += 1
        count -= 1
    head[0] = byte - at
    size[0] = length
    return WHOLE


cdef int _is_whole(Span* stream) except -1:
    """Whether the message at the beginning of `stream` is all there."""
    cdef size_t head = 0
    cdef size_t size = 0
    cdef int reason
    if stream.at == stream.end:
        return False
    if stream.at[0] != SEQUENCE:
        raise BerError("what answers there does not speak LDAP")
    reason = _head(stream.at, stream.end, &head, &size)
    if reason == CUT:
        return False
    if reason != WHOLE:
        _fail(reason, "a message")
    return <size_t>(stream.end - stream.at) - head >= size


cdef inline int _next(Span* outer, Span* inner, const char* what) except -1:
    """Go over one element in `outer`: its tag, and its content in `inner`."""
    cdef size_t head = 0
    cdef size_t size = 0
    cdef int tag
    cdef int reason = _head(outer.at, outer.end, &head, &size)
    if reason == WHOLE and <size_t>(outer.end - outer.at) - head < size:
        reason = CUT
    if reason != WHOLE:
        _fail(reason, what)
    tag = outer.at[0]
    inner.at = outer.at + head
    inner.end = inner.at + size
    outer.at = inner.end
    return tag


cdef inline int _enter(Span* outer, int tag, Span* inner, const char* what) except -1:
    """Go over one element in `outer` that has this tag."""
    cdef int found = _next(outer, inner, what)
    if found != tag:
        raise BerError(f"{what.decode()} has the tag {found:#04x} and not {tag:#04x}")
    return 0


cdef int _pass_over(Span* rest) except -1:
    """Go over what is left: elements of a later version of LDAP, or controls."""
    cdef Span part
    while rest.at < rest.end:
        _next(rest, &part, "a further element")
    return 0


cdef int _fail(int reason, const char* what) except -1:
    name = what.decode()
    if reason == CUT:
        raise BerError(f"{name} does not end within what holds it")
    if reason == TOO_LONG:
        raise BerError(f"{name} has more than {MESSAGE} bytes")
    if reason == WRONG_TAG:
        raise BerError(f"{name} has a tag of several bytes")
    raise BerError(f"{name} has a length that LDAP does not allow")


cdef int _integer(Span* outer, int tag, int64_t* number, const char* what) except -1:
    """Read an integer of at most 32 bits and a sign, in any number of bytes up to 8."""
    cdef Span content
    cdef size_t size
    cdef uint64_t value
    _enter(outer, tag, &content, what)
    size = content.end - content.at
    if not 0 < size <= 8:
        raise BerError(f"{what.decode()} is an integer of {size} bytes")
    value = <uint64_t>-1 if content.at[0] & 0x80 else 0
    while content.at < content.end:
        value = value << 8 | content.at[0]
        content.at += 1
    number[0] = <int64_t>value
    return 0


# -------------------------------------------------------------------- values


cdef inline bytes _bytes(Span* content):
    return PyBytes_FromStringAndSize(<const char*>content.at, content.end - content.at)


cdef inline size_t _slot(const uint8_t* value, size_t size) noexcept:
    """Where a value of this content is kept, by its first and last bytes."""
    cdef uint64_t first = 0
    cdef uint64_t last = 0
    if size >= 8:
        memcpy(&first, value, 8)
        memcpy(&last, value + size - 8, 8)
    else:
        memcpy(&first, value, size)
    first = (first ^ (last << 7 | last >> 57) ^ size) * 0x9E3779B97F4A7C15ULL
    return first >> 52 & (COMMON - 1)


cdef list _uris(Span* rest, const char* what):
    cdef Span uri
    cdef list found = []
    while rest.at < rest.end:
        _enter(rest, OCTETS, &uri, what)
        found.append(_bytes(&uri))
    return found


cdef tuple _intermediate(Span* operation):
    cdef Span part
    cdef bytes name = None
    cdef bytes value = None
    cdef int tag
    while operation.at < operation.end:
        tag = _next(operation, &part, "a part of an intermediate response")
        if tag == MORE_NAME:
            name = _bytes(&part)
        elif tag == MORE_VALUE:
            value = _bytes(&part)
    return name, value


cdef list _controls(Span* message):
    """The controls at the end of a message."""
    cdef Span all
    cdef Span one
    cdef Span part
    cdef Control control
    cdef list found = []
    cdef int tag
    while message.at < message.end:
        if _next(message, &all, "a message's controls") != CONTROLS:
            continue
        while all.at < all.end:
            _enter(&all, SEQUENCE, &one, "a control")
            control = Control()
            _enter(&one, OCTETS, &part, "a control's name")
            control.oid = _bytes(&part).decode("ascii", "replace")
            while one.at < one.end:
                tag = _next(&one, &part, "a part of a control")
                if tag == BOOLEAN:
                    control.is_critical = part.at < part.end and part.at[0] != 0
                elif tag == OCTETS:
                    control.value = _bytes(&part)
            found.append(control)
    return found
