"""Exit codes that jobs leave in a folder."""

import asyncio
import os
from pathlib import Path

import pytest

from gridmad.errors import TransientError
from gridmad.execution.model import JobState
from gridmad.execution.status_files import StatusFiles

ONE, TWO = "0123456789ab0000", "0123456789ab0001"


def test_each_exit_code_is_seen_when_it_comes(tmp_path: Path) -> None:
    async def scene() -> None:
        files = StatusFiles(tmp_path)
        jobs = {"1": ONE, "2": TWO}
        assert await files.look(jobs) == {}
        Path(files.path(ONE)).write_text("3\n")
        assert await files.look(jobs) == {"1": JobState.done(3)}
        os.utime(tmp_path, (1000, 1000))
        assert await files.look(jobs) == {"1": JobState.done(3)}
        assert await files.look(jobs) == {}, "nothing was added"
        assert await files.read(jobs) == {"1": JobState.done(3)}
        Path(files.path(TWO)).write_text("0\n")
        (tmp_path / "0123456789ab0002").write_text("9\n")
        assert (await files.look(jobs))["2"] == JobState.done(0)

    asyncio.run(scene())


def test_what_does_not_change_the_time_of_the_folder_is_seen(tmp_path: Path) -> None:
    async def scene() -> None:
        files = StatusFiles(tmp_path)
        Path(files.path(ONE)).write_text("3\n")
        assert await files.look({"1": ONE, "2": TWO}) == {"1": JobState.done(3)}
        before = tmp_path.stat()
        Path(files.path(TWO)).write_text("0\n")
        os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (await files.look({"2": TWO})) == {"2": JobState.done(0)}

    asyncio.run(scene())


def test_to_read_for_some_jobs_hides_nothing_from_a_look_for_others(tmp_path: Path) -> None:
    async def scene() -> None:
        files = StatusFiles(tmp_path)
        for tag in (ONE, TWO):
            Path(files.path(tag)).write_text("3\n")
        os.utime(tmp_path, (1000, 1000))
        assert await files.read({"1": ONE}) == {"1": JobState.done(3)}
        assert await files.look({"2": TWO}) == {"2": JobState.done(3)}

    asyncio.run(scene())


def test_a_folder_that_cannot_be_read_is_transient(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="No such file"):
        asyncio.run(StatusFiles(tmp_path / "none").look({"1": ONE}))
