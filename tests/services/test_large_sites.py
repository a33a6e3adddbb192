"""gw_im_mad_bdii as gwd starts it: on a real BDII, and on a grid of ten thousand queues."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.services import bdii, glue
from tests.services.bdii import Bdii
from tests.services.required import skip_without
from tests.services.slapd import SlapdMaker

PATIENCE = 60.0


class Gwd:
    """What gwd does with an information driver: a line and its answer at a time."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [str(Path(sys.executable).parent / "gw_im_mad_bdii"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, line: str) -> str:
        (answer,) = self.ask_all([line])
        return answer

    def ask_all(self, lines: list[str]) -> list[str]:
        """The answers to requests that are sent together; they may come in any order."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        self._process.stdin.flush()
        return [self._process.stdout.readline().decode().rstrip("\n") for _ in lines]

    def __enter__(self) -> Self:
        assert self.ask("INIT - - -") == "INIT - SUCCESS -"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def real_bdii() -> Iterator[Bdii]:
    if problem := bdii.missing():
        skip_without("bdii", problem)
    with tempfile.TemporaryDirectory(prefix="bdii-") as folder, Bdii(Path(folder) / "b") as server:
        yield server


def test_a_real_bdii_and_what_it_publishes_next(real_bdii: Bdii) -> None:
    before = glue.guide()
    real_bdii.publish(glue.plain_ldif(before))
    closed = [
        record.changed(GlueCEStateStatus="Closed") if "GlueCEName" in record.attributes else record
        for record in before
    ]

    def until(gwd: Gwd, line: str, expected: str) -> str:
        end = time.monotonic() + PATIENCE
        while expected not in (answer := gwd.ask(line)):
            assert time.monotonic() < end, answer
            time.sleep(0.1)
        return answer

    with Gwd("-s", real_bdii.server, "--refresh", "1") as gwd:
        until(gwd, "DISCOVER - - -", f"DISCOVER - SUCCESS {glue.GUIDE_HOST}")
        monitor = f"MONITOR 3 {glue.GUIDE_HOST} -"
        assert gwd.ask(monitor).startswith(f"MONITOR 3 SUCCESS {glue.GUIDE_ATTRIBUTES} ")
        real_bdii.publish(glue.plain_ldif(closed))
        until(gwd, monitor, 'QUEUE_STATUS[0]="Closed"')


def test_ten_thousand_queues(slapd: SlapdMaker) -> None:
    """More hosts than one line holds: they come with the following DISCOVERs."""
    server = slapd(glue.ldif(glue.grid(10_000)))
    expected = glue.host_names(10_000)
    with Gwd("-s", server.server) as gwd:
        told: set[str] = set()
        for _ in range(2):
            answer = gwd.ask("DISCOVER - - -")
            assert answer.startswith("DISCOVER - SUCCESS ")
            assert len(answer) < 65_000
            told.update(answer.split()[3:])
        assert sorted(told) == expected
        lines = [f"MONITOR {number} {host} -" for number, host in enumerate(expected)]
        answers = gwd.ask_all(lines)
    queues = 0
    for answer in answers:
        _, number, result, attributes = answer.split(" ", 3)
        assert result == "SUCCESS"
        assert attributes.startswith(f'HOSTNAME="{expected[int(number)]}" ARCH="x86_64" ')
        queues += attributes.count(" QUEUE_NAME[")
    assert len(answers) == len(expected)
    assert queues == 10_000
