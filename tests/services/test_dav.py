"""Files of WebDAV servers: https:// on real XRootD servers.

Where a server sends us elsewhere, that one is a small server of our own, which notes what it gets;
where it sends us to is real.
"""

import http.client
import http.server
import json
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.services.grid_pki import GridAuthority, Identity
from tests.services.transfers import Contract, content, run, transfers
from tests.services.xrootd import Door, XRootD
from tests.transfer_player import played

TOKEN = "a-token-that-is-for-one-host"


@pytest.fixture
def server(xrootd: XRootD, monkeypatch: pytest.MonkeyPatch) -> Door:
    for name in ("BEARER_TOKEN", "BEARER_TOKEN_FILE", "X509_USER_CERT", "X509_USER_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in xrootd.environment.items():
        monkeypatch.setenv(name, value)
    return Door(xrootd, xrootd.https, "--dav-home /data")


class TestDav(Contract):
    """The contract."""

    keeps_modes = False
    sees_links = False
    checksum = "adler32"


class Elsewhere:
    """A server that sends everybody to `to`, and notes what it was shown."""

    def __init__(self, xrootd: XRootD, to: str) -> None:
        self.seen: list[tuple[str, str, str | None, bool]] = []
        """Method, path, Authorization, and whether there was a certificate."""
        self.to = to
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                assert isinstance(self.connection, ssl.SSLSocket)
                has_certificate = bool(self.connection.getpeercert())
                authorization = self.headers.get("Authorization")
                outer.seen.append((self.command, self.path, authorization, has_certificate))
                self.rfile.read(int(self.headers.get("Content-Length", 0)) if not outer.to else 0)
                self.send_response(307 if outer.to else 404)
                if outer.to:
                    self.send_header("Location", outer.to + self.path)
                self.send_header("Content-Length", "0")
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True

            def handle_expect_100(self) -> bool:
                return True

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        for method in ("GET", "PUT", "HEAD", "PROPFIND", "DELETE", "MOVE", "MKCOL"):
            setattr(Handler, f"do_{method}", Handler.answer)
        host = xrootd.authority.host()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(host.certificate, host.key)
        context.load_verify_locations(xrootd.authority.ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"https://localhost:{self._server.server_address[1]}"

    def __enter__(self) -> "Elsewhere":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Let anybody in, who shows no certificate."""
    authorization = folder.parent / "authorization"
    before = authorization.read_text()
    authorization.write_text(f"{before}u * /data rl\n")
    yield
    authorization.write_text(before)


def test_no_credential_goes_where_a_server_sends_us(
    server: Door, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The one that we are sent to here is another one that notes what it gets."""

    async def main() -> None:
        monkeypatch.setenv("BEARER_TOKEN", TOKEN)
        with (
            Elsewhere(server.xrootd, "") as last,
            Elsewhere(server.xrootd, last.url) as first,
        ):
            (tmp_path / "file").write_bytes(b"x" * 100_000)
            async with transfers("--dav-token-for localhost --retries 0") as driver:
                assert "404" in await driver.copy(tmp_path / "file", f"{first.url}/a b")
                assert await driver.copy(f"{first.url}/file", tmp_path / "back") != ""
        assert {method for method, *_ in first.seen} >= {"PUT", "PROPFIND"}
        for _, path, authorization, has_certificate in first.seen:
            assert "%20" in path or path == "/file" or path.startswith("/.gridmad")
            assert authorization == f"Bearer {TOKEN}"
            assert has_certificate
        assert last.seen
        for _, _, authorization, has_certificate in last.seen:
            assert authorization is None
            assert not has_certificate

    run(main())


def test_a_token_goes_to_who_is_named_only(server: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setenv("BEARER_TOKEN", TOKEN)
        with Elsewhere(server.xrootd, "") as first:
            async with transfers("--dav-token-for other.example.org") as driver:
                assert "o such file" in await driver.exists(f"{first.url}/file")
        assert [seen[2] for seen in first.seen] == [None]

    run(main())


def bearer_token(server: XRootD, *activities: str) -> str:
    """A macaroon of the server's for a quarter of an hour, which does for a token."""
    environment = server.environment
    context = ssl.create_default_context(cafile=str(server.authority.ca))
    context.load_cert_chain(environment["X509_USER_PROXY"])
    connection = http.client.HTTPSConnection("localhost", server.http_port, context=context)
    caveats = [f"activity:{','.join(activities)}"]
    try:
        connection.request(
            "POST",
            "/data/",
            json.dumps({"caveats": caveats, "validity": "PT15M"}),
            {"Content-Type": "application/macaroon-request"},
        )
        token: str = json.loads(connection.getresponse().read())["macaroon"]
    finally:
        connection.close()
    return token


def test_a_bearer_token_opens_a_real_server(
    server: Door, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without any certificate, by the rights that the token gives and no others."""

    async def main() -> None:
        folder = f"{server.url}/.gw_tester_5"
        (tmp_path / "file").write_bytes(content(300_000))
        token = tmp_path / "token"
        token.touch(0o600)
        monkeypatch.setenv("BEARER_TOKEN_FILE", str(token))
        monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "none"))

        token.write_text(
            bearer_token(server.xrootd, "LIST", "UPLOAD", "DOWNLOAD", "MANAGE", "DELETE")
        )
        async with transfers("--retries 0") as driver:
            assert await driver.mkdir(folder) != "", "nobody is shown the token unasked"
        async with transfers("--retries 0 --dav-token-for localhost") as driver:
            assert await driver.mkdir(folder) == ""
            assert await driver.copy(tmp_path / "file", f"{folder}/file") == ""
            assert await driver.copy(f"{folder}/file", tmp_path / "back") == ""
        assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()

        token.write_text(bearer_token(server.xrootd, "LIST", "DOWNLOAD"))
        async with transfers("--retries 0 --dav-token-for localhost") as driver:
            assert await driver.copy(f"{folder}/file", tmp_path / "again") == ""
            assert "403" in await driver.copy(tmp_path / "file", f"{folder}/other")
        assert (server.folder / ".gw_tester_5/file").exists()

        token.write_text("A" * 40)
        async with transfers("--retries 0 --dav-token-for localhost") as driver:
            told = await driver.copy(f"{folder}/file", tmp_path / "never")
            assert "40" in told
            assert "AAAA" not in told
        assert not (tmp_path / "never").exists()

    run(main())


def test_being_sent_to_a_real_server_and_around(server: Door, tmp_path: Path) -> None:
    async def main() -> None:
        # "/data/.gw_tester_4/file" there is the same here: "to" is put before the path.
        folder = server.folder / ".gw_tester_4"
        folder.mkdir(exist_ok=True)
        (folder / "file").write_bytes(b"what everybody may read")
        server.own(folder)
        with Elsewhere(server.xrootd, server.url.removesuffix("/data")) as first:
            with readable(server.folder):
                server.kill()
                server.start()
                async with transfers("--retries 0") as driver:
                    url = f"{first.url}/data/.gw_tester_4/file"
                    assert await driver.copy(url, tmp_path / "back") == ""
                    # Nobody without a name may write.
                    assert await driver.copy(tmp_path / "back", f"{url}2") != ""
            server.kill()
            server.start()
        assert (tmp_path / "back").read_bytes() == b"what everybody may read"
        with Elsewhere(server.xrootd, "https://localhost:1/x?y=") as lost:
            async with transfers("--retries 0") as driver:
                assert await driver.exists(f"{lost.url}/file") != ""
        with Elsewhere(server.xrootd, "http://localhost:1") as clear:
            async with transfers("--retries 0") as driver:
                assert "out of TLS" in await driver.exists(f"{clear.url}/file")
        there, back = Elsewhere(server.xrootd, "x"), Elsewhere(server.xrootd, "x")
        there.to, back.to = back.url, there.url
        with there, back:
            async with transfers("--retries 0") as driver:
                assert "elsewhere more than" in await driver.exists(f"{there.url}/file")

    run(main())


def test_between_two_servers(server: Door, other_xrootd: XRootD) -> None:
    async def main() -> None:
        data = content(3_000_000)
        (server.folder / "source é").write_bytes(data)
        server.own(server.folder / "source é")
        async with transfers(f"{server.arguments} --checksum adler32") as driver:
            assert await driver.copy(f"{server.url}/source é", f"{other_xrootd.https}/copy") == ""
            assert "o such file" in await driver.copy(
                f"{server.url}/none", f"{other_xrootd.https}/none"
            )
        assert (other_xrootd.data / "copy").read_bytes() == data
        assert os.listdir(other_xrootd.data) == ["copy"]
        # The servers did it among themselves.
        assert (
            "TPC_PullRequest: event=TRANSFER_SUCCESS"
            in (other_xrootd.folder / "xrootd.out").read_text()
        )

    run(main())


def test_names_of_files_are_no_urls(server: Door, tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "file").write_bytes(b"x")
        async with transfers(server.arguments) as driver:
            url = server.url.replace("/data", "/~")
            assert await driver.copy(tmp_path / "file", f"{url}/a%2Fb c#d") == ""
            assert await driver.exists(f"{url.replace('https', 'davs')}/a%2Fb c#d") == ""
            assert "name before the host" in await driver.exists(
                server.url.replace("://", "://user:secret@")
            )
            assert "home" in await driver.exists(url.replace("/~", "/~other/x"))
            assert "'?'" in await driver.copy(tmp_path / "file", f"{url}/what?")
        async with transfers("") as driver:
            assert "--dav-home" in await driver.exists(f"{url}/x")
        assert (server.folder / "a%2Fb c#d").read_bytes() == b"x"

    run(main())


def test_no_permission(server: Door, tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "file").write_bytes(b"x")
        closed = server.folder / "closed"
        closed.mkdir(mode=0o755)
        async with transfers(server.arguments) as driver:
            problem = await driver.copy(tmp_path / "file", f"{server.url}/closed/file")
            assert "ermission denied" in problem
        assert os.listdir(closed) == []

    run(main())


def test_who_is_not_let_in(xrootd: XRootD, tmp_path: Path) -> None:
    """An expired proxy, none, and authorities that the server or we do not trust."""
    expired = xrootd.authority.proxy(xrootd.user, f"expired-{xrootd.http_port}", days=-1)
    stranger = GridAuthority(tmp_path / "other")
    alice = stranger.proxy(stranger.user("alice"))
    trusted = str(xrootd.authority.certificates)
    for name, environment, words in [
        ("expired", xrootd.authority.environment(expired), "ended on"),
        ("none", {"X509_CERT_DIR": trusted, "X509_USER_PROXY": str(tmp_path / "no")}, "403"),
        ("stranger", {**stranger.environment(alice), "X509_CERT_DIR": trusted}, ""),
        (
            "server",
            xrootd.authority.environment(Identity("", xrootd.proxy, xrootd.proxy))
            | {"X509_CERT_DIR": str(stranger.certificates)},
            "not trusted",
        ),
    ]:
        folder = tmp_path / name
        folder.mkdir()
        with played(folder, environment, "--retries 0") as driver:
            [answer] = driver.ask_and_wait(f"EXISTS 1 - - {xrootd.https} - ")
            assert " FAILURE " in answer, name
            assert words in answer, name
