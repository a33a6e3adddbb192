r"""LDAP without a library: searches, their pages, entries, and filters checked early.

A filter is written as in RFC 4515, or in GridWay's spelling: conditions one after the other
that must all hold, `(GlueCEStateStatus=Production)(GlueCEAccessControlBaseRule=VO\:gilda)`,
where gwd.conf's `\:` is a colon.  No I/O happens here.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, TypeAlias

from gridmad.errors import UsageError

Entry: TypeAlias = Mapping[str, Sequence[bytes]]
"""Values as the server sent them, under the attributes' names in lower case."""

Page: TypeAlias = tuple[int, Sequence[Entry]]
"""Some of the entries that a search finds, after its place among those that are made."""

PAGED_RESULTS = "1.2.840.113556.1.4.319"
"""The control that asks for a search's entries in pages (RFC 2696)."""
MAX_DEPTH = 50
"""Levels of a filter: no one writes more, and libraries recurse over them."""

_CONDITION = re.compile(
    r"([A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)"  # the attribute's name or number
    r"((?:;[A-Za-z0-9-]+)*)"  # its options
    r"(>=|<=|~=|(?::dn)?(?::[A-Za-z0-9.-]+)?:=|=)"
    r"([^()\0]*)",
    re.ASCII,
)
_ESCAPED = re.compile(r"\\([0-9A-Fa-f]{2})")
_ESCAPE = re.compile(r"\\(?![0-9A-Fa-f]{2})")


class Search(NamedTuple):
    """All entries of one class, with the attributes that are needed of them."""

    object_class: str
    attributes: tuple[str, ...]
    filter: str = ""
    """Conditions that they must meet, as Filter.text; "" for none."""
    base: str = ""
    """Where in the tree they are; "" for the directory's own base."""
    is_optional: bool = False
    """No such base means that there are none."""

    @property
    def whole_filter(self) -> str:
        """The filter as a server takes it."""
        return f"(&(objectClass={self.object_class}){self.filter})"


def page_request(number: int, operation: bytes, size: int, cookie: bytes) -> bytes:
    """The LDAP message that asks for the next `size` entries of a search (RFC 4511, RFC 2696).

    `operation` is the encoded SearchRequest; `cookie` is b"" for the first page, then that of
    the page before.
    """
    control = _element(0x04, PAGED_RESULTS.encode()) + _element(
        0x04, _element(0x30, _integer(size) + _element(0x04, cookie))
    )
    controls = _element(0xA0, _element(0x30, control))
    return _element(0x30, _integer(number) + operation + controls)


def _integer(number: int) -> bytes:
    return _element(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 128 + len(length))) + length + content


class Condition(NamedTuple):
    """One `(attribute operator value)` of a filter."""

    attribute: str
    """In lower case, without options."""
    operator: str
    value: str
    is_negated: bool


@dataclass(frozen=True)
class Filter:
    """A valid filter: `text` is a row of conditions that must all hold, "" for none."""

    text: str = ""
    conditions: tuple[Condition, ...] = ()

    @property
    def attributes(self) -> frozenset[str]:
        """The names, in lower case, of the attributes that it looks at."""
        return frozenset(condition.attribute for condition in self.conditions)


def parse_filter(text: str) -> list[Filter]:
    """The filters that `text` joins: their texts one after the other mean the same.

    An enclosing `(&...)` is taken off.  Raises UsageError that says what is wrong and where.
    """
    parser = _Parser(text.strip().replace("\\:", ":"))
    parts = parser.row(0, is_negated=False, end=len(parser.text))
    while len(parts) == 1 and parts[0].text.startswith("(&"):
        inner = _Parser(parts[0].text[2:-1].strip())
        parts = inner.row(0, is_negated=False, end=len(inner.text))
    return parts


def by_class(text: str, option: str, class_of: Callable[[str], str]) -> dict[str, str]:
    """The conditions that `text` joins, those on each class of entries as one text.

    `class_of` tells the class that has an attribute.  Raises UsageError, that names `option`,
    for a condition that looks at several classes at once.
    """
    texts: dict[str, str] = {}
    for part in parse_filter(text):
        try:
            classes = sorted({class_of(attribute) for attribute in part.attributes})
        except UsageError as error:
            raise UsageError(f"{option} {part.text}: {error}") from None
        if len(classes) > 1:
            raise UsageError(
                f"{option} {part.text}: looks at {' and '.join(classes)} entries at once: "
                "write a condition of its own for each"
            )
        texts[classes[0]] = texts.get(classes[0], "") + part.text
    return texts


def unescaped(value: str) -> str:
    """The value of a condition as it is in entries."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), value)


class _Parser:
    """Walks a filter from left to right; `at` is where it is."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def row(self, depth: int, *, is_negated: bool, end: int | None = None) -> list[Filter]:
        """Filters one after the other, up to `end` or the parenthesis that closes them."""
        parts: list[Filter] = []
        while True:
            self._skip_blanks()
            if self.at == end or (end is None and self._next() == ")"):
                return parts
            parts.append(self._one(depth, is_negated))

    def _one(self, depth: int, is_negated: bool) -> Filter:
        start = self.at
        if self._next() != "(":
            self._fail("expected '('")
        if depth >= MAX_DEPTH:
            self._fail(f"more than {MAX_DEPTH} levels")
        self.at += 1
        self._skip_blanks()
        operator = self._next()
        conditions: tuple[Condition, ...]
        if operator in ("&", "|", "!"):
            self.at += 1
            parts = self.row(depth + 1, is_negated=is_negated != (operator == "!"))
            if not parts or (operator == "!" and len(parts) > 1):
                needs = "one condition" if operator == "!" else "conditions"
                self._fail(f"'{operator}' needs {needs} in parentheses after it")
            conditions = tuple(c for part in parts for c in part.conditions)
            inner = operator + "".join(part.text for part in parts)
        else:
            condition = self._condition(is_negated)
            conditions = (condition,)
            inner = self.text[start + 1 : self.at].lstrip()
        self._skip_blanks()
        if self._next() != ")":
            self._fail("expected ')'")
        self.at += 1
        return Filter(f"({inner})", conditions)

    def _condition(self, is_negated: bool) -> Condition:
        match = _CONDITION.match(self.text, self.at)
        if match is None:
            self._fail("expected ATTRIBUTE=VALUE")
        name, _, operator, value = match.groups()
        if escape := _ESCAPE.search(value):
            self.at = match.start(4) + escape.start()
            self._fail("a backslash needs two hexadecimal digits (or a colon) after it")
        if operator in (">=", "<=", "~=") and "*" in value:
            self._fail(f"'{operator}' takes no '*'")
        self.at = match.end()
        return Condition(name.lower(), operator, value, is_negated)

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _skip_blanks(self) -> None:
        while self._next() in (" ", "\t"):
            self.at += 1

    def _fail(self, problem: str) -> NoReturn:
        found = self._next()
        where = f"before {self.text[self.at : self.at + 20]!r}" if found else "at its end"
        raise UsageError(f"filter {self.text!r}: {problem} {where}")
