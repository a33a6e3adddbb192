"""The Activity Description Language of EMI's execution service, as gwd writes it.

    <ActivityDescription ...> <Application>
     <Executable><Path>gw_wrapper.sh</Path></Executable>
     <Environment><Name>NAME</Name><Value>value</Value></Environment> ... </Application>
     <Resources><WallTime>3600</WallTime> ... <DataStaging><InputFile> ...

Times are in seconds.  Memory is in KiB, which is how gwd means it, though the standard says
bytes.  A file without a Source is brought by who submits, one without a Target is left for
them to fetch.

Sources: EMI-ES, "EMI Execution Service Specification 1.07"; GridWay 5.14, src/em/gw_em_adl.c.
"""

from typing import Final

from gridmad.execution.description.attributes import Attributes
from gridmad.execution.description.elements import Element
from gridmad.execution.description.model import JobDescription
from gridmad.execution.description.source import Source

_CONTAINERS: Final = {
    "ActivityIdentification",
    "Application",
    "Executable",
    "Resources",
    "SlotRequirement",
    "DataStaging",
}
_ATTRIBUTES: Final = {
    "Name": ("jobname", 1),
    "Path": ("executable", 1),
    "Input": ("stdin", 1),
    "Output": ("stdout", 1),
    "Error": ("stderr", 1),
    "QueueName": ("queue", 1),
    "NumberOfSlots": ("count", 1),
    "SlotsPerHost": ("ppn", 1),
    "WallTime": ("maxwalltime", 60),
    "TotalCPUTime": ("maxcputime", 60),
    "IndividualPhysicalMemory": ("maxmemory", 1024),
}
"""Elements by the names of Attributes, with how many of their units are one of the model's."""


def read(source: Source, root: Element) -> JobDescription:
    """Read one ActivityDescription.  Raises DescriptionError."""
    attributes = Attributes(source)
    for element in root.items(_CONTAINERS):
        if element.name in _ATTRIBUTES:
            name, per = _ATTRIBUTES[element.name]
            attributes.set(name, element.text.strip(), element.offset, per)
        elif element.name == "Argument":
            attributes.arguments.append(element.text)
        elif element.name == "Environment":
            value = element.child("Value")
            attributes.set_variable(
                element.text_of("Name"), value.text if value is not None else "", element.offset
            )
        elif element.name == "InputFile":
            is_executable = element.text_of("IsExecutable") in ("true", "1")
            attributes.add_input(*_file(element, "Source"), is_executable=is_executable)
        elif element.name == "OutputFile":
            attributes.add_output(*_file(element, "Target"))
        else:
            attributes.extra[element.name] = element.content.strip()
    return attributes.job()


def _file(element: Element, end: str) -> tuple[str, str, int]:
    """A file's name, its other place and where it says so."""
    place = element.child(end)
    url = place.text_of("URI") if place is not None else ""
    return element.text_of("Name"), url, element.offset
