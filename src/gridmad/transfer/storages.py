"""The back ends of the transfer engine: one line registers one."""

from typing import Final

from gridmad.transfer.gridftp import GridFtp
from gridmad.transfer.storage import Storage

STORAGES: Final[tuple[type[Storage], ...]] = (GridFtp,)
