"""The process that gwd started: its arguments, signals, descriptors and environment.

Source: GridWay 5.14, src/{im,em,tm}/gw_*_mad.c (how a driver is started) and
scripts/gw_mad_common.sh (gwrc files and PRIORITY).
"""

import contextlib
import errno
import logging
import os
import re
import resource
import shlex
import signal
import stat
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from gridmad.errors import UsageError

log = logging.getLogger(__name__)

DEFAULT_PRIORITY = 19
_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_REFUSED = re.compile(r"`|\$\(|\0")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")


def arguments(words: Sequence[str]) -> list[str]:
    """The command's arguments, from the words of argv without the first.

    gwd hands over all arguments of its gwd.conf line as one word, which is split as a shell
    would; several words are taken as they are.
    """
    if len(words) != 1:
        return list(words)
    try:
        return shlex.split(words[0])
    except ValueError as error:
        raise UsageError(f"the arguments {words[0]!r} cannot be split: {error}") from None


def clear_inheritance() -> None:
    """Undo what gwd leaves to its children: all signals blocked, a client's open socket.

    A standard descriptor that is closed becomes /dev/null, or the next file would take its
    number.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    os.closerange(3, soft if soft != resource.RLIM_INFINITY else 1 << 20)


def set_up_environment(executable: str, environment: MutableMapping[str, str]) -> None:
    """Set GW_LOCATION where it is missing, and take over GridWay's gwrc files."""
    if "GW_LOCATION" not in environment:
        folder = Path(executable).absolute().parent
        if folder.name == "bin" and _is_gridway(folder.parent):
            environment["GW_LOCATION"] = str(folder.parent)
    location = environment.get("GW_LOCATION")
    files = [Path(location, "etc/gwrc"), Path(location, "etc/gridway/gwrc")] if location else []
    if environment.get("HOME", "").startswith("/"):
        files.append(Path(environment["HOME"], ".gwrc"))
    for path in files:
        try:
            text = _read_regular(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            log.warning("%s: %s, passed over", path, error.strerror)
            continue
        environment.update(parse_gwrc(text, environment, str(path)))


def _is_gridway(folder: Path) -> bool:
    """Whether GridWay is installed there: any Python environment has a bin folder, too."""
    return any((folder / name).exists() for name in ("etc/gwd.conf", "etc/gwrc", "var"))


def _read_regular(path: Path) -> str:
    """The file as text from which the environment gets the same bytes in any locale."""
    # O_NONBLOCK: opening a named pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file")
    with os.fdopen(descriptor, "rb") as file:
        return os.fsdecode(file.read())


def parse_gwrc(text: str, environment: Mapping[str, str], name: str = "gwrc") -> dict[str, str]:
    """The assignments of a gwrc file: `VAR=value` lines with a shell's quotes and $VAR.

    Nothing of it is run: a line that is no plain assignment is logged and passed over.
    """
    values: dict[str, str] = {}
    known = dict(environment)

    def expand(match: re.Match[str]) -> str:
        return known.get(match[1] or match[2], "")

    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(line.strip())
        try:
            words = shlex.split(match[2], comments=True) if match else None
        except ValueError:
            words = None
        if match is None or words is None or len(words) > 1 or _REFUSED.search(match[2]):
            log.warning("%s:%d: no plain VAR=value line, passed over", name, number)
            continue
        value = words[0] if words else ""
        if not match[2].startswith("'"):
            value = _VARIABLE.sub(expand, value)
        values[match[1]] = known[match[1]] = value
    return values


def lower_priority(environment: Mapping[str, str]) -> None:
    """Run at the niceness $PRIORITY (19 where it is not set), as GridWay's own drivers."""
    text = environment.get("PRIORITY", "")
    try:
        priority = int(text) if text else DEFAULT_PRIORITY
    except ValueError:
        log.warning("PRIORITY=%s is no number: %d is used", text, DEFAULT_PRIORITY)
        priority = DEFAULT_PRIORITY
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, max(-20, min(19, priority)))
