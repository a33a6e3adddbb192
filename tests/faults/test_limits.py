"""Clients that are slow or stand still while the job floods: bounds hold, and gaps are told."""

import signal
import time

from tests.faults.scene import MEMORY, Scene, told_missing
from tests.peek_user import peak

FLOOD = 60_000_000
GATE = 1_000_000


def assert_told(scene: Scene, log: str) -> None:
    """Each missing byte was announced, on stderr and in the journal."""
    missing = scene.assert_all_but_gaps()
    assert missing > 0
    assert told_missing(log) + told_missing(log, "stderr") == missing
    reasons = {reason for source in (1, 2) for _, _, reason in scene.gaps(source)}
    assert reasons == {"spool"}


def test_a_client_that_stands_still_has_gaps_and_is_told(scene: Scene) -> None:
    job = scene.job(
        *("--hold-for-client", "--spool-size", "4M"), size=FLOOD, gate=GATE, random=True, code=3
    )
    client = scene.client()
    scene.wait_for_size(GATE)
    client.send_signal(signal.SIGSTOP)
    scene.open_gate()
    scene.wait_for(lambda: scene.has_written)
    assert peak(job.pid) < MEMORY
    client.send_signal(signal.SIGCONT)
    assert scene.finish(client) == 3
    assert scene.finish(job) == 3
    assert_told(scene, scene.log(client))


def test_a_command_can_be_made_to_wait_for_a_client(scene: Scene) -> None:
    job = scene.job(
        *("--hold-for-client", "--spool-size", "1M", "--when-full", "block"),
        size=FLOOD,
        gate=GATE,
        random=True,
    )
    client = scene.client()
    scene.wait_for_size(GATE)
    client.send_signal(signal.SIGSTOP)
    scene.open_gate()
    before = -1
    while before != scene.size("copy.out"):
        before = scene.size("copy.out")
        # Nothing tells that nothing happens.
        time.sleep(1)
    assert GATE < before < FLOOD
    assert not scene.has_written
    assert peak(job.pid) < MEMORY
    client.send_signal(signal.SIGCONT)
    assert scene.finish(client) == 0
    assert scene.finish(job) == 0
    scene.assert_exact()
    assert scene.gaps() == []


def test_a_flood_above_the_rate_has_gaps_and_is_told(scene: Scene) -> None:
    job = scene.job(
        *("--hold-for-client", "--rate", "4M", "--spool-size", "1M"),
        size=FLOOD,
        random=True,
        code=3,
    )
    client = scene.client()
    assert scene.finish(client) == 3
    assert scene.finish(job) == 3
    assert scene.seconds() < FLOOD / 8e6, "the command does not wait"
    assert_told(scene, scene.log(client))


def test_what_is_parked_is_bounded_and_the_rest_is_told(scene: Scene) -> None:
    job = scene.job("--linger", "0", "--park", "2M", size=FLOOD // 4, random=True, code=3)
    assert scene.finish(job) == 3
    client = scene.client()
    assert scene.finish(client) == 3
    missing = scene.assert_all_but_gaps()
    assert told_missing(scene.log(client)) + told_missing(scene.log(client), "stderr") == missing
    assert {reason for _, _, reason in scene.gaps()} == {"park"}
    assert 1_000_000 < scene.size("out") < 3_000_000


def test_a_reader_that_stands_still_costs_little_memory(scene: Scene) -> None:
    """What the client writes to is a pipe that nobody reads."""
    job = scene.job("--hold-for-client", "--linger", "1", size=FLOOD, random=True, code=3)
    client = scene.start("--wait", "60", "-o", "raw")
    assert scene.finish(job) == 3
    assert 0 < peak(client.pid) < MEMORY
    assert client.poll() is None
