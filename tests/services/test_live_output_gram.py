"""Jobs of a real GRAM5, watched by their numbers: `--peek` of gw_em_mad_prews."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.drivers import Site, Subject, gatekeeper
from tests.conformance.gwd import Player
from tests.peek_user import User, finish
from tests.services.ports import reserve_port
from tests.services.rabbitmq import RabbitMQ
from tests.services.test_live_output import PRINTER, digest, peek

PATIENCE = 90.0
JOBS = {17: 3, 18: 4}
"""Exit codes by the numbers of jobs."""
SHORT = '&(executable="/bin/sh")(arguments="-c" "exit {code}")'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A gatekeeper, whose jobs are at home elsewhere than the driver."""
    with Subject("gw_em_mad_prews", gatekeeper).site(tmp_path) as site:
        variables = (site.location / "etc/gwrc").read_text()
        site.write("etc/gwrc", f"{variables}MSGPEEK_LINGER={PATIENCE}\n")
        yield site


@pytest.fixture
def user(rabbitmq: RabbitMQ, tmp_path: Path) -> Iterator[User]:
    (tmp_path / "elsewhere").mkdir()
    one = User(rabbitmq, tmp_path / "elsewhere")
    yield one
    one.close()


def wait_for_files(folder: Path, count: int) -> None:
    end = time.monotonic() + PATIENCE
    while len(list(folder.glob("*"))) != count:
        assert time.monotonic() < end, f"there are not {count} files in {folder}"
        time.sleep(0.05)


def ended(gwd: Player, job: int) -> str:
    """The final state that was told of a job."""
    gwd.wait(lambda: gwd.has_ended(job), f"job {job} does not end", PATIENCE)
    return gwd.last_state(job)


def test_jobs_are_watched_by_what_was_fetched_once(
    site: Site, rabbitmq: RabbitMQ, user: User
) -> None:
    home = site.home
    script = home / "printer.sh"
    script.write_text(f"#!/bin/sh\ntr '\\0' '\\n' </proc/$PPID/cmdline >by.$1\n{PRINTER}")
    script.chmod(0o755)
    with peek(site, rabbitmq.url, rabbitmq) as gwd:
        # A driver is nice, and jobs wait some seconds only for what it has fetched for them.
        path = site.write("16", SHORT.format(code=0))
        gwd.ask_and_wait(f"SUBMIT 16 localhost/jobmanager-fork {path}", seconds=PATIENCE)
        wait_for_files(home / ".gridmad/files", 2)
        clients = {}
        lines = []
        for job, code in JOBS.items():
            clients[job] = user.start("-I", str(job), "--wait", "-F", f"{job}.log")
            text = f'&(executable="printer.sh")(arguments="{job}" "{code}")(stdout="out.{job}")'
            path = site.write(str(job), f'{text}(stderr="err.{job}")')
            lines.append(f"SUBMIT {job} localhost/jobmanager-fork {path}")
        answers = gwd.ask_and_wait(*lines, seconds=PATIENCE)
        assert all(" SUCCESS " in answer for answer in answers), answers
        for job, code in JOBS.items():
            assert ended(gwd, job) == f"DONE:{code}"
            assert finish(clients[job])[0] == code
            for copy, log, own in (
                (f"copy.{job}", f"{job}.log", f"out.{job}"),
                (f"copy2.{job}", f"{job}.log.err", f"err.{job}"),
            ):
                assert digest(home / copy) == digest(user.folder / log) == digest(home / own)
        (copied,) = home.glob(".msgpeek-*.pyz")
        for job in JOBS:
            assert copied.name in (home / f"by.{job}").read_text().splitlines()
            assert "MSGPEEK" not in (home / f"env.{job}").read_text()
    assert list(home.glob(".msgpeek-*")) == [copied]
    fetched = list((home / ".gridmad/files").iterdir())
    assert len(fetched) == 2  # with the login
    for path in fetched:
        assert path.stat().st_mode & 0o777 == 0o600
        assert digest(path) == path.name
    assert not list(home.glob("gram_scratch_*"))


def test_where_nothing_can_be_kept_jobs_run_as_ever(site: Site, rabbitmq: RabbitMQ) -> None:
    (site.home / ".gridmad").write_text("in the way")
    log = site.folder / "driver.log"
    site.arguments += f" --log-file {log}"
    with peek(site, rabbitmq.url, rabbitmq) as gwd:
        for job, code in JOBS.items():
            path = site.write(str(job), SHORT.format(code=code))
            assert gwd.ask_and_wait(
                f"SUBMIT {job} localhost/jobmanager-fork {path}", seconds=PATIENCE
            )
            assert ended(gwd, job) == f"DONE:{code}"
    told = [line for line in log.read_text().splitlines() if "does not get the inputs" in line]
    assert len(told) == 1
    assert "ended with exit code 1" in told[0]


def test_where_the_firewall_lets_only_callbacks_in_jobs_run_as_ever(
    site: Site, rabbitmq: RabbitMQ
) -> None:
    log = site.folder / "driver.log"
    site.arguments += f" --log-file {log}"
    port = reserve_port()
    variables = (site.location / "etc/gwrc").read_text()
    site.write("etc/gwrc", f"{variables}GLOBUS_TCP_PORT_RANGE={port},{port}\n")
    with peek(site, rabbitmq.url, rabbitmq) as gwd:
        path = site.write("17", SHORT.format(code=5))
        assert gwd.ask_and_wait(f"SUBMIT 17 localhost/jobmanager-fork {path}", seconds=PATIENCE)
        assert ended(gwd, 17) == "DONE:5"
    assert "no port is free for job managers to fetch files from" in log.read_text()
    assert not list(site.home.glob(".gridmad/files/*"))
