"""A broker that is none, or means ill: bounded memory, a clear last line, no harm to the job."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path

import pytest

from tests.faults.scene import MEMORY, Scene
from tests.peek_user import peak
from tests.services.activemq import ActiveMQ

ENOUGH = 200 << 20
"""Bytes that it sends, if they are taken."""

CONNECTED = b"CONNECTED\nversion:1.2\n"
MESSAGE = CONNECTED + b"\n\0MESSAGE\nsubscription:data\nmessage-id:1\nack:1\ndestination:/queue/x\n"
FRAMES = {
    "header": CONNECTED + b"bomb:",
    "headers": CONNECTED,
    "message header": MESSAGE + b"bomb:",
    "body": MESSAGE + b"content-length:1000000000000\n\n",
    "body without length": MESSAGE + b"\n",
    "nothing": b"",
}
FILLING = {"headers": b"".join(b"header-%d:x\n" % number for number in range(10_000))}


class FakeBroker:
    """Answers whatever it is told with the beginning of a frame that never ends."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                end, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(end,), daemon=True).start()

    def _answer(self, end: socket.socket) -> None:
        filling = FILLING.get(self._name, b"x" * 100_000)
        with end, suppress(OSError):
            end.recv(4096)
            for piece in chain([FRAMES[self._name]], repeat(filling, ENOUGH // len(filling))):
                end.sendall(piece)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def scene(activemq: ActiveMQ, tmp_path: Path) -> Iterator[Scene]:
    """With a real broker that is left in peace."""
    one = Scene(activemq, tmp_path)
    yield one
    one.close()


@pytest.fixture(params=FRAMES)
def fake(request: pytest.FixtureRequest) -> Iterator[FakeBroker]:
    one = FakeBroker(request.param)
    yield one
    one.close()


def test_a_broker_that_floods_costs_no_memory(scene: Scene, fake: FakeBroker) -> None:
    job = scene.job("--linger", "0", via=fake.url, size=1000, until=str(scene.folder / "u"), code=7)
    client = scene.run_side(["-F", "out"], via=fake.url)
    most = 0

    def has_ended() -> bool:
        nonlocal most
        if client.poll() is None:
            most = max(most, peak(client.pid))
        return client.poll() is not None

    scene.wait_for(has_ended)
    assert scene.finish(client) == 125
    assert fake.url in scene.log(client).splitlines()[-1]
    assert 0 < most < MEMORY
    assert peak(job.pid) < MEMORY
    (scene.folder / "u").touch()
    assert scene.finish(job) == 7
