"""The Resource Specification Language of GRAM2 and GRAM5, and ARC's xRSL, as gwd writes them
(`rsl`, `rsl_nsh`, `xrsl`).

    &(executable="/bin/sleep")(arguments="50")(environment=(NAME "value")(OTHER 1))(count=4)

What is read:
- relations `(attribute = value ...)` after an optional `&`; names in any case, quoted or not,
  underscores do not count.  Requests joined by `+` or `|`, and relations other than `=`, are
  refused: one description is one job;
- values in "..." or '...', the quote itself doubled; or unquoted, up to the next blank,
  parenthesis, quote, `#` or `$(`;
- values in a quote of the user's choice, `^%text%`, where one of `%~!@` is chosen and the
  value ends after it;
- `$(NAME)` or `$(NAME default)`, defined by `(rslSubstitution = (NAME value) ...)`;
- values on both sides of a `#` are one value, and so are values that touch;
- lists in parentheses, where an attribute has them: environment, rslSubstitution, inputFiles,
  outputFiles;
- comments `(* ... *)` between all of these.

In three things this is more than the grammar, or less, since gwd writes arguments as the user
did and users write as for a shell.  `--size=3` and `${TASK_ID}` are values, though Globus
allows no operator and no lone `$` without quotes.  `--name="a b"` is one value, though texts
that touch are two for Globus, unless one is a reference.  And the grammar lets any character
be the user's quote: `^/usr/` would be `usr`, and a regular expression is meant.

xRSL's files are pairs.  gwd writes (name, other place) for outputs as ARC has it, but (other
place, name) for inputs; a second value that is a URL or empty shows ARC's own order.
`(null)` says that there is no second: the name is the other place's last part.  An input
from an absolute path lies on the resource already, and gwd stages no such file.

Sources: Globus Toolkit 5, "GRAM5: RSL Specification v1.0"; NorduGrid, "Extended Resource
Specification Language"; GridWay 5.14, src/em/gw_em_rsl.c.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

from gridmad.errors import DescriptionError
from gridmad.execution.description.attributes import KNOWN, NULL, Attributes
from gridmad.execution.description.model import JobDescription
from gridmad.execution.description.source import MAX_BYTES, Source

MAX_DEPTH: Final = 16
"""Lists within lists; no attribute of GRAM has more than two."""

_BLANK: Final = re.compile(r"\s*", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_VARIABLE: Final = re.compile(r"[A-Za-z0-9_.]+")
_UNQUOTED: Final = re.compile(r"(?:[^\s()\"'#$]|\$(?!\())+", re.ASCII)
_QUOTED: Final = {
    '"': re.compile(r'"((?:[^"]++|"")*+)"'),
    "'": re.compile(r"'((?:[^']++|'')*+)'"),
}
_USER_QUOTED: Final = re.compile(
    r"\^(?P<mark>[%~!@])(?P<text>(?:(?!(?P=mark)).|(?P=mark){2})*+)(?P=mark)(?![^\s()#])",
    re.ASCII | re.DOTALL,
)


class _Reference(NamedTuple):
    """`$(name)`, with the parts of its default."""

    name: str
    offset: int
    default: "_Single | None"


class _Single(NamedTuple):
    """A value that is no list: texts and references, joined."""

    parts: tuple[str | _Reference, ...]
    offset: int


class _List(NamedTuple):
    values: "tuple[_Value, ...]"
    offset: int


_Value: TypeAlias = _Single | _List


class _Relation(NamedTuple):
    name: str
    offset: int
    values: tuple[_Value, ...]
    text: str


def parse(source: Source) -> JobDescription:
    """Read one job.  Raises DescriptionError."""
    relations = list(_Reader(source).relations())
    variables: dict[str, str] = {}
    evaluate = _Evaluator(source, variables)
    for relation in relations:
        if relation.name == "rslsubstitution":
            for name, value in _pairs(source, relation, evaluate):
                variables[name.text] = value.text

    attributes = Attributes(source)
    for relation in relations:
        if relation.name == "environment":
            for name, value in _pairs(source, relation, evaluate):
                attributes.set_variable(name.text, value.text, name.offset)
        elif relation.name == "arguments":
            attributes.arguments.extend(
                evaluate(_single(source, value)).text for value in relation.values
            )
        elif relation.name == "inputfiles":
            for first, second in _pairs(source, relation, evaluate):
                _add_input(attributes, first, second.text)
        elif relation.name == "outputfiles":
            for name, url in _pairs(source, relation, evaluate):
                attributes.add_output(name.text, "" if url.text == NULL else url.text, name.offset)
        elif relation.name in KNOWN:
            if len(relation.values) != 1:
                raise source.error(
                    relation.offset,
                    f"expected one value for {relation.name}, found {len(relation.values)}",
                )
            value = evaluate(_single(source, relation.values[0]))
            attributes.set(relation.name, value.text.strip(), value.offset)
        elif relation.name != "rslsubstitution":
            attributes.extra[relation.name] = relation.text
    return attributes.job()


class _Text(NamedTuple):
    text: str
    offset: int


class _Evaluator:
    """Replaces references by their values.

    What references add is counted: `(A "xx")(B $(A)$(A))(C $(B)$(B))...` doubles at each
    step and must not fill the memory.
    """

    def __init__(self, source: Source, variables: Mapping[str, str]) -> None:
        self.source = source
        self.variables = variables
        self.left = MAX_BYTES

    def __call__(self, value: _Single) -> _Text:
        texts: list[str] = []
        for part in value.parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            text = self.variables.get(part.name)
            if text is None:
                if part.default is None:
                    raise self.source.error(part.offset, f"the variable {part.name} is not defined")
                text = self(part.default).text
            self.left -= len(text)
            if self.left < 0:
                raise self.source.error(
                    part.offset, f"the variables expand to more than {MAX_BYTES} characters"
                )
            texts.append(text)
        return _Text("".join(texts), value.offset)


def _single(source: Source, value: _Value) -> _Single:
    if isinstance(value, _List):
        raise source.expected(value.offset, "a value that is no list")
    return value


def _pairs(
    source: Source, relation: _Relation, evaluate: _Evaluator
) -> Iterator[tuple[_Text, _Text]]:
    """The `(name value)` lists of a relation."""
    for value in relation.values:
        if not isinstance(value, _List):
            raise source.expected(value.offset, "(name value)")
        if len(value.values) != 2:
            raise source.error(
                value.offset, f"expected a name and a value, found {len(value.values)} values"
            )
        name, text = (evaluate(_single(source, one)) for one in value.values)
        yield name, text


def _add_input(attributes: Attributes, first: _Text, second: str) -> None:
    """A pair of ARC's order or of gwd's."""
    if not second or "://" in second:
        attributes.add_input(first.text, second, first.offset)
    elif not first.text.startswith("/"):
        name = posixpath.basename(first.text) if second == NULL else second
        attributes.add_input(name, first.text, first.offset)


class _Reader:
    """Walks over the text once; `offset` is where it stands."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text
        self.offset = 0

    def relations(self) -> Iterator[_Relation]:
        """All relations of the description."""
        self._skip()
        if self._at("&"):
            self.offset += 1
            self._skip()
        while True:
            self._take("(")
            yield self._relation()
            self._skip()
            if self.offset == len(self.text):
                return

    def _relation(self) -> _Relation:
        self._skip()
        offset = self.offset
        name = self._name(_NAME, "the name of an attribute")
        self._skip()
        self._take("=")
        self._skip()
        start = self.offset
        values = self._values(1)
        text = self.text[start : self.offset].strip()
        self._take(")")
        return _Relation(name.lower().replace("_", ""), offset, values, text)

    def _name(self, pattern: re.Pattern[str], what: str) -> str:
        """The name of an attribute or a variable."""
        if self.text[self.offset : self.offset + 1] in _QUOTED:
            return self._quoted()
        name = pattern.match(self.text, self.offset)
        if name is None:
            raise self.source.expected(self.offset, what)
        self.offset = name.end()
        return name[0]

    def _values(self, depth: int) -> tuple[_Value, ...]:
        values: list[_Value] = []
        while True:
            self._skip()
            if self.offset == len(self.text) or self._at(")"):
                return tuple(values)
            values.append(self._list(depth) if self._at("(") else self._single(depth))

    def _list(self, depth: int) -> _List:
        offset = self.offset
        if depth == MAX_DEPTH:
            raise self.source.error(offset, f"lists are nested more than {MAX_DEPTH} deep")
        self.offset += 1
        values = self._values(depth + 1)
        self._take(")")
        return _List(values, offset)

    def _single(self, depth: int) -> _Single:
        offset = self.offset
        parts: list[str | _Reference] = []
        while True:
            part = self._part(depth)
            if part is None:
                if not parts:
                    raise self.source.expected(self.offset, "a value")
                return _Single(tuple(parts), offset)
            parts.append(part)
            end = self.offset
            self._skip()
            if self._at("#"):
                self.offset += 1
                self._skip()
                if self.offset == len(self.text) or self.text[self.offset] in "()#":
                    raise self.source.expected(self.offset, "a value after #")
            else:
                self.offset = end

    def _part(self, depth: int) -> str | _Reference | None:
        """One quoted or unquoted text or one reference, if one stands here."""
        text, offset = self.text, self.offset
        if text[offset : offset + 1] in _QUOTED:
            return self._quoted()
        if text.startswith("$(", offset):
            return self._reference(depth)
        quoted = _USER_QUOTED.match(text, offset)
        if quoted is not None:
            self.offset = quoted.end()
            return quoted["text"].replace(quoted["mark"] * 2, quoted["mark"])
        unquoted = _UNQUOTED.match(text, offset)
        if unquoted is None:
            return None
        self.offset = unquoted.end()
        return unquoted[0]

    def _quoted(self) -> str:
        mark = self.text[self.offset]
        quoted = _QUOTED[mark].match(self.text, self.offset)
        if quoted is None:
            raise self.source.error(self.offset, f"expected a closing {mark}, found none")
        self.offset = quoted.end()
        return quoted[1].replace(mark * 2, mark)

    def _reference(self, depth: int) -> _Reference:
        offset = self.offset
        if depth == MAX_DEPTH:
            raise self.source.error(offset, f"references are nested more than {MAX_DEPTH} deep")
        self.offset += 2
        self._skip()
        name = self._name(_VARIABLE, "the name of a variable")
        self._skip()
        default = None if self._at(")") else self._single(depth + 1)
        self._skip()
        self._take(")")
        return _Reference(name, offset, default)

    def _skip(self) -> None:
        """Go over blanks and comments."""
        while True:
            blank = _BLANK.match(self.text, self.offset)
            assert blank is not None
            self.offset = blank.end()
            if not self.text.startswith("(*", self.offset):
                return
            end = self.text.find("*)", self.offset + 2)
            if end < 0:
                raise self._unclosed_comment()
            self.offset = end + 2

    def _unclosed_comment(self) -> DescriptionError:
        return self.source.error(self.offset, "expected *) at the end of a comment, found none")

    def _at(self, mark: str) -> bool:
        return self.text.startswith(mark, self.offset)

    def _take(self, mark: str) -> None:
        if not self._at(mark):
            raise self.source.expected(self.offset, mark)
        self.offset += 1
