"""Directories of WebDAV servers: what they hold, and how they go with all of it.

A server that removes no directory which holds something (XRootD's) has it emptied by us, and only
what such a server calls a directory that is not empty is entered.
"""

from typing import Final

from gridmad.errors import DriverError, TransientError
from gridmad.transfer.dav_requests import NOT_FOUND, RefusedError, Requests, Target
from gridmad.transfer.http_message import escape_path

_ATTEMPTS: Final = 3
"""How often a directory is emptied when somebody goes on writing into it."""


def remove_tree(requests: Requests, target: Target) -> None:
    """Remove a directory with all it holds."""
    for _ in range(_ATTEMPTS):
        if _empty(requests, target):
            return
    raise DriverError("something goes on writing into it")


def _empty(requests: Requests, root: Target) -> bool:
    """Remove a tree; false where something came meanwhile."""
    # Directories in the order in which they were found: the last one is the first to be empty.
    found = [root]
    for folder in found:
        if not _remove_if_empty(requests, folder._replace(path=f"{folder.path}/")):
            found += _remove_entries(requests, folder)
    return all(
        _remove_if_empty(requests, folder._replace(path=f"{folder.path}/"))
        for folder in reversed(found)
    )


def _remove_entries(requests: Requests, folder: Target) -> list[Target]:
    """Remove all but directories that hold something, which are returned."""
    kept = []
    try:
        resources = requests.list(folder._replace(path=f"{folder.path}/"), "1")
    except RefusedError as error:
        if error.status in NOT_FOUND:
            return []
        raise
    for resource in resources[1:]:
        for name in resource.names:
            if name in ("", ".", "..") or "/" in name:
                raise TransientError(f"{name!r} is no name of a file")
            entry = folder._replace(path=f"{folder.path}/{escape_path(name)}")
            try:
                if not _remove_if_empty(requests, entry):
                    kept.append(entry)
            except RefusedError as error:
                if error.status not in NOT_FOUND:
                    raise DriverError(f"{entry.path}: {error}") from None
                continue  # its other name
            break
    return kept


def _remove_if_empty(requests: Requests, target: Target) -> bool:
    """Remove a file or a directory; false where that holds something."""
    try:
        requests.ask("DELETE", target)
    except RefusedError as error:
        if "not empty" in str(error):
            return False
        if error.status in NOT_FOUND and target.path.endswith("/"):
            return True
        raise
    return True
