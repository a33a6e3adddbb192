"""Directory servers that fail, stop, answer in part, want a login or speak TLS."""

import argparse
import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gridmad.errors import TransientError, UsageError
from gridmad.information import ldap_server, snapshot
from gridmad.information.bdii import BdiiInformation
from gridmad.information.glue_trees import BASE_1
from gridmad.information.ldap import Page, Search
from gridmad.information.ldap_server import Access, Server
from tests.services import glue, pki
from tests.services.ports import reserve_port
from tests.services.required import skip_without
from tests.services.slapd import Slapd, SlapdMaker
from tests.services.test_bdii import discover, fails, monitor, run, until

directory = pytest.importorskip("gridmad.information.directory", exc_type=ImportError)

CES = [Search("GlueCE", ("GlueCEUniqueID",))]
SMALL = glue.grid(8)
HOSTS = glue.host_names(8)


def servers(*each: Slapd | str) -> tuple[str, str]:
    """The option that names them."""
    return "-s", ",".join(server.server if isinstance(server, Slapd) else server for server in each)


def nobody() -> str:
    """A server that does not run."""
    return f"127.0.0.1:{reserve_port()}"


# ---------------------------------------------------------------- several servers


def test_of_several_servers_the_next_answers_when_one_does_not(
    slapd: SlapdMaker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "LONGEST_RETRY", 0.1)
    first, second = slapd(glue.ldif(SMALL)), slapd(glue.ldif(SMALL[:-1]))

    async def test(driver: BdiiInformation) -> None:
        assert await discover(driver) == HOSTS
        assert driver.place.startswith(f"ldap://{first.server}/")
        first.stop()

        async def other_answers() -> bool:
            assert await discover(driver) == HOSTS
            return f"ldap://{second.server}/{BASE_1} answers instead" in caplog.text

        await until(other_answers)
        # It goes on with that one, and says so once, until it fails.
        first.start()
        second.stop()

        async def first_answers() -> bool:
            return f"ldap://{first.server}/{BASE_1} answers instead" in caplog.text

        await until(first_answers)
        assert await discover(driver) == HOSTS
        assert caplog.text.count("answers instead") == 2

    run(test, *servers(first, second), refresh=0.1)


def test_a_server_that_is_stopped_is_left_for_the_next(slapd: SlapdMaker) -> None:
    first, second = slapd(glue.ldif(SMALL)), slapd(glue.ldif(SMALL))
    first.pause()

    async def test(driver: BdiiInformation) -> None:
        assert await discover(driver) == HOSTS
        assert driver.place.startswith(f"ldap://{second.server}/")

    run(test, *servers(first, second), "--timeout", "3")


def test_a_server_that_gives_a_part_is_left_for_one_that_gives_all(slapd: SlapdMaker) -> None:
    part = slapd(glue.ldif(SMALL), limits="sizelimit 5")
    whole = slapd(glue.ldif(SMALL))

    async def test(driver: BdiiInformation) -> None:
        found = await monitor(driver, await discover(driver))
        assert sum(len(host.queues) for host in found.values()) == 8

    run(test, *servers(part, whole))


def test_nothing_of_a_server_that_gives_a_part_is_joined_with_the_next(
    slapd: SlapdMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "PAGE", 3)
    part = slapd(glue.ldif(SMALL), limits="sizelimit size.prtotal=5")
    whole = slapd(glue.ldif(SMALL))
    counts: list[int] = []

    def join(pages: Iterator[Page]) -> int:
        counts.append(0)
        for _, entries in pages:
            counts[-1] += len(entries)
        return counts[-1]

    both = [Server("127.0.0.1", server.port, False) for server in (part, whole)]
    assert directory.Directory(both, Access(), BASE_1, 20.0).fetch(CES, join) == 8
    assert len(counts) == 2
    assert 0 < counts[0] < 8
    assert counts[1] == 8


def test_what_is_wrong_with_each_server_is_told() -> None:
    one, other = nobody(), nobody()
    said = fails(*servers(one, other))
    for server in (one, other):
        assert f"ldap://{server}/{BASE_1}: " in said
    assert said.count("refused") == 2


# ---------------------------------------------------------------- faults while it serves


def test_a_server_that_is_stopped_and_goes_on(
    slapd: SlapdMaker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "LONGEST_RETRY", 0.1)
    caplog.set_level(logging.INFO)
    server = slapd(glue.ldif(SMALL))

    async def test(driver: BdiiInformation) -> None:
        while True:
            # A busy machine may be as slow as the server that this test stops.
            with contextlib.suppress(TransientError):
                hosts = await discover(driver)
                break
            await asyncio.sleep(0.05)
        before = await monitor(driver, hosts)
        server.pause()

        async def says(text: str) -> None:
            async def is_said() -> bool:
                await discover(driver)
                return text in caplog.text

            await until(is_said)

        await says("timed out")
        assert await monitor(driver, hosts) == before
        server.go_on()
        await says("the source answers again")
        assert await monitor(driver, hosts) == before

    run(test, *servers(server), "--timeout", "1", refresh=0.05)


def test_a_server_that_comes_back_with_a_limit_gives_no_smaller_grid(
    slapd: SlapdMaker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "LONGEST_RETRY", 0.1)
    server = slapd(glue.ldif(SMALL))
    limited = slapd(glue.ldif(SMALL), limits="sizelimit 3")

    async def test(driver: BdiiInformation) -> None:
        hosts = await discover(driver)
        before = await monitor(driver, hosts)
        server.stop()
        limited.stop()
        limited.port = server.port
        limited.start()

        async def is_told() -> bool:
            return "sizeLimitExceeded" in caplog.text

        await until(is_told)
        assert await discover(driver) == HOSTS
        assert await monitor(driver, hosts) == before

    run(test, *servers(server), refresh=0.05)


BOUND = bytes.fromhex("300c 020101 6107 0a0100 0400 0400")
ENTRY = bytes.fromhex("300d 020102 6408 0404") + b"cn=x" + bytes.fromhex("3000")


def done(code: int) -> bytes:
    return bytes.fromhex("300c 020102 6507 0a01") + bytes([code]) + bytes.fromhex("0400 0400")


NOTICE = bytes.fromhex("3024 020100 781f 0a0134 0400 0400 8a16") + b"1.3.6.1.4.1.1466.20036"
Replier = Callable[[bytes, bytes], Server]


@pytest.fixture
def replier(monkeypatch: pytest.MonkeyPatch) -> Iterator[Replier]:
    """`replier(first, second)` answers the first request and the second with these bytes."""
    monkeypatch.setattr("ldap3.Server._message_counter", 0)  # messages count from 1 here
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)
    threads: list[threading.Thread] = []

    def serve(first: bytes, second: bytes) -> None:
        with contextlib.suppress(OSError):  # a client may be gone before all is said
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(20)
                for answer in (first, second):
                    connection.recv(1 << 16)
                    connection.sendall(answer)
                while connection.recv(1 << 16):
                    pass

    def make(first: bytes, second: bytes) -> Server:
        thread = threading.Thread(target=serve, args=(first, second))
        threads.append(thread)
        thread.start()
        return Server("127.0.0.1", listener.getsockname()[1], False)

    yield make
    for thread in threads:
        thread.join(20)
    listener.close()


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (BOUND, ENTRY + done(3), "timeLimitExceeded"),
        (BOUND, ENTRY + done(4), "sizeLimitExceeded"),
        (BOUND, ENTRY + done(11), "adminLimitExceeded"),
        (BOUND, ENTRY + done(51), "busy"),
        (BOUND, ENTRY + done(10), "referral"),
        (BOUND, ENTRY + done(79), "79"),
        (BOUND, ENTRY + NOTICE, "the server ends the connection: unavailable"),
        (BOUND[:-5] + b"\x31\x04\x00\x04\x00", b"", "invalidCredentials"),
        (BOUND, b"\x30\x05\x02\x01\x02\x64\x00" + done(0), "an entry's name does not end"),
        (BOUND, ENTRY.replace(b"\x02\x01\x02", b"\x02\x01\x07"), "message 7 answers no request"),
        (
            BOUND,
            b"\x30\x0d\x02\x01\x02\x73\x08\x04\x06ldap:/" + done(0),
            "a part of the tree is on another server",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_only_success_is_a_whole_answer(
    replier: Replier, first: bytes, second: bytes, said: str
) -> None:
    server = replier(first, second)
    with pytest.raises(TransientError) as caught:
        directory.Directory([server], Access(), BASE_1, 20.0).fetch(CES, list)
    assert said in str(caught.value)


def test_a_server_may_not_fill_the_memory(
    slapd: SlapdMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = slapd(glue.ldif(glue.grid(100)))
    monkeypatch.setattr(directory, "MAX_RECEIVED", 2000)
    with pytest.raises(TransientError, match="the server sends more than 2000 bytes"):
        found(server, is_tls=False)


def test_entries_without_paging_are_an_answer_too(replier: Replier) -> None:
    server = replier(BOUND, ENTRY + done(0))
    assert directory.Directory([server], Access(), BASE_1, 20.0).fetch(CES, list) == [(0, [{}])]


# ---------------------------------------------------------------- TLS and logins


READER = glue.record(
    "cn=reader,o=grid",
    ["organizationalRole", "simpleSecurityObject"],
    {"cn": "reader", "userPassword": "s3cret"},
)
ONLY_USERS = "access to * by anonymous auth by users read by * none"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> pki.Authority:
    if problem := pki.missing():
        skip_without("slapd", problem)
    return pki.Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def secure(slapd: SlapdMaker, authority: pki.Authority) -> Slapd:
    """A server that tells only who has logged in, over TLS and in the clear."""
    own = authority.issue("server")
    settings = (
        f"TLSCACertificateFile {authority.ca}",
        f"TLSCertificateFile {own.certificate}",
        f"TLSCertificateKeyFile {own.key}",
        "TLSVerifyClient try",
        ONLY_USERS,
    )
    return slapd(glue.ldif([READER, *SMALL]), "\n".join(settings), ldaps=True)


def password_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "password"
    file.write_text(text)
    file.chmod(mode)
    return file


def found(server: Slapd, *, is_tls: bool, **access: object) -> int:
    """How many CEs are found with this access."""
    port = server.ldaps_port if is_tls else server.port
    assert port is not None
    way = Access(**access)  # type: ignore[arg-type]
    pages = directory.Directory(
        [Server("localhost" if is_tls else "127.0.0.1", port, is_tls)], way, BASE_1, 20.0
    ).fetch(CES, list)
    return sum(len(entries) for _, entries in pages)


@pytest.mark.parametrize(("is_tls", "starts_tls"), [(True, False), (False, True), (False, False)])
def test_a_password_logs_in(
    secure: Slapd, authority: pki.Authority, tmp_path: Path, is_tls: bool, starts_tls: bool
) -> None:
    file = password_file(tmp_path, "s3cret\nanything else\n")
    access = {
        "starts_tls": starts_tls,
        "authorities": authority.ca,
        "bind_dn": "cn=reader,o=grid",
        "password_file": file,
    }
    assert found(secure, is_tls=is_tls, **access) == 8
    password_file(tmp_path, "wrong")
    with pytest.raises(TransientError, match="invalidCredentials"):
        found(secure, is_tls=is_tls, **access)
    password_file(tmp_path, "s3cret", 0o644)
    with pytest.raises(TransientError, match="others may read or change it: chmod 600"):
        found(secure, is_tls=is_tls, **access)
    password_file(tmp_path, "")
    with pytest.raises(TransientError, match="has no first line"):
        found(secure, is_tls=is_tls, **access)


@pytest.mark.parametrize("is_tls", [True, False])
def test_a_certificate_logs_in(secure: Slapd, authority: pki.Authority, is_tls: bool) -> None:
    own = authority.issue("driver")
    access = {
        "starts_tls": not is_tls,
        "authorities": authority.ca,
        "is_external": True,
        "certificate": own.certificate,
        "key": own.key,
    }
    assert found(secure, is_tls=is_tls, **access) == 8


def test_who_does_not_log_in_is_told_nothing(secure: Slapd) -> None:
    with pytest.raises(TransientError, match="insufficientAccessRights"):
        found(secure, is_tls=False)


@pytest.mark.parametrize("is_tls", [True, False])
def test_a_server_that_cannot_be_verified_gets_no_password(
    secure: Slapd, tmp_path: Path, is_tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    other = pki.Authority(tmp_path / "other")
    with pytest.raises(TransientError, match="certificate verify failed"):
        found(secure, is_tls=is_tls, starts_tls=not is_tls, authorities=other.ca)


def test_a_certificate_for_another_name_is_refused(
    slapd: SlapdMaker, authority: pki.Authority
) -> None:
    own = authority.issue("elsewhere", ["DNS:elsewhere.example.org"])
    settings = (
        f"TLSCACertificateFile {authority.ca}",
        f"TLSCertificateFile {own.certificate}",
        f"TLSCertificateKeyFile {own.key}",
    )
    server = slapd(glue.ldif(SMALL), "\n".join(settings), ldaps=True)
    with pytest.raises(TransientError, match="Hostname mismatch"):
        found(server, is_tls=True, authorities=authority.ca)


def test_a_server_without_tls_is_not_spoken_with_in_the_clear(slapd: SlapdMaker) -> None:
    with pytest.raises(TransientError, match="startTLS failed"):
        found(slapd(glue.ldif(SMALL)), is_tls=False, starts_tls=True)


def test_bytes_between_starttls_and_tls_are_refused(replier: Replier) -> None:
    """An attacker would put answers there, to be taken for the server's own."""
    started = bytes.fromhex("300c 020101 7807 0a0100 0400 0400")
    server = replier(started + BOUND.replace(b"\x02\x01\x01", b"\x02\x01\x02"), b"")
    with pytest.raises(TransientError, match="something between StartTLS and TLS"):
        directory.Directory([server], Access(starts_tls=True), BASE_1, 5.0).fetch(CES, list)


# ---------------------------------------------------------------- command line


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    ldap_server.add_options(parser, "the BDII", 2170)
    return parser.parse_args(arguments)


def test_servers_and_access() -> None:
    read = options("-s", "a.org,ldaps://b.org,a.org", "-p", "2135", "--start-tls", "--ca", "/ca")
    named = ldap_server.servers_of(read, 2170)
    assert named == [Server("a.org", 2135, False), Server("b.org", 2135, True)]
    assert ldap_server.access_of(read, named) == Access(True, Path("/ca"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-s", "a.org,"], "write SERVER"),
        (["-s", "a.org,,b.org"], "write SERVER"),
        (["-s", "a.org", "--bind-dn", "cn=x"], "need each other"),
        (["-s", "a.org", "--password-file", "/x"], "need each other"),
        (["-s", "a.org", "--bind-dn", "cn=x", "--password-file", "/x"], "over TLS only"),
        (
            ["-s", "ldaps://b.org,a.org", "--bind-dn", "cn=x", "--password-file", "/x"],
            "-s a.org: a password goes over TLS only",
        ),
        (["-s", "ldaps://b.org", "--sasl-external"], "needs --certificate"),
        (["-s", "ldaps://b.org", "--key", "/x"], "--key needs --certificate"),
        (["-s", "b.org", "--sasl-external", "--certificate", "/x"], "certificates belong to TLS"),
        (
            [
                *("-s", "ldaps://b.org", "--sasl-external", "--certificate", "/x"),
                *("--bind-dn", "cn=x", "--password-file", "/x"),
            ],
            "choose one",
        ),
    ],
)
def test_options_that_do_not_fit_together(arguments: list[str], said: str) -> None:
    read = options(*arguments)
    with pytest.raises(UsageError) as caught:
        ldap_server.access_of(read, ldap_server.servers_of(read, 2170))
    assert said in str(caught.value)


def test_a_password_may_stay_on_this_machine() -> None:
    read = options("-s", "127.0.0.1,localhost", "--bind-dn", "cn=x", "--password-file", "/x")
    ldap_server.access_of(read, ldap_server.servers_of(read, 2170))
