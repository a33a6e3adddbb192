"""gw_tm_mad_local: files of this machine, for jobs that run on it.

file: URLs and bare paths are local; so are the URLs of any other scheme whose host is this
one, with "~" as the user's home directory.
"""

import argparse
import time
from functools import partial
from typing import ClassVar

from gridmad.crew import Crew
from gridmad.driver import Batch
from gridmad.options import count
from gridmad.transfer.driver import TransferDriver
from gridmad.transfer.files import LocalFiles
from gridmad.transfer.model import Copy

_DIRECTORY_STREAMS = 2
_MOST_STREAMS = 256


class LocalTransfer(TransferDriver):
    """Serves every request in a thread, since any file system may be a slow one."""

    summary: ClassVar[str] = "Transfer driver for files of this machine"

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._files = LocalFiles(options)
        # Directories have threads of their own: they do not wait for long copies.
        self._copying = Crew(options.streams, "copy")
        self._directories = Crew(_DIRECTORY_STREAMS, "directory")

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare this driver's own options."""
        parser.add_argument(
            "--streams",
            type=partial(count, most=_MOST_STREAMS),
            default=4,
            metavar="N",
            help="copy at most N files at a time (default: %(default)s)",
        )
        LocalFiles.add_options(parser)

    async def stop(self) -> None:
        """End the copies under way; they leave nothing behind."""
        self._files.stop()
        self._directories.abandon()
        await self._copying.stop()

    async def copy(self, copies: Batch[Copy, None]) -> None:
        """Copy files."""
        end = time.monotonic() + self._files.longest
        await copies.each_in_thread(self._copying, partial(self._files.copy, end))

    async def mkdir(self, urls: Batch[str, None]) -> None:
        """Make directories."""
        await urls.each_in_thread(self._directories, self._files.make_directories)

    async def rmdir(self, urls: Batch[str, None]) -> None:
        """Remove directories."""
        await urls.each_in_thread(self._directories, self._files.remove_tree)

    async def exists(self, urls: Batch[str, None]) -> None:
        """Look for files and directories."""
        await urls.each_in_thread(self._directories, self._files.require)


DRIVER = LocalTransfer
