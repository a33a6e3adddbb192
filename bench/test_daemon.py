"""The whole daemon, through pipes: gw_im_mad_static against a naive readline/print loop."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.conftest import IS_QUICK, Contest, Scoreboard
from bench.players import BIN, NAIVE, Player, on_one_processor
from bench.samples import ATTRIBUTES
from gridmad import wire

MONITOR = b"MONITOR 17 gn0.hpcc.sztaki.hu -\n"


@pytest.fixture
def static(tmp_path: Path) -> list[str]:
    """The command of the static driver for one host."""
    (tmp_path / "attributes").write_bytes(wire.format_attributes(*ATTRIBUTES)[0])
    (tmp_path / "hosts").write_text(f"gn0.hpcc.sztaki.hu {tmp_path}/attributes\n")
    return [str(BIN / "gw_im_mad_static"), "-l", str(tmp_path / "hosts")]


@pytest.fixture
def players(static: list[str]) -> Iterator[tuple[Player, Player]]:
    with Player(static) as ours, Player(NAIVE) as naive:
        for player in (ours, naive):
            player.initialise()
            assert player.ask(MONITOR).startswith(b"MONITOR 17 SUCCESS HOSTNAME=")
        yield ours, naive


def test_stream(contest: Contest, players: tuple[Player, Player]) -> None:
    """Requests as fast as they are taken; the answers are 580 bytes each."""
    ours, naive = players
    count = 20_000 if IS_QUICK else 100_000
    requests = MONITOR * count
    contest.run(
        "daemon, streaming requests",
        lambda: ours.stream(requests, count),
        lambda: naive.stream(requests, count),
        against="naive readline/print loop",
        floor=4,
        ambition=6.5,
        rounds=8,
        note=lambda seconds: f"{count / seconds / 1e3:.0f} k requests/s",
    )


def test_one_at_a_time(contest: Contest, static: list[str]) -> None:
    """One request outstanding, all on one processor."""
    count = 1000 if IS_QUICK else 5000
    with on_one_processor(), Player(static) as ours, Player(NAIVE) as naive:

        def closed(player: Player) -> None:
            for _ in range(count):
                player.ask(MONITOR)

        ours.initialise()
        naive.initialise()
        contest.run(
            "daemon, one request at a time, pinned",
            lambda: closed(ours),
            lambda: closed(naive),
            against="naive readline/print loop",
            floor=1,
            ambition=1 / 0.7,
            note=lambda seconds: f"{seconds / count * 1e6:.1f} us each way and back",
        )


def test_processor_time(scoreboard: Scoreboard, static: list[str]) -> None:
    """CPU seconds for 100,000 requests, start and end included."""
    count = 100_000
    used = []
    for command in (static, NAIVE):
        player = Player(command)
        player.initialise()
        player.stream(MONITOR * count, count)
        used.append(player.close())
    ours, naive = used
    scoreboard.score(
        "daemon, CPU seconds for 100 k requests",
        naive / ours,
        against="naive readline/print loop",
        floor=2,
        ambition=4,
        note=f"{ours:.2f} s",
    )


def test_start(contest: Contest, static: list[str]) -> None:
    """From exec to INIT's answer, beside a bare interpreter."""
    times = []

    def ours() -> None:
        start = time.perf_counter()
        with Player(static) as player:
            player.initialise()
            times.append(time.perf_counter() - start)

    contest.run(
        "start to INIT answered",
        ours,
        lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
        against="python3 -c pass",
        floor=0.05,
        ambition=0.1,
        rounds=10,
        note=lambda _seconds: f"{min(times) * 1e3:.0f} ms",
    )


@pytest.mark.parametrize("name", ["gw_im_mad_static", "gw_im_mad_local"])
def test_memory(scoreboard: Scoreboard, static: list[str], name: str) -> None:
    """The peak memory of a daemon that served a million requests, and of an idle one.

    The static driver answers each read at once, the local one lets requests gather.
    """
    count = 10_000 if IS_QUICK else 100_000
    command = static if name == "gw_im_mad_static" else [str(BIN / name)]
    with Player(command) as player:
        player.initialise()
        host = player.ask(b"DISCOVER - - -\n").split()[-1]
        monitor = b"MONITOR 17 %b -\n" % host
        assert b"SUCCESS" in player.ask(monitor)
        idle = player.peak_memory()
        for _ in range(10):
            player.stream(monitor * count, count)
        peak = player.peak_memory()
    for what, size, limit in (
        (f"{name}, idle memory", idle, 40e6),
        (f"{name}, peak of {10 * count:,} requests", peak, 100e6),
    ):
        scoreboard.score(
            what,
            limit / size,
            against=f"the limit of {limit / 1e6:.0f} MB",
            floor=1,
            ambition=1.3,
            note=f"{size / 1e6:.1f} MB",
        )
