"""The order among requests of one job, held against a plain list of what came."""

from collections import defaultdict
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gridmad.sequence import Sequence
from gridmad.wire import TRANSFER, Parser, Request

PARALLEL = frozenset({"CP"})


def make(*lines: str) -> list[Request]:
    runs = Parser(TRANSFER).feed("".join(f"{line}\n" for line in lines).encode())
    return [request for _, run in runs for request in run]


def test_one_at_a_time_but_copies_together() -> None:
    sequence = Sequence(PARALLEL)
    start, first, second, end, late = make(
        "START 1", "CP 1 0 - a b", "CP 1 1 - a b", "END 1", "CP 1 0 - a b"
    )
    assert sequence.admit("START", [start]) == [start]
    assert sequence.admit("CP", [first, second]) == []
    assert sequence.admit("END", [end]) == []
    assert sequence.admit("CP", [late]) == []
    assert sequence.release([start]) == {"CP": [first, second]}
    assert sequence.release([second]) == {}
    assert sequence.release([first]) == {"END": [end]}
    assert sequence.release([end]) == {"CP": [late]}
    assert sequence.release([late]) == {}
    assert len(sequence) == 0


def test_copies_join_those_that_run_unless_something_waits() -> None:
    sequence = Sequence(PARALLEL)
    first, second, end, third = make("CP 1 0 - a b", "CP 1 1 - a b", "END 1", "CP 1 2 - a b")
    assert sequence.admit("CP", [first]) == [first]
    assert sequence.admit("CP", [second]) == [second]
    assert sequence.admit("END", [end]) == []
    assert sequence.admit("CP", [third]) == []


def test_what_was_released_before_counts_once() -> None:
    sequence = Sequence(PARALLEL)
    (start, again) = make("START 1", "START 1")
    sequence.admit("START", [start, again])
    assert sequence.release([start]) == {"START": [again]}
    assert sequence.release([start]) == {}
    assert sequence.unanswered() == [("START", again)]


STEPS = st.lists(
    st.tuples(st.sampled_from(["START", "CP", "MKDIR", "END"]), st.integers(1, 3)), max_size=30
)


@given(steps=STEPS, choices=st.randoms(use_true_random=False))
def test_every_request_runs_once_and_in_order(
    steps: list[tuple[str, int]],
    choices: Random,
) -> None:
    sequence = Sequence(PARALLEL)
    lines = {"START": "START {}", "CP": "CP {} 0 - a b", "MKDIR": "MKDIR {} - - u", "END": "END {}"}
    requests = make(*[lines[operation].format(job) for operation, job in steps])
    running: list[Request] = []
    began: dict[str, list[Request]] = defaultdict(list)

    def begin(more: list[Request]) -> None:
        for request in more:
            began[request.id].append(request)
            running.append(request)
        for job in {request.id for request in running}:
            mine = [request.operation for request in running if request.id == job]
            assert len(mine) == 1 or set(mine) == {"CP"}

    def end_one() -> None:
        request = running.pop(choices.randrange(len(running)))
        for operation, more in sequence.release([request]).items():
            assert all(r.operation == operation for r in more)
            begin(more)

    for request in requests:
        begin(sequence.admit(request.operation, [request]))
        while running and choices.random() < 0.4:
            end_one()
    assert {r for _, r in sequence.unanswered()} >= set(running)
    while running:
        end_one()
    assert len(sequence) == 0
    assert sequence.unanswered() == []
    for job in began:
        assert began[job] == [request for request in requests if request.id == job]
