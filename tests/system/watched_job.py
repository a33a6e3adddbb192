"""A job of the demo that is watched while it runs, through a broker of the demo's own."""

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tests.services import activemq, rabbitmq
from tests.services.activemq import ActiveMQ
from tests.services.rabbitmq import RabbitMQ
from tests.services.stomp_server import StompServer, write_private

MSGPEEK = Path(sys.executable).parent / "msgpeek"
STEPS = 10
WAIT = 60.0
"""Seconds that the client waits for the job to begin, and then to end."""

SIMULATION = f"""\
#!/bin/sh
# Takes a few seconds and tells how far it is.
step=0
while [ $step -lt {STEPS} ]; do
    step=$((step + 1))
    echo "step $step of {STEPS}: $((step * 100 / {STEPS})) % done"
    [ $step -ne 5 ] || echo "half way" >&2
    sleep 0.4
done
"""

CONFIGURATION = """\
host = "{url}"
user = "{login}"
password = "{password}"
"""


def make_broker() -> StompServer | None:
    """A broker that is installed here, not yet started; None where there is none."""
    if rabbitmq.missing() is None:
        return RabbitMQ()
    if activemq.missing() is None:
        return ActiveMQ()
    return None


class WatchedJob:
    """The files of the job, and the client that watches it: it ends with this context.

    A driver with the `arguments` makes its jobs watchable.
    """

    template: ClassVar[Mapping[str, str]] = {
        "EXECUTABLE": "simulation.sh",
        "STDOUT_FILE": "output",
        "STDERR_FILE": "errors",
    }

    def __init__(self, folder: Path, broker: StompServer) -> None:
        folder.mkdir()
        self.folder = folder
        self._config = folder / "msgpeek.toml"
        write_private(
            self._config,
            CONFIGURATION.format(url=broker.url, login=broker.login, password=broker.password),
        )
        self.arguments = f"--peek {broker.url} --peek-config {self._config}"
        (folder / "simulation.sh").write_text(SIMULATION)
        self.command = ""
        """How the client is called, for who reads along."""
        self._client: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.seen = ""

    def watch(self, job: int) -> None:
        """Start the client; its lines are shown as they come."""
        self.command = f"msgpeek -I {job}"
        print(f"  {self.command}\n")
        words = ["--config", str(self._config), "-I", str(job)]
        words += ["--wait", f"{WAIT:.0f}", "--timeout", f"{WAIT:.0f}"]
        self._client = subprocess.Popen(
            [MSGPEEK, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._show, daemon=True)
        self._reader.start()

    def _show(self) -> None:
        assert self._client is not None
        assert self._client.stdout is not None
        for line in self._client.stdout:
            self.seen += line
            print(f"  {time.strftime('%H:%M:%S')} live | {line}", end="", flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None and self._client.poll() is None:
            self._client.terminate()
            self._client.wait(WAIT)

    def problems(self) -> list[str]:
        """Wait for the client's end; what was wrong with what it showed."""
        assert self._client is not None
        assert self._reader is not None
        try:
            code = self._client.wait(WAIT)
        except subprocess.TimeoutExpired:
            return [f"{self.command} did not end with the job"]
        self._reader.join(WAIT)
        if code != 0:
            return [f"{self.command} ended with exit code {code}"]
        path = self.folder / "output"
        output = path.read_text() if path.exists() else ""
        if self.seen != output:
            return [f"{self.command} showed {self.seen!r}, but the job wrote {output!r}"]
        return []
