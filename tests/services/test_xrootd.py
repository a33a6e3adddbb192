"""Files of XRootD servers: root:// on real ones.

The library keeps what it reads of the environment for the life of the process: what it is given
elsewhere is tried in processes of their own.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.grid_pki import GridAuthority, Identity
from tests.services.transfers import NAMES, Contract, content, run, transfers, until
from tests.services.xrootd import Door, XRootD
from tests.transfer_player import played


@pytest.fixture(scope="module")
def environment(xrootd: XRootD) -> Iterator[None]:
    """For the whole module: the library reads it once."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in xrootd.environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def server(xrootd: XRootD, environment: None) -> Door:
    return Door(xrootd, xrootd.root, "--xrootd-home /data --xrootd-delegate")


class TestXRootD(Contract):
    """The contract."""

    odd_names = NAMES
    sees_links = False
    checksum = "adler32"


def test_between_two_servers(
    server: Door, other_xrootd: XRootD, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        data = content(3_000_000)
        (server.folder / "source").write_bytes(data)
        server.own(server.folder / "source")
        async with transfers(f"{server.arguments} --checksum adler32") as driver:
            assert await driver.copy(f"{server.url}/source", f"{other_xrootd.root}/copy") == ""
        assert (other_xrootd.data / "copy").read_bytes() == data
        assert os.listdir(other_xrootd.data) == ["copy"]
        # The servers did it among themselves.
        assert "xrdcp" in (other_xrootd.folder / "xrootd.out").read_text()

    run(main())


@pytest.mark.parametrize("protocol", ["root", "https"])
def test_a_source_that_stands_still_while_another_server_fetches(
    server: Door, other_xrootd: XRootD, protocol: str
) -> None:
    source = server.folder / "sparse"
    with source.open("wb") as file:
        file.truncate(1 << 40)
    server.own(source)

    async def main() -> None:
        one, other = getattr(server.xrootd, protocol), getattr(other_xrootd, protocol)
        async with transfers(f"{server.arguments} --stall 3 --retries 0") as driver:
            copying = asyncio.create_task(driver.copy(f"{one}/sparse", f"{other}/stalled"))
            await until(lambda: bool(arrived()), "nothing comes")
            with server.xrootd.held():
                told = await asyncio.wait_for(copying, 60)
                assert "nothing has moved for 3 seconds" in told
                # Others are served meanwhile.
                assert await driver.mkdir(f"{other}/.gw_tester_9") == ""
        assert not (other_xrootd.data / "stalled").exists()

    def arrived() -> list[Path]:
        return [path for path in other_xrootd.data.glob(".gridmad-*") if path.stat().st_size]

    try:
        run(main())
    finally:
        source.unlink()


def test_between_kinds_of_servers(server: Door, other_xrootd: XRootD) -> None:
    async def main() -> None:
        data = content(3_000_000)
        (server.folder / "source").write_bytes(data)
        server.own(server.folder / "source")
        async with transfers(server.arguments) as driver:
            assert await driver.copy(f"{server.url}/source", f"{other_xrootd.https}/one") == ""
            assert await driver.copy(f"{other_xrootd.https}/one", f"{server.url}/two") == ""
        assert (server.folder / "two").read_bytes() == data

    run(main())


def test_names_that_the_protocol_does_not_have(server: Door) -> None:
    async def main() -> None:
        async with transfers(server.arguments) as driver:
            assert "'?'" in await driver.exists(f"{server.url}/what?authz=x")
            assert "home" in await driver.exists(f"root://localhost:{server.xrootd.port}/~other/x")
            assert await driver.exists("root://a b/x") != ""
        async with transfers("") as driver:
            problem = await driver.exists(f"root://localhost:{server.xrootd.port}/~/x")
            assert "--xrootd-home" in problem

    run(main())


def test_no_permission(server: Door, tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "file").write_bytes(b"x")
        closed = server.folder / "closed"
        closed.mkdir(mode=0o755)
        (closed / "secret").write_bytes(b"x")
        (closed / "secret").chmod(0o600)
        async with transfers(server.arguments) as driver:
            assert "permission denied" in await driver.copy(
                tmp_path / "file", f"{server.url}/closed/file"
            )
            assert "permission denied" in await driver.copy(
                f"{server.url}/closed/secret", tmp_path / "secret"
            )
        assert os.listdir(closed) == ["secret"]
        assert not (tmp_path / "secret").exists()

    run(main())


def test_who_is_not_let_in(xrootd: XRootD, tmp_path: Path) -> None:
    """An expired proxy, none, and an authority that is not trusted: each in its own process."""
    expired = xrootd.authority.proxy(xrootd.user, f"expired-{xrootd.port}", days=-1)
    stranger = GridAuthority(tmp_path / "other")
    alice = stranger.proxy(stranger.user("alice"))
    trusted = str(xrootd.authority.certificates)
    for name, environment in {
        "expired": xrootd.authority.environment(expired),
        "none": {"X509_CERT_DIR": trusted, "X509_USER_PROXY": str(tmp_path / "no")},
        "stranger": {**stranger.environment(alice), "X509_CERT_DIR": trusted},
        "server": xrootd.authority.environment(Identity("", xrootd.proxy, xrootd.proxy))
        | {"X509_CERT_DIR": str(stranger.certificates)},
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        with played(folder, environment, "--retries 3") as driver:
            [answer] = driver.ask_and_wait(f"EXISTS 1 - - {xrootd.root} - ")
            assert " FAILURE " in answer, name
            assert "Auth failed" in answer, name


def test_a_library_that_is_not_there(server: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setitem(__import__("sys").modules, "XRootD", None)
        async with transfers(server.arguments) as driver:
            assert "pip install 'gridmad[xrootd]'" in await driver.exists(f"{server.url}/x")

    run(main())
