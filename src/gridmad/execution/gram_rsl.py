"""Jobs as GRAM5 reads them.  No I/O happens here.

Source: Globus Toolkit 6, "GRAM5: RSL Attributes".
"""

import re
from typing import Final

from gridmad.errors import DescriptionError
from gridmad.execution.description.model import JobDescription, StagedFile
from gridmad.execution.description.rsl import parse
from gridmad.execution.description.rsl_writer import Value, rsl
from gridmad.execution.description.source import Source

_STAGED: Final = re.compile(r"(https?|gsiftp|ftp)://", re.IGNORECASE)
_EXTRA: Final = {
    "filecleanup": "file_clean_up",
    "filestagein": "file_stage_in",
    "filestageinshared": "file_stage_in_shared",
    "filestageout": "file_stage_out",
    "gasscache": "gass_cache",
    "grammyjob": "gram_my_job",
    "librarypath": "library_path",
    "proxytimeout": "proxy_timeout",
    "remoteiourl": "remote_io_url",
    "scratchdir": "scratch_dir",
    "stderrposition": "stderr_position",
    "stdoutposition": "stdout_position",
    "username": "username",
}
"""Attributes of GRAM beyond the model, which are handed on as they were written."""


def job_rsl(job: JobDescription, commit_time: int) -> bytes:
    """A job as GRAM reads it, to be committed within that many seconds.

    Raises DescriptionError for what RSL cannot say.
    """
    relations: list[tuple[str, Value]] = [
        ("executable", job.executable),
        ("arguments", list(job.arguments)),
        ("environment", [list(pair) for pair in job.environment.items()]),
        *(
            (name, value)
            for name, value in (
                ("directory", job.directory),
                ("stdin", job.stdin),
                ("stdout", job.stdout),
                ("stderr", job.stderr),
                ("job_type", job.job_type),
                ("queue", job.queue),
                ("project", job.project),
                ("count", job.count if job.count > 1 else None),
                ("host_count", job.nodes),
                ("max_wall_time", job.max_wall_time),
                ("max_cpu_time", job.max_cpu_time),
                ("max_memory", job.max_memory),
                ("min_memory", job.min_memory),
            )
            if value
        ),
        ("file_stage_in", [[_remote(file), file.name] for file in job.inputs if file.url]),
        ("file_stage_out", [[file.name, _remote(file)] for file in job.outputs if file.url]),
        ("two_phase", commit_time),
    ]
    extra = "".join(
        f"({_EXTRA[name]}={text})"
        for name, text in job.extra.items()
        if name in _EXTRA and _is_rsl(text)
    )
    return (rsl(relations) + extra).encode("utf-8", "surrogateescape")


def _remote(file: StagedFile) -> str:
    if _STAGED.match(file.url) is None:
        raise DescriptionError(f"GRAM cannot stage {file.name}: {file.url} is no URL that it knows")
    return file.url


def _is_rsl(text: str) -> bool:
    """Whether it is what a relation may have, and no more: other dialects say it otherwise."""
    try:
        read = parse(Source(f"(executable=x)(y={text})".encode("utf-8", "surrogateescape"))).extra
    except DescriptionError:
        return False
    return read == {"y": text}
