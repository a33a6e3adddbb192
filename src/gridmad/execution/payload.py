"""A job as text for /bin/sh, for resources that take a script.

Where it runs: in `directory`, relative to $HOME; a relative executable is relative to that
directory.  `file:` URLs are taken as paths.  An output that is a URL of another machine is
kept beside the status file, where there is one, else dropped.  The environment is what the
resource gives, then what the description says.

At its end the job writes its exit code (128 + n after signal n), or in a line why it could not
begin, into the status file: by that name only when it is whole.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gridmad.driver import open_file
from gridmad.errors import DriverError
from gridmad.execution.description.model import JobDescription, StagedFile
from gridmad.execution.description.paths import local_path, remote_url
from gridmad.execution.model import JobState

MAX_STATUS: Final = 4096

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXIT_CODE: Final = re.compile(r"[0-9]{1,3}")


def quote(text: str) -> str:
    """Text as one word of a shell, whatever is in it."""
    return "'" + text.replace("'", "'\\''") + "'"


def payload(
    job: JobDescription,
    *,
    status_file: str = "",
    environment: Mapping[str, str] | None = None,
    launcher: Sequence[str] = (),
) -> str:
    """Shell commands that run a job and exit with its exit code.

    `launcher` is a command that gets the job's own command as further words.  Raises
    DriverError for a job that no shell can run.
    """
    words = [quote(word) for word in (*launcher, _executable(job.executable), *job.arguments)]
    lines = ["_gridmad_origin=$(pwd)"] if any(map(_is_own, job.copies)) else []
    lines.append("finish() {")
    if status_file:
        # What a shell cannot write is no reason to fail: the resource tells the exit code too.
        part = quote(f"{status_file}.part")
        lines += [
            f"  (umask 077; printf '%s\\n' \"$2\" >{part}) 2>/dev/null &&",
            f"    mv -f {part} {quote(status_file)} 2>/dev/null",
        ]
    lines += ['  exit "$1"', "}"]
    for name, value in {**(environment or {}), **job.environment}.items():
        if not _NAME.fullmatch(name):
            raise DriverError(f"{name!r} cannot be the name of a shell's environment variable")
        lines.append(f"export {name}={quote(value)}")
    lines.append('cd "$HOME" || finish 127 "the home directory $HOME cannot be entered"')
    directory = _path("directory", job.directory)
    if directory:
        problem = quote(f"the directory {directory} cannot be entered")
        lines.append(f"cd {quote(_operand(directory))} || finish 127 {problem}")
    lines += map(_copy, job.copies)
    stdin = _path("stdin", job.stdin) or "/dev/null"
    stdout = _output("stdout", job.stdout, status_file)
    stderr = _output("stderr", job.stderr, status_file)
    redirection = f">{quote(stdout)} " + ("2>&1" if stderr == stdout else f"2>{quote(stderr)}")
    # In braces, so that a file that cannot be opened is an exit code and not the script's end.
    lines += [
        f"{{ {' '.join(words)}; }} <{quote(stdin)} {redirection}",
        "code=$?",
        'finish "$code" "$code"',
    ]
    return "\n".join(lines) + "\n"


def read_status(path: Path) -> JobState | None:
    """What a job wrote into its status file; None where it has not.

    Raises OSError where that cannot be known.
    """
    try:
        file = open_file(path)
    except FileNotFoundError:
        return None
    if file is None:
        return None
    with file:
        text = file.read(MAX_STATUS).decode("utf-8", "replace").strip()
    if _EXIT_CODE.fullmatch(text) and int(text) < 256:
        return JobState.done(int(text))
    return JobState.failed(text or "the job left an empty status file")


def encode(script: str) -> bytes:
    """A script as the shell shall read it: bytes that were not UTF-8 are what they were."""
    return script.encode("utf-8", "surrogateescape")


def _copy(file: StagedFile) -> str:
    """A line that copies a file into the job's directory: by its name only when it is whole, as
    another job of the same directory may be reading it.  The job's own file is moved there.
    """
    source = quote(file.url)
    bring = f'mv -f "$_gridmad_origin"/{source}' if _is_own(file) else f"cp {source}"
    name = quote(f"./{file.name}")
    mode = "700" if file.is_executable else "600"
    steps = (
        f"part=$(mktemp {name}.XXXXXXXX)",
        f'{bring} "$part"',
        f'chmod {mode} "$part"',
        f'mv -f "$part" {name}',
    )
    return f'( {" && ".join(steps)} || rm -f "$part" ) </dev/null >/dev/null 2>&1'


def _is_own(file: StagedFile) -> bool:
    return not file.url.startswith("/")


def _executable(value: str) -> str:
    path = _path("executable", value)
    return path if "/" in path else f"./{path}"


def _operand(path: str) -> str:
    """A path that `cd` takes for no option and looks for nowhere else."""
    return path if path.startswith("/") else f"./{path}"


def _output(name: str, value: str, status_file: str) -> str:
    if remote_url(value):
        return f"{status_file}.{name}" if status_file else "/dev/null"
    return _path(name, value) or "/dev/null"


def _path(name: str, value: str) -> str:
    path = local_path(value)
    if path is None:
        raise DriverError(f"the {name} {value} is not on the resource")
    return path
