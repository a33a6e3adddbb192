"""The spool against a plain list of frames, in memory and on a real disk."""

import errno
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmad.peek.frame import MAX_RAW, Codec, FrameType
from gridmad.peek.log import entry
from gridmad.peek.messages import Gap
from gridmad.peek.segments import NamelessFiles, Segment
from gridmad.peek.spool import BLOCK, Spool

CODEC = Codec("spool-test")


class Writer:
    """Appends to a spool, and remembers what it did."""

    def __init__(self, spool: Spool, codec: Codec = CODEC) -> None:
        self.spool = spool
        self.codec = codec
        self.frames: list[bytes] = []
        self.ends = {1: 0, 2: 0}
        self.text = {1: b"", 2: b""}

    def write(self, source: int, data: bytes, at: int = 0) -> bytes:
        frame = self.codec.chunk(source, 1, len(self.frames), self.ends[source], at, data)
        self.text[source] += data
        return self._append(source, len(data), at, frame)

    def gap(self, source: int, length: int) -> None:
        frame = self.codec.frame(
            FrameType.GAP, Gap(length, "truncated").encode(), epoch=1, sequence=len(self.frames),
            time=0, source=source, offset=self.ends[source],
        )  # fmt: skip
        self._append(source, length, 0, frame)

    def _append(self, source: int, length: int, at: int, frame: bytes) -> bytes:
        self.ends[source] += length
        self.frames.append(frame)
        self.spool.append(source, self.ends[source], at, frame)
        return frame


def content(spool: Spool) -> list[bytes]:
    """All frames that are there."""
    frames: list[bytes] = []
    number = spool.first
    while number < spool.end:
        first, block = spool.frames(number)
        assert first <= number < first + len(block)
        frames += block[number - first :]
        number = first + len(block)
    return frames


def noise(size: int) -> bytes:
    return os.urandom(size)


@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2]), st.integers(1, 70_000), st.booleans()), max_size=60
    ),
    st.sampled_from([0, 200_000, 1 << 20, 1 << 30]),
)
@settings(max_examples=60, deadline=None)
def test_what_is_there_is_an_unbroken_end_of_what_was_written(
    steps: list[tuple[int, int, bool]], size: int
) -> None:
    spool = Spool(None, size, memory=300_000)
    writer = Writer(spool)
    for source, length, is_committed in steps:
        writer.write(source, noise(min(length, 65_536)))
        if is_committed:
            spool.commit(source, writer.ends[source] * 3 // 4)
        there = content(spool)
        assert there == writer.frames[len(writer.frames) - len(there) :]
        assert spool.first == spool.end - len(there)
        for kind in (1, 2):
            assert spool.offset(kind) == writer.ends[kind]
            entries = [item for item in map(entry, there) if item.source == kind]
            oldest = entries[0].offset if entries else writer.ends[kind]
            assert spool.oldest(kind) == oldest
        if size == 1 << 30:
            for item in map(entry, writer.frames[: spool.first]):
                assert item.end <= spool.committed(item.source), "dropped, and not committed"
        assert sum(map(len, there)) <= size + 300_000 + BLOCK + 70_000


def test_a_client_that_keeps_up_leaves_the_disk_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "none", 1 << 30)
    writer = Writer(spool)
    for _ in range(300):
        writer.write(1, noise(65_536))
        spool.commit(1, writer.ends[1])
    assert 7 << 20 < sum(map(len, content(spool))) < 9 << 20, "what is recent stays"


def test_nothing_has_a_name(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 30, memory=BLOCK)
    writer = Writer(spool)
    for _ in range(20):
        writer.write(1, noise(65_536))
    assert content(spool) == writer.frames
    assert list(tmp_path.iterdir()) == []
    held = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
            if os.path.islink(f"/proc/self/fd/{name}")]  # fmt: skip
    assert any(link.startswith(str(tmp_path)) for link in held)
    del spool, writer
    held = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
            if os.path.islink(f"/proc/self/fd/{name}")]  # fmt: skip
    assert not any(link.startswith(str(tmp_path)) for link in held)


def test_nothing_has_a_name_where_the_file_system_cannot_do_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: str, flags: int, *arguments: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no O_TMPFILE")
        return real(path, flags, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    segment = Segment(NamelessFiles(tmp_path), 1)
    segment.append((7,), b"data")
    assert segment.read(0) == b"data"
    assert list(tmp_path.iterdir()) == []
    assert os.fstat(segment._descriptor).st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "missing", 1 << 30, memory=2 * BLOCK)
    writer = Writer(spool)
    for _ in range(30):
        writer.write(1, noise(65_536))
    assert spool.oldest(1) > 0
    assert sum("cannot grow" in record.message for record in caplog.records) == 1
    assert sum("is full" in record.message for record in caplog.records) == 1


def test_no_place_for_temporary_files_is_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    spool = Spool(None, 1 << 30, memory=1 << 20)
    codec = Codec("spool")
    for number in range(40):
        frame = codec.chunk(1, 0, number, number * MAX_RAW, 0, os.urandom(MAX_RAW))
        spool.append(1, (number + 1) * MAX_RAW, 0, frame)
    assert 0 < spool.first < spool.end == 40


def test_a_full_disk_is_a_bound(tmp_path: Path) -> None:
    """With a limit on a file's size, since that needs no file system of its own."""
    code = f"""
import os, resource, signal
from pathlib import Path
from gridmad.peek.frame import Codec
from gridmad.peek.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
spool = Spool(Path({str(tmp_path)!r}), 1 << 30, memory=300_000)
codec = Codec("x")
for number in range(60):
    spool.append(1, (number + 1) * 65536, 0,
                 codec.chunk(1, 1, number, number * 65536, 0, os.urandom(65536)))
number, seen = spool.first, []
while number < spool.end:
    first, frames = spool.frames(number)
    for frame in frames[number - first:]:
        seen += [frame.sequence for frame in codec.decode(frame)]
    number = first + len(frames)
assert seen == list(range(spool.first, 60)), seen
assert codec.damaged == 0
assert len(seen) >= 4
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_where_to_begin(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 30, memory=BLOCK)
    writer = Writer(spool)
    for number in range(400):
        writer.write(1, b"%06d " % number + noise(4000), at=1000 + number)
        if number % 100 == 0:
            writer.write(2, b"error\n", at=1000 + number)
    for offset in (0, 1, 4006, 4007, 400_000, writer.ends[1] - 1):
        number = spool.locate(1, offset)
        items = [entry(frame) for frame in writer.frames[:number]]
        assert all(item.end <= offset for item in items if item.source == 1)
        assert number + 100 > offset // 4007, "not from the beginning"
    assert spool.since(1, 0) == 0
    assert spool.since(1, 1000) == 0
    assert spool.since(1, 1001) == 4007
    assert spool.since(1, 1200) == 200 * 4007
    assert spool.since(2, 1001) == 6
    assert spool.since(2, 1301) == 24, "nothing that late: the end"
    assert spool.since(1, 5000) == writer.ends[1]


def last_lines(text: bytes, count: int) -> int:
    """What tail(1) prints, as its offset."""
    if not count:
        return len(text)
    lines = text.splitlines(keepends=True)
    return len(text) - sum(map(len, lines[-count:]))


@given(
    st.lists(st.binary(min_size=1, max_size=8).map(lambda b: b.replace(b"\r", b"\n")), max_size=30),
    st.integers(0, 12),
    st.booleans(),
)
def test_the_last_lines(pieces: list[bytes], count: int, has_gap: bool) -> None:
    translate = bytes.maketrans(
        bytes(range(256)), bytes(b"a\n"[number % 2] for number in range(256))
    )
    spool = Spool()
    writer = Writer(spool)
    for piece in pieces:
        writer.write(1, piece.translate(translate))
        writer.write(2, b"\n\n")
    assert spool.tail(1, count, CODEC.decode) == last_lines(writer.text[1], count)
    assert spool.tail(2, count, CODEC.decode) == max(0, len(writer.text[2]) - count)
    if has_gap:
        writer.gap(1, 1000)
        assert spool.offset(1) == len(writer.text[1]) + 1000


def test_the_last_lines_of_much(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 30, memory=BLOCK)
    writer = Writer(spool, Codec("x", b"k" * 16))
    for number in range(100):
        writer.write(1, b"".join(b"line %d of %d\n" % (line, number) for line in range(3000)))
    assert spool.tail(1, 10, writer.codec.decode) == last_lines(writer.text[1], 10)
    assert spool.tail(1, 150_000, writer.codec.decode) == last_lines(writer.text[1], 150_000)
    assert spool.tail(1, 300_001, writer.codec.decode) == 0
    assert spool.tail(1, 2**63 - 1, writer.codec.decode) == 0


def test_the_newest_part() -> None:
    spool = Spool(None, 1 << 30)
    writer = Writer(spool)
    for _ in range(50):
        writer.write(1, noise(50_000))
        writer.write(2, noise(500))
    for size in (0, 10, 600, 51_000, 1_000_000, 1 << 30):
        number = spool.suffix(size)
        assert sum(map(len, writer.frames[number:])) <= size
        assert number == 0 or sum(map(len, writer.frames[number - 1 :])) > size
    spool.commit(2, writer.ends[2])
    stdout = sum(map(len, writer.frames[-20::2]))
    assert spool.suffix(stdout) == len(writer.frames) - 21, "committed frames do not count"


def test_an_append_that_waits_goes_on_with_a_commit() -> None:
    spool = Spool(None, 0, is_blocking=True, memory=4 * BLOCK)
    writer = Writer(spool)
    progress = threading.Event()

    def write() -> None:
        for _ in range(64):
            writer.write(1, noise(65_536))
            progress.set()

    thread = threading.Thread(target=write)
    thread.start()
    committed = 0
    while committed < 64 * 65_536:
        progress.wait(10)
        progress.clear()
        assert spool.oldest(1) <= committed, "nothing that is needed was dropped"
        assert spool.offset(1) - committed <= 4 * BLOCK + 65_536 * 3
        committed = spool.offset(1)
        spool.commit(1, committed)
    thread.join(10)
    assert not thread.is_alive()


def test_an_append_that_waits_is_released() -> None:
    spool = Spool(None, 0, is_blocking=True, memory=4 * BLOCK)
    writer = Writer(spool)
    thread = threading.Thread(target=lambda: [writer.write(1, noise(65_536)) for _ in range(64)])
    thread.start()
    seen = -1
    while seen != spool.end:  # until it stands still
        seen = spool.end
        time.sleep(0.1)
    assert seen < 64
    spool.release()
    thread.join(10)
    assert spool.end == 64
    assert spool.oldest(1) > 0


@pytest.mark.parametrize(("count", "size"), [(300_000, 8), (16_000, 65_536)])
def test_a_stalled_client_costs_little_memory(tmp_path: Path, count: int, size: int) -> None:
    """A million tiny frames, or a gigabyte that does not shrink, on disk."""
    code = f"""
import itertools, resource
from pathlib import Path
from gridmad.peek.frame import Codec
from gridmad.peek.spool import Spool
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
codec = Codec("x")
spool = Spool(Path({str(tmp_path)!r}), 1 << 31)
data = open("/dev/urandom", "rb").read({size})
before = resident()
for number in range({count}):
    end = (number + 1) * {size}
    spool.append(1, end, number, codec.chunk(1, 1, number, end - {size}, number, data))
    if number == {count} // 4:
        early = resident()
assert spool.first == 0
print(resident() - before, resident() - early)
"""
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=100, capture_output=True, text=True
    ).stdout
    total, growth = map(int, output.split())
    assert total < 20 << 20
    assert growth < 3 << 20


def test_blocks_of_a_segment(tmp_path: Path) -> None:
    segment = Segment(NamelessFiles(tmp_path), 2)
    for number in range(5):
        segment.append((number, 10 * number), b"block %d" % number)
    assert [segment.read(index) for index in (4, 0, 2)] == [b"block 4", b"block 0", b"block 2"]
    assert [segment.find(1, value) for value in (-1, 0, 9, 10, 39, 40, 100)] == [
        0,
        0,
        0,
        1,
        3,
        4,
        4,
    ]
    assert segment.key(3) == (3, 30)
    assert len(segment) == 5


def test_a_file_is_written_again_when_nobody_reads_it(tmp_path: Path) -> None:
    files = NamelessFiles(tmp_path)
    first = Segment(files, 1)
    first.append((1,), b"old and long")
    reader, descriptor = first, first._descriptor
    del first
    second = Segment(files, 1)
    assert second._descriptor != descriptor
    assert reader.read(0) == b"old and long"
    del reader
    third = Segment(files, 1)
    assert third._descriptor == descriptor
    third.append((2,), b"new")
    assert third.read(0) == b"new"
    assert (len(third), third.size) == (1, 3)
