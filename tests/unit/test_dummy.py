import argparse
import asyncio
import os
import shutil
import stat
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from gridmad.driver import Batch
from gridmad.errors import DriverError, UsageError
from gridmad.transfer.dummy import DummyTransfer
from gridmad.transfer.model import Copy

needs_gass = pytest.mark.skipif(
    shutil.which("globus-gass-server") is None,
    reason="globus-gass-server is not installed (package globus-gass-server-ez-progs)",
)


def make_driver(*arguments: str) -> DummyTransfer:
    parser = argparse.ArgumentParser()
    DummyTransfer.add_options(parser)
    return DummyTransfer(parser.parse_args(arguments))


def install(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program named as the GASS server first in PATH."""
    program = folder / "globus-gass-server"
    program.write_text(f"#!{sys.executable}\nimport sys, time, os\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def ended(pid: int) -> bool:
    """Wait up to five seconds for a process's end."""
    for _ in range(500):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.01)
    return False


async def copy(driver: DummyTransfer, *copies: Copy) -> Sequence[DriverError | None] | None:
    result = driver.copy(Batch(copies, lambda _index, _outcome: None))
    if result is None or isinstance(result, Sequence):
        return result
    return await result


@pytest.mark.parametrize(
    ("arguments", "url"), [((), ""), (("-u", "gsiftp://h:2811"), "gsiftp://h:2811")]
)
def test_staging_url(arguments: tuple[str, ...], url: str) -> None:
    driver = make_driver(*arguments)
    asyncio.run(driver.start())
    assert driver.staging_url == url
    asyncio.run(driver.stop())


@pytest.mark.parametrize(
    "url", ["", " ", "gsiftp://h x", "gsiftp://h\nb", "foo", "foo:bar", "://h", "gsiftp://"]
)
def test_bad_url(url: str) -> None:
    with pytest.raises(UsageError, match="is no URL"):
        make_driver("-u", url)


def test_an_url_goes_before_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')", monkeypatch)
    driver = make_driver("-g", "-i", "-u", "gsiftp://h")
    asyncio.run(driver.start())
    assert driver.staging_url == "gsiftp://h"
    assert not (tmp_path / "ran").exists()


def test_nothing_is_done(tmp_path: Path) -> None:
    driver = make_driver()
    urls: Batch[str, None] = Batch([f"{tmp_path}/x", "nonsense"], lambda _i, _o: None)
    for operation in (driver.mkdir, driver.rmdir, driver.exists):
        assert operation(urls) == [None, None]
    output = tmp_path / "stdout.wrapper.0"
    output.write_bytes(b"")
    output.chmod(0o600)
    copies = Copy("gsiftp://h/~/stdout.wrapper", f"file://{output}"), Copy("/no", "/where/at/all")
    assert driver.copy(Batch(copies, lambda _i, _o: None)) == [None, None]
    assert stat.S_IMODE(output.stat().st_mode) == 0o600


def test_gass_server_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DriverError, match="globus-gass-server is not installed"):
        asyncio.run(make_driver("-g").start())


def test_gass_server_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "print('no credentials'); sys.exit(1)", monkeypatch)
    with pytest.raises(DriverError, match="ended without a URL: no credentials"):
        asyncio.run(make_driver("-g").start())
    install(tmp_path, "sys.exit(1)", monkeypatch)
    with pytest.raises(DriverError, match="it said nothing"):
        asyncio.run(make_driver("-g").start())


def test_gass_server_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    install(tmp_path, script, monkeypatch)
    begin = time.monotonic()
    with pytest.raises(DriverError, match="told no URL within 4 seconds"):
        asyncio.run(make_driver("-g").start())
    assert time.monotonic() - begin < 4.9
    assert ended(int((tmp_path / "pid").read_text()))


def test_gass_server_that_ignores_the_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('https://h:' + str(os.getpid()), flush=True); time.sleep(60)"
    )
    install(tmp_path, script, monkeypatch)

    async def run() -> int:
        driver = make_driver("-g")
        await driver.start()
        pid = int(driver.staging_url.rpartition(":")[2])
        begin = time.monotonic()
        await driver.stop()
        assert time.monotonic() - begin < 0.8
        return pid

    assert ended(asyncio.run(run()))


def test_gass_server_that_talks_is_not_blocked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = tmp_path / "done"
    script = (
        "print('https://h:1', flush=True)\n"
        "for _ in range(100): print('x' * 10000, flush=True)\n"
        f"open({str(done)!r}, 'w'); time.sleep(60)"
    )
    install(tmp_path, script, monkeypatch)

    async def run() -> None:
        driver = make_driver("-g")
        await driver.start()
        for _ in range(500):
            if done.exists():
                break
            await asyncio.sleep(0.01)
        await driver.stop()

    asyncio.run(run())
    assert done.exists()


@needs_gass
@pytest.mark.parametrize(("option", "scheme"), [("-g", "https"), ("-i", "http")])
def test_real_gass_server(tmp_path: Path, option: str, scheme: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"contents")
    outputs = [tmp_path / name for name in ("stdout.wrapper.0", "stderr.wrapper.0", "other")]
    for output in outputs:
        output.write_bytes(b"")
        output.chmod(0o600)

    async def run() -> None:
        driver = make_driver(option)
        await driver.start()
        assert driver._server is not None
        pid = driver._server.pid
        url = driver.staging_url
        assert url.startswith(f"{scheme}://")
        if scheme == "http":
            port = url.rpartition(":")[2]
            data = await asyncio.to_thread(fetch, f"http://127.0.0.1:{port}{file}")
            assert data == b"contents"
        copies = [
            Copy(f"gsiftp://h/~/.gw_u_1/{output.name.removesuffix('.0')}", f"file://{output}")
            for output in outputs
        ]
        elsewhere = Copy("gsiftp://h/~/stdout.wrapper", f"gsiftp://h{outputs[2]}")
        assert await copy(driver, *copies, elsewhere) == [None] * 4
        await driver.stop()
        assert ended(pid)

    asyncio.run(run())
    assert [stat.S_IMODE(output.stat().st_mode) for output in outputs] == [0o644, 0o644, 0o600]


@needs_gass
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_real_gass_server_ends_with_a_killed_driver() -> None:
    program = (
        "import argparse, asyncio, os\n"
        "from gridmad.transfer.dummy import DummyTransfer as Driver\n"
        "async def run():\n"
        "    parser = argparse.ArgumentParser(); Driver.add_options(parser)\n"
        "    driver = Driver(parser.parse_args(['-i'])); await driver.start()\n"
        "    print(driver._server.pid, flush=True); os.kill(os.getpid(), 9)\n"
        "asyncio.run(run())"
    )

    async def run() -> int:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        pid = int(await child.stdout.readline())
        assert await child.wait() == -9
        return pid

    assert ended(asyncio.run(run()))


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        data: bytes = answer.read()
    return data
