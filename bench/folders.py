"""Files and folders that are copied to, again and again."""

import itertools
import os
from pathlib import Path

_numbers = itertools.count()


def clean(*paths: Path) -> None:
    """Remove files, and let nothing that was copied before weigh on what comes next."""
    for path in paths:
        path.unlink(missing_ok=True)
    os.sync()


def set_aside(*folders: Path) -> None:
    """Put empty folders in the place of folders; what these held stays, below other names.

    Copies to names that are taken are another task: some programs truncate a file, others replace
    it.  And ext4 looks long for an inode where many were given back in the last seconds.
    """
    for folder in folders:
        status = folder.stat()
        folder.rename(f"{folder}.{next(_numbers)}")
        folder.mkdir()
        folder.chmod(status.st_mode & 0o7777)
        os.chown(folder, status.st_uid, status.st_gid)
