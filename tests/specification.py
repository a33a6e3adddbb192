"""What gridmad._wire and gridmad._attributes must do, in plain Python: the oracle of their
property tests and the baseline of their benches.  It is not shipped.

Written from the rules (gridmad/wire.py tells the lines, GridWay 5.14's src/{im,em,tm} what
gwd takes), not from the compiled code.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

Need = Literal["id", "tid", 2, 3, 4, 5]
Operations = Mapping[str, tuple[Need, ...]]

MAX_LINE: Final = 65_535
"""Bytes of a line with its newline."""
MAX_FIELDS: Final = 6
MAX_DIGITS: Final = 10
"""Of a job, host or transfer id."""
MAX_ID: Final = 10
"""Bytes of an id that is echoed."""
MAX_OPERATION: Final = 20
"""Bytes of an unknown operation that is echoed."""
MAX_HEAD: Final = MAX_OPERATION + MAX_ID + (1 + MAX_DIGITS) + 4
"""Bytes of an answer's operation, id, transfer id (with "+"), three blanks and newline."""
EXCERPT: Final = 64
"""Bytes of a line that is too long that are looked at: enough to echo operation and id."""

_BLANKS = re.compile("[ \t]+")
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
_VISIBLE = re.compile("[!-~]+")


# ---------------------------------------------------------------- requests


@dataclass(slots=True, eq=False)
class SpecificationRequest:
    """One request line: its words, the operation they name, and what is wrong with them."""

    words: list[str]
    grammar: "SpecificationParser"
    known_operation: str
    """In capitals; "" where the first word is none."""
    problem: str | None = None
    answered: bool = False

    @property
    def operation(self) -> str:
        """The operation; "" where the line is no valid request."""
        return self.known_operation if self.problem is None else ""

    @property
    def id(self) -> str:
        """The id as it came; "-" where it could disturb the answer's fields."""
        word = self[1]
        return word if len(word) <= MAX_ID and _VISIBLE.fullmatch(word) else "-"

    def __getitem__(self, index: int) -> str:
        """Word number `index`; "-" where there is none."""
        if not 0 <= index < MAX_FIELDS:
            raise IndexError(index)
        return self.words[index] if index < len(self.words) else "-"


@dataclass
class SpecificationParser:
    """Bytes -> requests, in runs of one operation.  Arguments as those of wire.Grammar."""

    fields: int
    operations: Operations
    has_tid: bool = False
    _rest: bytes = field(default=b"", init=False)

    def feed(self, data: bytes) -> list[tuple[str, list[SpecificationRequest]]]:
        """The requests of every line that is whole now."""
        *lines, rest = (self._rest + data).split(b"\n")
        # Of a line that is too long already no more is kept than tells that it is.
        self._rest = rest[:MAX_LINE]
        runs: list[tuple[str, list[SpecificationRequest]]] = []
        run: list[SpecificationRequest] = []
        before: str | None = None
        for line in lines:
            request = self._request(line)
            if request is None:
                continue
            operation = "" if request.problem else request.known_operation
            if operation != before:
                run = []
                runs.append((operation, run))
                before = operation
            run.append(request)
        return runs

    def finish(self) -> list[tuple[str, list[SpecificationRequest]]]:
        """End of file: what is there counts as a line."""
        return self.feed(b"\n")

    def _request(self, line: bytes) -> SpecificationRequest | None:
        is_too_long = len(line) + 1 > MAX_LINE
        if is_too_long:
            line = line[:EXCERPT]
        text = line.removesuffix(b"\r").strip(b" \t").decode("utf-8", "surrogateescape")
        if not text:
            return None
        if text.isascii() and text.isprintable():
            # The blank is the only white space in it, so str.split is right (and fast).
            words = text.split(None, self.fields - 1)
            has_control = False
        else:
            words = _BLANKS.split(text, self.fields - 1)
            has_control = _CONTROL.search(text) is not None
        name = words[0].upper() if words[0].isascii() else ""
        needs = self.operations.get(name)
        problem = None
        if is_too_long:
            problem = f"request longer than {MAX_LINE} bytes"
        elif has_control:
            problem = "control character in the request"
        elif needs is None:
            problem = "unknown operation; known are " + " ".join(self.operations)
        else:
            problem = _unmet(name, words, needs)
        return SpecificationRequest(words, self, "" if needs is None else name, problem)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= MAX_DIGITS


def _unmet(name: str, words: list[str], needs: tuple[Need, ...]) -> str | None:
    """What an operation needs and the words of the request do not give."""
    job_id = words[1] if len(words) > 1 else "-"
    if ("id" in needs or job_id != "-") and not _is_number(job_id):
        return f"the id of {name} is a number in digits"
    if "tid" in needs and not (len(words) > 2 and _is_number(words[2])):
        return f"the transfer id of {name} is a number in digits"
    for need in needs:
        if isinstance(need, int) and (len(words) <= need or words[need] == "-"):
            return f"{name} lacks a field"
    return None


def column(requests: Sequence[SpecificationRequest], index: int) -> list[str]:
    """Word number `index` of each request."""
    if not 0 <= index < MAX_FIELDS:
        raise IndexError(index)
    return [request[index] for request in requests]


# ---------------------------------------------------------------- answers


def answer(
    requests: Sequence[SpecificationRequest], payloads: Sequence[bytes]
) -> tuple[bytes, int]:
    """The answers' lines and their number; a request is answered once."""
    if len(requests) != len(payloads):
        raise ValueError(f"{len(requests)} requests and {len(payloads)} payloads")
    for request, payload in zip(requests, payloads, strict=True):
        if not request.answered and len(payload) > MAX_LINE - MAX_HEAD:
            raise ValueError(f"an answer of {len(payload)} bytes is too long for a line")
    lines = []
    for request, payload in zip(requests, payloads, strict=True):
        if not request.answered:
            request.answered = True
            lines.append(_head(request) + payload + b"\n")
    return b"".join(lines), len(lines)


def _head(request: SpecificationRequest) -> bytes:
    operation = request.known_operation
    if not operation:
        word = request.words[0]
        is_plain = len(word) <= MAX_OPERATION and _VISIBLE.fullmatch(word)
        # What only drivers say must not go back: gwd would take it for news of a job.
        operation = word if is_plain and word.upper() != "CALLBACK" else "-"
    head = f"{operation} {request.id} "
    if request.grammar.has_tid:
        head += f"{_transfer_id(request)} "
    return head.encode()


def _transfer_id(request: SpecificationRequest) -> str:
    needs = request.grammar.operations.get(request.known_operation, ())
    if "tid" not in needs or not _is_number(request[2]):
        return "-"
    # gwd takes a job id of five digits and the transfer id behind it for one number.
    return "+" + request[2] if len(request.id) >= 5 else request[2]


# ---------------------------------------------------------------- host attributes

MAX_INFO: Final = 64_900
MAX_QUEUES: Final = 67
MAX_GENERIC: Final = 134
MAX_TEXT: Final = 4_000
MAX_NAME: Final = 64
MAX_COPIED: Final = 24
MAX_HOST_NAME: Final = 39
MARGIN: Final = 32
"""Bytes left for a blank, [67], =, two quotes and the digits of an integer."""

KNOWN_INTEGERS: Final = frozenset(
    [
        "CPU_MHZ",
        "CPU_FREE",
        "CPU_SMP",
        "NODECOUNT",
        "SIZE_MEM_MB",
        "FREE_MEM_MB",
        "SIZE_DISK_MB",
        "FREE_DISK_MB",
    ]
)
KNOWN_TEXTS: Final = frozenset(
    [
        "HOSTNAME",
        "ARCH",
        "OS_NAME",
        "OS_VERSION",
        "CPU_MODEL",
        "FORK_NAME",
        "LRMS_NAME",
        "LRMS_TYPE",
    ]
)
KNOWN_QUEUE_INTEGERS: Final = frozenset(
    [
        "QUEUE_NODECOUNT",
        "QUEUE_FREENODECOUNT",
        "QUEUE_MAXTIME",
        "QUEUE_MAXCPUTIME",
        "QUEUE_MAXCOUNT",
        "QUEUE_MAXRUNNINGJOBS",
        "QUEUE_MAXJOBSINQUEUE",
    ]
)
KNOWN_QUEUE_TEXTS: Final = frozenset(
    ["QUEUE_NAME", "QUEUE_STATUS", "QUEUE_DISPATCHTYPE", "QUEUE_PRIORITY"]
)
MAX_LENGTHS: Final = {
    "HOSTNAME": MAX_HOST_NAME,
    **dict.fromkeys(("ARCH", "FORK_NAME", "LRMS_NAME", "QUEUE_NAME"), MAX_COPIED),
}
"""Bytes of the texts that gwd copies into fields of its own; they are single words."""
WITHOUT_COLON: Final = frozenset({"HOSTNAME", "QUEUE_NAME"})

_INTEGERS = KNOWN_INTEGERS | KNOWN_QUEUE_INTEGERS
_TEXTS = KNOWN_TEXTS | KNOWN_QUEUE_TEXTS
_KNOWN = _INTEGERS | _TEXTS
_OF_HOST = KNOWN_INTEGERS | KNOWN_TEXTS
_NAME = re.compile(f"[A-Za-z][A-Za-z0-9_]{{0,{MAX_NAME - 1}}}")
_UNSAFE = {**dict.fromkeys([*range(32), 127], " "), ord('"'): "'"}
_UNSAFE_CHARACTER = re.compile('[\x00-\x1f\x7f"]')


class _LeftOutError(Exception):
    """One attribute is not written, and why."""


class _LineFullError(_LeftOutError):
    """The attribute does not fit any more."""


@dataclass
class _Attributes:
    """What is written so far, and how much of gwd's two arrays it takes."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    generic_integers: int = 0
    generic_texts: int = 0

    def mark(self) -> tuple[int, int, int, int]:
        """Where it stands, for go_back."""
        return len(self.parts), self.size, self.generic_integers, self.generic_texts

    def go_back(self, mark: tuple[int, int, int, int]) -> None:
        """Forget what was written since `mark`."""
        count, self.size, self.generic_integers, self.generic_texts = mark
        del self.parts[count:]

    def put_all(self, attributes: Mapping[str, int | str], dropped: list[str]) -> None:
        """Write a host's own attributes."""
        for name, value in attributes.items():
            try:
                self.put(name, value, None)
            except _LeftOutError as reason:
                dropped.append(f"{name}: {reason}")

    def put(self, name: str, value: object, queue: int | None) -> None:
        """Write one attribute; raises _LeftOutError for what of it, or all of it, is not."""
        _check_name(name, queue)
        if not isinstance(value, int | str):
            raise _LeftOutError(f"its value is {type(value).__name__}, not an integer or a text")
        if isinstance(value, str) and name in _INTEGERS:
            raise _LeftOutError("its value must be an integer")
        if isinstance(value, int) and name in _TEXTS:
            raise _LeftOutError("its value must be a text")
        is_generic = name not in _KNOWN
        if is_generic and isinstance(value, str) and self.generic_texts >= MAX_GENERIC:
            raise _LeftOutError(f"a host has at most {MAX_GENERIC} generic texts")
        if is_generic and isinstance(value, int) and self.generic_integers >= MAX_GENERIC:
            raise _LeftOutError(f"a host has at most {MAX_GENERIC} generic integers")
        text = _text(name, value) if isinstance(value, str) else b""
        if self.size + len(name) + len(text) + MARGIN > MAX_INFO:
            raise _LineFullError(f"a host has at most {MAX_INFO} bytes of attributes")
        index = "" if queue is None else f"[{queue}]"
        if isinstance(value, str):
            part = b'%b%b="%b"' % (name.encode(), index.encode(), text)
            self.generic_texts += is_generic
        else:
            part = f"{name}{index}={max(-(2**31), min(2**31 - 1, value)):d}".encode()
            self.generic_integers += is_generic
        self.size += len(part) + bool(self.parts)
        self.parts.append(part)
        if isinstance(value, str) and len(value.encode("utf-8", "replace")) > MAX_TEXT:
            raise _LeftOutError(f"what its value has beyond {MAX_TEXT} bytes")


def _check_name(name: str, queue: int | None) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of an attribute is a str, not {type(name).__name__}")
    if not _NAME.fullmatch(name):
        raise _LeftOutError("its name is none that gwd reads")
    if queue is None and name.startswith("QUEUE_"):
        raise _LeftOutError("a name of a queue needs a queue")
    if queue is not None and name in _OF_HOST:
        raise _LeftOutError("a name of a host has no queue")


def _text(name: str, value: str) -> bytes:
    encoded = value.encode("utf-8", "replace")
    longest = MAX_LENGTHS.get(name)
    if longest is not None:
        if len(encoded) > longest:
            raise _LeftOutError(f"its value is longer than the {longest} bytes that gwd takes")
        is_word = " " not in value and not _UNSAFE_CHARACTER.search(value)
        if not is_word or (name in WITHOUT_COLON and ":" in value):
            raise _LeftOutError(
                "its value has a blank, a colon or another character that gwd cannot take"
            )
    cut = encoded[:MAX_TEXT].decode("utf-8", "ignore")
    return cut.translate(_UNSAFE).encode()


def format_attributes(
    host: Mapping[str, int | str],
    queues: Sequence[Mapping[str, int | str]],
    more: Mapping[str, int | str] = {},
) -> tuple[bytes, list[str]]:
    """Attributes as gwd reads them, and what was left out and why.

    A queue whose name cannot be written, or of which something does not fit, is left out
    whole.
    """
    dropped: list[str] = []
    written = _Attributes()
    written.put_all(host, dropped)
    for index, attributes in enumerate(queues):
        if index >= MAX_QUEUES:
            dropped.append(f"queues from {index} on: a host has at most {MAX_QUEUES} queues")
            break
        before = written.mark()
        is_whole = True
        for name, value in attributes.items():
            try:
                written.put(name, value, index)
            except _LeftOutError as reason:
                dropped.append(f"{name}[{index}]: {reason}")
                if name == "QUEUE_NAME" or isinstance(reason, _LineFullError):
                    is_whole = False
        if not is_whole:
            written.go_back(before)
    written.put_all(more, dropped)
    return b" ".join(written.parts), dropped
