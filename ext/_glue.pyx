# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Values of directory entries as texts and integers: what a join asks most often.

An entry maps names in lower case to sequences of bytes.  A grid of 10,000 queues has some
400,000 values; with these functions its join takes half the time that it takes with the same
in plain Python, which is in tests/glue_specification.py.  No I/O happens here.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact, PyDict_GetItem
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeLatin1, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef enum:
    DIGITS = 30     # of an integer; more are none that anybody means
    QUICK = 18      # digits that fit 64 bits
    SHORT = 64      # bytes of a value whose text is made once, since many entries have the same
    COMMON = 8192   # texts that are kept (a power of 2)
    UNKNOWN = 444444    # a state that nobody knows

cdef list written = [None] * COMMON
cdef list texts = [None] * COMMON


cdef inline object _values(object entry, str name):
    """The values under `name`: a sequence, or None."""
    cdef PyObject* found
    if PyDict_CheckExact(entry):
        found = PyDict_GetItem(entry, name)
        return <object>found if found != NULL else None
    return entry.get(name)


cdef inline bytes _first(object entry, str name):
    """The first value under `name`; None where there is none."""
    cdef object values = _values(entry, name)
    if values is None:
        return None
    if PyTuple_CheckExact(values):
        return <bytes?>PyTuple_GET_ITEM(values, 0) if PyTuple_GET_SIZE(values) else None
    return <bytes?>values[0] if values else None


cdef inline bint _is_blank(uint8_t byte) noexcept:
    return byte == 32 or 9 <= byte <= 13


cdef inline size_t _slot(const char* at, size_t size) noexcept:
    """Where the text of such a value is kept, by its first and last bytes."""
    cdef uint64_t first = 0
    cdef uint64_t last = 0
    if size >= 8:
        memcpy(&first, at, 8)
        memcpy(&last, at + size - 8, 8)
    else:
        memcpy(&first, at, size)
    first = (first ^ (last << 7 | last >> 57) ^ size) * 0x9E3779B97F4A7C15ULL
    return first >> 51 & (COMMON - 1)


cdef str _made(bytes value):
    cdef const char* at = PyBytes_AS_STRING(value)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
    cdef str text
    try:
        text = PyUnicode_DecodeUTF8(at, size, NULL)
    except UnicodeDecodeError:
        text = PyUnicode_DecodeLatin1(at, size, NULL)
    if size and not (32 < at[0] < 127 and 32 < at[size - 1] < 127):
        return text.strip()
    return text


cdef str _text(bytes value):
    cdef size_t size = PyBytes_GET_SIZE(value)
    cdef size_t slot
    cdef bytes known
    cdef str text
    if size > SHORT:
        return _made(value)
    slot = _slot(PyBytes_AS_STRING(value), size)
    known = <bytes>written[slot]
    if (known is not None and <size_t>PyBytes_GET_SIZE(known) == size
            and memcmp(PyBytes_AS_STRING(known), PyBytes_AS_STRING(value), size) == 0):
        return <str>texts[slot]
    text = _made(value)
    written[slot] = value
    texts[slot] = text
    return text


def decoded(bytes value not None):
    """A value as text without blanks around it; no UTF-8 is what sites wrote before, Latin-1."""
    return _text(value)


def text_of(entry, str name not None):
    """The first value under `name`, "" where there is none."""
    cdef bytes value = _first(entry, name)
    return "" if value is None else _text(value)


def texts_of(entry, str name not None):
    """All values under `name`."""
    cdef object values = _values(entry, name)
    return [] if values is None else [_text(<bytes?>value) for value in values]


def keys_of(entry, str name not None, str target not None):
    """The identities, in lower case, that the keys `target=identity` under `name` refer to."""
    cdef object values = _values(entry, name)
    cdef list found = []
    cdef str kind
    cdef str identity
    if values is None:
        return found
    for value in values:
        kind, _, identity = _text(<bytes?>value).lower().partition("=")
        if identity and kind.strip() == target:
            found.append(identity.strip())
    return found


def words_of(entry, names):
    """The first value under each of `names`, "" where there is none."""
    cdef list found = []
    cdef bytes value
    for name in names:
        value = _first(entry, <str?>name)
        found.append("" if value is None else _text(value))
    return found


cdef object _number(object entry, str name):
    cdef bytes value = _first(entry, name)
    cdef const char* at
    cdef const char* end
    cdef const char* first
    cdef long long number = 0
    if value is None:
        return None
    at = PyBytes_AS_STRING(value)
    end = at + PyBytes_GET_SIZE(value)
    while at < end and _is_blank(<uint8_t>at[0]):
        at += 1
    while at < end and _is_blank(<uint8_t>(end - 1)[0]):
        end -= 1
    if at < end and at[0] == c'+':
        at += 1
    first = at
    while at < end and c'0' <= at[0] <= c'9':
        if at - first < QUICK:
            number = number * 10 + (at[0] - c'0')
        at += 1
    if at == first or at - first > DIGITS:
        return None
    exact = number if at - first <= QUICK else int(first[:at - first])
    if at < end and at[0] == c'.':
        at += 1
        while at < end and c'0' <= at[0] <= c'9':
            at += 1
    return exact if at == end else None


def number_of(entry, str name not None):
    """The integer of at least 0 under `name`, without decimals; None where there is none."""
    return _number(entry, name)


def numbers_of(entry, names):
    """The same under each of `names`."""
    return [_number(entry, <str?>name) for name in names]


def state_of(entry, str name not None):
    """An integer of which 0 is something that one can know."""
    number = _number(entry, name)
    return None if number == UNKNOWN else number


def quantity_of(entry, *names):
    """The first of these integers that is known and not 0: a size or a limit."""
    for name in names:
        number = _number(entry, <str?>name)
        if number:
            return number
    return None
