"""STOMP 1.2 frames in plain Python: the specification of gridmad._stomp, and a baseline."""

import re

MAX_HEADER_BLOCK = 65_536
MAX_HEADERS = 256
MAX_PASSED = 1 << 27
COMMANDS = (b"CONNECTED", b"MESSAGE", b"RECEIPT", b"ERROR")
ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", ":": "\\c"}
UNESCAPES = {escape: plain for plain, escape in ESCAPES.items()}

Frame = tuple[str, dict[str, str], bytes]


class SpecificationError(Exception):
    """What came is no frame."""


class SpecificationReader:
    """Looks at all it has from the front, each time anew."""

    def __init__(self, max_body: int = 1_048_576) -> None:
        self.max_body = max_body
        self.heartbeats = 0
        self._data = b""

    def feed(self, data: bytes) -> list[Frame]:
        self._data += data
        frames = []
        while (frame := self._frame()) is not None:
            frames.append(frame)
        return frames

    def _frame(self) -> Frame | None:
        between = re.match(rb"(?:\r?\n)*", self._data)
        assert between is not None
        self.heartbeats += between[0].count(b"\n")
        self._data = self._data[between.end() :]
        if not self._data or self._data == b"\r":
            return None
        head = self._head()
        if head is None:
            return None
        command, headers, start = head
        length = headers.get("content-length")
        if length is None:
            end = self._data.find(b"\0", start)
            if (len(self._data) if end < 0 else end) - start > self.max_body:
                raise SpecificationError("body")
            if end < 0:
                return None
        else:
            most = max(self.max_body, MAX_PASSED) if command == "MESSAGE" else self.max_body
            if not re.fullmatch("[0-9]{1,18}", length) or int(length) > most:
                raise SpecificationError("content-length")
            end = start + int(length)
            if len(self._data) <= end:
                return None
            if self._data[end]:
                raise SpecificationError("longer than its content-length")
        body = self._data[start:end]
        self._data = self._data[end + 1 :]
        if len(body) > self.max_body:
            body = b""
        return command, headers, body

    def _head(self) -> tuple[str, dict[str, str], int] | None:
        lines = self._data.split(b"\n")
        whole, rest = lines[:-1], lines[-1]
        if not whole:
            if any((command + b"\r").startswith(rest) for command in COMMANDS):
                return None
            raise SpecificationError("command")
        command = whole[0].removesuffix(b"\r")
        if command not in COMMANDS:
            raise SpecificationError("command")
        at = len(whole[0]) + 1
        headers: dict[str, str] = {}
        for number, line in enumerate(whole[1:]):
            if at + len(line) > MAX_HEADER_BLOCK:
                raise SpecificationError("block")
            at += len(line) + 1
            line = line.removesuffix(b"\r")
            if not line:
                return command.decode(), headers, at
            name, colon, value = line.partition(b":")
            if not colon or not name:
                raise SpecificationError("name")
            # A header that is repeated fills one place only.
            if len(headers) >= MAX_HEADERS or number > MAX_HEADER_BLOCK:
                raise SpecificationError("number")
            plain = command == b"CONNECTED"
            headers.setdefault(_text(name, plain), _text(value, plain))
        if len(self._data) > MAX_HEADER_BLOCK:
            raise SpecificationError("block")
        return None


def write(command: str, headers: dict[str, str], body_length: int = -1) -> bytes:
    text = command + "\n"
    for name, value in headers.items():
        if not name or "\0" in name + value:
            raise ValueError(name)
        if command == "CONNECT":
            if re.search("[\r\n:]", name) or re.search("[\r\n]", value):
                raise ValueError(name)
            text += f"{name}:{value}\n"
        else:
            text += f"{_escaped(name)}:{_escaped(value)}\n"
    if body_length >= 0:
        text += f"content-length:{body_length}\n"
    return (text + "\n").encode("utf-8", "surrogateescape")


def _escaped(text: str) -> str:
    return "".join(ESCAPES.get(character, character) for character in text)


def _text(data: bytes, plain: bool) -> str:
    text = data.decode("utf-8", "surrogateescape")
    if plain:
        return text

    def unescape(match: re.Match[str]) -> str:
        if match[0] not in UNESCAPES:
            raise SpecificationError("escape")
        return UNESCAPES[match[0]]

    return re.sub(r"\\(?:.|$)", unescape, text, flags=re.DOTALL)
