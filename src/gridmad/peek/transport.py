"""stomp.py with our byte stream, reader and writer under it; nothing else imports stomp.

stomp.py's own transport reconnects by itself and gives up, waits for TCP's acknowledgements,
reads in time that grows with the square of a body, and can lock up over TLS.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from gridmad._stomp import Reader, StompError, write
from gridmad.errors import MissingDependencyError
from gridmad.peek.channel import Channel

_asked = os.environ.get("STOMP_SKIP_HOSTNAME_SCAN")
try:
    # Else it looks the machine's names up when it is imported, for seconds where DNS is slow.
    os.environ["STOMP_SKIP_HOSTNAME_SCAN"] = "1"
    import stomp.connect
    import stomp.exception
    import stomp.protocol
    import stomp.transport
    from stomp.utils import Frame
except ImportError:
    raise MissingDependencyError("stomp.py", "peek") from None
finally:
    # The job that is started later inherits the environment.
    if _asked is None:
        del os.environ["STOMP_SKIP_HOSTNAME_SCAN"]

# It logs each lost connection as a warning; we tell that ourselves.
logging.getLogger("stomp.py").setLevel(logging.CRITICAL)

NUL = b"\0"
HEARTBEAT = b"\n"


class Listener(Protocol):
    """Who is told of frames, by the connection's reading thread."""

    def on_connected(self, headers: Mapping[str, str]) -> None:
        """The login succeeded."""

    def on_message(self, headers: Mapping[str, str], body: bytes) -> None:
        """A message came."""

    def on_receipt(self, receipt: str) -> None:
        """The broker has dealt with the frame that asked for this receipt."""

    def on_error(self, headers: Mapping[str, str], body: bytes) -> None:
        """The broker refuses something."""

    def on_closed(self) -> None:
        """Nothing more will come."""

    def on_backlog(self) -> None:
        """The broker takes no more now: `push` what was posted in a while."""


class Transport(stomp.transport.Transport):  # type: ignore[misc]
    """One connection to one broker, over a stream that `connect` makes."""

    def __init__(
        self,
        connect: Callable[[], Channel],
        listener: Listener,
        *,
        name: str,
        virtual_host: str,
        max_body: int,
    ) -> None:
        super().__init__([], vhost=virtual_host, auto_decode=False)
        self._connect = connect
        self._listener = listener
        self._reader = Reader(max_body)
        self._channel: Channel | None = None
        self.problem: Exception | None = None
        """What ended the connection; None if that was the peer, in order."""
        self.heard = time.monotonic()
        """When bytes came last, or the listener gave the reading thread back."""
        self.said = self.heard
        """When bytes went last."""
        self.is_busy = False
        """Whether the listener is at work: then silence is not the peer's."""
        self.has_heard_anything = False

        def create_thread(callback: Callable[[], None]) -> threading.Thread:
            thread = threading.Thread(target=callback, name=f"{name} reader", daemon=True)
            thread.start()
            return thread

        self.override_threading(create_thread)
        self.set_listener("", _Dispatcher(listener))

    # ------------------------------------------------------------ what stomp.py calls

    def attempt_connection(self) -> None:
        """Connect once; failures are those of `connect`."""
        self._channel = channel = self._connect()
        self.socket: socket.socket | None = channel.socket
        # stomp.py makes the host header of it, which the virtual host replaces.
        self.current_host_and_port = (self.vhost, 0)
        self.heard = self.said = time.monotonic()

    def send(self, encoded_frame: bytes | Sequence[bytes]) -> None:
        """Write a frame, in one piece or several; OSError where the connection is gone."""
        channel = self.channel
        self.said = time.monotonic()
        channel.send([encoded_frame] if isinstance(encoded_frame, bytes) else encoded_frame)

    def transmit(self, frame: Any) -> None:
        """Write a frame of stomp.py's."""
        self.send_frame(frame.cmd, frame.headers, [frame.body] if frame.body else [])

    def disconnect_socket(self) -> None:
        """End the connection; the reading thread then closes it."""
        self.running = False
        if self._channel is not None:
            self._channel.shut()

    def cleanup(self) -> None:
        """Close the socket; the reading thread's last act."""
        if self._channel is not None:
            self._channel.close()
        self.socket = None

    def _BaseTransport__read_frames(self) -> None:  # noqa: N802 - stomp.py calls it so
        """Take what one read brings."""
        reader = self._reader
        try:
            with reader.room() as room:
                count = self.channel.receive(room)
            if not count:
                raise stomp.exception.ConnectionClosedException
            self.has_heard_anything = True
            self.is_busy = True
            self.heard = time.monotonic()
            for command, headers, body in reader.filled(count):
                if command == "MESSAGE":
                    self._listener.on_message(headers, body)
                elif command == "RECEIPT" and "receipt-id" not in headers:
                    raise StompError("a receipt for nothing")
                else:
                    self.process_frame(Frame(command, headers, body), b"")
            self.heard = time.monotonic()
        except stomp.exception.ConnectionClosedException:
            raise
        except (OSError, StompError) as error:
            self.problem = error
            raise stomp.exception.ConnectionClosedException from None
        except Exception as error:
            logging.getLogger(__name__).exception("a frame could not be dealt with")
            self.problem = error
            raise stomp.exception.ConnectionClosedException from None
        finally:
            self.is_busy = False

    # ------------------------------------------------------------ what we call

    @property
    def channel(self) -> Channel:
        """The byte stream; OSError where there is none."""
        if self._channel is None:
            raise ConnectionError("not connected")
        return self._channel

    def send_frame(self, command: str, headers: dict[str, str], body: Sequence[bytes]) -> None:
        """Write a frame with what `body` holds, all of it one behind the other."""
        size = sum(map(len, body)) if body or command == "SEND" else -1
        self.send([write(command, headers, size), *body, NUL])

    def post_frame(self, command: str, headers: dict[str, str]) -> None:
        """Have a frame without body written, without ever waiting for the broker."""
        self.post(write(command, headers) + NUL)

    def acknowledge(self, messages: Sequence[str]) -> None:
        """Have an ACK written for each, without ever waiting for the broker."""
        self.post(b"".join(write("ACK", {"id": message}) + NUL for message in messages))

    def beat(self) -> None:
        """Write a heart-beat, unless something else is on its way."""
        self.said = time.monotonic()
        self.channel.beat(HEARTBEAT)

    def post(self, data: bytes) -> None:
        """Have whole frames written, without ever waiting for the broker."""
        self.said = time.monotonic()
        channel = self.channel
        channel.post(data)
        if channel.has_posted:
            self._listener.on_backlog()


class _Dispatcher(stomp.ConnectionListener):  # type: ignore[misc]
    """Passes on what stomp.py notifies."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def on_connected(self, frame: Any) -> None:
        self._listener.on_connected(frame.headers)

    def on_receipt(self, frame: Any) -> None:
        self._listener.on_receipt(frame.headers["receipt-id"])

    def on_error(self, frame: Any) -> None:
        self._listener.on_error(frame.headers, frame.body)

    def on_disconnected(self) -> None:
        self._listener.on_closed()


class Client(stomp.connect.BaseConnection, stomp.protocol.Protocol12):  # type: ignore[misc]
    """stomp.py's STOMP 1.2 over a Transport.  Heart-beats are left to the caller."""

    transport: Transport

    def __init__(self, transport: Transport) -> None:
        stomp.connect.BaseConnection.__init__(self, transport)
        stomp.protocol.Protocol12.__init__(self, transport, auto_content_length=False)

    def send_frame(
        self, cmd: str, headers: dict[str, str] | None = None, body: bytes | str = b""
    ) -> None:
        """Write a frame, which here never has a body; escaping is the writer's."""
        self.transport.post_frame(cmd, headers or {})
