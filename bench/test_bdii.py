"""The BDII driver on a real slapd: what reading, joining and answering cost, as ratios.

The mark is what the server itself takes: the bytes of the same searches, read and thrown away.
"""

import contextlib
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.conftest import IS_QUICK, Contest, Scoreboard
from bench.players import BIN, Player
from gridmad import _glue
from gridmad._ber import paged
from gridmad.information import glue, glue1
from gridmad.information.glue_trees import BASE_1 as BASE
from gridmad.information.ldap import PAGED_RESULTS, Page, Search, page_request
from gridmad.information.ldap_server import Access, Server
from tests import glue_specification
from tests.services import glue as grids
from tests.services import slapd
from tests.services.slapd import Slapd

directory = pytest.importorskip("gridmad.information.directory")
ldap3 = pytest.importorskip("ldap3")

CES = 400 if IS_QUICK else 10_000
HOSTS = grids.host_names(CES)
SEARCHES = tuple(glue1.SEARCHES.values())
SAMPLE = 3 if IS_QUICK else 25
"""Hosts that are asked for one by one; what all would take is reckoned from them."""
TIMEOUT = 60.0
MEMORY = 120 << 20
COLD = 1 / 2
"""How fast a cold run must be beside the raw bytes: a busy machine gets more rounds to show it."""
FEWEST_ROUNDS = 10
MOST_ROUNDS = 40
BIND = bytes.fromhex("300c 020101 6007 020103 0400 8000")
TAIL = 256
RESTLESS = """\
import sys
from gridmad.information import snapshot

class Restless(snapshot.Snapshots):
    def _delay(self):
        return 0.0

snapshot.Snapshots = Restless
from gridmad.cli.driver import launcher
launcher("information", "gridmad.information.bdii")()
"""
"""The driver, reading the directory again as soon as it has read it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    if problem := slapd.missing():
        pytest.skip(problem)
    with Slapd(tmp_path_factory.mktemp("bdii") / "slapd", grids.ldif(grids.grid(CES))) as running:
        yield running


def command(server: Slapd, *more: str) -> list[str]:
    options = ["--glue", "1", "--timeout", f"{TIMEOUT:g}"]
    return [str(BIN / "gw_im_mad_bdii"), "-s", server.server, *options, *more]


# ---------------------------------------------------------------- four ways to read the same


def raw(server: Slapd, operations: Sequence[bytes]) -> int:
    """Read the answers to searches, and look at nothing but the ends of pages."""
    total = 0
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, directory.RECEIVE_BUFFER)
        connection.sendall(BIND)
        connection.recv(TAIL)
        number = 1
        for operation in operations:
            cookie: bytes | None = b""
            while cookie is not None:
                number += 1
                connection.sendall(page_request(number, operation, directory.PAGE, cookie))
                tail = b""
                cookie = None
                while cookie is None:
                    data = connection.recv(directory.READ_SIZE)
                    assert data
                    total += len(data)
                    tail = data[-TAIL:] if len(data) >= TAIL else (tail + data)[-TAIL:]
                    cookie = cookie_at_end(tail)
                cookie = cookie or None
    return total


def cookie_at_end(tail: bytes) -> bytes | None:
    """The cookie, where these bytes end with a search's result."""
    _, found, control = tail.partition(PAGED_RESULTS.encode())
    if not found or len(control) < 2 or len(control) - 2 < control[1]:
        return None
    return paged(control[2:])[1]


def ours(server: Slapd, searches: Sequence[Search] = SEARCHES) -> list[list[Any]]:
    found: list[list[Any]] = [[] for _ in searches]

    def collect(pages: Iterator[Page]) -> None:
        for turn, entries in pages:
            found[turn] += entries

    reader(server).fetch(searches, collect)
    return found


def reader(server: Slapd) -> Any:
    return directory.Directory([Server("127.0.0.1", server.port, False)], Access(), BASE, TIMEOUT)


def encoded(server: Slapd) -> list[bytes]:
    directory_ = reader(server)
    return [directory_._encoded(search) for search in SEARCHES]


def plain_ldap3(server: Slapd) -> list[list[Any]]:
    """ldap3 as its documentation shows it."""
    connection = ldap3.Connection(
        ldap3.Server("127.0.0.1", server.port, get_info=ldap3.NONE), auto_bind=True
    )
    try:
        return [
            list(
                connection.extend.standard.paged_search(
                    BASE,
                    search.whole_filter,
                    attributes=list(search.attributes),
                    paged_size=directory.PAGE,
                    generator=True,
                )
            )
            for search in SEARCHES
        ]
    finally:
        connection.unbind()


def python_ldap(server: Slapd) -> list[list[Any]]:
    """The C library, as python-ldap's documentation shows it."""
    ldap = pytest.importorskip("ldap")
    from ldap.controls import SimplePagedResultsControl

    connection = ldap.initialize(f"ldap://127.0.0.1:{server.port}")
    connection.simple_bind_s()
    found = []
    for search in SEARCHES:
        entries: list[Any] = []
        control = SimplePagedResultsControl(True, size=directory.PAGE, cookie="")
        while True:
            number = connection.search_ext(
                BASE,
                ldap.SCOPE_SUBTREE,
                search.whole_filter,
                list(search.attributes),
                serverctrls=[control],
            )
            _, page, _, controls = connection.result3(number)
            entries += page
            cookies = [c.cookie for c in controls if c.controlType == control.controlType]
            if not cookies or not cookies[0]:
                break
            control.cookie = cookies[0]
        found.append(entries)
    connection.unbind_s()
    return found


@pytest.mark.parametrize(
    ("name", "rounds", "floor", "ambition"),
    [
        ("the raw bytes, undecoded", 10, 1 / 1.3, 1 / 1.1),
        ("ldap3", 3, 6, 10),
        ("python-ldap", 5, 1.5, 2.3),
    ],
    ids=["raw", "ldap3", "python-ldap"],
)
def test_read_and_decode(
    contest: Contest, server: Slapd, name: str, rounds: int, floor: float, ambition: float
) -> None:
    """All that a snapshot needs, from connecting to the last entry."""
    operations = encoded(server)
    if name == "python-ldap":
        pytest.importorskip("ldap", reason="python-ldap is not installed (make bench tries to)")
    others: dict[str, Callable[[], Any]] = {
        "the raw bytes, undecoded": lambda: raw(server, operations),
        "ldap3": lambda: plain_ldap3(server),
        "python-ldap": lambda: python_ldap(server),
    }
    counts = [len(found) for found in ours(server)]
    assert counts[[search.object_class for search in SEARCHES].index("GlueCE")] == CES
    if name != "the raw bytes, undecoded":
        assert [len(found) for found in others[name]()] == counts
    size = raw(server, operations)
    contest.run(
        f"read and decode {CES:,} CEs",
        lambda: ours(server),
        others[name],
        against=name,
        floor=floor,
        ambition=ambition,
        rounds=rounds,
        note=lambda seconds: f"{seconds * 1e3:.0f} ms, {size / seconds / 1e6:.0f} MB/s",
    )


def test_join(contest: Contest, server: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries to hosts, with values taken out of entries in compiled code or in plain Python."""
    entries = dict(zip(glue1.SEARCHES, ours(server), strict=True))
    names = [name for name in vars(glue_specification) if name.endswith(("_of", "decoded"))]

    def join(functions: Any) -> int:
        with monkeypatch.context() as patched:
            for module in (glue, glue1):
                for name in names:
                    if hasattr(module, name):
                        patched.setattr(module, name, getattr(functions, name))
            join = glue1.Join()
            for object_class, found in entries.items():
                join.take(object_class, found)
            return len(join.finish().hosts)

    assert join(_glue) == join(glue_specification) == len(HOSTS)
    contest.run(
        f"join {CES:,} CEs",
        lambda: join(_glue),
        lambda: join(glue_specification),
        against="values in plain Python",
        floor=1.2,
        ambition=1.8,
        rounds=8,
        note=lambda seconds: f"{seconds * 1e3:.0f} ms",
    )


# ---------------------------------------------------------------- the whole driver


def monitors(count: int) -> bytes:
    """Requests that go round the hosts."""
    return b"".join(
        b"MONITOR %d %b -\n" % (number % 10_000, HOSTS[number % len(HOSTS)].encode())
        for number in range(count)
    )


@contextlib.contextmanager
def driver(server: Slapd, *more: str) -> Iterator[Player]:
    """A driver that has started and asked for nothing yet."""
    with Player(command(server, *more)) as player:
        player.initialise()
        player.settle()
        yield player


def test_cold(scoreboard: Scoreboard, server: Slapd) -> None:
    """From DISCOVER to the answer to a MONITOR of every host, with nothing known before."""
    operations = encoded(server)
    requests = b"DISCOVER - - -\n" + monitors(len(HOSTS))
    bytes_alone: list[float] = []
    whole: list[float] = []
    single: list[float] = []
    for turn in range(2 if IS_QUICK else MOST_ROUNDS):
        if turn >= FEWEST_ROUNDS and min(bytes_alone) / min(whole) >= COLD:
            break
        start = time.perf_counter()
        raw(server, operations)
        bytes_alone.append(time.perf_counter() - start)
        with driver(server) as player:
            start = time.perf_counter()
            player.stream(requests, 1 + len(HOSTS))
            whole.append(time.perf_counter() - start)
            answer = player.ask(b"MONITOR 7 %b -\n" % HOSTS[-1].encode())
            assert answer.startswith(b'MONITOR 7 SUCCESS HOSTNAME="%b"' % HOSTS[-1].encode())
    for host in random.Random(1).sample(HOSTS, SAMPLE):
        start = time.perf_counter()
        (ces,) = ours(server, [search_of("GlueCE", f"(GlueCEInfoHostName={host})")])
        ours(server, [search_of("GlueSubCluster", f"(GlueSubClusterName=a.cluster.{host})")])
        single.append(time.perf_counter() - start)
        assert ces
    taken = min(whole)
    scoreboard.score(
        f"cold: {len(HOSTS):,} hosts discovered and monitored",
        min(bytes_alone) / taken,
        against="the raw bytes, undecoded",
        floor=COLD,
        ambition=1 / 1.5,
        note=f"{taken * 1e3:.0f} ms, the best of {len(whole)}",
    )
    scoreboard.score(
        f"cold: {len(HOSTS):,} hosts discovered and monitored",
        min(single) * len(HOSTS) / taken,
        against="two searches a host (reckoned)",
        floor=100,
        ambition=200,
        note=f"{min(single) * 1e3:.0f} ms a host, the best of {SAMPLE}",
    )


def search_of(object_class: str, conditions: str) -> Search:
    return glue1.SEARCHES[object_class]._replace(filter=conditions)


def test_warm(scoreboard: Scoreboard, server: Slapd) -> None:
    """MONITOR of every host, again and again, from the snapshot."""
    count = len(HOSTS) * (10 if IS_QUICK else 40)
    requests = monitors(count)
    rates = []
    with driver(server) as player:
        player.stream(monitors(len(HOSTS)), len(HOSTS))
        for _ in range(5):
            start = time.perf_counter()
            player.stream(requests, count)
            rates.append(count / (time.perf_counter() - start))
    scoreboard.score(
        "warm: MONITOR answers a second",
        max(rates) / 100_000,
        against="the 100,000 that are asked for",
        floor=0,  # no ratio to anything, so nothing that holds on every machine
        ambition=1,
        note=f"{max(rates) / 1e3:.0f} k/s",
    )


def test_while_it_refreshes(scoreboard: Scoreboard, server: Slapd, tmp_path: Path) -> None:
    """One MONITOR at a time, while the directory is read and joined without a pause."""
    times: list[float] = []
    log = tmp_path / "log"
    more = ["--log-level", "info", "--log-file", str(log)]
    requests = monitors(10_000).splitlines(keepends=True)
    with Player([sys.executable, "-c", RESTLESS, *command(server, *more)[1:]]) as player:
        player.initialise()
        player.stream(monitors(len(HOSTS)), len(HOSTS))
        while len(times) < len(requests) and (len(times) < 1000 or refreshes(log) < 2):
            start = time.perf_counter()
            player.ask(requests[len(times)])
            times.append(time.perf_counter() - start)
            time.sleep(0.001)
    times.sort()
    p95 = times[len(times) * 95 // 100]
    scoreboard.score(
        "one MONITOR while a refresh runs, p95",
        0.002 / p95,
        against="the 2 ms that it may take",
        floor=0,  # no ratio to anything, so nothing that holds on every machine
        ambition=1,
        note=f"p50 {times[len(times) // 2] * 1e3:.2f} ms, p95 {p95 * 1e3:.2f} ms, "
        f"p99 {times[len(times) * 99 // 100] * 1e3:.2f} ms, most {times[-1] * 1e3:.1f} ms",
    )


def refreshes(log: Path) -> int:
    """How many a driver has told of in its log."""
    return log.read_text().count(" hosts, ") if log.exists() else 0


def test_memory(scoreboard: Scoreboard, server: Slapd, tmp_path: Path) -> None:
    """The peak with all hosts, and what further refreshes add."""
    log = tmp_path / "log"
    arguments = ["--refresh", "1", "--log-level", "info", "--log-file", str(log)]
    peaks = []
    with driver(server, *arguments) as player:
        for turn in (1, 2, 4):
            end = time.monotonic() + 120
            while refreshes(log) < turn and time.monotonic() < end:
                player.stream(monitors(len(HOSTS)), len(HOSTS))
                time.sleep(0.05)
            assert refreshes(log) >= turn
            player.stream(monitors(len(HOSTS)), len(HOSTS))
            peaks.append(player.peak_memory())
    first, second, last = peaks
    scoreboard.score(
        f"peak memory with {CES:,} CEs",
        MEMORY / last,
        against="the limit of 120 MiB",
        floor=1,
        ambition=1.3,
        note=f"{first >> 20} MiB after the first refresh, {second >> 20} after the second",
    )
    for name, more in (("the second refresh", second), ("further refreshes", last)):
        scoreboard.score(
            f"peak memory after {name}",
            first / more,
            against="of the first",
            floor=0.97,
            ambition=0.999,
            note=f"{(more - first) / 1024:.0f} KiB more",
        )
