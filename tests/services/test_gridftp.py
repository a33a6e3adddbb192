"""gw_tm_mad_ftp with real GridFTP servers: two with GSI, and one for anybody."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.gwd import Player
from tests.services.gram import shared_authority
from tests.services.grid_pki import GridAuthority
from tests.services.gridftp import GridFtp, require
from tests.services.transfers import IS_LARGE

DRIVER = shutil.which("gw_tm_mad_ftp", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
TIME = 100.0
"""Seconds for what takes long on a busy machine."""
MIB = 1 << 20
NAMES = [
    "plain", "100%41", "a%20b", "q\"uo'te", "h\u00f6he-\u65e5\u672c", "#x?y=1", "semi;colon",
    "x&y=z", "back\\slash", "~tilde", "*glob?", "[brackets]", "-dash", "$HOME", "`id`", "a:b@c",
]  # fmt: skip


class Site:
    """A gwd's side, and the drivers it starts."""

    def __init__(self, folder: Path, server: GridFtp) -> None:
        self.folder = folder
        self.server = server
        self.proxy = folder / "proxy"
        self.put_proxy(server.proxy)
        self._drivers: list[Player] = []

    def put_proxy(self, proxy: Path) -> None:
        part = self.folder / "proxy.part"
        part.write_bytes(proxy.read_bytes())
        part.chmod(0o600)
        part.rename(self.proxy)

    def driver(self, options: str = "", environment: dict[str, str] | None = None) -> Player:
        assert DRIVER is not None
        player = Player(
            DRIVER,
            "transfer",
            [f"--gridftp-port {self.server.port} --log-file {self.folder}/log {options}"],
            self.folder / "gw",
            {
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "GW_LOCATION": str(self.folder / "gw"),
                **self.server.environment,
                "X509_USER_PROXY": str(self.proxy),
                **(environment or {}),
            },
        )
        self._drivers.append(player)
        player.initialise()
        return player

    def close(self) -> None:
        for player in self._drivers:
            player.kill()
            assert not player.breaches, player.breaches


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridFtp]:
    require()
    with GridFtp(tmp_path_factory.mktemp("other")) as server:
        yield server


@pytest.fixture(scope="module")
def anonymous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GridFtp, Path]]:
    """A server for anybody, and a folder that anybody may write to."""
    require()
    folder = Path(tempfile.mkdtemp(prefix="gridmad-anonymous-"))
    folder.chmod(0o777)
    try:
        with GridFtp(tmp_path_factory.mktemp("anonymous"), is_anonymous=True) as server:
            yield server, folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def site(tmp_path: Path, gridftp: GridFtp) -> Iterator[Site]:
    site = Site(tmp_path, gridftp)
    yield site
    site.close()


def job(number: int) -> str:
    """The URL of a job's directory."""
    return f"gsiftp://localhost/~/.gw_me_{number}"


def ask(gwd: Player, *requests: str, seconds: float = TIME) -> dict[str, str]:
    """The answers by what they answer, `CP 1 0` or `MKDIR 1 -`: SUCCESS or why not."""
    answers = {}
    for line in gwd.ask_and_wait(*requests, seconds=seconds):
        operation, number, transfer, rest = line.split(" ", 3)
        answers[f"{operation} {number} {transfer}"] = rest.removesuffix(" -")
    return answers


def begin(gwd: Player, number: int) -> None:
    """The beginning of a job's phase."""
    url = job(number)
    requests = f"START {number} - - - - ", f"RMDIR {number} - - {url}/ - "
    answers = ask(gwd, *requests, f"MKDIR {number} - - {url}/ - ")
    assert set(answers.values()) == {"SUCCESS"}


def copy(gwd: Player, source: object, destination: object, mode: str = "-") -> str:
    """What became of one copy."""
    return ask(gwd, f"CP 1 0 {mode} {source} {destination}")["CP 1 0"]


def left(folder: Path) -> set[str]:
    return set(os.listdir(folder))


# --- copies -----------------------------------------------------------------------------


def test_names(site: Site) -> None:
    content = {name: os.urandom(len(name)) for name in NAMES}
    source, back = site.folder / "source", site.folder / "back"
    source.mkdir()
    back.mkdir()
    for name, data in content.items():
        (source / name).write_bytes(data)
    gwd = site.driver()
    begin(gwd, 1)
    up = [f"CP 1 {i} - file://{source}/{name} {job(1)}/{name}" for i, name in enumerate(NAMES)]
    assert set(ask(gwd, *up).values()) == {"SUCCESS"}
    there = site.server.home / ".gw_me_1"
    assert {name: (there / name).read_bytes() for name in os.listdir(there)} == content
    down = [f"CP 1 {i} - {job(1)}/{name} file://{back}/{name}" for i, name in enumerate(NAMES)]
    assert set(ask(gwd, *down).values()) == {"SUCCESS"}
    assert {name: (back / name).read_bytes() for name in os.listdir(back)} == content
    assert ask(gwd, f"RMDIR 1 - - {job(1)}/ - ") == {"RMDIR 1 -": "SUCCESS"}
    assert not there.exists()


def test_names_with_blanks_in_a_tree_that_is_removed(site: Site) -> None:
    """No request can name them, but jobs make them."""
    gwd = site.driver()
    begin(gwd, 1)
    folder = site.server.home / ".gw_me_1"
    for name in ("a b", "a b/c  d", "a b/ ", " lead"):
        (folder / name).mkdir()
        (folder / name / "f \\ile").write_text("x")
    (folder / "a b/c  d/\u00e4 %20").write_text("x")
    (folder / os.fsdecode(b"no\xfftext")).write_text("x")
    assert ask(gwd, f"RMDIR 1 - - {job(1)}/ - ") == {"RMDIR 1 -": "SUCCESS"}
    assert not folder.exists()


@pytest.mark.parametrize("mode", ["extended", "stream"])
@pytest.mark.parametrize("checksum", ["none", "adler32", "md5"])
def test_sizes(site: Site, other: GridFtp, mode: str, checksum: str) -> None:
    """There, to the other server, and back."""
    gwd = site.driver(f"--gridftp-mode {mode} --checksum {checksum}")
    begin(gwd, 1)
    for size in (0, 1, 5 * MIB + 7):
        data = os.urandom(size)
        (site.folder / "a").write_bytes(data)
        assert copy(gwd, site.folder / "a", f"{job(1)}/a", "X") == "SUCCESS"
        there = site.server.home / ".gw_me_1/a"
        assert there.read_bytes() == data
        assert os.access(there, os.X_OK)
        assert copy(gwd, f"{job(1)}/a", f"{other.url}/~/a") == "SUCCESS"
        assert (other.home / "a").read_bytes() == data
        assert copy(gwd, f"{other.url}{other.home}/a", f"file://{site.folder}/b") == "SUCCESS"
        assert (site.folder / "b").read_bytes() == data
    assert left(there.parent) == {"a"}
    assert left(other.home) == {"a"}


def test_by_way_of_here(site: Site, anonymous: tuple[GridFtp, Path]) -> None:
    """Between servers that do not speak with each other; the server for anybody needs no proxy."""
    server, folder = anonymous
    data = os.urandom(3 * MIB + 1)
    (site.folder / "a").write_bytes(data)
    gwd = site.driver()
    begin(gwd, 1)
    assert copy(gwd, site.folder / "a", f"{server.url}{folder}/a") == "SUCCESS"
    assert copy(gwd, f"{server.url}{folder}/a", f"{job(1)}/a") == "SUCCESS"
    assert copy(gwd, f"{job(1)}/a", f"{server.url}{folder}/b") == "SUCCESS"
    assert (folder / "b").read_bytes() == data
    assert left(folder) == {"a", "b"}


def test_many_small_files(site: Site) -> None:
    count = 10_000 if IS_LARGE else 1000
    source = site.folder / "source"
    source.mkdir()
    for number in range(count):
        (source / str(number)).write_bytes(b"%d\n" % number)
    gwd = site.driver()
    begin(gwd, 1)
    up = [f"CP 1 {n} - file://{source}/{n} {job(1)}/{n}" for n in range(count)]
    assert set(ask(gwd, *up, seconds=10 * TIME).values()) == {"SUCCESS"}
    there = site.server.home / ".gw_me_1"
    assert left(there) == {str(n) for n in range(count)}
    for number in range(count):
        assert (there / str(number)).read_bytes() == b"%d\n" % number
    assert set(ask(gwd, f"RMDIR 1 - - {job(1)}/ - ", seconds=TIME).values()) == {"SUCCESS"}
    assert not there.exists()


def test_a_large_file(site: Site, other: GridFtp) -> None:
    size = (1024 if IS_LARGE else 64) * MIB
    piece = os.urandom(MIB)
    digest = hashlib.sha256()
    with (site.folder / "a").open("wb") as file:
        for number in range(size // MIB):
            data = number.to_bytes(8, "big") + piece[8:]
            file.write(data)
            digest.update(data)
    gwd = site.driver()
    begin(gwd, 1)
    assert copy(gwd, site.folder / "a", f"{job(1)}/a") == "SUCCESS"
    (site.folder / "a").unlink()
    assert copy(gwd, f"{job(1)}/a", f"{other.url}/~/large") == "SUCCESS"
    assert copy(gwd, f"{other.url}/~/large", site.folder / "b") == "SUCCESS"
    with (site.folder / "b").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == digest.digest()
    for path in (other.home / "large", site.folder / "b"):
        path.unlink()
    assert set(ask(gwd, f"RMDIR 1 - - {job(1)}/ - ").values()) == {"SUCCESS"}


def test_memory_with_64_transfers_under_way(site: Site) -> None:
    source = site.folder / "a"
    with source.open("wb") as file:
        file.truncate(8 * MIB)
    gwd = site.driver("--per-endpoint 64")
    begin(gwd, 1)
    requests = [f"CP 1 {n} - {source} {job(1)}/{n}" for n in range(128)]
    assert set(ask(gwd, *requests, seconds=3 * TIME).values()) == {"SUCCESS"}
    peak = int(gwd.status()["VmHWM"].split()[0])
    assert peak <= 100 * 1024
    assert set(ask(gwd, f"RMDIR 1 - - {job(1)}/ - ").values()) == {"SUCCESS"}


def test_an_existing_target_is_replaced(site: Site) -> None:
    (site.folder / "a").write_bytes(b"new")
    (site.folder / "b").write_bytes(b"an old and longer one")
    gwd = site.driver()
    begin(gwd, 1)
    there = site.server.home / ".gw_me_1/a"
    there.write_bytes(b"an old and longer one")
    assert copy(gwd, site.folder / "a", f"{job(1)}/a") == "SUCCESS"
    assert there.read_bytes() == b"new"
    assert copy(gwd, f"{job(1)}/a", site.folder / "b") == "SUCCESS"
    assert (site.folder / "b").read_bytes() == b"new"


# --- failures ---------------------------------------------------------------------------


def test_what_cannot_be(site: Site) -> None:
    (site.folder / "a").write_bytes(b"content")
    gwd = site.driver()
    begin(gwd, 1)
    assert copy(gwd, f"{job(1)}/none", site.folder / "b") == (
        f"FAILURE cannot read {job(1)}/none: No such file or directory"
    )
    assert copy(gwd, site.folder / "none", f"{job(1)}/a") == (
        f"FAILURE cannot read {site.folder}/none: No such file or directory"
    )
    assert copy(gwd, site.folder / "a", f"{job(1)}/no/such/a") == (
        f"FAILURE cannot write {job(1)}/no/such/a: No such file or directory"
    )
    assert copy(gwd, site.folder / "a", f"{site.server.url}/no/such/a") == (
        f"FAILURE cannot write {site.server.url}/no/such/a: No such file or directory"
    )
    (site.server.home / ".gw_me_1/folder").mkdir()
    assert copy(gwd, site.folder / "a", f"{job(1)}/folder") == (
        f"FAILURE cannot write {job(1)}/folder: Is a directory"
    )
    assert copy(gwd, f"{job(1)}/folder", site.folder / "b") == (
        f"FAILURE cannot read {job(1)}/folder: it is a directory"
    )
    assert left(site.server.home / ".gw_me_1") == {"folder"}
    assert not (site.folder / "b").exists()


def test_no_permission(site: Site, anonymous: tuple[GridFtp, Path]) -> None:
    if os.geteuid() != 0:
        pytest.skip("the server is allowed what we are")
    server, folder = anonymous
    (site.folder / "a").write_bytes(b"content")
    secret = folder / "secret"
    secret.mkdir(mode=0o700, exist_ok=True)
    (folder / "unreadable").touch(mode=0o600)
    gwd = site.driver()
    assert copy(gwd, site.folder / "a", f"{server.url}{secret}/a") == (
        f"FAILURE cannot write {server.url}{secret}/a: Permission denied"
    )
    assert copy(gwd, f"{server.url}{folder}/unreadable", site.folder / "b") == (
        f"FAILURE cannot read {server.url}{folder}/unreadable: Permission denied"
    )
    answer = ask(gwd, f"MKDIR 1 - - {server.url}{secret}/b - ")["MKDIR 1 -"]
    assert answer == f"FAILURE cannot make {server.url}{secret}/b: Permission denied"
    assert not left(secret)


def test_full_disk(site: Site, tmp_path: Path) -> None:
    small = site.server.home / "small"
    small.mkdir()
    options = ("-o", "size=1m", "-t", "tmpfs", "tmpfs", str(small))
    if os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True).returncode:
        small.rmdir()
        pytest.skip("nothing can be mounted here")
    try:
        (site.folder / "a").write_bytes(bytes(4 * MIB))
        # Now and then all that Globus tells is that the connection was closed.
        gwd = site.driver("--retries 20")
        answer = copy(gwd, site.folder / "a", f"{site.server.url}/~/small/a")
        assert answer == (
            f"FAILURE cannot write {site.server.url}/~/small/a: No space left on device"
        )
        end = time.monotonic() + TIME
        while left(small):
            assert time.monotonic() < end, "something is left"
            time.sleep(0.05)
        begin(gwd, 1)
        (site.server.home / ".gw_me_1/a").write_bytes(bytes(4 * MIB))
        answer = copy(gwd, f"{job(1)}/a", small / "a")
        assert answer == f"FAILURE cannot read {job(1)}/a: No space left on device"
        assert not left(small)
    finally:
        subprocess.run(["umount", str(small)], check=True)
        small.rmdir()


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_server_that_is_killed_in_mid_copy_and_comes_back(tmp_path: Path, direction: str) -> None:
    size = 128 * MIB
    with GridFtp(tmp_path / "server") as server:
        site = Site(tmp_path, server)
        gwd = site.driver("--retries 8")
        begin(gwd, 1)
        here, there = site.folder, server.home / ".gw_me_1"
        source, target = (here, there) if direction == "up" else (there, here)
        with (source / "a").open("wb") as file:
            file.truncate(size)
            file.seek(size - 5)
            file.write(b"end!!")
        for attempt in range(50):
            copied = target / f"copy{attempt}"
            if direction == "up":
                gwd.ask(f"CP 1 0 - {here}/a {job(1)}/{copied.name}")
            else:
                gwd.ask(f"CP 1 0 - {job(1)}/a {copied}")
            end = time.monotonic() + TIME
            while not any(part.stat().st_blocks for part in target.glob(".gridmad-*")):
                assert time.monotonic() < end, "no copy begins"
                if copied.exists():
                    break
            server.freeze()
            if not copied.exists():
                break
            # It was faster than we.
            server.kill()
            server.start()
            gwd.settle(TIME)
            copied.unlink()
        server.kill()
        assert not copied.exists()
        server.start()
        gwd.settle(TIME)
        assert gwd.answers[-1] == "CP 1 0 SUCCESS -"
        assert copied.stat().st_size == size
        with copied.open("rb") as file:
            file.seek(size - 5)
            assert file.read() == b"end!!"
        end = time.monotonic() + TIME
        while list(target.glob(".gridmad-*")):
            assert time.monotonic() < end, "something is left"
            time.sleep(0.05)
        site.close()


def test_a_copy_between_servers_of_which_one_hangs(site: Site, tmp_path: Path) -> None:
    with GridFtp(tmp_path / "server") as source:
        with (source.home / "a").open("wb") as file:
            file.truncate(256 * MIB)
        gwd = site.driver("--stall 2 --retries 0")
        begin(gwd, 1)
        there = site.server.home / ".gw_me_1"
        for attempt in range(50):
            copied = there / f"copy{attempt}"
            gwd.ask(f"CP 1 0 - {source.url}/~/a {job(1)}/{copied.name}")
            end = time.monotonic() + TIME
            while not any(part.stat().st_size for part in there.glob(".gridmad-*")):
                assert time.monotonic() < end, "no copy begins"
                if copied.exists():
                    break
            source.freeze()
            if not copied.exists():
                break
            # It was faster than we.
            source.kill()
            source.start()
            gwd.settle(TIME)
            copied.unlink()
        gwd.settle(TIME)
        assert gwd.answers[-1].startswith("CP 1 0 FAILURE ")
        assert gwd.answers[-1].endswith("nothing has moved for 2 seconds")
        end = time.monotonic() + TIME
        while left(there):
            assert time.monotonic() < end, "something is left"
            time.sleep(0.05)


def test_a_server_that_is_away(site: Site, tmp_path: Path) -> None:
    with GridFtp(tmp_path / "server") as server:
        gwd = site.driver(f"--retries 1 --gridftp-port {server.port}")
        begin(gwd, 1)
        server.kill()
        answer = copy(gwd, "/dev/null", f"{job(1)}/a")
        assert answer.startswith(f"FAILURE cannot reach gsiftp://localhost:{server.port}: ")
        assert "Connection refused" in answer
        server.start()
        assert copy(gwd, "/dev/null", f"{job(1)}/a") == "SUCCESS"


GIVES_UP = """
import asyncio, random, sys
from gridmad.transfer.gridftp_client import Client

async def give_up(client, url):
    for _ in range(10):
        handle = client.handle(is_extended=True)
        asking = asyncio.create_task(handle.mlst(url))
        await asyncio.sleep(random.uniform(0, 0.1))
        asking.cancel()
        await asyncio.wait([asking])
        await handle.close()

async def main():
    client = Client()
    await client.load()
    await asyncio.gather(*[give_up(client, sys.argv[1].encode()) for _ in range(4)])

asyncio.run(main())
"""


def test_connections_that_are_given_up_at_any_moment(site: Site) -> None:
    """The library frees what it still uses when it is told to abort while a reply comes."""
    variables = {**os.environ, **site.server.environment, "X509_USER_PROXY": str(site.proxy)}
    url = f"{site.server.url}/"
    subprocess.run([sys.executable, "-c", GIVES_UP, url], env=variables, check=True, timeout=TIME)


# --- credentials ------------------------------------------------------------------------


def test_a_server_of_another_authority(site: Site, tmp_path: Path) -> None:
    authority = GridAuthority(tmp_path / "other-pki")
    with GridFtp(tmp_path / "server", authority=authority) as server:
        gwd = site.driver()
        answer = copy(gwd, "/dev/null", f"{server.url}/~/a")
        assert answer.startswith(f"FAILURE cannot reach {server.url}: ")
        assert not left(server.home)


def test_an_expired_proxy_and_a_renewed_one(site: Site) -> None:
    old = site.server.authority.proxy(
        site.server.user, f"expired-{site.server.port}", days=-1
    ).proxy
    site.put_proxy(old)
    gwd = site.driver()
    assert copy(gwd, "/dev/null", f"{job(1)}/a").startswith(
        f"FAILURE the proxy {site.proxy} ended on "
    )
    site.put_proxy(site.server.proxy)
    begin(gwd, 1)
    assert copy(gwd, "/dev/null", f"{job(1)}/a") == "SUCCESS"


def test_a_proxy_that_others_can_read(site: Site) -> None:
    site.proxy.chmod(0o644)
    gwd = site.driver()
    answer = copy(gwd, "/dev/null", f"{job(1)}/a")
    assert "its mode is 0644; nobody but its owner may read it" in answer


def test_a_user_whom_the_server_does_not_know(site: Site) -> None:
    stranger = shared_authority().user("mallory")
    site.put_proxy(shared_authority().proxy(stranger, f"mallory-{site.server.port}").proxy)
    gwd = site.driver()
    answer = copy(gwd, "/dev/null", f"{job(1)}/a")
    assert answer.startswith(f"FAILURE cannot reach gsiftp://localhost:{site.server.port}: ")
    assert "Login incorrect" in answer


# --- what must stay where it is ---------------------------------------------------------


def test_links_do_not_lead_out(site: Site) -> None:
    outside = site.folder / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    gwd = site.driver()
    begin(gwd, 1)
    folder = site.server.home / ".gw_me_1"
    (folder / "sub").mkdir()
    (folder / "sub/link").symlink_to(outside)
    (folder / "link").symlink_to(outside)
    (folder / "file").symlink_to(outside / "precious")
    (folder / "dangling").symlink_to("nowhere")
    (site.folder / "a").write_text("new")
    # reading
    for name in ("file", "link/precious", "sub/link/precious"):
        assert "symbolic link" in copy(gwd, f"{job(1)}/{name}", site.folder / "b")
    assert not (site.folder / "b").exists()
    # writing
    for name in ("link/new", "sub/link/new"):
        assert "symbolic link" in copy(gwd, site.folder / "a", f"{job(1)}/{name}")
    assert copy(gwd, site.folder / "a", f"{job(1)}/file") == "SUCCESS"
    assert (outside / "precious").read_text() == "precious"
    assert not (folder / "file").is_symlink()
    # directories
    for request in ("RMDIR 1 - - {}/link/x/ - ", "MKDIR 1 - - {}/link/x/ - "):
        (answer,) = ask(gwd, request.format(job(1))).values()
        assert "symbolic link" in answer
    assert "leads out" in copy(gwd, site.folder / "a", f"{job(1)}/../x")
    assert "leads out" in next(iter(ask(gwd, f"RMDIR 1 - - {job(1)}/.. - ").values()))
    assert ask(gwd, f"RMDIR 1 - - {job(1)}/ - ") == {"RMDIR 1 -": "SUCCESS"}
    assert not folder.exists()
    assert left(outside) == {"precious"}


def test_a_jobs_directory_that_is_a_link(site: Site) -> None:
    outside = site.folder / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    link = site.server.home / ".gw_me_2"
    link.symlink_to(outside)
    gwd = site.driver()
    assert "symbolic link" in copy(gwd, f"{job(2)}/precious", site.folder / "b")
    assert "symbolic link" in copy(gwd, site.folder / "proxy", f"{job(2)}/x")
    assert "symbolic link" in ask(gwd, f"MKDIR 2 - - {job(2)}/ - ")["MKDIR 2 -"]
    assert ask(gwd, f"RMDIR 2 - - {job(2)}/ - ") == {"RMDIR 2 -": "SUCCESS"}
    assert not link.is_symlink()
    assert left(outside) == {"precious"}


def test_directories_of_jobs_are_private(site: Site) -> None:
    gwd = site.driver()
    begin(gwd, 1)
    folder = site.server.home / ".gw_me_1"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert ask(gwd, f"MKDIR 1 - - {job(1)}/a/b/c/ - ") == {"MKDIR 1 -": "SUCCESS"}
    assert (folder / "a/b/c").is_dir()
    (folder / "f").touch()
    assert "File exists" in ask(gwd, f"MKDIR 1 - - {job(1)}/f/ - ")["MKDIR 1 -"]


# --- the end ----------------------------------------------------------------------------


def test_it_ends_in_time_with_copies_under_way(site: Site) -> None:
    source = site.folder / "a"
    with source.open("wb") as file:
        file.truncate(256 * MIB)
    gwd = site.driver()
    begin(gwd, 1)
    gwd.ask(*(f"CP 1 {n} - {source} {job(1)}/{n}" for n in range(20)))
    folder = site.server.home / ".gw_me_1"
    end = time.monotonic() + TIME
    while not left(folder):
        assert time.monotonic() < end, "no copy begins"
    gwd.finalise()
    for name in left(folder):
        assert name.startswith(".gridmad-") or (folder / name).stat().st_size == 256 * MIB
    shutil.rmtree(folder)
