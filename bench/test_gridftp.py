"""Files to and from a GridFTP server: gw_tm_mad_ftp against globus-url-copy.

Each file is a CP request of its own, under a temporary name until its size was compared;
globus-url-copy gets a whole folder at once, and does neither.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.conftest import IS_QUICK, Contest, Scoreboard
from bench.folders import clean, set_aside
from bench.players import BIN, Player
from tests.services import gridftp
from tests.services.gridftp import GridFtp

SMALL = 4096
"""Bytes of a small file ..."""
COUNT = 100 if IS_QUICK else 1000
"""... and how many there are."""
LARGE = 1 << (26 if IS_QUICK else 30)
MEMORY = 100 << 20
JOB = "gsiftp://localhost/~/.gw_bench_1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridFtp]:
    gridftp.require()
    with GridFtp(tmp_path_factory.mktemp("gridftp")) as server:
        yield server


@pytest.fixture
def ours(server: GridFtp) -> Iterator[Player]:
    """The driver, in a phase of a job."""
    with driver(server) as player:
        yield player


def driver(server: GridFtp, *options: str) -> Player:
    command = [str(BIN / "gw_tm_mad_ftp"), "--gridftp-port", str(server.port), *options]
    player = Player(command, server.environment)
    player.initialise(6)
    for request in ("START 1 - - - - ", f"RMDIR 1 - - {JOB}/ - ", f"MKDIR 1 - - {JOB}/ - "):
        assert b"SUCCESS" in player.ask(f"{request}\n".encode())
    return player


def url_copy(server: GridFtp, *words: str) -> None:
    subprocess.run(
        ["globus-url-copy", *words], check=True, env={**os.environ, **server.environment}
    )


def small_files(folder: Path) -> Path:
    folder.mkdir()
    for number in range(COUNT):
        (folder / str(number)).write_bytes(os.urandom(SMALL))
    return folder


def copies(source: str, target: str) -> bytes:
    return b"".join(
        f"CP 1 {number} - {source}/{number} {target}/{number}\n".encode() for number in range(COUNT)
    )


@pytest.mark.parametrize(
    ("options", "floor", "ambition"),
    [((), 5, 10), (("-pp", "-cc", "4", "-fast"), 0.35, 1)],
    ids=["plain", "pipelined"],
)
def test_small_files(
    contest: Contest,
    server: GridFtp,
    ours: Player,
    tmp_path: Path,
    options: tuple[str, ...],
    floor: float,
    ambition: float,
) -> None:
    source = small_files(tmp_path / "source")
    there = server.home / "theirs"
    there.mkdir(exist_ok=True)
    requests = copies(f"file://{source}", JOB)
    contest.run(
        f"{COUNT} files of 4 KiB by GridFTP, one CP each",
        lambda: ours.stream(requests, COUNT),
        lambda: url_copy(server, "-r", *options, f"file://{source}/", f"{server.url}/~/theirs/"),
        against=" ".join(("globus-url-copy -r", *options)),
        floor=floor,
        ambition=ambition,
        rounds=2 if not options else 6,
        prepare=lambda: set_aside(server.home / ".gw_bench_1", there),
        note=lambda seconds: f"{COUNT / seconds:.0f} a second",
    )
    assert len(list((server.home / ".gw_bench_1").iterdir())) == COUNT


@pytest.mark.parametrize("direction", ["up", "down"])
def test_large_file(
    contest: Contest, server: GridFtp, ours: Player, tmp_path: Path, direction: str
) -> None:
    here, there = tmp_path / "large", server.home / "large"
    source = here if direction == "up" else there
    block = os.urandom(1 << 20)
    with source.open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(block)
    if direction == "up":
        target = server.home / ".gw_bench_1/large"
        request = f"CP 1 0 - file://{here} {JOB}/large\n"
        theirs = (f"file://{here}", f"{server.url}/~/theirs.large")
        their_target = server.home / "theirs.large"
    else:
        target, their_target = tmp_path / "ours", tmp_path / "theirs"
        request = f"CP 1 0 - {server.url}/~/large file://{target}\n"
        theirs = (f"{server.url}/~/large", f"file://{their_target}")

    contest.run(
        f"{LARGE >> 20} MiB {direction} by GridFTP",
        lambda: ours.ask(request.encode()),
        lambda: url_copy(server, *theirs),
        against="globus-url-copy",
        floor=0.7,
        ambition=1 / 1.05,
        rounds=5,
        prepare=lambda: clean(target, their_target),
        note=lambda seconds: f"{LARGE / seconds / 1e6:.0f} MB/s",
    )
    assert target.stat().st_size == LARGE
    for path in (source, target, their_target):
        path.unlink(missing_ok=True)


def test_memory(scoreboard: Scoreboard, server: GridFtp, tmp_path: Path) -> None:
    """64 transfers under way."""
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(LARGE >> 4)
    with driver(server, "--per-endpoint", "64") as ours:
        requests = [f"CP 1 {n} - file://{source} {JOB}/{n}\n".encode() for n in range(64)]
        ours.stream(b"".join(requests), 64)
        peak = ours.peak_memory()
    scoreboard.score(
        "memory with 64 transfers under way",
        MEMORY / peak,
        against="100 MiB",
        floor=1,
        ambition=1.2,
        note=f"{peak >> 20} MiB",
    )
    for path in (server.home / ".gw_bench_1").iterdir():
        path.unlink()
