"""gw_tm_mad_ssh: job directories are reached by sftp; files may be anywhere."""

from typing import ClassVar

from gridmad.transfer.engine import UrlTransfer


class SshTransfer(UrlTransfer):
    """The engine with its job directories at sftp URLs."""

    summary: ClassVar[str] = (
        "Transfer driver for hosts that are reached over ssh, and all others that are known"
    )
    job_scheme = "sftp"


DRIVER = SshTransfer
