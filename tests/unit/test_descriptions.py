"""All dialects of job descriptions: what is cut, hostile or too long, and its cost."""

import time
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import DescriptionError
from gridmad.execution.description import MAX_BYTES, parse_description
from tests.unit import test_adl, test_jdl, test_jsdl, test_rsl, test_rsl2


class Dialect(NamedTuple):
    begin: str
    """Of a description that is read if `end` follows."""
    end: str
    fragments: str
    """What means something in it, between blanks."""
    units: str
    """What could cost too much when it comes again and again, between bars."""


XML_FRAGMENTS = "< > / & &amp; &#65; <!-- --> <![CDATA[ ]]> <? ?> <!DOCTYPE ] x \" ' = "
XML_UNITS = "<a>|<a|< |<a b='c' |<a b='|<a/>|<!--|<!-- -->|&|&amp;|&#|\n|ä|<![CDATA[|<?|"
DIALECTS = {
    "rsl": Dialect(
        "&(executable=a)(arguments=",
        ")",
        "& ( ) = \" ' # $( (* *) ^ ^% % \n executable a environment inputFiles (null)",
        'x |(a)|a#|$|""|\'\'|(* *)|x(* *)|\n|"a" |=|^%|^%a |^%%|^%%%a |^~^%^!^@|'
        "(rslSubstitution=(A b))",
    ),
    "rsl2": Dialect(
        "<job><executable>a</executable>",
        "</job>",
        "<job </job < > / <!-- --> <?xml ?> a <executable> </executable> <name> </name> "
        "<value> </value> <environment> </environment>",
        "<a>|<a></a|<a></ab>|<a |<!--|<!-- -->|<environment>|</a|\n|<a></a\n|"
        "<argument>x</argument>|<environment></environment>",
    ),
    "jdl": Dialect(
        '[Executable="a";',
        "]",
        '[ ] { } ; , = " \\ ( ) && // /* */ # \n Executable Environment Requirements other. x',
        'x=1;|x="|x="\\"|x={|x=[|[|"|\\"|/*|/* */|//\n|#\n|\n|x=(|x=)|x="a")|x={1;|'
        'Environment={"a=b"};|Requirements=(a) && (a) && ',
    ),
    "jsdl": Dialect(
        "<JobDefinition><Application><Executable>a</Executable>",
        "</Application></JobDefinition>",
        XML_FRAGMENTS + "<Environment> </Environment> name <DataStaging> </DataStaging> <Source>",
        XML_UNITS + '<Environment name="a"/>|<Argument>ä</Argument>',
    ),
    "adl": Dialect(
        "<ActivityDescription><Executable><Path>a</Path></Executable>",
        "</ActivityDescription>",
        XML_FRAGMENTS + "<Environment> </Environment> <InputFile> <OutputFile> </Target> <Name>",
        XML_UNITS + "</Target>|</Target> \n |<OutputFile><Name>ä</Name></OutputFile>",
    ),
}
NAMES = sorted(DIALECTS)


def outcome(data: bytes) -> str | None:
    """The error's text, if there is one."""
    try:
        parse_description(data)
    except DescriptionError as found:
        return str(found)
    return None


@pytest.mark.parametrize("name", NAMES)
def test_the_frames_are_descriptions(name: str) -> None:
    dialect = DIALECTS[name]
    assert outcome((dialect.begin + dialect.end).encode()) is None


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_anything_else_is_an_error_of_the_description(name: str, data: st.DataObject) -> None:
    dialect = DIALECTS[name]
    fragments = st.sampled_from([*dialect.fragments.split(" "), " "])
    garbage = data.draw(
        st.binary(max_size=60)
        | st.lists(fragments, max_size=40).map(lambda some: "".join(some).encode())
    )
    begin, end = dialect.begin.encode(), dialect.end.encode()
    for text in (garbage, begin[:1] + garbage, begin + garbage, begin + garbage + end):
        assert (outcome(text) or "").isprintable()


@pytest.mark.parametrize(
    "whole",
    [test_rsl2.WRAPPER, test_rsl2.NO_WRAPPER, test_jdl.WRAPPER, test_jdl.PRE_WRAPPER,
     test_jsdl.WRAPPER, test_adl.WRAPPER],
)  # fmt: skip
def test_a_text_cut_anywhere_is_refused(whole: bytes) -> None:
    assert outcome(whole) is None
    # RSL2's last ">" may miss, as it does in the closing tags of some.
    for length in range(len(whole.rstrip()) - 1):
        assert outcome(whole[:length]) is not None, whole[:length]


@pytest.mark.parametrize("whole", [test_rsl.WRAPPER, test_rsl.NSH, test_rsl.XRSL])
def test_rsl_cut_within_a_relation_is_refused(whole: bytes) -> None:
    for length in range(len(whole.rstrip())):
        if not whole[:length].endswith(b")") or whole[:length].count(b"(") != whole[:length].count(
            b")"
        ):
            assert outcome(whole[:length]) is not None, whole[:length]


@pytest.mark.parametrize(
    "text",
    [
        '&(executable=a)(count="4\n\x1b[2J5")',
        "&(executable=$('a\nb'))",
        f"&(executable=$({'a' * 100_000}))",
        f"&('a\n{'b' * 100_000}'=)('a\n{'b' * 100_000}'=)(executable=)",
        "<job><executable>a</executable><count>\n\x1b\n4\n5</count></job>",
        f"<JobDefinition><Executable><{'a' * 100_000}/></Executable></JobDefinition>",
        f'[Executable="a";CpuNumber="{chr(10) * 9}4 5"]',
    ],
)
def test_an_error_is_one_line_of_moderate_length(text: str) -> None:
    error = outcome(text.encode())
    assert error is not None
    assert error.isprintable()
    assert len(error) < 250


@pytest.mark.parametrize("name", NAMES)
def test_nul_and_what_is_too_long_are_refused(name: str) -> None:
    dialect = DIALECTS[name]
    text = f"{dialect.begin}\n \0{dialect.end}".encode()
    assert outcome(text) == "line 2, column 2: NUL bytes are not allowed"
    text = (dialect.begin + dialect.end).encode().ljust(MAX_BYTES)
    assert outcome(text) is None
    assert outcome(text + b" ") == (
        f"the job description has {MAX_BYTES + 1} bytes, more than {MAX_BYTES}"
    )


@pytest.mark.parametrize(
    ("name", "unit"), [(name, unit) for name in NAMES for unit in DIALECTS[name].units.split("|")]
)
def test_time_grows_with_the_length_only(name: str, unit: str) -> None:
    def duration(length: int) -> float:
        size = len(unit.encode())
        text = (DIALECTS[name].begin + unit * (length // size)).encode()
        best = 1e9
        for _ in range(2):
            begin = time.thread_time()
            with pytest.raises(DescriptionError):
                parse_description(text)
            best = min(best, time.thread_time() - begin)
        return best

    # Sixteen times as long; what is quadratic takes 256 times the time.
    assert duration(120_000) < 0.05 + 80 * duration(7_500)
