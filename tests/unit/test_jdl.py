"""JDL: what gwd writes, its slips included, a round trip, and what nobody should send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import DescriptionError
from gridmad.execution.description import JobDescription, StagedFile, parse_description

REQUIREMENTS = (
    "(other.GlueCEPolicyMaxCPUTime <= 55) && (other.GlueCEPolicyMaxWallClockTime <= 60) && "
    "(other.GlueHostMainMemoryRAMSize <= 2048) && (other.GlueHostMainMemoryRAMSize >= 128)"
)
WRAPPER = f"""\
[JobType = "Mpich";Executable = "gw_wrapper.sh";\
Arguments="gsiftp://gw.example:2811//opt/gw/var/7/job.env";StdOutput = "stdout.wrapper.0";\
StdError = "stderr.wrapper.0";\
InputSandbox = {{"gsiftp://gw.example:2811//opt/gw/libexec/gw_wrapper.sh"}};\
OutputSandbox = {{"stdout.wrapper.0", "stderr.wrapper.0"}};\
OutputSandboxBaseDestURI = "gsiftp://gw.example:2811//opt/gw/var/7/";BatchSystem = "fork";\
QueueName = "q0";CpuNumber = 4;Requirements = {REQUIREMENTS};\
Environment = {{"GW_HOSTNAME=localhost","GW_USER=ann","GW_JOB_ID=7"}}]
""".encode()
PRE_WRAPPER = b"""\
[JobType = "Normal";Executable = ".gw_ann_7/pre.sh";Stdoutput = ".gw_ann_7/stdout.pre_wrapper")\
StdError = ".gw_ann_7/stderr.pre_wrapper")Environment = {"GW_USER=ann","GW_JOB_ID=7"};\
BatchSystem = "fork";Arguments = -x "a b" 1;QueueName ="cream_1";]"""


def job(attributes: str) -> JobDescription:
    return parse_description(f'[Executable = "x";{attributes}]'.encode())


def error(text: str) -> str:
    with pytest.raises(DescriptionError) as caught:
        parse_description(text.encode())
    return str(caught.value)


def test_wrapper_description_of_gwd() -> None:
    url = "gsiftp://gw.example:2811//opt/gw"
    assert parse_description(WRAPPER) == JobDescription(
        executable="gw_wrapper.sh",
        arguments=(f"{url}/var/7/job.env",),
        stdout="stdout.wrapper.0",
        stderr="stderr.wrapper.0",
        environment={"GW_HOSTNAME": "localhost", "GW_USER": "ann", "GW_JOB_ID": "7"},
        inputs=(StagedFile("gw_wrapper.sh", f"{url}/libexec/gw_wrapper.sh", is_executable=True),),
        outputs=(
            StagedFile("stdout.wrapper.0", f"{url}/var/7/stdout.wrapper.0"),
            StagedFile("stderr.wrapper.0", f"{url}/var/7/stderr.wrapper.0"),
        ),
        count=4,
        job_type="mpi",
        queue="q0",
        max_wall_time=60,
        max_cpu_time=55,
        max_memory=2048,
        min_memory=128,
        extra={"BatchSystem": '"fork"', "Requirements": REQUIREMENTS},
    )


def test_pre_wrapper_description_of_gwd() -> None:
    assert parse_description(PRE_WRAPPER) == JobDescription(
        executable=".gw_ann_7/pre.sh",
        arguments=("-x", '"a', 'b"', "1"),
        stdout=".gw_ann_7/stdout.pre_wrapper",
        stderr=".gw_ann_7/stderr.pre_wrapper",
        environment={"GW_USER": "ann", "GW_JOB_ID": "7"},
        job_type="single",
        queue="cream_1",
        extra={"BatchSystem": '"fork"'},
    )


def test_comments_blanks_and_names_in_any_case() -> None:
    found = parse_description(
        b' \n[ // one\n EXECUTABLE /* two; */ =\n "/bin/ls" # three ]\n ; cpunumber=2 ; ] // four\n'
    )
    assert (found.executable, found.count) == ("/bin/ls", 2)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r'"a b"', "a b"),
        (r'"say \"hi\" \\ \n\t\d"', 'say "hi" \\ \n\td'),
        ('"two\nlines; ] }"', "two\nlines; ] }"),
        ('"(null)"', ""),
        ('" a "', "a"),
    ],
)
def test_strings(written: str, read: str) -> None:
    assert job(f"StdInput = {written}").stdin == read


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ("\"-n 0  'a b'\"", ["-n", "0", "'a", "b'"]),
        ('""', []),
        ('"a\u00a0b"', ["a\u00a0b"]),
        ("//host/path #5 /* x", ["//host/path", "#5", "/*", "x"]),
        ("-x (1) {a;b} [c]", ["-x", "(1)", "{a;b}", "[c]"]),
        ('a"; ]"b', ['a";', ']"b']),
    ],
)
def test_arguments(written: str, arguments: list[str]) -> None:
    assert list(job(f"Arguments = {written};").arguments) == arguments


def test_sandboxes() -> None:
    found = job(
        'InputSandbox = {"a://h/p/one", "two", "d/x"};InputSandboxBaseURI = "b://h/";'
        'OutputSandbox = "out"'
    )
    assert found.inputs == (
        StagedFile("one", "a://h/p/one"),
        StagedFile("two", "b://h/two"),
        StagedFile("x", "b://h/d/x", is_executable=True),
    )
    assert found.outputs == (StagedFile("out"),)
    assert job('InputSandbox = {"d/y"};InputSandbox = {}').inputs == ()
    assert job('InputSandbox = {"d/y"}').inputs == (StagedFile("y", "d/y"),)


@pytest.mark.parametrize(
    ("requirements", "limit"),
    [
        ("(other.GlueCEPolicyMaxCPUTime <= 5)", 5),
        ('(other.GlueCEUniqueID == "a") && ( other.GlueCEPolicyMaxCPUTime<=5 )', 5),
        ("(other.GlueCEPolicyMaxCPUTime >= 5)", None),
        ("other.GlueCEPolicyMaxCPUTime <= 5", None),
        ("(other.GlueCEPolicyMaxCPUTime <= 5) || (true)", None),
        ("!(other.GlueCEPolicyMaxCPUTime <= 5)", None),
        ("!((true) && (other.GlueCEPolicyMaxCPUTime <= 5))", None),
        ("(other.GlueCEPolicyMaxCPUTime <= 0)", None),
    ],
)
def test_requirements(requirements: str, limit: int | None) -> None:
    found = job(f"Requirements = {requirements} ;")
    assert found.max_cpu_time == limit
    assert found.extra == {"Requirements": requirements}


def test_unknown_attributes_are_kept_as_they_stand() -> None:
    found = job('Rank = -other.Time[0]; x = [a = "b;]"; c = {1, 2}]; HostNumber = 2; y = {"a", b}')
    assert found.extra == {
        "Rank": "-other.Time[0]",
        "x": '[a = "b;]"; c = {1, 2}]',
        "y": '{"a", b}',
    }
    assert found.nodes == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "line 1, column 2: expected the name of an attribute, or ], found the end"),
        ("[]", "the job has no executable"),
        ('[Executable = "a"', "line 1, column 18: expected ; or ], found the end of the text"),
        ('[Executable = "a"; x', "column 21: expected =, found the end of the text"),
        ('[Executable = "a"; x = ;]', 'column 24: expected a value, found ";]"'),
        ('[Executable = "a";\n x = "b]', 'line 2, column 6: expected a closing ", found none'),
        ('[Executable = "a"] x', 'column 20: expected nothing after ], found "x"'),
        ('[Executable = "a"; x = [;]', "expected ; or ], found the end of the text"),
        ("[Executable = a]", 'column 15: expected a string for Executable, found "a]"'),
        ('[Executable = {"a"}]', "expected a string for Executable"),
        ('[Executable = "a" + "b"]', "expected a string for Executable"),
        ('[Executable = "a"; Environment = x]', "expected a list of strings for Environment"),
        ('[Executable = "a"; Environment = {"=x"}]', "the name of an environment variable"),
        ('[Executable = "a"; Environment = {"x",}]', "expected a list of strings"),
        ('[Executable = "a";\nCpuNumber = four]', "line 2, column 13: expected a number"),
        ('[Executable = "a"; InputSandbox = {"a://b/"}]', "column 35: expected the name of a file"),
        ('[Executable = "a"; Executable = "b"]', "executable is given twice"),
        (
            '[Executable = "a";\nRequirements = (other.GlueCEPolicyMaxCPUTime <= 9999999999)]',
            "line 2, column 49: expected a number from 0 to 2147483647 for maxcputime",
        ),
        ('[Executable = "a"; /* x', 'expected the name of an attribute, or ], found "/* x"'),
    ],
)
def test_errors_name_the_place(text: str, message: str) -> None:
    assert message in error(text)


VALUE = st.text(st.characters(blacklist_characters="\0", codec="utf-8"), max_size=20)
WORD = st.text(
    st.characters(blacklist_characters="\0 \t\n\r\f\v", codec="utf-8"), min_size=1, max_size=12
)
NAME = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
BLANK = st.sampled_from(["", " ", "\n", "\t ", "/* c */", "// c\n"])


def quote(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(
    executable=VALUE.filter(lambda text: text.strip() and text != "(null)"),
    arguments=st.lists(WORD, max_size=6),
    environment=st.dictionaries(NAME, VALUE, max_size=4),
    outputs=st.lists(VALUE.filter(bool), max_size=3, unique=True),
    count=st.integers(1, 2**31 - 1),
    blank=BLANK,
)
def test_what_is_written_is_read(
    executable: str,
    arguments: list[str],
    environment: dict[str, str],
    outputs: list[str],
    count: int,
    blank: str,
) -> None:
    variables = [quote(f"{name}={value}") for name, value in environment.items()]
    separator = f"{blank},{blank}"
    text = (
        f"[{blank}EXECUTABLE{blank}= {quote(executable)}{blank};{blank}CPUNumber={count};"
        f"Arguments = {quote(' '.join(arguments))};OutputSandbox={{{blank}"
        f"{separator.join(quote(name) for name in outputs)}{blank}}};"
        f"Environment={{{separator.join(variables)}}}{blank}]{blank}"
    )
    found = parse_description(text.encode("utf-8"))
    assert found.executable == executable.strip()
    assert list(found.arguments) == arguments
    assert found.environment == environment
    assert [file.name for file in found.outputs] == outputs
    assert found.count == count
