"""Credentials: where they are looked for, what their files say, and what to say of them.

A credential is an X.509 proxy (RFC 3820: certificate, key and chain in one PEM file) or a
bearer token (RFC 6750).  A proxy ends when the first certificate of its file does.  A token
that is a JWT (RFC 7519) says in `exp` when it ends; it is read and not verified, which is the
server's business.  Of another token the end is not known.

    proxy           $X509_USER_PROXY, else /tmp/x509up_u<uid>
    bearer token    $BEARER_TOKEN, else the file $BEARER_TOKEN_FILE, else
                    $XDG_RUNTIME_DIR/bt_u<uid>, else /tmp/bt_u<uid>
    slurmrestd's    $SLURM_JWT

Source: Globus Toolkit, "GSI C: Environment variables"; "WLCG Bearer Token Discovery" 1.0.
No I/O happens here.
"""

import base64
import binascii
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from gridmad.errors import CredentialError, MissingDependencyError

MAX_BYTES: Final = 1 << 20
"""Of a credential's file."""
WARNINGS: Final = (3600.0, 600.0)
"""Seconds before a credential's end at which it is warned of."""
LAST_END: Final = 253_402_300_799.0
"""The last second of the year 9999, which is the last that X.509 can say."""

_TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
_PRIVATE_KEY: Final = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


class Kind(Enum):
    """What a credential is; the values are its names for people."""

    PROXY = "proxy"
    TOKEN = "token"  # noqa: S105 - a word


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """Where a credential comes from: the first of `paths` that exists, or a `value`."""

    kind: Kind
    paths: Sequence[str] = ()
    value: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as it was read."""

    kind: Kind
    path: str
    """"" for one that was no file."""
    content: bytes = field(repr=False)
    """A token without the blanks around it; the whole file of a proxy."""
    end: float
    """Seconds since 1970; infinite where it is not known."""


def proxy_source(environment: Mapping[str, str], user: int) -> CredentialSource:
    """Where the proxy of a user (by number) is."""
    path = environment.get("X509_USER_PROXY") or f"/tmp/x509up_u{user}"  # noqa: S108 - Globus' own
    return CredentialSource(Kind.PROXY, (path,))


def token_source(environment: Mapping[str, str], user: int) -> CredentialSource:
    """Where the bearer token of a user (by number) is."""
    value = environment.get("BEARER_TOKEN", "").strip()
    if value:
        return CredentialSource(Kind.TOKEN, (), value)
    named = environment.get("BEARER_TOKEN_FILE")
    if named:
        return CredentialSource(Kind.TOKEN, (named,))
    runtime = environment.get("XDG_RUNTIME_DIR")
    private = [f"{runtime}/bt_u{user}"] if runtime else []
    return CredentialSource(Kind.TOKEN, (*private, f"/tmp/bt_u{user}"))  # noqa: S108 - WLCG's own


def slurm_source(environment: Mapping[str, str]) -> CredentialSource:
    """The token for slurmrestd where no file is named."""
    return CredentialSource(Kind.TOKEN, (), environment.get("SLURM_JWT", "").strip())


def file_source(kind: Kind, path: str) -> CredentialSource:
    """A file that was named."""
    return CredentialSource(kind, (path,))


def read_credential(kind: Kind, content: bytes, path: str = "") -> Credential:
    """Read the content of a credential's file.

    Raises CredentialError for what is none, MissingDependencyError for a proxy that cannot be
    read for want of a library.
    """
    if kind is Kind.PROXY:
        return Credential(kind, path, content, proxy_end(content))
    token = content.strip()
    return Credential(kind, path, token, token_end(token))


def proxy_end(content: bytes) -> float:
    """When the first of a proxy's certificates ends, in seconds since 1970."""
    try:
        from cryptography import x509
    except ImportError:
        raise MissingDependencyError("cryptography", "grid") from None
    try:
        certificates = x509.load_pem_x509_certificates(content)
        end = min(certificate.not_valid_after_utc for certificate in certificates)
    except ValueError:
        raise CredentialError("it has no certificate that can be read") from None
    if not _PRIVATE_KEY.search(content):
        raise CredentialError("it has no private key")
    return end.timestamp()


def token_end(token: bytes) -> float:
    """When a token ends, in seconds since 1970; infinite where it does not say so."""
    if not _TOKEN.fullmatch(token):
        raise CredentialError("it is no token")
    parts = token.split(b".")
    if len(parts) != 3 or _json_object(parts[0]) is None:
        return math.inf
    claims = _json_object(parts[1])
    if claims is None:
        raise CredentialError("the claims of the JWT cannot be read")
    end = claims.get("exp")
    if end is None:
        return math.inf
    if isinstance(end, bool) or not isinstance(end, int | float) or not 0 <= end <= LAST_END:
        raise CredentialError("the claim exp of the JWT is no time")
    return float(end)


def _json_object(part: bytes) -> Mapping[str, object] | None:
    """A part of a JWT; None where it is none."""
    try:
        text = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
        value = json.loads(text)
    except (binascii.Error, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class Agenda:
    """What is to be said of a credential that ends, and when.

    A warning is for a time that is still to come when the credential is first seen: one that
    lives for an hour is not warned of as soon as it is made.
    """

    def __init__(self, end: float, now: float, warnings: Sequence[float] = WARNINGS) -> None:
        self._end = end
        self._due = sorted({end, *(end - left for left in warnings if end - left > now)})

    def wait(self, now: float) -> float:
        """Seconds until something is to be said; infinite where nothing is."""
        return max(0.0, self._due[0] - now) if self._due else math.inf

    def take(self, now: float) -> float | None:
        """The seconds that are left (none: 0.0), where that is to be said now."""
        due = [time for time in self._due if time <= now]
        self._due = self._due[len(due) :]
        return max(0.0, self._end - now) if due else None


def validity(end: float) -> str:
    """What people read of a credential: local time, as GridWay's own drivers say it."""
    if end == math.inf:
        return "Credential does not say how long it is valid"
    return f"Credential is valid until {time.ctime(end)}"
