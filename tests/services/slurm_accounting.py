"""Slurm's accounting: a private MariaDB, and a slurmdbd that keeps its records there.

Programs are those of Debian's packages mariadb-server and slurmdbd.
"""

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.services.keeper import KeptProcess
from tests.services.ports import reserve_port, wait_for_port

START_TIME = 60.0
"""Seconds that each server has to listen (one is usual, on an idle machine)."""
USER = "slurm"

# What a server that lives for a test does not need: tables that survive the machine.
DATABASE = (
    "--user=root",
    "--bind-address=127.0.0.1",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=16M",
    "--skip-log-bin",
)
CONFIGURATION = """\
AuthType=auth/munge
AuthInfo=socket={munge}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
CommunicationParameters=NoInAddrAnyDBD
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser={user}
StoragePass={password}
StorageLoc=slurm
"""


def missing() -> str | None:
    """What is not installed of what it needs; None where all is there."""
    for program, package in (
        ("mariadbd", "mariadb-server"),
        ("mariadb-install-db", "mariadb-server"),
        ("slurmdbd", "slurmdbd"),
    ):
        if _program(program) is None:
            return f"{program} is not installed (apt-get install {package})"
    return None


class SlurmAccounting:
    """The two servers, on free loopback ports; `munge` is the socket of the cluster's munged, and
    `prefix` begins every command, for a cluster in another network.
    """

    def __init__(self, munge: Path, prefix: Sequence[str] = ()) -> None:
        # A database has a socket there, whose path may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="slurmdbd-", dir="/tmp"))
        self.port = reserve_port()
        self._database_port = reserve_port()
        self._password = secrets.token_hex(16)
        self._munge = munge
        self._prefix = prefix
        self._database: KeptProcess | None = None
        self._daemon: KeptProcess | None = None
        configuration = self.folder / "slurmdbd.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            CONFIGURATION.format(
                munge=munge,
                port=self.port,
                folder=self.folder,
                database_port=self._database_port,
                user=USER,
                password=self._password,
            )
        )

    @property
    def settings(self) -> str:
        """What slurm.conf says of it."""
        return (
            "AccountingStorageType=accounting_storage/slurmdbd\n"
            "AccountingStorageHost=127.0.0.1\n"
            f"AccountingStoragePort={self.port}\n"
            f"AccountingStoragePass={self._munge}\n"
        )

    def start(self) -> None:
        """Start both, and wait until slurmdbd listens; munged must run."""
        self._start_database()
        self.start_daemon()

    def start_daemon(self) -> None:
        """Start slurmdbd, or start it again."""
        self._daemon = self._keep(
            "slurmdbd", "-D", environment={"SLURM_CONF": str(self.folder / "slurm.conf")}
        )
        self._await(self._daemon, self.port)

    def stop_daemon(self) -> None:
        """Nobody can ask for records any more; slurmctld keeps new ones for later."""
        assert self._daemon is not None
        self._daemon.kill()

    def stop(self) -> None:
        """End both, and remove what they kept."""
        for process in (self._daemon, self._database):
            if process is not None:
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_database(self) -> None:
        data, log = self.folder / "data", self.folder / "mariadb-install-db.log"
        with log.open("w") as file:
            installed = subprocess.run(
                ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root",
                 "--skip-test-db", "--skip-name-resolve", *DATABASE[2:]],
                stdout=file,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        assert installed.returncode == 0, log.read_text()
        accounts = self.folder / "accounts.sql"
        accounts.touch(mode=0o600)
        accounts.write_text(
            f"CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY '{self._password}';\n"
            f"GRANT ALL ON slurm.* TO {USER}@'127.0.0.1';\n"
        )
        self._database = self._keep(
            "mariadbd",
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/mariadbd.pid",
            f"--port={self._database_port}",
            f"--init-file={accounts}",
            "--skip-name-resolve",
            *DATABASE,
            environment={},
        )
        self._await(self._database, self._database_port)

    def _keep(self, name: str, *words: str, environment: dict[str, str]) -> KeptProcess:
        program = _program(name)
        assert program is not None
        return KeptProcess(
            [*self._prefix, program, *words],
            self.folder / f"{name}.out",
            {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
            self.folder,
        )

    def _await(self, process: KeptProcess, port: int) -> None:
        log = self.folder / "slurmdbd.out"
        wait_for_port(port, lambda: process.is_running, log, START_TIME, self._prefix)


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin")
