"""Logging to stderr or a file: human lines or JSON, never in the daemon's way.

gwd gives its drivers /dev/null for stderr, so a site that wants logs names a file.
"""

import argparse
import contextlib
import json
import logging
import os
import queue
import threading
import time
from logging import handlers
from typing import TextIO

from gridmad.errors import UsageError

LEVELS = ("debug", "info", "warning", "error", "critical")
MAX_WAITING = 10_000
"""Records that may wait for a reader of stderr that does not read; more are dropped."""
LAST_RECORDS = 0.2
"""Seconds that the last records have to be written at the end."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of logging."""
    parser.add_argument(
        "--log-level", choices=LEVELS, default="warning", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="lines for people or JSON (default: %(default)s)",
    )
    parser.add_argument(
        "--log-file",
        metavar="FILE",
        help="append to FILE instead of stderr (gwd sends a driver's stderr to /dev/null)",
    )


class TextFormatter(logging.Formatter):
    """`2026-11-20T12:00:00 warning information.bdii: text`; no date on a terminal."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__(datefmt="%H:%M:%S" if is_terminal else "%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        """One line (and a traceback at the debug level)."""
        name = record.name.removeprefix("gridmad.")
        when = self.formatTime(record, self.datefmt)
        text = f"{when} {record.levelname.lower()} {name}: {one_line(record.getMessage())}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, pid, and exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def one_line(text: str) -> str:
    """The text without control characters: a server's words cannot forge a log line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class _Handler(handlers.QueueHandler):
    """Hands records to the writing thread as they are; drops them when it is far behind."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        record.msg, record.args = record.getMessage(), None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return


def _open(path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    try:
        # O_NONBLOCK: opening a named pipe would wait for its reader.
        descriptor = os.open(path, flags | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise UsageError(f"--log-file {path}: {error.strerror}") from None
    os.set_blocking(descriptor, True)
    return descriptor


class Logs:
    """The log of one process.  `close` lets the last records out, within LAST_RECORDS.

    Raises UsageError where the file cannot be opened.
    """

    def __init__(self, options: argparse.Namespace, stderr: TextIO) -> None:
        stream = stderr
        self._file: TextIO | None = None
        if options.log_file is not None:
            descriptor = _open(options.log_file)
            stream = os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")
            self._file = stream
        self._handler = logging.StreamHandler(stream)
        self._handler.setFormatter(
            JsonFormatter() if options.log_format == "json" else TextFormatter(stream.isatty())
        )
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        logging.raiseExceptions = False
        root = logging.getLogger()
        root.handlers[:] = [_Handler(self._queue)]
        root.setLevel(options.log_level.upper())
        self._thread.start()

    def _write(self) -> None:
        while (record := self._queue.get()) is not None:
            self._handler.handle(record)

    def close(self) -> None:
        """Write what waits, but do not wait for a stderr that nobody reads."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(LAST_RECORDS)
        if self._file is not None and not self._thread.is_alive():
            with contextlib.suppress(OSError):
                self._file.close()
