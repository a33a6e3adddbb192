"""What WebDAV adds to HTTP: properties of files, and copies between servers.

A copy between servers (HTTP third-party copy) is a COPY that tells the server of the destination
where the source is.  Its answer comes at once and goes on until the copy has ended: markers of its
progress, then a line `success: ...` or `failure: ...`.  What lets that server read the source is a
macaroon, which the server of the source makes for that one file.

Source: RFC 4918; "HTTP-TPC" and "Macaroons" of WLCG's DOMA working group.  No I/O happens here.
"""

import json
import re
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

from gridmad.errors import TransientError

PROPFIND: Final = (
    b'<?xml version="1.0" encoding="utf-8"?>'
    b'<D:propfind xmlns:D="DAV:"><D:prop>'
    b"<D:getcontentlength/><D:resourcetype/></D:prop></D:propfind>"
)
MACAROON_REQUEST: Final = "application/macaroon-request"

_DAV: Final = "{DAV:}"
_SIZE: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_BYTES: Final = re.compile(r"\s*Stripe Bytes Transferred:\s*([0-9]{1,19})\s*")
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}", re.ASCII)


class Resource(NamedTuple):
    """A file or directory."""

    path: str
    """As the server wrote it: escaped, or not; without a slash at its end."""
    size: int | None
    is_directory: bool

    @property
    def names(self) -> list[str]:
        """What its name may be: most servers escape it, some do not."""
        name = self.path.rpartition("/")[2]
        return list(dict.fromkeys((name, unquote(name, errors="surrogateescape"))))


def read_resources(content: bytes) -> list[Resource]:
    """What a PROPFIND tells, in its order.  Raises TransientError for what is no answer to one."""
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise TransientError("the answer to PROPFIND defines entities")
    try:
        root = ET.fromstring(content)  # noqa: S314 - entities are refused above
    except (ET.ParseError, ValueError):
        raise TransientError("the answer to PROPFIND is no XML") from None
    return [
        resource
        for response in root.iter(f"{_DAV}response")
        if (resource := _resource(response)) is not None
    ]


def _resource(response: ET.Element) -> Resource | None:
    href = response.findtext(f"{_DAV}href", "").strip("\r\n\t")
    path = urlsplit(href).path if "://" in href else href
    size: int | None = None
    is_directory = False
    for properties in response.iter(f"{_DAV}prop"):
        length = (properties.findtext(f"{_DAV}getcontentlength") or "").strip()
        if _SIZE.fullmatch(length):
            size = int(length)
        kind = properties.find(f"{_DAV}resourcetype")
        is_directory |= kind is not None and kind.find(f"{_DAV}collection") is not None
    return Resource(path.rstrip("/"), size, is_directory) if path else None


def macaroon_request() -> bytes:
    """For permission to read one file for an hour."""
    return json.dumps({"caveats": ["activity:DOWNLOAD"], "validity": "PT60M"}).encode()


def read_macaroon(content: bytes) -> str:
    """What a server gave; "" for nothing that can be used."""
    try:
        answer = json.loads(content)
    except ValueError:
        return ""
    token = answer.get("macaroon") if isinstance(answer, dict) else None
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else ""


class CopyAnswer:
    """Takes the answer to a COPY as it comes."""

    def __init__(self) -> None:
        self.moved = 0
        """Bytes, by the last marker."""
        self.failure: str | None = "the server did not say how it ended"
        """None when it succeeded."""
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take some more."""
        for line in self._lines(data):
            text = line.decode("utf-8", "replace").strip()
            word = text.lower()
            if found := _BYTES.fullmatch(text):
                self.moved = int(found[1])
            elif word.startswith("success"):
                self.failure = None
            elif word.startswith("failure"):
                self.failure = text.partition(":")[2].strip()[:300] or "it failed"

    def close(self) -> None:
        """Nothing more comes."""
        self.feed(b"\n")

    def _lines(self, data: bytes) -> Iterator[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-4096:]
        return iter(lines)
