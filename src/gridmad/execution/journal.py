"""The journal of jobs: what a driver must not forget when it dies.

A driver writes down that it is going to start a job (`intend`), starts it under a tag of
its own, and writes down what became of it (`record`) before it answers.  Killed between
the two it leaves an intent without a record; the next driver takes that over (`claim`),
finds by the tag whether the job was started, and ends it: gwd never heard of it and will
submit it again.

Many drivers of one user may share a journal.  Each row has its master, the gwd that gave
the job its id, and its owner, the driver's process; rows of another master, of a driver
that is alive, or of one that ran on another machine are left alone.

Every call is one transaction, and blocks: it belongs in a thread.  All calls of one
Journal must come from one thread at a time.

The file is an sqlite3 database in WAL mode, 0600 in a folder 0700.  It must lie on a local
file system.  A file that cannot be read, or has another format than ours, is set aside:
jobs are found without it.  sqlite3 is imported when a journal is opened.
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from gridmad.driver import describe
from gridmad.errors import DriverError
from gridmad.execution.model import JobState, Phase
from gridmad.execution.processes import ProcessIdentity

if TYPE_CHECKING:
    import sqlite3

log = logging.getLogger(__name__)

FILE_NAME: Final = "journal.sqlite3"
VERSION: Final = 3
LOCK_TIME: Final = 20.0
"""Seconds to wait for another driver's transaction."""

_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS jobs (
    tag TEXT PRIMARY KEY,
    job_id TEXT NOT NULL,
    master TEXT NOT NULL,
    owner TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    digest TEXT NOT NULL,
    contact TEXT UNIQUE,
    phase TEXT,
    exit_code INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    is_cancelled INTEGER NOT NULL DEFAULT 0,
    intended REAL NOT NULL,
    started REAL,
    ended REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS unended ON jobs (master, owner) WHERE ended IS NULL;
CREATE INDEX IF NOT EXISTS ended ON jobs (ended) WHERE ended IS NOT NULL;
PRAGMA user_version = {VERSION};
"""

_COLUMNS: Final = (
    "tag",
    "job_id",
    "master",
    "owner",
    "endpoint",
    "digest",
    "contact",
    "phase",
    "exit_code",
    "reason",
    "is_cancelled",
    "intended",
    "started",
    "ended",
)


class Intent(NamedTuple):
    """A job that is going to be started."""

    tag: str
    job_id: str
    endpoint: str = ""
    """Where, for a driver that knows several places."""
    digest: str = ""
    """Of what is submitted, to tell whether the same is submitted again."""


class Started(NamedTuple):
    """A job that was started."""

    tag: str
    contact: str


class Unended(NamedTuple):
    """A job of a driver that died, whose end is not written down."""

    tag: str
    job_id: str
    contact: str | None
    """None for an intent: nobody was told of this job."""
    is_cancelled: bool
    endpoint: str
    digest: str
    owner: str
    """The driver that died."""


class _FormatError(Exception):
    """The file is a database, but not one of ours."""


class Journal:
    """The journal in a folder, which is made where it is missing; `master` tells one gwd
    from another (its GW_LOCATION).

    Raises DriverError, as all methods do, when the disk does not do what it should.
    """

    def __init__(self, folder: Path, master: str = "") -> None:
        import sqlite3

        self._sqlite3 = sqlite3
        self._path = folder / FILE_NAME
        self._master = master
        self._owner = str(ProcessIdentity.of(os.getpid()))
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self._make_file()
            with self._errors():
                try:
                    self._connection = self._connect()
                except _FormatError as error:
                    self._set_aside(found, error)
                    self._connection = self._connect()
                except sqlite3.DatabaseError as error:
                    if not _is_broken(error):
                        raise
                    self._set_aside(found, error)
                    self._connection = self._connect()
        except OSError as error:
            raise DriverError(f"the journal cannot be made: {describe(error)}") from None
        except _FormatError as error:
            raise DriverError(f"the journal {self._path}: {error}") from None

    def _make_file(self) -> int:
        """Make the file where it is missing; its inode."""
        # sqlite3 gives the files beside this one the same mode.
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            return os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)

    def _connect(self) -> "sqlite3.Connection":
        connection = self._sqlite3.connect(
            self._path, timeout=LOCK_TIME, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            # Both as of one moment: another driver may just be making the table.
            connection.execute("BEGIN")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            columns = _columns(connection)
            connection.execute("COMMIT")
            if version == 0 and not columns:
                connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
            elif version != VERSION:
                raise _FormatError(f"its format is {version}, and this gridmad writes {VERSION}")
            elif not set(_COLUMNS) <= columns:
                missing = ", ".join(sorted(set(_COLUMNS) - columns))
                raise _FormatError(f"it lacks the columns {missing}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self, found: int, error: Exception) -> None:
        """Jobs can be found without their journal; one that we cannot read must not stop
        new jobs.
        """
        if self._path.stat().st_ino == found:  # else another driver has just done so
            aside = self._path.with_name(f"{FILE_NAME}.broken-{time.time_ns()}")
            log.error("the journal is unreadable (%s); a new one is begun, see %s", error, aside)
            self._path.rename(aside)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    self._path.with_name(FILE_NAME + suffix).rename(f"{aside}{suffix}")
        self._make_file()

    def close(self) -> None:
        """Close the file."""
        with self._errors():
            self._connection.close()

    def intend(self, jobs: Iterable[Intent]) -> None:
        """Write down what is going to be started.

        A job id may come again, for a job that replaces the one before: the tag tells them
        apart.
        """
        now = time.time()
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO jobs (tag, job_id, endpoint, digest, master, owner, intended)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(*job, self._master, self._owner, now) for job in jobs],
            )

    def record(self, started: Iterable[Started], failed: Iterable[str] = ()) -> None:
        """Write down what became of intents: the jobs that were started, and the tags of
        those that were not.
        """
        now = time.time()
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE jobs SET contact = ?, started = ? WHERE tag = ?",
                [(job.contact, now, job.tag) for job in started],
            )
            connection.executemany("DELETE FROM jobs WHERE tag = ?", [(tag,) for tag in failed])

    def end(self, jobs: Iterable[tuple[str, JobState]]) -> None:
        """Write down the final states of jobs, by their tags."""
        now = time.time()
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE jobs SET phase = ?, exit_code = ?, reason = ?, ended = ? WHERE tag = ?",
                [
                    (state.phase.value, state.exit_code, state.reason, now, tag)
                    for tag, state in jobs
                ],
            )

    def ends(self, tags: Iterable[str]) -> dict[str, JobState]:
        """The final states of jobs by their tags, where they are written down."""
        found: dict[str, JobState] = {}
        with self._errors():
            for tag in tags:
                row = self._connection.execute(
                    "SELECT phase, exit_code, reason FROM jobs WHERE tag = ? AND ended IS NOT NULL",
                    (tag,),
                ).fetchone()
                if row is not None:
                    phase, exit_code, reason = row
                    found[tag] = JobState(Phase(phase), exit_code, reason)
        return found

    def cancel(self, tags: Iterable[str]) -> None:
        """Write down that jobs are being ended, for a driver that has to go on with it."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE jobs SET is_cancelled = 1 WHERE tag = ?", [(tag,) for tag in tags]
            )

    def is_cancelled(self, tag: str) -> bool:
        """Whether a job was being ended."""
        with self._errors():
            found = self._connection.execute(
                "SELECT 1 FROM jobs WHERE tag = ? AND is_cancelled", (tag,)
            ).fetchone()
            return found is not None

    def claim(self) -> list[Unended]:
        """Take over the jobs of drivers that died on this machine, and are not written down
        as ended; the oldest first.
        """
        with self._transaction() as connection:
            unended = connection.execute(
                "SELECT tag, job_id, contact, is_cancelled, endpoint, digest, owner FROM jobs"
                " WHERE ended IS NULL AND master = ? ORDER BY intended",
                (self._master,),
            ).fetchall()
            dead = {owner for owner in {row[-1] for row in unended} if _is_dead(owner)}
            connection.executemany(
                "UPDATE jobs SET owner = ? WHERE ended IS NULL AND master = ? AND owner = ?",
                [(self._owner, self._master, owner) for owner in dead],
            )
        return [
            Unended(tag, job_id, contact, bool(is_cancelled), endpoint, digest, owner)
            for tag, job_id, contact, is_cancelled, endpoint, digest, owner in unended
            if owner in dead
        ]

    def expire(self, age: float) -> set[str]:
        """Forget jobs that ended more than `age` seconds ago; the tags of those that have
        not ended.
        """
        with self._transaction() as connection:
            connection.execute("DELETE FROM jobs WHERE ended < ?", (time.time() - age,))
            unended = connection.execute("SELECT tag FROM jobs WHERE ended IS NULL").fetchall()
        return {tag for (tag,) in unended}

    @contextlib.contextmanager
    def _transaction(self) -> Iterator["sqlite3.Connection"]:
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._sqlite3.Error as error:
            raise DriverError(f"the journal {self._path}: {error}") from error


def _columns(connection: "sqlite3.Connection") -> set[str]:
    """The columns of the table of jobs; none where it is missing."""
    return {row[1] for row in connection.execute("PRAGMA table_info(jobs)")}


def _is_broken(error: "sqlite3.DatabaseError") -> bool:
    import sqlite3

    return error.sqlite_errorcode in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def _is_dead(owner: str) -> bool:
    """Whether a driver died on this machine; of others nothing is known."""
    try:
        identity = ProcessIdentity.parse(owner)
    except ValueError:
        return False
    return identity.is_here and not identity.is_alive
