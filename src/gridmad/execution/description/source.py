"""The text of a job description, and errors that name the place in it."""

from typing import Final

from gridmad.errors import DescriptionError

MAX_BYTES: Final = 1 << 18
"""gwd writes at most 16 KiB; what is much longer is no job description."""

_EXCERPT: Final = 20
_MAX_TEXT: Final = 200


class Source:
    """A description's text.

    Bytes that are not UTF-8 survive as surrogates and reach the job as they were.  NUL is
    refused, for no argument, variable or path can hold it.
    """

    __slots__ = ("text",)

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_BYTES:
            raise DescriptionError(
                f"the job description has {len(data)} bytes, more than {MAX_BYTES}"
            )
        self.text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        nul = self.text.find("\0")
        if nul >= 0:
            raise self.error(nul, "NUL bytes are not allowed")

    def error(self, offset: int, text: str) -> DescriptionError:
        """An error at `offset` (in characters): `line 3, column 7: <text>`, in one line.

        What the text took from the description may be anything: it is shortened, and what
        cannot be printed becomes blanks.
        """
        text = "".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT])
        line = self.text.count("\n", 0, offset) + 1
        column = offset - self.text.rfind("\n", 0, offset)
        return DescriptionError(f"line {line}, column {column}: {text}")

    def expected(self, offset: int, what: str) -> DescriptionError:
        """An error at `offset`: `expected <what>, found "<text there>"`."""
        found = self.text[offset : offset + _EXCERPT].split("\n", 1)[0]
        if offset >= len(self.text):
            found = "the end of the text"
        elif not found:
            found = "the end of the line"
        else:
            found = f'"{found}"'
        return self.error(offset, f"expected {what}, found {found}")
