"""The XML-like job description of GRAM4, as gwd writes it (`rsl2` and its two variants).

    <job> <executable>/bin/sleep</executable><argument>50</argument>
    <environment> <name>NAME</name> <value>text</value></environment> </job>

It looks like XML and is not: gwd escapes nothing, so `<`, `&` and quotes occur in values
and mean themselves, `&amp;` too.  The reader knows which element it is in, and a value
ends at the first closing tag of that element and nowhere else.  There are no entities, no
document types and nothing external.

What else occurs: `<environment>` once for each variable, or with several pairs;
closing tags without their `>` (DRM4G's `</nodes`); paths that repeat the directory, and so
are relative to the home (DRM4G's `gwd` names the directory of jobs with a wrapper, and
writes their paths as GridWay's does, which names none); line ends anywhere between elements;
elements that this reader does not know, which go to `extra` as they stand.  A text that
ends before `</job>` was cut off, and is refused rather than run in part.

Source: GridWay 5.14, src/em/gw_em_rsl2.c; Globus Toolkit 4, "WS GRAM: Job Description".
"""

import re
from dataclasses import replace
from typing import Final

from gridmad.execution.description.attributes import KNOWN, Attributes
from gridmad.execution.description.model import JobDescription
from gridmad.execution.description.source import Source

_BLANK: Final = re.compile(r"\s*")
_OPENING: Final = re.compile(r"<([A-Za-z_][A-Za-z0-9_.-]*)(?:\s[^<>]*)?(/?)>")
_CLOSING_END: Final = re.compile(r"(?![A-Za-z0-9_.-])\s*>?")
_PROLOG: Final = re.compile(r"<\?xml\b[^<>]*\?>")


def parse(source: Source) -> JobDescription:
    """Read one job.  Raises DescriptionError."""
    reader = _Reader(source)
    attributes = Attributes(source)
    reader.open_job()
    while not reader.closes("job"):
        name, empty = reader.opening()
        offset = reader.offset
        if name == "environment" and not empty:
            while not reader.closes("environment"):
                offset, variable = reader.element("name")
                _, value = reader.element("value")
                attributes.set_variable(variable.strip(), value, offset)
            continue
        text = "" if empty else reader.value(name)
        attribute = name.lower().replace("_", "")
        if name == "argument":
            attributes.arguments.append(text)
        elif attribute in KNOWN:
            attributes.set(attribute, text.strip(), offset)
        else:
            attributes.extra[name] = text
    reader.end()
    return _below_directory(attributes.job())


def _below_directory(job: JobDescription) -> JobDescription:
    """The same job with its paths relative to the directory alone."""
    if not job.directory or job.directory.startswith("/"):
        return job
    prefix = job.directory.rstrip("/") + "/"
    return replace(
        job,
        executable=job.executable.removeprefix(prefix),
        stdin=job.stdin.removeprefix(prefix),
        stdout=job.stdout.removeprefix(prefix),
        stderr=job.stderr.removeprefix(prefix),
    )


class _Reader:
    """Walks over the text once; `offset` is where it stands."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text
        self.offset = 0

    def open_job(self) -> None:
        """Read the opening tag of the job, after an XML declaration if there is one."""
        self._skip()
        prolog = _PROLOG.match(self.text, self.offset)
        if prolog is not None:
            self.offset = prolog.end()
            self._skip()
        tag = _OPENING.match(self.text, self.offset)
        if tag is None or tag[1] != "job" or tag[2]:
            raise self.source.expected(self.offset, "<job>")
        self.offset = tag.end()

    def opening(self) -> tuple[str, bool]:
        """Read an opening tag: its name, and whether it is empty (`<name/>`)."""
        self._skip()
        tag = _OPENING.match(self.text, self.offset)
        if tag is None:
            raise self.source.expected(self.offset, "the opening tag of an element, or </job>")
        self.offset = tag.end()
        return tag[1], bool(tag[2])

    def closes(self, name: str) -> bool:
        """Read the closing tag of `name` if it stands here."""
        self._skip()
        return self._closes_at(name, self.offset)

    def element(self, name: str) -> tuple[int, str]:
        """Read a whole element `name`: where its value begins, and its value."""
        self._skip()
        start = self.offset
        tag = _OPENING.match(self.text, start)
        if tag is None or tag[1] != name:
            raise self.source.expected(start, f"<{name}>")
        self.offset = offset = tag.end()
        return offset, "" if tag[2] else self.value(name)

    def value(self, name: str) -> str:
        """Read up to and with the closing tag of `name`, whatever is in between."""
        start = end = self.offset
        while True:
            end = self.text.find(f"</{name}", end)
            if end < 0:
                raise self.source.error(start, f"expected </{name}>, found none")
            if self._closes_at(name, end):
                return self.text[start:end]
            end += 1

    def end(self) -> None:
        """Nothing may follow."""
        self._skip()
        if self.offset != len(self.text):
            raise self.source.expected(self.offset, "nothing after </job>")

    def _closes_at(self, name: str, offset: int) -> bool:
        tag = f"</{name}"
        if not self.text.startswith(tag, offset):
            return False
        end = _CLOSING_END.match(self.text, offset + len(tag))
        if end is None:
            return False
        self.offset = end.end()
        return True

    def _skip(self) -> None:
        """Go over blanks and comments."""
        while True:
            blank = _BLANK.match(self.text, self.offset)
            assert blank is not None
            self.offset = blank.end()
            if not self.text.startswith("<!--", self.offset):
                return
            end = self.text.find("-->", self.offset + 4)
            if end < 0:
                raise self.source.error(self.offset, "expected --> after a comment, found none")
            self.offset = end + 3
