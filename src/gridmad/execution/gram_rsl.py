"""Jobs as GRAM5 reads them.  No I/O happens here.

A job whose stage-in fails fails, so what a job can do without is not staged with it: a job of
its own fetches such files to FOLDER, below the home directory of the account, under names that
tell their content.  Other jobs begin with copying what they want of it.

Source: Globus Toolkit 6, "GRAM5: RSL Attributes".
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gridmad.errors import DescriptionError
from gridmad.execution.description.model import JobDescription, StagedFile
from gridmad.execution.description.paths import local_path
from gridmad.execution.description.rsl import parse
from gridmad.execution.description.rsl_writer import Value, rsl
from gridmad.execution.description.source import Source
from gridmad.execution.inputs import local_inputs

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


FOLDER: Final = ".gridmad/files"
SHELL: Final = "/bin/sh"
# Words that follow: the command and its words, then the number of files and for each its name in
# the job's directory, its name in FOLDER and its mode.
COPY: Final = f"""\
while [ "$1" != -- ]; do
( part=$(mktemp "$1.XXXXXXXX") && cp "$HOME/{FOLDER}/$2" "$part" && chmod "$3" "$part" &&
mv -f "$part" "$1" || rm -f "$part"; ) </dev/null >/dev/null 2>&1;
shift 3; done; shift; exec "$@"
""".replace("\n", " ").strip()
FETCH: Final = f"""\
umask 077; mkdir -p "$HOME/{FOLDER}" || exit 1; for name; do
echo "$name  $name" | sha256sum -c --status && chmod 600 "$name" &&
mv -f "$name" "$HOME/{FOLDER}/$name" || exit 1;
done; find "$HOME/{FOLDER}" -type f -mtime +30 -exec rm -f {{}} +; exit 0
""".replace("\n", " ").strip()


def fetch_rsl(urls: Mapping[str, str], commit_time: int) -> bytes:
    """A job that fetches files to FOLDER, given by their SHA-256."""
    staged: list[Value] = [[url, digest] for digest, url in urls.items()]
    text = rsl(
        [
            ("executable", SHELL),
            ("arguments", ["-c", FETCH, SHELL, *urls]),
            ("scratch_dir", "."),
            ("file_stage_in", staged),
            ("two_phase", commit_time),
        ]
    )
    return f"{text}(directory=$(SCRATCH_DIRECTORY))".encode()


def job_rsl(
    job: JobDescription, commit_time: int, fetched: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """A job as GRAM reads it, to be committed within that many seconds.

    Its inputs that are files of this machine are copied from FOLDER, where `fetched` tells by
    their paths how they are called there; others are left out.  Raises DescriptionError for what
    RSL cannot say.
    """
    executable, arguments = job.executable, list(job.arguments)
    program = local_path(executable)
    local = local_inputs(job) if program else []
    words: list[str] = []
    for file in local:
        if file.url in fetched:
            mode = "700" if file.is_executable else "600"
            words += [f"./{file.name}", fetched[file.url], mode]
    if program and words:
        command = program if "/" in program else f"./{program}"
        executable, arguments = SHELL, ["-c", COPY, SHELL, *words, "--", command, *arguments]
    staged = [file for file in job.inputs if file.url and not (program and file.url[0] == "/")]
    relations: list[tuple[str, Value]] = [
        ("executable", executable),
        ("arguments", arguments),
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
        ("file_stage_in", [[_remote(file), file.name] for file in staged]),
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
