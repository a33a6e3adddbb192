"""Where directory servers are and how to log in: what the options of LDAP drivers say.

    -s a.example.org,ldaps://b.example.org     servers, each of which has the whole tree
    anonymous | --bind-dn, --password-file | --sasl-external, --certificate, --key

A password goes to a server over TLS only (or stays on this machine), and it never stands on a
command line.
"""

import argparse
import ipaddress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from gridmad.authorities import AUTHORITIES
from gridmad.driver import file_name
from gridmad.errors import UsageError
from gridmad.options import port_number

LDAPS_PORT = 636


class Server(NamedTuple):
    """Where a directory is."""

    host: str
    port: int
    is_tls: bool


class Access(NamedTuple):
    """How a server is spoken with; the default is to everybody's view, in the clear."""

    starts_tls: bool = False
    """On ldap:// the first request is StartTLS."""
    authorities: Path | None = None
    """A PEM file or a folder; None for those that grids have."""
    bind_dn: str | None = None
    password_file: Path | None = None
    is_external: bool = False
    """The server knows us by our certificate (SASL EXTERNAL)."""
    certificate: Path | None = None
    key: Path | None = None
    """None where the certificate's file holds it."""


def add_options(parser: argparse.ArgumentParser, what: str, port: int) -> None:
    """Declare the servers, TLS and the login; `what` is called by people, and has this port."""
    parser.add_argument(
        "-s",
        "--server",
        metavar="SERVER[:PORT][,...]",
        required=True,
        help=f"{what}, by name or as ldap://SERVER[:PORT] or ldaps://SERVER[:PORT]; of several "
        "that have the same, one is asked until it fails, then the next",
    )
    parser.add_argument(
        "-p",
        "--port",
        metavar="PORT",
        type=port_number,
        help=f"its port (default: {port}, for ldaps {LDAPS_PORT})",
    )
    parser.add_argument(
        "--start-tls", action="store_true", help="ask ldap:// servers for TLS before all else"
    )
    parser.add_argument(
        "--ca",
        metavar="PATH",
        type=_path,
        help="the authorities that servers are trusted by: a folder or a PEM file (default: "
        f"$X509_CERT_DIR, else {AUTHORITIES}, else those of the system)",
    )
    parser.add_argument(
        "--bind-dn", metavar="DN", help="log in by this name and a password (default: anonymous)"
    )
    parser.add_argument(
        "--password-file",
        metavar="FILE",
        type=_path,
        help="file of mode 0600 whose first line is that password",
    )
    parser.add_argument(
        "--sasl-external",
        action="store_true",
        help="log in by --certificate (SASL EXTERNAL)",
    )
    parser.add_argument(
        "--certificate", metavar="FILE", type=_path, help="certificate to show to TLS servers"
    )
    parser.add_argument(
        "--key",
        metavar="FILE",
        type=_path,
        help="its key (default: in the file of the certificate)",
    )


def servers_of(options: argparse.Namespace, port: int) -> list[Server]:
    """The servers of -s and -p; raises UsageError."""
    named = [parse_server(text, options.port, port) for text in options.server.split(",")]
    return list(dict.fromkeys(named))


def access_of(options: argparse.Namespace, servers: list[Server]) -> Access:
    """How to speak with `servers`; raises UsageError where the options do not fit together."""
    access = Access(
        options.start_tls,
        options.ca,
        options.bind_dn,
        options.password_file,
        options.sasl_external,
        options.certificate,
        options.key,
    )
    if (access.bind_dn is None) != (access.password_file is None):
        raise UsageError("--bind-dn and --password-file need each other")
    if access.is_external and access.bind_dn is not None:
        raise UsageError("--sasl-external and --bind-dn are two ways to log in: choose one")
    if access.is_external and access.certificate is None:
        raise UsageError("--sasl-external needs --certificate")
    if access.key is not None and access.certificate is None:
        raise UsageError("--key needs --certificate")
    for server in servers:
        is_secret = server.is_tls or access.starts_tls
        if access.bind_dn is not None and not (is_secret or _is_loopback(server.host)):
            raise UsageError(
                f"-s {server.host}: a password goes over TLS only: "
                "write ldaps://, or add --start-tls"
            )
        if access.certificate is not None and not is_secret:
            raise UsageError(
                f"-s {server.host}: certificates belong to TLS: write ldaps://, or add --start-tls"
            )
    return access


def parse_server(text: str, port: int | None, default_port: int) -> Server:
    """SERVER, SERVER:PORT, [IPV6]:PORT or a URL of them; raises UsageError.

    `port` is that of -p, and `default_port` the one of ldap:// where nobody named any.
    """
    scheme, separator, rest = text.rpartition("://")
    if separator and scheme.lower() not in ("ldap", "ldaps"):
        raise UsageError(f"-s {text}: a directory is reached by ldap:// or ldaps://")
    try:
        parts = urlsplit(f"//{rest}")
        host, own_port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"-s {text}: {error}") from None
    is_plain = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username)
    if not host or not is_plain or any(character.isspace() for character in host):
        raise UsageError(f"-s {text}: write SERVER, SERVER:PORT or ldap://SERVER:PORT")
    is_tls = scheme.lower() == "ldaps"
    return Server(host, own_port or port or (LDAPS_PORT if is_tls else default_port), is_tls)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _path(text: str) -> Path:
    return Path(file_name(text)).expanduser().absolute()
