"""How hosts are reached over ssh: what an address says, and the options of those who connect.

Knows no library; gridmad.ssh_connection does, and is imported when a driver starts.
"""

import argparse
import os.path
import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from gridmad.errors import DriverError
from gridmad.options import count, seconds

KNOWN_HOSTS: Final = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
MAX_SESSIONS: Final = 1000
CONNECT_TIME: Final = 15.0
SESSIONS: Final = 4
"""Of the ten that sshd allows a connection (MaxSessions); it counts one that has ended for a moment
more, while the next is opened already."""

_ADDRESS: Final = re.compile(
    r"(?:([A-Za-z0-9_][A-Za-z0-9_.-]*)@)?"
    r"([A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\])"
    r"(?::([0-9]{1,5}))?"
)


class Address(NamedTuple):
    """`[USER@]HOST[:PORT]`; what is missing comes from the user's ssh configuration."""

    user: str
    host: str
    """An IPv6 address is without its brackets."""
    port: int
    """0 where none was given."""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read an address.  Raises DriverError."""
        match = _ADDRESS.fullmatch(text)
        if match is None or (match[3] and not 0 < int(match[3]) < 65536):
            raise DriverError(f"{text!r} is no [user@]host[:port]")
        return cls(match[1] or "", match[2].strip("[]"), int(match[3] or 0))

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return user + host + (f":{self.port}" if self.port else "")


class RefusedError(DriverError):
    """A host turns us away, or is not the one that we know: somebody has to do something."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the options say."""

    known_hosts: tuple[str, ...]
    identities: tuple[str, ...]
    """Private keys; none: those of the ssh configuration and of the agent."""
    sessions: int
    """How many commands may run over a connection at a time."""
    connect_time: float
    """Seconds."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Settings":
        """Read the command line."""
        known_hosts = options.known_hosts or KNOWN_HOSTS
        return cls(
            tuple(map(os.path.expanduser, known_hosts)),
            tuple(map(os.path.expanduser, options.identity or ())),
            getattr(options, "sessions", SESSIONS),
            options.connect_time,
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare --known-hosts, --identity, --connect-time and --sessions."""
    add_login_options(parser)
    parser.add_argument(
        "--sessions",
        metavar="N",
        type=lambda text: count(text, MAX_SESSIONS),
        default=SESSIONS,
        help="commands that run over one connection at a time, less than half of MaxSessions in "
        "the host's sshd_config (default: %(default)s)",
    )


def add_login_options(parser: argparse.ArgumentParser) -> None:
    """Declare --known-hosts, --identity and --connect-time."""
    parser.add_argument(
        "--known-hosts",
        metavar="FILE",
        action="append",
        help="trust the host keys in FILE, and no others; may be given again "
        f"(default: {' and '.join(KNOWN_HOSTS)})",
    )
    parser.add_argument(
        "--identity",
        metavar="FILE",
        action="append",
        help="log in with the private key in FILE, which has no passphrase; may be given again "
        "(default: what ~/.ssh/config names, the usual files, and the ssh agent)",
    )
    parser.add_argument(
        "--connect-time",
        metavar="SECONDS",
        type=seconds,
        default=CONNECT_TIME,
        help="time that a connection may take to come about (default: %(default)g)",
    )
