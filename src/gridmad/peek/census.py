"""`msgpeek ls`: every listed job side behind the brokers is asked, and answers once."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from gridmad.peek.channel import Endpoint, Login, expand
from gridmad.peek.conversation import LONGEST, Conversation
from gridmad.peek.errors import FrameError, PeekError
from gridmad.peek.frame import Codec, FrameType
from gridmad.peek.messages import Present, Roll
from gridmad.peek.profiles import Role
from gridmad.peek.stream import Destinations, new_client

log = logging.getLogger(__name__)

MOST_STREAMS: Final = 20_000
"""Answers that are kept; a broker full of forged ones costs no more memory than that."""


def collect(
    endpoints: Sequence[Endpoint],
    login: Login,
    destinations: Destinations,
    patience: float,
    complain: Callable[[PeekError], None],
) -> list[Present]:
    """Who answered within `patience` seconds, the latest attempt of each stream, oldest first.

    All brokers are asked at once.  One that cannot be asked is told to `complain`; if that
    are all, and nobody has answered, the first one's error is raised.  `destinations` may be
    those of any stream.
    """
    brokers = expand(endpoints)
    found: dict[str, Present] = {}
    failures: list[PeekError] = []

    def ask(endpoint: Endpoint) -> None:
        try:
            _ask(endpoint, login, destinations, patience, found)
        except PeekError as error:
            failures.append(error)

    pool = ThreadPoolExecutor(len(brokers), "census")
    try:
        list(pool.map(ask, brokers))
    finally:
        # Who interrupts this does not want to wait for the rest of `patience`.
        pool.shutdown(wait=False)
    if len(failures) == len(brokers) and not found:
        raise failures[0]
    for failure in failures:
        complain(failure)
    return sorted(found.values(), key=lambda one: (one.began, one.stream))


def _ask(
    endpoint: Endpoint,
    login: Login,
    destinations: Destinations,
    patience: float,
    found: dict[str, Present],
) -> None:
    client = new_client()
    # PRESENT and ROLL carry no MAC: `ls` knows no keys.
    codec = Codec(destinations.stream)
    roll = codec.frame(
        FrameType.ROLL,
        Roll(client).encode(),
        epoch=0,
        sequence=time.time_ns(),
        time=time.time_ns() // 1_000_000,
    )
    with Conversation(endpoint, login, longest=LONGEST + patience) as conversation:
        conversation.subscribe("present", destinations.present(client), Role.PRESENT)
        conversation.send(destinations.roll, Role.ROLL, roll)
        end = time.monotonic() + patience
        while (message := conversation.receive(end)) is not None:
            for frame in codec.decode(message.body):
                if frame.type == FrameType.PRESENT:
                    try:
                        _keep(Present.decode(frame.payload), found)
                    except FrameError:
                        codec.damaged += 1
    if codec.damaged:
        log.warning("%s: %d damaged answers were dropped", endpoint, codec.damaged)


def _keep(present: Present, found: dict[str, Present]) -> None:
    known = found.get(present.stream)
    if known is None and len(found) >= MOST_STREAMS:
        return
    if known is None or present.epoch >= known.epoch:
        found[present.stream] = present
