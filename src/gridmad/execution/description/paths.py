"""What a description means by the name of a file: a path, or the URL of one.  No I/O.

A `file:` URL of no host or of localhost is its path, as it stands: gwd escapes nothing.
"""

import re
from typing import Final

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def remote_url(value: str) -> str:
    """The value, if it is the URL of a file on another machine, else ""."""
    url = _URL.match(value)
    return value if url is not None and url[1].lower() != "file" else ""


def local_path(value: str) -> str | None:
    """The path that the value means where the job runs; None where it means none there."""
    url = _URL.match(value)
    if url is None:
        return value
    host, slash, path = value[url.end() :].partition("/")
    if url[1].lower() != "file" or host not in ("", "localhost") or not slash:
        return None
    return f"/{path}"
