"""The filters over output, and showing it, against their plain specification and Python's own."""

import re
import subprocess
import sys

import pytest

from bench.conftest import Contest
from gridmad._screen import Masker, Screen
from gridmad.peek.terminal import STDOUT, OutputOptions, TerminalSink, write_all
from tests import screen_specification as specification

LINE = b"2026-01-31 12:00:00,123 INFO  worker.step: event %d took 3.21 ms, 12 tracks, chi2=1.02\n"
CHUNK = b"".join(LINE % number for number in range(1000))[:65536]
COLOURED = CHUNK.replace(b"INFO", b"\x1b[32mINFO\x1b[0m")[:65536]
WORDS = ("Größe: 你好 ответ 😀 line of text\n" * 2000).encode()[:65536]

# What a control is, as the quickest filter that Python itself has: it leaves the text of
# escapes behind and tears characters of several bytes, but looks at each byte.
CONTROLS = bytes(byte for byte in range(256) if byte < 32 and byte not in b"\t\n\r") + b"\x7f"


class Rate:
    """Bytes a second, as the note of a contest."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, seconds: float) -> str:
        return f"{self._size / seconds / 1e9:.2f} GB/s"


def test_plain_text_against_translate(contest: Contest) -> None:
    """What nearly all output is."""
    contest.run(
        "screen 64 KiB of plain text",
        lambda: Screen().feed(CHUNK),
        lambda: CHUNK.translate(None, CONTROLS),
        against="bytes.translate",
        floor=1.5,
        ambition=3,
        rounds=200,
        note=Rate(len(CHUNK)),
    )


@pytest.mark.parametrize(
    ("name", "chunk", "floor", "ambition"),
    [("plain text", CHUNK, 50, 150), ("coloured", COLOURED, 20, 60), ("UTF-8", WORDS, 10, 25)],
)
def test_screen(contest: Contest, name: str, chunk: bytes, floor: float, ambition: float) -> None:
    """Against decoding and one regular expression."""
    screen = Screen()
    contest.run(
        f"screen 64 KiB, {name}",
        lambda: screen.feed(chunk),
        lambda: specification.screen(chunk),
        against="decode, re.sub, encode",
        floor=floor,
        ambition=ambition,
        rounds=100,
        note=Rate(len(chunk)),
    )


def test_screen_of_a_line(contest: Contest) -> None:
    """What a quiet job writes."""
    screen = Screen()
    line = LINE % 1

    def ours() -> None:
        for _ in range(1000):
            screen.feed(line)

    def plain() -> None:
        for _ in range(1000):
            specification.screen(line)

    contest.run(
        "screen a line", ours, plain, against="decode, re.sub, encode", floor=25, ambition=80
    )


@pytest.mark.parametrize(
    ("count", "floor", "ambition"), [(1, 0.3, 0.6), (8, 2.5, 4.5), (64, 20, 40)]
)
def test_mask_where_no_secret_occurs(
    contest: Contest, count: int, floor: float, ambition: float
) -> None:
    """One search for all secrets, against bytes.replace, which looks for each in turn and
    misses those over an edge; with a single secret it is memchr's speed.
    """
    secrets = [f"{number:02d}-hunter2-hunter2".encode() for number in range(count)]
    masker = Masker(secrets)

    def replace() -> None:
        data = CHUNK
        for secret in secrets:
            data = data.replace(secret, b"*" * len(secret))

    contest.run(
        f"mask {count} secrets in 64 KiB",
        lambda: masker.feed(CHUNK),
        replace,
        against="bytes.replace for each",
        floor=floor,
        ambition=ambition,
        rounds=200,
        note=Rate(len(CHUNK)),
    )


def test_mask_against_a_regular_expression(contest: Contest) -> None:
    """Eight secrets, one of which stands in every tenth line."""
    secrets = [f"{number:02d}-hunter2-hunter2".encode() for number in range(8)]
    data = re.sub(rb"(\d0) took", rb"\1 00-hunter2-hunter2", CHUNK)[:65536]
    masker = Masker(secrets)
    pattern = re.compile(b"|".join(secrets))
    contest.run(
        "mask 8 secrets that occur in 64 KiB",
        lambda: masker.feed(data),
        lambda: pattern.sub(lambda match: b"*" * len(match[0]), data),
        against="re.sub",
        floor=3,
        ambition=8,
        rounds=200,
        note=Rate(len(data)),
    )


def test_text_through_the_sink(contest: Contest) -> None:
    """8 MiB to a pipe, filtered, against the bare writes.

    A look at each byte costs about as much as the kernel's copy: a half is what to hope for,
    at several times the rate at which a stream can come.
    """
    # cat would move the pages without a look at them, as no terminal or file does.
    read = "import os\nwhile os.read(0, 65536): pass"
    command = [sys.executable, "-c", read]
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0) as reader:
        assert reader.stdin is not None
        writer = reader.stdin.fileno()
        sink = TerminalSink(OutputOptions(), stdout=writer, environment={})

        def ours() -> None:
            for number in range(128):
                sink.write(STDOUT, number << 16, 0, CHUNK)

        def plain() -> None:
            for _ in range(128):
                write_all(writer, CHUNK)

        contest.run(
            "8 MiB of text to a pipe",
            ours,
            plain,
            against="bare writes",
            floor=0.3,
            ambition=0.45,
            note=Rate(128 * len(CHUNK)),
        )
