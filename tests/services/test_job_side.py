"""The whole job side, as a process, on real brokers; its counterpart is the reference client."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gridmad.peek.stream import new_stream
from tests.peek_reference import ReferenceClient
from tests.peek_user import peak
from tests.peek_watcher import Watcher
from tests.services.proxy import Proxy
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
        passes = options.pop("passes", [])
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
                pass_fds=passes,
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


FLOOD = (
    "import os, random\n"
    "random.seed(1)\n"
    "words = [b'%d' % random.randrange(10**9) for _ in range(3000)]\n"
    "for n in range({count}):\n"
    "    text = b' '.join(random.choices(words, k=1000)) + b'\\n'\n"
    "    done = 0\n"
    "    while done < len(text): done += os.write(1, text[done:])\n"
)


def test_what_nobody_watched_is_parked(broker: StompServer, tmp_path: Path) -> None:
    text = FLOOD.format(count=300) + "os.write(2, b'error\\n'); os._exit(4)"
    with job(broker, tmp_path, script(text)) as running:
        assert running.wait() == 4
        out = running.out.read_bytes()
    assert len(out) > 2_000_000
    with watcher(broker, running.stream, drains=True) as watching:
        client = watching.client
        watching.run(lambda: client.is_done)
        assert watching.token is not None
        assert bytes(client.text[1]) == out
        assert bytes(client.text[2]) == b"error\n"
        assert client.is_whole(1)
        assert client.eos is not None
        assert client.eos.exit == 4
        assert not client.gaps


def test_who_comes_while_all_is_parked_is_answered(broker: StompServer, tmp_path: Path) -> None:
    """Else he would hear nothing for so long that he takes the job for unknown."""
    text = "import os\nfor n in range(100): os.write(1, os.urandom(65536))"
    with Proxy(broker.stomp_port) as proxy:
        proxy.delay(0.7)
        with job(broker, tmp_path, script(text), quiet=True, port=proxy.port) as running:
            end = time.monotonic() + 30
            while proxy.carried < 1_000_000:
                assert time.monotonic() < end, "nothing is parked"
                time.sleep(0.01)
            with watcher(broker, running.stream) as watching:
                watching.run(lambda: watching.client.hello is not None)
                assert not running.has_ended
            assert running.wait() == 0


def test_the_newest_part_is_parked(broker: StompServer, tmp_path: Path) -> None:
    with job(broker, tmp_path, script(FLOOD.format(count=300)), park_size=500_000) as running:
        assert running.wait() == 0
        out = running.out.read_bytes()
    with watcher(broker, running.stream, drains=True) as watching:
        client = watching.client
        watching.run(lambda: client.is_done)
        ((source, offset, length, reason),) = client.gaps
        assert (source, offset, reason) == (1, 0, "park")
        assert bytes(client.text[1]) == out[length:]
        assert len(out) - length > 500_000, "half a megabyte of what is compressed"


def test_a_client_takes_over_and_gets_the_rest(broker: StompServer, tmp_path: Path) -> None:
    text = FLOOD.format(count=500) + "import sys; sys.stdin.read()"
    with (
        job(broker, tmp_path, script(text), hold_for_client=True) as running,
        watcher(broker, running.stream) as first,
        watcher(broker, running.stream, mode="takeover") as second,
        watcher(broker, running.stream) as third,
    ):
        first.run(lambda: first.client.next.get(1, 0) > 1 << 20)
        third.run(lambda: third.client.denied is not None)
        assert third.client.denied is not None
        assert third.client.denied.holder == "reference"
        second.run(lambda: second.client.is_done)
        first.run(lambda: first.client.revoked is not None)
        out = running.out.read_bytes()
        offset = len(out) - len(second.client.text[1])
        assert 0 < offset <= first.client.next[1]
        assert bytes(second.client.text[1]) == out[offset:]
        assert bytes(first.client.text[1]) == out[: first.client.next[1]]
        second.run(lambda: running.has_ended)


def test_a_client_dies_and_another_goes_on(broker: StompServer, tmp_path: Path) -> None:
    text = FLOOD.format(count=400) + "import time; time.sleep(3)"
    with job(broker, tmp_path, script(text), hold_for_client=True, lease=1.5) as running:
        with watcher(broker, running.stream, lease=1.5) as first:
            first.run(lambda: first.client.next.get(1, 0) > 1 << 20)
        with watcher(broker, running.stream, lease=1.5) as second:
            client = second.client

            def is_done() -> bool:
                if client.denied is not None:  # the lease is not over
                    client.denied = None
                    time.sleep(0.1)
                return client.is_done

            second.run(is_done)
            out = running.out.read_bytes()
            offset = len(out) - len(client.text[1])
            assert 0 < offset <= first.client.next[1]
            assert bytes(client.text[1]) == out[offset:]
            second.run(lambda: running.has_ended)


def test_the_broker_is_killed_in_mid_stream(broker: StompServer, tmp_path: Path) -> None:
    text = FLOOD.format(count=200).replace(
        "    done = 0", "    import time; time.sleep(0.02); done = 0"
    )
    with (
        job(broker, tmp_path, script(text), hold_for_client=True, key="k" * 16) as running,
        watcher(broker, running.stream, key=b"k" * 16) as watching,
    ):
        client = watching.client
        watching.run(lambda: client.next.get(1, 0) > 100_000)
        broker.restart()
        watching.run(lambda: client.is_done)
        watching.run(lambda: running.has_ended)
        assert running.wait() == 0
        assert bytes(client.text[1]) == running.out.read_bytes()
        assert client.is_whole(1)
        assert not client.gaps


def test_files_are_followed(broker: StompServer, tmp_path: Path) -> None:
    place = tmp_path / "followed"
    text = (
        "import os, time\n"
        f"place = {str(place)!r}\n"
        "time.sleep(0.3)\n"
        "for part in range(3):\n"
        "    with open(place, 'wb', buffering=0) as file:\n"
        "        for n in range(200):\n"
        "            file.write(b'part %d line %d\\n' % (part, n) * 200)\n"
        "    while not os.path.exists(f'{place}.seen{part}'): time.sleep(0.01)\n"
        "    os.rename(place, place + str(part))\n"
    )
    with (
        job(
            broker, tmp_path, script(text), hold_for_client=True, follow_stdout=str(place)
        ) as running,
        watcher(broker, running.stream) as watching,
    ):
        client = watching.client
        for part in range(3):
            last = b"part %d line 199\n" % part * 200
            watching.run(lambda last=last: client.text.get(1, b"").endswith(last))  # type: ignore[misc]
            place.with_name(f"followed.seen{part}").touch()
        watching.run(lambda: client.is_done)
        watching.run(lambda: running.has_ended)
        parts = [(tmp_path / f"followed{part}").read_bytes() for part in range(3)]
        assert bytes(client.text[1]) == b"".join(parts)
        assert client.is_whole(1)
        assert running.out.read_bytes() == b""


def test_a_followed_file_waits_for_room(broker: StompServer, tmp_path: Path) -> None:
    """What is in a file needs no spool: nothing is lost although both are much smaller."""
    place, errors = tmp_path / "followed", tmp_path / "errors"
    place.write_bytes(os.urandom(40 << 20))
    errors.touch()
    options = {"follow_stdout": str(place), "follow_stderr": str(errors), "spool_size": 0}
    with (
        job(broker, tmp_path, ["sleep", "2"], **options) as running,
        watcher(broker, running.stream, window=16 << 20) as watching,
    ):
        time.sleep(1)
        watching.run(lambda: watching.client.is_done)
        watching.run(lambda: running.has_ended)
        assert bytes(watching.client.text[1]) == place.read_bytes()
        assert not watching.client.gaps


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (["no-such-command"], 127, "command not found"),
        (["/etc/passwd"], 126, "Permission denied"),
    ],
)
def test_a_command_that_cannot_be_started(
    rabbitmq: StompServer, tmp_path: Path, command: list[str], status: int, words: str
) -> None:
    with job(rabbitmq, tmp_path, command) as running:
        assert running.wait() == status
        assert words in running.log.read_text()
    with watcher(rabbitmq, running.stream, drains=True) as watching:
        watching.run(lambda: watching.client.is_done)
        assert watching.client.eos is not None
        assert watching.client.eos.exit == status
        assert words in str(watching.client.eos.reason)


def test_a_signal_ends_the_command(activemq: StompServer, tmp_path: Path) -> None:
    command = ["sh", "-c", "echo begun; exec sleep 60"]
    with (
        job(activemq, tmp_path, command) as running,
        watcher(activemq, running.stream) as watching,
    ):
        watching.run(lambda: bytes(watching.client.text.get(1, b"")) == b"begun\n")
        running.process.terminate()
        watching.run(lambda: watching.client.is_done)
        watching.run(lambda: running.has_ended)
        assert running.wait() == 143
        assert watching.client.eos is not None
        assert (watching.client.eos.exit, watching.client.eos.signal) == (None, 15)


def test_it_can_be_ended_before_a_client_came(activemq: StompServer, tmp_path: Path) -> None:
    with job(activemq, tmp_path, ["touch", str(tmp_path / "x")], hold_for_client=True) as running:
        end = time.monotonic() + 30
        while "connected" not in (running.log.read_text() if running.log.exists() else ""):
            assert time.monotonic() < end
            time.sleep(0.05)
        running.process.terminate()
        assert running.wait() == 143
        assert not (tmp_path / "x").exists()


def test_without_a_broker_the_job_runs_all_the_same(activemq: StompServer, tmp_path: Path) -> None:
    with job(activemq, tmp_path, script("print('text'); exit(9)"), port=1, linger=1) as running:
        began = time.monotonic()
        assert running.wait() == 9
        assert time.monotonic() - began < 10, "not much longer than it lingers"
        assert running.out.read_bytes() == b"text\n"
        assert "5 bytes" in running.log.read_text()


def test_a_process_that_is_left_behind_holds_up_nothing(
    activemq: StompServer, tmp_path: Path
) -> None:
    with job(activemq, tmp_path, ["sh", "-c", "sleep 50 & echo done"]) as running:
        assert running.wait(30) == 0
        assert running.out.read_bytes() == b"done\n"
        assert "process behind" in running.log.read_text()


def test_a_stalled_client_costs_little_memory(activemq: StompServer, tmp_path: Path) -> None:
    """Output that does not shrink, as fast as it comes, into a spool that overflows."""
    text = (
        "import os\n"
        "block = os.urandom(1 << 20)\n"
        "for n in range(500):\n"
        "    view = memoryview(block)\n"
        "    while view: view = view[os.write(1, view):]\n"
        "import time; time.sleep(1)\n"
    )
    with (
        job(activemq, tmp_path, script(text), quiet=True, hold_for_client=True,
            spool_size=200 << 20) as running,
        watcher(activemq, running.stream, window=16 << 20) as watching,
    ):  # fmt: skip
        client = watching.client
        watching.run(lambda: client.next.get(1, 0) > 1 << 20)
        client.is_paused = True
        watching.run(lambda: client.alive is not None and client.alive.end[1] == 500 << 20, 100)
        assert 0 < peak(running.process.pid) < 64 << 20
        client.resume_credit(time.monotonic())
        # It may end as soon as the client is done.
        most = 0

        def is_done() -> bool:
            nonlocal most
            most = max(most, peak(running.process.pid))
            return client.is_done

        watching.run(is_done, 100)
        assert most < 64 << 20
        assert client.gaps
        assert {reason for _, _, _, reason in client.gaps} == {"spool"}
        missing = sum(length for _, _, length, _ in client.gaps)
        assert client.received + missing >= 500 << 20
        assert 100 << 20 < len(client.text[1]) == (500 << 20) - missing
        watching.run(lambda: running.has_ended)


def test_a_full_spool_can_make_the_job_wait(activemq: StompServer, tmp_path: Path) -> None:
    with (
        job(activemq, tmp_path, script(FLOOD.format(count=8000)), quiet=True, spool_size=1 << 20,
            when_full="block", hold_for_client=True) as running,
        watcher(activemq, running.stream, window=4 << 20) as watching,
    ):  # fmt: skip
        client = watching.client
        watching.run(lambda: client.next.get(1, 0) > 1 << 20)
        client.is_paused = True
        seen = -1
        looked = time.monotonic()

        def stands_still() -> bool:
            nonlocal seen, looked
            if time.monotonic() - looked < 2.5:
                return False
            looked = time.monotonic()
            before, seen = seen, client.alive.end[1] if client.alive else -1
            return seen == before

        watching.run(stands_still)
        assert seen < 60 << 20
        client.resume_credit(time.monotonic())
        watching.run(lambda: client.is_done)
        assert client.is_whole(1)
        assert not client.gaps
        watching.run(lambda: running.has_ended)


def test_the_rate_to_the_broker_can_be_limited(activemq: StompServer, tmp_path: Path) -> None:
    text = "import os; os.write(1, os.urandom(1 << 16)); os.write(1, os.urandom(1 << 16))\n" * 8
    with (
        job(activemq, tmp_path, script(text), hold_for_client=True, rate=400_000) as running,
        watcher(activemq, running.stream) as watching,
    ):
        watching.run(lambda: watching.client.next.get(1, 0) > 0)
        began, before = time.monotonic(), watching.client.next[1]
        watching.run(lambda: watching.client.is_done)
        rate = (watching.client.next[1] - before) / (time.monotonic() - began)
        assert rate < 600_000
        watching.run(lambda: running.has_ended)


def test_it_can_be_ended_when_nobody_takes_its_output(
    activemq: StompServer, tmp_path: Path
) -> None:
    """Neither the reader of its own output, nor a client."""
    near, far = os.pipe()
    command = ["head", "-c", "1000000", "/dev/zero"]
    place = f"/proc/self/fd/{far}"
    with job(activemq, tmp_path, command, stdout=place, passes=[far]) as running:
        os.close(far)
        end = time.monotonic() + 30
        while not select.select([near], [], [], 0.1)[0]:
            assert time.monotonic() < end
        time.sleep(1)
        assert not running.has_ended
        running.process.terminate()
        assert running.wait(30) == 0, "the command had ended by itself"
    os.close(near)
