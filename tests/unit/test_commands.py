"""Running a resource's tools, and ending those that a dead driver left."""

import asyncio
import errno
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gridmad import commands
from gridmad.commands import Commands, Finished
from gridmad.errors import DriverError, TransientError
from gridmad.execution.leftovers import end_leftovers


def run(*words: str, given: bytes = b"", **options: float) -> Finished:
    async def start() -> Finished:
        return await Commands(**options).run(*words, given=given)  # type: ignore[arg-type]

    return asyncio.run(start())


def test_what_a_command_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VARIABLE", "value")
    script = "cat; echo $VARIABLE $LC_ALL; echo bad \t>&2; echo thing >&2; exit 3"
    assert run("sh", "-c", script, given=b"in\n") == Finished(3, b"in\nvalue C\n", "bad thing")
    assert run("sh", "-c", "kill -9 $$").exit_code == -9


def test_a_command_that_reads_nothing_is_no_trouble() -> None:
    assert run("true", given=b"x" * (1 << 20)).exit_code == 0


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(DriverError, match="no-such-tool cannot be run"):
        run("no-such-tool")
    assert not Commands().has("no-such-tool")
    assert Commands().has("sh")


def test_too_many_open_files_are_no_reason_to_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job would be refused for good."""

    async def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    with pytest.raises(TransientError, match="true cannot be run: Too many open files"):
        run("true")


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(TransientError, match="did not end within"):
        run("sh", "-c", f"sleep 60 & echo $! > {pid}; wait", seconds=0.3)
    end = time.monotonic() + 5
    while Path(f"/proc/{pid.read_text().strip()}/stat").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_command_that_says_too_much_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MAX_OUTPUT", 100_000)
    with pytest.raises(TransientError, match="printed more than"):
        run("yes")


def test_as_many_at_a_time_as_was_said(tmp_path: Path) -> None:
    async def start() -> None:
        tools = Commands(most=2)
        script = f"mkdir {tmp_path}/$$; ls {tmp_path} | wc -l; sleep 0.05; rmdir {tmp_path}/$$"
        done = await asyncio.gather(*(tools.run("sh", "-c", script) for _ in range(6)))
        assert max(int(one.output) for one in done) <= 2
        assert tools.count == 6

    asyncio.run(start())


def test_a_dead_drivers_tool_is_ended_and_no_other() -> None:
    def tool(word: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", word])

    left, other = tool("--job-name=gridmad-0123456789ab"), tool("--job-name=gridmad-000000000000")
    try:
        end_leftovers([])
        end_leftovers(["gridmad-0123456789ab"])
        assert left.wait(5) == -9
        assert other.poll() is None
    finally:
        for process in (left, other):
            process.kill()
            process.wait()
