"""The compiled STOMP frames against their specification, whole and in any pieces."""

import subprocess
import sys
import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gridmad._stomp import (
    MAX_BODY,
    MAX_HEADER_BLOCK,
    MAX_HEADERS,
    MAX_PASSED,
    READ_SIZE,
    Reader,
    StompError,
    write,
)
from tests import stomp_specification as specification
from tests.stomp_specification import SpecificationError, SpecificationReader

Frame = tuple[str, dict[str, str], bytes]

TEXTS = st.text(
    st.sampled_from("ab:\\\r\n é\udc80c") | st.characters(exclude_characters="\0"), max_size=8
).filter(lambda text: not _is_odd(text))
NAMES = TEXTS.filter(bool)
HEADERS = st.dictionaries(NAMES, TEXTS, max_size=6)
BODIES = st.binary(max_size=40) | st.text("ab\0\n:\\", max_size=10).map(str.encode)
COMMANDS = st.sampled_from(["CONNECTED", "MESSAGE", "RECEIPT", "ERROR"])


def _is_odd(text: str) -> bool:
    """Whether it does not come back from its own bytes (two surrogates that make a letter)."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") != text
    except UnicodeEncodeError:
        return True


@st.composite
def frames(draw: st.DrawFn) -> tuple[Frame, bytes]:
    """A frame, and one way of writing it."""
    command = draw(COMMANDS)
    headers = draw(HEADERS)
    body = draw(BODIES)
    if command == "CONNECTED":
        headers = {
            name: value
            for name, value in headers.items()
            if not set("\r\n:") & set(name) and not set("\r\n") & set(value)
        }
    headers.pop("content-length", None)
    counted = b"\0" in body or draw(st.booleans())
    if command == "CONNECTED":
        data = specification.write("CONNECT", headers, len(body) if counted else -1)
        data = b"CONNECTED" + data.removeprefix(b"CONNECT")
    else:
        data = specification.write(command, headers, len(body) if counted else -1)
    if draw(st.booleans()):
        data = data.replace(b"\n", b"\r\n")
    if counted:
        headers["content-length"] = str(len(body))
    return (command, headers, body), data + body + b"\0"


EOLS = st.lists(st.sampled_from([b"\n", b"\r\n"]), max_size=3).map(b"".join)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def feed_all(reader: Reader, data: list[bytes]) -> list[Frame]:
    return [frame for piece in data for frame in reader.feed(piece)]


CUTS = st.lists(st.integers(0, 1 << 16), max_size=8)


@given(st.lists(st.tuples(EOLS, frames()), max_size=5), EOLS, CUTS)
def test_frames_come_back_however_they_are_cut(
    made: list[tuple[bytes, tuple[Frame, bytes]]], last: bytes, cuts: list[int]
) -> None:
    data = b"".join(eols + encoded for eols, (_, encoded) in made) + last
    reader = Reader()
    got = feed_all(reader, pieces(data, cuts))
    assert got == [frame for _, (frame, _) in made]
    assert reader.heartbeats == sum(eols.count(b"\n") for eols, _ in made) + last.count(b"\n")
    assert reader.held == 0


NOISE = st.lists(
    st.sampled_from(
        [b"MESSAGE", b"ERROR", b"CONNECTED", b"\n", b"\n", b"\r\n", b"\r", b"\0", b":", b"a:b",
         b"content-length:", b"3", b"content-length:3\n\n", b"abc", b"\\", b"\\n", b"\\t", b"99999"]
    ) | st.binary(max_size=3),
    max_size=20,
).map(b"".join)  # fmt: skip


@given(NOISE, CUTS)
@example(b"MESSAGE\na:b\\\n\nx\0", [])
@example(b"MESSAGE\n:b\n\nx\0", [])
@example(b"MESSAGE\ncontent-length:2\n\nabc\0", [])
@example(b"MESSAGE\ncontent-length:\xb2\n\nabc\0", [])
@example(b"CONNECTED\na:\\\n\n\0MESSAGE\na:\\\n\n\0", [])
@example(b"\r\r\n", [1])
def test_noise_is_taken_as_the_specification_says(data: bytes, cuts: list[int]) -> None:
    ours, plain = Reader(50), SpecificationReader(50)
    for piece in pieces(data, cuts):
        try:
            expected = plain.feed(piece)
        except SpecificationError:
            with pytest.raises(StompError):
                ours.feed(piece)
            return
        assert ours.feed(piece) == expected
        assert ours.heartbeats == plain.heartbeats


@given(COMMANDS | st.just("CONNECT") | st.just("SEND"), st.dictionaries(st.text(), st.text()),
       st.integers(-1, 1 << 40))  # fmt: skip
def test_write(command: str, headers: dict[str, str], size: int) -> None:
    try:
        expected = specification.write(command, headers, size)
    except (ValueError, UnicodeEncodeError):
        with pytest.raises(ValueError):  # noqa: PT011 - of the codec or our own
            write(command, headers, size)
        return
    assert write(command, headers, size) == expected


@pytest.mark.parametrize(
    "headers", [{"login": "a\nb"}, {"passcode": "a\rb"}, {"a:b": "c"}, {"": "x"}, {"a": "\0"}]
)
def test_a_login_cannot_hold_what_would_become_a_header(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="header"):
        write("CONNECT", headers)


@pytest.mark.parametrize("body", [b"", b"x" * READ_SIZE, bytes(MAX_BODY)], ids=len)
@pytest.mark.parametrize("step", [1000, 4096, READ_SIZE])
def test_reading_into_the_room(body: bytes, step: int) -> None:
    data = (write("MESSAGE", {"a": "b"}, len(body)) + body + b"\0\n") * 3
    reader = Reader()
    got: list[Frame] = []
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        with reader.room() as room:
            assert len(room) == READ_SIZE
            room[: len(piece)] = piece
        got += reader.filled(len(piece))
    assert [frame[2] for frame in got] == [body] * 3
    assert reader.held == 0


def test_the_room_is_not_taken_away() -> None:
    reader = Reader()
    room = reader.room()
    for call in (lambda: reader.feed(b"\n"), lambda: reader.filled(0), reader.room):
        with pytest.raises(BufferError):
            call()
    room.release()
    assert reader.filled(0) == []
    for count in (-1, READ_SIZE + 1):
        with pytest.raises(ValueError, match="fit"):
            reader.filled(count)


BOMBS = {
    "a header without an end": (b"MESSAGE\na:", b"x" * 1000),
    "headers without an end": (b"MESSAGE\n", b"a:b\n" * 250),
    "a body without an end": (b"MESSAGE\n\n", b"x" * 1000),
    "a body that is announced": (b"MESSAGE\ncontent-length:999999999999\n\n", b""),
    "a command without an end": (b"", b"M" * 1000),
    "lines of nothing": (b"MESSAGE\n", b":\n" * 500),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_no_memory(name: str) -> None:
    first, rest = BOMBS[name]
    reader = Reader()
    tracemalloc.start()
    try:
        with pytest.raises(StompError):
            feed_all(reader, [first, *[rest] * 2_000])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * MAX_BODY + 4 * READ_SIZE


def test_limits_are_met_exactly() -> None:
    block = b"MESSAGE\na:" + b"x" * (MAX_HEADER_BLOCK - 11)
    assert len(Reader().feed(block + b"\n\n\0")) == 1
    with pytest.raises(StompError, match="headers of more"):
        Reader().feed(block + b"x" + b"\n\n\0")
    many = b"".join(b"%d:x\n" % number for number in range(MAX_HEADERS))
    assert len(Reader().feed(b"ERROR\n" + many + b"\n\0")) == 1
    with pytest.raises(StompError, match="more than"):
        Reader().feed(b"ERROR\n" + many + b"y:x\n\n\0")
    for head in (b"MESSAGE\n\n", b"MESSAGE\ncontent-length:10\n\n"):
        assert len(Reader(10).feed(head + b"x" * 10 + b"\0")) == 1
    with pytest.raises(StompError, match="body"):
        Reader(10).feed(b"MESSAGE\n\n" + b"x" * 11 + b"\0")
    with pytest.raises(StompError, match="body"):
        Reader(10).feed(b"ERROR\ncontent-length:11\n\n")
    with pytest.raises(StompError, match="body"):
        Reader(10).feed(b"MESSAGE\ncontent-length:%d\n\n" % (MAX_PASSED + 1))


@pytest.mark.parametrize("step", [1, 7, 1000, 10**6])
def test_a_message_that_is_too_long_is_passed_over(step: int) -> None:
    """Else it could not be acknowledged, and the broker would deliver it for ever."""
    long = b"MESSAGE\nack:1\ncontent-length:3000\n\n" + b"\0" * 3000 + b"\0"
    data = long + b"MESSAGE\nack:2\ncontent-length:2\n\nxy\0" + long
    reader = Reader(2000)
    got = []
    for at in range(0, len(data), step):
        got += reader.feed(data[at : at + step])
        assert step > 1000 or reader.held < 200
    assert [(headers["ack"], body) for _, headers, body in got] == [
        ("1", b""), ("2", b"xy"), ("1", b"")
    ]  # fmt: skip
    with pytest.raises(StompError, match="longer"):
        reader.feed(long[:-1] + b"x")


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad\r\n", b"SSH-2.0", b"\x15\x03\x03\0\2\2\n", b"\0", b"MESSAGES\n"]
)
def test_another_protocol_is_named(data: bytes) -> None:
    for step in (1, len(data)):
        reader = Reader()
        with pytest.raises(StompError, match="not STOMP"):
            feed_all(reader, [data[at : at + step] for at in range(0, len(data), step)])


@pytest.mark.parametrize("counted", [True, False])
def test_time_is_linear_in_small_pieces(counted: bool) -> None:
    """Four times the body in the same pieces takes about four times as long, not sixteen."""

    def seconds(size: int) -> float:
        data = write("MESSAGE", {}, size if counted else -1) + b"x" * size + b"\0"
        best = float("inf")
        for _ in range(3):
            reader = Reader(1 << 30)
            start = time.thread_time()
            got = 0
            for at in range(0, len(data), 64):
                got += len(reader.feed(data[at : at + 64]))
            best = min(best, time.thread_time() - start)
            assert got == 1
        return best

    assert seconds(4 << 20) < 10 * seconds(1 << 20)


@pytest.mark.parametrize(
    "hook",
    ["_BaseTransport__read_frames", "_BaseTransport__io_loop", "attempt_connection", "send",
     "transmit", "disconnect_socket", "cleanup", "process_frame", "override_threading"],
)  # fmt: skip
def test_stomp_py_has_the_hooks_that_are_used(hook: str) -> None:
    """Some are private, so a later release may lose them without a word."""
    transport = pytest.importorskip("stomp.transport")
    assert callable(getattr(transport.Transport, hook))


def test_stomp_py_is_loaded_by_who_connects() -> None:
    code = "import sys, gridmad.peek.broker as b; assert 'stomp' not in sys.modules; print('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "ok\n", done.stderr


def test_the_lack_of_stomp_py_is_told() -> None:
    code = """\
import sys
sys.modules["stomp"] = None
from gridmad.errors import MissingDependencyError
from gridmad.peek.broker import Connection, Endpoint, Login
try:
    Connection([Endpoint("localhost", 1, False)], Login(), None).start()
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "gridmad[peek]" in done.stdout, done.stderr
