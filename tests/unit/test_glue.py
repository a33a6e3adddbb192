"""What both versions of GLUE have in common, and hosts that both describe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import UsageError
from gridmad.information import ldap
from gridmad.information.glue import (
    Decoded,
    PublishedHost,
    access,
    decoded,
    merge,
    number_of,
    numbers_of,
    text_of,
    words_of,
)
from gridmad.information.glue2_filter import translated

VALUES = st.none() | st.integers(0, 9) | st.sampled_from(["", "x", "y"])
PARTS = st.dictionaries(st.sampled_from(["ARCH", "CPU_MHZ", "OS_NAME", "NODECOUNT"]), VALUES)
QUEUES = st.dictionaries(
    st.sampled_from("abcd"),
    st.dictionaries(st.sampled_from(["QUEUE_STATUS", "QUEUE_JOBWAIT", "QUEUE_MAXTIME"]), VALUES),
)
HOSTS = st.dictionaries(st.sampled_from("uvw"), st.builds(PublishedHost, PARTS, QUEUES))


def test_what_the_first_does_not_tell_is_as_the_second_tells_it() -> None:
    first = PublishedHost({"ARCH": "x", "OS_NAME": None}, {"a": {"QUEUE_JOBWAIT": None}}, {"S": 1})
    second = PublishedHost(
        {"ARCH": "y", "OS_NAME": "z", "CPU_MHZ": 5},
        {"a": {"QUEUE_JOBWAIT": "3"}, "b": {"QUEUE_JOBWAIT": None}},
        {"S": 2, "T": 3},
    )
    merged = merge([Decoded({"h": first}, ["one"]), Decoded({"h": second, "g": second}, ["two"])])
    assert list(merged.hosts) == ["g", "h"]
    assert merged.problems == ["one", "two"]
    attributes = merged.hosts["h"].attributes()
    assert attributes.host == {"ARCH": "x", "OS_NAME": "z", "CPU_MHZ": 5}
    assert attributes.queues == [{"QUEUE_JOBWAIT": "3"}, {"QUEUE_JOBWAIT": "0"}]
    assert attributes.more == {"S": 1, "T": 3}


@given(HOSTS, HOSTS)
def test_any_two_descriptions_are_merged(
    first: dict[str, PublishedHost], second: dict[str, PublishedHost]
) -> None:
    merged = merge([Decoded(first, []), Decoded(second, [])]).hosts
    assert list(merged) == sorted({*first, *second})
    for name, host in merged.items():
        nothing = PublishedHost({}, {})
        one, other = first.get(name, nothing), second.get(name, nothing)
        assert host.queues.keys() == {*one.queues, *other.queues}
        for attribute, value in host.host.items():
            told = one.host.get(attribute)
            assert value == (other.host.get(attribute) if told is None else told)
        assert merge([Decoded({name: host}, [])] * 2).hosts[name].host == host.host
        assert b"\n" not in host.attributes().payload


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"5", 5),
        (b" 5 ", 5),
        (b"+5", 5),
        (b"5.9", 5),
        (b"-5", None),
        (b"1_000", None),
        (b"", None),
        (b"\xd9\xa3", None),
        (b"9" * 30, int("9" * 30)),
        (b"9" * 31, None),
        (b"9" * 100_000, None),
        (b"soon", None),
    ],
)
def test_numbers(value: bytes, expected: int | None) -> None:
    assert number_of({"a": [value]}, "a") == expected
    assert numbers_of({"a": [value], "b": []}, ("b", "a", "c")) == [None, expected, None]


@given(st.binary(max_size=200))
def test_a_word_is_a_text(value: bytes) -> None:
    entry = {"a": [value, b"more"], "b": []}
    assert text_of(entry, "a") == decoded(value)
    assert words_of(entry, ("b", "a", "c")) == ["", decoded(value), ""]


def test_many_rules() -> None:
    few = ["VO:x", "VOMS:/y/Role=z", "DENY:/w", "vo:v"]
    assert access(few) == ":x::y::v::/y/Role=z:"
    assert access(few, {"y"}) == ":y::/y/Role=z:"
    assert access(f"VO:{number}" for number in range(1000)).count("::") == 999


# ---------------------------------------------------------------- filters


NAMES = st.sampled_from(
    [
        "GlueCEName",
        "glueceStateStatus",
        "GlueCEPolicyMaxWallClockTime",
        "GlueCEAccessControlBaseRule",
        "GlueHostArchitecturePlatformType",
        "GlueCEInfoHostName",
        "GlueCEInfoDataDir",
        "GLUE2PolicyRule",
    ]
)
CONDITIONS = st.builds(
    "({}{}{})".format,
    NAMES,
    st.sampled_from(["=", ">=", "<=", ":="]),
    st.text(alphabet="aZ19.-*:/", max_size=6),
)
JOIN = "".join
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: (
        st.builds("(!{})".format, inner)
        | st.builds(
            "({}{})".format, st.sampled_from("&|"), st.lists(inner, min_size=1).map("".join)
        )
    ),
    max_leaves=8,
)


@given(st.lists(FILTERS, max_size=3).map("".join))
def test_a_translation_is_a_filter_that_needs_no_other(text: str) -> None:
    ldap3_search = pytest.importorskip("ldap3.operation.search")
    try:
        found = translated(text)
    except UsageError:
        return
    assert translated(found) == found
    names = {name for part in ldap.parse_filter(found) for name in part.attributes}
    assert all(name.startswith("glue2") for name in names)
    whole = ldap.Search("GLUE2ComputingShare", (), found).whole_filter
    ldap3_search.parse_filter(whole, None, True, True, None, False)
