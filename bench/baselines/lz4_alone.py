"""The CPU seconds that LZ4 alone takes for as much log as a job prints.

    lz4_alone.py TEXT BYTES

BYTES of the file TEXT, again and again, in pieces of 64 KiB, with the defaults of lz4.block.
"""

import itertools
import sys
import time
from pathlib import Path

import lz4.block

PIECE = 65536


def main(text: str, size: str) -> None:
    block = Path(text).read_bytes()
    pieces = [block[start : start + PIECE] for start in range(0, len(block), PIECE)]
    missing = int(size)
    start = time.process_time()
    for piece in itertools.cycle(pieces):
        lz4.block.compress(piece)
        missing -= len(piece)
        if missing <= 0:
            break
    print(time.process_time() - start)


if __name__ == "__main__":
    main(*sys.argv[1:])
