"""Several clients, clients that die, others that take over, a job side that dies."""

import pytest

from tests.faults.scene import Scene, told_missing

SIZE = 12_000_000


def rest_of(scene: Scene, file: str, before: int, source: int = 1) -> int:
    """Assert that a file has the rest of a source; where that begins, at most at `before`."""
    produced, written = scene.produced(source), scene.written(source, file)
    offset = len(produced) - len(written)
    assert 0 <= offset <= before
    assert written == produced[offset:]
    return offset


def test_others_are_denied_and_the_first_is_undisturbed(scene: Scene) -> None:
    job = scene.job("--hold-for-client", size=SIZE, gate=SIZE // 2, code=3)
    first = scene.client()
    scene.wait_for_size(SIZE // 2)
    others = [scene.client(file=f"other{number}") for number in range(4)]
    for other in others:
        assert scene.finish(other) == 75
        assert "is watching this stream" in scene.log(other).splitlines()[-1]
    assert first.poll() is None
    scene.open_gate()
    assert scene.finish(first) == 3
    assert scene.finish(job) == 3
    scene.assert_exact()
    # On a busy machine the client may have had to wait for the job to begin.
    lines = [line for line in scene.log(first).splitlines() if "waiting for the job" not in line]
    assert len(lines) == 1, lines


def test_a_client_dies_and_the_job_goes_on(scene: Scene) -> None:
    job = scene.job("--lease", "1", "--linger", "1", rate=6e6, size=SIZE, code=3)
    client = scene.client()
    scene.wait_for_size(1)
    client.kill()
    assert scene.finish(job) == 3
    assert scene.seconds() < 10 * SIZE / 6e6


@pytest.mark.parametrize("takes", [True, False], ids=["takeover", "lease"])
def test_another_takes_over_while_the_job_lives(scene: Scene, takes: bool) -> None:
    # Something is always left for the second, whatever the first has acknowledged.
    gate = str(scene.folder / "copy.gate")
    job = scene.job("--hold-for-client", "--lease", "2", rate=2e6, until=gate)
    first = scene.client(file="first")
    scene.wait_for_size(2_000_000, "first")
    first.kill()
    first.wait()
    before = scene.size("first")
    second = scene.client(*(["--takeover"] if takes else []), file="second")
    if not takes:
        # The dead one holds the stream until its lease is over.
        while not scene.size("second"):
            if second.poll() is not None:
                assert scene.finish(second) == 75
                second = scene.client(file="second")
            scene.wait_for(lambda: scene.size("second") > 0 or second.poll() is not None)  # noqa: B023
    scene.open_gate()
    assert scene.finish(second) == 0
    assert scene.finish(job) == 0
    assert rest_of(scene, "second", before) > 0
    rest_of(scene, "second", scene.size("first.err"), source=2)


def test_another_gets_the_rest_after_the_job_has_ended(scene: Scene) -> None:
    job = scene.job(
        "--hold-for-client",
        "--lease",
        "1",
        "--linger",
        "0.5",
        "--park",
        "64M",
        size=SIZE,
        gate=SIZE // 2,
        code=3,
    )
    first = scene.client(file="first")
    scene.wait_for_size(SIZE // 2, "first")
    first.kill()
    first.wait()
    scene.open_gate()
    assert scene.finish(job) == 3
    second = scene.client(file="second")
    assert scene.finish(second) == 3, scene.all_logs()
    assert rest_of(scene, "second", scene.size("first")) > 0
    assert scene.gaps(file="second") == []


def test_another_drains_what_one_that_died_has_left(scene: Scene) -> None:
    size = 40_000_000
    job = scene.job("--linger", "0", "--park", "64M", size=size, code=3, random=True)
    assert scene.finish(job) == 3
    first = scene.client(file="first")
    scene.wait_for_size(2_000_000, "first")
    first.kill()
    first.wait()
    before = scene.size("first")
    assert before < size
    second = scene.client(file="second")
    assert scene.finish(second) == 3
    # What the first had taken for good is told.
    offset = rest_of(scene, "second", before)
    assert told_missing(scene.log(second)) == offset
    assert scene.gaps(file="second") == ([(0, offset, "taken")] if offset else [])


def test_the_same_file_is_complete_after_a_death_in_draining(scene: Scene) -> None:
    size = 40_000_000
    job = scene.job("--linger", "0", "--park", "64M", size=size, code=3, random=True)
    assert scene.finish(job) == 3
    for least in (1_000_000, 8_000_000, 16_000_000):
        client = scene.client()
        scene.wait_for_size(least)
        client.kill()
        client.wait()
    assert scene.finish(scene.client()) == 3
    scene.assert_exact()


def test_a_job_side_that_dies_is_timed_out(scene: Scene) -> None:
    job = scene.job("--hold-for-client", size=SIZE, rate=4e6)
    client = scene.client("-T", "3")
    scene.wait_for_size(SIZE // 4)
    job.kill()
    assert scene.finish(client) == 124
    assert "without a word" in scene.log(client).splitlines()[-1]
    for source in (1, 2):
        assert scene.produced(source).startswith(scene.written(source))
    assert scene.gaps() == []
