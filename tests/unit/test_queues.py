"""Queues keep their indexes, whatever comes and goes."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad import wire
from gridmad.information.model import HostAttributes
from gridmad.information.queues import QueueIndexes


def host(*names: str) -> HostAttributes:
    return HostAttributes(
        {"HOSTNAME": "a"}, [{"QUEUE_NAME": name, "QUEUE_NODECOUNT": 1} for name in names]
    )


def names(attributes: HostAttributes) -> list[str]:
    return [str(queue["QUEUE_NAME"]) for queue in attributes.queues]


def test_vanished_queues_leave_their_place_empty_and_get_it_back() -> None:
    indexes = QueueIndexes()
    assert names(indexes.arrange("a", host("x", "y", "z"))) == ["x", "y", "z"]
    without = indexes.arrange("a", host("w", "z"))
    assert names(without) == ["", "", "z", "w"]
    assert without.queues[0] == {"QUEUE_NAME": ""}
    assert names(indexes.arrange("a", host("y", "z"))) == ["", "y", "z", ""]
    assert names(indexes.arrange("b", host("z"))) == ["z"]


def test_indexes_of_vanished_queues_are_given_away_at_the_limit_only() -> None:
    indexes = QueueIndexes()
    full = [f"q{i:02}" for i in range(wire.MAX_QUEUES)]
    indexes.arrange("a", host(*full))
    later = names(indexes.arrange("a", host(*full[2:], "new")))
    assert later == ["new", "", *full[2:]]


def test_what_gwd_cannot_take_is_left_out_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    indexes = QueueIndexes()
    many = [f"q{i:03}" for i in range(70)]
    assert names(indexes.arrange("a", host(*many))) == many[:67]
    assert names(indexes.arrange("a", host(*reversed(many)))) == many[:67]
    assert [record.getMessage() for record in caplog.records] == [
        "host a: gwd takes 67 queues, left out are q067 q068 q069"
    ]


@given(st.lists(st.frozensets(st.integers(0, 90), max_size=80), max_size=8))
def test_a_queue_never_moves_while_it_is_there(rounds: list[frozenset[int]]) -> None:
    indexes = QueueIndexes()
    before: list[str] = []
    for present in rounds:
        shown = names(indexes.arrange("a", host(*(f"q{i}" for i in sorted(present)))))
        assert len(before) <= len(shown) <= wire.MAX_QUEUES
        live = [name for name in shown if name]
        assert len(live) == len(set(live)) == min(len(present), wire.MAX_QUEUES)
        assert {int(name[1:]) for name in live} <= present
        for index, name in enumerate(before):
            if name and int(name[1:]) in present:
                assert shown[index] == name
        before = shown
