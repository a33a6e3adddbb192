"""LDAP's answers in plain Python: how they are written, in every form BER allows, and what
ldap3's own decoder makes of them.  The oracle of gridmad._ber's tests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ldap3.utils.asn1 import decode_message_fast

Length = Callable[[int], bytes]
"""How a length is written."""

SEQUENCE, SET, INTEGER, OCTETS, ENUMERATED, BOOLEAN = 0x30, 0x31, 0x02, 0x04, 0x0A, 0x01
BIND, ENTRY, DONE, REFERENCE, EXTENDED, MORE = 0x61, 0x64, 0x65, 0x73, 0x78, 0x79
OPERATIONS = {1: BIND, 5: DONE, 24: EXTENDED}


def shortest(size: int) -> bytes:
    if size < 128:
        return bytes([size])
    return padded(0)(size)


def padded(zeros: int) -> Length:
    """The long form, with leading zeros."""

    def written(size: int) -> bytes:
        digits = bytes(zeros) + size.to_bytes(max(1, (size.bit_length() + 7) // 8), "big")
        return bytes([0x80 + len(digits)]) + digits

    return written


@dataclass(frozen=True)
class Writer:
    """Writes messages, each length by `length`."""

    length: Length = shortest

    def element(self, tag: int, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return bytes([tag]) + self.length(len(content)) + content

    def integer(self, value: int, tag: int = INTEGER) -> bytes:
        return self.element(tag, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))

    def message(self, number: int, operation: bytes, controls: "Sequence[Control]" = ()) -> bytes:
        parts = [self.integer(number), operation]
        if controls:
            parts.append(self.element(0xA0, *map(self.control, controls)))
        return self.element(SEQUENCE, *parts)

    def control(self, control: "Control") -> bytes:
        parts = [self.element(OCTETS, control.oid.encode())]
        if control.is_critical is not None:
            parts.append(self.element(BOOLEAN, b"\xff" if control.is_critical else b"\0"))
        if control.value is not None:
            parts.append(self.element(OCTETS, control.value))
        return self.element(SEQUENCE, *parts)

    def entry(self, name: bytes, attributes: Sequence[tuple[bytes, Sequence[bytes]]]) -> bytes:
        return self.element(
            ENTRY,
            self.element(OCTETS, name),
            self.element(
                SEQUENCE,
                *(
                    self.element(
                        SEQUENCE,
                        self.element(OCTETS, attribute),
                        self.element(SET, *(self.element(OCTETS, value) for value in values)),
                    )
                    for attribute, values in attributes
                ),
            ),
        )

    def reference(self, uris: Sequence[bytes]) -> bytes:
        return self.element(REFERENCE, *(self.element(OCTETS, uri) for uri in uris))

    def more(self, name: bytes | None, value: bytes | None) -> bytes:
        parts = []
        if name is not None:
            parts.append(self.element(0x80, name))
        if value is not None:
            parts.append(self.element(0x81, value))
        return self.element(MORE, *parts)

    def result(self, result: "Outcome") -> bytes:
        parts = [
            self.integer(result.code, ENUMERATED),
            self.element(OCTETS, result.matched_dn),
            self.element(OCTETS, result.text),
        ]
        if result.referrals:
            parts.append(self.element(0xA3, *(self.element(OCTETS, u) for u in result.referrals)))
        for tag, value in (
            (0x87, result.credentials),
            (0x8A, result.name),
            (0x8B, result.value),
        ):
            if value is not None:
                parts.append(self.element(tag, value))
        return self.element(OPERATIONS[result.operation], *parts)

    def paged(self, size: int, cookie: bytes) -> bytes:
        return self.element(SEQUENCE, self.integer(size), self.element(OCTETS, cookie))


@dataclass(frozen=True)
class Control:
    oid: str
    is_critical: bool | None = None
    value: bytes | None = None


@dataclass(frozen=True)
class Outcome:
    """What a Result says."""

    operation: int
    code: int
    matched_dn: bytes = b""
    text: bytes = b""
    referrals: Sequence[bytes] = ()
    credentials: bytes | None = None
    name: bytes | None = None
    value: bytes | None = None


@dataclass
class Answer:
    """What messages say, in ldap3's reading and our terms."""

    entries: list[dict[str, tuple[bytes, ...]]] = field(default_factory=list)
    references: list[list[bytes]] = field(default_factory=list)
    more: list[tuple[bytes | None, bytes | None]] = field(default_factory=list)
    result: Outcome | None = None
    controls: list[tuple[str, bytes | None]] = field(default_factory=list)
    """Of the result.  ldap3 takes every control that says whether it is critical for critical."""


def decode(messages: Sequence[bytes]) -> Answer:
    """Decode whole messages with ldap3's decoder."""
    answer = Answer()
    for message in messages:
        decoded = decode_message_fast(message)  # type: ignore[no-untyped-call]
        operation, payload = decoded["protocolOp"], decoded["payload"]
        if operation == ENTRY & 31:
            answer.entries.append(
                {
                    name[3].decode("ascii", "replace").lower(): tuple(v[3] for v in values[3])
                    for name, values in (attribute[3] for attribute in payload[1][3])
                }
            )
        elif operation == REFERENCE & 31:
            answer.references.append([uri[3] for uri in payload])
        elif operation == MORE & 31:
            parts = {part[2]: part[3] for part in payload}
            answer.more.append((parts.get(0), parts.get(1)))
        else:
            parts = {part[2]: part[3] for part in payload[3:]}
            answer.result = Outcome(
                operation,
                payload[0][3],
                payload[1][3],
                payload[2][3],
                tuple(uri[3] for uri in parts.get(3, ())),
                parts.get(7),
                parts.get(10),
                parts.get(11),
            )
            answer.controls = [
                (
                    control[3][0][3].decode("ascii", "replace"),
                    next((part[3] for part in control[3][1:] if part[2] == 4), None),
                )
                for control in decoded["controls"] or ()
            ]
    return answer
