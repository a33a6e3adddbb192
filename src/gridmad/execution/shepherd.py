"""Starting a job under its shepherd, and reading what the shepherd wrote down.

The shepherd (shepherd.sh) is a shell that leads the job's session, waits for the job and
writes its exit code into a file named by the job's tag.  So both job and exit code outlive
the driver.

Where a job runs: in `directory`, relative to the user's home; relative executables and
files are relative to that directory.  `file:` URLs are taken as paths, as they stand (gwd
does not escape them); other URLs name
nothing on this machine: as executable, stdin or directory they make the job fail, as
stdout or stderr the output is kept beside the status file and a warning says where.

What a job gets: the environment that gridmad.execution.environment makes,
then what its description says, and GRIDMAD_JOB with its tag; default signals, the umask of
the driver, and no open files but the three.

One process is started.  A job of type `multiple` that wants more is refused, for fewer
would be a wrong result; one of type `mpi` starts its others itself (mpirun).

Nothing here enforces limits of time and memory, as GRAM's fork job manager does not.
"""

import os
import re
import stat
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from gridmad.driver import describe, file_name
from gridmad.errors import DriverError
from gridmad.execution.description.model import JobDescription
from gridmad.execution.description.paths import local_path, remote_url
from gridmad.execution.environment import job_environment
from gridmad.execution.processes import ProcessIdentity, find_by_argument, first_child

MARK: Final = "GRIDMAD_JOB"
"""The variable that marks a job's processes, in whatever session they are."""

DECISION_TIME: Final = 2.0
"""Seconds within which a shepherd that was just started is at work, or ends."""

_SCRIPT: Final = str(Path(__file__).with_name("shepherd.sh"))
_SHELL: Final = "/bin/sh"
_OUTPUT: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOCTTY | os.O_CLOEXEC
_IS_UTF8: Final = sys.getfilesystemencoding() == "utf-8"
"""Names of files are what a description's text is, as nearly everywhere."""
_INPUT: Final = os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC


class Shepherds:
    """Starts shepherds; their status files are in `folder`."""

    def __init__(self, folder: Path, descriptors: int) -> None:
        self._folder = str(folder)
        self._descriptors = str(descriptors) if descriptors >= 0 else "unlimited"
        self._environment = job_environment(os.environ)
        self._home = self._environment["HOME"]

    def start(self, job: JobDescription, tag: str) -> tuple["subprocess.Popen[bytes]", list[str]]:
        """Start a job: its shepherd, and warnings for people.

        Raises DriverError where it cannot be started, without having begun.
        """
        if job.job_type == "multiple" and job.count > 1:
            raise DriverError(
                f"this driver starts one process for a job, not {job.count}: jobtype=multiple"
            )
        warnings: list[str] = []
        if not _IS_UTF8:
            try:
                job = _in_names_of_files(job)
            except ValueError as problem:
                raise DriverError(f"the job cannot be started: {problem}") from None
        directory = self._directory(job)
        executable = _executable(job, directory)
        environment = {**self._environment, **job.environment, MARK: tag}
        with ExitStack() as files:
            try:
                stdin = _open(_path("stdin", job.stdin or "/dev/null", directory), _INPUT)
                files.callback(os.close, stdin)
                output = self._output("stdout", job.stdout, directory, tag, warnings)
                error = self._output("stderr", job.stderr, directory, tag, warnings)
                stdout = _open(output, _OUTPUT)
                files.callback(os.close, stdout)
                stderr = stdout
                if error != output:
                    stderr = _open(error, _OUTPUT)
                    files.callback(os.close, stderr)
                process = subprocess.Popen(
                    [
                        _SHELL,
                        _SCRIPT,
                        self.status_file(tag),
                        self._descriptors,
                        executable,
                        *job.arguments,
                    ],
                    cwd=directory,
                    env=environment,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )
            except OSError as failure:
                raise DriverError(f"the job cannot be started: {describe(failure)}") from None
            except ValueError as failure:
                raise DriverError(f"the job cannot be started: {failure}") from None
        return process, warnings

    def find(self, tag: str) -> list[ProcessIdentity]:
        """The shepherd that was started under a tag, if it runs."""
        return [
            ProcessIdentity.of(process.pid)
            for process in find_by_argument(self.status_file(tag))
            if process.session == process.pid
        ]

    def status_file(self, tag: str) -> str:
        """Where the exit code of a job is written."""
        return f"{self._folder}/{tag}"

    def exit_code(self, tag: str) -> int | None:
        """A job's exit code, 128 + n after signal n; None where none is written down."""
        try:
            with open(self.status_file(tag), "rb") as file:  # noqa: PTH123 - one for each job
                line = file.read(16)
        except FileNotFoundError:
            return None
        return int(line) if re.fullmatch(rb"[0-9]{1,3}\n", line) else None

    def decide(self, tag: str) -> ProcessIdentity | int | None:
        """What became of a job of which it is not known whether it was begun: its shepherd, its
        exit code, or None where it never ran and never will.

        Blocks while a shepherd has not decided, for DECISION_TIME at most.
        """
        end = time.monotonic() + DECISION_TIME
        while (exit_code := self.exit_code(tag)) is None:
            self.forbid(tag)
            shepherds = self.find(tag)
            if not shepherds:
                return self.exit_code(tag)
            # One at work takes no notice of what is forbidden.
            if first_child(shepherds[0].pid) is not None or time.monotonic() > end:
                return shepherds[0]
            time.sleep(0.01)
        return exit_code

    def forbid(self, tag: str) -> None:
        """Put something in the exit code's place; a shepherd not yet at work ends then."""
        path = self.status_file(tag)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        try:
            os.write(descriptor, b"forbidden\n")
        finally:
            os.close(descriptor)

    def _directory(self, job: JobDescription) -> str:
        directory = _path("directory", job.directory, self._home) if job.directory else self._home
        if not os.path.isdir(directory):  # noqa: PTH112 - strings all the way, one for each job
            raise DriverError(f"the directory {directory} does not exist")
        return directory

    def _output(self, name: str, value: str, directory: str, tag: str, warnings: list[str]) -> str:
        if not value:
            return os.devnull
        if remote_url(value):
            kept = f"{self._folder}/{tag}.{name}"
            warnings.append(f"{name} {value} is not on this machine; it is kept in {kept}")
            return kept
        return _path(name, value, directory)


def _in_names_of_files(job: JobDescription) -> JobDescription:
    """The description with all that reaches the operating system as it takes it."""
    return replace(
        job,
        executable=file_name(job.executable),
        program=file_name(job.program),
        arguments=[file_name(argument) for argument in job.arguments],
        directory=file_name(job.directory),
        environment={file_name(name): file_name(value) for name, value in job.environment.items()},
        stdin=file_name(job.stdin),
        stdout=file_name(job.stdout),
        stderr=file_name(job.stderr),
    )


def _executable(job: JobDescription, directory: str) -> str:
    if job.program:
        _check(_path("executable", job.program, directory))
    path = _path("executable", job.executable, directory)
    _check(path)
    return path


def _check(path: str) -> None:
    """Raise DriverError for what cannot be run."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - strings all the way, one for each job
    except (OSError, ValueError) as error:
        text = describe(error) if isinstance(error, OSError) else str(error)
        raise DriverError(f"the executable cannot be run: {text}") from None
    if not stat.S_ISREG(mode):
        raise DriverError(f"the executable {path} is no file")
    if not os.access(path, os.X_OK):
        raise DriverError(f"the executable {path} lacks the permission to run")


def _path(name: str, value: str, directory: str) -> str:
    """The absolute path that a description means."""
    path = local_path(value)
    if path is None:
        raise DriverError(f"the {name} {value} is not on this machine")
    return os.path.join(directory, path)  # noqa: PTH118 - an absolute one stays as it is


def _open(path: str, flags: int) -> int:
    """Open a file without ever waiting (a pipe that nobody reads), then let it block."""
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    os.set_blocking(descriptor, True)
    return descriptor
