"""What private STOMP brokers have in common: ports, certificates, life and death.

Plain classes without pytest, so that benches and the demo can use them too.
"""

import contextlib
import os
import shutil
import socket
import tempfile
import time
from abc import abstractmethod
from pathlib import Path

from tests.services.keeper import KeptProcess
from tests.services.pki import Authority
from tests.services.ports import reserve_port
from tests.services.server import Server

LOGIN = "msg"
PASSWORD = "msgpass"
LIMITED_LOGIN = "limited"
"""May use only destinations that begin with data, control or allowed."""
LIMITED_PASSWORD = "limitedpass"

START_TIME = 90.0
"""Seconds that a broker has to answer CONNECT (4 to 7 are usual, on an idle machine)."""
STOP_TIME = 20.0


class StompServer(Server):
    """One broker on ports of its own, which it keeps over stop, kill and restart.

    Its files are in `folder`, or in a temporary one that goes with it.  `address` is where
    it listens.  As a context manager it is started and killed.
    """

    name: str
    login = LOGIN
    password = PASSWORD

    def __init__(self, folder: Path | None = None, *, address: str = "127.0.0.1") -> None:
        self._temporary = None
        if folder is None:
            self._temporary = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
            folder = self._temporary
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self.folder = folder.resolve()
        self.address = address
        self.stomp_port = reserve_port(address)
        self.tls_port = reserve_port(address)
        self.authority = Authority(self.folder / "tls", f"CA of a {self.name}")
        self.ca = self.authority.ca
        self.certificate = self.authority.issue(
            "localhost", sorted({"DNS:localhost", "IP:127.0.0.1", f"IP:{address}"})
        )
        self.client_certificate = self.authority.issue("client")
        self._process: KeptProcess | None = None
        self._configure()

    @property
    def url(self) -> str:
        """Where a client finds it, without TLS."""
        return f"stomp://{self.address}:{self.stomp_port}"

    @property
    def tls_url(self) -> str:
        return f"stomp+ssl://localhost:{self.tls_port}"

    @property
    def log(self) -> Path:
        return self.folder / "console.log"

    @abstractmethod
    def _configure(self) -> None:
        """Write the configuration."""

    @abstractmethod
    def _command(self) -> tuple[list[str], dict[str, str]]:
        """The program with its arguments, and what it needs in the environment."""

    def start(self) -> None:
        """Start, and wait until CONNECT is answered."""
        assert self._process is None
        command, environment = self._command()
        self._process = KeptProcess(
            command, self.log, {"PATH": os.environ["PATH"], **environment}, self.folder
        )
        end = time.monotonic() + START_TIME
        # Brokers accept connections before they have users: only an answer tells.
        while not self._answers():
            if not self._process.is_running or time.monotonic() > end:
                self.kill()
                raise AssertionError(f"{self.name} does not answer:\n{self._last_words()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End in order."""
        if self._process is not None:
            self._process.stop(STOP_TIME)
            self._process = None

    def kill(self) -> None:
        """End as by SIGKILL: at once, with all it started."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    @abstractmethod
    def wait_until_kept(self, queue: str) -> None:
        """Wait until a queue of that name, with what is persistent in it, outlives a kill."""

    def restart(self) -> None:
        """Kill, and start again on the same ports with the same data."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Kill, and remove the temporary folder."""
        self.kill()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _answers(self) -> bool:
        connect = f"CONNECT\naccept-version:1.2\nhost:/\nlogin:{LOGIN}\npasscode:{PASSWORD}\n\n\0"
        with (
            contextlib.suppress(OSError),
            socket.create_connection((self.address, self.stomp_port), timeout=5) as connection,
        ):
            connection.sendall(connect.encode())
            return connection.recv(4096).startswith(b"CONNECTED")
        return False

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
