"""The authorities of grids: whose certificates a server may have."""

import os
import ssl
from pathlib import Path
from typing import Final

from gridmad.errors import NotSubmittedError

AUTHORITIES: Final = Path("/etc/grid-security/certificates")


def trusting(authorities: Path | None = None) -> ssl.SSLContext:
    """TLS that trusts `authorities`, a folder or a PEM file; without, those that $X509_CERT_DIR
    names, else AUTHORITIES, else those of the system.  Reads files.

    Raises NotSubmittedError where they cannot be read.
    """
    trusted = authorities or _default()
    try:
        if trusted is None:
            context = ssl.create_default_context()
        elif trusted.is_dir():
            context = ssl.create_default_context(capath=trusted)
        else:
            context = ssl.create_default_context(cafile=trusted)
    except OSError as error:  # ssl.SSLError is one
        raise NotSubmittedError(f"the authorities {trusted}: {error}") from None
    # Many authorities of grids are older than what this asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _default() -> Path | None:
    named = os.environ.get("X509_CERT_DIR")
    if named:
        return Path(named)
    return AUTHORITIES if AUTHORITIES.is_dir() else None
