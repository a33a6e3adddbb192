"""Which messages of the park may be acknowledged (PROTOCOL.md, 8).  No I/O.

What is parked exists nowhere else, and an acknowledgement takes all messages before it: so a
message counts as done when all its bytes are committed and those of all before it, and the
one with EOS when the stream is complete.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gridmad.peek.errors import FrameError
from gridmad.peek.frame import Frame, FrameType
from gridmad.peek.messages import Gap


@dataclass(slots=True)
class _Delivery:
    acknowledgement: str
    epoch: int = 0
    ends: dict[int, int] = field(default_factory=dict)
    has_eos: bool = False


class Deliveries:
    """The messages of one subscription of the park, in the order in which they came."""

    def __init__(self) -> None:
        self._pending: deque[_Delivery] = deque()

    def add(self, acknowledgement: str, frames: Iterable[Frame]) -> None:
        """A message came; damaged frames are none."""
        delivery = _Delivery(acknowledgement)
        for frame in frames:
            delivery.epoch = max(delivery.epoch, frame.epoch)
            if frame.type == FrameType.EOS:
                delivery.has_eos = True
            elif frame.type in (FrameType.CHUNK, FrameType.GAP):
                end = frame.offset + frame.raw_length
                if frame.type == FrameType.GAP:
                    try:
                        end = frame.offset + Gap.decode(frame.payload).length
                    except FrameError:
                        continue
                delivery.ends[frame.source] = max(end, delivery.ends.get(frame.source, 0))
        self._pending.append(delivery)

    def settle(self, epoch: int, committed: Mapping[int, int], *, is_complete: bool) -> str | None:
        """The acknowledgement to send now, if there is one.

        `committed` are the offsets of the sources that are wanted, in attempt `epoch`.
        """
        found = None
        while self._pending:
            first = self._pending[0]
            if first.epoch >= epoch and not is_complete:
                if first.epoch > epoch or first.has_eos:
                    break
                if any(committed.get(s, end) < end for s, end in first.ends.items()):
                    break
            found = self._pending.popleft().acknowledgement
        return found

    def clear(self) -> None:
        """The connection is gone, and the broker delivers what was not acknowledged again."""
        self._pending.clear()
