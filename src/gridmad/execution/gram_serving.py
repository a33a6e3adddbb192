"""Gives files of this machine to job managers, over HTTPS as GASS servers do.

The server shows the user's proxy, and gives a file to those alone who show a proxy of the same
user and know its URL, which cannot be guessed.  It listens only while something is served.

Source: Globus Toolkit 6, "GASS: Protocol" (HTTP/1.1); RFC 3820.
"""

import asyncio
import logging
import os
import re
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from gridmad.authorities import AUTHORITIES
from gridmad.credential import Credential
from gridmad.errors import CredentialError, DriverError

if TYPE_CHECKING:
    from cryptography import x509

log = logging.getLogger(__name__)

ANSWER_TIME: Final = 300.0
"""Seconds that a client may take for all."""

_RANGE: Final = re.compile(r"\s*([0-9]{1,5})[\s,]+([0-9]{1,5})\s*")
_REQUEST: Final = re.compile(rb"GET (/[!-~]*) HTTP/1\.[01]\r\n")


@asynccontextmanager
async def served(
    files: Mapping[str, bytes], host: str, proxy: Credential
) -> AsyncIterator[Mapping[str, str]]:
    """The URLs of files by their names, on this machine as others know it.

    Raises DriverError where nothing can be served.
    """
    paths = {f"/{secrets.token_urlsafe(24)}/{name}": data for name, data in files.items()}
    identity = await asyncio.to_thread(_identity, proxy.content)
    context = await asyncio.to_thread(_context, proxy)
    answering: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        answering.add(task)
        try:
            async with asyncio.timeout(ANSWER_TIME):
                request = await reader.readuntil(b"\r\n\r\n")
                peer = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                writer.write(response(request, paths if _is_same(peer, identity) else {}))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            log.info("a job manager did not fetch its file: %s", error)
        finally:
            writer.transport.abort()
            answering.discard(task)

    server = await _listen(answer, context)
    try:
        port = server.sockets[0].getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        yield {path.rpartition("/")[2]: f"https://{name}:{port}{path}" for path in paths}
    finally:
        server.close()
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)


async def _listen(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    context: ssl.SSLContext,
) -> asyncio.Server:
    """A server on one of the ports that the firewall lets in."""
    error: OSError | None = None
    for port in ports(os.environ.get("GLOBUS_TCP_PORT_RANGE", "")):
        try:
            # One socket for both families: others know this machine by a name, and one port.
            if socket.has_dualstack_ipv6():
                listening = socket.create_server(
                    ("", port), family=socket.AF_INET6, dualstack_ipv6=True
                )
            else:
                listening = socket.create_server(("", port))
        except OSError as problem:
            error = problem
        else:
            return await asyncio.start_server(answer, sock=listening, ssl=context)
    raise DriverError(f"no port is free for job managers to fetch files from: {error}")


def ports(text: str) -> range:
    """The ports of a range as Globus writes it, `first,last`; 0 for any where there is none."""
    found = _RANGE.fullmatch(text)
    return range(int(found[1]), min(int(found[2]), 65535) + 1) if found else range(1)


def response(request: bytes, paths: Mapping[str, bytes]) -> bytes:
    """The answer to a request's head."""
    found = _REQUEST.match(request)
    data = paths.get(found[1].decode("ascii")) if found else None
    if data is None:
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
    return f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data


# ---------------------------------------------------------------- who is served


def _context(proxy: Credential) -> ssl.SSLContext:
    """TLS that shows the proxy, and wants one of an authority that is trusted here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
    try:
        context.load_verify_locations(capath=os.environ.get("X509_CERT_DIR") or AUTHORITIES)
        context.load_cert_chain(proxy.path)
    except OSError as error:  # ssl.SSLError is one
        raise CredentialError(f"files cannot be served with {proxy.path}: {error}") from None
    return context


def _identity(proxy: bytes) -> "x509.Name":
    """The user's own name: that of the certificate from which a proxy (PEM) was made."""
    from cryptography import x509

    certificate, *issuers = x509.load_pem_x509_certificates(proxy)
    for issuer in issuers:
        if certificate.issuer != issuer.subject or not _is_below(certificate.subject, issuer):
            break
        certificate = issuer
    return certificate.subject


def _is_below(name: "x509.Name", issuer: "x509.Certificate") -> bool:
    return _names(name)[:-1] == _names(issuer.subject)


def _names(name: "x509.Name") -> list["x509.RelativeDistinguishedName"]:
    return list(name.rdns)


def _is_same(peer: bytes, identity: "x509.Name") -> bool:
    """Whether a certificate (DER) is the user's or that of a proxy."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    names, own = _names(x509.load_der_x509_certificate(peer).subject), _names(identity)
    added = [part.oid for rdn in names[len(own) :] for part in rdn]
    return names[: len(own)] == own and set(added) <= {NameOID.COMMON_NAME}
