"""Frames: the compiled codec against bare LZ4, and against its plain-Python specification.

The specification computes zlib's CRC-32 here: CRC-32C in plain Python would lose to anything.
"""

import zlib
from collections.abc import Callable

import lz4.block
import pytest

from bench.conftest import Contest
from bench.log_lines import log_chunks
from gridmad.peek.frame import ACCELERATION, MAX_BODY, Codec
from tests.peek_specification import SpecificationCodec

STREAM = "0123456789abcdef0123456789abcdef"
LARGE = list(log_chunks(16 << 20))
SMALL = list(log_chunks(1 << 20, 256))


def rate(chunks: list[bytes]) -> Callable[[float], str]:
    """Output in a second."""
    size = sum(map(len, chunks))
    return lambda seconds: f"{size / seconds / 1e9:.2f} GB/s"


def twins() -> tuple[Codec, SpecificationCodec]:
    return (
        Codec(STREAM),
        SpecificationCodec(STREAM, acceleration=ACCELERATION, checksum=zlib.crc32),
    )


def frame_all(codec: Codec | SpecificationCodec, chunks: list[bytes]) -> list[bytes]:
    """Each chunk a body, as the job side makes them."""
    offset = 0
    bodies = []
    for sequence, chunk in enumerate(chunks):
        bodies.append(codec.chunk(1, 0, sequence, offset, 1_795_000_000_000, chunk))
        offset += len(chunk)
    return bodies


def make(codec: Codec | SpecificationCodec, chunks: list[bytes]) -> None:
    """Make all frames, without keeping them."""
    offset = 0
    for sequence, chunk in enumerate(chunks):
        codec.chunk(1, 0, sequence, offset, 1_795_000_000_000, chunk)
        offset += len(chunk)


def read(codec: Codec | SpecificationCodec, bodies: list[bytes]) -> int:
    """Decode all bodies down to the output."""
    return sum(len(frame.data()) for body in bodies for frame in codec.decode(body))


def test_frames_of_64_kib_against_bare_lz4(contest: Contest) -> None:
    """The header and its checksum must vanish beside the compression."""
    codec, _ = twins()
    encoded = sum(map(len, frame_all(codec, LARGE)))
    shrunk = sum(map(len, LARGE)) / encoded

    def bare() -> None:
        for chunk in LARGE:
            lz4.block.compress(chunk, mode="fast", acceleration=ACCELERATION, store_size=False)

    contest.run(
        "chunk and compress, 64 KiB",
        lambda: make(codec, LARGE),
        bare,
        against="bare lz4.block",
        floor=0.95,
        ambition=0.98,
        rounds=60,
        note=lambda seconds: f"{rate(LARGE)(seconds)}, {shrunk:.2f} times fewer bytes",
    )
    assert shrunk >= 2.3


def test_frames_of_256_bytes(contest: Contest) -> None:
    """What interactive output costs: below 512 bytes nothing is compressed."""
    codec, plain = twins()
    contest.run(
        "chunk, 256 B",
        lambda: make(codec, SMALL),
        lambda: make(plain, SMALL),
        against="typed pure Python",
        floor=1.1,
        ambition=1.3,
        rounds=60,
        note=rate(SMALL),
    )


@pytest.mark.parametrize(
    ("name", "chunks", "ambition"), [("64 KiB", LARGE, 1.1), ("256 B", SMALL, 1.3)]
)
def test_unframe(contest: Contest, name: str, chunks: list[bytes], ambition: float) -> None:
    """Decode, check and decompress, a frame in each body."""
    (codec, bodies), (plain, plain_bodies) = (
        (codec, frame_all(codec, chunks)) for codec in twins()
    )
    assert read(codec, bodies) == read(plain, plain_bodies) == sum(map(len, chunks))
    contest.run(
        f"unframe, {name}",
        lambda: read(codec, bodies),
        lambda: read(plain, plain_bodies),
        against="typed pure Python",
        floor=1.0,
        ambition=ambition,
        rounds=60,
        note=rate(chunks),
    )
    assert codec.damaged == plain.damaged == 0


def test_unframe_bodies_of_many_small_frames(contest: Contest) -> None:
    """As a client gets what it was sent again."""
    codec, plain = twins()
    ours, theirs = (_packed(frame_all(either, SMALL)) for either in (codec, plain))
    contest.run(
        "unframe, 256 B, many to a body",
        lambda: read(codec, ours),
        lambda: read(plain, theirs),
        against="typed pure Python",
        floor=1.0,
        ambition=1.3,
        rounds=60,
        note=rate(SMALL),
    )


def _packed(frames: list[bytes]) -> list[bytes]:
    count = MAX_BODY // len(frames[0])
    return [b"".join(frames[at : at + count]) for at in range(0, len(frames), count)]
