"""A private OpenLDAP server with the schemas of GLUE 1.3 and GLUE 2, on a free loopback port.

Programs and schema are those of Debian's packages slapd, ldap-utils and glue-schema.
"""

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.services.ports import reserve_port, wait_for_port
from tests.services.required import skip_without
from tests.services.server import Server

SCHEMA = Path("/etc/ldap/schema")
SCHEMA_FILES = (
    "core",
    "cosine",
    "nis",
    "Glue-CORE",
    "Glue-MDS",
    "Glue-CE",
    "Glue-CESEBind",
    "Glue-SE",
    "GLUE20",
)
GLUE2_DATABASE = """
database mdb
suffix "o=glue"
directory {folder}/db2
maxsize 1073741824
dbnosync
index objectClass eq
"""
START_TIME = 60.0
"""Seconds that slapd has to listen, and then to end, on a busy machine."""

CONFIGURATION = """\
{includes}
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
argsfile {folder}/slapd.args
loglevel 0
threads 4
{limits}

database mdb
suffix "o=grid"
directory {folder}/db
maxsize 1073741824
dbnosync
index objectClass eq
index GlueCEUniqueID,GlueChunkKey,GlueClusterUniqueID,GlueCEAccessControlBaseRule eq
"""


def missing() -> str | None:
    """What is not installed of what a server needs; None where all is there."""
    for program in ("slapd", "slapadd"):
        if _program(program) is None:
            return f"{program} is not installed (apt-get install slapd)"
    for name in SCHEMA_FILES:
        if not (SCHEMA / f"{name}.schema").exists():
            return f"{name}.schema is not installed (apt-get install slapd glue-schema)"
    return None


class Slapd(Server):
    """One server; `limits` are further lines of slapd.conf, such as "sizelimit 10", and `glue2`
    is what is below o=glue, which is not there without.  With `ldaps`, for which `limits` must
    name certificates, it listens on `ldaps_port`, too.  `prefix` are the words before its command
    line, such as those of a network of its own.
    """

    def __init__(
        self,
        folder: Path,
        ldif: bytes,
        limits: str = "sizelimit unlimited",
        *,
        glue2: bytes = b"",
        ldaps: bool = False,
        prefix: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.port = reserve_port()
        self.ldaps_port = reserve_port() if ldaps else None
        self._limits = limits
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None
        self.load(ldif, glue2)

    @property
    def server(self) -> str:
        """What gw_im_mad_bdii takes after -s."""
        return f"127.0.0.1:{self.port}"

    def load(self, ldif: bytes, glue2: bytes = b"") -> None:
        """Hold these entries and no others.  The server must be stopped."""
        assert self._process is None
        databases = {"db": ("o=grid", ldif)} | ({"db2": ("o=glue", glue2)} if glue2 else {})
        for name in ("db", "db2"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in databases:
            (self.folder / name).mkdir(parents=True)
        includes = "\n".join(f"include {SCHEMA}/{name}.schema" for name in SCHEMA_FILES)
        configuration = self.folder / "slapd.conf"
        template = CONFIGURATION + (GLUE2_DATABASE if glue2 else "")
        configuration.write_text(
            template.format(includes=includes, folder=self.folder, limits=self._limits)
        )
        for name, (base, entries) in databases.items():
            path = self.folder / f"{name}.ldif"
            path.write_bytes(entries)
            loaded = subprocess.run(
                [str(_program("slapadd")), "-q", "-f", configuration, "-b", base, "-l", path],
                capture_output=True,
                text=True,
            )
            assert loaded.returncode == 0, loaded.stderr

    def start(self) -> None:
        with (self.folder / "slapd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._prefix,
                    str(_program("slapd")),
                    "-d",
                    "0",
                    "-f",
                    str(self.folder / "slapd.conf"),
                    "-h",
                    f"ldap://127.0.0.1:{self.port}"
                    + (f" ldaps://127.0.0.1:{self.ldaps_port}" if self.ldaps_port else ""),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        process = self._process
        log_file = self.folder / "slapd.log"
        try:
            wait_for_port(
                self.port, lambda: process.poll() is None, log_file, START_TIME, self._prefix
            )
        except BaseException:
            self.stop()
            raise

    def pause(self) -> None:
        """Answer nothing from now on, though connections are still taken."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End as a server that crashes: at once, and all connections with it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_TIME)
            self._process = None

    def close(self) -> None:
        self.stop()


SlapdMaker = Callable[..., Slapd]


@pytest.fixture
def slapd(tmp_path: Path) -> Iterator[SlapdMaker]:
    """`slapd(ldif, limits=..., glue2=..., ldaps=...)` starts a server that ends with the test."""
    problem = missing()
    if problem:
        skip_without("slapd", problem)
    servers: list[Slapd] = []

    def make(
        ldif: bytes,
        limits: str = "sizelimit unlimited",
        *,
        glue2: bytes = b"",
        ldaps: bool = False,
    ) -> Slapd:
        folder = tmp_path / f"slapd{len(servers)}"
        server = Slapd(folder, ldif, limits, glue2=glue2, ldaps=ldaps)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.stop()


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/lib/openldap")
