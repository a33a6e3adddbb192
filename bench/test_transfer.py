"""Copies of local files: gw_tm_mad_local against DRM4G's transfer driver and against cp."""

import itertools
import subprocess
from pathlib import Path

from bench import drm4g
from bench.conftest import IS_QUICK, Contest
from bench.folders import clean, set_aside
from bench.players import BIN, Player

SMALL = 4096
"""Bytes of a small file."""


def start(player: Player, host: str) -> None:
    """One job's phase, with its directory."""
    player.initialise(6)
    player.ask(b"START 1 - - - - \n")
    answer = player.ask(b"MKDIR 1 - - remote://%b/~/.gw_bench_1/ - \n" % host.encode())
    assert b"SUCCESS" in answer


def copy(player: Player, source: Path, host: str, number: int) -> bytes:
    """The request for one copy."""
    return b"CP 1 %d - file://%b remote://%b/~/.gw_bench_1/file.%d\n" % (
        number, bytes(source), host.encode(), number,
    )  # fmt: skip


def test_small_copies_one_at_a_time(contest: Contest, tmp_path: Path) -> None:
    """Each copy is asked for when the one before is done."""
    numbers = itertools.count()
    count = 20 if IS_QUICK else 100
    source = tmp_path / "source"
    source.write_bytes(bytes(SMALL))
    ours_home, theirs_home = tmp_path / "ours", tmp_path / "theirs"
    ours_home.mkdir()
    with (
        Player([str(BIN / "gw_tm_mad_local")], {"HOME": str(ours_home)}) as ours,
        Player(
            drm4g.driver("gw_tm_mad_drm4g.py"), drm4g.environment(theirs_home), tmp_path
        ) as theirs,
    ):
        start(ours, "localhost")
        start(theirs, drm4g.HOST)

        def closed(player: Player, host: str) -> None:
            for number in itertools.islice(numbers, count):
                assert b"SUCCESS" in player.ask(copy(player, source, host, number))

        contest.run(
            "local CP of 4 KiB, one at a time",
            lambda: closed(ours, "localhost"),
            lambda: closed(theirs, drm4g.HOST),
            against="DRM4G's transfer driver",
            floor=5,
            ambition=8.7,
            rounds=8,
            note=lambda seconds: f"{count / seconds:.0f} a second",
        )
    copied = list((ours_home / ".gw_bench_1").iterdir())
    assert copied
    assert all(path.stat().st_size == SMALL for path in copied)


def test_small_copies_at_once(contest: Contest, tmp_path: Path) -> None:
    """All copies of a phase are asked for together, as gwd does; against one cp for each.

    To names that are free, as in a job's directory.
    """
    count = 100 if IS_QUICK else 1000
    source = tmp_path / "source"
    source.write_bytes(bytes(SMALL))
    (tmp_path / "cp").mkdir()
    with Player([str(BIN / "gw_tm_mad_local")], {"HOME": str(tmp_path)}) as ours:
        start(ours, "localhost")
        requests = b"".join(copy(ours, source, "localhost", n) for n in range(count))

        def cp() -> None:
            for number in range(count):
                subprocess.run(["cp", source, tmp_path / "cp" / str(number)], check=True)

        contest.run(
            "local CP of 4 KiB, all at once",
            lambda: ours.stream(requests, count),
            cp,
            against="one cp for each",
            floor=3,
            ambition=6,
            rounds=4,
            prepare=lambda: set_aside(tmp_path / ".gw_bench_1", tmp_path / "cp"),
            note=lambda seconds: f"{count / seconds:.0f} a second",
        )


def test_large_copy(contest: Contest, tmp_path: Path) -> None:
    """One large file, of a name that is free, as in a job's directory.

    One that replaces another costs more: ext4 then begins to write it out at once.
    """
    source, theirs = tmp_path / "source", tmp_path / "copy"
    target = tmp_path / ".gw_bench_1" / "file.0"
    size = 1 << (26 if IS_QUICK else 30)
    with source.open("wb") as file:
        for _ in range(size >> 20):
            file.write(b"x" * (1 << 20))

    with Player([str(BIN / "gw_tm_mad_local")], {"HOME": str(tmp_path)}) as ours:
        start(ours, "localhost")
        contest.run(
            f"local CP of {size >> 20} MiB",
            lambda: ours.ask(copy(ours, source, "localhost", 0)),
            lambda: subprocess.run(["cp", source, theirs], check=True),
            against="cp",
            floor=0.8,
            ambition=1 / 1.05,
            rounds=5,
            prepare=lambda: clean(target, theirs),
        )
    assert target.stat().st_size == size
    for path in (source, target, theirs):
        path.unlink(missing_ok=True)
