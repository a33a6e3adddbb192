"""Both sides of a session as processes, started with the options as JSON.

    python -m tests.peek_sides job|client '{...}'

The job's exit code is the process's; a client writes its Outcome to stdout as JSON.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gridmad.peek.broker import Endpoint, Login
from gridmad.peek.client import ClientOptions, Outcome, watch
from gridmad.peek.job import JobOptions, run
from gridmad.peek.messages import Start
from gridmad.peek.notices import Notice, Progress
from gridmad.peek.stream import Destinations
from tests.services.stomp_server import LOGIN, PASSWORD

ROOT = Path(__file__).parent.parent


class NoSink:
    """For a client that writes to a file."""

    def write(self, source: int, offset: int, time: int, data: bytes) -> None:
        raise AssertionError("the output goes to a file")

    def gap(self, source: int, offset: int, length: int, reason: str) -> None: ...

    def flush(self) -> None: ...

    def attempt(self, epoch: int) -> None: ...

    def finish(self) -> None: ...


def start(side: str, port: int, stream: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start one side; a client's outcome is to be read with `outcome`."""
    arguments = json.dumps({"port": port, "stream": stream, **options})
    return subprocess.Popen(
        [sys.executable, "-m", "tests.peek_sides", side, arguments],
        stdout=subprocess.PIPE if side == "client" else subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def outcome(client: subprocess.Popen[bytes], timeout: float = 60.0) -> Outcome:
    """How a client ended."""
    output, _ = client.communicate(timeout=timeout)
    return Outcome(**json.loads(output))


def _notice(notice: Notice) -> None:
    if not isinstance(notice, Progress):
        print(notice, file=sys.stderr, flush=True)


def main() -> int:
    side, options = sys.argv[1], json.loads(sys.argv[2])
    common: Mapping[str, Any] = {
        "stream": options["stream"],
        "endpoints": [Endpoint("127.0.0.1", options.pop("port"), tls=False)],
        "login": Login(LOGIN, PASSWORD),
        "destinations": Destinations(options.pop("stream")),
    }
    if side == "job":
        return run(JobOptions(**common, **{"epoch": 0, "quiet": True, **options}))
    options["file"] = Path(options["file"])
    options["start"] = Start(**options.pop("start", {"kind": "rest"}))
    options["sources"] = set(options.pop("sources", (1, 2)))
    found = watch(ClientOptions(**common, **options), NoSink(), _notice)
    json.dump({"exit_code": found.exit_code, "text": found.text}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
