"""Live output of a driver's jobs: where the execution drivers and msgpeek meet.

`--peek BROKER_URL` makes each job one that `msgpeek -I <GridWay job id>` can watch.  What the
job side needs comes from msgpeek's own settings, as the driver finds them, and from one file
that is made when the driver starts (see gridmad.cli.peek_bundle).  No trouble with any of it
keeps a job from running: it is logged, and the job runs unwatched.
"""

import argparse
import asyncio
import contextlib
import hashlib
import importlib.machinery
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from gridmad import __version__
from gridmad.commands import Commands
from gridmad.errors import DriverError, UsageError
from gridmad.execution.model import Submission
from gridmad.execution.watchable import Peek, watchable
from gridmad.peek.registry import known_stream, state_folder
from gridmad.peek.settings import LISTS, PREFIX, WRAP, Layers
from gridmad.peek.values import Address, addresses

log = logging.getLogger(__name__)

LINGER: Final = "3"
"""Seconds that an ended job may stay for who watches it or for a broker that is away: it holds
a place on the resource."""
PARK: Final = "1M"
"""What a job leaves in the broker: all of its output comes back with it anyway."""
BUNDLE_TIME: Final = 120.0
PATIENCE: Final = 20.0
"""Seconds that a submission waits for the bundle of a driver that has just been installed."""

_PASSED_ON: Final = ("vhost",)
_FILES: Final = ("ca", "certificate", "certificate-key", "key-file")
"""Settings of the connection that jobs get: as they are, and as absolute paths."""


class LiveOutput:
    """Makes jobs watchable; `is_staged` says that the resource stages a job's inputs, and
    `hides_environment` that a job's environment is seen by its user alone.

    Raises UsageError for a URL that is none.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        environment: MutableMapping[str, str],
        *,
        is_staged: bool,
        hides_environment: bool,
    ) -> None:
        try:
            addresses([options.peek])
        except ValueError as error:
            raise UsageError(f"--peek: {error}") from None
        self._environment = environment
        self._is_staged = is_staged
        self._hides_environment = hides_environment
        self._login = b""
        """What is in the file that brings the login to jobs; empty where their environment
        does."""
        self._peek: Peek | None = None
        self._making: asyncio.Task[None] | None = None
        try:
            self._peek = self._settled(options)
        except UsageError as error:
            log.error("jobs cannot be watched: %s", error)

    def _settled(self, options: argparse.Namespace) -> Peek:
        given = {"host": [options.peek]}
        if options.peek_config is not None:
            given["config"] = options.peek_config
        layers = Layers(given, self._environment)
        login = layers.login()
        environment = {"USER": login.user, "PASSWORD": login.password}
        folder = state_folder(self._environment)
        file = ""
        if login.user is not None and not self._hides_environment:
            self._login = f"{login.user}\n{login.password or ''}\n".encode()
            name = hashlib.sha256(f"{login.user}\n{options.peek}".encode()).hexdigest()
            file = str(folder / f"login-{name[:16]}")
            environment = {}
        python = sys.version_info
        return Peek(
            bundle=str(folder / f"msgpeek-{__version__}-{_TAG}.pyz"),
            is_staged=self._is_staged,
            interpreter=sys.executable,
            usual=f"python{python.major}.{python.minor}",
            version=f"msgpeek (gridmad) {__version__}",
            options=_wrap_options(layers),
            environment={
                PREFIX + name: value for name, value in environment.items() if value is not None
            },
            login=file,
        )

    def start(self) -> None:
        """Begin to make the bundle; once."""
        if self._peek is not None and self._making is None:
            self._making = asyncio.get_running_loop().create_task(_make(self._peek, self._login))

    def stop(self) -> None:
        """Leave nothing behind."""
        if self._making is not None:
            self._making.cancel()

    async def watched(
        self, submissions: Sequence[Submission | DriverError]
    ) -> list[Submission | DriverError]:
        """The submissions, of jobs that can be watched where that is possible."""
        peek = self._peek
        if peek is None:
            return list(submissions)
        if self._making is not None and not await asyncio.to_thread(_is_made, peek, self._login):
            # Only the first ones of a new version wait for it.
            await asyncio.wait({self._making}, timeout=PATIENCE)
        has_bundle = await asyncio.to_thread(Path(peek.bundle).exists)
        settled = peek if has_bundle else replace(peek, is_staged=False)
        # Numbers of jobs are looked up in files.
        return await asyncio.to_thread(
            lambda: [
                one if isinstance(one, DriverError) else self._watched(one, settled)
                for one in submissions
            ]
        )

    def _watched(self, submission: Submission, peek: Peek) -> Submission:
        try:
            stream = known_stream(submission.job_id, self._environment)
        except UsageError as error:
            log.warning("job %s cannot be watched: %s", submission.job_id, error)
            return submission
        description = watchable(submission.description, submission.job_id, stream, peek)
        if description is None:
            log.info("job %s is of a kind that cannot be watched", submission.job_id)
            return submission
        return replace(submission, description=description)


_TAG: Final = importlib.machinery.EXTENSION_SUFFIXES[0].strip(".").removesuffix(".so")


def _wrap_options(layers: Layers) -> list[str]:
    """What `msgpeek wrap` is told for every job."""
    words = ["--unobtrusive", "--log-file=/dev/null"]
    words += [f"--host={_url(address)}" for address in layers.addresses()]
    for name in (*_PASSED_ON, *_FILES, *WRAP):
        texts = layers.all_values(name) if name in LISTS else layers.texts(name)[0][-1:]
        if name in _FILES:
            texts = [str(Path(text).expanduser().absolute()) for text in texts]
        texts = texts or {"linger": [LINGER], "park": [PARK]}.get(name, [])
        words += [f"--{name}={text}" for text in texts]
    return words


def _url(address: Address) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"stomp{'+ssl' if address.tls else ''}://{host}:{address.port}"


def _is_made(peek: Peek, login: bytes) -> bool:
    return Path(peek.bundle).exists() and (not peek.login or _has_login(Path(peek.login), login))


def _has_login(path: Path, login: bytes) -> bool:
    try:
        return path.read_bytes().startswith(login)
    except OSError:
        return False


async def _make(peek: Peek, login: bytes) -> None:
    """The bundle in a process of its own: this one never needs what that imports."""
    bundle = peek.bundle
    try:
        await asyncio.to_thread(Path(bundle).parent.mkdir, 0o700, parents=True, exist_ok=True)
        if peek.login:
            await asyncio.to_thread(_keep_login, Path(peek.login), login)
        made = await Commands(seconds=BUNDLE_TIME).run(
            sys.executable, "-m", "gridmad.cli.peek_bundle", bundle
        )
        problem = made.errors if made.exit_code else ""
    except (OSError, DriverError) as error:
        problem = str(error)
    if problem:
        log.error("jobs cannot be watched, for msgpeek's bundle is not made: %s", problem)


def _keep_login(path: Path, login: bytes) -> None:
    """Write the file for this user alone, unless it is there.

    A line that means nothing is added, for a digest of the file is told to resources, and
    nothing can be found out from that.
    """
    if _has_login(path, login):
        return
    content = login + secrets.token_urlsafe().encode() + b"\n"
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
