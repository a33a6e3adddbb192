"""The transfer engine over a storage that lives in memory and fails when it is told to."""

import argparse
import asyncio
import hashlib
import logging
import os
import time
import zlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest

from gridmad.driver import Batch
from gridmad.errors import DriverError, MissingDependencyError, TransientError
from gridmad.transfer import copying, dispatcher, engine, sessions
from gridmad.transfer.engine import UrlTransfer
from gridmad.transfer.model import Copy
from gridmad.transfer.service import TransferService
from gridmad.transfer.storage import Block, Progress, Session, Status, Storage
from gridmad.transfer.url import Url

JOB = "mem://host/~/.gw_me_1"


class Memory(Storage):
    """Servers whose files are bytes by host and path."""

    schemes = frozenset({"mem"})
    checksums = ("md5",)
    last: ClassVar["Memory"]

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        Memory.last = self
        self.files: dict[tuple[str, str], bytes] = {}
        self.links: dict[str, str] = {}
        self.modes: set[str] = set()
        self.troubles: dict[str, list[DriverError]] = {}
        """Errors of the next calls of an operation, by its name."""
        self.connected: Counter[str] = Counter()
        self.open_sessions: set[Session] = set()
        self.most = 0
        self.now = 0
        self.third_party = 0
        self.is_ready: Callable[[], None] = lambda: None
        self.delay = 0.0
        self.fetch_time = 0.0
        self.shown = 0
        """Bytes that are seen of what servers copy among themselves, before it is done."""

    async def open(self) -> None:
        self.is_ready()

    async def connect(self, url: Url) -> "MemorySession":
        self.trouble("connect")
        self.connected[url.host] += 1
        session = MemorySession(self)
        self.open_sessions.add(session)
        return session

    def trouble(self, operation: str) -> None:
        if errors := self.troubles.get(operation):
            raise errors.pop(0)


class MemorySession(Session):
    def __init__(self, storage: Memory) -> None:
        super().__init__(storage)
        self.memory = storage

    async def close(self) -> None:
        self.memory.open_sessions.discard(self)

    async def status(self, url: Url) -> Status | None:
        self.memory.trouble("status")
        await asyncio.sleep(0)
        link = self.memory.links.get(url.path)
        content = self.memory.files.get((url.host, url.path))
        if content is not None:
            return Status(len(content), link=link)
        is_folder = any(path.startswith(f"{url.path}/") for _, path in self.memory.files)
        return Status(0, is_directory=True, link=link) if is_folder or link is not None else None

    async def make_directories(self, url: Url) -> None:
        self.memory.trouble("make_directories")
        self.memory.files[url.host, f"{url.path}/"] = b""

    async def remove_tree(self, url: Url) -> None:
        self.memory.trouble("remove_tree")
        for host, path in list(self.memory.files):
            if path.startswith(f"{url.path}/"):
                del self.memory.files[host, path]

    async def remove(self, url: Url) -> None:
        del self.memory.files[url.host, url.path]

    async def rename(self, url: Url, new: Url) -> None:
        self.memory.trouble("rename")
        self.memory.files[new.host, new.path] = self.memory.files.pop((url.host, url.path))

    async def make_executable(self, url: Url) -> None:
        self.memory.modes.add(url.path)

    async def read(self, url: Url) -> AsyncGenerator[Block, None]:
        content = self.memory.files[url.host, url.path]
        for position in range(0, len(content), 10):
            yield content[position : position + 10]
            self.memory.trouble("read")

    async def write(self, url: Url, blocks: AsyncIterator[Block], size: int | None) -> None:
        self.memory.now += 1
        self.memory.most = max(self.memory.most, self.memory.now)
        try:
            self.memory.files[url.host, url.path] = b""
            async for block in blocks:
                self.memory.files[url.host, url.path] += bytes(block)
                await asyncio.sleep(self.memory.delay)
                self.memory.trouble("write")
            assert size is None or size == len(self.memory.files[url.host, url.path])
        finally:
            self.memory.now -= 1

    async def checksum(self, url: Url, algorithm: str) -> str:
        self.memory.trouble("checksum")
        return hashlib.md5(self.memory.files[url.host, url.path]).hexdigest()

    async def fetch(self, url: Url, source: Url, progress: Progress) -> bool:
        if "fetch" not in self.memory.troubles:
            return False
        self.memory.trouble("fetch")
        content = self.memory.files[source.host, source.path]
        self.memory.files[url.host, url.path] = content[: self.memory.shown]
        await asyncio.sleep(self.memory.fetch_time)
        self.memory.third_party += 1
        self.memory.files[url.host, url.path] = content
        return True


class Driver(UrlTransfer):
    job_scheme = "mem"


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STORAGES", (Memory,))
    monkeypatch.setattr(dispatcher, "FIRST_PAUSE", 0.001)


def make_driver(*arguments: str) -> UrlTransfer:
    parser = argparse.ArgumentParser()
    Driver.add_options(parser)
    TransferService.add_options(parser)
    return Driver(parser.parse_args(arguments))


async def ask(driver: UrlTransfer, operation: str, *items: str | Copy) -> list[str]:
    """The text of each item's error, "" for success."""
    known: dict[int, DriverError | None] = {}
    await getattr(driver, operation)(Batch(items, known.__setitem__))
    return ["" if known[index] is None else str(known[index]) for index in range(len(items))]


def outcomes(
    operation: str,
    *items: str | Copy,
    arguments: tuple[str, ...] = (),
    prepare: Callable[[Memory], None] = lambda storage: None,
) -> tuple[list[str], Memory]:
    """What became of a batch, and the storage after it."""

    async def run() -> tuple[list[str], Memory]:
        driver = make_driver(*arguments)
        storage = Memory.last
        storage.files["host", "/~/.gw_me_1/"] = b""
        prepare(storage)
        try:
            return await ask(driver, operation, *items), storage
        finally:
            await driver.stop()
            assert not storage.open_sessions

    return asyncio.run(run())


def names(storage: Memory) -> set[str]:
    return {path for _, path in storage.files if not path.endswith("/")}


# --- the ways of a copy -----------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 9, 10, 1000])
@pytest.mark.parametrize("checksum", ["none", "auto"])
def test_there_and_back(tmp_path: Path, size: int, checksum: str) -> None:
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)

    async def run() -> None:
        driver = make_driver("--checksum", checksum)
        storage = Memory.last
        storage.files["host", "/~/.gw_me_1/"] = b""
        up = Copy(f"file://{tmp_path}/a", f"{JOB}/a", True, "1")
        assert await ask(driver, "copy", up) == [""]
        assert storage.files["host", "/~/.gw_me_1/a"] == content
        assert len(storage.modes) == 1
        over = Copy(f"{JOB}/a", "mem://other/x/a")
        assert await ask(driver, "copy", over) == [""]
        assert storage.files["other", "/x/a"] == content
        down = Copy("mem://other/x/a", f"{tmp_path}/b")
        assert await ask(driver, "copy", down) == [""]
        assert (tmp_path / "b").read_bytes() == content
        assert names(storage) == {"/~/.gw_me_1/a", "/x/a"}
        await driver.stop()

    asyncio.run(run())
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_between_local_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    texts, storage = outcomes("copy", Copy(f"file://{tmp_path}/a", f"file://{tmp_path}/b"))
    assert texts == [""]
    assert (tmp_path / "b").read_bytes() == b"content"
    assert not storage.connected


def test_third_party() -> None:
    def prepare(storage: Memory) -> None:
        storage.troubles["fetch"] = []
        storage.files["a", "/x"] = b"content"

    texts, storage = outcomes(
        "copy", Copy("mem://a/x", "mem://b/y"), prepare=prepare, arguments=("--checksum", "md5")
    )
    assert texts == [""]
    assert storage.files["b", "/y"] == b"content"
    assert storage.third_party == 1


def test_third_party_that_stands_still() -> None:
    def prepare(storage: Memory) -> None:
        storage.troubles["fetch"] = []
        storage.fetch_time = 100.0
        storage.shown = 3
        storage.files["a", "/x"] = b"content"

    texts, storage = outcomes(
        "copy",
        Copy("mem://a/x", "mem://b/y"),
        prepare=prepare,
        arguments=("--stall", "0.1", "--retries", "0"),
    )
    assert texts == ["nothing has moved for 0.1 seconds"]
    assert storage.third_party == 0


def test_third_party_that_shows_no_progress_is_not_taken_for_broken() -> None:
    def prepare(storage: Memory) -> None:
        storage.troubles["fetch"] = []
        storage.fetch_time = 0.3
        storage.files["a", "/x"] = b"content"

    texts, storage = outcomes(
        "copy", Copy("mem://a/x", "mem://b/y"), prepare=prepare, arguments=("--stall", "0.1")
    )
    assert storage.third_party == 1
    assert texts == [""]


def test_the_null_device(tmp_path: Path) -> None:
    def prepare(storage: Memory) -> None:
        storage.files["a", "/x"] = b"content"

    texts, _ = outcomes("copy", Copy("mem://a/x", "file:///dev/null"), prepare=prepare)
    assert texts == [""]
    texts, storage = outcomes("copy", Copy("file:///dev/null", f"{JOB}/empty"))
    assert texts == [""]
    assert storage.files["host", "/~/.gw_me_1/empty"] == b""


def test_a_file_of_proc_that_says_it_is_empty() -> None:
    texts, storage = outcomes("copy", Copy("/proc/version", f"{JOB}/v"))
    assert texts == [""]
    assert storage.files["host", "/~/.gw_me_1/v"] == Path("/proc/version").read_bytes()


@pytest.mark.parametrize("url", ["remote://host/~/.gw_me_1/f", "gsiftp://host/~/.gw_me_1/f"])
def test_job_directories_are_of_the_drivers_own_scheme(url: str) -> None:
    texts, storage = outcomes("copy", Copy("/dev/null", url))
    assert texts == [""]
    assert ("host", "/~/.gw_me_1/f") in storage.files


# --- failures ---------------------------------------------------------------------------


def test_what_failed_for_now_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)

    def prepare(storage: Memory) -> None:
        storage.troubles["connect"] = [TransientError("down"), TransientError("down")]
        storage.troubles["write"] = [TransientError("broken")]

    texts, storage = outcomes("copy", Copy(f"{tmp_path}/a", f"{JOB}/a"), prepare=prepare)
    assert texts == [""]
    assert storage.files["host", "/~/.gw_me_1/a"] == b"x" * 100
    assert names(storage) == {"/~/.gw_me_1/a"}


def test_it_is_given_up_in_the_end(tmp_path: Path) -> None:
    def prepare(storage: Memory) -> None:
        storage.troubles["connect"] = [TransientError("down") for _ in range(10)]

    texts, storage = outcomes(
        "copy", Copy("/dev/null", f"{JOB}/a"), prepare=prepare, arguments=("--retries", "2")
    )
    assert texts == ["cannot reach mem://host: down (attempt 3)"]
    assert len(storage.troubles["connect"]) == 7


def test_what_failed_for_good_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")

    def prepare(storage: Memory) -> None:
        storage.troubles["write"] = [DriverError("No space left on device"), DriverError("again")]

    texts, storage = outcomes("copy", Copy(f"{tmp_path}/a", f"{JOB}/a"), prepare=prepare)
    assert texts == [f"cannot write {JOB}/a: No space left on device"]
    assert len(storage.troubles["write"]) == 1
    assert names(storage) == set()


def test_a_failed_download_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"old")

    def prepare(storage: Memory) -> None:
        storage.files["a", "/x"] = b"content of a file"
        storage.troubles["read"] = [DriverError("unreadable")]

    texts, _ = outcomes("copy", Copy("mem://a/x", f"{tmp_path}/b"), prepare=prepare)
    assert texts == ["cannot read mem://a/x: unreadable"]
    assert (tmp_path / "b").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["b"]


def test_a_session_that_went_stale_costs_no_attempt(tmp_path: Path) -> None:
    async def run() -> None:
        driver = make_driver("--retries", "0")
        storage = Memory.last
        storage.files["host", "/~/.gw_me_1/"] = b""
        item = Copy("/dev/null", f"{JOB}/a")
        assert await ask(driver, "copy", item) == [""]
        storage.troubles["rename"] = [TransientError("the connection was closed")]
        assert await ask(driver, "copy", item) == [""]
        assert storage.connected["host"] == 2
        storage.troubles["rename"] = [TransientError("closed"), TransientError("closed again")]
        assert "closed again" in (await ask(driver, "copy", item))[0]
        await driver.stop()

    asyncio.run(run())


def test_a_server_that_tells_no_checksum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")

    def prepare(storage: Memory) -> None:
        storage.files["a", "/x"] = b"content"
        storage.troubles["checksum"] = [DriverError("no checksums here") for _ in range(3)]

    up, down = Copy(f"{tmp_path}/a", f"{JOB}/a"), Copy("mem://a/x", f"{tmp_path}/b")
    over = Copy("mem://a/x", "mem://b/y")
    arguments = ("--checksum", "auto", "--retries", "0")
    texts, storage = outcomes("copy", up, down, over, prepare=prepare, arguments=arguments)
    assert texts == ["", "", ""]
    assert not storage.troubles["checksum"], "all three asked for one"
    arguments = ("--checksum", "md5", "--retries", "0")
    texts, storage = outcomes("copy", up, down, over, prepare=prepare, arguments=arguments)
    assert all("no checksums here" in text for text in texts)
    assert names(storage) == {"/x"}


def test_servers_of_a_kind_that_tells_no_checksums(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    up = Copy(f"{tmp_path}/a", f"{JOB}/a")
    assert outcomes("copy", up, arguments=("--checksum", "auto"))[0] == [""]
    texts, storage = outcomes("copy", up, arguments=("--checksum", "adler32"))
    assert "adler32 cannot be compared" in texts[0]
    assert names(storage) == set()


@pytest.mark.parametrize("what", ["size", "checksum"])
def test_what_arrives_otherwise_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    (tmp_path / "a").write_bytes(b"content")
    write = MemorySession.write

    async def write_badly(
        self: MemorySession, url: Url, blocks: AsyncIterator[Block], size: int | None
    ) -> None:
        await write(self, url, blocks, size)
        content = self.memory.files[url.host, url.path]
        self.memory.files[url.host, url.path] = content[:-1] + (b"" if what == "size" else b"?")

    monkeypatch.setattr(MemorySession, "write", write_badly)
    texts, storage = outcomes(
        "copy",
        Copy(f"{tmp_path}/a", f"{JOB}/a"),
        arguments=("--checksum", "auto", "--retries", "1"),
    )
    assert texts[0].startswith(f"cannot write {JOB}/a: ")
    assert ("6 of 7 bytes arrived" if what == "size" else "the checksums (md5) differ") in texts[0]
    assert names(storage) == set()


@pytest.mark.parametrize("grows", [True, False])
def test_a_source_may_grow_and_not_shrink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grows: bool
) -> None:
    def prepare(storage: Memory) -> None:
        storage.files["a", "/log"] = b"x" * 20
        real = MemorySession.status

        async def status(self: MemorySession, url: Url) -> Status | None:
            found = await real(self, url)
            storage.files["a", "/log"] = b"x" * (30 if grows else 10)
            return found

        monkeypatch.setattr(MemorySession, "status", status)

    texts, _ = outcomes(
        "copy", Copy("mem://a/log", f"{tmp_path}/b"), prepare=prepare, arguments=("--retries", "0")
    )
    if grows:
        assert texts == [""]
        assert (tmp_path / "b").read_bytes() == b"x" * 30
    else:
        assert texts == ["cannot read mem://a/log: 10 of 20 bytes came"]
        assert os.listdir(tmp_path) == []


def test_a_copy_that_stands_still_is_broken_off(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10)

    def prepare(storage: Memory) -> None:
        storage.delay = 60.0

    texts, _ = outcomes(
        "copy",
        Copy(f"{tmp_path}/a", f"{JOB}/a"),
        prepare=prepare,
        arguments=("--stall", "0.05", "--retries", "0"),
    )
    assert texts == ["nothing has moved for 0.05 seconds"]


def test_time_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10)

    def prepare(storage: Memory) -> None:
        storage.delay = 60.0

    texts, _ = outcomes(
        "copy", Copy(f"{tmp_path}/a", f"{JOB}/a"), prepare=prepare, arguments=("--timeout", "0.05")
    )
    assert texts == ["not done within 0.05 seconds"]


def test_what_is_given_up_is_removed(tmp_path: Path) -> None:
    """Nothing of it has the final name, and the temporary one goes too."""
    (tmp_path / "a").write_bytes(b"x" * 10)

    async def run() -> None:
        driver = make_driver()
        storage = Memory.last
        storage.files["host", "/~/.gw_me_1/"] = b""
        storage.delay = 60.0
        copying = asyncio.ensure_future(ask(driver, "copy", Copy(f"{tmp_path}/a", f"{JOB}/a")))
        async with asyncio.timeout(20):
            while not names(storage):
                await asyncio.sleep(0.001)
            assert names(storage) != {"/~/.gw_me_1/a"}
            copying.cancel()
            with suppress(asyncio.CancelledError):
                await copying
            while names(storage):
                await asyncio.sleep(0.001)
        await driver.stop()
        assert not storage.open_sessions

    asyncio.run(run())


def test_a_library_that_is_missing() -> None:
    def prepare(storage: Memory) -> None:
        def fail() -> None:
            raise MissingDependencyError("memorylib", "memory")

        storage.is_ready = fail

    texts, _ = outcomes("copy", Copy("/dev/null", f"{JOB}/a"), prepare=prepare)
    assert texts == ["memorylib is not installed: pip install 'gridmad[memory]'"]


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (Copy("/no/such/file", f"{JOB}/a"), "cannot read /no/such/file: No such file or directory"),
        (Copy(f"{JOB}/none", "/tmp/x"), f"cannot read {JOB}/none: No such file or directory"),
        (Copy("mem://host/~/.gw_me_1", "/tmp/x"), f"cannot read {JOB}: it is a directory"),
        (Copy("/dev/null", f"{JOB}/no/f"), f"cannot write {JOB}/no/f: No such file or directory"),
        (Copy("/dev/null", f"{JOB}/../x"), f"{JOB}/../x leads out of the job's directory"),
        (Copy("/dev/null", "odd://host/x"), "odd://host/x cannot be reached: the schemes here are"),
        (Copy("file://elsewhere/x", f"{JOB}/a"), "file://elsewhere/x is not on this machine"),
    ],
)  # fmt: skip
def test_refusals(item: Copy, text: str) -> None:
    (told,) = outcomes("copy", item)[0]
    assert told.startswith(text)


# --- symbolic links ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "link", ["/etc/passwd", "../x", "a/../../x", "", "/x/.gw_me_2/y", "/x/.gw_me_1"]
)
def test_a_link_that_leads_out_of_the_jobs_directory_is_not_read(tmp_path: Path, link: str) -> None:
    def prepare(storage: Memory) -> None:
        storage.files["host", "/~/.gw_me_1/out"] = b"secret"
        storage.links["/~/.gw_me_1/out"] = link
        storage.files["host", "/elsewhere/out"] = b"content"
        storage.links["/elsewhere/out"] = link

    texts, _ = outcomes(
        "copy",
        Copy(f"{JOB}/out", f"{tmp_path}/a"),
        Copy("mem://host/elsewhere/out", f"{tmp_path}/b"),
        prepare=prepare,
    )
    assert texts == [
        f"cannot read {JOB}/out: it is a symbolic link that leads out of the job's directory",
        "",
    ]
    assert os.listdir(tmp_path) == ["b"]


@pytest.mark.parametrize("link", ["result.dat", "sub/result.dat", "/home/me/.gw_me_1/result"])
def test_a_link_within_is_read(tmp_path: Path, link: str) -> None:
    def prepare(storage: Memory) -> None:
        storage.files["host", "/~/.gw_me_1/out"] = b"result"
        storage.links["/~/.gw_me_1/out"] = link

    texts, _ = outcomes("copy", Copy(f"{JOB}/out", f"{tmp_path}/a"), prepare=prepare)
    assert texts == [""]


def test_no_folder_of_a_job_is_entered_through_a_link(tmp_path: Path) -> None:
    def prepare(storage: Memory) -> None:
        storage.files["host", "/~/.gw_me_1/d/f"] = b""
        storage.links["/~/.gw_me_1/d"] = "/etc"

    what = f"cannot enter {JOB}/d: it is a symbolic link, and may lead anywhere"
    for item in (Copy(f"{JOB}/d/f", f"{tmp_path}/a"), Copy("/dev/null", f"{JOB}/d/f")):
        assert outcomes("copy", item, prepare=prepare)[0] == [what]
    for operation in ("mkdir", "rmdir"):
        assert outcomes(operation, f"{JOB}/d/e/", prepare=prepare)[0] == [what]


# --- directories ------------------------------------------------------------------------


def test_directories() -> None:
    texts, storage = outcomes("mkdir", "remote://host/~/.gw_me_7/", f"{JOB}/a")
    assert texts == ["", ""]
    assert ("host", "/~/.gw_me_7/") in storage.files
    texts, storage = outcomes("rmdir", f"{JOB}/", f"{JOB}/none/deeper")
    assert texts == ["", ""]
    assert not storage.files
    texts, _ = outcomes("exists", JOB, f"{JOB}/none")
    assert texts == ["", f"cannot find {JOB}/none: No such file or directory"]


@pytest.mark.parametrize(
    "url", ["mem://host/~/", "mem://host/~", "mem://host/", "mem://host/~/data", "mem://host/x/.gw"]
)
def test_what_is_no_job_directory_is_not_removed(url: str) -> None:
    texts, storage = outcomes("rmdir", url)
    assert "is no job directory" in texts[0]
    assert storage.files


@pytest.mark.parametrize(
    "url", ["mem://host/~/", "mem://host/", "mem://host//", "mem://host/~/a/.."]
)
def test_not_even_where_others_may_be(url: str) -> None:
    texts, storage = outcomes("rmdir", url, arguments=("--rmdir-anywhere",))
    assert "it is '/', the home directory, or has '..'" in texts[0]
    assert storage.files


def test_directories_are_tried_again() -> None:
    def prepare(storage: Memory) -> None:
        storage.troubles["make_directories"] = [TransientError("busy")]
        storage.troubles["remove_tree"] = [TransientError("busy")]

    assert outcomes("mkdir", f"{JOB}/a", prepare=prepare)[0] == [""]
    assert outcomes("rmdir", f"{JOB}/a", prepare=prepare)[0] == [""]


# --- many -------------------------------------------------------------------------------


def test_limits_and_reuse(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 50)
    items = [Copy(f"{tmp_path}/a", f"mem://host{n % 3}/f{n}", job=str(n % 5)) for n in range(100)]
    texts, storage = outcomes("copy", *items, arguments=("--streams", "4", "--per-endpoint", "2"))
    assert texts == [""] * 100
    assert 2 <= storage.most <= 4
    assert all(count <= 2 for count in storage.connected.values())
    assert len(names(storage)) == 100


def test_a_bad_one_among_many(tmp_path: Path) -> None:
    items = [Copy("/dev/null" if n != 7 else "/no/such", f"{JOB}/f{n}") for n in range(20)]
    texts, _ = outcomes("copy", *items)
    assert [number for number, text in enumerate(texts) if text] == [7]


def test_sessions_that_nobody_uses_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        kept = sessions.Sessions(idle_time=0.05)
        storage = Memory(argparse.Namespace())
        url = Url("mem", "host", "/x")
        async with kept.session(storage, url) as first:
            pass
        async with kept.session(storage, url) as again:
            assert again is first
        async with asyncio.timeout(20):
            while storage.open_sessions:
                await asyncio.sleep(0.01)
        async with kept.session(storage, url) as other:
            assert other is not first
        await kept.close()
        assert not storage.open_sessions

    asyncio.run(run())


def test_one_session_is_connected_at_a_time() -> None:
    """Who waits gets one that became free, if that is sooner."""

    class Slow(Memory):
        connecting = 0

        async def connect(self, url: Url) -> MemorySession:
            self.connecting += 1
            assert self.connecting == 1
            await asyncio.sleep(0.02)
            self.connecting -= 1
            return await super().connect(url)

    async def run() -> None:
        kept = sessions.Sessions()
        storage = Slow(argparse.Namespace())
        url = Url("mem", "host", "/x")

        async def use() -> None:
            async with kept.session(storage, url):
                await asyncio.sleep(0)

        await asyncio.gather(*(use() for _ in range(50)))
        assert storage.connected["host"] < 25
        await kept.close()

    asyncio.run(run())


def test_those_who_wait_for_a_dead_server_learn_it_together() -> None:
    async def run() -> None:
        kept = sessions.Sessions()
        storage = Memory(argparse.Namespace())
        storage.troubles["connect"] = [TransientError("down")]

        async def use() -> None:
            async with kept.session(storage, Url("mem", "host", "/x")):
                pass

        results = await asyncio.gather(*(use() for _ in range(10)), return_exceptions=True)
        assert sum(isinstance(result, TransientError) for result in results) >= 1
        assert not storage.troubles["connect"]
        await kept.close()

    asyncio.run(run())


# --- what is told -----------------------------------------------------------------------


def test_the_final_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gridmad")
    (tmp_path / "a").write_bytes(b"x" * 50)
    outcomes("copy", Copy(f"{tmp_path}/a", f"{JOB}/a"))
    (line,) = (r.getMessage() for r in caplog.records if " -> " in r.getMessage())
    assert line.startswith(f"{tmp_path}/a -> {JOB}/a: 50 bytes in ")
    assert line.endswith(" MiB/s")


def test_progress_of_a_long_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "REPORT_INTERVAL", 0.01)
    caplog.set_level(logging.INFO, "gridmad")

    def prepare(storage: Memory) -> None:
        storage.files["a", "/x"] = b"x" * 50
        storage.delay = 0.02

    outcomes("copy", Copy("mem://a/x", "mem://b/x"), prepare=prepare)
    told = [r.getMessage() for r in caplog.records]
    assert any(
        line.startswith("mem://a/x -> mem://b/x: ") and "of 50 bytes" in line for line in told
    )


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
def test_checksums_of_local_files(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content + b"more")
    with (tmp_path / "a").open("rb") as file:
        adler = copying.checksum(file.fileno(), "adler32", size)
        assert int(adler, 16) == zlib.adler32(content)
        assert copying.checksum(file.fileno(), "md5", size) == hashlib.md5(content).hexdigest()


def test_stop_ends_what_is_under_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 50)

    async def run() -> None:
        driver = make_driver()
        Memory.last.delay = 60.0
        task = asyncio.ensure_future(
            ask(driver, "copy", *(Copy(f"{tmp_path}/a", f"mem://host/{n}") for n in range(100)))
        )
        async with asyncio.timeout(20):
            while not Memory.last.now:
                await asyncio.sleep(0.001)
            before = time.monotonic()
            await driver.stop()
            assert time.monotonic() - before < 5
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert not Memory.last.open_sessions

    asyncio.run(run())
