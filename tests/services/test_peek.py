"""Both sides of a session on real brokers: what the job printed is what the client wrote."""

import hashlib
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gridmad.peek.stream import new_stream
from tests.peek_sides import outcome, start
from tests.peek_user import peak
from tests.services.stomp_server import StompServer

PRINTER = """\
import hashlib, os, random, sys, time
size, seed, pause, code = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
chance = random.Random(seed)
words = [b"%x" % chance.getrandbits(20) for _ in range(2000)]
left = size
while left:
    block = b" ".join(chance.choices(words, k=500))[:left] + b"\\n"
    block = block[:left]
    os.write(1, block)
    left -= len(block)
    if chance.random() < 0.01:
        os.write(2, b"warning %d\\n" % left)
    if pause:
        time.sleep(pause)
sys.exit(code)
"""


def printer(size: int, *, seed: int = 1, pause: float = 0.0, code: int = 0) -> list[str]:
    """A command that prints a log of `size` bytes, the same for the same seed."""
    return [sys.executable, "-c", PRINTER, str(size), str(seed), str(pause), str(code)]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Session:
    """One job and its clients; all of them are killed at the end."""

    def __init__(self, broker: StompServer, folder: Path) -> None:
        self.stream = new_stream()
        self.folder = folder
        self._broker = broker
        self._processes: list[Any] = []

    def job(self, command: list[str], **options: Any) -> Any:
        copies = {name: str(self.folder / f"job.{name}") for name in ("stdout", "stderr")}
        return self._start("job", command=command, **copies, **options)

    def client(self, file: str = "out", **options: Any) -> Any:
        return self._start("client", file=str(self.folder / file), **{"wait": True, **options})

    def is_exact(self, file: str = "out") -> bool:
        """Whether the file is what the job printed, on both sources."""
        return digest(self.folder / file) == digest(self.folder / "job.stdout") and digest(
            self.folder / f"{file}.err"
        ) == digest(self.folder / "job.stderr")

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _start(self, side: str, **options: Any) -> Any:
        process = start(side, self._broker.stomp_port, self.stream, **options)
        self._processes.append(process)
        return process


@pytest.fixture
def session(broker: StompServer, tmp_path: Path) -> Any:
    session = Session(broker, tmp_path)
    yield session
    session.close()


def wait_for_size(path: Path, size: int, timeout: float = 60.0) -> None:
    end = time.monotonic() + timeout
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < end, f"{path} does not grow to {size}"
        time.sleep(0.01)


def test_a_file_has_what_the_job_printed(session: Session) -> None:
    job = session.job(printer(20_000_000, code=3), hold_for_client=True)
    client = session.client()
    ended = outcome(client)
    assert (ended.exit_code, ended.text) == (3, "the job ended with exit code 3")
    assert job.wait(30) == 3
    assert session.is_exact()


def test_a_complete_file_says_so_and_is_left_alone(session: Session) -> None:
    session.job(printer(100_000, code=3), hold_for_client=True)
    assert outcome(session.client()).exit_code == 3
    before = (session.folder / "out").stat().st_mtime_ns
    ended = outcome(session.client())
    assert ended.exit_code == 3
    assert "has the whole output already" in ended.text
    assert (session.folder / "out").stat().st_mtime_ns == before
    assert session.is_exact()


def test_a_client_that_comes_late_gets_all(session: Session) -> None:
    session.job(printer(3_000_000, pause=0.001))
    wait_for_size(session.folder / "job.stdout", 1_000_000)
    assert outcome(session.client()).exit_code == 0
    assert session.is_exact()


def test_a_second_client_is_denied_and_a_takeover_revokes(session: Session) -> None:
    session.job(printer(2_000_000, pause=0.005))
    first = session.client("first")
    wait_for_size(session.folder / "first", 1)
    second = outcome(session.client("second"))
    assert second.exit_code == 75
    assert "--takeover" in second.text
    third = session.client("third", takeover=True, start={"kind": "offset", "value": 0})
    assert outcome(first).exit_code == 76
    assert outcome(third).exit_code == 0
    assert session.is_exact("third")


def test_a_killed_client_goes_on(session: Session) -> None:
    session.job(printer(4_000_000, pause=0.002))
    client = session.client()
    wait_for_size(session.folder / "out", 100_000)
    client.kill()
    client.communicate()
    assert outcome(session.client()).exit_code == 0
    assert session.is_exact()


def test_what_a_job_left_behind_is_taken_after_it_has_ended(session: Session) -> None:
    job = session.job(printer(3_000_000, code=4), linger=0.2)
    assert job.wait(60) == 4
    ended = outcome(session.client(wait=False))
    assert (ended.exit_code, ended.text) == (4, "the job ended with exit code 4")
    assert session.is_exact()
    # Nothing is left for another one.
    assert outcome(session.client("other", wait=False)).exit_code == 127


def test_a_killed_client_goes_on_after_the_job_has_ended(session: Session) -> None:
    job = session.job(printer(30_000_000), linger=0.2, park_size=64 << 20)
    client = session.client()
    wait_for_size(session.folder / "out", 100_000)
    client.kill()
    client.communicate()
    assert job.wait(60) == 0
    ended = outcome(session.client(wait=False))
    assert ended.exit_code == 0, ended.text
    assert session.is_exact()


def test_a_signal_that_ends_the_job_is_told(session: Session) -> None:
    command = [sys.executable, "-c", "import os; os.write(1, b'x'); os.kill(os.getpid(), 9)"]
    job = session.job(command, hold_for_client=True)
    ended = outcome(session.client())
    assert ended.exit_code == 128 + signal.SIGKILL
    assert "signal 9" in ended.text
    assert job.wait(30) == 128 + signal.SIGKILL


def test_a_job_side_that_dies_without_a_word_is_timed_out(session: Session) -> None:
    job = session.job(printer(100_000_000, pause=0.01))
    client = session.client(timeout=5.0)
    wait_for_size(session.folder / "out", 1)
    job.kill()
    ended = outcome(client)
    assert ended.exit_code == 124, ended.text
    assert "without a word" in ended.text


def test_a_job_that_is_not_there_is_unknown(session: Session) -> None:
    assert outcome(session.client(wait=False)).exit_code == 127


def test_the_memory_of_a_client_is_bounded_at_any_rate(session: Session) -> None:
    flood = "import os\nfor _ in range(2000): os.write(1, os.urandom(65536))"
    session.job([sys.executable, "-c", flood], hold_for_client=True)
    client = session.client()
    largest = 0
    while client.poll() is None:
        largest = max(largest, peak(client.pid))
        time.sleep(0.01)
    assert outcome(client).exit_code == 0
    assert session.is_exact()
    assert 0 < largest < 64 << 20
