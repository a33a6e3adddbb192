"""TCP ports for private servers, of which several run on one machine."""

import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
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


def is_listening(port: int) -> bool:
    """Whether a server on this machine takes connections."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


_CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 1)"


def is_listening_in(prefix: Sequence[str], port: int) -> bool:
    """The same where commands with this prefix run, which may be another network."""
    if not prefix:
        return is_listening(port)
    command = [*prefix, sys.executable, "-I", "-S", "-c", _CONNECT, str(port)]
    return subprocess.run(command, capture_output=True).returncode == 0


def wait_for_port(
    port: int,
    is_running: Callable[[], bool],
    log: Path,
    seconds: float,
    prefix: Sequence[str] = (),
) -> None:
    """Wait until a server listens; fails with what its log says when it ends or takes longer."""
    end = time.monotonic() + seconds
    while not is_listening_in(prefix, port):
        assert is_running(), log.read_text()
        assert time.monotonic() < end, f"nothing listens on {port}: {log.read_text()}"
        time.sleep(0.01)
