"""A job's output through a link of 1 Gbit/s and 5 ms: the job on one side of it, the broker and
the client on the other.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.conftest import IS_QUICK, Scoreboard
from bench.peek_brokers import NAMES, require, room, text
from bench.peek_link import FAR, ROOT, Link, LinkError, link
from bench.peek_players import Msgpeek, Place, Round, StompPeek, Text, transfer

__all__ = ["room", "text"]  # fixtures

SIZE = (32 if IS_QUICK else 1024) << 20
ROUNDS = 1 if IS_QUICK else 2


@pytest.fixture(scope="module")
def line() -> Iterator[Link]:
    """The link, for both brokers."""
    try:
        with link() as made:
            yield made
    except LinkError as error:
        pytest.skip(str(error))


@pytest.fixture(params=NAMES[:1] if IS_QUICK else NAMES)
def place(
    request: pytest.FixtureRequest, line: Link, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Each broker at the far end."""
    require(request.param)
    folder = tmp_path_factory.mktemp(f"far-{request.param}")
    program = [sys.executable, "-m", "bench.peek_brokers", request.param, str(folder), FAR]
    with subprocess.Popen(
        [*line.far, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as server:
        assert server.stdout is not None
        words = server.stdout.readline().split()
        assert words, f"{request.param} does not start"
        port, login, password, process = words
        yield Place(
            request.param, FAR, int(port), login, password, int(process), line.near, line.far
        )


def test_rate_through_a_link(
    place: Place, line: Link, text: Text, scoreboard: Scoreboard, room: Path
) -> None:
    """Raw log bytes a second, the best of each, after one round of each to warm up.

    Plain stomp.py fills the link.  We would with 2.4 times its log, which takes all of two cores:
    beside other work on the machine the ratio falls below the floor.
    """
    rounds: dict[str, list[Round]] = {player.name: [] for player in (StompPeek(), Msgpeek())}
    for size in [SIZE // 4] + [SIZE] * ROUNDS:
        for player in (StompPeek(), Msgpeek()):
            rounds[player.name].append(transfer(player, place, text, size, room))
    baseline, ours = (max(one[1:], key=lambda one: one.rate) for one in rounds.values())
    scoreboard.score(
        f"{SIZE >> 20} MiB of log through 1 Gbit/s, 5 ms, {place.name}",
        ours.rate / baseline.rate,
        against="plain stomp.py",
        floor=2.0,
        ambition=2.4,
        note=f"{ours}; the baseline's {baseline}; delay by {line.delay}",
    )
