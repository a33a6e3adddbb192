"""The only writer of stdout, over real pipes, sockets and files."""

import asyncio
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gridmad.output import PIPE_SIZE, Output


def play(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """An async test."""

    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


class Events:
    def __init__(self) -> None:
        self.drained = 0
        self.lost = 0

    def note_drained(self) -> None:
        self.drained += 1

    def note_lost(self, _error: OSError) -> None:
        self.lost += 1


def make(descriptor: int) -> tuple[Output, Events]:
    events = Events()
    return Output(descriptor, events.note_drained, events.note_lost), events


@play
async def test_all_that_is_ready_goes_out_in_one_write() -> None:
    # A datagram keeps the bounds of each write.
    near, far = socket.socketpair(type=socket.SOCK_DGRAM)
    with near, far:
        output, _ = make(near.fileno())
        for number in range(100):
            output.write(b"line %d\n" % number)
        assert output.backlog > 0
        output.flush()
        assert output.backlog == 0
        assert far.recv(1 << 16) == b"".join(b"line %d\n" % number for number in range(100))
        output.flush()
        far.setblocking(False)
        with pytest.raises(BlockingIOError):
            far.recv(1)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_slow_reader_gets_every_byte_in_order(kind: str) -> None:
    async def test() -> None:
        if kind == "pipe":
            read, write = os.pipe()
        else:
            ends = socket.socketpair()
            read, write = (end.detach() for end in ends)
        output, events = make(write)
        text = b"".join(b"%d " % number + b"x" * 1000 + b"\n" for number in range(4000))
        half = len(text) // 2
        output.write(text[:half])
        output.flush()
        assert output.backlog > 0
        output.write(text[half:])
        output.flush()
        seen = b""
        while len(seen) < len(text):
            seen += os.read(read, 1 << 16)
            await asyncio.sleep(0)
        assert seen == text
        assert output.backlog == 0
        assert events.drained == 1
        os.close(read)
        os.close(write)

    asyncio.run(test())


@pytest.mark.parametrize("is_full", [False, True])
def test_a_reader_that_is_gone_is_told_once(is_full: bool) -> None:
    async def test() -> None:
        read, write = os.pipe()
        output, events = make(write)
        if is_full:
            output.write(b"x" * (PIPE_SIZE + 1))
            output.flush()
            assert output.backlog > 0
        os.close(read)
        output.write(b"line\n")
        output.flush()
        await asyncio.sleep(0.01)
        output.write(b"line\n")
        output.flush()
        assert output.is_lost
        assert output.backlog == 0
        assert events.lost == 1
        os.close(write)

    asyncio.run(test())


@play
async def test_a_pipe_gets_more_room_and_keeps_its_other_writers_blocking() -> None:
    read, write = os.pipe()
    shared = os.dup(write)
    make(write)
    assert fcntl.fcntl(read, fcntl.F_GETPIPE_SZ) >= 1 << 16
    assert not os.get_blocking(write)
    assert os.get_blocking(shared)
    assert not os.get_inheritable(write)
    for descriptor in (read, write, shared):
        os.close(descriptor)


@play
async def test_the_last_words_wait_for_the_reader() -> None:
    read, write = os.pipe()
    output, _ = make(write)
    text = b"y" * (PIPE_SIZE + 100_000)
    output.write(text)
    output.flush()
    output.write(b"last\n")

    def drain() -> bytes:
        seen = b""
        while len(seen) < len(text) + 5:
            seen += os.read(read, 1 << 16)
        return seen

    reading = asyncio.get_running_loop().run_in_executor(None, drain)
    # The loop is blocked meanwhile, as it is when these words are needed.
    output.flush_blocking()
    asyncio.get_running_loop().remove_writer(write)
    assert await reading == text + b"last\n"
    os.close(read)
    os.close(write)


@play
async def test_a_full_disk_is_told_once() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        reasons: list[OSError] = []
        output = Output(full.fileno(), lambda: None, reasons.append)
        for _ in range(2):
            output.write(b"line\n")
            output.flush()
        assert [reason.errno for reason in reasons] == [errno.ENOSPC]
        assert output.is_lost
        assert output.backlog == 0


@play
async def test_a_terminal_that_is_not_read_does_not_block() -> None:
    near, far = os.openpty()
    try:
        output, _ = make(far)
        output.write(b"x" * 70 * (1 << 20) + b"\n")
        output.flush()
        assert output.backlog > 0
        assert os.get_blocking(near), "the other side is as it was"
    finally:
        os.close(near)
        os.close(far)
