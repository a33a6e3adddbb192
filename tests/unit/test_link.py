"""An endpoint that answers or fails, and the workers that deal with it."""

import asyncio
import itertools
import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from gridmad.errors import DriverError, TransientError
from gridmad.execution import link
from gridmad.execution.link import Limits, Link

LIMITS = Limits(20.0, 100, 100.0, 1.0, 5.0)


async def answer(result: object = None, *, error: BaseException | None = None) -> object:
    await asyncio.sleep(0)
    if error is not None:
        raise error
    return result


def run(scene: Coroutine[Any, Any, None]) -> None:
    async def play() -> None:
        async with asyncio.timeout(20):
            await scene

    asyncio.run(play())


# ---------------------------------------------------------------- workers


def test_what_comes_when_a_worker_has_just_ended_is_worked_on() -> None:
    """Its task is done, and nobody knows yet."""

    async def scene() -> None:
        endpoint = Link("here", LIMITS)
        waiting = 0
        all_done = asyncio.Event()

        def come() -> None:
            nonlocal waiting
            waiting += 1
            endpoint.work("worker", work)

        rounds = itertools.count()

        async def work() -> None:
            nonlocal waiting
            await asyncio.sleep(0)
            waiting = 0
            if next(rounds) < 3:
                # Runs after this coroutine has returned and before its task's callbacks.
                asyncio.get_running_loop().call_soon(come)
            else:
                all_done.set()

        come()
        await all_done.wait()
        assert waiting == 0

    run(scene())


def test_a_worker_that_fails_is_set_to_work_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(link, "FIRST_PAUSE", 0.01)

    async def scene() -> None:
        endpoint = Link("here", LIMITS)
        errors = [ValueError("a bug")]
        done = asyncio.Event()

        async def work() -> None:
            if errors:
                raise errors.pop()
            done.set()

        endpoint.work("worker", work)
        await done.wait()

    run(scene())
    assert "a bug" in caplog.text


# ---------------------------------------------------------------- calls


@pytest.mark.parametrize(
    "error",
    [TransientError("cut"), DriverError("no"), ValueError("a bug"), asyncio.CancelledError()],
)
def test_whatever_a_resource_raises_is_transient_trouble(error: BaseException) -> None:
    async def scene() -> None:
        endpoint = Link("here", LIMITS)
        with pytest.raises(TransientError):
            await endpoint.call("query", answer(error=error))
        assert endpoint.pause("query") > 0
        assert endpoint.trouble("query")

    run(scene())


def test_a_worker_that_is_stopped_in_a_call_stops() -> None:
    async def scene() -> None:
        endpoint = Link("here", LIMITS)

        async def work() -> None:
            await endpoint.call("query", asyncio.sleep(3600))

        endpoint.work("worker", work)
        await asyncio.sleep(0)
        endpoint.stop()
        while endpoint.is_at_work("worker"):
            await asyncio.sleep(0.001)
        assert endpoint.pause("query") == 0

    run(scene())


def test_operations_fail_each_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    async def scene() -> None:
        endpoint = Link("here", LIMITS)
        with pytest.raises(TransientError):
            await endpoint.call("submit", answer(error=TransientError("it takes no jobs")))
        paused = endpoint.pause("submit")
        assert endpoint.pause("query") == 0
        await endpoint.call("query", answer())
        assert 0 < endpoint.pause("submit") <= paused
        assert endpoint.trouble("submit") == "it takes no jobs"

    run(scene())
    assert len(caplog.records) == 1


def test_an_answer_that_tells_of_trouble_is_a_failure_like_one_that_is_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(link, "FIRST_PAUSE", 0.01)
    caplog.set_level(logging.WARNING)

    async def scene() -> None:
        endpoint = Link("here", LIMITS)
        pauses = []
        outcomes = ["1", TransientError("no room")]
        for _ in range(5):
            await endpoint.call("submit", answer(), outcomes=lambda _result: outcomes)
            pauses.append(endpoint.pause("submit"))
            await asyncio.sleep(pauses[-1])
        assert pauses[-1] > 4 * pauses[0]

    run(scene())
    assert len(caplog.records) == 1
