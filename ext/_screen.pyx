# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Filters over streams of bytes: what a terminal may get, and what may leave a node.

    Screen   drops what a terminal would act upon, but for colours
    Masker   puts asterisks in the place of known secrets

Both take a stream in pieces and give the same bytes however it was cut.  Nothing does I/O.
The plain-Python specification is tests/screen_specification.py.
"""

cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE)
from libc.stdint cimport int16_t, uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memset


cdef extern from *:
    """
    typedef unsigned char bytes16 __attribute__((vector_size(16)));
    typedef unsigned long long words2 __attribute__((vector_size(16)));

    /* The first place from `at` on, and before `end`, where one of the pairs is; `end` where
       there is none.  Reads up to text[end]. */
    static Py_ssize_t find_pair(const unsigned char* text, Py_ssize_t at, Py_ssize_t end,
                                const unsigned char* firsts, const unsigned char* seconds,
                                int count) {
        bytes16 first, second, found;
        words2 any;
        int i;
        while (at + 16 <= end) {
            memcpy(&first, text + at, 16);
            memcpy(&second, text + at + 1, 16);
            found = (bytes16)((first == firsts[0]) & (second == seconds[0]));
            for (i = 1; i < count; i++)
                found |= (bytes16)((first == firsts[i]) & (second == seconds[i]));
            any = (words2)found;
            if (any[0] | any[1])
                break;
            at += 16;
        }
        for (; at < end; at++)
            for (i = 0; i < count; i++)
                if (text[at] == firsts[i] && text[at + 1] == seconds[i])
                    return at;
        return end;
    }
    """
    Py_ssize_t find_pair(const uint8_t* text, Py_ssize_t at, Py_ssize_t end,
                         const uint8_t* firsts, const uint8_t* seconds, int count) noexcept nogil


cdef enum:
    FEW = 3               # literals that are searched for by a pair
    BOUND = 4096          # characters after which any unfinished sequence is over
    COLOUR = 64           # of a colour's digits; two of 24 bits with attributes take 45
    SECRETS = 128         # literals of one Masker
    SECRET = 16384        # bytes of one of them
    UNLOCKED = 8192       # bytes from which on giving the GIL away is worth its price

MAX_SEQUENCE = BOUND
MAX_COLOUR = COLOUR
MAX_SECRETS = SECRETS
MAX_SECRET = SECRET


# ---------------------------------------------------------------- terminal escapes

cdef enum:
    GROUND = 0
    ESCAPE = 1            # behind ESC and intermediates
    CONTROL = 2           # in a control sequence: behind ESC [ or U+009B
    STRING = 3            # in OSC, DCS, APC, PM or SOS

cdef enum:
    # Characters that are no codes below U+00A0.
    TEXT = 0x100          # a whole one of two to four bytes
    REPLACEMENT = 0x101   # bytes that are not UTF-8

cdef uint8_t PLAIN[256]

cdef void _fill_plain() noexcept:
    cdef int byte
    for byte in range(256):
        PLAIN[byte] = 32 <= byte < 127 or byte == 9 or byte == 10 or byte == 13

_fill_plain()


cdef inline int _follow(uint8_t lead, uint8_t* low, uint8_t* high) noexcept nogil:
    """How many bytes follow a lead byte, and the bounds of the first; 0 where it is none.

    RFC 3629, section 4: neither overlong forms nor surrogates nor beyond U+10FFFF.
    """
    low[0] = 0x80
    high[0] = 0xBF
    if 0xC2 <= lead <= 0xDF:
        return 1
    if 0xE0 <= lead <= 0xEF:
        if lead == 0xE0:
            low[0] = 0xA0
        elif lead == 0xED:
            high[0] = 0x9F
        return 2
    if 0xF0 <= lead <= 0xF4:
        if lead == 0xF0:
            low[0] = 0x90
        elif lead == 0xF4:
            high[0] = 0x8F
        return 3
    return 0


cdef inline Py_ssize_t _printable(const uint8_t* data, Py_ssize_t size) noexcept nogil:
    """Bytes of the character of several that begins here; 0 where it is not whole or a C1."""
    cdef uint8_t low, high
    cdef int more = _follow(data[0], &low, &high)
    cdef int i
    if more == 0 or more >= size or not low <= data[1] <= high:
        return 0
    if data[0] == 0xC2 and data[1] < 0xA0:
        return 0
    for i in range(2, more + 1):
        if data[i] & 0xC0 != 0x80:
            return 0
    return more + 1


cdef Py_ssize_t _plain(const uint8_t* data, Py_ssize_t size) noexcept nogil:
    """How many bytes from here on are whole characters that any terminal only prints."""
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t length, end
    cdef uint64_t word
    while at < size:
        if at + 8 <= size:
            memcpy(&word, data + at, 8)
            # The top bit rises in bytes below 0x20, in DEL, and above 0x7f.
            if not ((word - 0x2020202020202020u) | (word + 0x0101010101010101u)
                    | word) & 0x8080808080808080u:
                at += 8
                continue
            end = at + 8
        else:
            end = size
        while at < end:
            if PLAIN[data[at]]:
                at += 1
                continue
            length = _printable(data + at, size - at) if data[at] >= 0xC2 else 0
            if length == 0:
                return at
            at += length
    return at


@cython.final
cdef class Screen:
    """What one source of output may do to a terminal: print, and set colours.

    Passes printable text in UTF-8, tab, newline, carriage return, and SGR: ESC [ at most
    MAX_COLOUR digits, semicolons and colons, m.  Drops every other escape and control
    sequence, 7-bit or 8-bit; strings (OSC, DCS, APC, PM, SOS) end at ST, BEL, CAN, SUB,
    before a newline, an escape or another C1, and after MAX_SEQUENCE characters, so that
    none can swallow the rest.  Bytes that are not UTF-8 become U+FFFD.  With `colours`
    False SGR is dropped too.

    A carriage return passes since progress bars need it: a line can hide what stands
    before it in the same line.  Holds back at most one unfinished colour or character.
    """

    cdef readonly bint colours
    cdef int _state
    cdef int _length                  # characters of the sequence so far
    cdef bint _is_colour              # the control sequence may still become an SGR
    cdef int _held
    cdef uint8_t _parameters[COLOUR]
    cdef int _have                    # bytes of an unfinished character
    cdef int _need
    cdef uint8_t _low
    cdef uint8_t _high
    cdef uint8_t _partial[4]

    def __init__(self, bint colours=True):
        self.colours = colours
        self._state = GROUND
        self._have = 0
        self._need = 0

    def feed(self, bytes data not None):
        """What of the stream so far may be shown and was not returned before."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef const uint8_t* text = <const uint8_t*>PyBytes_AS_STRING(data)
        cdef Py_ssize_t plain = 0
        cdef bytes shown
        cdef uint8_t* out
        cdef uint8_t* end
        if self._state == GROUND and self._need == 0:
            if size >= UNLOCKED:
                with nogil:
                    plain = _plain(text, size)
            else:
                plain = _plain(text, size)
            if plain == size:
                return data
        # A byte that is not UTF-8 becomes three; something may have been held back before.
        shown = PyBytes_FromStringAndSize(NULL, plain + 3 * (size - plain) + COLOUR + 8)
        out = <uint8_t*>PyBytes_AS_STRING(shown)
        if size >= UNLOCKED:
            with nogil:
                memcpy(out, text, plain)
                end = self._filter(text + plain, size - plain, out + plain)
        else:
            memcpy(out, text, plain)
            end = self._filter(text + plain, size - plain, out + plain)
        return shown[:end - out]

    def flush(self):
        """The end of the stream, or of a part: an unfinished character shows as U+FFFD.

        An unfinished sequence is dropped.  What is fed next begins anew.
        """
        cdef uint8_t out[3]
        cdef uint8_t* end = out
        if self._need:
            end = self._take(REPLACEMENT, out)
        self._need = 0
        self._have = 0
        self._state = GROUND
        return PyBytes_FromStringAndSize(<char*>out, end - out)

    cdef uint8_t* _filter(self, const uint8_t* data, Py_ssize_t size, uint8_t* out) noexcept nogil:
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t plain
        cdef int character
        cdef uint8_t byte
        while at < size:
            if self._need == 0:
                if self._state == GROUND:
                    plain = _plain(data + at, size - at)
                    memcpy(out, data + at, plain)
                    out += plain
                    at += plain
                    if at == size:
                        break
                byte = data[at]
                at += 1
                character = byte
                if byte >= 0xA0:
                    self._need = _follow(byte, &self._low, &self._high)
                    if self._need:
                        self._partial[0] = byte
                        self._have = 1
                        continue
                    character = REPLACEMENT
            elif self._low <= data[at] <= self._high:
                self._partial[self._have] = data[at]
                self._have += 1
                self._need -= 1
                self._low = 0x80
                self._high = 0xBF
                at += 1
                if self._need:
                    continue
                character = TEXT
                if self._partial[0] == 0xC2 and self._partial[1] < 0xA0:
                    character = self._partial[1]
            else:
                # The byte belongs to the next character: it is looked at again.
                self._need = 0
                character = REPLACEMENT
            out = self._take(character, out)
        return out

    cdef uint8_t* _take(self, int character, uint8_t* out) noexcept nogil:
        """One step: a code below U+00A0, TEXT (the bytes are in _partial) or REPLACEMENT."""
        if self._state == ESCAPE:
            if 0x20 <= character <= 0x2F:
                return self._count(out)
            self._state = GROUND
            if 0x30 <= character <= 0x7E:
                if self._length == 0:
                    if character == c'[':
                        self._begin(CONTROL, self.colours)
                    elif (character == c']' or character == c'P' or character == c'X'
                            or character == c'^' or character == c'_'):
                        self._begin(STRING, False)
                return out
        elif self._state == CONTROL:
            if 0x20 <= character <= 0x3F:
                if self._is_colour:
                    if self._held < COLOUR and 0x30 <= character <= 0x3B:
                        self._parameters[self._held] = <uint8_t>character
                        self._held += 1
                    else:
                        self._is_colour = False
                return self._count(out)
            self._state = GROUND
            if 0x40 <= character <= 0x7E:
                if character == c'm' and self._is_colour:
                    out[0] = 0x1B
                    out[1] = c'['
                    memcpy(out + 2, self._parameters, self._held)
                    out += 2 + self._held
                    out[0] = c'm'
                    out += 1
                return out
        elif self._state == STRING:
            if character == 0x07 or character == 0x18 or character == 0x1A:
                self._state = GROUND
                return out
            if not (character == c'\n' or character == 0x1B or 0x80 <= character < 0xA0):
                return self._count(out)
            self._state = GROUND

        # In the ground state; also what broke a sequence off.
        if character == TEXT:
            memcpy(out, self._partial, self._have)
            return out + self._have
        if character == REPLACEMENT:
            out[0] = 0xEF
            out[1] = 0xBF
            out[2] = 0xBD
            return out + 3
        if character == 0x1B:
            self._begin(ESCAPE, False)
        elif character == 0x9B:
            # No terminal in UTF-8 needs the 8-bit form for colours.
            self._begin(CONTROL, False)
        elif (character == 0x90 or character == 0x98 or character == 0x9D
                or character == 0x9E or character == 0x9F):
            self._begin(STRING, False)
        elif PLAIN[character]:
            out[0] = <uint8_t>character
            out += 1
        return out

    cdef inline void _begin(self, int state, bint is_colour) noexcept nogil:
        self._state = state
        self._length = 0
        self._held = 0
        self._is_colour = is_colour

    cdef inline uint8_t* _count(self, uint8_t* out) noexcept nogil:
        self._length += 1
        if self._length == BOUND:
            self._state = GROUND
        return out


# ---------------------------------------------------------------- secrets

cdef enum:
    BLOCKS = 4096         # pairs of bytes are told apart by 12 bits: 4 KiB stay in the L1 cache


cdef inline int _block(const uint8_t* data) noexcept nogil:
    return ((<int>data[0] << 5) ^ data[1]) & (BLOCKS - 1)


@cython.final
cdef int _commonness(uint8_t byte):
    """How often a byte is met in logs, roughly: letters, digits and blanks the most."""
    if byte in b" 0123456789aeinorst":
        return 4
    if byte in b"cdhlmpu./:-_=,":
        return 3
    if c"a" <= byte <= c"z":
        return 2
    return 1


cdef class Masker:
    """Asterisks of the same length in the place of literals, in a stream cut anywhere.

    Every byte of every occurrence is masked, of overlapping ones too.  Takes 1 to
    MAX_SECRETS literals of 2 to MAX_SECRET bytes, else ValueError (which quotes none).

    Search: a few literals by one pair of their bytes, 16 places at a time; more by Wu and
    Manber's shift table over pairs, so that most bytes are never looked at.
    """

    cdef tuple _secrets                   # keeps what _texts points to
    cdef const uint8_t* _texts[SECRETS]
    cdef Py_ssize_t _lengths[SECRETS]
    cdef int16_t _next[SECRETS]           # the next literal whose window ends in the same pair
    cdef int16_t _head[BLOCKS]
    cdef uint8_t _shift[BLOCKS]
    cdef uint8_t _first[256]
    cdef int _count
    cdef Py_ssize_t _window
    cdef Py_ssize_t _longest
    cdef Py_ssize_t _pair                 # where in each of a few literals their pair begins
    cdef uint8_t _firsts[FEW]
    cdef uint8_t _seconds[FEW]
    cdef bytes _held
    cdef Py_ssize_t _covered              # bytes of _held inside an occurrence that began before

    def __init__(self, secrets not None):
        cdef int i, j, block
        cdef bytes secret
        self._secrets = tuple(secrets)
        self._count = <int>min(len(self._secrets), SECRETS + 1)
        if not 0 < self._count <= SECRETS:
            raise ValueError(f"1 to {SECRETS} secrets can be masked, not {len(self._secrets)}")
        self._held = b""
        self._covered = 0
        self._window = 255
        self._longest = 0
        for i in range(self._count):
            secret = <bytes?>self._secrets[i]
            self._texts[i] = <const uint8_t*>PyBytes_AS_STRING(secret)
            self._lengths[i] = PyBytes_GET_SIZE(secret)
            if not 2 <= self._lengths[i] <= SECRET:
                raise ValueError(f"a secret of {self._lengths[i]} bytes cannot be masked")
            self._window = min(self._window, self._lengths[i])
            self._longest = max(self._longest, self._lengths[i])
        memset(self._shift, <int>self._window - 1, BLOCKS)
        memset(self._first, 0, 256)
        for i in range(BLOCKS):
            self._head[i] = -1
        for i in range(self._count):
            self._first[self._texts[i][0]] = 1
            for j in range(2, <int>self._window + 1):
                block = _block(self._texts[i] + j - 2)
                self._shift[block] = min(self._shift[block], <uint8_t>(self._window - j))
            block = _block(self._texts[i] + self._window - 2)
            self._next[i] = self._head[block]
            self._head[block] = <int16_t>i
        if self._count <= FEW:
            self._choose_pair()

    cdef _choose_pair(self):
        """The pair that is the least common in text."""
        cdef int i, commonness
        cdef int least = -1
        cdef Py_ssize_t place
        for place in range(self._window - 1):
            commonness = 0
            for i in range(self._count):
                commonness += _commonness(self._texts[i][place])
                commonness += _commonness(self._texts[i][place + 1])
            if least < 0 or commonness < least:
                least = commonness
                self._pair = place
        for i in range(self._count):
            self._firsts[i] = self._texts[i][self._pair]
            self._seconds[i] = self._texts[i][self._pair + 1]

    @property
    def pending(self):
        """Bytes held back: the longest end of the stream that a literal may begin with."""
        return PyBytes_GET_SIZE(self._held)

    def feed(self, bytes data not None):
        """What may leave now of what was held back and `data`, masked."""
        return self._mask(self._held + data if self._held else data, False)

    def flush(self):
        """The end of the stream: what was held back."""
        return self._mask(self._held, True)

    cdef bytes _mask(self, bytes data, bint is_last):
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef const uint8_t* text = <const uint8_t*>PyBytes_AS_STRING(data)
        cdef Py_ssize_t end = self._window
        cdef Py_ssize_t leaves = size
        cdef Py_ssize_t length = 0
        cdef Py_ssize_t covered
        cdef bytes masked
        cdef uint8_t* out
        if size >= UNLOCKED:
            with nogil:
                length = self._find(text, size, &end)
        else:
            length = self._find(text, size, &end)
        if not is_last:
            leaves = self._safe(text, size)
        if length == 0 and self._covered == 0:
            if leaves == size:
                self._held = b""
                return data
            self._held = data[leaves:]
            return data[:leaves]
        # Made empty and filled: a copy of one byte would be Python's only object for it.
        masked = PyBytes_FromStringAndSize(NULL, size)
        out = <uint8_t*>PyBytes_AS_STRING(masked)
        memcpy(out, text, size)
        covered = self._covered
        memset(out, c'*', min(covered, size))
        if size >= UNLOCKED:
            with nogil:
                covered = self._cover(text, size, leaves, end, length, covered, out)
        else:
            covered = self._cover(text, size, leaves, end, length, covered, out)
        self._covered = max(0, covered - leaves)
        self._held = data[leaves:]
        return masked[:leaves]

    cdef Py_ssize_t _cover(self, const uint8_t* text, Py_ssize_t size, Py_ssize_t leaves,
                           Py_ssize_t end, Py_ssize_t length, Py_ssize_t covered,
                           uint8_t* out) noexcept nogil:
        """Mask this occurrence and all behind it; the end of the last one that begins before
        `leaves`.  Those that begin later are found again with what comes next.
        """
        cdef Py_ssize_t start
        while length:
            start = end - self._window
            memset(out + start, c'*', length)
            if start < leaves:
                covered = max(covered, start + length)
            end += 1
            length = self._find(text, size, &end)
        return covered

    cdef Py_ssize_t _find(self, const uint8_t* text, Py_ssize_t size,
                          Py_ssize_t* window_end) noexcept nogil:
        """The length of the next occurrence, 0 where there is none.

        `window_end` is where the window of the search ends: it comes as the first to try
        and goes as that of the occurrence, which begins _window bytes before.
        """
        cdef Py_ssize_t end = window_end[0]
        cdef Py_ssize_t start
        cdef Py_ssize_t longest = 0
        cdef Py_ssize_t shift
        cdef int block
        cdef int16_t number
        while end <= size:
            start = end - self._window
            if self._count <= FEW:
                start = find_pair(text + self._pair, start, size - self._window + 1,
                                  self._firsts, self._seconds, self._count)
                end = start + self._window
                if end > size:
                    break
            block = _block(text + end - 2)
            shift = self._shift[block]
            if shift:
                end += 1 if self._count <= FEW else shift
                continue
            number = self._head[block]
            while number >= 0:
                if (self._lengths[number] > longest and self._lengths[number] <= size - start
                        and memcmp(self._texts[number], text + start, self._lengths[number]) == 0):
                    longest = self._lengths[number]
                number = self._next[number]
            if longest:
                break
            end += 1
        window_end[0] = end
        return longest

    cdef Py_ssize_t _safe(self, const uint8_t* text, Py_ssize_t size) noexcept nogil:
        """Where the longest end begins that is the proper beginning of a literal."""
        cdef Py_ssize_t at = max(0, size - self._longest + 1)
        cdef int number
        while at < size:
            if self._first[text[at]]:
                for number in range(self._count):
                    if (self._lengths[number] > size - at
                            and memcmp(self._texts[number], text + at, size - at) == 0):
                        return at
            at += 1
        return size
