"""What an ARC compute element publishes in GLUE 2: the output of ARC's own information provider.

The provider is a program of Debian's package nordugrid-arc-arex, and runs without A-REX.
"""

import subprocess
from pathlib import Path

from tests.services.required import skip_without

PARSER = Path("/usr/lib/arc/arcconfig-parser")
PROVIDER = Path("/usr/share/arc/CEinfo.pl")
HOST = "arc.example.org"

CONFIGURATION = """\
[common]
hostname = {host}
x509_host_key = /nonexistent
x509_host_cert = /nonexistent
[authgroup:all]
all = yes
[mapping]
map_to_user = all root:root
[lrms]
lrms = fork
[arex]
controldir = {folder}/control
sessiondir = {folder}/session
runtimedir = {folder}/runtime
tmpdir = {folder}/tmp
[arex/ws]
wsurl = https://{host}:443/arex
[arex/ws/jobs]
allowaccess = all
[infosys]
logfile = {folder}/information.log
[infosys/ldap]
infosys_ldap_run_dir = {folder}/ldif
bdii_run_dir = {folder}
bdii_update_pid_file = {folder}/bdii-update.pid
[infosys/glue2]
admindomain_name = TEST-SITE
[infosys/glue2/ldap]
[infosys/cluster]
alias = test
advertisedvo = atlas
advertisedvo = biomed
[queue:short]
[queue:long]
"""


def arc_ldif(folder: Path) -> bytes:
    """LDIF of a compute element at HOST with two queues and two VOs, the tree's top included."""
    if not (PARSER.exists() and PROVIDER.exists()):
        skip_without("arc", "ARC is not installed (apt-get install nordugrid-arc-arex)")
    for name in ("control", "session", "runtime", "tmp", "ldif"):
        (folder / name).mkdir(parents=True)
    (folder / "arc.conf").write_text(CONFIGURATION.format(host=HOST, folder=folder))
    (folder / "bdii-update.pid").touch()  # its owner is whose the LDIF shall be
    # The parser adds the defaults, as the start script of A-REX has it do.
    whole = folder / "running.conf"
    commands: list[list[str | Path]] = [
        [PARSER, "--config", folder / "arc.conf", "--runconfig", whole, "--save"],
        ["perl", PROVIDER, "--config", whole],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    script = folder / "ldif/ldif-provider.sh"
    assert script.exists(), done.stderr
    entries = subprocess.run(["/bin/sh", script], capture_output=True, check=True).stdout
    return b"dn: o=glue\nobjectClass: organization\no: glue\n\n" + entries
