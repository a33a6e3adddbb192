"""Jobs on a real A-REX, watched by their numbers: `--peek` of gw_em_mad_arc."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.drivers import Site, Subject, compute_element
from tests.conformance.gwd import Player
from tests.peek_user import User, finish
from tests.services import arc
from tests.services.rabbitmq import RabbitMQ
from tests.services.test_live_output import PRINTER, digest, mute, peek

pytestmark = pytest.mark.grid

PATIENCE = 90.0
JOBS = {17: 3, 18: 4}
"""Exit codes by the numbers of jobs."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Subject("gw_em_mad_arc", compute_element, is_slow=True).site(tmp_path) as site:
        site.set_environment({"MSGPEEK_LINGER": str(PATIENCE)})
        yield site


@pytest.fixture
def user(rabbitmq: RabbitMQ, tmp_path: Path) -> Iterator[User]:
    (tmp_path / "elsewhere").mkdir()
    one = User(rabbitmq, tmp_path / "elsewhere")
    yield one
    one.close()


def ended(gwd: Player, job: int) -> str:
    """The final state that was told of a job."""
    gwd.wait(lambda: gwd.has_ended(job), f"job {job} does not end", PATIENCE)
    return gwd.last_state(job)


def test_jobs_are_watched_by_what_was_brought_to_them(
    site: Site, rabbitmq: RabbitMQ, user: User
) -> None:
    home = site.home
    script = home / "printer.sh"
    script.write_text(f"#!/bin/sh\ntr '\\0' '\\n' </proc/$PPID/cmdline >by.$1\n{PRINTER}")
    script.chmod(0o755)
    with peek(site, rabbitmq.url, rabbitmq) as gwd:
        clients = {}
        lines = []
        for job, code in JOBS.items():
            clients[job] = user.start("-I", str(job), "--wait", "-F", f"{job}.log")
            text = f'&(executable="printer.sh")(arguments="{job}" "{code}")(stdout="out.{job}")'
            path = site.write(str(job), f'{text}(stderr="err.{job}")')
            lines.append(f"SUBMIT {job} localhost {path}")
        answers = gwd.ask_and_wait(*lines, seconds=PATIENCE)
        assert all(" SUCCESS " in answer for answer in answers), answers
        for job, code in JOBS.items():
            assert ended(gwd, job) == f"DONE:{code}"
            assert finish(clients[job])[0] == code
            for copy, log, own in (
                (f"copy.{job}", f"{job}.log", f"out.{job}"),
                (f"copy2.{job}", f"{job}.log.err", f"err.{job}"),
            ):
                assert digest(home / copy) == digest(user.folder / log) == digest(home / own)
        (copied,) = home.glob(".msgpeek-*.pyz")
        for job in JOBS:
            assert copied.name in (home / f"by.{job}").read_text().splitlines()
            assert "MSGPEEK" not in (home / f"env.{job}").read_text()
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
