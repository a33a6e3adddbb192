"""The Job Description Language of gLite and CREAM, as gwd writes it: a ClassAd.

    [Executable = "gw_wrapper.sh"; Arguments = "url"; CpuNumber = 4;
     InputSandbox = {"url"}; Environment = {"NAME=value", "OTHER=1"};
     Requirements = (other.GlueCEPolicyMaxWallClockTime <= 60) && ...;]

Names are in any case.  A value is a string, a list of strings, or an expression, which is not
evaluated: it is text up to the next `;` outside of its strings and brackets.  In strings a
backslash quotes.  Comments (`//`, `#`, `/* */`) may stand between all of these, but not before
a value, where gwd writes what the user did.

Arguments are split at blanks; quotes in them are as the user wrote them.  Of Requirements a
conjunction of comparisons with GLUE's limits, each in parentheses, as gwd writes it, sets the
model's limits; all of it is kept in `extra`.  Sandboxes become staged files: an input is named
by the last part of its URL, an output goes below OutputSandboxBaseDestURI.

gwd's description of a pre-wrapper has `)` for `;` after two of its strings, and arguments
without quotes; both are read.

Sources: EGEE, "Job Description Language Attributes Specification"; GridWay 5.14,
src/em/gw_em_jdl.c.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from gridmad.execution.description.attributes import Attributes
from gridmad.execution.description.model import JobDescription
from gridmad.execution.description.source import Source

_TEXTS: Final = {
    "executable": "executable",
    "stdinput": "stdin",
    "stdoutput": "stdout",
    "stderror": "stderr",
    "queuename": "queue",
}
_NUMBERS: Final = {"cpunumber": "count", "hostnumber": "nodes", "smpgranularity": "ppn"}
_JOB_TYPES: Final = {"normal": "single", "mpich": "mpi", "unknown": "multiple"}
"""What gwd writes for the types of GridWay."""
_SANDBOXES: Final = (
    "inputsandbox",
    "inputsandboxbaseuri",
    "outputsandbox",
    "outputsandboxbasedesturi",
)

_BLANK: Final = re.compile(r"\s*+")
_BLANK_OR_COMMENT: Final = re.compile(r"(?:\s++|//[^\n]*+|\#[^\n]*+|/\*.*?\*/)*+", re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STRING: Final = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_PLAIN: Final = re.compile(r'[^"\[\]{};]++')
_WORD: Final = re.compile(r"\S+", re.ASCII)
_CONJUNCTION: Final = re.compile(r"\([^()]*\)(?:\s*&&\s*\([^()]*\))*")
_COMPARISON: Final = re.compile(r"\(\s*other\.(\w+)\s*(<=|>=)\s*([0-9]{1,10})\s*\)", re.ASCII)
_LIMITS: Final = {
    ("GlueCEPolicyMaxCPUTime", "<="): "maxcputime",
    ("GlueCEPolicyMaxWallClockTime", "<="): "maxwalltime",
    ("GlueHostMainMemoryRAMSize", "<="): "maxmemory",
    ("GlueHostMainMemoryRAMSize", ">="): "minmemory",
}
"""Minutes and MB, as in the model."""


class _Value(NamedTuple):
    """A value as it stands, where, and the strings that it is, unless it is an expression."""

    text: str
    offset: int
    strings: Sequence[str] | None
    is_list: bool


def parse(source: Source) -> JobDescription:
    """Read one job.  Raises DescriptionError."""
    attributes = Attributes(source)
    sandboxes: dict[str, tuple[Sequence[str], int]] = dict.fromkeys(_SANDBOXES, ((), 0))
    for name, value in _Reader(source).attributes():
        key = name.lower()
        if key in _TEXTS:
            attributes.set(_TEXTS[key], _text(source, name, value).strip(), value.offset)
        elif key in _NUMBERS:
            attributes.set(_NUMBERS[key], value.text, value.offset)
        elif key == "jobtype":
            job_type = _text(source, name, value).strip()
            attributes.set(key, _JOB_TYPES.get(job_type.lower(), job_type), value.offset)
        elif key == "arguments":
            text = value.text if value.strings is None else _text(source, name, value)
            attributes.arguments.extend(_WORD.findall(text))
        elif key == "environment":
            for variable in _list(source, name, value):
                attributes.set_variable(*variable.partition("=")[::2], value.offset)
        elif key in sandboxes:
            sandboxes[key] = _list(source, name, value), value.offset
        else:
            attributes.extra[name] = value.text
            if key == "requirements":
                _set_limits(value, attributes)
    _stage(sandboxes, attributes)
    return attributes.job()


def _stage(sandboxes: Mapping[str, tuple[Sequence[str], int]], attributes: Attributes) -> None:
    urls, offset = sandboxes["inputsandbox"]
    bases, _ = sandboxes["inputsandboxbaseuri"]
    for url in urls:
        is_whole = "://" in url or not bases
        attributes.add_input(
            posixpath.basename(url), url if is_whole else _below(bases[0], url), offset
        )
    names, offset = sandboxes["outputsandbox"]
    bases, _ = sandboxes["outputsandboxbasedesturi"]
    for name in names:
        attributes.add_output(name, _below(bases[0], name) if bases else "", offset)


def _below(base: str, name: str) -> str:
    return f"{base.rstrip('/')}/{name}"


def _text(source: Source, name: str, value: _Value) -> str:
    if value.strings is None or value.is_list:
        raise source.expected(value.offset, f"a string for {name}")
    return value.strings[0]


def _list(source: Source, name: str, value: _Value) -> Sequence[str]:
    """The strings of a list; one string alone is a list of it."""
    if value.strings is None:
        raise source.expected(value.offset, f"a list of strings for {name}")
    return value.strings


def _set_limits(value: _Value, attributes: Attributes) -> None:
    if _CONJUNCTION.fullmatch(value.text):
        for found in _COMPARISON.finditer(value.text):
            attribute = _LIMITS.get((found[1], found[2]))
            if attribute is not None:
                attributes.set(attribute, found[3], value.offset + found.start(3))


class _Reader:
    """Walks over the text once; `offset` is where it stands."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text
        self.offset = 0

    def attributes(self) -> Iterator[tuple[str, _Value]]:
        """All attributes of the description, with their names as written."""
        self._skip()
        self._take("[")
        self._skip()
        while not self._at("]"):
            name = _NAME.match(self.text, self.offset)
            if name is None:
                raise self.source.expected(self.offset, "the name of an attribute, or ]")
            self.offset = name.end()
            self._skip()
            self._take("=")
            self._skip(_BLANK)
            yield name[0], self._value()
            self._skip()
        self._take("]")
        self._skip()
        if self.offset != len(self.text):
            raise self.source.expected(self.offset, "nothing after ]")

    def _value(self) -> _Value:
        """A value and what ends it."""
        start = self.offset
        is_list = self._at("{")
        strings = self._strings() if is_list else self._one_string()
        if strings is not None:
            text = self.text[start : self.offset]
            self._skip()
            if self._ends(";)"):
                return _Value(text, start, strings, is_list)
        self.offset = start
        self._pass_expression()
        text = self.text[start : self.offset].strip()
        if not text:
            raise self.source.expected(start, "a value")
        if not self._ends(";"):
            raise self.source.expected(self.offset, "; or ]")
        return _Value(text, start, None, False)

    def _ends(self, marks: str) -> bool:
        """Whether a value ends here; a mark that ends it is taken, the end of all is not."""
        mark = self.text[self.offset : self.offset + 1]
        if mark and mark in marks:
            self.offset += 1
        return mark != "" and mark in marks + "]"

    def _one_string(self) -> Sequence[str] | None:
        return (self._string(),) if self._at('"') else None

    def _strings(self) -> Sequence[str] | None:
        """A list of strings, if this is one."""
        strings: list[str] = []
        self.offset += 1
        self._skip()
        while not self._at("}"):
            if strings:
                if not self._at(","):
                    return None
                self.offset += 1
                self._skip()
            if not self._at('"'):
                return None
            strings.append(self._string())
            self._skip()
        self.offset += 1
        return strings

    def _string(self) -> str:
        string = _STRING.match(self.text, self.offset)
        if string is None:
            raise self.source.error(self.offset, 'expected a closing ", found none')
        self.offset = string.end()
        return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), string[1])

    def _pass_expression(self) -> None:
        """Go to what ends an expression, or to the end of the text."""
        depth = 0
        while self.offset < len(self.text):
            mark = self.text[self.offset]
            plain = _PLAIN.match(self.text, self.offset)
            if plain is not None:
                self.offset = plain.end()
                continue
            if mark == '"':
                self._string()
                continue
            if not depth and mark in ";]":
                return
            depth += (mark in "[{") - (mark in "]}" and depth > 0)
            self.offset += 1

    def _skip(self, what: re.Pattern[str] = _BLANK_OR_COMMENT) -> None:
        """Go over blanks, and over comments."""
        skipped = what.match(self.text, self.offset)
        assert skipped is not None
        self.offset = skipped.end()

    def _at(self, mark: str) -> bool:
        return self.text.startswith(mark, self.offset)

    def _take(self, mark: str) -> None:
        if not self._at(mark):
            raise self.source.expected(self.offset, mark)
        self.offset += 1
