"""The Job Submission Description Language, as gwd writes it.

    <jsdl:JobDefinition ...><jsdl:JobDescription> ... <jsdl:Application>
     <jsdl-posix:POSIXApplication><jsdl-posix:Executable>./gw_wrapper.sh</jsdl-posix:Executable>
     <jsdl-posix:Environment name="NAME">value</jsdl-posix:Environment> ...
     <jsdl-posix:WallTimeLimit>3600</jsdl-posix:WallTimeLimit> ...

Times are in seconds.  Memory is in KiB, which is how gwd means it, though the standard says
bytes.  A variable that names a file system instead of a value (gwd's HOME) is left to the
resource, which knows its home.  Each DataStaging is a file: with a Source it comes, with a
Target it goes, with both it does both.

Sources: OGF GFD.136, "Job Submission Description Language 1.0"; GridWay 5.14,
src/em/gw_em_jsdl.c.
"""

from typing import Final

from gridmad.execution.description.attributes import Attributes
from gridmad.execution.description.elements import Element
from gridmad.execution.description.model import JobDescription
from gridmad.execution.description.source import Source

_CONTAINERS: Final = {"JobDescription", "JobIdentification", "Application", "POSIXApplication"}
_ATTRIBUTES: Final = {
    "JobName": ("jobname", 1),
    "JobProject": ("project", 1),
    "Executable": ("executable", 1),
    "WorkingDirectory": ("directory", 1),
    "Input": ("stdin", 1),
    "Output": ("stdout", 1),
    "Error": ("stderr", 1),
    "WallTimeLimit": ("maxwalltime", 60),
    "CPUTimeLimit": ("maxcputime", 60),
    "MemoryLimit": ("maxmemory", 1024),
}
"""Elements by the names of Attributes, with how many of their units are one of the model's."""


def read(source: Source, root: Element) -> JobDescription:
    """Read one JobDefinition.  Raises DescriptionError."""
    attributes = Attributes(source)
    for element in root.items(_CONTAINERS):
        if element.name in _ATTRIBUTES:
            name, per = _ATTRIBUTES[element.name]
            attributes.set(name, element.text.strip(), element.offset, per)
        elif element.name == "Argument":
            attributes.arguments.append(element.text)
        elif element.name == "Environment":
            if "filesystemName" not in element.attributes:
                name = element.attributes.get("name", "")
                attributes.set_variable(name, element.text, element.offset)
        elif element.name == "DataStaging":
            _stage(element, attributes)
        else:
            attributes.extra[element.name] = element.content.strip()
    return attributes.job()


def _stage(element: Element, attributes: Attributes) -> None:
    name = element.text_of("FileName")
    source, target = element.child("Source"), element.child("Target")
    if source is not None:
        attributes.add_input(name, source.text_of("URI"), element.offset)
    if target is not None:
        attributes.add_output(name, target.text_of("URI"), element.offset)
