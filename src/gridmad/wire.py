"""The MAD protocol: the operations of its three families, and how answers are made.

A driver reads requests on stdin and writes answers on stdout, a line each:

    family        request                              answer
    information   OPERATION HOST_ID HOST -             OPERATION HOST_ID RESULT INFO
    execution     OPERATION JOB_ID FIELD FIELD         OPERATION JOB_ID RESULT INFO
    transfer      OPERATION JOB_ID TID MODE URL URL    OPERATION JOB_ID TID RESULT INFO

RESULT is SUCCESS or FAILURE, a missing field is "-".  gwd reads a line of at most 65,535
bytes, scans it into fields of fixed width, and repeats the fields of the line before for
what is missing: so every answer is one whole line with all its fields.

Source: GridWay 5.14, the MAD chapters of its developers' guide and src/{im,em,tm}.
No I/O happens here.
"""

from typing import Final

from gridmad._attributes import (
    KNOWN_INTEGERS,
    KNOWN_QUEUE_INTEGERS,
    KNOWN_QUEUE_TEXTS,
    KNOWN_TEXTS,
    MAX_GENERIC,
    MAX_HOST_NAME,
    MAX_INFO,
    MAX_QUEUES,
    MAX_TEXT,
    format_attributes,
)
from gridmad._wire import MAX_LINE, Grammar, Parser, Request, answer, column, drop

__all__ = [
    "EXECUTION",
    "INFORMATION",
    "KNOWN_INTEGERS",
    "KNOWN_QUEUE_INTEGERS",
    "KNOWN_QUEUE_TEXTS",
    "KNOWN_TEXTS",
    "MAX_FAILURE",
    "MAX_GENERIC",
    "MAX_HOST_NAME",
    "MAX_INFO",
    "MAX_JOBS",
    "MAX_LINE",
    "MAX_QUEUES",
    "MAX_TEXT",
    "SUCCESS",
    "TRANSFER",
    "Grammar",
    "Parser",
    "Request",
    "answer",
    "callback",
    "clean",
    "column",
    "drop",
    "failure",
    "finalised",
    "format_attributes",
    "initialised",
    "success",
    "timer",
]

INFORMATION: Final = Grammar(4, {"INIT": (), "DISCOVER": (), "MONITOR": (2,), "FINALIZE": ()})
EXECUTION: Final = Grammar(
    4,
    {
        "INIT": (),
        "SUBMIT": ("id", 2, 3),
        "POLL": ("id",),
        "CANCEL": ("id",),
        "RECOVER": ("id", 2),
        "FINALIZE": (),
    },
)
TRANSFER: Final = Grammar(
    6,
    {
        "INIT": (),
        "START": ("id",),
        "MKDIR": ("id", 4),
        "RMDIR": ("id", 4),
        "EXISTS": ("id", 4),
        "CP": ("id", "tid", 4, 5),
        "END": ("id",),
        "FINALIZE": (),
    },
    has_tid=True,
)

MAX_JOBS: Final = 100_000
"""gwd scans job ids into five digits: with more jobs than this it cannot work."""
MAX_FAILURE: Final = 1_000
"""Bytes of an error's text in an answer: enough to read, small enough for every reader."""

SUCCESS: Final = b"SUCCESS -"

# C0 and C1 controls, DEL and the Unicode line ends: none may break a line in two.
_TO_BLANK: Final = dict.fromkeys([*range(32), *range(127, 160), 0x2028, 0x2029], " ")


def clean(text: str, limit: int) -> bytes:
    """Text as one line of at most `limit` bytes of UTF-8, never empty ("-")."""
    encoded = text.translate(_TO_BLANK).strip().encode("utf-8", "replace")
    if len(encoded) > limit:
        encoded = encoded[:limit].decode("utf-8", "ignore").encode()
    return encoded.strip() or b"-"


def success(info: str) -> bytes:
    """The payload `SUCCESS <info>`."""
    return b"SUCCESS " + clean(info, MAX_INFO)


def failure(text: str) -> bytes:
    """The payload `FAILURE <text>`: one line, cut to MAX_FAILURE bytes."""
    return b"FAILURE " + clean(text, MAX_FAILURE)


def initialised(grammar: Grammar, greeting: bytes | None, problem: str = "") -> bytes:
    """The answer to INIT: with `greeting` as its info, or the problem where that is None."""
    payload = failure(problem) if greeting is None else b"SUCCESS " + greeting
    return b"INIT %b%b\n" % (b"- - " if grammar.has_tid else b"- ", payload)


def finalised(grammar: Grammar) -> bytes:
    """The answer to FINALIZE."""
    return b"FINALIZE %b%b\n" % (b"- - " if grammar.has_tid else b"- ", SUCCESS)


def callback(job_id: str, payload: bytes) -> bytes:
    """The line that tells a job's change of state without having been asked."""
    return b"CALLBACK %b %b\n" % (job_id.encode("ascii"), payload)


def timer(text: str) -> bytes:
    """A line for people: gwd ignores it, for its id is "-"."""
    return b"TIMER - %b\n" % success(text)
