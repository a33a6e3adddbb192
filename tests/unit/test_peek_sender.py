"""The thread that speaks with the broker, where there is none."""

import os
import threading

import pytest

from gridmad.peek.broker import Connection, Endpoint, Login
from gridmad.peek.frame import MAX_RAW, Codec
from gridmad.peek.producer import Identity, Producer
from gridmad.peek.sender import Sender
from gridmad.peek.spool import Spool
from gridmad.peek.stream import Destinations

STREAM = "sender-test"


def test_a_command_does_not_wait_for_a_sender_that_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    codec = Codec(STREAM)
    spool = Spool(None, 0, is_blocking=True, memory=1 << 20)
    producer = Producer(Identity(STREAM, 0, "", "", 0, (1, 2)), codec, spool, 0.0)
    ended = threading.Event()
    sender = Sender(
        producer,
        spool,
        Destinations(STREAM),
        rate=None,
        linger=0.0,
        listed=False,
        changed=ended.set,
    )

    def fill() -> None:
        for number in range(40):
            frame = codec.chunk(1, 0, number, number * MAX_RAW, 0, os.urandom(MAX_RAW))
            spool.append(1, (number + 1) * MAX_RAW, 0, frame)

    command = threading.Thread(target=fill, daemon=True)
    command.start()
    command.join(0.2)
    assert command.is_alive()
    sender.serve(Connection([Endpoint("127.0.0.1", 1, tls=False)], Login(), sender))

    def fail(now: float) -> None:
        raise OSError("the disk of the spool broke")

    sender.finish(fail)
    assert ended.wait(10)
    command.join(10)
    assert not command.is_alive()
    assert "the disk of the spool broke" in caplog.text
