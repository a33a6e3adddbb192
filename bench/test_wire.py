"""The line protocol: compiled against its plain-Python specification."""

import pytest

from bench.baselines import plain_format
from bench.conftest import Contest
from bench.samples import ATTRIBUTES, REQUESTS
from gridmad import wire
from tests import specification
from tests.specification import SpecificationParser

LINES = REQUESTS.count(b"\n")


def test_parse(contest: Contest) -> None:
    """Split and validate the request lines of one read."""
    parser = wire.Parser(wire.INFORMATION)
    plain = SpecificationParser(4, {"INIT": (), "DISCOVER": (), "MONITOR": (2,), "FINALIZE": ()})
    contest.run(
        "parse 64 KiB of requests",
        lambda: parser.feed(REQUESTS),
        lambda: plain.feed(REQUESTS),
        against="typed pure Python",
        floor=3,
        ambition=8,
        rounds=200,
        note=lambda seconds: f"{LINES / seconds / 1e6:.1f} M lines/s",
    )


def test_format(contest: Contest) -> None:
    """Format and check the attributes of one host, a thousand times."""
    host, queues = ATTRIBUTES
    size = len(wire.format_attributes(host, queues)[0]) * 1000

    assert wire.format_attributes(host, queues)[0] == plain_format.format_attributes(host, queues)

    def ours() -> None:
        for _ in range(1000):
            wire.format_attributes(host, queues)

    def plain() -> None:
        for _ in range(1000):
            plain_format.format_attributes(host, queues)

    contest.run(
        "format the attributes of a host",
        ours,
        plain,
        against="f-strings and join, checked",
        floor=5,
        ambition=9,
        note=lambda seconds: f"{size / seconds / 1e9:.2f} GB/s",
    )


@pytest.mark.parametrize("size", [1, 2000])
def test_answer(contest: Contest, size: int) -> None:
    """Parse requests and make the lines that answer them."""
    data = b"".join(REQUESTS.splitlines(keepends=True)[:size])
    repeats = 2000 // size
    parser = wire.Parser(wire.INFORMATION)
    plain = SpecificationParser(4, {"INIT": (), "DISCOVER": (), "MONITOR": (2,), "FINALIZE": ()})
    payload = b"SUCCESS " + wire.format_attributes(*ATTRIBUTES)[0]

    def ours() -> None:
        for _ in range(repeats):
            for _operation, requests in parser.feed(data):
                wire.answer(requests, [payload] * len(requests))

    def baseline() -> None:
        for _ in range(repeats):
            for _operation, requests in plain.feed(data):
                specification.answer(requests, [payload] * len(requests))

    contest.run(
        f"answer requests, {size} at a time",
        ours,
        baseline,
        against="typed pure Python",
        floor=2,
        ambition=5,
    )
