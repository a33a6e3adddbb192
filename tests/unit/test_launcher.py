"""The executables as a person meets them: help, versions, mistakes, odd descriptors."""

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
@pytest.mark.parametrize("arguments", ["--no-such-option", "--deadline never", "'"])
def test_a_mistake_is_told_in_a_line(name: str, arguments: str) -> None:
    told = run(name, f"{TO_START.get(name, '')} {arguments}".strip())
    assert told.returncode == 2
    assert told.stdout == b""
    assert told.stderr.splitlines()[-1].startswith(name.encode() + b": ")
    assert b"Traceback" not in told.stderr


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(redirection: str) -> None:
    told = run("gw_im_mad_local", given=b"INIT - - -\nFINALIZE - - -\n", redirection=redirection)
    assert told.returncode == 0
    assert told.stderr == b""
    if redirection == "2>&-":
        assert told.stdout == b"INIT - SUCCESS -\nFINALIZE - SUCCESS -\n"


def test_an_output_that_cannot_be_written() -> None:
    told = run("gw_im_mad_local", given=b"INIT - - -\n", redirection=">/dev/full")
    assert told.returncode == os.EX_IOERR
    assert told.stderr.endswith(b"stdout: No space left on device\n")
