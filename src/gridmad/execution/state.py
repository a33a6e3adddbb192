"""Where a driver keeps what outlives it: the journal, and what jobs leave at their ends."""

import argparse
import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

from gridmad.driver import describe
from gridmad.errors import DriverError, UsageError
from gridmad.execution.contact import TAG
from gridmad.options import count

KEEP_DAYS: Final = 7
MAX_KEEP_DAYS: Final = 36500


def add_state_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare --state and --keep-days, for a driver whose folder has this name."""
    parser.add_argument(
        "--state",
        metavar="DIR",
        type=_folder,
        help="keep the journal and exit codes here; it must be on a local disk "
        f"(default: $XDG_STATE_HOME/gridmad/{name} or ~/.local/state/gridmad/{name})",
    )
    parser.add_argument(
        "--keep-days",
        metavar="DAYS",
        type=_days,
        default=KEEP_DAYS,
        help="keep what is known of ended jobs for this long (default: %(default)s)",
    )


def state_folder(options: argparse.Namespace, name: str) -> Path:
    """The folder that the options say, or the default.  Raises UsageError."""
    chosen: Path = options.state or _default_folder(name)
    return chosen.absolute()


def make_folder(folder: Path) -> None:
    """Make a folder for this user alone where it is missing.  Raises DriverError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DriverError(f"cannot keep exit codes: {describe(error)}") from None


def expire_files(folder: Path, before: float, unended: Collection[str]) -> None:
    """Remove the files of jobs (their names begin with a tag) that were last written before
    this time, but for those of jobs that have not ended.  Raises OSError.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            tag = entry.name[:16]
            if not TAG.fullmatch(tag) or tag in unended:
                continue
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime < before:
                    Path(entry.path).unlink()


def _default_folder(name: str) -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):  # noqa: PTH117
        return Path(state) / "gridmad" / name
    try:
        home = Path.home()
    except RuntimeError:
        raise UsageError(
            "no home directory is known to keep the journal in: give --state or set HOME"
        ) from None
    return home / ".local" / "state" / "gridmad" / name


def _folder(text: str) -> Path:
    """A folder's name on the command line."""
    if not text:
        raise argparse.ArgumentTypeError("the name of the folder is empty")
    return Path(text)


def _days(text: str) -> int:
    """Whole days on the command line."""
    if len(text.lstrip("0")) > len(str(MAX_KEEP_DAYS)) or count(text) > MAX_KEEP_DAYS:
        raise argparse.ArgumentTypeError(f"not from 1 to {MAX_KEEP_DAYS} days: {text[:20]}")
    return count(text)
