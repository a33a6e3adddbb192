"""Clients that die by SIGKILL at any moment, many times over: the file is exact at the end."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.stomp_server import StompServer
from tests.services.test_peek import Session, printer

LIVES = 12


@pytest.fixture
def session(broker: StompServer, tmp_path: Path) -> Iterator[Session]:
    session = Session(broker, tmp_path)
    yield session
    session.close()


def live_and_die(session: Session, chance: random.Random, *, after_start: bool) -> None:
    """Run a client and kill it somewhere between its start and some hundred commits."""
    client = session.client()
    file = session.folder / "out"
    before = file.stat().st_size if file.exists() else 0
    if after_start:
        end = time.monotonic() + 20
        while client.poll() is None and time.monotonic() < end:
            if file.exists() and file.stat().st_size > before:
                break
            time.sleep(0.002)
    time.sleep(chance.random() * 0.3)
    client.kill()
    client.wait()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_file_is_exact_after_many_deaths(session: Session, seed: int) -> None:
    chance = random.Random(seed)
    job = session.job(printer(60_000_000, seed=seed, pause=0.0005))
    for life in range(LIVES):
        live_and_die(session, chance, after_start=life % 4 != 0)
    client = session.client()
    assert client.wait(100) == 0
    assert b'"exit_code": 0' in client.stdout.read()
    assert job.wait(60) == 0
    assert session.is_exact()


def test_the_file_is_exact_where_clients_die_after_the_job_has_ended(session: Session) -> None:
    chance = random.Random(3)
    job = session.job(printer(30_000_000), linger=0.1, park_size=64 << 20)
    assert job.wait(60) == 0
    for _ in range(6):
        live_and_die(session, chance, after_start=True)
    client = session.client()
    assert client.wait(100) == 0
    assert b'"exit_code": 0' in client.stdout.read()
    assert session.is_exact()
