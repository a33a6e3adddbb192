"""HTTP/1.1 as a client of WebDAV needs it: heads of requests to bytes, answers from bytes.

    request  = "PUT /path HTTP/1.1" CRLF (name ": " value CRLF)* CRLF body
    answer   = "HTTP/1.1 201 Created" CRLF (name ":" value CRLF)* CRLF body
    chunked  = (length in hexadecimal digits [";" ...] CRLF data CRLF)* "0" CRLF (line CRLF)* CRLF

Source: RFC 9110 and RFC 9112; RFC 3230 (Digest).  No I/O happens here.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from gridmad.errors import DriverError, TransientError

MAX_HEAD: Final = 1 << 16
"""Bytes of an answer's head; more is a fault."""

_END: Final = b"\r\n\r\n"
_STATUS_LINE: Final = re.compile(r"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (.*))?", re.ASCII)
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_MAX_LINE: Final = 4096
_UNESCAPED: Final = "/-._~!$&'()*+,;=:@"
"""In a path, beside letters and digits (RFC 3986, section 3.3)."""
_NO_BODY: Final = frozenset({204, 304})


class HttpProtocolError(TransientError):
    """What came is no HTTP."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer."""

    status: int
    reason: str
    headers: Mapping[str, str]
    """By names in lower case; the values of one that was repeated are joined by ", "."""
    is_kept: bool
    """The connection can be used again when the body was read."""

    @property
    def is_success(self) -> bool:
        """2xx."""
        return 200 <= self.status < 300

    @property
    def redirection(self) -> str:
        """Where else to ask; "" for nowhere."""
        is_redirection = self.status in (301, 302, 303, 307, 308)
        return self.headers.get("location", "") if is_redirection else ""


def escape_path(path: str) -> str:
    """A path of names as they are, as the target of a request."""
    return quote(path.encode("utf-8", "surrogateescape"), safe=_UNESCAPED)


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request.  Raises DriverError for what cannot be in one."""
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise DriverError(f"the header {name} cannot have such a value")
        lines.append(f"{name}: {value}")
    try:
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    except UnicodeEncodeError:
        raise DriverError("a header can only have letters of Latin-1") from None


def read_head(data: bytes | bytearray) -> tuple[Head, int] | None:
    """The head of an answer and its length in bytes; None where more has to come."""
    end = data.find(_END)
    if end < 0:
        if len(data) > MAX_HEAD:
            raise HttpProtocolError(f"the head of an answer has more than {MAX_HEAD} bytes")
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    found = _STATUS_LINE.fullmatch(first)
    if not found:
        raise HttpProtocolError(f"{first[:80]!r} is no answer of HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise HttpProtocolError(f"{line[:80]!r} is no header")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    connection = headers.get("connection", "").lower()
    is_kept = "keep-alive" in connection if found[1] == "0" else "close" not in connection
    return Head(int(found[2]), found[3] or "", headers, is_kept), end + len(_END)


def body_length(head: Head, method: str) -> int | None:
    """Bytes of an answer's body; None where that is not known (chunked, or until the end)."""
    if method == "HEAD" or head.status in _NO_BODY or head.status < 200:
        return 0
    if "transfer-encoding" in head.headers:
        return None
    return content_length(head)


def content_length(head: Head) -> int | None:
    """What an answer says, even one without a body; None where it says nothing."""
    value = head.headers.get("content-length")
    if value is None:
        return None
    # Repeated, it has to be the same.
    lengths = set(re.split(r",[ \t]*", value))
    length = lengths.pop()
    if lengths or not _NUMBER.fullmatch(length):
        raise HttpProtocolError(f"{value[:80]!r} is no length of a body")
    return int(length)


def is_chunked(head: Head) -> bool:
    """Whether the body comes in chunks.  Raises HttpProtocolError for other encodings."""
    encoding = head.headers.get("transfer-encoding", "").lower()
    if encoding not in ("", "identity", "chunked"):
        raise HttpProtocolError(f"the encoding {encoding[:40]!r} is not known")
    return encoding == "chunked"


class Chunks:
    """Takes the lines between the data of a chunked body."""

    def __init__(self) -> None:
        self.left = 0
        """Bytes of data that come next."""
        self.is_over = False
        self._lines = bytearray()
        self._is_in_trailer = False
        self._is_first = True

    def feed(self, data: bytes | bytearray | memoryview) -> int:
        """Take what is not data, while `left` is 0; returns how many bytes it was.

        Whoever takes data lowers `left` by what was taken.
        """
        for count, byte in enumerate(bytes(data), 1):
            self._lines.append(byte)
            if byte == 10:
                self._take_line()
                if self.left or self.is_over:
                    return count
            elif len(self._lines) > _MAX_LINE:
                raise HttpProtocolError("a chunk's line is too long")
        return len(data)

    def _take_line(self) -> None:
        line, self._lines = bytes(self._lines).rstrip(b"\r\n"), bytearray()
        if self._is_in_trailer:
            self.is_over = not line
            return
        if not line and not self._is_first:
            self._is_first = True  # the end of a chunk's data
            return
        found = _CHUNK.fullmatch(line)
        if not found or not self._is_first:
            raise HttpProtocolError(f"{line[:40]!r} is no chunk")
        self._is_first = False
        self.left = int(found[1], 16)
        self._is_in_trailer = self.left == 0


def chunk(data: bytes | bytearray | memoryview) -> list[bytes | bytearray | memoryview]:
    """Data as a chunk; LAST_CHUNK ends them."""
    return [f"{len(data):x}\r\n".encode(), data, b"\r\n"]


LAST_CHUNK: Final = b"0\r\n\r\n"


def digest(head: Head, algorithm: str) -> str | None:
    """A checksum in hexadecimal digits that an answer tells ("adler32" or "md5").

    An MD5 is in base64 there; some servers write hexadecimal digits all the same.
    """
    for part in head.headers.get("digest", "").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() != algorithm:
            continue
        if algorithm != "md5" or re.fullmatch(r"[0-9A-Fa-f]{32}", value):
            return value.lower()
        try:
            return base64.b64decode(value, validate=True).hex()
        except binascii.Error:
            return None
    return None
