"""How brokers differ, in one table (section 10 of PROTOCOL.md).

A profile is chosen by the `server` header of the broker's CONNECTED frame.  All that differs
in what is sent is in it; nothing else asks which broker it talks to.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final


class Role(Enum):
    """What a destination is for (section 2 of PROTOCOL.md)."""

    CONTROL = "control"
    DATA = "data"
    PARK = "park"
    TOKEN = "token"  # noqa: S105 - no password
    ROLL = "roll"
    PRESENT = "present"


_HEARTBEATS: Final = re.compile(r"([0-9]{1,9}) *, *([0-9]{1,9})")
_REFUSED_WORDS: Final = (
    "access_refused",
    "access refused",
    "access to",
    "not authorized",
    "not authorised",
    "unauthorized",
    "permission",
    "denied",
    "password",
    "passcode",
    "credential",
    "login",
    "authenticat",
    "security",
)
_MOST_SAID: Final = 300
"""Characters of an ERROR that are shown."""

NO_ARGUMENTS: Final[dict[Role, dict[str, str]]] = {}


@dataclass(frozen=True)
class Profile:
    """What one kind of broker wants to be told, and how."""

    name: str
    server: str
    """What the `server` header begins with."""
    prefetch: str | None
    """Header of SUBSCRIBE that bounds what may be delivered and not yet acknowledged."""
    prefetch_scale: int
    """Its unit: 1 for messages, or the bytes that one message is taken for."""
    expires_after: str | None
    """Header of SEND with the time to live in milliseconds."""
    expires_at: str | None
    """Header of SEND with the time of expiry in milliseconds since 1970."""
    acknowledges_one: bool
    """Whether each message has to be acknowledged by itself."""
    max_body: int
    """Bytes of a body that the broker takes as it comes."""
    exclusive: str | None = None
    """Header of SUBSCRIBE for all of a queue, where subscribers that come at once share it."""
    arguments: dict[Role, dict[str, str]] = field(default_factory=lambda: NO_ARGUMENTS)
    """Headers that make the queue what it is, the same in SEND and SUBSCRIBE."""

    def subscribe(self, role: Role, prefetch: int) -> dict[str, str]:
        """Headers of SUBSCRIBE; at most `prefetch` messages unacknowledged (0: no bound)."""
        headers = {
            "ack": "client-individual" if self.acknowledges_one else "client",
            **self.arguments.get(role, {}),
        }
        if prefetch and self.prefetch:
            headers[self.prefetch] = str(prefetch * self.prefetch_scale)
        if role is Role.TOKEN and self.exclusive:
            headers[self.exclusive] = "true"
        return headers

    def send(
        self, role: Role, *, persistent: bool, expires: float | None, time: float
    ) -> dict[str, str]:
        """Headers of SEND; the message expires after that many seconds from `time` (Unix)."""
        headers = dict(self.arguments.get(role, {}))
        if persistent:
            # Never "false", which is the default: RabbitMQ takes that for the wish to have a
            # queue that belongs to this connection alone.
            headers["persistent"] = "true"
        if expires is not None:
            if self.expires_after:
                headers[self.expires_after] = str(max(1, int(expires * 1000)))
            if self.expires_at:
                headers[self.expires_at] = str(int((time + expires) * 1000))
        return headers


# RabbitMQ removes a queue that was unused that long (ms): those of a session some minutes
# after it, and what was parked when its messages have expired, after a day.  ActiveMQ and
# Artemis remove queues that are empty and unused where they are configured to.
OF_SESSION: Final = {"x-expires": "600000"}
OF_PARK: Final = {"x-expires": "90000000"}

RABBITMQ: Final = Profile(
    name="RabbitMQ",
    server="RabbitMQ",
    prefetch="prefetch-count",
    prefetch_scale=1,
    expires_after="expiration",
    expires_at=None,
    # Its cumulative acknowledgement takes what was delivered before on all subscriptions of
    # the connection, a TOKEN that has to wait among it.
    acknowledges_one=True,
    max_body=4 << 20,
    arguments={
        Role.CONTROL: OF_SESSION,
        Role.DATA: OF_SESSION,
        Role.PRESENT: OF_SESSION,
        Role.PARK: OF_PARK,
        Role.TOKEN: OF_PARK,
    },
)
ACTIVEMQ: Final = Profile(
    name="ActiveMQ",
    server="ActiveMQ",
    prefetch="activemq.prefetchSize",
    prefetch_scale=1,
    expires_after=None,
    expires_at="expires",
    acknowledges_one=False,
    max_body=100 << 20,
    exclusive="activemq.exclusive",
)
ARTEMIS: Final = Profile(
    name="ActiveMQ Artemis",
    server="ActiveMQ-Artemis",
    # In bytes, and so little by default that one chunk would wait for the other.
    prefetch="consumer-window-size",
    prefetch_scale=65_536,
    expires_after=None,
    expires_at="expires",
    acknowledges_one=False,
    max_body=100 << 20,
)
OTHER: Final = Profile(
    name="STOMP broker",
    server="",
    prefetch=None,
    prefetch_scale=1,
    expires_after="expiration",
    expires_at="expires",
    # Every broker can do it, and not every one counts per subscription.
    acknowledges_one=True,
    max_body=4 << 20,
)

PROFILES: Final = (RABBITMQ, ARTEMIS, ACTIVEMQ, OTHER)


def choose(server: str) -> Profile:
    """The profile for a `server` header, such as "ActiveMQ/5.17.2"."""
    if server.startswith("apache-activemq-artemis"):
        return ARTEMIS
    return next(profile for profile in PROFILES if server.startswith(profile.server))


def parse_heartbeat(header: str) -> tuple[int, int]:
    """What CONNECTED's `heart-beat` promises and wants, in ms; 0 each where it says nothing."""
    match = _HEARTBEATS.fullmatch(header)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def is_refusal(text: str) -> bool:
    """Whether an ERROR with that text refuses a login or a permission, whoever the broker is."""
    text = text.lower()
    return any(word in text for word in _REFUSED_WORDS)


def error_text(message: str, body: bytes) -> str:
    """What an ERROR frame says, on one line of at most 300 printable characters."""
    # RabbitMQ says in the body what is refused; a Java broker repeats it there with its stack.
    detail = body[:2000].decode(errors="replace").split("\n\tat ")[0]
    text = " ".join((detail if message in detail else f"{message}: {detail}").split())
    shown = "".join(character for character in text if character.isprintable())
    return shown[:_MOST_SAID].strip(": ")
