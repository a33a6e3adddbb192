"""The back ends of the transfer engine: one line registers one."""

from typing import Final

from gridmad.transfer.dav import Dav
from gridmad.transfer.gridftp import GridFtp
from gridmad.transfer.sftp import Sftp
from gridmad.transfer.storage import Storage
from gridmad.transfer.xrootd import XRootD

STORAGES: Final[tuple[type[Storage], ...]] = (GridFtp, Sftp, Dav, XRootD)
