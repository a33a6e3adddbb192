"""Files over sftp, on a real sshd."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import sshd
from tests.services.required import skip_without
from tests.services.sshd import Sshd
from tests.services.transfers import Contract, run, transfers


class SftpServer:
    """An sshd as the contract wants it."""

    def __init__(self, server: Sshd) -> None:
        self.sshd = server

    @property
    def folder(self) -> Path:
        return self.sshd.home

    @property
    def url(self) -> str:
        return f"sftp://{self.sshd.address}/~"

    @property
    def arguments(self) -> str:
        return f"--known-hosts {self.sshd.known_hosts} --identity {self.sshd.identity}"

    def kill(self) -> None:
        self.sshd.stop()

    def start(self) -> None:
        self.sshd.start()

    def own(self, path: Path) -> None:
        """It runs as we do."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    if problem := sshd.missing():
        skip_without("sshd", problem)
    folder = tmp_path_factory.mktemp("sftp")
    with Sshd(folder / "sshd", folder / "home") as running:
        yield SftpServer(running)


class TestSftp(Contract):
    """The contract."""

    checksum = "auto"


def test_hosts_that_are_not_known(server: SftpServer, tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "known").write_text("")
        arguments = f"--known-hosts {tmp_path}/known --identity {server.sshd.identity}"
        async with transfers(arguments) as driver:
            problem = await driver.mkdir(f"{server.url}/.gw_tester_1")
            assert "ost key verification failed" in problem
        assert not (server.folder / ".gw_tester_1").exists()

    run(main())


def test_keys_that_are_refused(server: SftpServer, tmp_path: Path) -> None:
    async def main() -> None:
        sshd.make_key(tmp_path / "key")
        arguments = f"--known-hosts {server.sshd.known_hosts} --identity {tmp_path}/key"
        async with transfers(arguments) as driver:
            assert "ermission denied" in await driver.mkdir(f"{server.url}/.gw_tester_1")

    run(main())


def test_names_that_could_be_options(server: SftpServer, tmp_path: Path) -> None:
    async def main() -> None:
        async with transfers(server.arguments) as driver:
            for host in ("-oProxyCommand=x", "a b", "-v@localhost"):
                assert await driver.exists(f"sftp://{host}/~/x") != ""

    run(main())


def test_a_program_that_is_not_there(
    server: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with transfers(server.arguments) as driver:
            monkeypatch.setenv("PATH", str(tmp_path))
            problem = await driver.exists(f"{server.url}/x")
            assert "apt-get install openssh-client" in problem

    run(main())


def test_links_in_their_folder_are_followed(server: SftpServer, tmp_path: Path) -> None:
    async def main() -> None:
        folder = server.folder / ".gw_tester_2"
        folder.mkdir()
        (folder / "file").write_text("text")
        (folder / "link").symlink_to("file")
        (folder / "out").symlink_to("/etc/passwd")
        url = f"{server.url}/.gw_tester_2"
        async with transfers(server.arguments) as driver:
            assert await driver.copy(f"{url}/link", tmp_path / "back") == ""
            assert "symbolic link" in await driver.copy(f"{url}/out", tmp_path / "stolen")
            # A link in the place of a file is replaced.
            assert await driver.copy(tmp_path / "back", f"{url}/out") == ""
        assert (tmp_path / "back").read_text() == "text"
        assert not (folder / "out").is_symlink()
        assert not (tmp_path / "stolen").exists()

    run(main())
