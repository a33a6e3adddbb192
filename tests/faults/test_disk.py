"""Full disks, for the client's file and for the spool, and files that cannot be written."""

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.faults.scene import Scene, told_missing
from tests.peek_user import MAIN
from tests.services.required import skip_without

SIZE = 12_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a small disk can be mounted, seen by one process and its children alone."""
    folder = tmp_path / "disk"
    folder.mkdir()
    probe = subprocess.run(on_disk(folder, "1M", "true"), capture_output=True, text=True)
    if probe.returncode:
        skip_without("namespaces", f"no disk can be mounted here: {probe.stderr.strip()}")
    return folder


def on_disk(folder: Path, size: str, script: str) -> list[str]:
    """A command that runs a script with such a disk."""
    mount = f"mount -t tmpfs -o size={size} none {shlex.quote(str(folder))}"
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", f"{mount} && {script}"]


def test_a_full_disk_ends_the_client_and_it_can_go_on(scene: Scene, disk: Path) -> None:
    job = scene.job("--hold-for-client", "--lease", "2", "--park", "64M", size=SIZE, code=3)
    words = " ".join(MAIN)
    # The disk is gone with its processes: both lives of the client are in one.
    script = (
        f"{words} -F disk/out --wait 60; echo $? > first; wc -c < disk/out > length; "
        f"mount -o remount,size=100M disk; {words} -F disk/out --wait 60; code=$?; "
        "cp disk/out disk/out.err disk/out.msgpeek .; exit $code"
    )
    client = scene.run_side(["full"], program=on_disk(disk, "4M", script))
    assert scene.finish(client) == 3
    assert scene.finish(job) == 3
    assert (scene.folder / "first").read_text() == "125\n"
    assert 0 < int((scene.folder / "length").read_text()) < SIZE
    assert "No space left" in scene.log(client).splitlines()[0]
    scene.assert_exact()
    assert scene.gaps() == []


def test_a_file_that_must_not_grow_ends_the_client(scene: Scene) -> None:
    """The limit of the process, which needs no disk."""
    job = scene.job("--hold-for-client", "--lease", "2", "--park", "64M", size=SIZE, code=3)
    limited = ["sh", "-c", f"ulimit -f 4000; exec {' '.join(MAIN)} -F out --wait 60"]
    client = scene.run_side(["limited"], program=limited)
    assert scene.finish(client) == 125
    assert "out cannot be written: File too large" in scene.log(client).splitlines()[-1]
    assert 0 < scene.size("out") < SIZE
    assert scene.finish(scene.client()) == 3
    assert scene.finish(job) == 3
    scene.assert_exact()


@pytest.mark.parametrize(
    ("file", "code", "words"),
    [
        ("/dev/full", 2, "is no regular file"),
        (".", 2, "is no regular file"),
        ("absent/out", 125, "absent/out"),
        ("/proc/self/out", 125, "/proc/self/out"),
    ],
)
def test_a_file_that_cannot_be_written(scene: Scene, file: str, code: int, words: str) -> None:
    client = scene.client(file=file)
    assert scene.finish(client) == code
    assert words in scene.log(client).splitlines()[-1]
    assert scene.log(client).count("\n") == 1


def test_a_full_disk_under_the_spool_is_no_trouble_for_the_command(
    scene: Scene, disk: Path
) -> None:
    command = shlex.join(scene.payload(size=5 * SIZE, random=True, code=3))
    wrap = f"{' '.join(MAIN)} wrap --quiet --spool-folder disk --park 64M --linger 0"
    job = scene.run_side(["spool"], program=on_disk(disk, "6M", f"exec {wrap} -- {command}"))
    assert scene.finish(job) == 3
    assert "the spool cannot grow" in scene.log(job)
    client = scene.client()
    assert scene.finish(client) == 3
    missing = scene.assert_all_but_gaps()
    assert missing > 0
    assert told_missing(scene.log(client)) + told_missing(scene.log(client), "stderr") == missing
    assert {reason for _, _, reason in scene.gaps()} == {"spool"}


def test_a_spool_folder_that_is_not_there_is_no_trouble_either(scene: Scene) -> None:
    job = scene.job("--spool-folder", "absent", "--linger", "0", size=5 * SIZE, code=3, random=True)
    assert scene.finish(job) == 3
    client = scene.client()
    assert scene.finish(client) == 3
    assert scene.assert_all_but_gaps() > 0
