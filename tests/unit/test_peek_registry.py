"""Which stream a job's number means."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gridmad.errors import UsageError
from gridmad.peek.registry import Registry, known_stream, state_folder
from gridmad.peek.stream import STREAM


def test_a_number_means_what_was_recorded_last(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "peek")
    assert registry.look_up("17") == "17"
    first = registry.record("17")
    assert STREAM.fullmatch(first)
    assert len(first) == 32
    assert Registry(tmp_path / "peek").look_up("17") == first
    second = registry.record("17")
    assert second != first
    assert registry.look_up("17") == second
    assert registry.record("17", "mine") == registry.look_up("17") == "mine"
    assert registry.look_up("18") == "18"


def test_only_numbers_are_recorded(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for text in ("", "017", "-1", "x", "../x", "1/2", "1\n", "٣", "9" * 20):
        with pytest.raises(UsageError):
            registry.record(text)
    assert registry.look_up("a.b") == "a.b"


@pytest.mark.parametrize("text", ["../etc/passwd", "a/b", "a\nb", "x" * 10_240, "", ".", "é"])
def test_what_is_no_stream_is_refused_in_few_words(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as error:
        Registry(tmp_path).look_up(text)
    assert len(str(error.value)) < 200
    assert str(error.value).isprintable()


def test_records_are_private(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        Registry(tmp_path / "gridmad" / "peek").record("17")
    finally:
        os.umask(umask)
    peek = tmp_path / "gridmad" / "peek"
    assert stat.S_IMODE(peek.stat().st_mode) == 0o700
    assert stat.S_IMODE((peek / "numbers").stat().st_mode) == 0o700
    [file] = (peek / "numbers").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.record("17")
    for content in (b"", b"a/b", b"\xff", b"x" * 1_000_000):
        (tmp_path / "numbers" / "17").write_bytes(content)
        with pytest.raises(UsageError, match="holds no stream id"):
            registry.look_up("17")


def test_a_record_is_no_link_to_elsewhere(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.record("17")
    (tmp_path / "numbers" / "18").symlink_to("17")
    with pytest.raises(UsageError):
        registry.look_up("18")


def test_many_record_at_once(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: registry.record("17"), range(50)))
        assert len(made) == 50
    assert registry.look_up("17") in made
    assert [file.name for file in (tmp_path / "numbers").iterdir()] == ["17"]


def test_where_the_state_is() -> None:
    assert state_folder({"XDG_STATE_HOME": "/s", "HOME": "/h"}) == Path("/s/gridmad/peek")
    assert state_folder({"HOME": "/h"}) == Path("/h/.local/state/gridmad/peek")
    for environment in ({}, {"HOME": "relative"}):
        with pytest.raises(UsageError):
            state_folder(environment)


def test_without_a_home_an_id_means_itself(tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    recorded = Registry(state_folder(environment)).record("17")
    assert known_stream("17", environment) == recorded
    assert known_stream("17", {}) == "17"
    with pytest.raises(UsageError):
        known_stream("a/b", {})
