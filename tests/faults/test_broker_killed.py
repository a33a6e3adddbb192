"""Brokers that are killed: one comes back, several times, or another one takes its place."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scene import Scene
from tests.services.activemq import ActiveMQ
from tests.services.rabbitmq import RabbitMQ
from tests.services.stomp_server import StompServer

RATE = 3e6


def test_a_broker_is_killed_and_restarted_in_mid_stream(scene: Scene) -> None:
    until = scene.folder / "until"
    job = scene.job("--hold-for-client", rate=RATE, until=str(until), code=3)
    client = scene.client()
    for _ in range(2):
        scene.wait_for_size(scene.size("out") + scene.chance.randrange(1, 2_000_000))
        scene.server.restart()
    scene.wait_for_size(scene.size("out") + 1)
    until.touch()
    assert scene.finish(client) == 3
    assert scene.finish(job) == 3
    scene.assert_exact()
    assert scene.gaps() == []


def test_what_is_parked_outlives_its_broker(scene: Scene) -> None:
    """It is persistent; a client that drains it when the broker dies goes on, too."""
    size = 40_000_000
    job = scene.job("--linger", "0", "--park", "64M", size=size, code=3, random=True)
    assert scene.finish(job) == 3
    client = scene.client()
    scene.wait_for_size(1_000_000)
    for queue in (f"data.{scene.stream}", f"control.token.{scene.stream}"):
        scene.server.wait_until_kept(queue)
    scene.server.restart()
    assert scene.finish(client) == 3
    scene.assert_exact()


@pytest.fixture
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Scene, StompServer]]:
    """A scene with two brokers; the first one is up again afterwards."""
    names = [request.param, {"rabbitmq": "activemq", "activemq": "rabbitmq"}[request.param]]
    first, second = (request.getfixturevalue(name) for name in names)
    assert isinstance(first, RabbitMQ | ActiveMQ)
    scene = Scene(first, tmp_path)
    scene.environment["MSGPEEK_HOST"] = f"{first.url},{second.url}"
    yield scene, first
    scene.close()
    first.restart()


@pytest.mark.parametrize("two", ["rabbitmq", "activemq"], indirect=True)
def test_both_go_on_with_another_broker(two: tuple[Scene, StompServer]) -> None:
    scene, first = two
    until = scene.folder / "until"
    job = scene.job("--hold-for-client", rate=RATE, until=str(until), code=3)
    client = scene.client()
    scene.wait_for_size(1_000_000)
    first.kill()
    scene.wait_for_size(scene.size("out") + 5_000_000)
    until.touch()
    assert scene.finish(client) == 3
    assert scene.finish(job) == 3
    scene.assert_exact()
    assert scene.gaps() == []
