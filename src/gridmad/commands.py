"""Runs the command-line tools of a resource."""

import asyncio
import contextlib
import errno
import getpass
import os
import pwd
import shutil
import signal
from collections.abc import Mapping
from typing import Final, NamedTuple

from gridmad.driver import describe
from gridmad.errors import DriverError, TransientError

MAX_OUTPUT: Final = 64 << 20
"""Bytes of a tool's output; more is a fault, and must not fill the memory."""
_SCARCE: Final = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""There is too little of something for now."""
_END_TIME: Final = 1.0
_EXCERPT: Final = 300


class Finished(NamedTuple):
    """A command that has ended."""

    exit_code: int
    """Negative: the signal that ended it."""
    output: bytes
    errors: str
    """What it said on stderr, in one line."""


class Commands:
    """Runs commands, at most `most` at a time, each for at most `seconds`."""

    def __init__(self, most: int = 4, seconds: float = 60.0) -> None:
        self._places = asyncio.Semaphore(most)
        self._seconds = seconds
        self.count = 0
        """Commands that were run."""

    def has(self, name: str) -> bool:
        """Whether there is such a command."""
        return shutil.which(name) is not None

    async def user(self) -> str:
        """The name of the user as whom commands are run."""
        try:
            return pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            return getpass.getuser()

    async def run(
        self, *words: str, given: bytes = b"", environment: Mapping[str, str] | None = None
    ) -> Finished:
        """Run a command with `given` on its stdin, in the driver's environment or another one.

        Raises DriverError where there is no such command, TransientError where this machine
        cannot run it for now, or where it does not end in time or says too much.  Its exit code
        is the caller's business.
        """
        async with self._places:
            self.count += 1
            try:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    stdin=asyncio.subprocess.PIPE if given else asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env={**(os.environ if environment is None else environment), "LC_ALL": "C"},
                    start_new_session=True,
                )
            except OSError as error:
                text = f"{words[0]} cannot be run: {describe(error)}"
                kind = TransientError if error.errno in _SCARCE else DriverError
                raise kind(text) from None
            try:
                async with asyncio.timeout(self._seconds):
                    output, errors = await _communicate(process, given)
            except TimeoutError:
                await _end(process)
                text = f"{words[0]} did not end within {self._seconds:g} seconds"
                raise TransientError(text) from None
            except asyncio.CancelledError:
                _kill(process)
                raise
            if output is None or errors is None:
                raise TransientError(f"{words[0]} printed more than {MAX_OUTPUT} bytes")
            assert process.returncode is not None
        text = " ".join(errors.decode("utf-8", "replace").split())
        return Finished(process.returncode, output, text[:_EXCERPT])


def _kill(process: asyncio.subprocess.Process) -> None:
    """End a command and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a command that was given up, and wait for that: what it said is dropped, for it does
    not count as ended before its pipes have.
    """
    _kill(process)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_TIME):
            await _communicate(process, b"")


async def _communicate(
    process: asyncio.subprocess.Process, given: bytes
) -> tuple[bytes | None, bytes | None]:
    """All that a command says on stdout and stderr, each None where that is too much."""
    if process.stdin is not None:
        process.stdin.write(given)
        process.stdin.close()
    output, errors = await asyncio.gather(
        _read(process, process.stdout), _read(process, process.stderr)
    )
    await process.wait()
    return output, errors


async def _read(
    process: asyncio.subprocess.Process, stream: asyncio.StreamReader | None
) -> bytes | None:
    assert stream is not None
    parts: list[bytes] = []
    size = 0
    while data := await stream.read(1 << 18):
        size += len(data)
        if size <= MAX_OUTPUT:
            parts.append(data)
        else:
            parts.clear()
            _kill(process)
    return b"".join(parts) if size <= MAX_OUTPUT else None
