"""Host attributes by f-strings and join, each text checked: what one would write first."""

import re
from collections.abc import Mapping, Sequence

UNSAFE = re.compile('["\x00-\x1f\x7f]')


def format_attributes(
    host: Mapping[str, int | str], queues: Sequence[Mapping[str, int | str]]
) -> bytes:
    """`NAME=value NAME[i]="value" ...`."""
    words = [_assignment(name, value) for name, value in host.items()]
    for index, queue in enumerate(queues):
        words += [_assignment(f"{name}[{index}]", value) for name, value in queue.items()]
    return " ".join(words).encode()


def _assignment(name: str, value: int | str) -> str:
    if isinstance(value, int):
        return f"{name}={value}"
    if UNSAFE.search(value):
        value = UNSAFE.sub(" ", value)
    return f'{name}="{value}"'
