"""The JSON messages of the peek protocol and their schema (PROTOCOL.md, 4).

Each message is a frozen dataclass.  `decode` takes exactly what the schema allows and
raises FrameError on anything else; `encode` makes the payload of a frame.  Offsets and
what is told for each source are keyed by the source's number.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, Literal, Self

from gridmad.peek.errors import FrameError
from gridmad.peek.frame import FrameType, Source
from gridmad.peek.stream import CLIENT, STREAM

MAX_PAYLOAD: Final = 4096
"""Bytes of a message."""
MAX_TEXT: Final = 256
"""Characters of a text."""
MAX_NUMBER: Final = 2**63 - 1
MAX_EPOCH: Final = 2**32 - 1
MAX_DEPTH: Final = 8
"""Objects and arrays inside one another: more than any message needs."""
MIN_SECONDS: Final = 0.01
MAX_SECONDS: Final = 86_400.0

# One that is not closed reaches to the end: else each quote in it would be tried again.
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[{\]}]")
_UNSENDABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_DIGEST: Final = re.compile("[0-9a-f]{64}")
_SOURCES: Final = {"1": int(Source.STDOUT), "2": int(Source.STDERR)}


# ---------------------------------------------------------------- JSON that is bounded


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _parse(payload: bytes) -> dict[str, object]:
    if len(payload) > MAX_PAYLOAD:
        raise FrameError(f"a message has at most {MAX_PAYLOAD} bytes")
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", payload)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise FrameError("a message is nested too deeply")
    try:
        members = _DECODER.decode(payload.decode())
    except ValueError as error:
        raise FrameError(f"a message is not JSON: {error}") from None
    if not isinstance(members, dict):
        raise FrameError("a message is not a JSON object")
    return members


# ---------------------------------------------------------------- kinds of members


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a member is read, which raises FrameError, and written."""

    read: Callable[[object], Any]
    write: Callable[[Any], object] = lambda value: value


def _member(kind: _Kind, name: str = "") -> dict[str, object]:
    """The metadata of a dataclass's field: its kind, and its name where Python has taken that."""
    return {"kind": kind, "name": name}


def _integer(low: int, high: int) -> _Kind:
    def read(value: object) -> int:
        # type() since a bool is an int.
        if type(value) is not int or not low <= value <= high:
            raise FrameError(f"not an integer of {low} to {high}")
        return value

    return _Kind(read)


def _matching(pattern: re.Pattern[str]) -> _Kind:
    def read(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise FrameError("not a word of its kind")
        return value

    return _Kind(read)


def _read_text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise FrameError(f"not a text of at most {MAX_TEXT} characters")
    # JSON can name half of a surrogate pair, which nothing could print.
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise FrameError("a text is not Unicode")
    return value


def _write_text(text: str) -> str:
    return _UNSENDABLE.sub("?", text[:MAX_TEXT])


def _read_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise FrameError("neither true nor false")
    return value


def _read_seconds(value: object) -> float:
    if type(value) not in (int, float):
        raise FrameError("not a number")
    assert isinstance(value, int | float)
    if not MIN_SECONDS <= value <= MAX_SECONDS or not math.isfinite(value):
        raise FrameError(f"not a time of {MIN_SECONDS} to {MAX_SECONDS} s")
    return float(value)


def _optional(kind: _Kind) -> _Kind:
    return _Kind(
        lambda value: None if value is None else kind.read(value),
        lambda value: None if value is None else kind.write(value),
    )


def _by_source(kind: _Kind) -> _Kind:
    """An object with a member for one, both or none of the sources."""

    def read(value: object) -> dict[int, Any]:
        if not isinstance(value, dict):
            raise FrameError("not an object")
        return {
            number: kind.read(value[name]) for name, number in _SOURCES.items() if name in value
        }

    def write(values: Mapping[int, Any]) -> dict[str, object]:
        return {str(int(number)): kind.write(value) for number, value in values.items()}

    return _Kind(read, write)


def _record(cls: type["_Record"]) -> _Kind:
    return _Kind(cls.read, lambda value: value.write())


class _Record:
    """What messages and the objects inside them share: members read and written by kind."""

    __slots__ = ()

    @classmethod
    def read(cls, value: object) -> Self:
        """From parsed JSON; FrameError where that does not fit."""
        if not isinstance(value, dict):
            raise FrameError("not an object")
        members = {}
        for item in fields(cls):  # type: ignore[arg-type]
            name = item.metadata["name"] or item.name
            if name not in value:
                raise FrameError(f"{name} is missing")
            try:
                members[item.name] = item.metadata["kind"].read(value[name])
            except FrameError as error:
                raise FrameError(f"{name}: {error}") from None
        return cls(**members)

    def write(self) -> dict[str, object]:
        """What JSON is made from."""
        return {
            item.metadata["name"] or item.name: item.metadata["kind"].write(
                getattr(self, item.name)
            )
            for item in fields(self)  # type: ignore[arg-type]
        }


_NUMBER: Final = _integer(0, MAX_NUMBER)
_EPOCH: Final = _integer(0, MAX_EPOCH)
_OFFSETS: Final = _by_source(_NUMBER)
_CLIENT: Final = _matching(CLIENT)
_TEXT: Final = _Kind(_read_text, _write_text)
_BOOL: Final = _Kind(_read_bool)
_SECONDS: Final = _Kind(_read_seconds)


# ---------------------------------------------------------------- what is told for a source


@dataclass(frozen=True, slots=True)
class Extent(_Record):
    """What HELLO says: first offset to come, oldest the job side has, bytes read so far."""

    start: int = field(metadata=_member(_NUMBER, "from"))
    oldest: int = field(metadata=_member(_NUMBER))
    end: int = field(metadata=_member(_NUMBER))


@dataclass(frozen=True, slots=True)
class Span(_Record):
    """What TOKEN says: the bytes `[start, end)` were parked."""

    start: int = field(metadata=_member(_NUMBER, "from"))
    end: int = field(metadata=_member(_NUMBER))


@dataclass(frozen=True, slots=True)
class Ending(_Record):
    """What EOS says: bytes of the source, and their digest in hexadecimal if all were seen."""

    end: int = field(metadata=_member(_NUMBER))
    sha256: str | None = field(metadata=_member(_optional(_matching(_DIGEST))))


@dataclass(frozen=True, slots=True)
class Start:
    """Where a client wants a source to begin: an offset, the rest of what the last client
    committed (no value), the last lines, or what was read since a time in ms.
    """

    kind: Literal["offset", "rest", "tail", "since"]
    value: int | None = None

    @classmethod
    def read(cls, value: object) -> Self:
        """From parsed JSON; FrameError unless it has exactly one of the four members."""
        if not isinstance(value, dict):
            raise FrameError("not an object")
        kinds = [kind for kind in ("offset", "rest", "tail", "since") if kind in value]
        match kinds:
            case ["rest"]:
                if value["rest"] is not True:
                    raise FrameError("rest is not true")
                return cls("rest")
            case ["offset" | "tail" | "since" as kind]:
                return cls(kind, _NUMBER.read(value[kind]))
        raise FrameError("not one of offset, rest, tail and since")

    def write(self) -> dict[str, object]:
        """What JSON is made from."""
        return {self.kind: True if self.kind == "rest" else self.value}


def _read_starts(value: object) -> dict[int, Start]:
    starts: dict[int, Start] = _STARTS.read(value)
    if not starts:
        raise FrameError("no source is wanted")
    return starts


_STARTS: Final = _by_source(_Kind(Start.read, lambda start: start.write()))


# ---------------------------------------------------------------- messages


class Message(_Record):
    """The payload of a frame of `type`."""

    __slots__ = ()
    type: ClassVar[FrameType]

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """The message in a frame's payload; FrameError where it does not fit the schema."""
        return cls.read(_parse(payload))

    def encode(self) -> bytes:
        """The payload of a frame.  Texts are cut, and what cannot be sent in one becomes `?`."""
        payload = json.dumps(self.write(), ensure_ascii=False, separators=(",", ":")).encode()
        if len(payload) > MAX_PAYLOAD:
            raise ValueError(f"a message has at most {MAX_PAYLOAD} bytes")
        return payload


@dataclass(frozen=True, slots=True)
class Gap(Message):
    """Bytes that are missing from the frame's offset on, and why."""

    type = FrameType.GAP
    length: int = field(metadata=_member(_integer(1, MAX_NUMBER)))
    reason: Literal["spool", "park", "truncated"] = field(
        metadata=_member(_matching(re.compile("spool|park|truncated")))
    )


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """The answer to a BEGIN; `answers` is its sequence, `began` in ms, the rest in seconds."""

    type = FrameType.HELLO
    client: str = field(metadata=_member(_CLIENT))
    answers: int = field(metadata=_member(_NUMBER))
    sources: dict[int, Extent] = field(metadata=_member(_by_source(_record(Extent))))
    interval: float = field(metadata=_member(_SECONDS))
    lease: float = field(metadata=_member(_SECONDS))
    name: str = field(metadata=_member(_TEXT))
    host: str = field(metadata=_member(_TEXT))
    began: int = field(metadata=_member(_NUMBER))


@dataclass(frozen=True, slots=True)
class Alive(Message):
    """Offsets: handed to the broker for this client, and read so far."""

    type = FrameType.ALIVE
    sent: dict[int, int] = field(metadata=_member(_OFFSETS))
    end: dict[int, int] = field(metadata=_member(_OFFSETS))


@dataclass(frozen=True, slots=True)
class Eos(Message):
    """The job's end: its exit code, or the signal that ended it, or why neither is known."""

    type = FrameType.EOS
    exit: int | None = field(metadata=_member(_optional(_integer(0, 255))))
    signal: int | None = field(metadata=_member(_optional(_integer(1, 127))))
    reason: str | None = field(metadata=_member(_optional(_TEXT)))
    sources: dict[int, Ending] = field(metadata=_member(_by_source(_record(Ending))))


@dataclass(frozen=True, slots=True)
class Denied(Message):
    """Another client holds the stream, since a time in ms."""

    type = FrameType.DENIED
    client: str = field(metadata=_member(_CLIENT))
    holder: str = field(metadata=_member(_TEXT))
    since: int = field(metadata=_member(_NUMBER))


@dataclass(frozen=True, slots=True)
class Revoked(Message):
    """Another client took the stream over."""

    type = FrameType.REVOKED
    client: str = field(metadata=_member(_CLIENT))
    by: str = field(metadata=_member(_TEXT))


@dataclass(frozen=True, slots=True)
class Token(Message):
    """What was parked."""

    type = FrameType.TOKEN
    epoch: int = field(metadata=_member(_EPOCH))
    sources: dict[int, Span] = field(metadata=_member(_by_source(_record(Span))))


@dataclass(frozen=True, slots=True)
class Present(Message):
    """A job side's line in `msgpeek ls`."""

    type = FrameType.PRESENT
    stream: str = field(metadata=_member(_matching(STREAM)))
    name: str = field(metadata=_member(_TEXT))
    host: str = field(metadata=_member(_TEXT))
    began: int = field(metadata=_member(_NUMBER))
    end: dict[int, int] = field(metadata=_member(_OFFSETS))
    committed: dict[int, int] = field(metadata=_member(_OFFSETS))
    holder: str | None = field(metadata=_member(_optional(_TEXT)))
    ended: bool = field(metadata=_member(_BOOL))
    epoch: int = field(metadata=_member(_EPOCH))


@dataclass(frozen=True, slots=True)
class Begin(Message):
    """A client asks for the stream; `limit` is relative to the `start` of the HELLO."""

    type = FrameType.BEGIN
    client: str = field(metadata=_member(_CLIENT))
    mode: Literal["exclusive", "takeover"] = field(
        metadata=_member(_matching(re.compile("exclusive|takeover")))
    )
    starts: dict[int, Start] = field(metadata=_member(_Kind(_read_starts, _STARTS.write), "from"))
    limit: dict[int, int] = field(metadata=_member(_OFFSETS))
    who: str = field(metadata=_member(_TEXT))


@dataclass(frozen=True, slots=True)
class Ack(Message):
    """Offsets: written for good, and up to which the job side may send."""

    type = FrameType.ACK
    client: str = field(metadata=_member(_CLIENT))
    committed: dict[int, int] = field(metadata=_member(_OFFSETS))
    limit: dict[int, int] = field(metadata=_member(_OFFSETS))


@dataclass(frozen=True, slots=True)
class Bye(Message):
    """A client leaves; `done`: it has the whole stream."""

    type = FrameType.BYE
    client: str = field(metadata=_member(_CLIENT))
    committed: dict[int, int] = field(metadata=_member(_OFFSETS))
    done: bool = field(metadata=_member(_BOOL))


@dataclass(frozen=True, slots=True)
class Roll(Message):
    """`msgpeek ls` asks who is there."""

    type = FrameType.ROLL
    client: str = field(metadata=_member(_CLIENT))
