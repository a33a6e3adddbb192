"""The compiled decoder of LDAP's answers against ldap3's own, whole, in pieces, and broken."""

import gc
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad._ber import MAX_MESSAGE, MAX_NAMES, BerError, Decoder, Result, paged
from tests import ldap_specification as specification
from tests.ldap_specification import Control, Outcome, Writer

PLAIN = Writer()

OCTETS = st.binary(max_size=60) | st.sampled_from([b"VO:dteam", b"Production", b"0", b"x" * 300])
NAMES = st.sampled_from([b"GlueCEName", b"glueCEname", b"objectClass", b"a;lang-en", b"b", b"\xff"])
WRITERS = st.sampled_from([PLAIN, *(Writer(specification.padded(zeros)) for zeros in (0, 1, 3))])
URIS = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=3)
CONTROLS = st.lists(
    st.builds(
        Control,
        st.sampled_from(["1.2.840.113556.1.4.319", "1.2.3"]),
        st.none() | st.booleans(),
        st.none() | OCTETS,
    ),
    max_size=3,
)
NUMBERS = st.sampled_from([1, 2, 127, 128, 255, 256, 65_535, 2**31 - 1])
OUTCOMES = st.one_of(
    st.builds(Outcome, st.just(5), st.integers(0, 200), OCTETS, OCTETS, st.just(()) | URIS),
    # ldap3's decoder knows no referrals of these.
    st.builds(
        Outcome,
        st.just(1),
        st.sampled_from([0, 14, 49]),
        OCTETS,
        OCTETS,
        credentials=st.none() | OCTETS,
    ),
    st.builds(
        Outcome,
        st.just(24),
        st.sampled_from([0, 2, 52]),
        OCTETS,
        OCTETS,
        name=st.none() | OCTETS,
        value=st.none() | OCTETS,
    ),
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[int, list[bytes]]:
    """The number of a request, and the messages that answer it."""
    number = draw(NUMBERS)
    messages = []
    for _ in range(draw(st.integers(0, 8))):
        writer = draw(WRITERS)
        kind = draw(st.sampled_from(["entry", "entry", "entry", "reference", "more"]))
        if kind == "entry":
            attributes = draw(st.lists(st.tuples(NAMES, st.lists(OCTETS, max_size=5)), max_size=6))
            operation = writer.entry(draw(OCTETS), attributes)
        elif kind == "reference":
            operation = writer.reference(draw(URIS))
        else:
            operation = writer.more(draw(st.none() | OCTETS), draw(st.none() | OCTETS))
        messages.append(writer.message(number, operation, draw(CONTROLS)))
    writer = draw(WRITERS)
    messages.append(writer.message(number, writer.result(draw(OUTCOMES)), draw(CONTROLS)))
    return number, messages


def pieces(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The stream in pieces that end where the cuts are."""
    at = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[start:end] for start, end in pairwise(at)]


def outcome(result: Result) -> Outcome:
    return Outcome(
        result.operation,
        result.code,
        result.matched_dn,
        result.text,
        tuple(result.referrals),
        result.credentials,
        result.name,
        result.value,
    )


Decoded = tuple[list[dict[str, tuple[bytes, ...]]], Result | None]


def decoded(decoder: Decoder, parts: Sequence[bytes], *, late: bool = False) -> Decoded:
    """What the decoder makes of pieces; entries are asked for after each, or at the end."""
    entries = []
    result = None
    for part in parts:
        result = decoder.feed(part)
        if not late:
            entries += decoder.entries()
    entries += decoder.entries()
    return entries, result


CUTS = st.lists(st.integers(0, 1 << 16), max_size=12)


@given(st.lists(answers(), min_size=1, max_size=3), CUTS, st.booleans())
def test_answers_say_what_they_say_to_ldap3(
    asked: list[tuple[int, list[bytes]]], cuts: list[int], late: bool
) -> None:
    decoder = Decoder()
    for number, messages in asked:
        decoder.expect(number)
        entries, result = decoded(decoder, pieces(b"".join(messages), cuts), late=late)
        expected = specification.decode(messages)
        assert entries == expected.entries
        assert result is not None
        assert result.number == number
        assert outcome(result) == expected.result
        assert result.references == expected.references
        assert result.more == expected.more
        assert [(control.oid, control.value) for control in result.controls] == expected.controls
        assert decoder.held == 0


@given(answers())
def test_bytes_may_come_one_by_one(asked: tuple[int, list[bytes]]) -> None:
    number, messages = asked
    whole, single = Decoder(), Decoder()
    for decoder in (whole, single):
        decoder.expect(number)
    stream = b"".join(messages)
    together, _ = decoded(whole, [stream])
    one_by_one, result = decoded(single, [bytes([byte]) for byte in stream])
    assert one_by_one == together
    assert result is not None


@given(st.lists(CONTROLS, min_size=1, max_size=3))
def test_controls_tell_whether_they_are_critical(groups: list[list[Control]]) -> None:
    decoder = Decoder()
    for number, controls in enumerate(groups):
        decoder.expect(number)
        message = PLAIN.message(number, PLAIN.result(Outcome(5, 0)), controls)
        result = decoder.feed(message)
        assert result is not None
        assert [Control(c.oid, c.is_critical, c.value) for c in result.controls] == [
            Control(c.oid, bool(c.is_critical), c.value) for c in controls
        ]


@given(WRITERS, st.integers(0, 2**31 - 1), st.binary(max_size=300))
def test_the_cookie_of_a_page(writer: Writer, size: int, cookie: bytes) -> None:
    assert paged(writer.paged(size, cookie)) == (size, cookie)


# ---------------------------------------------------------------- what is broken


MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["set", "drop", "add"]), st.integers(0, 1 << 16), st.integers(0, 255)
    ),
    min_size=1,
    max_size=4,
)


def mutated(stream: bytes, mutations: Sequence[tuple[str, int, int]]) -> bytes:
    changed = bytearray(stream)
    for kind, where, byte in mutations:
        at = where % max(1, len(changed))
        if kind == "set" and changed:
            changed[at] = byte
        elif kind == "drop":
            del changed[at : at + 1]
        else:
            changed.insert(at, byte)
    return bytes(changed)


def outcomes(stream: bytes, number: int, cuts: Sequence[int]) -> object:
    """What a stream says, or the error it is."""
    decoder = Decoder()
    decoder.expect(number)
    entries = []
    try:
        for part in pieces(stream, cuts):
            result = decoder.feed(part)
            entries += decoder.entries()
            if result is not None:
                return entries, outcome(result)
    except BerError:
        for broken in (decoder.entries, lambda: decoder.feed(b"")):
            with pytest.raises(BerError, match="what came before"):
                broken()
        return BerError
    return entries, None


@given(answers(), MUTATIONS, CUTS)
def test_what_is_changed_on_the_way_is_an_error_or_another_answer(
    asked: tuple[int, list[bytes]], mutations: list[tuple[str, int, int]], cuts: list[int]
) -> None:
    number, messages = asked
    stream = mutated(b"".join(messages), mutations)
    assert outcomes(stream, number, cuts) in (outcomes(stream, number, ()), BerError)
    # In whatever pieces: an error may show before the entries ahead of it were asked for.
    if outcomes(stream, number, ()) is BerError:
        assert outcomes(stream, number, range(len(stream))) is BerError


@given(st.binary(max_size=200), CUTS)
def test_any_bytes(stream: bytes, cuts: list[int]) -> None:
    outcomes(stream, 1, cuts)


@given(st.recursive(st.binary(max_size=6), lambda inner: st.lists(inner, max_size=4)), st.data())
def test_any_elements(tree: object, data: st.DataObject) -> None:
    """Elements in elements with tags that are known, but out of place."""
    tags = st.sampled_from([0x01, 0x02, 0x04, 0x0A, 0x30, 0x31, 0x64, 0x65, 0x73, 0x79, 0xA0, 0xA3])

    def encoded(node: object) -> bytes:
        content = node if isinstance(node, bytes) else b"".join(map(encoded, node))  # type: ignore[call-overload]
        return bytes(PLAIN.element(data.draw(tags), content))

    operation = encoded(tree)
    outcomes(PLAIN.message(1, operation), 1, ())


ENTRY = PLAIN.entry(b"cn=x", [(b"cn", [b"x"])])
DONE = PLAIN.message(1, PLAIN.result(Outcome(5, 0)))


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (b"SSH-2.0-OpenSSH", "does not speak LDAP"),
        (b"\x30\x80\x02\x01\x01", "a message has a length that LDAP does not allow"),
        (b"\x30\xff" + bytes(127), "a message has a length that LDAP does not allow"),
        (b"\x30\x84\x7f\xff\xff\xff", f"a message has more than {MAX_MESSAGE} bytes"),
        (b"\x30\x89" + b"\xff" * 9, f"a message has more than {MAX_MESSAGE} bytes"),
        (b"\x30\x00", "a message's number does not end within what holds it"),
        (b"\x30\x02\x02\x00", "a message's number is an integer of 0 bytes"),
        (b"\x30\x0b\x02\x09" + bytes(9), "a message's number is an integer of 9 bytes"),
        (b"\x30\x03\x04\x01\x01", "a message's number has the tag 0x04 and not 0x02"),
        (b"\x30\x03\x02\x01\x01", "an operation does not end"),
        (PLAIN.message(1, b"\x7f\x22\x00"), "an operation has a tag of several bytes"),
        (PLAIN.message(1, b"\x63\x00"), "an operation with the tag 0x63 is no answer"),
        (PLAIN.message(2, ENTRY), "message 2 answers no request that waits"),
        (PLAIN.message(-1, ENTRY), "message -1 answers no request that waits"),
        (PLAIN.message(0, ENTRY), "message 0 answers no request that waits"),
        (PLAIN.message(1, ENTRY.replace(b"\x31\x03", b"\x31\x7f")), "values does not end"),
        (PLAIN.message(1, ENTRY.replace(b"\x04\x01x", b"\x04\x02x")), "a value does not end"),
        (PLAIN.message(1, ENTRY.replace(b"\x04\x01x", b"\x24\x01x")), "a value has the tag 0x24"),
        (PLAIN.message(1, ENTRY.replace(b"\x31\x03", b"\x30\x03")), "values has the tag 0x30"),
        (PLAIN.message(1, b"\x64\x00"), "an entry's name does not end"),
        (PLAIN.message(1, b"\x65\x00"), "a result's code does not end"),
        (PLAIN.message(1, PLAIN.result(Outcome(5, -1))), "-1 is no result"),
        (PLAIN.message(1, b"\x65\x07\x0a\x01\x00\x04\x00\x04\x05"), "a result's text does not end"),
        (PLAIN.message(1, b"\x73\x02\x30\x00"), "a reference has the tag 0x30"),
        (DONE.replace(b"\x30\x0c", b"\x30\x0d") + b"\xa0", "controls does not end"),
        (PLAIN.message(1, PLAIN.result(Outcome(5, 0)) + b"\xa0\x02\x04\x00"), "a control has the"),
    ],
)
def test_what_is_malformed_is_told_in_words(stream: bytes, said: str) -> None:
    decoder = Decoder()
    decoder.expect(1)
    with pytest.raises(BerError) as caught:
        decoded(decoder, [stream])
    assert said in str(caught.value)


def test_every_byte_of_an_answer_cut_off_leaves_it_unfinished() -> None:
    stream = PLAIN.message(1, ENTRY) + DONE
    for size in range(len(stream)):
        decoder = Decoder()
        decoder.expect(1)
        assert decoder.feed(stream[:size]) is None
        decoder.entries()
        assert decoder.feed(stream[size:]) is not None


def test_an_element_that_is_cut_off_within_its_message_is_an_error() -> None:
    """Each length within an entry, one too large, and the last byte of each element gone."""
    entry = PLAIN.message(1, PLAIN.entry(b"cn=x", [(b"cn", [b"x", b"yz"]), (b"sn", [b"abc"])]))
    for at in range(6, len(entry)):
        for byte in (0x7F, 0x81, 0x84, 0xFE):
            changed = entry[:at] + bytes([byte]) + entry[at + 1 :]
            outcomes(changed, 1, ())
        decoder = Decoder()
        decoder.expect(1)
        shorter = entry[:1] + bytes([at - 2]) + entry[2:at]
        with pytest.raises(BerError):
            decoded(decoder, [shorter])


# ---------------------------------------------------------------- connections


def test_a_notice_of_disconnection_is_told_between_answers_and_within_one() -> None:
    notice = PLAIN.message(
        0,
        PLAIN.result(Outcome(24, 52, b"", b"bye", (), None, b"1.3.6.1.4.1.1466.20036")),
    )
    decoder = Decoder()
    decoder.expect(1)
    result = decoder.feed(DONE + notice)
    assert result is not None
    assert result.number == 1
    assert decoder.held == len(notice)
    decoder.expect(2)
    result = decoder.feed(b"")
    assert result is not None
    assert (result.number, result.code, result.text) == (0, 52, b"bye")
    decoder = Decoder()
    decoder.expect(1)
    result = decoder.feed(PLAIN.message(1, ENTRY) + notice)
    assert result is not None
    assert result.number == 0


def test_what_comes_before_a_request_answers_none() -> None:
    with pytest.raises(BerError, match="message 1 answers no request"):
        Decoder().feed(DONE)


@pytest.mark.parametrize("operation", [1, 5, 24])
def test_every_result_may_refer_to_other_servers(operation: int) -> None:
    decoder = Decoder()
    decoder.expect(1)
    referral = Outcome(operation, 10, b"", b"", (b"ldap://a/", b"ldap://b/"))
    result = decoder.feed(PLAIN.message(1, PLAIN.result(referral)))
    assert result is not None
    assert outcome(result) == referral


def test_what_a_later_version_adds_is_passed_over() -> None:
    more = PLAIN.element(0xA9, b"\x04\x00")
    writer = PLAIN
    parts = writer.element(0x64, writer.element(0x04, b"x"), writer.element(0x30), more)
    done = writer.element(
        0x65, writer.integer(0, 0x0A), writer.element(0x04), writer.element(0x04), more
    )
    decoder = Decoder()
    decoder.expect(1)
    stream = writer.message(1, parts + more) + writer.message(1, done + more)
    assert decoded(decoder, [stream])[0] == [{}]


# ---------------------------------------------------------------- memory


def test_entries_are_nothing_to_the_garbage_collector() -> None:
    entry = PLAIN.entry(b"x", [(b"a", [b"1"]), (b"b", [b"2", b"x" * 100]), (b"c", [])])
    decoder = Decoder()
    decoder.expect(1)
    (found,), _ = decoded(decoder, [PLAIN.message(1, entry)])
    assert found == {"a": (b"1",), "b": (b"2", b"x" * 100), "c": ()}
    assert not gc.is_tracked(found)
    assert not any(map(gc.is_tracked, found.values()))


def test_common_values_and_names_are_made_once() -> None:
    entry = PLAIN.message(1, PLAIN.entry(b"x", [(b"Name", [b"Production"])]))
    decoder = Decoder()
    decoder.expect(1)
    (one, other), _ = decoded(decoder, [entry, entry])
    assert one["name"] is other["name"]
    assert next(iter(one)) is next(iter(other))


def test_a_server_of_endless_names_and_values_costs_no_endless_memory() -> None:
    decoder = Decoder()
    decoder.expect(1)

    def feed(first: int, count: int) -> None:
        for number in range(first, first + count):
            attribute = (f"name{number}".encode(), [f"value{number}".encode()])
            (found,), _ = decoded(decoder, [PLAIN.message(1, PLAIN.entry(b"x", [attribute]))])
            assert found == {attribute[0].decode(): (attribute[1][0],)}

    feed(0, 3 * MAX_NAMES)
    tracemalloc.start()
    try:
        feed(3 * MAX_NAMES, 100)
        before = tracemalloc.get_traced_memory()[0]
        feed(4 * MAX_NAMES, 2 * MAX_NAMES)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < before + 1_000_000
    finally:
        tracemalloc.stop()


def test_nothing_is_left_of_a_decoder() -> None:
    stream = PLAIN.message(1, ENTRY) * 50 + DONE
    broken = PLAIN.message(1, ENTRY.replace(b"\x04\x01x", b"\x04\x02x"))

    def use() -> None:
        for _ in range(200):
            decoder = Decoder()
            decoder.expect(1)
            decoded(decoder, [stream])
            decoder.expect(1)
            decoder.feed(broken)
            with pytest.raises(BerError):
                decoder.entries()

    use()
    tracemalloc.start()
    try:
        use()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        use()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < before + 50_000
    finally:
        tracemalloc.stop()
