"""A job and its clients, whole programs around a real broker, and a network that can fail.

The oracle is the copy that the job's command keeps of what it wrote (payload.py).
"""

import hashlib
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gridmad.peek.stream import new_stream
from tests.peek_user import MAIN, PATIENCE, Process, User
from tests.services.proxy import Proxy
from tests.services.stomp_server import StompServer

PAYLOAD = Path(__file__).with_name("payload.py")
MEMORY = 64 << 20
"""Bytes that each side may have resident."""

QUICK = [
    sys.executable,
    "-c",
    """
from gridmad.cli.msgpeek import main
from gridmad.peek import client, job

class Connection(job.Connection):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **{**options, "heartbeat": 1.0})

client.Connection = job.Connection = Connection
main()
""",
]
"""msgpeek with heart-beats of a second: it notices a silent broker after two."""


class Scene(User):
    """One stream; `chance` is for the times at which things happen."""

    def __init__(self, server: StompServer, folder: Path) -> None:
        super().__init__(server, folder)
        self.server = server
        self.chance = random.Random(self._seed())
        self.logs: dict[int, Path] = {}
        self._proxies: list[Proxy] = []

    @staticmethod
    def _seed() -> int:
        seed = random.SystemRandom().randrange(10**6)
        print(f"seed {seed}")
        return seed

    def begin_anew(self) -> None:
        """Another stream, and none of the files of the one before."""
        self.stream = self.environment["MSGPEEK_ID"] = new_stream()
        for name in ("copy", "out"):
            for path in self.folder.glob(f"{name}*"):
                path.unlink()

    # ------------------------------------------------------------ what runs

    def proxy(self) -> Proxy:
        """A way to the broker that can fail."""
        proxy = Proxy(self.server.stomp_port, target=self.server.address)
        self._proxies.append(proxy)
        return proxy

    def run_side(
        self, words: Sequence[str], via: Proxy | str | None = None, program: Sequence[str] = MAIN
    ) -> Process:
        host = via if isinstance(via, str) else f"{via.address}:{via.port}" if via else ""
        log = self.folder / f"{len(self.logs)}.{words[0]}.log"
        with log.open("wb") as stderr:
            process = self.start(
                *words,
                program=program,
                host=host,
                stdout=subprocess.DEVNULL,
                stderr=stderr.fileno(),
            )
        self.logs[process.pid] = log
        return process

    def payload(self, **options: Any) -> list[str]:
        """The command that writes the output."""
        given = {"copy": str(self.folder / "copy"), **options}
        return [sys.executable, str(PAYLOAD), json.dumps(given)]

    def job(
        self,
        *words: str,
        via: Proxy | str | None = None,
        command: Sequence[str] | None = None,
        program: Sequence[str] = MAIN,
        **options: Any,
    ) -> Process:
        """A job side that runs the payload with these options, or a command."""
        command = self.payload(**options) if command is None else command
        return self.run_side(["wrap", "--quiet", *words, "--", *command], via, program)

    def client(
        self,
        *words: str,
        file: str = "out",
        via: Proxy | str | None = None,
        program: Sequence[str] = MAIN,
    ) -> Process:
        """A client that writes to a file."""
        return self.run_side(["-F", file, "--wait", "60", *words], via, program)

    # ------------------------------------------------------------ what came of it

    def log(self, process: Process) -> str:
        """What it wrote to stderr."""
        return self.logs[process.pid].read_text()

    def finish(self, process: Process, timeout: float = PATIENCE) -> int:
        """The exit code."""
        code = process.wait(timeout)
        text = self.log(process)
        assert "Traceback" not in text, text
        assert "a bug" not in text, text
        return code

    def size(self, name: str) -> int:
        path = self.folder / name
        return path.stat().st_size if path.exists() else 0

    def wait_for(self, condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, self.all_logs()
            time.sleep(0.01)

    def wait_for_size(self, size: int, name: str = "out") -> None:
        self.wait_for(lambda: self.size(name) >= size)

    def open_gate(self) -> None:
        (self.folder / "copy.gate").touch()

    def produced(self, source: int = 1) -> bytes:
        return (self.folder / ("copy.out" if source == 1 else "copy.err")).read_bytes()

    def written(self, source: int = 1, file: str = "out") -> bytes:
        return (self.folder / (file if source == 1 else f"{file}.err")).read_bytes()

    def seconds(self) -> float:
        """What the command took."""
        return float((self.folder / "copy.seconds").read_text())

    @property
    def has_written(self) -> bool:
        """The command has ended."""
        return (self.folder / "copy.seconds").exists()

    def assert_exact(self, file: str = "out") -> None:
        """Each byte once and in order, on both sources."""
        for source in (1, 2):
            produced, written = self.produced(source), self.written(source, file)
            same = hashlib.sha256(produced).digest() == hashlib.sha256(written).digest()
            assert same, (source, len(produced), len(written), self.all_logs())

    def gaps(self, source: int = 1, file: str = "out") -> list[tuple[int, int, str]]:
        """Offset, length and reason of what is missing, as the journal tells people."""
        name = {1: "stdout", 2: "stderr"}[source]
        text = (self.folder / f"{file}.msgpeek").read_bytes()[8192:].decode()
        found = re.findall(rf"^epoch \d+ {name} (\d+) \+(\d+) (\S+)$", text, re.MULTILINE)
        return [(int(offset), int(length), reason) for offset, length, reason in found]

    def assert_all_but_gaps(self, file: str = "out", *clients: Process) -> int:
        """What was written is what was produced less the announced gaps; the bytes missing."""
        missing = 0
        for source in (1, 2):
            produced, rest, at = self.produced(source), b"", 0
            for offset, length, _ in self.gaps(source, file):
                assert offset >= at
                rest += produced[at:offset]
                at = offset + length
                missing += length
            rest += produced[at:]
            written = self.written(source, file)
            assert len(written) == len(rest), (source, len(written), len(rest), self.all_logs())
            assert written == rest
        return missing

    def all_logs(self) -> str:
        return "\n".join(f"{log.name}:\n{log.read_text()}" for log in self.logs.values())

    def close(self) -> None:
        super().close()
        for proxy in self._proxies:
            proxy.close()


def told_missing(text: str, name: str = "stdout") -> int:
    """Bytes that a client said on stderr are missing."""
    return sum(map(int, re.findall(rf"(\d+) bytes of {name} are missing", text)))


@pytest.fixture
def scene(broker: StompServer, tmp_path: Path) -> Iterator[Scene]:
    one = Scene(broker, tmp_path)
    yield one
    one.close()
