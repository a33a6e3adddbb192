"""gw_tm_mad_ftp: job directories are on GridFTP servers; files may be anywhere."""

from typing import ClassVar

from gridmad.transfer.engine import UrlTransfer


class FtpTransfer(UrlTransfer):
    """The engine with its job directories at gsiftp URLs."""

    summary: ClassVar[str] = "Transfer driver for GridFTP servers, and all others that are known"
    job_scheme = "gsiftp"


DRIVER = FtpTransfer
