"""A site of the grid under a real gwd: jobs by GRAM5, their files by GridFTP, one home for both.

gwd, gatekeeper and file server are in a network of their own, since gwd's would be open to all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services import gram, gridftp, gwd
from tests.services.gram import Gram
from tests.services.gridftp import GridFtp
from tests.services.gwd import GridWay, Mad
from tests.services.network import PrivateNetwork
from tests.services.required import skip_without

HOST = """\
HOSTNAME="localhost" ARCH="x86_64" OS_NAME="Linux" CPU_MHZ=3000 NODECOUNT={slots}
LRMS_NAME="jobmanager-fork" LRMS_TYPE="pbs" FORK_NAME="jobmanager-fork"
QUEUE_NAME[0]="default" QUEUE_NODECOUNT[0]={slots} QUEUE_FREENODECOUNT[0]={slots}
QUEUE_MAXRUNNINGJOBS[0]={slots} QUEUE_MAXJOBSINQUEUE[0]={slots}
"""


class GridSite:
    """The two servers, and the gwd that uses them."""

    def __init__(self, gram: Gram, files: GridFtp, gridway: GridWay) -> None:
        self.gram = gram
        self.files = files
        self.gridway = gridway

    @property
    def environment(self) -> dict[str, str]:
        """What gwd and all clients need to reach both servers."""
        return {**self.files.environment, **self.gram.environment}


@contextmanager
def running(folder: Path, slots: int) -> Iterator[GridSite]:
    """A site with room for `slots` jobs, once gwd knows of it; a test without one is skipped."""
    gridftp.require()
    for name, problem in (("gram", gram.missing()), ("gwd", gwd.problem())):
        if problem:
            skip_without(name, problem)
    home = folder / "gridway/home"
    home.mkdir(parents=True, mode=0o700)
    with (
        PrivateNetwork() as network,
        Gram(folder / "gram", home, gram.shared_authority(), prefix=network.prefix) as manager,
        GridFtp(folder / "gridftp", home, prefix=network.prefix) as files,
    ):
        gridway = GridWay(
            folder / "gridway",
            information=[Mad("im", "gw_im_mad_static", "-l etc/hosts")],
            execution=[Mad("em", "gw_em_mad_gram5", f"--port {manager.port}", mode="rsl")],
            transfer=[Mad("tm", "gw_tm_mad_ftp", f"--gridftp-port {files.port}")],
            files={
                "etc/hosts": "localhost etc/localhost\n",
                "etc/localhost": HOST.format(slots=slots),
            },
            environment={**files.environment, **manager.environment},
            network=network,
        )
        with gridway:
            gridway.wait_for_host()
            yield GridSite(manager, files, gridway)
