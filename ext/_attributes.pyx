# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Host attributes as gwd reads them: `NAME=1 NAME="text" NAME[0]=2 ...`.

Whatever would harm gwd is left out here, for every driver: gwd takes names of a fixed kind,
copies some texts into fields of fixed width, and stores what is too much beyond its arrays.
A pure function; the plain-Python specification is tests/specification.py.

Source: GridWay 5.14, src/host/gw_host_update_syntax.y and gw_host_attr_parser.l (the grammar),
include/gw_host.h and gw_rm_msg.h (the limits).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.list cimport PyList_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_Check
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset


cdef enum:
    INFO = 64900          # bytes of attributes: leaves room for "MONITOR <id> SUCCESS "
    QUEUES = 67           # queues of a host (GW_HOST_MAX_QUEUES)
    GENERIC = 134         # generic attributes of a host, each of integers and of texts
    TEXT = 4000           # bytes of one text value: one value must not push the others out
    NAME = 64             # bytes of an attribute's name
    KNOWN_TEXT = 24       # bytes of a name that gwd copies: queue, LRMS, fork, architecture
    HOST_TEXT = 39        # bytes of a host's name

MAX_INFO = INFO
MAX_QUEUES = QUEUES
MAX_GENERIC = GENERIC
MAX_TEXT = TEXT
MAX_HOST_NAME = HOST_TEXT

cdef uint8_t SAFE[256]      # what a byte becomes inside a quoted text


cdef void _fill_table() noexcept:
    cdef int i
    for i in range(256):
        SAFE[i] = <uint8_t>(c' ' if i < 32 or i == 127 else i)
    SAFE[c'"'] = c"'"

_fill_table()

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
    """Write one NAME=value; None, or what was left out of it, or why all of it."""
    cdef Name* name = _name(key)
    cdef int kind = name.kind
    cdef long long number
    cdef int overflow = 0
    cdef const char* text
    cdef Py_ssize_t length = 0
    cdef Py_ssize_t i
    cdef char* out
    cdef bint is_text
    cdef bint cut = False
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
            cut = True
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
    return f"what its value has beyond {TEXT} bytes" if cut else None


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
