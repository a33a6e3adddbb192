"""`msgpeek ls` and `msgpeek doctor`: what they found, as a table or JSON lines."""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from gridmad.cli.peek_parser import DEFAULT_COLLECTION
from gridmad.logs import one_line
from gridmad.peek import census
from gridmad.peek import doctor as physician
from gridmad.peek.channel import Endpoint, Login
from gridmad.peek.errors import UnknownStreamError
from gridmad.peek.messages import Present
from gridmad.peek.registry import known_stream
from gridmad.peek.settings import Layers
from gridmad.peek.stream import Destinations, Templates, new_stream
from gridmad.peek.values import choice, seconds

Say = Callable[[str], None]

WIDEST: Final = 40
"""Characters of a column: texts come from jobs, and may be as long as the protocol allows."""
LONGEST_COLLECTION: Final = 3600.0
"""Seconds."""
HEADINGS: Final = ("STREAM", "NAME", "HOST", "BEGAN", "STDOUT", "STDERR", "STATE")


def ls(options: argparse.Namespace, layers: Layers, say: Say) -> int:
    """List who answers.  0, also where that is nobody."""
    output = _output(layers)
    patience = layers.value(
        "collect", lambda text: seconds(text, most=LONGEST_COLLECTION), DEFAULT_COLLECTION
    )
    brokers = layers.endpoints(), layers.login(), layers.templates()
    for warning in layers.warnings():
        say(warning)
    found = _collect(*brokers, say, patience)
    if output == "jsonl":
        for one in found:
            _print_json(one.write())
    elif found:
        _print_table([HEADINGS, *(_row(one) for one in found)])
    else:
        say("nobody answers: no job is listed behind these brokers")
    return 0


def _collect(
    endpoints: Sequence[Endpoint], login: Login, templates: Templates, say: Say, patience: float
) -> list[Present]:
    destinations = Destinations(new_stream(), templates)
    return census.collect(endpoints, login, destinations, patience, lambda error: say(str(error)))


def _output(layers: Layers) -> str:
    """Text or jsonl; where somebody always watches raw, there is nothing raw to show."""
    output = layers.value("output", choice("text", "raw", "jsonl"), "text")
    return "text" if output == "raw" else output


def _row(one: Present) -> tuple[str, ...]:
    state = "ended" if one.ended else "running"
    if one.holder is not None:
        state += f", watched by {one.holder}"
    return (
        one.stream,
        one.name,
        one.host,
        _local_time(one.began),
        _extent(one, 1),
        _extent(one, 2),
        state,
    )


def _extent(one: Present, source: int) -> str:
    """Bytes made, and how many of them are still to be taken."""
    if source not in one.end:
        return "-"
    end, committed = one.end[source], one.committed.get(source, 0)
    left = max(0, end - committed)
    return size(end) + (f" ({size(left)} left)" if left else "")


def size(count: int) -> str:
    """Bytes for people: `17 B`, `1.5 MiB`."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in "KMGTPE":
        value /= 1024
        if value < 999.5 or unit == "E":
            break
    return f"{value:.1f} {unit}iB" if value < 99.95 else f"{value:.0f} {unit}iB"


def _local_time(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return "?"


def _shown(text: str, width: int = WIDEST) -> str:
    """A text of a job, without what a terminal would act upon."""
    text = one_line(text)
    return text if len(text) <= width else text[: width - 3] + "..."


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    shown = [[_shown(cell, 128 if not number else WIDEST) for number, cell in enumerate(row)]
             for row in rows]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _print_json(record: dict[str, Any]) -> None:
    # ASCII only: whatever a text holds, a terminal shows it harmlessly.
    print(json.dumps(record), flush=True)


def doctor(options: argparse.Namespace, layers: Layers, say: Say) -> int:
    """Check the way to each broker; 0, or the exit code of the first failure."""
    output = _output(layers)
    identity = layers.value("id", str, "")
    stream = known_stream(identity, os.environ) if identity else ""
    brokers = layers.endpoints(), layers.login(), layers.templates()
    for warning in layers.warnings():
        say(warning)
    code, shown = 0, ""
    for check in physician.examine(*brokers):
        if check.broker != shown and output == "text":
            print(check.broker, flush=True)
        shown = check.broker
        _print_check(check, output)
        code = code or check.exit_code
    if stream and not code:
        check = _look_for(stream, *brokers, say)
        _print_check(check, output)
        code = check.exit_code
    say("everything is as it should be" if not code else "see the lines with FAILED")
    return code


def _look_for(
    stream: str, endpoints: Sequence[Endpoint], login: Login, templates: Templates, say: Say
) -> physician.Check:
    for one in _collect(endpoints, login, templates, say, DEFAULT_COLLECTION):
        if one.stream == stream:
            ago = max(0.0, time.time() - one.began / 1000)
            detail = f"it answers: {_shown(one.name)} on {_shown(one.host)}, for {ago:.0f} s"
            return physician.Check("", "job", "ok", detail)
    return physician.Check(
        "", "job", "FAILED", f"nobody answers for {stream}",
        "has it begun, behind these brokers, and not --unlisted?", UnknownStreamError.exit_code,
    )  # fmt: skip


def _print_check(check: physician.Check, output: str) -> None:
    if output == "jsonl":
        _print_json(asdict(check))
        return
    remedy = f" -> {check.remedy}" if check.remedy else ""
    print(one_line(f"{check.verdict:8} {check.what:11} {check.detail}{remedy}"), flush=True)
