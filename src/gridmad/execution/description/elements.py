"""XML as gwd writes it in `jsdl` and `adl`: a text becomes a tree of elements with their places.

Expat does it by itself: it is part of Python, and it tells where each element stands, which
errors need and which is lost in the trees of xml.etree (and so of defusedxml).  What makes XML
dangerous begins with a document type, and a document type is refused before anything in it is
read: no entities but the five of XML, nothing external, nothing that grows.  Depth is bounded
here, size by Source.

gwd escapes nothing and slips once, so two things are read that are no XML:
- `&` where no entity of XML stands, and `<` where no whole tag does, are themselves;
- `<OutputFile>` where `</OutputFile>` is meant, after `</Target>`.

Prefixes of names are dropped, and the encoding is taken for UTF-8 whatever the text declares.
Bytes that are no UTF-8 survive as in all dialects.
"""

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from gridmad.execution.description.source import Source

MAX_DEPTH: Final = 32
"""Elements within elements; gwd's have seven levels."""

_LONE: Final = re.compile(
    r"""&(?!(?:amp|lt|gt|quot|apos|\#[0-9]{1,7}|\#x[0-9A-Fa-f]{1,6});)
    |<(?![/!?]
      |[^\W\d][\w:.-]*+(?:\s++[\w:.-]++\s*+=\s*+(?:"[^"<]*+"|'[^'<]*+'))*+\s*+/?>)""",
    re.VERBOSE,
)
_SLIP: Final = re.compile(r"(</Target>\s*)\s<OutputFile>")

# What expat would not take goes through it as characters that nobody uses, one for one.
_STAND_INS: Final = re.compile("[\U0010f000-\U0010f0ff]")
_HIDE: Final = {
    code: 0x10F000 + (code & 0xFF) for code in (ord("&"), ord("<"), *range(0xDC80, 0xDD00))
}
_SHOW: Final = {hidden: code for code, hidden in _HIDE.items()}
_HIDE_BYTES: Final = {code: hidden for code, hidden in _HIDE.items() if code >= 0xDC80}


@dataclass(slots=True)
class Element:
    """An element: its name and its attributes' names without prefixes."""

    source: Source
    name: str
    attributes: dict[str, str]
    offset: int
    """Where it begins, in characters."""
    children: "list[Element]" = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its text.  Raises DescriptionError if there are elements in it."""
        if self.children:
            raise self.source.error(
                self.children[0].offset,
                f"expected the text of {self.name}, found the element {self.children[0].name}",
            )
        return "".join(self.texts)

    @property
    def content(self) -> str:
        """All texts in it, those of its elements too."""
        return "".join(self.texts) + "".join(child.content for child in self.children)

    def child(self, name: str) -> "Element | None":
        """The first element of this name in it."""
        return next((child for child in self.children if child.name == name), None)

    def text_of(self, name: str) -> str:
        """The text of such an element, without blanks around it; "" if there is none."""
        child = self.child(name)
        return child.text.strip() if child is not None else ""

    def items(self, containers: Container[str]) -> "Iterator[Element]":
        """The elements in it, of those named in `containers` what is in them instead."""
        for child in self.children:
            if child.name in containers:
                yield from child.items(containers)
            else:
                yield child


def parse(source: Source) -> Element:
    """Read a text into its root element.  Raises DescriptionError."""
    return _Reader(source).read()


class _Reader:
    """Takes what expat calls out; `open` holds the elements that are not closed yet."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.open: list[Element] = []
        self.root: Element | None = None
        text = _SLIP.sub(r"\1</OutputFile>", source.text)
        text = _LONE.sub(lambda found: found[0].translate(_HIDE), text)
        self.data = text.translate(_HIDE_BYTES).encode("utf-8")
        self.bytes = self.characters = 0
        self.parser = expat.ParserCreate("utf-8")
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text

    def read(self) -> Element:
        taken = _STAND_INS.search(self.source.text)
        if taken is not None:
            raise self.source.error(taken.start(), "this character is not allowed")
        try:
            self.parser.Parse(self.data, True)
        except expat.ExpatError as error:
            offset = len(self.data[: self.parser.ErrorByteIndex].decode("utf-8", "ignore"))
            raise self.source.error(offset, f"{expat.ErrorString(error.code)} in the XML") from None
        assert self.root is not None
        return self.root

    def _offset(self) -> int:
        """Where expat stands, in characters: bytes are counted on from the last place."""
        here = self.parser.CurrentByteIndex
        self.characters += len(self.data[self.bytes : here].decode("utf-8"))
        self.bytes = here
        return self.characters

    def _doctype(self, *_declaration: object) -> None:
        begin = self.source.text.rfind("<!DOCTYPE", 0, self._offset())
        raise self.source.error(begin, "a document type is not allowed")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self.open) == MAX_DEPTH:
            raise self.source.error(
                self._offset(), f"elements are nested more than {MAX_DEPTH} deep"
            )
        element = Element(
            self.source,
            _local(name),
            {_local(key): value.translate(_SHOW) for key, value in attributes.items()},
            self._offset(),
        )
        if self.open:
            self.open[-1].children.append(element)
        else:
            self.root = element
        self.open.append(element)

    def _end(self, _name: str) -> None:
        self.open.pop()

    def _text(self, text: str) -> None:
        self.open[-1].texts.append(text.translate(_SHOW))


def _local(name: str) -> str:
    return name.rpartition(":")[2]
