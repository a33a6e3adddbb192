"""Which transfers may begin, and in what order."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from gridmad.transfer.schedule import Endpoints, Schedule


def take_all(schedule: Schedule[str]) -> list[str]:
    taken = []
    while (item := schedule.take()) is not None:
        taken.append(item)
    return taken


def test_jobs_take_turns() -> None:
    schedule: Schedule[str] = Schedule(100, 100)
    for number in range(3):
        schedule.add(f"many{number}", "1", ("a",))
    schedule.add("one", "2", ("a",))
    schedule.add("another", "3", ("a",))
    assert take_all(schedule) == ["many0", "one", "another", "many1", "many2"]


def test_endpoints_take_turns() -> None:
    schedule: Schedule[str] = Schedule(3, 100)
    for number in range(3):
        schedule.add(f"a{number}", "1", ("a",))
    schedule.add("b", "1", ("b",))
    assert take_all(schedule) == ["a0", "b", "a1"]


def test_who_waits_for_a_busy_endpoint_holds_nobody_up() -> None:
    schedule: Schedule[str] = Schedule(100, 1)
    schedule.add("first", "1", ("a",))
    schedule.add("second", "1", ("a",))
    schedule.add("between", "1", ("a", "b"))
    schedule.add("other", "1", ("b",))
    schedule.add("here", "1", ())
    assert take_all(schedule) == ["first", "other", "here"]
    schedule.release(("a",))
    assert take_all(schedule) == ["second"]
    schedule.release(("a",))
    assert take_all(schedule) == []
    schedule.release(("b",))
    assert take_all(schedule) == ["between"]


def test_both_ends_at_one_server_take_one_place() -> None:
    schedule: Schedule[str] = Schedule(100, 1)
    schedule.add("copy", "1", ("a", "a"))
    assert take_all(schedule) == ["copy"]
    schedule.release(("a", "a"))
    schedule.add("next", "1", ("a",))
    assert take_all(schedule) == ["next"]


def test_nothing_that_waits_is_left_after_clear() -> None:
    schedule: Schedule[str] = Schedule(1, 1)
    schedule.add("a", "1", ("a",))
    schedule.clear()
    assert schedule.take() is None


@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from("123"), st.lists(st.sampled_from("abc"), max_size=2))),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_limits_hold_and_all_begin_once(
    streams: int, per_endpoint: int, wanted: list[tuple[str, list[str]]], random: object
) -> None:
    """Whatever ends when, all begin, each job's in their order for the same endpoints."""
    schedule: Schedule[int] = Schedule(streams, per_endpoint)
    items: list[tuple[str, Endpoints]] = [(job, tuple(ends)) for job, ends in wanted]
    for number, (job, endpoints) in enumerate(items):
        schedule.add(number, job, endpoints)
    running: list[int] = []
    begun: list[int] = []
    while True:
        while (item := schedule.take()) is not None:
            running.append(item)
            begun.append(item)
        assert len(running) <= streams
        busy = Counter(end for item in running for end in set(items[item][1]))
        assert all(count <= per_endpoint for count in busy.values())
        if not running:
            break
        ended = running.pop(random.randrange(len(running)))  # type: ignore[attr-defined]
        schedule.release(items[ended][1])
    assert sorted(begun) == list(range(len(items)))
    for kind in set(items):
        mine = [item for item in begun if items[item] == kind]
        assert mine == sorted(mine)
