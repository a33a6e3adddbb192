"""Private GridFTP servers: with GSI, or for anybody.

The program is that of Debian's package globus-gridftp-server-progs.  It runs as the user of the
tests; a server with GSI lets the users of its authority in as `account`, whose "~" is `home`
(of the server's own, where none is given).
The anonymous one lets in who gives no name, as nobody where the tests run as root.
"""

import contextlib
import getpass
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.services import grid_pki
from tests.services.gram import shared_authority
from tests.services.grid_pki import GridAuthority
from tests.services.keeper import KeptProcess
from tests.services.ports import is_listening, reserve_port, wait_for_port
from tests.services.required import skip_without
from tests.services.server import Server

SERVER = "globus-gridftp-server"
START_TIME = 20.0
"""Seconds that a server has to listen."""
USER = "alice"


def missing() -> str | None:
    """What is not installed of what a server needs; None where all is there."""
    if shutil.which(SERVER) is None:
        return f"{SERVER} is not installed (apt-get install globus-gridftp-server-progs)"
    if shutil.which("globus-url-copy") is None:
        return "globus-url-copy is not installed (apt-get install globus-gass-copy-progs)"
    return grid_pki.missing()


class GridFtp(Server):
    """A server on a free loopback port; `prefix` begins its command, for another network."""

    def __init__(
        self,
        folder: Path,
        home: Path | None = None,
        authority: GridAuthority | None = None,
        *,
        account: str | None = None,
        is_anonymous: bool = False,
        prefix: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.home = home or folder / "home"
        if home is None:
            self.home.mkdir()
        self.port = reserve_port()
        self.is_anonymous = is_anonymous
        self.authority = shared_authority() if authority is None else authority
        self.user = self.authority.user(USER)
        self.proxy = self.authority.proxy(self.user, f"proxy-{self.port}").proxy
        self._account = account or getpass.getuser()
        self._prefix = prefix
        self._keeper: KeptProcess | None = None

    @property
    def url(self) -> str:
        """The server, without a path."""
        return f"{'ftp' if self.is_anonymous else 'gsiftp'}://localhost:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a driver needs to reach it, and not to wait for its turn beside other tests."""
        return {
            "X509_CERT_DIR": str(self.authority.certificates),
            "X509_USER_PROXY": str(self.proxy),
            "GLOBUS_HOSTNAME": "localhost",
            "PRIORITY": "0",
        }

    def start(self) -> None:
        """Start the server, or start it again."""
        host = self.authority.host()
        grid_map = self.folder / "grid-mapfile"
        grid_map.write_text(f'"{self.user.subject}" {self._account}\n')
        options = ["-aa"] if self.is_anonymous else ["-allow-root", "-home-dir", str(self.home)]
        if self.is_anonymous and os.geteuid() == 0:
            options += ["-anonymous-user", "nobody", "-anonymous-group", "nogroup"]
        configuration = self.folder / "server.conf"
        configuration.touch()  # or it reads the machine's own
        log = self.folder / "server.out"
        keeper = self._keeper = KeptProcess(
            [
                *(*self._prefix, SERVER, "-c", str(configuration), "-port", str(self.port)),
                *options,
                *("-control-interface", "127.0.0.1", "-data-interface", "127.0.0.1"),
                *("-ipc-interface", "127.0.0.1", "-hostname", "localhost"),
                *("-log-level", "ERROR,WARN,INFO", "-logfile", str(self.folder / "server.log")),
            ],
            log,
            {
                "PATH": os.environ["PATH"],
                "X509_CERT_DIR": str(self.authority.certificates),
                "X509_USER_CERT": str(host.certificate),
                "X509_USER_KEY": str(host.key),
                "GRIDMAP": str(grid_map),
                "GLOBUS_HOSTNAME": "localhost",
            },
            self.folder,
        )
        wait_for_port(self.port, lambda: keeper.is_running, log, START_TIME, self._prefix)

    def freeze(self) -> None:
        """Stop all that the server does, where it stands; `kill` ends it there."""
        assert self._keeper is not None
        server = psutil.Process(self._keeper.pid)
        for process in (server, *server.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def kill(self) -> None:
        """End the server and all that it serves at once; `start` starts it again."""
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper = None
        assert not is_listening(self.port)

    def close(self) -> None:
        """End it as it stands."""
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper = None


def require() -> None:
    """Skip the test where there is no server."""
    problem = missing()
    if problem:
        skip_without("gridftp", problem)


@pytest.fixture(scope="module")
def gridftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridFtp]:
    """A server with GSI; a test that kills it starts it again."""
    require()
    with GridFtp(tmp_path_factory.mktemp("gridftp")) as server:
        yield server
