"""Snapshots: what is answered from memory, what waits, and when the source is asked."""

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from gridmad.errors import DriverError, TransientError
from gridmad.information import snapshot
from gridmad.information.snapshot import Snapshots


class Source:
    """Counts what is fetched from it; fails while `problem` is set, waits while `gate` is."""

    def __init__(self) -> None:
        self.count = 0
        self.problem: Exception | None = None
        self.gate: threading.Event | None = None

    def fetch(self) -> int:
        self.count += 1
        if self.gate is not None:
            self.gate.wait(10)
        if self.problem is not None:
            raise self.problem
        return self.count


def run(
    test: Callable[[Snapshots[int], Source], Coroutine[Any, Any, None]],
    refresh: float = 60.0,
    staleness: float = 60.0,
) -> None:
    async def main() -> None:
        source = Source()
        snapshots = Snapshots(source.fetch, refresh, staleness)
        try:
            await test(snapshots, source)
        finally:
            await snapshots.stop()

    asyncio.run(main())


async def value(snapshots: Snapshots[int]) -> int:
    got = snapshots.get()
    return await got if isinstance(got, Awaitable) else got


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_nothing_is_fetched_before_somebody_asks() -> None:
    async def test(snapshots: Snapshots[int], source: Source) -> None:
        await asyncio.sleep(0.05)
        assert source.count == 0

    run(test, refresh=0.01)


def test_all_who_ask_first_wait_for_one_fetch_and_then_nobody_waits() -> None:
    async def test(snapshots: Snapshots[int], source: Source) -> None:
        assert await asyncio.gather(*(value(snapshots) for _ in range(5))) == [1] * 5
        assert snapshots.get() == 1
        assert source.count == 1

    run(test)


def test_the_source_is_asked_again_in_the_background() -> None:
    async def test(snapshots: Snapshots[int], source: Source) -> None:
        await value(snapshots)
        await until(lambda: source.count >= 2)
        source.gate = threading.Event()
        before = source.count
        await until(lambda: source.count > before)
        assert snapshots.get() == before  # while the next one is under way
        source.gate.set()
        await until(lambda: snapshots.get() != before)

    run(test, refresh=0.02)


def test_the_last_value_holds_while_the_source_fails() -> None:
    async def test(snapshots: Snapshots[int], source: Source) -> None:
        await value(snapshots)
        source.problem = TransientError("out of reach")
        before = source.count
        await until(lambda: source.count > before)
        assert isinstance(snapshots.get(), int)
        source.problem = None
        before = source.count
        await until(lambda: snapshots.get() == before + 1)

    run(test, refresh=0.02)


def test_a_value_that_is_too_old_is_not_served() -> None:
    async def test(snapshots: Snapshots[int], source: Source) -> None:
        await value(snapshots)
        source.problem = TransientError("out of reach")
        await asyncio.sleep(0.3)
        for _ in range(2):
            with pytest.raises(TransientError, match="out of reach"):
                snapshots.get()

    run(test, refresh=0.02, staleness=0.2)


def test_the_first_failure_is_told_to_those_who_wait_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot, "FIRST_RETRY", 0.05)

    async def test(snapshots: Snapshots[int], source: Source) -> None:
        source.problem = TransientError("out of reach")
        with pytest.raises(TransientError, match="out of reach"):
            await value(snapshots)
        with pytest.raises(TransientError, match="out of reach"):
            snapshots.get()
        assert source.count == 1
        source.problem = None
        await until(lambda: source.count == 2)
        assert await value(snapshots) == 2

    run(test)


def test_a_source_that_fails_for_long_is_tried_at_a_steady_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(snapshot, "LONGEST_RETRY", 0.04)

    async def test(snapshots: Snapshots[int], source: Source) -> None:
        source.problem = TransientError("out of reach")
        with pytest.raises(TransientError):
            await value(snapshots)
        async with asyncio.timeout(5):
            await until(lambda: source.count > 12)  # pauses that only grew would take 20 s

    run(test)


def test_who_asks_after_a_failure_does_not_wait_for_the_next_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(snapshots: Snapshots[int], source: Source) -> None:
        monkeypatch.setattr(snapshot, "FIRST_RETRY", 30.0)
        source.problem = TransientError("out of reach")
        with pytest.raises(TransientError):
            await value(snapshots)
        source.problem = None
        monkeypatch.setattr(snapshot, "FIRST_RETRY", 0.0)
        async with asyncio.timeout(5):
            assert await value(snapshots) == 2

    run(test)


def test_the_source_is_left_in_peace_when_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "IDLE", 0.1)
    monkeypatch.setattr(snapshot, "LONGEST_RETRY", 0.02)

    async def test(snapshots: Snapshots[int], source: Source) -> None:
        await value(snapshots)
        await asyncio.sleep(0.4)
        before = source.count
        await asyncio.sleep(0.2)
        assert source.count == before
        # After such a pause there may be news: it is waited for.
        assert await value(snapshots) == before + 1
        async with asyncio.timeout(10):
            while source.count == before + 1:
                # Asked now and then, or a busy machine makes it a pause again.
                await value(snapshots)
                await asyncio.sleep(0.005)

    run(test, refresh=0.02)


def test_a_pause_and_a_source_that_fails_leave_the_last_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot, "IDLE", 0.05)
    monkeypatch.setattr(snapshot, "LONGEST_RETRY", 0.02)

    async def test(snapshots: Snapshots[int], source: Source) -> None:
        await value(snapshots)
        await asyncio.sleep(0.2)
        last = source.count
        source.problem = TransientError("out of reach")
        assert await value(snapshots) == last

    run(test, refresh=0.02)


def test_a_fault_of_the_fetch_is_an_error_like_others(caplog: pytest.LogCaptureFixture) -> None:
    async def test(snapshots: Snapshots[int], source: Source) -> None:
        source.problem = KeyError("oops")
        with pytest.raises(DriverError, match="KeyError: 'oops'"):
            await value(snapshots)

    run(test)
    assert "unexpected" in caplog.text


def test_the_collector_rests_during_a_fetch() -> None:
    seen: list[bool] = []

    def fetch() -> int:
        seen.append(gc.isenabled())
        return 1

    async def main() -> None:
        snapshots = Snapshots(fetch, 60.0, 60.0)
        got = snapshots.get()
        assert isinstance(got, Awaitable)
        await got
        await snapshots.stop()

    asyncio.run(main())
    assert seen == [False]
    assert gc.isenabled()


class Stepwise:
    """A fetch of many steps, each long enough to rest after it."""

    def __init__(self, refresh: float) -> None:
        self.snapshots = Snapshots(self.fetch, refresh, 60.0)
        self.taken: list[float] = []
        self.begun = self.ended = 0

    def fetch(self) -> int:
        start = time.monotonic()
        self.begun += 1
        try:
            for _ in range(20):
                time.sleep(snapshot.STEP)
                self.snapshots.give_way()
        finally:
            self.ended += 1
        self.taken.append(time.monotonic() - start)
        return len(self.taken)


def test_a_fetch_rests_only_where_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever rests does it for longer than any test lasts.
    monkeypatch.setattr(snapshot, "REST", 1e9)
    monkeypatch.setattr(snapshot, "ALL_RESTS", 1e9)

    async def main() -> None:
        source = Stepwise(refresh=0.01)
        assert await value(source.snapshots) == 1
        await until(lambda: source.begun == 2)
        assert await value(source.snapshots) == 1
        assert source.ended == 1
        await source.snapshots.stop()
        # At the end nothing is left that rests.
        await until(lambda: source.ended == 2)
        assert len(source.taken) == 1

    asyncio.run(main())


def test_all_rests_together_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "REST", 1e9)
    monkeypatch.setattr(snapshot, "ALL_RESTS", 10.0)

    async def main() -> None:
        source = Stepwise(refresh=0.02)
        assert await value(source.snapshots) == 1
        await until(lambda: len(source.taken) == 2)
        await source.snapshots.stop()
        assert source.taken[1] >= 10.0 * 0.02

    asyncio.run(main())
