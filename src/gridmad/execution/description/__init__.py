"""Job descriptions: one model, and a reader for each dialect that gwd writes.

| gwd.conf | reader |
|---|---|
| rsl, rsl_nsh, xrsl | rsl.py |
| rsl2, rsl2_wrapper, rsl2_nowrapper | rsl2.py, which is no XML |
| jsdl, adl | elements.py reads the XML; jsdl.py, adl.py |
| jdl | jdl.py |

What they have in common is in attributes.py.  rsl_writer.py writes RSL for back ends.
"""

import re
from typing import Final

from gridmad.execution.description import adl, elements, jdl, jsdl, rsl, rsl2
from gridmad.execution.description.model import JobDescription, StagedFile
from gridmad.execution.description.source import MAX_BYTES, Source

__all__ = ["MAX_BYTES", "JobDescription", "StagedFile", "parse_description"]

_RSL2: Final = re.compile(r"(?:\s++|<\?[^>]*+>|<!--.*?-->)*+<job[\s/>]", re.DOTALL)


def parse_description(data: bytes) -> JobDescription:
    """Read a job description in the dialect that its first character shows.

    `&` or `(` begins RSL, `[` JDL, `<` RSL2 or XML, and there the first element decides.  One
    more dialect is one more module, and one more line here.

    Raises DescriptionError with line and column.
    """
    source = Source(data)
    offset = len(source.text) - len(source.text.lstrip())
    mark = source.text[offset : offset + 1]
    if mark in ("&", "("):
        return rsl.parse(source)
    if mark == "[":
        return jdl.parse(source)
    if mark == "<":
        return rsl2.parse(source) if _RSL2.match(source.text) else _parse_xml(source)
    raise source.expected(
        offset, "a job description: &(attribute=value)..., <job>, [attribute=value;...] or XML"
    )


def _parse_xml(source: Source) -> JobDescription:
    root = elements.parse(source)
    if root.name == "JobDefinition":
        return jsdl.read(source, root)
    if root.name == "ActivityDescription":
        return adl.read(source, root)
    raise source.expected(root.offset, "<job>, <JobDefinition> or <ActivityDescription>")
