"""ADL: what gwd writes, and a round trip.  XML itself is tested with JSDL."""

from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import DescriptionError
from gridmad.execution.description import JobDescription, StagedFile, parse_description
from tests.unit.test_jsdl import FILE, NAME, URL, XML

WRAPPER = b"""\
<ActivityDescription xmlns="http://www.eu-emi.eu/es/2010/12/adl">
 <ActivityIdentification>
  <Name>full</Name>
 </ActivityIdentification>
 <Application>
  <Executable>
   <Path>gw_wrapper.sh</Path>
  </Executable>
  <Output>stdout.wrapper.0</Output>
  <Error>stderr.wrapper.0</Error>
  <Environment>
   <Name>LIBS</Name>
   <Value>/usr/local/lib & more</Value>
  </Environment>
  <Environment>
   <Name>GW_JOB_ID</Name>
   <Value>7</Value>
  </Environment>
 </Application>
 <Resources>
    <WallTime>3600</WallTime>
    <IndividualPhysicalMemory>2097152</IndividualPhysicalMemory>
    <TotalCPUTime>3300</TotalCPUTime>
 </Resources>
 <DataStaging>
  <InputFile>
   <Name>gw_wrapper.sh</Name>
   <Source>
    <URI>gsiftp://gw.example:2811//opt/gw/libexec/gw_wrapper.sh</URI>
   </Source>
  </InputFile>
  <InputFile>
   <Name>job.env</Name>
   <Source>
    <URI>gsiftp://gw.example:2811//opt/gw/var/7/job.env</URI>
   </Source>
  </InputFile>
  <OutputFile>
   <Name>stdout.wrapper.0</Name>
   <Target>
    <URI>gsiftp://gw.example:2811//opt/gw/var/7/stdout.wrapper.0</URI>
   </Target>
  </OutputFile>
  <InputFile>
   <Name>prog</Name>
   <Source>
    <URI>gsiftp://gw.example:2811//home/ann/prog</URI>
   </Source>
   <IsExecutable>true</IsExecutable>
  </InputFile>
  <OutputFile>
   <Name>stderr.execution</Name>
   <Target>
    <URI>gsiftp://gw.example:2811//home/ann/err.7</URI>
   </Target>
  </OutputFile>
 </DataStaging>
</ActivityDescription>
"""


def activity(application: str, resources: str = "", staging: str = "") -> bytes:
    return (
        "<ActivityDescription><Application><Executable><Path>x</Path></Executable>"
        f"{application}</Application><Resources>{resources}</Resources>"
        f"<DataStaging>{staging}</DataStaging></ActivityDescription>"
    ).encode("utf-8", "surrogateescape")


DESCRIPTION = JobDescription(
    executable="gw_wrapper.sh",
    stdout="stdout.wrapper.0",
    stderr="stderr.wrapper.0",
    environment={"LIBS": "/usr/local/lib & more", "GW_JOB_ID": "7"},
    inputs=(
        StagedFile("gw_wrapper.sh", f"{URL}/libexec/gw_wrapper.sh", is_executable=True),
        StagedFile("job.env", f"{URL}/var/7/job.env"),
        StagedFile("prog", "gsiftp://gw.example:2811//home/ann/prog", is_executable=True),
    ),
    outputs=(
        StagedFile("stdout.wrapper.0", f"{URL}/var/7/stdout.wrapper.0"),
        StagedFile("stderr.execution", "gsiftp://gw.example:2811//home/ann/err.7"),
    ),
    name="full",
    max_wall_time=60,
    max_cpu_time=55,
    max_memory=2048,
)


def test_wrapper_description_of_gwd() -> None:
    assert parse_description(WRAPPER) == DESCRIPTION


def test_a_stderr_by_a_file_url_is_opened_where_it_should_be_closed() -> None:
    """So gwd writes it."""
    end = b"</Target>\n  </OutputFile>\n </DataStaging>"
    assert end in WRAPPER
    slip = WRAPPER.replace(end, end.replace(b"</OutputFile>", b"<OutputFile>"))
    assert parse_description(slip) == DESCRIPTION


def test_the_slip_moves_no_place() -> None:
    staging = "<OutputFile><Name>a</Name><Target><URI>b</URI></Target> \n <OutputFile>ä<InputFile/>"
    with pytest.raises(DescriptionError, match="line 2, column 15: expected the name of a file"):
        parse_description(activity("", "", staging))


def test_what_emi_has_beyond_gwd() -> None:
    found = parse_description(
        b"<a:ActivityDescription xmlns:a='x'><a:Application><a:Executable><a:Path>x</a:Path>"
        b"<a:Argument>1</a:Argument><a:Argument> </a:Argument></a:Executable><a:Input>in</a:Input>"
        b"</a:Application><a:Resources><a:QueueName>q</a:QueueName><a:SlotRequirement>"
        b"<a:NumberOfSlots>8</a:NumberOfSlots><a:SlotsPerHost>4</a:SlotsPerHost>"
        b"</a:SlotRequirement><a:Coprocessor>cuda</a:Coprocessor></a:Resources><a:DataStaging>"
        b"<a:ClientDataPush>true</a:ClientDataPush><a:InputFile><a:Name>x</a:Name></a:InputFile>"
        b"<a:OutputFile><a:Name>y</a:Name></a:OutputFile></a:DataStaging></a:ActivityDescription>"
    )
    assert found == JobDescription(
        executable="x",
        arguments=("1", " "),
        stdin="in",
        inputs=(StagedFile("x", is_executable=True),),
        outputs=(StagedFile("y"),),
        count=8,
        processes_per_node=4,
        queue="q",
        extra={"Coprocessor": "cuda", "ClientDataPush": "true"},
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (activity("", "\n<WallTime>P1D</WallTime>"), "line 2, column 1: expected a number"),
        (activity("\n<Environment/>"), "line 2, column 1: expected the name of an environment"),
        (activity("", "", "\n<InputFile/>"), "line 2, column 1: expected the name of a file"),
        (activity("<Output><a/></Output>"), "expected the text of Output, found the element a"),
        (b"<ActivityDescription/>", "the job has no executable"),
    ],
)
def test_errors_name_the_place(data: bytes, message: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        parse_description(data)
    assert message in str(caught.value)


@given(
    environment=st.dictionaries(NAME, XML, max_size=4),
    inputs=st.dictionaries(FILE, st.tuples(FILE, st.booleans()), max_size=3),
    outputs=st.dictionaries(FILE, FILE, max_size=3),
    megabytes=st.integers(1, 2_000_000),
)
def test_what_is_written_is_read(
    environment: dict[str, str],
    inputs: dict[str, tuple[str, bool]],
    outputs: dict[str, str],
    megabytes: int,
) -> None:
    variables = [
        f"<Environment><Name>{name}</Name>\n<Value>{escape(value)}</Value></Environment>"
        for name, value in environment.items()
    ]
    staging = [
        f"<InputFile><Name>{name}</Name><Source><URI>{url}</URI></Source>"
        f"<IsExecutable>{str(is_executable).lower()}</IsExecutable></InputFile>"
        for name, (url, is_executable) in inputs.items()
    ]
    staging += [
        f"<OutputFile><Name>{name}</Name><Target><URI>{url}</URI></Target></OutputFile>"
        for name, url in outputs.items()
    ]
    memory = f"<IndividualPhysicalMemory>{megabytes * 1024}</IndividualPhysicalMemory>"
    found = parse_description(activity("\n".join(variables), memory, "\n".join(staging)))
    assert found.environment == environment
    assert {f.name: (f.url, f.is_executable) for f in found.inputs} == inputs
    assert {f.name: f.url for f in found.outputs} == outputs
    assert found.max_memory == megabytes
