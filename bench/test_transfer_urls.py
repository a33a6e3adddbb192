"""Files over sftp, https and root://, against the programs of OpenSSH, curl and XRootD."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.conftest import IS_QUICK, Contest
from bench.folders import clean, set_aside
from bench.players import BIN, Player
from tests.services import sshd, xrootd
from tests.services.required import skip_without

LARGE = 1 << (25 if IS_QUICK else 30)
SMALL = 4096
FILES = 50 if IS_QUICK else 1000
JOB = ".gw_bench_1"


class Side:
    """A server, our driver, and the program that it is held against."""

    program: str
    url: str
    """Of the job's directory."""
    there: Path
    """Where that is on this machine."""

    def __init__(self, player: Player, here: Path) -> None:
        self.player = player
        self.here = here
        player.initialise(6)
        assert b"SUCCESS" in player.ask(b"START 1 - - - - \n")

    def up(self, source: Path, name: str) -> None:
        """What the program does to put a file there."""
        raise NotImplementedError

    def down(self, name: str, target: Path) -> None:
        """And to get it."""
        raise NotImplementedError

    def put(self, sources: Sequence[Path]) -> None:
        """And to put many."""
        raise NotImplementedError

    def copy(self, source: Path | str, destination: Path | str) -> None:
        answer = self.player.ask(f"CP 1 0 - {_url(source)} {_url(destination)}\n".encode())
        assert b"SUCCESS" in answer, answer

    def copies(self, sources: Sequence[Path]) -> None:
        requests = "".join(
            f"CP 1 {number} - file://{source} {self.url}/{source.name}\n"
            for number, source in enumerate(sources)
        )
        self.player.stream(requests.encode(), len(sources))


def _url(place: Path | str) -> str:
    return f"file://{place}" if isinstance(place, Path) else place


def _run(*words: str | Path, given: str | None = None) -> None:
    subprocess.run(words, check=True, input=given, text=True, capture_output=True)


class Sftp(Side):
    program = "sftp"

    def __init__(self, server: sshd.Sshd, player: Player, here: Path) -> None:
        self.url = f"sftp://{server.address}/~/{JOB}"
        self.there = server.home / JOB
        self._words = (
            *("sftp", "-q", "-b", "-", "-P", str(server.port), "-i", str(server.identity)),
            *("-o", f"UserKnownHostsFile={server.known_hosts}", "127.0.0.1"),
        )
        super().__init__(player, here)

    def up(self, source: Path, name: str) -> None:
        _run(*self._words, given=f"put {source} {self.there}/{name}\n")

    def down(self, name: str, target: Path) -> None:
        _run(*self._words, given=f"get {self.there}/{name} {target}\n")

    def put(self, sources: Sequence[Path]) -> None:
        _run(*self._words, given="".join(f"put {path} {self.there}/\n" for path in sources))


class Https(Side):
    program = "curl"

    def __init__(self, server: xrootd.XRootD, player: Player, here: Path) -> None:
        self.url = f"{server.https}/{JOB}"
        self.there = server.data / JOB
        login = (*("--cacert", str(server.authority.ca)), *("--cert", str(server.proxy)))
        self._words = ("curl", "--silent", "--fail", *login)
        super().__init__(player, here)

    def up(self, source: Path, name: str) -> None:
        _run(*self._words, "--upload-file", source, f"{self.url}/{name}")

    def down(self, name: str, target: Path) -> None:
        _run(*self._words, "--output", target, f"{self.url}/{name}")

    def put(self, sources: Sequence[Path]) -> None:
        names = ",".join(str(path) for path in sources)
        _run(*self._words, "--upload-file", f"{{{names}}}", f"{self.url}/")


class Root(Side):
    program = "xrdcp"

    def __init__(self, server: xrootd.XRootD, player: Player, here: Path) -> None:
        self.url = f"{server.root}/{JOB}"
        self.there = server.data / JOB
        self._environment = {**os.environ, **server.environment}
        super().__init__(player, here)

    def _xrdcp(self, *words: str | Path) -> None:
        subprocess.run(
            ["xrdcp", "--silent", "--force", *words],
            check=True,
            env=self._environment,
            capture_output=True,
        )

    def up(self, source: Path, name: str) -> None:
        self._xrdcp(source, f"{self.url}/{name}")

    def down(self, name: str, target: Path) -> None:
        self._xrdcp(f"{self.url}/{name}", target)

    def put(self, sources: Sequence[Path]) -> None:
        self._xrdcp(*sources, f"{self.url}/")


@pytest.fixture(params=[Sftp, Https, Root], ids=["sftp", "https", "root"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    kind: Callable[..., Side] = request.param
    with ExitStack() as stack:
        server: sshd.Sshd | xrootd.XRootD
        if kind is Sftp:
            if problem := sshd.missing():
                skip_without("sshd", problem)
            server = stack.enter_context(sshd.Sshd(tmp_path / "sshd", tmp_path / "home"))
            environment = {"HOME": str(tmp_path)}
            arguments = f"--known-hosts {server.known_hosts} --identity {server.identity}"
            folder = server.home / JOB
            folder.mkdir()
        else:
            xrootd.require()
            server = stack.enter_context(xrootd.XRootD())
            environment, arguments = server.environment, ""
            folder = server.data / JOB
            folder.mkdir()
            shutil.chown(folder, xrootd.ACCOUNT)
        player = Player([str(BIN / "gw_tm_mad_url"), arguments], environment)
        yield kind(server, stack.enter_context(player), tmp_path)


def test_large_files(contest: Contest, side: Side, tmp_path: Path) -> None:
    """One large file there; each side has its own name for it."""
    source = tmp_path / "source"
    with source.open("wb") as file:
        block = os.urandom(1 << 20)
        for _ in range(LARGE >> 20):
            file.write(block)
    contest.run(
        f"{LARGE >> 20} MiB up, {side.url.partition(':')[0]}",
        lambda: side.copy(source, f"{side.url}/ours"),
        lambda: side.up(source, "theirs"),
        against=side.program,
        floor=0.8,
        ambition=1 / 1.05,
        rounds=3,
        prepare=lambda: clean(side.there / "ours", side.there / "theirs"),
        note=lambda seconds: f"{(LARGE >> 20) / seconds:.0f} MiB/s",
    )
    assert (side.there / "ours").stat().st_size == LARGE


def test_large_files_back(contest: Contest, side: Side, tmp_path: Path) -> None:
    """One large file from there."""
    with (side.there / "source").open("wb") as file:
        block = os.urandom(1 << 20)
        for _ in range(LARGE >> 20):
            file.write(block)
    (side.there / "source").chmod(0o644)
    contest.run(
        f"{LARGE >> 20} MiB down, {side.url.partition(':')[0]}",
        lambda: side.copy(f"{side.url}/source", tmp_path / "ours"),
        lambda: side.down("source", tmp_path / "theirs"),
        against=side.program,
        floor=0.8,
        ambition=1 / 1.05,
        rounds=3,
        prepare=lambda: clean(tmp_path / "ours", tmp_path / "theirs"),
        note=lambda seconds: f"{(LARGE >> 20) / seconds:.0f} MiB/s",
    )
    assert (tmp_path / "ours").stat().st_size == LARGE


def test_small_files(contest: Contest, side: Side, tmp_path: Path) -> None:
    """Single CP requests, as gwd sends them for a phase, against one command for all files."""
    (tmp_path / "small").mkdir()
    sources = [tmp_path / "small" / f"file.{number}" for number in range(FILES)]
    for source in sources:
        source.write_bytes(bytes(SMALL))
    contest.run(
        f"{FILES} x 4 KiB up, {side.url.partition(':')[0]}",
        lambda: side.copies(sources),
        lambda: side.put(sources),
        against=f"{side.program}, all in one command",
        floor=0.15,
        ambition=1,
        rounds=3,
        prepare=lambda: set_aside(side.there),
        note=lambda seconds: f"{FILES / seconds:.0f} a second",
    )
    assert (side.there / sources[-1].name).stat().st_size == SMALL
