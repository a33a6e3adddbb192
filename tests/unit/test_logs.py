"""Log lines for people and for programs, and a reader of stderr that does not read."""

import argparse
import io
import json
import logging
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridmad import logs


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """The root logger is as it was, afterwards."""
    logger = logging.getLogger()
    before = logger.handlers[:], logger.level, logging.raiseExceptions
    yield
    logger.handlers[:], level, logging.raiseExceptions = before
    logger.setLevel(level)


def options(text: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    logs.add_options(parser)
    return parser.parse_args(text.split())


def write(arguments: str, *records: tuple[int, str]) -> list[str]:
    stderr = io.StringIO()
    log = logs.Logs(options(arguments), stderr)
    for level, text in records:
        logging.getLogger("gridmad.information.bdii").log(level, "%s", text)
    log.close()
    return stderr.getvalue().splitlines()


def test_lines_for_people() -> None:
    (line,) = write("", (logging.INFO, "not said"), (logging.WARNING, "slow\nserver\x1b[31m"))
    when, rest = line.split(" ", 1)
    assert len(when) == len("2026-11-20T12:00:00+0000")
    assert rest == r"warning information.bdii: slow\nserver\x1b[31m"


def test_lines_for_programs() -> None:
    (line,) = write("--log-format json --log-level debug", (logging.DEBUG, 'a "b"\nc'))
    entry = json.loads(line)
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "debug",
        "logger": "gridmad.information.bdii",
        "message": 'a "b"\nc',
        "pid": os.getpid(),
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_shown(form: str) -> None:
    stderr = io.StringIO()
    log = logs.Logs(options(f"--log-format {form}"), stderr)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("gridmad.daemon").exception("failed")
    log.close()
    assert "ValueError: odd" in stderr.getvalue()
    assert "Traceback" in stderr.getvalue()


def test_a_file_is_private_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for text in "first", "second":
        assert write(f"--log-file {path}", (logging.ERROR, text)) == []
    assert [line.split(": ", 1)[1] for line in path.read_text().splitlines()] == ["first", "second"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_stderr_that_nobody_reads_holds_nobody_up() -> None:
    program = """
import argparse, logging, sys, time
from gridmad import logs
parser = argparse.ArgumentParser()
logs.add_options(parser)
log = logs.Logs(parser.parse_args([]), sys.stderr)
start = time.monotonic()
for number in range(50_000):
    logging.getLogger("gridmad").error("line %d", number)
log.close()
print(time.monotonic() - start, flush=True)
import os
os._exit(0)
"""
    read, write_end = os.pipe()
    try:
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=write_end, timeout=30
        )
        assert done.returncode == 0
        assert float(done.stdout) < 5
        assert time.monotonic() - start < 8
    finally:
        os.close(read)
        os.close(write_end)
