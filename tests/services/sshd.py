"""A private sshd on a free loopback port, with its own host key, for one key and one home.

The program is that of Debian's package openssh-server; nothing in /etc/ssh is read or changed.
The user is the one who runs the tests, but with another home.
"""

import getpass
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.services.ports import reserve_port, wait_for_port
from tests.services.required import skip_without
from tests.services.server import Server

START_TIME = 10.0
"""Seconds that sshd has to listen, and then to end."""
SEPARATION = Path("/run/sshd")
"""Which sshd wants to have when root starts it."""

CONFIGURATION = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
PermitUserEnvironment yes
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
MaxStartups 200:30:400
Subsystem sftp internal-sftp -d {home}
PrintMotd no
PrintLastLog no
{limits}
"""


def missing() -> str | None:
    """What is not installed of what a server needs; None where all is there."""
    for program in ("sshd", "ssh-keygen", "ssh"):
        if _program(program) is None:
            return f"{program} is not installed (apt-get install openssh-server openssh-client)"
    if os.geteuid() == 0:
        SEPARATION.mkdir(mode=0o755, exist_ok=True)
    return None


class Sshd(Server):
    """One server; `limits` are further lines of sshd_config, such as "MaxSessions 2",
    `environment` is what a login gets, and `prefix` begins its command, for one in another network.

    `home` gets an .ssh folder from which ssh and the driver reach it as `localhost`.
    """

    def __init__(
        self,
        folder: Path,
        home: Path,
        limits: str = "",
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self._prefix = prefix
        self.home = home
        self.port = reserve_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        (home / ".ssh").mkdir(mode=0o700, parents=True)
        self.identity = home / ".ssh" / "id_ed25519"
        make_key(self.identity)
        make_key(folder / "host_key")
        public = self.identity.with_suffix(".pub").read_text()
        variables = {"HOME": str(home), **(environment or {})}
        settings = ",".join(f'environment="{name}={value}"' for name, value in variables.items())
        (folder / "authorized_keys").write_text(f"{settings} {public}")
        (folder / "sshd_config").write_text(
            CONFIGURATION.format(port=self.port, folder=folder, home=home, limits=limits)
        )
        (home / ".ssh" / "config").write_text(
            f"Host localhost 127.0.0.1\nPort {self.port}\nUser {getpass.getuser()}\n"
        )
        self.known_hosts = home / ".ssh" / "known_hosts"
        self.know(folder / "host_key.pub")

    def know(self, public_key: Path) -> None:
        """Have this, and nothing else, as the host's key in known_hosts."""
        kind, key, *_ = public_key.read_text().split()
        names = f"[localhost]:{self.port},[127.0.0.1]:{self.port}"
        self.known_hosts.write_text(f"{names} {kind} {key}\n")

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        program = _program("sshd")
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, str(program), "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},
            )
        process = self._process
        log_file = self.folder / "sshd.log"
        wait_for_port(self.port, lambda: process.poll() is None, log_file, START_TIME, self._prefix)

    def stop(self) -> None:
        """End as a server that crashes: at once, and all connections with it."""
        if self._process is not None:
            self.cut()
            self._process.kill()
            self._process.wait(START_TIME)
            self._process = None

    def cut(self) -> None:
        """End all connections, but not the server."""
        assert self._process is not None
        for pid in _servers_of_connections(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self.stop()


SshdMaker = Callable[..., Sshd]


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[SshdMaker]:
    """`sshd(home, limits=..., environment=...)` starts a server that ends with the test."""
    problem = missing()
    if problem:
        skip_without("sshd", problem)
    servers: list[Sshd] = []

    def make(home: Path, limits: str = "", environment: Mapping[str, str] | None = None) -> Sshd:
        server = Sshd(tmp_path / f"sshd{len(servers)}", home, limits, environment)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.stop()


def _servers_of_connections(listener: int) -> Iterator[int]:
    """What sshd forked, but not the users' commands below them."""
    for pid in Path(f"/proc/{listener}/task/{listener}/children").read_text().split():
        with suppress(OSError):
            if Path(f"/proc/{pid}/exe").readlink() == Path(f"/proc/{listener}/exe").readlink():
                yield int(pid)
                yield from _servers_of_connections(int(pid))


def make_key(path: Path) -> None:
    subprocess.run(
        [str(_program("ssh-keygen")), "-q", "-t", "ed25519", "-N", "", "-f", path], check=True
    )


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
