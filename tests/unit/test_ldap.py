"""LDAP filters in GridWay's spelling and RFC 4515's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import TransientError, UsageError
from gridmad.information.ldap import Condition, MessageReader, Search, parse_filter


def texts(filter_text: str) -> list[str]:
    return [part.text for part in parse_filter(filter_text)]


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("", []),
        ("(a=b)", ["(a=b)"]),
        (
            r"(GlueCEStateStatus=Production)(GlueCEAccessControlBaseRule=VO\:gilda)",
            ["(GlueCEStateStatus=Production)", "(GlueCEAccessControlBaseRule=VO:gilda)"],
        ),
        ("(&(a=b)(c>=5))", ["(a=b)", "(c>=5)"]),
        ("(&(&(a=b)(c=d)))", ["(a=b)", "(c=d)"]),
        ("( & (a=b) (|(c=d)(!(e=*f*))) )", ["(a=b)", "(|(c=d)(!(e=*f*)))"]),
        (r"(a=\28x\29)(1.2.840:caseIgnoreMatch:=x)(a;lang-en=y z)", None),
    ],
)
def test_filters_that_are_right(written: str, parts: list[str] | None) -> None:
    found = texts(written)
    if parts is not None:
        assert found == parts
    assert texts("".join(found)) == found


def test_conditions_are_known_with_their_sense() -> None:
    (part,) = parse_filter("(|(A=x)(!(&(b=y)(!(C>=3)))))")
    assert part.conditions == (
        Condition("a", "=", "x", is_negated=False),
        Condition("b", "=", "y", is_negated=True),
        Condition("c", ">=", "3", is_negated=False),
    )
    assert part.attributes == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("GlueCEStateStatus=Production", "expected '(' before 'GlueCEStateStatus=Pr'"),
        ("(a=b", "expected ')' at its end"),
        ("(a=b))", "expected '(' before ')'"),
        ("(a)", "expected ATTRIBUTE=VALUE before 'a)'"),
        ("(=b)", "expected ATTRIBUTE=VALUE"),
        ("(a b=c)", "expected ATTRIBUTE=VALUE"),
        ("()", "expected ATTRIBUTE=VALUE"),
        ("(&)", "'&' needs conditions"),
        ("(!(a=b)(c=d))", "'!' needs one condition"),
        (r"(a=b\zz)", "a backslash needs two hexadecimal digits"),
        ("(a>=b*)", "'>=' takes no '*'"),
        ("(a=(b)", "expected ')' before '(b)'"),
        ("(a=b\0)", "expected ')'"),
        ("(!" * 60 + "(a=b)" + ")" * 60, "more than 50 levels"),
        ("(a=b),(c=d)", "expected '(' before ',(c=d)'"),
    ],
)
def test_filters_that_are_wrong_say_why_and_where(written: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_filter(written)
    assert said in str(caught.value)


@given(st.text(alphabet="()&|!=<>~*\\:ab3; "))
def test_any_text_is_a_filter_or_an_error_of_usage(text: str) -> None:
    try:
        found = texts(text)
    except UsageError:
        return
    assert texts("".join(found)) == found


@given(st.text(alphabet="()&|!=<>~*\\:ab3; ", min_size=1))
def test_the_library_takes_what_is_taken_here(text: str) -> None:
    ldap3_search = pytest.importorskip("ldap3.operation.search")
    try:
        found = texts(text)
    except UsageError:
        return
    whole = Search("GlueCE", (), "".join(found)).whole_filter
    ldap3_search.parse_filter(whole, None, True, True, None, False)


def message(size: int) -> bytes:
    """A message whose content has this many bytes."""
    if size < 128:
        return bytes([0x30, size]) + b"x" * size
    length = size.to_bytes(3, "big")
    return bytes([0x30, 0x80 + len(length)]) + length + b"x" * size


@given(st.lists(st.integers(0, 400)), st.lists(st.integers(1, 300), min_size=1))
def test_messages_are_whole_however_they_are_read(sizes: list[int], reads: list[int]) -> None:
    messages = [message(size) for size in sizes]
    stream = b"".join(messages)
    reader = MessageReader()
    found = []
    at = turn = 0
    while at < len(stream):
        size = reads[turn % len(reads)]
        found += reader.feed(stream[at : at + size])
        at += size
        turn += 1
    assert found == messages


@pytest.mark.parametrize(
    "stream",
    [
        b"SSH-2.0-OpenSSH",
        b"\x30\x84\x7f\xff\xff\xff",
        b"\x30\x88" + b"\x00" * 8,
        b"\x30\xff\0\0\0\0",
    ],
)
def test_bytes_that_are_none_of_ldap(stream: bytes) -> None:
    with pytest.raises(TransientError):
        MessageReader().feed(stream)
