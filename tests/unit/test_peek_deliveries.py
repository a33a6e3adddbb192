"""Which messages of the park may be acknowledged."""

from gridmad.peek.deliveries import Deliveries
from gridmad.peek.frame import Codec, Frame, FrameType
from gridmad.peek.messages import Eos, Gap

CODEC = Codec("stream")


def chunk(offset: int, length: int, source: int = 1, epoch: int = 0) -> list[Frame]:
    return CODEC.decode(CODEC.chunk(source, epoch, 0, offset, 0, bytes(length)))


def eos(epoch: int = 0) -> list[Frame]:
    payload = Eos(0, None, None, {}).encode()
    return CODEC.decode(CODEC.frame(FrameType.EOS, payload, epoch=epoch, sequence=0, time=0))


def gap(offset: int, length: int) -> list[Frame]:
    payload = Gap(length, "park").encode()
    return CODEC.decode(
        CODEC.frame(2, payload, epoch=0, sequence=0, time=0, source=1, offset=offset)
    )


def test_a_message_is_done_when_all_of_it_and_all_before_it_is_committed() -> None:
    park = Deliveries()
    park.add("a", chunk(0, 10) + chunk(0, 5, source=2))
    park.add("b", chunk(20, 10))
    park.add("c", chunk(10, 10))
    park.add("d", gap(30, 5))
    assert park.settle(0, {1: 10, 2: 4}, is_complete=False) is None
    assert park.settle(0, {1: 10, 2: 5}, is_complete=False) == "a"
    assert park.settle(0, {1: 20, 2: 5}, is_complete=False) is None  # b is in the way of c
    assert park.settle(0, {1: 30, 2: 5}, is_complete=False) == "c"
    assert park.settle(0, {1: 34, 2: 5}, is_complete=False) is None
    assert park.settle(0, {1: 35, 2: 5}, is_complete=False) == "d"
    assert park.settle(0, {1: 35, 2: 5}, is_complete=False) is None


def test_the_end_waits_for_the_end() -> None:
    park = Deliveries()
    park.add("a", chunk(0, 10))
    park.add("b", eos())
    assert park.settle(0, {1: 10}, is_complete=False) == "a"
    assert park.settle(0, {1: 10}, is_complete=False) is None
    assert park.settle(0, {1: 10}, is_complete=True) == "b"


def test_what_is_not_wanted_damaged_or_of_an_attempt_before_is_in_nobodys_way() -> None:
    park = Deliveries()
    park.add("a", chunk(0, 10, source=2))
    park.add("b", [])
    park.add("c", chunk(0, 10, epoch=0))
    park.add("d", eos(epoch=0))
    park.add("e", chunk(0, 10, epoch=2))
    assert park.settle(1, {1: 0}, is_complete=False) == "d"
    assert park.settle(2, {1: 10}, is_complete=False) == "e"


def test_another_delivery_begins_anew() -> None:
    park = Deliveries()
    park.add("a", chunk(0, 10))
    park.clear()
    assert park.settle(0, {1: 10}, is_complete=True) is None
