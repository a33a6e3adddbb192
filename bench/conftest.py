"""Contests: ours against a named baseline, interleaved in one run, told as a ratio.

The machine is noisy, so no absolute time is asserted: a contest fails when its ratio is
below the floor, the mark under which our code does not earn its keep.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

IS_QUICK = os.environ.get("GRIDMAD_BENCH_QUICK") == "1"

SCORES = pytest.StashKey[list["Score"]]()


@dataclass(frozen=True)
class Score:
    """The outcome of one contest: how many times better ours is than the baseline."""

    name: str
    baseline: str
    ratio: float
    floor: float
    ambition: float
    note: str

    def __str__(self) -> str:
        verdict = "ambition met" if self.ratio >= self.ambition else "floor met"
        if self.ratio < self.floor:
            verdict = "BELOW THE FLOOR"
        return (
            f"{self.name:<44} {self.ratio:7.2f} x {self.baseline:<34} "
            f"floor {self.floor:g}, ambition {self.ambition:g}: {verdict}"
            + (f"  ({self.note})" if self.note else "")
        )


class Scoreboard:
    """The ratios of one run."""

    def __init__(self, scores: list[Score]) -> None:
        self._scores = scores

    def score(
        self, name: str, ratio: float, *, against: str, floor: float, ambition: float, note: str
    ) -> None:
        """Note a ratio (larger is better) and assert its floor."""
        score = Score(name, against, ratio, floor, ambition, note)
        self._scores.append(score)
        # A quick look has too few rounds to judge by.
        assert IS_QUICK or ratio >= floor, str(score)


class Contest:
    """Runs ours and the baseline in turns and compares the best of each."""

    def __init__(self, benchmark: BenchmarkFixture, scoreboard: Scoreboard) -> None:
        self._benchmark = benchmark
        self._scoreboard = scoreboard

    def run(
        self,
        name: str,
        ours: Callable[[], object],
        baseline: Callable[[], object],
        *,
        against: str,
        floor: float,
        ambition: float,
        rounds: int = 20,
        note: Callable[[float], str] = lambda _seconds: "",
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        """Time both, in turns, each after `prepare`; `note` gets the seconds of our best round."""
        times: list[float] = []

        def baseline_first() -> None:
            prepare()
            start = time.perf_counter()
            baseline()
            times.append(time.perf_counter() - start)
            prepare()

        self._benchmark.pedantic(  # type: ignore[no-untyped-call]
            ours,
            setup=baseline_first,
            rounds=min(rounds, 3) if IS_QUICK else rounds,
            warmup_rounds=1,
        )
        assert self._benchmark.stats is not None
        best: float = self._benchmark.stats.stats.min
        ratio = min(times) / best
        self._benchmark.extra_info.update(ratio=ratio, baseline=against, floor=floor)
        self._scoreboard.score(
            name, ratio, against=against, floor=floor, ambition=ambition, note=note(best)
        )


@pytest.fixture
def scoreboard(request: pytest.FixtureRequest) -> Scoreboard:
    """Where ratios are told that no contest measured."""
    return Scoreboard(request.config.stash.setdefault(SCORES, []))


@pytest.fixture
def contest(benchmark: BenchmarkFixture, scoreboard: Scoreboard) -> Contest:
    """A contest; its score is told at the end of the run."""
    return Contest(benchmark, scoreboard)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Tell all scores."""
    scores = config.stash.get(SCORES, [])
    if scores:
        terminalreporter.section("ours against the baselines, larger is better")
        for score in scores:
            terminalreporter.write_line(str(score))
