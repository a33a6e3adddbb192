"""DISCOVER and MONITOR from drivers whose source comes and goes."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest

from gridmad import wire
from gridmad.driver import MaybeAwaitable
from gridmad.errors import DriverError, TransientError, UnknownHostError
from gridmad.information.driver import InformationDriver
from gridmad.information.model import HostAttributes
from gridmad.information.service import InformationService
from tests.unit.session import Session, options

Values = Mapping[str, HostAttributes | DriverError]


class Source(InformationDriver):
    """Hosts of the test's choice; an exception in `trouble` is raised instead."""

    def __init__(self, arguments: str = "") -> None:
        super().__init__(options(InformationService, Source, arguments))
        self.hosts: list[str] = ["a", "b"]
        self.values: dict[str, HostAttributes | DriverError] = {
            "a": HostAttributes({"CPU_MHZ": 1}),
            "b": HostAttributes({"CPU_MHZ": 2}),
        }
        self.trouble: BaseException | None = None

    def discover(self) -> MaybeAwaitable[Sequence[str]]:
        if self.trouble is not None:
            raise self.trouble
        return self.hosts

    def monitor(self, hosts: Sequence[str]) -> MaybeAwaitable[Values]:
        assert len(hosts) == len(set(hosts))
        if self.trouble is not None:
            raise self.trouble
        return self.values


def play(source: Source, scene: Callable[[Session], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with Session(InformationService(source)) as session:
            assert await session.ask("INIT - - -\n") == ["INIT - SUCCESS -"]
            await scene(session)

    asyncio.run(run())


def test_hosts_and_their_attributes() -> None:
    async def scene(session: Session) -> None:
        assert await session.ask("DISCOVER - - -\n") == ["DISCOVER - SUCCESS a b"]
        assert await session.ask("MONITOR 1 b -\nMONITOR 0 a -\nMONITOR 2 b -\n") == [
            "MONITOR 1 SUCCESS CPU_MHZ=2",
            "MONITOR 0 SUCCESS CPU_MHZ=1",
            "MONITOR 2 SUCCESS CPU_MHZ=2",
        ]

    play(Source(), scene)


@pytest.mark.parametrize(
    "trouble",
    [
        TransientError("the directory is away"),
        RuntimeError("oh"),
        SystemExit(1),
        OSError(111, "Connection refused"),
    ],
    ids=lambda trouble: type(trouble).__name__,
)
def test_the_last_good_values_are_served_while_the_source_is_away(trouble: BaseException) -> None:
    source = Source()

    async def scene(session: Session) -> None:
        await session.ask("DISCOVER - - -\nMONITOR 0 a -\n")
        source.trouble = trouble
        assert await session.ask("DISCOVER - - -\n") == ["DISCOVER - SUCCESS a b"]
        assert await session.ask("MONITOR 0 a -\n") == ["MONITOR 0 SUCCESS CPU_MHZ=1"]
        (never_seen,) = await session.ask("MONITOR 1 b -\n")
        assert never_seen.startswith("MONITOR 1 FAILURE ")

    play(source, scene)


@pytest.mark.parametrize("error", [TransientError("slow"), UnknownHostError("a")])
def test_the_trouble_of_one_host_is_its_own(error: DriverError) -> None:
    source = Source()

    async def scene(session: Session) -> None:
        await session.ask("MONITOR 0 a -\nMONITOR 1 b -\n")
        source.values["a"] = error
        first, second = await session.ask("MONITOR 0 a -\nMONITOR 1 b -\n")
        assert second == "MONITOR 1 SUCCESS CPU_MHZ=2"
        if isinstance(error, TransientError):
            assert first == "MONITOR 0 SUCCESS CPU_MHZ=1"
        else:
            assert first == "MONITOR 0 FAILURE no host a is known here"

    play(source, scene)


def test_a_host_that_is_not_there_is_a_failure() -> None:
    source = Source()

    async def scene(session: Session) -> None:
        await session.ask("MONITOR 0 a -\n")
        del source.values["a"]
        assert await session.ask("MONITOR 0 a -\nMONITOR 5 zzz -\n") == [
            "MONITOR 0 FAILURE no host a is known here",
            "MONITOR 5 FAILURE no host zzz is known here",
        ]
        source.values["a"] = TransientError("away")
        assert await session.ask("MONITOR 0 a -\n") == ["MONITOR 0 FAILURE away"]

    play(source, scene)


def test_a_source_that_hangs_is_away_too() -> None:
    class Hanging(Source):
        async def monitor(self, hosts: Sequence[str]) -> Values:
            if self.trouble is not None:
                await asyncio.sleep(3600)
            return self.values

    source = Hanging("--deadline 0.2")

    async def scene(session: Session) -> None:
        await session.ask("MONITOR 0 a -\n")
        source.trouble = TimeoutError()
        assert await session.ask("MONITOR 0 a -\n") == ["MONITOR 0 SUCCESS CPU_MHZ=1"]

    play(source, scene)


def test_the_staleness_budget_begins_when_the_values_were_true() -> None:
    class Old(Source):
        def age(self) -> float:
            return 10.0

    source = Old("--staleness 10.2")

    async def scene(session: Session) -> None:
        await session.ask("DISCOVER - - -\nMONITOR 0 a -\n")
        source.trouble = TransientError("the directory is away")
        assert await session.ask("MONITOR 0 a -\n") == ["MONITOR 0 SUCCESS CPU_MHZ=1"]
        await asyncio.sleep(0.25)
        assert await session.ask("MONITOR 0 a -\nDISCOVER - - -\n") == [
            "MONITOR 0 FAILURE the directory is away",
            "DISCOVER - FAILURE the directory is away",
        ]

    play(source, scene)


def test_beyond_the_staleness_budget_it_is_a_failure() -> None:
    source = Source("--staleness 0.2")

    async def scene(session: Session) -> None:
        await session.ask("DISCOVER - - -\nMONITOR 0 a -\n")
        source.trouble = TransientError("the directory is away")
        assert await session.ask("MONITOR 0 a -\n") == ["MONITOR 0 SUCCESS CPU_MHZ=1"]
        await asyncio.sleep(0.25)
        assert await session.ask("MONITOR 0 a -\nDISCOVER - - -\n") == [
            "MONITOR 0 FAILURE the directory is away",
            "DISCOVER - FAILURE the directory is away",
        ]
        source.trouble = None
        assert await session.ask("MONITOR 0 a -\n") == ["MONITOR 0 SUCCESS CPU_MHZ=1"]

    play(source, scene)


@pytest.mark.parametrize(
    ("hosts", "answer"),
    [
        ([], "DISCOVER - SUCCESS"),
        (["a", "a", "b", "a"], "DISCOVER - SUCCESS a b"),
        (
            ["two words", "", "x" * 40, "né", "a\nb", "a\x00", "y" * 39],
            f"DISCOVER - SUCCESS {'y' * 39}",
        ),
    ],
)
def test_hosts_that_gwd_cannot_take_are_left_out(hosts: list[str], answer: str) -> None:
    source = Source()
    source.hosts = hosts

    async def scene(session: Session) -> None:
        (line,) = await session.ask("DISCOVER - - -\n")
        assert line in (answer, f"{answer} -")

    play(source, scene)


def test_more_hosts_than_a_line_holds_are_told_in_turns() -> None:
    source = Source()
    source.hosts = [f"host{number:05}.example.org" for number in range(8000)]

    async def scene(session: Session) -> None:
        told: set[str] = set()
        for _ in range(3):
            (line,) = await session.ask("DISCOVER - - -\n")
            assert len(line) < 65_000
            hosts = line.split()[3:]
            assert len(hosts) == len(set(hosts)) > 2900
            told.update(hosts)
        assert told == set(source.hosts)

    play(source, scene)


def test_an_answer_has_all_its_tokens_though_a_host_has_no_attributes() -> None:
    source = Source()
    source.values["a"] = HostAttributes({})

    async def scene(session: Session) -> None:
        assert await session.ask("MONITOR 0 a -\n") == ["MONITOR 0 SUCCESS -"]

    play(source, scene)


def test_attributes_fill_a_line_and_no_more() -> None:
    source = Source()
    queues = [{"QUEUE_NAME": f"q{i}", "QUEUE_STATUS": "s" * 3000} for i in range(60)]
    source.values["a"] = HostAttributes({"HOSTNAME": "a"}, queues)

    async def scene(session: Session) -> None:
        (line,) = await session.ask("MONITOR 99999 a -\n")
        assert 60_000 < len(line) < wire.MAX_LINE
        assert line.endswith('"')

    play(source, scene)


def test_a_text_that_is_cut_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    source.values["a"] = HostAttributes({"OS_NAME": "x" * (wire.MAX_TEXT + 1)})

    async def scene(session: Session) -> None:
        for _ in range(3):
            (line,) = await session.ask("MONITOR 1 a -\n")
            assert line == f'MONITOR 1 SUCCESS OS_NAME="{"x" * wire.MAX_TEXT}"'

    play(source, scene)
    texts = [record.getMessage() for record in caplog.records if "OS_NAME" in record.getMessage()]
    assert texts == ["host a: attribute left out: OS_NAME: what its value has beyond 4000 bytes"]
