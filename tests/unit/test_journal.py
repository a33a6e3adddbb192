"""The journal: what survives a driver, and what drivers do to each other."""

import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridmad.errors import DriverError
from gridmad.execution.journal import FILE_NAME, Intent, Journal, Started, Unended
from gridmad.execution.model import JobState
from gridmad.execution.processes import ProcessIdentity


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "fork"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    journal = Journal(folder)
    yield journal
    journal.close()


def rows(folder: Path, columns: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(folder / FILE_NAME)
    try:
        return connection.execute(f"SELECT {columns} FROM jobs ORDER BY tag").fetchall()
    finally:
        connection.close()


def as_another_driver(folder: Path, work: str) -> None:
    """Work on the journal in a process of its own, which then dies without a word."""
    script = f"""
        import os, signal, sys
        from pathlib import Path
        from gridmad.execution.journal import Intent, Journal, Started
        from gridmad.execution.model import JobState
        journal = Journal(Path(sys.argv[1]))
        {work}
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), folder], check=False)
    assert done.returncode == -9


def test_only_the_user_may_see_it(folder: Path, journal: Journal) -> None:
    journal.intend([Intent("a", "1")])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = sorted(folder.iterdir())
    assert [path.name for path in files] == [FILE_NAME, FILE_NAME + "-shm", FILE_NAME + "-wal"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_jobs_life(folder: Path, journal: Journal) -> None:
    journal.intend([Intent("a", "1"), Intent("b", "1"), Intent("c", "2")])
    journal.record([Started("a", "x://a"), Started("b", "x://b")], failed=["c"])
    assert rows(folder, "tag, job_id, contact, phase") == [
        ("a", "1", "x://a", None),
        ("b", "1", "x://b", None),
    ]
    journal.end([("a", JobState.done(7)), ("b", JobState.failed("lost"))])
    assert rows(folder, "phase, exit_code, reason") == [
        ("DONE", 7, ""),
        ("FAILED", None, "lost"),
    ]


def test_cancelling_is_remembered(journal: Journal) -> None:
    journal.intend([Intent("a", "1"), Intent("b", "2")])
    journal.cancel(["a"])
    assert journal.is_cancelled("a")
    assert not journal.is_cancelled("b")
    assert not journal.is_cancelled("unknown")


def test_what_a_dead_driver_left_is_claimed_once(folder: Path) -> None:
    as_another_driver(
        folder,
        "journal.intend([Intent('a', '1', 'here', 'f00'), Intent('b', '2'), Intent('c', '3')]);"
        "journal.intend([Intent('d', '4')]);"
        "journal.record([Started('b', 'x://b'), Started('c', 'x://c')], ['d']);"
        "journal.cancel(['b']); journal.end([('c', JobState.done(0))])",
    )
    journal = Journal(folder)
    left = sorted(journal.claim())
    owner = left[0].owner
    assert ProcessIdentity.parse(owner).is_here
    assert left == [
        Unended("a", "1", None, False, "here", "f00", owner),
        Unended("b", "2", "x://b", True, "", "", owner),
    ]
    assert journal.claim() == []
    journal.close()


def test_jobs_of_another_master_are_left_alone(folder: Path) -> None:
    """Their ids mean other jobs."""
    as_another_driver(folder, "journal.intend([Intent('a', '1')])")
    other = Journal(folder, "/another/gw")
    assert other.claim() == []
    other.close()
    journal = Journal(folder)
    assert [job.tag for job in journal.claim()] == ["a"]
    journal.close()


def test_jobs_of_a_driver_that_lives_are_left_alone(folder: Path) -> None:
    journal = Journal(folder)
    journal.intend([Intent("a", "1")])
    # This one dies; the other, this very process, goes on.
    as_another_driver(folder, "assert journal.claim() == []; journal.intend([Intent('b', '1')])")
    assert [job.tag for job in journal.claim()] == ["b"]
    journal.close()


@pytest.mark.parametrize(
    ("owner", "is_claimed"),
    [
        ("{host}/{boot}/{pid}/1", True),
        ("{host}/another-boot/{pid}/{start}", True),
        ("renamed.example/{boot}/{pid}/1", True),
        ("elsewhere.example/another-boot/{pid}/1", False),
        ("who knows", False),
    ],
)
def test_an_owner_is_told_by_its_start_and_boot(
    folder: Path, journal: Journal, owner: str, is_claimed: bool
) -> None:
    journal.intend([Intent("a", "1")])
    [(own,)] = rows(folder, "owner")
    host, boot, pid, start = str(own).split("/")
    assert int(pid) == os.getpid()
    connection = sqlite3.connect(folder / FILE_NAME)
    text = owner.format(host=host, boot=boot, pid=pid, start=start)
    with connection:
        connection.execute("UPDATE jobs SET owner = ?", (text,))
    connection.close()
    assert [job.tag for job in journal.claim()] == (["a"] if is_claimed else [])


def test_ended_jobs_expire(folder: Path, journal: Journal) -> None:
    journal.intend([Intent("a", "1"), Intent("b", "2"), Intent("c", "3")])
    journal.end([("a", JobState.done(0)), ("b", JobState.done(0))])
    connection = sqlite3.connect(folder / FILE_NAME)
    with connection:
        connection.execute("UPDATE jobs SET ended = ended - 1000 WHERE tag = 'a'")
        connection.execute("UPDATE jobs SET intended = intended - 1000")
    connection.close()
    journal.expire(500)
    assert rows(folder, "tag") == [("b",), ("c",)]


def test_a_batch_is_written_whole_or_not_at_all(folder: Path, journal: Journal) -> None:
    with pytest.raises(DriverError, match=r"journal\.sqlite3: UNIQUE constraint failed"):
        journal.intend([Intent("a", "1"), Intent("b", "2"), Intent("a", "3")])
    assert rows(folder, "tag") == []
    journal.intend([Intent("a", "1")])


@pytest.mark.parametrize("broken", [b"what is this\n" * 1000, b"SQLite format 3\0" + b"x" * 9000])
def test_a_broken_journal_is_set_aside(
    folder: Path, broken: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(parents=True)
    (folder / FILE_NAME).write_bytes(broken)
    journal = Journal(folder)
    journal.intend([Intent("a", "1")])
    journal.close()
    [aside] = folder.glob("*.broken-*")
    assert aside.read_bytes() == broken
    assert "a new one is begun" in caplog.text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("PRAGMA user_version = 99", "its format is 99"),
        ("PRAGMA user_version = 1", "its format is 1"),
        ("PRAGMA user_version = 0", "its format is 0"),
        ("ALTER TABLE jobs DROP COLUMN reason", "it lacks the columns reason"),
    ],
)
def test_another_format_is_set_aside(
    folder: Path, caplog: pytest.LogCaptureFixture, change: str, reason: str
) -> None:
    before = Journal(folder)
    before.intend([Intent("a", "1")])
    before.close()
    connection = sqlite3.connect(folder / FILE_NAME)
    connection.execute(change)
    connection.close()
    journal = Journal(folder)
    journal.intend([Intent("b", "2")])
    assert rows(folder, "tag") == [("b",)]
    journal.close()
    assert reason in caplog.text
    [aside] = folder.glob("*.broken-*")
    connection = sqlite3.connect(aside)
    assert connection.execute("SELECT tag FROM jobs").fetchall() == [("a",)]
    connection.close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DriverError, match=r"cannot be made: .*/file/state: Not a directory"):
        Journal(tmp_path / "file" / "state")


def test_drivers_wait_for_each_other(folder: Path) -> None:
    """Many drivers at once: no batch is lost, and none sees a locked file."""
    errors: list[BaseException] = []

    def drive(number: int) -> None:
        try:
            journal = Journal(folder)
            for batch in range(20):
                tags = [f"{number}-{batch}-{index}" for index in range(10)]
                journal.intend(Intent(tag, "1") for tag in tags)
                journal.record([Started(tag, f"x://{tag}") for tag in tags])
                journal.claim()
            journal.close()
        except BaseException as error:  # noqa: BLE001 - a thread's end must be seen
            errors.append(error)

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(rows(folder, "tag")) == 8 * 20 * 10
