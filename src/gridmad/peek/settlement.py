"""What the broker is told of the messages that a client has taken (PROTOCOL.md, 5 and 8).

    data    acknowledged as soon as what came is committed
    park    only up to where all bytes are committed; the rest with the end of the stream
    TOKEN   with the end of the stream

One thread uses it.  Acknowledgements of a connection that was lost are forgotten: the broker
delivers those messages again.
"""

from collections.abc import Mapping, Sequence

from gridmad.peek.broker import Connection
from gridmad.peek.deliveries import Deliveries
from gridmad.peek.frame import Frame, FrameType

DATA = "data"
PARK = "park"
TOKEN = "token"  # noqa: S105 - a subscription


class Settlement:
    """The messages of a client's connections that are not acknowledged yet."""

    def __init__(self) -> None:
        self.count = 0
        """Messages since the last commit."""
        self.drained: Connection | None = None
        """Whose park is drained."""
        self._unacknowledged: dict[tuple[Connection, str], str] = {}
        # The last acknowledgement, which takes all before it, and the greatest epoch.
        self._tokens: dict[Connection, tuple[str, int]] = {}
        self._parked = Deliveries()

    def add(
        self, connection: Connection, name: str, acknowledgement: str, frames: Sequence[Frame]
    ) -> None:
        """A message of the subscription `name` came."""
        self.count += 1
        epochs = [frame.epoch for frame in frames if frame.type == FrameType.TOKEN]
        if name == PARK:
            self._parked.add(acknowledgement, frames)
        elif name == TOKEN and (epochs or connection in self._tokens):
            # To acknowledge garbage behind a TOKEN would acknowledge that, too.
            _, known = self._tokens.get(connection, ("", 0))
            self._tokens[connection] = (acknowledgement, max(known, *epochs, 0))
        else:
            self._unacknowledged[connection, name] = acknowledgement

    def drain(self, epoch: int) -> Connection | None:
        """Where the park of that attempt is, if it is not drained yet."""
        if self.drained is not None or not self._tokens:
            return None
        matching = [c for c, (_, known) in self._tokens.items() if known == epoch]
        self.drained = (matching or list(self._tokens))[0]
        return self.drained

    def lost(self, connection: Connection) -> bool:
        """A connection was lost; whether the park can be had no longer."""
        for key in [key for key in self._unacknowledged if key[0] is connection]:
            del self._unacknowledged[key]
        if self._tokens.pop(connection, None) is None:
            return False
        if connection is self.drained:
            self.drained = None
            self._parked.clear()
            return True
        return not self._tokens

    def commit(self, epoch: int, positions: Mapping[int, int], *, is_complete: bool) -> None:
        """What was taken up to these positions is committed, or the whole stream."""
        self.count = 0
        for (connection, name), acknowledgement in self._unacknowledged.items():
            connection.acknowledge(name, acknowledgement)
        self._unacknowledged.clear()
        if is_complete:
            # First: a TOKEN without anything in the park would keep the next client waiting.
            # One that was not needed, as the job side answered, would show it the end again.
            for connection, (acknowledgement, known) in self._tokens.items():
                if known <= epoch:
                    connection.acknowledge(TOKEN, acknowledgement)
        if self.drained is not None:
            settled = self._parked.settle(epoch, positions, is_complete=is_complete)
            if settled is not None:
                self.drained.acknowledge(PARK, settled)
