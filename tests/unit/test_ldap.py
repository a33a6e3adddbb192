"""LDAP filters in GridWay's spelling and RFC 4515's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import UsageError
from gridmad.information.ldap import Condition, Search, parse_filter


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
