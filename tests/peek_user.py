"""Whole programs of msgpeek, as somebody at a prompt runs them."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from gridmad.peek.stream import new_stream
from tests.services.stomp_server import StompServer

MAIN = [str(Path(sys.executable).with_name("msgpeek"))]
PATIENCE = 60.0

Process = subprocess.Popen[bytes]


class User:
    """Somebody at a prompt, with the broker in the environment."""

    def __init__(self, server: StompServer, folder: Path) -> None:
        self.stream = new_stream()
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "MSGPEEK_HOST": server.url,
            "MSGPEEK_USER": server.login,
            "MSGPEEK_PASSWORD": server.password,
            "MSGPEEK_ID": self.stream,
        }
        self._processes: list[Process] = []

    def start(
        self, *words: str, program: Sequence[str] = MAIN, host: str = "", **options: int
    ) -> Process:
        """Run msgpeek; stdout and stderr are pipes if nothing else is said."""
        environment = {**self.environment, "MSGPEEK_HOST": host or self.environment["MSGPEEK_HOST"]}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*program, *words],
            cwd=self.folder,
            env=environment,
            stdin=options.get("stdin", subprocess.DEVNULL),
            stdout=options.get("stdout", pipe),
            stderr=options.get("stderr", pipe),
        )
        self._processes.append(process)
        return process

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of msgpeek."""
        return finish(self.start(*words))

    def wrap(self, script: str, *words: str) -> Process:
        """A job side that runs a script of bash."""
        return self.start("wrap", "--linger", "5", *words, "--", "bash", "-c", script)

    def gate(self, name: str) -> tuple[str, Callable[[], None]]:
        """A line of a script that waits until the function is called."""
        path = self.folder / name
        return f"until [ -e {path} ]; do sleep 0.05; done", path.touch

    def close(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait(PATIENCE)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def finish(process: Process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    assert b"Traceback" not in err, err.decode()
    return process.returncode, (out or b"").decode(), (err or b"").decode()


def last_line(err: str) -> str:
    return err.splitlines()[-1]


def read_until(process: Process, text: bytes) -> bytes:
    """What the process writes to stdout up to `text`."""
    assert process.stdout is not None
    got = b""
    while text not in got:
        more = os.read(process.stdout.fileno(), 65536)
        assert more, f"{text!r} did not come: {got!r}"
        got += more
    return got


def peak(pid: int) -> int:
    """The most memory in bytes that a running process has had; 0 for one that is just ending."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) << 10 if found else 0
