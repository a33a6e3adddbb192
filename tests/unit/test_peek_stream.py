"""Names of streams and clients, and the destinations that follow from them."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import UsageError
from gridmad.peek.stream import Destinations, Templates, new_client, new_stream, valid_stream

CLIENT = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("name", ["a", "_", "-", "7", "job-1.a", "a..b", "x" * 128, CLIENT])
def test_streams(name: str) -> None:
    assert valid_stream(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", ".", ".a", "a/b", "a\n", "\na", "a b", "a\0", "é", "\uff11", "a>", "*", "<id>", "a:b",
        "x" * 129, "x" * 10_240,
    ],
)  # fmt: skip
def test_what_is_no_stream(name: str) -> None:
    with pytest.raises(UsageError, match="is no stream id") as caught:
        valid_stream(name)
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()


@given(st.text(max_size=140))
def test_streams_are_what_the_specification_says(name: str) -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
    is_valid = 0 < len(name) <= 128 and name[0] in letters and all(c in letters + "." for c in name)
    if is_valid:
        assert valid_stream(name) == name
    else:
        with pytest.raises(UsageError):
            valid_stream(name)


@pytest.mark.parametrize("make", [new_stream, new_client])
def test_new_ids(make: Any) -> None:
    made = [make() for _ in range(100)]
    assert len(set(made)) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in made)
    assert all(valid_stream(name) for name in made)


def test_destinations() -> None:
    destinations = Destinations("job-1")
    assert destinations.control == "/queue/control.job.job-1"
    assert destinations.data(CLIENT) == f"/queue/data.job-1.{CLIENT}"
    assert destinations.park == "/queue/data.job-1"
    assert destinations.token == "/queue/control.token.job-1"
    assert destinations.roll == "/topic/peek.roll"
    assert destinations.present(CLIENT) == f"/queue/control.roll.{CLIENT}"


def test_other_templates() -> None:
    templates = Templates(control="/queue/site:<id>:in", data="out.<client>.<id>.<id>")
    destinations = Destinations("a", templates)
    assert destinations.control == "/queue/site:a:in"
    assert destinations.data(CLIENT) == f"out.{CLIENT}.a.a"


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("control", ""), ("control", "/queue/control"), ("control", "/queue/<id>.<client>"),
        ("control", "/queue/<id> x"), ("control", "/queue/<id>\n"), ("control", "/queue/<id>é"),
        ("control", "/queue/<id>.*"), ("control", "/queue/<id>.>"), ("control", "/queue/#.<id>"),
        ("control", "/queue/<id>,/queue/x"), ("control", "/queue/<id>?x=1"),
        ("control", "/queue/<<id>>"), ("control", "/queue/<id>.<job>"),
        ("control", "/queue/data.<id>"),
        ("data", "/queue/data.<id>"), ("data", "/queue/data.<client>"),
        ("park", "/queue/data"), ("token", "/queue/token"), ("roll", "/topic/<id>"),
        ("present", "/queue/present"), ("present", "/queue/<id>.<client>"),
    ],
)  # fmt: skip
def test_templates_that_cannot_work(name: str, template: str) -> None:
    with pytest.raises(UsageError) as caught:
        Templates(**{name: template})
    assert str(caught.value).isprintable()


def test_a_destination_has_a_bound() -> None:
    long = Templates(control="/queue/<id>" + "x" * 119)
    Destinations("x" * 128, long)
    with pytest.raises(UsageError, match="more than 255 bytes"):
        Destinations("x" * 128, Templates(control="/queue/<id>" + "x" * 121))
    # With a client in it, too.
    with pytest.raises(UsageError, match="more than 255 bytes"):
        Destinations("x" * 128, Templates(data="/queue/<id>.<client>" + "x" * 88))


def test_a_stream_is_checked_where_it_is_used() -> None:
    with pytest.raises(UsageError):
        Destinations("a/b")


@pytest.mark.parametrize("client", ["", "x", CLIENT + "\n", CLIENT.upper(), "0" * 33, "../x"])
def test_a_client_is_checked_where_it_is_used(client: str) -> None:
    for destination in (Destinations("a").data, Destinations("a").present):
        with pytest.raises(ValueError, match="is no client"):
            destination(client)
