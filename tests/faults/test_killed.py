"""Client and job side die by SIGKILL at random moments, many times over; the files are exact."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.faults.scene import Scene
from tests.peek_user import Process

DEATHS = 8
RATE = 2e6


@pytest.fixture
def writer(scene: Scene) -> Iterator[Process]:
    """Something that writes the files that the job side follows, until `until` is there."""
    files = [str(scene.folder / name) for name in ("followed.out", "followed.err")]
    command = scene.payload(rate=RATE, until=str(scene.folder / "until"), files=files)
    process = subprocess.Popen(command)
    yield process
    with suppress(ProcessLookupError):
        process.kill()
    process.wait()


def follow(scene: Scene, *words: str) -> Process:
    """A job side that follows what the writer writes, and ends with it."""
    done = scene.folder / "copy.seconds"
    return scene.job(
        *("--follow-stdout", "followed.out", "--follow-stderr", "followed.err", *words),
        # A new one does not know what was committed to the one before.
        *("--park", "64M"),
        command=["sh", "-c", f"until [ -e {done} ]; do sleep 0.1; done; exit 3"],
    )


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "key"])
def test_both_sides_die_again_and_again(scene: Scene, writer: Process, keyed: bool) -> None:
    words = []
    if keyed:
        key = scene.folder / "key"
        key.touch(0o600)
        key.write_bytes(b"k" * 32)
        words = ["--key-file", str(key)]
    job, client = follow(scene, *words), scene.client(*words)
    for _ in range(DEATHS):
        if scene.chance.random() < 0.5:
            # Else it may die before it has connected.
            scene.wait_for_size(scene.size("out") + 1)
        time.sleep(scene.chance.uniform(0, 0.5))
        victims = scene.chance.choice(["job", "client", "both"])
        if victims != "client":
            job.kill()
            job.wait()
        if victims != "job":
            client.kill()
            client.wait()
        time.sleep(scene.chance.uniform(0, 0.2))
        if victims != "client":
            job = follow(scene, *words)
        if victims != "job":
            client = scene.client(*words)
    (scene.folder / "until").touch()
    assert scene.finish(client) == 3, scene.all_logs()
    assert scene.finish(job) == 3
    scene.assert_exact()
    assert scene.gaps() == []


def test_a_job_side_reads_its_files_again(scene: Scene) -> None:
    """A client that is ahead of a new job side waits for it: the file is the same."""
    size = 100_000_000
    files = [str(scene.folder / name) for name in ("followed.out", "followed.err")]
    until = scene.folder / "until"
    command = scene.payload(size=size, until=str(until), rate=1e12, gate=size, files=files)
    with subprocess.Popen(command) as writer:
        try:
            job, client = follow(scene), scene.client()
            scene.wait_for_size(size)
            for process in (job, client):
                process.kill()
                process.wait()
            client = scene.client()
            scene.wait_for(lambda: "waiting for the job" in scene.log(client))
            # What it has asked meanwhile is the first thing that the new one hears.
            job = follow(scene)
            scene.open_gate()
            until.touch()
            assert scene.finish(client) == 3, scene.log(client)
            assert scene.finish(job) == 3
        finally:
            writer.kill()
    scene.assert_exact()


def test_a_new_attempt_follows_one_that_was_killed(scene: Scene) -> None:
    first = scene.job("--hold-for-client", "--epoch", "1", size=30_000_000, rate=2e6)
    client = scene.client()
    scene.wait_for_size(1_000_000)
    first.kill()
    first.wait()
    before = scene.produced()
    for path in scene.folder.glob("copy*"):
        path.unlink()
    second = scene.job("--epoch", "2", size=3_000_000, seed=2, code=5)
    assert scene.finish(client) == 5
    assert scene.finish(second) == 5
    assert "attempt 2 of the job begins" in scene.log(client)
    # The file goes on with the new attempt, behind what came of the one before.
    written, produced = scene.written(), scene.produced()
    assert written.endswith(produced)
    assert len(written) > len(produced) + 1_000_000 - 1
    assert before.startswith(written[: len(written) - len(produced)])
