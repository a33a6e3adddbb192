"""The drivers that go through the suite, and what each needs to be asked sensibly."""

import getpass
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.gwd import PATIENCE, Family, Player
from tests.services import arc, glue, glue2, gram, gridftp, sge, slapd, slurm, sshd, xrootd
from tests.services.ports import reserve_port
from tests.services.required import skip_without

FAMILY_OF_PREFIX: dict[str, Family] = {
    "gw_im": "information",
    "gw_em": "execution",
    "gw_tm": "transfer",
}


SLOW_PATIENCE = 90.0
"""Seconds for a job that takes several, on a busy machine."""


@dataclass
class Site:
    """A driver's surroundings for one test: a fresh GW_LOCATION and home directory."""

    folder: Path
    subject: "Subject"
    arguments: str = ""
    stack: ExitStack = field(default_factory=ExitStack)
    there: Path = field(init=False)
    """Where the directories of jobs are."""

    def __post_init__(self) -> None:
        self.there = self.home

    @property
    def location(self) -> Path:
        return self.folder / "gw"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def environment(self) -> dict[str, str]:
        """What gwd has for an environment; `bin` of the location is not on the PATH."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
        # At niceness 19, which is the default, other tests may leave it no time at all.
        given = {"GW_LOCATION": str(self.location), "PRIORITY": "0"}
        return {**kept, **given, "HOME": str(self.home)}

    def write(self, name: str, text: str) -> Path:
        """A file below the location."""
        path = self.location / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def set_environment(self, variables: Mapping[str, str]) -> None:
        """Variables that the driver reads from GridWay's own file."""
        self.write("etc/gwrc", "".join(f"{name}={value}\n" for name, value in variables.items()))

    def play(
        self,
        *arguments: str,
        is_plain: bool = True,
        byte_by_byte: bool = False,
        environment: dict[str, str] | None = None,
    ) -> Player:
        """Start the driver; its own arguments are one word, as gwd passes them."""
        words = [self.arguments] if is_plain else list(arguments)
        if is_plain and not self.arguments and self.subject.family == "transfer":
            words = []
        path = self.location / "bin" / self.subject.name
        return Player(
            str(path),
            self.subject.family,
            words,
            self.location,
            self.environment if environment is None else environment,
            byte_by_byte=byte_by_byte,
            patience=SLOW_PATIENCE if self.subject.is_slow else PATIENCE,
        )

    # ------------------------------------------------------------ requests

    def description(self, name: str, executable: str, *arguments: str) -> Path:
        """A job description (RSL2) as gwd writes it."""
        folder = f".gw_{getpass.getuser()}_{name}"
        (self.home / folder).mkdir(exist_ok=True)
        words = "".join(f"<argument>{word}</argument>" for word in arguments)
        return self.write(
            f"var/{name}/job.rsl.0",
            f"<job> <executable>{executable}</executable>{words}"
            " <environment> <name>GW_HOSTNAME</name> <value>localhost</value></environment>"
            f"<environment> <name>GW_JOB_ID</name> <value>{name}</value></environment>"
            f" <stdout>{folder}/stdout.wrapper</stdout> <stderr>{folder}/stderr.wrapper</stderr>"
            " <count>1</count> </job>",
        )

    def script(self, name: str, text: str) -> Path:
        """A job description that runs a shell script."""
        path = self.write(f"libexec/{name}.sh", f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return self.description(name, str(path))

    def job_folder(self, job: int) -> tuple[str, Path]:
        """The URL and the path of a job's directory on the resource."""
        name = f".gw_{getpass.getuser()}_{job}"
        return f"gsiftp://localhost/~/{name}", self.there / name


@dataclass(frozen=True)
class Subject:
    """One driver of the table."""

    name: str
    prepare: Callable[[Site], None] = lambda site: None
    label: str = ""
    needs_arguments: bool = False
    """Without arguments it refuses to run."""
    has_hosts: bool = True
    moves_files: bool = True
    is_variant: bool = False
    """The table has the driver with another server: only what is of its family is tested."""
    has_modes: bool = True
    """Its server knows of files that can be executed."""
    jobs: int = 200
    """How many of them it can run while a test waits."""
    is_slow: bool = False
    """Its tests are of the second lane, `make test-grid`."""
    ends_processes: bool = True
    """Its server ends all processes of a cancelled job, as batch systems do."""
    hands_on: bool = True
    """Jobs inherit signals and open files from it, not from a server of the resource."""
    given_arguments: str | None = None

    @property
    def family(self) -> Family:
        return FAMILY_OF_PREFIX[self.name[:5]]

    def __str__(self) -> str:
        return self.label or self.name

    @contextmanager
    def site(self, folder: Path) -> Iterator[Site]:
        """Its surroundings, with all servers that it needs."""
        executable = shutil.which(
            self.name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        )
        assert executable, f"{self.name} is not installed"
        site = Site(folder, self)
        site.home.mkdir()
        (site.location / "bin").mkdir(parents=True)
        (site.location / "bin" / self.name).symlink_to(executable)
        with site.stack:
            self.prepare(site)
            if self.given_arguments is not None:
                site.arguments = self.given_arguments
            yield site


STATIC_HOST = """\
HOSTNAME="{host}" ARCH="x86_64" OS_NAME="Linux" CPU_MHZ=3000 NODECOUNT=8
LRMS_NAME="jobmanager-fork" LRMS_TYPE="pbs" FORK_NAME="jobmanager-fork"
QUEUE_NAME[0]="short" QUEUE_NODECOUNT[0]=4 QUEUE_FREENODECOUNT[0]=4
QUEUE_NAME[1]="long" QUEUE_NODECOUNT[1]=4 QUEUE_FREENODECOUNT[1]=0
"""


def host_list(site: Site) -> None:
    lines = []
    for number in range(30):
        host = f"host{number}.example.org"
        site.write(f"etc/{host}", STATIC_HOST.format(host=host))
        lines.append(f"{host} etc/{host}\n")
    site.write("etc/hosts", "".join(lines))
    site.arguments = "-l etc/hosts"


def directory(site: Site) -> None:
    problem = slapd.missing()
    if problem:
        skip_without("slapd", problem)
    server = slapd.Slapd(site.folder / "slapd", glue.ldif(glue.grid(30)))
    site.stack.enter_context(server)
    site.arguments = f"-s {server.server}"


def directory_of_glue2(site: Site) -> None:
    problem = slapd.missing()
    if problem:
        skip_without("slapd", problem)
    entries = glue2.ldif(glue2.grid(30))
    server = slapd.Slapd(site.folder / "slapd", glue.ldif([]), glue2=entries)
    site.stack.enter_context(server)
    site.arguments = f"-s {server.server}"


def information_of_arc(site: Site) -> None:
    element = arc.shared()
    site.arguments = f"-s https://{element.endpoint}/arex --ca {element.authority.certificates}"


def cluster_as_host(site: Site) -> None:
    site.set_environment(slurm.shared().environment)
    site.arguments = "--hostname cluster.example.org"


def dead_directory(site: Site) -> None:
    site.arguments = f"-s 127.0.0.1:{reserve_port()} --deadline 3 --timeout 2"


def grid_engine(site: Site) -> None:
    site.set_environment(sge.shared().environment)
    site.arguments = "--interval 1 --settle 0.3"


def remote_host(site: Site) -> None:
    problem = sshd.missing()
    if problem:
        skip_without("sshd", problem)
    site.stack.enter_context(sshd.Sshd(site.folder / "sshd", site.home))
    site.arguments = "--interval 0.3 --settle 0.3"


def cluster(site: Site) -> None:
    site.set_environment(slurm.shared().environment)
    site.arguments = "--interval 0.3 --settle 0.3"


def gatekeeper(site: Site) -> None:
    problem = gram.missing()
    if problem:
        skip_without("gram", problem)
    server = gram.Gram(site.folder / "gram", site.home, gram.shared_authority())
    site.stack.enter_context(server)
    site.set_environment(server.environment)
    site.arguments = f"--port {server.port} --interval 1 --settle 0.1"


def cluster_by_rest(site: Site) -> None:
    url = slurm.shared_rest()
    token = site.write("etc/token", slurm.shared().token())
    token.chmod(0o600)
    site.arguments = f"--rest {url} --token {token} --interval 0.3 --settle 0.3"


def sftp_host(site: Site) -> None:
    problem = sshd.missing()
    if problem:
        skip_without("sshd", problem)
    site.stack.enter_context(sshd.Sshd(site.folder / "sshd", site.home))


def file_server(site: Site) -> None:
    gridftp.require()
    server = gridftp.GridFtp(site.folder / "gridftp", site.home)
    site.stack.enter_context(server)
    site.set_environment(server.environment)
    site.arguments = f"--gridftp-port {server.port}"


def job_directories_on_gridftp(site: Site) -> None:
    file_server(site)
    site.arguments += " --job-scheme gsiftp"


def webdav_server(site: Site) -> None:
    server = _xrootd_server(site)
    site.arguments = f"--job-scheme https --job-port {server.http_port} --dav-home /data"


def xrootd_server(site: Site) -> None:
    server = _xrootd_server(site)
    site.arguments = f"--job-scheme root --job-port {server.port} --xrootd-home /data"


def _xrootd_server(site: Site) -> xrootd.XRootD:
    xrootd.require()
    server = site.stack.enter_context(xrootd.XRootD())
    site.set_environment(server.environment)
    site.there = server.data
    return server


def staging_url(site: Site) -> None:
    site.arguments = "-u gsiftp://localhost:2811"


def compute_element(site: Site) -> None:
    site.arguments = f"{arc.shared().arguments} --home {site.home}"


SUBJECTS = [
    Subject("gw_im_mad_static", host_list, needs_arguments=True),
    Subject("gw_im_mad_local"),
    Subject("gw_im_mad_bdii", directory, needs_arguments=True),
    Subject("gw_im_mad_mds2", directory, needs_arguments=True),
    Subject("gw_im_mad_arc", directory_of_glue2, needs_arguments=True),
    Subject(
        "gw_im_mad_arc",
        information_of_arc,
        label="gw_im_mad_arc by REST",
        needs_arguments=True,
        is_slow=True,
    ),
    Subject("gw_im_mad_slurm", cluster_as_host),
    Subject(
        "gw_im_mad_egee_ldap",
        dead_directory,
        label="gw_im_mad_egee_ldap with a dead server",
        needs_arguments=True,
        has_hosts=False,
    ),
    Subject("gw_em_mad_fork"),
    Subject("gw_em_mad_arc", compute_element, jobs=10, is_slow=True, ends_processes=False),
    Subject("gw_em_mad_slurm", cluster),
    Subject("gw_em_mad_slurm", cluster_by_rest, label="gw_em_mad_slurm by slurmrestd"),
    Subject("gw_em_mad_sge", grid_engine),
    Subject("gw_em_mad_ssh", remote_host),
    Subject("gw_em_mad_prews", gatekeeper, hands_on=False, jobs=40),
    Subject("gw_tm_mad_local"),
    Subject("gw_tm_mad_ssh", sftp_host),
    Subject("gw_tm_mad_dummy", staging_url, moves_files=False),
    Subject("gw_tm_mad_ftp", file_server),
    Subject("gw_tm_mad_url", job_directories_on_gridftp),
    Subject(
        "gw_tm_mad_url",
        webdav_server,
        label="gw_tm_mad_url over https",
        is_variant=True,
        has_modes=False,
    ),
    Subject("gw_tm_mad_url", xrootd_server, label="gw_tm_mad_url over root", is_variant=True),
]


def chosen(name: str | None, arguments: str | None) -> list[Subject]:
    """The table, or one driver of it, or one that is not in it."""
    if name is None:
        return SUBJECTS
    known = [subject for subject in SUBJECTS if subject.name == name]
    if arguments is None:
        return known or [Subject(name)]
    return [
        Subject(
            name,
            known[0].prepare if known else lambda site: None,
            has_hosts=not known or known[0].has_hosts,
            moves_files=not known or known[0].moves_files,
            has_modes=not known or known[0].has_modes,
            hands_on=not known or known[0].hands_on,
            needs_arguments=bool(known) and known[0].needs_arguments,
            jobs=known[0].jobs if known else Subject.jobs,
            ends_processes=not known or known[0].ends_processes,
            given_arguments=arguments,
        )
    ]
