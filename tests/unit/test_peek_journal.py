"""The journal beside a client's file: what it survives, and what it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmad.peek.errors import JournalError
from gridmad.peek.journal import GAPS, MAX_GAPS, SLOTS, Journal, Position, Record

CLIENT = "0123456789abcdef" * 2


def record(committed: int = 0, **members: object) -> Record:
    position = Position(committed, 0, 0, committed, 0)
    return Record("stream", CLIENT, 0, positions={1: position}, **members)  # type: ignore[arg-type]


numbers = st.integers(0, 2**40)


@st.composite
def positions(draw: st.DrawFn) -> Position:
    origin, base, written, missing = (draw(numbers) for _ in range(4))
    return Position(origin + written + missing, origin, base, base + written, missing)


@settings(deadline=None)
@given(
    stream=st.from_regex(r"\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}\Z"),
    epoch=st.none() | st.integers(0, 2**32 - 1),
    exit_code=st.none() | st.integers(0, 255),
    sources=st.dictionaries(st.sampled_from((1, 2)), positions(), min_size=1),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    stream: str,
    epoch: int | None,
    exit_code: int | None,
    sources: dict[int, Position],
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    written = Record(stream, CLIENT, epoch, exit_code, sources)
    with Journal(path) as journal:
        assert journal.record is None
        journal.write(written)
    with Journal(path) as journal:
        assert journal.record == written


def test_a_new_journal_is_private(tmp_path: Path) -> None:
    with Journal(tmp_path / "j"):
        assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600


def test_the_last_of_many_records_counts(tmp_path: Path) -> None:
    path = tmp_path / "j"
    for first in (0, 10, 20):
        with Journal(path) as journal:
            assert journal.record == (record(first - 1) if first else None)
            for number in range(first, first + 10):
                journal.write(record(number))
    assert path.stat().st_size < GAPS


@pytest.mark.parametrize("torn", range(0, 280, 7))
def test_a_torn_record_leaves_the_one_before(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        for number in range(5):
            journal.write(record(number))
        before = path.read_bytes()
        journal.write(record(99999))
    after = path.read_bytes()
    slot = SLOTS[1]
    assert before[slot:] != after[slot:]
    path.write_bytes(after[: slot + torn] + before[slot + torn :])
    with Journal(path) as journal:
        assert journal.record in (record(4), record(99999))


@pytest.mark.parametrize("damage", [b"", b"\0" * 4096])
def test_a_journal_without_a_first_record_is_new(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "j"
    path.write_bytes(damage)
    with Journal(path) as journal:
        assert journal.record is None


@pytest.mark.parametrize("content", [b"hello", os.urandom(10_000), b"\0" * 100_000])
def test_what_is_no_journal_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "j"
    path.write_bytes(content)
    with pytest.raises(JournalError, match=r"is no journal .*: move it"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_journal_with_both_records_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.write(record(1))
        journal.write(record(2))
    content = bytearray(path.read_bytes())
    for slot in SLOTS:
        content[slot + 50] ^= 1
    path.write_bytes(content)
    with pytest.raises(JournalError, match="damaged"):
        Journal(path)


def test_numbers_that_contradict_one_another_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.write(Record("s", CLIENT, 0, positions={1: Position(10, 0, 0, 11, 0)}))
    with pytest.raises(JournalError, match="damaged"):
        Journal(path)


def test_only_one_process_has_it(tmp_path: Path) -> None:
    path = tmp_path / "out.msgpeek"
    code = "import sys; from gridmad.peek.journal import *; Journal(Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(path)]
    with Journal(path):
        other = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert "another msgpeek is writing" in other.stderr
    subprocess.run(command, check=True, timeout=60)


def test_gaps_are_listed_up_to_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.note("first")
        journal.write(record(1))
        journal.note("lost with the process")
    with Journal(path) as journal:
        assert journal.gaps() == ["first"]
        for number in range(MAX_GAPS):
            journal.note(f"line {number}")
            if number % 1000 == 0:
                journal.write(record(1))
        journal.write(record(2))
    with Journal(path) as journal:
        assert journal.record == record(2)
        assert journal.gaps()[:3] == ["first", "line 0", "line 1"]
    assert path.stat().st_size <= GAPS + MAX_GAPS


def test_a_link_or_a_fifo_is_no_journal(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "link").symlink_to(victim)
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "none/there"):
        with pytest.raises(JournalError):
            Journal(tmp_path / name)
    assert victim.read_bytes() == b"precious"
