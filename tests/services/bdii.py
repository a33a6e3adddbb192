"""A private BDII: its updater and its slapd, from Debian's package bdii, on a free loopback port.

folder/gip/ldif/*.ldif --bdii-update, every second--> slapd
"""

import os
import shutil
from pathlib import Path

from tests.services.keeper import KeptProcess
from tests.services.ports import reserve_port, wait_for_port
from tests.services.server import Server

UPDATER = Path("/usr/sbin/bdii-update")
TEMPLATE = Path("/usr/share/bdii/bdii-slapd.conf")
ENTRIES = Path("/usr/share/bdii/default.ldif")
START_TIME = 60.0

CONFIGURATION = """\
BDII_LOG_FILE={folder}/bdii-update.log
BDII_PID_FILE={folder}/run/bdii-update.pid
BDII_RUN_DIR={folder}/run
BDII_LOG_LEVEL=ERROR
BDII_LDIF_DIR={folder}/gip/ldif
BDII_PROVIDER_DIR={folder}/gip/provider
BDII_PLUGIN_DIR={folder}/gip/plugin
BDII_PORT={port}
BDII_BREATHE_TIME=1
BDII_READ_TIMEOUT=60
BDII_ARCHIVE_SIZE=0
BDII_DELETE_DELAY=0
BDII_HOSTNAME=127.0.0.1
BDII_VAR_DIR={folder}
SLAPD_CONF={folder}/slapd.conf
"""


def missing() -> str | None:
    """What is not installed of what a BDII needs; None where all is there."""
    if not (UPDATER.exists() and TEMPLATE.exists() and ENTRIES.exists()):
        return "bdii is not installed (apt-get install bdii)"
    for program in ("slapd", "ldapadd"):
        if shutil.which(program) is None and not Path("/usr/sbin", program).exists():
            return f"{program} is not installed (apt-get install slapd ldap-utils)"
    if not os.access(TEMPLATE, os.R_OK):
        return f"{TEMPLATE} cannot be read"
    return None


class Bdii(Server):
    """One BDII that publishes the entries it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = reserve_port()
        self._process: KeptProcess | None = None
        for name in ("db/grid", "db/glue", "db/stats", "gip/ldif", "gip/provider", "gip/plugin"):
            (folder / name).mkdir(parents=True)
        (folder / "run" / "db").mkdir(parents=True)
        settings = TEMPLATE.read_text().replace("/var/lib/bdii", str(folder))
        settings = settings.replace("/run/bdii", str(folder / "run"))
        settings = "".join(
            line + ("maxsize 268435456\n" if line.startswith("directory") else "")
            for line in settings.splitlines(keepends=True)
        )
        (folder / "slapd.conf").write_text(settings)
        (folder / "slapd.conf").chmod(0o600)
        # OpenLDAP 2.5 has left off the options that the updater calls its programs with.
        updater = UPDATER.read_text().replace("-h %s -p %s", "-H ldap://%s:%s")
        (folder / "bdii-update").write_text(updater)
        (folder / "bdii.conf").write_text(CONFIGURATION.format(folder=folder, port=self.port))
        shutil.copy(ENTRIES, folder / "gip" / "ldif" / "default.ldif")

    @property
    def server(self) -> str:
        """What gw_im_mad_bdii takes after -s."""
        return f"127.0.0.1:{self.port}"

    def publish(self, ldif: bytes) -> None:
        """Publish these entries from the next update on."""
        new = self.folder / "new.ldif"
        new.write_bytes(ldif)
        new.replace(self.folder / "gip" / "ldif" / "site.ldif")

    def start(self) -> None:
        # The updater waits three seconds for slapd, and goes on in the background.
        command = (
            'python3 "$0/bdii-update" -c "$0/bdii.conf" -d && '
            'exec slapd -d 0 -f "$0/slapd.conf" -h "ldap://127.0.0.1:$1"'
        )
        process = KeptProcess(
            ["/bin/sh", "-c", command, str(self.folder), str(self.port)],
            self.folder / "log",
            {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(self.folder)},
            self.folder,
        )
        self._process = process
        wait_for_port(self.port, lambda: process.is_running, self.folder / "log", START_TIME)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    def close(self) -> None:
        self.stop()
