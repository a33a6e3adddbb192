"""The player itself: drivers that break one rule each, and whether it notices."""

import sys
import textwrap
from pathlib import Path

import pytest

from tests.conformance.gwd import Family, Player, number, scan

DRIVER = """\
import sys

def say(text):
    sys.stdout.write(text)
    sys.stdout.flush()

for line in sys.stdin:
    words = line.split()
    if words[0] == "FINALIZE":
        break
    {body}
"""
SOUND = {
    "information": 'say(f"{words[0]} {words[1]} SUCCESS -\\n")',
    "execution": 'say(f"{words[0]} {words[1]} SUCCESS " + ("-" if words[0] == "INIT" else "ACTIVE")'
    ' + "\\n")',
    "transfer": 'say(f"{words[0]} {words[1]} {words[2]} SUCCESS -\\n")',
}


def play(tmp_path: Path, family: Family, body: str, *requests: str, jobs: int = 0) -> list[str]:
    """The breaches of a driver with this loop."""
    if family != "information":
        body = 'words[1] = words[1] if words[0] != "INIT" else "-"\n' + body
    path = tmp_path / "driver"
    text = DRIVER.replace("{body}", textwrap.indent(body, "    ").strip())
    path.write_text(f"#!{sys.executable} -S\n{text}")
    path.chmod(0o755)
    gwd = Player(str(path), family, [""], tmp_path, {})
    try:
        gwd.initialise(jobs)
        gwd.ask(*requests)
        gwd.settle(0.5)
        gwd.finalise()
    finally:
        gwd.kill()
    return gwd.breaches


@pytest.mark.parametrize(
    ("family", "request_line"),
    [
        ("information", "MONITOR 3 h -"),
        ("execution", "POLL 12345 - -"),
        ("transfer", "CP 9999 3 - a b"),
    ],
)
def test_a_sound_driver_breaks_no_rule(tmp_path: Path, family: Family, request_line: str) -> None:
    assert play(tmp_path, family, SOUND[family], request_line) == []


@pytest.mark.parametrize(
    ("rule", "family", "body", "request_line"),
    [
        (4, "information", 'say("hello there, my friend\\n")', ""),
        (8, "information", 'say(f"{words[0]} {words[1]} SUCCESS\\n")', "MONITOR 3 h -"),
        (8, "information", 'say(f"{words[0]} {words[1]} SUCCESS -\\r\\n")', "MONITOR 3 h -"),
        (8, "information", SOUND["information"] + '; say("\\n")', "MONITOR 3 h -"),
        (8, "information", 'say(f"{words[0]} {words[1]} DONE -\\n")', "MONITOR 3 h -"),
        (
            9,
            "information",
            'say(f"{words[0]} {words[1]} SUCCESS " + "x" * 70000 + "\\n")',
            "MONITOR 3 h -",
        ),
        (10, "transfer", SOUND["transfer"], "CP 11997 3 - a b"),
        (12, "information", SOUND["information"] + " if words[1] == '-' else 0", "MONITOR 3 h -"),
        (12, "information", SOUND["information"] + "\n" + SOUND["information"], "MONITOR 3 h -"),
        (12, "information", 'say(f"{words[0]} - SUCCESS -\\n")', "MONITOR 3 h -"),
        (12, "transfer", 'say(f"{words[0]} {words[1]} - SUCCESS -\\n")', "CP 1 3 - a b"),
        (
            15,
            "information",
            'say(f"{words[0]} {words[1]} SUCCESS CPU_MHZ=2.5\\n")',
            "MONITOR 3 h -",
        ),
        (
            15,
            "information",
            'say(f"{words[0]} {words[1]} SUCCESS QUEUE_NAME=\\"q\\"\\n")',
            "MONITOR 3 h -",
        ),
        (
            20,
            "execution",
            'say(f"CALLBACK {words[1]} SUCCESS ACTIVE\\n") if words[1] != "-" else 0\n'
            + SOUND["execution"],
            "SUBMIT 1 h f",
        ),
        (22, "execution", 'say(f"{words[0]} {words[1]} SUCCESS -\\n")', "POLL 1 - -"),
        (
            23,
            "execution",
            SOUND["execution"]
            + '\nsay(f"CALLBACK {words[1]} SUCCESS ACTIVE\\n" * 2) if words[1] != "-" else 0',
            "SUBMIT 1 h f",
        ),
        (
            27,
            "transfer",
            "say(f\"{words[0]} {words[1]} - {dict(END='FAILURE').get(words[0], 'SUCCESS')} -\\n\")",
            "END 1 - - - - ",
        ),
        (
            5,
            "information",
            SOUND["information"] + "\nwords[1] != '-' and sys.exit(3)",
            "MONITOR 3 h -",
        ),
    ],
)
def test_a_breach_is_noticed(
    tmp_path: Path, rule: int, family: Family, body: str, request_line: str
) -> None:
    breaches = play(tmp_path, family, body, *([request_line] if request_line else []))
    expected = 12 if rule == 10 else rule
    assert any(breach.startswith(f"rule {expected}: ") for breach in breaches), breaches


def test_a_driver_that_does_not_end_is_noticed(tmp_path: Path) -> None:
    body = 'say("INIT - SUCCESS -\\n")\nimport time\ntime.sleep(60)'
    breaches = play(tmp_path, "information", body)
    assert "rule 5: the driver does not end" in breaches


def test_a_helper_that_is_left_and_holds_stdout_open_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "driver"
    path.write_text("#!/bin/sh\nread line; echo INIT - SUCCESS -; sleep 60 & read line\n")
    path.chmod(0o755)
    gwd = Player(str(path), "information", [""], tmp_path, {})
    gwd.initialise()
    gwd.close_stdin()
    gwd.process.wait(5)
    assert len(gwd.leftovers()) == 1
    with pytest.raises(AssertionError, match="rule 6"):
        gwd.__exit__(None, None, None)
    assert gwd.leftovers() == []


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("CP 5 3 SUCCESS -", ["CP", "5", "3", "SUCCESS", "-"]),
        ("CP 123456 3 SUCCESS -", ["CP", "12345", "6", "3", "SUCCESS -"]),
        ("CP 5", ["CP", "5"]),
        ("CP  5\t3 SUCCESS two words", ["CP", "5", "3", "SUCCESS", "two words"]),
    ],
)
def test_fields_are_cut_at_their_widths(line: str, fields: list[str]) -> None:
    assert scan(line, (20, 5, 5, 10)) == fields


def test_numbers_are_read_as_atoi_does() -> None:
    assert [number(text) for text in ("12", "+3", "11997+3", "119973", "-", "x")] == [
        12, 3, 11997, 119973, -1, -1
    ]  # fmt: skip
