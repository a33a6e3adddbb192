"""The thread that speaks with the broker, where there is none."""

import os
import socket
import threading
from collections.abc import Callable

import pytest

from gridmad.peek import sender as sender_module
from gridmad.peek.broker import Connection, Endpoint, Login
from gridmad.peek.frame import MAX_RAW, Codec
from gridmad.peek.producer import Identity, Producer
from gridmad.peek.sender import RECONNECT, Sender
from gridmad.peek.spool import Spool
from gridmad.peek.stream import Destinations

STREAM = "sender-test"


def new_sender(codec: Codec, spool: Spool, changed: Callable[[], None], linger: float) -> Sender:
    producer = Producer(Identity(STREAM, 0, "", "", 0, (1, 2)), codec, spool, 0.0)
    return Sender(
        producer,
        spool,
        Destinations(STREAM),
        rate=None,
        linger=linger,
        listed=False,
        changed=changed,
    )


def test_a_command_does_not_wait_for_a_sender_that_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    codec = Codec(STREAM)
    spool = Spool(None, 0, is_blocking=True, memory=1 << 20)
    ended = threading.Event()
    sender = new_sender(codec, spool, ended.set, linger=0.0)

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


def test_a_job_that_has_ended_does_not_wait_for_a_broker_that_was_never_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender_module, "FIRST_LOGIN", 0.1)
    codec = Codec(STREAM)
    spool = Spool(None, 1 << 20)
    spool.append(1, 5, 0, codec.chunk(1, 0, 0, 0, 0, b"hello"))
    ended = threading.Event()
    sender = new_sender(codec, spool, ended.set, linger=10 * RECONNECT)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = Connection(
            [Endpoint("127.0.0.1", silent.getsockname()[1], tls=False)], Login(), sender
        )
        connection.start()
        sender.serve(connection)
        sender.finish(lambda _now: None)
        assert ended.wait(RECONNECT / 2)
        connection.close(0)
