"""`msgpeek -I ID`: shows a stream."""

import argparse
import contextlib
import getpass
import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Literal, Self, cast

from gridmad.errors import UsageError
from gridmad.logs import one_line
from gridmad.peek import notices
from gridmad.peek.client import ClientOptions
from gridmad.peek.client import watch as run
from gridmad.peek.errors import UnknownStreamError
from gridmad.peek.memory import keep_pages
from gridmad.peek.messages import Start
from gridmad.peek.notices import Notice, Verdict
from gridmad.peek.progress import Progress
from gridmad.peek.registry import known_stream
from gridmad.peek.settings import DEFAULT_TIMEOUT, Layers
from gridmad.peek.stream import Destinations
from gridmad.peek.terminal import NAMES, STDERR, STDOUT, OutputOptions, TerminalSink
from gridmad.peek.values import choice, moment, path, seconds, whole

Say = Callable[[str], None]

MOST_LINES = 10**9


def watch(options: argparse.Namespace, layers: Layers, say: Say) -> int:
    """The exit code of `msgpeek`; its reason is the last line that `say` gets."""
    identity = layers.value("id", str, "")
    if not identity:
        raise UsageError("which job? -I ID (msgpeek --help begins with examples)")
    keep_pages()
    stream = known_stream(identity, os.environ)
    file = layers.value("file", path, None)
    output = _output(options, layers)
    shown = [f"--{name}" for name in ("output", "timestamps", "grep", "raw") if name in options]
    if file is not None and shown:
        raise UsageError(f"-F writes what the job wrote: not with {' or '.join(shown)}")
    patience = _parse_wait(layers)
    client = ClientOptions(
        stream=stream,
        endpoints=layers.endpoints(),
        login=layers.login(),
        destinations=Destinations(stream, layers.templates()),
        key=layers.key(),
        takeover=hasattr(options, "takeover"),
        start=_start(options, layers),
        sources=_sources(options),
        file=file,
        timeout=layers.value("timeout", seconds, DEFAULT_TIMEOUT),
        wait=patience is not None,
        who=_who(),
    )
    for warning in layers.warnings():
        say(warning)
    progress = Progress() if hasattr(options, "progress") else None
    with progress or contextlib.nullcontext(), _Deadline(patience) as deadline:
        sink = TerminalSink(output, curtain=progress)
        reporter = Reporter(
            say if file else sink.say, progress, deadline.cancel, tells_gaps=file is not None
        )
        try:
            outcome = run(client, sink, reporter.take)
        finally:
            sink.reset()
    # `msgpeek | head`: nobody is left to be told.
    if not sink.is_closed:
        say(outcome.text)
    return outcome.exit_code


class _Deadline:
    """Ends what runs in the main thread with UnknownStreamError, unless it is cancelled before."""

    def __init__(self, patience: float | None) -> None:
        self._patience = patience or 0.0

    def __enter__(self) -> Self:
        if self._patience:
            signal.signal(signal.SIGALRM, self._end)
            signal.setitimer(signal.ITIMER_REAL, self._patience)
        return self

    def __exit__(self, *error: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """The job has answered."""
        if self._patience:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _end(self, number: int, frame: FrameType | None) -> None:
        raise UnknownStreamError(f"no job answered within {self._patience:g} s")


def _parse_wait(layers: Layers) -> float | None:
    """Seconds to wait for the job's first answer: 0 for ever, None for no more than usual."""
    texts, _ = layers.texts("wait")
    if not texts:
        return None
    return layers.value("wait", seconds, None) if texts[-1] else 0.0


def _output(options: argparse.Namespace, layers: Layers) -> OutputOptions:
    formats = layers.value("output", choice("text", "raw", "jsonl"), "text")
    color = layers.value("color", choice("auto", "always", "never"), "auto")
    return OutputOptions(
        format=cast(Literal["text", "raw", "jsonl"], formats),
        timestamps=hasattr(options, "timestamps"),
        grep=layers.value("grep", str, None),
        color=cast(Literal["auto", "always", "never"], color),
        unfiltered=hasattr(options, "raw"),
    )


def _sources(options: argparse.Namespace) -> set[int]:
    wanted = {STDOUT} if hasattr(options, "stdout") else set()
    if hasattr(options, "stderr"):
        wanted.add(STDERR)
    return wanted or {STDOUT, STDERR}


def _start(options: argparse.Namespace, layers: Layers) -> Start:
    tail = layers.value("tail", lambda text: whole(text, MOST_LINES), None)
    since = layers.value("since", lambda text: moment(text, time.time()), None)
    from_start = hasattr(options, "from_start")
    if (tail is not None) + (since is not None) + from_start > 1:
        raise UsageError("only one of --tail, --since and --from-start")
    if tail is not None:
        return Start("tail", tail)
    if since is not None:
        return Start("since", since)
    return Start("offset", 0) if from_start else Start("rest")


def _who() -> str:
    """What others are told who holds the stream."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


class Reporter:
    """Tells the news that matter to a person, each once; called by the main thread."""

    def __init__(
        self,
        say: Say,
        progress: Progress | None,
        answered: Callable[[], None],
        *,
        tells_gaps: bool,
    ) -> None:
        self._say = say
        self._answered = answered
        self._progress = progress
        self._tells_gaps = tells_gaps
        self._troubled: set[str] = set()
        self._damaged = False
        self._state = "connecting"

    def take(self, notice: Notice) -> None:
        """Take news."""
        match notice:
            case notices.Connected(endpoint):
                if endpoint in self._troubled:
                    self._troubled.discard(endpoint)
                    self._tell(f"connected to {endpoint}")
            case notices.Reconnecting(endpoint, reason):
                if endpoint not in self._troubled:
                    self._troubled.add(endpoint)
                    self._tell(f"{reason}; trying again")
            case notices.Waiting():
                self._tell("waiting for the job")
            case notices.Draining():
                self._answered()
                self._tell("the job has ended; what it left in the broker follows")
            case notices.Stalled(silence):
                self._state = "stalled"
                self._tell(f"nothing was heard from the job for {silence:.0f} s; still asking")
            case notices.Resumed():
                self._state = "live"
                self._tell("the job is heard again")
            case notices.Hello():
                self._answered()
                self._state = "live"
            case notices.Attempt(epoch):
                if self._tells_gaps:
                    self._tell(f"attempt {epoch} of the job begins")
            case notices.Gap(source, _, length, reason):
                if self._tells_gaps:
                    self._tell(f"{length} bytes of {NAMES[source]} are missing: {reason}")
            case notices.Damaged():
                if not self._damaged:
                    self._damaged = True
                    self._tell("damaged or forged frames come: they are dropped "
                               "(is --key-file the same on both sides?)")  # fmt: skip
            case notices.Progress(received, _, lag):
                if self._progress is not None:
                    self._progress.update(received, lag, self._state)
            case notices.Verdicts(sources):
                for source, verdict in sources.items():
                    if verdict == Verdict.MISMATCH:
                        self._tell(f"{NAMES[source]}: {verdict.value}")

    def _tell(self, text: str) -> None:
        self._say(one_line(text))
