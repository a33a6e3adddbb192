"""Proxy certificates with chosen times, made without a certification authority's program."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KEY = ec.generate_private_key(ec.SECP256R1())
"""One for all: it is the times that matter."""


def certificate(end: float, name: str = "Alice") -> bytes:
    """A certificate in PEM that ends `end` seconds after 1970, which must be whole."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    until = datetime.fromtimestamp(end, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(until - timedelta(days=365))
        .not_valid_after(until)
        .sign(KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def private_key() -> bytes:
    """The key in PEM."""
    return KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def proxy(*ends: float) -> bytes:
    """A proxy's file: its certificate, the key, then the rest of the chain."""
    first, *rest = ends
    chain = b"".join(certificate(end, f"issuer {i}") for i, end in enumerate(rest))
    return certificate(first) + private_key() + chain


def write(path: Path, content: bytes) -> Path:
    """Replace a credential's file, readable for its owner only."""
    part = path.with_name(f"{path.name}.part")
    part.touch(0o600)
    part.write_bytes(content)
    return part.replace(path)
