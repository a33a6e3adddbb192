"""`msgpeek ls` on real brokers: job sides that answer, strangers, and brokers that do not."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gridmad.peek.census import collect
from gridmad.peek.channel import Endpoint, Login
from gridmad.peek.conversation import Conversation
from gridmad.peek.errors import AuthenticationError, BrokerError, PeekError
from gridmad.peek.frame import Codec, FrameType
from gridmad.peek.messages import Present, Roll
from gridmad.peek.profiles import Role
from gridmad.peek.stream import Destinations, Templates
from tests.services.ports import reserve_port
from tests.services.stomp_server import StompServer

PATIENCE = 1.0


def destinations(server: StompServer) -> Destinations:
    """Of each test run its own roll."""
    return Destinations("ls", Templates(roll=f"/topic/roll.{server.stomp_port}"))


def login(server: StompServer) -> Login:
    return Login(server.login, server.password)


def endpoint(server: StompServer) -> Endpoint:
    return Endpoint(server.address, server.stomp_port, False)


def present(stream: str, epoch: int = 1, name: str = "job") -> Present:
    return Present(
        stream=stream, name=name, host="node", began=1000 * epoch, end={1: 10}, committed={1: 5},
        holder=None, ended=False, epoch=epoch,
    )  # fmt: skip


@contextmanager
def answering(server: StompServer, answers: list[bytes]) -> Iterator[None]:
    """Answers each ROLL with bodies, as a job side would."""
    names = destinations(server)
    ready, stop = threading.Event(), threading.Event()

    def serve() -> None:
        with Conversation(endpoint(server), login(server)) as conversation:
            conversation.subscribe("roll", names.roll, Role.ROLL)
            # What comes back through another queue shows that the broker has taken it.
            conversation.send(names.control, Role.DATA, b"x")
            ready.set()
            while not stop.is_set():
                message = conversation.receive(time.monotonic() + 0.05)
                if message is None:
                    continue
                for frame in Codec("any").decode(message.body):
                    client = Roll.decode(frame.payload).client
                    for body in answers:
                        conversation.send(names.present(client), Role.PRESENT, body)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        stop.set()
        thread.join()


def frame(one: Present) -> bytes:
    return Codec(one.stream).frame(
        FrameType.PRESENT, one.encode(), epoch=one.epoch, sequence=0, time=0
    )


def complaint(error: PeekError) -> None:
    raise AssertionError(error)


def test_who_answers_is_listed_once_with_its_latest_attempt(broker: StompServer) -> None:
    answers = [present("b", 2), present("a", 3), present("a", 4, "later"), present("a", 1)]
    with answering(broker, [frame(one) for one in answers]):
        found = collect(
            [endpoint(broker)], login(broker), destinations(broker), PATIENCE, complaint
        )
    assert found == [answers[0], answers[2]]


def test_what_is_no_answer_is_dropped(broker: StompServer) -> None:
    good = present("a")
    bad = [
        b"", b"garbage", frame(good)[:-1],
        Codec("a").frame(FrameType.PRESENT, b'{"stream": "../x"}', epoch=0, sequence=0, time=0),
        Codec("a", b"k" * 16).frame(FrameType.PRESENT, good.encode(), epoch=0, sequence=0, time=0),
        Codec("a").frame(FrameType.HELLO, good.encode(), epoch=0, sequence=0, time=0),
    ]  # fmt: skip
    with answering(broker, [*bad, frame(good)]):
        found = collect(
            [endpoint(broker)], login(broker), destinations(broker), PATIENCE, complaint
        )
    assert found == [good]


def test_every_broker_is_asked(rabbitmq: StompServer, activemq: StompServer) -> None:
    names = destinations(rabbitmq)
    absent = Endpoint("127.0.0.1", reserve_port(), False)
    complaints: list[PeekError] = []
    brokers = [endpoint(rabbitmq), absent, endpoint(activemq)]
    with answering(rabbitmq, [frame(present("a", 1))]):
        found = collect(brokers, login(rabbitmq), names, PATIENCE, complaints.append)
    assert [one.stream for one in found] == ["a"]
    assert [type(one) for one in complaints] == [BrokerError]


def test_no_broker_can_be_asked(broker: StompServer) -> None:
    absent = Endpoint("127.0.0.1", reserve_port(), False)
    with pytest.raises(BrokerError, match="cannot be reached"):
        collect([absent], Login(), destinations(broker), PATIENCE, complaint)
    with pytest.raises(AuthenticationError, match="refuses"):
        collect([endpoint(broker)], Login("x", "wrong"), destinations(broker), PATIENCE, complaint)
