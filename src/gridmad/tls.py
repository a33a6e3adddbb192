"""TLS as grids have it: authorities in a folder, and proxies as certificates."""

import os
import ssl
from pathlib import Path
from typing import Final

from gridmad.errors import NotSubmittedError

AUTHORITIES: Final = Path("/etc/grid-security/certificates")


def client_context(
    authorities: Path | None, certificate: str = "", key: str = ""
) -> ssl.SSLContext:
    """TLS that trusts the authorities (a folder or a PEM file), and shows a certificate.

    Where None are given: $X509_CERT_DIR, AUTHORITIES, or those of the system.  `key` is "" where
    the file of the certificate has it.  Reads files.  Raises NotSubmittedError where they cannot
    be read.
    """
    trusted = authorities or _default_authorities()
    try:
        if trusted is None:
            context = ssl.create_default_context()
        elif trusted.is_dir():
            context = ssl.create_default_context(capath=trusted)
        else:
            context = ssl.create_default_context(cafile=trusted)
    except OSError as error:  # ssl.SSLError is one
        raise NotSubmittedError(f"the authorities {trusted}: {_describe(error)}") from None
    # Many authorities of grids are older than what this asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if certificate:
        try:
            context.load_cert_chain(certificate, key or None)
        except OSError as error:
            raise NotSubmittedError(f"the certificate {certificate}: {_describe(error)}") from None
    return context


def _default_authorities() -> Path | None:
    named = os.environ.get("X509_CERT_DIR")
    if named:
        return Path(named)
    return AUTHORITIES if AUTHORITIES.is_dir() else None


def _describe(error: OSError) -> str:
    return str(error) or type(error).__name__
