"""TCP ports for private servers, of which several run on one machine."""

import random
import socket
from pathlib import Path


def reserve_port(address: str = "127.0.0.1") -> int:
    """A free TCP port that no other run on this machine gets while this process lives.

    It is none of those that the kernel gives to outgoing connections: one of them could
    take it while a server is down.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(1000):
        port = random.randrange(min(10_000, lowest // 2), lowest)
        reservation = socket.socket(socket.AF_UNIX)
        try:
            # An abstract name: held by this process, gone with it.
            reservation.bind(f"\0gridmad-test-port-{port}")
            with socket.socket() as probe:
                probe.bind((address, port))
        except OSError:
            reservation.close()
            continue
        reservation.detach()
        return port
    raise AssertionError("no port is free")
