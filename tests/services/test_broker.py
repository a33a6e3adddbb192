"""Connections to real brokers, and what brokers and networks do to them."""

import contextlib
import hashlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gridmad.peek.broker import Connection, Endpoint, Login, Role
from gridmad.peek.errors import AuthenticationError, BrokerError, PeekError
from gridmad.peek.profiles import ACTIVEMQ, RABBITMQ
from tests.services.activemq import ActiveMQ
from tests.services.pki import Authority
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitMQ
from tests.services.stomp_server import (
    LIMITED_LOGIN,
    LIMITED_PASSWORD,
    LOGIN,
    PASSWORD,
    StompServer,
)

TIME = 60.0
"""Seconds after which what was waited for is taken to never happen."""


class Recorder:
    """A handler that notes all; `wait` waits until what it notes satisfies a condition."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.logins = 0
        self.messages: list[tuple[str, bytes, str]] = []
        self.losses: list[PeekError] = []
        self.refusals: list[PeekError] = []
        self.subscriptions: list[tuple[str, str, Role, int]] = []
        self.bytes = 0
        self.keeps_bodies = True
        self.acknowledges = False

    def connected(self, connection: Connection) -> None:
        for name, destination, role, prefetch in self.subscriptions:
            connection.subscribe(name, destination, role, prefetch=prefetch)
        with self.changed:
            self.logins += 1
            self.changed.notify_all()

    def message(
        self, connection: Connection, subscription: str, body: bytes, acknowledgement: str
    ) -> None:
        with self.changed:
            self.bytes += len(body)
            self.messages.append(
                (subscription, body if self.keeps_bodies else b"", acknowledgement)
            )
            self.changed.notify_all()
        if self.acknowledges:
            connection.acknowledge(subscription, acknowledgement)

    def lost(self, connection: Connection, error: PeekError) -> None:
        with self.changed:
            self.losses.append(error)
            self.changed.notify_all()

    def refused(self, connection: Connection, error: PeekError) -> None:
        with self.changed:
            self.refusals.append(error)
            self.changed.notify_all()

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, body, _ in self.messages]

    def wait(self, condition: Callable[[], bool], seconds: float = TIME) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, seconds), (
                self.logins,
                len(self.messages),
                [str(error) for error in self.losses],
                [str(error) for error in self.refusals],
            )

    def has_still(self, condition: Callable[[], bool], seconds: float = 0.5) -> bool:
        """Whether the condition goes on to hold for a while."""
        with self.changed:
            return not self.changed.wait_for(lambda: not condition(), seconds)


@pytest.fixture
def queue() -> str:
    """A destination of its own."""
    return f"/queue/data.{os.urandom(8).hex()}"


@pytest.fixture(params=["plain", "tls"])
def endpoint(broker: StompServer, request: pytest.FixtureRequest) -> Endpoint:
    return tls(broker) if request.param == "tls" else plain(broker)


@pytest.fixture
def login(broker: StompServer) -> Login:
    return Login(LOGIN, PASSWORD, ca=broker.ca)


def plain(broker: StompServer) -> Endpoint:
    return Endpoint("127.0.0.1", broker.stomp_port, False)


def tls(broker: StompServer) -> Endpoint:
    return Endpoint("localhost", broker.tls_port, True)


@contextmanager
def connected(
    endpoints: Endpoint | list[Endpoint],
    login: Login,
    *subscriptions: tuple[str, str, Role, int],
    heartbeat: float = 10.0,
    recorder: Recorder | None = None,
) -> Iterator[tuple[Connection, Recorder]]:
    """A connection that is logged in."""
    with attempted(endpoints, login, *subscriptions, heartbeat=heartbeat, recorder=recorder) as (
        connection,
        seen,
    ):
        seen.wait(lambda: seen.logins > 0)
        yield connection, seen


@contextmanager
def attempted(
    endpoints: Endpoint | list[Endpoint],
    login: Login,
    *subscriptions: tuple[str, str, Role, int],
    heartbeat: float = 10.0,
    recorder: Recorder | None = None,
) -> Iterator[tuple[Connection, Recorder]]:
    """A connection that tries to log in."""
    seen = recorder or Recorder()
    seen.subscriptions.extend(subscriptions)
    connection = Connection(
        endpoints if isinstance(endpoints, list) else [endpoints],
        login,
        seen,
        heartbeat=heartbeat,
        name=f"test {os.urandom(4).hex()}",
    )
    connection.start()
    try:
        yield connection, seen
    finally:
        connection.close()
        # It is given two seconds, after which a thread on a busy machine may still be leaving.
        end = time.monotonic() + TIME
        for thread in threading.enumerate():
            if thread.name.startswith(connection.name):
                thread.join(end - time.monotonic())
                assert not thread.is_alive()


def data(queue: str, prefetch: int = 0) -> tuple[str, str, Role, int]:
    return ("data", queue, Role.DATA, prefetch)


# ---------------------------------------------------------------- what goes through


def test_bodies_arrive_as_they_were_sent(endpoint: Endpoint, login: Login, queue: str) -> None:
    generator = random.Random(1)
    bodies = [b"", b"\0", b"\n\0\nMESSAGE\n\n\0", bytes(range(256)) * 1024]
    bodies += [generator.randbytes(generator.randrange(262_144)) for _ in range(100)]
    with connected(endpoint, login, data(queue)) as (connection, seen):
        for number, body in enumerate(bodies):
            cut = len(body) // 3
            pieces = body if number % 2 else [body[:cut], b"", body[cut:]]
            connection.send(queue, Role.DATA, pieces)
        seen.wait(lambda: len(seen.messages) == len(bodies))
        assert seen.bodies == bodies
        connection.acknowledge("data", seen.messages[-1][2])


def test_the_profile_is_the_brokers(broker: StompServer, login: Login) -> None:
    with connected(plain(broker), login) as (connection, _):
        assert connection.is_connected
        assert connection.endpoint == plain(broker)
        assert connection.server.startswith(connection.profile.server)
        assert connection.profile == (RABBITMQ if broker.name == "rabbitmq" else ACTIVEMQ)


def test_many_pieces(endpoint: Endpoint, login: Login, queue: str) -> None:
    pieces = [b"%06d" % number for number in range(5000)]
    with connected(endpoint, login, data(queue)) as (connection, seen):
        connection.send(queue, Role.DATA, pieces)
        seen.wait(lambda: len(seen.messages) == 1)
        assert seen.bodies == [b"".join(pieces)]


def test_both_directions_full_at_once(endpoint: Endpoint, login: Login) -> None:
    """Two connections send to each other what neither takes before it is read, and
    acknowledge each message from the reading thread.
    """
    size, count = 65_536, 500
    names = [f"/queue/data.{os.urandom(8).hex()}" for _ in range(2)]
    recorders = [Recorder(), Recorder()]
    for seen in recorders:
        seen.acknowledges = True
    sent = [hashlib.sha256(), hashlib.sha256()]
    with (
        connected(endpoint, login, data(names[0], 100), recorder=recorders[0]) as (first, _),
        connected(endpoint, login, data(names[1], 100), recorder=recorders[1]) as (second, _),
    ):

        def fill(connection: Connection, number: int) -> None:
            generator = random.Random(number)
            for _ in range(count):
                body = generator.randbytes(size)
                sent[number].update(body)
                connection.send(names[number], Role.DATA, body)

        threads = [
            threading.Thread(target=fill, args=(connection, number))
            for connection, number in ((first, 1), (second, 0))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        for number, seen in enumerate(recorders):
            seen.wait(lambda seen=seen: len(seen.messages) == count, 60)  # type: ignore[misc]
            got = hashlib.sha256(b"".join(seen.bodies)).digest()
            assert got == sent[number].digest()
        assert not recorders[0].losses
        assert not recorders[1].losses


def test_one_connection_both_ways(endpoint: Endpoint, login: Login, queue: str) -> None:
    """Four threads send on the connection that reads it all: nothing mixes, nothing locks up."""
    seen = Recorder()
    seen.acknowledges = True
    count = 300
    with connected(endpoint, login, data(queue, 50), recorder=seen) as (connection, _):

        def fill(number: int) -> None:
            for index in range(count):
                head = b"%d %d " % (number, index)
                connection.send(queue, Role.DATA, [head, bytes([number]) * 50_000])

        threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        seen.wait(lambda: len(seen.messages) == 4 * count, 60)
        order: dict[bytes, int] = {}
        for body in seen.bodies:
            sender, index, rest = body.split(b" ", 2)
            assert rest == bytes([int(sender)]) * 50_000
            assert int(index) == order.get(sender, 0)
            order[sender] = int(index) + 1


# ---------------------------------------------------------------- acknowledging


def test_what_is_not_acknowledged_goes_to_the_next(
    broker: StompServer, login: Login, queue: str
) -> None:
    with connected(plain(broker), login, data(queue)) as (connection, seen):
        for number in range(10):
            connection.send(queue, Role.DATA, b"%d" % number)
        seen.wait(lambda: len(seen.messages) == 10)
        connection.acknowledge("data", seen.messages[5][2])
        # Done before: ignored, where RabbitMQ would end the connection.
        connection.acknowledge("data", seen.messages[5][2])
        connection.acknowledge("data", seen.messages[2][2])
        assert connection.flush(TIME)
    with connected(plain(broker), login, data(queue)) as (connection, again):
        again.wait(lambda: len(again.messages) == 4)
        assert again.bodies == [b"6", b"7", b"8", b"9"]
        assert again.has_still(lambda: len(again.messages) == 4)
        # Of another login: ignored.
        connection.acknowledge("data", "77" + seen.messages[-1][2])
        assert not again.losses


def test_acknowledging_counts_per_subscription(broker: StompServer, login: Login) -> None:
    """RabbitMQ's own cumulative acknowledgement would take the other subscription's too."""
    kept, done = (f"/queue/data.{os.urandom(8).hex()}" for _ in range(2))
    with connected(
        plain(broker), login, ("kept", kept, Role.TOKEN, 0), ("done", done, Role.PARK, 0)
    ) as (connection, seen):
        connection.send(kept, Role.TOKEN, b"token", persistent=True)
        seen.wait(lambda: len(seen.messages) == 1)
        connection.send(done, Role.PARK, b"parked", persistent=True)
        seen.wait(lambda: len(seen.messages) == 2)
        connection.acknowledge("done", seen.messages[1][2])
    with connected(
        plain(broker), login, ("kept", kept, Role.TOKEN, 0), ("done", done, Role.PARK, 0)
    ) as (connection, again):
        again.wait(lambda: len(again.messages) == 1)
        assert again.bodies == [b"token"]
        assert again.has_still(lambda: len(again.messages) == 1)
        connection.acknowledge("kept", again.messages[0][2])


def test_prefetch_bounds_what_is_delivered(broker: StompServer, login: Login, queue: str) -> None:
    with connected(plain(broker), login, data(queue, 5)) as (connection, seen):
        for number in range(20):
            connection.send(queue, Role.DATA, b"%d" % number)
        seen.wait(lambda: len(seen.messages) == 5)
        assert seen.has_still(lambda: len(seen.messages) == 5)
        connection.acknowledge("data", seen.messages[2][2])
        seen.wait(lambda: len(seen.messages) == 8)
        assert seen.has_still(lambda: len(seen.messages) == 8)
        while len(seen.messages) < 20:
            count = len(seen.messages)
            connection.acknowledge("data", seen.messages[-1][2])
            seen.wait(lambda count=count: len(seen.messages) > count)  # type: ignore[misc]
        connection.acknowledge("data", seen.messages[-1][2])
        assert seen.bodies == [b"%d" % number for number in range(20)]


def test_an_expired_message_is_not_delivered(broker: StompServer, login: Login, queue: str) -> None:
    with connected(plain(broker), login) as (connection, seen):
        connection.send(queue, Role.DATA, b"short", expires=0.2, receipt=True)
        connection.send(queue, Role.DATA, b"long", expires=600, receipt=True)
        assert connection.flush(TIME)
        time.sleep(1)
        connection.subscribe("data", queue, Role.DATA)
        seen.wait(lambda: len(seen.messages) > 0)
        assert seen.bodies == [b"long"]
        connection.acknowledge("data", seen.messages[0][2])


def test_after_unsubscribing_nothing_comes(broker: StompServer, login: Login, queue: str) -> None:
    with connected(plain(broker), login, data(queue)) as (connection, seen):
        connection.send(queue, Role.DATA, b"1")
        seen.wait(lambda: len(seen.messages) == 1)
        connection.acknowledge("data", seen.messages[0][2])
        connection.unsubscribe("data")
        connection.unsubscribe("data")
        connection.send(queue, Role.DATA, b"2", receipt=True)
        assert connection.flush(TIME)
        assert seen.has_still(lambda: len(seen.messages) == 1)
        assert not seen.losses


# ---------------------------------------------------------------- receipts


def test_receipts_confirm(endpoint: Endpoint, login: Login, queue: str) -> None:
    with connected(endpoint, login) as (connection, seen):
        for number in range(200):
            connection.send(queue, Role.DATA, b"%d" % number, persistent=True, receipt=True)
        assert connection.flush(TIME)
        assert not seen.losses


def test_at_most_32_receipts_are_outstanding(broker: StompServer, login: Login, queue: str) -> None:
    with (
        Proxy(broker.stomp_port) as proxy,
        connected(Endpoint("127.0.0.1", proxy.port, False), login) as (connection, _),
    ):
        proxy.freeze()
        sent = []

        def send() -> None:
            for number in range(40):
                connection.send(queue, Role.DATA, b"%d" % number, receipt=True)
                sent.append(number)

        sender = threading.Thread(target=send)
        sender.start()
        sender.join(0.5)
        assert sender.is_alive()
        assert len(sent) == 32
        assert not connection.flush(0.1)
        proxy.thaw()
        sender.join(TIME)
        assert connection.flush(TIME)
        assert len(sent) == 40


def test_a_receipt_that_was_lost_is_told(broker: StompServer, login: Login, queue: str) -> None:
    with (
        Proxy(broker.stomp_port) as proxy,
        connected(Endpoint("127.0.0.1", proxy.port, False), login) as (connection, seen),
    ):
        proxy.freeze()
        connection.send(queue, Role.DATA, b"1", receipt=True)
        proxy.cut()
        proxy.thaw()
        seen.wait(lambda: seen.logins == 2)
        assert not connection.flush(1)
        connection.send(queue, Role.DATA, b"2", receipt=True)
        assert connection.flush(TIME)


# ---------------------------------------------------------------- refused


def test_a_refused_login(endpoint: Endpoint, broker: StompServer) -> None:
    with attempted(endpoint, Login(LOGIN, "wrong", ca=broker.ca)) as (connection, seen):
        seen.wait(lambda: len(seen.refusals) > 0)
        assert isinstance(seen.refusals[0], AuthenticationError)
        assert str(endpoint) in str(seen.refusals[0])
        assert "wrong" not in str(seen.refusals[0])
        assert not connection.is_connected
        with pytest.raises(BrokerError):
            connection.send("/queue/data.x", Role.DATA, b"")


def test_a_login_is_no_way_to_inject_headers(broker: StompServer) -> None:
    with attempted(plain(broker), Login(LOGIN, f"{PASSWORD}\nhost:/")) as (_, seen):
        seen.wait(lambda: len(seen.refusals) > 0)
        assert isinstance(seen.refusals[0], AuthenticationError)
        assert PASSWORD not in str(seen.refusals[0])


def test_a_forbidden_destination(broker: StompServer) -> None:
    login = Login(LIMITED_LOGIN, LIMITED_PASSWORD)
    forbidden = ("x", "/queue/forbidden.x", Role.DATA, 0)
    with attempted(plain(broker), login, forbidden) as (_, seen):
        seen.wait(lambda: len(seen.refusals) > 0)
        assert isinstance(seen.refusals[0], AuthenticationError)
        assert "forbidden.x" in str(seen.refusals[0])
    with connected(plain(broker), login) as (connection, seen):
        connection.send("/queue/forbidden.y", Role.CONTROL, b"", receipt=True)
        seen.wait(lambda: len(seen.refusals) > 0)
        assert isinstance(seen.refusals[0], AuthenticationError)
        assert "forbidden.y" in str(seen.refusals[0])


def test_another_ca(broker: StompServer, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "another CA")
    for ca in (other.ca, None):
        with attempted(tls(broker), Login(LOGIN, PASSWORD, ca=ca)) as (_, seen):
            seen.wait(lambda seen=seen: len(seen.refusals) > 0)  # type: ignore[misc]
            assert isinstance(seen.refusals[0], AuthenticationError)
            assert "--ca" in str(seen.refusals[0])
            assert seen.logins == 0


def test_another_host_name(broker: StompServer, login: Login) -> None:
    """The proxy's address is none of those that the certificate is for."""
    with Proxy(broker.tls_port, address="127.0.0.2") as proxy:
        with attempted(Endpoint("127.0.0.2", proxy.port, True), login) as (_, seen):
            seen.wait(lambda: len(seen.refusals) > 0)
            assert isinstance(seen.refusals[0], AuthenticationError)
            assert "127.0.0.2" in str(seen.refusals[0])
        # An alias that was expanded: the name the user gave is what counts.
        alias = Endpoint("127.0.0.2", proxy.port, True, "localhost")
        with connected(alias, login) as (connection, _):
            assert connection.is_connected


@pytest.mark.parametrize("content", [None, b"", b"no certificate\n"])
def test_an_unusable_ca_file(broker: StompServer, tmp_path: Path, content: bytes | None) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_bytes(content)
    with attempted(tls(broker), Login(LOGIN, PASSWORD, ca=ca)) as (_, seen):
        seen.wait(lambda: len(seen.refusals) > 0)
        assert isinstance(seen.refusals[0], AuthenticationError)
        assert str(ca) in str(seen.refusals[0])


def test_a_client_certificate_is_a_login(rabbitmq: RabbitMQ, queue: str) -> None:
    certificate = rabbitmq.client_certificate
    login = Login(ca=rabbitmq.ca, certificate=certificate.certificate, key=certificate.key)
    with connected(tls(rabbitmq), login, data(queue)) as (connection, seen):
        connection.send(queue, Role.DATA, b"x")
        seen.wait(lambda: len(seen.messages) == 1)


def test_tls_is_expected_where_there_is_none(broker: StompServer, login: Login) -> None:
    endpoint = Endpoint("localhost", broker.stomp_port, True)
    with attempted(endpoint, login) as (_, seen):
        seen.wait(lambda: len(seen.refusals) > 0)
        assert isinstance(seen.refusals[0], BrokerError)
        assert str(endpoint) in str(seen.refusals[0])
        assert "TLS" in str(seen.refusals[0])


def test_tls_is_spoken_to_in_plain(broker: StompServer, login: Login) -> None:
    endpoint = Endpoint("localhost", broker.tls_port, False)
    with attempted(endpoint, login) as (_, seen):
        seen.wait(lambda: len(seen.refusals) > 0)
        assert isinstance(seen.refusals[0], BrokerError)
        assert str(endpoint) in str(seen.refusals[0])
        assert "stomp+ssl" in str(seen.refusals[0])


@pytest.mark.parametrize(
    "greeting",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"* OK IMAP4rev1 ready\r\n",
        b"CONNECTED\nversion:1.2\nbomb:" + b"x" * 10_000_000,
        b"CONNECTED\n" + b"".join(b"%d:x\n" % number for number in range(5_000)),
        b"CONNECTED\ncontent-length:99999999999\n\n",
        b"\0" * 100,
    ],
    ids=["http", "ssh", "imap", "header bomb", "many headers", "body bomb", "zeros"],
)
def test_what_is_no_broker(greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    client, _ = server.accept()
                    with client:
                        client.recv(4096)
                        client.sendall(greeting)
                        client.recv(4096)
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        endpoint = Endpoint("127.0.0.1", server.getsockname()[1], False)
        with attempted(endpoint, Login(LOGIN, PASSWORD)) as (_, seen):
            seen.wait(lambda: len(seen.refusals) > 0)
            assert isinstance(seen.refusals[0], BrokerError)
            assert str(endpoint) in str(seen.refusals[0])
            assert len(str(seen.refusals[0])) < 300
        server.shutdown(socket.SHUT_RDWR)
        thread.join(TIME)


def test_nobody_is_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        endpoint = Endpoint("127.0.0.1", held.getsockname()[1], False)
        with attempted(endpoint, Login(LOGIN, PASSWORD)) as (connection, seen):
            seen.wait(lambda: len(seen.losses) > 2)
            assert str(endpoint) in str(seen.losses[0])
            assert not seen.refusals
            assert not connection.is_connected


def test_a_host_that_does_not_exist() -> None:
    for host in ("no-such-host.invalid", "a" * 300, "ä..b"):
        with attempted(Endpoint(host, 61613, False), Login()) as (_, seen):
            seen.wait(lambda seen=seen: len(seen.losses) > 0)  # type: ignore[misc]
            assert isinstance(seen.losses[0], BrokerError)


# ---------------------------------------------------------------- lost


def test_a_broker_that_is_killed_and_comes_back(
    broker: StompServer, endpoint: Endpoint, login: Login, queue: str
) -> None:
    with connected(endpoint, login, data(queue)) as (connection, seen):
        connection.send(queue, Role.DATA, b"1", persistent=True, receipt=True)
        seen.wait(lambda: len(seen.messages) == 1)
        assert connection.flush(TIME)
        early = seen.messages[0][2]
        broker.wait_until_kept(queue.rpartition("/")[2])
        broker.kill()
        seen.wait(lambda: len(seen.losses) > 0)
        assert not connection.is_connected
        broker.start()
        seen.wait(lambda: seen.logins == 2)
        assert not seen.refusals
        # It was not acknowledged, so it comes again; the old one's acknowledgement is stale.
        seen.wait(lambda: len(seen.messages) == 2)
        assert seen.bodies == [b"1", b"1"]
        connection.acknowledge("data", early)
        connection.acknowledge("data", seen.messages[1][2])
        connection.send(queue, Role.DATA, b"2", receipt=True)
        assert connection.flush(TIME)
        seen.wait(lambda: len(seen.messages) == 3)
        connection.acknowledge("data", seen.messages[2][2])


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_a_cut_in_mid_stream(broker: StompServer, login: Login, queue: str, is_tls: bool) -> None:
    """Again and again while it sends: each time it comes back, and nothing is torn."""
    port = broker.tls_port if is_tls else broker.stomp_port
    with Proxy(port) as proxy:
        endpoint = Endpoint("localhost", proxy.port, is_tls)
        seen = Recorder()
        seen.acknowledges = True
        with connected(endpoint, login, data(queue, 50), recorder=seen) as (connection, _):
            stop = threading.Event()

            def send() -> None:
                number = 0
                while not stop.is_set():
                    try:
                        connection.send(queue, Role.DATA, bytes([number % 256]) * 30_000)
                        number += 1
                    except BrokerError:
                        stop.wait(0.01)

            sender = threading.Thread(target=send)
            sender.start()
            try:
                for cut in range(5):
                    count = len(seen.messages)
                    seen.wait(lambda count=count: len(seen.messages) > count + 20)  # type: ignore[misc]
                    proxy.cut()
                    seen.wait(lambda cut=cut: len(seen.losses) > cut)  # type: ignore[misc]
                    seen.wait(lambda cut=cut: seen.logins > cut + 1)  # type: ignore[misc]
            finally:
                stop.set()
                sender.join(TIME)
            assert not sender.is_alive()
            assert not seen.refusals
            assert {len(body) for body in seen.bodies} == {30_000}
            assert all(body == body[:1] * 30_000 for body in seen.bodies)


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_a_half_open_connection_is_noticed(
    broker: StompServer, login: Login, queue: str, is_tls: bool
) -> None:
    port = broker.tls_port if is_tls else broker.stomp_port
    with Proxy(port) as proxy:
        endpoint = Endpoint("localhost", proxy.port, is_tls)
        with connected(endpoint, login, data(queue), heartbeat=1) as (connection, seen):
            # Silent for a while, but alive: nothing is noticed.
            assert seen.has_still(lambda: not seen.losses, 3)
            proxy.freeze()
            began = time.monotonic()
            seen.wait(lambda: len(seen.losses) > 0)
            # One heart-beat may have come just before; the machine may be busy.
            assert 1 < time.monotonic() - began < 10
            assert "silent" in str(seen.losses[0])
            proxy.thaw()
            seen.wait(lambda: seen.logins == 2)
            connection.send(queue, Role.DATA, b"x")
            seen.wait(lambda: len(seen.messages) > 0)


def test_a_slow_handler_is_no_silent_broker(broker: StompServer, login: Login, queue: str) -> None:
    class Slow(Recorder):
        def message(self, *arguments: object) -> None:
            time.sleep(4)
            super().message(*arguments)  # type: ignore[arg-type]

    seen = Slow()
    with connected(plain(broker), login, data(queue), heartbeat=1, recorder=seen) as (
        connection,
        _,
    ):
        connection.send(queue, Role.DATA, b"1")
        connection.send(queue, Role.DATA, b"2")
        seen.wait(lambda: len(seen.messages) == 2)
        assert not seen.losses


def test_a_handler_that_raises_does_not_end_the_connection(
    broker: StompServer, login: Login, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(Recorder):
        def message(self, *arguments: object) -> None:
            super().message(*arguments)  # type: ignore[arg-type]
            raise RuntimeError("on purpose")

    with connected(plain(broker), login, data(queue), recorder=Faulty()) as (connection, seen):
        for number in range(3):
            connection.send(queue, Role.DATA, b"%d" % number)
        seen.wait(lambda: len(seen.messages) == 3)
        assert not seen.losses
    assert "on purpose" in caplog.text


def test_a_blocked_writer_ends_with_the_connection(
    broker: StompServer, login: Login, queue: str
) -> None:
    for port, is_tls in ((broker.stomp_port, False), (broker.tls_port, True)):
        with Proxy(port) as proxy:
            endpoint = Endpoint("localhost", proxy.port, is_tls)
            with connected(endpoint, login, heartbeat=1) as (connection, seen):
                proxy.freeze()

                def fill(connection: Connection = connection) -> None:
                    with contextlib.suppress(BrokerError):
                        while True:
                            connection.send(queue, Role.DATA, bytes(262_144))

                writer = threading.Thread(target=fill)
                writer.start()
                seen.wait(lambda seen=seen: len(seen.losses) > 0)  # type: ignore[misc]
                writer.join(TIME)
                assert not writer.is_alive()


def test_fail_over_to_another_broker(rabbitmq: RabbitMQ, activemq: ActiveMQ, queue: str) -> None:
    with Proxy(rabbitmq.stomp_port) as proxy:
        endpoints = [Endpoint("127.0.0.1", proxy.port, False), plain(activemq)]
        with connected(endpoints, Login(LOGIN, PASSWORD), data(queue)) as (connection, seen):
            assert connection.profile == RABBITMQ
            proxy.refuse()
            proxy.cut()
            seen.wait(lambda: seen.logins == 2)
            assert connection.profile == ACTIVEMQ
            assert connection.endpoint == plain(activemq)
            connection.send(queue, Role.DATA, b"x")
            seen.wait(lambda: len(seen.messages) == 1)


def test_a_broker_that_refuses_is_passed_over(
    rabbitmq: RabbitMQ, activemq: ActiveMQ, tmp_path: Path
) -> None:
    """Only where every one of the list fails is that told as a refusal."""
    endpoints = [tls(rabbitmq), plain(activemq)]
    other = Authority(tmp_path / "other", "another CA")
    with connected(endpoints, Login(LOGIN, PASSWORD, ca=other.ca)) as (connection, seen):
        assert connection.endpoint == plain(activemq)
        assert not seen.refusals
        assert len(seen.losses) == 1


# Where the peer resets within wrap_socket CPython leaves its socket to be collected.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
def test_a_balancer_without_a_broker_resets_at_once(endpoint: Endpoint, login: Login) -> None:
    """The socket may be gone before anything is asked of it; that ends no thread."""
    with Proxy(endpoint.port) as proxy:
        proxy.refuse()
        balancer = Endpoint(endpoint.host, proxy.port, endpoint.tls)
        with attempted(balancer, login) as (connection, seen):
            seen.wait(lambda: len(seen.losses) >= 4)
            proxy.refuse(False)
            seen.wait(lambda: seen.logins == 1)
            assert connection.is_connected


def test_a_queue_belongs_to_no_connection(broker: StompServer, login: Login, queue: str) -> None:
    """Whoever uses it first; RabbitMQ would lock it for one that sends `persistent:false`."""
    for first, second in ((True, False), (False, True)):
        with connected(plain(broker), login) as (connection, seen):
            connection.send(queue, Role.DATA, b"1", persistent=first, receipt=True)
            assert connection.flush(TIME)
            with connected(tls(broker), login, data(queue)) as (other, also):
                other.send(queue, Role.DATA, b"2", persistent=second, receipt=True)
                assert other.flush(TIME)
                also.wait(lambda also=also: len(also.messages) == 2)  # type: ignore[misc]
                other.acknowledge("data", also.messages[-1][2])
                assert not also.refusals
            assert not seen.refusals


def test_closing_lets_what_was_sent_arrive(endpoint: Endpoint, login: Login, queue: str) -> None:
    with connected(endpoint, login) as (connection, _):
        for number in range(1000):
            connection.send(queue, Role.DATA, b"%d" % number)
        connection.close(TIME)
        assert not connection.is_connected
        connection.close()
    with connected(endpoint, login, data(queue)) as (connection, seen):
        seen.wait(lambda: len(seen.messages) == 1000)
        connection.acknowledge("data", seen.messages[-1][2])


def test_the_handler_may_close(broker: StompServer, login: Login) -> None:
    class Closing(Recorder):
        def connected(self, connection: Connection) -> None:
            super().connected(connection)
            connection.close()

    with connected(plain(broker), login, recorder=Closing()) as (connection, seen):
        deadline = time.monotonic() + TIME
        while connection.is_connected and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not connection.is_connected
        assert seen.logins == 1


def test_heartbeats_keep_an_idle_connection(broker: StompServer, login: Login) -> None:
    for endpoint in (plain(broker), tls(broker)):
        with connected(endpoint, login, heartbeat=1) as (connection, seen):
            assert seen.has_still(lambda seen=seen: not seen.losses, 5)  # type: ignore[misc]
            assert connection.is_connected
