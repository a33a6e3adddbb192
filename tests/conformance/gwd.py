"""Plays gwd towards one driver, and notes every breach of what gwd relies on.

The driver is started as gwd starts it, its answers are read and scanned as gwd reads and
scans them, and each is held against the requests that are open.  Rules by their source:
GridWay 5.14, src/im, src/em and src/tm (`gw_*_mad.c` start a driver, `gw_*_listener.c` read it).
"""

import contextlib
import os
import re
import resource
import select
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from tests.gwd_attributes import GwdReader

Family = Literal["information", "execution", "transfer"]
Key = tuple[str, int, int]
"""Operation, host or job id and transfer id; -1 for "-"."""

MAX_LINE: Final = 65_535
WIDTHS: Final[Mapping[Family, tuple[int, ...]]] = {
    "information": (20, 5, 10),
    "execution": (20, 5, 10),
    "transfer": (20, 5, 5, 10),
}
"""Of the fields that gwd scans before the text, `%20s %5s %10s %65536[^\\n]`."""
INIT_TIME: Final = 5.0
END_TIME: Final = 1.0
END_GRACE: Final = 0.25
"""What a busy machine may add to it before a test fails."""
LOOK: Final = 0.05
"""Seconds between two looks at what keeps a driver that is to end."""
PATIENCE: Final = 20.0
LINGER: Final = 0.05
"""Seconds for lines that nobody asked for, before the pipes are closed."""
STATES: Final = re.compile(r"PENDING|ACTIVE|SUSPENDED|FAILED|DONE(:[0-9]+)?")
MARK: Final = "GRIDMAD_CONFORMANCE"


def scan(line: str, widths: Sequence[int]) -> list[str]:
    """The fields that sscanf finds: words cut at their widths, then the rest of the line."""
    fields: list[str] = []
    for width in widths:
        line = line.lstrip(" \t")
        match = re.match(rf"[^ \t]{{1,{width}}}", line)
        if match is None:
            return fields
        fields.append(match[0])
        line = line[match.end() :]
    line = line.lstrip(" \t")
    return [*fields, line] if line else fields


def number(text: str) -> int:
    """atoi, with -1 for what gwd takes for no id."""
    match = re.match(r"[+-]?[0-9]+", text)
    return int(match[0]) if match else -1


class Player:
    """One driver under gwd.  `with Player(...) as gwd:` fails for every breach that it saw."""

    def __init__(
        self,
        name: str,
        family: Family,
        arguments: Sequence[str],
        location: Path,
        environment: Mapping[str, str],
        *,
        byte_by_byte: bool = False,
        patience: float = PATIENCE,
    ) -> None:
        self.name = name
        self.patience = patience
        self.family = family
        self.location = location
        self.breaches: list[str] = []
        self.answers: list[str] = []
        """Every line, without its newline."""
        self.open: Counter[Key] = Counter()
        self.tolerated = 0
        """Answers that lines which are no requests may still get."""
        self.told: dict[int, list[str]] = {}
        """States of each job by CALLBACK lines."""
        self.reasons: dict[int, str] = {}
        """Why jobs failed, by CALLBACK lines."""
        self.contacts: dict[int, str] = {}
        self.is_initialised = False
        self._submitted: set[int] = set()
        self._last_state: dict[int, str] = {}
        self._changed = threading.Condition()
        self._may_read = threading.Event()
        self._may_read.set()
        self._read_size = 1 if byte_by_byte else 1 << 16
        self._has_end_of_file = False
        self._mark = uuid.uuid4().hex
        self._client, leaked = socket.socketpair()
        self.process = self._start(arguments, environment, leaked)
        leaked.close()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._woken, self._wake = os.pipe()
        self._stdin, self._stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    # ------------------------------------------------------------ start and end

    def _start(
        self, arguments: Sequence[str], environment: Mapping[str, str], leaked: socket.socket
    ) -> subprocess.Popen[bytes]:
        var = self.location / "var"
        var.mkdir(parents=True, exist_ok=True)
        # gwd starts these from threads that block all signals; SIGPIPE it ignores, as Python does.
        mask = signal.valid_signals() if self.family != "information" else ()
        before = signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        files, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        try:
            return subprocess.Popen(
                [self.name, *arguments],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=var,
                env={**environment, MARK: self._mark},
                pass_fds=[leaked.fileno()],
                restore_signals=False,
                umask=0o022,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close_stdin()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.breach(5, "the driver does not end")
        else:
            self.read_to_the_end()
        self.kill()
        if error is None:
            assert not self.breaches, "\n".join(self.breaches[:20])

    def read_to_the_end(self) -> None:
        """Take what a driver that has ended said last."""
        self.go_on_reading()
        assert self.process.stdout is not None
        is_open = not self.process.stdout.closed
        if is_open and not self.wait(lambda: self._has_end_of_file, None, PATIENCE):
            self.breach(6, "another process holds the driver's stdout: its death goes unnoticed")

    def kill(self) -> None:
        """The end of all that was started here."""
        for pid in self.leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.close_stdin()
        self.close_stdout()
        self._client.close()
        os.close(self._wake)
        os.close(self._woken)

    def initialise(self, jobs: int = 200) -> str:
        """INIT; returns its info."""
        start = time.monotonic()
        words = {"information": "- - -", "execution": f"{jobs} - -", "transfer": f"{jobs} - - - -"}
        self.write(f"INIT {words[self.family]}\n".encode())
        self.wait(lambda: self.is_initialised or self._has_end_of_file, "INIT is not answered")
        if time.monotonic() - start > INIT_TIME:
            self.breach(4, "INIT was not answered within five seconds")
        return scan(self.answers[0], WIDTHS[self.family])[-1]

    def finalise(self, linger: float = LINGER) -> float:
        """FINALIZE as gwd does it: both pipes are closed at once.  Seconds until the end."""
        words = "- - - - -" if self.family == "transfer" else "- - -"
        time.sleep(linger)
        with contextlib.suppress(BrokenPipeError):
            self.write(f"FINALIZE {words}\n".encode())
        self.close_stdin()
        self.close_stdout()
        return self.wait_for_end()

    def wait_for_end(self, code: int = 0) -> float:
        """Seconds until the driver ended, which takes one at most on a machine that is free."""
        start = time.monotonic()
        before = delays = self._delays()
        ended = os.pidfd_open(self.process.pid)
        is_over = False
        while not is_over and time.monotonic() - start < PATIENCE:
            is_over = bool(select.select([ended], [], [], LOOK)[0])
            # Threads that ended tell nothing more.
            delays = delays | self._delays()
        os.close(ended)
        taken = time.monotonic() - start
        if not is_over:
            self.breach(5, "the driver does not end")
            return taken
        taken -= sum(delay - before.get(thread, 0.0) for thread, delay in delays.items())
        found = self.process.wait()
        if taken > END_TIME + END_GRACE:
            self.breach(5, f"the driver took {taken:.2f} s to end")
        if found != code:
            self.breach(5, f"the driver ended with exit code {found}")
        return taken

    def _delays(self) -> dict[str, float]:
        """Seconds for which each thread of the driver, and we, could have run and had no
        processor; nothing where the kernel does not tell.

        Any thread counts: while one has none that holds the interpreter, the others wait for it.
        """
        delays = {}
        threads = [*Path(f"/proc/{self.process.pid}/task").glob("*"), Path("/proc/thread-self")]
        for thread in threads:
            with contextlib.suppress(OSError):
                delays[str(thread)] = int((thread / "schedstat").read_text().split()[1]) / 1e9
        return delays

    def leftovers(self) -> list[int]:
        """Processes that were started by the driver, by a mark in their environment."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                try:
                    marked = f"{MARK}={self._mark}".encode() in (entry / "environ").read_bytes()
                    is_zombie = "\nState:\tZ" in (entry / "status").read_text()
                except OSError:
                    continue
                if marked and not is_zombie:
                    found.append(int(entry.name))
        return found

    def close_stdin(self) -> None:
        """End of file for the driver."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()

    def close_stdout(self) -> None:
        """Nobody reads the driver any more."""
        if self.process.stdout is not None and not self.process.stdout.closed:
            # A thread in read(2) would keep the pipe open: it has to leave first.
            os.write(self._wake, b"x")
            self._may_read.set()
            self._reader.join(PATIENCE)
            self.process.stdout.close()

    # ------------------------------------------------------------ requests

    def write(self, data: bytes) -> None:
        """Write as gwd does: blocking, with its locks held, so it must not take long."""
        start = time.monotonic()
        view = memoryview(data)
        while view:
            view = view[os.write(self._stdin, view) :]
        taken = time.monotonic() - start
        if taken > 2:
            self.breach(7, f"a write of {len(data)} bytes was held up for {taken:.1f} s")

    def ask(self, *requests: str) -> None:
        """Send requests in one write; each is then open until it is answered."""
        with self._changed:
            for request in requests:
                self.open[self._key(request)] += 1
                words = request.split()
                if words[0].upper() in ("SUBMIT", "RECOVER"):
                    job = number(words[1])
                    self._submitted.discard(job)
                    self.told[job] = []
                    self._last_state.pop(job, None)
        self.write("".join(f"{request}\n" for request in requests).encode())

    def ask_and_wait(self, *requests: str, seconds: float = PATIENCE) -> list[str]:
        """The answers to these requests, in the order they came."""
        before = len(self.answers)
        self.ask(*requests)
        self.settle(seconds)
        keys = {self._key(request) for request in requests}
        return [line for line in self.answers[before:] if self._answer_key(line) in keys]

    def send_garbage(self, *lines: bytes) -> None:
        """Send what is no request: each line may have an answer, well formed like all."""
        with self._changed:
            self.tolerated += len(lines)
        self.write(b"".join(line + b"\n" for line in lines))

    def settle(self, seconds: float = PATIENCE) -> None:
        """Wait until no request is open."""
        if not self.wait(lambda: not self.open or self._has_end_of_file, None, seconds):
            self.breach(12, f"{self.open.total()} requests unanswered: {list(self.open)[:5]}")
        elif self.open:
            self.breach(12, f"the driver ended with {self.open.total()} requests unanswered")

    def wait(
        self, condition: Callable[[], bool], problem: str | None, seconds: float | None = None
    ) -> bool:
        """Wait for a condition on what was read; where it does not come, `problem` fails."""
        with self._changed:
            is_met = self._changed.wait_for(condition, seconds or self.patience)
        if problem is not None:
            assert is_met, f"{problem}; last lines: {self.answers[-5:]}"
        return is_met

    def _key(self, request: str) -> Key:
        words = [*request.split(), "-", "-", "-"]
        transfer = number(words[2]) if words[0].upper() == "CP" else -1
        return words[0].upper(), number(words[1]), transfer

    # ------------------------------------------------------------ answers

    def pause_reading(self) -> None:
        """Leave the answers in the pipe: nothing is read until `go_on_reading`."""
        self._may_read.clear()

    def go_on_reading(self) -> None:
        """Read again."""
        self._may_read.set()

    def _read(self) -> None:
        rest = b""
        while True:
            self._may_read.wait()
            ready, _, _ = select.select([self._stdout, self._woken], [], [])
            if self._woken in ready:
                return
            data = os.read(self._stdout, self._read_size)
            if not data:
                break
            rest += data
            if b"\n" in data:
                *lines, rest = rest.split(b"\n")
                with self._changed:
                    for line in lines:
                        self._take(line)
                    self._changed.notify_all()
        with self._changed:
            if rest:
                self.breach(8, f"half a line: {rest[:80]!r}")
            self._has_end_of_file = True
            self._changed.notify_all()

    def breach(self, rule: int, text: str) -> None:
        """Note a breach of a rule."""
        self.breaches.append(f"rule {rule}: {text}")

    def _take(self, raw: bytes) -> None:
        line = raw.decode("utf-8", "replace")
        self.answers.append(line)
        shown = line[:100]
        if re.search(rb"[\x00-\x1f\x7f]", raw):
            self.breach(8, f"control character in {shown!r}")
        if len(raw) + 1 > MAX_LINE:
            self.breach(9, f"a line of {len(raw) + 1} bytes: {shown!r}")
        if not self.is_initialised:
            self._take_init(line)
            return
        widths = WIDTHS[self.family]
        fields = scan(line, widths)
        if len(fields) != len(widths) + 1:
            self.breach(8, f"fields are missing in {shown!r}")
            return
        operation, result = fields[0], fields[len(widths) - 1]
        if operation == "TIMER" and fields[1] == "-":
            return
        if result not in ("SUCCESS", "FAILURE"):
            self.breach(8, f"result {result!r} in {shown!r}")
        key = self._answer_key(line)
        if operation == "CALLBACK" and self.family == "execution":
            self._take_callback(key[1], result, fields[-1])
            return
        if operation in ("INIT", "FINALIZE") and fields[1] == "-":
            return
        if self.open[key] > 0:
            self.open[key] -= 1
            if not self.open[key]:
                del self.open[key]
            self._take_answer(operation, key[1], result, fields[-1])
        elif self.tolerated > 0:
            self.tolerated -= 1
        else:
            self.breach(12, f"nobody asked for {shown!r}")

    def _take_init(self, line: str) -> None:
        self.is_initialised = True
        good = r"INIT - - SUCCESS \S+" if self.family == "transfer" else "INIT - SUCCESS -"
        if not re.fullmatch(good, line):
            self.breach(4, f"the first line is {line[:100]!r}")

    def _answer_key(self, line: str) -> Key:
        fields = scan(line, WIDTHS[self.family])
        if self.family != "transfer":
            return fields[0], number(fields[1]), -1
        # A full field of five characters runs into the next one.
        job = fields[1] + fields[2] if len(fields[1]) == 5 else fields[1]
        transfer = number(fields[2]) if fields[0] == "CP" else -1
        return fields[0], number(job), transfer

    def _take_answer(self, operation: str, job: int, result: str, info: str) -> None:
        if result == "FAILURE":
            if operation == "END":
                self.breach(27, f"END failed: {info}")
        elif operation == "MONITOR":
            try:
                GwdReader(b"" if info == "-" else info.encode())
            except (AssertionError, UnicodeDecodeError, IndexError) as error:
                self.breach(15, f"attributes that gwd cannot read: {str(error)[:200]}")
        elif operation == "DISCOVER":
            for host in info.split():
                if len(host) > 39:
                    self.breach(15, f"host name {host!r}")
        elif operation == "SUBMIT":
            if len(info.split()) != 1 or not 0 < len(info.encode()) < 1000:
                self.breach(20, f"contact {info[:100]!r}")
            self._submitted.add(job)
            self.contacts[job] = info
        elif operation in ("POLL", "RECOVER"):
            self._submitted.add(job)
            if not STATES.fullmatch(info):
                self.breach(22, f"state {info[:50]!r}")
            if operation == "RECOVER" and info == "FAILED":
                self.breach(25, "RECOVER SUCCESS FAILED")
            self._last_state[job] = info

    def _take_callback(self, job: int, result: str, info: str) -> None:
        if job not in self._submitted:
            self.breach(20, f"CALLBACK before the answer to SUBMIT of job {job}")
        state = info if result == "SUCCESS" else "FAILED"
        if result != "SUCCESS":
            self.reasons[job] = info
        if result == "SUCCESS" and not STATES.fullmatch(info):
            self.breach(22, f"state {info[:50]!r}")
        if result == "SUCCESS" and state == "FAILED":
            self.breach(22, "CALLBACK SUCCESS FAILED counts as done")
        before = self._last_state.get(job, "")
        if state == before:
            self.breach(23, f"job {job} is {state} again")
        if before.startswith("DONE") or before == "FAILED":
            self.breach(23, f"job {job} is {state} after {before}")
        self._last_state[job] = state
        self.told.setdefault(job, []).append(state)

    def last_state(self, job: int) -> str:
        """The state of a job that was told or answered last."""
        return self._last_state.get(job, "")

    def has_ended(self, job: int) -> bool:
        """A final state of it was told."""
        last = self.last_state(job)
        return last.startswith("DONE") or last == "FAILED"

    # ------------------------------------------------------------ process

    def client_is_gone(self, seconds: float = 2.0) -> bool:
        """Nobody holds the client's socket that leaked into the driver."""
        self._client.settimeout(seconds)
        try:
            return self._client.recv(1) == b""
        except TimeoutError:
            return False

    def status(self, pid: int | None = None) -> dict[str, str]:
        """/proc/<pid>/status of the driver or another process."""
        text = Path(f"/proc/{pid or self.process.pid}/status").read_text()
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """`data` in pieces of `size` bytes."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
