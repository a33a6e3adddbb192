"""A connection for SFTP: requests, many at a time, over a program that speaks ssh.

The program is OpenSSH's `ssh`, which knows the user's keys, agents and configuration, and
encrypts in a process of its own.  It asks nobody and speaks with known hosts only.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import pwd
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from pathlib import Path
from typing import Final

from gridmad.driver import describe
from gridmad.errors import DriverError, TransientError
from gridmad.ssh import Address, RefusedError, Settings
from gridmad.transfer import sftp_protocol as sftp
from gridmad.transfer.pipe_writer import CAPACITY, PipeWriter
from gridmad.transfer.sftp_protocol import Answer, Attributes, Entry, Kind, StatusError

log = logging.getLogger(__name__)

PROGRAM: Final = "ssh"
REQUESTS: Final = 12
"""READs and WRITEs under way in a connection: 3 MiB, more than ssh's window lets through.  Files
that are moved at the same time share them, which also bounds what waits for a slow disk."""
_FEWEST: Final = 2
_SAID: Final = 4096
"""Bytes of what ssh said that are kept: its last."""
_REFUSALS: Final = (
    "Host key verification failed",
    "Permission denied",
    "Could not resolve hostname",
    "Too many authentication failures",
    "Bad configuration option",
    "Bad owner or permissions",
    "no matching",
    "subsystem request failed",
)
"""What does not go away by itself."""


def command(address: Address, settings: Settings) -> list[str]:
    """How the program is started."""
    words = [PROGRAM, *_configuration(settings)]
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": " ".join(map(_quoted, settings.known_hosts)),
        "GlobalKnownHostsFile": "none",
        "UpdateHostKeys": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "ConnectTimeout": str(max(1, round(settings.connect_time))),
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "3",
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "GSSAPIDelegateCredentials": "no",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "RequestTTY": "no",
        "EscapeChar": "none",
        "ControlMaster": "no",
        "ControlPath": "none",
    }
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    for identity in settings.identities:
        words += ["-i", identity]
    if settings.identities:
        words += ["-o", "IdentitiesOnly=yes"]
    if address.user:
        words += ["-l", address.user]
    if address.port:
        words += ["-p", str(address.port)]
    return [*words, "-s", "--", address.host, "sftp"]


def _configuration(settings: Settings) -> list[str]:
    """Where $HOME is not the home of the password file, by which ssh goes."""
    home = os.path.expanduser("~")  # noqa: PTH111 - a name
    if home == pwd.getpwuid(os.getuid()).pw_dir:
        return []
    folder = Path(home) / ".ssh"
    config = folder / "config"
    words = ["-F", str(config) if config.exists() else "none"]
    if not settings.identities:
        for key in sorted(folder.glob("id_*[!b]")):
            words += ["-i", str(key)]
    return words


def _quoted(path: str) -> str:
    return '"' + path.replace("%", "%%") + '"'


class Connection(asyncio.SubprocessProtocol):
    """One connection.  Requests raise TransientError when it is lost, and StatusError."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_lost = False
        self.users = 0
        """Sessions that share it."""
        self.homes: dict[str, bytes] = {}
        """Home directories by users; "" is who logged in."""
        self._answers = sftp.Answers()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._number = 0
        self._moving = 0
        """Files of which the contents are being moved."""
        self._said = b""
        self._transport: asyncio.SubprocessTransport | None = None
        self._input = PipeWriter()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._extensions: frozenset[bytes] = frozenset()
        self.read_size = self.write_size = sftp.SAFE_DATA

    # ------------------------------------------------------------ life

    @classmethod
    async def open(cls, name: str, words: Sequence[str], seconds: float) -> "Connection":
        """Start the program and greet the server.  Raises RefusedError, TransientError."""
        loop = asyncio.get_running_loop()
        connection = cls(name)
        try:
            await loop.subprocess_exec(lambda: connection, *words, stdin=connection._input.reader)
        except FileNotFoundError:
            connection._input.close()
            raise DriverError(
                f"{words[0]} is not installed (apt-get install openssh-client)"
            ) from None
        except BaseException as error:
            connection._input.close()
            if not isinstance(error, OSError):
                raise
            raise TransientError(f"{words[0]} cannot be started: {describe(error)}") from None
        try:
            async with asyncio.timeout(seconds):
                await connection._greet()
        except TimeoutError:
            await connection.close()
            raise TransientError(f"{name} does not answer within {seconds:g} seconds") from None
        except BaseException:
            await connection.close()
            raise
        return connection

    async def close(self) -> None:
        """End the program."""
        self._input.close()
        if self._transport is not None:
            with contextlib.suppress(ProcessLookupError):
                self._transport.kill()
            await self._ended
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The program runs."""
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport
        self._input.close_reader()
        output = transport.get_pipe_transport(1)
        assert output is not None
        with contextlib.suppress(OSError):  # no privilege
            fcntl.fcntl(output.get_extra_info("pipe").fileno(), fcntl.F_SETPIPE_SZ, CAPACITY)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Answers, or what ssh says."""
        if fd != 1:
            self._said = (self._said + data)[-_SAID:]
            return
        try:
            for answer in self._answers.feed(data):
                # An answer that nobody waits for any more is dropped.
                future = self._waiting.pop(
                    answer.number if answer.kind != Kind.VERSION else 0, None
                )
                if future is not None and not future.done():
                    future.set_result(answer)
        except sftp.SftpProtocolError as error:
            self._lose(error)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """The program closes its side; what it said on stderr comes until it has ended."""
        self.is_lost = True
        self._input.close()

    def process_exited(self) -> None:
        """The end of the program."""
        self.is_lost = True

    def connection_lost(self, exc: Exception | None) -> None:
        """All has been read."""
        self._lose(self._reason())
        if not self._ended.done():
            self._ended.set_result(None)

    def _lose(self, error: DriverError) -> None:
        self.is_lost = True
        self._input.close()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(error)
        if self._transport is not None:
            with contextlib.suppress(ProcessLookupError):
                self._transport.kill()

    def _reason(self) -> DriverError:
        lines = self._said.decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        text = f"{self.name}: {said[-1] if said else 'the connection was lost'}"
        whole = " ".join(said)
        if "Host key verification failed" in whole:
            text += (
                " (its key is not the known one, or none is known: for a new host log in once by"
                " hand, if it changed find out why)"
            )
        if any(refusal in whole for refusal in _REFUSALS):
            return RefusedError(text)
        return TransientError(text)

    async def _greet(self) -> None:
        answer = await self._ask(0, [sftp.init()])
        try:
            self._extensions = frozenset(sftp.read_extensions(answer))
            if sftp.LIMITS in self._extensions:
                read, write = sftp.read_limits(await self._extended(sftp.LIMITS))
                self.read_size = min(read or sftp.SAFE_DATA, sftp.MAX_DATA)
                self.write_size = min(write or sftp.SAFE_DATA, sftp.MAX_DATA)
        except StatusError as error:
            raise TransientError(f"{self.name}: {error}") from None

    # ------------------------------------------------------------ requests

    async def _call(self, kind: Kind, fields: bytes, data: bytes | memoryview = b"") -> Answer:
        number = self._next_number()
        packet = sftp.request(kind, number, fields, len(data))
        return await self._ask(number, [packet, data] if data else [packet])

    def _next_number(self) -> int:
        self._number = self._number % 0xFFFF_FFFF + 1
        return self._number

    async def _ask(self, number: int, parts: Sequence[bytes | memoryview]) -> Answer:
        await self._input.ready()
        if self.is_lost:
            await self._ended
            raise self._reason()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._input.write(parts)
        return await future

    async def _extended(self, name: bytes, fields: bytes = b"") -> Answer:
        return await self._call(Kind.EXTENDED, sftp.string(name) + fields)

    async def real_path(self, path: bytes) -> bytes:
        """The path without links; "." is where the user is at home."""
        return sftp.read_path(await self._call(Kind.REALPATH, sftp.string(path)))

    async def link(self, path: bytes) -> bytes:
        """What a symbolic link names."""
        return sftp.read_link(await self._call(Kind.READLINK, sftp.string(path)))

    async def home_of(self, user: bytes) -> bytes:
        """Another user's home directory.  Raises DriverError where the server cannot tell."""
        if sftp.EXPAND_PATH not in self._extensions:
            raise DriverError(f"{self.name} does not tell other users' home directories")
        path = sftp.string(b"~" + user)
        return sftp.read_path(await self._extended(sftp.EXPAND_PATH, path))

    async def status(self, path: bytes) -> Attributes:
        """Of what a path leads to."""
        return sftp.read_attributes(await self._call(Kind.STAT, sftp.string(path)))

    async def link_status(self, path: bytes) -> Attributes:
        """Of a file or of a symbolic link itself."""
        return sftp.read_attributes(await self._call(Kind.LSTAT, sftp.string(path)))

    async def list(self, path: bytes) -> list[Entry]:
        """What a directory holds."""
        handle = sftp.read_handle(await self._call(Kind.OPENDIR, sftp.string(path)))
        entries: list[Entry] = []
        try:
            while True:
                more = sftp.read_entries(await self._call(Kind.READDIR, sftp.string(handle)))
                if more is None:
                    return entries
                entries += more
        finally:
            self.leave(handle)

    async def make_directory(self, path: bytes, mode: int) -> None:
        """One directory; its parent has to be there."""
        fields = sftp.string(path) + sftp.attributes(Attributes(mode=mode))
        sftp.read_ok(await self._call(Kind.MKDIR, fields))

    async def remove_directory(self, path: bytes) -> None:
        """An empty one."""
        sftp.read_ok(await self._call(Kind.RMDIR, sftp.string(path)))

    async def remove(self, path: bytes) -> None:
        """A file or a symbolic link."""
        sftp.read_ok(await self._call(Kind.REMOVE, sftp.string(path)))

    async def set_mode(self, path: bytes, mode: int) -> None:
        """The permissions of a file."""
        fields = sftp.string(path) + sftp.attributes(Attributes(mode=mode))
        sftp.read_ok(await self._call(Kind.SETSTAT, fields))

    async def rename(self, path: bytes, to: bytes) -> None:
        """Give a file another name, in place of what has it."""
        names = sftp.string(path) + sftp.string(to)
        if sftp.POSIX_RENAME in self._extensions:
            sftp.read_ok(await self._extended(sftp.POSIX_RENAME, names))
            return
        # Servers of old rename to a free name only.
        with contextlib.suppress(StatusError):
            await self.remove(to)
        sftp.read_ok(await self._call(Kind.RENAME, names))

    # ------------------------------------------------------------ contents

    async def open_file(self, path: bytes, flags: sftp.Open, mode: int = 0o600) -> bytes:
        """A handle."""
        fields = sftp.string(path) + sftp.number(flags) + sftp.attributes(Attributes(mode=mode))
        if flags == sftp.Open.READ:
            fields = sftp.string(path) + sftp.number(flags) + sftp.attributes(Attributes())
        return sftp.read_handle(await self._call(Kind.OPEN, fields))

    async def handle_status(self, handle: bytes) -> Attributes:
        """Of an open file."""
        return sftp.read_attributes(await self._call(Kind.FSTAT, sftp.string(handle)))

    async def set_handle_mode(self, handle: bytes, mode: int) -> None:
        """The permissions of an open file."""
        fields = sftp.string(handle) + sftp.attributes(Attributes(mode=mode))
        sftp.read_ok(await self._call(Kind.FSETSTAT, fields))

    async def close_file(self, handle: bytes) -> None:
        """Close, where a server may tell that there was no space."""
        sftp.read_ok(await self._call(Kind.CLOSE, sftp.string(handle)))

    def leave(self, handle: bytes) -> None:
        """Close what nothing depends on any more; nobody waits for the answer."""
        if not self.is_lost:
            number = self._next_number()
            self._input.write([sftp.request(Kind.CLOSE, number, sftp.string(handle))])

    async def read(self, handle: bytes, size: int) -> AsyncGenerator[memoryview, None]:
        """The contents of an open file up to its end; it is expected after `size` bytes."""
        waiting: deque[tuple[int, asyncio.Task[Answer]]] = deque()
        position, step = 0, self.read_size
        self._moving += 1
        try:
            while True:
                # One request beyond the expected end finds out whether it is there.
                while len(waiting) < self._window and (position <= size or not waiting):
                    waiting.append((position, self._read_soon(handle, position)))
                    position += step
                offset, task = waiting.popleft()
                left = step
                while True:
                    pieces = sftp.read_data(await task, left)
                    if pieces is None:
                        return
                    for piece in pieces:
                        yield piece
                        left -= len(piece)
                    if not left:
                        break
                    task = self._read_soon(handle, offset + step - left, left)
        finally:
            self._moving -= 1
            for _, task in waiting:
                task.cancel()
            await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)

    @property
    def blocks(self) -> int:
        """Of a READ or WRITE that a file's thread writes or reads at a time: half a window."""
        return max(1, self._window // 2)

    @property
    def _window(self) -> int:
        return max(_FEWEST, REQUESTS // max(1, self._moving))

    def _read_soon(self, handle: bytes, offset: int, length: int = 0) -> "asyncio.Task[Answer]":
        fields = sftp.string(handle) + sftp.place(offset, length or self.read_size)
        return asyncio.create_task(self._call(Kind.READ, fields))

    async def write(
        self, handle: bytes, chunks: AsyncIterable[bytes | bytearray | memoryview]
    ) -> None:
        """Write chunks into an open file, from its start."""
        waiting: deque[asyncio.Task[Answer]] = deque()
        position = 0
        name = sftp.string(handle)
        self._moving += 1
        try:
            async for chunk in chunks:
                view = memoryview(chunk)
                for start in range(0, len(view), self.write_size):
                    part = view[start : start + self.write_size]
                    while len(waiting) >= self._window:
                        sftp.read_ok(await waiting.popleft())
                    fields = name + sftp.place(position, len(part))
                    writing = self._call(Kind.WRITE, fields, part)
                    waiting.append(asyncio.create_task(writing))
                    position += len(part)
            while waiting:
                sftp.read_ok(await waiting.popleft())
        finally:
            self._moving -= 1
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
