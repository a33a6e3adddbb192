"""Following files: real ones, written, renamed and cut in every order."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmad.peek.follow import FollowedFile, Follower


class Sink:
    """Keeps what comes; a loss is shown as so many question marks."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.flushed = 0
        self.finished = threading.Event()
        self.arrivals: list[tuple[float, int]] = []

    @property
    def is_empty(self) -> bool:
        return self.flushed == len(self.text)

    @property
    def room(self) -> int:
        return 1000

    def take(self, data: bytes) -> None:
        self.text += data

    def miss(self, length: int) -> None:
        self.text += b"?" * length

    def flush(self) -> None:
        self.flushed = len(self.text)
        self.arrivals.append((time.monotonic(), self.flushed))

    def finish(self) -> None:
        self.flush()
        self.finished.set()


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "output"


def drain(file: FollowedFile) -> None:
    while file.read() or file.check_name():
        pass


def add(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_a_file_appears_later_and_grows(path: Path, sink: Sink) -> None:
    file = FollowedFile(path, sink)
    drain(file)
    add(path, b"one ")
    drain(file)
    add(path, b"two " * 1000)
    drain(file)
    assert sink.text == b"one " + b"two " * 1000
    file.close()


def test_a_renamed_file_is_read_to_its_end_first(path: Path, sink: Sink) -> None:
    file = FollowedFile(path, sink)
    add(path, b"one ")
    drain(file)
    path.rename(path.with_suffix(".1"))
    add(path.with_suffix(".1"), b"two ")
    drain(file)
    path.touch()
    drain(file)
    add(path.with_suffix(".1"), b"three ")  # its writer has not noticed yet
    drain(file)
    add(path, b"four ")
    add(path.with_suffix(".1"), b"and a half ")
    drain(file)
    assert sink.text == b"one two three and a half four "
    file.close()


def test_what_was_written_just_before_a_rename_is_read(path: Path, sink: Sink) -> None:
    file = FollowedFile(path, sink)
    add(path, b"one ")
    drain(file)
    add(path, b"two ")
    path.rename(path.with_suffix(".1"))
    add(path, b"three")
    assert file.check_name()
    drain(file)
    assert sink.text == b"one two three"
    file.close()


def test_a_file_that_was_removed_is_read_to_its_end(path: Path, sink: Sink) -> None:
    file = FollowedFile(path, sink)
    with path.open("wb", buffering=0) as writer:
        writer.write(b"one ")
        drain(file)
        path.unlink()
        writer.write(b"two ")
        drain(file)
    add(path, b"three")
    drain(file)
    assert sink.text == b"one two three"
    file.close()


def test_what_was_cut_before_it_was_read_is_missing(path: Path, sink: Sink) -> None:
    file = FollowedFile(path, sink)
    add(path, b"x" * 5000)
    assert file.read()
    assert file.read()
    path.write_bytes(b"new")
    drain(file)
    assert sink.text == b"x" * 2000 + b"?" * 3000 + b"new"
    file.close()


def test_a_file_that_was_read_and_then_cut_misses_nothing(path: Path, sink: Sink) -> None:
    file = FollowedFile(path, sink)
    add(path, b"x" * 5000)
    drain(file)
    os.truncate(path, 0)
    drain(file)
    add(path, b"new")
    drain(file)
    assert sink.text == b"x" * 5000 + b"new"
    file.close()


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop"])
def test_what_is_no_file_is_told_once(
    kind: str, path: Path, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.name)
    file = FollowedFile(path, sink)
    for _ in range(3):
        drain(file)
    assert len(caplog.records) == 1
    assert str(path) in caplog.text
    (path.rmdir if kind == "folder" else path.unlink)()
    add(path, b"now")
    drain(file)
    assert sink.text == b"now"
    file.close()


@given(st.lists(st.sampled_from(["write", "rename", "cut", "read"]), max_size=25))
@settings(deadline=None)
def test_any_order_of_events(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    """A writer that opens the file anew each time; nothing that was seen is lost."""
    folder = tmp_path_factory.mktemp("follow")
    path = folder / "output"
    sink = Sink()
    file = FollowedFile(path, sink)
    expected = b""
    for number, step in enumerate(steps):
        match step:
            case "write":
                add(path, b"%d " % number)
                expected += b"%d " % number
            case "rename" if path.exists():
                drain(file)
                path.rename(folder / str(number))
            case "cut" if path.exists():
                drain(file)
                os.truncate(path, 0)
                drain(file)
            case "read":
                drain(file)
    drain(file)
    assert sink.text == expected
    file.close()


@pytest.fixture
def followed(path: Path, sink: Sink) -> Iterator[Callable[[], Follower]]:
    started: list[Follower] = []

    def start() -> Follower:
        follower = Follower(path, sink)
        follower.start()
        started.append(follower)
        return follower

    yield start
    for follower in started:
        follower.end()
        follower.join(10)


def test_the_end_is_read_before_the_end(
    path: Path, sink: Sink, followed: Callable[[], Follower]
) -> None:
    for _ in range(20):
        sink.text.clear()
        sink.finished.clear()
        path.unlink(missing_ok=True)
        add(path, b"w")
        follower = followed()
        while not sink.text:
            time.sleep(0.001)
        add(path, b"x" * 50_000)
        path.rename(path.with_suffix(".1"))
        add(path, b"y")
        follower.end()
        assert sink.finished.wait(10)
        assert sink.text == b"w" + b"x" * 50_000 + b"y"


def test_a_quiet_file_is_looked_at_often_and_cheaply(
    path: Path, sink: Sink, followed: Callable[[], Follower]
) -> None:
    path.touch()
    follower = followed()
    delays = []
    used = time.process_time()
    began = time.monotonic()
    for _ in range(20):
        time.sleep(0.11)
        before, size = time.monotonic(), len(sink.text)
        add(path, b"a line\n")
        while not any(length > size for _, length in sink.arrivals):
            assert time.monotonic() < before + 10
            time.sleep(0.002)
        delays.append(next(at for at, length in sink.arrivals if length > size) - before)
    used = (time.process_time() - used) / (time.monotonic() - began)
    # Of a chain that has 0.15 s, with this test's own waiting for the processor.
    assert sorted(delays)[10] < 0.1
    assert used < 0.3, "of a processor, this test's own looking included"
    assert follower.is_alive()
