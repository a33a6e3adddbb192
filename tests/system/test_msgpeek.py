"""msgpeek as a user runs it: whole programs, real brokers, exit codes and last lines."""

import hashlib
import json
import os
import pty
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest

from gridmad.peek.sender import RECONNECT
from gridmad.peek.stream import STREAM, new_stream
from tests.peek_user import PATIENCE, User, finish, last_line, read_until
from tests.services.pki import Authority
from tests.services.ports import reserve_port
from tests.services.stomp_server import StompServer


@pytest.fixture
def user(broker: StompServer, tmp_path: Path) -> Iterator[User]:
    one = User(broker, tmp_path)
    yield one
    one.close()


# ---------------------------------------------------------------- watching


def test_a_job_is_watched_live(user: User) -> None:
    waits, go_on = user.gate("go")
    job = user.wrap(f"echo one; echo problem >&2; {waits}; echo two; exit 3")
    client = user.start("--wait")
    assert read_until(client, b"one\n") == b"one\n"
    assert job.poll() is None
    go_on()
    code, out, err = finish(client)
    assert (code, out) == (3, "two\n")
    assert "problem\n" in err
    assert last_line(err) == "msgpeek: the job ended with exit code 3"
    assert finish(job)[:2] == (3, "one\ntwo\n")


def test_a_file_has_every_byte(user: User) -> None:
    script = "head -c 3000000 /dev/urandom | tee copy; seq 100000 | tee copy2 >&2"
    job = user.wrap(script, "--quiet")
    code, out, err = user.run("--wait", "-F", "out.log")
    assert (code, out) == (0, ""), err
    assert finish(job)[0] == 0
    for copy, got in (("copy", "out.log"), ("copy2", "out.log.err")):
        expected = hashlib.sha256((user.folder / copy).read_bytes()).digest()
        assert hashlib.sha256((user.folder / got).read_bytes()).digest() == expected


def test_after_the_job_what_it_left_is_shown(user: User) -> None:
    job = user.wrap("echo late; exit 5")
    assert finish(job)[0] == 5
    code, out, err = user.run()
    assert (code, out) == (5, "late\n")
    assert last_line(err) == "msgpeek: the job ended with exit code 5"


def test_only_the_end_of_what_a_job_left_is_shown(user: User) -> None:
    job = user.wrap("seq 100; echo problem >&2")
    assert finish(job)[0] == 0
    code, out, err = user.run("--tail", "2")
    assert (code, out) == (0, "99\n100\n")
    assert "problem" in err


def test_what_a_job_left_since_a_time_is_shown(user: User) -> None:
    job = user.wrap("echo early; sleep 2; date +%s > mark; sleep 1; echo late")
    assert finish(job)[0] == 0
    mark = int((user.folder / "mark").read_text())
    written = datetime.fromtimestamp(mark).isoformat()
    assert user.run("--since", written)[:2] == (0, "late\n")


def test_a_number_stands_for_a_stream(user: User) -> None:
    del user.environment["MSGPEEK_ID"]
    code, made, _ = user.run("new", "17")
    assert code == 0
    assert STREAM.fullmatch(made.strip())
    job = user.wrap("echo hello", "-I", made.strip())
    assert user.run("-I", "17", "--wait")[:2] == (0, "hello\n")
    assert finish(job)[0] == 0


def test_without_an_id_one_is_made_and_told(user: User) -> None:
    del user.environment["MSGPEEK_ID"]
    job = user.wrap("echo hello")
    assert job.stderr is not None
    told = job.stderr.readline().decode().split()
    assert told[:4] == ["msgpeek:", "watch", "with:", "msgpeek"]
    assert user.run(*told[4:], "--wait")[:2] == (0, "hello\n")


def test_only_what_is_wanted_is_shown(user: User) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done"
    for words, out, shown in (
        (["--stdout"], "out 1\nout 2\nout 3\n", False),
        (["--stderr"], "", True),
        (["--grep", "[2]$"], "out 2\n", False),
    ):
        user.environment["MSGPEEK_ID"] = new_stream()
        job = user.wrap(script, "--quiet")
        code, got, err = user.run("--wait", *words)
        assert (code, got) == (0, out)
        assert ("err 1\n" in err) == shown
        assert finish(job)[0] == 0


def test_json_lines(user: User) -> None:
    user.wrap("printf 'a\\nb'; printf 'c\\n' >&2", "--quiet")
    code, out, _ = user.run("--wait", "-o", "jsonl")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    found = sorted((one["source"], one["offset"], one["text"]) for one in lines)
    assert found == [("stderr", 0, "c"), ("stdout", 0, "a"), ("stdout", 2, "b")]


def test_escapes_of_the_job_do_not_reach_a_terminal(user: User) -> None:
    user.wrap("printf '\\033]0;owned\\007\\033[31mred\\033[2J\\n'", "--quiet")
    assert user.run("--wait")[1] == "\x1b[31mred\n"


# ---------------------------------------------------------------- who watches


def test_a_second_client_is_told_who_holds_the_stream_and_may_take_it(user: User) -> None:
    waits, go_on = user.gate("go")
    job = user.wrap(f"echo one; {waits}; echo two", "--quiet")
    first = user.start("--wait")
    read_until(first, b"one\n")
    code, _, err = user.run()
    assert code == 75
    assert "@" in last_line(err)
    second = user.start("--takeover")
    code, _, err = finish(first)
    assert code == 76
    assert last_line(err).startswith("msgpeek: ")
    go_on()
    code, out, _ = finish(second)
    assert code == 0
    assert out.endswith("two\n")
    assert finish(job)[0] == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_client_that_is_stopped_leaves_the_stream_to_others(
    user: User, number: signal.Signals, code: int
) -> None:
    waits, go_on = user.gate("go")
    user.wrap(f"echo one; {waits}; echo two", "--quiet")
    first = user.start("--wait")
    read_until(first, b"one\n")
    # Committed within a quarter of a second, so that the next one goes on behind it.
    time.sleep(1)
    first.send_signal(number)
    assert finish(first)[0] == code
    second = user.start()
    go_on()
    assert finish(second)[:2] == (0, "two\n")


def test_a_reader_that_has_gone_ends_the_client_quietly(user: User) -> None:
    waits, go_on = user.gate("go")
    user.wrap(f"echo one; {waits}; seq 100000; sleep 60", "--quiet")
    client = user.start("--wait")
    read_until(client, b"one\n")
    assert client.stdout is not None
    client.stdout.close()
    client.stdout = None
    go_on()
    code, _, err = finish(client)
    assert (code, err) == (141, "")


def test_a_job_side_that_dies_without_a_word_is_noticed(user: User) -> None:
    job = user.wrap("echo one; sleep 600", "--quiet")
    client = user.start("--wait", "-T", "3")
    read_until(client, b"one\n")
    job.kill()
    code, _, err = finish(client)
    assert code == 124
    assert last_line(err).startswith("msgpeek: ")


# ---------------------------------------------------------------- the job side


def test_a_signal_reaches_the_command_and_the_client(user: User) -> None:
    job = user.wrap("echo one; exec sleep 600", "--quiet")
    client = user.start("--wait")
    read_until(client, b"one\n")
    job.send_signal(signal.SIGTERM)
    assert finish(client)[0] == 143
    assert finish(job)[0] == 143


def test_the_password_is_for_msgpeek_alone(user: User, broker: StompServer) -> None:
    job = user.wrap('echo "${MSGPEEK_PASSWORD-none}"; cat /proc/$PPID/cmdline | tr "\\0" " "')
    _, out, _ = finish(job)
    assert out.startswith("none\n")
    assert broker.password not in out


def test_no_broker_is_no_trouble_for_the_command(user: User) -> None:
    user.environment["MSGPEEK_HOST"] = f"127.0.0.1:{reserve_port()}"
    job = user.wrap(": > done; exit 7", "--linger", "0.1")
    end = time.monotonic() + PATIENCE
    while not (user.folder / "done").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    code, _, err = finish(job)
    assert code == 7
    assert "cannot be reached" in err


def test_no_job_waits_for_a_broker_that_was_never_there(user: User) -> None:
    """With much time to linger: nothing can be left where there is nobody."""
    user.environment["MSGPEEK_HOST"] = f"127.0.0.1:{reserve_port()}"
    for script in ("echo text; exit 7", "exit 7"):
        began = time.monotonic()
        assert finish(user.wrap(script, "--linger", "60"))[0] == 7
        assert time.monotonic() - began < RECONNECT, "it waited as for one that may come back"


# ---------------------------------------------------------------- what can go wrong


def test_no_such_job(user: User) -> None:
    code, out, err = user.run()
    assert (code, out) == (127, "")
    assert "no job" in last_line(err)
    code, _, err = user.run("--wait", "0.5")
    assert code == 127
    assert "within 0.5 s" in last_line(err)


def test_a_wrong_password(user: User) -> None:
    user.environment["MSGPEEK_PASSWORD"] = "something-wrong"
    code, _, err = user.run()
    assert code == 126
    assert "something-wrong" not in err
    assert user.run("ls")[0] == 126
    assert user.run("doctor")[0] == 126


def test_nobody_listens(user: User) -> None:
    user.environment["MSGPEEK_HOST"] = f"127.0.0.1:{reserve_port()}"
    code, _, err = user.run()
    assert code == 125
    assert "cannot be reached" in last_line(err)
    assert user.run("ls")[0] == 125
    assert user.run("doctor")[0] == 125


def test_tls_is_verified(user: User, broker: StompServer) -> None:
    user.wrap("echo secret", "--quiet")
    user.environment["MSGPEEK_HOST"] = broker.tls_url
    other = Authority(user.folder / "other").ca
    for words in ([], ["--ca", str(other)]):
        code, _, err = user.run(*words)
        assert code == 126
        assert "certificate" in last_line(err)
    assert user.run("--ca", str(broker.ca), "--wait")[:2] == (0, "secret\n")


def test_a_file_that_cannot_be_written(user: User) -> None:
    user.wrap("echo hello; sleep 1", "--quiet")
    code, _, err = user.run("--wait", "-F", "absent/out.log")
    assert code in (2, 125)
    assert "absent/out.log" in last_line(err)


def test_a_key_has_to_be_the_same(user: User) -> None:
    for name, key in (("right", b"k" * 32), ("wrong", b"w" * 32)):
        (user.folder / name).write_bytes(key)
        (user.folder / name).chmod(0o600)
    waits, go_on = user.gate("go")
    user.wrap(f"echo hello; {waits}", "--quiet", "--key-file", "right")
    assert user.run("--key-file", "wrong")[:2] == (127, "")
    assert user.run()[:2] == (127, "")
    client = user.start("--key-file", "right", "--wait")
    read_until(client, b"hello\n")
    go_on()
    assert finish(client)[0] == 0


# ---------------------------------------------------------------- passwords


def test_a_password_on_the_command_line_is_warned_of(user: User, broker: StompServer) -> None:
    del user.environment["MSGPEEK_PASSWORD"]
    user.wrap("echo hello", "-W", broker.password, "--quiet")
    code, out, err = user.run("-W", broker.password, "--wait")
    assert (code, out) == (0, "hello\n")
    assert "command line can be seen by others" in err.splitlines()[0]


def test_a_password_is_asked_for(user: User, broker: StompServer) -> None:
    user.wrap("echo hello", "--quiet")
    del user.environment["MSGPEEK_PASSWORD"]
    controller, terminal = pty.openpty()
    client = user.start("-W", "-", "--wait", stdin=terminal)
    assert client.stderr is not None
    assert os.read(client.stderr.fileno(), 100) == b"Password: "
    os.write(controller, broker.password.encode() + b"\n")
    code, out, err = finish(client)
    os.set_blocking(controller, False)
    echoed = b""
    with suppress(BlockingIOError):
        echoed = os.read(controller, 100)
    os.close(terminal)
    os.close(controller)
    assert (code, out) == (0, "hello\n"), err
    assert broker.password.encode() not in echoed


# ---------------------------------------------------------------- ls and doctor


def test_ls(user: User) -> None:
    waits, go_on = user.gate("go")
    job = user.wrap(f"echo hello; {waits}", "--quiet", "--name", "my\x1b[31mjob")
    hidden = user.wrap(waits, "--unlisted", "-I", "hidden")
    client = user.start("--wait")
    read_until(client, b"hello\n")
    code, out, err = user.run("ls")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == [
        "STREAM", "NAME", "HOST", "BEGAN", "STDOUT", "STDERR", "STATE"
    ]  # fmt: skip
    [line] = [line for line in out.splitlines() if line.startswith(user.stream)]
    assert "\x1b" not in out
    assert "6 B" in line
    assert "running, watched by " in line
    assert "hidden" not in out
    _, out, _ = user.run("ls", "-o", "jsonl")
    [one] = [one for one in map(json.loads, out.splitlines()) if one["stream"] == user.stream]
    assert one["end"] == {"1": 6, "2": 0}
    code, out, _ = user.run("doctor", "-I", user.stream)
    assert code == 0
    assert out.splitlines()[-1].startswith("ok       job")
    go_on()
    for process in (client, job, hidden):
        assert finish(process)[0] == 0


def test_the_doctor_asks_for_the_password_once(user: User, broker: StompServer) -> None:
    password = user.folder / "password"
    password.write_text(broker.password + "\n")
    del user.environment["MSGPEEK_PASSWORD"]
    with password.open("rb") as stdin:
        client = user.start("doctor", "-I", "nobody", "-W", "-", stdin=stdin.fileno())
        code, out, _ = finish(client)
    assert code == 127
    assert out.splitlines()[-1].startswith("FAILED   job")


def test_the_doctor_says_which_broker_it_looks_at(user: User, broker: StompServer) -> None:
    absent = f"127.0.0.1:{reserve_port()}"
    user.environment["MSGPEEK_HOST"] += f",{absent}"
    code, out, _ = user.run("doctor")
    lines = out.splitlines()
    assert code == 125
    assert lines[0] == f"{broker.address}:{broker.stomp_port}"
    failed = [line.split()[1] for line in lines[lines.index(absent) :] if "FAILED" in line]
    assert failed == ["connect"]


def test_reports_for_who_always_watches_raw(user: User) -> None:
    user.environment["MSGPEEK_OUTPUT"] = "raw"
    assert user.run("ls")[:2] == (0, "")
    assert user.run("doctor", "-o", "jsonl", "-I", "nobody")[1].startswith("{")


def test_doctor(user: User) -> None:
    del user.environment["MSGPEEK_ID"]
    code, out, err = user.run("doctor", "-o", "jsonl")
    assert (code, last_line(err)) == (0, "msgpeek: everything is as it should be")
    assert {json.loads(line)["verdict"] for line in out.splitlines()} == {"ok", "skipped"}
    code, out, _ = user.run("doctor", "-I", "nobody")
    assert code == 127
    assert out.splitlines()[-1].startswith("FAILED   job")
