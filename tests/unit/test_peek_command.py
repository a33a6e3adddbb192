"""Commands, their pipes and signals: real processes."""

import contextlib
import fcntl
import itertools
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridmad.errors import UsageError
from gridmad.peek import reader as reader_module
from gridmad.peek.command import Command, CommandError
from gridmad.peek.frame import Codec
from gridmad.peek.intake import Intake
from gridmad.peek.job import told_status
from gridmad.peek.log import entry
from gridmad.peek.reader import Output, PipeReader, new_pipe
from gridmad.peek.redaction import compile_patterns, new_redactor
from gridmad.peek.spool import Spool

ROOT = Path(__file__).parents[2]

# A wrapper without a broker: what becomes of signals is the same.
WRAP = """
import sys
from gridmad.peek.command import Command, Signals
with Signals() as signals:
    command = Command(sys.argv[1:], {}, signals.former)
    while command.poll() is None:
        info = signals.wait(60)
        if info is not None and command.poll() is None:
            command.pass_on(info)
sys.exit(command.ended.status)
"""
COUNT = """
import os, signal, sys, time
seen = []
for name in sys.argv[1].split(","):
    signal.signal(getattr(signal, name), lambda number, _: seen.append(number))
print("ready", flush=True)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    time.sleep(0.01)
print(*seen, flush=True)
"""


def wait(command: Command) -> int:
    end = time.monotonic() + 30
    while command.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    assert command.ended is not None
    return command.ended.status


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill $$", 143)]
)
def test_how_a_command_ends(script: str, status: int) -> None:
    assert wait(Command(["sh", "-c", script], {}, set())) == status


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(CommandError, match="no-such-command: command not found") as raised:
        Command(["no-such-command"], {}, set())
    assert raised.value.exit_code == 127
    with pytest.raises(CommandError, match="/no/such: no such file") as raised:
        Command(["/no/such"], {}, set())
    assert raised.value.exit_code == 127
    with pytest.raises(CommandError) as raised:
        Command([""], {}, set())
    assert raised.value.exit_code == 127
    with pytest.raises(CommandError) as raised:
        Command(["a\0b"], {}, set())
    assert raised.value.exit_code == 126


def test_a_command_that_cannot_be_run(tmp_path: Path) -> None:
    script = tmp_path / "script"
    for text, mode, words in (
        ("#!/bin/sh\n", 0o600, "Permission denied"),
        ("echo no first line\n", 0o700, "#!"),
        ("#!/no/interpreter\n", 0o700, "interpreter"),
    ):
        script.write_text(text)
        script.chmod(mode)
        with pytest.raises(CommandError, match=words) as raised:
            Command([str(script)], {}, set())
        assert raised.value.exit_code == 126
    with pytest.raises(CommandError, match="is a directory") as raised:
        Command([str(tmp_path)], {}, set())
    assert raised.value.exit_code == 126


def test_a_command_gets_the_signals_as_we_got_them() -> None:
    reading, writing = os.pipe()
    command = Command(["grep", "^Sig[BI]", "/proc/self/status"], {1: writing}, {signal.SIGUSR2})
    os.close(writing)
    assert wait(command) == 0
    with os.fdopen(reading) as file:
        masks = dict(line.split(":\t") for line in file)
    assert int(masks["SigBlk"], 16) == 1 << (signal.SIGUSR2 - 1)
    assert not int(masks["SigIgn"], 16) & 1 << (signal.SIGPIPE - 1)


def is_inheritable(number: int) -> bool:
    with contextlib.suppress(OSError):
        return os.get_inheritable(number)
    return False


def test_descriptors_do_not_leak() -> None:
    reading, writing = os.pipe()
    script = "import os; print(*os.listdir('/proc/self/fd'))"
    command = Command([sys.executable, "-c", script], {1: writing, 2: writing}, set())
    os.close(writing)
    assert wait(command) == 0
    with os.fdopen(reading) as file:
        seen = set(map(int, file.read().split()))
    ours = {int(name) for name in os.listdir("/proc/self/fd")}
    inheritable = {number for number in ours if is_inheritable(number)}
    assert seen <= {0, 1, 2, 3} | inheritable, "3 is that of the listing"


def test_signals_are_passed_on() -> None:
    names = ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGQUIT", "SIGXCPU"]
    wrap = subprocess.Popen(
        [sys.executable, "-c", WRAP, sys.executable, "-c", COUNT, ",".join(names), "1.5"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert wrap.stdout is not None
    assert wrap.stdout.readline() == b"ready\n"
    for name in names:
        wrap.send_signal(getattr(signal, name))
        time.sleep(0.05)
    output, _ = wrap.communicate(timeout=30)
    assert output.split() == [b"%d" % getattr(signal, name) for name in names]
    assert wrap.returncode == 0


def test_a_command_that_ends_by_a_signal() -> None:
    wrap = subprocess.Popen(
        [sys.executable, "-c", WRAP, "sh", "-c", "echo ready; exec sleep 60"],
        stdout=subprocess.PIPE,
    )
    assert wrap.stdout is not None
    wrap.stdout.readline()
    wrap.terminate()
    wrap.communicate(timeout=30)
    assert wrap.returncode == 143


@contextlib.contextmanager
def terminal(command: list[str]) -> Iterator[tuple[int, int]]:
    """A process that leads a session on a terminal of its own: (pid, the other side)."""
    process, master = pty.fork()
    if not process:
        os.execv(command[0], command)
    try:
        yield process, master
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(master)


def read_until(master: int, words: bytes) -> bytes:
    text = b""
    end = time.monotonic() + 30
    while words not in text:
        assert time.monotonic() < end, text
        if select.select([master], [], [], 0.1)[0]:
            text += os.read(master, 4096)
    return text


def test_an_interrupt_from_the_terminal_comes_once() -> None:
    command = [sys.executable, "-c", WRAP, sys.executable, "-c", COUNT, "SIGINT", "1"]
    with terminal(command) as (_, master):
        read_until(master, b"ready")
        os.write(master, b"\x03")
        time.sleep(0.2)
        os.write(master, b"\x03")
        assert read_until(master, b"2 2").count(b"2") == 2


def test_a_terminal_stops_and_continues_both() -> None:
    """By a shell with job control, as anybody has it."""
    environment = {**os.environ, "PS1": "prompt> "}
    process, master = pty.fork()
    if not process:
        os.execve("/bin/bash", ["bash", "--norc", "--noediting", "-i"], environment)
    try:
        # What is awaited is never what was typed: the terminal may echo that.
        os.write(master, b"printf 'at-%s.' shell\n")
        read_until(master, b"at-shell.")
        script = "printf 'it-%s.' runs; while read word; do echo got-$word.; done"
        os.write(
            master,
            f"{sys.executable} -c '{WRAP}' sh -c \"{script}\"\n".replace(
                "$word", "\\$word"
            ).encode(),
        )
        read_until(master, b"it-runs.")
        os.write(master, b"one\n")
        read_until(master, b"got-one.")
        os.write(master, b"\x1a")
        # A stop discards what was typed before the shell has the terminal again.
        text = read_until(master, b"Stopped")
        while not text.endswith(b"prompt> "):
            text += read_until(master, b" ")
        # The command may still be about to stop, and take a character before it does.
        os.write(master, b"    \n")
        time.sleep(0.3)
        os.write(master, b"printf 'back-%s.' again\n")
        read_until(master, b"back-again.")
        os.write(master, b"fg\n")
        os.write(master, b"two\n")
        read_until(master, b"got-two.")
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(master)


# ---------------------------------------------------------------- reading pipes


class Reading:
    """A reader of a pipe, its spool and who writes."""

    def __init__(self, output: Output | None = None, redact: tuple[bytes, ...] = ()) -> None:
        reading, self.writing, size = new_pipe()
        self.size = size
        self.spool = Spool()
        self.codec = Codec("reading")
        self.wakes = 0
        redactor = new_redactor([b"secret-word"] if redact else [], compile_patterns(redact))
        self.intake = Intake(1, 1, self.codec, self.spool, itertools.count(), self._wake, redactor)
        self.reader = PipeReader(reading, size, self.intake, output)
        self.reader.start()

    def _wake(self) -> None:
        self.wakes += 1

    def finish(self) -> bytes:
        os.close(self.writing)
        self.reader.join(30)
        assert not self.reader.is_alive()
        self.reader.close()
        return self.text()

    def frames(self) -> list[bytes]:
        number, frames = self.spool.first, []
        while number < self.spool.end:
            first, block = self.spool.frames(number)
            frames += block[number - first :]
            number = first + len(block)
        return frames

    def text(self) -> bytes:
        return b"".join(
            chunk.data() for frame in self.frames() for chunk in self.codec.decode(frame)
        )


def test_a_pipe_is_enlarged() -> None:
    reading, writing, size = new_pipe()
    assert size == fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ) >= 65536
    os.close(reading)
    os.close(writing)


def test_much_output_fills_its_frames() -> None:
    running = Reading()
    data = os.urandom(1 << 16) * 64
    view = memoryview(data)
    while view:
        view = view[os.write(running.writing, view) :]
    assert running.finish() == data
    entries = [entry(frame) for frame in running.frames()]
    lengths = [item.end - item.offset for item in entries]
    assert len(lengths) < 80
    assert running.wakes < 60
    assert running.intake.digest is not None


def test_lines_gather_but_do_not_wait_long() -> None:
    running = Reading()
    began = time.monotonic()
    for number in range(2000):
        os.write(running.writing, b"line %d\n" % number)
        if number % 100 == 0:
            time.sleep(0.01)
    took = time.monotonic() - began
    text = running.finish()
    assert text == b"".join(b"line %d\n" % number for number in range(2000))
    assert len(running.frames()) <= 3 + took / 0.04


def test_a_line_after_silence_goes_at_once() -> None:
    running = Reading()
    delays = []
    for number in range(20):
        time.sleep(0.12)
        before = time.monotonic()
        os.write(running.writing, b"line\n")
        while running.spool.end == number:
            assert time.monotonic() < before + 10
            time.sleep(0.001)
        delays.append(time.monotonic() - before)
    running.finish()
    # Half the time of those that are followed by others.
    assert sorted(delays)[10] < 0.025


def test_the_command_goes_on_where_the_view_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its pipe is read on, and the output passed on: it is not killed by SIGPIPE."""
    place = tmp_path / "out"
    running = Reading(Output.to_file(place))

    def fail(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(running.spool, "append", fail)
    data = os.urandom(1 << 20) * 3
    view = memoryview(data)
    while view:
        view = view[os.write(running.writing, view) :]
    running.finish()
    assert place.read_bytes() == data
    assert running.intake.digest is None
    assert "only passed on" in caplog.text


def test_the_output_goes_on_to_where_it_goes(tmp_path: Path) -> None:
    place = tmp_path / "out"
    running = Reading(Output.to_file(place))
    for _ in range(100):
        os.write(running.writing, b"some text\n" * 1000)
    text = running.finish()
    assert place.read_bytes() == text == b"some text\n" * 100_000
    assert place.stat().st_mode & 0o777 == 0o600


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing/out: No such file"):
        Output.to_file(tmp_path / "missing" / "out")


def test_nobody_reads_the_output_any_more() -> None:
    near, far = os.pipe()
    running = Reading(Output(far, "stdout"))
    os.write(running.writing, b"before\n")
    assert os.read(near, 100) == b"before\n"
    os.close(near)
    time.sleep(0.01)
    os.write(running.writing, b"after\n")
    assert running.finish() == b"before\nafter\n"
    os.close(far)


def test_an_output_on_a_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        running = Reading(Output(full.fileno(), "stdout"))
        os.write(running.writing, b"text")
        time.sleep(0.05)
        os.write(running.writing, b" and more")
        assert running.finish() == b"text and more"
    assert len(caplog.records) == 1


def test_an_output_that_somebody_made_non_blocking() -> None:
    near, far = os.pipe()
    os.set_blocking(far, False)
    running = Reading(Output(far, "stdout"))
    data = os.urandom(1 << 20)
    seen = bytearray()

    def take() -> None:
        while len(seen) < len(data):
            seen.extend(os.read(near, 1 << 16))

    thread = threading.Thread(target=take)
    thread.start()
    view = memoryview(data)
    while view:
        view = view[os.write(running.writing, view) :]
    thread.join(10)
    assert running.finish() == data == seen
    os.close(near)
    os.close(far)


def test_secrets_do_not_leave(tmp_path: Path) -> None:
    place = tmp_path / "out"
    running = Reading(Output.to_file(place), redact=(rb"\d{4}-\d{4}",))
    plain = b"a secret-word and 1234-5678\n"
    masked = b"a *********** and *********\n"
    for _ in range(5000):
        os.write(running.writing, plain)
    assert running.finish() == masked * 5000
    assert place.read_bytes() == plain * 5000, "what stays here is the job's own"


def test_a_process_that_was_left_behind_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader_module, "QUIET_GRACE", 0.3)
    running = Reading()
    data = os.urandom(1 << 16) * 12
    os.write(running.writing, data[: min(running.size, len(data))])
    running.reader.end()
    running.reader.join(30)
    assert not running.reader.is_alive()
    assert running.reader.was_cut_off
    assert running.text() == data[: min(running.size, len(data))]
    with pytest.raises(BrokenPipeError):
        os.write(running.writing, b"x")
    os.close(running.writing)
    running.reader.close()


def test_a_process_that_was_left_behind_may_not_write_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader_module, "GRACE", 0.5)
    running = Reading()
    running.reader.end()
    with contextlib.suppress(BrokenPipeError):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            os.write(running.writing, b"still here\n")
            time.sleep(0.01)
    running.reader.join(10)
    assert not running.reader.is_alive()
    assert running.reader.was_cut_off
    os.close(running.writing)
    running.reader.close()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"EXIT_STATUS=3\n", 3),
        (b"EXIT_STATUS=0\nnoise\nEXIT_STATUS=12\nREAL_TIME=4\n", 12),
        (b"x" * 100_000 + b"\nEXIT_STATUS=7", 7),
        (b"EXIT_STATUS=S\n", None),
        (b"EXIT_STATUS=300\n", None),
        (b"+ echo EXIT_STATUS=3\n", None),
        (b"EXIT_STATUS=3\n" + b"x" * 100_000, None),
        (b"", None),
    ],
)
def test_the_exit_code_that_a_file_tells(tmp_path: Path, text: bytes, code: int | None) -> None:
    file = tmp_path / "stdout.wrapper"
    assert told_status(file) is None
    file.write_bytes(text)
    told = told_status(file)
    assert (None if told is None else told.exit_code) == code
