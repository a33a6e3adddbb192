"""Inputs of jobs that are files of this machine: which they are, and what is in them.

An input that cannot be read is left out, and that is logged: the job tells what it lacks.
"""

import hashlib
import logging
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from gridmad.driver import describe, file_name, open_file
from gridmad.execution.description.model import JobDescription, StagedFile

log = logging.getLogger(__name__)

MAX_SIZE: Final = 16 << 20
"""Bytes of a file that a driver brings: it passes through memory."""


class Content(NamedTuple):
    """What is in a file."""

    digest: str
    """SHA-256, in hexadecimal."""
    data: bytes


def local_inputs(job: JobDescription) -> list[StagedFile]:
    """The inputs whose other place is a path of this machine, with names below the job's
    directory.
    """
    return [file for file in job.inputs if file.url.startswith("/") and _is_below(file.name)]


def _is_below(name: str) -> bool:
    return "\0" not in name and not {"", ".", ".."}.intersection(name.split("/"))


def read_files(paths: Collection[str]) -> Mapping[str, Content]:
    """The contents of those files that can be read."""
    found = {}
    for path in paths:
        try:
            data = _read(path)
        except (OSError, ValueError) as error:
            text = describe(error) if isinstance(error, OSError) else f"{path}: {error}"
            log.warning("an input is not brought to jobs: %s", text)
        else:
            found[path] = Content(hashlib.sha256(data).hexdigest(), data)
    return found


def _read(path: str) -> bytes:
    file = open_file(file_name(path))
    if file is None:
        raise ValueError("it is no file")
    with file:
        data = file.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise ValueError(f"it has more than {MAX_SIZE} bytes")
    return data
