"""`msgpeek`: a running job's output, live; and `msgpeek wrap`, which makes a job watchable.

Here a command line becomes a call, and what goes wrong becomes one line on stderr and an exit
code.  Libraries are imported by what needs them: --help and completion answer at once.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from gridmad.cli import peek_parser
from gridmad.errors import GridmadError, MissingDependencyError
from gridmad.logs import LEVELS, Logs, one_line
from gridmad.peek.errors import JobLostError
from gridmad.peek.settings import PREFIX, Layers
from gridmad.peek.values import choice, path

log = logging.getLogger(__name__)

EXIT_INTERNAL = 125
EXIT_PIPE = 128 + signal.SIGPIPE


class Interrupted(KeyboardInterrupt):
    """A signal asks for an orderly end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main() -> NoReturn:
    """The executable."""
    _open_standard_streams()
    _forget_coerced_locale()
    words = sys.argv[1:]
    own = words[: words.index("--")] if "--" in words else []
    code = run_unobtrusively(words) if "--unobtrusive" in own else run(words)
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    # Threads of a hanging broker must not hold up the end.
    os._exit(code)


def run(words: Sequence[str]) -> int:
    """The exit code for a command line; whatever goes wrong is one line on stderr."""
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # `msgpeek | head`: nobody is left to be told.
        code = EXIT_PIPE
    except GridmadError as error:
        code = EXIT_INTERNAL if isinstance(error, MissingDependencyError) else error.exit_code
        if code != EXIT_PIPE:
            say(str(error))
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        say(f"stopped by {signal.Signals(number).name}")
        code = 128 + number
    except OSError as error:
        name = f"{error.filename}: " if error.filename is not None else ""
        say(f"{name}{error.strerror or error}")
        code = EXIT_INTERNAL
    except Exception as error:  # noqa: BLE001 - a user gets a line, never a traceback
        say(f"a bug: {type(error).__name__}: {error} (--log-level debug shows where)")
        code = EXIT_INTERNAL
    return code


def run_unobtrusively(words: Sequence[str]) -> int:
    """As `run`, without a word; where the command cannot be watched this becomes the command."""
    try:
        return _dispatch(words, lambda _text: None)
    except JobLostError as error:
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 - the command counts, and nothing else
        log.debug("the command runs unwatched: %s", error)
    command = list(words[words.index("--") + 1 :])
    for name in ("USER", "PASSWORD"):
        os.environ.pop(PREFIX + name, None)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except (IndexError, OSError) as error:
        return 127 if isinstance(error, FileNotFoundError) else 126


def say(text: str) -> None:
    """One line on stderr, safe to show whatever is in it."""
    with contextlib.suppress(OSError):
        print(one_line(f"msgpeek: {text}"), file=sys.stderr, flush=True)


def _dispatch(words: Sequence[str], say: Callable[[str], None] = say) -> int:
    try:
        options = peek_parser.parse(words)
    except SystemExit:  # --help or --version
        return 0
    match options.command:
        case "new":
            return _new(options)
        case "completion":
            return _completion(options)
    layers = Layers(vars(options), os.environ)
    with _logging(layers):
        try:
            return _connect(options, layers, say)
        except (GridmadError, OSError):
            raise
        except Exception:
            log.debug("unexpected", exc_info=True)
            raise


def _connect(options: argparse.Namespace, layers: Layers, say: Callable[[str], None]) -> int:
    try:
        if options.command == "wrap":
            from gridmad.cli import peek_wrap

            return peek_wrap.wrap(options, layers, say)
        with _signals():
            if options.command is None:
                from gridmad.cli import peek_watch

                return peek_watch.watch(options, layers, say)
            from gridmad.cli import peek_reports

            report = peek_reports.ls if options.command == "ls" else peek_reports.doctor
            return report(options, layers, say)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in ("stomp", "lz4", "tqdm"):
            raise
        raise MissingDependencyError(library, "peek") from None


@contextlib.contextmanager
def _logging(layers: Layers) -> Iterator[None]:
    options = argparse.Namespace(
        log_level=layers.value("log-level", choice(*LEVELS), "warning"),
        log_format=layers.value("log-format", choice("text", "json"), "text"),
        log_file=layers.value("log-file", path, None),
    )
    # The thread that writes must take no signal: `wrap` waits for them in the main thread.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        logs = Logs(options, sys.stderr)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        yield
    finally:
        logs.close()


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise Interrupted once; the next one ends at once."""
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup
    ]

    def interrupt(number: int, frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_DFL)
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _new(options: argparse.Namespace) -> int:
    from gridmad.peek.stream import new_stream

    number = getattr(options, "number", None)
    if number is None:
        print(new_stream())
        return 0
    from gridmad.peek.registry import Registry, state_folder

    registry = Registry(state_folder(os.environ))
    print(registry.record(number))
    return 0


def _completion(options: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise MissingDependencyError("shtab", "peek") from None
    print(shtab.complete(peek_parser.build(), options.shell))
    return 0


def _forget_coerced_locale() -> None:
    """Python says LC_CTYPE=C.UTF-8 to its children where no locale is set (PEP 538); a command
    that is watched shall not be told either.
    """
    try:
        given = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return
    if not any(line.startswith(b"LC_CTYPE=") for line in given):
        os.environ.pop("LC_CTYPE", None)


def _open_standard_streams() -> None:
    """A standard stream that is closed becomes /dev/null, or the next file took its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
