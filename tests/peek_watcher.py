"""The reference client over a real broker."""

import threading
import time
from collections import deque
from collections.abc import Callable

from gridmad.peek.broker import Connection, Endpoint, Login, Role
from gridmad.peek.errors import PeekError
from gridmad.peek.frame import FrameType
from gridmad.peek.messages import Token
from gridmad.peek.stream import Destinations
from tests.peek_reference import ReferenceClient
from tests.services.stomp_server import StompServer


class Watcher:
    """A client that lives until it is closed; `drains` takes a TOKEN, too."""

    def __init__(
        self, server: StompServer, client: ReferenceClient, stream: str, *, drains: bool = False
    ) -> None:
        self.client = client
        self.token: Token | None = None
        self.problem: PeekError | None = None
        self._drains = drains
        self._destinations = Destinations(stream)
        self._inbox: deque[tuple[str, bytes, str]] = deque()
        self._ready = threading.Event()
        self._token_acknowledgement = ""
        self._connection = Connection(
            [Endpoint(server.address, server.stomp_port, False)],
            Login(server.login, server.password),
            self,
        )
        self._connection.start()

    def connected(self, connection: Connection) -> None:
        data = self._destinations.data(self.client.client)
        connection.subscribe("data", data, Role.DATA, prefetch=200)
        if self._drains:
            connection.subscribe("token", self._destinations.token, Role.TOKEN, prefetch=1)
        self._ready.set()

    def message(
        self, connection: Connection, subscription: str, body: bytes, acknowledgement: str
    ) -> None:
        self._inbox.append((subscription, body, acknowledgement))

    def lost(self, connection: Connection, error: PeekError) -> None:
        self._ready.clear()

    def refused(self, connection: Connection, error: PeekError) -> None:
        self.problem = error

    def run(self, until: Callable[[], bool], timeout: float = 60.0, *, acts: bool = True) -> None:
        """Take part until something is so; without acting, only listen."""
        end = time.monotonic() + timeout
        while not until():
            assert time.monotonic() < end, "it did not come to that"
            assert self.problem is None, self.problem
            if not self._ready.wait(0.1):
                continue
            if not self._step(acts):
                time.sleep(0.005)

    def _step(self, acts: bool) -> bool:
        did = False
        now = time.monotonic()
        while self._inbox:
            did = True
            subscription, body, acknowledgement = self._inbox.popleft()
            if subscription == "token":
                self._take_token(body, acknowledgement)
                continue
            self.client.receive(body, now)
            if subscription == "park" and self.client.is_done:
                self._connection.acknowledge("token", self._token_acknowledgement)
            self._connection.acknowledge(subscription, acknowledgement)
        if acts and self.token is None:
            for body in self.client.poll(now):
                did = True
                try:
                    self._connection.send(self._destinations.control, Role.CONTROL, body)
                except PeekError:
                    self._ready.clear()
        return did

    def _take_token(self, body: bytes, acknowledgement: str) -> None:
        (frame,) = self.client.codec.decode(body)
        assert frame.type == FrameType.TOKEN
        self.token = Token.decode(frame.payload)
        self._token_acknowledgement = acknowledgement
        if self.client.hello is None:
            self.client.epoch = frame.epoch
            self.client.start({source: span.start for source, span in self.token.sources.items()})
        self._connection.subscribe("park", self._destinations.park, Role.PARK, prefetch=200)

    def close(self) -> None:
        self._connection.close()
