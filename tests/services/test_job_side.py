"""The whole job side, as a process, on real brokers; its counterpart is the reference client."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gridmad.peek.stream import new_stream
from tests.peek_reference import ReferenceClient
from tests.peek_watcher import Watcher
from tests.services.stomp_server import StompServer

RUN = """
import json, logging, sys
from pathlib import Path
from gridmad.peek.broker import Endpoint, Login
from gridmad.peek.job import JobOptions, run
from gridmad.peek.stream import Destinations
logging.basicConfig(stream=open(sys.argv[2], "a"), level=logging.INFO,
                    format="%(levelname)s %(message)s")
given = json.loads(sys.argv[1])
for name in ("follow_stdout", "follow_stderr", "stdout", "stderr", "spool_folder"):
    if name in given:
        given[name] = Path(given[name])
if "key" in given:
    given["key"] = given["key"].encode()
given["redact"] = [text.encode() for text in given.get("redact", [])]
stream, port = given.pop("stream"), given.pop("port")
user, password = given.pop("login")
sys.exit(run(JobOptions(
    stream=stream, epoch=given.pop("epoch", 7), endpoints=[Endpoint("127.0.0.1", port, False)],
    login=Login(user, password), destinations=Destinations(stream), **given)))
"""


class Job:
    """A job side that runs a command."""

    def __init__(
        self, server: StompServer, folder: Path, command: list[str], **options: Any
    ) -> None:
        self.stream = options.setdefault("stream", new_stream())
        options.setdefault("spool_folder", str(folder))
        options.setdefault("port", server.stomp_port)
        options["login"] = [server.login, server.password]
        options["command"] = command
        self.log = folder / "job.log"
        environment = {**os.environ, "PYTHONUNBUFFERED": ""}
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, json.dumps(options), str(self.log)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
            )

    def wait(self, timeout: float = 60.0) -> int:
        return self.process.wait(timeout)

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def job(server: StompServer, folder: Path, command: list[str], **options: Any) -> Iterator[Job]:
    running = Job(server, folder, command, **options)
    try:
        yield running
    finally:
        running.close()


@contextlib.contextmanager
def watcher(
    server: StompServer, stream: str, *, drains: bool = False, **options: Any
) -> Iterator[Watcher]:
    client = ReferenceClient(stream, time.monotonic(), **options)
    watching = Watcher(server, client, stream, drains=drains)
    try:
        yield watching
    finally:
        watching.close()


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_a_job_is_watched(broker: StompServer, tmp_path: Path) -> None:
    text = (
        "import sys, time\n"
        "for n in range(20000):\n"
        "    print('line', n)\n"
        "    n % 1000 or print('error', n, file=sys.stderr, flush=True)\n"
        "time.sleep(1); print('end'); sys.exit(3)"
    )
    with (
        job(broker, tmp_path, script(text), hold_for_client=True) as running,
        watcher(broker, running.stream) as watching,
    ):
        watching.run(lambda: watching.client.is_done)
        watching.run(lambda: running.has_ended)
        assert running.wait() == 3
        client = watching.client
        out, err = running.out.read_bytes(), running.err.read_bytes()
        assert out == b"".join(b"line %d\n" % n for n in range(20000)) + b"end\n"
        assert bytes(client.text[1]) == out
        assert bytes(client.text[2]) == err
        assert err.count(b"error") == 20
        assert client.is_whole(1)
        assert client.is_whole(2)
        assert client.eos is not None
        assert (client.eos.exit, client.eos.signal) == (3, None)
        assert not client.gaps
