"""What plays gwd's part in the benches: a driver at the other end of two pipes."""

import contextlib
import fcntl
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

BIN = Path(sys.executable).parent
NAIVE = [sys.executable, str(Path(__file__).parent / "baselines" / "naive_daemon.py")]


class Player:
    """A driver's process; requests go in and answers are counted by their newlines."""

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            # GridWay runs its drivers at niceness 19; a contest is held at equal terms.
            env={**os.environ, "PRIORITY": "0", **(environment or {})},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in = self._process.stdin.fileno()
        self._out = self._process.stdout.fileno()
        for pipe in (self._in, self._out):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The driver's process id."""
        return self._process.pid

    def ask(self, request: bytes, lines: int = 1) -> bytes:
        """Send `request` and wait for `lines` lines."""
        os.write(self._in, request)
        answer = os.read(self._out, 1 << 16)
        while answer.count(b"\n") < lines:
            more = os.read(self._out, 1 << 16)
            if not more:
                raise EOFError(f"the driver ended after {answer!r}")
            answer += more
        return answer

    def initialise(self, fields: int = 4) -> None:
        """INIT, with as many fields as the driver's family has."""
        assert b"SUCCESS" in self.ask(b"INIT 1000%b\n" % (b" -" * (fields - 2)))

    def stream(self, requests: bytes, answers: int) -> None:
        """Send all as fast as the driver takes it, and count the answers."""
        writer = threading.Thread(target=self._send, args=(requests,))
        writer.start()
        got = 0
        while got < answers:
            data = os.read(self._out, 1 << 20)
            if not data:
                raise EOFError(f"the driver ended after {got} of {answers} answers")
            got += data.count(b"\n")
        writer.join()

    def _send(self, requests: bytes) -> None:
        view = memoryview(requests)
        while view:
            view = view[os.write(self._in, view[: 1 << 16]) :]

    def collect(self, until: bytes, count: int, timeout: float = 300.0) -> bytes:
        """Read until `until` came `count` times."""
        got = b""
        end = time.monotonic() + timeout
        while got.count(until) < count:
            data = os.read(self._out, 1 << 16)
            if not data or time.monotonic() > end:
                raise EOFError(f"{got.count(until)} of {count} came: {got[-2000:]!r}")
            got += data
        return got

    def send(self, requests: bytes) -> None:
        """Send and wait for nothing."""
        self._send(requests)

    def peak_memory(self) -> int:
        """The driver's largest resident size so far, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def memory(self) -> int:
        """The driver's resident size now, in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def settle(self) -> None:
        """Wait until it has nothing to do: until it took no CPU time for a fifth of a second."""
        before = -1.0
        while before != (now := self._cpu_time()):
            before = now
            time.sleep(0.2)

    def _cpu_time(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return float(fields[11]) + float(fields[12])

    def close(self) -> float:
        """End it by end of file; the CPU seconds it took in all."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextlib.contextmanager
def on_one_processor() -> Iterator[None]:
    """Hold this process and those it starts meanwhile on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
