"""What gridmad._chunk and gridmad.peek.frame must do, in plain Python: the oracle of their
property tests and the baseline of their bench.  It is not shipped.

Written from PROTOCOL.md, section 3, not from the compiled code.
"""

import hmac
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import lz4.block

HEADER: Final = struct.Struct("<4sBBHIIQQQII")
MAGIC: Final = b"MPK1"
LZ4: Final = 1
MAC: Final = 2
CHUNK: Final = 1
GAP: Final = 2
TYPES: Final = frozenset({*range(1, 10), *range(16, 21)})
MAX_RAW: Final = 65_536
MAX_BODY: Final = 262_144
MAX_NUMBER: Final = 2**63 - 1

Checksum = Callable[[bytes, int], int]
"""The checksum of bytes that follow those of the given one, as zlib.crc32 takes them."""


def _table() -> Iterator[int]:
    for byte in range(256):
        remainder = byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
        yield remainder


_TABLE: Final = tuple(_table())


def crc32c(data: bytes, crc: int = 0) -> int:
    """CRC-32C, a byte at a time."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class DamagedBlockError(Exception):
    """An LZ4 block is damaged or does not hold what it claims."""


@dataclass(slots=True)
class SpecificationFrame:
    """A frame that was whole, known and authentic."""

    type: int
    source: int
    flags: int
    epoch: int
    raw_length: int
    sequence: int
    offset: int
    time: int
    payload: bytes

    def data(self) -> bytes:
        """The payload before compression."""
        if not self.flags & LZ4:
            return self.payload
        try:
            data: bytes = lz4.block.decompress(self.payload, uncompressed_size=self.raw_length)
        except lz4.block.LZ4BlockError as error:
            raise DamagedBlockError from error
        if len(data) != self.raw_length:
            raise DamagedBlockError
        return data


class SpecificationCodec:
    """Makes and reads the frames of one stream.

    `checksum` is another than the protocol's where speed is compared: CRC-32C in plain
    Python would lose to anything.
    """

    def __init__(
        self,
        stream: str,
        key: bytes | None = None,
        *,
        acceleration: int,
        checksum: Checksum = crc32c,
    ) -> None:
        self.damaged = 0
        self._stream = stream.encode("ascii")
        self._key = key
        self._acceleration = acceleration
        self._checksum = checksum

    def chunk(
        self, source: int, epoch: int, sequence: int, offset: int, time: int, data: bytes
    ) -> bytes:
        """A chunk, compressed from 512 bytes on if that makes it shorter."""
        flags, payload = 0, data
        if len(data) >= 512:
            block = lz4.block.compress(
                data, mode="fast", acceleration=self._acceleration, store_size=False
            )
            if len(block) < len(data):
                flags, payload = LZ4, block
        return self.pack(CHUNK, source, flags, epoch, len(data), sequence, offset, time, payload)

    def frame(
        self,
        type: int,  # noqa: A002
        payload: bytes,
        *,
        epoch: int,
        sequence: int,
        time: int,
        source: int = 0,
        offset: int = 0,
    ) -> bytes:
        """Any frame."""
        return self.pack(type, source, 0, epoch, len(payload), sequence, offset, time, payload)

    def pack(
        self,
        type: int,  # noqa: A002
        source: int,
        flags: int,
        epoch: int,
        raw_length: int,
        sequence: int,
        offset: int,
        time: int,
        payload: bytes,
    ) -> bytes:
        """Any header, true or not, with its checksum and its MAC where there is a key."""
        if self._key is not None:
            flags |= MAC
        header = HEADER.pack(
            MAGIC, type, source, flags, epoch, raw_length, sequence, offset, time, len(payload), 0
        )[:44]
        checksum = self._checksum(payload, self._checksum(header, 0))
        frame = header + checksum.to_bytes(4, "little") + payload
        return frame + self._mac(frame) if self._key is not None else frame

    def _mac(self, frame: bytes) -> bytes:
        assert self._key is not None
        return hmac.digest(self._key, self._stream + frame, "sha256")[:16]

    def decode(self, body: bytes) -> list[SpecificationFrame]:
        """The frames of one body; damaged ones are dropped and counted."""
        frames: list[SpecificationFrame] = []
        if not 0 < len(body) <= MAX_BODY:
            self.damaged += 1
            return frames
        at = 0
        while at < len(body):
            if len(body) - at < HEADER.size:
                self.damaged += 1
                break
            (magic, type_, source, flags, epoch, raw_length, sequence, offset, time, length,
             checksum) = HEADER.unpack_from(body, at)  # fmt: skip
            payload_end = at + HEADER.size + length
            end = payload_end + (16 if flags & MAC else 0)
            if magic != MAGIC or flags > LZ4 | MAC or length > MAX_RAW or end > len(body):
                self.damaged += 1
                break
            payload = body[at + HEADER.size : payload_end]
            is_whole = checksum == self._checksum(payload, self._checksum(body[at : at + 44], 0))
            is_authentic = bool(flags & MAC) == (self._key is not None) and (
                self._key is None
                or hmac.compare_digest(self._mac(body[at:payload_end]), body[payload_end:end])
            )
            is_sound = (
                type_ in TYPES
                and (source in (1, 2) if type_ in (CHUNK, GAP) else source == 0)
                and (
                    type_ == CHUNK and length < raw_length <= MAX_RAW
                    if flags & LZ4
                    else raw_length == length
                )
                and (type_ != CHUNK or raw_length > 0)
                and offset + raw_length <= MAX_NUMBER
                and sequence <= MAX_NUMBER
                and time <= MAX_NUMBER
            )
            if is_whole and is_authentic and is_sound:
                numbers = (epoch, raw_length, sequence, offset, time)
                frames.append(SpecificationFrame(type_, source, flags, *numbers, payload))
            else:
                self.damaged += 1
            at = end
        return frames
