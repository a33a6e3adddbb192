"""What the dialects have in common: attributes by name become a JobDescription.

`(null)` is what gwd prints for a value it does not have: an attribute with that value was
not given.  In arguments and in the environment it is kept, for there it may be meant.
`${...}` that gwd did not expand is kept everywhere: the job's own shell may know it, and
an executable named so fails with its name.

A limit is taken from its attribute, or else from the environment variable that GridWay
documents for it (MAXWALLTIME, MAXCPUTIME, MAXMEMORY, MINMEMORY), which stays in the
environment as well.  0 and what is not a number in such a variable limit nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from gridmad.execution.description.model import JobDescription
from gridmad.execution.description.source import Source

KNOWN: Final = frozenset(
    {
        "executable",
        "directory",
        "stdin",
        "stdout",
        "stderr",
        "count",
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
"""Attributes of one value, in lower case, without underscores."""

_NULL: Final = "(null)"
_MAX_NUMBER: Final = 2**31 - 1


class Value(NamedTuple):
    """An attribute's value and where in the source it stands."""

    text: str
    offset: int


class Attributes:
    """Gathers the attributes of one job and makes its description.

    `values` holds those of KNOWN, `extra` the text of all others.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.values: dict[str, Value] = {}
        self.arguments: list[str] = []
        self.environment: dict[str, str] = {}
        self.extra: dict[str, str] = {}

    def set(self, name: str, text: str, offset: int) -> None:
        """Take an attribute of one value; saying the same twice is allowed."""
        if text == _NULL:
            return
        before = self.values.get(name)
        if before is not None and before.text != text:
            raise self.source.error(offset, f"{name} is given twice, with different values")
        self.values[name] = Value(text, offset)

    def set_variable(self, name: str, text: str, offset: int) -> None:
        """Take an environment variable; of two with one name the last counts."""
        if not name or "=" in name:
            raise self.source.expected(offset, "the name of an environment variable")
        self.environment[name] = text

    def job(self) -> JobDescription:
        """The description; an executable is all that it must have."""
        if not self._text("executable"):
            raise self.source.error(0, "the job has no executable")
        return JobDescription(
            executable=self._text("executable"),
            arguments=tuple(self.arguments),
            directory=self._text("directory"),
            environment=self.environment,
            stdin=self._text("stdin"),
            stdout=self._text("stdout"),
            stderr=self._text("stderr"),
            count=self._number("count") or 1,
            job_type=self._text("jobtype").lower(),
            queue=self._text("queue"),
            project=self._text("project"),
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
        number = _integer(value.text)
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
        return _integer(_get(self.environment, variable)) or None


def _get(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name, "").strip()


def _integer(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        return None
    number = int(text)
    return number if number <= _MAX_NUMBER else None
