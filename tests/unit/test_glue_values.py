"""The compiled values of entries against their specification."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gridmad import _glue
from gridmad.information.ldap import Entry
from tests import glue_specification as specification

TEXTS = st.text(st.sampled_from("aB=\t\n \x1c\x85\xa0é€0") | st.characters(), max_size=70)
VALUES = (
    st.binary(max_size=80)
    | TEXTS.map(lambda text: text.encode("utf-8", "replace"))
    | st.from_regex(r"\A\s*[+-]?[0-9]{0,32}(\.[0-9]*)?\s*\Z").map(lambda text: text.encode())
    | st.sampled_from([b"GlueClusterUniqueID=A.org", b"glueclusteruniqueid = x=y ", b"=", b"-0"])
)
ENTRIES = st.dictionaries(
    st.sampled_from(["a", "b"]),
    st.lists(VALUES, max_size=3) | st.lists(VALUES, max_size=3).map(tuple),
    max_size=2,
)


@given(ENTRIES)
@example({"a": [b"9" * 30]})
@example({"a": [b"9" * 31]})
@example({"a": [b"9" * 18]})
@example({"a": [b"9" * 19 + b".5"]})
@example({"a": (b"-1",)})
@example({"a": (b"444444",)})
def test_entries_say_what_the_specification_says(entry: Entry) -> None:
    for _ in range(2):  # the second time, texts may be known
        for name in ("a", "b"):
            assert _glue.text_of(entry, name) == specification.text_of(entry, name)
            assert _glue.texts_of(entry, name) == specification.texts_of(entry, name)
            assert _glue.number_of(entry, name) == specification.number_of(entry, name)
            assert _glue.state_of(entry, name) == specification.state_of(entry, name)
            found = _glue.keys_of(entry, name, "glueclusteruniqueid")
            assert found == specification.keys_of(entry, name, "glueclusteruniqueid")
        assert _glue.words_of(entry, "ab") == specification.words_of(entry, "ab")
        assert _glue.numbers_of(entry, "ab") == specification.numbers_of(entry, "ab")
        assert _glue.quantity_of(entry, "a", "b") == specification.quantity_of(entry, "a", "b")


@given(VALUES)
def test_values(value: bytes) -> None:
    assert _glue.decoded(value) == specification.decoded(value)


def test_texts_that_many_entries_have_are_made_once() -> None:
    texts = [_glue.text_of({"a": [bytes(bytearray(b"Production"))]}, "a") for _ in range(2)]
    assert texts[0] is texts[1]


@pytest.mark.parametrize("entry", [{"a": ["text"]}, {"a": (1,)}, {"a": 5}, None])
def test_what_is_no_entry_is_an_error(entry: object) -> None:
    with pytest.raises((TypeError, AttributeError)):
        _glue.text_of(entry, "a")  # type: ignore[arg-type]
