"""Token buckets and breakers, by a clock of the test's."""

from hypothesis import given
from hypothesis import strategies as st

from gridmad.execution.pacing import JITTER, Breaker, TokenBucket


@given(
    st.floats(0.01, 100),
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5))),
)
def test_a_bucket_never_gives_more_than_its_rate(
    rate: float, burst: int, steps: list[tuple[float, int]]
) -> None:
    bucket = TokenBucket(rate, burst)
    now = 1000.0
    bucket.take(now, 0)
    given_ = 0
    for pause, most in steps:
        now += pause
        taken = bucket.take(now, most)
        assert 0 <= taken <= most
        given_ += taken
        assert given_ <= burst + (now - 1000.0) * rate + 1e-6


def test_a_bucket_tells_when_the_next_token_comes() -> None:
    bucket = TokenBucket(0.5, 2)
    assert bucket.take(10, 5) == 2
    assert bucket.wait(10) == 2.0
    assert bucket.take(11) == 0
    assert bucket.wait(11) == 1.0
    assert bucket.take(12) == 1
    assert bucket.wait(9) == 2.0, "a clock that goes back gives nothing"
    assert bucket.take(1000, 9) == 2


def test_a_breaker_waits_ever_longer_and_forgets_at_once() -> None:
    breaker = Breaker(1, 8)
    now, pauses = 100.0, []
    assert breaker.wait(now) == 0
    for _ in range(6):
        breaker.failed(now)
        pauses.append(breaker.wait(now))
        breaker.failed(now + pauses[-1] / 2)  # began before the pause
        assert breaker.wait(now) == pauses[-1]
        now += pauses[-1]
    for pause, expected in zip(pauses, (1, 2, 4, 8, 8, 8), strict=True):
        assert expected * (1 - JITTER) <= pause <= expected * (1 + JITTER)
    assert breaker.succeeded()
    assert not breaker.succeeded()
    assert breaker.wait(now) == 0
