#!/usr/bin/env python3
"""The least that can move gwd's files on one machine: one after the other, and no care."""

import os
import re
import shutil
import sys
from pathlib import Path


def local(url: str) -> Path:
    """The path that a URL means."""
    return Path(re.sub(r"^\w+://[^/]*/~", str(HOME), url).removeprefix("file://"))


def serve(operation: str, mode: str, source: str, target: str) -> None:
    """Do what a request asks for."""
    if operation == "MKDIR":
        local(source).mkdir(parents=True)
    elif operation == "RMDIR":
        shutil.rmtree(local(source), ignore_errors=True)
    elif operation == "CP":
        shutil.copyfile(local(source), local(target))
        if mode == "X":
            local(target).chmod(0o755)


HOME = Path.home()
for request in sys.stdin:
    operation, job, transfer, *rest = request.split()
    if operation == "INIT":
        answer = "INIT - - SUCCESS -"
    elif operation == "FINALIZE":
        break
    else:
        try:
            serve(operation, *[*rest, "-", "-", "-"][:3])
            answer = f"{operation} {job} {transfer} SUCCESS -"
        except OSError as error:
            answer = f"{operation} {job} {transfer} FAILURE {error}"
    os.write(1, f"{answer}\n".encode())
