"""The BDII driver on a real directory server."""

import argparse
import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gridmad.errors import TransientError, UsageError
from gridmad.information import snapshot
from gridmad.information.bdii import DRIVER, BdiiInformation
from gridmad.information.ldap_server import Server, parse_server
from gridmad.information.model import HostAttributes
from gridmad.information.published import overlay
from tests.services import glue
from tests.services.ports import reserve_port
from tests.services.slapd import Slapd, SlapdMaker

Test = Callable[[BdiiInformation], Coroutine[Any, Any, None]]


def make(
    *arguments: str, staleness: float = 1800.0, refresh: float | None = None
) -> BdiiInformation:
    parser = argparse.ArgumentParser()
    DRIVER.add_options(parser)
    options = parser.parse_args(arguments)
    options.staleness = staleness
    if refresh is not None:
        # Shorter than the command line allows: no test waits that long.
        options.refresh = refresh
    return DRIVER(options)


def run(
    test: Test, *arguments: str, staleness: float = 1800.0, refresh: float | None = None
) -> None:
    async def main() -> None:
        driver = make(*arguments, staleness=staleness, refresh=refresh)
        await driver.start()
        try:
            await test(driver)
        finally:
            await driver.stop()

    asyncio.run(main())


async def discover(driver: BdiiInformation) -> list[str]:
    hosts = driver.discover()
    return list(await hosts if isinstance(hosts, Awaitable) else hosts)


async def monitor(driver: BdiiInformation, hosts: Sequence[str]) -> dict[str, HostAttributes]:
    values = driver.monitor(hosts)
    if isinstance(values, Awaitable):
        values = await values
    found = {}
    for host, value in values.items():
        assert isinstance(value, HostAttributes)
        found[host] = value
    return found


def ask_all(server: Slapd, *arguments: str) -> dict[str, HostAttributes]:
    """Every host that DISCOVER tells, with what MONITOR tells of it."""
    found: dict[str, HostAttributes] = {}

    async def test(driver: BdiiInformation) -> None:
        hosts = await discover(driver)
        found.update(await monitor(driver, hosts))
        assert list(found) == hosts

    run(test, "-s", server.server, *arguments)
    return found


def queue_names(attributes: HostAttributes) -> list[str]:
    return [str(queue["QUEUE_NAME"]) for queue in attributes.queues]


# ---------------------------------------------------------------- whole directories


def test_the_session_of_the_developers_guide(slapd: SlapdMaker) -> None:
    found = ask_all(slapd(glue.ldif(glue.guide())))
    assert list(found) == [glue.GUIDE_HOST]
    payload = found[glue.GUIDE_HOST].payload.decode()
    assert payload.startswith(f"SUCCESS {glue.GUIDE_ATTRIBUTES} ")
    assert found[glue.GUIDE_HOST].dropped == []


@pytest.mark.parametrize("count", [20, 1000])
def test_every_host_and_queue_of_a_grid(slapd: SlapdMaker, count: int) -> None:
    records = glue.grid(count)
    found = ask_all(slapd(glue.ldif(records)))
    assert list(found) == glue.host_names(count)
    published = {
        (
            record.attributes["GlueCEInfoHostName"][0].decode(),
            record.attributes["GlueCEName"][0].decode(),
        ): record.attributes
        for record in records
        if "GlueCEUniqueID" in record.attributes
    }
    assert len(published) == count
    for host, attributes in found.items():
        assert attributes.host["ARCH"] == "x86_64"
        assert int(attributes.host["CPU_MHZ"]) > 0
        for queue in attributes.queues:
            ce = published.pop((host, str(queue["QUEUE_NAME"])))
            assert queue["QUEUE_STATUS"] == ce["GlueCEStateStatus"][0].decode()
            assert queue["QUEUE_FREENODECOUNT"] == int(ce["GlueCEStateFreeJobSlots"][0])
            assert queue["QUEUE_MAXTIME"] == int(ce["GlueCEPolicyMaxWallClockTime"][0])
    assert published == {}


def test_one_reading_serves_every_request(
    slapd: SlapdMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[None] = []
    read = BdiiInformation.read

    def counted(driver: BdiiInformation) -> dict[str, HostAttributes]:
        readings.append(None)
        return read(driver)

    monkeypatch.setattr(BdiiInformation, "read", counted)

    async def test(driver: BdiiInformation) -> None:
        for host in await discover(driver):
            assert list(await monitor(driver, [host])) == [host]
        assert len(readings) == 1

    run(test, "-s", slapd(glue.ldif(glue.grid(100))).server)


def test_names_in_another_case_and_unknown_hosts(slapd: SlapdMaker) -> None:
    text = glue.ldif(glue.guide()).replace(b"GlueCEStateFree", b"GLUEcestateFREE")
    server = slapd(text.replace(b"GlueHostProcessor", b"gluehostPROCESSOR"))

    async def test(driver: BdiiInformation) -> None:
        host = glue.GUIDE_HOST
        found = await monitor(driver, [host.upper(), "*", "other.example.org", "", host])
        assert list(found) == [host.upper(), host]
        assert found[host].payload.decode().startswith(f"SUCCESS {glue.GUIDE_ATTRIBUTES} ")

    run(test, "-s", server.server)


def test_values_of_all_kinds(slapd: SlapdMaker) -> None:
    queue, *others = glue.guide()[2:]
    queue = queue.changed(GlueCEStateStatus=b'Pro"duc\ntion\x01', GlueCEInfoLRMSVersion=None)
    (attributes,) = ask_all(slapd(glue.ldif([*glue.guide()[:2], queue, *others]))).values()
    assert b'QUEUE_STATUS[0]="Pro\'duc tion "' in attributes.payload


def test_a_host_has_at_most_67_queues(slapd: SlapdMaker, caplog: pytest.LogCaptureFixture) -> None:
    records = [glue.ce(f"h.org:1/cream-pbs-q{i:02}", "c", GlueCEName=f"q{i:02}") for i in range(80)]
    (attributes,) = ask_all(slapd(glue.ldif(records))).values()
    assert queue_names(attributes) == [f"q{i:02}" for i in range(67)]
    assert attributes.dropped == []
    assert caplog.text.count("gwd takes 67 queues") == 1


def test_more_entries_than_a_page(slapd: SlapdMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = pytest.importorskip("gridmad.information.directory")
    monkeypatch.setattr(directory, "PAGE", 7)
    server = slapd(glue.ldif(glue.grid(50)), limits="sizelimit size.prtotal=unlimited size=10")
    assert sum(len(host.queues) for host in ask_all(server).values()) == 50


# ---------------------------------------------------------------- filters and lists


GRID = [
    glue.ce("a.org:1/cream-pbs-x", "ca", GlueCEName="x", GlueCEStateStatus="Production"),
    glue.ce(
        "a.org:1/cream-pbs-y",
        "ca",
        GlueCEName="y",
        GlueCEStateStatus="Draining",
        GlueCEAccessControlBaseRule=["VO:gilda", "VO:ops"],
        GlueCEStateFreeJobSlots=9,
    ),
    glue.ce(
        "b.org:1/cream-slurm-x",
        "cb",
        GlueCEName="x",
        GlueCEStateStatus="Production",
        GlueCEInfoLRMSType="slurm",
        GlueCEAccessControlBaseRule="VO:gilda",
    ),
    glue.cluster("ca"),
    glue.cluster("cb"),
    glue.sub_cluster("sa", "ca", GlueHostArchitecturePlatformType="x86_64"),
    glue.sub_cluster("sb", "cb", GlueHostArchitecturePlatformType="aarch64"),
]
GRID.append(glue.view(GRID[1], "gilda", GlueCEStateFreeJobSlots=2))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"a.org": ["x", "y"], "b.org": ["x"]}),
        (["-q", "(GlueCEStateStatus=Production)"], {"a.org": ["x"], "b.org": ["x"]}),
        (
            ["-q", r"(GlueCEStateStatus=Production)(GlueCEAccessControlBaseRule=VO\:gilda)"],
            {"b.org": ["x"]},
        ),
        (
            ["-q", "(&(GlueCEAccessControlBaseRule=VO:gilda)(!(GlueCEStateStatus=Production)))"],
            {"a.org": ["y"]},
        ),
        (["-f", "(GlueCEStateStatus=Draining)"], {"a.org": ["x", "y"]}),
        (["-f", "(GlueHostArchitecturePlatformType=aarch64)"], {"b.org": ["x"]}),
        (["-f", "(!(GlueHostArchitecturePlatformType=aarch64))"], {"a.org": ["x", "y"]}),
        (
            ["-f", "(GlueHostArchitecturePlatformType=x86_64)(GlueCEInfoLRMSType=slurm)"],
            {},
        ),
        (
            ["-f", "(GlueCEStateStatus=Draining)", "-q", "(GlueCEName=x)"],
            {"a.org": ["x"]},
        ),
    ],
)
def test_filters(slapd: SlapdMaker, arguments: list[str], expected: dict[str, list[str]]) -> None:
    found = ask_all(slapd(glue.ldif(GRID)), *arguments)
    assert {host: queue_names(attributes) for host, attributes in found.items()} == expected


def test_a_vo_in_the_filter_gets_its_own_free_slots(slapd: SlapdMaker) -> None:
    server = slapd(glue.ldif(GRID))
    for arguments, free in (
        (["-q", "(GlueCEAccessControlBaseRule=VO:ops)"], 9),
        (["-q", "(GlueCEAccessControlBaseRule=VO:gilda)"], 2),
    ):
        queue = ask_all(server, *arguments)["a.org"].queues[0]
        assert queue["QUEUE_FREENODECOUNT"] == free


def test_the_host_list_adds_hosts_and_its_files_win(
    slapd: SlapdMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "own.attr").write_text('NODECOUNT=7 QUEUE_NAME[0]="own"')
    (tmp_path / "b.attr").write_text(
        'ARCH="mine" SITE="home" QUEUE_NAME[0]="x" QUEUE_MAXTIME[0]=5 QUEUE_NAME[1]="new"'
    )
    hosts = tmp_path / "host.list"
    hosts.write_text(f"own.org {tmp_path}/own.attr\nB.org {tmp_path}/b.attr\na.org\nnowhere.org\n")
    found = ask_all(slapd(glue.ldif(GRID)), "-l", str(hosts))
    assert list(found) == ["own.org", "b.org", "a.org"]
    assert found["own.org"].payload == (
        b'SUCCESS HOSTNAME="own.org" NODECOUNT=7 QUEUE_NAME[0]="own"'
    )
    assert found["b.org"].host["ARCH"] == "mine"
    assert found["b.org"].host["SITE"] == "home"
    assert found["b.org"].queues[0]["QUEUE_MAXTIME"] == 5
    assert found["b.org"].queues[0]["QUEUE_STATUS"] == "Production"
    assert queue_names(found["b.org"]) == ["x", "new"]
    assert queue_names(found["a.org"]) == ["x", "y"]
    assert "the BDII has no host nowhere.org, and its line no file" in caplog.text


def test_an_attribute_file_wins_over_further_attributes() -> None:
    published = HostAttributes({"ARCH": "a"}, [], {"OS_RELEASE": "1", "SPEC_INT": 2})
    merged = overlay(published, HostAttributes({"OS_RELEASE": "9"}, [{"QUEUE_MAXTIME": 1}]))
    assert merged == HostAttributes({"ARCH": "a", "OS_RELEASE": "9"}, [], {"SPEC_INT": 2})


# ---------------------------------------------------------------- faults


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


def test_a_server_that_dies_and_comes_back(
    slapd: SlapdMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "LONGEST_RETRY", 0.1)
    records = glue.grid(1000)
    server = slapd(glue.ldif(records))
    host = glue.host_names(1000)[0]

    async def test(driver: BdiiInformation) -> None:
        hosts = await discover(driver)
        before = await monitor(driver, hosts)
        server.stop()
        await asyncio.sleep(1.0)  # several refreshes fail
        assert await discover(driver) == hosts
        assert (await monitor(driver, hosts))[host] is before[host]

        changed = [
            record.changed(GlueCEStateStatus="Closed")
            if record.attributes.get("GlueCEInfoHostName") == [host.encode()]
            else record
            for record in records
        ]
        server.load(glue.ldif(changed))
        server.start()

        async def is_closed() -> bool:
            (attributes,) = (await monitor(driver, [host])).values()
            return all(queue["QUEUE_STATUS"] == "Closed" for queue in attributes.queues)

        await until(is_closed)
        after = await monitor(driver, hosts)
        assert list(after) == hosts
        assert [h for h in hosts if after[h] is not before[h]] == [host]

    run(test, "-s", server.server, refresh=0.2)


def test_queues_keep_their_index_over_refreshes(slapd: SlapdMaker) -> None:
    server = slapd(glue.ldif(GRID))

    async def test(driver: BdiiInformation) -> None:
        (before,) = (await monitor(driver, ["a.org"])).values()
        assert queue_names(before) == ["x", "y"]
        server.stop()
        server.load(
            glue.ldif([GRID[1], glue.ce("a.org:1/cream-pbs-a", "ca", GlueCEName="a"), *GRID[3:7]])
        )
        server.start()

        async def is_changed() -> bool:
            (now,) = (await monitor(driver, ["a.org"])).values()
            return queue_names(now) == ["", "y", "a"]

        await until(is_changed)
        (now,) = (await monitor(driver, ["a.org"])).values()
        assert b' QUEUE_NAME[0]="" QUEUE_NAME[1]="y"' in now.payload

    run(test, "-s", server.server, refresh=0.2)


def test_an_empty_directory_is_no_news_of_the_hosts(
    slapd: SlapdMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(snapshot, "LONGEST_RETRY", 0.1)
    server = slapd(glue.ldif(GRID))

    async def test(driver: BdiiInformation) -> None:
        hosts = await discover(driver)
        server.stop()
        server.load(glue.ldif([]))
        server.start()

        async def is_told() -> bool:
            return "no hosts there now" in caplog.text

        await until(is_told)
        assert await discover(driver) == hosts

    run(test, "-s", server.server, refresh=0.2)


def test_a_directory_that_was_always_empty_has_no_hosts(
    slapd: SlapdMaker, caplog: pytest.LogCaptureFixture
) -> None:
    assert ask_all(slapd(glue.ldif([]))) == {}
    assert "look at what the options choose" in caplog.text


def fails(*arguments: str, staleness: float = 1800.0) -> str:
    """What DISCOVER fails with."""
    texts: list[str] = []

    async def test(driver: BdiiInformation) -> None:
        with pytest.raises(TransientError) as caught:
            await discover(driver)
        texts.append(str(caught.value))

    run(test, *arguments, staleness=staleness)
    return texts[0]


def test_a_size_limit_is_an_error_and_no_small_success(slapd: SlapdMaker) -> None:
    server = slapd(glue.ldif(glue.grid(30)), limits="sizelimit 10")
    assert "sizeLimitExceeded" in fails("-s", server.server)


def test_a_base_that_is_not_there(slapd: SlapdMaker) -> None:
    server = slapd(glue.ldif(GRID))
    said = fails("-s", server.server, "-b", "mds-vo-name=elsewhere,o=grid")
    assert said.startswith(f"ldap://{server.server}/mds-vo-name=elsewhere,o=grid: ")
    assert "noSuchObject" in said


def test_the_base_is_used(slapd: SlapdMaker) -> None:
    server = slapd(glue.ldif(glue.grid(30)))
    found = ask_all(server, "-b", "mds-vo-name=SITE-0001,mds-vo-name=local,o=grid")
    assert list(found) == [f"ce{i}.site0001.example.org" for i in (1, 2, 3)][: len(found)]
    assert found


def test_nobody_listens() -> None:
    assert "Connection refused" in fails("-s", "127.0.0.1", "-p", str(reserve_port()))


Talker = Callable[..., str]

BOUND = bytes.fromhex("300c 020101 6107 0a0100 0400 0400")
"""The answer to the first message, a bind: success."""
ENTRY = bytes.fromhex("300d 020102 6408 0404") + b"cn=x" + bytes.fromhex("3000")
"""An entry without attributes, as an answer to the second message."""


@pytest.fixture
def talker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Talker]:
    """`talker(first, then, pause=, count=)` is a server that answers `first` to the first
    request of a connection and, some times, `then` to the second, and closes.
    """
    monkeypatch.setattr("ldap3.Server._message_counter", 0)  # messages count from 1 in these tests
    ends = threading.Event()
    threads: list[threading.Thread] = []
    listeners: list[socket.socket] = []

    def serve(listener: socket.socket, first: bytes, then: bytes, pause: float, count: int) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                connection.recv(1 << 16)
                connection.sendall(first)
                connection.recv(1 << 16)
                for _ in range(count):
                    if ends.wait(pause):
                        return
                    connection.sendall(then)

    def make(first: bytes, then: bytes = b"", pause: float = 0.1, count: int = 1000) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        thread = threading.Thread(target=serve, args=(listener, first, then, pause, count))
        threads.append(thread)
        thread.start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield make
    ends.set()
    for listener in listeners:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join()


def test_a_server_that_says_nothing(talker: Talker) -> None:
    start = time.monotonic()
    assert "timed out" in fails("-s", talker(b""), "--timeout", "1")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("pause", [0.1, 0.0001])
def test_a_server_that_goes_on_for_ever(talker: Talker, pause: float) -> None:
    start = time.monotonic()
    server = talker(BOUND, ENTRY, pause=pause, count=1_000_000)
    assert fails("-s", server, "--timeout", "1").endswith("o=grid: timed out")
    assert time.monotonic() - start < 10


def test_a_server_that_breaks_off(talker: Talker) -> None:
    said = fails("-s", talker(BOUND, ENTRY, count=1))
    assert "the server has closed the connection" in said


def test_a_server_that_speaks_something_else(talker: Talker) -> None:
    server = talker(b"SSH-2.0-OpenSSH_9.2p1\r\n", b"nonsense", pause=0.01)
    said = fails("-s", server, "--timeout", "5")
    assert (
        said == f"ldap://{server}/mds-vo-name=local,o=grid: what answers there does not speak LDAP"
    )


def test_a_snapshot_that_is_too_old_is_not_served(
    slapd: SlapdMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "LONGEST_RETRY", 0.1)
    server = slapd(glue.ldif(GRID))

    async def test(driver: BdiiInformation) -> None:
        await discover(driver)
        server.stop()
        await asyncio.sleep(0.8)
        with pytest.raises(TransientError, match="Connection refused"):
            driver.monitor(["a.org"])

    run(test, "-s", server.server, refresh=0.1, staleness=0.5)


# ---------------------------------------------------------------- command line


@pytest.mark.parametrize(
    ("server", "port", "expected"),
    [
        ("bdii.example.org", None, Server("bdii.example.org", 2170, False)),
        ("bdii.example.org", 2135, Server("bdii.example.org", 2135, False)),
        ("bdii.example.org:2172", 2135, Server("bdii.example.org", 2172, False)),
        ("ldap://bdii.example.org/", None, Server("bdii.example.org", 2170, False)),
        ("ldaps://bdii.example.org", None, Server("bdii.example.org", 636, True)),
        ("LDAPS://bdii.example.org:1636", None, Server("bdii.example.org", 1636, True)),
        ("[::1]:2170", None, Server("::1", 2170, False)),
    ],
)
def test_servers(server: str, port: int | None, expected: Server) -> None:
    assert parse_server(server, port, 2170) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["-s", "http://bdii.example.org"],
        ["-s", "bdii.example.org:port"],
        ["-s", "bdii.example.org:99999"],
        ["-s", "ldap://bdii.example.org/o=grid"],
        ["-s", ""],
        ["-s", "two words"],
        ["-s", "bdii", "-b", "grid"],
        ["-s", "bdii", "-q", "GlueCEName=x"],
        ["-s", "bdii", "-q", "(GlueHostArchitectureSMPSize=2)"],
        ["-s", "bdii", "-f", "(a=b"],
        ["-s", "bdii", "-l", "/nonexistent/host.list"],
    ],
)
def test_a_wrong_command_line_is_told_at_once(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        make(*arguments)


def test_logs_tell_of_a_server_that_fails_once(
    slapd: SlapdMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(snapshot, "LONGEST_RETRY", 0.05)
    server = slapd(glue.ldif(GRID))

    async def test(driver: BdiiInformation) -> None:
        await discover(driver)
        server.stop()
        await asyncio.sleep(0.6)

    run(test, "-s", server.server, refresh=0.05)
    assert caplog.text.count("Connection refused") == 1
