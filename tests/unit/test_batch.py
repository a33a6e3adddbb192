import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gridmad.crew import Crew
from gridmad.driver import Batch
from gridmad.errors import DriverError


def in_threads(
    items: list[int], function: Callable[[int], int], threads: int = 3
) -> dict[int, int | DriverError]:
    outcomes: dict[int, int | DriverError] = {}

    def settle(index: int, outcome: int | DriverError) -> None:
        assert index not in outcomes
        outcomes[index] = outcome

    async def run() -> None:
        crew = Crew(threads, "test")
        await Batch(items, settle).each_in_thread(crew, function)
        await crew.stop()

    asyncio.run(run())
    return outcomes


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 10_000])
def test_each_item_gets_its_own_outcome(length: int) -> None:
    assert in_threads(list(range(length)), lambda item: item * 2) == {
        index: index * 2 for index in range(length)
    }


def test_errors_settle_their_own_item() -> None:
    def function(item: int) -> int:
        if item == 0:
            raise DriverError("refused")
        if item == 1:
            Path("/no/such/file").stat()
        if item == 2:
            raise KeyError("key")
        if item == 3:
            raise SystemExit
        return item

    outcomes = in_threads([0, 1, 2, 3, 4], function)
    assert [str(outcomes[index]) for index in range(5)] == [
        "refused",
        "/no/such/file: No such file or directory",
        "KeyError: 'key'",
        "SystemExit: ",
        "4",
    ]


def test_an_item_is_settled_while_another_is_under_way() -> None:
    is_settled = threading.Event()

    def settle(index: int, outcome: bool | DriverError) -> None:
        if index == 1:
            is_settled.set()
        else:
            assert outcome is True

    async def run() -> None:
        crew = Crew(2, "test")
        await Batch([0, 1], settle).each_in_thread(
            crew, lambda item: item == 1 or is_settled.wait(10)
        )
        await crew.stop()

    asyncio.run(run())


def test_what_is_cancelled_takes_up_no_more_items() -> None:
    started: list[int] = []
    is_open = threading.Event()

    def function(item: int) -> None:
        started.append(item)
        is_open.wait(10)

    async def run(crew: Crew) -> None:
        batch: Batch[int, None] = Batch(list(range(100)), lambda _index, _outcome: None)
        work = asyncio.create_task(batch.each_in_thread(crew, function))
        while len(started) < 2:
            await asyncio.sleep(0.001)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        is_open.set()

    asyncio.run(run(Crew(2, "test")))
    assert sorted(started) == [0, 1]


def test_a_thread_may_outlive_the_loop() -> None:
    is_open = threading.Event()

    async def run(crew: Crew) -> None:
        batch: Batch[int, bool] = Batch([1], lambda _index, _outcome: None)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                batch.each_in_thread(crew, lambda _: is_open.wait(10)), timeout=0.05
            )

    async def run_more() -> None:
        outcomes: list[int | DriverError] = []
        batch: Batch[str, int] = Batch(["7"], lambda _index, outcome: outcomes.append(outcome))
        await asyncio.wait_for(batch.each_in_thread(crew, int), timeout=5)
        assert outcomes == [7]
        await crew.stop()

    crew = Crew(1, "test")
    asyncio.run(run(crew))
    is_open.set()
    time.sleep(0.05)
    asyncio.run(run_more())
