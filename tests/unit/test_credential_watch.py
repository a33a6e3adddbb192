"""Credentials on disk: renewed, ended, unsafe or gone."""

import argparse
import asyncio
import base64
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gridmad import credential_watch
from gridmad.credential import (
    CredentialSource,
    Kind,
    file_source,
    read_credential,
    slurm_source,
    token_source,
    validity,
)
from gridmad.credential_watch import CredentialWatch
from gridmad.errors import CredentialError, NotSubmittedError
from tests import proxies
from tests.proxies import write

NOW = float(int(time.time()))
DAY = 86400.0


def token(end: float) -> bytes:
    parts = [{"alg": "none"}, {"exp": end}]
    return b".".join(
        [
            *(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts),
            b"x",
        ]
    )


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(watch: CredentialWatch) -> AsyncIterator[list[str]]:
    """The watch runs; what it tells."""
    told: list[str] = []
    task = asyncio.create_task(watch.run(told.append))
    try:
        yield told
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def proxy_watch(path: Path, interval: float = 0.01) -> CredentialWatch:
    return CredentialWatch(file_source(Kind.PROXY, str(path)), interval=interval)


def test_it_is_told_at_first_and_when_it_is_renewed(tmp_path: Path) -> None:
    path = write(tmp_path / "proxy", proxies.proxy(NOW + DAY, NOW + 9 * DAY))

    async def test() -> None:
        watch = proxy_watch(path)
        async with running(watch) as told:
            await until(lambda: len(told) == 1)
            write(path, proxies.proxy(NOW + 2 * DAY))
            await until(lambda: len(told) == 2)
            assert told == [validity(NOW + DAY), validity(NOW + 2 * DAY)]
            assert (await watch.require_valid()).end == NOW + 2 * DAY
            os.utime(path)
            await watch.require_valid()
            assert len(told) == 2, "the same again is no renewal"

    run(test())


def test_who_asks_gets_the_new_one_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "proxy", proxies.proxy(NOW + DAY))

    async def test() -> None:
        watch = proxy_watch(path, interval=1e6)
        first = await watch.require_valid()
        assert await watch.require_valid() is first
        async with running(watch) as told:
            await until(lambda: bool(told))
            write(path, proxies.proxy(NOW + 2 * DAY))
            second = await watch.require_valid()
            assert second.content == path.read_bytes()
            path.write_bytes(proxies.proxy(NOW + 3 * DAY))  # in place
            assert (await watch.require_valid()).end == NOW + 3 * DAY
            assert told == [validity(NOW + days * DAY) for days in (1, 2, 3)]

    run(test())


def test_a_file_that_did_not_change_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "proxy", proxies.proxy(NOW + DAY))
    reads = 0
    real = read_credential

    def counted(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return real(*arguments)

    monkeypatch.setattr(credential_watch, "read_credential", counted)

    async def test() -> None:
        watch = proxy_watch(path)
        for _ in range(5):
            await watch.require_valid()

    run(test())
    assert reads == 1


def test_warnings_and_the_end_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    path = write(tmp_path / "token", token(NOW + DAY))
    clock = NOW
    monkeypatch.setattr(
        credential_watch, "time", SimpleNamespace(time=lambda: clock, ctime=time.ctime)
    )
    seen: list[tuple[str, str]] = []

    def logged() -> list[tuple[str, str]]:
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    async def test() -> None:
        nonlocal clock
        options = argparse.ArgumentParser()
        credential_watch.add_options(options)
        warnings = options.parse_args(["--credential-warnings", "7200,60"]).credential_warnings
        watch = CredentialWatch(
            file_source(Kind.TOKEN, str(path)), warnings=warnings, interval=0.01
        )
        async with running(watch) as told:
            await until(lambda: bool(told))
            for number, left in enumerate((7200, 60, 0)):
                clock = NOW + DAY - left - 0.001
                await asyncio.sleep(0.03)
                assert len(logged()) == number, "too early"
                clock = NOW + DAY - left
                await until(lambda number=number: len(logged()) > number)  # type: ignore[misc]
            await asyncio.sleep(0.03)
            seen.extend(logged())

    run(test())
    assert seen == [
        *[("WARNING", f"the token {path} will end on {time.ctime(NOW + DAY)}")] * 2,
        ("ERROR", f"the token {path} has ended; jobs keep their last states till it is renewed"),
    ]


def test_the_end_is_seen_in_time_though_nobody_looks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    end = time.time() + 0.5
    path = write(tmp_path / "token", token(end))

    async def test() -> None:
        async with running(CredentialWatch(file_source(Kind.TOKEN, str(path)), interval=1e6)):
            await until(lambda: "has ended" in caplog.text)
            assert time.time() >= end

    run(test())


def test_one_that_has_ended_holds_up_the_jobs_until_it_is_renewed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "proxy", proxies.proxy(NOW - 1, NOW + DAY))

    async def test() -> None:
        watch = proxy_watch(path)
        async with running(watch) as told:
            with pytest.raises(NotSubmittedError, match=f"the proxy {path} ended on"):
                await watch.require_valid()
            await until(lambda: "has ended" in caplog.text)
            assert told == []
            write(path, proxies.proxy(NOW + DAY))
            await watch.require_valid()
            assert told == [validity(NOW + DAY)]

    run(test())
    assert caplog.text.count("has ended") == 1


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.chmod(0o640), "its mode is 0640"),
        (lambda path: path.chmod(0o604), "its mode is 0604"),
        (lambda path: path.write_bytes(b"half"), "no certificate"),
        (lambda path: path.write_bytes(b"x" * (2 << 20)), "more than"),
        (make_directory, "Is a directory"),
        (make_pipe, "it is no file"),
    ],
)
def test_what_cannot_be_used_is_said_and_taken_again_when_it_can(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], object],
    problem: str,
) -> None:
    path = write(tmp_path / "proxy", proxies.proxy(NOW + DAY))

    async def test() -> None:
        watch = proxy_watch(path)
        async with running(watch) as told:
            await until(lambda: bool(told))
            spoil(path)
            with pytest.raises(CredentialError, match=problem):
                await watch.require_valid()
            await until(lambda: bool(caplog.records))
            await asyncio.sleep(0.05)
            if path.is_dir():
                path.rmdir()
            write(path, proxies.proxy(NOW + 2 * DAY))
            assert (await watch.require_valid()).end == NOW + 2 * DAY

    run(test())
    # For a moment there may be nothing at all, which is another problem.
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len([record for record in errors if problem in record.getMessage()]) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "proxy", proxies.proxy(NOW + DAY))
    os.chown(path, 12345, -1)

    async def test() -> None:
        with pytest.raises(CredentialError, match="belongs to user 12345, and this is 0"):
            await proxy_watch(path).require_valid()

    run(test())


def test_a_token_of_the_environment() -> None:
    async def test() -> None:
        watch = CredentialWatch(slurm_source({"SLURM_JWT": token(NOW + DAY).decode()}))
        assert (await watch.require_valid()).end == NOW + DAY
        with pytest.raises(CredentialError, match="there is no token"):
            await CredentialWatch(slurm_source({})).require_valid()

    run(test())


def test_the_first_token_file_that_exists_counts(tmp_path: Path) -> None:
    common, private = tmp_path / "common", tmp_path / "private"
    source = CredentialSource(Kind.TOKEN, (str(private), str(common)))

    async def test() -> None:
        watch = CredentialWatch(source)
        with pytest.raises(CredentialError, match=f"{common}: No such file"):
            await watch.require_valid()
        write(common, token(NOW + DAY))
        assert (await watch.require_valid()).path == str(common)
        write(private, token(NOW + 2 * DAY))
        assert (await watch.require_valid()).path == str(private)
        private.unlink()
        assert (await watch.require_valid()).end == NOW + DAY

    run(test())


def test_discovery_finds_the_file_of_the_runtime_directory(tmp_path: Path) -> None:
    write(tmp_path / "bt_u7", token(NOW + DAY))

    async def test() -> None:
        source = token_source({"XDG_RUNTIME_DIR": str(tmp_path)}, 7)
        assert (await CredentialWatch(source).require_valid()).end == NOW + DAY

    run(test())
