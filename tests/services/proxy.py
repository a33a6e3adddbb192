"""A TCP proxy on loopback that cuts, freezes, delays or refuses what goes through it."""

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Self

READ_SIZE = 262_144
HELD = 4 * READ_SIZE
"""Bytes held back per direction until the sender feels it."""


class _Direction:
    """What goes from one socket to another, with the time at which each piece may leave."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.pieces: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.ended = False


class Proxy:
    """Connections to `port` go on to `target_port`; one thread serves all of them."""

    def __init__(
        self, target_port: int, *, target: str = "127.0.0.1", address: str = "127.0.0.1"
    ) -> None:
        self._target = (target, target_port)
        self._listener = socket.create_server((address, 0), backlog=64)
        self._listener.setblocking(False)
        self.address = address
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._directions: list[_Direction] = []
        self._pairs: dict[socket.socket, tuple[_Direction, _Direction]] = {}
        self._is_frozen = False
        self._is_refusing = False
        self._delay = 0.0
        self._accepted = 0
        self._carried = 0
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    @property
    def accepted(self) -> int:
        """Connections that were accepted so far."""
        return self._accepted

    @property
    def carried(self) -> int:
        """Bytes that were passed on, both ways together."""
        return self._carried

    def cut(self) -> None:
        """Reset all connections, on both sides."""
        with self._lock:
            for first, _ in set(self._pairs.values()):
                self._drop(first, reset=True)
        self._kick()

    def freeze(self) -> None:
        """Hold everything: connections look open, but nothing passes, not even their end."""
        self._is_frozen = True
        self._kick()

    def strand(self) -> None:
        """Hold the connections that there are for good, half-open; new ones are not."""
        with self._lock:
            self._directions.clear()
        self._kick()

    def thaw(self) -> None:
        """Pass on what was held."""
        self._is_frozen = False
        self._kick()

    def refuse(self, refusing: bool = True) -> None:
        """Reset new connections as soon as they are made; or accept them again."""
        self._is_refusing = refusing

    def delay(self, seconds: float) -> None:
        """Let each piece leave that much later than it came."""
        self._delay = seconds

    def close(self) -> None:
        self._is_closed = True
        self._kick()
        self._thread.join(10)
        with self._lock:
            for first, _ in set(self._pairs.values()):
                self._drop(first, reset=True)
        for end in (self._listener, self._wake, self._woken):
            end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _kick(self) -> None:
        self._wake.send(b"x")

    def _run(self) -> None:
        while not self._is_closed:
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ)
                if not self._is_frozen:
                    selector.register(self._listener, selectors.EVENT_READ)
                    with self._lock:
                        timeout = self._register(selector)
                else:
                    timeout = None
                ready: dict[object, int] = {
                    key.fileobj: mask for key, mask in selector.select(timeout)
                }
            if self._woken in ready:
                self._woken.recv(4096)
            if self._is_frozen:
                continue
            with self._lock:
                if self._listener in ready:
                    self._accept()
                for direction in list(self._directions):
                    if direction in self._directions:
                        self._serve(direction, ready)

    def _register(self, selector: selectors.BaseSelector) -> float | None:
        """What can be waited for; the seconds after which something delayed may leave."""
        now = time.monotonic()
        wait: float | None = None
        events: dict[socket.socket, int] = {}
        for direction in self._directions:
            if direction.size < HELD and not direction.ended:
                events[direction.source] = events.get(direction.source, 0) | selectors.EVENT_READ
            if direction.pieces:
                due = direction.pieces[0][0] - now
                if due <= 0:
                    events[direction.target] = (
                        events.get(direction.target, 0) | selectors.EVENT_WRITE
                    )
                else:
                    wait = due if wait is None else min(wait, due)
        for end, mask in events.items():
            selector.register(end, mask)
        return wait

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self._accepted += 1
        try:
            if self._is_refusing:
                raise ConnectionRefusedError
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            _reset(client)
            return
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = (_Direction(client, server), _Direction(server, client))
        self._directions.extend(pair)
        self._pairs[client] = self._pairs[server] = pair

    def _serve(self, direction: _Direction, ready: Mapping[object, int]) -> None:
        try:
            if ready.get(direction.source, 0) & selectors.EVENT_READ and not direction.ended:
                with contextlib.suppress(BlockingIOError):
                    data = direction.source.recv(READ_SIZE)
                    direction.ended = not data
                    direction.pieces.append((time.monotonic() + self._delay, data))
                    direction.size += len(data)
            while direction.pieces and direction.pieces[0][0] <= time.monotonic():
                due, data = direction.pieces[0]
                if not data:
                    direction.target.shutdown(socket.SHUT_WR)
                    direction.pieces.popleft()
                    pair = self._pairs[direction.source]
                    if all(other.ended and not other.pieces for other in pair):
                        self._drop(direction)
                    return
                try:
                    sent = direction.target.send(data)
                except BlockingIOError:
                    return
                self._carried += sent
                direction.size -= sent
                direction.pieces.popleft()
                if sent < len(data):
                    direction.pieces.appendleft((due, data[sent:]))
                    return
        except OSError:
            self._drop(direction, reset=True)

    def _drop(self, direction: _Direction, *, reset: bool = False) -> None:
        for other in self._pairs[direction.source]:
            if other in self._directions:
                self._directions.remove(other)
        for end in (direction.source, direction.target):
            del self._pairs[end]
            if reset:
                _reset(end)
            else:
                end.close()


def _reset(end: socket.socket) -> None:
    """Close with RST instead of FIN."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
