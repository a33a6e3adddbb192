"""Makes a job one that can be watched: its description starts `msgpeek wrap` before the job.

What runs is a short script for /bin/sh that is always the same.  The job's own executable and
arguments follow it as words; none of them becomes part of a shell's text.  The script takes the
first msgpeek that works where the job runs:

1. the bundle that was shipped with the job, then the one in the driver's folder, with the
   driver's interpreter, then with others that may fit;
2. an installed msgpeek of the same version.

To try one it starts it on nothing, for a limited time.  Where none works the script becomes the
job's command, and so does `msgpeek wrap --unobtrusive` where it cannot begin: a job that cannot
be watched runs as it always did.

In gwd's wrapper mode the wrapper writes the program's output into files, which are watched in
place of its own, and tells the program's exit code there (gw_wrapper.sh of GridWay 5.14,
`execution`).

The login for the broker is in the job's environment, or, where others could see it there, in a
file that comes with the job: the script reads it and removes it before anything else is started.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gridmad.execution.description.model import JobDescription, StagedFile
from gridmad.execution.description.paths import local_path

TRIAL_TIME: Final = 10
"""Seconds that a msgpeek has to show that it works."""

SHELL: Final = "/bin/sh"
COMMAND: Final = 'exec "$0" "$@"'
"""The job's command for a shell, which runs scripts without a first line and tells 126 and 127
as for any job.
"""

# One line, since not every batch system's own scripts keep a line feed in an argument.
SCRIPT: Final = " ".join(
    f"""
_msgpeek_login=$1; _msgpeek_staged=$2; _msgpeek_shared=$3; _msgpeek_own=$4; _msgpeek_usual=$5;
_msgpeek_version=$6; shift 6;
if [ -f "$_msgpeek_login" ]; then
{{ {{ IFS= read -r MSGPEEK_USER; IFS= read -r MSGPEEK_PASSWORD; }} <"$_msgpeek_login"; }}
2>/dev/null; rm -f "$_msgpeek_login" 2>/dev/null; export MSGPEEK_USER MSGPEEK_PASSWORD; fi;
if command -v timeout >/dev/null 2>&1; then
for _msgpeek_bundle in "$_msgpeek_staged" "$_msgpeek_shared"; do
[ -f "$_msgpeek_bundle" ] || continue;
for _msgpeek_python in "$_msgpeek_own" "$_msgpeek_usual" python3; do
command -v "$_msgpeek_python" >/dev/null 2>&1 || continue;
{{ _msgpeek_found=$(timeout -k 1 {TRIAL_TIME} "$_msgpeek_python" -I -S "$_msgpeek_bundle" --probe
</dev/null); }} 2>/dev/null && [ -x "$_msgpeek_found" ] &&
exec "$_msgpeek_found" -I -S "$_msgpeek_bundle" wrap "$@";
done; done;
command -v msgpeek >/dev/null 2>&1 &&
{{ _msgpeek_found=$(timeout -k 1 {TRIAL_TIME} msgpeek --version </dev/null); }} 2>/dev/null &&
[ "$_msgpeek_found" = "$_msgpeek_version" ] && exec msgpeek wrap "$@";
fi;
unset MSGPEEK_USER MSGPEEK_PASSWORD;
while [ "$1" != -- ]; do shift; done; shift; exec "$@"
""".split()
)

WRAPPER: Final = ".wrapper"
PRE_WRAPPER_OUTPUT: Final = "stdout.pre_wrapper"
"""gwd's names for what it starts itself, and for the output of what runs before a job."""

MAX_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class Peek:
    """What makes the jobs of a driver watchable."""

    bundle: str
    """The path of msgpeek as one file."""
    is_staged: bool
    """It is brought to each job; else jobs see it under that path, or not at all."""
    interpreter: str
    """The path of the driver's own interpreter ..."""
    usual: str
    """... and what one that fits the bundle is usually called."""
    version: str
    """What an installed msgpeek that fits says to --version."""
    options: Sequence[str]
    """Of `msgpeek wrap`, the same for all jobs."""
    environment: Mapping[str, str]
    """What must not be seen by others; `msgpeek wrap` takes it out before the job starts."""
    login: str = ""
    """The path of a file of this machine that is brought to each job in place of that: a line
    with the user's name and one with the password."""


def watchable(job: JobDescription, job_id: str, stream: str, peek: Peek) -> JobDescription | None:
    """The job, so that it can be watched as `stream`; None for one that cannot be.

    That is one of which several processes would be started, each with a msgpeek of its own; what
    gwd runs before a job; and an executable that is not on the resource.
    """
    program = local_path(job.executable) or ""
    folder, slash, name = program.rpartition("/")
    is_wrapper = name == WRAPPER
    if not program or job.stdout.rpartition("/")[2] == PRE_WRAPPER_OUTPUT:
        return None
    if job.count > 1 and job.job_type != "single" and not (is_wrapper and job.job_type == "mpi"):
        return None
    # What runs under a job's number is another attempt each time, with output of its own.
    options = [
        f"--id={stream}",
        f"--name={_name(job_id, '' if is_wrapper else name)}",
        "--epoch=now",
    ]
    if is_wrapper:
        options += [
            f"--follow-{source}={folder}{slash}{source}.execution"
            for source in ("stdout", "stderr")
        ]
        if output := local_path(job.stdout):
            options.append(f"--follow-status={output}")
    # Inputs are brought to places below the job's directory.
    place = f"{folder}/" if is_wrapper and folder and not folder.startswith("/") else ""
    staged = f"{place}.{peek.bundle.rpartition('/')[2]}" if peek.is_staged else ""
    # Jobs that share a directory share msgpeek; the login is one job's alone, which removes it.
    login = f"{place}.msgpeek-{job_id}" if peek.login else ""
    return replace(
        job,
        executable=SHELL,
        arguments=[
            "-c",
            SCRIPT,
            "msgpeek",
            login,
            staged,
            peek.bundle,
            peek.interpreter,
            peek.usual,
            peek.version,
            *peek.options,
            *options,
            "--",
            SHELL,
            "-c",
            COMMAND,
            program if slash else f"./{program}",
            *job.arguments,
        ],
        environment={**job.environment, **peek.environment},
        inputs=[
            # What was the executable is an input like others now, and nobody would let it run.
            *(replace(file, is_executable=True) if file.name == job.executable else file
              for file in job.inputs),
            *([StagedFile(login, peek.login)] if login else []),
            *([StagedFile(staged, peek.bundle)] if staged else []),
        ],
        program=job.executable,
    )  # fmt: skip


def _name(job_id: str, program: str) -> str:
    """What `msgpeek ls` shows."""
    text = f"{job_id}/{program}" if program else job_id
    safe = "".join(c if c.isprintable() else "?" for c in text)
    return safe.encode("utf-8", "replace").decode("utf-8")[:MAX_NAME]
