"""The name of this machine, for a host that is here."""

import asyncio
import contextlib
import re
import socket
import threading

from gridmad.errors import DriverError, UsageError

NAME_SERVICE_PATIENCE = 2.0
"""Seconds that the name service has to tell the machine's full name."""

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,38}", re.ASCII)


def check_name(name: str | None) -> None:
    """Raises UsageError for a --hostname that gwd does not take."""
    if name is not None and not _HOST.fullmatch(name):
        raise UsageError(
            f"--hostname {name!r}: gwd takes host names of at most 39 letters, digits, dots and "
            "dashes"
        )


async def own_name() -> str:
    """The machine's full name, or its short one where the name service knows no better."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def tell(name: str) -> None:
        if not answer.done():
            answer.set_result(name)

    def ask() -> None:
        name = socket.getfqdn()
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, name)

    # A thread of its own: one that waits for a dead name service must not keep anybody.
    threading.Thread(target=ask, daemon=True, name="own-name").start()
    names = [socket.gethostname()]
    with contextlib.suppress(TimeoutError):
        names.insert(0, await asyncio.wait_for(answer, NAME_SERVICE_PATIENCE))
    names.append(names[-1].partition(".")[0])
    for name in names:
        if _HOST.fullmatch(name) and not name.lower().startswith("localhost"):
            return name
    if _HOST.fullmatch(names[0]):
        return names[0]
    raise DriverError(f"this machine's name {names[0]!r} is none that gwd takes: give --hostname")
