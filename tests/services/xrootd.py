"""Private XRootD servers, each for root:// (GSI, third-party copies) and https:// (WebDAV).

Programs are those of Debian's packages xrootd-server, xrootd-server-plugins (WebDAV) and
xrootd-client (a server fetches with xrdcp).  A server refuses to run as root, and becomes the user
`xrootd` that the package makes.  Files are below `/data`, which is `data` on this machine.
"""

import base64
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.services import grid_pki
from tests.services.gram import shared_authority
from tests.services.grid_pki import GridAuthority
from tests.services.keeper import KeptProcess
from tests.services.ports import reserve_port, wait_for_port
from tests.services.required import skip_without
from tests.services.server import Server

ACCOUNT = "xrootd"
START_TIME = 20.0
"""Seconds that a server has to listen, and then to end."""

CONFIGURATION = """\
all.export /data
oss.localroot {folder}
all.adminpath {folder}/admin
all.pidpath {folder}/admin
all.sitename gridmad
xrd.port {port}
xrd.network nodnr
xrootd.seclib libXrdSec.so
sec.protocol gsi -certdir:{folder}/certificates -cert:{folder}/host.pem -key:{folder}/host.key \
-gridmap:{folder}/grid-mapfile -gmapopt:2 -crl:0 -dlgpxy:1 -exppxy:=creds -d:0
xrootd.chksum max 2 chkcgi adler32 md5 crc32
ofs.tpc fcreds gsi =X509_USER_PROXY ttl 60 70 xfr 9 autorm pgm /usr/bin/xrdcp --server
ofs.authorize 1
ofs.authlib ++ libXrdMacaroons.so
acc.authdb {folder}/authorization
acc.authrefresh 3600
xrd.tls {folder}/host.pem {folder}/host.key
xrd.tlsca certdir {folder}/certificates
xrd.protocol http:{http_port} libXrdHttp.so
http.gridmap {folder}/grid-mapfile
http.selfhttps2http no
http.secretkey {secret}
http.exthandler xrdtpc libXrdHttpTPC.so
http.exthandler xrdmacaroons libXrdMacaroons.so
http.desthttps yes
tpc.trace info
macaroons.secretkey {folder}/macaroon.key
macaroons.maxduration 3600
http.header2cgi Authorization authz
"""


def missing() -> str | None:
    """What is not installed of what a server needs; None where all is there."""
    for program, package in (("xrootd", "xrootd-server"), ("xrdcp", "xrootd-client")):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install {package})"
    if not list(Path("/usr/lib").glob("*/libXrdHttp-5.so")):
        return "WebDAV for XRootD is not installed (apt-get install xrootd-server-plugins)"
    if os.geteuid() != 0:
        return "a server that becomes another user is started by root alone"
    return grid_pki.missing()


class XRootD(Server):
    """A server on free loopback ports, to which `user` may log in."""

    def __init__(self, authority: GridAuthority | None = None) -> None:
        self.authority = shared_authority() if authority is None else authority
        self.user = self.authority.user("alice")
        self.port = reserve_port()
        self.http_port = reserve_port()
        # Another user than ours has to get there, and its sockets have to have short names.
        self.folder = Path(tempfile.mkdtemp(prefix="xrootd-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.proxy = self.authority.proxy(self.user, f"proxy-{self.port}").proxy
        self._keeper: KeptProcess | None = None
        self._configure()

    @property
    def root(self) -> str:
        """root://, up to /data."""
        return f"root://localhost:{self.port}//data"

    @property
    def https(self) -> str:
        """https://, up to /data."""
        return f"https://localhost:{self.http_port}/data"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to be let in."""
        return self.authority.environment(
            grid_pki.Identity(self.user.subject, self.proxy, self.proxy)
        )

    def _configure(self) -> None:
        folder = self.folder
        for name in ("data", "admin"):
            (folder / name).mkdir()
        host = self.authority.host()
        shutil.copytree(self.authority.certificates, folder / "certificates")
        for source, name in ((host.certificate, "host.pem"), (host.key, "host.key")):
            shutil.copy(source, folder / name)
        (folder / "grid-mapfile").write_text(f'"{self.user.subject}" {ACCOUNT}\n')
        (folder / "authorization").write_text(f"u {ACCOUNT} /data a\n")
        (folder / "macaroon.key").write_bytes(base64.encodebytes(secrets.token_bytes(64)))
        (folder / "xrootd.cfg").write_text(
            CONFIGURATION.format(
                folder=folder,
                port=self.port,
                http_port=self.http_port,
                secret=secrets.token_hex(32),
            )
        )
        for path in [folder, *folder.rglob("*")]:
            shutil.chown(path, ACCOUNT, ACCOUNT)
        for name in ("host.key", "macaroon.key"):
            (folder / name).chmod(0o400)

    def start(self) -> None:
        """Start the server, or start it again."""
        log = self.folder / "xrootd.out"
        keeper = self._keeper = KeptProcess(
            ["xrootd", "-R", ACCOUNT, "-c", str(self.folder / "xrootd.cfg")],
            log,
            {
                "PATH": os.environ["PATH"],
                # For the xrdcp that fetches from another server.
                "X509_CERT_DIR": str(self.folder / "certificates"),
            },
            self.folder,
        )
        for port in (self.port, self.http_port):
            wait_for_port(port, lambda: keeper.is_running, log, START_TIME)

    def kill(self) -> None:
        """End the server at once, as a crash does; `start` starts it again."""
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the server stand still, with all its connections open."""
        assert self._keeper is not None
        os.kill(self._keeper.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._keeper.pid, signal.SIGCONT)

    def close(self) -> None:
        """End the server and remove its files."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Door:
    """One of a server's protocols, as the contract of `tests.services.transfers` wants it."""

    def __init__(self, server: XRootD, url: str, arguments: str) -> None:
        self.xrootd = server
        self.folder = server.data
        self.url = url
        self.arguments = arguments

    def kill(self) -> None:
        self.xrootd.kill()

    def start(self) -> None:
        self.xrootd.start()

    def own(self, path: Path) -> None:
        shutil.chown(path, ACCOUNT, ACCOUNT)


def require() -> None:
    """Skip the test where there is no server."""
    problem = missing()
    if problem:
        skip_without("xrootd", problem)


@pytest.fixture(scope="module")
def xrootd() -> Iterator[XRootD]:
    """A server; a test that kills it starts it again."""
    require()
    with XRootD() as server:
        yield server


@pytest.fixture(scope="module")
def other_xrootd() -> Iterator[XRootD]:
    """Another one, of the same grid."""
    require()
    with XRootD() as server:
        yield server
