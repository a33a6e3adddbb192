"""What brokers say of themselves and in ERROR frames."""

import pytest

from gridmad.peek.profiles import (
    ACTIVEMQ,
    ARTEMIS,
    OTHER,
    RABBITMQ,
    Profile,
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
        ("ActiveMQ-Artemis/2.28.0", ARTEMIS),
        ("apache-activemq-artemis/2.0", ARTEMIS),
        ("", OTHER),
        ("rabbit", OTHER),
    ],
)
def test_the_profile_follows_from_the_server(server: str, profile: Profile) -> None:
    assert choose(server) is profile


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
