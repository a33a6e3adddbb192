"""One login at a broker, from the first byte to the last.

stomp.py is loaded with this module.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

from gridmad._stomp import StompError
from gridmad.peek.channel import Channel, Endpoint, Login, NotTlsError, connect, speaks_tls
from gridmad.peek.errors import AuthenticationError, BrokerError, PeekError
from gridmad.peek.profiles import (
    OTHER,
    Profile,
    Role,
    choose,
    error_text,
    is_refusal,
    parse_heartbeat,
)
from gridmad.peek.transport import Client, Transport

LOGIN_TIMEOUT: Final = 10.0
"""Seconds for CONNECTED to come."""
RECEIPTS: Final = 32
"""Receipts that may be outstanding."""
MAX_BODY: Final = 1 << 20
"""Bytes of a body that is taken from a broker: four times what the protocol allows."""
MAX_ACKNOWLEDGEMENT: Final = 1024
"""Bytes of what a broker wants to be told in an ACK: its own are below 100."""
MOST_DELIVERED: Final = 10_000
"""Messages of a subscription that are not acknowledged: more than any prefetch allows."""
HEARTBEATS_MISSED: Final = 2.0
"""Heart-beats of silence after which the broker is taken for lost."""
BACKLOG_TIME: Final = 0.02
"""Seconds after which what could not be written at once is tried again."""

log = logging.getLogger(__name__)

WRONG_WORDS: Final = (
    "precondition_failed",
    "precondition failed",
    "resource_locked",
    "resource locked",
    "not_found",
    "not found",
    "not_allowed",
    "destination",
    "inequivalent",
)


class _Subscription:
    """What was delivered and not yet acknowledged: (number, the broker's id), in order."""

    def __init__(self, destination: str) -> None:
        self.destination = destination
        self.delivered: deque[tuple[int, str]] = deque()


class Owner(Protocol):
    """The connection whose login a session is; called by the reading thread."""

    name: str
    heartbeat: float
    """Seconds, both ways."""

    def admit(self, session: "Session", server: str) -> None:
        """The login succeeded; `server` is the broker's own header."""

    def welcome(self) -> None:
        """The session is ready to be used."""

    def receive(self, subscription: str, body: bytes, acknowledgement: str) -> None:
        """A message came."""

    def refuse(self, error: PeekError) -> None:
        """A destination was refused."""

    def wake(self) -> None:
        """Have its thread look at the session now."""


class Session:
    """One login, from the first byte to the last."""

    def __init__(self, owner: Owner, endpoint: Endpoint, login: Login, generation: int) -> None:
        self.endpoint = endpoint
        self.generation = generation
        self.profile: Profile = OTHER
        self.is_over = False
        self.is_refusal = False
        """Whether the login failed as it will again."""
        self.was_refused = False
        """Whether a destination was refused."""
        self._owner = owner
        self._login = login
        self._transport = Transport(
            self._connect,
            self,
            name=owner.name,
            virtual_host=login.virtual_host or "/",
            max_body=MAX_BODY,
        )
        self._client = Client(self._transport)
        self._changed = threading.Condition()
        self._is_logged_in = False
        self._said_goodbye = False
        self._error = ""
        self._silence: float | None = None
        self._send_every = self._expect_every = 0.0
        self._number = 0
        self._subscriptions: dict[str, _Subscription] = {}
        self._receipts: dict[str, str] = {}
        """Those outstanding, with the destination; only those of SEND count for the window."""
        self._sent_receipts = 0
        self._receipt_number = 0

    @property
    def reader(self) -> threading.Thread | None:
        """The thread that calls the handler."""
        thread: threading.Thread | None = self._transport.io_thread
        return thread

    @property
    def has_receipts(self) -> bool:
        """Whether messages were sent of which it is not known that they arrived."""
        return self._sent_receipts > 0

    # ------------------------------------------------------------ beginning and end

    def open(self) -> None:
        """Connect and log in; PeekError with `is_refusal` set if that will not help again."""
        try:
            self._transport.start()
        except (AuthenticationError, NotTlsError):
            self.is_refusal = True
            raise
        beat = int(self._owner.heartbeat * 1000)
        login = self._login
        try:
            self._client.connect(
                login.user,
                login.password,
                headers={"heart-beat": f"{beat},{beat}"},
                with_connect_command=True,
            )
        except OSError as error:
            self._transport.problem = self._transport.problem or error
        except ValueError as error:
            self.is_refusal = True
            raise AuthenticationError(f"user or password: {error}") from None
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_logged_in or self.is_over or self._error, LOGIN_TIMEOUT
            )
        if self._is_logged_in:
            return
        raise self._why_not()

    def _connect(self) -> Channel:
        return connect(self.endpoint, self._login, 3 * self._owner.heartbeat)

    def _why_not(self) -> PeekError:
        """Why the login did not succeed."""
        problem = self._transport.problem
        endpoint = self.endpoint
        self.is_refusal = True
        if self._error:
            text = f"{endpoint} refuses the login: {self._error}"
            if is_refusal(self._error):
                return AuthenticationError(text)
            return BrokerError(text)
        if isinstance(problem, StompError):
            hint = "" if endpoint.tls else " (or does it want stomp+ssl://?)"
            return BrokerError(f"{endpoint} is no STOMP broker: {problem}{hint}")
        if problem is not None and "certificate" in str(problem).lower():
            return AuthenticationError(f"{endpoint} refuses our certificate: {problem}")
        if not self._transport.has_heard_anything and not endpoint.tls and speaks_tls(endpoint):
            return BrokerError(f"{endpoint} speaks TLS: use stomp+ssl:// or another port")
        if not self.is_over:
            return BrokerError(
                f"{endpoint} does not answer a login within {LOGIN_TIMEOUT:.0f} s: "
                "is it a STOMP broker?"
            )
        # A broker that stops or starts, or a balancer with none behind it.
        self.is_refusal = False
        return BrokerError(f"{endpoint} closed the connection before it answered the login")

    def say_goodbye(self, timeout: float) -> None:
        """DISCONNECT, and wait for its receipt."""
        with contextlib.suppress(OSError):
            self._transport.post_frame("DISCONNECT", {"receipt": "bye"})
            with self._changed:
                self._changed.wait_for(lambda: self._said_goodbye or self.is_over, timeout)

    def wait_for_goodbye(self, end: float) -> None:
        """Write on what is posted while the owner says good-bye, until `end` (monotonic)."""
        with contextlib.suppress(OSError):
            while not self.is_over and not self._said_goodbye and time.monotonic() < end:
                self.beat()
                with self._changed:
                    self._changed.wait_for(lambda: self._said_goodbye or self.is_over, BACKLOG_TIME)

    def end(self) -> None:
        """End the connection, at once."""
        self._transport.disconnect_socket()
        self.on_closed()

    def join(self) -> None:
        """Wait until the handler is not called any more."""
        reader = self.reader
        if reader is not None and reader is not threading.current_thread():
            reader.join()

    def loss(self) -> PeekError:
        """How the connection was lost."""
        problem = self._transport.problem
        if self._silence is not None:
            return BrokerError(f"{self.endpoint} was silent for {self._silence:.1f} s")
        if self._error:
            return BrokerError(f"{self.endpoint} closed the connection: {self._error}")
        if problem is not None:
            return BrokerError(f"the connection to {self.endpoint} broke: {problem}")
        return BrokerError(f"{self.endpoint} closed the connection")

    # ------------------------------------------------------------ heart-beats

    def beat(self) -> float:
        """Send a heart-beat if it is due, notice silence; the seconds to the next call."""
        transport = self._transport
        now = time.monotonic()
        wait = 1.0
        try:
            if self._send_every:
                # In time also where this thread gets to run late.
                due = transport.said + 0.6 * self._send_every
                if now >= due:
                    transport.beat()
                    due = now + 0.6 * self._send_every
                wait = min(wait, due - now)
            if self._expect_every and not transport.is_busy:
                silence = now - transport.heard
                if silence > HEARTBEATS_MISSED * self._expect_every:
                    self._silence = silence
                    self.end()
                wait = min(wait, self._expect_every / 8)
            if transport.channel.has_posted:
                transport.channel.push()
                wait = min(wait, BACKLOG_TIME)
        except OSError as error:
            transport.problem = transport.problem or error
            self.end()
        return max(wait, 0.001)

    def _agree(self, theirs: str) -> None:
        """Settle the intervals from CONNECTED's heart-beat header."""
        can, wants = (number / 1000 for number in parse_heartbeat(theirs))
        mine = self._owner.heartbeat
        self._send_every = max(mine, wants) if wants else 0.0
        self._expect_every = max(mine, can) if can else 0.0

    # ------------------------------------------------------------ what goes out

    def subscribe(self, name: str, destination: str, role: Role, prefetch: int) -> None:
        """As Connection.subscribe."""
        headers = self.profile.subscribe(role, prefetch)
        with self._changed:
            self._subscriptions[name] = _Subscription(destination)
            # An ERROR for it carries the receipt's id: so it is known whom it concerns.
            headers["receipt"] = self._receipt(destination, "s")
        with _told():
            self._client.subscribe(destination, name, headers.pop("ack"), headers)

    def unsubscribe(self, name: str) -> None:
        """As Connection.unsubscribe."""
        with self._changed:
            known = self._subscriptions.pop(name, None)
        if known is not None:
            with _told():
                self._client.unsubscribe(name)

    def acknowledge(self, name: str, number: int) -> None:
        """All up to this message of the subscription are done."""
        done: list[str] = []
        with self._changed:
            subscription = self._subscriptions.get(name)
            if subscription is None:
                return
            delivered = subscription.delivered
            while delivered and delivered[0][0] <= number:
                done.append(delivered.popleft()[1])
        if done:
            with contextlib.suppress(OSError):
                self._transport.acknowledge(done if self.profile.acknowledges_one else done[-1:])

    def send(
        self,
        destination: str,
        role: Role,
        pieces: Sequence[bytes],
        persistent: bool,
        expires: float | None,
        receipt: bool,
    ) -> None:
        """As Connection.send."""
        headers = {
            "destination": destination,
            **self.profile.send(role, persistent=persistent, expires=expires, time=time.time()),
        }
        if receipt:
            with self._changed:
                self._changed.wait_for(lambda: self._sent_receipts < RECEIPTS or self.is_over)
                if self.is_over:
                    raise BrokerError("the connection was lost")
                self._sent_receipts += 1
                headers["receipt"] = self._receipt(destination, "m")
        with _told():
            self._transport.send_frame("SEND", headers, pieces)

    def _receipt(self, destination: str, kind: str) -> str:
        self._receipt_number += 1
        receipt = f"{kind}{self._receipt_number}"
        self._receipts[receipt] = destination
        return receipt

    def wait_for_receipts(self, timeout: float) -> bool:
        """Wait for those of SEND; whether all came."""
        with self._changed:
            self._changed.wait_for(lambda: not self._sent_receipts or self.is_over, timeout)
            return not self._sent_receipts

    # ------------------------------------------------------------ what comes in

    def on_connected(self, headers: Mapping[str, str]) -> None:
        """The login succeeded."""
        server = headers.get("server", "")
        self.profile = choose(server)
        self._agree(headers.get("heart-beat", "0,0"))
        with self._changed:
            if self._is_logged_in or self.is_over:
                return
            # Before the owner's thread can find that it is over again.
            self._owner.admit(self, server)
            self._is_logged_in = True
            self._changed.notify_all()
        self._owner.welcome()

    def on_message(self, headers: Mapping[str, str], body: bytes) -> None:
        """A message came."""
        name = headers.get("subscription", "")
        acknowledgement = headers.get("ack") or headers.get("message-id", "")
        with self._changed:
            subscription = self._subscriptions.get(name)
            if subscription is None:
                return
            if len(acknowledgement) > MAX_ACKNOWLEDGEMENT:
                raise StompError(f"an ack header of {len(acknowledgement)} characters")
            if len(subscription.delivered) >= MOST_DELIVERED:
                raise StompError(f"more than {MOST_DELIVERED} messages without an ACK")
            self._number += 1
            subscription.delivered.append((self._number, acknowledgement))
        self._owner.receive(name, body, f"{self.generation}.{self._number}")

    def on_receipt(self, receipt: str) -> None:
        """The broker has dealt with a frame."""
        with self._changed:
            if receipt == "bye":
                self._said_goodbye = True
            elif self._receipts.pop(receipt, None) is not None and receipt.startswith("m"):
                self._sent_receipts -= 1
            self._changed.notify_all()

    def on_error(self, headers: Mapping[str, str], body: bytes) -> None:
        """The broker refuses something, or says why it closes the connection."""
        text = error_text(headers.get("message", ""), body)
        with self._changed:
            self._error = text
            destination = self._receipts.get(headers.get("receipt-id", ""), "")
            self._changed.notify_all()
            if not self._is_logged_in:
                return
        place = f"{self.endpoint} refuses {destination or 'a destination'}: {text}"
        if is_refusal(text):
            self.was_refused = True
            self._owner.refuse(AuthenticationError(place))
        elif destination or _is_mistake(text):
            self.was_refused = True
            self._owner.refuse(BrokerError(place))
        else:
            log.warning("%s says: %s", self.endpoint, text)

    def on_backlog(self) -> None:
        """Something could not be written at once."""
        self._owner.wake()

    def on_closed(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self.is_over = True
            self._changed.notify_all()
        self._owner.wake()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell a broken connection as a BrokerError."""
    try:
        yield
    except OSError as error:
        raise BrokerError(f"the connection was lost: {error}") from None


def _is_mistake(text: str) -> bool:
    """Whether an ERROR tells that a destination cannot be used as it was asked for."""
    text = text.lower()
    return any(word in text for word in WRONG_WORDS)
