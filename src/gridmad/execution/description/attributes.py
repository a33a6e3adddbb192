"""What the dialects have in common: attributes by name become a JobDescription.

`(null)` is what gwd prints for a value it does not have: an attribute with that value was
not given.  In arguments and in the environment it is kept, for there it may be meant.
`${...}` that gwd did not expand is kept everywhere: the job's own shell may know it, and
an executable named so fails with its name.

A limit is taken from its attribute, or else from the environment variable that GridWay
documents for it (MAXWALLTIME, MAXCPUTIME, MAXMEMORY, MINMEMORY), which stays in the
environment as well.  0 and what is not a number in such a variable limit nothing.  A time may
be written hours:minutes:seconds, as DRM4G does.  What is no whole minute or MB is rounded up.

A staged file that is the executable is executable, whether or not the dialect can say so.
"""

import posixpath
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from gridmad.execution.description.model import JobDescription, StagedFile
from gridmad.execution.description.source import Source

KNOWN: Final = frozenset(
    {
        "executable",
        "directory",
        "stdin",
        "stdout",
        "stderr",
        "count",
        "hostcount",
        "nodes",
        "ppn",
        "jobname",
        "jobtype",
        "queue",
        "project",
        "maxtime",
        "maxwalltime",
        "maxcputime",
        "maxmemory",
        "minmemory",
    }
)
"""Attributes of one value, in lower case, without underscores: GRAM's names, DRM4G's `nodes`
and `ppn`, ARC's `jobname`.  Readers of dialects with other names translate them.
"""

NULL: Final = "(null)"

_MAX_NUMBER: Final = 2**31 - 1
_TIMES: Final = frozenset({"maxtime", "maxwalltime", "maxcputime"})
_HOURS: Final = re.compile(r"([0-9]{1,6}):([0-5]?[0-9]):([0-5]?[0-9])", re.ASCII)


class Value(NamedTuple):
    """An attribute's value and where in the source it stands.

    `per` of its units are one of the model's: 60 where a time is in seconds.
    """

    text: str
    offset: int
    per: int = 1


class Attributes:
    """Gathers the attributes of one job and makes its description.

    `values` holds those of KNOWN, `extra` the text of all others.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.values: dict[str, Value] = {}
        self.arguments: list[str] = []
        self.environment: dict[str, str] = {}
        self.inputs: list[StagedFile] = []
        self.outputs: list[StagedFile] = []
        self.extra: dict[str, str] = {}

    def set(self, name: str, text: str, offset: int, per: int = 1) -> None:
        """Take an attribute of one value; saying the same twice is allowed."""
        if text == NULL:
            return
        before = self.values.get(name)
        if before is not None and before.text != text:
            raise self.source.error(offset, f"{name} is given twice, with different values")
        self.values[name] = Value(text, offset, per)

    def set_variable(self, name: str, text: str, offset: int) -> None:
        """Take an environment variable; of two with one name the last counts."""
        if not name or "=" in name:
            raise self.source.expected(offset, "the name of an environment variable")
        self.environment[name] = text

    def add_input(self, name: str, url: str, offset: int, *, is_executable: bool = False) -> None:
        """Take a file that comes before the job runs."""
        self.inputs.append(self._file(name, url, offset, is_executable))

    def add_output(self, name: str, url: str, offset: int) -> None:
        """Take a file that goes after the job ran."""
        self.outputs.append(self._file(name, url, offset, is_executable=False))

    def _file(self, name: str, url: str, offset: int, is_executable: bool) -> StagedFile:
        if not name:
            raise self.source.expected(offset, "the name of a file")
        return StagedFile(name, url, is_executable)

    def job(self) -> JobDescription:
        """The description; an executable is all that it must have."""
        if not self._text("executable"):
            raise self.source.error(0, "the job has no executable")
        executable = posixpath.normpath(self._text("executable"))
        nodes = self._number("nodes") or self._number("hostcount") or None
        per_node = self._number("ppn") or None
        return JobDescription(
            executable=self._text("executable"),
            arguments=tuple(self.arguments),
            directory=self._text("directory"),
            environment=self.environment,
            stdin=self._text("stdin"),
            stdout=self._text("stdout"),
            stderr=self._text("stderr"),
            inputs=tuple(
                replace(file, is_executable=True)
                if posixpath.normpath(file.name) == executable
                else file
                for file in self.inputs
            ),
            outputs=tuple(self.outputs),
            count=self._number("count") or (nodes or 1) * (per_node or 1),
            nodes=nodes,
            processes_per_node=per_node,
            job_type=self._text("jobtype").lower(),
            queue=self._text("queue"),
            project=self._text("project"),
            name=self._text("jobname"),
            max_wall_time=self._limit(("maxwalltime", "maxtime"), "MAXWALLTIME"),
            max_cpu_time=self._limit(("maxcputime",), "MAXCPUTIME"),
            max_memory=self._limit(("maxmemory",), "MAXMEMORY"),
            min_memory=self._limit(("minmemory",), "MINMEMORY"),
            extra=self.extra,
        )

    def _text(self, name: str) -> str:
        value = self.values.get(name)
        return value.text if value is not None else ""

    def _number(self, name: str) -> int | None:
        value = self.values.get(name)
        if value is None:
            return None
        number = _parse(value.text, value.per, is_time=name in _TIMES)
        if number is None:
            raise self.source.error(
                value.offset,
                f'expected a number from 0 to {_MAX_NUMBER} for {name}, found "{value.text[:40]}"',
            )
        return number

    def _limit(self, names: Sequence[str], variable: str) -> int | None:
        for name in names:
            if name in self.values:
                return self._number(name) or None
        text = self.environment.get(variable, "").strip()
        return _parse(text, is_time=variable.endswith("TIME")) or None


def _parse(text: str, per: int = 1, *, is_time: bool = False) -> int | None:
    """A number in the model's units, if it is one."""
    hours = _HOURS.fullmatch(text) if is_time else None
    if hours is not None:
        return int(hours[1]) * 60 + int(hours[2]) + (int(hours[3]) > 0)
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        return None
    number = -(-int(text) // per)
    return number if number <= _MAX_NUMBER else None
