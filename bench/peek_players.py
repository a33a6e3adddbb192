"""Both sides of the peek benches as processes: ours, and plain stomp.py's."""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, Self

from bench.players import BIN

BENCH = Path(__file__).parent
LOG_WRITER = [sys.executable, "-I", "-S", str(BENCH / "log_writer.py")]
STOMP_PEEK = [sys.executable, str(BENCH / "baselines" / "stomp_peek.py")]
TICKS = os.sysconf("SC_CLK_TCK")
POLL = 0.005
"""Seconds between two looks at the client's file."""


@dataclass(frozen=True)
class Place:
    """A broker as both sides see it, and commands that begin with a prefix see it too.

    The prefixes run a command in a network of its own.
    """

    name: str
    host: str
    port: int
    login: str
    password: str
    process: int
    job_prefix: tuple[str, ...] = ()
    client_prefix: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
    """A file with log lines, which jobs print again and again."""

    file: Path

    def digest(self, size: int) -> str:
        """SHA-256 of the first `size` bytes that a job prints."""
        block = self.file.read_bytes()
        rounds, rest = divmod(size, len(block))
        digest = hashlib.sha256()
        for _ in range(rounds):
            digest.update(block)
        digest.update(block[:rest])
        return digest.hexdigest()


class Player(Protocol):
    """How one of the contestants is started."""

    name: str

    def job(self, place: Place, stream: str, command: Sequence[str]) -> list[str]:
        """The job side, which runs `command` when a client is there."""

    def client(self, place: Place, stream: str, file: Path, size: int) -> list[str]:
        """The client, which writes `size` bytes to `file`."""

    def environment(self, place: Place) -> dict[str, str]:
        """What both need to know beside."""

    def await_client(self, process: subprocess.Popen[bytes]) -> None:
        """Return when a job may be started."""


class Msgpeek:
    """`msgpeek wrap` and `msgpeek -F`, the executables."""

    name = "msgpeek"

    def job(
        self, place: Place, stream: str, command: Sequence[str], options: Sequence[str] = ()
    ) -> list[str]:
        return [
            *place.job_prefix,
            *(str(BIN / "msgpeek"), "wrap", "--quiet", "--hold-for-client", *options),
            *self.options(place, stream),
            *("--", *command),
        ]

    def client(self, place: Place, stream: str, file: Path, size: int) -> list[str]:
        return self.watcher(place, stream, ["-F", str(file)])

    def watcher(self, place: Place, stream: str, options: Sequence[str]) -> list[str]:
        """A client with options of its own."""
        return [
            *place.client_prefix,
            *(str(BIN / "msgpeek"), "--wait", *options),
            *self.options(place, stream),
        ]

    def environment(self, place: Place) -> dict[str, str]:
        return {"MSGPEEK_PASSWORD": place.password}

    def await_client(self, process: subprocess.Popen[bytes]) -> None:
        """Nothing: the job side itself holds its command until a client is there."""

    @staticmethod
    def options(place: Place, stream: str) -> list[str]:
        return ["-I", stream, "-H", place.host, "-P", str(place.port), "-U", place.login]


class StompPeek:
    """The same work with plain stomp.py: baselines/stomp_peek.py."""

    name = "plain stomp.py"

    def job(self, place: Place, stream: str, command: Sequence[str]) -> list[str]:
        return [*place.job_prefix, *self._program("job", place, stream), *command]

    def client(self, place: Place, stream: str, file: Path, size: int) -> list[str]:
        return [
            *place.client_prefix,
            *self._program("client", place, stream),
            *(str(file), str(size)),
        ]

    def environment(self, place: Place) -> dict[str, str]:
        return {"STOMP_LOGIN": place.login, "STOMP_PASSWORD": place.password}

    def await_client(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

    @staticmethod
    def _program(side: str, place: Place, stream: str) -> list[str]:
        return [*STOMP_PEEK, side, place.host, str(place.port), f"/queue/bench.{stream}"]


@dataclass(frozen=True)
class Round:
    """What one transfer took; CPU times in seconds, from the job's first byte on."""

    size: int
    seconds: float
    job: "Usage"
    client: "Usage"
    broker: "Usage"

    @property
    def rate(self) -> float:
        """Bytes of raw log a second."""
        return self.size / self.seconds

    def __str__(self) -> str:
        parts = [f"{self.rate / 1e6:.0f} MB/s"]
        for name in ("job", "client", "broker"):
            usage: Usage = getattr(self, name)
            parts.append(
                f"{name} {usage.user / self.size * 1e9:.2f}+"
                f"{usage.system / self.size * 1e9:.2f} ns/B"
            )
        return ", ".join(parts)


@dataclass(frozen=True)
class Usage:
    """CPU seconds of one process without its children, and its largest resident size."""

    user: float
    system: float
    peak: int = 0

    @property
    def cpu(self) -> float:
        return self.user + self.system

    def since(self, before: "Usage", peak: int) -> "Usage":
        """What was used after `before`; `peak` is of the last look at a living process."""
        return Usage(self.user - before.user, self.system - before.system, max(peak, self.peak))


def usage(pid: int) -> Usage:
    """Of a process that runs, or has ended and was not waited for (then without its peak)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next((line.split()[1] for line in status.splitlines() if "VmHWM" in line), "0")
    return Usage(int(fields[11]) / TICKS, int(fields[12]) / TICKS, int(peak) * 1024)


def listener(port: int, network: int | str = "self") -> int:
    """The process that listens on a TCP port, in the network that process `network` is in."""
    lines = Path(f"/proc/{network}/net/tcp").read_text().splitlines()[1:]
    lines += Path(f"/proc/{network}/net/tcp6").read_text().splitlines()[1:]
    sockets = {
        f"socket:[{fields[9]}]"
        for fields in map(str.split, lines)
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port
    }
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(descriptor.readlink()) in sockets:
                return int(descriptor.parts[2])
    raise AssertionError(f"nobody listens on {port}")


class Pair:
    """One job side and its client, with their files in a folder that goes with them."""

    def __init__(
        self,
        player: Player,
        place: Place,
        folder: Path,
        text: Text,
        size: int,
        gate: Path | None = None,
    ) -> None:
        folder.mkdir()
        self._folder = folder
        self._size = size
        self.file = folder / "output"
        self._stamp = folder / "stamp"
        self._log: IO[bytes] = open(folder / "log", "wb+")  # noqa: SIM115
        self._environment = {**os.environ, **player.environment(place)}
        self._player = player
        self._place = place
        self._stream = secrets.token_hex(16)
        self.client: subprocess.Popen[bytes] | None = None
        self.job: subprocess.Popen[bytes] | None = None
        command = [*LOG_WRITER, str(text.file), str(size), str(self._stamp)]
        self._job_command = player.job(
            place, self._stream, [*command, *([str(gate)] if gate else [])]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for process in (self.client, self.job):
            if process is not None:
                process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()
        self._log.close()
        shutil.rmtree(self._folder)

    def start_client(self) -> None:
        command = self._player.client(self._place, self._stream, self.file, self._size)
        self.client = self._start(command, subprocess.PIPE)

    def start_job(self) -> None:
        assert self.client is not None
        self._player.await_client(self.client)
        self.job = self._start(self._job_command, subprocess.DEVNULL)

    def _start(self, command: list[str], output: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=self._log,
            env=self._environment,
        )

    @property
    def stamps(self) -> list[float] | None:
        """When the job's output began and ended, so far; None before its command runs."""
        try:
            return [int(line) / 1e9 for line in self._stamp.read_text().splitlines()]
        except FileNotFoundError:
            return None

    @property
    def written(self) -> int:
        """The length of the client's file."""
        try:
            return self.file.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def is_complete(self) -> bool:
        """Whether the client's file has its full length."""
        return self.written >= self._size

    def check(self) -> None:
        """Fail if one of the processes has; one that has ended keeps its entry in /proc."""
        for process in (self.client, self.job):
            if process is None or process.returncode == 0:
                continue
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            ended = os.waitid(os.P_PID, process.pid, options)
            assert ended is None or ended.si_status == 0, f"{process.args!r}\n{self.log}"

    @property
    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-4000:]

    @contextlib.contextmanager
    def frozen_client(self) -> Iterator[None]:
        """The client stands still meanwhile."""
        assert self.client is not None
        self.client.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.client.send_signal(signal.SIGCONT)

    @staticmethod
    def has_ended(process: subprocess.Popen[bytes]) -> bool:
        """Whether it has; it keeps its entry in /proc."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, process.pid, options) is not None

    def finish(self, digest: str) -> None:
        """Both end by themselves, and the file is what the job printed."""
        for process in (self.client, self.job):
            assert process is not None
            assert process.wait(60) == 0, f"{process.args!r}\n{self.log}"
        self._check_file(digest)

    def _check_file(self, digest: str) -> None:
        assert self.file.stat().st_size == self._size
        with self.file.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == digest, self.log


def touch_pages(file: Path, size: int) -> None:
    """Have the kernel find as many pages as the client's file will need, and give them back.

    On a virtual machine pages that were free for some seconds belong to its host, and to
    write to them costs up to six times as much: the file would be measured, not the way there.
    """
    block = bytes(1 << 20)
    with file.open("wb") as pages:
        for _ in range(size >> 20):
            pages.write(block)
    file.unlink()


def transfer(player: Player, place: Place, text: Text, size: int, folder: Path) -> Round:
    """`size` bytes from a job's pipe to a client's file, byte-exact.

    Timed from the job's first byte, when all is connected, to the file's last.
    """
    folder = folder / secrets.token_hex(4)
    with Pair(player, place, folder, text, size) as pair:
        touch_pages(folder / "pages", size)
        pair.start_client()
        pair.start_job()
        assert pair.client is not None
        assert pair.job is not None
        processes = (pair.job.pid, pair.client.pid, place.process)
        while not pair.stamps:
            time.sleep(POLL)
            pair.check()
        before = [usage(process) for process in processes]
        peaks = [early.peak for early in before]
        looks = 0
        while not pair.is_complete:
            time.sleep(POLL)
            looks += 1
            if looks % 20 == 0:
                pair.check()
                peaks = list(map(max, peaks, [usage(process).peak for process in processes]))
        end = time.monotonic()
        after = [usage(process) for process in processes]
        stamps = pair.stamps
        assert stamps
        pair.finish(text.digest(size))
    job, client, broker = (
        late.since(early, peak) for early, late, peak in zip(before, after, peaks, strict=True)
    )
    return Round(size, end - stamps[0], job, client, broker)


@contextlib.contextmanager
def closed(gate: Path) -> Iterator[None]:
    """Hold back the jobs that wait at `gate`; all begin when this ends."""
    with open(gate, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def transfer_many(
    player: Player, place: Place, text: Text, size: int, count: int, folder: Path
) -> float:
    """The total rate, in raw bytes a second, of `count` jobs that print `size` bytes each.

    It is taken until the last file is complete.  What is written before that tells little:
    job sides are ahead of their clients, by all that they keep.
    """
    folder = folder / secrets.token_hex(4)
    folder.mkdir()
    gate = folder / "gate"
    with contextlib.ExitStack() as stack:
        with closed(gate):
            pairs = [
                stack.enter_context(Pair(player, place, folder / str(number), text, size, gate))
                for number in range(count)
            ]
            for pair in pairs:
                pair.start_client()
            for pair in pairs:
                pair.start_job()
            for pair in pairs:
                while pair.stamps is None:
                    time.sleep(0.02)
                    pair.check()
        start = time.monotonic()
        while not all(pair.is_complete for pair in pairs):
            time.sleep(4 * POLL)
            for pair in pairs:
                pair.check()
        seconds = time.monotonic() - start
        digest = text.digest(size)
        for pair in pairs:
            pair.finish(digest)
    shutil.rmtree(folder)
    return size * count / seconds
