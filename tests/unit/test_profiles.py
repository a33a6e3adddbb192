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


def test_no_queue_stays_behind() -> None:
    """RabbitMQ's are durable: each that nobody uses any more has to expire, after its messages."""
    for role in set(Role) - {Role.ROLL}:
        assert int(RABBITMQ.send(role, persistent=False, expires=None, time=0)["x-expires"]) > 0
    for role in (Role.PARK, Role.TOKEN):
        day = 86_400_000
        assert int(RABBITMQ.subscribe(role, 1)["x-expires"]) > day
