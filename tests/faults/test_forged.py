"""Somebody else with rights on the broker: takes, doubles, reorders, damages and forges frames."""

import random
import struct
import time
from collections.abc import Iterator

import lz4.block
import pytest

from gridmad._chunk import crc32c
from gridmad.peek.broker import Endpoint, Login, Role
from gridmad.peek.conversation import Conversation, Message
from gridmad.peek.frame import Codec, FrameType
from gridmad.peek.stream import Destinations
from tests.faults.scene import MEMORY, Scene
from tests.peek_specification import CHUNK, HEADER, LZ4, MAGIC
from tests.peek_user import peak

RATE = 4e6
GATE = 1_000_000
TOLD = "damaged or forged frames come: they are dropped"


class Stranger:
    """Knows the stream and its client, but no key."""

    def __init__(self, scene: Scene) -> None:
        server = scene.server
        self.chance = scene.chance
        self.codec = Codec(scene.stream)
        destinations = Destinations(scene.stream)
        client = (scene.folder / "out.msgpeek").read_bytes()[16:32].hex()
        self.places = {
            "data": (destinations.data(client), Role.DATA),
            "control": (destinations.control, Role.CONTROL),
        }
        self._conversation = Conversation(
            Endpoint(server.address, server.stomp_port, False), Login(server.login, server.password)
        )

    def listen(self) -> None:
        """Compete with the client and the job side for what comes."""
        for name, (destination, role) in self.places.items():
            self._conversation.subscribe(name, destination, role)

    def take(self, seconds: float) -> list[Message]:
        """What the broker gives to the stranger instead."""
        end, taken = time.monotonic() + seconds, []
        while (message := self._conversation.receive(end)) is not None:
            taken.append(message)
        return taken

    def send(self, place: str, body: bytes) -> None:
        self._conversation.send(*self.places[place], body)

    def close(self) -> None:
        self._conversation.close()


def key_words(scene: Scene, is_keyed: bool) -> list[str]:
    if not is_keyed:
        return []
    path = scene.folder / "key"
    path.touch(0o600)
    path.write_bytes(b"k" * 32)
    return ["--key-file", str(path)]


@pytest.fixture(params=[False, True], ids=["plain", "key"])
def is_keyed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_frames_are_taken_doubled_and_reordered(scene: Scene, is_keyed: bool) -> None:
    words = key_words(scene, is_keyed)
    until = scene.folder / "until"
    job = scene.job("--hold-for-client", *words, rate=RATE, until=str(until), code=3)
    client = scene.client(*words)
    scene.wait_for_size(GATE)
    stranger = Stranger(scene)
    stranger.listen()
    again = {"data": 0, "control": 0}
    while min(again.values()) < 3 or max(again.values()) < 100:
        assert scene.size("out") < 80 * GATE, again
        taken = stranger.take(0.2)
        scene.chance.shuffle(taken)
        for message in taken:
            for _ in range(scene.chance.choice([0, 1, 1, 2, 3])):
                stranger.send(message.subscription, message.body)
                again[message.subscription] += 1
    stranger.close()
    until.touch()
    assert scene.finish(client) == 3
    assert scene.finish(job) == 3
    scene.assert_exact()
    assert scene.gaps() == []


def bombs(offset: int) -> Iterator[bytes]:
    """Chunks that hold more, or less, or other things than they claim."""
    huge = lz4.block.compress(bytes(15 << 20), store_size=False)[:65_536]
    for raw, block in (
        (65_536, huge),
        (65_536, lz4.block.compress(bytes(20), store_size=False)),
        (65_536, b"\xff" * 60_000),
        (60_000, b"\0" * 100),
    ):
        head = HEADER.pack(
            MAGIC, CHUNK, 1, LZ4, 0, raw, 2**40, offset, 10**12, len(block), 0
        )  # fmt: skip
        crc = crc32c(head[:44] + block)
        yield head[:44] + struct.pack("<I", crc) + block


def garbage(chance: random.Random, codec: Codec, epoch: int, offset: int) -> Iterator[bytes]:
    """What is no frame, or is one only at first sight."""
    chunk = codec.chunk(1, epoch, 7, offset, 10**12, chance.randbytes(3000))
    yield b""
    yield chance.randbytes(1)
    yield chance.randbytes(200_000)
    yield MAGIC * 60_000
    yield b"{" * 4096
    for _ in range(20):
        yield chunk[: chance.randrange(len(chunk))]
        bent = bytearray(chunk)
        bent[chance.randrange(len(chunk))] ^= 1 << chance.randrange(8)
        yield bytes(bent)
    yield from bombs(offset)
    types = [FrameType.HELLO, FrameType.ALIVE, FrameType.EOS, FrameType.BEGIN, FrameType.ACK]
    for kind in types:
        for payload in (
            b"",
            b"[" * 4096,
            b'{"client": 1, "client": 2}',
            b'{"exit": 1e999}',
            b"\xff",
        ):
            yield codec.frame(kind, payload, epoch=epoch, sequence=2**62, time=10**12)


def forged(codec: Codec, epoch: int, offset: int) -> Iterator[bytes]:
    """Frames that would count if their maker had the key."""
    yield codec.chunk(1, epoch, 7, offset, 10**12, b"forged\n" * 50)
    yield codec.chunk(1, epoch + 1, 7, 0, 10**12, b"forged\n" * 50)
    eos = (
        b'{"exit":0,"signal":null,"reason":null,"sources":'
        b'{"1":{"end":1,"sha256":null},"2":{"end":0,"sha256":null}}}'
    )
    yield codec.frame(FrameType.EOS, eos, epoch=epoch, sequence=8, time=10**12)
    gap = b'{"length":1000,"reason":"spool"}'
    yield codec.frame(
        FrameType.GAP, gap, epoch=epoch, sequence=9, time=10**12, source=1, offset=offset
    )


def test_garbage_and_forgeries_are_dropped_and_counted(scene: Scene, is_keyed: bool) -> None:
    words = key_words(scene, is_keyed)
    job = scene.job(
        *("--hold-for-client", "--epoch", "0", *words), size=3 * GATE, gate=GATE, code=3
    )
    client = scene.client(*words)
    scene.wait_for_size(GATE)
    # Till the gate is open nothing else comes: it is at that offset.
    offset = len(scene.produced())
    scene.wait_for_size(offset)
    stranger = Stranger(scene)
    assert TOLD not in scene.log(client)
    bodies = list(garbage(scene.chance, stranger.codec, 0, offset))
    if is_keyed:
        other = Codec(scene.stream, b"w" * 32)
        for codec in (stranger.codec, other):
            bodies += forged(codec, 0, offset)
    for place in stranger.places:
        for body in bodies:
            stranger.send(place, body)
    scene.wait_for(lambda: TOLD in scene.log(client))
    stranger.close()
    for process in (client, job):
        assert process.poll() is None
        assert peak(process.pid) < MEMORY
    scene.open_gate()
    assert scene.finish(client) == 3
    assert scene.finish(job) == 3
    scene.assert_exact()
    assert scene.gaps() == []


def test_a_message_that_is_too_large_is_passed_over(scene: Scene) -> None:
    job = scene.job("--hold-for-client", size=3 * GATE, gate=GATE, code=3)
    client = scene.client()
    scene.wait_for_size(GATE)
    stranger = Stranger(scene)
    for place in stranger.places:
        stranger.send(place, bytes(3 << 20))
    stranger.close()
    scene.open_gate()
    assert scene.finish(client) == 3
    assert scene.finish(job) == 3
    scene.assert_exact()
