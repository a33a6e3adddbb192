"""Files that hold a password or a key."""

import os
import stat
from pathlib import Path

from gridmad.errors import UsageError


def read_secret(file: Path, limit: int, what: str) -> bytes:
    """At most `limit` bytes of a file that nobody else may read; UsageError otherwise."""
    name = f"{what} {str(file)!r}"
    try:
        with file.open("rb", buffering=0) as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise UsageError(f"{name}: others may read or change it: chmod 600 it first")
            content = b""
            while len(content) <= limit and (part := stream.read(limit + 1 - len(content))):
                content += part
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from None
    if len(content) > limit:
        raise UsageError(f"{name}: more than {limit} bytes")
    return content
