"""What holds for every back end of the transfer engine, on its real server.

A test module makes a class of `Contract` and gives it a `server`.  The driver runs in this process,
since names with blanks do not get through gwd's protocol.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from gridmad.driver import Batch
from gridmad.errors import DriverError
from gridmad.transfer.any_url import DRIVER
from gridmad.transfer.model import Copy
from gridmad.transfer.service import TransferService
from tests.services.required import skip_without
from tests.unit.session import options

PATIENCE = 100.0
"""Seconds, on a busy machine."""
LARGE = 192 << 20
IS_LARGE = os.environ.get("GRIDMAD_LARGE_TRANSFERS") == "1"
"""`make test-transfers`: 10,000 small files and one of 1 GiB; else a few and a sixteenth."""
SLOWLY = 10 if IS_LARGE else 1
"""So many times the patience."""
NAMES = [
    "plain", "two words", " blanks at both ends ", "100%", "per%20cent", "a+b&c=d;e", "#hash",
    "quo'te\"s", "back\\slash", "grüße", "日本", "$HOME", "`id`", "-dash", "*", "~tilde", "[x]",
    "x" * 200,
]  # fmt: skip
SIZES = [0, 1, 4096, 300_000, 5_000_003]


class Server(Protocol):
    """A server that a back end is tried on."""

    @property
    def url(self) -> str:
        """Of `folder`."""

    @property
    def folder(self) -> Path:
        """Where files are on this machine."""

    @property
    def arguments(self) -> str:
        """What the driver needs to reach it."""

    def kill(self) -> None:
        """End it at once, with all connections."""

    def start(self) -> None:
        """Start it again."""

    def own(self, path: Path) -> None:
        """Let the server do with a file or directory as it likes."""


class Transfers:
    """A driver that runs."""

    def __init__(self, arguments: str) -> None:
        self.driver = DRIVER(options(TransferService, DRIVER, arguments))

    async def copies(self, *copies: Copy) -> list[DriverError | None]:
        """The outcome of each."""
        return await _outcomes(self.driver.copy, copies)

    async def copy(
        self, source: object, destination: object, *, is_executable: bool = False
    ) -> str:
        """What went wrong; "" where nothing did."""
        [outcome] = await self.copies(Copy(_text(source), _text(destination), is_executable, "7"))
        return str(outcome or "")

    async def mkdir(self, url: str) -> str:
        return str((await _outcomes(self.driver.mkdir, [url]))[0] or "")

    async def rmdir(self, url: str) -> str:
        return str((await _outcomes(self.driver.rmdir, [url]))[0] or "")

    async def exists(self, url: str) -> str:
        return str((await _outcomes(self.driver.exists, [url]))[0] or "")


async def _outcomes(operation: Callable[..., Any], items: Any) -> list[DriverError | None]:
    outcomes: dict[int, DriverError | None] = {}
    async with asyncio.timeout(SLOWLY * PATIENCE):
        await operation(Batch(list(items), outcomes.__setitem__))
    return [outcomes[index] for index in range(len(items))]


def _text(place: object) -> str:
    return f"file://{place}" if isinstance(place, Path) else str(place)


@contextlib.asynccontextmanager
async def transfers(arguments: str) -> AsyncIterator[Transfers]:
    """A driver, started and stopped."""
    running = Transfers(arguments)
    await running.driver.start()
    try:
        yield running
    finally:
        await running.driver.stop()


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


async def until(condition: Callable[[], bool], text: str) -> None:
    """Wait for something."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, text
        await asyncio.sleep(0.01)


def content(size: int) -> bytes:
    """Bytes that are the same in no two places."""
    return os.urandom(size)


def leftovers(folder: Path) -> list[str]:
    """Temporary files."""
    return [path.name for path in folder.rglob(".gridmad-*")]


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of that size in place of a folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        skip_without("namespaces", "no disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Contract:
    """The tests."""

    odd_names: list[str] = NAMES
    keeps_modes = True
    sees_links = True
    checksum = "none"

    @pytest.fixture
    def job(self, server: Server) -> Iterator[tuple[str, Path]]:
        """A job's directory: its URL and its path, on a server that is there."""
        name = f".gw_tester_{time.monotonic_ns() % 100_000}"
        folder = server.folder / name
        folder.mkdir()
        server.own(folder)
        yield f"{server.url}/{name}", folder
        shutil.rmtree(folder, ignore_errors=True)

    def test_files_there_and_back(
        self, server: Server, job: tuple[str, Path], tmp_path: Path
    ) -> None:
        async def main() -> None:
            url, folder = job
            files = {name: content(SIZES[i % len(SIZES)]) for i, name in enumerate(self.odd_names)}
            (tmp_path / "here").mkdir()
            (tmp_path / "back").mkdir()
            for name, data in files.items():
                (tmp_path / "here" / name).write_bytes(data)
            arguments = f"{server.arguments} --checksum {self.checksum}"
            async with transfers(arguments) as driver:
                here, back = f"file://{tmp_path}/here", f"file://{tmp_path}/back"
                there = [Copy(f"{here}/{name}", f"{url}/{name}", job="7") for name in files]
                again = [Copy(f"{url}/{name}", f"{back}/{name}", job="7") for name in files]
                assert await driver.copies(*there) == [None] * len(files)
                assert await driver.copies(*again) == [None] * len(files)
            assert sorted(os.listdir(folder)) == sorted(files)
            for name, data in files.items():
                assert (folder / name).read_bytes() == data
                assert (tmp_path / "back" / name).read_bytes() == data
            assert not leftovers(tmp_path)

        run(main())

    def test_many_small_files(self, server: Server, job: tuple[str, Path], tmp_path: Path) -> None:
        async def main() -> None:
            url, folder = job
            count = 10_000 if IS_LARGE else 300
            files = {f"file.{n}": f"{n}\n".encode() * 500 for n in range(count)}
            for name, data in files.items():
                (tmp_path / name).write_bytes(data)
            async with transfers(server.arguments) as driver:
                copies = [
                    Copy(f"file://{tmp_path}/{name}", f"{url}/{name}", job=name[-1])
                    for name in files
                ]
                assert await driver.copies(*copies) == [None] * len(files)
                for name, data in files.items():
                    assert (folder / name).read_bytes() == data
                assert await driver.rmdir(url) == ""
            assert not folder.exists()

        run(main())

    def test_a_large_file(self, server: Server, job: tuple[str, Path], tmp_path: Path) -> None:
        async def main() -> None:
            url, _ = job
            block = content(1 << 20)
            digest = hashlib.sha256()
            with (tmp_path / "large").open("wb") as file:
                for number in range(1024 if IS_LARGE else 64):
                    data = number.to_bytes(8, "big") + block[8:]
                    digest.update(data)
                    file.write(data)
            async with transfers(server.arguments) as driver:
                assert await driver.copy(tmp_path / "large", f"{url}/large") == ""
                (tmp_path / "large").unlink()
                assert await driver.copy(f"{url}/large", tmp_path / "back") == ""
                assert await driver.rmdir(url) == ""
            with (tmp_path / "back").open("rb") as file:
                assert hashlib.file_digest(file, "sha256").digest() == digest.digest()
            (tmp_path / "back").unlink()

        run(main())

    def test_what_is_there_is_replaced(
        self, server: Server, job: tuple[str, Path], tmp_path: Path
    ) -> None:
        async def main() -> None:
            url, folder = job
            (tmp_path / "new").write_bytes(b"new" * 1000)
            (folder / "file").write_bytes(b"what was there before" * 10_000)
            server.own(folder / "file")
            async with transfers(server.arguments) as driver:
                assert await driver.copy(tmp_path / "new", f"{url}/file") == ""
            assert (folder / "file").read_bytes() == b"new" * 1000
            assert os.listdir(folder) == ["file"]

        run(main())

    def test_what_is_missing(self, server: Server, job: tuple[str, Path], tmp_path: Path) -> None:
        async def main() -> None:
            url, folder = job
            (tmp_path / "file").write_bytes(b"x")
            async with transfers(server.arguments) as driver:
                problem = await driver.copy(f"{url}/none", tmp_path / "none")
                assert f"{url}/none" in problem
                assert "no such file" in problem.lower()
                problem = await driver.copy(tmp_path / "none", f"{url}/none")
                assert "o such file" in problem
                assert await driver.copy(tmp_path / "file", f"{url}/no/folder/file") != ""
                assert await driver.exists(f"{url}/none") != ""
                assert await driver.exists(url) == ""
                assert await driver.rmdir(f"{url}/none") == ""
                assert await driver.rmdir(f"{url}/none/below") == ""
            assert os.listdir(folder) == []
            assert os.listdir(tmp_path) == ["file"]

        run(main())

    def test_directories(self, server: Server, job: tuple[str, Path], tmp_path: Path) -> None:
        async def main() -> None:
            url, folder = job
            (tmp_path / "program").write_bytes(b"#!/bin/sh\n")
            (tmp_path / "program").chmod(0o644)
            async with transfers(server.arguments) as driver:
                for _ in range(2):
                    assert await driver.mkdir(f"{url}/a b/c%20d/é/") == ""
                assert (folder / "a b/c%20d/é").is_dir()
                program = f"{url}/a b/program"
                assert await driver.copy(tmp_path / "program", program, is_executable=True) == ""
                if self.keeps_modes:
                    assert (folder / "a b/program").stat().st_mode & 0o111
                assert await driver.exists(program) == ""
                assert await driver.mkdir(program) != ""
                assert await driver.copy(f"{url}/a b", tmp_path / "x") != ""
                for name in (*self.odd_names[:8], ".hidden"):
                    (folder / "a b/c%20d" / name).write_bytes(b"x")
                    (folder / "a b" / f"folder {name}").mkdir()
                for path in folder.rglob("*"):
                    server.own(path)
                assert await driver.rmdir(url) == ""
                assert not folder.exists()
                assert await driver.rmdir(url) == ""

        run(main())

    def test_what_rmdir_does_not_do(self, server: Server, job: tuple[str, Path]) -> None:
        async def main() -> None:
            url, folder = job
            other = server.folder / "precious"
            other.mkdir(exist_ok=True)
            server.own(other)
            async with transfers(server.arguments) as driver:
                assert "no job directory" in await driver.rmdir(f"{server.url}/precious")
                assert await driver.rmdir(f"{url}/../precious") != ""
                assert await driver.rmdir(f"{url}/..") != ""
            async with transfers(f"{server.arguments} --rmdir-anywhere") as driver:
                assert await driver.rmdir(f"{url}/../precious") != ""
                assert other.exists()
                assert await driver.rmdir(f"{server.url}/precious") == ""
            assert not other.exists()
            assert folder.exists()

        run(main())

    def test_links_that_lead_out(
        self, server: Server, job: tuple[str, Path], tmp_path: Path
    ) -> None:
        async def main() -> None:
            url, folder = job
            outside = server.folder / "outside"
            outside.mkdir(exist_ok=True)
            (outside / "precious").write_bytes(b"precious")
            for path in (outside, outside / "precious"):
                server.own(path)
            (folder / "inside").mkdir()
            (folder / "inside" / "link").symlink_to(outside)
            server.own(folder / "inside")
            (tmp_path / "file").write_bytes(b"x")
            async with transfers(server.arguments) as driver:
                if self.sees_links:
                    copy = await driver.copy(tmp_path / "file", f"{url}/inside/link/file")
                    assert "symbolic link" in copy
                    assert "symbolic link" in await driver.copy(
                        f"{url}/inside/link/precious", tmp_path / "stolen"
                    )
                    assert not (tmp_path / "stolen").exists()
                removed = await driver.rmdir(url)
                assert (removed == "") == self.sees_links
            assert folder.exists() != self.sees_links
            assert (outside / "precious").read_bytes() == b"precious"
            assert os.listdir(outside) == ["precious"]
            shutil.rmtree(outside)

        run(main())

    def test_a_full_disk_and_one_that_cannot_be_written(
        self, server: Server, job: tuple[str, Path], tmp_path: Path
    ) -> None:
        async def main() -> None:
            url, folder = job
            (tmp_path / "large").write_bytes(content(8 << 20))
            (tmp_path / "small").write_bytes(b"small")
            disk = folder / "disk"
            with small_disk(disk, "2m"):
                async with transfers(f"{server.arguments} --retries 0") as driver:
                    problem = await driver.copy(tmp_path / "large", f"{url}/disk/large")
                    assert f"{url}/disk/large" in problem
                    # Where the connection went with it, what is left is removed a little later.
                    await until(lambda: not os.listdir(disk), problem)
                    assert await driver.copy(tmp_path / "small", f"{url}/disk/small") == ""
                    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
                    problem = await driver.copy(tmp_path / "small", f"{url}/disk/other")
                    assert f"{url}/disk/other" in problem
                    assert os.listdir(disk) == ["small"]

        run(main())

    def test_a_copy_that_is_given_up(
        self, server: Server, job: tuple[str, Path], tmp_path: Path
    ) -> None:
        async def main() -> None:
            url, folder = job
            (tmp_path / "large").write_bytes(content(1 << 20) * 192)
            async with transfers(server.arguments) as driver:
                copying = asyncio.create_task(driver.copy(tmp_path / "large", f"{url}/large"))
                while not os.listdir(folder):
                    assert not copying.done(), copying
                    await asyncio.sleep(0.001)
                copying.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await copying
            assert not (folder / "large").exists()

        run(main())

    def test_a_server_that_is_killed_in_the_middle_and_comes_back(
        self, server: Server, job: tuple[str, Path], tmp_path: Path
    ) -> None:
        async def main() -> None:
            url, folder = job
            data = content(1 << 20) * (LARGE >> 20)
            (tmp_path / "large").write_bytes(data)
            # Slow servers are given the time to come back.
            async with transfers(f"{server.arguments} --retries 6") as driver:
                copying = asyncio.create_task(driver.copy(tmp_path / "large", f"{url}/large"))
                while not any(path.stat().st_size for path in folder.glob(".gridmad-*")):
                    assert not copying.done(), copying
                    await asyncio.sleep(0.001)
                await asyncio.to_thread(server.kill)
                assert not (folder / "large").exists()
                await asyncio.to_thread(server.start)
                assert await copying == ""
                assert (folder / "large").read_bytes() == data
                back = tmp_path / "back"
                copying = asyncio.create_task(driver.copy(f"{url}/large", back))
                while not any(path.stat().st_size for path in tmp_path.glob(".gridmad-*")):
                    assert not copying.done(), copying
                    await asyncio.sleep(0.001)
                await asyncio.to_thread(server.kill)
                assert not back.exists()
                await asyncio.to_thread(server.start)
                assert await copying == ""
                assert back.read_bytes() == data
            assert not leftovers(tmp_path)

        run(main())

    def test_a_server_that_is_not_there(
        self, server: Server, job: tuple[str, Path], tmp_path: Path
    ) -> None:
        async def main() -> None:
            url, folder = job
            (tmp_path / "file").write_bytes(b"x")
            server.kill()
            try:
                async with transfers(f"{server.arguments} --retries 0") as driver:
                    assert await driver.copy(tmp_path / "file", f"{url}/file") != ""
                    assert await driver.mkdir(f"{url}/folder") != ""
            finally:
                server.start()
            assert os.listdir(folder) == []

        run(main())
