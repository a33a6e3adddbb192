"""Delegates an X.509 proxy: signs the request of a service that acts for the user.

The service keeps the key of the new proxy, which never travels.  Nothing is taken from the
request but its public key; it came from the service itself, so its signature proves nothing.

Source: RFC 3820.  No I/O happens here; the library `cryptography` is imported when needed.
"""

import base64
import binascii
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Final

from gridmad.errors import DriverError, MissingDependencyError

PROXY_CERTIFICATE_INFORMATION: Final = "1.3.6.1.5.5.7.1.14"
INHERIT_ALL: Final = bytes.fromhex("300c300a06082b06010505071501")
"""ProxyCertInfo with the policy language id-ppl-inheritAll, in DER."""
_PEM: Final = re.compile(
    rb"-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----([A-Za-z0-9+/=\s]+)-----END "
)
_HEAD: Final = re.compile(rb"(?:\x30(?:[\x00-\x7f]|\x81.|\x82..)){2}\x02\x01", re.DOTALL)
"""Two sequences and an integer of one byte: what comes before the version of a request."""
_BACKDATED: Final = timedelta(minutes=5)
"""What clocks may differ."""


def delegate(request: bytes, proxy: bytes) -> bytes:
    """The chain of a new proxy (PEM) for the key of `request` (PEM), signed by `proxy` (the
    content of its file).  It ends when that does.

    Raises DriverError where one of them cannot be read.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, rsa
        from cryptography.x509.oid import NameOID
    except ImportError:
        raise MissingDependencyError("cryptography", "grid") from None
    try:
        public_key = x509.load_der_x509_csr(_first_version(request)).public_key()
        chain = x509.load_pem_x509_certificates(proxy)
        key = serialization.load_pem_private_key(proxy, None)
    except (ValueError, TypeError) as error:
        raise DriverError(f"the proxy cannot be delegated: {error}") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise DriverError("the proxy cannot be delegated: its key is neither RSA nor EC")
    issuer, serial = chain[0], secrets.randbits(63)
    now = datetime.now(UTC)
    name = x509.Name([*issuer.subject, x509.NameAttribute(NameOID.COMMON_NAME, str(serial))])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    information = x509.UnrecognizedExtension(
        x509.ObjectIdentifier(PROXY_CERTIFICATE_INFORMATION), INHERIT_ALL
    )
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(max(issuer.not_valid_before_utc, now - _BACKDATED))
        .not_valid_after(min(certificate.not_valid_after_utc for certificate in chain))
        .add_extension(information, critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return b"".join(certificate.public_bytes(pem) for certificate in (signed, *chain))


def _first_version(request: bytes) -> bytes:
    """A request (PEM) as DER, of the one version that there is.

    A-REX writes another one, which the library refuses.
    """
    pem = _PEM.search(request)
    try:
        der = base64.b64decode(pem[1]) if pem else b""
    except binascii.Error:
        der = b""
    head = _HEAD.match(der)
    if head is None:
        raise ValueError("the service sent no request")
    return der[: head.end()] + b"\0" + der[head.end() + 1 :]
