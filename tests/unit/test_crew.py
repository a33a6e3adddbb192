import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from gridmad import crew as crew_module
from gridmad.crew import MOMENT, Crew


def run_with_crew(most: int, play: Callable[[Crew], Awaitable[None]]) -> None:
    async def run() -> None:
        crew = Crew(most, "test")
        try:
            await asyncio.wait_for(play(crew), 30)
        finally:
            await crew.stop()

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_short_work_is_done_by_one_thread_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    # A busy machine may hold a thread up for more than a moment.
    monkeypatch.setattr(crew_module, "MOMENT", 60.0)
    done: list[int] = []
    now: set[int] = set()
    met: list[int] = []

    def work(number: int) -> None:
        now.add(threading.get_ident())
        met.append(len(now))
        done.append(number)
        time.sleep(0)
        now.discard(threading.get_ident())

    async def play(crew: Crew) -> None:
        for number in range(1000):
            crew.add([partial(work, number)])
        await until(lambda: len(done) == 1000)
        assert done == list(range(1000))
        assert max(met) == 1

    run_with_crew(4, play)


def test_another_thread_joins_where_one_is_held_up() -> None:
    is_open = threading.Event()
    done: list[int] = []

    async def play(crew: Crew) -> None:
        crew.add([lambda: is_open.wait(10)] * 3)
        crew.add([lambda: done.append(1)] * 100)
        await until(lambda: len(done) == 100)
        assert not is_open.is_set()
        is_open.set()

    run_with_crew(4, play)


def test_no_more_threads_than_are_allowed() -> None:
    now, most, done = 0, 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal now, most, done
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(4 * MOMENT)
        with lock:
            now -= 1
            done += 1

    async def play(crew: Crew) -> None:
        crew.add([work] * 40)
        await until(lambda: done == 40)
        assert most == 3

    run_with_crew(3, play)


@pytest.mark.parametrize("pause", [0, 0.0001, MOMENT])
def test_what_is_added_at_any_moment_is_done(pause: float) -> None:
    done: list[int] = []

    async def play(crew: Crew) -> None:
        for number in range(200):
            crew.add([lambda: done.append(1)])
            if number % 3 == 0:
                await asyncio.sleep(pause)
        await until(lambda: len(done) == 200)

    run_with_crew(2, play)


def test_what_waits_is_left_when_it_stops() -> None:
    is_open = threading.Event()
    done: list[int] = []

    async def play(crew: Crew) -> None:
        crew.add([lambda: is_open.wait(10), lambda: done.append(1)])
        crew.clear()
        is_open.set()

    run_with_crew(1, play)
    assert not done
