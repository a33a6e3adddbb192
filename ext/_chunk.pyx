# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Frames of the peek protocol: header, checksum, and the walk over a body.

     0        4    5    6       8           12          16
    +---------+----+----+-------+-----------+-----------+
    | "MPK1"  |type|src | flags | epoch     | raw length|
    +---------+----+----+-------+-----------+-----------+
    | sequence (8)              | offset (8)            |  16, 24
    +---------------------------+-----------------------+
    | time in ms since 1970 (8) | encoded len| CRC-32C  |  32, 40, 44
    +---------------------------+-----------------------+
    | payload (encoded length)                          |  48
    +---------------------------------------------------+
    | MAC (16), where flag MAC is set                   |
    +---------------------------------------------------+

src/gridmad/peek/PROTOCOL.md, section 3, has the rules.  Everything here is a function of
bytes; nothing does I/O.  The plain-Python specification is tests/peek_specification.py.

The GIL is kept: to copy and check a frame takes 3 microseconds at most, and a thread that
lets go for that may wait five milliseconds to get it back (measured beside a thread that
computes: a third to a half of the rate is lost; between two that encode nothing is gained).
"""

import hmac

cimport cython
from cpython.buffer cimport PyBUF_READ, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from gridmad.errors import MissingDependencyError
from gridmad.peek.errors import FrameError


# ---------------------------------------------------------------- CRC-32C

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    /* CRC-32C (Castagnoli), reflected.  The processor's instruction gives one result each
       cycle but takes three to make it, so three stretches are computed side by side and
       then joined: the checksum is linear, and what LANE zero bytes do to it is a table. */

    #define CRC_POLYNOMIAL 0x82f63b78u
    #define CRC_LANE 512

    #if defined(__x86_64__) && defined(__GNUC__)
    #define CRC_TARGET __attribute__((target("sse4.2")))
    #define CRC_STEP8(crc, word) __builtin_ia32_crc32di((crc), (word))
    #define CRC_STEP1(crc, byte) __builtin_ia32_crc32qi((uint32_t)(crc), (byte))
    #define CRC_AVAILABLE (__builtin_cpu_init(), __builtin_cpu_supports("sse4.2") != 0)
    #elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32) && !defined(__AARCH64EB__)
    #include <arm_acle.h>
    #define CRC_TARGET
    #define CRC_STEP8(crc, word) __crc32cd((uint32_t)(crc), (word))
    #define CRC_STEP1(crc, byte) __crc32cb((uint32_t)(crc), (byte))
    #define CRC_AVAILABLE 1
    #endif

    static uint32_t crc_tables[8][256];
    static uint32_t crc_lane[4][256];
    static int crc_is_fast = 0;

    static uint32_t crc_by_table(uint32_t crc, const uint8_t *data, size_t length)
    {
        for (; length >= 8; length -= 8, data += 8)
            crc = crc_tables[7][data[0] ^ (crc & 255)]
                ^ crc_tables[6][data[1] ^ ((crc >> 8) & 255)]
                ^ crc_tables[5][data[2] ^ ((crc >> 16) & 255)]
                ^ crc_tables[4][data[3] ^ (crc >> 24)]
                ^ crc_tables[3][data[4]] ^ crc_tables[2][data[5]]
                ^ crc_tables[1][data[6]] ^ crc_tables[0][data[7]];
        for (; length; length--, data++)
            crc = crc_tables[0][(uint8_t)(crc ^ *data)] ^ (crc >> 8);
        return crc;
    }

    #ifdef CRC_AVAILABLE
    static inline uint64_t crc_word(const uint8_t *data)
    {
        uint64_t word;
        memcpy(&word, data, 8);
        return word;
    }

    static inline uint32_t crc_skip_lane(uint32_t crc)
    {
        return crc_lane[0][crc & 255] ^ crc_lane[1][(crc >> 8) & 255]
             ^ crc_lane[2][(crc >> 16) & 255] ^ crc_lane[3][crc >> 24];
    }

    CRC_TARGET static uint32_t crc_by_instruction(uint32_t start, const uint8_t *data, size_t length)
    {
        uint64_t crc = start;
        for (; length >= 3 * CRC_LANE; length -= 3 * CRC_LANE, data += 3 * CRC_LANE) {
            uint64_t second = 0, third = 0;
            size_t at;
            for (at = 0; at < CRC_LANE; at += 8) {
                crc = CRC_STEP8(crc, crc_word(data + at));
                second = CRC_STEP8(second, crc_word(data + CRC_LANE + at));
                third = CRC_STEP8(third, crc_word(data + 2 * CRC_LANE + at));
            }
            crc = crc_skip_lane((uint32_t)crc) ^ (uint32_t)second;
            crc = crc_skip_lane((uint32_t)crc) ^ (uint32_t)third;
        }
        for (; length >= 8; length -= 8, data += 8)
            crc = CRC_STEP8(crc, crc_word(data));
        for (; length; length--, data++)
            crc = CRC_STEP1(crc, *data);
        return (uint32_t)crc;
    }
    #endif

    static void crc_prepare(void)
    {
        uint32_t zeros[32];
        uint8_t lane[CRC_LANE] = {0};
        int i, j, bit;
        for (i = 0; i < 256; i++) {
            uint32_t crc = (uint32_t)i;
            for (bit = 0; bit < 8; bit++)
                crc = crc & 1 ? (crc >> 1) ^ CRC_POLYNOMIAL : crc >> 1;
            crc_tables[0][i] = crc;
        }
        for (j = 1; j < 8; j++)
            for (i = 0; i < 256; i++)
                crc_tables[j][i] = crc_tables[0][crc_tables[j - 1][i] & 255]
                                 ^ (crc_tables[j - 1][i] >> 8);
        for (bit = 0; bit < 32; bit++)
            zeros[bit] = crc_by_table((uint32_t)1 << bit, lane, CRC_LANE);
        for (j = 0; j < 4; j++)
            for (i = 0; i < 256; i++) {
                uint32_t crc = 0;
                for (bit = 0; bit < 8; bit++)
                    if (i >> bit & 1)
                        crc ^= zeros[8 * j + bit];
                crc_lane[j][i] = crc;
            }
    #ifdef CRC_AVAILABLE
        crc_is_fast = CRC_AVAILABLE;
    #endif
    }

    static inline uint32_t crc_update(uint32_t crc, const uint8_t *data, size_t length)
    {
    #ifdef CRC_AVAILABLE
        if (crc_is_fast)
            return crc_by_instruction(crc, data, length);
    #endif
        return crc_by_table(crc, data, length);
    }

    /* Numbers of the header, whatever the byte order of the processor. */

    static inline void put16(uint8_t *at, uint16_t value)
    {
        at[0] = (uint8_t)value;
        at[1] = (uint8_t)(value >> 8);
    }

    static inline void put32(uint8_t *at, uint32_t value)
    {
        put16(at, (uint16_t)value);
        put16(at + 2, (uint16_t)(value >> 16));
    }

    static inline void put64(uint8_t *at, uint64_t value)
    {
        put32(at, (uint32_t)value);
        put32(at + 4, (uint32_t)(value >> 32));
    }

    static inline uint16_t get16(const uint8_t *at)
    {
        return (uint16_t)(at[0] | at[1] << 8);
    }

    static inline uint32_t get32(const uint8_t *at)
    {
        return (uint32_t)get16(at) | (uint32_t)get16(at + 2) << 16;
    }

    static inline uint64_t get64(const uint8_t *at)
    {
        return (uint64_t)get32(at) | (uint64_t)get32(at + 4) << 32;
    }
    """
    void crc_prepare() noexcept nogil
    uint32_t crc_by_table(uint32_t crc, const uint8_t* data, size_t length) noexcept nogil
    uint32_t crc_update(uint32_t crc, const uint8_t* data, size_t length) noexcept nogil
    int crc_is_fast
    void put16(uint8_t* at, uint16_t value) noexcept nogil
    void put32(uint8_t* at, uint32_t value) noexcept nogil
    void put64(uint8_t* at, uint64_t value) noexcept nogil
    uint16_t get16(const uint8_t* at) noexcept nogil
    uint32_t get32(const uint8_t* at) noexcept nogil
    uint64_t get64(const uint8_t* at) noexcept nogil

crc_prepare()

HAS_CRC_INSTRUCTION = bool(crc_is_fast)


def crc32c(bytes data not None, bint by_table=False):
    """CRC-32C of some bytes; `by_table` as where the processor has no instruction for it."""
    cdef const uint8_t* start = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef size_t length = <size_t>PyBytes_GET_SIZE(data)
    if by_table:
        return <uint32_t>~crc_by_table(<uint32_t>0xffffffff, start, length)
    return <uint32_t>~crc_update(<uint32_t>0xffffffff, start, length)


# ---------------------------------------------------------------- the header

cdef enum:
    MAGIC = 0
    TYPE = 4
    SOURCE = 5
    FLAGS = 6
    EPOCH = 8
    RAW_SIZE = 12
    SEQUENCE = 16
    OFFSET = 24
    TIME = 32
    ENCODED_SIZE = 40
    CHECKSUM = 44
    HEADER = 48
    MAC = 16

    LZ4 = 1
    AUTHENTICATED = 2

    CHUNK = 1
    GAP = 2
    STDERR = 2

    RAW = 65536
    BODY = 262144

cdef const char* VERSION = b"MPK1"
cdef uint64_t MAX_NUMBER = (<uint64_t>1 << 63) - 1
# 1 to 9 from job sides, 16 to 20 from clients.
cdef uint32_t TYPES = 0x1f03fe

HEADER_LENGTH = HEADER
MAC_LENGTH = MAC
MAX_RAW = RAW
MAX_BODY = BODY


cdef inline bint _is_type(uint8_t type) noexcept nogil:
    return type < 32 and (TYPES >> type & 1) != 0


cdef inline bint _fits(uint8_t type, uint8_t source) noexcept nogil:
    """Chunks and gaps belong to stdout or stderr, everything else to neither."""
    if type == CHUNK or type == GAP:
        return 0 < source <= STDERR
    return source == 0


cdef inline uint32_t _checksum(const uint8_t* frame, size_t encoded) noexcept nogil:
    return ~crc_update(
        crc_update(<uint32_t>0xffffffff, frame, CHECKSUM), frame + HEADER, encoded
    )


cdef bytes _authenticate(object mac, const uint8_t* frame, size_t length):
    """The MAC of header and payload; `mac` has been given the stream."""
    own = mac.copy()
    own.update(PyMemoryView_FromMemory(<char*>frame, <Py_ssize_t>length, PyBUF_READ))
    return own.digest()[:MAC]


# ---------------------------------------------------------------- frames

cdef object _decompress = None
cdef object _LZ4BlockError = None


cdef object _load():
    global _decompress, _LZ4BlockError
    try:
        from lz4.block import LZ4BlockError, decompress
    except ImportError:
        raise MissingDependencyError("lz4", "peek") from None
    _LZ4BlockError = LZ4BlockError
    _decompress = decompress
    return decompress


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Frame:
    """One frame that was whole, of a known type, and authentic where there is a key."""

    cdef bytes _bytes           # the payload, or a body that is mostly this payload
    cdef uint32_t _start
    cdef uint32_t _length
    cdef readonly uint8_t type
    cdef readonly uint8_t source
    cdef readonly uint16_t flags
    cdef readonly uint32_t epoch
    cdef readonly uint32_t raw_length
    cdef readonly uint64_t sequence
    cdef readonly uint64_t offset
    cdef readonly uint64_t time

    def __init__(self):
        raise TypeError("frames come from decode()")

    @property
    def payload(self):
        """The payload as it came."""
        if self._length == PyBytes_GET_SIZE(self._bytes):
            return self._bytes
        return PyBytes_FromStringAndSize(
            PyBytes_AS_STRING(self._bytes) + self._start, self._length
        )

    def data(self):
        """The payload as it was before compression, exactly `raw_length` bytes.

        FrameError where an LZ4 block is damaged or holds more or less than it claims,
        MissingDependencyError where it cannot be read since lz4 is not installed.
        """
        if not self.flags & LZ4:
            return self.payload
        decompress = _decompress or _load()
        block = PyMemoryView_FromMemory(
            PyBytes_AS_STRING(self._bytes) + self._start, self._length, PyBUF_READ
        )
        try:
            data = decompress(block, uncompressed_size=self.raw_length)
        except _LZ4BlockError:
            raise FrameError("the LZ4 block of a chunk is damaged") from None
        if PyBytes_GET_SIZE(data) != self.raw_length:
            raise FrameError(f"a chunk holds {len(data)} bytes, not {self.raw_length}")
        return data


def encode(
    uint8_t type, uint8_t source, uint32_t epoch, int64_t sequence, int64_t offset, int64_t time,
    payload, int64_t raw_length=-1, mac=None,
):
    """One frame.  `payload` is an LZ4 block of `raw_length` bytes where that is given; `mac`
    an HMAC that has been given the stream, which stays as it is.

    ValueError or OverflowError where a number is not one that a frame may have.
    """
    cdef Py_buffer view
    cdef bytes frame
    cdef uint8_t* start
    cdef uint32_t encoded
    cdef uint16_t flags = 0
    if not _is_type(type) or not _fits(type, source):
        raise ValueError(f"no frame is of type {type} and source {source}")
    if sequence < 0 or offset < 0 or time < 0:
        raise ValueError("a frame's sequence, offset and time are not negative")
    if mac is not None:
        flags |= AUTHENTICATED
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        if view.len > RAW:
            raise ValueError(f"the payload of a frame has at most {RAW} bytes")
        encoded = <uint32_t>view.len
        if raw_length < 0:
            raw_length = encoded
        else:
            flags |= LZ4
            if type != CHUNK or not encoded < raw_length <= RAW:
                raise ValueError(f"{encoded} bytes cannot stand for {raw_length}")
        if type == CHUNK and raw_length == 0:
            raise ValueError("a chunk has at least one byte")
        if <uint64_t>offset + <uint64_t>raw_length > MAX_NUMBER:
            raise ValueError("a frame ends before 2^63")
        frame = PyBytes_FromStringAndSize(
            NULL, HEADER + encoded + (MAC if flags & AUTHENTICATED else 0)
        )
        start = <uint8_t*>PyBytes_AS_STRING(frame)
        memcpy(start, VERSION, 4)
        start[TYPE] = type
        start[SOURCE] = source
        put16(start + FLAGS, flags)
        put32(start + EPOCH, epoch)
        put32(start + RAW_SIZE, <uint32_t>raw_length)
        put64(start + SEQUENCE, <uint64_t>sequence)
        put64(start + OFFSET, <uint64_t>offset)
        put64(start + TIME, <uint64_t>time)
        put32(start + ENCODED_SIZE, encoded)
        memcpy(start + HEADER, view.buf, encoded)
        put32(start + CHECKSUM, _checksum(start, encoded))
    finally:
        PyBuffer_Release(&view)
    if flags & AUTHENTICATED:
        # Nobody else has seen the new bytes yet, so they may still be written to.
        digest = _authenticate(mac, start, HEADER + encoded)
        memcpy(start + HEADER + encoded, PyBytes_AS_STRING(digest), MAC)
    return frame


def decode(bytes body not None, mac=None):
    """The frames of one body, and how many were dropped.  Never raises."""
    cdef const uint8_t* start = <const uint8_t*>PyBytes_AS_STRING(body)
    cdef Py_ssize_t left = PyBytes_GET_SIZE(body)
    cdef const uint8_t* at = start
    cdef uint32_t encoded, raw
    cdef uint16_t flags
    cdef Py_ssize_t whole
    cdef Py_ssize_t damaged = 0
    cdef Frame frame
    cdef list frames = []
    if not 0 < left <= BODY:
        return frames, 1
    while left > 0:
        # What has to be right to know where the next frame begins.
        if left < HEADER or memcmp(at, VERSION, 4) != 0:
            damaged += 1
            break
        flags = get16(at + FLAGS)
        encoded = get32(at + ENCODED_SIZE)
        if flags > (LZ4 | AUTHENTICATED) or encoded > RAW:
            damaged += 1
            break
        whole = <Py_ssize_t>HEADER + encoded + (MAC if flags & AUTHENTICATED else 0)
        if left < whole:
            damaged += 1
            break

        raw = get32(at + RAW_SIZE)
        if (
            not _is_sound(at, flags, raw, encoded)
            or (mac is not None) != (flags & AUTHENTICATED != 0)
            or (mac is not None and not _is_authentic(mac, at, encoded))
        ):
            damaged += 1
        else:
            frame = Frame.__new__(Frame)
            frame.type = at[TYPE]
            frame.source = at[SOURCE]
            frame.flags = flags
            frame.epoch = get32(at + EPOCH)
            frame.raw_length = raw
            frame.sequence = get64(at + SEQUENCE)
            frame.offset = get64(at + OFFSET)
            frame.time = get64(at + TIME)
            frame._length = encoded
            # A frame must not keep a body alive that is much larger than itself.
            if 2 * <Py_ssize_t>encoded >= PyBytes_GET_SIZE(body):
                frame._bytes = body
                frame._start = <uint32_t>(at - start) + HEADER
            else:
                frame._bytes = PyBytes_FromStringAndSize(<const char*>at + HEADER, encoded)
                frame._start = 0
            frames.append(frame)
        at += whole
        left -= whole
    return frames, damaged


cdef bint _is_sound(const uint8_t* frame, uint16_t flags, uint32_t raw, uint32_t encoded) noexcept nogil:
    cdef uint64_t offset = get64(frame + OFFSET)
    if not _is_type(frame[TYPE]) or not _fits(frame[TYPE], frame[SOURCE]):
        return False
    if flags & LZ4:
        if frame[TYPE] != CHUNK or not encoded < raw <= RAW:
            return False
    elif raw != encoded:
        return False
    if frame[TYPE] == CHUNK and raw == 0:
        return False
    if offset > MAX_NUMBER - raw or get64(frame + SEQUENCE) > MAX_NUMBER:
        return False
    if get64(frame + TIME) > MAX_NUMBER:
        return False
    return _checksum(frame, encoded) == get32(frame + CHECKSUM)


cdef bint _is_authentic(object mac, const uint8_t* frame, uint32_t encoded) except -1:
    expected = _authenticate(mac, frame, HEADER + encoded)
    return hmac.compare_digest(
        expected, PyBytes_FromStringAndSize(<const char*>frame + HEADER + encoded, MAC)
    )
