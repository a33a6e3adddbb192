from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import TransientError
from gridmad.transfer.gridftp_transfer import MOST_EARLY, Order


@given(st.lists(st.binary(min_size=1, max_size=5), max_size=MOST_EARLY), st.randoms())
def test_blocks_come_in_any_order(blocks: list[bytes], random: Random) -> None:
    content = b"".join(blocks)
    told = [(sum(map(len, blocks[:i])), block) for i, block in enumerate(blocks)]
    random.shuffle(told)
    order, got = Order(), b""
    for offset, block in told:
        memory = bytearray(block)
        got += b"".join(order.add(offset, memoryview(memory)))
        memory[:] = bytes(len(memory))  # the library writes the next block there
    order.finish()
    assert got == content


def test_a_block_that_does_not_come() -> None:
    order = Order()
    assert not list(order.add(4, memoryview(b"more")))
    with pytest.raises(TransientError, match="the block at 0 did not come"):
        order.finish()


def test_a_block_that_comes_twice() -> None:
    order = Order()
    assert list(order.add(0, memoryview(b"some"))) == [b"some"]
    with pytest.raises(TransientError, match="the block at 0 came, not that at 4"):
        list(order.add(0, memoryview(b"some")))


def test_blocks_that_are_kept_are_few() -> None:
    order = Order()
    for number in range(1, MOST_EARLY + 1):
        assert not list(order.add(number, memoryview(b"x")))
    with pytest.raises(TransientError):
        list(order.add(MOST_EARLY + 1, memoryview(b"x")))
