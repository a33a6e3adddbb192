#!/usr/bin/env python3
"""The least that can run gwd's jobs: one process and one thread for each, and no care.

No journal, no recovery, no cancelling, no deadlines: the mark for what drivers may cost.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

HOME = Path.home()


def say(line: str) -> None:
    """Write one whole line."""
    os.write(1, f"{line}\n".encode())


def follow(job: str, process: "subprocess.Popen[bytes]") -> None:
    """Tell what becomes of a job."""
    say(f"CALLBACK {job} SUCCESS ACTIVE")
    say(f"CALLBACK {job} SUCCESS DONE:{process.wait()}")


def submit(job: str, description: Path) -> None:
    """Start the job of a description."""
    text = description.read_text()
    values = dict(re.findall(r"<(executable|stdout|stderr)>(.*?)</", text))
    variables = re.findall(r"<name>(.*?)</name>\s*<value>(.*?)</value>", text)
    with (
        (HOME / values["stdout"]).open("wb") as stdout,
        (HOME / values["stderr"]).open("wb") as stderr,
    ):
        process = subprocess.Popen(
            [HOME / values["executable"]],
            cwd=HOME,
            env=dict(os.environ, **dict(variables)),
            stdout=stdout,
            stderr=stderr,
        )
    say(f"SUBMIT {job} SUCCESS {process.pid}")
    threading.Thread(target=follow, args=(job, process), daemon=True).start()


signal.pthread_sigmask(signal.SIG_SETMASK, ())
for request in sys.stdin:
    operation, job, _, last = request.split()
    if operation == "INIT":
        say("INIT - SUCCESS -")
    elif operation == "SUBMIT":
        submit(job, Path(last))
    elif operation == "FINALIZE":
        break
    else:
        say(f"{operation} {job} SUCCESS ACTIVE")
