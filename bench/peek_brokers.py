"""The brokers that the peek benches run through, and the log that goes through them.

    peek_brokers.py NAME FOLDER ADDRESS

As a program: serve until stdin ends; the line on stdout is the port, login, password and
process.  In this way a broker can run in a network of its own.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.log_lines import log_text
from bench.peek_players import Place, Text, listener
from tests.services import activemq, rabbitmq
from tests.services.activemq import ActiveMQ
from tests.services.rabbitmq import RabbitMQ
from tests.services.required import skip_without
from tests.services.stomp_server import StompServer

NAMES = ("rabbitmq", "activemq")
CYCLE = 19_999_999
"""Bytes after which the log repeats: no multiple of a chunk."""


class FittingActiveMQ(ActiveMQ):
    """One whose defaults do not decide the contest, to the harm of plain stomp.py above all.

    It keeps a queue in memory, and makes a sender wait when its 256 MiB are full: by default
    it writes them to its disk, which has the baseline at half its speed or less.  And it
    leaves TCP's buffers to the kernel: its own 64 KiB allow 6 MB/s through a link of 5 ms.
    """

    def _configure(self) -> None:
        super()._configure()
        file = self.folder / "activemq.xml"
        configuration = file.read_text()
        policy = 'timeBeforeDispatchStarts="0"'
        for before, after in (
            (
                f"{policy}/>",
                f"{policy}><pendingQueuePolicy><vmQueueCursor/></pendingQueuePolicy></policyEntry>",
            ),
            (
                "?transport.hbGracePeriodMultiplier",
                "?transport.socketBufferSize=0&amp;transport.hbGracePeriodMultiplier",
            ),
        ):
            assert before in configuration
            configuration = configuration.replace(before, after)
        file.write_text(configuration)


def require(name: str) -> None:
    """Skip the bench where the broker is not installed."""
    problem = {"rabbitmq": rabbitmq, "activemq": activemq}[name].missing()
    if problem:
        skip_without(name, problem)


@contextlib.contextmanager
def serve(name: str, folder: Path, address: str = "127.0.0.1") -> Iterator[Place]:
    """A broker that is to be measured."""
    server: StompServer = (
        RabbitMQ(folder, address=address)
        if name == "rabbitmq"
        else FittingActiveMQ(folder, address=address, is_warm=True)
    )
    with server:
        process = listener(server.stomp_port)
        yield Place(name, address, server.stomp_port, server.login, server.password, process)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    """What the jobs print."""
    file = tmp_path_factory.mktemp("log") / "text"
    file.write_bytes(log_text(CYCLE))
    return Text(file)


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what clients write: in memory where there is room, since no disk is meant."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 4 << 30:
        yield tmp_path_factory.mktemp("room")
        return
    with tempfile.TemporaryDirectory(prefix="bench-", dir=memory) as folder:
        yield Path(folder)


def main(name: str, folder: str, address: str) -> None:
    with serve(name, Path(folder), address) as place:
        print(place.port, place.login, place.password, place.process, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
