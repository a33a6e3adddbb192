"""What the ssh driver and its helper on a host (ssh.sh) say to each other.

A request is a script for `/bin/sh -s`.  What it does stands between braces, so that a script that
was cut short does nothing.  An answer has a line `TAG WORD [MORE]` for each job, between two
lines of ours: what else the host prints (a user's .bashrc) is passed over.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gridmad.errors import DriverError
from gridmad.execution.description.model import JobDescription
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState
from gridmad.execution.payload import encode, payload, quote

COMMAND: Final = "exec /bin/sh -s"
"""In whatever shell the user has."""
WATCH: Final = 'exec tail -n 100 -f "$HOME/.gridmad/jobs/events"'
"""Tells the ends of jobs as they come, and the last ones, which may just have been missed."""
FOLDER: Final = ".gridmad/jobs"
"""Below the user's home."""
FILES: Final = ".gridmad/files"
"""The same, for files that jobs get copies of."""

_BEGIN: Final = b"gridmad begin"
_END: Final = b"gridmad end"
_LINE: Final = re.compile(rb"([0-9a-f]{16}|[0-9a-f]{64}) ([a-z]+)(?: (.*))?")
_HOME: Final = re.compile(rb"gridmad home (/[^\0]*)")
_MISSING: Final = re.compile(rb"gridmad missing ([ -~]*)")
_EXIT_CODE: Final = re.compile(r"[0-9]{1,3}")
_MAX_TEXT: Final = 300


class Said(NamedTuple):
    """What an answer says of a job."""

    word: str
    more: str


class Answer(NamedTuple):
    """What a host answered."""

    jobs: Mapping[str, Said]
    """By tag; of files, by digest."""
    has_begun: bool
    """False: nothing was done."""
    is_whole: bool

    @classmethod
    def parse(cls, output: bytes) -> "Answer":
        """Read the output of a request."""
        lines = output.split(b"\n")
        if _BEGIN not in lines:
            return cls({}, False, False)
        lines = lines[lines.index(_BEGIN) + 1 :]
        jobs = {}
        for line in lines:
            match = _LINE.fullmatch(line)
            if match is not None:
                jobs[match[1].decode()] = Said(match[2].decode(), _text(match[3] or b""))
        return cls(jobs, True, _END in lines)


class Helper:
    """The helper's text, and the requests that it serves."""

    def __init__(self) -> None:
        self._text = Path(__file__).with_name("ssh.sh").read_text("utf-8")
        self._path = f"../helper-{hashlib.sha256(self._text.encode()).hexdigest()[:12]}"

    def greeting(self) -> bytes:
        """Make the folders and put the helper there; `home_directory` reads the answer."""
        return f"""\
umask 077
cd "$HOME" && mkdir -p {FOLDER} {FILES} && chmod 700 .gridmad {FOLDER} {FILES} && cd {FOLDER} && {{
[ -e {self._path} ] ||
    {{ printf '%s' {quote(self._text)} >{self._path}.$$ && mv -f {self._path}.$$ {self._path}; }}
printf '' >>events
setsid -f true || printf 'gridmad missing setsid -f (util-linux)\\n'
[ -r /proc/self/stat ] || printf 'gridmad missing /proc\\n'
printf 'gridmad home %s\\n' "$HOME"
}}
""".encode()

    def request(self, calls: Iterable[Sequence[str]]) -> bytes:
        """Call functions of the helper, each given as its name and its arguments."""
        lines = [
            f"helper={self._path} mask=$(umask)",
            f'cd "$HOME/{FOLDER}" && . "$helper" && {{',
            "umask 077",
            f"echo {_BEGIN.decode()}",
            *(" ".join([name, *map(quote, arguments)]) for name, *arguments in calls),
            f"echo {_END.decode()}",
            "}",
        ]
        return encode("\n".join(lines) + "\n")

    def upload(self, digest: str, size: int) -> str:
        """A command that takes a file of `size` bytes from its stdin; answers as a request."""
        script = (
            f'helper={self._path}; umask 077; cd "$HOME/{FOLDER}" && . "$helper" && '
            f"echo {_BEGIN.decode()} && take_file {digest} {size}; echo {_END.decode()}"
        )
        return f"exec /bin/sh -c {quote(script)}"


def home_directory(output: bytes) -> str:
    """The user's home directory, from the answer to the greeting.

    Raises DriverError for a host on which no job can be run.
    """
    lines = output.split(b"\n")
    for line in lines:
        missing = _MISSING.fullmatch(line)
        if missing is not None:
            raise DriverError(f"it has no {missing[1].decode()}")
    for line in lines:
        match = _HOME.fullmatch(line)
        if match is not None:
            return match[1].decode("utf-8", "surrogateescape")
    raise DriverError("it has no home directory in which ~/.gridmad could be made")


def script(job: JobDescription, tag: str, home: str) -> str:
    """A job as its file on the host.  Raises DriverError for one that cannot be run there."""
    if job.job_type == "multiple" and job.count > 1:
        raise DriverError(
            f"this driver starts one process for a job, not {job.count}: jobtype=multiple"
        )
    text = payload(job, status_file=f"{home}/{FOLDER}/{tag}.status")
    if "\0" in text:
        raise DriverError("a job's description cannot have a NUL character")
    return text


def state(said: Said) -> JobState | None:
    """The state that an answer or an event tells."""
    match said.word:
        case "starting":
            return PENDING
        case "running" | "elsewhere":
            return ACTIVE
        case "stopped":
            return SUSPENDED
        case "ended":
            if _EXIT_CODE.fullmatch(said.more) and int(said.more) < 256:
                return JobState.done(int(said.more))
            return JobState.failed(said.more or "the job left an empty status file")
    return None


def event(line: bytes) -> tuple[str, JobState] | None:
    """What a line of `events` tells: the tag of a job, and its state."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    told = state(Said(match[2].decode(), _text(match[3] or b"")))
    return None if told is None else (match[1].decode(), told)


def refusal(said: Said | None) -> DriverError | None:
    """Why a job was not started or not ended; None where it was."""
    if said is None:
        return DriverError("the host said nothing of this job")
    match said.word:
        case "started":
            return None
        case "unwritable":
            return DriverError(f"the host cannot write ~/{FOLDER} (is its disk full?)")
        case "unstarted":
            return DriverError("the host could not start a process")
        case "forbidden":
            return DriverError("the job was given up before it was started")
        case "elsewhere":
            return DriverError(f"the job runs on {said.more}, which shares the home directory")
    return DriverError(f"the host said {said.word} of this job")


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").strip()[:_MAX_TEXT]
