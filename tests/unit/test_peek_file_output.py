"""Files that a client writes: exactly once over any number of deaths, and clear refusals."""

import contextlib
import hashlib
import os
import random
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmad.errors import UsageError
from gridmad.peek.errors import JournalError
from gridmad.peek.file_output import GATHER, FileSink

CLIENT, OTHER = "c" * 32, "d" * 32
BOTH = {1, 2}


@contextlib.contextmanager
def opened(path: Path, sources: set[int] = BOTH, stream: str = "s") -> Iterator[FileSink]:
    sink = FileSink(path, stream, sources, CLIENT)
    try:
        yield sink
    finally:
        sink.close()


def begun(path: Path, sources: set[int] = BOTH) -> FileSink:
    sink = FileSink(path, "s", sources, CLIENT)
    for source in sources:
        sink.place(0, source, 0)
    return sink


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_both_sources_have_a_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    sink = begun(path)
    sink.write(1, 0, 0, b"abc")
    sink.write(2, 0, 0, b"x")
    sink.write(1, 3, 0, b"def")
    assert path.read_bytes() == b""
    sink.flush()
    assert path.read_bytes() == b"abcdef"
    assert (tmp_path / "out.err").read_bytes() == b"x"
    assert sink.digest(1) == sha(b"abcdef")
    assert sink.digest(2) == sha(b"x")
    for name in ("out", "out.err", "out.msgpeek"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    sink.close()


@pytest.mark.parametrize("source", [1, 2])
def test_one_source_has_the_file_itself(tmp_path: Path, source: int) -> None:
    sink = begun(tmp_path / "out", {source})
    sink.write(source, 0, 0, b"abc")
    sink.commit()
    sink.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "out.msgpeek"]
    assert (tmp_path / "out").read_bytes() == b"abc"


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32))
def test_each_byte_is_there_once_whenever_it_dies(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """A process that dies leaves its files as they are; the next goes on from the journal."""
    chance = random.Random(seed)
    path = tmp_path_factory.mktemp("files") / "out"
    data = {source: chance.randbytes(chance.randrange(5 * GATHER)) for source in (1, 2)}
    sink = begun(path)
    at = {1: 0, 2: 0}
    while at != {source: len(whole) for source, whole in data.items()}:
        action = chance.random()
        if action < 0.05:
            committed = sink.positions
            sink.close()
            sink = FileSink(path, "s", {1, 2}, OTHER)
            assert sink.client == CLIENT
            at = sink.positions
            assert all(at[source] <= committed[source] for source in at)
        elif action < 0.2:
            sink.commit()
        elif action < 0.3:
            sink.flush()
        else:
            source = chance.choice((1, 2))
            piece = data[source][at[source] :][: chance.randrange(100_000)]
            sink.write(source, at[source], 0, piece)
            at[source] += len(piece)
    for source, whole in data.items():
        assert sink.digest(source) == sha(whole)
    sink.finished(3)
    sink.close()
    assert path.read_bytes() == data[1]
    assert path.with_name("out.err").read_bytes() == data[2]
    with opened(path) as again:
        assert again.exit_code == 3


def test_what_was_not_committed_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "out"
    sink = begun(path)
    sink.write(1, 0, 0, b"abc")
    sink.commit()
    sink.write(1, 3, 0, b"def")
    sink.flush()
    sink.close()
    assert path.read_bytes() == b"abcdef"
    with opened(path) as again:
        assert again.is_resumed
        assert again.positions == {1: 3, 2: 0}
        assert again.epoch == 0
        assert path.read_bytes() == b"abc"
        assert again.digest(1) == sha(b"abc")


def test_a_gap_is_left_out_and_recorded(tmp_path: Path) -> None:
    path = tmp_path / "out"
    sink = begun(path)
    sink.write(1, 0, 0, b"abc")
    sink.gap(1, 3, 10, "spool")
    sink.write(1, 13, 0, b"xyz")
    sink.commit()
    assert sink.digest(1) is None
    sink.close()
    assert path.read_bytes() == b"abcxyz"
    assert b"epoch 0 stdout 3 +10 spool\n" in path.with_name("out.msgpeek").read_bytes()
    with opened(path) as again:
        assert again.positions[1] == 16
        assert again.missing == {1: 10, 2: 0}
        assert again.digest(1) is None


def test_a_late_beginning_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with opened(path) as sink:
        sink.place(7, 1, 100)
        sink.write(1, 100, 0, b"abc")
        sink.commit()
    with opened(path) as again:
        assert again.epoch == 7
        assert again.positions == {1: 103}
        assert again.origins == {1: 100}


def test_another_attempt_goes_on_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    sink = begun(path)
    sink.write(1, 0, 0, b"first\n")
    sink.attempt(1)
    sink.write(1, 0, 0, b"second\n")
    sink.commit()
    assert sink.digest(1) == sha(b"second\n")
    sink.write(1, 7, 0, b"cut")
    sink.flush()
    sink.close()
    with opened(path) as again:
        assert path.read_bytes() == b"first\nsecond\n"
        assert (again.epoch, again.positions[1]) == (1, 7)
        assert again.digest(1) == sha(b"second\n")


def test_a_file_is_hashed_again_while_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "out"
    data = random.Random(1).randbytes(30 * GATHER)
    sink = begun(path)
    sink.write(1, 0, 0, data[: 20 * GATHER])
    sink.commit()
    sink.close()
    with opened(path) as again:
        for at in range(20 * GATHER, 30 * GATHER, 50_000):
            again.write(1, at, 0, data[at : min(at + 50_000, 30 * GATHER)])
        assert again.digest(1) == sha(data)


# ---------------------------------------------------------------- refusals


def test_a_file_without_a_journal_is_left_alone(tmp_path: Path) -> None:
    for name in ("out", "out.err"):
        file = tmp_path / name
        file.write_bytes(b"precious")
        with pytest.raises(UsageError, match=f"{name} exists already"):
            begun(tmp_path / "out")
        assert file.read_bytes() == b"precious"
        assert not (tmp_path / "out.msgpeek").exists()
        file.unlink()
    (tmp_path / "out").touch()
    begun(tmp_path / "out").close()


def test_a_file_that_came_to_be_beside_a_journal_without_output_is_left_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "out"
    with opened(path):
        pass
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists already"):
        FileSink(path, "s", {1, 2}, CLIENT)
    assert path.read_bytes() == b"precious"


def test_a_file_of_another_stream_or_with_other_sources_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out"
    begun(path).close()
    with pytest.raises(UsageError, match="the output of s: name another file"):
        FileSink(path, "t", {1, 2}, CLIENT)
    with pytest.raises(UsageError, match="begun with stdout and stderr"):
        FileSink(path, "s", {1}, CLIENT)


def test_a_file_that_is_shorter_or_gone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out"
    sink = begun(path)
    sink.write(1, 0, 0, b"abcdef")
    sink.commit()
    sink.close()
    os.truncate(path, 5)
    with pytest.raises(JournalError, match="has 5 bytes where its journal says 6"):
        FileSink(path, "s", {1, 2}, CLIENT)
    path.unlink()
    with pytest.raises(JournalError, match="is gone"):
        FileSink(path, "s", {1, 2}, CLIENT)
    assert not path.exists()


@pytest.mark.parametrize("name", ["/dev/null", "{}", "{}/fifo", "{}/x.msgpeek", "/"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError):
        FileSink(Path(name.format(tmp_path)), "s", {1, 2}, CLIENT)
    assert [file.name for file in tmp_path.iterdir()] == ["fifo"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file or directory"):
        FileSink(tmp_path / "none" / "out", "s", {1, 2}, CLIENT)


def test_a_file_that_grows_too_large_keeps_what_was_committed(tmp_path: Path) -> None:
    """RLIMIT_FSIZE fails writes as a full disk does."""
    path = tmp_path / "out"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            sink = begun(path)
            sink.write(1, 0, 0, b"a" * 90_000)
            sink.commit()
            sink.write(1, 90_000, 0, b"b" * 90_000)
            try:
                sink.commit()
            except JournalError as error:
                code = 0 if "File too large" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with opened(path) as again:
        assert again.positions[1] == 90_000
        again.write(1, 90_000, 0, b"b" * 90_000)
        again.commit()
    assert path.read_bytes() == b"a" * 90_000 + b"b" * 90_000


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """The journal's file becomes one that has no room."""
    sink = begun(tmp_path / "out")
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, sink._journal._file)
    os.close(full)
    with pytest.raises(JournalError, match="No space left on device"):
        sink.commit()
    sink.close()
