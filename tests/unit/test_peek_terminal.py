"""What is seen of a stream: through pipes, and on terminals of the kernel."""

import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import MissingDependencyError, UsageError
from gridmad.peek import terminal
from gridmad.peek.progress import INTERVAL, Progress
from gridmad.peek.tail import ENTRY, MAX_TAIL, Since, Tail
from gridmad.peek.terminal import (
    MAX_LINE,
    STDERR,
    STDOUT,
    Lines,
    OutputClosedError,
    OutputError,
    OutputOptions,
    TerminalSink,
    write_all,
)

NOON = 1_767_225_600_123  # 2026-01-01T00:00:00.123Z


class Reader:
    """Everything that arrives at one end of a pipe or terminal."""

    def __init__(self, descriptor: int) -> None:
        self._data = bytearray()
        self._descriptor = descriptor
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        # A terminal whose other end was closed is an error.
        with suppress(OSError):
            while data := os.read(self._descriptor, 65536):
                self._data += data

    def so_far(self, size: int) -> bytes:
        """What came, as soon as it is that many bytes."""
        deadline = time.monotonic() + 20
        while len(self._data) < size and time.monotonic() < deadline:
            time.sleep(0.001)
        return bytes(self._data)

    def until(self, end: bytes) -> bytes:
        """What came, as soon as it ends so."""
        deadline = time.monotonic() + 20
        while not self._data.endswith(end) and time.monotonic() < deadline:
            time.sleep(0.001)
        return bytes(self._data)

    def all(self) -> bytes:
        self._thread.join()
        return bytes(self._data)


class Display:
    """A sink with two pipes, or with one terminal, or one of each."""

    def __init__(self, options: OutputOptions, kind: str, **others: Any) -> None:
        self._stack = ExitStack()
        self.writers: list[int] = []
        readers = []
        if kind == "terminal":
            master, slave = pty.openpty()
            tty.setraw(slave)
            readers, self.writers = [master], [slave, os.dup(slave)]
        else:
            for of in (kind, "terminal" if kind == "mixed" else "pipe"):
                reader, writer = pty.openpty() if of == "terminal" else os.pipe()
                if of == "terminal":
                    tty.setraw(writer)
                readers.append(reader)
                self.writers.append(writer)
        self.readers = [Reader(reader) for reader in readers]
        self._descriptors = readers
        others.setdefault("environment", {})
        self.sink = TerminalSink(options, stdout=self.writers[0], stderr=self.writers[1], **others)

    def end(self) -> tuple[bytes, ...]:
        """Finish: all that was shown on stdout and stderr, or on the one terminal."""
        self.sink.finish()
        return self.close()

    def close(self) -> tuple[bytes, ...]:
        for writer in self.writers:
            if os.isatty(writer):
                termios.tcdrain(writer)
            os.close(writer)
        self.writers = []
        shown = tuple(reader.all() for reader in self.readers)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        return shown


Make = Callable[..., Display]


@pytest.fixture
def display() -> Iterator[Make]:
    made: list[Display] = []

    def make(
        kind: str = "pipe", *, others: dict[str, Any] | None = None, **options: Any
    ) -> Display:
        made.append(Display(OutputOptions(**options), kind, **(others or {})))
        return made[-1]

    yield make
    for one in made:
        one.close()


# ---------------------------------------------------------------- text


def test_each_source_goes_to_its_own_descriptor_at_once(display: Make) -> None:
    shown = display()
    shown.sink.write(STDOUT, 0, NOON, b"no newline yet")
    shown.sink.write(STDERR, 0, NOON, b"warn")
    assert shown.readers[0].so_far(14) == b"no newline yet"
    assert shown.readers[1].so_far(4) == b"warn"
    shown.sink.flush()
    assert shown.end() == (b"no newline yet", b"warn")


def test_colours_pass_and_other_escapes_do_not(display: Make) -> None:
    attack = b"\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2J\xc3\xa9\xff\n"
    safe = "\x1b[31mred\x1b[0m é\ufffd\n".encode()
    for options, environment, expected in (
        ({}, {}, safe),
        ({"color": "always"}, {"NO_COLOR": "1"}, safe),
        ({}, {"NO_COLOR": "1"}, "red é\ufffd\n".encode()),
        ({"color": "never"}, {}, "red é\ufffd\n".encode()),
        ({"unfiltered": True}, {}, attack),
        ({"format": "raw"}, {"NO_COLOR": "1"}, attack),
    ):
        shown = display(**options, others={"environment": environment})
        for at in range(len(attack)):
            shown.sink.write(STDOUT, at, NOON, attack[at : at + 1])
        assert shown.end() == (expected, b"")


def test_what_is_held_back_shows_at_the_end(display: Make) -> None:
    shown = display()
    shown.sink.write(STDOUT, 0, NOON, b"cut \xe2\x82")
    assert shown.end() == (b"cut \xef\xbf\xbd", b"")


def test_a_gap_is_a_line_of_its_own_on_stderr(display: Make) -> None:
    for options in ({}, {"format": "raw"}, {"timestamps": True}, {"grep": "."}):
        shown = display(**options)
        shown.sink.write(STDERR, 0, NOON, b"half a li")
        shown.sink.gap(STDOUT, 0, 4096, "spool")
        err = shown.end()[1]
        assert err.endswith(b"half a li\n[msgpeek: 4096 bytes of stdout are missing: spool]\n") or (
            "grep" in options and b"\n[msgpeek: 4096 bytes" in b"\n" + err
        )


def test_a_notice_has_nothing_of_an_attack(display: Make) -> None:
    shown = display("terminal", color="never")
    shown.sink.gap(STDOUT, 0, 1, "sp\x1b]0;x\x07\nool\u202e\udc80")
    shown.sink.attempt(3)
    (text,) = shown.end()
    assert text.splitlines() == [
        b"[msgpeek: 1 bytes of stdout are missing: sp?]0;x??ool??]",
        b"[msgpeek: attempt 3 of the job begins]",
    ]


def test_a_gap_ends_an_escape_that_it_cut(display: Make) -> None:
    shown = display()
    shown.sink.write(STDOUT, 0, NOON, b"a\x1b]0;ti")
    shown.sink.gap(STDOUT, 6, 100, "spool")
    shown.sink.write(STDOUT, 106, NOON, b"b\n")
    assert shown.end()[0] == b"ab\n"


@pytest.mark.parametrize("form", ["text", "raw"])
def test_large_blocks_pass_whole(display: Make, form: str) -> None:
    shown = display(format=form)
    block = b"a line of output with some text in it\n" * 2000
    for number in range(100):
        shown.sink.write(STDOUT, number * len(block), NOON, block)
    assert shown.end() == (block * 100, b"")


# ---------------------------------------------------------------- timestamps and grep


def test_a_line_has_the_time_at_which_it_began(
    display: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        shown = display(timestamps=True)
        shown.sink.write(STDOUT, 0, NOON, b"one\ntwo")
        shown.sink.write(STDOUT, 7, NOON + 1000, b" goes on\n")
        shown.sink.write(STDERR, 0, NOON + 2000, b"\nend\n")
        shown.sink.write(STDOUT, 16, 2**64 - 1, b"never\n")
        out, err = shown.end()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert out.splitlines()[:2] == [
        b"2026-01-01T05:30:00.123+05:30 one",
        b"2026-01-01T05:30:00.123+05:30 two goes on",
    ]
    assert re.fullmatch(rb"9999-12-31T\S+ never", out.splitlines()[2])
    assert err == b"2026-01-01T05:30:02.123+05:30 \n2026-01-01T05:30:02.123+05:30 end\n"


def test_a_gap_begins_a_new_line_with_its_own_time(display: Make) -> None:
    shown = display(timestamps=True)
    shown.sink.write(STDOUT, 0, NOON, b"half")
    shown.sink.gap(STDOUT, 4, 10, "spool")
    shown.sink.write(STDOUT, 14, NOON + 1000, b"rest\n")
    first, second = shown.end()[0].splitlines()
    assert first.endswith(b" half")
    assert second.endswith(b" rest")
    assert datetime.fromisoformat(second.split()[0].decode()).timestamp() * 1000 == NOON + 1000


def test_grep_shows_whole_lines_that_match(display: Make) -> None:
    shown = display(grep="^(err|gr.n$)")
    shown.sink.write(STDOUT, 0, NOON, b"error 1\nok\n\x1b[31merr")
    assert shown.readers[0].so_far(8) == b"error 1\n"
    shown.sink.write(STDOUT, 0, NOON, "or 2\x1b[0m\nno err\ngrün".encode())
    shown.sink.write(STDERR, 0, NOON, b"err\n\nfine\n")
    out, err = shown.end()
    assert out == "error 1\n\x1b[31merror 2\x1b[0m\ngrün\n".encode()
    assert err == b"err\n"


def test_grep_with_times(display: Make) -> None:
    shown = display(grep="b", timestamps=True)
    shown.sink.write(STDOUT, 0, NOON, b"a\nb")
    shown.sink.write(STDOUT, 3, NOON + 5000, b"\nb2\n")
    lines = [line.split(b" ") for line in shown.end()[0].splitlines()]
    assert [text for _, text in lines] == [b"b", b"b2"]
    times = [datetime.fromisoformat(stamp.decode()) for stamp, _ in lines]
    assert (times[1] - times[0]).total_seconds() == 5


def test_options_that_are_none() -> None:
    with pytest.raises(UsageError, match="--grep"):
        TerminalSink(OutputOptions(grep="("))
    with pytest.raises(UsageError, match="--grep"):
        TerminalSink(OutputOptions(grep="x", format="raw"))


# ---------------------------------------------------------------- jsonl


def test_jsonl_tells_all_of_a_stream(display: Make) -> None:
    shown = display(format="jsonl")
    sink = shown.sink
    sink.write(STDOUT, 0, NOON, b'one "quoted"\ntw')
    sink.write(STDERR, 0, NOON + 1, b"warn\x1b[2J \xff\n")
    sink.write(STDOUT, 15, NOON + 2, "o ü\x7f\r\n\n".encode())
    sink.write(STDOUT, 23, NOON, b"cut")
    sink.gap(STDOUT, 26, 100, "spool")
    sink.attempt(2)
    sink.write(STDOUT, 0, NOON, b"end")
    out, err = shown.end()
    assert err == b""
    assert out.isascii()
    moment, later = "2026-01-01T00:00:00.123Z", "2026-01-01T00:00:00.124Z"
    assert [json.loads(line) for line in out.splitlines()] == [
        {"time": moment, "source": "stdout", "offset": 0, "text": 'one "quoted"'},
        {
            "time": later,
            "source": "stderr",
            "offset": 0,
            "text": "warn \ufffd",
        },
        {"time": moment, "source": "stdout", "offset": 13, "text": "two ü\r"},
        {"time": "2026-01-01T00:00:00.125Z", "source": "stdout", "offset": 22, "text": ""},
        {"time": moment, "source": "stdout", "offset": 23, "text": "cut", "partial": True},
        {"source": "stdout", "offset": 26, "missing": 100, "reason": "spool"},
        {"attempt": 2},
        {"time": moment, "source": "stdout", "offset": 0, "text": "end", "partial": True},
    ]


def test_jsonl_unfiltered_has_the_escapes_but_no_terminal_sees_them(display: Make) -> None:
    shown = display(format="jsonl", unfiltered=True, grep="yes")
    shown.sink.write(STDOUT, 0, NOON, b"\x1b]0;x\x07yes\xc2\x9b\nno\n")
    (line,) = shown.end()[0].splitlines()
    assert b"\x1b" not in line
    assert json.loads(line)["text"] == "\x1b]0;x\x07yes\x9b"


@given(
    st.lists(st.sampled_from([b"a", b"\n", "é".encode(), b"bc\n", b"\n\nx"]), max_size=20),
    st.lists(st.integers(0, 40), max_size=6),
)
def test_lines_are_those_of_the_whole(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    lines = Lines()
    found = []
    for number, start in enumerate(edges[:-1]):
        found += lines.feed(start, number, data[start : edges[number + 1]])
    found += lines.flush()
    assert b"".join(text + b"\n" * whole for _, _, text, whole in found) == data
    for offset, number, text, _ in found:
        assert data[offset : offset + len(text)] == text
        # The time is that of the piece in which the line begins.
        assert edges[number] <= offset < edges[number + 1]
        assert b"\n" not in text


@pytest.mark.parametrize("size", [1, 65536, 5 << 20])
def test_a_long_line_comes_in_parts_between_characters(size: int) -> None:
    lines = Lines()
    data = "€".encode() * MAX_LINE + b"\nend\n"
    found = []
    if size > 1:
        for at in range(0, len(data), size):
            found += lines.feed(at, 7, data[at : at + size])
    else:
        # Around the bound byte by byte.
        found += lines.feed(0, 7, data[: MAX_LINE - 3])
        for at in range(MAX_LINE - 3, MAX_LINE + 3):
            found += lines.feed(at, 7, data[at : at + 1])
        found += lines.feed(MAX_LINE + 3, 7, data[MAX_LINE + 3 :])
    assert all(len(text) <= MAX_LINE for _, _, text, _ in found)
    assert [whole for _, _, _, whole in found] == [False, False, False, True, True]
    assert "".join(text.decode() for _, _, text, _ in found) == "€" * MAX_LINE + "end"
    assert [offset for offset, _, _, _ in found] == [
        sum(len(text) + whole for _, _, text, whole in found[:number])
        for number in range(len(found))
    ]
    assert lines.flush() == []


# ---------------------------------------------------------------- terminals


def test_colours_end_with_the_stream_on_a_terminal_only(display: Make) -> None:
    for kind, reset in (("terminal", b"\x1b[0m"), ("pipe", b"")):
        shown = display(kind)
        shown.sink.write(STDOUT, 0, NOON, b"\x1b[31mred\n")
        assert shown.end()[0] == b"\x1b[31mred\n" + reset
    shown = display("terminal")
    shown.sink.write(STDOUT, 0, NOON, b"plain\n")
    assert shown.end() == (b"plain\n",)


def test_colours_end_when_it_is_broken_off(display: Make) -> None:
    shown = display("terminal")
    shown.sink.write(STDOUT, 0, NOON, b"\x1b[31mred")
    shown.sink.reset()
    shown.sink.reset()
    assert shown.close() == (b"\x1b[31mred\x1b[0m",)


def test_the_last_line_on_a_terminal_is_ended(display: Make) -> None:
    shown = display("terminal")
    shown.sink.write(STDOUT, 0, NOON, b"prompt> ")
    assert shown.end() == (b"prompt> \n",)


def test_notices_are_coloured_on_a_terminal_only(display: Make) -> None:
    notice = b"[msgpeek: 5 bytes of stderr are missing: park]"
    yellow = b"\x1b[33m" + notice + b"\x1b[39m\n"
    for kind, options, environment, expected in (
        ("mixed", {}, {}, yellow),
        ("mixed", {}, {"NO_COLOR": "1"}, notice + b"\n"),
        ("mixed", {}, {"TERM": "dumb"}, notice + b"\n"),
        ("mixed", {"color": "never"}, {}, notice + b"\n"),
        ("pipe", {}, {}, notice + b"\n"),
        ("pipe", {"color": "always"}, {}, yellow),
    ):
        shown = display(kind, others={"environment": environment}, **options)
        shown.sink.gap(STDERR, 0, 5, "park")
        assert shown.end()[1].removesuffix(b"\x1b[0m") == expected


def test_one_terminal_for_both_labels_lines_and_keeps_them_apart(display: Make) -> None:
    shown = display("terminal", timestamps=True, color="never")
    shown.sink.write(STDOUT, 0, NOON, b"one\nhalf")
    shown.sink.write(STDERR, 0, NOON, b"warning\n")
    shown.sink.write(STDOUT, 8, NOON, b" more")
    shown.sink.gap(STDERR, 8, 3, "spool")
    shown.sink.write(STDOUT, 13, NOON, b"\n")
    shown.sink.write(STDERR, 11, NOON, b"x\n")
    (text,) = shown.end()
    assert [re.sub(rb"^2\S+ ", b"", line) for line in text.splitlines()] == [
        b"stdout one",
        b"stdout half",
        b"stderr warning",
        b"stdout  more",
        b"[msgpeek: 3 bytes of stderr are missing: spool]",
        b"stdout ",
        b"stderr x",
    ]


def test_two_terminals_have_no_labels(display: Make) -> None:
    shown = display("mixed", timestamps=True)
    shown.sink.write(STDERR, 0, NOON, b"x\n")
    assert re.fullmatch(rb"\x1b\[2m2\S+ \x1b\[22mx\n(\x1b\[0m)?", shown.end()[1])


# ---------------------------------------------------------------- writing


def test_a_reader_that_is_gone_is_told_apart(display: Make) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        sink = TerminalSink(OutputOptions(), stdout=writer)
        with pytest.raises(OutputClosedError):
            sink.write(STDOUT, 0, NOON, b"x")
        sink.reset()
    finally:
        os.close(writer)


def test_a_terminal_that_was_closed_is_a_reader_that_is_gone() -> None:
    master, slave = pty.openpty()
    sink = TerminalSink(OutputOptions(), stdout=slave, stderr=slave)
    os.close(master)
    try:
        with pytest.raises(OutputClosedError):
            sink.write(STDOUT, 0, NOON, b"\x1b[31mx")
        sink.reset()
    finally:
        os.close(slave)


def test_a_full_disk_is_an_error_with_its_reason() -> None:
    with (
        Path("/dev/full").open("wb") as full,
        pytest.raises(OutputError, match="No space left") as caught,
    ):
        TerminalSink(OutputOptions(), stdout=full.fileno()).write(STDOUT, 0, NOON, b"x")
    assert caught.value.exit_code == 125


def test_a_descriptor_that_does_not_block_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = bytes(range(256)) * 8192
    gathered = Reader(reader)
    try:
        write_all(writer, data)
    finally:
        os.close(writer)
    assert gathered.all() == data
    os.close(reader)


# ---------------------------------------------------------------- the last lines


class Record:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def write(self, source: int, offset: int, time: int, data: bytes) -> None:
        self.calls.append((source, offset, time, data))

    def gap(self, source: int, offset: int, length: int, reason: str) -> None:
        self.calls.append((source, offset, length, reason))

    def flush(self) -> None:
        self.calls.append(("flush",))

    def attempt(self, epoch: int) -> None:
        self.calls.append(("attempt", epoch))

    def finish(self) -> None:
        self.calls.append(("finish",))


@given(
    st.lists(st.sampled_from([b"a", b"\n", b"bc\n", b"\n\nx", b"de"]), max_size=30),
    st.integers(0, 8),
)
def test_the_tail_is_that_of_the_whole(chunks: list[bytes], count: int) -> None:
    record = Record()
    tail = Tail(record, count)
    data = b""
    for chunk in chunks:
        tail.write(STDOUT, len(data), 0, chunk)
        data += chunk
    tail.finish()
    expected = b"".join(data.splitlines(keepends=True)[-count:] if count else [])
    writes = [call for call in record.calls if len(call) == 4]
    assert b"".join(call[3] for call in writes) == expected  # type: ignore[misc]
    for _, offset, _, text in writes:
        assert isinstance(offset, int)
        assert isinstance(text, bytes)
        assert data[offset : offset + len(text)] == text
    assert record.calls[-1] == ("finish",)


def test_the_tail_keeps_order_and_the_gaps_among_its_lines() -> None:
    record = Record()
    tail = Tail(record, 2)
    tail.gap(STDOUT, 0, 100, "park")
    tail.write(STDOUT, 100, 1, b"one\ntwo\n")
    tail.gap(STDERR, 0, 7, "park")
    tail.write(STDERR, 7, 2, b"only\n")
    tail.write(STDOUT, 108, 3, b"thr")
    tail.gap(STDOUT, 111, 5, "spool")
    tail.write(STDOUT, 116, 4, b"ee\n")
    assert record.calls == []
    tail.finish()
    assert record.calls == [
        (STDOUT, 104, 1, b"two\n"),
        (STDERR, 0, 7, "park"),
        (STDERR, 7, 2, b"only\n"),
        (STDOUT, 108, 3, b"thr"),
        (STDOUT, 111, 5, "spool"),
        (STDOUT, 116, 4, b"ee\n"),
        ("finish",),
    ]


def test_the_tail_is_of_the_last_attempt() -> None:
    record = Record()
    tail = Tail(record, 5)
    tail.write(STDOUT, 0, 0, b"old\n")
    tail.attempt(2)
    tail.write(STDOUT, 0, 0, b"new\n")
    tail.finish()
    assert record.calls == [("attempt", 2), (STDOUT, 0, 0, b"new\n"), ("finish",)]


def test_the_tail_is_bounded() -> None:
    record = Record()
    tail = Tail(record, 10**9)
    for number in range(400):
        tail.write(STDOUT, number << 16, 0, b"\n" * 65536)
    for number in range(MAX_TAIL // ENTRY + 1000):
        tail.gap(STDERR, number, 1, "")
    tail.finish()
    assert sum(len(call[3]) for call in record.calls if call[0] == STDOUT) <= MAX_TAIL  # type: ignore[arg-type, misc]
    assert len([call for call in record.calls if call[0] == STDERR]) <= MAX_TAIL // ENTRY


# ---------------------------------------------------------------- progress


@pytest.fixture
def screen() -> Iterator[tuple[TextIO, Reader]]:
    """A terminal of 80 columns, and what it gets."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    reader = Reader(master)
    with os.fdopen(slave, "w") as stream:
        yield stream, reader
    reader.all()
    os.close(master)


def rows(data: bytes) -> list[str]:
    """What a terminal shows after these bytes: text, newline and carriage return."""
    lines = [""]
    column = 0
    for character in data.decode():
        if character == "\n":
            lines.append("")
            column = 0
        elif character == "\r":
            column = 0
        else:
            line = lines[-1].ljust(column)
            lines[-1] = line[:column] + character + line[column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def test_since_a_time() -> None:
    """From the first chunk of each source that was read then or later, in its own time."""
    record = Record()
    since = Since(record, NOON)
    for source in (STDOUT, STDERR):
        since.gap(source, 0, 5, "park")
        since.write(source, 5, NOON - 1, b"early")
        since.write(source, 10, NOON, b"then")
        since.write(source, 14, NOON - 1, b"late")
        since.gap(source, 18, 7, "spool")
    since.finish()
    assert record.calls[:-1] == [
        event
        for source in (STDOUT, STDERR)
        for event in (
            (source, 10, NOON, b"then"),
            (source, 14, NOON - 1, b"late"),
            (source, 18, 7, "spool"),
        )
    ]


def test_progress_tells_and_leaves_nothing(screen: tuple[TextIO, Reader]) -> None:
    stream, reader = screen
    with Progress(stream) as progress:
        progress.update(3 << 20, 2048, "live")
        drawn = rows(reader.until(b"live"))
        assert len(drawn) == 1
        assert "3.00MB " in drawn[0]
        assert "2.00kB behind, live" in drawn[0]
    write_all(stream.fileno(), b"END")
    assert rows(reader.until(b"END")) == ["END"]


def test_lines_and_progress_do_not_garble_each_other(screen: tuple[TextIO, Reader]) -> None:
    stream, reader = screen
    progress = Progress(stream)
    sink = TerminalSink(
        OutputOptions(color="never"),
        stdout=stream.fileno(),
        stderr=stream.fileno(),
        environment={},
        curtain=progress,
    )
    expected = []
    for number in range(60):
        progress.update(number * 100, 0, f"state {number}")
        sink.write(STDOUT, 0, NOON, b"line %d" % number)
        progress.update(number * 100, 0, f"inside {number}")
        sink.write(STDOUT, 0, NOON, b" goes on\n")
        expected.append(f"line {number} goes on")
    progress.update(6000, 0, "last")
    progress.close()
    sink.write(STDOUT, 0, NOON, b"END\n")
    data = reader.until(b"END\n")
    assert rows(data) == [*expected, "END", ""]
    assert b"behind, state 5" in data
    assert b"inside" not in data
    assert b"behind, last" in data


def test_lines_that_rush_by_are_not_slowed_down_by_a_bar_each(
    screen: tuple[TextIO, Reader],
) -> None:
    stream, reader = screen
    progress = Progress(stream)
    progress.update(1, 0, "live")
    began = time.monotonic()
    for _ in range(500):
        progress.hide()
        progress.show()
        progress.update(2, 0, "live")
    drawings = (time.monotonic() - began) / INTERVAL + 2
    progress.close()
    write_all(stream.fileno(), b"END")
    assert reader.until(b"END").count(b"behind") <= drawings


def test_without_news_there_is_no_bar(screen: tuple[TextIO, Reader]) -> None:
    stream, reader = screen
    with Progress(stream) as progress:
        progress.hide()
        progress.show()
    write_all(stream.fileno(), b"END")
    assert b"B/s" not in reader.until(b"END")


def test_progress_is_for_terminals(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as stream, Progress(stream) as progress:
        progress.update(1, 2, "live")
        progress.hide()
        progress.show()
    assert (tmp_path / "stderr").read_bytes() == b""


def test_progress_says_what_is_missing(
    screen: tuple[TextIO, Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(MissingDependencyError, match=r"gridmad\[peek\]"):
        Progress(screen[0])


def test_names_of_sources_are_those_of_the_protocol() -> None:
    assert terminal.NAMES == {1: "stdout", 2: "stderr"}
