"""The static driver: host lists and attribute files that people edit while it runs."""

import argparse
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gridmad.errors import UsageError
from gridmad.information import hostlist
from gridmad.information.hostlist import HostList
from gridmad.information.model import HostAttributes
from gridmad.information.static import DRIVER, StaticInformation


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A GW_LOCATION with two hosts whose files were written a while ago."""
    monkeypatch.setenv("GW_LOCATION", str(tmp_path))
    (tmp_path / "etc").mkdir()
    write(tmp_path / "etc/a.attr", "NODECOUNT=1")
    write(tmp_path / "etc/b.attr", 'NODECOUNT=2\nQUEUE_NAME[0]="q"')
    write(tmp_path / "etc/host.list", f"a.example etc/a.attr\nb.example {tmp_path}/etc/b.attr\n")
    return tmp_path


def write(path: Path, text: str, age: float = 10.0) -> None:
    path.write_text(text)
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hosts(location: Path, clock: Clock) -> Callable[[], dict[str, HostAttributes]]:
    """What a look at the list a while later finds."""
    host_list = HostList("etc/host.list", clock)

    def look() -> dict[str, HostAttributes]:
        clock.now += 1.0
        host_list.refresh()
        return host_list.attributes

    return look


Look = Callable[[], dict[str, HostAttributes]]


def driver(path: str) -> StaticInformation:
    parser = argparse.ArgumentParser()
    DRIVER.add_options(parser)
    return DRIVER(parser.parse_args(["-l", path]))


def test_hosts_and_attributes(location: Path) -> None:
    static = driver("etc/host.list")
    assert static.discover() == ["a.example", "b.example"]
    values = static.monitor(["b.example", "c.example"])
    known = values["b.example"]
    assert isinstance(known, HostAttributes)
    assert known.payload == b'SUCCESS NODECOUNT=2 QUEUE_NAME[0]="q"'
    assert "c.example" not in values


def test_a_change_is_heard_through_the_driver(
    location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostlist, "CHECK_INTERVAL", 0.0)
    monkeypatch.setattr(hostlist, "CHECK_SHARE", float("inf"))
    static = driver("etc/host.list")
    static.discover()
    write(location / "etc/host.list", "a.example etc/b.attr", age=5)
    assert static.discover() == ["a.example"]
    write(location / "etc/b.attr", "NODECOUNT=3", age=5)
    assert static.monitor(["a.example"]) == {"a.example": HostAttributes({"NODECOUNT": 3}, [])}


def test_unchanged_files_give_the_same_objects(location: Path, hosts: Look) -> None:
    first = hosts()
    assert hosts() is first
    (location / "etc/a.attr").touch()
    assert hosts()["a.example"] is first["a.example"]
    write(location / "etc/a.attr", "NODECOUNT=9", age=5)
    later = hosts()
    assert later["a.example"].host == {"NODECOUNT": 9}
    assert later["b.example"] is first["b.example"]


def test_a_change_within_one_tick_of_the_time_stamp_is_seen(location: Path, hosts: Look) -> None:
    path = location / "etc/a.attr"
    path.write_text("NODECOUNT=3")
    when = path.stat().st_mtime_ns
    assert hosts()["a.example"].host == {"NODECOUNT": 3}
    path.write_text("NODECOUNT=4")
    os.utime(path, ns=(when, when))
    assert hosts()["a.example"].host == {"NODECOUNT": 4}


def test_a_storm_of_requests_costs_one_look(location: Path, clock: Clock) -> None:
    host_list = HostList("etc/host.list", clock)
    host_list.refresh()
    write(location / "etc/a.attr", "NODECOUNT=9", age=5)
    clock.now += hostlist.CHECK_INTERVAL / 2
    host_list.refresh()
    assert host_list.attributes["a.example"].host == {"NODECOUNT": 1}
    clock.now += hostlist.CHECK_INTERVAL
    host_list.refresh()
    assert host_list.attributes["a.example"].host == {"NODECOUNT": 9}


def test_replaced_and_appended_lines_keep_what_is_known(location: Path, hosts: Look) -> None:
    first = hosts()
    write(
        location / "etc/host.list",
        f"# all\n\n  b.example {location}/etc/b.attr  \na.example etc/a.attr\nc.example etc/a.attr",
        age=5,
    )
    later = hosts()
    assert list(later) == ["b.example", "a.example", "c.example"]
    assert later["a.example"] is first["a.example"]


def test_what_is_wrong_is_said_once_and_the_rest_holds(
    location: Path, hosts: Look, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    write(location / "etc/bad.attr", "ARCH=i686\nNODECOUNT=7")
    write(location / "etc/empty.attr", "\n")
    write(
        location / "etc/host.list",
        "gone etc/gone.attr\nbad etc/bad.attr\nempty etc/empty.attr\nbad etc/a.attr\n"
        "alone\na.example etc/a.attr",
        age=5,
    )
    for _ in range(3):
        found = hosts()
    assert {host: found[host].host for host in found} == {
        "bad": {"NODECOUNT": 7},
        "a.example": {"NODECOUNT": 1},
    }
    said = [record.getMessage() for record in caplog.records]
    etc = location / "etc"
    assert len(said) == 4
    assert any(
        f"{etc}/host.list:1: {etc}/gone.attr: No such file" in text and "restore" in text
        for text in said
    )
    assert any(text.startswith(f"{etc}/bad.attr:1: 'i686' is no integer") for text in said)
    assert any(text.startswith(f"{etc}/empty.attr: no attributes in it") for text in said)
    assert any(
        text.startswith(f"{etc}/host.list:4: host bad stands on line 2 already") for text in said
    )


def test_files_just_written_are_read_again_but_complained_of_once(
    location: Path, hosts: Look, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("host.list", "a.attr"):
        path = location / "etc" / name
        path.write_text(path.read_text() + "\nbad etc/none.attr")
    for _ in range(3):
        hosts()
    assert caplog.text.count("none.attr: No such file") == 1
    assert caplog.text.count("a.attr:2: 'bad' is no assignment") == 1


def test_what_was_read_holds_while_files_are_gone(
    location: Path, hosts: Look, caplog: pytest.LogCaptureFixture
) -> None:
    first = hosts()
    (location / "etc/a.attr").unlink()
    (location / "etc/host.list").rename(location / "etc/host.list.old")
    assert hosts() is first
    assert "the hosts read before still hold" in caplog.text
    assert "what was read before still holds" in caplog.text
    (location / "etc/host.list.old").rename(location / "etc/host.list")
    write(location / "etc/a.attr", "NODECOUNT=8")
    assert hosts()["a.example"].host == {"NODECOUNT": 8}


def test_bytes_that_are_no_text_are_survived(location: Path, hosts: Look) -> None:
    (location / "etc/a.attr").write_bytes(b'OS_NAME="\xff\x00" NODECOUNT=1 \xfe')
    found = hosts()["a.example"]
    assert found.host["NODECOUNT"] == 1
    assert b"\x00" not in found.payload


def test_paths_are_found_below_gw_location_or_here(
    location: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path_factory.mktemp("here")
    (here / "mine.list").write_text("a.example etc/a.attr")
    monkeypatch.chdir(here)
    assert driver("mine.list").discover() == ["a.example"]
    monkeypatch.delenv("GW_LOCATION")
    monkeypatch.chdir(location)
    assert driver("etc/host.list").discover() == ["a.example", "b.example"]


def test_a_list_that_is_not_there_is_an_error_of_usage(location: Path) -> None:
    with pytest.raises(UsageError) as told:
        driver("etc/other.list")
    assert str(told.value) == (
        "-l etc/other.list: no such host list: there is no file "
        f"{location}/etc/other.list nor {Path.cwd()}/etc/other.list"
    )
    with pytest.raises(UsageError, match=f"there is no file {location}$"):
        driver(str(location))


def test_a_byte_order_mark_is_no_part_of_a_name(location: Path, hosts: Look) -> None:
    for name in ("host.list", "a.attr"):
        path = location / "etc" / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    found = hosts()
    assert list(found) == ["a.example", "b.example"]
    assert found["a.example"].host == {"NODECOUNT": 1}


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_names_of_files_are_bytes_in_any_locale(tmp_path: Path, locale: str) -> None:
    names = ["h€st", b"\xff\x85".decode("utf-8", "surrogateescape")]
    for name in names:
        (tmp_path / name).write_text("NODECOUNT=1")
    text = "".join(f"host{number} {name}\n" for number, name in enumerate(names))
    (tmp_path / "Å.list").write_bytes(text.encode("utf-8", "surrogateescape"))
    code = (
        "import sys; from gridmad.information.hostlist import HostList; "
        "hosts = HostList(sys.argv[1]); hosts.refresh(); print(*hosts.attributes)"
    )
    told = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code, "Å.list"],
        env={"GW_LOCATION": str(tmp_path), "LC_ALL": locale, "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=True,
    )
    assert told.stdout == b"host0 host1\n"
