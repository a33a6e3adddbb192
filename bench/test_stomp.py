"""STOMP frames through a socket and through both brokers: ours against stomp.py as it comes."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import stomp
import stomp.transport

from bench.conftest import IS_QUICK, Contest
from gridmad._stomp import write
from gridmad.peek.broker import Connection, Endpoint, Login, Role
from gridmad.peek.channel import Channel
from gridmad.peek.errors import PeekError
from gridmad.peek.transport import Transport
from tests.services import activemq, rabbitmq
from tests.services.activemq import ActiveMQ
from tests.services.rabbitmq import RabbitMQ
from tests.services.stomp_server import LOGIN, PASSWORD, StompServer

SERVERS: dict[str, tuple[Callable[[], str | None], Callable[[], StompServer]]] = {
    "rabbitmq": (rabbitmq.missing, RabbitMQ),
    "activemq": (activemq.missing, lambda: ActiveMQ(is_warm=True)),
}


class Counter:
    """Takes messages until there were `count`."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.done = threading.Event()

    def take(self) -> None:
        self.count -= 1
        if self.count == 0:
            self.done.set()

    def wait(self) -> None:
        assert self.done.wait(60)


# ---------------------------------------------------------------- no broker


class Ours(Counter):
    """Who is told of frames by our transport."""

    def on_message(self, _headers: object, _body: bytes) -> None:
        self.take()

    def on_connected(self, _headers: object) -> None: ...
    def on_receipt(self, _receipt: str) -> None: ...
    def on_error(self, _headers: object, _body: bytes) -> None: ...
    def on_closed(self) -> None: ...
    def on_backlog(self) -> None: ...


class Theirs(stomp.ConnectionListener, Counter):  # type: ignore[misc]
    """Who is told of frames by stomp.py's."""

    def on_message(self, _frame: object) -> None:
        self.take()


class PlainTransport(stomp.transport.Transport):  # type: ignore[misc]
    """stomp.py's transport on a socket that is there."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__([], auto_decode=False)
        self._end = end

    def attempt_connection(self) -> None:
        self.socket = self._end


def pump(data: bytes, start: Callable[[socket.socket], Counter]) -> None:
    """Write `data` into one end of a stream while a transport reads the other."""
    here, there = socket.socketpair()
    for end in (here, there):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    with here:
        counter = start(there)
        here.sendall(data)
        counter.wait()


@pytest.mark.parametrize(
    ("size", "floor", "ambition"), [(65_536, 1.5, 3), (1_024, 4, 12)], ids=["64KiB", "1KiB"]
)
def test_receive(contest: Contest, size: int, floor: float, ambition: float) -> None:
    """Read and dispatch binary messages that come as fast as a socket carries them."""
    count = (64 << 20) // size if size > 4096 else 20_000
    headers = {
        "subscription": "data",
        "destination": "/queue/data.x",
        "message-id": "T_data@@session-0@@1",
        "redelivered": "false",
        "ack": "T_data@@session-0@@1",
    }
    # Without NUL bytes, which make stomp.py's time quadratic.
    data = (write("MESSAGE", headers, size) + b"x" * size + b"\0\n") * count

    def ours(end: socket.socket) -> Counter:
        counter = Ours(count)
        transport = Transport(
            lambda: Channel(end), counter, name="bench", virtual_host="/", max_body=1 << 20
        )
        transport.start()
        return counter

    def theirs(end: socket.socket) -> Counter:
        counter = Theirs(count)
        transport = PlainTransport(end)
        transport.set_listener("", counter)
        transport.start()
        return counter

    contest.run(
        f"receive frames of {size} bytes",
        lambda: pump(data, ours),
        lambda: pump(data, theirs),
        against="stomp.py",
        floor=floor,
        ambition=ambition,
        note=lambda seconds: f"{len(data) / seconds / 1e6:.0f} MB/s, {count / seconds:.0f}/s",
    )


# ---------------------------------------------------------------- through brokers


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[StompServer]:
    missing, make = SERVERS[request.param]
    problem = missing()
    if problem:
        pytest.skip(problem)
    with make() as running:
        yield running


class Kept:
    """Our connections: one sends, the other receives."""

    def __init__(self, server: StompServer, queue: str) -> None:
        self.counter = Counter(0)
        self._queue = queue
        self._ready = threading.Semaphore(0)
        endpoint = Endpoint("127.0.0.1", server.stomp_port, False)
        login = Login(LOGIN, PASSWORD)
        self._receiver = Connection([endpoint], login, self)
        self._sender = Connection([endpoint], login, self)
        for connection in (self._receiver, self._sender):
            connection.start()
            assert self._ready.acquire(timeout=20)

    def connected(self, connection: Connection) -> None:
        if connection is self._receiver:
            connection.subscribe("data", self._queue, Role.DATA, prefetch=200)
        self._ready.release()

    def message(self, connection: Connection, name: str, _body: bytes, number: str) -> None:
        self.counter.take()
        # One for many, as a client does.
        if self.counter.count % 100 == 0:
            connection.acknowledge(name, number)

    def lost(self, _connection: Connection, error: PeekError) -> None:
        raise error

    refused = lost

    def run(self, body: bytes, count: int) -> None:
        self.counter = Counter(count)
        for _ in range(count):
            self._sender.send(self._queue, Role.DATA, body)
        self.counter.wait()

    def close(self) -> None:
        self._sender.close()
        self._receiver.close()


class Plain(stomp.ConnectionListener):  # type: ignore[misc]
    """The same with stomp.py, as its documentation shows it.

    On one connection it locks up: the listener's ACK waits for the sender, the sender for the
    broker, and the broker for the listener to read on.
    """

    def __init__(self, server: StompServer, queue: str) -> None:
        self.counter = Counter(0)
        self._queue = queue
        self._sender, self._receiver = (
            stomp.Connection12([("127.0.0.1", server.stomp_port)], auto_decode=False, vhost="/")
            for _ in range(2)
        )
        self._receiver.set_listener("", self)
        for connection in (self._sender, self._receiver):
            connection.connect(LOGIN, PASSWORD, wait=True)
        prefetch = {"prefetch-count": "200", "activemq.prefetchSize": "200"}
        self._receiver.subscribe(queue, "data", ack="client-individual", headers=prefetch)

    def on_message(self, frame: stomp.utils.Frame) -> None:
        self.counter.take()
        self._receiver.ack(frame.headers["ack"])

    def run(self, body: bytes, count: int) -> None:
        self.counter = Counter(count)
        for _ in range(count):
            self._sender.send(self._queue, body)
        self.counter.wait()

    def close(self) -> None:
        for connection in (self._sender, self._receiver):
            with contextlib.suppress(stomp.exception.StompException):
                connection.disconnect()


@pytest.mark.parametrize(
    ("size", "floor", "ambition"), [(65_536, 0.95, 1.3), (1_024, 1, 1.5)], ids=["64KiB", "1KiB"]
)
def test_through_a_broker(
    contest: Contest, server: StompServer, size: int, floor: float, ambition: float
) -> None:
    """Send on one connection, receive on another; the broker shares the processors."""
    count = (1_000 if size > 4096 else 5_000) // (5 if IS_QUICK else 1)
    body = b"x" * size
    ours = Kept(server, f"/queue/data.{os.urandom(8).hex()}")
    plain = Plain(server, f"/queue/data.{os.urandom(8).hex()}")
    try:
        for each in (ours, plain):
            # The broker compiles what it runs often.
            each.run(body, count)
        contest.run(
            f"{server.name}: there and back, {size} bytes",
            lambda: ours.run(body, count),
            lambda: plain.run(body, count),
            against="stomp.py, an ACK each",
            floor=floor,
            ambition=ambition,
            rounds=10,
            note=lambda seconds: (
                f"{count * size / seconds / 1e6:.0f} MB/s, {count / seconds:.0f}/s"
            ),
        )
    finally:
        ours.close()
        plain.close()
