"""Fixtures: a RabbitMQ and an ActiveMQ for the whole run, and each of them in turn."""

from collections.abc import Iterator

import pytest

from tests.services import activemq as activemq_server
from tests.services import rabbitmq as rabbitmq_server
from tests.services.activemq import ActiveMQ
from tests.services.rabbitmq import RabbitMQ
from tests.services.required import skip_without
from tests.services.stomp_server import StompServer


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A RabbitMQ that runs; a test that stops it starts it again."""
    problem = rabbitmq_server.missing()
    if problem:
        skip_without("rabbitmq", problem)
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture(scope="session")
def activemq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ActiveMQ]:
    """An ActiveMQ that runs; a test that stops it starts it again."""
    problem = activemq_server.missing()
    if problem:
        skip_without("activemq", problem)
    with ActiveMQ(tmp_path_factory.mktemp("activemq")) as server:
        yield server


@pytest.fixture(scope="session", params=["rabbitmq", "activemq"])
def broker(request: pytest.FixtureRequest) -> StompServer:
    """Each broker in turn."""
    server: StompServer = request.getfixturevalue(request.param)
    return server
