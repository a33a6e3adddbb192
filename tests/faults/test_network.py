"""Connections that are cut, go half-open or are slow, on either side or both."""

import time

import pytest

from tests.faults.scene import QUICK, Scene
from tests.services.proxy import Proxy

SIZE = 10_000_000
RATE = 3e6
SIDES = ["job", "client", "both"]
CUTS = 6
"""For each side: the delay before the next connection doubles each time."""


class Ways:
    """A proxy for each side; `broken` are those of the sides that are to fail."""

    def __init__(self, scene: Scene, side: str) -> None:
        self.job, self.client = scene.proxy(), scene.proxy()
        self.broken: list[Proxy] = []
        if side != "client":
            self.broken.append(self.job)
        if side != "job":
            self.broken.append(self.client)


@pytest.mark.parametrize("side", SIDES)
def test_connections_are_cut_at_random_moments(scene: Scene, side: str) -> None:
    ways = Ways(scene, side)
    until = scene.folder / "until"
    job = scene.job("--hold-for-client", via=ways.job, rate=RATE, until=str(until), code=3)
    client = scene.client(via=ways.client)
    scene.wait_for_size(1)
    for _ in range(CUTS):
        for way in ways.broken:
            before = way.accepted
            way.cut()
            time.sleep(scene.chance.uniform(0, 0.1))
            if scene.chance.random() < 0.7:
                # Often a new connection is let live for a moment.
                scene.wait_for(lambda way=way, before=before: way.accepted > before)  # type: ignore[misc]
                time.sleep(scene.chance.uniform(0, 0.3))
    until.touch()
    assert scene.finish(client) == 3
    assert scene.finish(job) == 3
    scene.assert_exact()
    assert scene.gaps() == []


def test_connections_go_half_open_and_come_back(scene: Scene) -> None:
    ways = Ways(scene, "both")
    job = scene.job("--hold-for-client", via=ways.job, size=SIZE, rate=RATE)
    client = scene.client(via=ways.client)
    scene.wait_for_size(1)
    for least in (SIZE // 4, SIZE // 2):
        scene.wait_for_size(least)
        for way in scene.chance.sample(ways.broken, 2):
            way.freeze()
            time.sleep(scene.chance.uniform(0, 0.5))
        for way in ways.broken:
            way.thaw()
            time.sleep(scene.chance.uniform(0, 0.5))
    assert scene.finish(client) == 0
    assert scene.finish(job) == 0
    scene.assert_exact()


@pytest.mark.parametrize("side", SIDES[:2])
def test_connections_stay_half_open(scene: Scene, side: str) -> None:
    """Each side notices by the heart-beats that are missing, and connects anew."""
    ways = Ways(scene, side)
    job = scene.job("--hold-for-client", via=ways.job, program=QUICK, size=SIZE, rate=RATE)
    client = scene.client(via=ways.client, program=QUICK)
    scene.wait_for_size(SIZE // 4)
    before = [way.accepted for way in ways.broken]
    for way in ways.broken:
        way.strand()
    for way, count in zip(ways.broken, before, strict=True):
        scene.wait_for(lambda way=way, count=count: way.accepted > count)  # type: ignore[misc]
    assert scene.finish(client) == 0
    assert scene.finish(job) == 0
    scene.assert_exact()


def test_a_slow_way_costs_no_byte(scene: Scene) -> None:
    ways = Ways(scene, "both")
    for way in ways.broken:
        way.delay(0.1)
    job = scene.job("--hold-for-client", via=ways.job, size=SIZE)
    client = scene.client(via=ways.client)
    assert scene.finish(client) == 0
    assert scene.finish(job) == 0
    scene.assert_exact()


def test_a_broker_that_stands_still_does_not_hold_up_the_command(scene: Scene) -> None:
    """It writes as fast as it does where there is no broker at all."""
    way = scene.proxy()
    ratios: list[float] = []
    while len(ratios) < 3 and (not ratios or min(ratios) > 1.5):
        way.refuse()
        alone = seconds_to_write(scene, way)
        way.refuse(False)
        ratios.append(seconds_to_write(scene, way, is_watched=True) / alone)
        way.thaw()
    # A broker that is waited for would cost all of its time-outs.
    assert min(ratios) < 2.5, ratios


def seconds_to_write(scene: Scene, way: Proxy, *, is_watched: bool = False) -> float:
    """What the command takes for 100 MB; while one watches through a way that is frozen."""
    scene.begin_anew()
    job = scene.job("--linger", "0", via=way, size=100_000_000, gate=1_000_000, copies=False)
    if is_watched:
        client = scene.client(via=way)
        scene.wait_for_size(1_000_000)
        way.freeze()
    scene.open_gate()
    scene.wait_for(lambda: scene.has_written)
    for process in (job, client) if is_watched else (job,):
        process.kill()
        process.wait()
    return scene.seconds()
