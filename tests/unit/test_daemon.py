"""The daemon with drivers that do all that a driver must not do."""

import asyncio
import os
import resource
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest

from gridmad import daemon, logs, output
from gridmad.crew import Crew
from gridmad.driver import Batch
from gridmad.errors import DriverError
from gridmad.information.driver import InformationDriver
from gridmad.information.model import HostAttributes
from gridmad.information.service import InformationService
from gridmad.transfer.driver import Outcomes, TransferDriver
from gridmad.transfer.model import Copy
from gridmad.transfer.service import TransferService
from tests.unit.session import Session, options

Mkdir = Callable[[Batch[str, None]], Outcomes]


class Folders(TransferDriver):
    """Makes directories as its test says; keeps a record of what it was asked."""

    mkdir_as: Mkdir

    def __init__(self, deadline: float | None = None) -> None:
        super().__init__(
            options(TransferService, Folders, f"--deadline {deadline}" if deadline else "")
        )
        self.batches: list[list[object]] = []
        self.starts = 0
        self.is_stopped = False

    async def start(self) -> None:
        self.starts += 1

    async def stop(self) -> None:
        self.is_stopped = True

    def mkdir(self, urls: Batch[str, None]) -> Outcomes:
        self.batches.append(list(urls))
        return self.mkdir_as(urls)

    def rmdir(self, urls: Batch[str, None]) -> Outcomes:
        return [None] * len(urls)

    def copy(self, copies: Batch[Copy, None]) -> Outcomes:
        self.batches.append(list(copies))
        return [None] * len(copies)


def serve(driver: TransferDriver) -> Session:
    return Session(TransferService(driver))


def play(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """An async test."""

    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


async def initialise(session: Session) -> None:
    assert await session.ask("INIT 200 - - - -\n") == ["INIT - - SUCCESS -"]


def now(*outcomes: DriverError | None) -> Mkdir:
    return lambda urls: list(outcomes) or [None] * len(urls)


# ---------------------------------------------------------------- a driver that fails


def raises(error: BaseException) -> Mkdir:
    def mkdir(urls: Batch[str, None]) -> Outcomes:
        raise error

    return mkdir


def raises_later(error: BaseException) -> Mkdir:
    async def mkdir(urls: Batch[str, None]) -> None:
        await asyncio.sleep(0)
        raise error

    return mkdir


def raises_in_a_thread(error: BaseException) -> Mkdir:
    def work() -> None:
        raise error

    async def mkdir(urls: Batch[str, None]) -> None:
        await asyncio.to_thread(work)

    return mkdir


def raises_for_each_in_a_thread(error: BaseException) -> Mkdir:
    def work(url: str) -> None:
        raise error

    async def mkdir(urls: Batch[str, None]) -> None:
        crew = Crew(2, "test")
        await urls.each_in_thread(crew, work)
        await crew.stop()

    return mkdir


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DriverError("no room\nat all"), "no room at all"),
        (RuntimeError("oh"), "RuntimeError: oh"),
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (asyncio.CancelledError(), "FAILURE"),
        (MemoryError(), "MemoryError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize(
    "how", [raises, raises_later, raises_in_a_thread, raises_for_each_in_a_thread]
)
def test_what_a_driver_raises_is_a_failure_and_the_next_request_is_served(
    error: BaseException, text: str, how: Callable[[BaseException], Mkdir]
) -> None:
    async def test() -> None:
        driver = Folders()
        driver.mkdir_as = how(error)
        async with serve(driver) as session:
            await initialise(session)
            answers = await session.ask("MKDIR 1 - - u - \nMKDIR 2 - - v - \n")
            assert sorted(answer[:18] for answer in answers) == [
                "MKDIR 1 - FAILURE ",
                "MKDIR 2 - FAILURE ",
            ]
            assert all(text in answer for answer in answers)
            driver.mkdir_as = now()
            assert await session.ask("MKDIR 1 - - u - \n") == ["MKDIR 1 - SUCCESS -"]
            assert await session.silence() == ""

    asyncio.run(test())


@pytest.mark.parametrize("outcomes", [[], [None], [None, None, None]])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_wrong_number_of_outcomes_fails_all(
    outcomes: list[DriverError | None], is_async: bool
) -> None:
    async def later(urls: Batch[str, None]) -> Sequence[DriverError | None]:
        return outcomes

    async def test() -> None:
        driver = Folders()
        driver.mkdir_as = later if is_async else lambda urls: outcomes
        async with serve(driver) as session:
            await initialise(session)
            for answer in await session.ask("MKDIR 1 - - u -\nMKDIR 2 - - v -\n"):
                assert f"{len(outcomes)} outcomes for 2 items" in answer

    asyncio.run(test())


@play
async def test_no_outcome_at_all_is_a_failure() -> None:
    driver = Folders()
    driver.mkdir_as = lambda urls: None
    async with serve(driver) as session:
        await initialise(session)
        assert await session.ask("MKDIR 1 - - u -\n") == [
            "MKDIR 1 - FAILURE the driver said nothing"
        ]


@play
async def test_the_first_outcome_of_an_item_counts() -> None:
    async def mkdir(urls: Batch[str, None]) -> None:
        urls.settle(0, None)
        urls.settle(0, DriverError("too late"))
        await asyncio.sleep(0.01)
        urls.settle(1, DriverError("first"))
        urls.settle(1, None)
        urls.settle(0, None)

    driver = Folders()
    driver.mkdir_as = mkdir
    async with serve(driver) as session:
        await initialise(session)
        assert await session.ask("MKDIR 1 - - u -\nMKDIR 2 - - v -\n") == [
            "MKDIR 1 - SUCCESS -",
            "MKDIR 2 - FAILURE first",
        ]
        assert await session.silence() == ""


@play
async def test_a_driver_that_hangs_is_answered_for_at_its_deadline() -> None:
    async def mkdir(urls: Batch[str, None]) -> None:
        await asyncio.sleep(3600)

    driver = Folders(deadline=0.2)
    driver.mkdir_as = mkdir
    async with serve(driver) as session:
        await initialise(session)
        start = time.monotonic()
        answers = await session.ask("MKDIR 1 - - u -\nMKDIR 2 - - v -\n")
        assert 0.15 < time.monotonic() - start < 1
        assert sorted(answers) == [
            "MKDIR 1 - FAILURE no answer within 0.2 seconds",
            "MKDIR 2 - FAILURE no answer within 0.2 seconds",
        ]
        driver.mkdir_as = now()
        assert await session.ask("MKDIR 1 - - u -\n") == ["MKDIR 1 - SUCCESS -"]


@play
async def test_an_outcome_after_the_deadline_is_dropped() -> None:
    release = asyncio.Event()

    async def mkdir(urls: Batch[str, None]) -> Sequence[DriverError | None]:
        await release.wait()
        return [None]

    driver = Folders(deadline=0.1)
    driver.mkdir_as = mkdir
    async with serve(driver) as session:
        await initialise(session)
        (answer,) = await session.ask("MKDIR 1 - - u -\n")
        assert "no answer within" in answer
        release.set()
        assert await session.silence() == ""


@play
async def test_what_is_overdue_does_not_go_on_for_ever() -> None:
    ended = asyncio.Event()

    async def mkdir(urls: Batch[str, None]) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    driver = Folders(deadline=0.1)
    driver.mkdir_as = mkdir
    async with serve(driver) as session:
        await initialise(session)
        await session.ask("MKDIR 1 - - u -\n")
        assert not ended.is_set()
        async with asyncio.timeout(1):
            await ended.wait()
        assert await session.silence() == ""


# ---------------------------------------------------------------- start


@play
async def test_init_is_answered_before_the_driver_starts() -> None:
    class Slow(Folders):
        async def start(self) -> None:
            time.sleep(0.5)
            await super().start()

    driver = Slow()
    driver.mkdir_as = now()
    async with serve(driver) as session:
        start = time.monotonic()
        session.send("INIT 200 - - - -\nMKDIR 1 - - u -\n")
        assert await session.lines(2) == ["INIT - - SUCCESS -", "MKDIR 1 - SUCCESS -"]
        assert time.monotonic() - start > 0.4
        assert driver.starts == 1


@play
async def test_a_driver_that_does_not_start_is_answered_for() -> None:
    gate = asyncio.Event()

    class Hanging(Folders):
        async def start(self) -> None:
            await gate.wait()

    driver = Hanging(deadline=0.2)
    driver.mkdir_as = now()
    async with serve(driver) as session:
        await initialise(session)
        assert await session.ask("MKDIR 1 - - u -\n") == [
            "MKDIR 1 - FAILURE the driver did not start within 0.2 seconds"
        ]
        gate.set()
        assert await session.ask("MKDIR 1 - - u -\n") == ["MKDIR 1 - SUCCESS -"]


@play
async def test_a_driver_that_cannot_start_is_started_again_for_the_next_request() -> None:
    class Second(Folders):
        async def start(self) -> None:
            await super().start()
            if self.starts < 3:
                raise (DriverError("not yet") if self.starts == 1 else ImportError("no ldap3"))

    driver = Second()
    driver.mkdir_as = now()
    async with serve(driver) as session:
        await initialise(session)
        await asyncio.sleep(0.05)
        (answer,) = await session.ask("MKDIR 1 - - u -\n")
        assert answer == "MKDIR 1 - FAILURE the driver cannot start: ImportError: no ldap3"
        assert await session.ask("MKDIR 1 - - u -\n") == ["MKDIR 1 - SUCCESS -"]
        assert driver.starts == 3


@play
async def test_a_request_before_init_is_served() -> None:
    driver = Folders()
    driver.mkdir_as = now()
    async with serve(driver) as session:
        assert await session.ask("MKDIR 1 - - u -\n") == ["MKDIR 1 - SUCCESS -"]


@pytest.mark.parametrize("is_sound", [True, False])
def test_an_init_that_needs_the_driver_waits_for_its_start(is_sound: bool) -> None:
    class Staging(Folders):
        init_waits_for_start = True

        async def start(self) -> None:
            await asyncio.sleep(0.05)
            if not is_sound:
                raise DriverError("no port")
            self.staging_url = "gsiftp://h:1/"

    async def test() -> None:
        async with serve(Staging()) as session:
            assert await session.ask("INIT 200 - - - -\n") == [
                "INIT - - SUCCESS gsiftp://h:1/" if is_sound else "INIT - - FAILURE no port"
            ]

    asyncio.run(test())


@play
async def test_every_init_is_answered() -> None:
    async with serve(Folders()) as session:
        assert await session.ask("INIT 2 - - - -\nINIT 2 - - - -\n") == ["INIT - - SUCCESS -"] * 2


@play
async def test_bad_requests_are_refused_and_blank_lines_passed_over() -> None:
    async with serve(Folders()) as session:
        await initialise(session)
        session.send("\n  \nFOO 1\nCP 12345 x - a b\nMKDIR 7\n\x00\n")
        assert [line.split(":")[0].split(";")[0] for line in await session.lines(4)] == [
            "FOO 1 - FAILURE unknown operation",
            "CP 12345 - FAILURE the transfer id of CP is a number in digits",
            "MKDIR 7 - FAILURE MKDIR lacks a field",
            "- - - FAILURE control character in the request",
        ]
        assert await session.silence(0.05) == ""


# ---------------------------------------------------------------- order


@play
async def test_requests_of_one_job_are_served_in_their_order() -> None:
    events: list[str] = []
    driver = Folders()

    class Recorder(Folders):
        async def _step(self, name: str, batch: Batch[Any, None]) -> None:
            events.append(f"{name} begins x{len(batch)}")
            await asyncio.sleep(0.02)
            events.append(f"{name} ends")
            batch.settle_all([None] * len(batch))

        def mkdir(self, urls: Batch[str, None]) -> Outcomes:
            return self._step("MKDIR", urls)

        def rmdir(self, urls: Batch[str, None]) -> Outcomes:
            return self._step("RMDIR", urls)

        def copy(self, copies: Batch[Copy, None]) -> Outcomes:
            return self._step("CP", copies)

    driver = Recorder()
    async with serve(driver) as session:
        await initialise(session)
        answers = await session.ask(
            "START 5 - - - - \nRMDIR 5 - - d - \nMKDIR 5 - - d - \n"
            "CP 5 0 - a b\nCP 5 3 X c d\nEND 5 - - - - \n"
        )
        assert [answer.split()[0] for answer in answers] == [
            "START", "RMDIR", "MKDIR", "CP", "CP", "END"
        ]  # fmt: skip
        assert events == [
            "RMDIR begins x1", "RMDIR ends", "MKDIR begins x1", "MKDIR ends",
            "CP begins x2", "CP ends",
        ]  # fmt: skip


@play
async def test_a_slow_job_does_not_hold_up_another() -> None:
    release = asyncio.Event()

    class Slow(Folders):
        async def mkdir(self, urls: Batch[str, None]) -> None:
            for index, url in enumerate(urls):
                if url == "slow":
                    await release.wait()
                urls.settle(index, None)

    async with serve(Slow()) as session:
        await initialise(session)
        session.send("MKDIR 1 - - slow -\nCP 1 0 - a b\nMKDIR 2 - - fast -\nCP 2 0 - a b\n")
        session.send("CP 3 0 - a b\n")
        assert (await session.lines(1))[0] == "CP 3 0 SUCCESS -"
        release.set()
        rest = await session.lines(4)
        for job in "1", "2":
            mine = [line for line in rest if line.split()[1] == job]
            assert [line.split()[0] for line in mine] == ["MKDIR", "CP"]


@play
async def test_a_copy_that_gwd_orders_twice_in_a_phase_is_done_and_answered_once() -> None:
    copied: list[Copy] = []
    fails = [True]

    class Copier(Folders):
        async def copy(self, copies: Batch[Copy, None]) -> None:
            await asyncio.sleep(0.01)
            for index, copy in enumerate(copies):
                copied.append(copy)
                is_bad = copy.source == "bad" and fails.pop()
                copies.settle(index, DriverError("no") if is_bad else None)

    one, two, bad = "CP 5 0 - a b\n", "CP 5 1 - c d\n", "CP 5 2 - bad e\n"
    async with serve(Copier()) as session:
        await initialise(session)
        session.send(f"START 5 - - - - \nSTART 5 - - - - \n{one}{two}{bad}")
        await session.lines(2)
        session.send(f"{one}{two}END 6 - - - - \n")
        assert sorted(await session.lines(4)) == [
            "CP 5 0 SUCCESS -", "CP 5 1 SUCCESS -", "CP 5 2 FAILURE no", "END 6 - SUCCESS -"
        ]  # fmt: skip
        fails.append(False)
        # What failed may come again, what is done not; another job's is another copy.
        session.send(f"{bad}{two}CP 6 1 - c d\n")
        assert sorted(await session.lines(2)) == ["CP 5 2 SUCCESS -", "CP 6 1 SUCCESS -"]
        # In a phase that was begun once, and in none, all is as ordered.
        session.send(f"END 5 - - - - \nSTART 5 - - - - \n{one}{one}END 5 - - - - \n{one}{one}")
        assert [line.split()[0] for line in await session.lines(7)] == [
            "END", "START", "CP", "CP", "END", "CP", "CP"
        ]  # fmt: skip
        assert await session.silence(0.05) == ""
    assert [copy.destination for copy in copied] == [*"bde", *"ed", *"bbbb"]


# ---------------------------------------------------------------- batches


class Hosts(InformationDriver):
    """Hosts whose attributes are as long as the test wants them."""

    def __init__(self, size: int = 10) -> None:
        super().__init__(options(InformationService, Hosts))
        self.value = HostAttributes({"CPU_MODEL": "x" * size})
        self.asked: list[int] = []
        self.gate: asyncio.Event | None = None

    def discover(self) -> Sequence[str]:
        return ["h"]

    def monitor(
        self, hosts: Sequence[str]
    ) -> (
        Awaitable[Mapping[str, HostAttributes | DriverError]]
        | Mapping[str, HostAttributes | DriverError]
    ):
        self.asked.append(len(hosts))
        values: dict[str, HostAttributes | DriverError] = dict.fromkeys(hosts, self.value)
        if self.gate is None:
            return values

        async def later(gate: asyncio.Event) -> Mapping[str, HostAttributes | DriverError]:
            await gate.wait()
            return values

        return later(self.gate)


@play
async def test_while_a_batch_is_served_the_next_one_gathers() -> None:
    driver = Hosts()
    driver.gate = asyncio.Event()
    async with Session(InformationService(driver)) as session:
        await session.ask("INIT - - -\n")
        session.send("MONITOR 0 h0 -\n")
        await asyncio.sleep(0.02)
        for number in range(1, 100):
            session.send(f"MONITOR {number} h{number} -\n")
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        driver.gate.set()
        answers = await session.lines(100)
        assert driver.asked == [1, 99]
        assert {answer.split()[1] for answer in answers} == {str(n) for n in range(100)}


@play
async def test_a_batch_is_bounded() -> None:
    driver = Hosts()
    driver.gate = asyncio.Event()
    async with Session(InformationService(driver)) as session:
        await session.ask("INIT - - -\n")
        session.send("MONITOR 0 h -\n")
        await asyncio.sleep(0.02)
        count = 2 * daemon.MAX_BATCH + 1
        await session.flood(b"".join(b"MONITOR %d h%d -\n" % (n, n) for n in range(count)))
        await asyncio.sleep(0.1)
        driver.gate.set()
        answers = await session.lines(count + 1)
        assert driver.asked == [1, daemon.MAX_BATCH, daemon.MAX_BATCH, 1]
        assert len({answer.split()[1] for answer in answers}) == count


# ---------------------------------------------------------------- pipes


@play
async def test_answers_that_all_go_out_at_once_hold_nothing_up() -> None:
    """Requests that are read between a batch's answers and their writing are served too,
    though stdout, a file, never lets the daemon wait.
    """
    count = 50_000
    driver = Hosts(size=1000)
    driver.gate = asyncio.Event()
    driver.gate.set()
    read, write = os.pipe()
    stdout = os.memfd_create("stdout")
    try:
        run = asyncio.create_task(daemon.Daemon(InformationService(driver), read, stdout).run())
        data = b"".join(b"MONITOR %d h -\n" % number for number in range(count))
        await asyncio.to_thread(
            lambda: [os.write(write, data[n : n + 4096]) for n in range(0, len(data), 4096)]
        )
        async with asyncio.timeout(10):
            while os.fstat(stdout).st_size < count * 1000:
                await asyncio.sleep(0.01)
        os.close(write)
        write = -1
        assert await run == 0
        os.lseek(stdout, 0, os.SEEK_SET)
        with os.fdopen(os.dup(stdout), "rb") as file:
            assert sum(1 for _ in file) == count
    finally:
        for descriptor in {read, write, stdout} - {-1}:
            os.close(descriptor)


@play
async def test_a_reader_that_stops_bounds_the_memory_and_loses_nothing() -> None:
    count = 100_000
    async with Session(InformationService(Hosts(size=1000))) as session:
        await session.ask("INIT - - -\n")
        session.stop_reading()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Answers of 100 MB, requests of 2 MB.
        await session.flood(b"".join(b"MONITOR %d h -\n" % n for n in range(count)))
        await asyncio.sleep(0.2)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 40_000
        session.read()
        seen = Counter[str]()
        async with asyncio.timeout(20):
            while seen.total() < count:
                ready = session._text.count(b"\n")
                for line in await session.lines(ready):
                    seen[line.split(" ", 2)[1]] += 1
                await asyncio.sleep(0)
        assert len(seen) == count


@play
async def test_end_of_file_ends_within_a_second_though_nobody_reads() -> None:
    async with Session(InformationService(Hosts(size=1000))) as session:
        await session.ask("INIT - - -\n")
        session.stop_reading()
        await session.flood(b"MONITOR 1 h -\n" * 20_000)
        session.close_stdin()
        start = time.monotonic()
        assert await session.ended() == 0
        assert time.monotonic() - start < 1.2


@pytest.mark.parametrize("last", ["FINALIZE - - -\n", None])
def test_what_was_asked_before_the_end_is_answered_to_a_slow_reader(last: str | None) -> None:
    async def test() -> None:
        async with Session(InformationService(Hosts(size=1000))) as session:
            await session.ask("INIT - - -\n")
            session.stop_reading()
            await session.flood(b"MONITOR 1 h -\n" * 3_000 + (last or "").encode())
            if last is None:
                session.close_stdin()
            await asyncio.sleep(0.1)
            session.read()
            assert await session.ended() == 0
            lines = session._text.decode().splitlines()
            assert len(lines) == 3_000 + (last is not None)

    asyncio.run(test())


@pytest.mark.parametrize("end", [b"", b"MONITOR 3 h", b"x" * 70_000], ids=["none", "line", "long"])
def test_end_of_file_in_mid_line(end: bytes) -> None:
    async def test() -> None:
        async with Session(InformationService(Hosts())) as session:
            await session.ask("INIT - - -\n")
            await session.flood(b"MONITOR 2 h\n" + end)
            session.close_stdin()
            start = time.monotonic()
            assert await session.ended() == 0
            assert time.monotonic() - start < 1
            lines = session._text.decode().splitlines()
            assert len(lines) == 1 + bool(end)
            if end.startswith(b"M"):
                assert sorted(lines)[1].startswith("MONITOR 3 SUCCESS")

    asyncio.run(test())


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_reader_that_is_gone_ends_the_daemon(is_asked: bool) -> None:
    async def test() -> None:
        driver = Folders()
        driver.mkdir_as = now()
        async with serve(driver) as session:
            await initialise(session)
            session.close_stdout()
            start = time.monotonic()
            if is_asked:
                session.send("MKDIR 1 - - u -\n")
            else:
                session.close_stdin()
            assert await session.ended() == 0
            assert time.monotonic() - start < 1
            assert driver.is_stopped

    asyncio.run(test())


@pytest.mark.parametrize("how", ["FINALIZE - - - - - \n", "finalize\n", None])
def test_the_end_comes_within_a_second_though_the_driver_hangs(how: str | None) -> None:
    class Hanging(Folders):
        async def stop(self) -> None:
            await asyncio.sleep(3600)

        async def mkdir(self, urls: Batch[str, None]) -> None:
            await asyncio.sleep(3600)

    async def test() -> None:
        async with serve(Hanging()) as session:
            await initialise(session)
            session.send("MKDIR 1 - - u -\nMKDIR 1 - - u -\nCP 1 0 - a b\nMKDIR 2 - - u -\n")
            await asyncio.sleep(0.05)
            start = time.monotonic()
            if how is None:
                session.close_stdin()
            else:
                session.send(how)
            assert await session.ended() == 0
            assert time.monotonic() - start < 1
            answers = session._text.decode().splitlines()
            stopping = " - FAILURE the driver is stopping"
            assert sorted(answers) == sorted(
                [f"MKDIR 1{stopping}"] * 2
                + [f"MKDIR 2{stopping}", f"CP 1 0{stopping[2:]}"]
                + (["FINALIZE - - SUCCESS -"] if how else [])
            )
            if how:
                assert answers[-1] == "FINALIZE - - SUCCESS -"

    asyncio.run(test())


@play
async def test_what_nearly_ended_before_finalize_is_still_told() -> None:
    async def mkdir(urls: Batch[str, None]) -> Sequence[DriverError | None]:
        await asyncio.sleep(0.2)
        return [None]

    driver = Folders()
    driver.mkdir_as = mkdir
    async with serve(driver) as session:
        await initialise(session)
        session.send("MKDIR 1 - - u -\nFINALIZE\n")
        assert await session.ended() == 0
        assert session._text.decode().splitlines() == [
            "MKDIR 1 - SUCCESS -",
            "FINALIZE - - SUCCESS -",
        ]


@play
async def test_a_regular_file_may_be_stdin() -> None:
    driver = Folders()
    driver.mkdir_as = now()
    read, write = os.pipe()
    file = os.memfd_create("stdin")
    os.write(file, b"INIT\nMKDIR 1 - - u -\nFINALIZE")
    os.lseek(file, 0, os.SEEK_SET)
    try:
        assert await daemon.Daemon(TransferService(driver), file, write).run() == 0
        assert os.read(read, 1000).decode().splitlines() == [
            "INIT - - SUCCESS -",
            "MKDIR 1 - SUCCESS -",
            "FINALIZE - - SUCCESS -",
        ]
    finally:
        for descriptor in (read, write, file):
            os.close(descriptor)


# ---------------------------------------------------------------- a driver that blocks

BLOCKING = """
    import asyncio, sys, time
    from gridmad import watchdog
    from gridmad.daemon import Daemon
    watchdog.STUCK_TIME, watchdog.INTERVAL = 0.3, 0.1

    {driver}

    async def main():
        return await Daemon(service).run()

    sys.exit(asyncio.run(main()))
"""
BLOCKING_FOLDERS = """
    from gridmad.transfer.service import TransferService
    from tests.unit.test_daemon import Folders
    driver = Folders()
    driver.mkdir_as = lambda urls: time.sleep(3600)
    service = TransferService(driver)
"""
BLOCKING_START = """
    from gridmad.transfer.service import TransferService
    from tests.unit.test_daemon import Folders
    class Blocking(Folders):
        async def start(self):
            time.sleep(3600)
    service = TransferService(Blocking())
"""
BLOCKING_JOBS = """
    from gridmad.execution.model import ACTIVE
    from gridmad.execution.service import ExecutionService
    from tests.unit.test_execution_service import Jobs
    driver = Jobs()
    driver.poll = lambda contacts: time.sleep(3600)
    driver.recover = lambda contacts: time.sleep(3600) if contacts[0] == "hang" else [ACTIVE]
    service = ExecutionService(driver)
"""
BLOCKING_HOSTS = """
    from gridmad.information.service import InformationService
    from tests.unit.test_daemon import Hosts
    driver = Hosts(1000)
    fast = driver.monitor
    driver.monitor = lambda hosts: time.sleep(3600) if "hang" in hosts else fast(hosts)
    service = InformationService(driver)
"""


@pytest.mark.parametrize(
    ("driver", "requests", "expected"),
    [
        (
            BLOCKING_FOLDERS,
            "INIT\nMKDIR 1 - - u -\nCP 1 0 - a b\nEND 1\nMKDIR 2 - - u -\n|CP 3 0 - a b\nX",
            [
                "INIT - - SUCCESS -",
                "MKDIR 1 - FAILURE the driver hangs",
                "CP 1 0 FAILURE the driver hangs",
                "END 1 - SUCCESS -",
                "MKDIR 2 - FAILURE the driver hangs",
                "CP 3 0 FAILURE the driver hangs",
            ],
        ),
        (
            BLOCKING_START,
            "INIT\nMKDIR 1 - - u -\n|MKDIR 2 - - u -\n",
            [
                "INIT - - SUCCESS -",
                "MKDIR 1 - FAILURE the driver hangs",
                "MKDIR 2 - FAILURE the driver hangs",
            ],
        ),
        (
            BLOCKING_JOBS,
            "INIT\nRECOVER 1 job-1 -\nPOLL 1 - -\nPOLL 1 - -\n|POLL 1 - -\n",
            ["INIT - SUCCESS -", "RECOVER 1 SUCCESS ACTIVE"] + ["POLL 1 SUCCESS ACTIVE"] * 3,
        ),
        (
            BLOCKING_JOBS,
            "INIT\nRECOVER 1 hang -\nPOLL 1 - -\n|RECOVER 1 hang -\n",
            ["INIT - SUCCESS -", "POLL 1 SUCCESS PENDING"] + ["RECOVER 1 SUCCESS PENDING"] * 2,
        ),
        (
            BLOCKING_HOSTS,
            "INIT\nDISCOVER\nMONITOR 2 hang -\n|FOO 1\nDISCOVER - - -\n",
            [
                "INIT - SUCCESS -",
                "DISCOVER - SUCCESS h",
                "MONITOR 2 FAILURE the driver hangs",
                "FOO 1 FAILURE",
                "DISCOVER - SUCCESS h",
            ],
        ),
    ],
    ids=["transfer", "start", "poll", "recover", "information"],
)
def test_a_driver_that_blocks_the_loop_for_good_ends_the_daemon_with_all_answered(
    driver: str, requests: str, expected: list[str]
) -> None:
    program = textwrap.dedent(BLOCKING).replace("{driver}", textwrap.dedent(driver))
    first, _, second = requests.partition("|")
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        guard = threading.Timer(10, process.kill)
        guard.start()
        try:
            process.stdin.write(first.encode())
            answers = process.stdout.read(1)
            time.sleep(0.2)
            process.stdin.write(second.encode())
            answers += b"".join(iter(lambda: process.stdout.read(1 << 16), b""))  # type: ignore[union-attr]
            code = process.wait(10)
        finally:
            guard.cancel()
            process.kill()
    assert code == daemon.EX_SOFTWARE
    lines = answers.decode().splitlines()
    assert len(lines) == len(expected)
    for line, start in zip(sorted(lines), sorted(expected), strict=True):
        assert line.startswith(start)


def test_constants_leave_room_within_a_second() -> None:
    parts = (daemon.LAST_WORDS, daemon.STOP_TIME, daemon.DRAIN_TIME, logs.LAST_RECORDS)
    assert sum(parts) < 0.95
    assert output.PIPE_SIZE <= 1 << 20
