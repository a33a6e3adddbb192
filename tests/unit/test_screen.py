"""The filters over output against their specification, and against what terminals act upon."""

import re
import tracemalloc
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gridmad import _screen
from gridmad._screen import MAX_SECRET, MAX_SECRETS, MAX_SEQUENCE, Masker, Screen
from tests import screen_specification as specification

# What sequences are made of, and what tells a decoder of UTF-8 from a wrong one.
PIECES = [
    b"\x1b", b"[", b"]", b"P", b"X", b"^", b"_", b"\\", b"m", b"31", b";", b":", b"?", b">", b"!",
    b" ", b"#", b"c", b"H", b"0", b"~", b"@", b"text", b"\n", b"\r", b"\t", b"\x07", b"\x18",
    b"\x1a", b"\x00", b"\x08", b"\x7f", b"\x80", b"\x90", b"\x98", b"\x9b", b"\x9c", b"\x9d",
    b"\x9e", b"\x9f", b"\xa0", b"\xbf", b"\xc0", b"\xc2", b"\xc2\x9b", b"\xc2\x9d", b"\xc2\xa0",
    b"\xc3\xa9", b"\xe0", b"\xe2\x82", b"\xe2\x82\xac", b"\xe2\x9c\x9c", b"\xed", b"\xf0",
    b"\xf0\x9f", b"\xf0\x9f\x98\x80", b"\xf4", b"\xf5", b"\xff", b"\x1b[0m", b"\x1b[38;2;1;2;3m",
    b"\x1b[2J", b"\x1b]0;title\x07", b"\x1bP1$r\x1b\\", b"1" * 63, b"x" * 4095, b"1" * 4095,
    b" " * 4095, b"\xe2\x82\xac" * 4094,
]  # fmt: skip
STREAMS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=24).map(b"".join), st.binary(max_size=64)
)
CUTS = st.lists(st.integers(0, 200), max_size=8)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def shown(data: bytes, colours: bool = True) -> bytes:
    screen = Screen(colours)
    return screen.feed(data) + screen.flush()


@given(STREAMS, CUTS, st.booleans())
@example(b"\xed\xa0\x80", [], True)
@example(b"\xf0\x82\x82\xac\xf4\x90\x80\x80", [1, 5], True)
def test_the_screen_does_what_its_specification_says(
    data: bytes, cuts: list[int], colours: bool
) -> None:
    screen = Screen(colours)
    out = b"".join([*map(screen.feed, pieces(data, cuts)), screen.flush()])
    assert out == specification.screen(data, colours)


@given(STREAMS, STREAMS)
def test_a_cut_changes_nothing_even_before_the_end(before: bytes, behind: bytes) -> None:
    whole, cut = Screen(), Screen()
    assert cut.feed(before) + cut.feed(behind) == whole.feed(before + behind)


@given(STREAMS, st.binary(max_size=2000))
def test_a_terminal_gets_nothing_to_act_upon_but_colours(stream: bytes, noise: bytes) -> None:
    """Judged by what a terminal does with the output, not by the filter's own rules."""
    for colours in (True, False):
        text = shown(stream + noise, colours).decode("utf-8")
        if colours:
            text = re.sub(r"\x1b\[[0-9;:]*m", "", text)
        assert not [
            character
            for character in text
            if unicodedata.category(character) == "Cc" and character not in "\t\n\r"
        ]


def test_plain_text_passes_as_it_is() -> None:
    data = "a line\tof text\r\nGrüße, 你好, 😀\n".encode() * 1000
    assert Screen().feed(data) is data


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_colour_passes_across_an_edge(cut: int) -> None:
    data = b"\x1b[1;38:5:9mred\x1b[m"
    screen = Screen()
    assert screen.feed(data[:cut]) + screen.feed(data[cut:]) == data
    assert Screen(colours=False).feed(data) == b"red"


@pytest.mark.parametrize(
    "attack",
    [
        b"\x1b[2J", b"\x1b[1;1H", b"\x1b[?1049h", b"\x1b[>4;1m", b"\x1b[0#m", b"\x1b[6n", b"\x1bc",
        b"\x1b(0", b"\x1b#8", b"\x1b%G", b"\x1bM", b"\x1b]0;title\x07", b"\x1b]8;;http://x\x1b\\",
        b"\x1b]52;c;cm0gLXJmIH4=\x07", b"\x1bP$q\"p\x1b\\", b"\x1b_payload\x1b\\", b"\x1b^x\x1b\\",
        b"\x1bXx\x1b\\", b"\x9b2J", b"\xc2\x9b31m", b"\x9d0;title\x9c", b"\xc2\x9d0;t\xc2\x9c",
        b"\x90q\x1b\\", b"\x1bPtmux;\x1b\x1b]0;title\x07\x1b\\", b"\x08", b"\x07", b"\x0e", b"\x7f",
        b"\x0b", b"\x0c", b"\x05", b"\x84", b"\xc2\x85", b"\x1b[" + b"1" * 65 + b"m",
    ],
)  # fmt: skip
def test_an_attack_leaves_no_trace(attack: bytes) -> None:
    assert shown(b"before" + attack + b"behind") == b"beforebehind"


@pytest.mark.parametrize("begin", [b"\x1b]", b"\x1bP", b"\x1b_", b"\x1b^", b"\x1bX", b"\x9d"])
def test_an_unfinished_string_does_not_swallow_the_rest(begin: bytes) -> None:
    assert shown(begin + b"hidden\nshown") == b"\nshown"
    assert shown(begin + b"x" * (MAX_SEQUENCE + 5)) == b"xxxxx"


def test_the_end_drops_what_is_unfinished_and_begins_anew() -> None:
    screen = Screen()
    assert screen.feed(b"a\x1b[31") + screen.flush() + screen.feed(b"mb") == b"amb"
    assert screen.feed(b"\xe2\x82") + screen.flush() == "\ufffd".encode()
    assert screen.feed(b"\x82\xac") + screen.flush() == b"\xef\xbf\xbd"


def test_the_screen_holds_no_memory() -> None:
    screen = Screen()
    tracemalloc.start()
    try:
        for _ in range(200):
            screen.feed(b"\x1b]" + b"x" * 100_000)
            screen.feed(b"\x1b[" + b"1" * 100_000)
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------- secrets

LETTERS = st.lists(st.sampled_from(b"ab*"), max_size=40).map(bytes)
SECRETS = st.lists(
    st.one_of(
        st.lists(st.sampled_from(b"ab"), min_size=2, max_size=12).map(bytes),
        st.binary(min_size=2, max_size=20),
    ),
    min_size=1,
    max_size=6,
)


@given(SECRETS, LETTERS, CUTS)
@example([b"XabcdefghY", b"abcdefgh"], b"XabcdefghZ XabcdefghY", [9, 15])
@example([b"abababab"], b"abababababababab", [3, 8, 9])
@example([b"aaab", b"ba"], b"aaabaab", [4, 5])
def test_every_byte_of_every_occurrence_is_masked(
    secrets: list[bytes], data: bytes, cuts: list[int]
) -> None:
    data += secrets[0] + data + secrets[-1][:-1] + b"".join(secrets)
    masker = Masker(secrets)
    fed = left = b""
    for piece in pieces(data, cuts):
        left += masker.feed(piece)
        fed += piece
        assert len(left) + masker.pending == len(fed)
        assert masker.pending == specification.held_back(fed, secrets)
    assert left + masker.flush() == specification.mask(data, secrets)
    assert masker.pending == 0


@given(st.lists(st.binary(min_size=8, max_size=40), min_size=1, max_size=MAX_SECRETS), st.data())
def test_many_secrets_between_large_chunks(secrets: list[bytes], data: st.DataObject) -> None:
    order = data.draw(st.lists(st.sampled_from(secrets), max_size=10))
    stream = b"".join(b"x" * 7919 + secret for secret in order)
    cut = data.draw(st.integers(0, len(stream)))
    masker = Masker(secrets)
    out = masker.feed(stream[:cut]) + masker.feed(stream[cut:]) + masker.flush()
    assert out == specification.mask(stream, secrets)


def test_output_without_a_secret_passes_as_it_is() -> None:
    data = b"a line of output\n" * 1000
    assert Masker([b"hunter2hunter2"]).feed(data) is data


def test_what_cannot_be_masked_is_refused_without_telling_it() -> None:
    for secrets in ([], [b"x"] * (MAX_SECRETS + 1), [b"x"], [b"x" * (MAX_SECRET + 1)]):
        with pytest.raises(ValueError, match=r"mask") as refused:
            Masker(secrets)
        assert "xx" not in str(refused.value)
    with pytest.raises(TypeError):
        Masker(["text"])  # type: ignore[list-item]
    assert "hunter2" not in repr(Masker([b"hunter2hunter2"]))


def test_the_longest_secret_is_held_back_and_no_more() -> None:
    masker = Masker([b"s" * MAX_SECRET])
    for _ in range(100):
        masker.feed(b"s" * (MAX_SECRET - 1) + b"x")
        assert masker.pending == 0
    masker.feed(b"s" * (MAX_SECRET - 1))
    assert masker.pending == MAX_SECRET - 1


def test_the_limits_are_those_of_the_specification() -> None:
    assert (_screen.MAX_SEQUENCE, _screen.MAX_COLOUR) == (
        specification.BOUND,
        specification.COLOUR,
    )
