"""A job's output as a program: it writes to stdout and stderr, and keeps a copy of what it wrote.

    python payload.py '{"copy": PREFIX, "size": BYTES, ...}'

The copies are PREFIX.out and PREFIX.err; PREFIX.seconds, made at the end, has how long it
took.  Options: see DEFAULTS.
"""

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any, Final

DEFAULTS: Final[dict[str, Any]] = {
    "size": 0,  # bytes of stdout, at least
    "rate": 0,  # bytes a second; 0: as fast as they are taken
    "until": "",  # go on until this file is there
    "gate": 0,  # bytes after which to wait for the file GATE
    "random": False,  # what does not shrink
    "seed": 1,
    "code": 0,
    "files": [],  # where to write instead of stdout and stderr
    "copies": True,
}
BLOCK: Final = 32_768
POOL: Final = 1 << 20


def make_pool(chance: random.Random, is_random: bool) -> bytes:
    if is_random:
        return chance.randbytes(POOL + BLOCK)
    words = [b"%x" % chance.getrandbits(24) for _ in range(3000)]
    lines = b"\n".join(b" ".join(chance.choices(words, k=12)) for _ in range(20_000))
    return lines[: POOL + BLOCK]


def main() -> int:
    copy = json.loads(sys.argv[1])["copy"]
    options = {**DEFAULTS, **json.loads(sys.argv[1])}
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    ends = [os.open(path, flags, 0o600) for path in options["files"]] or [1, 2]
    kept = [os.open(copy + end, flags, 0o600) for end in (".out", ".err")]

    def write(source: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(ends[source], view) :]
        if options["copies"]:
            os.write(kept[source], data)

    chance = random.Random(options["seed"])
    pool = make_pool(chance, options["random"])
    began = time.monotonic()
    written = blocks = 0
    while written < options["size"] or (options["until"] and not Path(options["until"]).exists()):
        if options["gate"] and written >= options["gate"]:
            options["gate"] = 0
            while not Path(copy + ".gate").exists():
                time.sleep(0.02)
            began = time.monotonic() - (written / options["rate"] if options["rate"] else 0)
        at = chance.randrange(POOL)
        block = b"%d\n" % blocks + pool[at : at + chance.randrange(1, BLOCK)]
        write(0, block)
        written += len(block)
        blocks += 1
        if blocks % 10 == 0:
            write(1, b"warning %d %s\n" % (blocks, pool[at : at + 500]))
        if options["rate"]:
            time.sleep(max(0.0, began + written / options["rate"] - time.monotonic()))
    seconds = time.monotonic() - began
    Path(copy + ".part").write_text(str(seconds))
    Path(copy + ".part").rename(copy + ".seconds")
    code: int = options["code"]
    return code


if __name__ == "__main__":
    sys.exit(main())
