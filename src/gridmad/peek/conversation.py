"""One STOMP conversation with one broker, step by step and without a second try.

`msgpeek ls` and `msgpeek doctor` ask a few questions and leave; what streams uses
gridmad.peek.broker, which connects again, acknowledges in batches and beats.
"""

import contextlib
import select
import ssl
import threading
import time
from collections import deque
from types import TracebackType
from typing import Final, NamedTuple, Self

from gridmad._stomp import Reader, StompError, write
from gridmad.peek.channel import Channel, Endpoint, Login, connect, speaks_tls
from gridmad.peek.errors import AuthenticationError, BrokerError
from gridmad.peek.profiles import Role, choose, error_text, is_refusal, parse_heartbeat

ANSWER_TIME: Final = 5.0
"""Seconds that a broker has for an answer."""
LONGEST: Final = 60.0
"""Seconds after which a conversation is cut, whatever the peer does."""
MOST_WAITING: Final = 16 << 20
"""Bytes of messages that may come while something else is waited for."""
ENTRY: Final = 256
"""Bytes that each message counts besides its body."""


class Message(NamedTuple):
    """What came for the subscription of that name."""

    subscription: str
    body: bytes


class Conversation:
    """A login and what follows, as a context manager.

    `heartbeat` asks the broker for a sign of life each so many ms; after `longest` seconds
    all is cut.  Everything raises BrokerError where the broker is out of reach, silent or no
    STOMP server, and AuthenticationError where it or TLS refuses.
    """

    def __init__(
        self, endpoint: Endpoint, login: Login, *, heartbeat: int = 0, longest: float = LONGEST
    ) -> None:
        self._endpoint = endpoint
        self._reader = Reader()
        self._waiting: deque[Message] = deque()
        self._waiting_size = 0
        self._awaited = ""
        """The receipt that is outstanding."""
        self._connected: dict[str, str] | None = None
        self._count = 0
        self.channel: Channel = connect(endpoint, login, LONGEST)
        self._limit = threading.Timer(longest, self.channel.shut)
        self._limit.daemon = True
        self._limit.start()
        try:
            self._log_in(login, heartbeat)
        except BaseException:
            self.close()
            raise

    def _log_in(self, login: Login, heartbeat: int) -> None:
        headers = {
            "accept-version": "1.2",
            "host": login.virtual_host or "/",
            "heart-beat": f"0,{heartbeat}",
        }
        if login.user is not None:
            headers["login"] = login.user
        if login.password is not None:
            headers["passcode"] = login.password
        self._write("CONNECT", headers)
        problem = BrokerError(f"{self._endpoint} does not answer CONNECT: is it a STOMP server?")
        end = time.monotonic() + ANSWER_TIME
        try:
            while self._connected is None and self._read(end):
                pass
        except BrokerError as error:
            problem = error
        if self._connected is None:
            if not self._endpoint.tls and speaks_tls(self._endpoint):
                problem = BrokerError(f"{self._endpoint} speaks TLS: stomp+ssl:// is meant")
            raise problem
        self.server = self._connected.get("server", "")
        self.version = self._connected.get("version", "1.0")
        self.profile = choose(self.server)
        offered, _ = parse_heartbeat(self._connected.get("heart-beat", ""))
        self.heartbeat = max(offered, heartbeat) if offered and heartbeat else 0
        """What the broker promised: a sign of life each so many ms; 0 for none."""

    @property
    def heartbeats(self) -> int:
        """Signs of life that came."""
        return self._reader.heartbeats

    def subscribe(self, name: str, destination: str, role: Role) -> None:
        """Have what comes to `destination` delivered under `name`."""
        headers = self.profile.subscribe(role, 0)
        self._write("SUBSCRIBE", {"id": name, "destination": destination, **headers})

    def send(self, destination: str, role: Role, body: bytes) -> None:
        """Send `body`, and wait until the broker has it."""
        self._count += 1
        self._awaited = receipt = f"r{self._count}"
        headers = self.profile.send(role, persistent=False, expires=60.0, time=time.time())
        self._write("SEND", {"destination": destination, "receipt": receipt, **headers}, body)
        end = time.monotonic() + ANSWER_TIME
        while self._awaited:
            if not self._read(end):
                raise BrokerError(f"{self._endpoint} does not confirm a message")

    def receive(self, end: float) -> Message | None:
        """The next message, or None when none came until `end` (monotonic seconds)."""
        while not self._waiting:
            if not self._read(end):
                return None
        message = self._waiting.popleft()
        self._waiting_size -= ENTRY + len(message.body)
        return message

    def await_heartbeat(self, end: float) -> bool:
        """Whether a sign of life comes until `end` (monotonic seconds)."""
        before = self.heartbeats
        while self.heartbeats == before:
            if not self._read(end):
                return False
        return True

    def close(self) -> None:
        """Leave."""
        self._limit.cancel()
        with contextlib.suppress(BrokerError):
            if self._connected is not None:
                self._write("DISCONNECT", {})
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, command: str, headers: dict[str, str], body: bytes | None = None) -> None:
        head = write(command, headers, -1 if body is None else len(body))
        try:
            self.channel.send([head, body or b"", b"\0"] if body else [head, b"\0"])
        except OSError as error:
            raise BrokerError(f"{self._endpoint} closed the connection: {error}") from None

    def _read(self, end: float) -> bool:
        """Take what one read brings; False where nothing came until `end`, or that is past."""
        stream = self.channel.socket
        if time.monotonic() > end:
            # Also where more and more comes that nobody has asked for.
            return False
        if not (isinstance(stream, ssl.SSLSocket) and stream.pending()):
            poll = select.poll()
            poll.register(stream, select.POLLIN)
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                return False
        try:
            with self._reader.room() as room:
                count = self.channel.receive(room)
            frames = self._reader.filled(count) if count else None
        except OSError as error:
            raise BrokerError(f"{self._endpoint} closed the connection: {error}") from None
        except StompError as error:
            raise BrokerError(f"{self._endpoint} is no STOMP server: {error}") from None
        if frames is None:
            raise BrokerError(f"{self._endpoint} closed the connection")
        for command, headers, body in frames:
            self._take(command, headers, body)
        return True

    def _take(self, command: str, headers: dict[str, str], body: bytes) -> None:
        if command == "MESSAGE":
            if "ack" in headers:
                self._write("ACK", {"id": headers["ack"]})
            self._waiting.append(Message(headers.get("subscription", ""), body))
            self._waiting_size += ENTRY + len(body)
            if self._waiting_size > MOST_WAITING:
                raise BrokerError(f"{self._endpoint} sends more than was asked for")
        elif command == "RECEIPT":
            if headers.get("receipt-id") == self._awaited:
                self._awaited = ""
        elif command == "CONNECTED":
            self._connected = headers
        elif command == "ERROR":
            text = error_text(headers.get("message", ""), body)
            if is_refusal(text):
                raise AuthenticationError(f"{self._endpoint} refuses: {text}")
            raise BrokerError(f"{self._endpoint} says: {text}")
