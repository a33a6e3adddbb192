"""gw_em_mad_slurm --rest on a real slurmrestd."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.drivers import SUBJECTS, Site
from tests.services import slurm as services
from tests.services.slurm import SlurmCluster
from tests.services.test_slurm import (
    UNSHARED,
    number,
    request,
    shown,
    wait_for_ends,
    wait_for_state,
)

(SUBJECT,) = (subject for subject in SUBJECTS if subject.label == "gw_em_mad_slurm by slurmrestd")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with SUBJECT.site(tmp_path) as site:
        yield site
        services.shared().run("scancel", f"--user={os.getuid()}")


@pytest.mark.parametrize("state", ["", UNSHARED], ids=["status files", "none"])
def test_exit_codes(site: Site, state: str) -> None:
    ends = {0: "DONE:0", 1: "DONE:7", 2: "DONE:137", 3: "DONE:137"}
    texts = ("exit 0", "exit 7", "kill -9 $$", "kill -9 $PPID")
    site.arguments += f" {state}"
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(*(request(site, job, text) for job, text in enumerate(texts)))
        wait_for_ends(gwd, ends)


def test_what_a_job_asks_for_and_gets(site: Site, slurm: SlurmCluster) -> None:
    seen = site.folder / "seen"
    wants = "<queue>long</queue><count>3</count><maxWallTime>17</maxWallTime>"
    wants += "<maxMemory>50</maxMemory>"
    with site.play() as gwd:
        gwd.initialise()
        refused, taken = sorted(
            gwd.ask_and_wait(
                request(site, 1, "exit 0", "<queue>nowhere</queue>"),
                request(site, 2, f"env >{seen}; sleep 1", wants),
            )
        )
        assert refused == "SUBMIT 1 FAILURE slurmrestd: Invalid partition name specified"
        assert " SUCCESS " in taken
        assert shown(slurm, number(gwd, 2), "%P %C %l %m") == "long 3 17:00 50M"
        wait_for_ends(gwd, {2: "DONE:0"})
    variables = dict(line.partition("=")[::2] for line in seen.read_text().splitlines())
    assert variables["HOME"] == str(site.home)
    assert variables["GW_HOSTNAME"] == "localhost"
    assert "SLURM_JWT" not in variables


def test_waiting_and_running_jobs_are_cancelled(site: Site) -> None:
    site.arguments += f" {UNSHARED}"
    with site.play() as gwd:
        gwd.initialise()
        large = "<count>100</count>"
        gwd.ask_and_wait(request(site, 1, "sleep 300", large))
        wait_for_state(gwd, 1, "ACTIVE")
        gwd.ask_and_wait(*(request(site, job, "sleep 300", large) for job in (2, 3)))
        gwd.ask_and_wait("CANCEL 2 - -", "CANCEL 1 - -")
        gwd.wait(lambda: gwd.has_ended(1) and gwd.has_ended(2), "they do not end")
        assert gwd.last_state(2) == "DONE:143"
        assert gwd.last_state(1) in ("DONE:137", "DONE:143")
        wait_for_state(gwd, 3, "ACTIVE")


def test_a_token_that_is_over_and_renewed(site: Site, slurm: SlurmCluster) -> None:
    """Nothing is told of jobs meanwhile, and what is submitted waits."""
    token = site.location / "etc/token"
    good = token.read_text()
    gate, runs = site.folder / "gate", site.folder / "runs"
    site.arguments += f" {UNSHARED}"
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(request(site, 1, f"while ! [ -e {gate} ]; do sleep 0.1; done; exit 3"))
        wait_for_state(gwd, 1, "ACTIVE")
        # One that is not over by its own words, and that slurmctld does not take.
        head, claims, _ = good.split(".")
        _replace(token, f"{head}.{claims}.{'A' * 43}")
        gwd.ask(request(site, 2, f"echo run >>{runs}; exit 4"))
        gate.touch()
        assert not gwd.wait(lambda: gwd.has_ended(1) or not gwd.open, None, 1.5)
        assert gwd.last_state(1) == "ACTIVE"
        _replace(token, good)
        wait_for_ends(gwd, {1: "DONE:3", 2: "DONE:4"})
        assert not [line for line in gwd.answers if " FAILURE " in line]
    assert runs.read_text() == "run\n"


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.rename(path)
