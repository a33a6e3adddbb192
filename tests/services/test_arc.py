"""gw_em_mad_arc on a real A-REX."""

import argparse
import asyncio
import base64
import json
import os
import ssl
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from gridmad.errors import DriverError, NotSubmittedError, TransientError
from gridmad.execution.arc import Arc
from gridmad.execution.contact import new_tags
from gridmad.execution.description.model import JobDescription
from gridmad.execution.model import JobState, Submission
from gridmad.execution.resource import Task
from tests.conformance.drivers import Site, Subject, compute_element
from tests.conformance.gwd import Player
from tests.services import arc
from tests.services.grid_pki import replace

pytestmark = pytest.mark.grid

PATIENCE = 60.0
"""Seconds for a job, on a busy machine."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Subject("gw_em_mad_arc", compute_element).site(tmp_path) as site:
        yield site


def submit(gwd: Player, *descriptions: Path) -> list[str]:
    """Submit jobs, numbered from 1; the answers in their order."""
    lines = [f"SUBMIT {job} localhost {path}" for job, path in enumerate(descriptions, 1)]
    answers = gwd.ask_and_wait(*lines, seconds=PATIENCE)
    return sorted(answers, key=lambda line: int(line.split()[1]))


def end_of(gwd: Player, job: int) -> str:
    gwd.wait(lambda: gwd.has_ended(job), f"the end of job {job} is not told", PATIENCE)
    return gwd.last_state(job)


def waiting_job(site: Site, name: str = "1", code: int = 5) -> tuple[Path, Path]:
    """A job that runs until something is written into the second path."""
    gate = site.folder / f"gate{name}"
    os.mkfifo(gate)
    return site.script(name, f"read line < {gate}; exit {code}"), gate


def test_states_and_exit_codes(site: Site) -> None:
    waiting, gate = waiting_job(site, "5")
    with site.play() as gwd:
        gwd.initialise()
        answers = submit(
            gwd,
            site.script("1", "exit 0"),
            site.script("2", "exit 3"),
            site.script("3", "kill -9 $$"),
            site.description("4", "/no/such/program"),
            waiting,
            site.script("6", "sleep 300"),
        )
        assert all(" SUCCESS arc://localhost/" in line for line in answers)
        gwd.ask("CANCEL 6 - -")
        gwd.wait(lambda: gwd.last_state(5) == "ACTIVE", "it is not seen to run", PATIENCE)
        gate.write_text("go\n")
        ends = [end_of(gwd, job) for job in range(1, 7)]
    assert ends == ["DONE:0", "DONE:3", "DONE:137", "DONE:127", "DONE:5", "DONE:143"]
    for states in gwd.told.values():
        assert set(states[:-1]) <= {"PENDING", "ACTIVE"}


def test_what_arc_has_not_is_refused_and_the_others_run(site: Site) -> None:
    with site.play() as gwd:
        gwd.initialise()
        unknown, project, good = submit(
            gwd,
            site.write("queue", '&(executable="/bin/true")(queue="nosuch")'),
            site.write("project", '&(executable="/bin/true")(project="p")'),
            site.write("good", '&(executable="/bin/sh")(arguments="-c" "exit $CODE")'
                       '(environment=(CODE 4))(queue="fork")(maxWallTime=5)(maxMemory=100)'),
        )  # fmt: skip
        assert unknown.startswith("SUBMIT 1 FAILURE Requested queue nosuch is not allowed")
        assert project == "SUBMIT 2 FAILURE ARC has no projects"
        assert good.startswith("SUBMIT 3 SUCCESS ")
        assert end_of(gwd, 3) == "DONE:4"


def test_a_server_that_is_down_for_a_while_loses_no_job(site: Site) -> None:
    first, gate = waiting_job(site)
    with site.play() as gwd:
        gwd.initialise()
        submit(gwd, first)
        gwd.wait(lambda: gwd.last_state(1) == "ACTIVE", "it is not seen to run", PATIENCE)
        with arc.shared().rest_stopped():
            gwd.ask(f"SUBMIT 2 localhost {site.script('2', 'exit 6')}")
            gate.write_text("go\n")
            time.sleep(1.5)
            gwd.ask("POLL 1 - -")
            gwd.wait(lambda: gwd.answers[-1] == "POLL 1 SUCCESS ACTIVE", "POLL is not answered")
        assert end_of(gwd, 1) == "DONE:5"
        gwd.settle(PATIENCE)
        assert end_of(gwd, 2) == "DONE:6"


def timers(gwd: Player) -> int:
    return sum(line.startswith("TIMER - SUCCESS Credential is valid") for line in gwd.answers)


def test_with_an_expired_proxy_jobs_keep_their_states_until_it_is_renewed(site: Site) -> None:
    server = arc.shared()
    proxy = site.folder / "proxy"
    expired = server.authority.proxy(server.alice, "expired", days=-1).proxy.read_bytes()
    replace(proxy, server.proxy.read_bytes())
    site.arguments = site.arguments.replace(str(server.proxy), str(proxy))
    job, gate = waiting_job(site)
    with site.play() as gwd:
        gwd.initialise()
        submit(gwd, job)
        gwd.wait(lambda: gwd.last_state(1) == "ACTIVE", "it is not seen to run", PATIENCE)
        assert timers(gwd) == 1
        replace(proxy, expired)
        gate.write_text("go\n")
        gwd.ask(f"SUBMIT 2 localhost {site.script('2', 'exit 6')}", "POLL 1 - -")
        time.sleep(3)
        assert list(gwd.open) == [("SUBMIT", 2, -1)]
        assert gwd.answers[-1] == "POLL 1 SUCCESS ACTIVE"
        replace(proxy, server.authority.proxy(server.alice, "renewed").proxy.read_bytes())
        assert end_of(gwd, 1) == "DONE:5"
        gwd.settle(PATIENCE)
        assert end_of(gwd, 2) == "DONE:6"
        assert timers(gwd) == 2


def test_a_stranger_is_refused_in_one_line(site: Site) -> None:
    server = arc.shared()
    mallory = server.authority.proxy(server.authority.user("mallory"), "mallory-proxy").proxy
    site.arguments = site.arguments.replace(str(server.proxy), str(mallory))
    with site.play() as gwd:
        gwd.initialise()
        (line,) = submit(gwd, site.script("1", "exit 0"))
        assert line.startswith("SUBMIT 1 FAILURE ")
        assert "queue" in line, "it is the queue that knows who may use it"


class HttpsServer(ThreadingHTTPServer):
    """A server of the grid, on a free port."""

    daemon_threads = True

    def __init__(
        self, handler: type[BaseHTTPRequestHandler], *, wants_certificate: bool = False
    ) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        authority = arc.shared().authority
        host = authority.host()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca)
        if wants_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
        context.load_cert_chain(host.certificate, host.key)
        # The handshake is the handler's: it must not hold up the next client.
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://localhost:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class Storage:
    """A store of files that lets in who has a certificate of the grid."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.subjects: set[tuple[str, ...]] = set()
        """The common names of those who came."""
        storage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                assert isinstance(self.connection, ssl.SSLSocket)
                certificate: Any = self.connection.getpeercert()
                names = [pair for (pair,) in certificate["subject"]]
                storage.subjects.add(tuple(value for key, value in names if key == "commonName"))
                path = urlsplit(self.path).path
                sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                content: bytes | None = b""
                if self.command == "PUT":
                    storage.files[path] = sent
                elif self.command in ("GET", "HEAD"):
                    content = storage.files.get(path)
                else:
                    self.send_error(501)
                    return
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content or b"")

            def log_message(self, *words: Any) -> None:
                pass

        self._server = HttpsServer(Handler, wants_certificate=True)
        self.url = self._server.url

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._server.stop()


def test_streams_that_are_urls_are_staged_in_the_users_name(site: Site) -> None:
    with Storage({"/in": b"given\n"}) as storage, site.play() as gwd:
        gwd.initialise()
        first, second = (
            site.write(
                name,
                '&(executable="/bin/sh")(arguments="-c" "cat; echo error >&2; exit 3")'
                f'(stdin="{storage.url}/in")(stdout="{storage.url}/{name}")'
                f'(stderr="{storage.url}/{name}.errors")',
            )
            for name in ("a", "b")
        )
        assert all(" SUCCESS " in line for line in submit(gwd, first, second))
        assert [end_of(gwd, job) for job in (1, 2)] == ["DONE:3", "DONE:3"]
    assert storage.files["/a"] == storage.files["/b"] == b"given\n"
    assert storage.files["/a.errors"] == b"error\n"
    ((user, _proxy, _delegated),) = storage.subjects
    assert user == "alice"


class Issuer:
    """Makes tokens, and tells A-REX by which key they are signed."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = json.dumps(issuer.document(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *words: Any) -> None:
                pass

        self._server = HttpsServer(Handler)

    def document(self, path: str) -> dict[str, Any]:
        url = self._server.url
        if path.endswith("/.well-known/openid-configuration"):
            return {"issuer": url, "jwks_uri": f"{url}/keys"}
        numbers = self._key.public_key().public_numbers()
        n, e = (
            encoded(number.to_bytes(256, "big").lstrip(b"\0")) for number in (numbers.n, numbers.e)
        )
        key = {"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256"}
        return {"keys": [{**key, "n": n.decode(), "e": e.decode()}]}

    def token(self, subject: str) -> bytes:
        now = int(time.time())
        claims = {"iss": self._server.url, "sub": subject, "exp": now + 600, "nbf": now - 60}
        header = {"alg": "RS256", "kid": "1", "typ": "JWT"}
        text = b".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
        signature = self._key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        return b".".join((text, encoded(signature)))

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._server.stop()


def encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def test_a_token_lets_the_driver_in(site: Site) -> None:
    path = site.folder / "token"
    words = site.arguments.replace(str(arc.shared().proxy), str(path)) + " --credential token"
    with Issuer() as issuer:
        site.arguments = words
        replace(path, issuer.token("alice"))
        with site.play() as gwd:
            gwd.initialise()
            staged = site.write("2", '&(executable="/bin/true")(stdout="https://localhost/out")')
            first, second = submit(gwd, site.script("1", "exit 3"), staged)
            assert first.startswith("SUBMIT 1 SUCCESS ")
            assert second.startswith("SUBMIT 2 FAILURE to stage its files a job needs a proxy")
            assert end_of(gwd, 1) == "DONE:3"
            assert timers(gwd) == 1
        replace(path, issuer.token("mallory"))
        with site.play() as gwd:
            gwd.initialise()
            (line,) = submit(gwd, site.script("1", "exit 0"))
            assert line.startswith("SUBMIT 1 FAILURE ")


# ---------------------------------------------------------------- the resource by itself


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 2 * PATIENCE))


@asynccontextmanager
async def resource(home: Path, *words: str) -> AsyncIterator[Arc]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--interval")
    Arc.add_options(parser)
    options = parser.parse_args([*arc.shared().arguments.split(), "--home", str(home), *words])
    options.timeout = PATIENCE
    made = Arc(options)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def tasks(*jobs: JobDescription) -> list[Task]:
    tags = new_tags(len(jobs))
    return [
        Task(tag, Submission("1", "localhost", "", job))
        for tag, job in zip(tags, jobs, strict=True)
    ]


def shell(text: str) -> JobDescription:
    return JobDescription("/bin/sh", ("-c", text))


async def ends(element: Arc, jobs: Mapping[str, str]) -> Mapping[str, JobState]:
    """The final states of those jobs that it knows."""
    while True:
        states = await element.query("localhost", jobs)
        if all(state.is_final for state in states.values()):
            return states
        await asyncio.sleep(0.2)


def test_a_job_that_nobody_committed_does_not_run(tmp_path: Path) -> None:
    async def test() -> None:
        made = tasks(*(shell(f"touch {tmp_path}/ran{i}; exit {i}") for i in range(3)))
        tags = [task.tag for task in made]
        async with resource(tmp_path) as element:
            ids = [str(job) for job in await element.submit("localhost", made)]
            wanted = dict(zip(tags, ids, strict=True))
            while await element.find("localhost", {*tags, "0" * 16}) != wanted:
                await asyncio.sleep(0.2)
            first, second, third = ids
            await element.commit("localhost", {first: tags[0]})
            assert await ends(element, {first: tags[0]}) == {first: JobState.done(0)}
            assert [path.name for path in tmp_path.iterdir()] == ["ran0"]
            assert await element.cancel("localhost", {third: tags[2], "none": "0" * 16}) == {
                third: None,
                "none": None,
            }
        # A driver that died before it committed: the one that follows the job does.
        async with resource(tmp_path) as element:
            assert await ends(element, {second: tags[1], third: tags[2], "none": "0" * 16}) == {
                second: JobState.done(1),
                third: JobState.done(143),
            }
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ran0", "ran1"]

    run(test())


def test_faults_of_the_way_to_it_are_told_apart(tmp_path: Path) -> None:
    made = tasks(shell("true"))

    async def test() -> None:
        async with resource(tmp_path, "--url", "https://{host}:1/arex") as element:
            with pytest.raises(NotSubmittedError, match="out of reach"):
                await element.submit("localhost", made)
        async with resource(tmp_path, "--ca", str(tmp_path)) as element:
            with pytest.raises(NotSubmittedError, match="certificate verify failed"):
                await element.submit("localhost", made)
        async with resource(tmp_path, "--url", arc.shared().url + "/rest") as element:
            with pytest.raises(DriverError, match="404 Version Not Supported") as refused:
                await element.submit("localhost", made)
            assert not isinstance(refused.value, TransientError)
            with pytest.raises(TransientError, match="404"):
                await element.query("localhost", {"x": made[0].tag})

    run(test())
