"""Frames: the compiled codec against its specification, and against hostile bytes."""

import random
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import astuple
from typing import Any

import lz4.block
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gridmad import _chunk
from gridmad._chunk import crc32c
from gridmad.errors import MissingDependencyError, UsageError
from gridmad.peek import frame as frames
from gridmad.peek.errors import FrameError
from gridmad.peek.frame import Codec, Frame, FrameType, Source
from tests import peek_specification
from tests.peek_specification import DamagedBlockError, SpecificationCodec, SpecificationFrame

STREAM = "job-1.a"
KEY = bytes(range(32))
KEYS = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "authentic"])
LINE = b"2026-11-21 11:00:00 INFO [worker-3] event 17 processed in 4.2 ms\n"

keys = st.sampled_from([None, KEY])
epochs = st.integers(0, 2**32 - 1)
numbers = st.integers(0, 2**63 - 1)
offsets = st.integers(0, 2**62)
sources = st.sampled_from([1, 2])
outputs = st.one_of(
    st.binary(min_size=1, max_size=2000),
    st.builds(
        lambda piece, count: (piece * count)[:65_536],
        st.binary(min_size=1, max_size=100),
        st.integers(1, 3000),
    ),
)
chunks = st.tuples(sources, epochs, numbers, offsets, numbers, outputs)


def twins(key: bytes | None = None, stream: str = STREAM) -> tuple[Codec, SpecificationCodec]:
    return Codec(stream, key), SpecificationCodec(stream, key, acceleration=frames.ACCELERATION)


def values(frame: Frame | SpecificationFrame) -> tuple[Any, ...]:
    if isinstance(frame, SpecificationFrame):
        return astuple(frame)
    return (
        frame.type, frame.source, frame.flags, frame.epoch, frame.raw_length, frame.sequence,
        frame.offset, frame.time, frame.payload,
    )  # fmt: skip


def data(frame: Frame | SpecificationFrame) -> bytes | None:
    try:
        return frame.data()
    except (FrameError, DamagedBlockError):
        return None


def assert_decoded_alike(body: bytes, key: bytes | None) -> None:
    """Ours and the specification see the same frames, content and damage."""
    codec, plain = twins(key)
    ours, theirs = codec.decode(body), plain.decode(body)
    assert [values(frame) for frame in ours] == [values(frame) for frame in theirs]
    assert [data(frame) for frame in ours] == [data(frame) for frame in theirs]
    assert codec.damaged == plain.damaged


# ---------------------------------------------------------------- checksums


@pytest.mark.parametrize("by_table", [False, True])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        # RFC 3720, appendix B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (
            bytes.fromhex(
                "01c00000000000000000000000000000140000000000040000000014000000182800000000000000"
                "0200000000000000"
            ),
            0xD9963A56,
        ),
    ],
)
def test_checksum_vectors(text: bytes, expected: int, *, by_table: bool) -> None:
    assert crc32c(text, by_table) == expected
    assert peek_specification.crc32c(text) == expected


@given(st.binary(min_size=1, max_size=64), st.integers(0, 8000))
@example(b"\x01", 3 * 512)
@example(b"\x01", 3 * 512 - 1)
@example(b"ab", 6 * 512 + 9)
def test_checksum_equals_a_plain_table(piece: bytes, length: int) -> None:
    text = (piece * (length // len(piece) + 1))[:length]
    expected = peek_specification.crc32c(text)
    assert crc32c(text) == expected
    assert crc32c(text, by_table=True) == expected


# ---------------------------------------------------------------- what is made


def test_a_frame_byte_by_byte() -> None:
    """A test vector for another implementation."""
    body = Codec(STREAM, KEY).chunk(2, 3, 4, 5, 6, b"hello\n")
    assert body == bytes.fromhex(
        "4d504b31 01020200 03000000 06000000 04000000 00000000 05000000 00000000 "
        "06000000 00000000 06000000 fa634cf4 68656c6c 6f0a1d29 93418a5d f030216b e09c8320 de66"
    )


@given(keys, chunks)
def test_chunks_come_back(key: bytes | None, chunk: tuple[int, int, int, int, int, bytes]) -> None:
    codec, plain = twins(key)
    body = codec.chunk(*chunk)
    assert body == plain.chunk(*chunk)
    (frame,) = codec.decode(body)
    source, epoch, sequence, offset, time, output = chunk
    assert (frame.type, frame.source, frame.epoch) == (FrameType.CHUNK, source, epoch)
    assert (frame.sequence, frame.offset, frame.time) == (sequence, offset, time)
    assert frame.data() == output
    assert frame.raw_length == len(output)
    assert codec.damaged == 0
    assert len(body) <= 48 + 16 + len(output)


@given(
    keys,
    st.sampled_from([kind for kind in FrameType if kind not in (FrameType.CHUNK, FrameType.GAP)]),
    st.binary(max_size=300), epochs, numbers, numbers,
)  # fmt: skip
def test_frames_come_back(
    key: bytes | None, kind: FrameType, payload: bytes, epoch: int, sequence: int, time: int
) -> None:
    codec, plain = twins(key)
    body = codec.frame(kind, payload, epoch=epoch, sequence=sequence, time=time)
    assert body == plain.frame(kind, payload, epoch=epoch, sequence=sequence, time=time)
    (frame,) = codec.decode(body)
    assert (frame.type, frame.source, frame.epoch) == (kind, 0, epoch)
    assert (frame.sequence, frame.offset, frame.time) == (sequence, 0, time)
    assert frame.payload == frame.data() == payload


@KEYS
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("length", [1, 511, 512, 65_536])
def test_output_may_be_any_buffer(key: bytes | None, kind: type, length: int) -> None:
    output = (LINE * 1100)[:length]
    codec = Codec(STREAM, key)
    body = codec.chunk(1, 0, 0, 0, 0, kind(output))
    assert body == codec.chunk(1, 0, 0, 0, 0, output)
    assert codec.decode(body)[0].data() == output


def test_what_shrinks_is_compressed() -> None:
    codec = Codec(STREAM)
    small, large = codec.chunk(1, 0, 0, 0, 0, LINE * 7), codec.chunk(1, 0, 0, 0, 0, LINE * 8)
    assert codec.decode(small)[0].flags == 0
    assert codec.decode(large)[0].flags == 1
    noise = random.Random(1).randbytes(8000)
    (frame,) = codec.decode(codec.chunk(1, 0, 0, 0, 0, noise))
    assert (frame.flags, frame.data()) == (0, noise)


@pytest.mark.parametrize(
    "change",
    [
        {"type": 0}, {"type": 10}, {"type": 15}, {"type": 21}, {"type": 255},
        {"type": 33},  # 1, were the bits counted modulo 32
        {"source": 0}, {"source": 3}, {"type": 3, "source": 1}, {"type": 2, "source": 0},
        {"epoch": 2**32}, {"epoch": -1}, {"sequence": -1}, {"sequence": 2**63}, {"offset": -1},
        {"offset": 2**63 - 4}, {"time": -1}, {"payload": b""}, {"payload": bytes(65_537)},
        {"raw_length": 4}, {"raw_length": 65_537}, {"raw_length": 0}, {"raw_length": 2**40},
        {"type": 3, "source": 0, "raw_length": 9},
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "type": 1, "source": 1, "epoch": 0, "sequence": 0, "offset": 0, "time": 0,
        "payload": b"abcd",
    }  # fmt: skip
    assert _chunk.encode(**good)
    with pytest.raises((ValueError, OverflowError)):
        _chunk.encode(**good | change)


def test_an_output_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot stand for"):
        Codec(STREAM).chunk(1, 0, 0, 0, 0, bytes(65_537))


def test_types_are_those_of_the_compiled_code() -> None:
    for number in range(256):
        source = 1 if number in (FrameType.CHUNK, FrameType.GAP) else 0
        if number in list(FrameType):
            assert _chunk.encode(number, source, 0, 0, 0, 0, b"x")
        else:
            with pytest.raises(ValueError, match="no frame"):
                _chunk.encode(number, source, 0, 0, 0, 0, b"x")
    assert list(Source) == [0, 1, 2]
    assert (frames.HEADER_LENGTH, frames.MAC_LENGTH) == (48, 16)
    assert (frames.MAX_RAW, frames.MAX_BODY) == (65_536, 262_144)


@pytest.mark.parametrize("length", [0, 15, 65])
def test_a_key_of_a_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(UsageError, match="16 to 64"):
        Codec(STREAM, bytes(length))


def test_frames_are_made_by_decoding_only() -> None:
    with pytest.raises(TypeError):
        Frame()
    (frame,) = Codec(STREAM).decode(Codec(STREAM).chunk(1, 0, 0, 0, 0, b"x"))
    with pytest.raises(AttributeError):
        frame.offset = 7  # type: ignore[misc]


def test_threads_may_share_a_codec() -> None:
    codec = Codec(STREAM, KEY)
    outputs = [LINE * count for count in range(1, 400)]
    expected = [codec.chunk(1, 0, 0, 0, 0, output) for output in outputs]
    made: dict[int, list[bytes]] = {}

    def make(number: int) -> None:
        made[number] = [codec.chunk(1, 0, 0, 0, 0, output) for output in outputs]

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == dict.fromkeys(range(4), expected)


# ---------------------------------------------------------------- hostile bytes


def hostile_body(key: bytes | None) -> st.SearchStrategy[bytes]:
    """Frames whose checksum and MAC are right and whose headers say anything."""
    plain = SpecificationCodec(STREAM, key, acceleration=1)
    edges = st.sampled_from([0, 1, 2, 47, 48, 65_535, 65_536, 65_537, 2**31, 2**32 - 1])
    wide = st.one_of(edges, st.sampled_from([2**63 - 1, 2**63 - 2, 2**63, 2**64 - 1]), numbers)
    header = st.builds(
        plain.pack,
        st.one_of(st.sampled_from([1, 1, 1, 2, 3]), st.integers(0, 255)),
        st.one_of(st.integers(0, 3), st.integers(0, 255)),
        st.one_of(st.integers(0, 4), st.integers(0, 65_535)),
        epochs,
        st.one_of(st.integers(0, 40), edges),
        wide, wide, wide,
        st.one_of(
            st.binary(max_size=30),
            st.builds(lambda text: bytes(lz4.block.compress(text, store_size=False)),
                      st.binary(max_size=30)),
        ),
    )  # fmt: skip
    return st.lists(header, min_size=1, max_size=4).map(b"".join)


@given(keys.flatmap(lambda key: st.tuples(hostile_body(key), st.just(key))))
def test_true_checksums_do_not_make_a_header_true(case: tuple[bytes, bytes | None]) -> None:
    assert_decoded_alike(*case)


@given(st.binary(max_size=400), keys, st.booleans())
def test_any_bytes(noise: bytes, key: bytes | None, has_magic: bool) -> None:
    assert_decoded_alike(b"MPK1" * has_magic + noise, key)


@given(
    keys, keys, st.lists(chunks, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0), st.integers(0, 3), st.binary(max_size=4)), max_size=4),
)  # fmt: skip
def test_edited_bodies(
    key: bytes | None,
    reader: bytes | None,
    made: list[tuple[int, int, int, int, int, bytes]],
    edits: list[tuple[int, int, bytes]],
) -> None:
    codec = Codec(STREAM, key)
    body = b"".join(codec.chunk(*chunk[:5], chunk[5][:700]) for chunk in made)
    for place, removed, added in edits:
        at = place % (len(body) + 1)
        body = body[:at] + added + body[at + removed :]
    assert_decoded_alike(body, reader)


@KEYS
def test_any_byte_that_is_flipped_drops_its_frame(key: bytes | None) -> None:
    codec = Codec(STREAM, key)
    before = codec.chunk(1, 1, 1, 10, 1, b"before")
    middle = codec.chunk(1, 1, 2, 16, 2, LINE * 10)
    after = codec.chunk(2, 1, 3, 0, 3, b"after")
    body = before + middle + after
    for place in range(len(before), len(before) + len(middle)):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(body)
            damaged[place] ^= mask
            codec.damaged = 0
            decoded = codec.decode(bytes(damaged))
            assert codec.damaged
            assert [frame.sequence for frame in decoded] in ([1], [1, 3])
            # Behind the numbers that say where the next frame begins.
            if place - len(before) >= 44:
                assert [frame.sequence for frame in decoded] == [1, 3]
                assert codec.damaged == 1


@KEYS
def test_bodies_that_are_cut(key: bytes | None) -> None:
    codec = Codec(STREAM, key)
    one = codec.chunk(1, 0, 1, 0, 0, LINE)
    body = one + codec.chunk(1, 0, 2, 0, 0, LINE * 10)
    for length in range(len(body)):
        codec.damaged = 0
        decoded = codec.decode(body[:length])
        assert [frame.sequence for frame in decoded] == [1] * (length >= len(one))
        assert codec.damaged == (length != len(one))


def test_who_has_no_key_or_another_one() -> None:
    chunk = (1, 0, 0, 0, 0, b"secret")
    plain, authentic = Codec(STREAM).chunk(*chunk), Codec(STREAM, KEY).chunk(*chunk)
    for reader, body in (
        (Codec(STREAM), authentic),
        (Codec(STREAM, KEY), plain),
        (Codec(STREAM, KEY[::-1]), authentic),
        (Codec("another", KEY), authentic),
    ):
        assert reader.decode(body + body) == []
        assert reader.damaged == 2
    # Another header under the same MAC, with its checksum made right.
    forged = SpecificationCodec(STREAM, acceleration=1).pack(1, 1, 2, 0, 6, 0, 99, 0, b"secret")
    reader = Codec(STREAM, KEY)
    assert reader.decode(forged + authentic[-16:]) == []
    assert reader.damaged == 1


def test_the_longest_bodies() -> None:
    codec = Codec(STREAM)
    tiny = codec.frame(FrameType.ALIVE, b"", epoch=0, sequence=0, time=0)
    last = codec.frame(FrameType.PROBE, bytes(16), epoch=0, sequence=0, time=0)
    exact = tiny * 5460 + last
    assert len(exact) == 262_144
    assert len(codec.decode(exact)) == 5461
    assert codec.damaged == 0
    assert codec.decode(exact + b"M") == []
    assert codec.decode(b"") == []
    assert codec.damaged == 2


def test_a_frame_does_not_keep_a_much_larger_body() -> None:
    codec = Codec(STREAM)
    body = codec.chunk(1, 0, 0, 0, 0, b"x") + codec.chunk(1, 0, 0, 1, 0, LINE * 900)
    free = sys.getrefcount(body)
    small, large = codec.decode(body)
    assert sys.getrefcount(body) == free + 1
    del large
    assert sys.getrefcount(body) == free
    assert small.data() == b"x"


# ---------------------------------------------------------------- LZ4 blocks that lie


def lying(block: bytes, raw_length: int) -> bytes:
    plain = SpecificationCodec(STREAM, acceleration=1)
    return plain.pack(1, 1, 1, 0, raw_length, 0, 0, 0, block)


@pytest.mark.parametrize("claim", [1000, 9_999, 10_001, 65_536])
def test_a_block_that_holds_more_or_less_than_it_claims(claim: int) -> None:
    block = lz4.block.compress(bytes(10_000), store_size=False)
    codec = Codec(STREAM)
    assert codec.decode(lying(block, 10_000))[0].data() == bytes(10_000)
    (frame,) = codec.decode(lying(block, claim))
    with pytest.raises(FrameError):
        frame.data()


def test_a_bomb_allocates_no_more_than_a_chunk() -> None:
    block = lz4.block.compress(bytes(16_000_000), store_size=False)
    assert len(block) < 65_536
    (frame,) = Codec(STREAM).decode(lying(block, 65_536))
    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            frame.data()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 65_536


@given(st.binary(max_size=200), st.integers(1, 65_536))
@example(b"\x00", 65_536)
def test_any_block(block: bytes, claim: int) -> None:
    assert_decoded_alike(lying(block, claim), None)


# ---------------------------------------------------------------- without lz4


def test_lz4_is_imported_when_a_chunk_needs_it() -> None:
    code = f"""
import sys
sys.modules["lz4"] = sys.modules["lz4.block"] = None
from gridmad.errors import MissingDependencyError
from gridmad.peek.frame import Codec
codec = Codec({STREAM!r})
assert codec.decode(codec.chunk(1, 0, 0, 0, 0, b"x" * 511))[0].data() == b"x" * 511
(frame,) = codec.decode(bytes.fromhex({Codec(STREAM).chunk(1, 0, 0, 0, 0, LINE * 9).hex()!r}))
for operation in (frame.data, lambda: codec.chunk(1, 0, 0, 0, 0, b"x" * 512)):
    try:
        operation()
    except MissingDependencyError as error:
        print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.splitlines() == [str(MissingDependencyError("lz4", "peek"))] * 2
