"""msgpeek's job side in one file."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.cli.peek_bundle import loadable

LIBRARIES = ("gridmad._chunk", "gridmad._stomp", "lz4.block._block")


def segments(library: Path) -> list[bytes]:
    """What the system loads of a library, but for its header, as readelf(1) finds it."""
    listed = subprocess.run(
        ["readelf", "--wide", "--program-headers", str(library)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    content = library.read_bytes()
    found = []
    for line in listed.stdout.splitlines():
        fields = line.split()
        if len(fields) > 5 and fields[1].startswith("0x"):
            offset, length = int(fields[1], 16), int(fields[4], 16)
            found.append(content[max(offset, 64) : offset + length])
    return found


@pytest.mark.skipif(shutil.which("readelf") is None, reason="there is no readelf")
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_keeps_what_is_loaded(name: str, tmp_path: Path) -> None:
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.origin is not None
    library, kept = Path(found.origin), tmp_path / "kept.so"
    kept.write_bytes(loadable(library.read_bytes()))
    assert kept.stat().st_size < library.stat().st_size
    assert loadable(kept.read_bytes()) == kept.read_bytes()
    whole = segments(library)
    assert len(whole) > 3
    assert segments(kept) == whole


@given(st.binary())
def test_what_is_no_library_is_left_alone(content: bytes) -> None:
    assert loadable(content) == content
