"""Writes RSL, for back ends that take it (GRAM) or its relative xRSL (ARC).

    &(executable="/bin/echo")(arguments="a ""b"" c" "d")(environment=("NAME" "value"))

All texts are quoted, so nothing in them is taken for a reference, a comment or an operator.
What is written is read back unchanged by gridmad.execution.description.rsl and by Globus.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from gridmad.errors import DescriptionError

Value: TypeAlias = "str | int | Sequence[Value]"
"""A text, a number, or a list of values (of a list within a list, in parentheses)."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def rsl(relations: Iterable[tuple[str, Value]]) -> str:
    """One conjunction of `(name = value ...)`, in the order given, on one line if the texts are.

    A list without values is a relation that says nothing, and is left out.  Bytes that are no
    UTF-8 are surrogates in the result, as they were in the description: encode it with
    `surrogateescape`.

    Raises DescriptionError for what RSL cannot say: a name that is no word, NUL, an empty list
    within a list.
    """
    return "&" + "".join(
        f"({_name(name)}={_values(value)})" for name, value in relations if not _is_empty(value)
    )


def _is_empty(value: Value) -> bool:
    return not isinstance(value, (str, int)) and not value


def _name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise DescriptionError(f'"{name[:40]}" is no name of an RSL attribute')
    return name


def _values(value: Value) -> str:
    """One value, or those of a list, without parentheses around them."""
    if isinstance(value, int):
        return f'"{value}"'
    if isinstance(value, str):
        if "\0" in value:
            raise DescriptionError("RSL has no NUL")
        return '"' + value.replace('"', '""') + '"'
    return " ".join(_values(one) if isinstance(one, (str, int)) else _list(one) for one in value)


def _list(values: Sequence[Value]) -> str:
    if not values:
        raise DescriptionError("RSL has no empty list")
    return f"({_values(values)})"
