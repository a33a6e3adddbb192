"""Which broker is which, and what each is told."""

import pytest

from gridmad.peek.profiles import (
    ACTIVEMQ,
    ARTEMIS,
    OTHER,
    PROFILES,
    RABBITMQ,
    Profile,
    Role,
    choose,
    error_text,
    is_refusal,
    parse_heartbeat,
)


@pytest.mark.parametrize(
    ("server", "profile"),
    [
        ("RabbitMQ/3.10.8", RABBITMQ),
        ("ActiveMQ/5.17.2", ACTIVEMQ),
        ("ActiveMQ-Artemis/2.31.2 ActiveMQ Artemis Messaging Engine", ARTEMIS),
        ("apache-activemq-artemis/2.0", ARTEMIS),
        ("", OTHER),
        ("apollo/1.7", OTHER),
    ],
)
def test_the_server_header_chooses(server: str, profile: Profile) -> None:
    assert choose(server) is profile


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
@pytest.mark.parametrize("role", Role)
def test_a_queue_is_described_alike(profile: Profile, role: Role) -> None:
    """RabbitMQ ends the connection of who describes it in another way."""
    sent = profile.send(role, persistent=False, expires=None, time=0)
    assert sent.items() <= profile.subscribe(role, 0).items()


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_nobody_is_told_persistent_false(profile: Profile) -> None:
    """RabbitMQ would make the queue one of the sender's connection alone."""
    for role in Role:
        assert "persistent" not in profile.send(role, persistent=False, expires=1, time=0)
        sent = profile.send(role, persistent=True, expires=1, time=0)
        assert sent["persistent"] == "true"


def test_expiry() -> None:
    def told(profile: Profile, expires: float) -> dict[str, str]:
        return profile.send(Role.ROLL, persistent=False, expires=expires, time=1000.5)

    assert told(RABBITMQ, 2) == {"expiration": "2000"}
    # 0 would mean at once to RabbitMQ, and never to ActiveMQ.
    assert told(RABBITMQ, 0) == {"expiration": "1"}
    assert told(ACTIVEMQ, 2) == {"expires": "1002500"}
    assert told(OTHER, 2) == {"expiration": "2000", "expires": "1002500"}


def test_prefetch() -> None:
    assert RABBITMQ.subscribe(Role.ROLL, 7) == {
        "ack": "client-individual",
        "prefetch-count": "7",
    }
    assert ACTIVEMQ.subscribe(Role.DATA, 7) == {"ack": "client", "activemq.prefetchSize": "7"}
    assert ARTEMIS.subscribe(Role.DATA, 2)["consumer-window-size"] == "131072"
    for profile in PROFILES:
        assert len(profile.subscribe(Role.ROLL, 0)) == 1


def test_one_subscriber_has_all_tokens() -> None:
    """RabbitMQ gives a queue to the first who comes, as far as the prefetch goes."""
    assert ACTIVEMQ.subscribe(Role.TOKEN, 7)["activemq.exclusive"] == "true"
    assert "activemq.exclusive" not in ACTIVEMQ.subscribe(Role.PARK, 7)


def test_no_queue_stays_behind() -> None:
    """RabbitMQ's are durable: each that nobody uses any more has to expire, after its messages."""
    for role in set(Role) - {Role.ROLL}:
        assert int(RABBITMQ.send(role, persistent=False, expires=None, time=0)["x-expires"]) > 0
    for role in (Role.PARK, Role.TOKEN):
        day = 86_400_000
        assert int(RABBITMQ.subscribe(role, 1)["x-expires"]) > day


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("0,0", (0, 0)),
        ("10000,5000", (10000, 5000)),
        ("10000, 5000", (10000, 5000)),
        ("", (0, 0)),
        ("10", (0, 0)),
        ("-5,5", (0, 0)),
        ("1e3,1", (0, 0)),
        ("٣,٣", (0, 0)),
        # More digits than a number of Python's takes, or a float.
        ("9" * 4000 + ",0", (0, 0)),
        ("9" * 5000 + ",0", (0, 0)),
    ],
)
def test_a_heartbeat_header_is_not_believed_blindly(header: str, expected: tuple[int, int]) -> None:
    assert parse_heartbeat(header) == expected


@pytest.mark.parametrize(
    ("message", "body", "refuses"),
    [
        ("Bad CONNECT", b"Access refused for user 'msg'\n", True),
        ("User name [x] or password is invalid.", b"", True),
        ("access_refused", b"access to queue 'q' in vhost '/' refused for user 'x'\n", True),
        ("User x is not authorized to write to: queue://q", b"", True),
        ("not_found", b"NOT_FOUND - no exchange 'x' in vhost '/'\n", False),
        ("Bad command", b"Could not interpret command\n", False),
        ("", b"out of memory", False),
    ],
)
def test_a_refusal_is_told_from_other_trouble(message: str, body: bytes, refuses: bool) -> None:
    assert is_refusal(error_text(message, body)) is refuses


def test_what_an_error_says_is_one_short_line() -> None:
    assert error_text("no", b"because\r\nof that\n") == "no: because of that"
    assert error_text("it broke", b"java.X: it broke\n\tat a.b(C.java)\n") == "java.X: it broke"
    assert error_text("\x1b[31mred", b"\xff\0\x9b") == "[31mred: \ufffd\ufffd"
    assert len(error_text("m" * 60_000, b"b" * 60_000)) == 300
    assert error_text("", b"") == ""
