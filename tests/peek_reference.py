"""A small client of the peek protocol, by the letter of PROTOCOL.md: the job side's counterpart
in its tests.  No I/O; it keeps everything that it got.
"""

import hashlib
from collections.abc import Mapping
from typing import Literal

from gridmad.peek.frame import Codec, Frame, FrameType
from gridmad.peek.messages import Ack, Alive, Begin, Bye, Denied, Eos, Gap, Hello, Revoked, Start
from gridmad.peek.stream import new_client

RESUME_AFTER = 2.0
AHEAD = 0.5
ACK_AFTER = 0.25


class ReferenceClient:
    def __init__(
        self,
        stream: str,
        now: float = 0.0,
        *,
        key: bytes | None = None,
        client: str = "",
        starts: Mapping[int, Start] | None = None,
        mode: Literal["exclusive", "takeover"] = "exclusive",
        window: int = 1 << 20,
        lease: float = 30.0,
        sequence: int = 0,
    ) -> None:
        self.codec = Codec(stream, key)
        self.client = client or new_client()
        self.starts = dict(starts or {1: Start("rest"), 2: Start("rest")})
        self.mode = mode
        self.window = window
        self.lease = lease
        self.sequence = sequence
        self.epoch = 0
        self.hello: Hello | None = None
        self.alive: Alive | None = None
        self.eos: Eos | None = None
        self.denied: Denied | None = None
        self.revoked: Revoked | None = None
        self.next: dict[int, int] = {}
        self.text: dict[int, bytearray] = {}
        self.gaps: list[tuple[int, int, int, str]] = []
        self.granted: dict[int, int] = {}
        self.begins: set[int] = set()
        self.received = 0
        self.is_paused = False
        self._ahead: list[Frame] = []
        self._ahead_since: float | None = None
        self._pending: int | None = None
        self._begin_at = now
        self._heard = now
        self._ack_at: float | None = None
        self._acked_at = now
        self._is_bye_due = False
        self._behind = False

    # ------------------------------------------------------------ out

    def frame(self, message: Begin | Ack | Bye, now: float) -> bytes:
        self.sequence += 1
        return self.codec.frame(
            message.type,
            message.encode(),
            epoch=self.epoch,
            sequence=self.sequence,
            time=int(now * 1000),
        )

    def poll(self, now: float) -> list[bytes]:
        """What to send now."""
        if self.denied or self.revoked:
            return []
        if self._is_bye_due:
            self._is_bye_due = False
            return [self.frame(Bye(self.client, dict(self.next), True), now)]
        if self.is_done:
            return []
        out = []
        if self._pending is not None or self.hello is None:
            if now >= self._begin_at:
                out.append(self._begin(now))
        elif (
            self._behind
            or now - self._heard >= RESUME_AFTER
            or (self._ahead_since is not None and now - self._ahead_since >= AHEAD)
        ):
            out.append(self._begin(now))
        is_due = self._ack_at is not None and now >= self._ack_at
        if self.hello is not None and (is_due or now - self._acked_at >= self.lease / 6):
            out.append(self._ack(now))
        return out

    def _begin(self, now: float) -> bytes:
        starts = self.starts
        if self.hello is not None:
            starts = {source: Start("offset", offset) for source, offset in self.next.items()}
        mode = self.mode if self.hello is None else "exclusive"
        window = 0 if self.is_paused else self.window
        begin = Begin(self.client, mode, starts, dict.fromkeys(starts, window), "reference")
        frame = self.frame(begin, now)
        self._pending = self.sequence
        self.begins.add(self.sequence)
        self._begin_at = now + 1.0
        self._behind = False
        self._ahead_since = None
        return frame

    def _ack(self, now: float) -> bytes:
        self._ack_at = None
        self._acked_at = now
        for source, offset in self.next.items():
            limit = offset + (0 if self.is_paused else self.window)
            self.granted[source] = max(self.granted.get(source, 0), limit)
        return self.frame(Ack(self.client, dict(self.next), dict(self.granted)), now)

    def resume_credit(self, now: float) -> None:
        self.is_paused = False
        self._ack_at = now

    # ------------------------------------------------------------ in

    def receive(self, body: bytes, now: float) -> None:
        for frame in self.codec.decode(body):
            if self.is_started and frame.epoch != self.epoch:
                continue
            self._heard = now
            match frame.type:
                case FrameType.HELLO:
                    self._take_hello(frame, Hello.decode(frame.payload))
                case FrameType.CHUNK | FrameType.GAP if self.is_started:
                    self.take(frame, now)
                case FrameType.ALIVE if self.hello is not None:
                    self.alive = Alive.decode(frame.payload)
                    self._behind = any(
                        sent > self.next[source] for source, sent in self.alive.sent.items()
                    )
                    self._is_bye_due = self.is_done  # the one before was lost
                case FrameType.EOS:
                    self.eos = Eos.decode(frame.payload)
                    self._is_bye_due = self.is_done
                case FrameType.DENIED:
                    self.denied = Denied.decode(frame.payload)
                case FrameType.REVOKED:
                    self.revoked = Revoked.decode(frame.payload)

    def _take_hello(self, frame: Frame, hello: Hello) -> None:
        if self.hello is None and hello.answers in self.begins:
            self.hello = hello
            self.epoch = frame.epoch
            self.start({source: extent.start for source, extent in hello.sources.items()})
        if hello.answers == self._pending:
            self._pending = None
            for source, extent in hello.sources.items():
                limit = extent.start + (0 if self.is_paused else self.window)
                self.granted[source] = max(self.granted.get(source, 0), limit)

    @property
    def is_started(self) -> bool:
        return bool(self.next)

    def start(self, offsets: Mapping[int, int]) -> None:
        """Expect these first."""
        self.next = dict(offsets)
        self.text = {source: bytearray() for source in offsets}

    def take(self, frame: Frame, now: float) -> None:
        """The accepting rule."""
        self._ahead.append(frame)
        took = True
        while took:
            took = False
            for waiting in sorted(self._ahead, key=lambda item: item.offset):
                took = self._accept(waiting) or took
            self._ahead = [item for item in self._ahead if self._end(item) > self.next[item.source]]
        if self._ahead and self._ahead_since is None:
            self._ahead_since = now
        elif not self._ahead:
            self._ahead_since = None
        if self._ack_at is None:
            self._ack_at = now + ACK_AFTER
        if any(
            self.granted.get(source, 0) - offset <= self.window * 3 // 4
            for source, offset in self.next.items()
        ):
            self._ack_at = now
        self._is_bye_due = self.is_done

    def _end(self, frame: Frame) -> int:
        if frame.type == FrameType.GAP:
            return frame.offset + Gap.decode(frame.payload).length
        return frame.offset + frame.raw_length

    def _accept(self, frame: Frame) -> bool:
        source, position = frame.source, self.next[frame.source]
        if not frame.offset <= position < self._end(frame):
            return False
        if frame.type == FrameType.GAP:
            gap = Gap.decode(frame.payload)
            self.gaps.append((source, position, self._end(frame) - position, gap.reason))
        else:
            data = frame.data()
            self.received += len(data)
            self.text[source] += data[position - frame.offset :]
        self.next[source] = self._end(frame)
        return True

    # ------------------------------------------------------------ what is known

    def granted_at_most(self, source: int) -> int:
        """What the job side may send up to, whichever of the frames sent it has got.

        A BEGIN counts from where the job side will say that it starts.
        """
        return max(self.granted.get(source, 0), self.next.get(source, 0) + self.window)

    @property
    def is_done(self) -> bool:
        return self.eos is not None and all(
            offset == self.eos.sources[source].end for source, offset in self.next.items()
        )

    def is_whole(self, source: int) -> bool:
        """The digest of the job side is that of what came."""
        assert self.eos is not None
        return self.eos.sources[source].sha256 == hashlib.sha256(self.text[source]).hexdigest()
