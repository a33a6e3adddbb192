"""gw_tm_mad_dummy: moves nothing, for execution services that stage files themselves.

Those fetch and store the files of a job at a server that this driver names in its answer to
INIT: one that is running (-u), or a GASS server of the user's own, started here (-g, -i).

Source: GridWay 5.14, src/tm_mad/dummy.
"""

import argparse
import asyncio
import contextlib
import logging
import re
import shutil
from pathlib import Path
from typing import ClassVar

from gridmad.driver import Batch
from gridmad.errors import DriverError, UsageError
from gridmad.transfer.driver import Outcomes, TransferDriver
from gridmad.transfer.model import Copy
from gridmad.transfer.url import parse

log = logging.getLogger(__name__)

_PROGRAM = "globus-gass-server"
_START_TIME = 4.0
"""Seconds for the server's first line; gwd waits five for the answer to INIT."""
_STOP_TIME = 0.3
_WRAPPER_OUTPUTS = ("stdout.wrapper", "stderr.wrapper")
_READABLE = 0o644
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/]\S*")


class DummyTransfer(TransferDriver):
    """Answers every request with success."""

    summary: ClassVar[str] = "Transfer driver for services that stage files from a server"
    init_waits_for_start: ClassVar[bool] = True

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._server: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        # As in GridWay's own, -u goes before -g, and -g before -i.
        self._arguments: list[str] | None = None
        if options.url is not None:
            if not _URL.fullmatch(options.url) or not options.url.isprintable():
                raise UsageError(f"-u {options.url!r} is no URL: write SCHEME://HOST[:PORT]")
            self.staging_url = options.url
        elif options.gass:
            self._arguments = []
        elif options.insecure_gass:
            self._arguments = ["-i"]

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare this driver's own options."""
        parser.add_argument(
            "-u", dest="url", metavar="URL", help="URL of a running GridFTP or GASS server"
        )
        parser.add_argument(
            "-g",
            dest="gass",
            action="store_true",
            help=f"start a GASS server ({_PROGRAM}) for this user",
        )
        parser.add_argument(
            "-i",
            dest="insecure_gass",
            action="store_true",
            help="start a GASS server without security: who can reach its port reads and "
            "writes the user's files",
        )

    async def start(self) -> None:
        """Start the GASS server where one is asked for, and learn its URL."""
        if self._arguments is None or self.staging_url:
            return
        command = [_PROGRAM, *self._arguments]
        # Where this driver is killed, the server goes with it.
        if shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "TERM", *command]
        if not shutil.which(_PROGRAM):
            raise DriverError(f"no GASS server can be started: {_PROGRAM} is not installed")
        try:
            self._server = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except OSError as error:
            raise DriverError(f"no GASS server can be started: {error.strerror}") from None
        try:
            self.staging_url = await asyncio.wait_for(_read_url(self._server), _START_TIME)
        except TimeoutError:
            await self._end_server()
            raise DriverError(f"{_PROGRAM} told no URL within {_START_TIME:g} seconds") from None
        except BaseException:
            await self._end_server()
            raise
        self._reading = asyncio.create_task(self._read_output(self._server))

    async def stop(self) -> None:
        """End the GASS server."""
        await self._end_server()

    def mkdir(self, urls: Batch[str, None]) -> Outcomes:
        """Make nothing."""
        return [None] * len(urls)

    def rmdir(self, urls: Batch[str, None]) -> Outcomes:
        """Remove nothing."""
        return [None] * len(urls)

    def exists(self, urls: Batch[str, None]) -> Outcomes:
        """Success, without a look."""
        return [None] * len(urls)

    def copy(self, copies: Batch[Copy, None]) -> Outcomes:
        """Copy nothing.  The wrapper's outputs, which a GASS server has stored by now, are made
        readable to all: gwd may run as another user and looks for the exit code in them.
        """
        if self._arguments is not None:
            outputs = [
                copy.destination
                for copy in copies
                if any(name in copy.source for name in _WRAPPER_OUTPUTS)
            ]
            if outputs:
                return self._publish(outputs, len(copies))
        return [None] * len(copies)

    async def _publish(self, outputs: list[str], count: int) -> list[DriverError | None]:
        await asyncio.to_thread(_make_readable, outputs)
        return [None] * count

    async def _read_output(self, server: asyncio.subprocess.Process) -> None:
        """Keep the server's pipe empty, or it would wait for us some day."""
        assert server.stdout is not None
        while data := await server.stdout.read(65_536):
            log.debug("%s: %s", _PROGRAM, data.decode("utf-8", "replace").strip())
        log.error("%s has ended (exit code %s)", _PROGRAM, await server.wait())

    async def _end_server(self) -> None:
        server, self._server = self._server, None
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        if server is None:
            return
        self.staging_url = ""
        with contextlib.suppress(ProcessLookupError):
            server.terminate()
            try:
                await asyncio.wait_for(server.wait(), _STOP_TIME)
            except TimeoutError:
                server.kill()
                await server.wait()


async def _read_url(server: asyncio.subprocess.Process) -> str:
    """The URL that the server prints, after whatever warnings."""
    assert server.stdout is not None
    said = ""
    while line := await server.stdout.readline():
        text = line.decode("utf-8", "replace").strip()
        if text.startswith(("https://", "http://", "x-gass-")) and " " not in text:
            return text
        log.warning("%s: %s", _PROGRAM, text)
        said = text or said
    raise DriverError(f"{_PROGRAM} ended without a URL: {said or 'it said nothing'}")


def _make_readable(urls: list[str]) -> None:
    for url in urls:
        with contextlib.suppress(DriverError, OSError):
            file = parse(url)
            if file.scheme == "file":
                Path(file.path).chmod(_READABLE)


DRIVER = DummyTransfer
