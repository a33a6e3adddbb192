"""A daemon in this process over real pipes, and the other end of them."""

import argparse
import asyncio
import os
from types import TracebackType
from typing import Self

from gridmad.daemon import Daemon
from gridmad.driver import Driver
from gridmad.service import Service

PATIENCE = 20.0


def options(
    service: type[Service], driver: type[Driver], arguments: str = ""
) -> argparse.Namespace:
    """The command line as the driver's executable would read it."""
    parser = argparse.ArgumentParser()
    driver.add_options(parser)
    service.add_options(parser)
    return parser.parse_args(arguments.split())


class Session:
    """Plays gwd for a service: `async with Session(service) as session`."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._text = b""
        self._news = asyncio.Event()
        self._is_reading = False

    async def __aenter__(self) -> Self:
        self.stdin, self._to_daemon = os.pipe()
        self._from_daemon, self.stdout = os.pipe()
        os.set_blocking(self._from_daemon, False)
        self.daemon = Daemon(self.service, self.stdin, self.stdout)
        self.run = asyncio.create_task(self.daemon.run())
        self.read()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close_stdin()
        self.close_stdout()
        async with asyncio.timeout(PATIENCE):
            await self.run
        os.close(self.stdin)
        os.close(self.stdout)

    def send(self, text: str | bytes) -> None:
        """Write at once, newlines and all."""
        data = text.encode() if isinstance(text, str) else text
        assert os.write(self._to_daemon, data) == len(data)

    async def flood(self, data: bytes) -> None:
        """Write more than the pipe holds, as fast as the daemon takes it."""
        os.set_blocking(self._to_daemon, False)
        while data:
            try:
                data = data[os.write(self._to_daemon, data) :]
            except BlockingIOError:
                await asyncio.sleep(0)

    def read(self) -> None:
        """Take what the daemon writes, from now on."""
        asyncio.get_running_loop().add_reader(self._from_daemon, self._readable)
        self._is_reading = True

    def stop_reading(self) -> None:
        """Leave what the daemon writes in the pipe."""
        if self._is_reading:
            asyncio.get_running_loop().remove_reader(self._from_daemon)
            self._is_reading = False

    def _readable(self) -> None:
        try:
            data = os.read(self._from_daemon, 1 << 20)
        except BlockingIOError:
            return
        if not data:
            self.stop_reading()
        self._text += data
        self._news.set()

    async def lines(self, count: int) -> list[str]:
        """The next `count` lines."""
        async with asyncio.timeout(PATIENCE):
            while self._text.count(b"\n") < count:
                self._news.clear()
                await self._news.wait()
        *lines, self._text = self._text.split(b"\n", count)
        return [line.decode() for line in lines]

    async def ask(self, text: str) -> list[str]:
        """Send whole lines; one answer for each, in the order they come."""
        self.send(text)
        return await self.lines(text.count("\n"))

    async def silence(self, seconds: float = 0.1) -> str:
        """What came unasked for within that time."""
        await asyncio.sleep(seconds)
        text, self._text = self._text, b""
        return text.decode()

    async def ended(self, seconds: float = PATIENCE) -> int:
        """Wait for the daemon's end; its exit code."""
        async with asyncio.timeout(seconds):
            code = await self.run
        await asyncio.sleep(0)
        if self._is_reading:
            self._readable()
        return code

    def close_stdin(self) -> None:
        """End of file for the daemon."""
        if self._to_daemon >= 0:
            os.close(self._to_daemon)
            self._to_daemon = -1

    def close_stdout(self) -> None:
        """The reader is gone."""
        self.stop_reading()
        if self._from_daemon >= 0:
            os.close(self._from_daemon)
            self._from_daemon = -1
