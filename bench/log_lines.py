"""Job-log text: what the benches of peek read, compress and send.

Deterministic.  20 MB are made in half a second, once, and repeated at the speed of copying.
LZ4 at chunks of 64 KiB makes 2.4 times less of it (acceleration 3; 2.5 times at 1).
"""

import random
from collections.abc import Iterator
from typing import Final

CHUNK: Final = 65_536
_BLOCK_LINES: Final = 1 << 17
_LEVELS: Final = ("INFO", "DEBUG", "WARN", "ERROR")

_blocks: list[bytes] = []


def _line(number: int, draw: random.Random) -> str:
    """A line of an event loop: what changes from line to line is what a real one changes."""
    seconds = number // 7
    return (
        f"2026-11-21 {11 + seconds // 3600 % 12:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        f".{draw.randrange(1000):03d} {draw.choice(_LEVELS)} [worker-{draw.randrange(8)}] "
        f"event {number} processed in {draw.random() * 100:.3f} ms, "
        f"run={draw.randrange(300_000, 400_000)} lumi={draw.randrange(3000)} "
        f"pt={draw.random() * 100:.5f} eta={draw.random() * 5 - 2.5:.5f} "
        f"path=/store/data/Run{draw.randrange(100)}/file_{draw.randrange(10**6):06d}.root\n"
    )


def _block() -> bytes:
    """Some 20 MB of whole lines, made once."""
    if not _blocks:
        draw = random.Random(20261121)
        _blocks.append("".join(_line(number, draw) for number in range(_BLOCK_LINES)).encode())
    return _blocks[0]


def log_text(size: int) -> bytes:
    """`size` bytes of log, the same ones each time; what is longer than 20 MB repeats."""
    block = _block()
    if size <= len(block):
        return block[:size]
    return (block * (size // len(block) + 1))[:size]


def log_chunks(size: int, length: int = CHUNK) -> Iterator[bytes]:
    """The same `size` bytes in pieces of `length`, without holding them all."""
    block = _block()
    begin = 0
    while size > 0:
        piece = block[begin : begin + min(length, size)]
        begin += len(piece)
        while len(piece) < min(length, size):
            begin = min(length, size) - len(piece)
            piece += block[:begin]
        yield piece
        size -= len(piece)
