import argparse
import asyncio
import errno
import math
import os
import pwd
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gridmad.driver import Batch
from gridmad.errors import DriverError, UrlError
from gridmad.transfer import file_copy
from gridmad.transfer.file_copy import copy_file
from gridmad.transfer.local import LocalTransfer
from gridmad.transfer.model import Copy
from gridmad.transfer.service import TransferService

NOBODY = 65534
MIB = 1 << 20


def make_driver(*arguments: str) -> LocalTransfer:
    parser = argparse.ArgumentParser()
    LocalTransfer.add_options(parser)
    TransferService.add_options(parser)
    return LocalTransfer(parser.parse_args(arguments))


def outcomes(
    operation: str, *items: str | Copy, driver: LocalTransfer | None = None
) -> list[DriverError | None]:
    """What each item was settled with."""
    known: dict[int, DriverError | None] = {}
    driver = driver or make_driver()

    async def run() -> None:
        await getattr(driver, operation)(Batch(items, known.__setitem__))
        await driver.stop()

    asyncio.run(run())
    return [known[index] for index in range(len(items))]


def outcome(operation: str, item: str | Copy, driver: LocalTransfer | None = None) -> str:
    """The text of one item's error, "" for success."""
    error = outcomes(operation, item, driver=driver)[0]
    return "" if error is None else str(error)


def copy(source: Path | str, destination: Path | str, is_executable: bool = False) -> str:
    """Copy between two local paths."""
    return outcome("copy", Copy(f"file://{source}", f"file://{destination}", is_executable))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.fixture
def ordinary() -> Iterator[Path]:
    """A folder of an ordinary user, who we are as long as the test runs."""
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()
    try:
        if user == 0:
            os.chown(folder, NOBODY, -1)
            os.seteuid(NOBODY)
        yield folder
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)


# --- copies -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4096, MIB, 33 * MIB + 1])
def test_contents(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    assert copy(tmp_path / "source", tmp_path / "copy") == ""
    assert (tmp_path / "copy").read_bytes() == data
    assert sorted(os.listdir(tmp_path)) == ["copy", "source"]


@pytest.mark.parametrize("lost", [(), ("copy_file_range",), ("copy_file_range", "sendfile")])
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EXDEV, errno.EINVAL])
def test_contents_where_the_kernel_cannot_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: tuple[str, ...], code: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    for name in lost:
        monkeypatch.setattr(os, name, refuse)
    data = os.urandom(3 * MIB + 7)
    (tmp_path / "source").write_bytes(data)
    assert copy(tmp_path / "source", tmp_path / "copy") == ""
    assert (tmp_path / "copy").read_bytes() == data


def test_a_kernel_that_reports_the_end_too_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    (tmp_path / "source").write_bytes(b"contents")
    assert copy(tmp_path / "source", tmp_path / "copy") == ""
    assert (tmp_path / "copy").read_bytes() == b"contents"


def test_across_file_systems(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not os.access(other, os.W_OK) or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to write to")
    data = os.urandom(2 * MIB)
    (tmp_path / "source").write_bytes(data)
    with tempfile.TemporaryDirectory(dir=other) as folder:
        assert copy(tmp_path / "source", f"{folder}/copy") == ""
        assert Path(folder, "copy").read_bytes() == data


def test_a_file_of_proc_that_says_it_is_empty(tmp_path: Path) -> None:
    assert copy("/proc/version", tmp_path / "copy") == ""
    assert (tmp_path / "copy").read_bytes() == Path("/proc/version").read_bytes()


@pytest.mark.parametrize(
    "written", [(), (0,), (5 * MIB,), (0, 9 * MIB), (19 * MIB,), (3 * MIB, 40 * MIB)]
)
def test_holes_stay_holes(tmp_path: Path, written: tuple[int, ...]) -> None:
    source, target = tmp_path / "source", tmp_path / "copy"
    with source.open("wb") as file:
        file.truncate(20 * MIB)
        for position in written:
            file.seek(position)
            file.write(b"data")
    assert copy(source, target) == ""
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        " ",
        "%20",
        "100%",
        "it's",
        'say "x"',
        "$HOME `id`",
        "a;b&c|d",
        "?*[x]",
        "#tag?query",
        "back\\slash",
        "-n",
        "~",
        "täst ☃",
        os.fsdecode(b"\xff\xfe latin"),
        "x" * 255,
    ],
)
def test_names(tmp_path: Path, name: str) -> None:
    for folder in ("from", "to"):
        (tmp_path / folder).mkdir()
    (tmp_path / "from" / name).write_bytes(b"contents")
    assert copy(tmp_path / "from" / name, tmp_path / "to" / name) == ""
    assert os.listdir(tmp_path / "to") == [name]


@pytest.mark.parametrize(
    ("before", "is_executable", "after"),
    [
        (0o644, False, 0o640),
        (0o666, False, 0o640),
        (0o777, False, 0o750),
        (0o600, True, 0o700),
        (0o644, True, 0o750),
        (0o444, True, 0o550),
        (0o4755, False, 0o750),
    ],
)
@pytest.mark.usefixtures("umask")
def test_mode_of_a_new_file(tmp_path: Path, before: int, is_executable: bool, after: int) -> None:
    (tmp_path / "source").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "source").chmod(before)
    assert copy(tmp_path / "source", tmp_path / "copy", is_executable) == ""
    assert mode_of(tmp_path / "copy") == after


@pytest.mark.parametrize(("is_executable", "after"), [(False, 0o604), (True, 0o704)])
@pytest.mark.usefixtures("umask")
def test_mode_of_an_existing_file(tmp_path: Path, is_executable: bool, after: int) -> None:
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "copy").write_bytes(b"old and longer")
    (tmp_path / "copy").chmod(0o604)
    assert copy(tmp_path / "source", tmp_path / "copy", is_executable) == ""
    assert (tmp_path / "copy").read_bytes() == b"new"
    assert mode_of(tmp_path / "copy") == after


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_onto_itself(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"contents")
    source.chmod(0o644)
    link(source, tmp_path / "other")
    assert copy(source, source) == ""
    assert copy(source, tmp_path / "other", is_executable=True) == ""
    assert source.read_bytes() == b"contents"
    assert mode_of(source) & stat.S_IXUSR
    assert (tmp_path / "other").samefile(source)


def test_own_link_at_the_destination_is_followed(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"new")
    for target in ("there", "not there"):
        (tmp_path / "link").symlink_to(target)
        assert copy(tmp_path / "source", tmp_path / "link") == ""
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / target).read_bytes() == b"new"
        (tmp_path / "link").unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's link")
def test_another_users_link_at_the_destination_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "victim").write_bytes(b"old")
    (tmp_path / "link").symlink_to("victim")
    os.chown(tmp_path / "link", NOBODY, -1, follow_symlinks=False)
    assert "another user's symbolic link" in copy(tmp_path / "source", tmp_path / "link")
    assert (tmp_path / "victim").read_bytes() == b"old"


def test_the_null_device(tmp_path: Path) -> None:
    before = os.stat("/dev/null")
    assert copy("/dev/null", tmp_path / "empty") == ""
    assert (tmp_path / "empty").read_bytes() == b""
    (tmp_path / "source").write_bytes(b"contents")
    assert copy(tmp_path / "source", "/dev/null") == ""
    after = os.stat("/dev/null")
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert "No such file" in copy(tmp_path / "missing", "/dev/null")


def test_sources_that_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nothing")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name, reason in {
            "missing": "No such file or directory",
            "dangling": "No such file or directory",
            "loop": "Too many levels of symbolic links",
            "pipe": "it is a named pipe",
            "socket": "No such device or address",
            ".": "it is a directory",
        }.items():
            path = f"{tmp_path}/{name}"
            assert copy(path, tmp_path / "copy") == f"cannot read {path}: {reason}"
    assert "it is a device" in copy("/dev/zero", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_destinations_that_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"contents")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    for name, reason in {
        "folder": "it is a directory",
        "folder/": "it is a directory",
        "missing/file": "No such file or directory",
        "missing/": "No such file or directory",
        "source/file": "Not a directory",
        "pipe": "it is a named pipe",
        "loop": "it is a symbolic link",
        "x" * 256: "File name too long",
    }.items():
        assert copy(source, f"{tmp_path}/{name}") == f"cannot write {tmp_path}/{name}: {reason}"
    assert "it is a device" in copy(source, "/dev/zero")
    assert sorted(os.listdir(tmp_path)) == before
    assert os.listdir(tmp_path / "folder") == []


def test_permissions(ordinary: Path) -> None:
    source = ordinary / "source"
    source.write_bytes(b"contents")
    (ordinary / "closed").mkdir(mode=0o555)
    error = copy(source, ordinary / "closed" / "copy")
    assert error == f"cannot write {ordinary}/closed/copy: Permission denied"
    source.chmod(0)
    assert copy(source, ordinary / "copy") == f"cannot read {source}: Permission denied"
    (ordinary / "read-only").write_bytes(b"")
    (ordinary / "read-only").chmod(0o444)
    source.chmod(0o600)
    assert copy(source, ordinary / "read-only") == ""
    assert mode_of(ordinary / "read-only") == 0o444


def test_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        (tmp_path / "source").write_bytes(bytes(2 * MIB))
        (disk / "copy").write_bytes(b"old")
        error = copy(tmp_path / "source", disk / "copy")
        assert error.endswith("No space left on device")
        assert os.listdir(disk) == ["copy"]
        assert (disk / "copy").read_bytes() == b"old"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_file_size_limit(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(2 * MIB))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, limits[1]))
    try:
        error = copy(tmp_path / "source", tmp_path / "copy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.endswith("File too large")
    assert os.listdir(tmp_path) == ["source"]


def test_a_growing_source_is_copied_to_its_new_end(tmp_path: Path) -> None:
    source = tmp_path / "log"
    source.write_bytes(b"a" * (33 * MIB))
    lines = iter([b"late line\n"])

    def check() -> None:
        with source.open("ab") as file:
            file.write(next(lines, b""))

    copy_file(str(source), str(tmp_path / "copy"), is_executable=False, umask=0o022, check=check)
    assert (tmp_path / "copy").read_bytes() == b"a" * (33 * MIB) + b"late line\n"


@pytest.mark.parametrize("has_holes", [False, True])
def test_a_shrinking_source_is_an_error(tmp_path: Path, has_holes: bool) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"a" * (40 * MIB))
    if has_holes:
        os.truncate(source, 50 * MIB)
    with pytest.raises(DriverError, match="it shrank from"):
        copy_file(
            str(source),
            str(tmp_path / "copy"),
            is_executable=False,
            umask=0o022,
            check=lambda: os.truncate(source, 5),
        )
    assert os.listdir(tmp_path) == ["source"]


def test_a_stopped_copy_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(33 * MIB))
    (tmp_path / "copy").write_bytes(b"old")
    driver = make_driver()
    asyncio.run(driver.stop())
    with pytest.raises(DriverError, match="the driver was stopped"):
        driver._files.copy(math.inf, Copy(f"{tmp_path}/source", f"{tmp_path}/copy"))
    assert sorted(os.listdir(tmp_path)) == ["copy", "source"]
    assert (tmp_path / "copy").read_bytes() == b"old"


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every slice takes 20 ms."""
    copy_range = os.copy_file_range

    def slow(*arguments: int) -> int:
        time.sleep(0.02)
        return copy_range(*arguments)

    monkeypatch.setattr(os, "copy_file_range", slow)
    monkeypatch.setattr("gridmad.transfer.file_copy._SLICE", 4096)


@pytest.mark.usefixtures("slow_disk")
def test_stop_waits_until_copies_under_way_have_cleared_up(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(4 * MIB))
    driver = make_driver("--streams", "2")
    settled: dict[int, DriverError | None] = {}
    items = [Copy(f"{tmp_path}/source", f"{tmp_path}/copy{index}") for index in range(9)]

    async def run() -> list[str]:
        copying = asyncio.ensure_future(driver.copy(Batch(items, settled.__setitem__)))
        while len(os.listdir(tmp_path)) < 3:
            await asyncio.sleep(0.005)
        async with asyncio.timeout(0.2):
            await driver.stop()
        left = os.listdir(tmp_path)
        copying.cancel()
        return left

    assert asyncio.run(run()) == ["source"]


@pytest.mark.usefixtures("slow_disk")
def test_a_copy_past_the_deadline_is_not_put_in_place(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(4 * MIB))
    (tmp_path / "copy").write_bytes(b"of a later attempt")
    item = Copy(f"{tmp_path}/source", f"{tmp_path}/copy")
    driver = make_driver("--deadline", "0.1", "--timeout", "0", "--streams", "1")
    start = time.monotonic()
    # The second has waited for the first when the deadline of both passes.
    errors = outcomes("copy", item, item, driver=driver)
    assert time.monotonic() - start < 1
    assert {str(error) for error in errors} == {"not done within the deadline of 0.1 seconds"}
    assert (tmp_path / "copy").read_bytes() == b"of a later attempt"
    assert sorted(os.listdir(tmp_path)) == ["copy", "source"]


def test_a_copy_given_up_at_its_very_end_is_not_put_in_place(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"contents")
    checks = iter([None])

    def check() -> None:
        if next(checks, "given up"):
            raise DriverError("given up")

    with pytest.raises(DriverError, match="given up"):
        copy_file(
            f"{tmp_path}/source", f"{tmp_path}/copy", is_executable=False, umask=0, check=check
        )
    assert os.listdir(tmp_path) == ["source"]


def test_time_limit(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(33 * MIB))
    item = Copy(f"{tmp_path}/source", f"{tmp_path}/copy")
    driver = make_driver("--timeout", "0.001")
    assert outcome("copy", item, driver) == "not done within 0.001 seconds"
    assert os.listdir(tmp_path) == ["source"]
    assert outcome("copy", item, make_driver("--timeout", "0")) == ""


def test_a_killed_copy_has_no_final_name(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(33 * MIB))
    program = (
        "import os, sys; from gridmad.transfer.file_copy import copy_file\n"
        "copy_file(*sys.argv[1:], is_executable=False, umask=0o22,"
        " check=lambda: os.kill(os.getpid(), 9))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "source"), str(tmp_path / "copy")]
    )
    assert result.returncode == -9
    assert not (tmp_path / "copy").exists()
    (left,) = set(os.listdir(tmp_path)) - {"source"}
    assert left.startswith(".gridmad-")
    assert mode_of(tmp_path / left) == 0o600
    assert copy(tmp_path / "source", tmp_path / "copy") == ""
    assert sorted(os.listdir(tmp_path)) == ["copy", "source"]


def test_what_may_be_anothers_is_not_cleared_up(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"")
    host, known = os.uname().nodename, file_copy._pids_known()
    boot, namespace = known.split("-")
    parent_start = file_copy._start_time(os.getppid())
    kept = [
        f".gridmad-{host}-{known}-{os.getppid()}-{parent_start}-0",
        f".gridmad-other{host}-{known}-{2**31}-1-0",
        f".gridmad-{host}-{boot}-9{namespace}-{2**31}-1-0",
        f".gridmad-{host}-00000000-{namespace}-{2**31}-1-1",
        f".gridmad-{host}-{known}-{2**31}-1-0.txt",
        ".gridmad-1b2c-0",
    ]
    gone = [f".gridmad-{host}-{known}-{2**31}-1-0", f".gridmad-{host}-00000000-9-5-1-f"]
    for name in kept + gone:
        (tmp_path / name).write_bytes(b"")
    os.utime(tmp_path / gone[1], (0, 0))
    kept.append(f".gridmad-{host}-{known}-{2**31}-1-d")
    (tmp_path / kept[-1]).mkdir()
    assert copy(tmp_path / "source", tmp_path / "copy") == ""
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "copy", "source"])


def test_the_destination_is_never_half_there(tmp_path: Path) -> None:
    target = tmp_path / "copy"
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode() * (4 * MIB))
    seen: set[tuple[int, int]] = set()
    has_ended = threading.Event()

    def watch() -> None:
        while not has_ended.is_set():
            if target.exists():
                data = target.read_bytes()
                seen.add((len(data), len(set(data))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        items = [Copy(f"{tmp_path}/{name}", f"{target}") for name in "ab" * 20]
        assert set(outcomes("copy", *items)) == {None}
    finally:
        has_ended.set()
        watcher.join()
    assert seen == {(4 * MIB, 1)}


def test_a_batch_answers_each(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"contents")
    items = [
        Copy(f"{tmp_path}/{'source' if index % 3 else 'missing'}", f"{tmp_path}/{index}")
        for index in range(300)
    ]
    for index, error in enumerate(outcomes("copy", *items)):
        assert (error is None) == bool(index % 3) == (tmp_path / str(index)).exists()


# --- URLs -------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["gsiftp://localhost/~/.gw_u_1", "remote://{name}/~/.gw_u_1/"])
def test_home_of_urls(home: Path, url: str) -> None:
    url = url.format(name=socket.gethostname().upper())
    assert outcome("mkdir", url) == ""
    assert os.listdir(home) == [".gw_u_1"]
    assert outcome("exists", url) == ""
    (home / "in").write_bytes(b"contents")
    assert outcome("copy", Copy("remote://127.0.0.1/~/in", f"{url}/./x")) == ""
    assert outcome("copy", Copy(f"{url}//x", "gsiftp://[::1]:2811/~//out")) == ""
    assert (home / "out").read_bytes() == b"contents"
    assert outcome("rmdir", url) == ""
    assert sorted(os.listdir(home)) == ["in", "out"]


def test_home_of_a_user(home: Path) -> None:
    root = Path(pwd.getpwnam("root").pw_dir)
    assert root != home
    assert outcome("exists", "gsiftp://localhost/~root") == ""
    missing = outcome("exists", "gsiftp://localhost/~root/no such file")
    assert missing.startswith(f"{root}/no such file: ")
    unknown = outcome("exists", "gsiftp://localhost/~no-such-user/x")
    assert unknown == "no user no-such-user is known here"


def test_home_without_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    home = pwd.getpwuid(os.getuid()).pw_dir
    for value in ("", "relative"):
        monkeypatch.setenv("HOME", value)
        error = outcome("exists", "gsiftp://localhost/~/no such file")
        assert error == f"{home}/no such file: No such file or directory"


def test_hosts(tmp_path: Path) -> None:
    url = f"gsiftp://other.example{tmp_path}"
    error = outcome("exists", url)
    assert error == (
        f"{url} is not on this machine: other.example is none of its names (--host adds one)"
    )
    driver = make_driver("--host", "first.example", "--host", "Other.Example")
    assert outcome("exists", url, driver) == ""
    assert outcome("exists", f"gsiftp://{socket.getfqdn()}{tmp_path}") == ""


def test_a_name_server_is_asked_for_unknown_hosts_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask() -> str:
        asked.append(threading.current_thread().name)
        return "node.example"

    monkeypatch.setattr(socket, "getfqdn", ask)
    driver = make_driver()
    for host in ("localhost", socket.gethostname()):
        assert outcomes("exists", f"gsiftp://{host}{tmp_path}", driver=driver) == [None]
        driver = make_driver()
    assert asked == []
    known = outcomes("exists", *[f"gsiftp://Node.Example{tmp_path}"] * 3, driver=driver)
    assert known == [None] * 3
    assert asked
    assert all(name.startswith("directory") for name in asked)


@pytest.mark.parametrize("operation", ["mkdir", "rmdir", "exists"])
@pytest.mark.parametrize("url", ["-", "relative/path", "file:///a\0b", "http://localhost"])
def test_bad_urls(operation: str, url: str) -> None:
    assert isinstance(outcomes(operation, url)[0], UrlError)


# --- directories ------------------------------------------------------------------------


@pytest.mark.usefixtures("umask")
def test_mkdir(home: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert outcome("mkdir", "gsiftp://localhost/~/a/.gw_x_1/b") == ""
        assert outcome("mkdir", "gsiftp://localhost/~/.gw_me_u_12//b/c/") == ""
        assert outcome("mkdir", f"file://{tmp_path}/plain/folder") == ""
    for name in (".gw_me_u_12", ".gw_me_u_12/b", ".gw_me_u_12/b/c"):
        assert mode_of(home / name) == 0o700
    for path in (home / "a", home / "a/.gw_x_1/b", tmp_path / "plain", tmp_path / "plain/folder"):
        assert mode_of(path) == 0o750


def test_mkdir_in_parallel(tmp_path: Path) -> None:
    urls = [f"{tmp_path}/a/b/c/d/{index % 3}/e" for index in range(200)]
    assert set(outcomes("mkdir", *urls)) == {None}


def test_mkdir_refused(tmp_path: Path, ordinary: Path) -> None:
    (ordinary / "file").write_bytes(b"")
    (ordinary / "dangling").symlink_to("nothing")
    (ordinary / "closed").mkdir(mode=0o555)
    for name, reason in {
        "file": "File exists",
        "dangling": "File exists",
        "file/below": "Not a directory",
        "closed/a/b": "Permission denied",
    }.items():
        assert outcome("mkdir", f"{ordinary}/{name}") == f"cannot make {ordinary}/{name}: {reason}"


def test_exists(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("nothing")
    assert outcome("exists", f"{tmp_path}/file") == ""
    assert outcome("exists", f"{tmp_path}") == ""
    assert outcome("exists", f"{tmp_path}/x") == f"{tmp_path}/x: No such file or directory"
    assert outcome("exists", f"{tmp_path}/dangling").endswith("No such file or directory")


def test_rmdir(home: Path) -> None:
    job = home / ".gw_u_1"
    (job / "a" / "b").mkdir(parents=True)
    (job / "a" / "file").write_bytes(b"")
    (job / os.fsdecode(b"\xff")).write_bytes(b"")
    os.mkfifo(job / "pipe")
    assert outcome("rmdir", "gsiftp://localhost/~/.gw_u_1/a/b") == ""
    assert not (job / "a" / "b").exists()
    for _ in range(2):
        assert outcome("rmdir", "gsiftp://localhost/~//.gw_u_1//") == ""
        assert os.listdir(home) == []
    assert outcome("rmdir", "gsiftp://localhost/~/.gw_u_1/no/such/folder") == ""


def test_rmdir_does_not_follow_links(home: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"")
    job = home / ".gw_u_1"
    (job / "below").mkdir(parents=True)
    (job / "below" / "link").symlink_to(precious)
    (job / "link").symlink_to(precious / "file")
    assert outcome("rmdir", f"{job}") == ""
    assert not job.exists()
    job.symlink_to(precious)
    assert outcome("rmdir", f"{job}//") == ""
    assert not job.is_symlink()
    assert os.listdir(precious) == ["file"]


def test_rmdir_through_a_link_is_refused(home: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "folder").mkdir(parents=True)
    (home / ".gw_u_1").symlink_to(precious)
    (home / ".gw_u_2").mkdir()
    (home / ".gw_u_2" / "link").symlink_to(precious)
    for url in ("~/.gw_u_1/folder", "~/.gw_u_2/link/folder", "~/.gw_u_2/link//./folder/"):
        error = outcome("rmdir", f"gsiftp://localhost/{url}")
        assert error.startswith(f"{precious}/folder is not removed: it is no job directory")
    assert (precious / "folder").is_dir()


def test_rmdir_of_a_job_directory_by_another_name_of_home(home: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(home)
    (home / ".gw_u_1").mkdir()
    assert outcome("rmdir", f"{tmp_path}/alias/.gw_u_1") == ""
    assert os.listdir(home) == []


def test_rmdir_refusals(home: Path, tmp_path: Path) -> None:
    for name in (".gw_u_1/a", "folder", ".gw_u_x", ".gw__1", ".gw_u_1x", "a/.gw_u_1"):
        (home / name).mkdir(parents=True)
    (tmp_path / "alias").symlink_to(home)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for path, reason in {
        "/": "/ is not removed",
        "//.//": "/ is not removed",
        "/.gw_u_1/../": "'..'",
        f"{home}": "holds the home directory",
        f"{tmp_path}": "holds the home directory",
        f"{tmp_path}/": "holds the home directory",
        f"{tmp_path}/alias/.": "no job directory",
        f"{home}/.gw_u_1/..": "'..'",
        f"{home}/.gw_u_1/../folder": "'..'",
        f"{home}/.gw_u_1/a/../../folder": "'..'",
        f"{home}/folder": "no job directory",
        f"{home}//folder": "no job directory",
        f"{home}/.gw_u_x": "no job directory",
        f"{home}/.gw__1": "no job directory",
        f"{home}/.gw_u_1x": "no job directory",
        f"{home}/a/.gw_u_1": "no job directory",
        "/etc": "no job directory",
        "/etc/.gw_u_1": "no job directory",
        "gsiftp://localhost/~": "holds the home directory",
        "gsiftp://localhost/~//": "holds the home directory",
        "gsiftp://localhost/~/.": "holds the home directory",
        "gsiftp://localhost/~root/.gw_u_1": "no job directory",
    }.items():
        assert reason in outcome("rmdir", path), path
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_rmdir_anywhere(home: Path, tmp_path: Path) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)

    def rmdir(url: str) -> str:
        return outcome("rmdir", url, make_driver("--rmdir-anywhere"))

    assert rmdir(f"{tmp_path}/folder") == ""
    assert not (tmp_path / "folder").exists()
    for url in ("/", f"{home}", f"{tmp_path}", "gsiftp://localhost/~/", f"{home}/x/..", "/."):
        assert "is not removed" in rmdir(url)
    assert home.is_dir()


def test_rmdir_of_what_is_no_directory(home: Path) -> None:
    (home / ".gw_u_1").write_bytes(b"")
    assert outcome("rmdir", f"{home}/.gw_u_1").endswith("it is no directory")
    assert outcome("rmdir", f"{home}/.gw_u_1/x").endswith("Not a directory")


def test_rmdir_of_directories_without_permissions(
    ordinary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(ordinary))
    job = ordinary / ".gw_u_1"
    for mode in (0o555, 0o000, 0o300, 0o400):
        (job / f"{mode:o}" / "below").mkdir(parents=True)
        (job / f"{mode:o}" / "below" / "file").write_bytes(b"")
        (job / f"{mode:o}" / "below").chmod(mode)
        (job / f"{mode:o}").chmod(mode)
    job.chmod(0o500)
    assert outcome("rmdir", "gsiftp://localhost/~/.gw_u_1") == ""
    assert os.listdir(ordinary) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_rmdir_of_another_users_directory(
    tmp_path: Path, ordinary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(ordinary))
    other = ordinary / ".gw_u_1" / "other"
    other.mkdir(parents=True)
    (other / "file").write_bytes(b"")
    os.seteuid(0)
    os.chown(other, 0, 0)
    os.seteuid(NOBODY)
    error = outcome("rmdir", "gsiftp://localhost/~/.gw_u_1")
    assert error == f"cannot remove {other}/file: Permission denied"


def test_rmdir_of_a_deep_tree(home: Path) -> None:
    job = home / ".gw_u_1"
    job.mkdir()
    folder = os.open(job, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("below", dir_fd=folder)
        deeper = os.open("below", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    os.close(folder)
    assert outcome("rmdir", f"{job}") == ""
    assert os.listdir(home) == []


def test_rmdir_leaves_what_is_mounted(home: Path) -> None:
    inside = home / ".gw_u_1" / "mounted"
    inside.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(inside)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        (inside / "file").write_bytes(b"")
        error = outcome("rmdir", f"{home}/.gw_u_1")
        assert error == f"cannot remove {inside}: another file system is mounted there"
        assert (inside / "file").exists()
    finally:
        subprocess.run(["umount", str(inside)], check=True)


def test_rmdir_while_somebody_writes(home: Path) -> None:
    job = home / ".gw_u_1"
    job.mkdir()
    has_ended = threading.Event()

    def write() -> None:
        number = 0
        while not has_ended.is_set():
            number += 1
            try:
                (job / str(number)).write_bytes(b"")
            except FileNotFoundError:
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        error = outcome("rmdir", f"{job}")
    finally:
        has_ended.set()
        writer.join()
    assert error in {"", f"cannot remove {job}: something goes on writing into it"}
    assert (error == "") == (not job.exists())


# --- options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--streams", "0"],
        ["--streams", "x"],
        ["--streams", "257"],
        ["--streams", "9" * 5000],
        ["--timeout", "-1"],
        ["--timeout", "nan"],
        ["--timeout", "1e300"],
        ["--timeout", "1e-300"],
        ["--host", ""],
        ["--host", "a b"],
        ["--host", "http://a"],
    ],
)
def test_bad_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_driver(*arguments)
    assert arguments[0] in capsys.readouterr().err
