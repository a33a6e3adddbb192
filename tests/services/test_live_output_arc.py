"""Jobs on a real A-REX, watched by their numbers: `--peek` of gw_em_mad_arc."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.drivers import Site, Subject, compute_element
from tests.peek_user import User
from tests.services import arc
from tests.services.rabbitmq import RabbitMQ
from tests.services.test_live_output import mute, peek
from tests.services.watched import PATIENCE, ended, somebody, watch_jobs

pytestmark = [pytest.mark.grid, pytest.mark.timeout(300)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Subject("gw_em_mad_arc", compute_element, is_slow=True).site(tmp_path) as site:
        site.set_environment({"MSGPEEK_LINGER": str(PATIENCE)})
        yield site


@pytest.fixture
def user(rabbitmq: RabbitMQ, tmp_path: Path) -> Iterator[User]:
    with somebody(rabbitmq, tmp_path) as one:
        yield one


def test_jobs_are_watched_by_what_was_brought_to_them(
    site: Site, rabbitmq: RabbitMQ, user: User
) -> None:
    home = site.home
    with peek(site, rabbitmq.url, rabbitmq) as gwd:
        copied = watch_jobs(site, user, gwd, "localhost")
    assert copied.stat().st_mode & 0o777 == 0o600
    # The login was brought to each job alone, and is gone.
    assert list(home.glob(".msgpeek-*")) == [copied]
    for folder in ("control", "session"):
        told = (arc.shared().folder / folder).rglob("*")
        assert not [
            path
            for path in told
            if path.is_file() and rabbitmq.password.encode() in path.read_bytes()
        ]


def test_without_a_broker_jobs_run_as_ever(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, peek(site, mute(silent)) as gwd:
        path = site.write(
            "job", '&(executable="/bin/sh")(arguments="-c" "echo out; exit 5")(stdout="out")'
        )
        gwd.ask_and_wait(f"SUBMIT 17 localhost {path}", seconds=PATIENCE)
        assert ended(gwd, 17) == "DONE:5"
    assert (site.home / "out").read_text() == "out\n"
