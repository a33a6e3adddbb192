"""JSDL: what gwd writes, a round trip, and XML that nobody should send."""

from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import DescriptionError
from gridmad.execution.description import JobDescription, StagedFile, parse_description

URL = "gsiftp://gw.example:2811//opt/gw"
WRAPPER = b"""\
<?xml version="1.0" encoding="UTF-8"?>
<jsdl:JobDefinition xmlns="http://www.example.org/"
   xmlns:jsdl="http://schemas.ggf.org/jsdl/2005/11/jsdl"
   xmlns:jsdl-posix="http://schemas.ggf.org/jsdl/2005/11/jsdl-posix"
   xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
 <jsdl:JobDescription>
  <jsdl:JobIdentification>
   <jsdl:JobName>full</jsdl:JobName>
  </jsdl:JobIdentification>
  <jsdl:Application>
   <jsdl-posix:POSIXApplication>
    <jsdl-posix:Executable>./gw_wrapper.sh</jsdl-posix:Executable>
    <jsdl-posix:Argument>gsiftp://gw.example:2811//opt/gw/var/7/job.env</jsdl-posix:Argument>
    <jsdl-posix:Output>stdout.wrapper.0</jsdl-posix:Output>
    <jsdl-posix:Error>stderr.wrapper.0</jsdl-posix:Error>
    <jsdl-posix:Environment name="QUERY">a=1&b<2 && "c"</jsdl-posix:Environment>
    <jsdl-posix:Environment name="GW_JOB_ID">7</jsdl-posix:Environment>
    <jsdl-posix:Environment name="HOME" filesystemName="HOME"/>
    <jsdl-posix:WallTimeLimit>3600</jsdl-posix:WallTimeLimit>
    <jsdl-posix:MemoryLimit>2097152</jsdl-posix:MemoryLimit>
    <jsdl-posix:CPUTimeLimit>3300</jsdl-posix:CPUTimeLimit>
   </jsdl-posix:POSIXApplication>
  </jsdl:Application>
  <jsdl:DataStaging>
   <jsdl:FileName>gw_wrapper.sh</jsdl:FileName>
   <jsdl:CreationFlag>overwrite</jsdl:CreationFlag>
   <jsdl:Source>
    <jsdl:URI>gsiftp://gw.example:2811//opt/gw/libexec/gw_wrapper.sh</jsdl:URI>
   </jsdl:Source>
  </jsdl:DataStaging>
  <jsdl:DataStaging>
   <jsdl:FileName>in.dat</jsdl:FileName>
   <jsdl:CreationFlag>overwrite</jsdl:CreationFlag>
   <jsdl:Source>
    <jsdl:URI>gsiftp://se.example/~/data/in.dat</jsdl:URI>
   </jsdl:Source>
  </jsdl:DataStaging>
  <jsdl:DataStaging>
   <jsdl:FileName>stdout.wrapper.0</jsdl:FileName>
   <jsdl:CreationFlag>overwrite</jsdl:CreationFlag>
   <jsdl:Target>
    <jsdl:URI>gsiftp://gw.example:2811//opt/gw/var/7/stdout.wrapper.0</jsdl:URI>
   </jsdl:Target>
  </jsdl:DataStaging>

 </jsdl:JobDescription>
</jsdl:JobDefinition>
"""


def posix(elements: str, staging: str = "") -> bytes:
    return (
        "<JobDefinition><JobDescription><Application><POSIXApplication>"
        f"<Executable>x</Executable>{elements}</POSIXApplication></Application>{staging}"
        "</JobDescription></JobDefinition>"
    ).encode("utf-8", "surrogateescape")


def error(data: bytes) -> str:
    with pytest.raises(DescriptionError) as caught:
        parse_description(data)
    return str(caught.value)


def test_wrapper_description_of_gwd() -> None:
    assert parse_description(WRAPPER) == JobDescription(
        executable="./gw_wrapper.sh",
        arguments=(f"{URL}/var/7/job.env",),
        stdout="stdout.wrapper.0",
        stderr="stderr.wrapper.0",
        environment={"QUERY": 'a=1&b<2 && "c"', "GW_JOB_ID": "7"},
        inputs=(
            StagedFile("gw_wrapper.sh", f"{URL}/libexec/gw_wrapper.sh", is_executable=True),
            StagedFile("in.dat", "gsiftp://se.example/~/data/in.dat"),
        ),
        outputs=(StagedFile("stdout.wrapper.0", f"{URL}/var/7/stdout.wrapper.0"),),
        name="full",
        max_wall_time=60,
        max_cpu_time=55,
        max_memory=2048,
    )


def test_limits_are_rounded_up() -> None:
    found = parse_description(
        posix(
            "<WallTimeLimit>61</WallTimeLimit><CPUTimeLimit>1</CPUTimeLimit>"
            "<MemoryLimit> 1025 </MemoryLimit>"
        )
    )
    assert (found.max_wall_time, found.max_cpu_time, found.max_memory) == (2, 1, 2)
    found = parse_description(
        posix("<WallTimeLimit>120</WallTimeLimit><MemoryLimit>0</MemoryLimit>")
    )
    assert (found.max_wall_time, found.max_memory) == (2, None)


def test_a_file_may_come_and_go() -> None:
    found = parse_description(
        posix(
            "",
            "<DataStaging><FileName>f</FileName><Source><URI>a://b</URI></Source>"
            "<Target><URI>c://d</URI></Target></DataStaging>",
        )
    )
    assert found.inputs == (StagedFile("f", "a://b"),)
    assert found.outputs == (StagedFile("f", "c://d"),)


def test_unknown_elements_are_kept() -> None:
    found = parse_description(
        posix(
            "<CoreDumpLimit>\n 0 </CoreDumpLimit>",
            "<Resources><OS>\n<Name>l</Name></OS></Resources>",
        )
    )
    assert found.extra == {"CoreDumpLimit": "0", "Resources": "l"}


def test_bytes_that_are_no_utf8_reach_the_job() -> None:
    data = posix("<Argument>").replace(b"<Argument>", b"<Argument>\xff\xc3\xa4&\x80</Argument>")
    [argument] = parse_description(data).arguments
    assert argument.encode("utf-8", "surrogateescape") == b"\xff\xc3\xa4&\x80"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("&amp;&lt;&gt;&quot;&apos;&#65;&#x42;", "&<>\"'AB"),
        ("& && &x &x; &#; &#xG; &amp", "& && &x &x; &#; &#xG; &amp"),
        ("a<b 1 < 2 <- <a <a b <a b=c> <1> <<", "a<b 1 < 2 <- <a <a b <a b=c> <1> <<"),
        ("<![CDATA[<a> & &amp; ]]>b<!-- c -->d<?p i?>", "<a> & &amp; bd"),
        (" a\n", " a\n"),
        ("", ""),
    ],
)
def test_texts(written: str, read: str) -> None:
    assert parse_description(posix(f"<Argument>{written}</Argument>")).arguments == (read,)


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    "declaration",
    [
        "<!DOCTYPE JobDefinition>",
        f'<!DOCTYPE JobDefinition [<!ENTITY l0 "ha">{LAUGHS}]>',
        '<!DOCTYPE JobDefinition [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE JobDefinition SYSTEM "http://localhost/x.dtd">',
        '<!DOCTYPE JobDefinition [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>',
    ],
)
def test_no_document_type_is_read(declaration: str) -> None:
    text = b"<!-- <!DOCTYPE -->\n " + declaration.encode() + posix("<Argument>&l9;&x;</Argument>")
    assert error(text) == "line 2, column 2: a document type is not allowed"


def test_without_a_document_type_no_entity_is_expanded() -> None:
    found = parse_description(posix("<Argument>&x;</Argument>"))
    assert found.arguments == ("&x;",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (posix("\n<Count>"), "line 2, column 10: mismatched tag in the XML"),
        (posix("\n ä</a<b>"), "line 2, column 6: not well-formed (invalid token) in the XML"),
        (posix("\n\1"), "line 2, column 1: not well-formed (invalid token) in the XML"),
        (posix("\n&#1;"), "line 2, column 1: reference to invalid character number in the XML"),
        (posix("") + b"\n<x/>", "line 2, column 1: junk after document element in the XML"),
        (posix("\n ä\U0010f0ff"), "line 2, column 3: this character is not allowed"),
        (posix("\näé<WallTimeLimit>1h</WallTimeLimit>"), "line 2, column 3: expected a number"),
        (posix("<MemoryLimit>-1</MemoryLimit>"), "expected a number from 0"),
        (posix("<MemoryLimit><Exact>1</Exact></MemoryLimit>"), "found the element Exact"),
        (posix("<Executable>y</Executable>"), "executable is given twice, with different values"),
        (posix("<Environment>1</Environment>"), "expected the name of an environment variable"),
        (
            posix("", "\n<DataStaging><Source/></DataStaging>"),
            "line 2, column 1: expected the name of a file",
        ),
        (b"<JobDefinition/>", "the job has no executable"),
        (b"\n<a:Job xmlns:a='x'/>", "line 2, column 1: expected <job>, <JobDefinition> or"),
        (b"<?xml version='1.0'", "line 1, column 1: unclosed token in the XML"),
    ],
)
def test_errors_name_the_place(data: bytes, message: str) -> None:
    assert message in error(data)


def test_depth_is_bounded() -> None:
    assert "elements are nested more than 32 deep" in error(b"<JobDefinition>" + b"<a>" * 80_000)


XML = st.text(
    st.characters(
        codec="utf-8",
        exclude_categories=("Cc", "Cn"),
        exclude_characters=[chr(0x10F000 + byte) for byte in range(256)],
    )
    | st.sampled_from("<>&;#\"' \n\t\udc80\udcff"),
    max_size=20,
)
NAME = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
FILE = st.from_regex(r"[a-w./]{1,8}", fullmatch=True)  # not the executable, which is x


@given(
    arguments=st.lists(XML, max_size=6),
    environment=st.dictionaries(NAME, XML, max_size=4),
    inputs=st.dictionaries(FILE, FILE, max_size=3),
    outputs=st.dictionaries(FILE, FILE, max_size=3),
    minutes=st.integers(1, 30_000_000),
)
def test_what_is_written_is_read(
    arguments: list[str],
    environment: dict[str, str],
    inputs: dict[str, str],
    outputs: dict[str, str],
    minutes: int,
) -> None:
    elements = [f"<j:Argument>{escape(argument)}</j:Argument>" for argument in arguments]
    elements += [
        f"<j:Environment name={quoteattr(name)}>{escape(value)}</j:Environment>"
        for name, value in environment.items()
    ]
    elements.append(f"<WallTimeLimit>{minutes * 60}</WallTimeLimit>")
    staging = [
        f"<DataStaging><FileName>{name}</FileName><{end}><URI>{url}</URI></{end}></DataStaging>"
        for end, files in (("Source", inputs), ("Target", outputs))
        for name, url in files.items()
    ]
    found = parse_description(posix("\n".join(elements), "\n".join(staging)))
    assert list(found.arguments) == arguments
    assert found.environment == environment
    assert {file.name: file.url for file in found.inputs} == inputs
    assert {file.name: file.url for file in found.outputs} == outputs
    assert found.max_wall_time == minutes
