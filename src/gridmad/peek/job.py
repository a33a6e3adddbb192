"""The job side: runs a command so that its output can be watched.

    pipe or file -> reader thread -> Intake -> Spool -> sender thread -> broker

The command, and what it prints, is served first: readers wait for the spool only where the
job's owner asked for that, and for the broker never.  No trouble with the view changes how
the command runs or what it returns.
"""

import itertools
import logging
import os
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from gridmad.peek.broker import Connection, Endpoint, Login
from gridmad.peek.command import ENDING, Command, CommandError, Ended, Signals
from gridmad.peek.errors import JobLostError
from gridmad.peek.follow import Follower
from gridmad.peek.frame import Codec, Source
from gridmad.peek.intake import Intake
from gridmad.peek.producer import LEASE, Identity, Producer
from gridmad.peek.reader import Output, PipeReader, new_pipe
from gridmad.peek.redaction import compile_patterns, known_secrets, new_redactor
from gridmad.peek.sender import PARKING, RECONNECT, Sender
from gridmad.peek.spool import Spool
from gridmad.peek.stream import Destinations

LOGGER = logging.getLogger(__name__)

LINGER: Final = 30.0
SPOOL_SIZE: Final = 1 << 30
CLOSE: Final = 2.0
"""Seconds for good-bye to the broker."""
HURRY: Final = 5.0
"""Seconds that are left after a signal to end, when the command has ended already."""
LONG: Final = 3600.0
MAX_TOLD: Final = 65_536
"""Bytes at the end of a file that are searched for an exit code."""

_STATUS: Final = re.compile(rb"^EXIT_STATUS=([0-9]{1,3})$", re.MULTILINE)


@dataclass
class JobOptions:
    """What `msgpeek wrap` was asked for.  Times in seconds, sizes in bytes."""

    stream: str
    epoch: int
    endpoints: Sequence[Endpoint]
    login: Login
    destinations: Destinations
    command: list[str]
    key: bytes | None = field(default=None, repr=False)
    name: str = ""
    follow_stdout: Path | None = None
    """A file that is followed instead of the command's own output."""
    follow_stderr: Path | None = None
    follow_status: Path | None = None
    """A file whose last line EXIT_STATUS=N is told as the exit code."""
    stdout: Path | None = None
    """Where the output goes beside the view, instead of our own."""
    stderr: Path | None = None
    quiet: bool = False
    """The output goes nowhere else."""
    hold_for_client: bool = False
    """Start the command only when a client has begun."""
    linger: float = LINGER
    """How long a client that is attached at the end may take for the rest."""
    lease: float = LEASE
    spool_folder: Path | None = None
    spool_size: int = SPOOL_SIZE
    when_full: Literal["gap", "block"] = "gap"
    park_size: int | None = None
    """What may be left in the broker; None: 64 MiB of a stream that was watched, or 8 MiB."""
    rate: int | None = None
    """Bytes a second to the broker."""
    redact: Sequence[bytes] = ()
    """Regular expressions of what is masked."""
    listed: bool = True


def run(options: JobOptions) -> int:
    """Run the command to its end; its exit code, or 128 and the signal that ended it.

    127 or 126 where it cannot be started.  UsageError where a file for its output cannot be
    written, or an option makes no sense.  JobLostError where what this raises is raised after
    the command was started, and only then.
    """
    outputs = _outputs(options)
    with Signals() as signals:
        job = _Job(options, outputs, signals)
        try:
            return job.run()
        except Exception as error:
            if not job.has_started:
                raise
            raise JobLostError(error) from error


def _outputs(options: JobOptions) -> dict[int, Output]:
    """Where the output of each pipe goes beside the view."""
    outputs: dict[int, Output] = {}
    places = (
        (Source.STDOUT, options.follow_stdout, options.stdout, "stdout"),
        (Source.STDERR, options.follow_stderr, options.stderr, "stderr"),
    )
    for source, followed, path, name in places:
        if followed is not None:
            continue
        if path is not None:
            outputs[source] = Output.to_file(path)
        elif not options.quiet:
            outputs[source] = Output(int(source), name)
    return outputs


def told_status(file: Path) -> Ended | None:
    """What the last line EXIT_STATUS=N near the end of a file says; None where there is none."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - MAX_TOLD))
            codes = _STATUS.findall(stream.read(MAX_TOLD))
    except OSError:
        return None
    return Ended(int(codes[-1]), None) if codes and int(codes[-1]) < 256 else None


class _Job:
    def __init__(self, options: JobOptions, outputs: dict[int, Output], signals: Signals) -> None:
        self._options = options
        self._outputs = outputs
        self._signals = signals
        self._followed = {
            source: path
            for source, path in (
                (int(Source.STDOUT), options.follow_stdout),
                (int(Source.STDERR), options.follow_stderr),
            )
            if path is not None
        }
        sources = (int(Source.STDOUT), int(Source.STDERR))
        codec = Codec(options.stream, options.key)
        # A file waits to be read on; a pipe makes the command wait.
        is_patient = options.when_full == "block" or len(self._followed) == len(sources)
        self._spool = Spool(options.spool_folder, options.spool_size, is_blocking=is_patient)
        now = time.monotonic()
        identity = Identity(
            stream=options.stream,
            epoch=options.epoch,
            name=options.name,
            host=socket.gethostname(),
            began=time.time_ns() // 1_000_000,
            sources=sources,
        )
        self._producer = Producer(
            identity, codec, self._spool, now, lease=options.lease, park_size=options.park_size
        )
        self._sender = Sender(
            self._producer,
            self._spool,
            options.destinations,
            rate=options.rate,
            linger=options.linger,
            listed=options.listed,
            changed=signals.nudge,
        )
        self._sequence = itertools.count()
        patterns = compile_patterns(options.redact)
        secrets = known_secrets(os.environ, options.login.password, options.key)
        self._intakes = {
            source: Intake(
                source,
                options.epoch,
                codec,
                self._spool,
                self._sequence,
                self._sender.wake,
                new_redactor(secrets, patterns),
            )
            for source in sources
        }
        self._readers: list[PipeReader | Follower] = []
        self.has_started = False
        """The command was, or at least it is not known that it was not."""

    def run(self) -> int:
        options = self._options
        connection = Connection(
            options.endpoints, options.login, self._sender, name=f"job {options.stream[:8]}"
        )
        connection.start()
        self._sender.serve(connection)
        reason = None
        try:
            ended = self._hold() if options.hold_for_client else None
            if ended is not None:
                reason = "the job was ended before a client came"
            else:
                ended = self._run_command()
        except CommandError as error:
            LOGGER.error("%s", error)
            reason = str(error)
            ended = Ended(error.exit_code, None)
        self._read_to_the_end()
        self._finish(ended, reason)
        connection.close(CLOSE if connection.is_connected else 0.0)
        return ended.status

    def _hold(self) -> Ended | None:
        """Wait for a client; how this was ended, if it was."""
        while not self._sender.has_begun and self._sender.is_alive():
            info = self._signals.wait(LONG)
            if info is not None and info.si_signo in ENDING:
                return Ended(None, info.si_signo)
        return None

    def _run_command(self) -> Ended:
        pipes = {source: new_pipe() for source in self._intakes if source not in self._followed}
        self.has_started = True
        try:
            command = Command(
                self._options.command,
                {source: writing for source, (_, writing, _) in pipes.items()},
                self._signals.former,
            )
        except CommandError:
            for reading, _, _ in pipes.values():
                os.close(reading)
            raise
        finally:
            for _, writing, _ in pipes.values():
                os.close(writing)
        for source, (reading, _, size) in pipes.items():
            self._readers.append(
                PipeReader(reading, size, self._intakes[source], self._outputs.get(source))
            )
        for source, path in self._followed.items():
            self._readers.append(Follower(path, self._intakes[source]))
        for reader in self._readers:
            reader.start()
        while True:
            info = self._signals.wait(LONG)
            ended = command.poll()
            if ended is not None:
                return ended
            if info is not None:
                command.pass_on(info)

    def _read_to_the_end(self) -> None:
        """Have the readers finish; a spool that makes them wait does so no longer than `linger`."""
        for reader in self._readers:
            reader.end()
        give_up = time.monotonic() + self._options.linger
        abandon = float("inf")
        while any(reader.is_alive() for reader in self._readers) and time.monotonic() < abandon:
            if not self._sender.is_held or time.monotonic() >= give_up:
                self._spool.release()
            for reader in self._readers:
                reader.join(0.05)
            info = self._signals.wait(0)
            if info is not None and info.si_signo in ENDING:
                # Whoever should take our own output may not do so at all.
                give_up, abandon = 0.0, time.monotonic() + HURRY
        for reader in self._readers:
            if isinstance(reader, PipeReader) and not reader.is_alive():
                reader.close()
                if reader.was_cut_off:
                    LOGGER.warning(
                        "the command left a process behind that holds its output open; "
                        "what that writes from now on is lost"
                    )

    def _finish(self, ended: Ended, reason: str | None) -> None:
        """Let the client have the rest, or park it."""
        read = not any(reader.is_alive() for reader in self._readers)
        digests = {
            source: intake.digest if read else None for source, intake in self._intakes.items()
        }
        sequence = next(self._sequence)
        if self._options.follow_status is not None and ended.signal is None:
            ended = told_status(self._options.follow_status) or ended

        def finish(now: float) -> None:
            self._producer.finish(
                sequence,
                digests,
                now,
                exit_code=ended.exit_code,
                signal=ended.signal,
                reason=reason,
            )

        self._sender.finish(finish)
        give_up = time.monotonic() + self._options.linger + RECONNECT + PARKING
        while self._sender.is_alive() and time.monotonic() < give_up:
            info = self._signals.wait(0.5)
            if info is not None and info.si_signo in ENDING:
                self._sender.hurry()
                give_up = min(give_up, time.monotonic() + HURRY)
        if self._sender.is_alive():
            LOGGER.warning(
                "the broker takes nothing: %d bytes that nobody has got are lost",
                self._producer.backlog,
            )
