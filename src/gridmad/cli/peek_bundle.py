"""Makes msgpeek's job side one file, for nodes where gridmad is not installed.

    python -m gridmad.cli.peek_bundle FILE

FILE is a zip archive that Python runs (see zipapp): the modules that `msgpeek wrap` needs, as
they are installed here, compiled for this version of Python, with those in C.  It says nothing,
and leaves a FILE that is made of the same sources as it is.
"""

import contextlib
import ctypes
import hashlib
import importlib
import importlib.machinery
import importlib.util
import marshal
import os
import signal
import struct
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

ROOTS: Final = (
    "gridmad.cli.msgpeek",
    "gridmad.cli.peek_wrap",
    "gridmad.peek.session",
    "gridmad.peek.transport",
    "lz4.block",
)
"""With what these import they are all of the job side."""

SUFFIX: Final = importlib.machinery.EXTENSION_SUFFIXES[0]
"""Of compiled modules: names the version of Python, the machine and the C library."""

_PR_SET_PDEATHSIG: Final = 1
_DATE: Final = (1980, 1, 1, 0, 0, 0)

# Of elf(5), for 64 bits and little endian.
_ELF: Final = b"\x7fELF\x02\x01"
_ELF_HEADER: Final = struct.Struct("<32xQ14xHH6x")
"""Where the program headers are, the size of each and their number."""
_SECTIONS: Final = (slice(40, 48), slice(60, 64))
"""What the header says of sections: where theirs are, and how many."""
_PROGRAM_HEADER: Final = struct.Struct("<8xQ16xQ16x")
"""Where a segment is in the file, and how much of it."""

# It unpacks all, as the system loads compiled modules from files only, imports all, and removes
# the files before anything else is done: whatever ends the job later, nothing is left of them.
# A temporary folder may forbid to run what is in it: then the job's own folder is tried.
# Signals wait meanwhile.  Any Python 3 can read this.
MAIN: Final = '''\
"""`msgpeek` in one file."""
import importlib, importlib.machinery, os, shutil, signal, sys, tempfile, zipfile

SUFFIX = {suffix!r}
MODULES = {modules!r}


def load(parent):
    folder = tempfile.mkdtemp(prefix=".msgpeek-", dir=parent)
    sys.path.insert(0, folder)
    try:
        with zipfile.ZipFile(sys.argv[0]) as archive:
            archive.extractall(folder, [n for n in archive.namelist() if n != "__main__.py"])
        for name in MODULES:
            importlib.import_module(name)
    except BaseException:
        for name in MODULES:
            sys.modules.pop(name, None)
        raise
    finally:
        sys.path.remove(folder)
        shutil.rmtree(folder, ignore_errors=True)


if SUFFIX not in importlib.machinery.EXTENSION_SUFFIXES:
    sys.exit("msgpeek: made for another Python")
sys.dont_write_bytecode = True
ours = {{signal.SIGHUP, signal.SIGINT, signal.SIGTERM}}
mask = signal.pthread_sigmask(signal.SIG_BLOCK, ours)
try:
    load(None)
except (OSError, ImportError):
    load(os.getcwd())
signal.pthread_sigmask(signal.SIG_SETMASK, mask)
if sys.argv[1:] == ["--probe"]:
    print(sys.executable)
else:
    from gridmad.cli.msgpeek import main

    main()
'''


def main() -> None:
    """The command."""
    # One that starts the driver anew must find nobody at work here.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    write_bundle(Path(sys.argv[1]))


def write_bundle(file: Path) -> None:
    """Write the bundle, readable by this user alone, unless it is there.  Raises OSError."""
    modules = needed_modules()
    digest = hashlib.sha256(MAIN.encode())
    for name, path in modules.items():
        digest.update(b"%s\0%s" % (name.encode(), hashlib.sha256(path.read_bytes()).digest()))
    comment = digest.hexdigest().encode()
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(file) as archive:
        if archive.comment == comment and archive.testzip() is None:
            return
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=file.parent)  # for this user alone
    try:
        with os.fdopen(descriptor, "wb") as stream:
            _write_archive(stream, modules, comment)
        Path(temporary).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def needed_modules() -> Mapping[str, Path]:
    """The modules beyond the standard library that the job side imports, by their names."""
    before = set(sys.modules)
    for name in ROOTS:
        importlib.import_module(name)
    found: dict[str, Path] = {}
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        top = name.partition(".")[0]
        is_ours = top == "gridmad" and name != "gridmad.cli.peek_bundle"
        if path and top not in sys.stdlib_module_names and (is_ours or name not in before):
            found[name] = Path(path)
    return found


def _write_archive(stream: IO[bytes], modules: Mapping[str, Path], comment: bytes) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.comment = comment
        main = MAIN.format(suffix=SUFFIX, modules=list(modules))
        archive.writestr(zipfile.ZipInfo("__main__.py", _DATE), main, zipfile.ZIP_DEFLATED)
        for name, path in modules.items():
            place, content = _compiled(name, path)
            archive.writestr(zipfile.ZipInfo(place, _DATE), content, zipfile.ZIP_DEFLATED)


def loadable(library: bytes) -> bytes:
    """A shared library without what the system does not load: its sections, some of which only
    debuggers read.  These are nine tenths of the libraries in lz4's wheels.
    """
    if not library.startswith(_ELF) or len(library) < _ELF_HEADER.size:
        return library
    first, size, number = _ELF_HEADER.unpack_from(library)
    end = first + size * number
    for place in range(first, end, size):
        offset, length = _PROGRAM_HEADER.unpack_from(library, place)
        end = max(end, offset + length)
    kept = bytearray(library[:end])
    for part in _SECTIONS:
        kept[part] = bytes(part.stop - part.start)
    return bytes(kept)


def _compiled(name: str, path: Path) -> tuple[str, bytes]:
    """Where a module is in the archive, and what is there."""
    folder = name.replace(".", "/")
    if path.suffix != ".py":
        return f"{folder.rpartition('/')[0]}/{path.name}", loadable(path.read_bytes())
    code = compile(path.read_bytes(), f"{name}.py", "exec", dont_inherit=True, optimize=2)
    content = importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)
    return f"{folder}/__init__.pyc" if path.stem == "__init__" else f"{folder}.pyc", content


if __name__ == "__main__":
    main()
