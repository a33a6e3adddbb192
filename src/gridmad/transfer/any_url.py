"""gw_tm_mad_url: files and job directories may be anywhere."""

from typing import ClassVar

from gridmad.transfer.engine import UrlTransfer


class AnyUrlTransfer(UrlTransfer):
    """The engine with its job directories at gsiftp URLs."""

    summary: ClassVar[str] = "Transfer driver for servers of all kinds that are known"
    job_scheme = "gsiftp"


DRIVER = AnyUrlTransfer
