"""The executables as a person meets them: help, versions, mistakes, odd descriptors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gridmad import __version__

BIN = Path(sys.executable).parent
EXECUTABLES = sorted(path.name for path in BIN.glob("gw_[iet]m_mad_*"))
TO_START = {"gw_im_mad_static": "-l /dev/null", "gw_im_mad_bdii": "-s localhost"}
"""What an executable needs to start at all."""


def run(
    name: str, *arguments: str, given: bytes = b"", redirection: str = ""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", str(BIN / name), *arguments],
        input=given,
        capture_output=True,
        timeout=30,
        check=False,
    )


def test_all_executables_are_here() -> None:
    assert {"gw_im_mad_bdii", "gw_im_mad_egee_ldap", "gw_em_mad_fork", "gw_tm_mad_dummy"} <= set(
        EXECUTABLES
    )


@pytest.mark.parametrize("name", EXECUTABLES)
def test_help_and_version(name: str) -> None:
    for flag in ("-h", "--help"):
        told = run(name, flag)
        assert told.returncode == 0
        assert told.stdout.startswith(b"usage: " + name.encode())
        assert b"--log-level" in told.stdout
        assert told.stderr == b""
    assert run(name, "--version").stdout.decode() == f"{name} (gridmad) {__version__}\n"


@pytest.mark.parametrize("name", EXECUTABLES)
@pytest.mark.parametrize(
    "arguments",
    ["--no-such-option", "--deadline never", "--deadline 1e-300", "--deadline 1e300", "'",
     "--log-file /nonexistent/log", "--log-file /", "--log-file ''", "--log-level loud"],
)  # fmt: skip
def test_a_mistake_is_told_in_a_line(name: str, arguments: str) -> None:
    told = run(name, f"{TO_START.get(name, '')} {arguments}".strip())
    assert told.returncode == 2
    assert told.stdout == b""
    (line,) = told.stderr.splitlines()
    assert line.startswith(name.encode() + b": ")


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(redirection: str) -> None:
    told = run("gw_im_mad_local", given=b"INIT - - -\nFINALIZE - - -\n", redirection=redirection)
    assert told.returncode == 0
    assert told.stderr == b""
    if redirection == "2>&-":
        assert told.stdout == b"INIT - SUCCESS -\nFINALIZE - SUCCESS -\n"


@pytest.mark.parametrize("redirection", [">&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--version", 0), ("--nope", 2)])
def test_closed_descriptors_of_who_asks(redirection: str, argument: str, code: int) -> None:
    told = run("gw_im_mad_local", argument, redirection=redirection)
    assert told.returncode == code
    assert told.stdout == b""
    assert len(told.stderr.splitlines()) == (code == 2 and "2>" not in redirection)


def test_help_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    told = run("gw_im_mad_local", "--help", redirection=">/dev/full")
    assert told.returncode == os.EX_IOERR
    assert told.stderr == b"gw_im_mad_local: stdout: No space left on device\n"
    assert run("gw_im_mad_local", "--nope", redirection="2>/dev/full").returncode == 2


def test_a_log_that_cannot_be_written() -> None:
    told = run("gw_im_mad_local", "--log-file", "/dev/full", given=b"INIT - - -\nNO - - -\n")
    assert (told.returncode, told.stderr) == (0, b"")


def test_a_log_file_that_is_a_pipe_without_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    told = run("gw_im_mad_local", "--log-file", str(tmp_path / "pipe"))
    assert told.returncode == 2
    assert told.stderr.startswith(b"gw_im_mad_local: --log-file ")


def test_warnings_of_gwrc_files_are_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gwrc").write_text("if true; then\n")
    told = run("gw_im_mad_local", "--log-file", str(tmp_path / "log"), "--log-format", "json")
    assert (told.returncode, told.stderr) == (0, b"")
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert json.loads(line)["message"] == (
        f"{tmp_path}/.gwrc:1: no plain VAR=value line, passed over"
    )


def test_an_output_that_cannot_be_written() -> None:
    told = run("gw_im_mad_local", given=b"INIT - - -\n", redirection=">/dev/full")
    assert told.returncode == os.EX_IOERR
    assert told.stderr.endswith(b"stdout: No space left on device\n")
