"""Values of directory entries in plain Python: what gridmad._glue does, and the bench's mark."""

import re
from collections.abc import Iterable

from gridmad.information.ldap import Entry

_NUMBER = re.compile(rb"\s*\+?([0-9]{1,30})(?:\.[0-9]*)?\s*")


def decoded(value: bytes) -> str:
    try:
        return value.decode().strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()


def text_of(entry: Entry, name: str) -> str:
    values = entry.get(name)
    return decoded(values[0]) if values else ""


def texts_of(entry: Entry, name: str) -> list[str]:
    return [decoded(value) for value in entry.get(name, ())]


def keys_of(entry: Entry, name: str, target: str) -> list[str]:
    keys = []
    for value in entry.get(name, ()):
        kind, _, identity = decoded(value).partition("=")
        if identity and kind.strip().lower() == target:
            keys.append(identity.strip().lower())
    return keys


def words_of(entry: Entry, names: Iterable[str]) -> list[str]:
    return [text_of(entry, name) for name in names]


def number_of(entry: Entry, name: str) -> int | None:
    values = entry.get(name)
    match = _NUMBER.fullmatch(values[0]) if values else None
    return int(match[1]) if match else None


def numbers_of(entry: Entry, names: Iterable[str]) -> list[int | None]:
    return [number_of(entry, name) for name in names]


def state_of(entry: Entry, name: str) -> int | None:
    number = number_of(entry, name)
    return None if number == 444444 else number


def quantity_of(entry: Entry, *names: str) -> int | None:
    return next((number for name in names if (number := number_of(entry, name))), None)
