#!/usr/bin/env python3
"""Jobs on Slurm as drivers have always run them: one sbatch and one squeue for each.

No journal, no recovery, no cancelling: `single_slurm.py SECONDS` asks for each job this often.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from select import select

ENDED = re.compile(r"COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL")


def say(line: str) -> None:
    """Write one whole line."""
    os.write(1, f"{line}\n".encode())


def run(*words: str, given: str = "") -> str:
    """The output of a command."""
    return subprocess.run(words, input=given, capture_output=True, text=True, check=False).stdout


def submit(description: Path) -> str:
    """Start the job of a description; its number."""
    found = re.search(r"<executable>(.*?)</", description.read_text())
    assert found
    script = f"#!/bin/sh\nexec {found[1]}\n"
    return run("sbatch", "--parsable", "--output=/dev/null", given=script).strip()


def requests(interval: float) -> Iterator[list[list[str]]]:
    """The requests that came within an interval."""
    rest = b""
    while True:
        lines: list[list[str]] = []
        end = time.monotonic() + interval
        while (left := end - time.monotonic()) > 0:
            if select([0], [], [], left)[0]:
                data = os.read(0, 1 << 16)
                if not data:
                    return
                *whole, rest = (rest + data).split(b"\n")
                lines = [line.decode().split() for line in whole]
                break
        yield lines


def main() -> None:
    """Serve until the end of stdin."""
    interval = float(sys.argv[1])
    jobs: dict[str, str] = {}
    asked = 0.0
    for some in requests(interval):
        for words in some:
            if words[0] == "INIT":
                say("INIT - SUCCESS -")
            elif words[0] == "SUBMIT":
                jobs[words[1]] = submit(Path(words[3]))
                say(f"SUBMIT {words[1]} SUCCESS {jobs[words[1]]}")
        if time.monotonic() < asked + interval:
            continue
        for job, number in list(jobs.items()):
            states = run("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={number}")
            if ENDED.match(states) or not states:
                say(f"CALLBACK {job} SUCCESS DONE:0")
                del jobs[job]
        asked = time.monotonic()


if __name__ == "__main__":
    main()
