"""The baseline of the peek benches: the same work with plain stomp.py, as its manual shows it.

    stomp_peek.py client HOST PORT QUEUE FILE BYTES
    stomp_peek.py job HOST PORT QUEUE COMMAND ARGS...

The job reads its command's pipe and sends uncompressed bodies of 64 KiB; the client
acknowledges each message, writes it to FILE and ends when BYTES are there.  Nothing is
compressed, checked or repeated.  What holds the job back when the client is slow is the
broker's own flow control.

Where a default of stomp.py or of a broker is a trap that would decide the contest, the
baseline is given what a user would find who looked for it: the brokers' bound on unacknowledged
messages (100, enough for 6 MiB on their way), `auto_decode=False`, a large pipe, and
TCP_NODELAY, without which acknowledgements wait for the kernel.
"""

import os
import socket
import subprocess
import sys
import threading

import stomp
from stomp.utils import Frame

BODY = 65536
LOGIN = os.environ.get("STOMP_LOGIN", "")
PASSWORD = os.environ.get("STOMP_PASSWORD", "")


class Writer(stomp.ConnectionListener):  # type: ignore[misc]
    """Writes what comes and acknowledges it, message by message."""

    def __init__(self, connection: stomp.Connection12, file: int, size: int) -> None:
        self._connection = connection
        self._file = file
        self._missing = size
        self.is_complete = threading.Event()

    def on_message(self, frame: Frame) -> None:
        os.write(self._file, frame.body)
        self._connection.ack(frame.headers["ack"])
        self._missing -= len(frame.body)
        if self._missing <= 0:
            self.is_complete.set()

    def on_error(self, frame: Frame) -> None:
        print(f"{frame.headers}: {frame.body!r}", file=sys.stderr, flush=True)


def connect(host: str, port: str) -> stomp.Connection12:
    connection = stomp.Connection12(
        [(host, int(port))], heartbeats=(10_000, 10_000), auto_decode=False, vhost="/"
    )
    connection.connect(LOGIN, PASSWORD, wait=True)
    connection.transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def client(host: str, port: str, queue: str, file: str, size: str) -> None:
    connection = connect(host, port)
    output = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    writer = Writer(connection, output, int(size))
    connection.set_listener("", writer)
    connection.subscribe(
        queue,
        id="1",
        ack="client-individual",
        headers={"prefetch-count": "100", "activemq.prefetchSize": "100"},
    )
    print("ready", flush=True)
    writer.is_complete.wait()
    connection.disconnect()


def job(host: str, port: str, queue: str, *command: str) -> None:
    connection = connect(host, port)
    with subprocess.Popen(command, stdout=subprocess.PIPE, pipesize=1 << 20) as process:
        assert process.stdout is not None
        while data := process.stdout.read(BODY):
            connection.send(queue, data, "application/octet-stream")
    connection.disconnect()


if __name__ == "__main__":
    if sys.argv[1] == "client":
        client(*sys.argv[2:])
    else:
        job(*sys.argv[2:])
