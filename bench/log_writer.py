"""A job that prints prepared text and does nothing else.

    log_writer.py TEXT BYTES STAMP [GATE]

BYTES of the file TEXT, again and again from its start, in writes of 64 KiB.  It makes the file
STAMP, waits until nobody has the file GATE locked, and adds to STAMP a line when it begins
and one when it has ended (nanoseconds of the monotonic clock, which all processes share).
"""

import fcntl
import os
import sys
import time
from pathlib import Path

WRITE = 65536


def main(text: str, size: str, stamp: str, gate: str | None = None) -> None:
    block = Path(text).read_bytes()
    cycle = len(block)
    # Twice the beginning, so that a write may run over the end.
    view = memoryview(block + block[:WRITE])
    missing = int(size)
    offset = 0
    with open(stamp, "x") as stamps:
        if gate is not None:
            with open(gate) as lock:
                fcntl.flock(lock, fcntl.LOCK_SH)
        print(time.monotonic_ns(), file=stamps, flush=True)
        while missing:
            written = os.write(1, view[offset : offset + min(WRITE, missing)])
            missing -= written
            offset = (offset + written) % cycle
        print(time.monotonic_ns(), file=stamps, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
