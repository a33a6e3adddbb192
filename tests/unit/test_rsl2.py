"""RSL2: what gwd writes looks like XML and is not."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import DescriptionError
from gridmad.execution.description import parse_description
from gridmad.execution.description.model import JobDescription

WRAPPER = b"""\
<job> <executable>.gw_ann_7/.wrapper</executable> <environment> <name>GW_HOSTNAME</name> \
<value>localhost</value></environment><environment> <name>GW_JOB_ID</name> <value>7</value>\
</environment> <stdout>.gw_ann_7/stdout.wrapper</stdout> <stderr>.gw_ann_7/stderr.wrapper\
</stderr> <count>4</count> <jobType>mpi</jobType> <queue>q0</queue></job>"""
NO_WRAPPER = b"""\
<job> <executable>prog.${ARCH}</executable><argument>-n</argument><argument>0</argument>\
<argument>"a</argument><argument>b"</argument> <directory>.gw_ann_7</directory> \
<count>4</count> <jobType>mpi</jobType> <stdin>stdin.execution</stdin> \
<stdout>stdout.execution</stdout> <stderr>stderr.execution</stderr><environment> \
<name>GW_USER</name> <value>ann</value></environment> <queue>q0</queue><environment>\
<name>LIBS</name><value>/usr/local/lib</value></environment>
<environment><name>MAXWALLTIME</name><value>60</value></environment>
<environment><name>MAXCPUTIME</name><value>55</value></environment>
<environment><name>MAXMEMORY</name><value>2048</value></environment>
<environment><name>MINMEMORY</name><value>128</value></environment>
</job>
"""


def job(elements: str) -> JobDescription:
    return parse_description(f"<job><executable>x</executable>{elements}</job>".encode())


def error(text: str) -> str:
    with pytest.raises(DescriptionError) as caught:
        parse_description(text.encode())
    return str(caught.value)


def test_wrapper_description_of_gwd() -> None:
    assert parse_description(WRAPPER) == JobDescription(
        executable=".gw_ann_7/.wrapper",
        stdout=".gw_ann_7/stdout.wrapper",
        stderr=".gw_ann_7/stderr.wrapper",
        environment={"GW_HOSTNAME": "localhost", "GW_JOB_ID": "7"},
        count=4,
        job_type="mpi",
        queue="q0",
    )


def test_paths_that_repeat_the_directory_are_relative_to_the_home() -> None:
    description = parse_description(
        b"<job> <directory>.gw_ann_7</directory> <executable>.gw_ann_7/.wrapper</executable>"
        b"<stdout>.gw_ann_7/stdout.wrapper</stdout> <stderr>.gw_ann_77/x</stderr></job>"
    )
    assert description.executable == ".wrapper"
    assert description.stdout == "stdout.wrapper"
    assert description.stderr == ".gw_ann_77/x"


def test_description_without_wrapper() -> None:
    assert parse_description(NO_WRAPPER) == JobDescription(
        executable="prog.${ARCH}",
        arguments=("-n", "0", '"a', 'b"'),
        directory=".gw_ann_7",
        environment={
            "GW_USER": "ann",
            "LIBS": "/usr/local/lib",
            "MAXWALLTIME": "60",
            "MAXCPUTIME": "55",
            "MAXMEMORY": "2048",
            "MINMEMORY": "128",
        },
        stdin="stdin.execution",
        stdout="stdout.execution",
        stderr="stderr.execution",
        count=4,
        job_type="mpi",
        queue="q0",
        max_wall_time=60,
        max_cpu_time=55,
        max_memory=2048,
        min_memory=128,
    )


@pytest.mark.parametrize(
    "value",
    [
        "a<b && c>d",
        "&amp; &lt; &#65;",
        "<argument>",
        "</arguments>",
        "</argumen>",
        "<!-- no comment -->",
        "<![CDATA[x]]>",
        "<value>",
        "</environment></job>",
        " two\nlines ",
        "",
    ],
)
def test_nothing_is_escaped(value: str) -> None:
    found = job(
        f"<argument>{value}</argument>"
        f"<environment><name>V</name><value>{value}</value></environment>"
    )
    assert found.arguments == (value,)
    assert found.environment == {"V": value}


def test_closing_tags_without_their_end() -> None:
    found = job("<maxWallTime>60</maxWallTime> <ppn>2</ppn\n> <nodes>2</nodes <count>3</count>")
    assert found.max_wall_time == 60
    assert found.count == 3
    assert found.extra == {"ppn": "2", "nodes": "2"}
    assert job("<nodes>2</nodes").extra == {"nodes": "2"}


def test_what_people_add() -> None:
    text = (
        '\ufeff<?xml version="1.0"?>\n<!-- mine -->\n<job xmlns="urn:x">\n'
        "<executable>\n  /bin/ls\n</executable><stdin/><!-- c --><argument/>\n"
        "<environment><name>A</name><value/><name>B</name><value>2</value></environment>\n"
        "<environment/></job >\n<!-- end -->\n"
    )
    found = parse_description(text.encode())
    assert found.executable == "/bin/ls"
    assert found.arguments == ("",)
    assert found.environment == {"A": "", "B": "2"}


def test_null_was_not_given() -> None:
    found = job("<stdin>(null)</stdin><queue> (null) </queue><argument>(null)</argument>")
    assert (found.stdin, found.queue) == ("", "")
    assert found.arguments == ("(null)",)


def test_unknown_elements_are_kept_as_they_stand() -> None:
    found = job("<fileStageIn><transfer><a>1</a></transfer></fileStageIn>")
    assert found.extra == {"fileStageIn": "<transfer><a>1</a></transfer>"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<job>", "line 1, column 6: expected the opening tag of an element, or </job>, found the"),
        ("<job></job>", "the job has no executable"),
        ("<job/>", 'expected <job>, found "<job/>"'),
        ("<jobs></jobs>", "expected <job>"),
        ("<", "line 1, column 1: expected <job>"),
        ("<job>\n<executable>a</exec", "line 2, column 13: expected </executable>, found none"),
        ("<job>\n\nx</job>", "line 3, column 1: expected the opening tag of an element, or </job>"),
        ("<job><executable>a</executable></job>x", 'expected nothing after </job>, found "x"'),
        ("<job><environment><value>1</value></environment></job>", "expected <name>"),
        ("<job><environment><name>A</name></environment></job>", "expected <value>"),
        (
            "<job><environment><name> </name><value>1</value></environment></job>",
            "column 25: expected the name of an environment variable",
        ),
        (
            "<job><executable>a</executable><count>4</count><count>5</count></job>",
            "column 55: count is given twice, with different values",
        ),
        ("<job><executable>a</executable><count>\n-1</count></job>", "number from 0 to"),
        ("<!-- <job>", "expected --> after a comment"),
        (
            '<!DOCTYPE job [<!ENTITY x SYSTEM "file:///etc/passwd">]><job>&x;</job>',
            "line 1, column 1: expected <job>",
        ),
        ("<job><![CDATA[x]]></job>", "expected the opening tag of an element"),
    ],
)
def test_errors_name_the_place(text: str, message: str) -> None:
    assert message in error(text)


def test_a_text_cut_anywhere_is_refused() -> None:
    # The last ">" may miss, as it does in the closing tags of some.
    for length in range(len(WRAPPER) - 1):
        with pytest.raises(DescriptionError):
            parse_description(WRAPPER[:length])


VALUE = st.text(st.characters(blacklist_characters="\0", codec="utf-8"), max_size=20)
NAME = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


@given(
    st.lists(VALUE.filter(lambda text: "</argument" not in text), max_size=6),
    st.dictionaries(NAME, VALUE.filter(lambda text: "</value" not in text), max_size=4),
)
def test_what_is_written_is_read(arguments: list[str], environment: dict[str, str]) -> None:
    elements = [f"<argument>{argument}</argument>" for argument in arguments]
    elements += [
        f"<environment> <name>{name}</name> <value>{value}</value></environment>"
        for name, value in environment.items()
    ]
    found = job("\n".join(elements))
    assert list(found.arguments) == arguments
    assert found.environment == environment


FRAGMENTS = st.sampled_from(
    [
        "<job",
        "</job",
        "<",
        ">",
        "/",
        "<!--",
        "-->",
        "<?xml",
        "?>",
        "a",
        "<executable>",
        "</executable>",
        "<name>",
        "</name>",
        "<value>",
        "</value>",
        "<environment>",
        "</environment>",
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
    for text in (data, b"<job>" + data, b"<job><executable>a</executable>" + data + b"</job>"):
        assert "\n" not in (outcome(text) or "")


@pytest.mark.parametrize(
    "unit",
    [
        "<a>",
        "<a></a",
        "<a></ab>",
        "<a ",
        "<!--",
        "<!-- -->",
        "<environment>",
        "</a",
        "\n",
        "<a></a\n",
        "<argument>x</argument>",
        "<environment></environment>",
    ],
)
def test_time_grows_with_the_length_only(unit: str) -> None:
    def duration(length: int) -> float:
        text = ("<job><executable>a</executable>" + unit * (length // len(unit))).encode()
        best = 1e9
        for _ in range(3):
            begin = time.thread_time()
            with pytest.raises(DescriptionError):
                parse_description(text)
            best = min(best, time.thread_time() - begin)
        return best

    assert duration(240_000) < 0.02 + 40 * duration(15_000)
