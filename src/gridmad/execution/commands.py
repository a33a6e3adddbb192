"""Runs the command-line tools of a resource.

What a driver that dies leaves running could still submit a job after its successor has looked
for it.  `end_leftovers` ends such tools: one that submits has the name of its group of jobs at
the end of one of its words.
"""

import asyncio
import contextlib
import errno
import getpass
import os
import pwd
import shutil
import signal
import time
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from gridmad.driver import describe
from gridmad.errors import DriverError, TransientError
from gridmad.execution.processes import find_by_ending, send

MAX_OUTPUT: Final = 64 << 20
"""Bytes of a tool's output; more is a fault, and must not fill the memory."""
_SCARCE: Final = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""There is too little of something for now."""
_LEFTOVER_TIME: Final = 5.0
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
            except (TimeoutError, _TooMuch) as error:
                _kill(process)
                await process.wait()
                what = f"did not end within {self._seconds:g} seconds"
                if isinstance(error, _TooMuch):
                    what = f"printed more than {MAX_OUTPUT} bytes"
                raise TransientError(f"{words[0]} {what}") from None
            except asyncio.CancelledError:
                _kill(process)
                raise
            assert process.returncode is not None
        text = " ".join(errors.decode("utf-8", "replace").split())
        return Finished(process.returncode, output, text[:_EXCERPT])


class _TooMuch(Exception):  # noqa: N818 - no error: a way out
    """The command prints more than it may."""


def _kill(process: asyncio.subprocess.Process) -> None:
    """End a command and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _communicate(process: asyncio.subprocess.Process, given: bytes) -> tuple[bytes, bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdin is not None:
        process.stdin.write(given)
        process.stdin.close()
    output, errors = await asyncio.gather(_read(process.stdout), _read(process.stderr))
    await process.wait()
    return output, errors


async def _read(stream: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    size = 0
    while data := await stream.read(1 << 18):
        size += len(data)
        if size > MAX_OUTPUT:
            raise _TooMuch
        parts.append(data)
    return b"".join(parts)


def end_leftovers(names: Collection[str]) -> None:
    """End the tools on this machine that submit groups of these names.  Blocks, for seconds at
    most.
    """
    endings = tuple(os.fsencode(name) for name in names)
    until = time.monotonic() + _LEFTOVER_TIME
    while endings and time.monotonic() < until:
        left = list(find_by_ending(endings))
        if not left:
            return
        for process in left:
            send(process, signal.SIGKILL)
        time.sleep(0.02)
