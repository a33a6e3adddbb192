"""What `gridmad._screen` computes, in plain Python over the whole of a stream.

Oracle of the property tests and baseline of the bench.  It is written in another way than
the compiled state machines: decode first, then one regular expression.
"""

import codecs
import re

BOUND = 4096
COLOUR = 64


def _undecodable(error: UnicodeError) -> tuple[str, int]:
    """A lone byte of the C1 range is that control; anything else is no character."""
    assert isinstance(error, UnicodeDecodeError)
    byte = error.object[error.start]
    return (chr(byte) if 0x80 <= byte < 0xA0 else "\ufffd"), error.end


codecs.register_error("screen", _undecodable)

_STRING = r"[^\x1b\x80-\x9f\n\x07\x18\x1a]"
_SEQUENCE = re.compile(
    rf"(\x1b\[[0-9;:]{{0,{COLOUR}}}m)"
    rf"|(?:\x1b\[|\x9b)(?:[ -?]{{{BOUND}}}|[ -?]{{0,{BOUND - 1}}}[@-~]?)"
    rf"|(?:\x1b[]PX^_]|[\x90\x98\x9d-\x9f])"
    rf"(?:{_STRING}{{{BOUND}}}|{_STRING}{{0,{BOUND - 1}}}[\x07\x18\x1a]?)"
    rf"|\x1b(?:[ -/]{{{BOUND}}}|[ -/]{{0,{BOUND - 1}}}[0-~]?)"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)


def screen(data: bytes, colours: bool = True) -> bytes:
    """What a Screen shows of a stream from its beginning to its end."""
    text = data.decode("utf-8", "screen")
    return _SEQUENCE.sub(r"\1" if colours else "", text).encode()


def mask(data: bytes, secrets: list[bytes]) -> bytes:
    """The stream with every byte of every occurrence masked."""
    masked = bytearray(data)
    for secret in secrets:
        at = data.find(secret)
        while at >= 0:
            masked[at : at + len(secret)] = b"*" * len(secret)
            at = data.find(secret, at + 1)
    return bytes(masked)


def held_back(data: bytes, secrets: list[bytes]) -> int:
    """How many bytes at the end may be the beginning of a secret."""
    return max(
        (
            length
            for secret in secrets
            for length in range(1, len(secret))
            if data.endswith(secret[:length])
        ),
        default=0,
    )
