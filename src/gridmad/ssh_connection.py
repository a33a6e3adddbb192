"""Connections over ssh: one for each host, for all that is done there.

A connection is made when it is first needed, and again after it was lost; nothing waits or tries
again by itself.  It asks nobody: keys and the agent are the only ways to log in.  A host whose key
is not known, or is another, is not spoken with.  The agent is not forwarded.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, NamedTuple

import asyncssh

from gridmad.driver import describe
from gridmad.errors import NotSubmittedError, TransientError
from gridmad.ssh import Address, RefusedError, Settings

KEEP_ALIVE: Final = 15.0
"""Seconds of silence after which a connection is tried ..."""
KEEP_ALIVE_COUNT: Final = 3
"""... and how often without an answer before it counts as lost."""
MAX_OUTPUT: Final = 64 << 20
"""Bytes of a command's output; more is a fault, and must not fill the memory."""
MAX_LINE: Final = 65_536
_EXCERPT: Final = 300
_NOTHING: Final = b"# no host is known\n"
"""As contents of known_hosts; the library would take the user's file for b""."""

# It tells every connection and every command.
logging.getLogger("asyncssh").setLevel(logging.WARNING)


class Ended(NamedTuple):
    """A command that has ended."""

    exit_code: int
    """Negative: the signal that ended it."""
    output: bytes
    errors: str
    """What it said on stderr, in one line."""


class Host:
    """A host, and the connection to it."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self.address = address
        self.sessions = settings.sessions
        """Commands that may run at a time."""
        self._settings = settings
        self._places = asyncio.Semaphore(settings.sessions)
        self._connecting = asyncio.Lock()
        self._connection: asyncssh.SSHClientConnection | None = None

    async def run(self, command: str, given: bytes = b"") -> Ended:
        """Run a command in the user's shell there, with `given` on its stdin.

        Raises RefusedError, NotSubmittedError where it has certainly not begun, TransientError
        where nobody knows.
        """
        async with self._places, self._session(command) as process:
            try:
                return await _communicate(process, given)
            except (OSError, asyncssh.Error) as error:
                raise TransientError(f"{self.address}: {_describe(error)}") from None
            except _LostError:
                raise TransientError(f"{self.address}: the connection was lost") from None
            except _TooMuchError:
                raise TransientError(
                    f"{self.address}: a command printed more than {MAX_OUTPUT} bytes"
                ) from None

    async def lines(self, command: str) -> AsyncGenerator[bytes, None]:
        """What a command prints, line by line, until it ends or the connection is lost."""
        async with self._places, self._session(command) as process:
            process.stdin.write_eof()
            rest = b""
            with contextlib.suppress(OSError, asyncssh.Error):
                while data := await process.stdout.read(MAX_LINE):
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        yield line
                    if len(rest) > MAX_LINE:
                        return

    @contextlib.asynccontextmanager
    async def _session(self, command: str) -> AsyncIterator["asyncssh.SSHClientProcess[bytes]"]:
        connection = await self._connect()
        try:
            process = await connection.create_process(command, encoding=None)
        except asyncssh.ChannelOpenError as error:
            raise NotSubmittedError(f"{self.address}: {_describe(error)}") from None
        except (OSError, asyncssh.Error) as error:
            raise TransientError(f"{self.address}: {_describe(error)}") from None
        try:
            yield process
        finally:
            # Nobody waits for it any more.
            with contextlib.suppress(OSError, asyncssh.Error):
                if process.returncode is None:
                    process.kill()
                process.close()

    async def _connect(self) -> asyncssh.SSHClientConnection:
        async with self._connecting:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._new_connection()
            return self._connection

    async def _new_connection(self) -> asyncssh.SSHClientConnection:
        address, settings = self.address, self._settings
        try:
            async with asyncio.timeout(settings.connect_time):
                return await asyncssh.connect(
                    address.host,
                    address.port or (),
                    username=address.user or (),
                    known_hosts=_existing(settings.known_hosts),
                    client_keys=list(settings.identities) or (),
                    agent_forwarding=False,
                    x11_forwarding=False,
                    request_pty=False,
                    password_auth=False,
                    kbdint_auth=False,
                    gss_delegate_creds=False,
                    keepalive_interval=KEEP_ALIVE,
                    keepalive_count_max=KEEP_ALIVE_COUNT,
                )
        except TimeoutError:
            raise NotSubmittedError(
                f"{address} does not answer within {settings.connect_time:g} seconds"
            ) from None
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
                raise RefusedError(f"{address}: no such host is known here") from None
            raise NotSubmittedError(f"{address}: {_describe(error)}") from None
        except asyncssh.HostKeyNotVerifiable as error:
            raise RefusedError(self._host_key_problem(error)) from None
        except asyncssh.KeyExchangeFailed as error:
            raise RefusedError(self._host_key_problem(error)) from None
        except asyncssh.PermissionDenied:
            raise RefusedError(
                f"{address} refuses our keys: put a public key of ours into its authorized_keys, "
                "or name the right private key (--identity, ~/.ssh/config)"
            ) from None
        except (
            asyncssh.ConfigParseError,
            asyncssh.KeyEncryptionError,
            asyncssh.KeyImportError,
            asyncssh.IllegalUserName,
            asyncssh.ProtocolNotSupported,
            FileNotFoundError,
            PermissionError,
            ValueError,
        ) as error:
            raise RefusedError(f"{address}: {_describe(error)}") from None
        except (OSError, asyncssh.Error) as error:
            raise NotSubmittedError(f"{address}: {_describe(error)}") from None

    def _host_key_problem(self, error: Exception) -> str:
        address, files = self.address, " and ".join(self._settings.known_hosts)
        return (
            f"the host key of {address} is not the one in {files}, or none is there ({error}); "
            "for a new host log in once by hand or use ssh-keyscan, if it changed find out why"
        )

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Hosts:
    """Every host that was spoken with."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hosts: dict[Address, Host] = {}

    def __getitem__(self, address: Address) -> Host:
        if address not in self._hosts:
            self._hosts[address] = Host(address, self._settings)
        return self._hosts[address]

    def close(self) -> None:
        """Close all connections."""
        for host in self._hosts.values():
            host.close()


class _LostError(Exception):
    """The connection went before the command told its end."""


class _TooMuchError(Exception):
    """The command prints more than it may."""


async def _communicate(process: "asyncssh.SSHClientProcess[bytes]", given: bytes) -> Ended:
    if given:
        process.stdin.write(given)
    process.stdin.write_eof()
    output, errors = await asyncio.gather(_read(process.stdout), _read(process.stderr))
    await process.wait_closed()
    if process.returncode is None:
        raise _LostError
    text = " ".join(errors.decode("utf-8", "replace").split())
    return Ended(process.returncode, output, text[:_EXCERPT])


async def _read(stream: "asyncssh.SSHReader[bytes]") -> bytes:
    parts: list[bytes] = []
    size = 0
    while data := await stream.read(1 << 18):
        size += len(data)
        if size > MAX_OUTPUT:
            raise _TooMuchError
        parts.append(data)
    return b"".join(parts)


def _existing(files: tuple[str, ...]) -> list[str] | bytes:
    """Files that can be read; where there are none, nothing is known (and not: all is trusted)."""
    found = []
    for file in files:
        with contextlib.suppress(OSError), open(file, "rb"):  # noqa: PTH123 - a look
            found.append(file)
    return found or _NOTHING


def _describe(error: Exception) -> str:
    if isinstance(error, OSError):
        return describe(error)
    return str(error) or type(error).__name__
