"""Values as people write them: brokers, sizes, times and names of files.

Each function takes a text and raises ValueError, whose own text can be shown as it is.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

DEFAULT_PORT: Final = 61613
DEFAULT_TLS_PORT: Final = 61614
MAX_HOSTS: Final = 64

_EXCERPT: Final = 60
_LONGEST_PATH: Final = 300
_MAX_NAME: Final = 253
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_AUTHORITY: Final = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::([^:]*))?")
_SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?) ?(?:([kKMGT])(i?B|i)?|B)?")
_AGO: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(s|m|h|d)(?: ago)?")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Address(NamedTuple):
    """One broker as it was named."""

    host: str
    port: int
    tls: bool


def quoted(text: str | Path) -> str:
    """The text or file name as a message may show it: short, on one line, in quotes."""
    most = _EXCERPT if isinstance(text, str) else _LONGEST_PATH
    return repr(str(text)[:most]) + ("..." if len(str(text)) > most else "")


def port(text: str) -> int:
    """A TCP port; ValueError otherwise."""
    if text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536:
        return int(text)
    raise ValueError(f"{quoted(text)} is no port from 1 to 65535")


def address(text: str, default: int | None = None) -> Address:
    """A broker: name, name:port, [IPv6]:port, stomp://... or stomp+ssl://...; else ValueError.

    Without a port of its own it gets `default`, or that of its scheme.
    """
    tls = False
    rest = text.strip()
    if url := _URL.fullmatch(rest):
        scheme, rest = url[1].lower(), url[2].removesuffix("/")
        if "@" in rest:
            # Not shown: it may be a password.
            raise ValueError("a broker's URL takes no user and no password")
        if scheme not in ("stomp", "stomp+ssl"):
            raise ValueError(f"{quoted(text)}: the scheme must be stomp or stomp+ssl")
        tls = scheme == "stomp+ssl"
    fallback = default or (DEFAULT_TLS_PORT if tls else DEFAULT_PORT)
    if _is_ipv6(rest):
        return Address(rest, fallback, tls)
    parts = _AUTHORITY.fullmatch(rest)
    if parts is None:
        raise ValueError(f"{quoted(text)} is no host: HOST, HOST:PORT or stomp+ssl://HOST:PORT")
    literal, name, number = parts.groups()
    if literal is not None and not _is_ipv6(literal):
        raise ValueError(f"{quoted(literal)} is no IPv6 address")
    if literal is None and not (len(name) <= _MAX_NAME and _NAME.fullmatch(name)):
        raise ValueError(f"{quoted(name)} is no host name")
    return Address(literal or name, fallback if number is None else port(number), tls)


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def addresses(texts: Sequence[str], default: int | None = None) -> list[Address]:
    """All brokers of several texts, each one or more separated by commas; ValueError."""
    found: list[Address] = []
    for text in texts:
        for part in text.split(","):
            if part.strip() and (one := address(part, default)) not in found:
                found.append(one)
    if not found:
        raise ValueError("no host is named")
    if len(found) > MAX_HOSTS:
        raise ValueError(f"more than {MAX_HOSTS} hosts")
    return found


def size(text: str) -> int:
    """Bytes: 4096, 64k, 64M, 1GiB (powers of 1024) or 64MB (of 1000); ValueError otherwise."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{quoted(text)} is no size such as 4096, 64M or 1GiB")
    base = 1000 if match[3] == "B" else 1024
    value = int(float(match[1]) * base ** (" kMGT".index(match[2].replace("K", "k"))
                                           if match[2] else 0))  # fmt: skip
    if not 0 < value < 1 << 60:
        raise ValueError(f"{quoted(text)} is no size from 1 byte to 1 EiB")
    return value


def rate(text: str) -> int:
    """Bytes a second, written as a size with or without `/s`; ValueError otherwise."""
    return size(text.strip().removesuffix("/s"))


def moment(text: str, now: float) -> int:
    """A time in ms since 1970: ISO 8601 (local time without a zone), or `10m`, `2h ago`.

    `now` is in seconds since 1970.  ValueError otherwise.
    """
    if match := _AGO.fullmatch(text.strip()):
        return max(0, int((now - float(match[1]) * _UNITS[match[2]]) * 1000))
    try:
        value = datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        value = -1.0
    if value < 0:
        raise ValueError(f"{quoted(text)} is no time such as 10m, 2h or 2026-11-20T12:00")
    return int(value * 1000)


def seconds(text: str, least: float = 0.001, most: float = 1e9) -> float:
    """A time span in seconds, by default of 1 ms to some 30 years; ValueError otherwise."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if least <= value <= most:
        return value
    raise ValueError(f"{quoted(text)} is no number of seconds from {least:g} to {most:g}")


def whole(text: str, most: int) -> int:
    """A whole number from 0 to `most`; ValueError otherwise."""
    if text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= most:
        return int(text)
    raise ValueError(f"{quoted(text)} is no whole number from 0 to {most}")


def choice(*words: str) -> Callable[[str], str]:
    """A parser that takes one of the words."""

    def parse(text: str) -> str:
        if text in words:
            return text
        raise ValueError(f"{quoted(text)} is none of {', '.join(words)}")

    return parse


def path(text: str) -> Path:
    """A file's name, with ~ for the home; ValueError where it cannot be one."""
    if not text or "\0" in text:
        raise ValueError("an empty name" if not text else "a name with a NUL")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


def is_loopback(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") in ("localhost", "localhost.localdomain")
