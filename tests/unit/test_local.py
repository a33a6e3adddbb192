"""The local driver's figures, beside what the machine itself tells."""

import argparse
import asyncio
import multiprocessing
import os
import platform
import shutil
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from gridmad.errors import UsageError
from gridmad.information import local, machine
from gridmad.information.local import DRIVER, LocalInformation
from gridmad.information.model import HostAttributes


def driver(*arguments: str) -> LocalInformation:
    parser = argparse.ArgumentParser()
    DRIVER.add_options(parser)
    return DRIVER(parser.parse_args(["--hostname", "here.example", *arguments]))


async def monitor(machine: LocalInformation, host: str = "here.example") -> HostAttributes:
    values = machine.monitor([host, "elsewhere.example"])
    if isinstance(values, Awaitable):
        values = await values
    assert list(values) == [host]
    value = values[host]
    assert isinstance(value, HostAttributes)
    return value


def test_figures_are_those_of_the_machine() -> None:
    async def ask() -> HostAttributes:
        machine = driver()
        await machine.start()
        assert machine.discover() == ["here.example"]
        return await monitor(machine)

    attributes = asyncio.run(ask())
    cpus = len(os.sched_getaffinity(0))
    host = attributes.host
    assert attributes.dropped == ()
    assert host["HOSTNAME"] == "here.example"
    assert host["ARCH"] == platform.machine()
    assert host["CPU_SMP"] == host["NODECOUNT"] == cpus
    memory = psutil.virtual_memory()
    assert host["SIZE_MEM_MB"] == memory.total >> 20
    assert host["FREE_MEM_MB"] == pytest.approx(memory.available >> 20, abs=300)
    disk = shutil.disk_usage(Path.home())
    assert host["SIZE_DISK_MB"] == disk.total >> 20
    assert host["FREE_DISK_MB"] == pytest.approx(disk.free >> 20, abs=300)
    assert 0 <= int(host["CPU_FREE"]) <= 100 * cpus
    assert host["LRMS_NAME"] == host["FORK_NAME"] == "jobmanager-fork"
    assert host["LRMS_TYPE"] == "fork"
    assert host["OS_NAME"]
    assert len(attributes.queues) == 1
    queue = attributes.queues[0]
    assert queue["QUEUE_NAME"] == "default"
    assert queue["QUEUE_NODECOUNT"] == queue["QUEUE_MAXCOUNT"] == cpus
    assert 0 <= int(queue["QUEUE_FREENODECOUNT"]) <= cpus
    assert int(queue["QUEUE_MAXRUNNINGJOBS"]) > 0
    assert int(queue["QUEUE_MAXJOBSINQUEUE"]) > 0
    assert queue["QUEUE_STATUS"] == "enabled"


@pytest.mark.parametrize(
    ("home", "folder"),
    [("{}/no/home", "{}"), ("{}/file/home", "{}"), (None, "/"), ("", "/"), ("relative", "/")],
)
def test_a_home_that_is_not_there(
    home: str | None, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")

    def unknown(_user: int) -> NoReturn:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.delenv("HOME")
    if home is not None:
        monkeypatch.setenv("HOME", home.format(tmp_path))

    async def ask() -> HostAttributes:
        machine = driver()
        await machine.start()
        return await monitor(machine)

    disk = shutil.disk_usage(folder.format(tmp_path))
    assert asyncio.run(ask()).host["SIZE_DISK_MB"] == disk.total >> 20


def _burn(until: float) -> None:
    while time.monotonic() < until:
        pass


def test_the_first_figure_of_the_load_is_true() -> None:
    cpus = len(os.sched_getaffinity(0))
    until = time.monotonic() + 1.5
    burners = [multiprocessing.Process(target=_burn, args=(until,)) for _ in range(cpus)]

    async def ask() -> HostAttributes:
        machine = driver()
        await machine.start()
        return await monitor(machine)

    for burner in burners:
        burner.start()
    time.sleep(0.3)
    busy = asyncio.run(ask())
    for burner in burners:
        burner.join()
    assert int(busy.host["CPU_FREE"]) <= 25 * cpus


def test_figures_are_kept_for_a_second_and_measured_once_for_all() -> None:
    async def ask() -> None:
        machine = driver()
        await machine.start()
        first, second = await asyncio.gather(monitor(machine), monitor(machine))
        assert first is second
        values = machine.monitor(["here.example"])
        assert not isinstance(values, Awaitable)
        assert values["here.example"] is first
        machine._measured_at -= local.FRESH
        assert await monitor(machine) is not first

    asyncio.run(ask())


def test_the_load_is_measured_over_a_short_while_of_now() -> None:
    async def ask() -> None:
        machine = driver()
        await machine.start()
        samples = [machine._sample]
        take = machine._load

        def load() -> local._Load:
            samples.append(take())
            return samples[-1]

        machine._load = load  # type: ignore[method-assign]
        await monitor(machine)
        assert len(samples) == 2
        assert samples[1].when - samples[0].when >= 0.95 * local.WINDOW

        # A sample of an hour ago does not tell the load of now: there is a new one first.
        when, free, total = samples[1]
        machine._sample = local._Load(when - 3600, free, total)
        machine._measured_at -= 3600
        await monitor(machine)
        assert len(samples) == 4
        assert samples[3].when - samples[2].when >= 0.95 * local.WINDOW

        # One of some seconds ago does, and nobody waits.
        when, free, total = samples[3]
        cpus = len(machine._cpus)
        machine._sample = local._Load(when - 5, free - 3 * cpus, total - 4 * cpus)
        machine._measured_at -= 5
        attributes = await monitor(machine)
        assert len(samples) == 5
        assert int(attributes.host["CPU_FREE"]) == pytest.approx(75 * cpus, abs=10 * cpus)

    asyncio.run(ask())


def test_options_name_and_size_the_host() -> None:
    async def ask() -> HostAttributes:
        machine = driver("--queue", "batch", "--slots", "37")
        await machine.start()
        assert machine.monitor(["elsewhere.example"]) == {}
        return await monitor(machine)

    attributes = asyncio.run(ask())
    (queue,) = attributes.queues
    assert queue["QUEUE_NAME"] == "batch"
    assert attributes.host["NODECOUNT"] == 37
    names = ("NODECOUNT", "MAXCOUNT", "MAXRUNNINGJOBS", "MAXJOBSINQUEUE")
    assert {queue[f"QUEUE_{name}"] for name in names} == {37}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("host.example.org", "host"), "host.example.org"),
        (("localhost", "node7"), "node7"),
        (("localhost.localdomain", "node7.cluster"), "node7.cluster"),
        (("a" * 40 + ".example.org", "node7"), "node7"),
        (("localhost", "localhost"), "localhost"),
        (("n." + "x" * 40, "n." + "x" * 40), "n"),
    ],
)
def test_the_machines_own_name(
    names: tuple[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: names[0])
    monkeypatch.setattr("socket.gethostname", lambda: names[1])
    assert asyncio.run(machine.own_name()) == expected


def test_a_silent_name_service_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "NAME_SERVICE_PATIENCE", 0.05)

    def late() -> str:
        time.sleep(0.5)
        return "late.example.org"

    monkeypatch.setattr("socket.getfqdn", late)
    monkeypatch.setattr("socket.gethostname", lambda: "early")
    start = time.monotonic()
    assert asyncio.run(machine.own_name()) == "early"
    assert time.monotonic() - start < 0.4


@pytest.mark.parametrize(
    "arguments",
    [("--hostname", "a b"), ("--hostname", "x" * 40), ("--queue", "a:b"), ("--queue", "")],
)
def test_names_that_gwd_cannot_take(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        driver(*arguments)
