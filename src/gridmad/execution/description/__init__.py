"""Job descriptions: one model, and a reader for each dialect that gwd writes."""

from gridmad.execution.description import rsl, rsl2
from gridmad.execution.description.model import JobDescription
from gridmad.execution.description.source import MAX_BYTES, Source

__all__ = ["MAX_BYTES", "JobDescription", "parse_description"]


def parse_description(data: bytes) -> JobDescription:
    """Read a job description in the dialect that its first character shows.

    `&` or `(` begins RSL, `<` RSL2.  One more dialect is one more module with a function
    `parse(source)`, and one more line here.

    Raises DescriptionError with line and column.
    """
    source = Source(data)
    offset = len(source.text) - len(source.text.lstrip())
    mark = source.text[offset : offset + 1]
    if mark in ("&", "("):
        return rsl.parse(source)
    if mark == "<":
        return rsl2.parse(source)
    raise source.expected(offset, "a job description: &(attribute=value)... or <job>...</job>")
