"""What gatekeepers fetch: when, from whom, and what jobs make of it."""

import asyncio
import os
import socket
import ssl
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.credential import Credential, Kind, read_credential
from gridmad.errors import DescriptionError, DriverError
from gridmad.execution import gram_files
from gridmad.execution.description import parse_description
from gridmad.execution.description.model import JobDescription, StagedFile
from gridmad.execution.gram_files import Fetches
from gridmad.execution.gram_rsl import FETCH, fetch_rsl, job_rsl
from gridmad.execution.gram_serving import ports, response, served
from tests.services import grid_pki
from tests.services.grid_pki import GridAuthority
from tests.services.required import skip_without

# ---------------------------------------------------------------- when


class Site:
    """Endpoints that fetch what they are told as soon as they `may`."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[str]]] = []
        self.may = asyncio.Event()
        self.does = True
        self.fetches = Fetches(self._fetch)

    def _fetch(self, endpoint: str, files: Mapping[str, bytes]) -> asyncio.Task[bool]:
        self.told.append((endpoint, sorted(files)))
        return asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> bool:
        await self.may.wait()
        return self.does


def test_each_endpoint_is_told_each_file_once() -> None:
    async def test() -> None:
        site = Site()
        files = {"a": b"1", "b": b"2"}
        first = asyncio.create_task(site.fetches.have("one", files))
        second = asyncio.create_task(site.fetches.have("one", {**files, "c": b"3"}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not first.done()
        assert not second.done()
        site.may.set()
        await asyncio.gather(first, second)
        await site.fetches.have("two", files)
        await site.fetches.have("one", files)
        assert site.told == [("one", ["a", "b"]), ("one", ["c"]), ("two", ["a", "b"])]

    asyncio.run(test())


@pytest.mark.parametrize("does", [True, False])
def test_one_that_did_not_is_told_again(monkeypatch: pytest.MonkeyPatch, does: bool) -> None:
    async def test() -> None:
        site = Site()
        site.does = does
        site.may.set()
        for _ in range(2):
            await site.fetches.have("one", {"a": b""})
        assert len(site.told) == 1
        monkeypatch.setattr(gram_files, "PAUSE", 0.0)
        await site.fetches.have("one", {"a": b""})
        assert len(site.told) == (1 if does else 2)

    asyncio.run(test())


def test_jobs_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(gram_files, "FETCH_WAIT", 0.01)
        site = Site()
        await site.fetches.have("one", {"a": b""})
        await site.fetches.have("one", {"a": b""})
        assert len(site.told) == 1
        site.may.set()
        await asyncio.sleep(0.01)

    asyncio.run(test())


# ---------------------------------------------------------------- what jobs do


def run(job: bytes, folder: Path, home: Path) -> "subprocess.CompletedProcess[bytes]":
    """Run a job as a job manager does."""
    read = parse_description(job)
    return subprocess.run(
        [read.executable, *read.arguments],
        cwd=folder,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "part": "mine"},
        capture_output=True,
        timeout=60,
    )


DIGEST = "c775e7b757ede630cd0aa1113bd102661ab38829ca52a6422ab782862f268646"


def test_files_are_fetched_and_jobs_copy_them(tmp_path: Path) -> None:
    home, scratch, folder = (tmp_path / name for name in ("home", "scratch", "work"))
    for path in (home, scratch, folder):
        path.mkdir()
    (scratch / DIGEST).write_text("1234567890")
    text, _, directory = fetch_rsl({DIGEST: "https://me/secret/x"}, 300).partition(b"(directory=")
    assert directory == b"$(SCRATCH_DIRECTORY))"
    assert f'(file_stage_in=("https://me/secret/x" "{DIGEST}"))'.encode() in text
    assert run(text, scratch, home).returncode == 0
    fetched = home / ".gridmad/files" / DIGEST
    assert fetched.read_text() == "1234567890"
    assert fetched.stat().st_mode & 0o777 == 0o600
    # What came in pieces is not taken.
    (scratch / DIGEST).write_text("123")
    assert run(text, scratch, home).returncode == 1
    assert fetched.read_text() == "1234567890"

    inputs = [
        StagedFile("--", "/me/a", is_executable=True),
        StagedFile("b c", "/me/a"),
        StagedFile("gone", "/me/b"),
        StagedFile("unread", "/me/c"),
        StagedFile("/not/below", "/me/a"),
        StagedFile("url", "https://se/url"),
    ]
    (folder / "run").write_text('#!/bin/sh\necho "$part" "$@"; [ -x -- ]; ls; exit 4\n')
    (folder / "run").chmod(0o700)
    job = JobDescription("run", ("x", "--", "y z"), inputs=inputs)
    text = job_rsl(job, 300, {"/me/a": DIGEST, "/me/b": "0" * 64})
    assert b'(file_stage_in=("https://se/url" "url"))' in text
    done = run(text, folder, home)
    assert (done.returncode, done.stderr) == (4, b"")
    assert done.stdout.decode().splitlines() == ["mine x -- y z", "--", "b c", "run"]
    assert (folder / "b c").read_text() == "1234567890"
    assert (folder / "b c").stat().st_mode & 0o777 == 0o600


def test_a_staged_executable_cannot_copy_files_first() -> None:
    job = JobDescription("https://se/run", inputs=[StagedFile("a", "/me/a")])
    with pytest.raises(DescriptionError, match="cannot stage a"):
        job_rsl(job, 300, {"/me/a": DIGEST})


def test_a_job_without_inputs_is_what_it_was() -> None:
    assert b"/bin/sh" not in job_rsl(JobDescription("run"), 300, {"/me/a": DIGEST})
    assert "'" not in FETCH


# ---------------------------------------------------------------- from whom


@pytest.mark.parametrize(
    ("text", "found"),
    [("20000,20002", [20000, 20001, 20002]), (" 20000 20001 ", [20000, 20001]), ("", [0]),
     ("x", [0]), ("5", [0]), ("65535,99999", [65535]), ("3,2", [])],
)  # fmt: skip
def test_the_ports_of_a_firewall(text: str, found: list[int]) -> None:
    assert list(ports(text)) == found


@given(st.binary() | st.binary().map(lambda data: b"GET /" + data + b" HTTP/1.1\r\n\r\n"))
def test_no_request_but_the_right_one_gets_a_file(request: bytes) -> None:
    assert response(request, {"/a/secret/x": b"data"}).startswith(b"HTTP/1.1 404 ")


def test_the_right_request_gets_the_file() -> None:
    for version in (b"1.0", b"1.1"):
        request = b"GET /a/secret/x HTTP/" + version + b"\r\nHost: me\r\n\r\n"
        head, _, body = response(request, {"/a/secret/x": b"data"}).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nContent-Length: 4\r\n" in head
        assert body == b"data"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> GridAuthority:
    problem = grid_pki.missing()
    if problem:
        skip_without("openssl", problem)
    return GridAuthority(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def proxy(authority: GridAuthority, monkeypatch: pytest.MonkeyPatch) -> Credential:
    monkeypatch.setenv("X509_CERT_DIR", str(authority.certificates))
    monkeypatch.delenv("GLOBUS_TCP_PORT_RANGE", raising=False)
    path = authority.proxy(authority.user("alice")).proxy
    return read_credential(Kind.PROXY, path.read_bytes(), str(path))


def fetched(url: str, shown: Path | None) -> bytes:
    """What a client gets; a handshake that failed is told with the first answer, or as a reset."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # OpenSSL takes no user for a server
    if shown is not None:
        context.load_cert_chain(shown)
    parts = urlsplit(url)
    assert parts.port
    with closing(socket.create_connection(("127.0.0.1", parts.port), 30)) as plain:
        try:
            with context.wrap_socket(plain) as wrapped:
                wrapped.sendall(f"GET {parts.path} HTTP/1.1\r\n\r\n".encode())
                found = b""
                while part := wrapped.recv(65536):
                    found += part
                return found
        except OSError:
            return b""


def test_a_file_goes_to_proxies_of_its_user_alone(
    authority: GridAuthority, proxy: Credential
) -> None:
    data = os.urandom(1 << 20)
    alice, bob = authority.user("alice"), authority.user("bob")
    other = authority.proxy(alice, "other").proxy
    expired = authority.proxy(alice, "expired", days=-1).proxy
    bobs = authority.proxy(bob, "bobs").proxy

    async def get(url: str, shown: Path | None) -> bytes:
        return await asyncio.to_thread(fetched, url, shown)

    async def test() -> None:
        async with served({"x": data}, "me.example.org", proxy) as urls:
            url = urls["x"]
            assert url.startswith("https://me.example.org:")
            assert (await get(url, other)).endswith(b"\r\n\r\n" + data)
            assert (await get(url + "y", other)).startswith(b"HTTP/1.1 404 ")
            assert (await get(url, bobs)).startswith(b"HTTP/1.1 404 ")
            assert await get(url, expired) == b""
            assert await get(url, None) == b""
        assert await get_refused(url)

    async def get_refused(url: str) -> bool:
        port = urlsplit(url).port
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    asyncio.run(test())


def test_where_no_port_is_free_that_is_told(
    proxy: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(port: int) -> None:
        monkeypatch.setenv("GLOBUS_TCP_PORT_RANGE", f"{port},{port}")
        with pytest.raises(DriverError, match="no port is free"):
            async with served({"x": b""}, "localhost", proxy):
                pass

    with socket.create_server(("", 0)) as taken:
        asyncio.run(test(taken.getsockname()[1]))
