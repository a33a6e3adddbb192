"""A job that prints the time now and then: quiet_job.py LINES (monotonic nanoseconds)."""

import random
import sys
import time


def main(lines: str) -> None:
    pauses = random.Random(3)
    for _ in range(int(lines)):
        time.sleep(pauses.uniform(0.2, 0.3))
        print(time.monotonic_ns(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
