"""What a job's number means on this account: `msgpeek new 17` records it, `-I 17` looks it up.

One small file per number, below $XDG_STATE_HOME/gridmad/peek, replaced as a whole, so any number
of processes may record and look up at once.
"""

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gridmad.errors import UsageError
from gridmad.peek.stream import new_stream, valid_stream
from gridmad.peek.values import quoted

NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")
MAX_RECORD: Final = 130
"""Bytes of a record: the longest stream id and a line feed are 129."""


def state_folder(environment: Mapping[str, str]) -> Path:
    """Where msgpeek keeps what it must remember; UsageError without a home."""
    if base := environment.get("XDG_STATE_HOME"):
        folder = Path(base)
    elif home := environment.get("HOME"):
        folder = Path(home, ".local/state")
    else:
        raise UsageError("neither XDG_STATE_HOME nor HOME is set: nothing can be recorded")
    if not folder.is_absolute():
        raise UsageError(f"{quoted(folder)} is no absolute path")
    return folder / "gridmad" / "peek"


class Registry:
    """The numbers known in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "numbers"

    def record(self, number: str, stream: str | None = None) -> str:
        """Make `number` mean `stream`, or a new one; the stream's id.

        UsageError where it is no number, no stream id, or cannot be written.
        """
        name = _number(number)
        stream = new_stream() if stream is None else valid_stream(stream)
        try:
            self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            # mkstemp makes the file 0600.
            descriptor, temporary = tempfile.mkstemp(prefix=".", dir=self._folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(stream.encode("ascii") + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(self._folder / name)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()
                raise
        except OSError as error:
            raise UsageError(f"{quoted(self._folder)}: {error.strerror}") from None
        return stream

    def look_up(self, text: str) -> str:
        """The stream that `text` means: the recorded one of a number, else the text itself.

        UsageError where that is no stream id, or a record cannot be read.
        """
        if not NUMBER.fullmatch(text):
            return valid_stream(text)
        file = self._folder / text
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return text
            raise UsageError(f"{quoted(file)}: {error.strerror}") from None
        try:
            content = os.read(descriptor, MAX_RECORD + 1)
        except OSError as error:
            raise UsageError(f"{quoted(file)}: {error.strerror}") from None
        finally:
            os.close(descriptor)
        try:
            return valid_stream(content.decode("ascii").removesuffix("\n"))
        except (UnicodeDecodeError, UsageError):
            raise UsageError(f"{quoted(file)} holds no stream id: remove it") from None


def _number(text: str) -> str:
    if not NUMBER.fullmatch(text):
        raise UsageError(f"{quoted(text)} is no number of a job")
    return text


def known_stream(text: str, environment: Mapping[str, str]) -> str:
    """The stream that -I means; where there is no home, only what it says.

    UsageError as in Registry.look_up.
    """
    try:
        folder = state_folder(environment)
    except UsageError:
        return valid_stream(text)
    return Registry(folder).look_up(text)
