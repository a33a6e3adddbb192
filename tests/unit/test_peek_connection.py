"""Connections and conversations with peers that no broker is: hostile, slow or broken ones."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from gridmad.peek.broker import Connection
from gridmad.peek.channel import Endpoint, Login, expand
from gridmad.peek.conversation import Conversation
from gridmad.peek.errors import AuthenticationError, BrokerError, PeekError
from gridmad.peek.profiles import Role

CONNECTED = b"CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0"
Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def peer(serve: Serve) -> Iterator[Endpoint]:
    """A server that treats each connection with `serve`, in a thread of its own."""
    server = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def attend(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(30)
            serve(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=attend, args=(connection,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield Endpoint("127.0.0.1", server.getsockname()[1], False)
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for thread in (accepting, *threads):
            thread.join()


def answer(*frames: bytes) -> Serve:
    """Says the next of `frames` for each that comes, and waits for the end."""

    def serve(connection: socket.socket) -> None:
        for frame in frames:
            heard = b""
            while not heard.endswith(b"\0"):
                heard += connection.recv(4096) or b"\0"
            connection.sendall(frame)
        while connection.recv(4096):
            continue

    return serve


def flood(connection: socket.socket) -> None:
    """Logs in, and sends messages without end."""
    connection.recv(4096)
    connection.sendall(CONNECTED)
    body = b"x" * 100_000
    message = b"MESSAGE\nsubscription:s\ncontent-length:%d\n\n%s\0" % (len(body), body)
    while True:
        connection.sendall(message)


class Seen:
    """A handler that counts."""

    def __init__(self) -> None:
        self.logins = 0
        self.trouble: list[PeekError] = []
        self.changed = threading.Event()

    def connected(self, connection: Connection) -> None:
        self.logins += 1
        self.changed.set()

    def message(self, connection: Connection, name: str, body: bytes, number: str) -> None:
        raise AssertionError("nobody has subscribed")

    def lost(self, connection: Connection, error: PeekError) -> None:
        self.trouble.append(error)
        self.changed.set()

    refused = lost


# ---------------------------------------------------------------- a connection that is kept


def test_a_heartbeat_header_of_thousands_of_digits() -> None:
    seen = Seen()
    with peer(answer(CONNECTED.replace(b"0,0", b"9" * 4000 + b",1"))) as endpoint:
        connection = Connection([endpoint], Login(), seen)
        connection.start()
        assert seen.changed.wait(30)
        connection.close(0.2)
    assert (seen.logins, seen.trouble) == (1, [])


def test_closing_during_the_login_ends_it() -> None:
    """What logs in afterwards would hold messages that nobody takes."""
    asked, closed = threading.Event(), threading.Event()
    seen = Seen()

    def late(connection: socket.socket) -> None:
        connection.recv(4096)
        asked.set()
        assert closed.wait(30)
        connection.sendall(CONNECTED)
        while connection.recv(4096):
            continue

    with peer(late) as endpoint:
        connection = Connection([endpoint], Login(), seen, name="late one")
        connection.start()
        assert asked.wait(30)
        connection.close(0.1)
        closed.set()
        end = time.monotonic() + 30
        while any(one.name.startswith("late one") for one in threading.enumerate()):
            assert time.monotonic() < end, "its threads live on"
            time.sleep(0.01)
    assert seen.logins == 0


@pytest.mark.parametrize(
    ("count", "acknowledgement", "told"),
    [
        (1, b"y" * 60_000, "an ack header of 60000"),
        (10_001, b"1", "more than 10000 messages without an ACK"),
    ],
)
def test_what_is_to_be_acknowledged_is_bounded(
    count: int, acknowledgement: bytes, told: str
) -> None:
    message = b"MESSAGE\nsubscription:s\nmessage-id:1\nack:%s\n\nx\0" % acknowledgement

    class Taker(Seen):
        def connected(self, connection: Connection) -> None:
            connection.subscribe("s", "/queue/s", Role.DATA)

        def message(self, connection: Connection, name: str, body: bytes, number: str) -> None:
            """Never acknowledges."""

    seen = Taker()
    with peer(answer(CONNECTED, message * count)) as endpoint:
        connection = Connection([endpoint], Login(), seen)
        connection.start()
        assert seen.changed.wait(30)
        connection.close(0.2)
    assert told in str(seen.trouble[0])


# ---------------------------------------------------------------- a conversation


def test_messages_that_nobody_asked_for_are_bounded() -> None:
    with (
        peer(flood) as endpoint,
        Conversation(endpoint, Login()) as conversation,
        pytest.raises(BrokerError, match="more than was asked for"),
    ):
        conversation.send("/queue/x", Role.DATA, b"x")


def test_messages_without_end_are_read_no_longer_than_asked() -> None:
    with peer(flood) as endpoint, Conversation(endpoint, Login()) as conversation:
        end = time.monotonic() + 0.2
        while conversation.receive(end) is not None:
            assert time.monotonic() < end + 10


def test_a_conversation_is_cut() -> None:
    with (
        peer(answer(CONNECTED)) as endpoint,
        Conversation(endpoint, Login(), longest=0.3) as conversation,
        pytest.raises(BrokerError, match="closed the connection"),
    ):
        conversation.receive(time.monotonic() + 30)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (b"access_refused\n\nto you", AuthenticationError),
        (b"User x is not authorized to read from: queue://x\n\n", AuthenticationError),
        (b"not_found\n\nno such exchange", BrokerError),
        (b"the disk is full\n\n", BrokerError),
    ],
)
def test_an_error_is_a_refusal_or_other_trouble(words: bytes, kind: type[PeekError]) -> None:
    with (
        peer(answer(CONNECTED, b"ERROR\nmessage:" + words + b"\0")) as endpoint,
        Conversation(endpoint, Login()) as conversation,
        pytest.raises(PeekError) as caught,
    ):
        conversation.send("/queue/x", Role.DATA, b"x")
    assert type(caught.value) is kind


def test_a_name_that_cannot_be_one_stays_as_it_is() -> None:
    endpoint = Endpoint("a" * 100 + ".example", 61613, False)
    assert expand([endpoint]) == [endpoint]
    with pytest.raises(BrokerError, match="cannot be reached"):
        Conversation(endpoint, Login())
