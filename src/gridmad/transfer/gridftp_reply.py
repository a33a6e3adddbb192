"""What GridFTP servers and the Globus client library say, in words and types of this package.

A server's reply is a code of three digits and a text, over several lines where it has much to
say (RFC 959, section 4.2):

    550 550-GlobusError: v=1 c=PATH_NOT_FOUND
    550-GridFTP-Errno: 2
    550-GridFTP-Reason: System error in stat
    550-GridFTP-Error-String: No such file or directory
    550 End.

The facts of a file are a line of `NAME=VALUE;` and its name (RFC 3659, section 7); those of the
kind UNIX.* are of Globus' servers.  No I/O happens here.
"""

import re
from dataclasses import dataclass
from typing import Final

from gridmad.errors import CredentialError, DriverError, TransientError
from gridmad.transfer.storage import Status

LONGEST: Final = 300
"""Characters of a text that is told."""

NOT_LOGGED_IN: Final = 530
CLOSING: Final = 421
UNKNOWN: Final = frozenset({500, 501, 502, 504})
"""Codes of servers that do not know a command."""

_CODE: Final = re.compile(r"^(?:\d{3}[ -])*(\d{3})[ -]", re.MULTILINE)
_PREFIX: Final = re.compile(r"^(?:\d{3}[ -])+")
_NOISE: Final = re.compile(
    r"the server responded with an error|End\.?|GlobusError: v=\d+ c=\w+|GridFTP-Errno: \d+"
    r"|A system call failed.*|System error in \w+|Unable to open file .*"
    r"|(callback failed|globus_l_gfs_\w+ failed|error)\.?"
)
"""Said of every failure, and no reason of any."""
_LABEL: Final = re.compile(
    r"^(\[?globus_\w+\]?:(globus_\w+\(\): *)?|GridFTP-Reason:|GridFTP-Error-String:"
    r"|Command failed\. :) *"
)
_ERRNO: Final = re.compile(r"System error in \w+: (.+)")
_MISSING: Final = re.compile(r"No such file or directory|c=PATH_NOT_FOUND")
_EXISTS: Final = re.compile(r"File exists|c=PATH_EXISTS")
_CONNECTION: Final = re.compile(
    r"globus_xio|end-of-file|timed? ?out|data channel|connect", re.IGNORECASE
)
_FINAL: Final = re.compile(
    r"No such file|Permission denied|No space left|Disk quota|Is a directory|Not a directory"
    r"|File exists|Read-only file system|File too large|Operation not permitted|Name too long"
    r"|Directory not empty|PATH_NOT_FOUND|PERMISSION_DENIED|Invalid argument",
    re.IGNORECASE,
)
_CREDENTIAL: Final = re.compile(
    r"(credential|proxy|certificate)\b[^\n]*\b(expired|not found|could not be found|is invalid)"
    r"|Valid credentials could not be found|Could not find (a )?valid",
    re.IGNORECASE,
)
_REFUSED: Final = re.compile(
    r"Can't get the local trusted CA|self.signed certificate|certificate verify failed"
    r"|Could not verify credential|Authorization denied|No local mapping"
    r"|authentication failed|untrusted|certificate (chain|issuer)|name mismatch",
    re.IGNORECASE,
)


class ReplyError(DriverError):
    """What went wrong at a server; `code` is that of its reply, 0 where there was none."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class TransientReplyError(ReplyError, TransientError):
    """Something that may work in a moment."""


class MissingError(ReplyError):
    """There is no such file or directory."""


class ExistsError(ReplyError):
    """There is something of that name already."""


def error_of(text: str) -> ReplyError | CredentialError:
    """The error that the library's text tells."""
    code = reply_code(text)
    line = summary(text)
    if _MISSING.search(text):
        return MissingError("No such file or directory", code)
    if _EXISTS.search(text):
        return ExistsError("File exists", code)
    if code == 0 and _CREDENTIAL.search(text):
        return CredentialError(line)
    # 5yz is for good, but servers also tell the failure of a data connection so.
    is_final = (
        code == NOT_LOGGED_IN
        or _FINAL.search(text) is not None
        or (code >= 500 and not _CONNECTION.search(text))
        or (code == 0 and _REFUSED.search(text) is not None)
    )
    return (ReplyError if is_final else TransientReplyError)(line, code)


def reply_code(text: str) -> int:
    """The code of the server's reply; 0 where it is not the server who complains."""
    found = _CODE.search(text)
    return int(found[1]) if found else 0


def summary(text: str) -> str:
    """One line of what is worth being read."""
    told: list[str] = []
    for line in text.splitlines():
        words = _PREFIX.sub("", line.strip())
        if errno := _ERRNO.search(words):
            words = errno[1]
        while words != (shorter := _LABEL.sub("", words)):
            words = shorter
        if not words or _NOISE.fullmatch(words) or words in told:
            continue
        told.append(words)
    line = "; ".join(told) or " ".join(text.split()) or "no reason was given"
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a directory."""

    name: str
    status: Status


def parse_entry(line: bytes) -> Entry:
    """Read one line of facts.  Raises DriverError."""
    facts, blank, name = line.strip(b"\r\n").lstrip(b" ").partition(b" ")
    if not blank or b"=" not in facts:
        raise DriverError(f"the server lists {line[:LONGEST]!r}")
    known = {}
    for fact in facts.split(b";"):
        key, _, value = fact.partition(b"=")
        known[key.lower()] = value
    link = known.get(b"unix.slink")
    kind = known.get(b"type", b"").lower()
    size = known.get(b"size", b"0")
    if not size.isdigit():
        raise DriverError(f"the server tells the size {size[:LONGEST]!r}")
    if link is None and kind.startswith((b"os.unix=slink", b"os.unix=symlink")):
        link = b""
    return Entry(
        name.decode("utf-8", "surrogateescape"),
        Status(
            int(size),
            kind in {b"dir", b"cdir", b"pdir"},
            None if link is None else link.decode("utf-8", "surrogateescape"),
        ),
    )
