"""RSL: what gwd and people write, a round trip, and what nobody should send."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import DescriptionError
from gridmad.execution.description import parse_description
from gridmad.execution.description.model import JobDescription

WRAPPER = b"""\
&(jobtype="mpi")(executable=".gw_ann_7/.wrapper")(stdout=".gw_ann_7/stdout.wrapper")\
(stderr=".gw_ann_7/stderr.wrapper")(environment=(GW_HOSTNAME "localhost")(GW_USER "ann")\
(GW_JOB_ID 7)(GW_TASK_ID 0)(GW_ARRAY_ID 0)(GW_TOTAL_TASKS 1)(GW_RESTARTED 0))(count=4)\
(queue="q0")(maxCpuTime="55")(maxWallTime="60")(maxMemory="2048")(minMemory="128")
"""
GUIDE = (
    b'&(executable="/bin/sleep")(arguments="50")'
    b'(stdout="https://gn0.example.org:40000/dev/stdout")'
    b'(stderr="https://gn0.example.org:40000/dev/stderr")(queue="gilda")'
)


def job(relations: str) -> JobDescription:
    return parse_description(f"&(executable=x){relations}".encode())


def error(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(DescriptionError) as caught:
        parse_description(data)
    return str(caught.value)


def test_wrapper_description_of_gwd() -> None:
    assert parse_description(WRAPPER) == JobDescription(
        executable=".gw_ann_7/.wrapper",
        stdout=".gw_ann_7/stdout.wrapper",
        stderr=".gw_ann_7/stderr.wrapper",
        environment={
            "GW_HOSTNAME": "localhost",
            "GW_USER": "ann",
            "GW_JOB_ID": "7",
            "GW_TASK_ID": "0",
            "GW_ARRAY_ID": "0",
            "GW_TOTAL_TASKS": "1",
            "GW_RESTARTED": "0",
        },
        count=4,
        job_type="mpi",
        queue="q0",
        max_wall_time=60,
        max_cpu_time=55,
        max_memory=2048,
        min_memory=128,
    )


def test_sample_of_the_guide() -> None:
    assert parse_description(GUIDE) == JobDescription(
        executable="/bin/sleep",
        arguments=("50",),
        stdout="https://gn0.example.org:40000/dev/stdout",
        stderr="https://gn0.example.org:40000/dev/stderr",
        queue="gilda",
    )


@pytest.mark.parametrize(
    ("relations", "arguments"),
    [
        ("(arguments=-x 1)", ["-x", "1"]),
        ("(arguments=)", []),
        ('(arguments="")', [""]),
        ("(arguments=\"a b\" 'c d')", ["a b", "c d"]),
        ('(arguments="say ""hi""" \'it\'\'s\')', ['say "hi"', "it's"]),
        ("""(arguments="it's" 'a "b"')""", ["it's", 'a "b"']),
        (
            "(arguments=--size=3 a<b a>b x!=y a&b a|b a+b ^a$)",
            ["--size=3", "a<b", "a>b", "x!=y", "a&b", "a|b", "a+b", "^a$"],
        ),
        ("(arguments=${TASK_ID} $HOME $)", ["${TASK_ID}", "$HOME", "$"]),
        ('(arguments=a#b "a" # "b" a#b#c)', ["ab", "ab", "abc"]),
        ('(arguments=--x="a b" "a"\'b\')', ["--x=a b", "ab"]),
        ("(arguments=a(* one *)b (* two\n *) c)", ["a", "b", "c"]),
        ("(arguments=(null))", None),
        ('(arguments="(null)")', ["(null)"]),
        ('(arguments="$(A) # (* no comment *)")', ["$(A) # (* no comment *)"]),
        ('(arguments="two\nlines")', ["two\nlines"]),
    ],
)
def test_arguments(relations: str, arguments: list[str] | None) -> None:
    if arguments is None:
        assert "no list" in error(f"&(executable=x){relations}")
    else:
        assert list(job(relations).arguments) == arguments


@pytest.mark.parametrize(
    "text",
    ["(executable=/bin/ls)", " \n(* hi *) & (* ho *) ( Exec_Utable = /bin/ls (* he *) ) \n"],
)
def test_names_in_any_case_and_comments_anywhere(text: str) -> None:
    assert parse_description(text.encode()).executable == "/bin/ls"


def test_substitution() -> None:
    found = job(
        '(arguments=$(TOP)/bin $(TOP)#"/lib" x$(B)y $(NONE "a b"))'
        '(rsl_substitution=(TOP "/opt")(B $(TOP)/b))'
        "(environment=(PLACE $(B)))"
    )
    assert list(found.arguments) == ["/opt/bin", "/opt/lib", "x/opt/by", "a b"]
    assert found.environment == {"PLACE": "/opt/b"}


def test_substitution_cannot_fill_the_memory() -> None:
    steps = "".join(f"(V{n} $(V{n - 1})$(V{n - 1}))" for n in range(1, 64))
    text = f"&(executable=x)(rslSubstitution=(V0 xxxxxxxx){steps})(arguments=$(V63))"
    assert "the variables expand to more than" in error(text)


def test_limits_come_from_attributes_or_from_the_environment() -> None:
    found = job(
        "(maxWallTime=5)(environment=(MAXWALLTIME 60)(MAXCPUTIME 55))"
        "(environment=(MAXMEMORY ${MEM})(MINMEMORY 0))"
    )
    assert (found.max_wall_time, found.max_cpu_time) == (5, 55)
    assert (found.max_memory, found.min_memory) == (None, None)
    assert found.environment["MAXWALLTIME"] == "60"
    assert job("(maxTime=9)").max_wall_time == 9


def test_null_was_not_given() -> None:
    found = job('(stdin="(null)")(count="(null)")(environment=(A "(null)"))')
    assert found.stdin == ""
    assert found.count == 1
    assert found.environment == {"A": "(null)"}


def test_the_last_of_two_variables_counts_and_order_stays() -> None:
    found = job("(environment=(B 1)(A 1)(B 2))(environment=(C 3))")
    assert list(found.environment.items()) == [("B", "2"), ("A", "1"), ("C", "3")]


def test_unknown_attributes_are_kept_as_they_stand() -> None:
    found = job('(inputFiles=("a" "b")(c d))(save_state=yes)')
    assert found.extra == {"inputfiles": '("a" "b")(c d)', "savestate": "yes"}


def test_bytes_that_are_no_utf8_reach_the_job() -> None:
    found = parse_description(b'&(executable="/x\xff")(arguments=\xc3\xa4)')
    assert found.executable.encode("utf-8", "surrogateescape") == b"/x\xff"
    assert found.arguments == ("ä",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: expected a job description"),
        ("hello", 'expected a job description: &(attribute=value)... or <job>...</job>, found "he'),
        ("&", "line 1, column 2: expected (, found the end of the text"),
        ("&(arguments=1)", "the job has no executable"),
        ('&(executable="")', "the job has no executable"),
        ('&(executable="(null)")', "the job has no executable"),
        ("&(executable=a", "line 1, column 15: expected ), found the end of the text"),
        ('&(executable=a)\n(count="x)', 'line 2, column 8: expected a closing ", found none'),
        ("&(executable=a)\n\n(count=4)x", 'line 3, column 10: expected (, found "x"'),
        ("&(executable>=a)", 'expected =, found ">=a)"'),
        ("&(=a)", "expected the name of an attribute"),
        ("+(&(executable=a))(&(executable=b))", "expected a job description"),
        ("&(executable=a b)", "expected one value for executable, found 2"),
        ("&(executable=(a))", "expected a value that is no list"),
        ("&(executable=a)(count=four)", 'number from 0 to 2147483647 for count, found "four"'),
        ("&(executable=a)(count=٣)", "expected a number"),
        ("&(executable=a)(count=99999999999)", "expected a number"),
        ("&(executable=a)(count=1)(count=2)", "count is given twice, with different values"),
        ("&(executable=a)(environment=A)", "expected (name value)"),
        ("&(executable=a)(environment=(A))", "expected a name and a value, found 1 values"),
        ('&(executable=a)(environment=(A=B "1"))', "expected the name of an environment variable"),
        ('&(executable=a)(environment=("" 1))', "expected the name of an environment variable"),
        ("&(executable=$(HOME)/a)", "line 1, column 14: the variable HOME is not defined"),
        ("&(executable=$())", "expected the name of a variable"),
        ("&(executable=a #)", "expected a value after #"),
        ("&(executable=a)(* never", "line 1, column 16: expected *) at the end of a comment"),
        ("&(executable=" + "(" * 100_000, "nested more than 16 deep"),
        ("&(executable=" + "$(A " * 50_000, "nested more than 16 deep"),
        ("&(executable=a\0)", "line 1, column 15: NUL bytes are not allowed"),
        ("&" + " " * 300_000, "the job description has 300001 bytes, more than 262144"),
    ],
)
def test_errors_name_the_place(text: str, message: str) -> None:
    assert message in error(text)


VALUE = st.text(st.characters(blacklist_characters="\0", codec="utf-8"), max_size=20)
NAME = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
# What ends nothing and begins nothing may stand without quotes.
BARE = st.from_regex(r"[A-Za-z0-9_./=:<>!&|+^,;*?@%~{}\[\]\\-]{1,12}", fullmatch=True)
BLANK = st.sampled_from(["", " ", "\n", "\t ", "(* c *)"])


@st.composite
def printed(draw: st.DrawFn, value: str) -> str:
    """One of the ways to write a value."""
    way = draw(st.sampled_from("\"'#"))
    if way == "#":
        cut = draw(st.integers(0, len(value)))
        blank = draw(BLANK)
        return f"{quote(value[:cut], chr(34))}{blank}#{blank}{quote(value[cut:], chr(39))}"
    return quote(value, way)


def quote(value: str, mark: str) -> str:
    return mark + value.replace(mark, mark * 2) + mark


@given(data=st.data())
def test_what_is_written_is_read(data: st.DataObject) -> None:
    draw = data.draw
    executable = draw(VALUE.filter(lambda text: text.strip() and text != "(null)"))
    arguments = draw(st.lists(VALUE | BARE, max_size=6))
    environment = draw(st.dictionaries(NAME, VALUE, max_size=4))
    blank = draw(BLANK)
    texts = [draw(printed(argument)) for argument in arguments]
    variables = [
        f"({blank}{name} {draw(printed(value))}{blank})" for name, value in environment.items()
    ]
    text = (
        f"&{blank}(ARGUMENTS{blank}={blank}{' '.join(texts)}{blank}){blank}"
        f"(executable={draw(printed(executable))})(environment={blank.join(variables)}){blank}"
    )
    found = parse_description(text.encode("utf-8"))
    assert found.executable == executable.strip()
    assert list(found.arguments) == arguments
    assert found.environment == environment


@given(st.lists(BARE.filter(lambda text: not text.startswith("*")), max_size=8))
def test_unquoted_values_are_taken_as_they_are(values: list[str]) -> None:
    assert list(job(f"(arguments={' '.join(values)})").arguments) == values


FRAGMENTS = st.sampled_from(
    [
        "&",
        "(",
        ")",
        "=",
        '"',
        "'",
        "#",
        "$(",
        "(*",
        "*)",
        " ",
        "\n",
        "executable",
        "a",
        "environment",
    ]
)


def outcome(data: bytes) -> str | None:
    """The error's text, if there is one."""
    try:
        parse_description(data)
    except DescriptionError as found:
        return str(found)
    return None


@given(
    st.binary(max_size=60)
    | st.lists(FRAGMENTS, max_size=40).map(lambda some: "".join(some).encode())
)
def test_anything_else_is_an_error_of_the_description(data: bytes) -> None:
    for text in (data, b"&" + data, b"&(executable=a)(arguments=" + data):
        assert "\n" not in (outcome(text) or "")


@pytest.mark.parametrize(
    "unit",
    [
        "x ",
        "(a)",
        "a#",
        "$",
        '""',
        "''",
        "(* *)",
        "x(* *)",
        "\n",
        '"a" ',
        "=",
        "(rslSubstitution=(A b))",
    ],
)
def test_time_grows_with_the_length_only(unit: str) -> None:
    def duration(length: int) -> float:
        text = ("&(executable=a)(arguments=" + unit * (length // len(unit))).encode()
        best = 1e9
        for _ in range(3):
            begin = time.thread_time()
            with pytest.raises(DescriptionError):
                parse_description(text)
            best = min(best, time.thread_time() - begin)
        return best

    assert duration(240_000) < 0.02 + 40 * duration(15_000)
