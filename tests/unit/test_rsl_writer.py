"""What the writer of RSL writes, our reader and Globus's own read."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import DescriptionError
from gridmad.execution.description import parse_description
from gridmad.execution.description.rsl_writer import Value, rsl

TEXT = st.text(
    st.characters(blacklist_characters="\0", codec="utf-8")
    | st.sampled_from("\"'()$#*&^%= \n\udc80\udcff"),
    max_size=20,
)


@pytest.mark.parametrize(
    ("relations", "text"),
    [
        ([], "&"),
        ([("executable", "/bin/sleep"), ("count", 4)], '&(executable="/bin/sleep")(count="4")'),
        ([("arguments", ["a b", "", 'say "hi"'])], '&(arguments="a b" "" "say ""hi""")'),
        ([("arguments", []), ("stdin", "")], '&(stdin="")'),
        (
            [("environment", [("A", "1"), ("B", "$(A) # (* b *)")])],
            '&(environment=("A" "1") ("B" "$(A) # (* b *)"))',
        ),
        ([("a", [[["x"], "y"]])], '&(a=(("x") "y"))'),
    ],
)
def test_relations(relations: list[tuple[str, Value]], text: str) -> None:
    assert rsl(relations) == text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("a=b)(c", "x", '"a=b)(c" is no name of an RSL attribute'),
        ("", "x", "is no name"),
        ("a\n", "x", "is no name"),
        ("a", "x\0y", "no NUL"),
        ("a", [["x\0y"]], "no NUL"),
        ("a", [[]], "no empty list"),
    ],
)
def test_what_rsl_cannot_say(name: str, value: Value, message: str) -> None:
    with pytest.raises(DescriptionError, match=re.escape(message)):
        rsl([(name, value)])


@given(
    executable=TEXT.filter(lambda text: text.strip() and text != "(null)"),
    arguments=st.lists(TEXT, max_size=6),
    environment=st.dictionaries(st.from_regex(r"[A-Za-z_]\w{0,8}", fullmatch=True), TEXT),
)
def test_what_is_written_is_read(
    executable: str, arguments: list[str], environment: dict[str, str]
) -> None:
    text = rsl(
        [
            ("executable", executable),
            ("arguments", arguments),
            ("environment", list(environment.items())),
        ]
    )
    found = parse_description(text.encode("utf-8", "surrogateescape"))
    assert found.executable == executable.strip()
    assert list(found.arguments) == arguments
    assert dict(found.environment) == environment
