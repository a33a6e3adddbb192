from typing import Final

MAX_INFO: Final[int]
MAX_QUEUES: Final[int]
MAX_GENERIC: Final[int]
MAX_TEXT: Final[int]
MAX_HOST_NAME: Final[int]
KNOWN_INTEGERS: Final[frozenset[str]]
KNOWN_TEXTS: Final[frozenset[str]]
KNOWN_QUEUE_INTEGERS: Final[frozenset[str]]
KNOWN_QUEUE_TEXTS: Final[frozenset[str]]

def format_attributes(
    host: dict[str, int | str],
    queues: list[dict[str, int | str]],
    more: dict[str, int | str] = ...,
) -> tuple[bytes, list[str]]: ...
