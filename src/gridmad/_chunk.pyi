import hmac
from typing import Final, final

HEADER_LENGTH: Final[int]
MAC_LENGTH: Final[int]
MAX_RAW: Final[int]
MAX_BODY: Final[int]
HAS_CRC_INSTRUCTION: Final[bool]

def crc32c(data: bytes, by_table: bool = False) -> int: ...

@final
class Frame:
    @property
    def type(self) -> int: ...
    @property
    def source(self) -> int: ...
    @property
    def flags(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def raw_length(self) -> int: ...
    @property
    def sequence(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def time(self) -> int: ...
    @property
    def payload(self) -> bytes: ...
    def data(self) -> bytes: ...

def encode(
    type: int,
    source: int,
    epoch: int,
    sequence: int,
    offset: int,
    time: int,
    payload: bytes | bytearray | memoryview,
    raw_length: int = -1,
    mac: hmac.HMAC | None = None,
) -> bytes: ...
def decode(body: bytes, mac: hmac.HMAC | None = None) -> tuple[list[Frame], int]: ...
