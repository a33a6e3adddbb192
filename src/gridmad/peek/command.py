"""The command: how it is started, what becomes of signals, how it ended.

It stays in the process group of `msgpeek wrap`, as under `time` or `nice`: what a batch system
sends to the job's group reaches it directly (a SIGKILL or SIGSTOP, too), and a terminal's
job control works on both.  A signal that was sent to us by kill(2) is passed on; one that
the kernel sent, as for ^C, went to the whole group already.  A kill(2) of the whole group
cannot be told from one of us alone, and reaches the command twice.
"""

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gridmad.errors import GridmadError

PASSED_ON: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,  # some batch systems warn with it
    signal.SIGCONT,
)
ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""Those that ask us to end, when there is no command to pass them on to."""

# What Python ignores and programs expect to end them.
_DEFAULTS: Final = (signal.SIGPIPE, signal.SIGXFSZ)
_FROM_KERNEL: Final = 0x80  # si_code, asm-generic/siginfo.h


class CommandError(GridmadError):
    """The command cannot be started: 127 where there is none, 126 where it cannot be run."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Signals:
    """Takes this process's signals one by one instead of being interrupted by them.

    To be entered by the main thread before others are started, which then block them too.
    """

    def __init__(self) -> None:
        self._taken = {*PASSED_ON, signal.SIGCHLD}
        self.former: set[int] = set()
        """The mask that the command has to get."""

    def __enter__(self) -> Self:
        former = signal.pthread_sigmask(signal.SIG_BLOCK, self._taken)
        self.former = {int(number) for number in former}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self.wait(0) is not None:
            pass  # too late to act upon, and the exit code is the command's
        signal.pthread_sigmask(signal.SIG_SETMASK, self.former)

    def wait(self, timeout: float) -> signal.struct_siginfo | None:
        """The next signal, or None when none came for so many seconds."""
        return signal.sigtimedwait(self._taken, timeout)

    @staticmethod
    def nudge() -> None:
        """End the main thread's waiting, from any thread."""
        os.kill(os.getpid(), signal.SIGCHLD)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code, or the signal that ended it."""

    exit_code: int | None
    signal: int | None

    @property
    def status(self) -> int:
        """What a shell makes of it."""
        if self.signal is not None:
            return 128 + self.signal
        assert self.exit_code is not None
        return self.exit_code


class Command:
    """A process, started with the given descriptors as its standard output and error.

    Without one it gets ours.  CommandError when it cannot be started.
    """

    def __init__(
        self,
        words: Sequence[str],
        descriptors: Mapping[int, int],
        mask: set[int],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in descriptors.items()]
        try:
            self._process = os.posix_spawnp(
                words[0],
                list(words),
                os.environ if environment is None else environment,
                file_actions=actions,
                setsigmask=mask,
                setsigdef=_DEFAULTS,
            )
        except (OSError, ValueError) as error:
            raise _explain(words[0], error) from None
        self.ended: Ended | None = None

    def poll(self) -> Ended | None:
        """How it ended, if it has; never waits."""
        if self.ended is None:
            process, status = os.waitpid(self._process, os.WNOHANG)
            if process:
                code = os.waitstatus_to_exitcode(status)
                self.ended = Ended(code, None) if code >= 0 else Ended(None, -code)
        return self.ended

    def pass_on(self, info: signal.struct_siginfo) -> None:
        """Send it a signal that came to us, unless it got that itself."""
        if info.si_code != _FROM_KERNEL and self.ended is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, info.si_signo)


def _explain(name: str, error: OSError | ValueError) -> CommandError:
    """What a shell would say."""
    if not name:
        return CommandError("'': command not found", 127)
    if not isinstance(error, OSError):
        return CommandError(f"{name!r}: {error}", 126)
    place = Path(name) if "/" in name else None
    found = shutil.which(name) if place is None else name
    if error.errno == errno.ENOENT:
        if found and Path(found).exists():
            return CommandError(f"{found}: the interpreter in its first line is missing", 126)
        return CommandError(f"{name}: {'no such file' if place else 'command not found'}", 127)
    if place is not None and place.is_dir():
        return CommandError(f"{name}: is a directory", 126)
    if error.errno == errno.ENOEXEC:
        return CommandError(f"{name}: no program, and no script that begins with #!", 126)
    return CommandError(f"{name}: {error.strerror}", 126)
