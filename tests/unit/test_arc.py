"""What the ARC back end makes of a server that A-REX is not, or not yet, or not here."""

import argparse
import asyncio
import base64
import json
import logging
import ssl
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gridmad.errors import CredentialError, DriverError, TransientError, UsageError
from gridmad.execution import arc
from gridmad.execution.arc import Arc
from gridmad.execution.contact import new_tags
from gridmad.execution.description.model import JobDescription, StagedFile
from gridmad.execution.model import Submission
from gridmad.execution.resource import Task
from tests.proxies import write
from tests.services.pki import Authority

JOBS = {"abc": "5f0c3a91d2e80007"}


class Server:
    """Answers every request with `status`, `headers` and `content`; keeps what it was asked."""

    def __init__(self, authority: Authority) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.content = b""
        self.statuses: dict[str, int] = {}
        """Other statuses, by the ends of paths."""
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.seen.append((self.command, self.path, dict(self.headers.items())))
                told = [code for end, code in server.statuses.items() if self.path.endswith(end)]
                self.send_response(told[0] if told else server.status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(server.content)))
                self.end_headers()
                self.wfile.write(server.content)

            def log_message(self, *words: Any) -> None:
                pass

        host = authority.issue("localhost")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(host.certificate, host.key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"https://{{host}}:{self._server.server_port}/arex"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def server(authority: Authority) -> Iterator[Server]:
    made = Server(authority)
    yield made
    made.close()


def token(end: float) -> bytes:
    parts = [{"alg": "none"}, {"exp": end}]
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    return b".".join([*encoded, b"x"])


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    Arc.add_options(parser)
    parsed = parser.parse_args(words)
    parsed.timeout = 20.0
    return parsed


@asynccontextmanager
async def element(server: Server, authority: Authority, file: Path) -> AsyncIterator[Arc]:
    words = ["--url", server.url, "--ca", str(authority.ca)]
    made = Arc(options(*words, "--credential", "token", "--credential-file", str(file)))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return write(tmp_path / "token", token(time.time() + 1000))


def tasks() -> list[Task]:
    (tag,) = new_tags(1)
    return [Task(tag, Submission("1", "localhost", "", JobDescription("/bin/true")))]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def test_a_token_opens_the_door_and_is_renewed(
    server: Server, authority: Authority, token_file: Path
) -> None:
    async def test() -> None:
        async with element(server, authority, token_file) as resource:
            assert await resource.query("localhost", JOBS) == {}
            second = token(time.time() + 2000)
            write(token_file, second)
            assert await resource.find("localhost", ["x"]) == {}
            methods = [(method, path) for method, path, _ in server.seen]
            assert methods == [
                ("POST", "/arex/rest/1.0/jobs?action=status"),
                ("GET", "/arex/rest/1.0/jobs"),
                ("GET", "/arex/rest/1.0/jobs"),
            ]
            assert server.seen[1][2]["Authorization"] == f"Bearer {second.decode()}"
            assert server.seen[0][2]["Authorization"] != server.seen[1][2]["Authorization"]
            write(token_file, token(time.time() - 1))
            with pytest.raises(CredentialError, match="ended on"):
                await resource.query("localhost", JOBS)
            assert len(server.seen) == 3

    run(test())


def test_no_credential_follows_a_redirection(
    server: Server, authority: Authority, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Server(authority)
    # What the environment says of proxies is for other programs.
    monkeypatch.setenv("HTTPS_PROXY", other.url.replace("{host}", "localhost"))

    async def test() -> None:
        server.status = 307
        server.headers = {"Location": other.url.replace("{host}", "localhost")}
        async with element(server, authority, token_file) as resource:
            with pytest.raises(TransientError, match="307 Temporary Redirect: another URL"):
                await resource.query("localhost", JOBS)

    try:
        run(test())
    finally:
        other.close()
    assert len(server.seen) == 1
    assert other.seen == []


@pytest.mark.parametrize(
    ("status", "is_refused"),
    [(400, True), (401, True), (403, True), (404, True), (408, False), (429, False),
     (500, False), (503, False), (302, False)],
)  # fmt: skip
def test_what_a_status_means(
    server: Server, authority: Authority, token_file: Path, status: int, is_refused: bool
) -> None:
    async def test() -> None:
        server.status = status
        async with element(server, authority, token_file) as resource:
            with pytest.raises(DriverError, match=str(status)) as submitted:
                await resource.submit("localhost", tasks())
            assert isinstance(submitted.value, TransientError) is not is_refused
            # Whatever it is, a job keeps its last state.
            for ask in (resource.query, resource.cancel):
                with pytest.raises(TransientError, match=str(status)):
                    await ask("localhost", JOBS)
            if not is_refused:
                with pytest.raises(TransientError, match=str(status)):
                    await resource.commit("localhost", JOBS)
            else:
                await resource.commit("localhost", JOBS)

    run(test())


def test_an_answer_that_is_none_is_a_doubt(
    server: Server, authority: Authority, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arc, "MAX_ANSWER", 1000)

    async def test() -> None:
        async with element(server, authority, token_file) as resource:
            for content in (b"<html>", b"", b'{"job":[]}', b" " * 2000):
                server.content = content
                with pytest.raises(TransientError):
                    await resource.submit("localhost", tasks())
            with pytest.raises(TransientError, match="more than 1000 bytes"):
                await resource.query("localhost", JOBS)

    run(test())


def test_a_name_in_a_contact_is_no_path(
    server: Server, authority: Authority, token_file: Path
) -> None:
    async def test() -> None:
        async with element(server, authority, token_file) as resource:
            await resource.commit("localhost", {"../x?y#": JOBS["abc"]})
            (_, path, _) = server.seen[0]
            assert path == "/arex/rest/1.0/jobs/..%2Fx%3Fy%23/session/gridmad.commit"

    run(test())


def jobs_with_inputs(tmp_path: Path, count: int) -> list[Task]:
    (tmp_path / "input").write_bytes(b"x" * 100_000)
    files = [
        StagedFile("a", str(tmp_path / "input")),
        StagedFile("b", str(tmp_path / "none")),
        StagedFile("c", "https://elsewhere/c"),
        StagedFile("../d", str(tmp_path / "input")),
    ]
    job = JobDescription("/bin/true", inputs=files)  # fmt: skip
    return [Task(tag, Submission("1", "localhost", "", job)) for tag in new_tags(count)]


def created(*jobs: str) -> bytes:
    return json.dumps({"job": [{"status-code": "201", "id": job} for job in jobs]}).encode()


def puts(server: Server) -> list[str]:
    start = "/arex/rest/1.0/jobs/"
    return [path.removeprefix(start) for method, path, _ in server.seen if method == "PUT"]


def test_inputs_are_there_before_a_job_may_run(
    server: Server, authority: Authority, token_file: Path, tmp_path: Path
) -> None:
    async def test() -> None:
        async with element(server, authority, token_file) as resource:
            tasks = jobs_with_inputs(tmp_path, 2)
            server.content = created("one", "two")
            jobs = await resource.submit("localhost", tasks)
            assert jobs == ["one", "two"]
            tags = {"one": tasks[0].tag, "two": tasks[1].tag}
            server.content = b""
            await resource.commit("localhost", tags)
            assert sorted(puts(server)[:2]) == [
                "one/session/gridmad.input.0", "two/session/gridmad.input.0"
            ]  # fmt: skip
            assert sorted(puts(server)[2:]) == [
                "one/session/gridmad.commit", "two/session/gridmad.commit"
            ]  # fmt: skip
            # A second commit, when it is not known whether the first one came, brings nothing.
            await resource.commit("localhost", tags)
            assert len(puts(server)) == 6

    run(test())


@pytest.mark.parametrize("status", [404, 500])
def test_a_job_runs_without_inputs_that_are_not_taken(
    server: Server,
    authority: Authority,
    token_file: Path,
    tmp_path: Path,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        async with element(server, authority, token_file) as resource:
            tasks = jobs_with_inputs(tmp_path, 3)
            server.statuses = {"one/session/gridmad.input.0": status}
            for job, task in zip(("one", "two", "three"), tasks, strict=True):
                server.content = created(job)
                assert await resource.submit("localhost", [task]) == [job]
                server.content = b""
                await resource.commit("localhost", {job: task.tag})

    with caplog.at_level(logging.WARNING):
        run(test())
    commits = [path for path in puts(server) if path.endswith("gridmad.commit")]
    assert len(commits) == 3
    # What one job does not take says nothing of others; a server that fails is left alone.
    assert len(puts(server)) - len(commits) == (3 if status == 404 else 1)
    told = [line for line in caplog.messages if "take" in line]
    assert len(told) == 1
    assert str(status) in told[0]


@pytest.mark.parametrize(
    "url",
    ["http://{host}/arex", "https:///arex", "{host}", "https://me:secret@{host}/arex",
     "https://{host}/arex?x", "https://{host}:99999/arex", "https://{host}:x/"],
)  # fmt: skip
def test_a_url_that_may_see_no_credential(url: str) -> None:
    with pytest.raises(UsageError, match=r"https://\{host\}/arex"):
        Arc(options("--url", url))


@pytest.mark.parametrize("host", ["", "a/b", "a:1", "a b", "@a", ".a", "-a", "a#", "x" * 300])
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(DriverError, match="no name of a host"):
        Arc(options()).endpoint(Submission("1", host, "", JobDescription("/bin/true")))
