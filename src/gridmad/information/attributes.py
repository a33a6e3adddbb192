"""Host attributes as text: what the files of GridWay's static information driver hold.

    HOSTNAME="hydrus.example.org" ARCH="i686"     assignments, separated by blanks,
    CPU_MHZ=3216                                  commas or line ends
    QUEUE_NAME[0]="short" QUEUE_NODECOUNT[0]=4    [i] is the number of a queue
    # a comment takes its whole line

Names are letters, digits and "_"; a value is an integer, or a text in double quotes that
holds none and ends on its line.  Source: GridWay 5.14, src/host/gw_host_update_syntax.y and
gw_host_attr_parser.l.  No I/O happens here.
"""

import re
from typing import NamedTuple

from gridmad import wire
from gridmad.information.model import Attribute, HostAttributes

_SEPARATORS = re.compile(r"[\s,]+")
_NAME = re.compile(r"([A-Za-z][0-9A-Za-z_]*)[ \t]*(?:\[[ \t]*([^\]\s]*)[ \t]*\])?[ \t]*=")
_TEXT = re.compile(r'[ \t]*"([^"]*)"')
_WORD = re.compile(r"[^\s,]+")
_BARE = re.compile(r'[^\s,"]*')
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_INDEX = re.compile(r"[0-9]{1,4}", re.ASCII)


class Problem(NamedTuple):
    """What is wrong in one line of a text (counted from 1), and what to write instead."""

    line: int
    text: str


def parse_attributes(text: str) -> tuple[HostAttributes, list[Problem]]:
    """The attributes that `text` assigns, and what in it cannot be read.

    What follows a problem is read on; of two assignments to one name the later counts, and a
    name without a value counts as not assigned.  Whether gwd can take a name and its value is
    told by HostAttributes.dropped.
    """
    host: dict[str, Attribute] = {}
    queues: list[dict[str, Attribute]] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("#"):
            continue
        _parse_line(line, number, host, queues, problems)
    return HostAttributes(host, queues), problems


def _parse_line(
    line: str,
    number: int,
    host: dict[str, Attribute],
    queues: list[dict[str, Attribute]],
    problems: list[Problem],
) -> None:
    at = 0
    while True:
        if separators := _SEPARATORS.match(line, at):
            at = separators.end()
        if at == len(line):
            return
        name = _NAME.match(line, at)
        if name is None:
            word = _WORD.match(line, at)
            assert word is not None
            problems.append(Problem(number, f"{word[0]!r} is no assignment: write NAME=value"))
            at = word.end()
            continue
        at = name.end()
        value, at, problem = _value(line, at, name[1])
        if problem is None and value is not None:
            problem = _assign(host, queues, name[1], name[2], value)
        if problem is not None:
            problems.append(Problem(number, problem))


def _value(line: str, at: int, name: str) -> tuple[Attribute | None, int, str | None]:
    """The value at `at` (None where there is none), where it ends, and what is wrong with it."""
    if text := _TEXT.match(line, at):
        return text[1], text.end(), None
    if line[at:].lstrip(" \t").startswith('"'):
        return None, len(line), f'the text of {name} lacks its closing " on the same line'
    bare = _BARE.match(line, at)
    assert bare is not None
    if not bare[0]:
        # "NAME = 5" is read by gwd, too; but "A= B=5" is an A without a value.
        later = _BARE.match(line, _skip_blanks(line, at))
        if later is None or not _INTEGER.fullmatch(later[0]):
            return None, at, None
        bare = later
    if _INTEGER.fullmatch(bare[0]):
        return int(bare[0]), bare.end(), None
    word = _WORD.match(line, bare.start())
    end = word.end() if word else bare.end()
    return None, end, f'{bare[0]!r} is no integer: write {name}=5 or {name}="text"'


def _skip_blanks(line: str, at: int) -> int:
    while at < len(line) and line[at] in " \t":
        at += 1
    return at


def _assign(
    host: dict[str, Attribute],
    queues: list[dict[str, Attribute]],
    name: str,
    index: str | None,
    value: Attribute,
) -> str | None:
    if index is None:
        host[name] = value
        return None
    if not _INDEX.fullmatch(index):
        return f"[{index}] is no number of a queue: write {name}[0]"
    queue = int(index)
    if queue >= wire.MAX_QUEUES:
        return f"{name}[{queue}]: the queues of a host count from 0 to {wire.MAX_QUEUES - 1}"
    while len(queues) <= queue:
        queues.append({})
    queues[queue][name] = value
    return None
