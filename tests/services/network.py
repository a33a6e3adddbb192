"""A network of its own for servers that listen on all interfaces without authentication.

A network namespace with nothing but a loopback device: what runs in it can be reached from
nowhere else.  The namespace lives as long as a small process that holds it, and that lives
as long as its stdin: none is left behind, however this process ends.
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from types import TracebackType
from typing import Self

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
SIOCSIFADDR = 0x8916
IFF_UP = 0x1
ADDRESS = "192.0.2.1"
"""For documentation and tests, by RFC 5737; nobody outside has it."""


class PrivateNetwork:
    """Commands that begin with `prefix` run in the namespace.

    Where namespaces are not allowed, `prefix` is empty, `problem` says why, and the
    commands run in the machine's own network.
    """

    prefix: tuple[str, ...]
    problem: str

    def __init__(self) -> None:
        self.prefix = ()
        self.problem = ""
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        if not (shutil.which("unshare") and shutil.which("nsenter")):
            self.problem = "util-linux (unshare, nsenter) is not installed"
            return self
        # Another user than root needs a user namespace to be allowed to make the other one.
        user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
        self._holder = subprocess.Popen(
            ["unshare", "--net", *user, sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() == "up\n":
            enter = ["--user", "--preserve-credentials"] if user else []
            target = f"--target={self._holder.pid}"
            self.prefix = ("nsenter", target, *enter, "--net", "--")
        else:
            _, errors = self._holder.communicate(timeout=10)
            self.problem = errors.strip().splitlines()[-1] if errors.strip() else "unshare failed"
            self._holder = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._holder is not None:
            self._holder.communicate(timeout=10)
            self._holder = None
            self.prefix = ()

    def free_port(self) -> int:
        """A TCP port nobody listens on."""
        if self.prefix:
            return 6725
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port


def hold() -> None:
    """Bring the loopback device up, say so, and stay until stdin ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        answer = fcntl.ioctl(control, SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("16xh", answer)
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))
        # The resolver takes a machine that has loopback addresses only for one without IPv4.
        address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(ADDRESS))
        fcntl.ioctl(control, SIOCSIFADDR, struct.pack("16s16s8x", b"lo:1", address))
    print("up", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    hold()
