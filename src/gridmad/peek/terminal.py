"""The output of a job, shown: as text for people, as raw bytes, or as JSON objects.

    text    stdout to stdout and stderr to stderr, through the screen filter; notices, such as
            that bytes are missing, are lines of their own on stderr: [msgpeek: ...]
    raw     the same bytes the job wrote, unfiltered; notices on stderr
    jsonl   one object a line, all on stdout, in ASCII:
            {"time": "2026-01-31T12:00:00.000Z", "source": "stdout", "offset": 0, "text": "..."}
            and "partial": true where no newline follows the text in the job's output;
            {"source": "stdout", "offset": 0, "missing": 4096, "reason": "spool"}
            {"attempt": 2}

Text is written as it comes, unfinished lines too.  Only `--grep` and jsonl wait for a line's
end: for its newline, MAX_LINE bytes, missing bytes, or the end of the stream.
"""

import errno
import json
import os
import re
import select
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, Protocol

from gridmad._screen import Screen
from gridmad.errors import UsageError
from gridmad.peek.errors import PeekError
from gridmad.peek.notices import printable

MAX_LINE: Final = 1 << 20
"""Bytes of a line that are kept until its end is there; a longer one comes in parts."""

STDOUT: Final = 1
STDERR: Final = 2
NAMES: Final = {STDOUT: "stdout", STDERR: "stderr"}

# The last day that every time zone can write; a chunk's time is a stranger's 64 bits.
_LAST_TIME: Final = 253_402_214_400_000
_RESET: Final = b"\x1b[0m"

_quote = json.JSONEncoder().encode


class OutputError(PeekError):
    """What was to be shown could not be written."""


class OutputClosedError(OutputError):
    """Nobody reads stdout or stderr any more, as in `msgpeek | head`: time to end quietly."""

    exit_code = 141  # as a shell tells of SIGPIPE


class Sink(Protocol):
    """Where a client's output goes."""

    def write(self, source: int, offset: int, time: int, data: bytes) -> None:
        """Take bytes of a source in order; `time` in ms since 1970.  May block."""

    def gap(self, source: int, offset: int, length: int, reason: str) -> None:
        """Take notice that `length` bytes from `offset` on are missing."""

    def flush(self) -> None:
        """What was written must be there now."""

    def attempt(self, epoch: int) -> None:
        """The job begins again, at offset 0."""

    def finish(self) -> None:
        """No more will come."""


class Curtain(Protocol):
    """What else draws on the terminal, and has to make way for lines."""

    def hide(self) -> None:
        """Leave the cursor at the beginning of an empty line."""

    def show(self) -> None:
        """Draw again: the cursor is at the beginning of a line."""


@dataclass(frozen=True)
class OutputOptions:
    """How to show; `color` rules our own colours, and "never" the job's too."""

    format: Literal["text", "raw", "jsonl"] = "text"
    timestamps: bool = False
    grep: str | None = None
    color: Literal["auto", "always", "never"] = "auto"
    unfiltered: bool = False  # --raw: let every escape of the job pass


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, and wait where the descriptor does not block.

    OutputClosedError when the reader is gone, OutputError on anything else.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            # A terminal is often shared with a program that made it non-blocking.
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
        except OSError as error:
            # EIO: the terminal was closed.
            if error.errno in (errno.EPIPE, errno.EIO):
                raise OutputClosedError("the output is closed") from None
            raise OutputError(f"the output cannot be written: {error.strerror}") from None


class _Outlet:
    """A descriptor, and where its cursor stands if it is a terminal."""

    def __init__(
        self, descriptor: int, options: OutputOptions, has_colour: bool, curtain: Curtain | None
    ) -> None:
        self.descriptor = descriptor
        self.is_terminal = os.isatty(descriptor)
        self.has_colour = options.color == "always" or (
            options.color == "auto" and has_colour and self.is_terminal
        )
        self.at_start = True
        self.source = STDOUT  # who wrote last
        self.is_closed = False
        self._curtain = curtain if self.is_terminal else None
        self._is_coloured = False

    def write(self, source: int, data: bytes) -> None:
        """One write, and the cursor's new place."""
        if not data:
            return
        self.source = source
        if self._curtain is not None:
            self._curtain.hide()
        if self.is_terminal:
            self._is_coloured |= b"\x1b" in data
        self.at_start = data.endswith(b"\n")
        try:
            write_all(self.descriptor, data)
        except OutputClosedError:
            self.is_closed = True
            raise
        if self._curtain is not None and self.at_start:
            # Elsewhere it would overwrite the line that is not finished.
            self._curtain.show()

    def colourless(self) -> bytes:
        """What ends the colours that the job has set."""
        if not self._is_coloured:
            return b""
        self._is_coloured = False
        return _RESET


class Lines:
    """Cuts one source into lines: (offset, time, bytes without newline, whether it had one).

    Keeps at most MAX_LINE bytes of an unfinished line; a longer one comes in parts, cut
    between characters.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._offset = 0
        self._time = 0

    def feed(self, offset: int, time: int, data: bytes) -> list[tuple[int, int, bytes, bool]]:
        """The lines that end in `data`, and parts of one that grew too long."""
        lines: list[tuple[int, int, bytes, bool]] = []
        *whole, rest = data.split(b"\n")
        for line in whole:
            size = len(line) + 1
            if self._kept:
                self._kept += line
                self._cut(lines)
                line = bytes(self._kept)
                self._kept.clear()
                lines.append((self._offset, self._time, line, True))
            elif len(line) > MAX_LINE:
                self._offset, self._time = offset, time
                self._kept += line
                self._cut(lines)
                lines.append((self._offset, time, bytes(self._kept), True))
                self._kept.clear()
            else:
                lines.append((offset, time, line, True))
            offset += size
        if rest:
            if not self._kept:
                self._offset, self._time = offset, time
            self._kept += rest
            self._cut(lines)
        return lines

    def flush(self) -> list[tuple[int, int, bytes, bool]]:
        """The unfinished line, if there is one."""
        if not self._kept:
            return []
        line = (self._offset, self._time, bytes(self._kept), False)
        self._kept.clear()
        return [line]

    def _cut(self, lines: list[tuple[int, int, bytes, bool]]) -> None:
        while len(self._kept) > MAX_LINE:
            size = MAX_LINE
            while size > MAX_LINE - 4 and self._kept[size] & 0xC0 == 0x80:
                size -= 1
            lines.append((self._offset, self._time, bytes(self._kept[:size]), False))
            del self._kept[:size]
            self._offset += size


class TerminalSink:
    """Shows a stream on stdout and stderr as the options say.

    UsageError for options that are none; `write` and its like raise OutputError and
    OutputClosedError.  The job's colours pass unless they are switched off (`--color never`,
    or NO_COLOR and no `--color always`); ours are for terminals.  Where stdout and stderr are
    one terminal, `--timestamps` labels lines with their source.
    """

    def __init__(
        self,
        options: OutputOptions,
        *,
        stdout: int = 1,
        stderr: int = 2,
        environment: Mapping[str, str] = os.environ,
        curtain: Curtain | None = None,
    ) -> None:
        """Take descriptors, which stay open."""
        if options.grep is not None and options.format == "raw":
            raise UsageError("--grep looks at lines: not with -o raw")
        self._options = options
        self._pattern = None if options.grep is None else _compile(options.grep)
        has_colour = not environment.get("NO_COLOR")
        out = _Outlet(stdout, options, has_colour and environment.get("TERM") != "dumb", curtain)
        err = _Outlet(stderr, options, has_colour and environment.get("TERM") != "dumb", curtain)
        # On one terminal there is one cursor.
        self._is_one = (
            out.is_terminal
            and err.is_terminal
            and os.path.samestat(os.fstat(stdout), os.fstat(stderr))
        )
        self._outlets = {STDOUT: out, STDERR: out if self._is_one else err}
        passes_colour = options.color == "always" or (options.color == "auto" and has_colour)
        is_filtered = options.format != "raw" and not options.unfiltered
        self._screens = {source: Screen(passes_colour) for source in NAMES} if is_filtered else {}
        self._bare = Screen(colours=False)
        self._waits = options.format == "jsonl" or self._pattern is not None
        self._lines = {source: Lines() for source in NAMES}
        self._begins = dict.fromkeys(NAMES, True)  # the next byte begins a line: -t
        self._is_stamped = options.timestamps and options.format == "text"

    @property
    def is_closed(self) -> bool:
        """Whether nobody reads stdout or stderr any more."""
        return any(outlet.is_closed for outlet in self._outlets.values())

    def write(self, source: int, offset: int, time: int, data: bytes) -> None:
        """Show bytes of a source; `time` in ms since 1970.  May block."""
        if self._waits:
            self._show(source, self._lines[source].feed(offset, time, data))
            return
        screen = self._screens.get(source)
        shown = data if screen is None else screen.feed(data)
        if self._is_stamped:
            shown = self._stamp(source, time, shown)
        self._outlets[source].write(source, shown)

    def gap(self, source: int, offset: int, length: int, reason: str) -> None:
        """Say that bytes are missing."""
        self._break(source)
        if self._options.format == "jsonl":
            self._outlets[STDOUT].write(
                source,
                b'{"source": "%s", "offset": %d, "missing": %d, "reason": %s}\n'
                % (NAMES[source].encode(), offset, length, _quote(reason).encode()),
            )
        else:
            self.say(f"{length} bytes of {NAMES[source]} are missing: {reason}")

    def attempt(self, epoch: int) -> None:
        """Say that the job begins again."""
        for source in NAMES:
            self._break(source)
        if self._options.format == "jsonl":
            self._outlets[STDOUT].write(STDERR, b'{"attempt": %d}\n' % epoch)
        else:
            self.say(f"attempt {epoch} of the job begins")

    def say(self, text: str) -> None:
        """Write a notice on a line of its own, to stderr.  The text may be a stranger's."""
        outlet = self._outlets[STDERR]
        line = f"[msgpeek: {printable(text)}]".encode()
        if outlet.has_colour:
            line = b"\x1b[33m" + line + b"\x1b[39m"
        self._end_line(outlet)
        outlet.write(STDERR, outlet.colourless() + line + b"\n")

    def flush(self) -> None:
        """Nothing to do: what can be shown was written."""

    def finish(self) -> None:
        """Show what was held back, and leave a terminal as it was."""
        for source in NAMES:
            self._break(source)
        if self._options.format == "text":
            for outlet in self._outlets.values():
                if outlet.is_terminal:
                    # What msgpeek or the shell says next is no part of the last line.
                    self._end_line(outlet)
        self.reset()

    def reset(self) -> None:
        """End colours that the job left behind on a terminal.  For any end; never fails."""
        for outlet in self._outlets.values():
            try:
                write_all(outlet.descriptor, outlet.colourless())
            except OutputError:
                continue

    def _break(self, source: int) -> None:
        """What comes next does not follow on what came: show what was held back."""
        if self._waits:
            self._show(source, self._lines[source].flush())
        elif source in self._screens:
            self._outlets[source].write(source, self._screens[source].flush())
        if self._is_stamped and not self._begins[source]:
            self._end_line(self._outlets[source])
            self._begins[source] = True

    def _end_line(self, outlet: _Outlet) -> None:
        if not outlet.at_start:
            outlet.write(outlet.source, b"\n")
            for source in NAMES:
                if self._outlets[source] is outlet:
                    self._begins[source] = True

    def _stamp(self, source: int, time: int, shown: bytes) -> bytes:
        """Put the time before each line that begins in these bytes."""
        if not shown:
            return shown
        outlet = self._outlets[source]
        if self._is_one and outlet.source != source:
            # The other one's line goes on later, on a line of its own.
            self._end_line(outlet)
        prefix = self._prefix(source, time)
        begin = prefix if self._begins[source] else b""
        self._begins[source] = shown.endswith(b"\n")
        if self._begins[source]:
            return begin + shown[:-1].replace(b"\n", b"\n" + prefix) + b"\n"
        return begin + shown.replace(b"\n", b"\n" + prefix)

    def _prefix(self, source: int, time: int) -> bytes:
        prefix = _moment(time).astimezone().isoformat(timespec="milliseconds").encode() + b" "
        label = NAMES[source].encode() + b" " if self._is_one else b""
        if self._outlets[source].has_colour:
            # Each off again by itself: the job's own colours go on behind it.
            prefix = b"\x1b[2m" + prefix + b"\x1b[22m"
            if label and source == STDERR:
                label = b"\x1b[31m" + label + b"\x1b[39m"
        return prefix + label

    def _show(self, source: int, lines: list[tuple[int, int, bytes, bool]]) -> None:
        """Lines that are whole, or as whole as they will be: for --grep and jsonl."""
        screen = self._screens.get(source)
        is_jsonl = self._options.format == "jsonl"
        name = NAMES[source].encode()
        shown: list[bytes] = []
        last_time, stamp = -1, b""
        for offset, time, line, is_whole in lines:
            if self._pattern is not None:
                # Colours are not part of what a line says.
                bare = self._bare.feed(line) + self._bare.flush()
                if self._pattern.search(bare.decode()) is None:
                    continue
            # Every sequence ends at a newline, so that lines can be filtered one by one.
            text = line if screen is None else screen.feed(line) + screen.flush()
            if is_jsonl:
                if time != last_time:
                    last_time = time
                    stamp = _moment(time).isoformat(timespec="milliseconds")[:-6].encode() + b"Z"
                shown.append(
                    b'{"time": "%s", "source": "%s", "offset": %d, "text": %s%s}\n'
                    % (
                        stamp,
                        name,
                        offset,
                        _quote(text.decode("utf-8", "replace")).encode(),
                        b"" if is_whole else b', "partial": true',
                    )
                )
            elif self._is_stamped:
                if time != last_time:
                    last_time, stamp = time, self._prefix(source, time)
                shown += (stamp, text, b"\n")
            else:
                shown += (text, b"\n")
        outlet = self._outlets[STDOUT if is_jsonl else source]
        outlet.write(source, b"".join(shown))


def _moment(time: int) -> datetime:
    return datetime.fromtimestamp(min(time, _LAST_TIME) / 1000, UTC)


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"--grep {pattern!r}: {error}") from None
