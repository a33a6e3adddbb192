"""A link of 1 Gbit/s and 5 ms between two networks of their own.

Two network namespaces, a veth pair from each to a third one in the middle, tc's token bucket
(tbf) at both ends for the rate.  The delay is netem's where the kernel has it; else a small
process in the middle, this file run as a program, passes each packet on after 5 ms:

    python -m bench.peek_link DEVICE DEVICE SECONDS
"""

import contextlib
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.services.network import PrivateNetwork

ROOT = Path(__file__).parent.parent
RELAY = [sys.executable, "-m", "bench.peek_link"]
RATE = "1gbit"
DELAY = 0.005
NEAR, FAR = "10.77.0.1", "10.77.0.2"

SO_RCVBUFFORCE = 33
SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
ETH_P_ALL = 3
LOOK = 0.0005
"""Seconds between two looks of the relay at its devices: what the delay may be off."""
PACKET = 70_000
"""Bytes of the largest packet: one that the kernel has not cut yet."""


class LinkError(Exception):
    """The link cannot be made here; says why."""


@dataclass(frozen=True)
class Link:
    """Prefixes of commands for both ends, and what makes the delay."""

    near: tuple[str, ...]
    far: tuple[str, ...]
    delay: str


@contextlib.contextmanager
def link() -> Iterator[Link]:
    """Make the link, and remove it with all that is in it."""
    with contextlib.ExitStack() as stack:
        networks = [stack.enter_context(PrivateNetwork()) for _ in range(3)]
        for network in networks:
            if network.problem:
                raise LinkError(f"no network namespaces: {network.problem}")
        near, middle, far = networks
        for network, device, address in ((near, "near", NEAR), (far, "far", FAR)):
            # The namespace's first process is the holder that nsenter is told of.
            holder = network.prefix[1].removeprefix("--target=")
            run(middle, "ip", "link", "add", device, "type", "veth", "peer", "name", "end")
            run(middle, "ip", "link", "set", "end", "netns", holder)
            run(middle, "ip", "link", "set", device, "up")
            run(network, "ip", "addr", "add", f"{address}/24", "dev", "end")
            run(network, "ip", "link", "set", "end", "up")
            # The queue holds 50 ms, so that no packet is lost to a TCP that just begins.
            run(
                network, "tc", "qdisc", "add", "dev", "end", "root", "handle", "1:",
                "tbf", "rate", RATE, "burst", "256kb", "latency", "50ms",
            )  # fmt: skip
        netem = ["netem", "delay", f"{DELAY * 1000:g}ms", "limit", "100000"]
        try:
            for device in ("near", "far"):
                run(middle, "tc", "qdisc", "add", "dev", device, "root", *netem)
        except LinkError:
            delay = "a process, since this kernel has no netem"
            command = [*RELAY, "near", "far", str(DELAY)]
        else:
            delay = "netem"
            command = [*RELAY, "near", "far", "0"]
        relay = stack.enter_context(
            subprocess.Popen(
                [*middle.prefix, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
            )
        )
        assert relay.stdout is not None
        if not relay.stdout.readline():
            raise LinkError("packets cannot be passed on by a process")
        yield Link(near.prefix, far.prefix, delay)
        # The relay ends with its stdin.


def run(network: PrivateNetwork, *command: str) -> None:
    """Run in the namespace; LinkError with the command's own words if it fails."""
    try:
        done = subprocess.run(
            [*network.prefix, *command], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise LinkError(f"{error.filename} is not installed") from None
    if done.returncode:
        raise LinkError(f"{' '.join(command)}: {done.stderr.strip()}")


def relay(devices: Sequence[str], delay: float) -> None:
    """Pass on what comes from one device to the other, until stdin ends."""
    ends = [open_device(device) for device in devices]
    packets: deque[tuple[float, int, bytes]] = deque()
    print("up", flush=True)
    polled = select.poll()
    polled.register(0, select.POLLIN | select.POLLHUP)
    for end in ends:
        polled.register(end, select.POLLIN)
    while True:
        if 0 in dict(polled.poll(0 if packets else None)):
            return
        # To wake up for each packet would cost what both contestants need.
        time.sleep(LOOK)
        due = time.monotonic() + delay
        for number, end in enumerate(ends):
            with contextlib.suppress(BlockingIOError):
                while True:
                    packets.append((due, 1 - number, end.recv(PACKET)))
        now = time.monotonic()
        while packets and packets[0][0] <= now + LOOK:
            _, target, packet = packets.popleft()
            with contextlib.suppress(BlockingIOError):
                ends[target].send(packet)


def open_device(name: str) -> socket.socket:
    """A raw socket that takes and gives packets as the kernel has them, uncut and unsummed."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
    end.bind((name, ETH_P_ALL))
    return end


if __name__ == "__main__":
    relay(sys.argv[1:3], float(sys.argv[3]))
