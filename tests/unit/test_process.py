"""What gwd leaves to its drivers, and what they make of it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gridmad import process
from gridmad.errors import UsageError


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        ([""], []),
        (["  \t "], []),
        (["-s host -q (a=b) -l etc/x"], ["-s", "host", "-q", "(a=b)", "-l", "etc/x"]),
        (["-q '(a = b)' \"c d\" e\\ f"], ["-q", "(a = b)", "c d", "e f"]),
        (["-q", "(a = b)"], ["-q", "(a = b)"]),
        (["-q", ""], ["-q", ""]),
        (["-u ''"], ["-u", ""]),
        (["a;b `c` $(d) $HOME *"], ["a;b", "`c`", "$(d)", "$HOME", "*"]),
    ],
)
def test_arguments_come_in_one_word_or_many(words: list[str], expected: list[str]) -> None:
    assert process.arguments(words) == expected


def test_an_open_quote_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot be split"):
        process.arguments(["-q 'open"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB=2\n", {"A": "1", "B": "2"}),
        ("A=1\nA=2", {"A": "2"}),
        ("export A=1", {"A": "1"}),
        ("  A=1  \n# B=2\n\nC=3 # why", {"A": "1", "C": "3"}),
        ("A='two words'\nB=\"x y\"", {"A": "two words", "B": "x y"}),
        ("A=\nB=''", {"A": "", "B": ""}),
        ("A=$HOME/x\nB=${HOME}y\nC=$A", {"A": "/h/x", "B": "/hy", "C": "/h/x"}),
        ("A='$HOME'", {"A": "$HOME"}),
        ('A="$HOME z"', {"A": "/h z"}),
        ("A=$NONE", {"A": ""}),
        ("A=a=b", {"A": "a=b"}),
    ],
)
def test_gwrc_files_set_variables(text: str, expected: dict[str, str]) -> None:
    assert process.parse_gwrc(text, {"HOME": "/h"}) == expected


@pytest.mark.parametrize(
    "line",
    [
        "A=$(touch never)", "A=`touch never`", "A=1 B=2", "A=two words", "rm -rf x", "A='open",
        "1A=2", "A B=2", "if true; then", "source other", "A=1; touch never",
        "A=a\0b",
    ],
)  # fmt: skip
def test_gwrc_lines_that_are_no_assignments_are_passed_over(
    line: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert process.parse_gwrc(f"{line}\nZ=1\n", {}, "etc/gwrc") == {"Z": "1"}
    assert "etc/gwrc:1: no plain VAR=value line" in caplog.text


def test_gwrc_files_are_read_in_order_and_the_last_wins(tmp_path: Path) -> None:
    (tmp_path / "gw/etc/gridway").mkdir(parents=True)
    (tmp_path / "gw/etc/gwrc").write_text("A=1\nB=1\nC=1\n")
    (tmp_path / "gw/etc/gridway/gwrc").write_text("B=2\nC=2\n")
    (tmp_path / ".gwrc").write_text("C=$B$A\n")
    environment = {"HOME": str(tmp_path), "A": "0"}
    process.set_up_environment(str(tmp_path / "gw/bin/gw_im_mad_x"), environment)
    assert environment == {
        "HOME": str(tmp_path), "GW_LOCATION": str(tmp_path / "gw"), "A": "1", "B": "2", "C": "21"
    }  # fmt: skip


def test_without_gwrc_files_and_a_location_nothing_is_set(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    process.set_up_environment(str(tmp_path / "sbin/driver"), environment)
    assert environment == {}
    environment = {"GW_LOCATION": "/nonexistent", "HOME": "/dev/null"}
    process.set_up_environment(str(tmp_path / "bin/driver"), environment)
    assert environment == {"GW_LOCATION": "/nonexistent", "HOME": "/dev/null"}


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "link"])
def test_a_gwrc_that_is_no_file_is_passed_over(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ".gwrc"
    with socket.socket(socket.AF_UNIX) as server:
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            server.bind(str(path))
        else:
            path.symlink_to(path)
        environment = {"HOME": str(tmp_path)}
        process.set_up_environment(str(tmp_path / "sbin/driver"), environment)
    assert environment == {"HOME": str(tmp_path)}
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}: ")


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_gwrc_files_give_their_bytes_in_any_locale(tmp_path: Path, locale: str) -> None:
    (tmp_path / ".gwrc").write_bytes("A='Åland €'\n".encode() + b"B=\xff\x85x\n")
    seen = subprocess.run(
        [
            sys.executable, "-X", "utf8=0", "-c",
            ("import os; from gridmad import process; "
             "process.set_up_environment('/sbin/x', os.environ); "
             "print(os.environb[b'A'], os.environb[b'B'])"),
        ],
        env={"HOME": str(tmp_path), "LC_ALL": locale, "PYTHONCOERCECLOCALE": "0"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert seen == f"{'Åland €'.encode()!r} {bytes([255, 0x85, 120])!r}\n"


@pytest.mark.parametrize("name", ["etc/gwd.conf", "etc/gwrc", "var/acct"])
def test_gw_location_is_where_gridway_is(tmp_path: Path, name: str) -> None:
    environment: dict[str, str] = {}
    process.set_up_environment(str(tmp_path / "bin/driver"), environment)
    assert environment == {}
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("")
    process.set_up_environment(str(tmp_path / "bin/driver"), environment)
    assert environment == {"GW_LOCATION": str(tmp_path)}


def run(program: str, keep: Sequence[int] = ()) -> str:
    return subprocess.run(
        [sys.executable, "-c", f"import os, signal\nfrom gridmad import process\n{program}"],
        capture_output=True,
        text=True,
        check=True,
        pass_fds=keep,
    ).stdout


def test_blocked_signals_and_open_descriptors_are_not_kept() -> None:
    read, write = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        seen = run(
            f"path = '/proc/self/fd/{write}'\n"
            "print(len(signal.pthread_sigmask(signal.SIG_BLOCK, ())) > 20, os.path.exists(path))\n"
            "process.clear_inheritance()\n"
            "print(len(signal.pthread_sigmask(signal.SIG_BLOCK, ())), os.path.exists(path))\n",
            keep=[write],
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(read)
        os.close(write)
    assert seen.split() == ["True", "True", "0", "False"]


@pytest.mark.parametrize(
    ("priority", "niceness"), [("", 19), ("5", 5), ("100", 19), ("much", 19), (" 7 ", 7)]
)
def test_the_priority_of_a_driver(priority: str, niceness: int) -> None:
    seen = run(
        f"process.lower_priority({{'PRIORITY': {priority!r}}})\n"
        "print(os.getpriority(os.PRIO_PROCESS, 0))"
    )
    assert seen == f"{niceness}\n"
