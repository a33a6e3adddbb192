"""The options of `msgpeek`: what `--help` shows, and what completion knows.

Values stay texts here; gridmad.peek.settings checks them, since the environment and the
configuration file may hold them as well.
"""

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from gridmad import __version__
from gridmad.errors import UsageError
from gridmad.logs import LEVELS

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

SHELLS: Final = ("bash", "zsh", "tcsh")
DEFAULT_COLLECTION: Final = 2.0
"""Seconds that `msgpeek ls` waits for answers."""

_EXCERPT: Final = 200

DESCRIPTION: Final = """\
Shows the output of a running job, live, through a message broker.

  the job:  msgpeek wrap -I 17 -H broker.example.org -- ./simulate --steps 1000
  you:      msgpeek -I 17 -H broker.example.org
            msgpeek -I 17 -H broker.example.org -F out.log     to a file; can be resumed
            msgpeek -I 17 -H stomp+ssl://broker.example.org -U me -W -   with TLS and a login
            msgpeek ls -H broker.example.org                   which jobs can be watched
            msgpeek doctor -H broker.example.org               why it does not work
"""
EPILOG: Final = """\
environment and file:
  An option --like-this with a value may be given as MSGPEEK_LIKE_THIS, too, and the
  options of the connection in ~/.config/gridmad/msgpeek.toml:
      host = ["stomp+ssl://one.example.org", "two.example.org:61613"]
      user = "me"
      password-file = "~/.config/gridmad/password"
  An option wins over the environment, the environment over the file.

exit codes:
  the job's own (128+n when signal n ended it), or
    2  wrong usage                          124  nothing was heard for the time-out
   75  another client holds the stream      125  the broker is unreachable or lost, a file
   76  another client took it over               cannot be written, or a bug
  130  Ctrl-C (128+n: signal n)             126  login, permission or TLS refused
  141  the reader of the output has gone    127  no such job
  The last line on stderr says which.
"""
WRAP_DESCRIPTION: Final = """\
Runs COMMAND and lets `msgpeek` watch what it writes.  The command gets the stdin, environment
and signals of this program, which ends with the command's exit code whatever happens to the
broker.

  msgpeek wrap -H broker.example.org -- ./simulate --steps 1000
  msgpeek wrap -I 17 -H broker.example.org --follow-stdout run.log -- sbatch --wait run.sh
"""
WRAP_EPILOG: Final = """\
Sizes: 4096, 64k, 64M, 1GiB (powers of 1024), 64MB (of 1000).

exit codes:
  the command's own, 128+n when signal n ended it; before it is started, 2 for wrong usage and
  125 where a library is missing.  A broker that cannot be reached keeps no command waiting.
"""
LS_DESCRIPTION: Final = """\
Asks every job behind the brokers who it is, and lists those that answer.

  msgpeek ls -H broker.example.org
  msgpeek ls -H broker.example.org -o jsonl | jq .stream
"""
DOCTOR_DESCRIPTION: Final = """\
Checks the way to each broker: name, connection, TLS, login, heart-beat, permissions, the round
trip of a chunk and the largest message.  Each is one line: ok, FAILED or skipped, and what to do.

  msgpeek doctor -H stomp+ssl://broker.example.org -U me -W -
"""
NEW_DESCRIPTION: Final = """\
Prints the id of a new stream: 128 random bits, since to know it is permission to watch it.

  id=$(msgpeek new)       give it to both sides: -I $id
  msgpeek new 17          ... and on this account, 17 means it: msgpeek -I 17
"""


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one short line; what is not given does not appear in the result."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            formatter_class=_Formatter,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            add_help=False,
            **options,
        )

    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        """Argparse's own one keeps it to itself when nothing can be written."""
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        short = message[:_EXCERPT] + ("..." if len(message) > _EXCERPT else "")
        short = re.sub(r"argument COMMAND: invalid choice: (.*) \(choose from .*",
                       r"there is no command \1", short)  # fmt: skip
        raise UsageError(f"{short} ({self.prog} --help tells the options)")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=96)


class _Options(Protocol):
    """A parser or a group of its options."""

    def add_argument(self, *names: str, **options: Any) -> argparse.Action: ...


def parse(words: Sequence[str]) -> argparse.Namespace:
    """What the command line gives, and nothing else; `command` is None where there is none, and
    `words` is what follows `--`.

    UsageError for a mistake, SystemExit after --help and --version.
    """
    parser = build()
    own, following = list(words), None
    if "--" in own:
        place = own.index("--")
        own, following = own[:place], own[place + 1 :]
    options = parser.parse_args(own)
    options.command = getattr(options, "command", None)
    options.words = following or []
    if following is not None and options.command != "wrap":
        raise UsageError("-- is for msgpeek wrap [options] -- COMMAND")
    if options.command is not None:
        _refuse_foreign(parser, options)
    return options


def _refuse_foreign(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """UsageError for an option of watching that stands before another command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            own = {one.dest: one for one in action.choices[options.command]._actions}
            for other in parser._actions:
                if other is action or other.dest not in options:
                    continue
                name = other.option_strings[-1]
                if other.dest not in own:
                    raise UsageError(f"{name} is no option of msgpeek {options.command}")
                # --stdout, which takes a file behind `wrap` and is a switch without it.
                if own[other.dest].nargs is None and getattr(options, other.dest) is True:
                    raise UsageError(f"{name} FILE has to stand behind {options.command}")


def build() -> argparse.ArgumentParser:
    """The parser of the whole program."""
    parser = _Parser(
        prog="msgpeek",
        usage="msgpeek -I ID -H HOST [options]\n       msgpeek COMMAND [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(
        dest="command",
        metavar="COMMAND",
        title="commands",
        description="msgpeek COMMAND --help tells more",
        parser_class=_Parser,
    )
    what = parser.add_argument_group("what to watch")
    _add_id(what, "the job's number or stream id")
    what.add_argument("--tail", metavar="N", help="begin with the last N lines of each source")
    what.add_argument(
        "--since", metavar="TIME", help="begin at TIME: 10m, '2h ago' or 2026-11-20T12:00"
    )
    what.add_argument(
        "--from-start",
        action="store_true",
        help="begin with the oldest byte there is (default: with what nobody has taken yet)",
    )
    what.add_argument("--stdout", action="store_true", help="only the job's stdout")
    what.add_argument("--stderr", action="store_true", help="only the job's stderr")
    what.add_argument("--takeover", action="store_true", help="take the stream from who holds it")
    what.add_argument(
        "--wait",
        nargs="?",
        const="",
        metavar="SECONDS",
        help="wait for a job that has not begun (without SECONDS: for ever)",
    )
    what.add_argument(
        "-T",
        "--timeout",
        metavar="SECONDS",
        help="end when nothing was heard for so long (default: 120)",
    )
    how = parser.add_argument_group("how to show it")
    how.add_argument(
        "-F",
        "--file",
        metavar="FILE",
        help="write to FILE and FILE.err instead; started again, it goes on where it ended",
    )
    how.add_argument(
        "-o",
        "--output",
        choices=("text", "raw", "jsonl"),
        help="text for people, raw bytes, or a JSON object a line (default: text)",
    )
    how.add_argument("-t", "--timestamps", action="store_true", help="show when a line was read")
    how.add_argument("--grep", metavar="RE", help="only lines that match this regular expression")
    how.add_argument(
        "--color", choices=("auto", "always", "never"), help="(default: auto; see NO_COLOR)"
    )
    how.add_argument(
        "--raw",
        action="store_true",
        help="let every escape sequence pass: the job then controls your terminal",
    )
    how.add_argument("--progress", action="store_true", help="bytes, rate and lag, on a terminal")
    _add_connection(parser)
    _add_general(parser)
    _add_wrap(commands)
    _add_ls(commands)
    _add_doctor(commands)
    _add_new(commands)
    _add_completion(commands)
    return parser


Commands = Any  # argparse's own type of this is private


def _add_wrap(commands: Commands) -> None:
    parser = commands.add_parser(
        "wrap",
        usage="msgpeek wrap [options] -- COMMAND [ARGUMENTS]",
        description=WRAP_DESCRIPTION,
        epilog=WRAP_EPILOG,
        help="run a command so that its output can be watched",
    )
    stream = parser.add_argument_group("the stream")
    _add_id(stream, "its number or stream id (default: a new one, told on stderr)")
    stream.add_argument(
        "--name", metavar="TEXT", help="shown by `msgpeek ls` (default: the command's)"
    )
    stream.add_argument(
        "--epoch",
        metavar="N",
        help="the attempt: a greater one starts anew, the same continues (default: now, the time "
        "in seconds; with --follow-..., $GW_RESTARTED or 0)",
    )
    stream.add_argument("--unlisted", action="store_true", help="do not answer `msgpeek ls`")
    stream.add_argument(
        "--unobtrusive",
        action="store_true",
        help="say nothing, and where the command cannot be watched, just run it",
    )
    output = parser.add_argument_group("the output")
    for source in ("stdout", "stderr"):
        output.add_argument(
            f"--follow-{source}",
            metavar="FILE",
            help=f"watch FILE, which something else writes, as its {source}",
        )
    output.add_argument(
        "--follow-status",
        metavar="FILE",
        help="tell who watches the exit code that the last line EXIT_STATUS=N of FILE says, as "
        "GridWay's wrapper writes it, instead of the command's",
    )
    for source in ("stdout", "stderr"):
        output.add_argument(
            f"--{source}",
            metavar="FILE",
            help=f"write the command's {source} to FILE instead of this program's",
        )
    output.add_argument("--quiet", action="store_true", help="pass nothing on to stdout and stderr")
    output.add_argument(
        "--redact",
        action="append",
        metavar="RE",
        help="mask what matches before it leaves this machine (repeatable)",
    )
    output.add_argument("--rate", metavar="SIZE", help="send at most SIZE a second")
    delivery = parser.add_argument_group("delivery")
    delivery.add_argument(
        "--hold-for-client", action="store_true", help="start the command when somebody watches"
    )
    delivery.add_argument(
        "--spool-folder",
        metavar="FOLDER",
        help="where output is kept until it was taken (default: a temporary one)",
    )
    delivery.add_argument("--spool-size", metavar="SIZE", help="how much of it (default: 1GiB)")
    delivery.add_argument(
        "--when-full",
        choices=("gap", "block"),
        help="then drop the oldest (gap, the default) or stop the command (block)",
    )
    delivery.add_argument(
        "--linger", metavar="SECONDS", help="let a client have so long for the rest (default: 30)"
    )
    delivery.add_argument(
        "--park",
        metavar="SIZE",
        help="then leave so much in the broker, for a day (default: 64M, 8M if nobody watched)",
    )
    delivery.add_argument(
        "--lease",
        metavar="SECONDS",
        help="who is silent for so long loses the stream (default: 30)",
    )
    _add_connection(parser)
    _add_general(parser)


def _add_ls(commands: Commands) -> None:
    parser = commands.add_parser(
        "ls",
        usage="msgpeek ls -H HOST [options]",
        description=LS_DESCRIPTION,
        help="list the jobs that can be watched",
    )
    parser.add_argument(
        "--collect",
        metavar="SECONDS",
        help=f"how long to wait for answers (default: {DEFAULT_COLLECTION:g})",
    )
    _add_report(parser)
    _add_connection(parser)
    _add_general(parser)


def _add_doctor(commands: Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        usage="msgpeek doctor -H HOST [options]",
        description=DOCTOR_DESCRIPTION,
        help="check the way to the broker, step by step",
    )
    _add_id(parser, "also check that this job answers")
    _add_report(parser)
    _add_connection(parser)
    _add_general(parser)


def _add_new(commands: Commands) -> None:
    parser = commands.add_parser(
        "new",
        usage="msgpeek new [NUMBER]",
        description=NEW_DESCRIPTION,
        help="make the id of a new stream",
    )
    parser.add_argument("number", nargs="?", metavar="NUMBER", help="a job's number that means it")
    _add_general(parser)


def _add_completion(commands: Commands) -> None:
    parser = commands.add_parser(
        "completion",
        usage="msgpeek completion {bash,zsh,tcsh}",
        description='Write the completion for a shell; for bash: eval "$(msgpeek completion bash)"',
        help="write the completion for a shell",
    )
    parser.add_argument("shell", choices=SHELLS)
    _add_general(parser)


def _add_id(options: _Options, text: str) -> None:
    options.add_argument("-I", "--id", metavar="ID", help=text)


def _add_report(options: _Options) -> None:
    options.add_argument(
        "-o", "--output", choices=("text", "jsonl"), help="a table or a JSON object a line"
    )


def _add_connection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the broker")
    group.add_argument(
        "-H",
        "--host",
        action="append",
        metavar="HOST",
        help="HOST, HOST:PORT, stomp://HOST or stomp+ssl://HOST; more separated by commas or with "
        "another -H",
    )
    group.add_argument(
        "-P", "--port", metavar="PORT", help="where a host has none (default: 61613, TLS 61614)"
    )
    group.add_argument("-U", "--user", metavar="USER", help="the name to log in with")
    group.add_argument(
        "-W",
        "--password",
        metavar="PASSWORD",
        help="others can see it (ps): better - to be asked, --password-file or MSGPEEK_PASSWORD",
    )
    group.add_argument("--password-file", metavar="FILE", help="its first line is the password")
    group.add_argument(
        "--ca", metavar="FILE", help="trust these certificates instead of the system's"
    )
    group.add_argument("--certificate", metavar="FILE", help="the client's certificate")
    group.add_argument("--certificate-key", metavar="FILE", help="its key, where it has a file")
    group.add_argument("--vhost", metavar="NAME", help="the broker's virtual host")
    group.add_argument(
        "--key-file",
        metavar="FILE",
        help="the stream's key: 16 to 64 bytes, raw or hexadecimal, the same on both sides",
    )


def _add_general(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("general")
    group.add_argument("-h", "--help", action="help", help="show this")
    group.add_argument("--version", action="version", version=f"msgpeek (gridmad) {__version__}")
    group.add_argument(
        "--config",
        metavar="FILE",
        help="(default: $MSGPEEK_CONFIG or ~/.config/gridmad/msgpeek.toml)",
    )
    group.add_argument("--log-level", choices=LEVELS, help="(default: warning)")
    group.add_argument("--log-format", choices=("text", "json"), help="(default: text)")
    group.add_argument("--log-file", metavar="FILE", help="append to FILE instead of stderr")
