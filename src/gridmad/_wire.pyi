from typing import Final, Literal, final

MAX_LINE: Final[int]
MAX_INFO: Final[int]
MAX_QUEUES: Final[int]
MAX_GENERIC: Final[int]
MAX_TEXT: Final[int]
KNOWN_INTEGERS: Final[frozenset[str]]
KNOWN_TEXTS: Final[frozenset[str]]
KNOWN_QUEUE_INTEGERS: Final[frozenset[str]]
KNOWN_QUEUE_TEXTS: Final[frozenset[str]]

@final
class Grammar:
    @property
    def fields(self) -> int: ...
    @property
    def operations(self) -> tuple[str, ...]: ...
    @property
    def has_tid(self) -> bool: ...
    def __init__(
        self,
        fields: int,
        operations: dict[str, tuple[Literal["id", "tid", 2, 3, 4, 5], ...]],
        has_tid: bool = False,
    ) -> None: ...

@final
class Request:
    @property
    def operation(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def problem(self) -> str | None: ...
    @property
    def answered(self) -> bool: ...
    def __getitem__(self, index: int, /) -> str: ...

@final
class Parser:
    @property
    def grammar(self) -> Grammar: ...
    def __init__(self, grammar: Grammar) -> None: ...
    def feed(self, data: bytes) -> list[tuple[str, list[Request]]]: ...
    def finish(self) -> list[tuple[str, list[Request]]]: ...

def column(requests: list[Request], index: int) -> list[str]: ...
def answer(requests: list[Request], payloads: list[bytes]) -> tuple[bytes, int]: ...
def format_attributes(
    host: dict[str, int | str],
    queues: list[dict[str, int | str]],
    more: dict[str, int | str] = ...,
) -> tuple[bytes, list[str]]: ...
