"""Types of command-line options that several commands share."""

import argparse
import math

SHORTEST = 0.001
LONGEST = 1e9
"""Seconds, some 30 years: more is beyond what timers and servers take."""
MOST = 1_000_000
"""What a count may be; gwd counts nothing beyond."""
HIGHEST_PORT = 65535


def seconds(text: str, shortest: float = SHORTEST) -> float:
    """A time in seconds, from `shortest` to LONGEST."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (shortest <= value <= LONGEST):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time from {shortest:g} to {LONGEST:g} seconds"
        )
    return value


def count(text: str, most: int = MOST) -> int:
    """A whole number from 1 to `most`."""
    digits = text.lstrip("0") if text.isascii() and text.isdigit() else ""
    if not digits or len(digits) > len(str(most)) or int(digits) > most:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {most}")
    return int(digits)


def port_number(text: str) -> int:
    """A port of TCP."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= HIGHEST_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 1 to {HIGHEST_PORT}")
    return int(text)


def absolute_path(text: str) -> str:
    """A path from "/" on, without a slash at its end."""
    if not text.startswith("/") or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is no absolute path")
    return text.rstrip("/")
