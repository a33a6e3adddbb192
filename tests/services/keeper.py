"""A server that ends with whoever started it, in whatever way that ends.

`KeptProcess` starts this file as a program, and that starts the server.  The program adopts
all that the server's descendants leave behind (epmd is such a daemon), and ends them when the
server ends or its own stdin closes: a test run that is killed leaves no process.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


class KeptProcess:
    """One server process in a session of its own; stdout and stderr are added to `log`."""

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path
    ) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(log), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        self._keeper.stdout.close()
        assert line, f"{command[0]} cannot be started"
        self.pid = int(line)

    @property
    def is_running(self) -> bool:
        return self._keeper.poll() is None

    def kill(self) -> None:
        """End the server and all it started at once, as a crash does."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait(30)

    def stop(self, timeout: float) -> None:
        """Ask the server to end; after `timeout` seconds it is killed."""
        if self.is_running:
            os.kill(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._keeper.wait(timeout)
        self.kill()


def keep(log: str, command: list[str]) -> None:
    """Run `command` until it ends or stdin closes, then end all that is left of it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    print(server.pid, flush=True)
    ended = os.pidfd_open(server.pid)
    waiting = select.poll()
    waiting.register(0, select.POLLIN | select.POLLHUP)
    waiting.register(ended, select.POLLIN)
    while not waiting.poll(1000):
        # RabbitMQ starts epmd each minute, which ends at once where one runs.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    me = os.getpid()
    while True:
        # What a killed process leaves becomes our child: in the end none is left.
        for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    keep(sys.argv[1], sys.argv[2:])
