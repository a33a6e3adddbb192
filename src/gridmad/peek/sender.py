"""The thread that speaks with the broker for a job: it carries what the producer decides."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from gridmad.peek.broker import Connection, Role
from gridmad.peek.errors import BrokerError, PeekError
from gridmad.peek.producer import Outgoing, Producer, Route
from gridmad.peek.spool import Spool
from gridmad.peek.stream import Destinations

LOGGER = logging.getLogger(__name__)

CONTROL: Final = "control"
ROLL: Final = "roll"
PREFETCH: Final = 64
"""Control messages that may wait here: what bounds the memory for them."""
LIVE: Final = 300.0
"""Seconds for which the broker keeps what a client does not take; it asks again for it."""
PARKED: Final = 86_400.0
"""Seconds for which it keeps what is parked (section 8)."""
RECONNECT: Final = 10.0
"""Seconds that an ended job waits for a broker, at most; `linger` if that is less."""
FIRST_LOGIN: Final = 3.0
"""Seconds, from its start, that the broker of a job that has ended meanwhile has to answer."""
PARKING: Final = 30.0
"""Seconds that parking may take."""
TELL_AGAIN: Final = 60.0
"""Seconds after which the same trouble with the broker is logged again."""
MAX_TOLD: Final = 32
BURST: Final = 0.1
"""Seconds whose share of a limited rate may go out at once."""

_ROLES: Final = {
    Route.DATA: Role.DATA,
    Route.PARK: Role.PARK,
    Route.TOKEN: Role.TOKEN,
    Route.PRESENT: Role.PRESENT,
}


class Sender(threading.Thread):
    """Sends what is in the spool to whoever holds the stream; a Handler of the connection.

    `rate` is in bytes a second; `changed` is called when a client has begun, and at the end.
    """

    def __init__(
        self,
        producer: Producer,
        spool: Spool,
        destinations: Destinations,
        *,
        rate: int | None,
        linger: float,
        listed: bool,
        changed: Callable[[], None],
    ) -> None:
        super().__init__(name="sender", daemon=True)
        self.has_begun = False
        """A client has had the stream."""
        self._producer = producer
        self._spool = spool
        self._destinations = destinations
        self._rate = rate
        self._linger = linger
        self._listed = listed
        self._changed = changed
        self._connection: Connection | None = None
        self._inbox: deque[tuple[str, bytes, str]] = deque()
        self._bell = threading.Event()
        self._is_asleep = False
        self._is_new_login = False
        self._is_refused = False
        self._is_lost = False
        self._was_connected = False
        self._began = time.monotonic()
        self._told: dict[str, float] = {}
        self._budget_at = 0.0
        self._finish: Callable[[float], None] | None = None
        self._deadline = float("inf")

    # ------------------------------------------------------------ from other threads

    @property
    def is_held(self) -> bool:
        """A client has the stream."""
        return self._producer.is_held

    def serve(self, connection: Connection) -> None:
        """Begin."""
        self._connection = connection
        self.start()

    def wake(self) -> None:
        """There is something to do."""
        if self._is_asleep:
            self._bell.set()

    def finish(self, finish: Callable[[float], None]) -> None:
        """The job has ended: `finish` tells the producer how.  Linger, park, end."""
        self._deadline = time.monotonic() + self._linger
        self._finish = finish
        self._bell.set()

    def hurry(self) -> None:
        """Wait for no client any more."""
        self._deadline = 0.0
        self._bell.set()

    def connected(self, connection: Connection) -> None:
        """Logged in: listen."""
        try:
            connection.subscribe(
                CONTROL, self._destinations.control, Role.CONTROL, prefetch=PREFETCH
            )
            if self._listed:
                connection.subscribe(ROLL, self._destinations.roll, Role.ROLL, prefetch=PREFETCH)
        except BrokerError:
            return  # lost again
        LOGGER.info("connected to %s", connection.endpoint)
        self._is_refused = self._is_lost = False
        self._is_new_login = self._was_connected = True
        self._bell.set()

    def message(
        self, connection: Connection, subscription: str, body: bytes, acknowledgement: str
    ) -> None:
        """A client says something."""
        self._inbox.append((subscription, body, acknowledgement))
        self._bell.set()

    def lost(self, connection: Connection, error: PeekError) -> None:
        """No broker: the job goes on, and its output is kept as long as there is room."""
        self._is_lost = True
        self._tell(error)
        self._bell.set()

    def refused(self, connection: Connection, error: PeekError) -> None:
        """Nothing will come of it, as it looks."""
        self._is_refused = True
        self._tell(error)
        self._bell.set()

    def _tell(self, error: PeekError) -> None:
        text, now = str(error), time.monotonic()
        if now - self._told.get(text, float("-inf")) >= TELL_AGAIN:
            if len(self._told) >= MAX_TOLD:
                self._told.clear()
            self._told[text] = now
            LOGGER.warning("the job cannot be watched for now: %s", text)

    # ------------------------------------------------------------ the thread

    def run(self) -> None:  # noqa: D102
        try:
            self._serve()
            if not self._producer.is_done:
                self._park()
        except Exception:
            LOGGER.exception("watching this job ended")
        finally:
            # Nobody commits any more: the command must not wait for that.
            self._spool.release()
            self._changed()

    def _serve(self) -> None:
        """Until the job has ended, and no client is to be waited for."""
        assert self._connection is not None
        while True:
            seen = self._spool.end
            now = time.monotonic()
            self._read_inbox(now)
            if self._finish is not None:
                self._finish(now)
                self._finish = None
            if self._is_new_login:
                self._is_new_login = False
                self._producer.reconnect(now)
            is_idle = True
            if self._connection.is_connected:
                is_idle = self._send_one(now)
            if self._deadline < float("inf") and self._is_over(time.monotonic()):
                return
            if is_idle:
                self._sleep(seen)

    def _is_over(self, now: float) -> bool:
        return self._producer.is_done or not self._producer.is_held or now >= self._deadline

    def _read_inbox(self, now: float) -> None:
        assert self._connection is not None
        last: dict[str, str] = {}
        while self._inbox:
            subscription, body, last[subscription] = self._inbox.popleft()
            if subscription == ROLL:
                self._producer.call(body, now)
            else:
                self._producer.receive(body, now)
        for subscription, acknowledgement in last.items():
            self._connection.acknowledge(subscription, acknowledgement)
        if self._producer.is_held and not self.has_begun:
            self.has_begun = True
            self._changed()

    def _send_one(self, now: float) -> bool:
        """Send a message; whether there is none now."""
        message = self._producer.next(now, has_budget=now >= self._budget_at)
        if message is None:
            return True
        if message.is_output and self._rate:
            self._budget_at = max(self._budget_at, now - BURST) + message.size / self._rate
        try:
            self._send(message, expires=LIVE)
        except BrokerError:
            # The client notices by the next ALIVE, and asks again.
            return True
        return False

    def _send(self, message: Outgoing, *, expires: float, parks: bool = False) -> None:
        assert self._connection is not None
        match message.route:
            case Route.DATA:
                destination = self._destinations.data(message.client)
            case Route.PRESENT:
                destination = self._destinations.present(message.client)
            case Route.PARK:
                destination = self._destinations.park
            case Route.TOKEN:
                destination = self._destinations.token
        self._connection.send(
            destination,
            _ROLES[message.route],
            message.body,
            persistent=parks,
            expires=expires,
            receipt=parks,
        )

    def _sleep(self, seen: int) -> None:
        assert self._connection is not None
        now = time.monotonic()
        until = self._deadline
        if self._connection.is_connected:
            until = min(until, self._producer.wake_at() or until)
            if self._budget_at > now:
                until = min(until, self._budget_at)
        self._is_asleep = True
        # What was appended before nobody will wake us for.
        if self._spool.end == seen or not self._connection.is_connected:
            self._bell.wait(None if until == float("inf") else max(0.0, until - now))
        self._is_asleep = False
        self._bell.clear()

    # ------------------------------------------------------------ the end

    def _park(self) -> None:
        """Leave what nobody has got in the broker."""
        assert self._connection is not None
        give_up = time.monotonic() + min(RECONNECT, self._linger)
        # Where nobody has watched and nothing was printed, a lost broker is not waited for.
        is_worth_it = self._producer.backlog > 0 or self.has_begun
        while True:
            now = time.monotonic()
            if self._connection.is_connected and self._park_once(now + PARKING):
                return
            until, is_hopeless = give_up, self._is_lost and not is_worth_it
            if not self._was_connected:
                # Nor is one that was never there, whatever it would get.
                until, is_hopeless = min(give_up, self._began + FIRST_LOGIN), self._is_lost
            if self._is_refused or is_hopeless or now >= until:
                break
            self._bell.wait(min(0.5, until - now))
            self._bell.clear()
        LOGGER.warning("no broker for what nobody has got: %d bytes", self._producer.backlog)

    def _park_once(self, give_up: float) -> bool:
        assert self._connection is not None
        try:
            for message in self._producer.park(time.monotonic()):
                if time.monotonic() > give_up:
                    return False
                self._send(message, expires=PARKED, parks=True)
                self._answer()
            if not self._connection.flush(max(0.0, give_up - time.monotonic())):
                return False
            self._answer()
            if self._producer.is_done:
                return True  # a client has got it all meanwhile: a TOKEN would show it again
            token = self._producer.token(time.monotonic())
            self._send(token, expires=PARKED, parks=True)
            return self._connection.flush(max(0.1, give_up - time.monotonic()))
        except BrokerError:
            return False

    def _answer(self) -> None:
        """Hear who comes or leaves while all is parked, and say that somebody is there."""
        now = time.monotonic()
        self._read_inbox(now)
        while (message := self._producer.next(now, has_budget=False)) is not None:
            self._send(message, expires=LIVE)
