"""A private A-REX: the compute element of ARC 6, with its REST interface and fork for batch system.

Programs are those of Debian's package nordugrid-arc-arex.  What Debian 12 and tests need beside
a configuration:

- The start scripts are changed copies, since A-REX reads some things from the XML that they
  write and from nowhere else: how often its information provider runs (REST takes states from
  what that wrote; the default is 60 s), and the address to listen on.
- Parameters for Diffie-Hellman are made beforehand, else `openssl dhparam` runs for minutes.
- A-REX runs no job as root.  In a user namespace root is called `daemon`, so that jobs can use
  all that belongs to the tests.
- Issuers of tokens are believed by the authorities of /etc/grid-security/certificates and no
  others; in the mount namespace a copy of /etc has ours.
- The script that looks for ended jobs does so every 10 s; in the mount namespace there is one
  that looks more often.
"""

import atexit
import functools
import getpass
import grp
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services import grid_pki
from tests.services.grid_pki import GridAuthority
from tests.services.keeper import KeptProcess
from tests.services.ports import is_listening, reserve_port
from tests.services.required import skip_without
from tests.services.server import Server

SCRIPTS = Path("/usr/share/arc")
START_TIME = 60.0
"""Seconds that it has to answer (4 are usual), and then to end."""
INFORMATION_INTERVAL = 1
"""Seconds between runs of the information provider."""

CONFIGURATION = """\
[common]
hostname = localhost
x509_host_key = {host.key}
x509_host_cert = {host.certificate}
x509_cert_dir = {authority.certificates}

[authgroup:all]
subject = {alice.subject}
subject = {bob.subject}
authtokens = alice * * * *

[mapping]
map_to_user = all {user}:{group}
policy_on_nomap = stop

[authtokens]

[lrms]
lrms = fork

[arex]
controldir = {folder}/control
sessiondir = {folder}/session
runtimedir = {folder}/runtime
tmpdir = {folder}/tmp
logfile = {folder}/log/arex.log
joblog = {folder}/log/jobs.log
pidfile = {folder}/arex.pid
wakeupperiod = 1
loglevel = 4

[arex/ws]
wsurl = https://localhost:{port}/arex
logfile = {folder}/log/rest.log
pidfile = {folder}/rest.pid
loglevel = 3

[arex/ws/jobs]
allowaccess = all

[infosys]
logfile = {folder}/log/information.log
loglevel = 2

[infosys/glue2]
admindomain_name = test

[infosys/cluster]
alias = test
hostname = localhost

[queue:fork]
allowaccess = all
"""
IS_ROOT = os.geteuid() == 0
KEEP_RUNNING = """\
mount --bind {folder}/scan-fork-job {scripts}/scan-fork-job || exit
cp -a /etc {folder}/etc && mkdir -p {folder}/etc/grid-security || exit
rm -rf {folder}/etc/grid-security/certificates
ln -s {certificates} {folder}/etc/grid-security/certificates || exit
mount --bind {folder}/etc /etc || exit
exec unshare --user --map-user=1 --map-group=1 /bin/bash {folder}/run
"""
RUN = """\
for part in arex rest; do
  while :; do
    if [ ! -e {folder}/$part.stopped ]; then
      bash {folder}/start-$part --foreground &
      echo $! >{folder}/$part.running
      wait $!
    fi
    sleep 0.05
  done &
done
wait
"""


def missing() -> str | None:
    """What is not installed or allowed of what a server needs; None where all is there."""
    if not (SCRIPTS / "arc-arex-ws-start").exists():
        return "A-REX is not installed (apt-get install nordugrid-arc-arex)"
    if IS_ROOT:
        namespaces = ["unshare", "--mount", "unshare", "--user", "--map-user=1", "true"]
        if subprocess.run(namespaces, capture_output=True).returncode != 0:
            return "mount and user namespaces are not allowed here"
    return grid_pki.missing()


class Arc(Server):
    """A-REX on a free loopback port, with a grid of its own.

    `alice` and `bob` may submit jobs, `proxy` is Alice's.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = reserve_port()
        self.authority = GridAuthority(folder / "pki")
        self.host = self.authority.host()
        self.alice = self.authority.user("alice")
        self.bob = self.authority.user("bob")
        self.proxy = self.authority.proxy(self.alice).proxy
        self._process: KeptProcess | None = None
        self._configure()

    @property
    def endpoint(self) -> str:
        """Where clients find it."""
        return f"localhost:{self.port}"

    @property
    def url(self) -> str:
        """What --url takes."""
        return f"https://{{host}}:{self.port}/arex"

    @property
    def arguments(self) -> str:
        """What gw_em_mad_arc has to be told."""
        return (
            f"--url {self.url} --ca {self.authority.certificates}"
            f" --credential-file {self.proxy} --interval 1"
        )

    @property
    def environment(self) -> dict[str, str]:
        """What Alice's client needs."""
        return self.authority.environment(grid_pki.Identity("", self.proxy, self.proxy))

    def _configure(self) -> None:
        folder = self.folder
        for name in ("control", "session", "runtime", "tmp", "log"):
            (folder / name).mkdir(exist_ok=True)
        (folder / "tmp").chmod(0o1777)
        user = "daemon" if IS_ROOT else getpass.getuser()
        group = "daemon" if IS_ROOT else grp.getgrgid(os.getgid()).gr_name
        (folder / "arc.conf").write_text(
            CONFIGURATION.format(
                host=self.host,
                authority=self.authority,
                alice=self.alice,
                bob=self.bob,
                user=user,
                group=group,
                folder=folder,
                port=self.port,
            )
        )
        interval = f"<arex:InfoproviderWakeupPeriod>{INFORMATION_INTERVAL}"
        for part, script in (("arex", "arc-arex-start"), ("rest", "arc-arex-ws-start")):
            text = (SCRIPTS / script).read_text()
            for before, after in (
                ("<arex:gmconfig>", f"{interval}</arex:InfoproviderWakeupPeriod><arex:gmconfig>"),
                ("<tcp:Listen>", "<tcp:Listen><tcp:Interface>127.0.0.1</tcp:Interface>"),
                ('eval "$CHECK_CMD', ': "$CHECK_CMD'),  # a check that takes a second
            ):
                text = text.replace(before, after)
            (folder / f"start-{part}").write_text(text)
        scan = (SCRIPTS / "scan-fork-job").read_text()
        again = '\nsleep 0.5\nexec "$0" --config "$ARC_CONFIG" "$@"\n'
        (folder / "scan-fork-job").write_text(scan.replace("\nsleep 10\n", again))
        (folder / "scan-fork-job").chmod(0o755)
        (folder / "run").write_text(RUN.format(folder=folder))
        group_of_dh = ("-algorithm", "DH", "-pkeyopt", "group:ffdhe2048")
        made = subprocess.run(
            [
                "openssl",
                "genpkey",
                "-genparam",
                *group_of_dh,
                "-out",
                folder / "control/dhparam.pem",
            ],
            capture_output=True,
            text=True,
        )
        assert made.returncode == 0, made.stderr

    def start(self) -> None:
        """Start, and wait until REST is answered."""
        assert self._process is None
        command = ["/bin/bash", str(self.folder / "run")]
        if IS_ROOT:
            script = KEEP_RUNNING.format(
                folder=self.folder, scripts=SCRIPTS, certificates=self.authority.certificates
            )
            command = ["unshare", "--mount", "/bin/bash", "-c", script]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder / "tmp"),
            "ARC_CONFIG": str(self.folder / "arc.conf"),
        }
        self._process = KeptProcess(
            command, self.folder / "log/console.log", environment, self.folder
        )
        self._wait_for_rest(True)

    @contextmanager
    def rest_stopped(self) -> Iterator[None]:
        """REST is out of reach for a while; jobs run on."""
        flag = self.folder / "rest.stopped"
        flag.touch()
        try:
            os.kill(int((self.folder / "rest.running").read_text()), signal.SIGKILL)
            self._wait_for_rest(False)
            yield
        finally:
            flag.unlink()
            self._wait_for_rest(True)

    def _wait_for_rest(self, is_wanted: bool) -> None:
        assert self._process is not None
        end = time.monotonic() + START_TIME
        while is_listening(self.port) != is_wanted:
            if not self._process.is_running or time.monotonic() > end:
                self.close()
                log = self.folder / "log/console.log"
                raise AssertionError(f"A-REX does not start or end:\n{log.read_text()[-4000:]}")
            time.sleep(0.05)

    def close(self) -> None:
        """End it and its jobs at once."""
        if self._process is not None:
            self._process.kill()
            self._process = None


@functools.cache
def shared() -> Arc:
    """The one that all tests use which leave it as it is.  Skips where it cannot be."""
    problem = missing()
    if problem:
        skip_without("arc", problem)
    folder = Path(tempfile.mkdtemp(prefix="arc-"))
    element = Arc(folder)

    def end() -> None:
        element.close()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    element.start()
    return element
