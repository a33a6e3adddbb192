"""The command line of msgpeek: what it takes, what it says, and its exit codes."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gridmad.cli import msgpeek, peek_parser
from gridmad.cli.peek_reports import size
from gridmad.peek.stream import STREAM

MAIN = "from gridmad.cli.msgpeek import main; main()"


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the account's settings nor its records take part."""
    for name in os.environ:
        if name.startswith("MSGPEEK_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of a command line."""

    def call(*words: str) -> tuple[int, str, str]:
        code = msgpeek.run(words)
        out, err = capfd.readouterr()
        return code, out, err

    return call


def program(*words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
        [sys.executable, "-c", MAIN, *words], text=True, timeout=60, **options
    )
    return done


# ---------------------------------------------------------------- options


def test_the_options_of_the_original() -> None:
    words = "-I 17 -H broker -P 61613 -U u -W p -F out.log -T 60"
    expected = {
        "command": None, "words": [], "id": "17", "host": ["broker"], "port": "61613",
        "user": "u", "password": "p", "file": "out.log", "timeout": "60",
    }  # fmt: skip
    assert vars(peek_parser.parse(words.split())) == expected
    for name in ("id", "host", "port", "user", "file", "timeout"):
        words = words.replace(f"-{name[0].upper()} ", f"--{name} ")
    words = words.replace("-W ", "--password ")
    assert vars(peek_parser.parse(words.split())) == expected


def test_the_command_of_wrap_is_what_follows_the_dashes() -> None:
    options = peek_parser.parse(["wrap", "-I", "17", "--", "a", "-I", "b", "--", "c"])
    assert options.words == ["a", "-I", "b", "--", "c"]
    assert options.id == "17"


def test_options_may_stand_before_the_command() -> None:
    options = peek_parser.parse(["-H", "a", "--log-level", "debug", "ls", "-o", "jsonl"])
    assert (options.host, options.log_level, options.output) == (["a"], "debug", "jsonl")


def test_wait_takes_seconds_or_none() -> None:
    assert peek_parser.parse(["--wait"]).wait == ""
    assert peek_parser.parse(["--wait", "5"]).wait == "5"
    assert "wait" not in peek_parser.parse([])


def test_the_time_to_wait_may_be_in_the_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As each option that takes a value."""
    monkeypatch.setenv("MSGPEEK_WAIT", "soon")
    code, _, err = run("-I", "17", "-H", "b")
    assert (code, "MSGPEEK_WAIT: 'soon' is no number of seconds" in err) == (2, True)


# ---------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which job? -I ID"),
        (["-I", "17"], "no broker is named: -H HOST"),
        (["-I", "a/b", "-H", "b"], "'a/b' is no stream id"),
        (["-I", "a\nb\x1b[31m", "-H", "b"], "is no stream id"),
        (["-I", "x" * 10_240, "-H", "b"], "is no stream id"),
        (["-I", "17", "-H", "a b"], "--host: 'a b' is no host name"),
        (["-I", "17", "-H", "a..b"], "--host: 'a..b' is no host name"),
        (["-I", "17", "-H", "b", "-P", "0"], "--port: '0' is no port"),
        (["-I", "17", "-H", "b", "-T", "soon"], "--timeout: 'soon' is no number of seconds"),
        (["-I", "17", "-H", "b", "-W", "p"], "a password without a user"),
        (["-I", "17", "-H", "b", "--tail", "-1"], "--tail: '-1' is no whole number"),
        (["-I", "17", "-H", "b", "--tail", "many"], "--tail: 'many' is no whole number"),
        (["-I", "17", "-H", "b", "--since", "x"], "--since: 'x' is no time"),
        (["-I", "17", "-H", "b", "--since", "1h", "--tail", "1"], "only one of"),
        (["-I", "17", "-H", "b", "--grep", "("], "--grep"),
        (["-I", "17", "-H", "b", "-F", "f", "-t"], "not with --timestamps"),
        (["-I", "17", "-H", "b", "--ca", "/absent"], "--ca '/absent': No such file"),
        (["-I", "17", "-H", "b", "--key-file", "/absent"], "'/absent': No such file"),
        (["-I", "17", "-H", "b", "--config", "/absent"], "'/absent': No such file"),
        (["-I", "17", "-H", "b", "--certificate-key", "k"], "needs --certificate"),
        (["17"], "there is no command '17'"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["-I"], "expected one argument"),
        (["-I", "17", "--", "x"], "-- is for msgpeek wrap"),
        (["-F", "f", "ls"], "--file is no option of msgpeek ls"),
        (["wrap", "-H", "b"], "no command: msgpeek wrap"),
        (["wrap", "-H", "b", "sleep", "1"], "unrecognized arguments: sleep 1"),
        (["wrap", "--", "true"], "no broker is named"),
        (["wrap", "-H", "b", "--spool-size", "x", "--", "true"], "--spool-size: 'x' is no size"),
        (["wrap", "-H", "b", "--redact", "(", "--", "true"], "--redact '('"),
        (["wrap", "-H", "b", "--epoch", "4294967296", "--", "true"], "--epoch"),
        (["ls"], "no broker is named"),
        (["ls", "-H", "b", "--collect", "1e9"], "--collect: '1e9' is no number of seconds"),
        (["--stdout", "wrap", "-H", "b", "--", "true"], "--stdout FILE has to stand behind wrap"),
        (["wrap", "-H", "b", "--lease", "1e6", "--", "true"], "--lease: '1e6' is no number"),
        (["wrap", "-H", "b", "--lease", "0.001", "--", "true"], "--lease: '0.001' is no number"),
        (["ls", "-H", "b", "--collect", "0"], "--collect: '0' is no number"),
        (["doctor", "-I", "../x", "-H", "b"], "is no stream id"),
        (["new", "x"], "'x' is no number of a job"),
        (["completion", "fish"], "invalid choice: 'fish'"),
    ],
)
def test_wrong_usage_is_told_in_one_line(run: Run, words: list[str], said: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("msgpeek: ")
    assert said in err
    assert err.count("\n") == 1
    assert err.removesuffix("\n").isprintable()
    assert len(err) < 500


def test_a_setting_of_the_environment_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSGPEEK_PORT", "x")
    code, _, err = run("-I", "17", "-H", "b")
    assert (code, err) == (2, "msgpeek: MSGPEEK_PORT: 'x' is no port from 1 to 65535\n")


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("words", [[], ["wrap"], ["ls"], ["doctor"], ["new"], ["completion"]])
def test_help(run: Run, words: list[str]) -> None:
    code, out, err = run(*words, "--help")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 100
    assert "msgpeek " in "".join(out.split("\n\n")[1:3])  # examples come first


def test_help_tells_every_exit_code(run: Run) -> None:
    _, out, _ = run("--help")
    for code in ("2", "75", "76", "124", "125", "126", "127", "130", "141"):
        assert re.search(rf"\b{code}  ", out), code


def test_version(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("msgpeek (gridmad) ")


@pytest.mark.parametrize("words", [["--help"], ["new"], ["completion", "bash"]])
def test_what_needs_no_broker_loads_no_library_of_it(words: list[str]) -> None:
    code = (
        "import sys; from gridmad.cli import msgpeek; msgpeek.run(sys.argv[1:]);"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert not {"stomp", "lz4", "tqdm", "ssl", "hypothesis"} & set(done.stderr.split())


# ---------------------------------------------------------------- small commands


def test_a_new_stream(run: Run) -> None:
    made = {run("new")[1] for _ in range(3)}
    assert len(made) == 3
    assert all(STREAM.fullmatch(one.strip()) for one in made)


def test_a_new_stream_for_a_number(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("new", "17")
    assert code == 0
    [file] = (tmp_path / "state/gridmad/peek/numbers").iterdir()
    assert (file.name, file.read_text()) == ("17", out)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(run: Run, shell: str) -> None:
    code, out, err = run("completion", shell)
    assert (code, err) == (0, "")
    for word in ("wrap", "doctor", "takeover"):
        assert word in out


def test_completion_works_in_bash() -> None:
    script = program("completion", "bash", capture_output=True).stdout
    ask = (
        'COMP_WORDS=(msgpeek wrap --hold); COMP_CWORD=2; COMP_LINE="msgpeek wrap --hold"; '
        'COMP_POINT=${#COMP_LINE}; _shtab_msgpeek; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True)
    assert done.stdout.strip() == "--hold-for-client"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (102_300, "99.9 KiB"),
     (1023 << 10, "1.0 MiB"), (500 << 20, "500 MiB"), ((1 << 63) - 1, "8.0 EiB")],
)  # fmt: skip
def test_sizes_for_people(count: int, text: str) -> None:
    assert size(count) == text


# ---------------------------------------------------------------- the program


def test_a_reader_that_has_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = program("--help", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        done = program("--help", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (125, "msgpeek: No space left on device\n")


def test_closed_streams_are_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", 'exec "$0" -c "$1" new <&- >&- 2>&-', sys.executable, MAIN], timeout=60
    )
    assert done.returncode == 0


def test_a_bug_is_one_line_and_its_traceback_a_matter_of_debugging(tmp_path: Path) -> None:
    code = (
        "from gridmad.cli import msgpeek\n"
        "def broken(*arguments): raise ZeroDivisionError('one\\nline')\n"
        "msgpeek._connect = broken\n"
        "msgpeek.main()\n"
    )
    command = [sys.executable, "-c", code, "-I", "17", "-H", "b"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1
    assert "ZeroDivisionError: one\\nline" in done.stderr
    done = subprocess.run([*command, "--log-level", "debug"], capture_output=True, text=True)
    assert "Traceback" in done.stderr
