"""`msgpeek wrap`: runs a command so that its output can be watched."""

import argparse
import os
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gridmad.errors import UsageError
from gridmad.peek.job import JobOptions, run
from gridmad.peek.memory import keep_pages
from gridmad.peek.messages import MAX_EPOCH, MAX_SECONDS
from gridmad.peek.registry import known_stream
from gridmad.peek.settings import Layers
from gridmad.peek.stream import Destinations, new_stream
from gridmad.peek.values import choice, path, quoted, rate, seconds, size, whole

SHORTEST_LEASE = 1.0
"""Seconds: a client is heard each sixth of it, and may be far away."""


def wrap(options: argparse.Namespace, layers: Layers, say: Callable[[str], None]) -> int:
    """The command's exit code; UsageError before it is started."""
    if not options.words:
        raise UsageError("no command: msgpeek wrap [options] -- COMMAND [ARGUMENTS]")
    keep_pages()
    follow_stdout = layers.value("follow-stdout", path, None)
    follow_stderr = layers.value("follow-stderr", path, None)
    identity = layers.value("id", str, "")
    stream = known_stream(identity, os.environ) if identity else new_stream()
    optional: dict[str, Any] = {
        "lease": layers.value("lease", _lease, None),
        "linger": layers.value("linger", seconds_or_zero, None),
        "spool_folder": layers.value("spool-folder", path, None),
        "spool_size": layers.value("spool-size", size, None),
        "when_full": layers.value("when-full", choice("gap", "block"), None),
        "park_size": layers.value("park", size, None),
    }
    job = JobOptions(
        stream=stream,
        epoch=_epoch(layers, follow_stdout is not None or follow_stderr is not None),
        endpoints=layers.endpoints(),
        login=layers.login(),
        destinations=Destinations(stream, layers.templates()),
        key=layers.key(),
        name=layers.value("name", str, _name(options.words)),
        command=options.words,
        follow_stdout=follow_stdout,
        follow_stderr=follow_stderr,
        follow_status=layers.value("follow-status", path, None),
        stdout=layers.value("stdout", path, None),
        stderr=layers.value("stderr", path, None),
        quiet=hasattr(options, "quiet"),
        hold_for_client=hasattr(options, "hold_for_client"),
        rate=layers.value("rate", rate, None),
        redact=[_pattern(text) for text in layers.all_values("redact")],
        listed=not hasattr(options, "unlisted"),
        **{name: value for name, value in optional.items() if value is not None},
    )
    os.environ.pop("MSGPEEK_USER", None)  # as the password is gone: the command has no use for it
    for warning in layers.warnings():
        say(warning)
    if not identity:
        hosts = getattr(options, "host", [])
        words = ["msgpeek", "-I", stream, *(word for host in hosts for word in ("-H", host))]
        say(f"watch with: {shlex.join(words)}")
    return run(job)


def seconds_or_zero(text: str) -> float:
    """A time span in seconds, 0 included; ValueError otherwise."""
    return 0.0 if text.strip() in ("0", "0.0") else seconds(text)


def _lease(text: str) -> float:
    return seconds(text, SHORTEST_LEASE, MAX_SECONDS)


def _epoch(layers: Layers, follows: bool) -> int:
    """The attempt: a second run of a command begins anew, one that follows a file goes on."""
    given = layers.value(
        "epoch", lambda text: int(time.time()) if text == "now" else whole(text, MAX_EPOCH), None
    )
    if given is not None:
        return given
    if not follows:
        return int(time.time())
    restarted = os.environ.get("GW_RESTARTED", "")
    return int(restarted) if re.fullmatch(r"[0-9]{1,9}", restarted) else 0


def _name(words: list[str]) -> str:
    command = Path(words[0]).name or words[0]
    job = os.environ.get("GW_JOB_ID", "")
    return f"{job}/{command}" if job else command


def _pattern(text: str) -> bytes:
    pattern = os.fsencode(text)
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"--redact {quoted(text)}: {error}") from None
    return pattern
