"""The compiled line protocol against its specification, and against gwd's own grammar."""

import re
import resource
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gridmad import wire
from gridmad.wire import EXECUTION, INFORMATION, TRANSFER, Grammar, Parser, Request
from tests import specification
from tests.gwd_attributes import GwdReader
from tests.specification import SpecificationParser, SpecificationRequest

Need = Literal["id", "tid", 2, 3, 4, 5]

GRAMMARS: Final[list[tuple[Grammar, dict[str, tuple[Need, ...]]]]] = [
    (INFORMATION, {"INIT": (), "DISCOVER": (), "MONITOR": (2,), "FINALIZE": ()}),
    (
        EXECUTION,
        {
            "INIT": (),
            "SUBMIT": ("id", 2, 3),
            "POLL": ("id",),
            "CANCEL": ("id",),
            "RECOVER": ("id", 2),
            "FINALIZE": (),
        },
    ),
    (
        TRANSFER,
        {
            "INIT": (),
            "START": ("id",),
            "MKDIR": ("id", 4),
            "RMDIR": ("id", 4),
            "EXISTS": ("id", 4),
            "CP": ("id", "tid", 4, 5),
            "END": ("id",),
            "FINALIZE": (),
        },
    ),
]
FAMILIES = pytest.mark.parametrize(
    "family", [0, 1, 2], ids=["information", "execution", "transfer"]
)

# What str.split and int take for a blank or a number, and the protocol does not.
TRAPS = [
    "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\xa0", "\u2003", "\u2028",
    "+3", "-3", "1_0", "٣", "³", "0x1", "3.0", "\r", "\x00", "\x7f", "\u0131", "\u017f", "ß",
    '"', "\\",
]  # fmt: skip
OPERATIONS = sorted({name for _, operations in GRAMMARS for name in operations})
WORDS = st.one_of(
    st.sampled_from(OPERATIONS),
    st.sampled_from([name.lower() for name in OPERATIONS]),
    st.sampled_from(["POLL\x00", "Poll", "CP\x00\x00", "FOO", "x" * 21, "x" * 20, "CALLBACK"]),
    st.sampled_from(["-", "0", "7", "12345", "99999", "1234567890", "12345678901", "00012"]),
    st.sampled_from(["host.example.org", "/var/lib/0/job.rsl.0", "gsiftp://h/~/.gw_u_1/a b"]),
    st.sampled_from(TRAPS),
    st.text(max_size=12),
).map(lambda word: word.replace("\n", "").encode("utf-8", "surrogatepass"))
GAPS = st.sampled_from([b" ", b" ", b" ", b"  ", b"\t", b" \t ", b"\x0b", b"\xa0", b""])
LONG = st.sampled_from([60, 64, 70, 200, 65_400, 65_533, 65_534, 65_535, 65_536, 65_537, 70_000])


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """One line without its newline: sound, nearly so, or noise."""
    kind = draw(st.sampled_from(["words", "words", "words", "noise", "long"]))
    if kind == "noise":
        return draw(st.binary(max_size=40)).replace(b"\n", b" ")
    line = draw(st.sampled_from([b"", b"", b"", b" ", b"\t", b"   "]))
    for word in draw(st.lists(WORDS, max_size=8)):
        line += word + draw(GAPS)
    if kind == "long":
        filler = draw(st.sampled_from([b"x", b" ", b"\xc3\xa9", b"\x00"]))
        size = draw(LONG)
        at = draw(st.sampled_from([0, len(line)]))
        line = (line[:at] + filler * size + line[at:])[:size]
    return line + draw(st.sampled_from([b"", b"", b"", b" ", b"\t ", b"\r", b" \r", b"\r\r"]))


@st.composite
def inputs(draw: st.DrawFn) -> bytes:
    """What arrives on stdin; the last line may lack its newline."""
    return b"\n".join(draw(st.lists(lines(), max_size=6))) + draw(st.sampled_from([b"\n", b""]))


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(places):
        yield data[start:end]


Seen = tuple[str, str, str | None, list[str]]


def seen(request: Request | SpecificationRequest) -> Seen:
    return request.operation, request.id, request.problem, [request[i] for i in range(6)]


def parse(family: int, data: list[bytes]) -> list[tuple[str, list[Request]]]:
    parser = Parser(GRAMMARS[family][0])
    return [run for piece in data for run in parser.feed(piece)] + parser.finish()


def specified(family: int, data: list[bytes]) -> list[tuple[str, list[SpecificationRequest]]]:
    grammar, operations = GRAMMARS[family]
    parser = SpecificationParser(grammar.fields, operations, grammar.has_tid)
    return [run for piece in data for run in parser.feed(piece)] + parser.finish()


def flat(runs: list[tuple[str, list[Request]]]) -> list[Request]:
    return [request for _, run in runs for request in run]


# ---------------------------------------------------------------- requests


@FAMILIES
@given(data=inputs(), cuts=st.lists(st.integers(0, 1 << 20), max_size=4))
@settings(max_examples=400, deadline=None)
@example(data=b"POLL\x00 12 - -\n", cuts=[])
@example(data=b" " * 64 + b"MONITOR 7 h -" + b"x" * 70_000, cuts=[66_000])
@example(data=b"CP 12345\x0b 3 - a b\n", cuts=[])
@example(data="\u0131n\u0131t - - -\n".encode(), cuts=[])
def test_requests_are_those_of_the_specification(family: int, data: bytes, cuts: list[int]) -> None:
    split = list(pieces(data, cuts))
    assert [(name, [seen(r) for r in run]) for name, run in parse(family, split)] == [
        (name, [seen(r) for r in run]) for name, run in specified(family, split)
    ]


@FAMILIES
@given(data=inputs(), cuts=st.lists(st.integers(0, 1 << 20), max_size=8))
@settings(max_examples=200, deadline=None)
def test_requests_do_not_depend_on_how_the_bytes_arrive(
    family: int, data: bytes, cuts: list[int]
) -> None:
    whole = [seen(request) for request in flat(parse(family, [data]))]
    assert [seen(request) for request in flat(parse(family, list(pieces(data, cuts))))] == whole


def test_bytes_that_arrive_one_by_one() -> None:
    data = b"INIT 5 - -\n\n  \r\nmonitor 3  h.example\t - \r\nMONITOR 4 h\nDISCOVER - - -"
    one_by_one = parse(0, [data[i : i + 1] for i in range(len(data))])
    assert [seen(r)[3][:4] for r in flat(one_by_one)] == [
        ["INIT", "5", "-", "-"],
        ["monitor", "3", "h.example", "-"],
        ["MONITOR", "4", "h", "-"],
        ["DISCOVER", "-", "-", "-"],
    ]
    assert [name for name, _ in one_by_one] == ["INIT", "MONITOR", "MONITOR", "DISCOVER"]


def test_a_run_holds_what_stands_together() -> None:
    runs = Parser(TRANSFER).feed(b"START 1\nCP 1 0 - a b\ncp 1 1 X a b\nEND 1\nx\ny\nEND 2\n")
    assert [(name, len(run)) for name, run in runs] == [
        ("START", 1), ("CP", 2), ("END", 1), ("", 2), ("END", 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "is_sound"), [(65_533, True), (65_534, True), (65_535, False), (65_536, False)]
)
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_longest_line_has_65535_bytes_with_its_newline(
    size: int, is_sound: bool, end: bytes
) -> None:
    line = (b"MONITOR 12 " + b"h" * size)[:size]
    (request,) = flat(parse(0, [line + end]))
    assert (request.operation == "MONITOR") is is_sound
    assert request.id == "12"
    if not is_sound:
        assert request.problem == "request longer than 65535 bytes"


def test_an_endless_line_takes_no_memory_and_the_next_one_is_served() -> None:
    parser = Parser(EXECUTION)
    piece = b"POLL 12 " + b"x" * (1 << 16)
    parser.feed(piece)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        for _ in range(100_000_000 // len(piece)):
            assert parser.feed(piece) == []
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 10_000
    assert peak < 4 * len(piece)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096
    (_, (long,)), (operation, (request,)) = parser.feed(b"\nPOLL 13 - -\n")
    assert (long.operation, long.id) == ("", "12")
    assert (operation, request.id) == ("POLL", "13")


@FAMILIES
@given(data=inputs(), index=st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_a_column_is_the_field_of_each_request(family: int, data: bytes, index: int) -> None:
    requests = flat(parse(family, [data]))
    assert wire.column(requests, index) == [request[index] for request in requests]


def test_equal_fields_of_a_column_are_one_object() -> None:
    requests = flat(Parser(INFORMATION).feed(b"MONITOR 1 some.host -\nMONITOR 2 some.host -\n"))
    first, second = wire.column(requests, 2)
    assert first is second


@pytest.mark.parametrize("index", [-1, 6, 1000])
def test_a_field_that_no_line_can_have(index: int) -> None:
    (request,) = flat(Parser(INFORMATION).feed(b"INIT - - -\n"))
    with pytest.raises(IndexError):
        request[index]
    with pytest.raises(IndexError):
        wire.column([request], index)


def test_requests_come_from_a_parser_only() -> None:
    with pytest.raises(TypeError):
        Request()
    with pytest.raises(TypeError):
        wire.column([None], 0)  # type: ignore[list-item]
    with pytest.raises(TypeError):
        wire.answer([None], [b"SUCCESS -"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("fields", "operations"),
    [
        (1, {"INIT": ()}),
        (7, {"INIT": ()}),
        (4, {"NINELONGS": ()}),
        (4, {"": ()}),
        (4, {f"OP{i}": () for i in range(17)}),
    ],
)
def test_a_grammar_beyond_the_limits_is_refused(
    fields: int, operations: dict[str, tuple[Need, ...]]
) -> None:
    with pytest.raises(ValueError, match=r"fields|letters"):
        Grammar(fields, operations)


# ---------------------------------------------------------------- answers

PAYLOADS = st.one_of(
    st.just(wire.SUCCESS), st.text().map(wire.failure), st.text().map(wire.success)
)
ANSWER = {
    False: re.compile(rb"[!-~]{1,20} [!-~]{1,10} (SUCCESS|FAILURE) [^\x00-\x1f\x7f]+\n"),
    True: re.compile(
        rb"[!-~]{1,20} [!-~]{1,10} (-|\+?[0-9]{1,10}) (SUCCESS|FAILURE) [^\x00-\x1f\x7f]+\n"
    ),
}


@FAMILIES
@given(data=inputs(), payloads=st.lists(PAYLOADS, min_size=1))
@settings(max_examples=400, deadline=None)
@example(data=b"POLL\x00 12 - -\n", payloads=[wire.SUCCESS])
@example(data=b"CP 12345 3 - a b\ncp 1234\x7f 3 - a b\nCP 12\x0b4 3\n", payloads=[wire.SUCCESS])
def test_answers_are_those_of_the_specification(
    family: int, data: bytes, payloads: list[bytes]
) -> None:
    requests = flat(parse(family, [data]))
    twins = [request for _, run in specified(family, [data]) for request in run]
    chosen = [payloads[i % len(payloads)] for i in range(len(requests))]
    answers, count = wire.answer(requests, chosen)
    assert (answers, count) == specification.answer(twins, chosen)
    assert count == len(requests)
    found = re.findall(rb"[^\n]*\n", answers)
    assert b"".join(found) == answers
    assert len(found) == len(requests)
    for line, request in zip(found, requests, strict=True):
        assert ANSWER[GRAMMARS[family][0].has_tid].fullmatch(line)
        assert len(line) <= wire.MAX_LINE
        assert line.split(b" ")[1].decode() == request.id
        assert request.answered
    assert wire.answer(requests, chosen) == (b"", 0)


def test_a_request_is_answered_once_even_within_one_call() -> None:
    first, second = flat(Parser(EXECUTION).feed(b"POLL 1\nPOLL 2\n"))
    payloads = [b"SUCCESS ACTIVE", b"SUCCESS DONE:0", b"SUCCESS PENDING"]
    assert wire.answer([first, first, second], payloads) == (
        b"POLL 1 SUCCESS ACTIVE\nPOLL 2 SUCCESS PENDING\n",
        2,
    )


@pytest.mark.parametrize(
    ("request_line", "head"),
    [
        (b"CP 9999 3 - a b", b"CP 9999 3 "),
        (b"CP 10000 3 - a b", b"CP 10000 +3 "),
        (b"cp 99999 0 x a b", b"CP 99999 +0 "),
        (b"START 10000 - - - - ", b"START 10000 - "),
        (b"CP 10000 x - a b", b"CP 10000 - "),
        (b"nonsense 1 2", b"nonsense 1 - "),
        (b"n" * 21 + b" 1", b"- 1 - "),
        (b"CP 12345678901 3 - a b", b"CP - 3 "),
    ],
)
def test_the_head_of_a_transfer_answer(request_line: bytes, head: bytes) -> None:
    requests = flat(Parser(TRANSFER).feed(request_line + b"\n"))
    assert wire.answer(requests, [wire.SUCCESS])[0] == head + wire.SUCCESS + b"\n"


@pytest.mark.parametrize("word", ["CALLBACK", "callback"])
def test_a_callback_that_comes_in_does_not_go_out_again(word: str) -> None:
    requests = flat(Parser(EXECUTION).feed(f"{word} 3 SUCCESS DONE\n".encode()))
    assert wire.answer(requests, [wire.failure("x")])[0] == b"- 3 FAILURE x\n"


def test_an_answer_longer_than_a_line_is_refused_and_leaves_all_unanswered() -> None:
    requests = flat(Parser(TRANSFER).feed(b"CP 99999 1234567890 - a b\nEND 3\n"))
    longest = b"x" * (wire.MAX_LINE - specification.MAX_HEAD)
    with pytest.raises(ValueError, match="too long"):
        wire.answer(requests, [wire.SUCCESS, longest + b"x"])
    assert not any(request.answered for request in requests)
    answers, count = wire.answer(requests, [longest, longest])
    assert count == 2
    assert all(len(line) < wire.MAX_LINE for line in answers.split(b"\n"))


def test_the_widest_head_fits_its_room() -> None:
    line = b"y" * 20 + b" " + b"z" * 10 + b" 1\n" + b"CP 1234567890 1234567890 - a b\n"
    requests = flat(Parser(TRANSFER).feed(line * 2000))
    answers, _ = wire.answer(requests, [b""] * len(requests))
    assert answers == (
        b"y" * 20 + b" " + b"z" * 10 + b" - \n" + b"CP 1234567890 +1234567890 \n"
    ) * 2000  # fmt: skip


def test_payloads_and_requests_belong_together() -> None:
    requests = flat(Parser(EXECUTION).feed(b"POLL 1\nPOLL 2\n"))
    with pytest.raises(ValueError, match="2 requests and 1 payloads"):
        wire.answer(requests, [wire.SUCCESS])
    with pytest.raises(TypeError):
        wire.answer(requests, [wire.SUCCESS, "SUCCESS -"])  # type: ignore[list-item]
    assert wire.answer(requests, [wire.SUCCESS] * 2)[1] == 2


# ---------------------------------------------------------------- texts

BREAKERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@given(text=st.text() | st.lists(st.sampled_from(["a", "é", "\n", " ", "\x85"])).map("".join))
@settings(max_examples=300)
@example(text="é" * 800)
@example(text="\ud800\n\r\n")
@example(text=" x\u2028y ")
def test_texts_become_one_clean_line(text: str) -> None:
    payload = wire.failure(text)
    assert payload.startswith(b"FAILURE ")
    info = payload.removeprefix(b"FAILURE ")
    decoded = info.decode()
    assert 0 < len(info) <= wire.MAX_FAILURE
    assert not BREAKERS.search(decoded)
    assert decoded == decoded.strip(" ")
    words = re.sub(BREAKERS, " ", text).encode("utf-8", "replace").decode().strip()
    assert decoded == "-" or words.startswith(decoded)


def test_a_text_is_cut_between_characters() -> None:
    assert wire.clean("é" * 10, 5) == "éé".encode()
    assert wire.clean("ab cd", 3) == b"ab"
    assert wire.clean("\n\t ", 10) == b"-"
    assert wire.clean("", 10) == b"-"


def test_lines_that_nobody_asked_for() -> None:
    assert wire.callback("12345", b"SUCCESS DONE:143") == b"CALLBACK 12345 SUCCESS DONE:143\n"
    assert wire.timer("valid until\nnoon") == b"TIMER - SUCCESS valid until noon\n"
    assert len(wire.timer("x" * 100_000)) <= wire.MAX_LINE


def test_the_first_and_the_last_answer() -> None:
    assert wire.initialised(INFORMATION, b"-") == b"INIT - SUCCESS -\n"
    assert wire.initialised(TRANSFER, b"-") == b"INIT - - SUCCESS -\n"
    assert wire.initialised(TRANSFER, b"gsiftp://h:1/") == b"INIT - - SUCCESS gsiftp://h:1/\n"
    assert wire.initialised(TRANSFER, None, "no\nport") == b"INIT - - FAILURE no port\n"
    assert wire.finalised(EXECUTION) == b"FINALIZE - SUCCESS -\n"
    assert wire.finalised(TRANSFER) == b"FINALIZE - - SUCCESS -\n"


# ---------------------------------------------------------------- host attributes


NAMES = st.one_of(
    st.sampled_from(sorted(GwdReader.INTEGERS | GwdReader.TEXTS)),
    st.sampled_from(["SE_HOSTNAME", "QUEUE_ACCESS", "QUEUE_JOBWAIT", "SPEC_INT", "a", "X" * 64]),
    st.sampled_from(["X" * 65, "_A", "1A", "A-B", "A B", "", "É", "A[0]", 'A="', "cpu\n"]),
    st.text("ABCDEFxyz_01", max_size=8),
    st.text(max_size=5),
)
TEXTS = st.one_of(
    st.sampled_from(
        ["", "a", "x86_64", "short:long", 'say "x"', "a\nb", "\x00", "\x7f", "\x85", "\ud800"]
    ),
    st.sampled_from(["x" * 24, "x" * 25, "é" * 12 + "x", "x" * 39, "x" * 40, "x" * 4001]),
    st.sampled_from(["x" * 3999 + "é", "x" * 3997 + "€€", "é" * 3000, '"' * 4500, "\x1f" * 9]),
    st.text(max_size=30),
)
VALUES: Final[st.SearchStrategy[object]] = st.one_of(
    TEXTS,
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63, -(2**63), 2**64, 0]),
    st.sampled_from([None, 1.5, float("nan"), b"x", [], ()]),
)
ATTRIBUTES: Final[st.SearchStrategy[Any]] = st.dictionaries(NAMES, VALUES, max_size=12)


def check(
    host: dict[str, int | str],
    queues: list[dict[str, int | str]],
    more: dict[str, int | str] | None = None,
) -> GwdReader:
    more = {name: value for name, value in (more or {}).items() if name not in host}
    info, dropped = wire.format_attributes(host, queues, more)
    assert (info, dropped) == specification.format_attributes(host, queues, more)
    assert len(info) <= wire.MAX_INFO
    reader = GwdReader(info)
    given = len(host) + len(more) + sum(len(queue) for queue in queues)
    left_out = [text for text in dropped if "beyond" not in text]
    assert bool(left_out) == (len(reader.values) < given)
    return reader


@given(host=ATTRIBUTES, queues=st.lists(ATTRIBUTES, max_size=6), more=ATTRIBUTES)
@settings(max_examples=500, deadline=None)
def test_attributes_are_those_of_the_specification(
    host: dict[str, int | str], queues: list[dict[str, int | str]], more: dict[str, int | str]
) -> None:
    check(host, queues, more)


@given(
    host=st.dictionaries(st.integers(0, 200).map("G{}".format), st.integers() | TEXTS),
    queue=st.dictionaries(
        st.integers(0, 30).map("QUEUE_G{}".format), st.integers() | TEXTS, min_size=1
    ),
    count=st.integers(0, 80),
)
@settings(max_examples=100, deadline=None)
def test_whatever_is_too_much_stays_within_gwds_limits(
    host: dict[str, int | str], queue: dict[str, int | str], count: int
) -> None:
    check(host, [{"QUEUE_NAME": f"q{i}", **queue} for i in range(count)])


def test_a_host_with_all_its_attributes() -> None:
    info, dropped = wire.format_attributes(
        {"HOSTNAME": "h.example.org", "CPU_MHZ": 3000, "SE_HOSTNAME": "se", "SPEC": -7},
        [{"QUEUE_NAME": "q0", "QUEUE_NODECOUNT": 4}, {"QUEUE_NAME": "", "LOAD": True}],
    )
    assert dropped == []
    assert info == (
        b'HOSTNAME="h.example.org" CPU_MHZ=3000 SE_HOSTNAME="se" SPEC=-7 '
        b'QUEUE_NAME[0]="q0" QUEUE_NODECOUNT[0]=4 QUEUE_NAME[1]="" LOAD[1]=1'
    )


def test_at_most_67_queues() -> None:
    reader = check({}, [{"QUEUE_NAME": f"q{i}"} for i in range(70)])
    assert len(reader.values) == 67
    assert wire.format_attributes({}, [{"QUEUE_NAME": "q"}] * 70)[1] == [
        "queues from 67 on: a host has at most 67 queues"
    ]


def test_at_most_134_generic_integers_and_134_generic_texts() -> None:
    host: dict[str, int | str] = {"CPU_MHZ": 1}
    for number in range(150):
        host[f"I{number}"] = number
        host[f"T{number}"] = str(number)
    reader = check(host, [{"QUEUE_NAME": "q", "QUEUE_JOBWAIT": 3, "QUEUE_ACCESS": ":x:"}])
    assert len(reader.values) == 1 + 2 * 134 + 1
    assert reader.values["QUEUE_NAME", 0] == "q"
    assert ("I133", None) in reader.values
    assert ("I134", None) not in reader.values


def test_a_queue_that_is_left_out_gives_its_generic_attributes_back() -> None:
    crowded: dict[str, int | str] = {f"QUEUE_G{i}": i for i in range(134)}
    reader = check({}, [{**crowded, "QUEUE_NAME": "bad name"}, {"QUEUE_NAME": "q", **crowded}])
    assert len(reader.values) == 135
    assert {index for _, index in reader.values} == {1}


def test_what_does_not_fit_the_line_leaves_out_whole_queues() -> None:
    queues: list[dict[str, int | str]] = [
        {"QUEUE_NAME": f"q{i}", "QUEUE_STATUS": "s" * 3000, "QUEUE_NODECOUNT": i} for i in range(40)
    ]
    reader = check({"HOSTNAME": "h"}, queues)
    whole = [index for name, index in reader.values if name == "QUEUE_NAME"]
    assert whole == list(range(21))
    assert len(reader.values) == 1 + 3 * len(whole)


def test_integers_are_held_to_32_bits() -> None:
    host: dict[str, int | str] = {"A": 2**31, "B": -(2**31) - 1, "C": 10**30, "D": -(10**30)}
    assert wire.format_attributes(host, [])[0] == (
        b"A=2147483647 B=-2147483648 C=2147483647 D=-2147483648"
    )


@pytest.mark.parametrize("name", ["ARCH", "FORK_NAME", "LRMS_NAME", "HOSTNAME"])
def test_names_that_gwd_copies_are_single_words(name: str) -> None:
    info, (reason,) = wire.format_attributes({name: "two words", "CPU_MHZ": 1}, [])
    assert info == b"CPU_MHZ=1"
    assert reason.startswith(f"{name}: its value has a blank")


def test_a_name_that_is_no_text() -> None:
    with pytest.raises(TypeError):
        wire.format_attributes({3: 4}, [])  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        wire.format_attributes({}, [None])  # type: ignore[list-item]
    assert wire.format_attributes({"A": 1}, []) == (b"A=1", [])


def test_names_made_anew_each_time_do_not_pile_up() -> None:
    def fill(start: int) -> None:
        for number in range(start, start + 20_000):
            wire.format_attributes({f"NAME_{number}": number}, [])

    fill(0)
    tracemalloc.start()
    try:
        fill(20_000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 200_000


def test_the_limits_of_both_are_the_same() -> None:
    names = [
        name for name in vars(specification) if name.startswith("MAX_") and hasattr(wire, name)
    ]
    assert len(names) == 6
    for name in names:
        assert getattr(wire, name) == getattr(specification, name)
