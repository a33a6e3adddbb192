"""A connection to a STOMP broker that is kept: fail-over, heart-beats, receipts.

One thread of its own logs in, watches the heart-beats and logs in again after a loss; one
more per login reads and calls the Handler.  stomp.py is loaded when the first one starts.
"""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from gridmad.peek.channel import Endpoint, Login, expand
from gridmad.peek.errors import AuthenticationError, BrokerError, PeekError
from gridmad.peek.profiles import OTHER, Profile, Role

if TYPE_CHECKING:
    from gridmad.peek.session import Session

__all__ = ["Connection", "Endpoint", "Handler", "Login", "Role", "expand"]

log = logging.getLogger(__name__)

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 10.0
LIVED: Final = 2.0
"""Seconds after which a connection is no part of a series of failures."""
GRACE: Final = 30.0
"""Seconds for which a login that worked before may be refused: a broker that starts
answers before it knows its users."""


class Handler(Protocol):
    """Who uses a connection.  Called by its threads, one call at a time; quick, never raises.

    `connected`, `message` and what a broker's ERROR brings come from the reading thread:
    while it is busy nothing else is read, so it must not wait for anything that has to be
    read, such as a receipt, and must not `send` (but may acknowledge and subscribe).
    """

    def connected(self, connection: "Connection") -> None:
        """Logged in, for the first time or again: subscriptions have to be made now."""

    def message(
        self, connection: "Connection", subscription: str, body: bytes, acknowledgement: str
    ) -> None:
        """A message of a subscription came."""

    def lost(self, connection: "Connection", error: PeekError) -> None:
        """The connection broke or could not be made; the next attempt follows by itself."""

    def refused(self, connection: "Connection", error: PeekError) -> None:
        """The login, TLS or a destination was refused, or this is no STOMP server.

        For a login: by every broker of the list that could be reached.  Attempts go on until
        the connection is closed.
        """


class Connection:
    """A connection to one of `endpoints`; `heartbeat` is in seconds, both ways.

    Subscriptions end with a login and are not renewed: that is for Handler.connected.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        login: Login,
        handler: Handler,
        *,
        heartbeat: float = 10.0,
        name: str = "",
    ) -> None:
        if not endpoints:
            raise ValueError("a connection needs an endpoint")
        self.endpoint: Endpoint | None = None
        """Where it is, or was last, connected to."""
        self.server = ""
        """The `server` header of that broker."""
        self.profile: Profile = OTHER
        self.heartbeat = heartbeat
        self.name = name or "broker"
        self._endpoints = list(endpoints)
        self._login = login
        self._handler = handler
        self._generation = 0
        self._session: Session | None = None
        self._wake = threading.Condition()
        self._is_closing = False
        self._close_by = 0.0
        """When all has to be said, once it is closing."""
        self._is_woken = False
        self._unconfirmed = False
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    @property
    def is_connected(self) -> bool:
        """Whether it is logged in."""
        return self._session is not None

    def start(self) -> None:
        """Begin to connect, and return.  MissingDependencyError where stomp.py is not there."""
        # It loads stomp.py, which takes longer than all the rest of a program's start.
        from gridmad.peek import session

        self._make_session = session.Session
        self._thread.start()

    def close(self, timeout: float = 2.0) -> None:
        """Say good-bye, so that all that was sent and acknowledged counts, and end.

        What the broker does not take within `timeout` seconds is given up.
        """
        end = time.monotonic() + timeout
        with self._wake:
            self._close_by = end
            self._is_closing = self._is_woken = True
            self._wake.notify_all()
        session = self._session
        here = threading.current_thread()
        # The handler may close the connection: then nobody can be waited for.
        is_own = here is self._thread or (session is not None and here is session.reader)
        if session is not None:
            if not is_own:
                session.say_goodbye(timeout)
            session.end()
        if self._thread.is_alive() and not is_own:
            self._thread.join(max(0.1, end - time.monotonic()))

    def subscribe(self, name: str, destination: str, role: Role, *, prefetch: int = 0) -> None:
        """Receive what comes to `destination`, as subscription `name`.

        At most `prefetch` messages are delivered and not acknowledged (0: as many as the
        broker likes).  BrokerError when not connected.
        """
        self._connected().subscribe(name, destination, role, prefetch)

    def unsubscribe(self, name: str) -> None:
        """End a subscription; one that there is not is none."""
        with contextlib.suppress(BrokerError):
            self._connected().unsubscribe(name)

    def acknowledge(self, subscription: str, acknowledgement: str) -> None:
        """Take this message and all before it of the subscription for done.

        Never waits.  One of an earlier login, or done before, is ignored.
        """
        session = self._session
        generation, _, number = acknowledgement.partition(".")
        if session is not None and generation == str(session.generation):
            session.acknowledge(subscription, int(number))

    def send(
        self,
        destination: str,
        role: Role,
        body: bytes | Sequence[bytes],
        *,
        persistent: bool = False,
        expires: float | None = None,
        receipt: bool = False,
    ) -> None:
        """Send a body (or what its pieces give together), to expire after some seconds.

        Waits for a broker that takes no more, and with `receipt` while there are 32
        outstanding.  BrokerError when not connected, or no longer.
        """
        pieces = [body] if isinstance(body, bytes) else body
        self._connected().send(destination, role, pieces, persistent, expires, receipt)

    def flush(self, timeout: float) -> bool:
        """Wait for all receipts; whether all came, also those of logins since the last flush."""
        session = self._session
        complete = session is None or session.wait_for_receipts(timeout)
        complete = complete and not self._unconfirmed
        self._unconfirmed = False
        return complete

    # ------------------------------------------------------------ the thread

    def _connected(self) -> "Session":
        session = self._session
        if session is None:
            raise BrokerError("not connected to a broker")
        return session

    def _run(self) -> None:
        failures = 0
        refusal: PeekError | None = None
        has_worked = False
        refused_since: float | None = None
        turn = 0
        while not self._is_closing:
            endpoint = self._endpoints[turn % len(self._endpoints)]
            turn += 1
            began = time.monotonic()
            error: PeekError | None = None
            self._generation += 1
            session = self._make_session(self, endpoint, self._login, self._generation)
            try:
                session.open()
                refusal = refused_since = None
                has_worked = True
                error = self._serve(session)
                if time.monotonic() - began >= LIVED and not session.was_refused:
                    failures = -1
            except PeekError as failure:
                error = failure
                if not session.is_refusal:
                    refused_since = None
                elif self._is_final(error, has_worked, refused_since):
                    refusal = refusal or error
                else:
                    refused_since = refused_since or time.monotonic()
            finally:
                session.end()
                session.join()
            failures += 1
            if self._is_closing:
                return
            if refusal is not None and failures >= len(self._endpoints):
                self.tell(self._handler.refused, refusal)
                refusal = None
            elif error is not None:
                self.tell(self._handler.lost, error)
            rounds = max(0, failures - 1) // len(self._endpoints)
            ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(rounds, 30))
            with self._wake:
                # Full jitter: those whom one broker lost do not come back all at once.
                self._wake.wait_for(lambda: self._is_closing, random.uniform(0, ceiling))  # noqa: S311

    @staticmethod
    def _is_final(error: PeekError, has_worked: bool, refused_since: float | None) -> bool:
        """Whether a refusal counts, after a login that succeeded and refusals since then."""
        if not has_worked:
            return True
        # What was a broker is one: silence and strange words are those of a network.
        return (
            isinstance(error, AuthenticationError)
            and refused_since is not None
            and time.monotonic() - refused_since > GRACE
        )

    def _serve(self, session: "Session") -> PeekError:
        """Keep the heart beating until the connection is lost; how it was."""
        try:
            while not session.is_over and not self._is_closing:
                wait = session.beat()
                with self._wake:
                    self._wake.wait_for(lambda: self._is_woken, wait)
                    self._is_woken = False
            if self._is_closing:
                session.wait_for_goodbye(self._close_by)
        finally:
            self._session = None
        session.end()
        session.join()
        self._unconfirmed = self._unconfirmed or session.has_receipts
        return session.loss()

    # ------------------------------------------------------------ for the session

    def admit(self, session: "Session", server: str) -> None:
        """The login succeeded."""
        self.server = server
        self.endpoint = session.endpoint
        self.profile = session.profile
        self._session = session

    def welcome(self) -> None:
        """The session is ready to be used."""
        if not self._is_closing:
            self.tell(self._handler.connected)

    def receive(self, subscription: str, body: bytes, acknowledgement: str) -> None:
        """A message came."""
        try:
            self._handler.message(self, subscription, body, acknowledgement)
        except Exception:
            log.exception("a message could not be dealt with")

    def refuse(self, error: PeekError) -> None:
        """A destination was refused."""
        self.tell(self._handler.refused, error)

    def wake(self) -> None:
        """Have the thread look at its session now."""
        with self._wake:
            self._is_woken = True
            self._wake.notify_all()

    def tell(self, call: Callable[..., None], *arguments: object) -> None:
        """Call the handler; what it raises is its own fault, and is logged."""
        try:
            call(self, *arguments)
        except Exception:
            log.exception("the connection's handler failed")
